"""What publishing would do, before it does it: which tables, which days, why, how many bytes, and what would differ.

Belongs here: reading ledgers, dry runs and comparisons. Does not: writing anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from dbt_like_sql.graph import DIALECT, put_in_place, table_nodes, tree
from dbt_like_sql.publish import loaded_event_days, parameters, stale_tables
from dbt_like_sql.publish_state import rule_version
from dbt_like_sql.render import Slice, day_sql, render, with_days
from dbt_like_sql.restate_sql import measures

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import date

    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.warehouse import Warehouse

USD_PER_TIB = 6.25  # on demand, EU and US multi-regions; what a project pays depends on its contract


@dataclass(frozen=True)
class Difference:
    """One day that a rule would change. Measures are those that differ: name, published, would be."""

    day: date | None
    rows_published: int
    rows_planned: int
    measures: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """One table of a plan. `reasons` are empty where nothing is to be done; `days` None means the whole table.

    `scanned_bytes` is None on an emulator, which does not count, and for views, which scan nothing when published.
    """

    table: str
    reasons: tuple[str, ...]
    days: tuple[date, ...] | None
    scanned_bytes: int | None = None
    differences: tuple[Difference, ...] | None = None

    @property
    def cost_usd(self) -> float | None:
        """Price of the scan on demand."""
        return None if self.scanned_bytes is None else self.scanned_bytes / 1024**4 * USD_PER_TIB


def plan(
    warehouse: Warehouse,
    catalog: Catalog,
    names: Sequence[str],
    *,
    days: Sequence[date] | None = None,
    compare: bool = False,
) -> list[Planned]:
    """What publishing these tables would do and why.

    Args:
        warehouse: an open, migrated warehouse.
        catalog: the models as they stand in this checkout.
        names: tables; loaded ones and ledgers have nothing to publish and are left out.
        days: look at these days only; None for every day that was ever loaded.
        compare: also compute what the queries would give now and compare it with what is published, day by day. A
            selected table that reads another selected one is compared as if that one were published before it; a
            table without days as if every day of it were, since one day of what it reads is not what it is made of.
    """
    tables = [table for table in catalog if table.name in set(names) and table.materialization in {"table", "view"}]
    wanted = sorted(set(days)) if days is not None else loaded_event_days(warehouse)
    every = loaded_event_days(warehouse) if compare and days is not None else wanted
    stale, built = stale_tables(warehouse, catalog), _model_versions(warehouse)
    planned = []
    for table in tables:
        if table.materialization == "view":
            planned.append(Planned(table.name, ("a view: migrate replaces it",), None))
            continue
        days_of_table, reasons = _why(catalog, table, wanted, stale.get(table.name), built)
        differences = None
        if compare:
            query = planned_sql(catalog, table, set(names), every)
            compared = wanted if table.partition_column else every
            differences = tuple(_compare(warehouse, table, query, compared))
        planned.append(
            Planned(
                table=table.name,
                reasons=tuple(reasons),
                days=tuple(days_of_table) if table.partition_column else None,
                scanned_bytes=_scanned(warehouse, table, days_of_table) if reasons else 0,
                differences=differences,
            )
        )
    return planned


def planned_sql(catalog: Catalog, table: Table, inlined: Collection[str], every: Sequence[date]) -> str:
    """A table's query in which other tables stand as their own queries, as if they were published before it.

    What whole tables among them are made of is built of `every` day; for the others `@days` stays.
    """
    query = tree(table.query or "", table.query_path).copy()
    for name, node in table_nodes(query):
        parent = catalog[name]
        if name not in inlined or parent.materialization != "table":
            continue
        inner = tree(planned_sql(catalog, parent, inlined, every)).copy()
        if parent.partition_column is None:
            inner = with_days(inner, Slice(every), parent.query_path)
        put_in_place(inner, name, node)
    return str(query.sql(dialect=DIALECT))


def _why(
    catalog: Catalog,
    table: Table,
    wanted: Sequence[date],
    stale: Sequence[date | None] | None,
    built: dict[tuple[str, date | None], str],
) -> tuple[list[date], list[str]]:
    """Days to build and the reasons, the gravest first."""
    now = rule_version(catalog, table)
    if not table.partition_column:
        version = built.get((table.name, None))
        reasons = ["never published"] if version is None else []
        reasons += ["its rule has changed"] if version not in {None, now} else []
        reasons += ["its sources are newer"] if stale and version is not None else []
        return list(wanted), reasons
    new = [day for day in wanted if (table.name, day) not in built]
    ruled = [day for day in wanted if built.get((table.name, day), now) != now]
    late = [day for day in wanted if day in set(stale or ()) and day not in new]
    told = ((new, "never published"), (ruled, "built by another rule"), (late, "its sources are newer"))
    return sorted({*new, *ruled, *late}), [f"{len(found)} day(s) {why}" for found, why in told if found]


def _model_versions(warehouse: Warehouse) -> dict[tuple[str, date | None], str]:
    sql = f"""
SELECT table_name, event_day, model_version
FROM `{warehouse.table_id("control.publication")}`
QUALIFY ROW_NUMBER() OVER (PARTITION BY table_name, event_day ORDER BY version DESC) = 1
"""
    rows = warehouse.run(sql, kind="plan").rows
    return {(row["table_name"], row["event_day"]): row["model_version"] for row in rows}


def _scanned(warehouse: Warehouse, table: Table, days: Sequence[date]) -> int | None:
    query = render(table.query or "", table_id=warehouse.table_id, days=days, path=table.query_path)
    return warehouse.dry_run(query, params=parameters(warehouse, query))


def _compare(warehouse: Warehouse, table: Table, planned: str, days: Sequence[date]) -> list[Difference]:
    """Days on which the query gives other rows or sums than what is published."""
    names = measures(table)
    query = render(planned, table_id=warehouse.table_id, days=days, path=table.query_path)
    day = table.partition_column or "CAST(NULL AS DATE)"
    where = f"\nWHERE {day_sql(table.partition_column, days)}" if table.partition_column else ""
    there = _sums(day, names, f"`{warehouse.table_id(table.name)}` AS t{where}")
    differs = " OR ".join(
        [
            "p.row_count IS DISTINCT FROM q.row_count",
            *(f"p.m_{at} IS DISTINCT FROM q.m_{at}" for at in range(len(names))),
        ]
    )
    columns = "".join(f", p.m_{at} AS p_{at}, q.m_{at} AS q_{at}" for at in range(len(names)))
    sql = f"""
SELECT COALESCE(p.day, q.day) AS day, p.row_count AS p_rows, q.row_count AS q_rows{columns}
FROM ({there}) AS p
FULL OUTER JOIN ({_sums(day, names, f"({chr(10)}{query}{chr(10)}) AS t")}) AS q
  ON COALESCE(p.day, DATE '0001-01-01') = COALESCE(q.day, DATE '0001-01-01')
WHERE {differs}
ORDER BY day
"""
    rows = warehouse.run(sql, params=parameters(warehouse, sql), kind="plan").rows
    return [_difference(names, row) for row in rows]


def _sums(day: str, names: Sequence[str], source: str) -> str:
    sums = "".join(f", CAST(SUM({name}) AS NUMERIC) AS m_{at}" for at, name in enumerate(names))
    return f"SELECT {day} AS day, COUNT(*) AS row_count{sums} FROM {source}\nGROUP BY 1"


def _difference(names: Sequence[str], row: dict[str, Any]) -> Difference:
    nothing = Decimal(0)
    sums = {name: (row[f"p_{at}"] or nothing, row[f"q_{at}"] or nothing) for at, name in enumerate(names)}
    return Difference(
        day=row["day"],
        rows_published=row["p_rows"] or 0,
        rows_planned=row["q_rows"] or 0,
        measures={name: pair for name, pair in sums.items() if pair[0] != pair[1]},
    )
