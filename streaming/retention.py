"""Retention by the contract: months of landing that are older than retentionMonths go, and what they held stays known.

The ledger keeps its rows, so counts, pending days and checksums answer as before; only the events themselves are gone.
Not here: reading of a day that is partly gone (lake.py), schedules (whoever runs `streaming lake retire`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import psycopg2

from streaming.database import transaction
from streaming.errors import LandingError, MigrationError

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

    from streaming.contract import Contract

LOCK_TIMEOUT_S = 10.0  # a landing transaction takes under 1 s; below 3 s a busy lake is never retired from
MONTHS_A_YEAR = 12
PARTITION_NAME = re.compile(r"_(\d{4})_(\d{2})")
# as lake.day_checksum; the factor and the modulus are the door's promise to the warehouse
SUM = """
SELECT event_day, topic_partition, count(*), sum(mod(topic_partition * 1000003::bigint + topic_offset, 1000000007))
FROM {table} GROUP BY event_day, topic_partition
"""
REMEMBER = """
INSERT INTO control.retired_day AS r (topic, event_day, topic_partition, rows, checksum, last_batch)
SELECT l.topic, l.event_day, l.topic_partition, coalesce(s.rows, 0), coalesce(s.checksum, 0), l.last_batch
FROM control.landed_day AS l
LEFT JOIN unnest(%(days)s::date[], %(partitions)s::int[], %(rows)s::bigint[], %(sums)s::numeric[])
       AS s(event_day, topic_partition, rows, checksum) USING (event_day, topic_partition)
WHERE l.topic = %(topic)s AND l.event_day >= %(month)s AND l.event_day < %(month)s + interval '1 month'
ON CONFLICT (topic, event_day, topic_partition) DO UPDATE
SET rows = r.rows + excluded.rows, checksum = r.checksum + excluded.checksum, last_batch = excluded.last_batch,
    retired_at = now()
"""
UNREAD = """
SELECT r.reader, min(l.event_day) FROM control.landed_day AS l
LEFT JOIN (SELECT DISTINCT reader FROM control.reader_day WHERE topic = %(topic)s) AS r ON true  -- nobody yet: NULL
LEFT JOIN control.reader_day AS d
  ON d.topic = l.topic AND d.reader = r.reader AND d.event_day = l.event_day AND d.topic_partition = l.topic_partition
WHERE l.topic = %(topic)s AND l.event_day >= %(month)s AND l.event_day < %(month)s + interval '1 month'
  AND d.batch IS DISTINCT FROM l.last_batch GROUP BY r.reader ORDER BY r.reader
"""


@dataclass(frozen=True, slots=True)
class Retired:
    """A month that left landing, or why it stays."""

    topic: str
    month: date
    rows: int
    kept_because: str = ""


def retire(
    conn: Connection, contract: Contract, *, now: datetime, is_trial: bool = False, is_read_by_nobody: bool = False
) -> list[Retired]:
    """Take the months out of landing that the contract keeps no longer, each in a transaction of its own.

    A month with a day that a reader has not read to its end stays, whatever its age, and is told. So does any month of
    a topic that nobody has read yet, since its first reader may be about to; but with `is_read_by_nobody`, for a lake
    that is all there is, such a topic's months go by their age alone.

    Raises:
        LandingError: Postgres refused; months before that one are gone, nothing else was changed.
        MigrationError: the landing table that the contract names is another topic's; nothing was changed.
    """
    if contract.retention_months is None:
        return []
    first_kept = oldest_kept_month(now, contract.time_zone, contract.retention_months)
    try:
        months = [month for month in _months(conn, contract) if month < first_kept]
        return [
            _retire_month(conn, contract, month, is_trial=is_trial, is_read_by_nobody=is_read_by_nobody)
            for month in months
        ]
    except psycopg2.Error as error:
        raise LandingError(
            f"retiring months before {first_kept:%Y-%m} of landing.{contract.stream}: {str(error).strip()}. The month "
            f"at work was kept whole. Run it as the owner of the schemas; it may be run again at once."
        ) from error


def oldest_kept_month(now: datetime, time_zone: str, retention_months: int) -> date:
    """The first day of the oldest month that is kept: this month and so many before it."""
    today = now.astimezone(ZoneInfo(time_zone)).date()
    months = today.year * MONTHS_A_YEAR + today.month - 1 - retention_months
    return date(months // MONTHS_A_YEAR, months % MONTHS_A_YEAR + 1, 1)


def _months(conn: Connection, contract: Contract) -> list[date]:
    """The months of the contract's own table: who has read them is asked by its topic, so it has to be the topic's."""
    with transaction(conn) as cursor:
        cursor.execute("SELECT to_regclass('control.stream') IS NOT NULL")
        if cursor.fetchone() == (False,):
            return []
        cursor.execute(
            "SELECT topic, stream FROM control.stream WHERE topic = %s OR stream = %s",
            (contract.topic, contract.stream),
        )
        for topic, stream in cursor.fetchall():
            if (topic, stream) != (contract.topic, contract.stream):
                raise MigrationError(
                    f"retiring months of topic {contract.topic} from landing.{contract.stream}: in the lake topic "
                    f"{topic} has the table landing.{stream}. Nothing was retired, since the events may be another "
                    f"topic's, which its readers have not read. Give the schema of {contract.path} a name of its own."
                )
        cursor.execute(
            "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = to_regclass(%s)",
            (f"landing.{contract.stream}",),
        )
        names = [str(name) for (name,) in cursor.fetchall()]
    found = (PARTITION_NAME.fullmatch(name.removeprefix(contract.stream)) for name in names)
    return sorted(date(int(match[1]), int(match[2]), 1) for match in found if match)


def _retire_month(
    conn: Connection, contract: Contract, month: date, *, is_trial: bool, is_read_by_nobody: bool
) -> Retired:
    table = f"landing.{contract.stream}_{month:%Y_%m}"
    with transaction(conn) as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_TIMEOUT_S * 1000:.0f}ms",))
        if not is_trial:  # writers wait from here on, so what is counted is what goes
            cursor.execute(f"LOCK TABLE landing.{contract.stream} IN ACCESS EXCLUSIVE MODE")
        cursor.execute(UNREAD, {"topic": contract.topic, "month": month})
        unread = [(name, day) for name, day in cursor.fetchall() if name is not None or not is_read_by_nobody]
        cursor.execute(SUM.format(table=table))
        sums = cursor.fetchall()
        rows = sum(count for _, _, count, _ in sums)
        if unread:
            return Retired(contract.topic, month, rows, ", ".join(_say_unread(name, day) for name, day in unread))
        if not is_trial:
            _remember(cursor, contract.topic, month, sums)
            cursor.execute(f"DROP TABLE {table}")
    return Retired(contract.topic, month, rows)


def _say_unread(reader: str | None, day: date) -> str:
    return "nobody has read the topic yet" if reader is None else f"{reader} has not read {day}"


def _remember(cursor: Any, topic: str, month: date, sums: list[tuple[Any, ...]]) -> None:
    days, partitions, rows, checksums = ([row[at] for row in sums] for at in range(4))
    cursor.execute(
        REMEMBER,
        {"topic": topic, "month": month, "days": days, "partitions": partitions, "rows": rows, "sums": checksums},
    )
