"""`compare-rules`: what a changed business rule would change, day by day, before anybody sees it.

Belongs here: running the Mage pipelines of this checkout on the events that the warehouse holds already, laying their
rows beside what stands, and telling both layers' differences. Not here: the comparison (dbt_like_sql.compare), the
rules (mage_project). Core, marts and ledgers stay as they are: rows go to a staging table, which is dropped.
"""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from dataclasses import replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import click

from orchestration.errors import CompareError, OrchestrationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from dbt_like_sql.compare import Difference
    from dbt_like_sql.plan import Planned
    from dbt_like_sql.warehouse import Warehouse
    from orchestration.defs.topics import Feed

_NEXT = (
    "Nothing was written. To publish it, backfill these days of {table} in Dagster (Assets, Materialize); marts follow."
)


@click.command()
@click.option(
    "--day", "days", multiple=True, type=click.DateTime(["%Y-%m-%d"]), help="A day; may be repeated. Default: all."
)
def main(days: Sequence[datetime]) -> None:
    """Show what the rules of this checkout would change: days, rows and sums of core and of every daily mart."""
    from dbt_like_sql.errors import WarehouseError
    from streaming.errors import StreamingError

    wanted = sorted({day.date() for day in days}) or None
    try:
        for feed, planned in compare_rules(os.environ, days=wanted):
            if not planned:
                click.echo(f"{feed.table}: no day of it to compare")
                continue
            for each in planned:
                click.echo("\n".join(each.lines()))
            differs = any(each.differences for each in planned)
            click.echo(_NEXT.format(table="/".join(feed.table_key.path)) if differs else "Nothing was written.")
    except (OrchestrationError, StreamingError, WarehouseError) as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(1)


def compare_rules(
    env: Mapping[str, str], *, days: Sequence[date] | None = None
) -> Iterator[tuple[Feed, list[Planned]]]:
    """For each table that a pipeline fills: its days, and those of the marts behind it, by the rules of this checkout.

    Args:
        env: the settings of the rooms.
        days: which days; None for every day that was loaded and whose events the lake still has.

    Raises:
        CompareError: a day was never loaded, or the lake has its events no more.
        RestoredError: the lake came back from a backup, and was not told of it.
        MageRunError: a block or a test of the changed rules failed.
    """
    from dbt_like_sql.settings import WarehouseSettings
    from dbt_like_sql.warehouse import open_warehouse, reach_emulator
    from orchestration.defs.topics import feeds

    settings = WarehouseSettings.from_env(env)
    reach_emulator(settings)
    warehouse = open_warehouse(settings, labels={"by": "compare_rules"})
    for feed in feeds():
        yield feed, _compare(warehouse, feed, env, days)


def _compare(warehouse: Warehouse, feed: Feed, env: Mapping[str, str], days: Sequence[date] | None) -> list[Planned]:
    from dbt_like_sql.catalog import load_catalog
    from dbt_like_sql.compare import staged_name
    from dbt_like_sql.plan import plan
    from dbt_like_sql.publish import loaded_event_days

    catalog = load_catalog()
    passes, is_all = _passes(warehouse, feed, env, days)
    if not passes:
        return []
    into = staged_name(warehouse, feed.table, f"compare_{uuid.uuid4().hex[:12]}")
    chosen = [feed.table, *catalog.downstream(feed.table)]
    staged = [date.fromisoformat(day) for part in passes for day in part]
    before = _states(warehouse, feed, staged)
    try:
        _stage(feed, passes, into)
        planned = plan(
            warehouse, catalog, chosen, days=None if is_all else staged, compare=True, instead={feed.table: into}
        )
    finally:
        warehouse.drop_table(into)
    now = _states(warehouse, feed, loaded_event_days(warehouse) if is_all else staged)
    moved = sorted(day for day in {*before, *now} if before.get(day) != now.get(day))
    if moved:
        again = " ".join(f"--day {day}" for day in moved)
        click.echo(f"{len(moved)} day(s) are left out, loaded while they were compared. Again: {again}", err=True)
    return leave_out(planned, moved)


def _states(warehouse: Warehouse, feed: Feed, days: Sequence[date]) -> dict[date, tuple[str, int]]:
    """What changes with each load of a day."""
    from dbt_like_sql.load import loaded_days

    loaded = loaded_days(warehouse, feed.table, days, feed.topic)
    return {day: (each.incarnation, each.version) for day, each in loaded.items() if each.version}


def leave_out(planned: Sequence[Planned], moved: Collection[date]) -> list[Planned]:
    """The comparison without days that were loaded while it was made, whose new rows would pass for the rules' doing.

    Tables without days are made of all of them: they are not compared then.
    """
    return [replace(each, differences=_differences(each, moved)) for each in planned] if moved else list(planned)


def _differences(planned: Planned, moved: Collection[date]) -> tuple[Difference, ...] | None:
    if planned.days is None or planned.differences is None:
        return None
    return tuple(each for each in planned.differences if each.day not in moved)


def _passes(
    warehouse: Warehouse, feed: Feed, env: Mapping[str, str], days: Sequence[date] | None
) -> tuple[list[list[str]], bool]:
    """The days cut into passes, and whether they are every day that any table has."""
    from dbt_like_sql.load import loaded_days
    from dbt_like_sql.publish import loaded_event_days
    from orchestration.settings import OrchestrationSettings
    from orchestration.triggers import cut_passes
    from streaming import lake

    dsn = OrchestrationSettings.from_env(env).lake_dsn
    loaded = loaded_event_days(warehouse)
    ledger = loaded_days(warehouse, feed.table, days or loaded, feed.topic) if loaded else {}
    with contextlib.closing(lake.connect(dsn, application_name="orchestration.compare")) as conn:
        gone = lake.retired_days(conn, feed.topic)
        # of what a restored lake has lost nothing would be read, and the rules be said to drop all those rows
        held = lake.confirm_read(conn, feed.topic, {day: seen.read for day, seen in ledger.items()})
        lost = {day for day, seen in ledger.items() if held[day] != seen.batches} - gone
        rows = {each.event_day.isoformat(): each.rows for each in lake.landed_days(conn, feed.topic, days=loaded)}
    for day in days or ():
        if day not in loaded:
            raise CompareError(f"comparing {day} of {feed.table}: it was never loaded. Nothing was read.")
        if day in gone:
            raise CompareError(
                f"comparing {day} of {feed.table}: retention has taken its events out of the lake. Nothing was read."
            )
        if day in lost:
            raise CompareError(
                f"comparing {day} of {feed.table}: the lake came back from a backup and lacks batches that the table "
                "was loaded from. Nothing was read. Compare it when the day has been loaded again, which begins as "
                "soon as something of it lands; one that stays as it is needs a rebuild "
                "(docs/runbooks/backup-and-restore.md)."
            )
    wanted = [day for day in (loaded if days is None else sorted(set(days))) if day not in gone | lost]
    for out, why in ((gone, "retention has taken their events"), (lost, "the restored lake has to load them again")):
        left_out = out.intersection(loaded)
        if left_out and days is None:
            click.echo(f"{len(left_out)} day(s) are left out: {why}.", err=True)
    return cut_passes([day.isoformat() for day in wanted], rows), wanted == loaded


def _stage(feed: Feed, passes: Sequence[Sequence[str]], into: str) -> None:
    from orchestration import mage
    from orchestration.defs.topics import project
    from orchestration.mage_assets import partition_variables
    from orchestration.mage_passes import part_label

    spec = project().pipeline(feed.pipeline)
    with _progress(passes, f"{spec.uuid}, rows of {sum(map(len, passes))} day(s)") as shown:
        for part in shown:
            variables = {"mode": "compare", "compare_into": into, "run_id": f"compare-{uuid.uuid4()}"}
            variables |= partition_variables(spec, part)
            named = mage.Part(name=part_label(part))
            run = mage.run_pipeline(project(), spec, variables, part=named)
            if run.failed is not None:
                raise mage.failed_test(spec, run, named)


def _progress(passes: Sequence[Sequence[str]], label: str) -> Any:
    """A bar on the terminal's error stream, so that the result can be piped."""
    return click.progressbar(passes, label=label, file=sys.stderr)
