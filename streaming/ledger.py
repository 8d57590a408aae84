"""The ledger: who owns a topic partition, and how far it has got. The fence is here.

Each claim raises `epoch`, the fencing token. A batch moves `next_offset` only from where its consumer believes it to
be, and only under the consumer's own epoch: a consumer that was paused, lost its topic partition and wakes up moves
nothing.
Not here: rows (landing.py), dead letters (dead_letter.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streaming.batch import Batch, Gap
from streaming.errors import FencedError, TopicRecreatedError

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANNEL = "landed"
WRITER_NAME = "streaming writer"  # application_name of the writers' sessions
CLAIM_LOCK_S = 3.0  # a landing transaction takes under 1 s; below 1 s a slow disk loses its batch for nothing
WRITE_LOCK_S = 10.0  # our own session before a cut may still hold the offset; without a limit we would wait for ever
STUCK_S = 3.0


@dataclass(slots=True)
class Claim:
    """A topic partition as one consumer owns it. `is_live` is withdrawn when the consumer loses it."""

    topic: str
    topic_partition: int
    next_offset: int
    epoch: int
    topic_id: str | None = None
    is_live: bool = True
    is_fenced: bool = False
    is_asked_again: bool = False


@dataclass(frozen=True, slots=True)
class Advanced:
    """One batch as the ledger numbers it."""

    topic: str
    topic_partition: int
    batch: int


def claim(
    cursor: Any, topic: str, topic_partition: int, *, topic_id: str | None, low: int, high: int, owner: str
) -> tuple[Claim, Gap | None]:
    """Take a topic partition: everybody else is fenced off from here on.

    Waits for a transaction of the previous owner that is at work, so what it commits is seen.

    Args:
        cursor: within a transaction.
        topic: whose partition.
        topic_partition: number of it.
        topic_id: Kafka's id of the topic, None if the broker did not tell.
        low: the broker's log start offset.
        high: the broker's log end offset.
        owner: who claims, for people.
    Returns: the claim, and the gap that was recorded if offsets were deleted before they landed.

    Raises:
        TopicRecreatedError: the ledger's offsets belong to another topic of the same name.
        psycopg2.errors.LockNotAvailable: the previous owner is in the middle of a transaction; see `end_stuck_writers`.
    """
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{CLAIM_LOCK_S * 1000:.0f}ms",))
    cursor.execute(
        "INSERT INTO control.offset (topic, topic_partition, topic_id, first_offset, next_offset) "
        "VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (topic, topic_partition, topic_id, low, low),
    )
    cursor.execute(
        "UPDATE control.offset SET epoch = epoch + 1, owner = %s, claimed_at = now(), "
        "topic_id = coalesce(topic_id, %s) WHERE topic = %s AND topic_partition = %s "
        "RETURNING next_offset, epoch, topic_id",
        (owner, topic_id, topic, topic_partition),
    )
    next_offset, epoch, known_id = cursor.fetchone()
    _check_same_topic(topic, topic_partition, next_offset, high, (known_id, topic_id))
    gap = None
    if next_offset < low:
        gap = Gap(next_offset, low - 1, "below_log_start", "deleted by the broker before they landed: lost")
        insert_gaps(cursor, topic, topic_partition, [gap])
        cursor.execute(
            "UPDATE control.offset SET next_offset = %s, updated_at = now() WHERE topic = %s AND topic_partition = %s",
            (low, topic, topic_partition),
        )
        next_offset = low
    return Claim(topic, topic_partition, next_offset, epoch, topic_id), gap


def end_stuck_writers(cursor: Any) -> int:
    """End the sessions of writers that hold a transaction open and send nothing; returns how many.

    A writer that is frozen (SIGSTOP, a suspended machine, a cut network) in the middle of COPY keeps its offsets locked
    for as long as it is frozen. To end it costs nothing: it wakes up fenced, or tries again.
    """
    cursor.execute(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE %s "
        "AND datname = current_database() AND usename = current_user AND wait_event = 'ClientRead' "
        "AND xact_start < clock_timestamp() - make_interval(secs => %s)",
        (f"{WRITER_NAME} %", STUCK_S),
    )
    return int(cursor.fetchone()[0])


def _check_same_topic(
    topic: str, topic_partition: int, next_offset: int, high: int, ids: tuple[str | None, str | None]
) -> None:
    known_id, topic_id = ids
    is_other = known_id is not None and topic_id is not None and known_id != topic_id
    if not is_other and next_offset <= high:
        return
    found = f"its id is {topic_id}, the ledger's is {known_id}" if is_other else f"it ends at offset {high}"
    raise TopicRecreatedError(
        f"taking {topic}[{topic_partition}] from offset {next_offset}: {found}, so the topic was deleted and created "
        f"again (or truncated), and its offsets do not continue ours. Nothing was landed, so that old and new events "
        f"are never mixed. Produce to a new topic name with a contract of its own; or, if the old events may go, "
        f"remove this topic's rows from the control tables and its landing table, and start again."
    )


def lock(cursor: Any, claimed: Sequence[tuple[Batch, Claim]]) -> list[Claim]:
    """Lock the offsets of some batches for this transaction; returns the claims that hold no longer.

    Taken first, so that a fenced consumer stops before it writes, and in order, so that nobody deadlocks.
    """
    wanted = sorted({(claim.topic, claim.topic_partition) for _, claim in claimed})
    cursor.execute(
        "SELECT set_config('lock_timeout', %s, true); "  # one way to the server and back for both
        "SELECT topic, topic_partition, next_offset, epoch FROM control.offset "
        "WHERE (topic, topic_partition) IN (SELECT * FROM unnest(%s::text[], %s::int[])) "
        "ORDER BY topic, topic_partition FOR UPDATE",
        (f"{WRITE_LOCK_S * 1000:.0f}ms", [topic for topic, _ in wanted], [number for _, number in wanted]),
    )
    found = {(topic, number): (next_offset, epoch) for topic, number, next_offset, epoch in cursor.fetchall()}
    return [
        claim
        for batch, claim in claimed
        if found.get((claim.topic, claim.topic_partition)) != (batch.first_offset, claim.epoch)
    ]


WAKE = "SELECT pg_notify(%(channel)s, topic) FROM unnest(%(woken)s::text[]) AS t(topic)"
ADVANCE = """
WITH input AS (
    SELECT * FROM unnest(
        %(topics)s::text[], %(partitions)s::int[], %(epochs)s::bigint[], %(firsts)s::bigint[], %(nexts)s::bigint[],
        %(rows)s::int[], %(dead)s::int[], %(gaps)s::bigint[], %(bytes)s::bigint[],
        %(first_event)s::timestamptz[], %(last_event)s::timestamptz[], %(produced)s::timestamptz[]
    ) AS t(topic, topic_partition, epoch, first_offset, next_offset, rows, dead_letters, gap_offsets, payload_bytes,
           first_event_at, last_event_at, newest_produced_at)
), input_day AS (
    SELECT * FROM unnest(
        %(day_topics)s::text[], %(day_partitions)s::int[], %(days)s::date[], %(day_rows)s::int[],
        %(day_bytes)s::bigint[], %(day_firsts)s::bigint[], %(day_lasts)s::bigint[]
    ) AS t(topic, topic_partition, event_day, rows, payload_bytes, first_offset, last_offset)
), moved AS (
    UPDATE control.offset AS o
    SET next_offset = i.next_offset, next_batch = o.next_batch + 1, updated_at = now()
    FROM input AS i
    WHERE o.topic = i.topic AND o.topic_partition = i.topic_partition
      AND o.next_offset = i.first_offset AND o.epoch = i.epoch
    RETURNING o.topic, o.topic_partition, o.next_batch - 1 AS batch
), batches AS (
    INSERT INTO control.batch (topic, topic_partition, batch, first_offset, last_offset, rows, dead_letters,
        gap_offsets, payload_bytes, first_event_at, last_event_at, newest_produced_at, landed_by)
    SELECT i.topic, i.topic_partition, m.batch, i.first_offset, i.next_offset - 1, i.rows, i.dead_letters,
        i.gap_offsets, i.payload_bytes, i.first_event_at, i.last_event_at, i.newest_produced_at, %(owner)s
    FROM input AS i JOIN moved AS m USING (topic, topic_partition)
), batch_days AS (
    INSERT INTO control.batch_day (topic, topic_partition, batch, event_day, rows, first_offset, last_offset)
    SELECT d.topic, d.topic_partition, m.batch, d.event_day, d.rows, d.first_offset, d.last_offset
    FROM input_day AS d JOIN moved AS m USING (topic, topic_partition)
), landed_days AS (
    INSERT INTO control.landed_day AS l
        (topic, event_day, topic_partition, rows, payload_bytes, first_offset, last_offset, last_batch)
    SELECT d.topic, d.event_day, d.topic_partition, d.rows, d.payload_bytes, d.first_offset, d.last_offset, m.batch
    FROM input_day AS d JOIN moved AS m USING (topic, topic_partition)
    ON CONFLICT (topic, event_day, topic_partition) DO UPDATE
    SET rows = l.rows + excluded.rows,
        payload_bytes = l.payload_bytes + excluded.payload_bytes,
        first_offset = least(l.first_offset, excluded.first_offset),
        last_offset = greatest(l.last_offset, excluded.last_offset),
        last_batch = excluded.last_batch,
        landed_at = now()
)
SELECT topic, topic_partition, batch FROM moved
"""


def advance(cursor: Any, claimed: Sequence[tuple[Batch, Claim]], *, owner: str) -> list[Advanced]:
    """Number the batches, move the offsets, wake the readers: the last statements of a landing transaction.

    Sent together, so that they are one way to the server and back.

    At most one batch a topic partition. Raises FencedError if an offset did not move.
    """
    days = [(batch, day) for batch, _ in claimed for day in batch.days]
    cursor.execute(
        f"{WAKE}; {ADVANCE}",
        {
            "channel": CHANNEL,
            "woken": sorted({batch.topic for batch, _ in claimed}),
            "owner": owner,
            "topics": [batch.topic for batch, _ in claimed],
            "partitions": [batch.topic_partition for batch, _ in claimed],
            "epochs": [claim.epoch for _, claim in claimed],
            "firsts": [batch.first_offset for batch, _ in claimed],
            "nexts": [batch.next_offset for batch, _ in claimed],
            "rows": [batch.rows for batch, _ in claimed],
            "dead": [len(batch.rejected) for batch, _ in claimed],
            "gaps": [batch.gap_offsets for batch, _ in claimed],
            "bytes": [batch.payload_bytes for batch, _ in claimed],
            "first_event": [batch.first_event_at for batch, _ in claimed],
            "last_event": [batch.last_event_at for batch, _ in claimed],
            "produced": [batch.newest_produced_at for batch, _ in claimed],
            "day_topics": [batch.topic for batch, _ in days],
            "day_partitions": [batch.topic_partition for batch, _ in days],
            "days": [day.event_day for _, day in days],
            "day_rows": [day.rows for _, day in days],
            "day_bytes": [day.payload_bytes for _, day in days],
            "day_firsts": [day.first_offset for _, day in days],
            "day_lasts": [day.last_offset for _, day in days],
        },
    )
    advanced = [Advanced(*row) for row in cursor.fetchall()]
    moved = {(a.topic, a.topic_partition) for a in advanced}
    for batch, _ in claimed:
        if (batch.topic, batch.topic_partition) not in moved:
            raise fenced(cursor, batch.topic, batch.topic_partition, batch.first_offset)
    return advanced


def notify(cursor: Any, topics: set[str]) -> None:
    """Wake whoever waits for the landing; delivered at commit."""
    cursor.execute(WAKE, {"channel": CHANNEL, "woken": sorted(topics)})


def fenced(cursor: Any, topic: str, topic_partition: int, expected: int) -> FencedError:
    """The error for a topic partition that is no longer ours."""
    cursor.execute(
        "SELECT next_offset, owner, claimed_at FROM control.offset WHERE topic = %s AND topic_partition = %s",
        (topic, topic_partition),
    )
    row = cursor.fetchone()
    found = f"it is at {row[0]}, taken by {row[1]} at {row[2]}" if row else "the ledger has no row of it"
    return FencedError(
        f"landing {topic}[{topic_partition}] from offset {expected}: {found}. Nothing was written. Another consumer "
        f"owns the topic partition; if it belongs to another consumer group, stop one of the two groups.",
        topic=topic,
        topic_partition=topic_partition,
    )


def insert_gaps(cursor: Any, topic: str, topic_partition: int, gaps: Sequence[Gap]) -> None:
    """Record offsets that hold no event for us."""
    for gap in gaps:
        cursor.execute(
            "INSERT INTO control.gap (topic, topic_partition, first_offset, last_offset, kind, detail) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            (topic, topic_partition, gap.first_offset, gap.last_offset, gap.kind, gap.detail),
        )
