"""Power BI: the semantic model, refreshed with what the marts have published since, and the report as a reader sees it.

Belongs here: what a refresh covers, and comparing what the report says with the marts. Not here: the service's API
(powerbi), when to refresh (sensors.py).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import dagster as dg

from dbt_like_sql.catalog import load_catalog
from orchestration.defs.resources import WarehouseResource
from orchestration.defs.topics import SERVING
from orchestration.defs.warehouse.assets import asset_key, is_daily, mart_tables
from orchestration.errors import ReconcileError

SEMANTIC_MODEL = dg.AssetKey(["powerbi", "semantic_model"])
REPORT = dg.AssetKey(["powerbi", "report"])
DAILY_MARTS = tuple(asset_key(table.name) for table in mart_tables(load_catalog()) if is_daily(table))
MARTS = tuple(asset_key(table.name) for table in mart_tables(load_catalog()))

COVERS = "covers_event"
"""Metadata of a refresh: the newest publication of a mart (its id in Dagster's event log) that it shows."""

# More changed days than this since the last refresh, and the whole model is refreshed instead of naming them.
MAX_DAYS_NAMED = 400


@dataclass(frozen=True)
class Changed:
    """What the marts have published since the last refresh: up to which event, when, on which days (None: all)."""

    newest: int
    newest_at: float
    days: frozenset[date] | None


def changed_since_refresh(instance: dg.DagsterInstance) -> Changed | None:
    """What the report does not show yet, from Dagster's own event log; None if it shows everything."""
    covered = covered_event(instance)
    newest, newest_at = max((_newest_event(instance, key) for key in DAILY_MARTS), default=(0, 0.0))
    return Changed(newest, newest_at, _days_since(instance, covered)) if newest > covered else None


def covered_event(instance: dg.DagsterInstance) -> int:
    """The newest publication that the last refresh covers; 0 before the first one."""
    event = instance.get_latest_materialization_event(SEMANTIC_MODEL)
    if event is None or event.asset_materialization is None:
        return 0
    value = event.asset_materialization.metadata.get(COVERS)
    return int(value.value) if isinstance(value, dg.IntMetadataValue) and value.value is not None else 0


def _newest_event(instance: dg.DagsterInstance, key: dg.AssetKey) -> tuple[int, float]:
    records = instance.fetch_materializations(key, limit=1).records
    return (records[0].storage_id, records[0].timestamp) if records else (0, 0.0)


def _days_since(instance: dg.DagsterInstance, covered: int) -> frozenset[date] | None:
    days: set[date] = set()
    for key in DAILY_MARTS:
        filters = dg.AssetRecordsFilter(asset_key=key, after_storage_id=covered)
        records = instance.fetch_materializations(filters, limit=MAX_DAYS_NAMED + 1).records
        if len(records) > MAX_DAYS_NAMED or any(record.partition_key is None for record in records):
            return None
        days |= {date.fromisoformat(record.partition_key) for record in records if record.partition_key}
    return frozenset(days)


@dg.asset(
    key=SEMANTIC_MODEL,
    deps=list(MARTS),
    group_name=SERVING,
    kinds={"powerbi", "semanticmodel"},
    owners=["team:data-platform"],
    description=(
        "Power BI's copy of the marts. Refreshes only the partitions of days that were published since the last "
        "refresh, and waits until the service says that it has ended. Refused while a day does not reconcile."
    ),
)
def semantic_model(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """Refresh what changed; the result says what it covers, so that "how fresh is the report" is a number."""
    from powerbi.refresh import refresh_model
    from powerbi.settings import PowerBiSettings

    settings = PowerBiSettings.from_env(os.environ)
    refuse_unreconciled(warehouse.open())
    changed = changed_since_refresh(context.instance)
    days = changed.days if changed else None
    done = refresh_model(settings, days=days, not_before=datetime.now(tz=UTC))
    return dg.MaterializeResult(
        metadata={
            COVERS: changed.newest if changed else covered_event(context.instance),
            "days": ", ".join(sorted(map(str, days))) if days is not None else "all",
            "request_id": done.request_id,
            "refresh_started_at": dg.MetadataValue.timestamp(done.started_at),
            "refresh_ended_at": dg.MetadataValue.timestamp(done.ended_at),
            "mode": done.mode,
            "refreshed": dg.MetadataValue.json([list(each) for each in done.objects]),
            "seconds": round(done.seconds, 3),
            **({"refreshes_left_today": done.budget_left} if done.budget_left is not None else {}),
        }
    )


def refuse_unreconciled(warehouse: Any) -> None:
    """Raise while the newest comparison of some day says that its layers differ."""
    table = warehouse.table_id("control.reconciliation")
    sql = (
        f"SELECT event_day FROM (SELECT event_day, is_reconciled, ROW_NUMBER() OVER (PARTITION BY topic, event_day "
        f"ORDER BY recorded_at DESC) AS age FROM `{table}`) AS compared "
        f"WHERE age = 1 AND NOT is_reconciled ORDER BY event_day"
    )
    days = [row["event_day"] for row in warehouse.run(sql, kind="reconcile").rows]
    if days:
        raise ReconcileError(
            f"refreshing the semantic model: {len(days)} day(s) do not reconcile, the first is {days[0]}. The report "
            "shows the state before. Rebuild those days (a backfill from the UI), then refresh again."
        )


@dg.asset(
    key=REPORT,
    deps=[SEMANTIC_MODEL],
    group_name=SERVING,
    kinds={"powerbi", "report"},
    owners=["team:data-platform"],
    check_specs=[
        dg.AssetCheckSpec(
            "report_equals_mart",
            asset=REPORT,
            description="The report's total amount and rows, asked in DAX, are those of mart.invoice_lines, exactly.",
        )
    ],
    description="The report as its readers see it: its total, asked from the service in DAX, beside the mart's.",
)
def report(warehouse: WarehouseResource) -> Iterator[dg.MaterializeResult[None]]:
    """Ask the service what the report shows, and compare."""
    from dbt_like_sql.reconcile import totals
    from powerbi.refresh import query_row
    from powerbi.rest import Client, credential_of
    from powerbi.settings import PowerBiSettings

    settings = PowerBiSettings.from_env(os.environ)
    shown = query_row(Client(settings, credential_of(settings)), 'EVALUATE ROW("amount", [Total Amount])')
    mart = totals(warehouse.open())["mart"]
    amount = Decimal(str(shown["amount"] or 0))
    yield dg.MaterializeResult(
        metadata={
            "url": dg.MetadataValue.url(settings.report_url),
            "amount_gbp": f"{amount:f}",
            "mart_amount_gbp": f"{mart['amount']:f}",
            "mart_rows": mart["rows"],
            **({"mart_as_of": dg.MetadataValue.timestamp(mart["as_of"])} if mart["as_of"] else {}),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="report_equals_mart",
                passed=amount == mart["amount"],
                severity=dg.AssetCheckSeverity.WARN,  # under a steady flow the mart moves on while the report is asked
                metadata={"report_amount_gbp": f"{amount:f}", "mart_amount_gbp": f"{mart['amount']:f}"},
            )
        ],
    )
