"""What retention has taken out of a day, for readers of it: a sum may count it, a read of events may not overlook it.

Not here: the retention itself (retention.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streaming.database import transaction
from streaming.errors import RetiredError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name


@dataclass(frozen=True, slots=True)
class RetiredRows:
    """Rows of a topic partition's day that are gone; the last of the day's batches by then."""

    rows: int
    checksum: int
    last_batch: int


def retired_rows(
    cursor: Any, topic: str, day: date, *, after: Mapping[int, int] | None, upto: Mapping[int, int] | None
) -> dict[int, RetiredRows]:
    """The retired rows in batches after[p] < batch <= upto[p], by topic partition; empty for a day that is whole.

    Asked in the transaction that has read the landing rows, after them: their lock keeps retention out from the reading
    on. Asked before, it would miss a retention that the reading then waits for, and the rows would be gone untold.

    Raises RetiredError if the question cuts through what is gone: that cannot be answered any more.
    """
    cursor.execute(
        "SELECT topic_partition, rows, checksum, last_batch FROM control.retired_day "
        "WHERE topic = %s AND event_day = %s AND rows > 0",
        (topic, day),
    )
    found = {number: RetiredRows(rows, int(checksum), last) for number, rows, checksum, last in cursor.fetchall()}
    asked = {}
    for number, retired in found.items():
        first, last = (after or {}).get(number, 0), retired.last_batch if upto is None else upto.get(number, 0)
        if first >= retired.last_batch or last <= 0:
            continue
        if first > 0 or last < retired.last_batch:
            raise RetiredError(
                f"counting {topic} {day} in batches {first + 1} to {last} of topic partition {number}: the contract's "
                f"retention has taken batches up to {retired.last_batch} out of landing as a whole. Ask for all of "
                f"them or for none."
            )
        asked[number] = retired
    return asked


def retired_days(conn: Connection, topic: str) -> set[date]:
    """Days of which retention has taken rows: they cannot be read whole any more."""
    with transaction(conn) as cursor:
        cursor.execute("SELECT DISTINCT event_day FROM control.retired_day WHERE topic = %s AND rows > 0", (topic,))
        return {day for (day,) in cursor.fetchall()}


def refuse_retired(topic: str, day: date, gone: Mapping[int, RetiredRows]) -> None:
    """Refuse to read events that are gone: a reader that rebuilt a day of the rest would lose what it has."""
    if gone:
        rows = sum(retired.rows for retired in gone.values())
        raise RetiredError(
            f"reading {topic} {day} from its start: the contract's retention has taken {rows} of its rows out of "
            f"landing. Nothing was read, so that no table is rebuilt of what is left. What was loaded before stays "
            f"right; batches that landed since can be read. To rebuild the day, restore landing from a backup."
        )
