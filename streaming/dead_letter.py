"""Events kept aside, whole, with the reason: writing and reading them.

Not here: why they were refused (decode.py), landing them again (replay.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg2
from psycopg2.extras import execute_values

from streaming.database import transaction
from streaming.decode import REASONS
from streaming.errors import ReplayError
from streaming.headers import headers_from_json, headers_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

    from streaming.batch import Batch
    from streaming.headers import Headers

INSERT = """
INSERT INTO control.dead_letter
    (topic, topic_partition, topic_offset, reason, field, detail, value, key, headers, produced_at)
VALUES %s
"""
PAGE_LETTERS = 200  # a letter may have a megabyte
COLUMNS = (
    "topic, topic_partition, topic_offset, reason, field, detail, value, key, headers, produced_at, landed_at, "
    "replayed_at, replay_batch"
)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One event kept aside."""

    topic: str
    topic_partition: int
    topic_offset: int
    reason: str
    field: str | None
    detail: str
    value: bytes | None
    key: bytes | None
    headers: Headers
    produced_at: datetime | None
    landed_at: datetime
    replayed_at: datetime | None
    replay_batch: int | None


def insert_dead_letters(cursor: Any, batch: Batch) -> None:
    """Write a batch's refused events, within the landing transaction."""
    if not batch.rejected:
        return
    rows = [
        (
            batch.topic,
            batch.topic_partition,
            letter.topic_offset,
            letter.refusal.reason,
            _storable(letter.refusal.field),
            _storable(letter.refusal.detail),
            None if letter.value is None else psycopg2.Binary(letter.value),
            None if letter.key is None else psycopg2.Binary(letter.key),
            headers_json(letter.headers),
            letter.produced_at,
        )
        for letter in batch.rejected
    ]
    execute_values(cursor, INSERT, rows, page_size=1000)


def _storable(text: str | None) -> str | None:
    """Postgres keeps neither U+0000 nor lone surrogates."""
    return None if text is None else text.replace("\0", "\\u0000").encode("utf-8", "replace").decode("utf-8")


def read_dead_letters(
    conn: Connection,
    topic: str | None = None,
    *,
    reason: str | None = None,
    at: tuple[int, int] | None = None,
    is_open: bool = True,
    limit: int | None = 100,
    after: tuple[int, int] | None = None,
) -> list[DeadLetter]:
    """Dead letters by topic partition and offset. `at`: one of them; `after`: those that follow it."""
    wanted, values = ["true"], list[Any]()
    for condition, value in (("topic = %s", topic), ("reason = %s", reason)):
        if value is not None:
            wanted.append(condition)
            values.append(value)
    if at is not None:
        wanted.append("topic_partition = %s AND topic_offset = %s")
        values.extend(at)
    if after is not None:
        wanted.append("(topic_partition, topic_offset) > (%s, %s)")
        values.extend(after)
    if is_open:
        wanted.append("replayed_at IS NULL")
    with transaction(conn) as cursor:
        cursor.execute(
            f"SELECT {COLUMNS} FROM control.dead_letter WHERE {' AND '.join(wanted)} "
            f"ORDER BY topic, topic_partition, topic_offset LIMIT %s",
            [*values, limit],
        )
        return [_letter(row) for row in cursor.fetchall()]


def iter_dead_letters(
    conn: Connection, topic: str, *, reason: str | None = None, is_open: bool = True
) -> Iterator[DeadLetter]:
    """All of a topic, page by page, so that memory stays bounded; letters may be replayed meanwhile."""
    after: tuple[int, int] | None = None
    while page := read_dead_letters(conn, topic, reason=reason, is_open=is_open, limit=PAGE_LETTERS, after=after):
        yield from page
        after = (page[-1].topic_partition, page[-1].topic_offset)


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    values: list[Any] = [bytes(item) if isinstance(item, memoryview) else item for item in row]
    values[8] = headers_from_json(values[8])
    return DeadLetter(*values)


def count_dead_letters(conn: Connection, topic: str) -> list[tuple[str, str | None, int, int]]:
    """Reason, field, open and replayed, most frequent first."""
    with transaction(conn) as cursor:
        cursor.execute(
            "SELECT reason, field, count(*) FILTER (WHERE replayed_at IS NULL), "
            "count(*) FILTER (WHERE replayed_at IS NOT NULL) "
            "FROM control.dead_letter WHERE topic = %s GROUP BY reason, field ORDER BY 3 DESC, 4 DESC, 1, 2",
            (topic,),
        )
        return list(cursor.fetchall())


def refuse_unknown_reason(conn: Connection, topic: str, reason: str | None) -> None:
    """Raises ReplayError for a reason that is none of today's, nor one that an older version wrote."""
    known = {*REASONS, *(found for found, *_ in count_dead_letters(conn, topic))}
    if reason is not None and reason not in known:
        raise ReplayError(
            f"looking for letters of {topic}: there is no reason {reason!r}. No letter was touched. Name one of "
            f"{', '.join(sorted(known))}."
        )


def show_value(letter: DeadLetter) -> str:
    """The value for people: JSON indented but else byte for byte, text as it is, bytes escaped."""
    if letter.value is None:
        return "(no value)"
    try:
        shown = msgspec.json.format(letter.value, indent=2)
    except (msgspec.DecodeError, RecursionError):
        shown = letter.value
    return shown.decode("utf-8", "backslashreplace")
