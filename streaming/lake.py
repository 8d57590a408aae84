"""The door of this room: read what landed. Other rooms import this module and nothing else of streaming.

Batches are numbered 1, 2, 3... in each topic partition, in commit order. A reader asks which days have batches that it
has not read (`pending_days`), reads them (`read_events`), and says how far it has got (`mark_read`). The mark is a hint
that saves work; the truth of what was loaded is in the reader's own ledger.
Not here: writing of landing (landing.py).
"""

from __future__ import annotations

import select
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streaming import columnar, database, decode, ledger
from streaming import contract as contracts
from streaming.copy_out import EVENTS_SCHEMA as EVENTS_SCHEMA  # noqa: PLC0414  handed on through this door
from streaming.copy_out import Condition, copy_out
from streaming.database import telling_outages as telling_outages  # noqa: PLC0414
from streaming.database import transaction
from streaming.day_parts import DayPart as DayPart  # noqa: PLC0414
from streaming.day_parts import next_part as next_part  # noqa: PLC0414
from streaming.errors import LostRowsError
from streaming.finding import FoundEvent as FoundEvent  # noqa: PLC0414
from streaming.finding import find_event as find_event  # noqa: PLC0414
from streaming.known_batches import confirm_read as confirm_read  # noqa: PLC0414
from streaming.retired_days import refuse_retired, retired_rows
from streaming.retired_days import retired_days as retired_days  # noqa: PLC0414

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, datetime
    from pathlib import Path

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

    from streaming.contract import Contract

CHECKSUM_FACTOR = 1_000_003
CHECKSUM_MODULUS = 1_000_000_007
DECODE_CHUNK_ROWS = 50_000  # bounds the Python objects alive at a time
QUICK_FROM_ROWS = 20_000  # below, decoding is milliseconds, and the first call of Arrow's reader costs more
MANY_OFFSETS = 200_000  # about 0.3 s of COPY; below, one question is quicker than several
MOST_COPIES = 4


@dataclass(frozen=True, slots=True)
class LandedDay:
    """An event day that has rows. Batches: topic partition -> last batch that touched the day.

    `landed_us`: topic partition -> when that batch landed, microseconds since 1970, UTC. A reader keeps it with the
    batch and asks `confirm_read` before it goes on from there.
    """

    event_day: date
    rows: int
    payload_bytes: int
    batches: dict[int, int]
    landed_us: dict[int, int]


@dataclass(frozen=True, slots=True)
class PendingDay:
    """An event day of which a reader has not read everything."""

    event_day: date
    landed: dict[int, int]
    read: dict[int, int]
    rows_landed: int


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """One landed batch, for reports."""

    topic_partition: int
    batch: int
    kind: str
    first_offset: int
    last_offset: int
    rows: int
    dead_letters: int
    gap_offsets: int
    payload_bytes: int
    last_event_at: datetime | None
    newest_produced_at: datetime | None
    landed_at: datetime

    @property
    def lag_s(self) -> float | None:
        """Seconds from the newest message's production to its landing."""
        return None if self.newest_produced_at is None else (self.landed_at - self.newest_produced_at).total_seconds()


@dataclass(frozen=True, slots=True)
class TopicPartitionCounts:
    """Where the offsets of a topic partition are: next - first = landed + dead + gaps."""

    topic_partition: int
    first_offset: int
    next_offset: int
    landed: int
    dead_letters: int
    dead_letters_replayed: int
    gap_offsets: int
    lost_offsets: int
    owner: str | None
    updated_at: datetime

    @property
    def is_closed(self) -> bool:
        """Whether every offset is accounted for."""
        return self.next_offset - self.first_offset == self.landed + self.dead_letters + self.gap_offsets


def connect(dsn: str, *, application_name: str) -> Connection:
    """A psycopg2 connection in UTC. Raises LakeUnavailableError."""
    return database.connect(dsn, application_name=application_name)


def load_contract(topic: str, contracts_dir: Path | str | None = None) -> Contract:
    """The topic's contract. Raises ContractError."""
    return contracts.load_contract(topic, contracts_dir)


def time_zone(conn: Connection, topic: str) -> str | None:
    """Whose midnight ends the topic's days in the lake, None for a topic that it does not have."""
    with transaction(conn) as cursor:
        cursor.execute("SELECT time_zone FROM control.stream WHERE topic = %s", (topic,))
        row: tuple[str] | None = cursor.fetchone()
    return row[0] if row else None


def landed_days(conn: Connection, topic: str, *, days: Iterable[date] | None = None) -> list[LandedDay]:
    """Days that have rows, ascending; of the given days only, if any are given."""
    with transaction(conn) as cursor:
        cursor.execute(
            "SELECT l.event_day, sum(l.rows)::bigint, sum(l.payload_bytes)::bigint, "
            "jsonb_object_agg(l.topic_partition, l.last_batch), "
            "coalesce(jsonb_object_agg(l.topic_partition, (extract(epoch FROM b.landed_at) * 1000000)::bigint) "
            "FILTER (WHERE b.batch IS NOT NULL), '{}') "
            "FROM control.landed_day AS l LEFT JOIN control.batch AS b ON b.topic = l.topic "
            "AND b.topic_partition = l.topic_partition AND b.batch = l.last_batch "
            "WHERE l.topic = %s AND (%s::date[] IS NULL OR l.event_day = ANY(%s::date[])) "
            "GROUP BY l.event_day ORDER BY l.event_day",
            (topic, *[None if days is None else list(days)] * 2),
        )
        return [LandedDay(day, rows, size, *map(_by_partition, found)) for day, rows, size, *found in cursor.fetchall()]


def _by_partition(batches: dict[str, int]) -> dict[int, int]:
    return {int(number): batch for number, batch in sorted(batches.items(), key=lambda item: int(item[0]))}


def read_events(
    conn: Connection,
    topic: str,
    *,
    day: date,
    after: Mapping[int, int] | None = None,
    upto: Mapping[int, int] | None = None,
) -> pa.Table:
    """The rows of a day in batches after[p] < batch <= upto[p]; without bounds, all rows of the day.

    A topic partition that `upto` does not name gives no rows; one that `after` does not name is read from its start.
    Columns as EVENTS_SCHEMA, ordered by topic partition and offset; payload is the event's JSON as it came.
    Raises RetiredError if rows that are asked for are gone by retention, LostRowsError if they are gone otherwise.
    """
    stream = _stream(conn, topic)
    conditions, counted = _in_batches(conn, topic, day, after, upto)
    with transaction(conn) as cursor:
        events = copy_out(cursor, topic, day, f"landing.{stream}", conditions)
        refuse_retired(topic, day, retired_rows(cursor, topic, day, after=after, upto=upto))
    if counted is not None and events.num_rows != counted:
        raise LostRowsError(
            f"reading {topic} {day}: landing.{stream} has {events.num_rows:,} rows where the lake's ledger counts "
            f"{counted:,}. Landed rows never change, so somebody has changed the table by hand. Nothing was read, so "
            "that no table is built of what is there; what was loaded before stays. Restore the rows from a backup "
            "(docs/runbooks/backup-and-restore.md)."
        )
    return events


def _in_batches(
    conn: Connection, topic: str, day: date, after: Mapping[int, int] | None, upto: Mapping[int, int] | None
) -> tuple[list[Condition], int | None]:
    """Conditions on a landing row that it came in batches after < batch <= upto, by ascending topic partitions.

    And how many rows these batches have by the ledger; None where all rows are asked for, and it was not looked at.

    A row meets one of them at most: few are one, many rows are read by several, a share of the topic partitions each.
    Rows do not carry their batch: the ledger knows each batch's offsets. A replay is a batch of one offset, which lies
    among the offsets of an earlier batch, so replays are told apart one by one.
    """
    if after is None and upto is None:
        return [("true", [])], None
    with transaction(conn) as cursor:
        cursor.execute(RANGES, _range_values(topic, day, after, upto))
        ranges = cursor.fetchall()
    found, offsets = list[Condition](), 0
    for number, first, last, replays_in, replays_out, _rows in ranges:
        # Replays are rare: without them the bounds are an index condition, not a filter on every row.
        bounds: list[Any] = [0 if first is None else first, -1 if last is None else last]
        offsets += bounds[1] - bounds[0] + 1
        inside = "topic_offset BETWEEN %s AND %s"
        if replays_out:
            inside = f"({inside} AND topic_offset <> ALL(%s::bigint[]))"
            bounds.append(replays_out)
        if replays_in:
            inside = f"({inside} OR topic_offset = ANY(%s::bigint[]))"
            bounds.append(replays_in)
        found.append((f"(topic_partition = %s AND {inside})", [number, *bounds]))
    share = -(-len(found) // (MOST_COPIES if offsets >= MANY_OFFSETS else 1)) or 1
    return [_either(found[at : at + share]) for at in range(0, len(found), share)], sum(each[-1] for each in ranges)


def _either(conditions: Sequence[Condition]) -> Condition:
    return " OR ".join(sql for sql, _ in conditions) or "false", [value for _, values in conditions for value in values]


RANGES = """
SELECT d.topic_partition,
       min(d.first_offset) FILTER (WHERE d.kind = 'landing' AND d.batch <= u.upto),
       max(d.last_offset) FILTER (WHERE d.kind = 'landing' AND d.batch <= u.upto),
       coalesce(array_agg(d.first_offset) FILTER (WHERE d.kind = 'replay' AND d.batch <= u.upto), '{}'),
       coalesce(array_agg(d.first_offset) FILTER (WHERE d.kind = 'replay' AND d.batch > u.upto), '{}'),
       coalesce(sum(d.rows) FILTER (WHERE d.batch <= u.upto), 0)
FROM control.batch_day AS d
JOIN (SELECT partition, coalesce(upto, 2147483647) AS upto, after
      FROM unnest(%(partitions)s::int[], %(upto)s::int[], %(after)s::int[]) AS t(partition, upto, after)) AS u
  ON d.topic_partition = u.partition
WHERE d.topic = %(topic)s AND d.event_day = %(day)s AND d.batch > u.after
GROUP BY d.topic_partition ORDER BY d.topic_partition
"""


def _range_values(
    topic: str, day: date, after: Mapping[int, int] | None, upto: Mapping[int, int] | None
) -> dict[str, Any]:
    after = after or {}
    # without `upto` the partitions are not known here: the ones of a topic are 0..n-1, far below 100,000
    partitions = sorted(upto) if upto is not None else list(range(max([1023, *after]) + 1))
    return {
        "topic": topic,
        "day": day,
        "partitions": partitions,
        "upto": [None if upto is None else upto[number] for number in partitions],
        "after": [after.get(number, 0) for number in partitions],
    }


def _stream(conn: Connection, topic: str) -> str:
    with transaction(conn) as cursor:
        cursor.execute("SELECT stream FROM control.stream WHERE topic = %s", (topic,))
        row = cursor.fetchone()
    if row is None:
        raise LookupError(
            f"reading topic {topic}: the lake does not know it. Add its contract, run `streaming migrate`."
        )
    return str(row[0])


def decode_events(contract: Contract, events: pa.Table) -> pa.Table:
    """Identity columns and the contract's columns, typed; the same decoder that the landing checked with.

    Columns: topic, topic_partition, topic_offset, produced_at, event_day, then the fields in the contract's order:
    string, int64, decimal128(precision, scale), bool, timestamp[us, UTC], date32; objects and arrays as JSON text.
    """
    if events.num_rows >= QUICK_FROM_ROWS:
        quick = columnar.quick_columns(contract, events["payload"])
        if quick is not None:
            identity = events.drop_columns(["payload"])
            return pa.Table.from_arrays([*identity.columns, *quick], schema=_typed_schema(contract, identity))
    decoder = decode.Decoder(contract.without_limits())  # what landed once stays readable
    parts = [
        _decode_chunk(decoder, events.slice(start, DECODE_CHUNK_ROWS))
        for start in range(0, max(events.num_rows, 1), DECODE_CHUNK_ROWS)
    ]
    return pa.concat_tables(parts).combine_chunks()


def _decode_chunk(decoder: decode.Decoder, events: pa.Table) -> pa.Table:
    identity = events.drop_columns(["payload"])
    payloads = events["payload"].cast(pa.binary()).to_pylist()
    try:
        structs = [*map(decoder.decode, payloads)]
    except RecursionError:  # landed before there was a limit, and the caller's frames count; a new thread has none
        with ThreadPoolExecutor(max_workers=1) as thread:
            structs = thread.submit(lambda: [*map(decoder.decode, payloads)]).result()
    fields = decoder.contract.fields
    columns = [decode.decode_column(decoder, structs, field) for field in fields]
    return pa.Table.from_arrays([*identity.columns, *columns], schema=_typed_schema(decoder.contract, identity))


def _typed_schema(contract: Contract, identity: pa.Table) -> pa.Schema:
    return pa.schema([*identity.schema, *(pa.field(f.name, decode.arrow_type(f)) for f in contract.fields)])


def pending_days(conn: Connection, topic: str, reader: str) -> list[PendingDay]:
    """Days where what landed differs from what the reader has marked as read, ascending."""
    with transaction(conn) as cursor:
        cursor.execute(
            """
            SELECT l.event_day, jsonb_object_agg(l.topic_partition, l.last_batch),
                   coalesce(jsonb_object_agg(l.topic_partition, r.batch) FILTER (WHERE r.batch IS NOT NULL), '{}'),
                   sum(l.rows)::bigint
            FROM control.landed_day AS l
            LEFT JOIN control.reader_day AS r
              ON r.topic = l.topic AND r.reader = %s AND r.event_day = l.event_day
             AND r.topic_partition = l.topic_partition
            WHERE l.topic = %s
            GROUP BY l.event_day HAVING bool_or(r.batch IS DISTINCT FROM l.last_batch)
            ORDER BY l.event_day
            """,
            (reader, topic),
        )
        return [
            PendingDay(day, _by_partition(landed), _by_partition(read), rows)
            for day, landed, read, rows in cursor.fetchall()
        ]


def mark_read(
    conn: Connection, topic: str, reader: str, *, day: date, batches: Mapping[int, int], reset: bool = False
) -> None:
    """Note how far a reader has got in a day. Never backwards, unless reset."""
    with transaction(conn) as cursor:
        if reset:
            cursor.execute(
                "DELETE FROM control.reader_day WHERE topic = %s AND reader = %s AND event_day = %s",
                (topic, reader, day),
            )
        cursor.execute(
            "INSERT INTO control.reader_day AS r (topic, reader, event_day, topic_partition, batch) "
            "SELECT %s, %s, %s, * FROM unnest(%s::int[], %s::int[]) AS t(topic_partition, batch) ORDER BY 4 "
            "ON CONFLICT (topic, reader, event_day, topic_partition) DO UPDATE "
            "SET batch = excluded.batch, updated_at = now() WHERE r.batch < excluded.batch",
            (topic, reader, day, list(batches), list(batches.values())),
        )


def last_marked_at(conn: Connection, topic: str, reader: str) -> datetime | None:
    """When the reader last got further in any day; None if it never has. Marks that were taken back do not count."""
    with transaction(conn) as cursor:
        cursor.execute(
            "SELECT max(updated_at) FROM control.reader_day WHERE topic = %s AND reader = %s AND batch > 0",
            (topic, reader),
        )
        found: datetime | None = cursor.fetchone()[0]
        return found


def listen(conn: Connection) -> None:
    """Begin to listen for landings on a connection kept for waiting; it is switched to autocommit."""
    if not conn.autocommit:
        conn.rollback()
        conn.autocommit = True
    with conn.cursor() as cursor:
        cursor.execute(f"LISTEN {ledger.CHANNEL}")


def wait_landed(conn: Connection, timeout_s: float) -> bool:
    """Wait until a batch lands; False at the timeout. The connection is kept for waiting (see `listen`).

    A batch that lands between two calls is seen by the second one. Before the first call, look at `pending_days`
    after `listen`, or it may wait for a batch that has landed already.
    """
    listen(conn)
    conn.poll()
    if not conn.notifies and select.select([conn], [], [], timeout_s)[0]:
        conn.poll()
    has_landed = bool(conn.notifies)
    conn.notifies.clear()
    return has_landed


def batches_after(conn: Connection, topic: str, cursor: str | None) -> tuple[list[BatchInfo], str]:
    """Batches since a cursor, and the next cursor. Never skips the batch of a slower writer.

    The cursor is a transaction horizon (pg_snapshot_xmin): what is still at work lies beyond it and comes next time.
    """
    with transaction(conn) as pg_cursor:
        pg_cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        pg_cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
        horizon = str(pg_cursor.fetchone()[0])
        pg_cursor.execute(
            "SELECT topic_partition, batch, kind, first_offset, last_offset, rows, dead_letters, gap_offsets, "
            "payload_bytes, last_event_at, newest_produced_at, landed_at FROM control.batch "
            "WHERE topic = %s AND written_by >= %s::xid8 AND written_by < %s::xid8 ORDER BY landed_at, batch",
            (topic, cursor or "0", horizon),
        )
        found = [BatchInfo(*row) for row in pg_cursor.fetchall()]
    return found, horizon


def topic_counts(conn: Connection, topic: str) -> list[TopicPartitionCounts]:
    """Landed, dead and missing offsets of each topic partition, all of one instant."""
    with transaction(conn) as cursor:
        cursor.execute(
            """
            SELECT o.topic_partition, o.first_offset, o.next_offset,
                   (SELECT coalesce(sum(l.rows), 0)::bigint FROM control.landed_day AS l
                     WHERE l.topic = o.topic AND l.topic_partition = o.topic_partition),
                   d.open, d.replayed, g.offsets, g.lost, o.owner, o.updated_at
            FROM control.offset AS o
            CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE replayed_at IS NULL) AS open,
                       count(*) FILTER (WHERE replayed_at IS NOT NULL) AS replayed
                FROM control.dead_letter WHERE topic = o.topic AND topic_partition = o.topic_partition) AS d
            CROSS JOIN LATERAL (
                SELECT coalesce(sum(last_offset - first_offset + 1), 0)::bigint AS offsets,
                       coalesce(sum(last_offset - first_offset + 1) FILTER (WHERE kind = 'below_log_start'), 0)::bigint
                           AS lost
                FROM control.gap WHERE topic = o.topic AND topic_partition = o.topic_partition) AS g
            WHERE o.topic = %s ORDER BY o.topic_partition
            """,
            (topic,),
        )
        return [TopicPartitionCounts(*row) for row in cursor.fetchall()]


def day_checksum(
    conn: Connection,
    topic: str,
    day: date,
    *,
    after: Mapping[int, int] | None = None,
    upto: Mapping[int, int] | None = None,
) -> tuple[int, int]:
    """Rows of a day (in batches after < batch <= upto), and a checksum of their identities that BigQuery computes too.

    SUM(MOD(topic_partition * 1000003 + topic_offset, 1000000007)), whatever the order. Rows that are gone by retention
    are counted as they were then.
    """
    stream = _stream(conn, topic)
    condition, values = _either(_in_batches(conn, topic, day, after, upto)[0])
    with transaction(conn) as cursor:
        cursor.execute(
            f"SELECT count(*), coalesce(sum(mod(topic_partition * {CHECKSUM_FACTOR}::bigint + topic_offset, "
            f"{CHECKSUM_MODULUS})), 0) FROM landing.{stream} WHERE event_day = %s AND ({condition})",
            [day, *values],
        )
        rows, checksum = cursor.fetchone()
        gone = retired_rows(cursor, topic, day, after=after, upto=upto).values()
    return int(rows) + sum(each.rows for each in gone), int(checksum) + sum(each.checksum for each in gone)


def miscounted_days(conn: Connection, topic: str, *, days: Iterable[date]) -> dict[date, tuple[int, int]]:
    """Days on which landing has not the rows that its ledger counts, ascending: what it counts, and what is there.

    Landed rows never change: somebody has taken some out, or put some in, by hand. Of one instant, since a row and its
    count are landed in one transaction; rows that are gone by retention are not expected.
    """
    stream, wanted = _stream(conn, topic), list(days)
    with transaction(conn) as cursor:
        cursor.execute(
            f"""
            SELECT event_day, coalesce(counted.rows, 0)::bigint, coalesce(there.rows, 0)::bigint
            FROM (SELECT l.event_day, sum(l.rows - coalesce(r.rows, 0)) AS rows
                  FROM control.landed_day AS l
                  LEFT JOIN control.retired_day AS r USING (topic, event_day, topic_partition)
                  WHERE l.topic = %s AND l.event_day = ANY(%s::date[]) GROUP BY l.event_day) AS counted
            FULL JOIN (SELECT event_day, count(*) AS rows FROM landing.{stream}
                       WHERE event_day = ANY(%s::date[]) GROUP BY event_day) AS there USING (event_day)
            WHERE coalesce(counted.rows, 0) <> coalesce(there.rows, 0) ORDER BY event_day
            """,
            (topic, wanted, wanted),
        )
        return {day: (counted, there) for day, counted, there in cursor.fetchall()}


def dead_letters_by_day(conn: Connection, topic: str, *, days: Iterable[date]) -> dict[date, int]:
    """Open dead letters by the day on which their messages were produced, in the topic's time zone.

    What cannot be read has no event day; Kafka's own time of the message, or of its landing, tells when it came.
    """
    with transaction(conn) as cursor:
        cursor.execute(
            "SELECT (coalesce(d.produced_at, d.landed_at) AT TIME ZONE s.time_zone)::date AS day, count(*) "
            "FROM control.dead_letter AS d JOIN control.stream AS s USING (topic) "
            "WHERE d.topic = %s AND d.replayed_at IS NULL GROUP BY 1",
            (topic,),
        )
        found = dict(cursor.fetchall())
    return {day: found.get(day, 0) for day in days}


def watermark(conn: Connection, topic: str) -> datetime | None:
    """Production time of the newest landed message, None if nothing has landed."""
    with transaction(conn) as cursor:
        cursor.execute(
            "SELECT max(newest_produced_at) FROM (SELECT DISTINCT ON (topic_partition) newest_produced_at "
            "FROM control.batch WHERE topic = %s AND newest_produced_at IS NOT NULL "
            "ORDER BY topic_partition, batch DESC) AS newest",
            (topic,),
        )
        row = cursor.fetchone()
    newest: datetime | None = row[0] if row else None
    return newest
