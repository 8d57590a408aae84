"""What the report does not show yet, from nothing but Dagster's events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest

from orchestration.defs.serving.changes import (
    DAILY_MARTS,
    SEMANTIC_MODEL,
    WHOLE_MARTS,
    changed_since_refresh,
    shown_event,
)
from orchestration.defs.warehouse.events import COVERS, newest_event

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def publish(instance: dg.DagsterInstance, day: str) -> None:
    for key in DAILY_MARTS:
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day))


def newest(instance: dg.DagsterInstance) -> int:
    return newest_event(instance, DAILY_MARTS)[0]


def publish_whole(instance: dg.DagsterInstance, *keys: dg.AssetKey, read: int | None = None) -> None:
    for key in keys or WHOLE_MARTS:
        metadata = {COVERS: newest(instance) if read is None else read}
        instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata))


def refresh(instance: dg.DagsterInstance) -> None:
    metadata = {COVERS: shown_event(instance, newest(instance))}
    instance.report_runless_asset_event(dg.AssetMaterialization(SEMANTIC_MODEL, metadata=metadata))


def test_dimensions_then_a_refresh_show_everything(instance: dg.DagsterInstance) -> None:
    publish(instance, "2010-12-01")
    publish_whole(instance)
    refresh(instance)
    assert changed_since_refresh(instance) is None


@pytest.mark.parametrize("left_out", WHOLE_MARTS, ids=str)
def test_a_refresh_before_any_dimension_is_published_leaves_its_days_changed(
    instance: dg.DagsterInstance, left_out: dg.AssetKey
) -> None:
    publish(instance, "2010-12-01")
    publish_whole(instance)
    refresh(instance)
    publish(instance, "2010-12-02")
    publish_whole(instance, *(key for key in WHOLE_MARTS if key != left_out))
    refresh(instance)
    changed = changed_since_refresh(instance)
    assert changed is not None
    assert {str(day) for day in changed.days or ()} == {"2010-12-02"}
    publish_whole(instance, left_out)
    assert changed_since_refresh(instance) is not None, "the refresh was before"
    refresh(instance)
    assert changed_since_refresh(instance) is None


def test_a_day_that_is_published_while_dimensions_are_is_left_to_the_next_refresh(
    instance: dg.DagsterInstance,
) -> None:
    publish(instance, "2010-12-01")
    read = newest(instance)
    publish(instance, "2010-12-02")
    publish_whole(instance, read=read)
    refresh(instance)
    changed = changed_since_refresh(instance)
    assert changed is not None
    assert {str(day) for day in changed.days or ()} == {"2010-12-02"}


def test_a_refresh_never_covers_less_than_the_one_before(instance: dg.DagsterInstance) -> None:
    publish(instance, "2010-12-01")
    publish_whole(instance)
    refresh(instance)
    for key in WHOLE_MARTS:  # published by a version that did not say what it had read
        instance.report_runless_asset_event(dg.AssetMaterialization(key))
    refresh(instance)
    assert changed_since_refresh(instance) is None
