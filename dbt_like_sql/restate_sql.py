"""What a publication changed in days of the past, as text: recorded in its own transaction.

Belongs here: pure SQL from values. Does not: the publication itself (publish_sql.py).

What a day was before stands in the ledger of publications, what it is now in the script's variable `published_sums`:
nothing is read twice for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt_like_sql.render import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date
    from decimal import Decimal

    from dbt_like_sql.catalog import Table
    from dbt_like_sql.publish_state import DayPublished, OffsetRange

_CAUSES = "ARRAY<STRUCT<topic STRING, topic_partition INT64, first_offset INT64, last_offset INT64, row_count INT64>>"
_MEASURES = "ARRAY<STRUCT<name STRING, before NUMERIC, after NUMERIC>>"


def measures(table: Table) -> list[str]:
    """Columns that may be summed, in order."""
    return [column.name for column in table.columns if column.is_additive]


def restated_sql(
    table: Table,
    before: Mapping[date, DayPublished],
    sources: Mapping[date, int],
    causes: Mapping[date, Sequence[OffsetRange]],
) -> str:
    """A SELECT of the table's days that differ from what they were; columns of control.restatement up to caused_by."""
    names = measures(table)
    compared = ", ".join(
        f"STRUCT({quote(name)} AS name, b.m_{at} AS before, COALESCE(a.m_{at}, NUMERIC '0') AS after)"
        for at, name in enumerate(names)
    )
    changed = "".join(f"\n  OR b.m_{at} != COALESCE(a.m_{at}, NUMERIC '0')" for at in range(len(names)))
    rows = ",\n  ".join(_before(names, day, found, sources[day], causes[day]) for day, found in before.items())
    return f"""
SELECT
  {quote(table.name)} AS table_name, b.event_day, b.source_before, b.source_now, b.row_count AS rows_before,
  COALESCE(a.row_count, 0) AS rows_after, {_MEASURES}[{compared}] AS measures, b.caused_by
FROM UNNEST([
  {rows}
]) AS b
LEFT JOIN UNNEST(published_sums) AS a ON a.table_name = {quote(table.name)} AND a.event_day = b.event_day
WHERE b.row_count != COALESCE(a.row_count, 0){changed}"""


def _before(names: Sequence[str], day: date, found: DayPublished, source: int, causes: Sequence[OffsetRange]) -> str:
    known = found.measures or {}
    sums = "".join(f", {_numeric(known.get(name))} AS m_{at}" for at, name in enumerate(names))
    listed = ", ".join(
        f"STRUCT({quote(each.topic)} AS topic, {each.topic_partition} AS topic_partition, {each.first_offset} AS "
        f"first_offset, {each.last_offset} AS last_offset, {each.rows} AS row_count)"
        for each in causes
    )
    return (
        f"STRUCT(DATE '{day}' AS event_day, {found.source_version} AS source_before, {source} AS source_now, "
        f"{found.row_count} AS row_count{sums}, {_CAUSES}[{listed}] AS caused_by)"
    )


def _numeric(value: Decimal | None) -> str:
    return f"NUMERIC '{value or 0:f}'"
