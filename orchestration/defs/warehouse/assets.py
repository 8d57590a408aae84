"""Marts: every mart table of the catalog as an asset, published through write, audit, publish.

Belongs here: which tables are published together, and with which batches they are marked as published (marks.py). Not
here: SQL, checks of single tables, publishing itself (dbt_like_sql).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any

import dagster as dg

from dbt_like_sql.catalog import Catalog, Table, load_catalog
from dbt_like_sql.publish import Memory, note_load
from orchestration.defs.keep_up import Marts, follow_landing, seconds_of
from orchestration.defs.landing.assets import SILENCE
from orchestration.defs.marks import mark_published
from orchestration.defs.pacing import budget_metadata
from orchestration.defs.partitions import DAYS, days_of_run, require_days
from orchestration.defs.publish_turn import publish_turn
from orchestration.defs.resources import LakeResource, WarehouseResource
from orchestration.defs.tables import table_metadata
from orchestration.defs.topics import MARTS, feeds
from orchestration.defs.warehouse.checks import reconcile_marts
from orchestration.defs.warehouse.events import COVERS, newest_event
from orchestration.mage_assets import BACKFILL

CHECK_SEVERITY = {"fail": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}


def mart_tables(catalog: Catalog) -> list[Table]:
    """Every table that readers see, in the order in which they depend on each other."""
    return [table for table in catalog.layer("mart") if table.materialization in ("table", "view")]


def is_daily(table: Table) -> bool:
    """Whether its rows belong to a day each, so that a day of it can be published alone."""
    return table.materialization == "table" and table.partition_column is not None


def asset_key(name: str) -> dg.AssetKey:
    """mart.products is asset mart/products."""
    return dg.AssetKey(name.split("."))


def daily_keys(catalog: Catalog) -> list[dg.AssetKey]:
    """The assets of the marts that are published day by day."""
    return [asset_key(table.name) for table in mart_tables(catalog) if is_daily(table)]


def check_name(text: str) -> str:
    """A check's sentence as a name that Dagster takes."""
    return "".join(letter if letter.isalnum() else "_" for letter in text.lower()).strip("_")


def _spec(table: Table, catalog: Catalog) -> dg.AssetSpec:
    shown = {each.name for each in mart_tables(catalog)} | {feed.table for feed in feeds()}
    return dg.AssetSpec(
        key=asset_key(table.name),
        deps=[asset_key(parent) for parent in table.depends_on if parent in shown],
        group_name=MARTS,
        description=table.description,
        owners=[f"team:{table.owner}"],
        kinds={"bigquery", "sql"},
        code_version=table.version,
        metadata=table_metadata(table),
        freshness_policy=SILENCE if is_daily(table) else None,
    )


def _check_specs(tables: Sequence[Table]) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            name=check_name(check.name),
            asset=asset_key(table.name),
            description=f"{check.name}. {'Blocks publishing.' if check.severity == 'fail' else 'Only tells.'}",
        )
        for table in tables
        for check in table.checks
    ]


def _publish_assets(name: str, tables: Sequence[Table], catalog: Catalog, *, daily: bool) -> dg.AssetsDefinition:
    by_key = {asset_key(table.name): table for table in tables}

    @dg.multi_asset(
        name=name,
        specs=[_spec(table, catalog) for table in tables],
        check_specs=_check_specs(tables),
        partitions_def=DAYS if daily else None,
        backfill_policy=BACKFILL if daily else None,
        can_subset=True,
    )
    def publish_marts(
        context: dg.AssetExecutionContext, lake: LakeResource, warehouse: WarehouseResource
    ) -> Iterator[Any]:
        selected = [table for key, table in by_key.items() if key in context.selected_asset_keys]
        days = list(require_days(context)) if daily else None
        opened = warehouse.open()
        ledger = loaded_batches(lake, opened, days or [])
        memory = Memory()
        more = {} if daily else {COVERS: newest_event(context.instance, daily_keys(catalog))[0]}  # before it reads them
        run_id = context.run.run_id
        for result, day_rows in publish(lake, opened, catalog, selected, days, run_id=run_id, memory=memory, more=more):
            for day, rows in day_rows.items():
                shown = {"dagster/partition_row_count": rows}
                context.add_asset_metadata(shown, asset_key=result.asset_key, partition_key=day.isoformat())
            yield result
        if len(selected) < len(tables):
            return
        mark_published(lake, ledger)
        if days and seconds_of(context, days):
            follow_landing(
                context, lake, days[0], _marts_to_keep_up(context, lake, opened, tables, ledger=ledger, memory=memory)
            )

    return publish_marts


def _marts_to_keep_up(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    warehouse: Any,
    tables: Sequence[Table],
    *,
    ledger: Mapping[tuple[str, date], Mapping[int, int]],
    memory: Memory,
) -> Marts:
    """Those that read a core table are what the report reads; the others are made of them, and follow.

    The cycles share what they know of the ledgers; what follows has a connection of its own, and reads them.
    """
    core = {feed.table for feed in feeds()}
    first = [table.name for table in tables if core & set(table.depends_on)]
    rest = [table.name for table in tables if table.name not in first]
    days, run_id = list(days_of_run(context)), context.run.run_id
    beside = WarehouseResource().open()
    return Marts(
        publish_first=partial(_publish_all, lake, warehouse, _CATALOG, first, days=days, run_id=run_id, memory=memory),
        publish_rest=partial(_publish_all, lake, beside, _CATALOG, rest, days=days, run_id=run_id),
        note=partial(_note, memory),
        compare=partial(_what_differs, opened=warehouse, days=days, run_id=run_id),
        mark=lambda batches: mark_published(lake, batches),
        shown={topic: batches for (topic, _day), batches in ledger.items()},
    )


def _what_differs(conn: Any, *, opened: Any, days: Sequence[date], run_id: str) -> str | None:
    result = reconcile_marts(conn, opened, days, run_id)
    return None if result.passed else result.description


def _note(memory: Memory, topic: str, day: date, told: Mapping[str, Any]) -> None:
    """Remember a load of this run; what anybody else has loaded makes the next publication read the ledgers."""
    for table in {feed.table for feed in feeds() if feed.topic == topic}:
        note_load(memory, table, day, topic=topic, version=int(told.get("version", -1)), offsets=told.get("offsets"))


def _publish_all(
    lake: LakeResource, warehouse: Any, catalog: Catalog, names: Sequence[str], **options: Any
) -> Mapping[str, Any]:
    """`publish_all` with its options, in turn with whoever else publishes these tables."""
    from dbt_like_sql.publish import publish_all

    with publish_turn(lake, names):
        return publish_all(warehouse, catalog, names, **options)


def publish(
    lake: LakeResource,
    warehouse: Any,
    catalog: Catalog,
    tables: Sequence[Table],
    days: Sequence[date] | None,
    *,
    run_id: str,
    memory: Memory | None = None,
    more: Mapping[str, Any] | None = None,
) -> Iterator[tuple[dg.MaterializeResult[None] | dg.AssetCheckResult, Mapping[date, int]]]:
    """Publish the tables together; if a blocking check finds a row, none is published and every result is shown.

    A view has nothing to hold back: if its check finds a row, what was published is shown as such, and the run fails.

    `more` is metadata for each of them. Beside each result stand the rows of each of a daily table's days.
    """
    from dbt_like_sql.errors import ChecksFailedError

    try:
        names = [table.name for table in tables]
        published = _publish_all(lake, warehouse, catalog, names, days=days, run_id=run_id, memory=memory)
        failed = None
    except ChecksFailedError as error:
        if not error.published:
            yield from ((each, {}) for each in check_results(error.checks))
            raise
        published, failed = error.published, error
    for table in tables:
        done = published[table.name]
        yield from ((each, {}) for each in check_results(done.checks))
        result: dg.MaterializeResult[None] = dg.MaterializeResult(
            asset_key=asset_key(table.name),
            metadata={
                **({} if is_daily(table) else {"dagster/row_count": done.rows}),
                "bytes_billed": done.bytes_billed,
                "publish_seconds": round(done.seconds, 3),
                "days": len(days) if days is not None else "all",
                "days_grown": len(done.grown_days),
                "job_id": done.job_id,
                **_restatements(done),
                **budget_metadata(warehouse, table.name),
                **(more or {}),
            },
        )
        yield result, done.day_rows
    if failed is not None:
        raise failed


def _restatements(done: Any) -> dict[str, Any]:
    """Days of the past that this publication changed: before, after, and the events that caused it."""
    if not done.restated:
        return {}
    records = [
        dg.TableRecord(
            {
                "day": str(each["event_day"]),
                "rows before": each["rows_before"],
                "rows now": each["rows_after"],
                "changed": ", ".join(
                    f"{m['name']} {m['before']:f} -> {m['after']:f}"
                    for m in each["measures"]
                    if m["before"] != m["after"]
                ),
                "caused by": ", ".join(
                    f"{c['topic']}/{c['topic_partition']}/{c['first_offset']}-{c['last_offset']}"
                    for c in each["caused_by"]
                )
                or "no load: a rule, or a repair",
            }
        )
        for each in done.restated
    ]
    return {"restated_days": len(records), "restatements": dg.MetadataValue.table(records)}


def check_results(checks: Sequence[Any]) -> Iterator[dg.AssetCheckResult]:
    """What the warehouse's checks found, as Dagster shows it."""
    for check in checks:
        yield dg.AssetCheckResult(
            asset_key=asset_key(check.table),
            check_name=check_name(check.name),
            passed=check.rows == 0,
            severity=CHECK_SEVERITY[check.severity],
            metadata={"offending_rows": check.rows, **({"example": check.example} if check.example else {})},
        )


def loaded_batches(
    lake: LakeResource, warehouse: Any, days: Sequence[date]
) -> Mapping[tuple[str, date], Mapping[int, int]]:
    """How far each topic is loaded on each day; read before publishing, so never more than the marts will show.

    Without what the lake has lost: its numbers are given again, and a day marked with them would not be loaded.

    Raises:
        RestoredError: the lake came back from a backup and was not told of it. Nothing was published.
    """
    from dbt_like_sql.load import loaded_days
    from streaming import lake as door

    if not days:
        return {}
    found: dict[tuple[str, date], Mapping[int, int]] = {}
    with lake.connect("orchestration.loaded") as conn:
        for feed in feeds():
            loaded = loaded_days(warehouse, feed.table, days, feed.topic)
            holds = door.confirm_read(conn, feed.topic, {day: each.read for day, each in loaded.items()})
            found |= {(feed.topic, day): batches for day, batches in holds.items()}
    return found


_CATALOG = load_catalog()
_TABLES = mart_tables(_CATALOG)
daily_marts = _publish_assets("daily_marts", [t for t in _TABLES if is_daily(t)], _CATALOG, daily=True)
whole_marts = _publish_assets("whole_marts", [t for t in _TABLES if not is_daily(t)], _CATALOG, daily=False)
