"""What a publication changed in days of the past, as text: compared and recorded in its own transaction.

Belongs here: pure SQL from values. Does not: the publication itself (publish_sql.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbt_like_sql.render import day_sql, quote

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.settings import WarehouseSettings

_CAUSES = "ARRAY<STRUCT<topic STRING, topic_partition INT64, first_offset INT64, last_offset INT64, row_count INT64>>"


def is_compared(table: Table) -> bool:
    """Whether a table's days can be compared: it is built by day."""
    return table.partition_column is not None


def measures(table: Table) -> list[str]:
    """Columns that may be summed, in order."""
    return [column.name for column in table.columns if column.is_additive]


@dataclass(frozen=True)
class Restated:
    """The comparison of one table in a publication; `at` tells its variables from those of other tables."""

    at: int
    table: Table
    days: Sequence[date]

    def declaration(self) -> str:
        """The variable that keeps what was there before."""
        sums = "".join(f", m_{at} NUMERIC" for at, _ in enumerate(measures(self.table)))
        return f"DECLARE before_{self.at} ARRAY<STRUCT<event_day DATE, row_count INT64{sums}>>;"

    def before_sql(self, settings: WarehouseSettings) -> str:
        """Keep what is there, to be run before the days are emptied."""
        return f"\nSET before_{self.at} = ARRAY(SELECT AS STRUCT {self._sums(settings)});"

    def record_sql(self, settings: WarehouseSettings, catalog: Catalog, model_version: str, run_id: str) -> str:
        """Record each day that was published before and is different now, with the loads in between."""
        names = measures(self.table)
        changed = "".join(f"\n  OR b.m_{at} IS DISTINCT FROM a.m_{at}" for at, _ in enumerate(names))
        compared = ", ".join(
            f"STRUCT({quote(name)} AS name, COALESCE(b.m_{at}, 0) AS before, COALESCE(a.m_{at}, 0) AS after)"
            for at, name in enumerate(names)
        )
        publication, publisher = settings.table_id("control.publication"), settings.table_id("control.publisher")
        this = f"(SELECT version FROM `{publisher}` WHERE table_name = {quote(self.table.name)})"
        where = f"table_name = {quote(self.table.name)} AND {day_sql('event_day', self.days)}"
        return f"""
INSERT INTO `{settings.table_id("control.restatement")}` (
  table_name, event_day, version, source_version_before, source_version, rows_before, rows_after,
  measures, caused_by, model_version, run_id, restated_at
)
SELECT
  {quote(self.table.name)}, w.event_day, n.version, w.source_version, n.source_version,
  COALESCE(b.row_count, 0), COALESCE(a.row_count, 0),
  ARRAY<STRUCT<name STRING, before NUMERIC, after NUMERIC>>[{compared}],
  COALESCE(c.caused_by, {_CAUSES}[]),
  {quote(model_version)}, {quote(run_id)}, CURRENT_TIMESTAMP()
FROM (
  SELECT event_day, MAX(source_version) AS source_version FROM `{publication}`
  WHERE {where} AND version < {this}
  GROUP BY event_day
) AS w
JOIN (
  SELECT event_day, version, source_version FROM `{publication}`
  WHERE {where} AND version = {this}
) AS n ON n.event_day = w.event_day
LEFT JOIN UNNEST(before_{self.at}) AS b ON b.event_day = w.event_day
LEFT JOIN (SELECT {self._sums(settings)}) AS a ON a.event_day = w.event_day
LEFT JOIN ({self._causes(settings, catalog, where, this)}
) AS c ON c.event_day = w.event_day
WHERE b.row_count IS DISTINCT FROM a.row_count{changed};"""

    def _sums(self, settings: WarehouseSettings) -> str:
        day = self.table.partition_column or ""
        sums = "".join(f", CAST(SUM({name}) AS NUMERIC) AS m_{at}" for at, name in enumerate(measures(self.table)))
        return (
            f"{day} AS event_day, COUNT(*) AS row_count{sums}\n"
            f"FROM `{settings.table_id(self.table.name)}`\nWHERE {day_sql(day, self.days)}\nGROUP BY {day}"
        )

    def _causes(self, settings: WarehouseSettings, catalog: Catalog, where: str, this: str) -> str:
        """Loads between the two source versions. With several loaded sources their versions add up: none is named."""
        sources = [
            name
            for name in catalog.upstream(self.table.name)
            if catalog[name].materialization == "loaded" and catalog[name].layer != "control"
        ]
        source = sources[0] if len(sources) == 1 else ""
        publication = settings.table_id("control.publication")
        return f"""
  SELECT
    l.event_day,
    ARRAY_AGG(STRUCT(
      l.topic AS topic, o.topic_partition AS topic_partition, o.first_offset AS first_offset,
      o.last_offset AS last_offset, o.row_count AS row_count
    )) AS caused_by
  FROM `{settings.table_id("control.load")}` AS l
  CROSS JOIN UNNEST(l.offsets) AS o
  JOIN (
    SELECT
      event_day,
      MAX(IF(version < {this}, source_version, 0)) AS before,
      MAX(IF(version = {this}, source_version, 0)) AS after
    FROM `{publication}`
    WHERE {where}
    GROUP BY event_day
  ) AS v ON v.event_day = l.event_day
  WHERE l.table_name = {quote(source)} AND l.version > v.before AND l.version <= v.after
  GROUP BY l.event_day"""
