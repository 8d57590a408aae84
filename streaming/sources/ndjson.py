"""Events of any topic from lines of JSON, sent byte for byte.

Key and id are read by the topic's contract, if it has one.

A line that is no JSON object is sent all the same: the landing keeps it as a dead letter.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

from streaming.produce import Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streaming.contract import Contract

ID_LENGTH = 10_000  # it travels as a header, which no broker takes at any length
NAMESPACE = uuid.UUID("c0f7f0c6-9a55-4a4e-8a3a-60d9f7c2d1a2")


def read_ndjson_events(lines: Iterable[bytes], contract: Contract | None, *, name: str = "stdin") -> Iterator[Outgoing]:
    """One event a line; empty lines are left out, and the mark by which some editors begin a file in UTF-8."""
    keys = {field.name: field.event_key for field in contract.fields} if contract else {}
    key_field = keys.get(contract.message_key or "") if contract else None
    id_fields = [field.event_key for field in contract.fields if field.is_key] if contract else []
    time_field = keys.get(contract.event_time_field) if contract else None  # none: the message's own timestamp
    for number, line in enumerate(lines, start=1):
        value = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).rstrip(b"\r\n")
        if not value.strip():
            continue
        event = _read(value)
        yield Outgoing(
            key=_text(event.get(key_field)) if key_field is not None else None,
            value=value,
            event_id=_event_id(value, event, id_fields),
            event_time=_sendable(str(event.get(time_field, ""))) if time_field is not None else "",
            where=f"{name}:{number}",
        )


def _read(value: bytes) -> dict[str, Any]:
    try:
        event = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _text(value: Any) -> bytes | None:
    if value is None:
        return None
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "replace")


def _sendable(text: str) -> str:
    """JSON may hold half a character, which no encoding has: it is for the landing to refuse, not for us."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _event_id(value: bytes, event: dict[str, Any], id_fields: list[str]) -> str:
    """The contract's key if the event has it, at a sane length, else a fingerprint of the line."""
    if id_fields and all(isinstance(event.get(name), str | int) for name in id_fields):
        found = _sendable("/".join(str(event[name]) for name in id_fields))
        if len(found) <= ID_LENGTH:
            return found
    return str(uuid.uuid5(NAMESPACE, hashlib.sha256(value).hexdigest()))
