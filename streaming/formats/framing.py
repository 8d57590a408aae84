"""Confluent's wire format: a magic byte and a schema id before the bytes, or the schema's GUID in a header. Pure.

Not here: the bytes behind it (avro.py, protobuf.py).
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from streaming.decode import Refusal

if TYPE_CHECKING:
    from streaming.headers import Headers

MAGIC_ID, MAGIC_GUID = 0, 1
ID_BYTES, GUID_BYTES = 5, 17
HIGHEST_ID = 2**31 - 1  # registries count in 32 bits with a sign; Confluent's answers beyond it as for a wrong path
GUID_HEADER = "__value_schema_id"


def schema_named(value: bytes, headers: Headers) -> str | Refusal:
    """Which schema a message names: its id, or its GUID."""
    content = _schema_header(headers)
    return _named_by(value, "the value") if content is None else _named_by(content, "the header __value_schema_id")


def _schema_header(headers: Headers) -> bytes | None:
    """What the header says; one without a value says nothing, as to Confluent's readers: the frame counts then."""
    return next((content for name, content in headers if name == GUID_HEADER), None)


def _named_by(content: bytes, what: str) -> str | Refusal:
    if content[:1] == b"\0" and len(content) >= ID_BYTES:
        number = int.from_bytes(content[1:ID_BYTES], "big")
        if number > HIGHEST_ID:  # not to be asked for: HTTP 404 without a code would be an outage, for ever
            return Refusal("unknown_schema", f"{what} names schema {number}; no registry has one above {HIGHEST_ID}")
        return str(number)
    if content[:1] == b"\1" and len(content) >= GUID_BYTES:
        return str(uuid.UUID(bytes=content[1:GUID_BYTES]))
    shown = content[:8].hex(" ") or "nothing"
    return Refusal("not_framed", f"{what} does not begin with a magic byte and a schema id, but with {shown}")


def strip_frame(value: bytes, headers: Headers) -> bytes | Refusal:
    """The bytes behind the frame, for JSON that was written with a schema registry; its contract is checked instead."""
    named = schema_named(value, headers)
    if isinstance(named, Refusal):
        return named
    if _schema_header(headers) is not None:
        return value
    return value[ID_BYTES if value[0] == MAGIC_ID else GUID_BYTES :]
