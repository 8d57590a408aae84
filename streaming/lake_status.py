"""The state of the lake in numbers: sizes, rows, oldest and newest, lag, dead letters, gaps, of each topic.

Not here: how they are shown (lake_commands.py), what other rooms read (lake.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaException

from streaming import kafka, lake
from streaming.database import transaction
from streaming.errors import BrokerUnavailableError

if TYPE_CHECKING:
    from datetime import date, datetime

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

    from streaming.settings import KafkaSettings

SIZES = """
SELECT count(*)::int, coalesce(sum(pg_table_size(i.inhrelid)), 0)::bigint,
       coalesce(sum(pg_indexes_size(i.inhrelid)), 0)::bigint, coalesce(sum(s.n_dead_tup), 0)::bigint
FROM control.stream AS c
JOIN pg_inherits AS i ON i.inhparent = to_regclass(format('landing.%%I', c.stream))
LEFT JOIN pg_stat_all_tables AS s ON s.relid = i.inhrelid
WHERE c.topic = %s
"""
LEDGER = """
SELECT (SELECT count(*) FROM control.batch WHERE topic = %(topic)s),
       pg_total_relation_size('control.batch') + pg_total_relation_size('control.batch_day'),
       (SELECT min(event_day) FROM control.landed_day WHERE topic = %(topic)s),
       (SELECT max(event_day) FROM control.landed_day WHERE topic = %(topic)s),
       (SELECT coalesce(sum(payload_bytes), 0)::bigint FROM control.landed_day WHERE topic = %(topic)s),
       (SELECT coalesce(sum(rows), 0)::bigint FROM control.retired_day WHERE topic = %(topic)s),
       (SELECT max(updated_at) FROM control.offset WHERE topic = %(topic)s), now()
"""


@dataclass(frozen=True, slots=True)
class TopicStatus:
    """One topic in the lake. Lag in events is None where Kafka was not asked, or did not answer."""

    topic: str
    rows: int
    retired_rows: int
    dead_letters: int
    dead_letters_replayed: int
    gap_offsets: int
    lost_offsets: int
    oldest_day: date | None
    newest_day: date | None
    newest_produced_at: datetime | None
    last_landed_at: datetime | None
    lag_s: float | None
    lag_events: int | None
    months: int
    table_bytes: int
    index_bytes: int
    dead_tuples: int
    payload_bytes: int
    batches: int
    ledger_bytes: int
    is_closed: bool
    topic_partitions: list[dict[str, Any]]


def read_status(conn: Connection, topic: str, kafka_settings: KafkaSettings | None) -> TopicStatus:
    """Ask the lake, and Kafka for what has not landed.

    `lag_s` is the age of the newest landed message while something waits to land, 0 if nothing does, and None if Kafka
    was not asked, or while nothing has landed.
    """
    counts = lake.topic_counts(conn, topic)
    newest = lake.watermark(conn, topic)
    with transaction(conn) as cursor:
        cursor.execute(SIZES, (topic,))
        months, table_bytes, index_bytes, dead_tuples = cursor.fetchone()
        cursor.execute(LEDGER, {"topic": topic})
        batches, ledger_bytes, oldest_day, newest_day, payload_bytes, retired, landed_at, now = cursor.fetchone()
    ends = None if kafka_settings is None else _read_ends(kafka_settings, topic)
    reached = {each.topic_partition: each.next_offset for each in counts}
    waiting = None
    if ends is not None:
        waiting = sum(max(high - max(reached.get(at, low), low), 0) for at, (low, high) in ends.items())
    age_s = None if newest is None else round((now - newest).total_seconds(), 3)
    return TopicStatus(
        topic=topic,
        rows=sum(each.landed for each in counts),
        retired_rows=retired,
        dead_letters=sum(each.dead_letters for each in counts),
        dead_letters_replayed=sum(each.dead_letters_replayed for each in counts),
        gap_offsets=sum(each.gap_offsets for each in counts),
        lost_offsets=sum(each.lost_offsets for each in counts),
        oldest_day=oldest_day,
        newest_day=newest_day,
        newest_produced_at=newest,
        last_landed_at=landed_at,
        lag_s=None if waiting is None else age_s if waiting else 0.0,
        lag_events=waiting,
        months=months,
        table_bytes=table_bytes,
        index_bytes=index_bytes,
        dead_tuples=dead_tuples,
        payload_bytes=payload_bytes,
        batches=batches,
        ledger_bytes=ledger_bytes,
        is_closed=all(each.is_closed for each in counts),
        topic_partitions=[asdict(each) | {"is_closed": each.is_closed} for each in counts],
    )


def _read_ends(settings: KafkaSettings, topic: str) -> dict[int, tuple[int, int]] | None:
    """Log start and end of each topic partition; None where Kafka does not answer: the lake's state is told without."""
    try:
        described = kafka.describe_topics(settings, [topic])
    except BrokerUnavailableError:
        return None
    if topic not in described:
        return None
    consumer = Consumer({**settings.client_config(), "group.id": "streaming-lake-status", "log_level": 0})
    try:
        numbers = range(described[topic].topic_partitions)
        return {number: kafka.read_watermarks(consumer, topic, number) for number in numbers}
    except (KafkaException, BrokerUnavailableError):
        return None
    finally:
        consumer.close()
