"""Command line of the warehouse: `dbt-like-sql` or `python -m dbt_like_sql`.

Belongs here: reading arguments, printing. Does not: work.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbt_like_sql.errors import WarehouseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dbt_like_sql.catalog import Catalog
    from dbt_like_sql.publish import CheckResult
    from dbt_like_sql.warehouse import Warehouse


class _Group(click.Group):
    """Turns this room's errors into a message and exit code 1, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except WarehouseError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(1)


@click.group(cls=_Group)
def main() -> None:
    """The warehouse: tables from contracts, marts from SQL."""


def _open() -> Warehouse:
    from dbt_like_sql.settings import WarehouseSettings  # noqa: PLC0415
    from dbt_like_sql.warehouse import open_warehouse, reach_emulator  # noqa: PLC0415

    settings = WarehouseSettings.from_env(os.environ)
    reach_emulator(settings)
    return open_warehouse(settings, labels={"by": "command_line"})


def _run_id() -> str:
    return f"command-line-{datetime.now(UTC):%Y%m%dT%H%M%S}"


_DAYS: Callable[[Any], Any] = click.option(
    "--day", "days", multiple=True, type=click.DateTime(["%Y-%m-%d"]), help="A day; may be repeated. Default: all."
)


def _dates(days: Sequence[datetime]) -> list[date] | None:
    return sorted({day.date() for day in days}) or None


@main.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def migrate(*, dry_run: bool) -> None:
    """Create and alter datasets and tables so that they are what the contracts say."""
    from dbt_like_sql.access import require_access  # noqa: PLC0415
    from dbt_like_sql.catalog import load_catalog  # noqa: PLC0415
    from dbt_like_sql.migrate import migrate as bring  # noqa: PLC0415

    warehouse, catalog = _open(), load_catalog()
    changes = bring(warehouse, catalog, dry_run=dry_run)
    if not dry_run:
        require_access(warehouse, catalog)
    for change in changes:
        click.echo(f"{change.table}: {change.what}")
    click.echo(f"{len(changes)} change(s){' would be made' if dry_run else ''}")
    _tell_unnamed(warehouse, catalog)


def _tell_unnamed(warehouse: Warehouse, catalog: Catalog) -> None:
    """Readers go on seeing a table that was renamed or removed here, and nothing brings it up to date."""
    from dbt_like_sql.migrate import unnamed_tables  # noqa: PLC0415

    for name in unnamed_tables(warehouse, catalog):
        click.echo(
            f"{name}: no contract names it (renamed or removed?). It stays as it is, and nothing publishes it; where "
            f"nobody reads it any more: DROP it by hand ({warehouse.table_id(name)})"
        )


@main.command()
@click.argument("selector", nargs=-1)
@_DAYS
@click.option("--compare", is_flag=True, help="Compute what would differ from what is published, day by day.")
def plan(selector: Sequence[str], days: Sequence[datetime], *, compare: bool) -> None:
    """Show what publishing would do: tables, days, reasons, bytes scanned, and with --compare what would differ."""
    from dbt_like_sql.catalog import load_catalog  # noqa: PLC0415
    from dbt_like_sql.plan import plan as make_plan  # noqa: PLC0415
    from dbt_like_sql.selection import select  # noqa: PLC0415

    catalog = load_catalog()
    chosen = select(catalog, selector or ["mart.*"])
    if not _published(catalog, chosen):
        return
    warehouse = _open()
    for planned in make_plan(warehouse, catalog, chosen, days=_dates(days), compare=compare):
        click.echo("\n".join(planned.lines()))
    if not selector:
        _tell_unnamed(warehouse, catalog)


@main.command()
@click.argument("selector", nargs=-1)
@_DAYS
def publish(selector: Sequence[str], days: Sequence[datetime]) -> None:
    """Publish tables: `mart.products`, `+mart.products` with what it reads, `mart.invoice_lines+`, `mart.*`."""
    from dbt_like_sql.catalog import load_catalog  # noqa: PLC0415
    from dbt_like_sql.publish import publish_all  # noqa: PLC0415
    from dbt_like_sql.selection import select  # noqa: PLC0415

    catalog = load_catalog()
    chosen = select(catalog, selector or ["mart.*"])
    names = _published(catalog, chosen)
    if not names:
        return
    for done in publish_all(_open(), catalog, names, days=_dates(days), run_id=_run_id()).values():
        click.echo(f"{done.table}: {done.rows} rows")
        _print_checks(done.checks)


def _published(catalog: Catalog, chosen: Sequence[str]) -> list[str]:
    """Those of the chosen tables that are published; where none is, it is told why nothing is done."""
    names = [name for name in chosen if catalog[name].materialization in {"table", "view"}]
    if not names:
        why = f"{', '.join(chosen)}: loaded, not made by a query" if chosen else "no table is selected"
        click.echo(f"nothing to publish ({why})")
    return names


@main.command()
@click.argument("selector", nargs=-1)
@_DAYS
def check(selector: Sequence[str], days: Sequence[datetime]) -> None:
    """Run the checks of tables as they stand; exit code 1 if a blocking one finds rows."""
    from dbt_like_sql.catalog import load_catalog  # noqa: PLC0415
    from dbt_like_sql.publish import check_tables  # noqa: PLC0415
    from dbt_like_sql.selection import select  # noqa: PLC0415

    catalog = load_catalog()
    results = check_tables(_open(), catalog, select(catalog, selector or ["*"]), days=_dates(days))
    _print_checks(results, all_of_them=True)
    if any(found.severity == "fail" and not found.passed for found in results):
        sys.exit(1)


def _print_checks(results: Sequence[CheckResult], *, all_of_them: bool = False) -> None:
    for found in results:
        if all_of_them or not found.passed:
            state = "ok  " if found.passed else found.severity
            more = "" if found.passed else f": {found.rows} row(s), such as {found.example}"
            click.echo(f"  {state} {found.table}: {found.name}{more}")


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--measures",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The report's measures as JSON, from `trace measures`; lineage then goes down to them.",
)
def docs(file: Path, measures: Path | None) -> None:
    """Write one HTML page about the tables: contracts, graph, column lineage, search; it needs no network."""
    from dbt_like_sql.catalog import load_catalog  # noqa: PLC0415
    from dbt_like_sql.docs import page, read_measures  # noqa: PLC0415

    found = read_measures(measures.read_text(encoding="utf-8")) if measures else []
    catalog = load_catalog()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(catalog, found), encoding="utf-8")
    click.echo(f"{file}: {len(catalog.tables)} tables, {len(found)} measures")


@main.command()
def quotas() -> None:
    """Show how much of BigQuery's daily limits the loads and publications of today have used."""
    from dbt_like_sql.catalog import load_catalog  # noqa: PLC0415
    from dbt_like_sql.quotas import LOAD_JOBS_A_PROJECT, as_records, used_today  # noqa: PLC0415

    use = used_today(_open(), load_catalog())
    click.echo(
        f"since {use.since:%Y-%m-%d %H:%M} UTC; {use.load_jobs} of {LOAD_JOBS_A_PROJECT} load jobs of the project"
    )
    for each in as_records(use):
        click.echo(
            f"  {each['table']}: {each['partition modifications today']} of {each['limit']} modifications of table "
            f"partitions ({each['used']}), {each['load jobs today']} load job(s)"
        )


@main.command()
def access() -> None:
    """Ask Google whether our account may do what it must; exit code 1 if it may not."""
    from dbt_like_sql.access import ROLE_OF, check_access  # noqa: PLC0415
    from dbt_like_sql.catalog import load_catalog  # noqa: PLC0415

    found = check_access(_open(), load_catalog())
    for each in found:
        state = {True: "ok     ", False: "MISSING", None: "unknown"}[each.is_granted]
        click.echo(f"{state} {each.name} on {each.on} ({ROLE_OF[each.name]}) {each.detail}".rstrip())
    if any(each.is_granted is False for each in found):
        sys.exit(1)


@main.command()
def days() -> None:
    """Show every day of every core table at a glance: landed, dead letters, core, repeats, mart, do they agree."""
    from dbt_like_sql.reconcile import compared_days  # noqa: PLC0415

    for name, rows in compared_days(_open()).items():
        click.echo(f"{name}:")
        for line in _day_lines(rows):
            click.echo(line)


_STATES = {True: "reconciled", False: "NOT RECONCILED", None: "not compared yet"}
_COUNTS = {
    "landed": "landed_rows",
    "dead": "dead_letter_rows",
    "core": "core_rows",
    "repeats": "core_repeat_rows",
    "mart": "mart_rows",
    "amount": "mart_amount_gbp",
}


def _day_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line a day, numbers below numbers; ? is what nobody has counted yet. No amount where no day has one."""
    has_amount = any(row[_COUNTS["amount"]] is not None for row in rows)
    columns = {name: column for name, column in _COUNTS.items() if name != "amount" or has_amount}
    shown = [[_plain(row[column]) or "?" for column in columns.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row, numbers in zip(rows, shown, strict=True):
        state = _STATES[row["is_reconciled"]].ljust(max(map(len, _STATES.values())))
        named = zip(columns, numbers, widths, strict=True)
        counts = " ".join(f"{name} {number:>{width}}" for name, number, width in named)
        yield f"{row['event_day']} {state} {counts}"


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object; sums are strings.")
def totals(*, as_json: bool) -> None:
    """Rows of every core table and of its fact table, and every additive measure of its marts, exactly."""
    from dbt_like_sql.reconcile import totals as count  # noqa: PLC0415

    found = count(_open())
    if as_json:
        click.echo(json.dumps(found, default=_plain))
        return
    for name, of in found.items():
        core, mart = of["core"], of["mart"]
        click.echo(f"{name}: rows {core['rows']}, repeats {core['repeats']}")
        if mart is None:
            click.echo("  no daily mart keeps its events one by one")
        else:
            click.echo(f"  {mart['table']}: rows {mart['rows']}, as of {_plain(mart['as_of']) or 'unknown'}")
        for measure, sums in of["measures"].items():
            core_sum = "not derivable from the queries" if sums["core"] is None else _plain(sums["core"])
            differs = "" if sums["core"] in {None, sums["mart"]} else " DIFFERS"
            click.echo(f"  {measure}: core {core_sum}, mart {_plain(sums['mart'])}{differs}")
    if not found:
        click.echo("no core table has days")


def _plain(value: Any) -> str | None:
    if isinstance(value, datetime):
        return value.isoformat()
    return None if value is None else f"{value:f}" if hasattr(value, "as_tuple") else str(value)


if __name__ == "__main__":
    main()
