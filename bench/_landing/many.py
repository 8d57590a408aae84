"""Ten million events: the consumer's memory over the run, and what the lake is like afterwards.

Sizes, dead tuples, the ledger's growth, and the plans of the two reads that matter. Not here: rates (product.py).
"""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from datetime import timedelta
from typing import Any

from _landing.ground import DAYS, FIRST_EVENT_AT, STREAM, TOPIC, Ground, Sent, query, verify
from _landing.product import ConsumerProcess, consumers
from streaming import lake

SAMPLE_S = 0.5
TIMEOUT_S = 1_200.0
SIZES = """
SELECT n.nspname || '.' || c.relname AS name,
       pg_table_size(c.oid) AS table_bytes, pg_indexes_size(c.oid) AS index_bytes,
       coalesce(s.n_live_tup, 0) AS live, coalesce(s.n_dead_tup, 0) AS dead, coalesce(s.n_tup_upd, 0) AS updates,
       coalesce(s.n_tup_hot_upd, 0) AS hot_updates, coalesce(s.autovacuum_count, 0) AS autovacuums
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
WHERE n.nspname IN ('control', 'landing') AND c.relkind = 'r' AND pg_table_size(c.oid) > 8192 * 2 ORDER BY 2 DESC
"""


def land_many(ground: Ground, sent: Sent) -> dict[str, Any]:
    """Land a big topic with one consumer and look at memory and lake."""
    with ground.lake() as dsn:
        with consumers(ground, dsn, 1) as running:
            samples, seconds = _sample(dsn, sent, running[0])
        time.sleep(2)  # the server's own statistics are a second behind
        query(dsn, "SELECT pg_stat_force_next_flush()")
        verify(dsn, sent)
        ledger = "SELECT pg_total_relation_size('control.batch') + pg_total_relation_size('control.batch_day')"
        ledger_bytes = int(query(dsn, ledger)[0][0])
        tables = _tables(dsn)
        plans = _plans(dsn)
        vacuum_s = _vacuum(dsn)
        after = _tables(dsn)
    third = max(len(samples) // 3, 1)
    middle, last = statistics.median(samples[third : 2 * third] or samples), statistics.median(samples[-third:])
    return {
        "memory_events": sent.events,
        "memory_rows_s": round(sent.events / seconds),
        "memory_rss_peak_mb": round(max(samples) / 1e6, 1),
        "memory_rss_middle_third_mb": round(middle / 1e6, 1),
        "memory_rss_last_third_mb": round(last / 1e6, 1),
        "memory_growth": round(last / middle, 3),
        "ledger_bytes_a_million_events": round(ledger_bytes / sent.events * 1e6),
        "tables": tables,
        "tables_after_vacuum": after,
        "vacuum_s": vacuum_s,
        **plans,
    }


def _sample(dsn: str, sent: Sent, consumer: ConsumerProcess) -> tuple[list[int], float]:
    """Resident bytes every half second from the assignment on, and the seconds it took."""
    samples: list[int] = []
    deadline = time.monotonic() + TIMEOUT_S
    with closing(lake.connect(dsn, application_name="bench watch")) as conn, conn.cursor() as cursor:
        conn.autocommit = True
        while time.monotonic() < deadline:
            if consumer.process.poll() is not None:
                raise SystemExit(f"the consumer ended: {consumer.log[-3:]}")
            if consumer.assigned_at:
                samples.append(consumer.rss_bytes())
            cursor.execute("SELECT coalesce(sum(next_offset - first_offset), 0) FROM control.offset")
            if int(cursor.fetchone()[0]) >= sent.events:
                return samples, time.time() - consumer.assigned_at[0]
            time.sleep(SAMPLE_S)
    raise SystemExit(f"not landed within {TIMEOUT_S:.0f} s")


def _tables(dsn: str) -> list[dict[str, Any]]:
    names = ("name", "table_bytes", "index_bytes", "live", "dead", "updates", "hot_updates", "autovacuums")
    return [dict(zip(names, row, strict=True)) for row in query(dsn, SIZES)]


def _plans(dsn: str) -> dict[str, Any]:
    """The plans and times of a whole day's read and of an offset range's, as `lake.read_events` asks."""
    day = (FIRST_EVENT_AT + timedelta(days=DAYS // 2)).date()
    query(dsn, f"ANALYZE landing.{STREAM}")
    select = f"SELECT topic_partition, topic_offset, payload FROM landing.{STREAM} WHERE event_day = %s"
    ((low, high),) = query(
        dsn, f"SELECT min(topic_offset), max(topic_offset) FROM landing.{STREAM} WHERE event_day = %s "
        f"AND topic_partition = 1", (day,)
    )  # fmt: skip
    found: dict[str, Any] = {}
    for name, condition, values in (
        ("whole_day", "", ()),
        ("offset_range", " AND topic_partition = 1 AND topic_offset BETWEEN %s AND %s", (low, min(low + 9_999, high))),
    ):
        order = " ORDER BY topic_partition, topic_offset"
        rows = query(dsn, f"EXPLAIN (ANALYZE, BUFFERS) {select}{condition}{order}", (day, *values))
        found[f"plan_{name}"] = [row[0] for row in rows]
    with closing(lake.connect(dsn, application_name="bench read")) as conn:
        started = time.monotonic()
        table = lake.read_events(conn, TOPIC, day=day)
        found["read_day_rows"] = table.num_rows
        found["read_day_rows_s"] = round(table.num_rows / (time.monotonic() - started))
    return found


def _vacuum(dsn: str) -> float:
    started = time.monotonic()
    query(dsn, "VACUUM (ANALYZE)", autocommit=True)
    return round(time.monotonic() - started, 2)
