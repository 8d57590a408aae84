"""Power BI: the semantic model, refreshed with what the marts have published since, and the report as a reader sees it.

Belongs here: what a refresh covers, and what is recorded of it. Not here: the service's API (powerbi), what has changed
(changes.py), when to refresh (sensors.py), the warehouse's sums (numbers.py).
"""

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from orchestration.defs.resources import WarehouseResource
from orchestration.defs.serving import numbers, pictures
from orchestration.defs.serving.changes import (
    DAILY_MARTS,
    MARTS,
    REPORT,
    SEMANTIC_MODEL,
    STARTED_AT,
    changed_since_refresh,
    days_to_refresh,
    refresh_started_at,
    shown_event,
)
from orchestration.defs.topics import SERVING
from orchestration.defs.warehouse.events import COVERS
from orchestration.errors import ReconcileError

CHECK = "report_equals_mart"


class RefreshConfig(dg.Config):
    """What a person may ask for in the launchpad; left alone, what has changed since the last refresh."""

    days: list[str] = Field(default_factory=list)
    """Invoice days, YYYY-MM-DD, whose refresh partitions are read again."""
    whole: bool = False
    """Everything, also what nobody has changed."""


@dg.asset(
    key=SEMANTIC_MODEL,
    deps=list(MARTS),
    group_name=SERVING,
    kinds={"powerbi", "semanticmodel"},
    owners=["team:data-platform"],
    description=(
        "Power BI's copy of the marts. Refreshes only the partitions of days that were published since the last "
        "refresh, and waits until the service says that it has ended; a cancelled run cancels its refresh. Refused "
        "while a day does not reconcile. Materialize it to ask for a refresh; `days` or `whole` in the launchpad."
    ),
)
def semantic_model(
    context: dg.AssetExecutionContext, config: RefreshConfig, warehouse: WarehouseResource
) -> dg.MaterializeResult[None]:
    """Refresh what changed; the result says what it covers, so that "how fresh is the report" is a number."""
    from powerbi.refresh import refresh_model
    from powerbi.settings import PowerBiSettings

    settings, opened = PowerBiSettings.from_env(os.environ), warehouse.open()
    refuse_unreconciled(opened)
    changed = changed_since_refresh(context.instance)
    days = days_to_refresh(
        _days(config, changed.days if changed else None),
        since=refresh_started_at(context.instance),
        published=partial(numbers.days_published_since, opened, tables=[".".join(key.path) for key in DAILY_MARTS]),
    )
    done = refresh_model(settings, days=days, not_before=datetime.now(tz=UTC))
    return dg.MaterializeResult(
        metadata={
            COVERS: shown_event(context.instance, changed.newest if changed else 0),
            "url": dg.MetadataValue.url(settings.model_url),
            "days": ", ".join(sorted(map(str, days))) if days is not None else "all",
            "request_id": done.request_id,
            STARTED_AT: dg.MetadataValue.timestamp(done.started_at),
            "refresh_ended_at": dg.MetadataValue.timestamp(done.ended_at),
            "mode": done.mode,
            "partitions": sum(partition is not None for _, partition in done.objects) or "all",
            "refreshed": dg.MetadataValue.json([list(each) for each in done.objects]),
            "seconds": round(done.seconds, 3),
            **_waited(changed.oldest_at if changed else None, done.ended_at),
            **({"refreshes_left_today": done.budget_left} if done.budget_left is not None else {}),
        }
    )


def _days(config: RefreshConfig, changed: frozenset[date] | None) -> frozenset[date] | None:
    """Days to refresh that Dagster knows, None for all. Whatever was asked for, what has changed comes with it."""
    try:
        asked = frozenset(map(date.fromisoformat, config.days))
    except ValueError as error:
        raise dg.Failure(
            f"refreshing the semantic model: `days` of the run's config is {config.days}, expected days as YYYY-MM-DD "
            f"({error}). Nothing was refreshed. Mend it in the launchpad."
        ) from error
    if config.whole or changed is None:
        return None if config.whole or not asked else asked
    return changed | asked


def _waited(published_at: float | None, ended_at: datetime) -> dict[str, float]:
    """How long the oldest change had been published before a reader could see it."""
    return {"published_to_shown_s": round(ended_at.timestamp() - published_at, 3)} if published_at else {}


def refuse_unreconciled(warehouse: Any) -> None:
    """Raise while the newest comparison of some day of a table's topic says that its layers differ.

    Also of a day that the ledger of loads has lost. A comparison of before they named their table is outdated by any
    later one of the topic's day.
    """
    table = warehouse.table_id("control.reconciliation")
    sql = (
        "SELECT DISTINCT event_day FROM (SELECT event_day, table_name, is_reconciled, "
        "ROW_NUMBER() OVER (PARTITION BY topic, event_day, table_name ORDER BY recorded_at DESC) AS age, "
        "ROW_NUMBER() OVER (PARTITION BY topic, event_day ORDER BY recorded_at DESC) AS age_of_any "
        f"FROM `{table}`) AS compared "
        "WHERE IF(table_name IS NULL, age_of_any, age) = 1 AND NOT is_reconciled ORDER BY event_day"
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
            CHECK,
            asset=REPORT,
            description=(
                "Each key measure of each day, asked of the service in DAX, is the marts' own sum, to the last digit. "
                "A day published since the refresh may differ; where the service refuses to answer, it has not passed."
            ),
        )
    ],
    description="The report as its readers see it: link, as of when, its pages as pictures, its numbers compared.",
)
def report(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> Iterator[dg.MaterializeResult[None]]:
    """Ask the service what the report shows, compare, and keep a picture of it."""
    from powerbi.refresh import last_refresh
    from powerbi.rest import Client, credential_of
    from powerbi.settings import PowerBiSettings
    from powerbi.verify import data_as_of, verify

    settings = PowerBiSettings.from_env(os.environ)
    client, opened = Client(settings, credential_of(settings)), warehouse.open()
    refreshed = last_refresh(client)
    expected = numbers.expected_by_day(opened)
    shown_since = refreshed.started_at if refreshed else datetime.fromtimestamp(0, tz=UTC)
    found = verify(client, expected, moved=lambda: numbers.days_published_since(opened, shown_since))
    as_of = data_as_of(client)
    yield dg.MaterializeResult(
        metadata={
            "url": dg.MetadataValue.url(settings.report_url),
            **({"amount_gbp": f"{found.amount:f}"} if found.amount is not None else {}),
            "mart_amount_gbp": f"{sum(day['Total Amount'] or 0 for day in expected.values()):f}",
            "mart_rows": sum(day["Invoice Lines"] for day in expected.values()),
            **({"as_of": dg.MetadataValue.timestamp(as_of)} if as_of else {}),
            **({"refreshed_at": dg.MetadataValue.timestamp(refreshed.ended_at)} if refreshed else {}),
            **_pictures(context, settings),
        },
        check_results=[numbers.verified_result(CHECK, found)],
    )


def _pictures(context: dg.AssetExecutionContext, settings: Any) -> dict[str, Any]:
    """Pictures of now where they are due or a person asked, else the last ones; never a reason to fail."""
    from powerbi.errors import PowerBiError
    from powerbi.pictures import export_report

    is_asked = "dagster/sensor_name" not in context.run.tags
    if not is_asked and not pictures.is_due(context.instance, REPORT, datetime.now(tz=UTC).timestamp()):
        return pictures.taken_before(context.instance, REPORT)
    try:
        files = export_report(settings)
    except PowerBiError as error:
        context.log.warning("no picture of the report: %s", error)
        return {"pictures": f"none: {error}"}
    folder = Path(context.instance.storage_directory()) / "reports"
    return pictures.keep(files, folder, context.run.run_id)
