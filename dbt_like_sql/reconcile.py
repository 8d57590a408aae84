"""Count a day in a core table and in its fact table, so that layers can be compared, and keep what was compared.

Belongs here: counts, amounts, checksums of the warehouse's side. Does not: landing's side, deciding what to block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from dbt_like_sql.additive import additive_measures, fact_table, label_hashes
from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.difference import Kept
from dbt_like_sql.graph import tree
from dbt_like_sql.publish_state import rule_version
from dbt_like_sql.render import day_sql, newest_sql, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, datetime

    from dbt_like_sql.additive import Measure
    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.warehouse import Warehouse

# Order independent, small, and the same integers in PostgreSQL: both sides add it up over the rows of a day.
CHECKSUM_SQL = "MOD(topic_partition * 1000003 + topic_offset, 1000000007)"
AMOUNT = "amount_gbp"
_NOTHING = Decimal(0)


@dataclass(frozen=True)
class Fact:
    """A core table, and the daily table that has one row for each of its events.

    Attributes:
        core: the loaded table.
        table: the daily table; None where no mart keeps single events: repeats are then not told from other rows.
        kept: by which columns of core the daily table knows an event again, and which of its deliveries it keeps.
        amount: the column that both have, in GBP; None where they have none.
    """

    core: Table
    table: Table | None = None
    kept: Kept = field(default_factory=Kept)
    amount: str | None = None

    @property
    def event_key(self) -> tuple[str, ...]:
        """The same columns where the daily table has them; empty where it keeps every row, or lacks one of them."""
        there = self.table.column_names if self.table is not None else ()
        return self.kept.keys if set(self.kept.keys) <= set(there) else ()

    @property
    def day(self) -> str:
        """The core table's day."""
        return self.core.partition_column or ""


@dataclass(frozen=True)
class DayTotals:
    """One day of one layer. `amount` is of first deliveries; `checksum` is over the identities of all rows.

    `amount` is None where the rows have none. `sums` are what the rows add to each measure that was asked for, by its
    full name, of the rows that `amount` is of, or of all where the measure counts repeats.
    """

    day: date
    rows: int = 0
    repeats: int = 0
    amount: Decimal | None = _NOTHING
    checksum: int = 0
    version: int = 0
    newest_produced_at: datetime | None = None
    sums: Mapping[str, Decimal] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Reconciliation:
    """One comparison of one day through the layers. What was not counted is None."""

    topic: str
    table: str
    day: date
    landed_rows: int | None
    landed_checksum: int | None
    dead_letter_rows: int | None
    core: DayTotals
    mart: DayTotals | None
    is_reconciled: bool
    open_dead_letter_rows: int | None = None  # of the topic, whatever day they belong to


@dataclass(frozen=True)
class CountedBefore:
    """What had landed of a day when it was reconciled last; `batches`: topic partition -> last batch of it."""

    landed_rows: int
    landed_checksum: int
    batches: dict[int, int]


def fact_of(catalog: Catalog, core: str) -> Fact:
    """What is counted of a loaded table, and of the daily one that keeps each of its events (`fact_table`)."""
    source, found = catalog[core], fact_table(catalog, core)
    amount = AMOUNT if AMOUNT in source.column_names else None
    if found is None:
        return Fact(source, amount=amount)
    table, kept = found
    return Fact(source, table, kept, amount if amount and _hands_on(table, amount) else None)


def _hands_on(table: Table, column: str) -> bool:
    selected = {each.alias_or_name: each.unalias() for each in tree(table.query or "", table.query_path).selects}
    return isinstance(selected.get(column), exp.Column) and selected[column].name == column


def core_measures(catalog: Catalog, core: str) -> tuple[Measure, ...]:
    """Every additive measure of the tables with days that are built from core, and what a row of core adds to it."""
    return additive_measures(catalog, core)


def core_labels(catalog: Catalog, core: str) -> tuple[Measure, ...]:
    """The same of the labels: a sum of hashes for each table with days. It reads many more columns than measures do."""
    return label_hashes(catalog, core)


def core_days(
    warehouse: Warehouse, days: Iterable[date] | None, measures: Sequence[Measure] = (), *, fact: Fact
) -> dict[date, DayTotals]:
    """Days of core, in one query: rows, repeats, amount and measures of first deliveries, checksum of all identities.

    Repeats are few: they are found by one grouping, and only their events' deliveries are put in order, as the fact
    table does. Without one, or where it keeps every row, nothing says what a repeat is, and every row counts.

    Args:
        warehouse: an open, migrated warehouse.
        days: which days; None for every day that has rows.
        measures: also summed up; those that count repeats are of all rows.
        fact: of which core table.
    """
    wanted = _wanted(days)
    if wanted == []:
        return {}
    if not fact.kept.keys:
        return scanned_days(warehouse, fact.core, wanted, fact=fact, measures=measures)
    core, day, where = warehouse.table_id(fact.core.name), fact.day, _days_sql(fact.day, wanted)
    keys, order = [day, *fact.kept.keys], (f"c.{name}{' DESC' if desc else ''}" for name, desc in fact.kept.order)
    listed = ", ".join(keys)
    alike = " AND ".join(f"r.{key} {_equals(fact.core, key)} c.{key}" for key in keys)
    sums = _sums(measures)
    less = "".join(
        f", c.s_{at}" if counts_repeats else f", c.s_{at} - COALESCE(r.s_{at}, NUMERIC '0') AS s_{at}"
        for at, (_sql, counts_repeats) in enumerate(sums)
    )
    sql = f"""
WITH repeated AS (
  SELECT {listed} FROM `{core}` WHERE {where} GROUP BY {listed} HAVING COUNT(*) > 1
),
later AS (
  SELECT c.*
  FROM `{core}` AS c
  JOIN repeated AS r ON {alike}
  WHERE {_days_sql(f"c.{day}", wanted)}
  QUALIFY ROW_NUMBER() OVER (
    PARTITION BY {", ".join(f"c.{key}" for key in keys)} ORDER BY {", ".join(order)}
  ) > 1
),
repeats AS (
  SELECT {day}, COUNT(*) AS row_count, {_amount_sql(fact)} AS amount{_sums_sql(sums)}
  FROM later GROUP BY {day}
)
SELECT
  c.day, c.row_count, COALESCE(r.row_count, 0) AS repeats, c.amount - COALESCE(r.amount, NUMERIC '0') AS amount,
  c.checksum, c.newest_produced_at, v.version{less}
FROM ({_scan_sql(warehouse, fact, fact.core, wanted, sums=sums)}) AS c
LEFT JOIN repeats AS r ON r.{day} = c.day
LEFT JOIN ({_version_sql(warehouse, fact)}) AS v ON v.event_day = c.day
"""
    return _by_day(fact, wanted, warehouse.run(sql, kind="reconcile").rows, measures)


def events_on_several_days(
    warehouse: Warehouse, days: Iterable[date], *, limit: int = 100, fact: Fact
) -> list[dict[str, Any]]:
    """Events of a fact table that stand on more than one of these days, with all of their days, at most so many.

    A repeat is the same event delivered again, on its own day. One that comes back with another day is another event
    to every layer, and counted on both: a producer's mistake that nobody else can see.
    """
    wanted = sorted(set(days))
    if not wanted or fact.table is None or not fact.event_key:
        return []
    day = fact.table.partition_column or ""
    keys = ", ".join(f"t.{key}" for key in fact.event_key)
    told = ", ' ', ".join(f"IFNULL(CAST(t.{key} AS STRING), 'NULL')" for key in fact.event_key)
    sql = f"""
SELECT
  CONCAT({told}) AS found_event,
  STRING_AGG(DISTINCT CAST(t.{day} AS STRING), ' ' ORDER BY CAST(t.{day} AS STRING)) AS found_days
FROM `{warehouse.table_id(fact.table.name)}` AS t
WHERE {day_sql(f"t.{day}", wanted)}
GROUP BY {keys}
HAVING COUNT(DISTINCT t.{day}) > 1
ORDER BY found_event
LIMIT {limit}
"""
    rows = warehouse.run(sql, kind="reconcile").rows
    return [{"event_id": row["found_event"], "days": row["found_days"]} for row in rows]


def _wanted(days: Iterable[date] | None) -> list[date] | None:
    return None if days is None else sorted(set(days))


def _days_sql(column: str, days: Sequence[date] | None) -> str:
    """`column` is one of these days, or any day: said even so, since a table may ask for a condition on its days."""
    return f"{column} >= DATE '0001-01-01'" if days is None else day_sql(column, days)


def _equals(table: Table, column: str) -> str:
    return "=" if table.column(column).is_required else "IS NOT DISTINCT FROM"


def scanned_days(
    warehouse: Warehouse,
    table: Table,
    days: Iterable[date] | None,
    *,
    fact: Fact,
    topic: str | None = None,
    measures: Sequence[Measure] = (),
) -> dict[date, DayTotals]:
    """Days of core or of the fact table, None for all, by one scan of a few columns: repeats are not looked for.

    `amount` is of all rows here; with a topic, rows and version are of this topic alone. A fraction of
    what `core_days` costs.
    """
    wanted = _wanted(days)
    if wanted == []:
        return {}
    sums = _sums(measures)
    shown = "".join(f", c.s_{at}" for at in range(len(sums)))
    sql = f"""
SELECT c.day, c.row_count, 0 AS repeats, c.amount, c.checksum, c.newest_produced_at, v.version{shown}
FROM ({_scan_sql(warehouse, fact, table, wanted, topic=topic, sums=sums)}) AS c
LEFT JOIN ({_version_sql(warehouse, fact, topic)}) AS v ON v.event_day = c.day
"""
    return _by_day(fact, wanted, warehouse.run(sql, kind="reconcile").rows, measures)


def measured_days(
    warehouse: Warehouse, days: Iterable[date] | None, measures: Sequence[Measure]
) -> dict[date, dict[str, Decimal]]:
    """What the published tables hold of each measure on each day, by its full name; 0 on a day without rows.

    One query for all tables; each is scanned once, and only its measures and its day are read. Without days, of every
    day that has rows.
    """
    wanted = _wanted(days)
    found = {day: {measure.name: _NOTHING for measure in measures} for day in wanted or ()}
    if wanted == [] or not measures:
        return found
    summed = {table: [each for each in measures if each.table == table] for table in _tables(measures)}
    day_of = {table: load_catalog()[table].partition_column or "" for table in summed}
    selects = "\nUNION ALL\n".join(
        f"SELECT {quote(table)} AS table_name, {day_of[table]} AS day, {_named_sums_sql(of_table)} AS sums\n"
        f"FROM `{warehouse.table_id(table)}` WHERE {_days_sql(day_of[table], wanted)} GROUP BY {day_of[table]}"
        for table, of_table in summed.items()
    )
    for row in warehouse.run(selects, kind="reconcile").rows:
        found.setdefault(row["day"], {measure.name: _NOTHING for measure in measures}).update(
            {f"{row['table_name']}.{each['name']}": Decimal(each["total"]) for each in row["sums"]}
        )
    return found


def _tables(measures: Iterable[Measure]) -> list[str]:
    return list(dict.fromkeys(each.table for each in measures))


def _named_sums_sql(measures: Sequence[Measure]) -> str:
    listed = ", ".join(
        f"STRUCT({quote(each.column)} AS name, "
        f"COALESCE(CAST(SUM({each.table_sql or each.column}) AS NUMERIC), NUMERIC '0') AS total)"
        for each in measures
    )
    return f"[{listed}]"


def _sums(measures: Iterable[Measure]) -> list[tuple[str, bool]]:
    """Each expression once, with whether repeats count: many measures are the same sum."""
    return list(dict.fromkeys((each.source_sql, each.counts_repeats) for each in measures if each.source_sql))


def _sums_sql(sums: Sequence[tuple[str, bool]]) -> str:
    return "".join(f",\n    CAST(SUM({sql}) AS NUMERIC) AS s_{at}" for at, (sql, _) in enumerate(sums))


def _scan_sql(
    warehouse: Warehouse,
    fact: Fact,
    table: Table,
    days: Sequence[date] | None,
    *,
    topic: str | None = None,
    sums: Sequence[tuple[str, bool]] = (),
) -> str:
    of_topic, day = f" AND topic = {quote(topic)}" if topic else "", table.partition_column or ""
    newest = newest_sql("produced_at") if "produced_at" in table.column_names else "CAST(NULL AS TIMESTAMP)"
    return f"""
  SELECT
    {day} AS day,
    COUNT(*) AS row_count,
    {_amount_sql(fact)} AS amount,
    CAST(SUM({CHECKSUM_SQL}) AS NUMERIC) AS checksum,
    {newest} AS newest_produced_at{_sums_sql(sums)}
  FROM `{warehouse.table_id(table.name)}`
  WHERE {_days_sql(day, days)}{of_topic}
  GROUP BY {day}
"""


def _amount_sql(fact: Fact) -> str:
    return f"SUM({fact.amount})" if fact.amount else "CAST(NULL AS NUMERIC)"


def _version_sql(warehouse: Warehouse, fact: Fact, topic: str | None = None) -> str:
    of_topic = f" AND topic = {quote(topic)}" if topic else ""
    return f"""
  SELECT event_day, SUM(version) AS version
  FROM `{warehouse.table_id("control.day")}` WHERE table_name = {quote(fact.core.name)}{of_topic} GROUP BY event_day
"""


def mart_days(warehouse: Warehouse, days: Iterable[date] | None, *, fact: Fact) -> dict[date, DayTotals]:
    """Days of the fact table, None for all, in one query; its publication's blocking check says that no event is twice.

    Empty where there is no fact table.
    """
    return {} if fact.table is None else scanned_days(warehouse, fact.table, days, fact=fact)


def rows_not_as_published(
    warehouse: Warehouse, catalog: Catalog, days: Iterable[date]
) -> dict[str, list[tuple[date | None, int, int]]]:
    """Rows of each published table that has others than its latest publication left: day, published, there.

    Somebody has changed them by hand since. A whole table has no day, and is counted without being read; of a table
    with days, these days are counted. One query, so that a publication meanwhile is in the ledger and in the table, or
    in neither. Publications that did not record their rows are left out.
    """
    wanted, tables = sorted(set(days)), [table for table in catalog.layer("mart") if table.materialization == "table"]
    whole = [table.name for table in tables if not table.partition_column]
    daily = {table.name: table.partition_column for table in tables if table.partition_column} if wanted else {}
    counts = [
        f"SELECT {quote(name)} AS table_name, CAST(NULL AS DATE) AS event_day, COUNT(*) AS row_count\n"
        f"FROM `{warehouse.table_id(name)}`"
        for name in whole
    ] + [
        f"SELECT {quote(name)} AS table_name, {column} AS event_day, COUNT(*) AS row_count\n"
        f"FROM `{warehouse.table_id(name)}` WHERE {day_sql(column, wanted)} GROUP BY {column}"
        for name, column in daily.items()
    ]
    if not counts:
        return {}
    listed = "\nUNION ALL\n".join(counts)
    of_whole = f"table_name IN ({', '.join(map(quote, whole)) or quote('')}) AND event_day IS NULL"
    of_daily = (
        f"table_name IN ({', '.join(map(quote, daily))}) AND {day_sql('event_day', wanted)}" if daily else "FALSE"
    )
    sql = f"""
WITH latest AS (
  SELECT table_name, event_day, row_count
  FROM `{warehouse.table_id("control.publication")}`
  WHERE ({of_whole}) OR ({of_daily})
  QUALIFY ROW_NUMBER() OVER (PARTITION BY table_name, event_day ORDER BY version DESC) = 1
),
there AS (
{listed}
)
SELECT latest.table_name, latest.event_day, latest.row_count AS published, COALESCE(there.row_count, 0) AS found
FROM latest
LEFT JOIN there
  ON there.table_name = latest.table_name
  AND COALESCE(there.event_day, DATE '0001-01-01') = COALESCE(latest.event_day, DATE '0001-01-01')
WHERE latest.row_count != COALESCE(there.row_count, 0)
ORDER BY latest.table_name, latest.event_day
"""
    found: dict[str, list[tuple[date | None, int, int]]] = {}
    for row in warehouse.run(sql, kind="reconcile").rows:
        found.setdefault(row["table_name"], []).append((row["event_day"], row["published"], row["found"]))
    return found


def days_of_another_rule(
    warehouse: Warehouse, catalog: Catalog, tables: Sequence[str], days: Iterable[date]
) -> dict[str, dict[date, dict[str, Decimal]]]:
    """Of these tables the days that were published last by another query or contract than there is now.

    Each with the sums of its measures as published.
    """
    wanted = sorted(set(days))
    if not tables or not wanted:
        return {}
    sql = f"""
SELECT table_name, event_day, model_version, measures
FROM `{warehouse.table_id("control.publication")}`
WHERE table_name IN ({", ".join(map(quote, tables))}) AND {day_sql("event_day", wanted)}
QUALIFY ROW_NUMBER() OVER (PARTITION BY table_name, event_day ORDER BY version DESC) = 1
"""
    found: dict[str, dict[date, dict[str, Decimal]]] = {}
    for row in warehouse.run(sql, kind="reconcile").rows:
        if row["model_version"] != rule_version(catalog, catalog[row["table_name"]]):
            sums = {each["name"]: Decimal(each["value"] or 0) for each in row["measures"]}
            found.setdefault(row["table_name"], {})[row["event_day"]] = sums
    return found


def moves(warehouse: Warehouse, days: Iterable[date]) -> dict[date, int]:
    """A number for each day that grows with every load and every publication of it; days without any are left out."""
    wanted = sorted(set(days))
    if not wanted:
        return {}
    where = day_sql("event_day", wanted)
    sql = f"""
SELECT event_day, SUM(version) AS moves FROM (
  SELECT event_day, version FROM `{warehouse.table_id("control.day")}` WHERE {where}
  UNION ALL
  SELECT event_day, MAX(version) AS version FROM `{warehouse.table_id("control.publication")}` WHERE {where}
  GROUP BY table_name, event_day
) AS each_one
GROUP BY event_day
"""
    return {row["event_day"]: row["moves"] for row in warehouse.run(sql, kind="reconcile").rows}


def counted_before(warehouse: Warehouse, table: str, days: Iterable[date], topic: str) -> dict[date, CountedBefore]:
    """For each day that was reconciled before: what had landed then, and the batches that this was.

    Days are left out whose latest load was a rebuild: they are to be counted whole.
    """
    wanted = sorted(set(days))
    if not wanted:
        return {}
    where = f"topic = @topic AND {day_sql('event_day', wanted)}"
    load = warehouse.table_id("control.load")
    sql = f"""
SELECT r.event_day, r.landed_rows, r.landed_checksum, l.batches
FROM (
  SELECT event_day, core_version, landed_rows, landed_checksum
  FROM `{warehouse.table_id("control.reconciliation")}`
  WHERE {where} AND COALESCE(table_name, @table_name) = @table_name
    AND is_reconciled AND landed_checksum IS NOT NULL
  QUALIFY ROW_NUMBER() OVER (PARTITION BY event_day ORDER BY core_version DESC, recorded_at DESC) = 1
) AS r
JOIN (
  SELECT event_day, version, batches FROM `{load}` WHERE table_name = @table_name AND {where}
) AS l ON l.event_day = r.event_day AND l.version = r.core_version
WHERE r.event_day NOT IN (
  SELECT event_day FROM (
    SELECT event_day, is_rebuild FROM `{load}` WHERE table_name = @table_name AND {where}
    QUALIFY ROW_NUMBER() OVER (PARTITION BY event_day ORDER BY version DESC) = 1
  ) AS latest
  WHERE latest.is_rebuild
)
"""
    rows = warehouse.run(sql, params={"topic": topic, "table_name": table}, kind="reconcile").rows
    return {
        row["event_day"]: CountedBefore(
            row["landed_rows"],
            int(row["landed_checksum"]),
            {int(each["topic_partition"]): int(each["batch"]) for each in row["batches"]},
        )
        for row in rows
    }


def totals(warehouse: Warehouse, *, is_measured: bool = True) -> dict[str, dict[str, Any]]:
    """Rows and exact sums over all days of each core table that events are loaded into, and of what is made of it.

    Args:
        warehouse: an open, migrated warehouse.
        is_measured: also sum up every additive measure, for which every daily mart is scanned.
    Returns: by core table `{"core": {rows, repeats}, "mart": {table, rows, as_of}, "measures": {name: {core, mart}}}`;
        `mart` is None where no daily table keeps single events, a measure's `core` where the queries do not give it.
    """
    catalog = load_catalog()
    loaded = [table for table in catalog.layer("core") if table.materialization == "loaded" and table.partition_column]
    return {table.name: _totals(warehouse, catalog, table.name, is_measured=is_measured) for table in loaded}


def _totals(warehouse: Warehouse, catalog: Catalog, name: str, *, is_measured: bool) -> dict[str, Any]:
    fact, measures = fact_of(catalog, name), core_measures(catalog, name) if is_measured else ()
    core = core_days(warehouse, None, measures, fact=fact).values()
    mart = mart_days(warehouse, None, fact=fact).values()
    shown = measured_days(warehouse, None, measures).values()
    newest = [each.newest_produced_at for each in mart if each.newest_produced_at is not None]
    return {
        "core": {"rows": sum(each.rows for each in core), "repeats": sum(each.repeats for each in core)},
        "mart": None
        if fact.table is None
        else {"table": fact.table.name, "rows": sum(each.rows for each in mart), "as_of": max(newest, default=None)},
        "measures": {
            each.name: {
                "core": sum((day.sums[each.name] for day in core), _NOTHING) if each.source_sql else None,
                "mart": sum((day[each.name] for day in shown), _NOTHING),
            }
            for each in measures
        },
    }


def compared_days(warehouse: Warehouse) -> dict[str, list[dict[str, Any]]]:
    """Every day that was ever loaded with its latest comparison, ascending, by 'table of topic'."""
    sql = f"""
SELECT * FROM `{warehouse.table_id("control.compared_day")}`
ORDER BY table_name, topic, event_day
"""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in warehouse.run(sql, kind="reconcile").rows:
        found.setdefault(f"{row['table_name']} of {row['topic']}", []).append(row)
    return found


def record(warehouse: Warehouse, rows: Sequence[Reconciliation], *, run_id: str) -> None:
    """Append comparisons to control.reconciliation, all in one statement; control.compared_day shows the latest."""
    if not rows:
        return
    selects = "\nUNION ALL\n".join(_row_sql(row) for row in rows)
    sql = f"""
INSERT INTO `{warehouse.table_id("control.reconciliation")}` (
  topic, table_name, event_day, core_version, landed_rows, landed_checksum, dead_letter_rows, open_dead_letter_rows,
  core_rows, core_repeat_rows, core_checksum, core_amount_gbp, mart_rows, mart_amount_gbp, newest_produced_at,
  is_reconciled, run_id, recorded_at
)
SELECT r.*, @run_id, CURRENT_TIMESTAMP() FROM (
{selects}
) AS r
"""
    topics = {f"topic_{at}": topic for at, topic in enumerate(dict.fromkeys(row.topic for row in rows))}
    for name, topic in topics.items():
        sql = sql.replace(f"@@{topic}@@", f"@{name}")
    warehouse.run(sql, params={"run_id": run_id, **topics}, kind="reconcile")


def _row_sql(row: Reconciliation) -> str:
    newest = row.core.newest_produced_at
    mart = row.mart
    values = [
        f"@@{row.topic}@@ AS topic",
        f"{quote(row.table)} AS table_name",
        f"DATE '{row.day}' AS event_day",
        f"CAST({row.core.version} AS INT64) AS core_version",
        f"{_int(row.landed_rows)} AS landed_rows",
        f"{_numeric(row.landed_checksum)} AS landed_checksum",
        f"{_int(row.dead_letter_rows)} AS dead_letter_rows",
        f"{_int(row.open_dead_letter_rows)} AS open_dead_letter_rows",
        f"{_int(row.core.rows)} AS core_rows",
        f"{_int(row.core.repeats)} AS core_repeat_rows",
        f"{_numeric(row.core.checksum)} AS core_checksum",
        f"{_numeric(row.core.amount)} AS core_amount_gbp",
        f"{_int(mart.rows if mart else None)} AS mart_rows",
        f"{_numeric(mart.amount if mart else None)} AS mart_amount_gbp",
        f"{f'TIMESTAMP {newest.isoformat()!r}' if newest else 'CAST(NULL AS TIMESTAMP)'} AS newest_produced_at",
        f"{str(row.is_reconciled).upper()} AS is_reconciled",
    ]
    return "SELECT " + ", ".join(values)


def _int(value: int | None) -> str:
    return "CAST(NULL AS INT64)" if value is None else f"CAST({int(value)} AS INT64)"


def _numeric(value: Decimal | int | None) -> str:
    return "CAST(NULL AS NUMERIC)" if value is None else f"NUMERIC '{Decimal(value):f}'"


def _by_day(
    fact: Fact, days: Sequence[date] | None, rows: Iterable[dict[str, Any]], measures: Sequence[Measure] = ()
) -> dict[date, DayTotals]:
    sums = {each: f"s_{at}" for at, each in enumerate(_sums(measures))}
    known = {each.name: sums[each.source_sql, each.counts_repeats] for each in measures if each.source_sql}
    found = {
        row["day"]: DayTotals(
            day=row["day"],
            rows=row["row_count"],
            repeats=row["repeats"],
            amount=row["amount"],
            checksum=int(row["checksum"]),
            version=row["version"] or 0,
            newest_produced_at=row["newest_produced_at"],
            sums={name: Decimal(row[column] or 0) for name, column in known.items()},
        )
        for row in rows
    }
    nothing, amount = dict.fromkeys(known, _NOTHING), _NOTHING if fact.amount else None
    wanted = found if days is None else days
    return {day: found.get(day, DayTotals(day, amount=amount, sums=nothing)) for day in wanted}
