"""What publishing would do, before it does it: which tables, which days, why, how many bytes, and what would differ.

Belongs here: reading ledgers, dry runs and comparisons. Does not: writing anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbt_like_sql.compare import compare as differences_of
from dbt_like_sql.compare import planned_sql
from dbt_like_sql.migrate import made_tables
from dbt_like_sql.publish import loaded_event_days, parameters, stale_tables
from dbt_like_sql.publish_state import rule_version
from dbt_like_sql.render import render

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import date

    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.compare import Difference
    from dbt_like_sql.warehouse import Warehouse

_REREAD = "a table that it reads is built before it"
_LOST = "published before its table was dropped and made again"
USD_PER_TIB = 6.25  # on demand, EU and US multi-regions; what a project pays depends on its contract


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

    def lines(self) -> Iterator[str]:
        """The table as text: why, what it would scan, and a line a day that would differ."""
        nothing = "up to date by its ledger, but would differ" if self.differences else "up to date"
        yield f"{self.table}: {'; '.join(self.reasons) or nothing}"
        if self.reasons and self.scanned_bytes is not None:
            yield f"  scans {self.scanned_bytes} bytes, {self.cost_usd:.4f} USD on demand"
        for found in self.differences or ():
            changed = "".join(f", {name} {old:f} -> {new:f}" for name, (old, new) in found.measures.items())
            rows = f"rows {found.rows_published} -> {found.rows_planned} ({found.rows_gone} go, {found.rows_new} come)"
            yield f"  {found.day or 'whole table'}: {rows}{changed}"
        if self.differences == ():
            yield "  nothing would differ"


def plan(
    warehouse: Warehouse,
    catalog: Catalog,
    names: Sequence[str],
    *,
    days: Sequence[date] | None = None,
    compare: bool = False,
    instead: Mapping[str, str] | None = None,
) -> list[Planned]:
    """What publishing these tables would do and why.

    Args:
        warehouse: an open, migrated warehouse.
        catalog: the models as they stand in this checkout.
        names: tables; ledgers have nothing to publish and are left out, as are loaded ones without rows `instead`.
        days: look at these days only; None for every day that was ever loaded.
        compare: also compute what the queries would give now and compare it with what is published, day by day. A
            selected table that reads another selected one is compared as if that one were published before it; a
            table without days as if every day of it were, since one day of what it reads is not what it is made of.
        instead: loaded tables, and the full id of the table of rows that are compared in their place: what changed
            rules make of the same events. Of the days of these rows only; tables without days are compared only where
            `days` is None, since the rows must be those of every day.
    """
    other = instead or {}
    tables = [
        table
        for table in catalog
        if table.name in set(names) and (table.materialization in {"table", "view"} or table.name in other)
    ]
    wanted = sorted(set(days)) if days is not None else loaded_event_days(warehouse)
    every = loaded_event_days(warehouse) if compare and days is not None else wanted
    stale, (built, lost) = stale_tables(warehouse, catalog), _publications(warehouse, tables)
    before: dict[str, set[date | None]] = {}
    planned = []
    for table in tables:
        if table.materialization == "view":
            planned.append(Planned(table.name, ("a view: migrate replaces it",), None))
            continue
        differences = None
        if compare and (table.partition_column or days is None or not other):
            query = planned_sql(catalog, table, set(names), every)
            compared = wanted if table.partition_column else every
            is_empty = table.partition_column and not compared  # no day: not a query that scans all of them
            differences = () if is_empty else tuple(differences_of(warehouse, table, query, compared, instead=other))
        if table.name in other:
            planned.append(
                Planned(
                    table.name, ("the same events by the rules of this checkout",), tuple(wanted), None, differences
                )
            )
            continue
        reread = {day for name in catalog.sources(table.name) for day in before.get(name, ())}
        days_of_table, reasons = _why(catalog, table, wanted, stale.get(table.name), built, lost=lost, reread=reread)
        if reasons:
            before[table.name] = set(days_of_table) if table.partition_column else {None}
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


def _why(
    catalog: Catalog,
    table: Table,
    wanted: Sequence[date],
    stale: Sequence[date | None] | None,
    built: dict[tuple[str, date | None], str],
    *,
    lost: Collection[tuple[str, date | None]],
    reread: Collection[date | None],
) -> tuple[list[date], list[str]]:
    """Days to build and the reasons, the gravest first; `reread` are days of its sources that this plan builds."""
    now = rule_version(catalog, table)
    if not table.partition_column:
        version = built.get((table.name, None))
        reasons = ([_LOST] if (table.name, None) in lost else ["never published"]) if version is None else []
        reasons += ["its rule has changed"] if version not in {None, now} else []
        reasons += ["its sources are newer"] if stale and version is not None else []
        reasons += [_REREAD] if reread and not reasons else []
        return list(wanted), reasons
    gone = [day for day in wanted if (table.name, day) in lost]
    new = [day for day in wanted if (table.name, day) not in built and day not in gone]
    ruled = [day for day in wanted if built.get((table.name, day), now) != now]
    late = [day for day in wanted if day in set(stale or ()) and day not in {*new, *gone}]
    known = {*gone, *new, *ruled, *late}
    after = [day for day in wanted if day not in known and day in reread]
    told = (
        (gone, _LOST),
        (new, "never published"),
        (ruled, "built by another rule"),
        (late, "its sources are newer"),
        (after, _REREAD),
    )
    return sorted({*known, *after}), [f"{len(found)} day(s) {why}" for found, why in told if found]


def _publications(
    warehouse: Warehouse, tables: Sequence[Table]
) -> tuple[dict[tuple[str, date | None], str], set[tuple[str, date | None]]]:
    """By which rule each day that is published was built; and what was published into a table that is no more."""
    sql = f"""
SELECT table_name, event_day, model_version, published_at
FROM `{warehouse.table_id("control.publication")}`
QUALIFY ROW_NUMBER() OVER (PARTITION BY table_name, event_day ORDER BY version DESC) = 1
"""
    made_at = made_tables(warehouse, sorted({table.layer for table in tables}))
    versions: dict[tuple[str, date | None], str] = {}
    lost: set[tuple[str, date | None]] = set()
    for row in warehouse.run(sql, kind="plan").rows:
        key = (row["table_name"], row["event_day"])
        if row["published_at"] < made_at.get(row["table_name"], row["published_at"]):
            lost.add(key)
        else:
            versions[key] = row["model_version"]
    return versions, lost


def _scanned(warehouse: Warehouse, table: Table, days: Sequence[date]) -> int | None:
    query = render(table.query or "", table_id=warehouse.table_id, days=days, path=table.query_path)
    return warehouse.dry_run(query, params=parameters(warehouse, query))
