"""The one transaction of a publication, and the questions about its ledger, as text.

Belongs here: pure SQL from values. Does not: running it (publish.py), what a check says (checks.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dbt_like_sql.audit_sql import RESULT, audit_sql, ordered_checks
from dbt_like_sql.catalog import fence_name
from dbt_like_sql.counted import SUMS, with_counted
from dbt_like_sql.difference import (
    DISPLACED,
    counting_column,
    counts_rows_sql,
    grow_sql,
    new_rows_sql,
    touched_name,
    touched_sql,
)
from dbt_like_sql.graph import table_nodes, tree
from dbt_like_sql.publish_state import are_large, causes, loaded_sources, rule_version, source_versions
from dbt_like_sql.render import Slice, day_sql, is_by_days, newest_sql, quote, render
from dbt_like_sql.repeats import keeps_first_of_key, query_by_repeats, repeats_sql
from dbt_like_sql.restate_sql import measures, restated_sql

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.difference import Growth
    from dbt_like_sql.publish_state import OffsetRange, State
    from dbt_like_sql.settings import WarehouseSettings

# An error rolls the transaction back; it carries the failed checks, since the emulator rolls variables back as well.
CHECKS_FAILED = "checks failed: "
FENCED = "fenced: another publication was faster"
UNION = "\nUNION ALL"
_RESULT = f"SELECT audit_results AS checks, {SUMS} AS sums;"


@dataclass(frozen=True)
class Publication:
    """What is published: tables in build order, their days, and which of these grow by what was loaded since.

    `growing` are days whose rows of new keys are built, `growths` days that are published by difference. `explain`: the
    checks give examples of what they find.
    """

    catalog: Catalog
    tables: Sequence[Table]
    days: Sequence[date]
    today: date
    run_id: str
    state: State
    growing: Mapping[str, Mapping[date, tuple[OffsetRange, ...]]] = field(default_factory=dict)
    growths: Sequence[Growth] = ()
    explain: bool = False

    def slice(self, table: Table) -> Slice:
        """The rows of a table that are built, as its checks see them."""
        growing = self.growing.get(table.name) or {}
        if not growing:
            return Slice(self.days)
        if self.is_staged(table):
            staged = {table.name: built_table(table), table.depends_on[0]: source_table(table)}
            return Slice(sorted(growing), staged=staged)
        keys = f"SELECT {table.incremental_by} FROM {source_table(table)}"
        return Slice([day for day in self.days if day not in growing], sorted(growing), table.incremental_by, keys)

    def is_staged(self, table: Table) -> bool:
        """Whether all of its days grow, and its checks look at nothing but what is built and what that is made of.

        Then query and checks read two small temporary tables, and the day's own table is only written. On the emulator
        each table that a statement names costs 20 to 50 ms, on Google each check is one scan less.
        """
        growing = self.growing.get(table.name) or {}
        read = {name for check in table.checks for name, node in table_nodes(tree(check.sql)) if is_by_days(node)}
        return set(self.days) == set(growing) and read <= {table.name, *table.depends_on}

    def knows_repeats(self, table: Table) -> bool:
        """Whether what is published tells which new keys were there before: each key of the source has its row there.

        Then the source's day is not searched for the new keys, which none of its rows has, as a rule.
        """
        return self.is_staged(table) and keeps_first_of_key(table, self.catalog)

    def takes_repeats_aside(self, table: Table) -> bool:
        """Whether its days are built whole, hold many rows as far as is known, and nearly all of these stand alone."""
        is_whole = not self.growing.get(table.name)
        return is_whole and are_large(table, self.days, self.state) and keeps_first_of_key(table, self.catalog)

    def growth(self, table: Table) -> Growth | None:
        """The days of a table that are published by difference."""
        return next((each for each in self.growths if each.table.name == table.name), None)

    def grown_days(self, table: Table) -> tuple[date, ...]:
        """Days of a table that are not built anew."""
        growth = self.growth(table)
        return tuple(sorted({*(self.growing.get(table.name) or {}), *(growth.days if growth else ())}))


def publish_script(settings: WarehouseSettings, work: Publication) -> str:
    """The transaction: fence, rows, checks, ledger of all tables, then commit.

    Days before today that were published before are compared with what they were; today grows with every publication.
    """
    width = max((len(measures(table)) for table in work.tables), default=0)
    sums = "".join(f", m_{at} NUMERIC" for at in range(width))
    parts = [
        f"DECLARE audit_results ARRAY<{RESULT}>;",
        f"DECLARE {SUMS} ARRAY<STRUCT<table_name STRING, event_day DATE, row_count INT64, as_of TIMESTAMP{sums}>>;",
        *(_keys(settings, work, table) for table in work.tables if work.growing.get(table.name)),
        "BEGIN TRANSACTION;",
        _fence(settings, work),
        *(_write(settings, work, table) for table in work.tables),
        f"SET {SUMS} = {_sums(settings, work, width)};",
        _assert_none_displaced(settings, work),
        f"SET audit_results = {_audit(settings, work)};",
        _judge(work),
        _ledger(settings, work),
        _restated(settings, work),
        "COMMIT TRANSACTION;",
        _RESULT,
    ]
    return "\n".join(part for part in parts if part)


def _assert_none_displaced(settings: WarehouseSettings, work: Publication) -> str:
    """Tables that grow by difference count the rows that their parent has; by the sums at hand where they tell it."""
    conditions, published = [], {table.name for table in work.tables}
    for growth in work.growths:
        names, counted = measures(growth.table), counting_column(growth.table)
        if counted not in names or growth.parent.name not in published:
            conditions.append(counts_rows_sql(growth, settings.table_id))
            continue
        at_hand = f"FROM UNNEST({SUMS}) AS s WHERE {day_sql('s.event_day', growth.days)} AND s.table_name ="
        conditions.append(
            f"(SELECT SUM(s.m_{names.index(counted)}) {at_hand} {quote(growth.table.name)}) = "
            f"(SELECT SUM(s.row_count) {at_hand} {quote(growth.parent.name)})"
        )
    return f"ASSERT {' AND '.join(conditions)} AS {quote(DISPLACED)};" if conditions else ""


def _audit(settings: WarehouseSettings, work: Publication) -> str:
    """All checks. Those of whole days take the sums of the publication's ledger, which were made a moment before."""
    counted = {table.name: table for table in work.tables}

    def at_hand(table: Table, sql: str) -> str:
        return with_counted(sql, counted) if work.slice(table) == Slice(work.days) else sql

    return audit_sql(work.tables, settings.table_id, work.slice, explain=work.explain, at_hand=at_hand)


def _judge(work: Publication) -> str:
    """Roll back if a blocking check has found a row."""
    checks = ordered_checks(work.tables)
    blocking = [str(at) for at, (_table, check) in enumerate(checks) if check.severity == "fail"]
    if not blocking:
        return ""
    found = """TO_JSON_STRING(ARRAY(
      SELECT AS STRUCT at AS number, c.failed_rows AS failed_rows, SUBSTR(c.example, 1, 300) AS example
      FROM UNNEST(audit_results) AS c WITH OFFSET AS at
      WHERE c.failed_rows > 0
    ))"""
    return f"""
IF (
  SELECT COUNT(*) FROM UNNEST(audit_results) AS c WITH OFFSET AS at
  WHERE c.failed_rows > 0 AND at IN ({", ".join(blocking)})
) > 0 THEN
  RAISE USING MESSAGE = {f"CONCAT({quote(CHECKS_FAILED)}, {found})" if work.explain else quote(CHECKS_FAILED)};
END IF;"""


def stale_sql(settings: WarehouseSettings, catalog: Catalog, tables: Sequence[Table]) -> str:
    """Table and day wherever sources are newer than the latest publication that was built from them."""
    return "\nUNION ALL\n".join(_stale(settings, catalog, table) for table in tables)


def source_table(table: Table) -> str:
    """The temporary table of the source's rows whose keys were loaded since; without staging, of their keys."""
    return f"source_of_{table.name.replace('.', '_')}"


def repeated_table(table: Table) -> str:
    """The temporary table of those of the new keys that are published already."""
    return f"repeated_of_{table.name.replace('.', '_')}"


def built_table(table: Table) -> str:
    """The temporary table of the rows that the query makes of them."""
    return f"built_{table.name.replace('.', '_')}"


def _keys(settings: WarehouseSettings, work: Publication, table: Table) -> str:
    """Before the transaction: what is loaded in the meantime lies beyond these offsets."""
    source, key = work.catalog[table.depends_on[0]], table.incremental_by
    source_id, day = settings.table_id(source.name), source.partition_column or ""
    is_new = new_rows_sql(day, work.growing[table.name])
    if not work.is_staged(table):
        return f"""
CREATE TEMP TABLE {source_table(table)} AS
SELECT DISTINCT {key} FROM `{source_id}` WHERE {is_new};"""
    where, columns = day_sql(day, work.growing[table.name]), ", ".join(source.column_names)
    query = render(table.query or "", table_id=settings.table_id, part=work.slice(table), path=table.query_path)
    if work.knows_repeats(table):
        published = day_sql(table.partition_column or "", work.growing[table.name])
        rows = f"""
CREATE TEMP TABLE {repeated_table(table)} AS
SELECT {key} FROM `{settings.table_id(table.name)}`
WHERE {published} AND {key} IN (SELECT {key} FROM `{source_id}` WHERE {is_new});
CREATE TEMP TABLE {source_table(table)} AS
SELECT {columns} FROM `{source_id}` WHERE {is_new}
UNION ALL
SELECT {columns} FROM `{source_id}`
WHERE {where} AND NOT {is_new} AND {key} IN (SELECT {key} FROM {repeated_table(table)});"""
    else:
        rows = f"""
CREATE TEMP TABLE {source_table(table)} AS
SELECT {columns} FROM `{source_id}`
WHERE {where} AND {key} IN (SELECT {key} FROM `{source_id}` WHERE {is_new});"""
    return f"""{rows}
CREATE TEMP TABLE {built_table(table)} AS
{query};"""


def _fence(settings: WarehouseSettings, work: Publication) -> str:
    """Two publications of one table change one row, and each says what it saw there: one of them is rolled back.

    Each table has a fence of its own. Two transactions that change one table, whichever rows, cannot both commit, on
    Google and on the emulator: in one fence for all, a fact table published every second kept every dimension out.
    """
    return "\n".join(
        f"""
UPDATE `{settings.table_id(fence_name(table.name))}`
SET version = version + 1, run_id = {quote(work.run_id)}, published_at = CURRENT_TIMESTAMP()
WHERE version = {work.state.publishers[table.name]};
ASSERT @@row_count = 1 AS {quote(FENCED)};"""
        for table in work.tables
    )


def _write(settings: WarehouseSettings, work: Publication, table: Table) -> str:
    growth = work.growth(table)
    if growth is not None:
        whole = [day for day in work.days if day not in growth.days]
        parts = [_touched(settings, work, growth), grow_sql(growth, settings.table_id)]
        return "\n".join([*parts, *([_build(settings, table, Slice(whole))] if whole else [])])
    if work.growing.get(table.name) and work.is_staged(table):
        replaced = repeated_table(table) if work.knows_repeats(table) else source_table(table)
        return _replace_keys(settings, work, table, replaced)
    if work.takes_repeats_aside(table):
        query = query_by_repeats(table, work.days, settings.table_id)
        aside = repeats_sql(table, work.catalog, work.days, settings.table_id)
        return "\n".join([aside, _replace(settings, table, Slice(work.days), query)])
    return _build(settings, table, work.slice(table))


def _replace_keys(settings: WarehouseSettings, work: Publication, table: Table, replaced: str) -> str:
    """The rows of the new keys, as they were built and will be audited, in place of those that are published."""
    table_id, key, columns = settings.table_id(table.name), table.incremental_by, ", ".join(table.column_names)
    where = day_sql(table.partition_column or "", work.days)
    return f"""
DELETE FROM `{table_id}` WHERE {where} AND {key} IN (SELECT {key} FROM {replaced});
INSERT INTO `{table_id}` ({columns})
SELECT {_of_days(table, work.days)} FROM {built_table(table)};"""


def _touched(settings: WarehouseSettings, work: Publication, growth: Growth) -> str:
    """Tables that sum up the same new rows share them."""
    alike = [each for each in work.growths if touched_name(each) == touched_name(growth)]
    return touched_sql(alike, settings.table_id) if alike[0] is growth else ""


def _build(settings: WarehouseSettings, table: Table, part: Slice) -> str:
    query = render(table.query or "", table_id=settings.table_id, part=part, path=table.query_path)
    return _replace(settings, table, part, query)


def _replace(settings: WarehouseSettings, table: Table, part: Slice, query: str) -> str:
    table_id = settings.table_id(table.name)
    where = part.sql(table.partition_column) if table.partition_column else "TRUE"
    columns = ", ".join(table.column_names)
    return f"""
DELETE FROM `{table_id}` WHERE {where};
INSERT INTO `{table_id}` ({columns})
SELECT {_of_days(table, [*part.days, *part.growing])}
FROM (
{query}
) AS built;"""


def _of_days(table: Table, days: Sequence[date]) -> str:
    """The columns of the rows that were built; the first row of another day fails, and all is rolled back.

    No publication of these days would take such a row out again: each would add it once more. Asked of each row as it
    is written, it costs no scan: 2 million rows take the emulator 5 s with it and without it.
    """
    day = table.partition_column
    if day is None:
        return ", ".join(table.column_names)
    problem = quote(f"{table.name}: query.sql gave a row whose {day} is not among the days to build but ")
    mend = quote(f"; have it give rows of {day} IN UNNEST(@days) only, and publish again")
    found = f"ERROR(CONCAT({problem}, IFNULL(CAST({day} AS STRING), 'NULL'), {mend}))"
    return ", ".join(
        f"IF({day_sql(day, days)}, {day}, {found})" if name == day else name for name in table.column_names
    )


def _sums(settings: WarehouseSettings, work: Publication, width: int) -> str:
    """Rows, newest moment and additive columns of each day, or of each whole table, as they are now."""
    selects = []
    for table in work.tables:
        day = table.partition_column
        names = measures(table)
        columns = "".join(
            f", {f'CAST(SUM({names[at]}) AS NUMERIC)' if at < len(names) else 'CAST(NULL AS NUMERIC)'} AS m_{at}"
            for at in range(width)
        )
        newest = next((newest_sql(each.name) for each in table.columns if each.is_as_of), "CAST(NULL AS TIMESTAMP)")
        grouped = f"\nWHERE {day_sql(day, work.days)}\nGROUP BY {day}" if day else ""
        selects.append(
            f"\nSELECT {quote(table.name)} AS table_name, {day or 'CAST(NULL AS DATE)'} AS event_day, "
            f"COUNT(*) AS row_count, {newest} AS as_of{columns}\nFROM `{settings.table_id(table.name)}`{grouped}"
        )
    kept = "".join(f", t.{name}" for name in ("row_count", "as_of", *(f"m_{at}" for at in range(width))))
    return f"ARRAY(SELECT AS STRUCT t.table_name, t.event_day{kept} FROM ({UNION.join(selects)}\n) AS t)"


def _ledger(settings: WarehouseSettings, work: Publication) -> str:
    """One row a day, or one for a whole table, with what it was built from and what it holds.

    Days' source versions are literals; a whole table adds up what the ledger says, so it comes behind what it reads.
    """
    versions = source_versions(work.catalog, work.tables, work.days, work.state)
    waves: list[list[Table]] = [[table for table in work.tables if table.partition_column]]
    for table in work.tables:
        if table.partition_column:
            continue
        if len(waves) == 1 or {each.name for each in waves[-1]} & set(work.catalog.sources(table.name)):
            waves.append([])
        waves[-1].append(table)
    return "\n".join(_ledger_rows(settings, work, wave, versions) for wave in waves if wave)


def _ledger_rows(
    settings: WarehouseSettings, work: Publication, tables: Sequence[Table], versions: Mapping[tuple[str, date], int]
) -> str:
    selects = []
    for table in tables:
        name = quote(table.name)
        sums = ", ".join(
            f"STRUCT({quote(measure)} AS name, s.m_{at} AS value)" for at, measure in enumerate(measures(table))
        )
        kept = f"COALESCE(s.row_count, 0), ARRAY<STRUCT<name STRING, value NUMERIC>>[{sums}], s.as_of"
        fixed, rule = str(work.state.publishers[table.name] + 1), quote(rule_version(work.catalog, table))
        if table.partition_column:
            days = ", ".join(
                f"STRUCT(DATE '{day}' AS event_day, {versions[table.name, day]} AS source_version)" for day in work.days
            )
            selects.append(
                f"\nSELECT {name}, d.event_day, {fixed}, d.source_version, {rule}, {kept}\n"
                f"FROM UNNEST([{days}]) AS d\n"
                f"LEFT JOIN UNNEST({SUMS}) AS s ON s.table_name = {name} AND s.event_day = d.event_day"
            )
            continue
        source = f"(SELECT COALESCE(SUM(version), 0) FROM ({_sources(settings, work.catalog, table)}\n) AS v)"
        selects.append(
            f"\nSELECT {name}, CAST(NULL AS DATE), {fixed}, {source}, {rule}, {kept}\n"
            f"FROM UNNEST({SUMS}) AS s WHERE s.table_name = {name}"
        )
    return f"""
INSERT INTO `{settings.table_id("control.publication")}` (
  table_name, event_day, version, source_version, model_version, row_count, measures, as_of, run_id, published_at
)
SELECT p.*, {quote(work.run_id)}, CURRENT_TIMESTAMP() FROM ({UNION.join(selects)}
) AS p;"""


def _restated(settings: WarehouseSettings, work: Publication) -> str:
    versions = source_versions(work.catalog, work.tables, work.days, work.state)
    selects = []
    for table in work.tables:
        known = {day: work.state.published.get((table.name, day)) for day in work.days if day < work.today}
        before = {day: found for day, found in known.items() if found is not None and found.row_count is not None}
        if not table.partition_column or not before:
            continue
        sources = {day: versions[table.name, day] for day in before}
        caused = {day: causes(work.catalog, table, day, work.state, sources[day]) for day in before}
        version, model = work.state.publishers[table.name] + 1, quote(rule_version(work.catalog, table))
        selects.append(
            f"\nSELECT r.*, {version} AS version, {model} AS model_version FROM ("
            f"{restated_sql(table, before, sources, caused)}\n) AS r"
        )
    if not selects:
        return ""
    return f"""
INSERT INTO `{settings.table_id("control.restatement")}` (
  table_name, event_day, source_version_before, source_version, rows_before, rows_after, measures, caused_by,
  version, model_version, run_id, restated_at
)
SELECT c.*, {quote(work.run_id)}, CURRENT_TIMESTAMP() FROM ({UNION.join(selects)}
) AS c;"""


def _sources(settings: WarehouseSettings, catalog: Catalog, table: Table) -> str:
    """Versions, by day, of what a table is made of: loads of a loaded table, publications of a published one."""
    parts = []
    for parent in catalog.sources(table.name):
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


def _stale(settings: WarehouseSettings, catalog: Catalog, table: Table) -> str:
    built = _built(settings, table.name)
    sources = _sources(settings, catalog, table)
    if not table.partition_column:
        return f"""
SELECT {quote(table.name)} AS table_name, MAX(s.event_day) AS event_day
FROM ({sources}
) AS s
HAVING SUM(s.version) > COALESCE((SELECT MAX(b.version) FROM ({built}) AS b), 0)"""
    # a backfill of core alone also loads days on which nothing has landed: there is nothing of them to publish,
    # whatever another stream has on that day
    day = settings.table_id("control.day")
    loaded = ", ".join(map(quote, loaded_sources(catalog, table))) or "''"
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
WHERE s.version > COALESCE(b.version, 0)
AND (b.event_day IS NOT NULL OR s.event_day IN (
  SELECT event_day FROM `{day}` WHERE table_name IN ({loaded}) AND ARRAY_LENGTH(batches) > 0
))"""
