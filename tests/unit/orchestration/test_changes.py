"""What the report does not show yet, from nothing but Dagster's events."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from orchestration.defs.serving.assets import RefreshConfig, _days
from orchestration.defs.serving.changes import (
    DAILY_MARTS,
    SEMANTIC_MODEL,
    STARTED_AT,
    WHOLE_MARTS,
    changed_since_refresh,
    days_to_refresh,
    refresh_started_at,
    shown_event,
)
from orchestration.defs.warehouse.events import COVERS, newest_event

if TYPE_CHECKING:
    from collections.abc import Iterator


STARTED = datetime(2010, 12, 5, 12, tzinfo=UTC)
DAY, OTHER = date(2010, 12, 1), date(2009, 1, 1)


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
    metadata = {COVERS: shown_event(instance, newest(instance)), STARTED_AT: dg.MetadataValue.timestamp(STARTED)}
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


def test_where_no_refresh_is_known_every_day_has_changed(instance: dg.DagsterInstance) -> None:
    """Dagster's database was lost: the publications before are in the warehouse's ledger alone."""
    publish(instance, "2010-12-02")
    changed = changed_since_refresh(instance)
    assert changed is not None
    assert changed.days is None


def test_a_refresh_takes_days_from_the_warehouse_that_dagster_knows_nothing_of(instance: dg.DagsterInstance) -> None:
    publish(instance, "2010-12-01")
    assert refresh_started_at(instance) is None
    refresh(instance)
    assert refresh_started_at(instance) == STARTED

    def published(since: datetime) -> set[date]:
        return {OTHER} if since == STARTED else set()

    assert days_to_refresh(frozenset({DAY}), since=STARTED, published=published) == {DAY, OTHER}


def test_a_day_that_is_none_is_told_with_what_to_mend_before_anything_is_refreshed() -> None:
    with pytest.raises(dg.Failure, match=r"'2010-13-45'.*YYYY-MM-DD.*Nothing was refreshed. Mend it in the launchpad"):
        _days(RefreshConfig(days=["2010-12-01", "2010-13-45"]), None)


def test_no_day_is_asked_for_where_everything_is_refreshed() -> None:
    def asked(_since: datetime) -> set[date]:
        raise AssertionError

    assert days_to_refresh(None, since=STARTED, published=asked) is None
    assert days_to_refresh(frozenset({DAY}), since=None, published=asked) is None
    many = {DAY + timedelta(days=at) for at in range(401)}
    assert days_to_refresh(frozenset(), since=STARTED, published=lambda _since: many) is None
