"""Messages of other formats -> messages whose value is the event's JSON; what they were stays beside it.

Pure but for the reader, which may ask a schema registry.
Not here: the formats (avro.py, protobuf.py, debezium.py), the checks of the event (decode.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streaming.decode import Refusal
from streaming.errors import StreamingError
from streaming.headers import read_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streaming.batch import Message
    from streaming.decode import Decoder
    from streaming.headers import Headers


@dataclass(frozen=True, slots=True)
class Translated:
    """A message, and the JSON that was read from its value; or why there is none; or a tombstone that is left out."""

    message: Message
    json: bytes | None
    refusal: Refusal | None = None
    is_left_out: bool = False

    def value(self) -> bytes | None:
        """The event's JSON."""
        return self.json

    def raw(self) -> bytes | None:
        """The value as it came."""
        return self.message.value()

    def key(self) -> bytes | None:
        """The key."""
        return self.message.key()

    def offset(self) -> int:
        """The offset."""
        return self.message.offset()

    def timestamp(self) -> tuple[int, int]:
        """Kind and milliseconds since 1970."""
        return self.message.timestamp()

    def headers(self) -> Headers | None:
        """Names and values, in order."""
        return self.message.headers()


def translate(decoder: Decoder, messages: Sequence[Message], *, most_bytes: int | None = None) -> list[Translated]:
    """Each message as the event that it holds; what was translated before stays as it is.

    `most_bytes` of JSON end it: fewer come back than were given, one at least. Avro of a wide row, mostly null, becomes
    fifty times as large: it is a byte a field, and JSON writes the name.
    """
    made, made_bytes = list[Translated](), 0
    for message in messages:
        made.append(message if isinstance(message, Translated) else _translate_one(decoder, message))
        made_bytes += len(made[-1].json or b"")
        if most_bytes is not None and made_bytes >= most_bytes:
            break
    return made


def _translate_one(decoder: Decoder, message: Message) -> Translated:
    contract, value = decoder.contract, message.value()
    if value is None:
        return Translated(message, None, is_left_out=contract.tombstones == "skip")
    if decoder.reader is None:
        return Translated(message, value)
    if len(value) > contract.maximum_payload_bytes:
        detail = f"{len(value)} bytes, the contract allows {contract.maximum_payload_bytes}"
        return Translated(message, None, Refusal("too_large", detail))
    try:
        found = decoder.reader(value, read_headers(message) or [])
    except StreamingError:
        raise  # the registry's trouble is no event's fault
    except Exception as error:  # noqa: BLE001 whatever bytes make a library raise, they must not stop their topic
        found = Refusal("undecodable", f"{type(error).__name__}: {error}"[:500])
    return Translated(message, None, found) if isinstance(found, Refusal) else Translated(message, found)


def raw_value(message: Message) -> bytes | None:
    """The value as it came."""
    return message.raw() if isinstance(message, Translated) else message.value()
