"""Where one event is in the lake: landed, a dead letter, a gap, or not read yet. Reached through the door `lake`.

Belongs here: reading the ledger for one offset. Does not: writing, the warehouse.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from streaming.database import transaction

if TYPE_CHECKING:
    from datetime import date, datetime

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

State = Literal["landed", "dead letter", "gap", "not landed yet", "before the first offset", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundEvent:
    """One offset and what became of it. What does not apply is None."""

    topic: str
    topic_partition: int
    topic_offset: int
    state: State
    detail: str
    event_day: date | None = None
    payload: str | None = None
    produced_at: datetime | None = None
    batch: int | None = None
    batch_kind: str | None = None
    landed_at: datetime | None = None
    reason: str | None = None
    replayed_at: datetime | None = None


def find_event(conn: Connection, topic: str, topic_partition: int, topic_offset: int) -> FoundEvent:
    """What became of an offset. A dead letter that was replayed is landed, and says so."""
    key = (topic, topic_partition, topic_offset)
    with transaction(conn) as cursor:
        cursor.execute(
            "SELECT o.first_offset, o.next_offset, s.stream FROM control.offset AS o "
            "JOIN control.stream AS s USING (topic) WHERE o.topic = %s AND o.topic_partition = %s",
            key[:2],
        )
        known = cursor.fetchone()
        if known is None:
            return _found(key, "unknown", "the lake has no such topic partition")
        first, following, stream = known
        if topic_offset >= following:
            return _found(key, "not landed yet", f"the next offset to land is {following}")
        if topic_offset < first:
            return _found(key, "before the first offset", f"landing began at offset {first}")
        letter = _dead_letter(cursor, key)
        found = _landed(cursor, key, stream, letter) or _kept_aside(key, letter) or _gap(cursor, key)
    nowhere = "neither landed, nor a dead letter, nor a gap: retention may have removed its rows"
    return found or _found(key, "unknown", nowhere)


def _kept_aside(key: tuple[str, int, int], letter: tuple[Any, ...] | None) -> FoundEvent | None:
    if letter is None:
        return None
    reason, field, detail, produced_at, landed_at, _replayed, _batch = letter
    text = f"{reason}{f' in {field}' if field else ''}: {detail}"
    return _found(key, "dead letter", text, reason=reason, produced_at=produced_at, landed_at=landed_at)


def _gap(cursor: Any, key: tuple[str, int, int]) -> FoundEvent | None:
    cursor.execute(
        "SELECT kind, detail, found_at FROM control.gap "
        "WHERE topic = %s AND topic_partition = %s AND %s BETWEEN first_offset AND last_offset",
        key,
    )
    gap = cursor.fetchone()
    return None if gap is None else _found(key, "gap", f"{gap[0]}: {gap[1]}", reason=gap[0], landed_at=gap[2])


def _found(key: tuple[str, int, int], state: State, detail: str, **more: Any) -> FoundEvent:
    topic, part, offset = key
    return FoundEvent(topic=topic, topic_partition=part, topic_offset=offset, state=state, detail=detail, **more)


def _dead_letter(cursor: Any, key: tuple[str, int, int]) -> tuple[Any, ...] | None:
    cursor.execute(
        "SELECT reason, field, detail, produced_at, landed_at, replayed_at, replay_batch FROM control.dead_letter "
        "WHERE topic = %s AND topic_partition = %s AND topic_offset = %s",
        key,
    )
    row: tuple[Any, ...] | None = cursor.fetchone()
    return row


def _landed(cursor: Any, key: tuple[str, int, int], stream: str, letter: tuple[Any, ...] | None) -> FoundEvent | None:
    cursor.execute(
        f"SELECT event_day, produced_at, payload FROM landing.{stream} "
        "WHERE topic_partition = %s AND topic_offset = %s",
        key[1:],
    )
    row = cursor.fetchone()
    if row is None:
        return None
    event_day, produced_at, payload = row
    replayed = letter is not None and letter[5] is not None
    cursor.execute(
        "SELECT b.batch, b.kind, b.landed_at FROM control.batch AS b WHERE b.topic = %s AND b.topic_partition = %s "
        "AND %s BETWEEN b.first_offset AND b.last_offset AND b.kind = %s ORDER BY b.batch LIMIT 1",
        (*key, "replay" if replayed else "landing"),
    )
    batch = cursor.fetchone() or (None, None, None)
    detail = f"day {event_day}, batch {batch[0]}"
    if replayed and letter is not None:
        detail += f"; it was a dead letter ({letter[0]}: {letter[2]}) until it was replayed at {letter[5]}"
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return _found(
        key, "landed", detail, event_day=event_day, payload=text, produced_at=produced_at, batch=batch[0],
        batch_kind=batch[1], landed_at=batch[2], replayed_at=letter[5] if replayed and letter else None,
    )  # fmt: skip
