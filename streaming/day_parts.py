"""How far to read of a day at once: as many of its next batches as a reader can hold.

A day of ten million events that nobody has read yet (a pipeline that was off for hours) is read by parts, each of which
the reader notes in its own ledger, as it does with what has landed since its last look.
Not here: reading them (lake.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streaming.database import transaction

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name


@dataclass(frozen=True, slots=True)
class DayPart:
    """Topic partition -> last batch to read, and when that landed (microseconds since 1970, UTC).

    `rows_left`: rows of the day that landed in later batches.
    """

    batches: dict[int, int]
    landed_us: dict[int, int]
    rows_left: int


# Batches of all topic partitions in turn, so that none is left for the end; a batch's bytes are shared among its days.
PART = """
WITH batches AS (
    SELECT d.topic_partition, d.batch, d.rows, (extract(epoch FROM b.landed_at) * 1000000)::bigint AS landed_us,
           b.payload_bytes * (d.rows::numeric / greatest(b.rows, 1)) AS bytes
    FROM control.batch_day AS d
    JOIN unnest(%(partitions)s::int[], %(after)s::int[], %(upto)s::int[]) AS u(topic_partition, after, upto)
      ON u.topic_partition = d.topic_partition AND d.batch > u.after AND d.batch <= u.upto
    LEFT JOIN control.batch AS b
      ON b.topic = d.topic AND b.topic_partition = d.topic_partition AND b.batch = d.batch
    WHERE d.topic = %(topic)s AND d.event_day = %(day)s
), held AS (
    SELECT *, row_number() OVER up_to_it = 1
              OR (sum(rows) OVER up_to_it <= %(most_rows)s AND coalesce(sum(bytes) OVER up_to_it, 0) <= %(most_bytes)s)
              AS is_held
    FROM batches
    WINDOW up_to_it AS (ORDER BY batch, topic_partition ROWS UNBOUNDED PRECEDING)
)
SELECT topic_partition, max(batch) FILTER (WHERE is_held),
       (array_agg(landed_us ORDER BY batch DESC) FILTER (WHERE is_held))[1],
       coalesce(sum(rows) FILTER (WHERE NOT is_held), 0)
FROM held GROUP BY topic_partition ORDER BY topic_partition
"""


def next_part(
    conn: Connection,
    topic: str,
    *,
    day: date,
    after: Mapping[int, int],
    upto: Mapping[int, int],
    most_rows: int,
    most_bytes: int,
) -> DayPart:
    """The next batches of a day after[p] < batch <= upto[p] with so many rows and bytes of values; one batch at least.

    A topic partition of which none comes next is not named.
    """
    with transaction(conn) as cursor:
        cursor.execute(
            PART,
            {
                "topic": topic,
                "day": day,
                "partitions": list(upto),
                "after": [after.get(part, 0) for part in upto],
                "upto": list(upto.values()),
                "most_rows": most_rows,
                "most_bytes": most_bytes,
            },
        )
        found = cursor.fetchall()
    return DayPart(
        batches={part: batch for part, batch, _, _ in found if batch is not None},
        landed_us={part: at for part, _, at, _ in found if at is not None},
        rows_left=int(sum(left for *_, left in found)),
    )
