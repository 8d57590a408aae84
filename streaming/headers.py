"""Headers of Kafka messages: read, and kept as JSON. Pure. Not here: whether they are wanted (batch.py)."""

from __future__ import annotations

import base64
import json
from operator import methodcaller
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from streaming.batch import Message

Headers = list[tuple[str, bytes | None]]

CALL_HEADERS: Callable[[Any], Headers | None] = methodcaller("headers")
UNREADABLE: Headers = []  # stands, by its identity, for headers that could not be read
UNREADABLE_NAME = "the headers cannot be read: a name in them is not UTF-8"


def read_headers(message: Message) -> Headers | None:
    """The headers; None if confluent-kafka cannot hand them out, since a name in them is not UTF-8.

    Nobody else may call `message.headers()`: in that case its C code (2.16) answers with a list that has a hole, keeps
    it, and has an exception set, all at once. Python's own call of a method does not look for that once it runs
    quickly, and whoever touches the list brings the process down. `methodcaller` looks, and the list is taken away.
    """
    try:
        found = CALL_HEADERS(message)
    except (SystemError, UnicodeDecodeError):
        source: Any = getattr(message, "message", message)
        source.set_headers(UNREADABLE)
        return None
    return None if found is UNREADABLE else list(found or [])


def headers_json(headers: Headers) -> str:
    """Headers as they are kept with a dead letter: order, repeats and bytes survive."""
    return json.dumps([_header_entry(name, value) for name, value in headers])


def _header_entry(name: str, value: bytes | None) -> list[str | None]:
    if "\0" in name:  # jsonb has no U+0000: the name is encoded as well, which a fourth item tells
        safe_name = base64.b64encode(name.encode("utf-8")).decode("ascii")
        return [*_header_entry(safe_name, value), "base64"]
    if value is None:
        return [name, None, "utf8"]
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return [name, base64.b64encode(value).decode("ascii"), "base64"]
    return [name, text, "utf8"]


def headers_from_json(entries: list[list[str | None]]) -> Headers:
    """The inverse of `headers_json`, from the decoded document."""
    headers: Headers = []
    for name, value, encoding, *name_encoding in entries:
        raw = None if value is None else base64.b64decode(value) if encoding == "base64" else value.encode("utf-8")
        text = base64.b64decode(name or "").decode("utf-8") if name_encoding else name or ""
        headers.append((text, raw))
    return headers
