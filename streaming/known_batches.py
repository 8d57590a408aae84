"""Whether the batches that a reader has read are the lake's: after a restore, numbers can be given to other events.

A reader keeps the number of the last batch it has read, and when that batch landed. A batch that was written again
under the number has another time. If it is the same one, all before it are: numbers are given in commit order, and what
comes back from a backup is a beginning of them.
Not here: giving batches new numbers (restored.py).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from streaming.database import transaction
from streaming.errors import RestoredError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

Read = tuple[int, int | None]
"""The last batch that was read, and when it landed: microseconds since 1970, UTC; None where that was not kept."""

NAMED = 3  # enough to see what happened; a range of a year may have thousands, and each costs a count
# No rows where every batch is as it was read. In the loop of a run this is asked each cycle: nothing else is in it.
OTHERS = """
SELECT r.event_day, r.topic_partition, r.batch, r.landed_us, (extract(epoch FROM b.landed_at) * 1000000)::bigint
FROM unnest(%(days)s::date[], %(partitions)s::int[], %(batches)s::int[], %(landed_us)s::bigint[])
     AS r(event_day, topic_partition, batch, landed_us)
LEFT JOIN control.batch AS b ON b.topic = %(topic)s AND b.topic_partition = r.topic_partition AND b.batch = r.batch
WHERE b.batch IS NULL OR r.landed_us <> (extract(epoch FROM b.landed_at) * 1000000)::bigint
ORDER BY r.event_day, r.topic_partition
"""
# Numbers have no holes but those that `lake restored` leaves: one at the batch or above it means that the lake was told
# after that was written.
TOLD = """
SELECT o.next_batch, o.next_batch - %(batch)s > (
    SELECT count(*) FROM control.batch AS given WHERE given.topic = o.topic
    AND given.topic_partition = o.topic_partition AND given.batch >= %(batch)s
)
FROM control.offset AS o WHERE o.topic = %(topic)s AND o.topic_partition = %(partition)s
"""
RETIRED = """
SELECT last_batch FROM control.retired_day
WHERE topic = %(topic)s AND event_day = %(day)s AND topic_partition = %(partition)s AND rows > 0
"""


def confirm_read(conn: Connection, topic: str, read: Mapping[date, Mapping[int, Read]]) -> dict[date, dict[int, int]]:
    """How far a reader of some days can go on from: topic partition -> batch, for each of the days.

    What it has read, where that is the lake's. Where it is not, and the lake was told of its restore, nothing of the
    day's topic partition: the reader reads that again and keeps each event once. Rows that retention has taken out
    had been read before, so that begins behind them.

    Raises:
        RestoredError: the lake came back from a backup and was not told of it.
    """
    places = [(day, part, *last) for day, parts in read.items() for part, last in parts.items()]
    good = {day: {part: batch for part, (batch, _) in parts.items()} for day, parts in read.items()}
    if not places:
        return good
    names = ("days", "partitions", "batches", "landed_us")
    columns = {name: [place[at] for place in places] for at, name in enumerate(names)}
    untold: list[str] = []
    with transaction(conn) as cursor:
        cursor.execute(OTHERS, {"topic": topic, **columns})
        for day, part, batch, read_us, found_us in cursor.fetchall():
            place = {"topic": topic, "day": day, "partition": part, "batch": batch}
            cursor.execute(TOLD, place)
            next_batch, is_told = cursor.fetchone() or (1, False)
            if not is_told:
                untold.append(_said(day, part, batch, read_us, found_us, next_batch))
                if len(untold) == NAMED:
                    break
                continue
            good[day].pop(part)
            cursor.execute(RETIRED, place)
            for (last,) in cursor.fetchall():
                good[day][part] = last
    if untold:
        more = ", perhaps more" if len(untold) == NAMED else ""
        raise RestoredError(
            f"reading {topic} from where its reader has got: {'; '.join(untold)}{more}. The lake has come back from a "
            "backup: it gives batch numbers again that stand for other events, which would be missing without a word. "
            "Nothing was read or written. As the lake's owner run `streaming lake restored`: batches get numbers that "
            "were never given, and what has landed since the backup is read again, each event kept once "
            "(docs/runbooks/backup-and-restore.md)."
        )
    return good


def _said(*other: Any) -> str:
    day, part, batch, read_us, found_us, next_batch = other
    known = "" if read_us is None else f" that landed {_instant(read_us)}"
    there = f"the next one to land is {next_batch}" if found_us is None else f"that one landed {_instant(found_us)}"
    return f"of {day}, topic partition {part}, batch {batch}{known} was read, and in the lake {there}"


def _instant(microseconds: int) -> str:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return f"{at:%Y-%m-%d %H:%M:%S.%f} UTC"
