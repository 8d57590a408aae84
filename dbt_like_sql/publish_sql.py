"""The one transaction of a publication, and the questions about its ledger, as text.

Belongs here: pure SQL from values. Does not: running it (publish.py), what a check says (checks.py).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from dbt_like_sql.render import day_sql, quote, render
from dbt_like_sql.restate_sql import Restated, is_compared

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.checks import Check
    from dbt_like_sql.settings import WarehouseSettings

# An error rolls the transaction back; it carries the failed checks, since the emulator rolls variables back as well.
CHECKS_FAILED = "checks failed: "


def publish_script(
    settings: WarehouseSettings,
    catalog: Catalog,
    tables: Sequence[Table],
    *,
    days: Sequence[date],
    today: date,
    run_id: str,
) -> str:
    """The transaction: fence, rows and ledger of each table in order, all checks, then commit.

    Days before `today` are compared with what was published before; today grows with every publication.
    """
    past = [day for day in days if day < today]
    restated = {table.name: Restated(at, table, past) for at, table in enumerate(tables) if past and is_compared(table)}
    parts = [_declarations(tables), *(each.declaration() for each in restated.values())]
    parts += ["BEGIN TRANSACTION;", _fence(settings, tables, run_id)]
    for at, table in enumerate(tables):
        compared = restated.get(table.name)
        if compared:
            parts.append(compared.before_sql(settings))
        parts.append(_write(settings, table, days))
        parts.append(f"SET rows_{at} = @@row_count;")
        parts.append(_ledger(settings, catalog, table, days, run_id))
        if compared:
            parts.append(compared.record_sql(settings, catalog, model_version(table), run_id))
    parts.append(f"SET checks = {_audit(settings, tables, days)};")
    parts.append(f"SET counts = {_counts(settings, tables)};")
    parts.append(f"""
IF (SELECT COUNT(*) FROM UNNEST(checks) AS c WHERE c.severity = 'fail' AND c.failed_rows > 0) > 0 THEN
  RAISE USING MESSAGE = CONCAT(
    {quote(CHECKS_FAILED)},
    TO_JSON_STRING(ARRAY(
      SELECT AS STRUCT c.table_name, c.name, c.severity, c.failed_rows, SUBSTR(c.example, 1, 300) AS example
      FROM UNNEST(checks) AS c
      WHERE c.failed_rows > 0
    ))
  );
END IF;
COMMIT TRANSACTION;
SELECT checks, counts;""")
    return "\n".join(parts)


def model_version(table: Table) -> str:
    """Hash of what a table is built by: its query, and the columns of its contract."""
    text = "\n".join([table.query or "", *(f"{column.name} {column.type}" for column in table.columns)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_sql(settings: WarehouseSettings, table: Table, check: Check, days: Sequence[date]) -> str:
    """One check as a row: how many rows it found, and one of them."""
    path = table.contract_path.with_name("checks.sql")
    query = render(check.sql, table_id=settings.table_id, days=days, path=path)
    return f"""
SELECT
  {quote(table.name)} AS table_name,
  {quote(check.name)} AS name,
  {quote(check.severity)} AS severity,
  COUNT(*) AS failed_rows,
  ANY_VALUE(TO_JSON_STRING(found)) AS example
FROM (
{query}
) AS found"""


def stale_sql(settings: WarehouseSettings, catalog: Catalog, tables: Sequence[Table]) -> str:
    """Table and day wherever sources are newer than the latest publication that was built from them."""
    return "\nUNION ALL\n".join(_stale(settings, catalog, table) for table in tables)


def _declarations(tables: Sequence[Table]) -> str:
    rows = "\n".join(f"DECLARE rows_{at} INT64 DEFAULT 0;" for at, _ in enumerate(tables))
    return f"""
DECLARE checks ARRAY<
  STRUCT<table_name STRING, name STRING, severity STRING, failed_rows INT64, example STRING>
>;
DECLARE counts ARRAY<STRUCT<table_name STRING, row_count INT64, source_version INT64>>;
{rows}"""


def _fence(settings: WarehouseSettings, tables: Sequence[Table], run_id: str) -> str:
    """Two publications of one table change one row: one of them is rolled back, so neither doubles the other's rows."""
    names = ", ".join(quote(table.name) for table in tables)
    return f"""
UPDATE `{settings.table_id("control.publisher")}`
SET version = version + 1, run_id = {quote(run_id)}, published_at = CURRENT_TIMESTAMP()
WHERE table_name IN ({names});
ASSERT @@row_count = {len(tables)} AS 'not migrated: run migrate';"""


def _write(settings: WarehouseSettings, table: Table, days: Sequence[date]) -> str:
    table_id = settings.table_id(table.name)
    where = day_sql(table.partition_column, days) if table.partition_column else "TRUE"
    query = render(table.query or "", table_id=settings.table_id, days=days, path=table.query_path)
    columns = ", ".join(table.column_names)
    return f"""
DELETE FROM `{table_id}` WHERE {where};
INSERT INTO `{table_id}` ({columns})
SELECT {columns}
FROM (
{query}
) AS built;"""


def _ledger(settings: WarehouseSettings, catalog: Catalog, table: Table, days: Sequence[date], run_id: str) -> str:
    """One row a day, or one in all; source versions are read in the same snapshot as the rows."""
    publisher = settings.table_id("control.publisher")
    listed = ", ".join(f"DATE '{day}'" for day in days) if table.partition_column else "CAST(NULL AS DATE)"
    joined = "s.event_day = d" if table.partition_column else "TRUE"
    return f"""
INSERT INTO `{settings.table_id("control.publication")}` (
  table_name, event_day, version, source_version, model_version, run_id, published_at
)
SELECT
  {quote(table.name)},
  d,
  (SELECT version FROM `{publisher}` WHERE table_name = {quote(table.name)}),
  COALESCE(SUM(s.version), 0),
  {quote(model_version(table))},
  {quote(run_id)},
  CURRENT_TIMESTAMP()
FROM UNNEST([{listed}]) AS d
LEFT JOIN ({_sources(settings, catalog, table)}
) AS s ON {joined}
GROUP BY d;"""


def _sources(settings: WarehouseSettings, catalog: Catalog, table: Table) -> str:
    """Versions, by day, of what a table reads directly: loads of a loaded table, publications of a published one."""
    parts = []
    for parent in table.depends_on:
        if catalog[parent].materialization == "loaded":
            day = settings.table_id("control.day")
            parts.append(f"""
SELECT event_day, version FROM `{day}` WHERE table_name = {quote(parent)}""")
        elif catalog[parent].materialization == "table":
            parts.append(_built(settings, parent))
    return "\nUNION ALL".join(parts) or "\nSELECT CAST(NULL AS DATE) AS event_day, 0 AS version"


def _built(settings: WarehouseSettings, name: str) -> str:
    return f"""
SELECT event_day, MAX(source_version) AS version FROM `{settings.table_id("control.publication")}`
WHERE table_name = {quote(name)}
GROUP BY event_day"""


def _audit(settings: WarehouseSettings, tables: Sequence[Table], days: Sequence[date]) -> str:
    selects = [check_sql(settings, table, check, days) for table in tables for check in table.checks]
    if not selects:
        return "[]"
    return (
        "ARRAY(\nSELECT AS STRUCT c.table_name, c.name, c.severity, c.failed_rows, c.example FROM ("
        + "\nUNION ALL".join(selects)
        + "\n) AS c\n)"
    )


def _counts(settings: WarehouseSettings, tables: Sequence[Table]) -> str:
    publication = settings.table_id("control.publication")
    structs = [
        f"""
  STRUCT(
    {quote(table.name)} AS table_name,
    rows_{at} AS row_count,
    (SELECT COALESCE(MAX(source_version), 0) FROM `{publication}` WHERE table_name = {quote(table.name)})
      AS source_version
  )"""
        for at, table in enumerate(tables)
    ]
    return f"[{','.join(structs)}\n]"


def _stale(settings: WarehouseSettings, catalog: Catalog, table: Table) -> str:
    built = _built(settings, table.name)
    sources = _sources(settings, catalog, table)
    if not table.partition_column:
        return f"""
SELECT {quote(table.name)} AS table_name, MAX(s.event_day) AS event_day
FROM ({sources}
) AS s
HAVING SUM(s.version) > COALESCE((SELECT MAX(b.version) FROM ({built}) AS b), 0)"""
    return f"""
SELECT {quote(table.name)} AS table_name, s.event_day
FROM (
SELECT event_day, SUM(version) AS version FROM ({sources}
) AS each_source
WHERE event_day IS NOT NULL
GROUP BY event_day
) AS s
LEFT JOIN ({built}
) AS b ON b.event_day = s.event_day
WHERE s.version > COALESCE(b.version, 0)"""
