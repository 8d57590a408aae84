"""Which reader a contract needs: message value -> the JSON that lands. One interface for every format.

Not here: the formats themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from streaming.decode import Refusal
from streaming.formats.debezium import unwrap
from streaming.formats.framing import strip_frame

if TYPE_CHECKING:
    from streaming.contract import Contract
    from streaming.headers import Headers
    from streaming.settings import RegistrySettings


class PayloadReader(Protocol):
    """Reads values of one topic. Raises RegistryUnavailableError (try again) or RegistryError (a person decides)."""

    def __call__(self, value: bytes, headers: Headers) -> bytes | Refusal:
        """JSON of a value, or why there is none."""


def open_reader(contract: Contract, registry: RegistrySettings) -> PayloadReader | None:
    """The contract's reader; None if the value is the event's JSON already."""
    if contract.is_plain_json:
        return None
    inner = _open_format(contract, registry)
    if contract.envelope == "none":
        return inner

    def read(value: bytes, headers: Headers) -> bytes | Refusal:
        found = inner(value, headers)
        return found if isinstance(found, Refusal) else unwrap(found)

    return read


def _open_format(contract: Contract, registry: RegistrySettings) -> PayloadReader:
    if contract.payload_format == "json":
        return lambda value, headers: value  # noqa: ARG005 an envelope within plain JSON
    if contract.payload_format == "json_schema":
        return strip_frame
    from streaming.formats.registry import Registry  # noqa: PLC0415 0.5 s that topics of JSON need not pay

    opened = Registry(registry, topic=contract.topic, kind=contract.payload_format.upper())
    if contract.payload_format == "avro":
        from streaming.formats.avro import AvroReader  # noqa: PLC0415

        return AvroReader(contract.topic, opened, is_connect=contract.envelope == "debezium")
    from streaming.formats.protobuf import ProtobufReader  # noqa: PLC0415

    return ProtobufReader(contract.topic, opened)
