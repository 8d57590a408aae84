"""What the report does not show yet: publications of marts since the one that the last refresh covers.

Dagster's events say that something has changed. On which days, the warehouse's own ledger says too, when a refresh
begins (`days_to_refresh`): a day can be published by the command line, and Dagster's database can be lost.

Belongs here: reading Dagster's event log, and choosing days. Not here: refreshing (assets.py), when to (sensors.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import dagster as dg

from dbt_like_sql.catalog import load_catalog
from orchestration.defs.warehouse.assets import asset_key, daily_keys, is_daily, mart_tables
from orchestration.defs.warehouse.events import covered_event, newest_event

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

SEMANTIC_MODEL = dg.AssetKey(["powerbi", "semantic_model"])
REPORT = dg.AssetKey(["powerbi", "report"])
DAILY_MARTS = tuple(daily_keys(load_catalog()))
MARTS = tuple(asset_key(table.name) for table in mart_tables(load_catalog()))
# Views are as new as what they read.
WHOLE_MARTS = tuple(
    asset_key(table.name)
    for table in mart_tables(load_catalog())
    if table.materialization == "table" and not is_daily(table)
)

STARTED_AT = "refresh_started_at"
"""Metadata of a refresh: when it began."""

# More changed days than this since the last refresh, and the whole model is refreshed instead of naming them.
MAX_DAYS_NAMED = 400


@dataclass(frozen=True)
class Changed:
    """What the marts have published since the last refresh: up to which event, when, on which days (None: all)."""

    newest: int
    newest_at: float
    days: frozenset[date] | None
    oldest_at: float = 0.0


def changed_since_refresh(instance: dg.DagsterInstance) -> Changed | None:
    """What the report does not show yet, from Dagster's own event log; None if it shows everything.

    All days where no refresh is known: Dagster's database is new, or was lost with the publications before.
    """
    covered = covered_event(instance, SEMANTIC_MODEL)
    newest, newest_at = newest_event(instance, DAILY_MARTS)
    if newest <= covered:
        return None
    oldest_at = min((_first_event_at(instance, key, covered) for key in DAILY_MARTS), default=newest_at)
    is_known = refresh_started_at(instance) is not None
    return Changed(newest, newest_at, _days_since(instance, covered) if is_known else None, oldest_at)


def refresh_started_at(instance: dg.DagsterInstance) -> datetime | None:
    """When the last refresh began, by the service's clock; None if none is known."""
    event = instance.get_latest_materialization_event(SEMANTIC_MODEL)
    found = event.asset_materialization.metadata.get(STARTED_AT) if event and event.asset_materialization else None
    return datetime.fromtimestamp(found.value, tz=UTC) if isinstance(found, dg.TimestampMetadataValue) else None


def days_to_refresh(
    days: frozenset[date] | None, *, since: datetime | None, published: Callable[[datetime], Collection[date]]
) -> frozenset[date] | None:
    """These days and those that were published since the last refresh began, whoever published them; None for all.

    Args:
        days: that Dagster knows of, or that a person asked for.
        since: when the last refresh began.
        published: asks the warehouse's ledger for the days published since.
    """
    if days is None or since is None:
        return None
    found = days | frozenset(published(since))
    return found if len(found) <= MAX_DAYS_NAMED else None


def shown_event(instance: dg.DagsterInstance, newest: int) -> int:
    """What a refresh of now covers: the newest publication, but none that the whole marts it reads do not know yet.

    A person who refreshes the model alone reads facts whose new customers are in no dimension: those facts stay
    changed, so that dimensions and another refresh follow. Never less than what the refresh before covered.

    Args:
        instance: for its event log.
        newest: the newest publication of a daily mart that the refresh reads.
    """
    known = min((covered_event(instance, key) for key in WHOLE_MARTS), default=newest)
    return max(covered_event(instance, SEMANTIC_MODEL), min(newest, known))


def _first_event_at(instance: dg.DagsterInstance, key: dg.AssetKey, covered: int) -> float:
    filters = dg.AssetRecordsFilter(asset_key=key, after_storage_id=covered)
    records = instance.fetch_materializations(filters, limit=1, ascending=True).records
    return records[0].timestamp if records else float("inf")


def _days_since(instance: dg.DagsterInstance, covered: int) -> frozenset[date] | None:
    days: set[date] = set()
    for key in DAILY_MARTS:
        filters = dg.AssetRecordsFilter(asset_key=key, after_storage_id=covered)
        records = instance.fetch_materializations(filters, limit=MAX_DAYS_NAMED + 1).records
        if len(records) > MAX_DAYS_NAMED or any(record.partition_key is None for record in records):
            return None
        days |= {date.fromisoformat(record.partition_key) for record in records if record.partition_key}
    return frozenset(days)
