"""Old runs of Dagster's instance: which may go, and their going.

A line that loads every few seconds leaves thousands of runs a day in Dagster's own database, and Dagster's retention
knows ticks only. What a run materialized is known to the UI through that run's events alone: without the run that last
built a day, the day is shown as never built. So the run with a partition's newest materialization stays, however old.

Belongs here: choosing and deleting runs. Not here: their schedule (defs/housekeeping.py), retention of events
(streaming).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from orchestration.defs.runs import ENDED

if TYPE_CHECKING:
    from datetime import datetime

PAGE = 5000  # runs named in one question
CHUNK = 5000  # materializations asked for in one question
MOST_A_PASS = 20_000  # a run of some 100 events is deleted in about 10 ms; the next pass goes on


@dataclass(frozen=True)
class Purged:
    """What one pass did: runs deleted, old runs kept for being the newest of a partition, whether more are left."""

    deleted: int
    kept: int
    is_finished: bool


def purge_runs(instance: dg.DagsterInstance, *, before: datetime, most: int = MOST_A_PASS) -> Purged:
    """Delete ended runs created before a time, but for those that some partition was last materialized by.

    Args:
        instance: Dagster's instance.
        before: zone-aware; runs created earlier are old.
        most: runs deleted in one pass.
    """
    needed = runs_needed(instance)
    deleted = kept = 0
    for run_id in _old_runs(instance, before):
        if run_id in needed:
            kept += 1
            continue
        if deleted == most:
            return Purged(deleted, kept, is_finished=False)
        instance.delete_run(run_id)
        deleted += 1
    return Purged(deleted, kept, is_finished=True)


def runs_needed(instance: dg.DagsterInstance) -> set[str]:
    """Runs whose events are the newest materialization of an asset or of one of its partitions."""
    needed: set[str] = set()
    for key in instance.get_asset_keys():
        newest = instance.get_latest_materialization_event(key)
        if newest is not None:
            needed.add(newest.run_id)
        by_partition = instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)
        ids = sorted(by_partition.values())
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            records = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, storage_ids=chunk), limit=len(chunk)
            ).records
            needed.update(record.run_id for record in records)
    return needed


def _old_runs(instance: dg.DagsterInstance, before: datetime) -> list[str]:
    """Oldest first; all of them, before the first goes: a page's cursor must be a run that still exists."""
    filters = dg.RunsFilter(statuses=ENDED, created_before=before)
    found: list[str] = []
    while page := instance.get_run_ids(filters, limit=PAGE, cursor=found[-1] if found else None):
        found.extend(page)
    return found[::-1]
