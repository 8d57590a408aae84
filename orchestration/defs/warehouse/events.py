"""Publications as Dagster's event log numbers them.

Belongs here: asking for the newest. Not here: publishing (assets.py), what follows from it (serving/changes.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import dagster as dg

COVERS = "covers_event"
"""Metadata of a refresh, and of a mart published whole: the newest publication of a daily mart that it shows."""


def newest_event(instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey]) -> tuple[int, float]:
    """Id and time (epoch seconds) of the newest materialization of any of these assets; zeros before the first."""
    return max((_newest(instance, key) for key in keys), default=(0, 0.0))


def _newest(instance: dg.DagsterInstance, key: dg.AssetKey) -> tuple[int, float]:
    records = instance.fetch_materializations(key, limit=1).records
    return (records[0].storage_id, records[0].timestamp) if records else (0, 0.0)


def covered_event(instance: dg.DagsterInstance, key: dg.AssetKey) -> int:
    """What the newest materialization of an asset says under COVERS; 0 before the first, and where it does not say."""
    event = instance.get_latest_materialization_event(key)
    found = event.asset_materialization.metadata.get(COVERS) if event and event.asset_materialization else None
    return int(found.value) if found is not None and isinstance(found.value, int) else 0
