"""The sensors on a real ledger and an instance of Dagster: what they ask for, and that nothing they lose matters."""

from __future__ import annotations

import threading
import time
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.publish import stale_tables
from orchestration.definitions import defs
from orchestration.defs import keep_up
from orchestration.defs.landing import sensors as landing_sensors
from orchestration.defs.landing.sensors import landed_batches
from orchestration.defs.marks import take_back_marks
from orchestration.defs.partitions import DAYS
from orchestration.defs.resources import LakeResource
from orchestration.defs.serving import sensors as serving_sensors
from orchestration.defs.serving.changes import SEMANTIC_MODEL, changed_since_refresh
from orchestration.defs.serving.sensors import published_days
from orchestration.settings import KEEP_UP_EMULATED_S
from tests.integration.orchestration.landing import LONDON, HandLanding, event

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., dg.ExecuteInProcessResult]

pytestmark = pytest.mark.integration

FIRST, LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing_sensors, "WAIT_S", 0.3)
    monkeypatch.setattr(serving_sensors, "WAIT_S", 0.0)


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=defs)
    result: Any = landed_batches(context, lake=LakeResource())
    return result


def asked(result: dg.SensorResult | dg.SkipReason) -> list[tuple[str, str]]:
    requests = result.run_requests or [] if isinstance(result, dg.SensorResult) else []
    return [(each.tags[FIRST], each.tags[LAST]) for each in requests]


def start_run(instance: dg.DagsterInstance, first: str, last: str, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    """A run as the daemon records it, without anything that runs."""
    return instance.create_run_for_job(
        job_def=defs.resolve_job_def("load_days"), tags={FIRST: first, LAST: last}, status=status
    )


def enqueue(instance: dg.DagsterInstance, first: str, last: str) -> dg.DagsterRun:
    """A run that waits for its turn; Dagster wants to know which code server would run it."""
    server = RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1), "orchestration")
    return instance.create_run_for_job(
        job_def=defs.resolve_job_def("load_days"), tags={FIRST: first, LAST: last}, status=dg.DagsterRunStatus.QUEUED,
        remote_job_origin=server.get_job_origin("load_days"),
    )  # fmt: skip


def test_nothing_landed_asks_for_nothing(landing: HandLanding, instance: dg.DagsterInstance) -> None:
    assert isinstance(tick(instance), dg.SkipReason)


def test_a_landed_batch_is_reported_and_its_day_asked_for(landing: HandLanding, instance: dg.DagsterInstance) -> None:
    landing.land([event(), event(line_no=2)])
    result = tick(instance)
    assert isinstance(result, dg.SensorResult)
    assert asked(result) == [("2010-12-01", "2010-12-01")]
    [reported] = result.asset_events
    assert isinstance(reported, dg.AssetMaterialization)
    assert reported.asset_key.path == ["landing", "retail_invoices"]
    assert reported.metadata["rows"].value == 2
    assert reported.metadata["last_offsets"].value == {"0": 1}


def test_a_batch_is_reported_once_but_its_day_is_asked_for_until_it_is_published(
    landing: HandLanding, instance: dg.DagsterInstance, load_days: Run
) -> None:
    landing.land([event()])
    first = tick(instance)
    assert isinstance(first, dg.SensorResult)
    second = tick(instance, first.cursor)
    assert isinstance(second, dg.SensorResult)
    assert second.asset_events == []
    assert asked(second) == [("2010-12-01", "2010-12-01")], "a lost request is asked again"
    assert load_days("2010-12-01").success
    assert isinstance(tick(instance, second.cursor), dg.SkipReason)


@pytest.mark.parametrize("cursor", ["garbage", "[1]", "5", '{"retail.invoices": "abc"}', '{"retail.invoices": null}'])
def test_a_cursor_that_a_hand_has_spoilt_stops_no_day(
    landing: HandLanding, instance: dg.DagsterInstance, cursor: str
) -> None:
    landing.land([event()])
    result = tick(instance, cursor)
    assert isinstance(result, dg.SensorResult)
    assert asked(result) == [("2010-12-01", "2010-12-01")]
    assert result.cursor == tick(instance).cursor, "it begins with a new one"


def rebuild_core(instance: dg.DagsterInstance, day: str) -> dg.ExecuteInProcessResult:
    """What materializing core/invoice_lines alone does, with the launchpad's configuration of a rebuild."""
    return defs.resolve_job_def("load_days").execute_in_process(
        instance=instance,
        tags={FIRST: day, LAST: day},
        run_config={"ops": {"retail_invoices": {"config": {"variables": {"mode": "rebuild"}}}}},
        asset_selection=[dg.AssetKey(["core", "invoice_lines"])],
        raise_on_error=False,
    )


def test_marts_follow_a_rebuild_of_core_alone_though_nothing_lands(
    landing: HandLanding, instance: dg.DagsterInstance, load_days: Run, warehouse: Any
) -> None:
    landing.land([event(), event(line_no=2)])
    assert load_days("2010-12-01").success
    lines = warehouse.table_id("core.invoice_lines")
    warehouse.run(f"UPDATE `{lines}` SET amount_gbp = 1 WHERE invoice_date = DATE '2010-12-01' AND line_no = 2")
    assert asked(tick(instance)) == []
    assert rebuild_core(instance, "2010-12-01").success
    assert {date(2010, 12, 1)} in map(set, stale_tables(warehouse, load_catalog()).values())
    assert asked(tick(instance)) == [("2010-12-01", "2010-12-01")]
    assert load_days("2010-12-01").success
    assert "mart.invoice_lines" not in stale_tables(warehouse, load_catalog())
    assert asked(tick(instance)) == []


def test_a_rebuild_that_publishes_its_marts_itself_leaves_no_day_to_ask_for(
    landing: HandLanding, instance: dg.DagsterInstance, load_days: Run
) -> None:
    landing.land([event()])
    assert load_days("2010-12-01").success
    assert load_days("2010-12-01", mode="rebuild").success
    assert asked(tick(instance)) == []


def test_a_rebuild_that_fails_leaves_its_day_waiting(
    landing: HandLanding, instance: dg.DagsterInstance, load_days: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mage_project.transforms import lines

    landing.land([event()])
    assert load_days("2010-12-01").success
    with monkeypatch.context() as patched:
        patched.setattr(lines, "price_lines", lambda table: table.slice(1))
        assert not rebuild_core(instance, "2010-12-01").success
    monkeypatch.setattr("orchestration.triggers.FIRST_WAIT_S", 0.0)
    assert asked(tick(instance)) == [("2010-12-01", "2010-12-01")]


@pytest.mark.parametrize("is_at_work", [False, True])
def test_the_night_names_days_whose_marts_nobody_is_going_to_publish_and_asks_for_them(
    landing: HandLanding, instance: dg.DagsterInstance, load_days: Run, warehouse: Any, *, is_at_work: bool
) -> None:
    """A rebuild outside Dagster, say in Mage's own UI: the lake's marks know nothing of it."""
    landing.land([event(), event(line_no=2, invoiced_at="2010-12-02T09:00:00Z")])
    assert load_days("2010-12-01", "2010-12-02").success
    warehouse.run(
        f"UPDATE `{warehouse.table_id('control.day')}` SET version = version + 1 WHERE event_day = DATE '2010-12-02'"
    )
    assert rebuild_core(instance, "2010-11-30").success, "nothing has landed on it, so nobody would ever publish it"
    if is_at_work:
        start_run(instance, "2010-12-02", "2010-12-02", dg.DagsterRunStatus.STARTED)
    night = defs.resolve_job_def("compare_days").execute_in_process(instance=instance, raise_on_error=False)
    assert night.success
    [found] = [each for each in night.get_asset_check_evaluations() if each.check_name == "core_equals_mart"]
    if is_at_work:
        assert found.passed
        return
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "1 day(s) of core are newer than their marts, and no run was at work on them: 2010-12-02." in str(found)
    assert found.metadata["days_left"].value == ["2010-12-02"]
    assert asked(tick(instance)) == [("2010-12-02", "2010-12-02")]


def test_many_days_are_one_run_and_far_ones_another(landing: HandLanding, instance: dg.DagsterInstance) -> None:
    days = ["2009-12-01", "2010-12-01", "2010-12-02", "2010-12-06"]
    landing.land([event(line_no=at + 1, invoiced_at=f"{day}T09:00:00Z") for at, day in enumerate(days)])
    assert asked(tick(instance)) == [("2009-12-01", "2009-12-01"), ("2010-12-01", "2010-12-06")]


def test_a_run_of_one_day_is_told_to_keep_up_and_one_of_many_days_is_not(
    landing: HandLanding, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = ["2009-12-01", "2010-12-01", "2010-12-02"]
    landing.land([event(line_no=at + 1, invoiced_at=f"{day}T09:00:00Z") for at, day in enumerate(days)])
    result = tick(instance)
    assert isinstance(result, dg.SensorResult)
    assert [each.tags.get(keep_up.TAG) for each in result.run_requests or []] == [f"{KEEP_UP_EMULATED_S:g}", None]
    monkeypatch.setenv("KEEP_UP_S", "0")
    result = tick(instance)
    assert isinstance(result, dg.SensorResult)
    assert [each.tags.get(keep_up.TAG) for each in result.run_requests or []] == [None, None]


def test_a_day_at_work_is_not_asked_for_twice(landing: HandLanding, instance: dg.DagsterInstance) -> None:
    landing.land([event(), event(line_no=2, invoiced_at="2010-12-02T09:00:00Z")])
    start_run(instance, "2010-12-01", "2010-12-01", dg.DagsterRunStatus.STARTED)
    assert asked(tick(instance)) == [("2010-12-02", "2010-12-02")]


def test_late_days_wait_for_a_queued_run_to_begin_and_are_then_asked_for_together(
    landing: HandLanding, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing_sensors, "today", lambda _now: date(2010, 12, 5))
    days = ["2010-12-01", "2010-12-02", "2010-12-03", "2010-12-05", "2010-12-06"]
    landing.land([event(line_no=at + 1, invoiced_at=f"{day}T09:00:00Z") for at, day in enumerate(days)])
    queued = enqueue(instance, "2010-12-01", "2010-12-01")
    today = tick(instance)
    assert asked(today) == [("2010-12-05", "2010-12-05")]
    assert isinstance(today, dg.SensorResult)
    assert [each.tags.get("dagster/priority") for each in today.run_requests or []] == ["1"], "before what is queued"
    start_run(instance, "2010-12-05", "2010-12-05", dg.DagsterRunStatus.STARTED)
    assert asked(tick(instance)) == []
    instance.report_run_canceled(queued)
    rest = tick(instance)
    assert asked(rest) == [("2010-12-02", "2010-12-03"), ("2010-12-06", "2010-12-06")]
    assert isinstance(rest, dg.SensorResult)
    assert [each.tags.get("dagster/priority") for each in rest.run_requests or []] == [None, None]


def test_a_killed_run_is_asked_for_again_though_no_event_comes(
    landing: HandLanding, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.land([event()])
    run = start_run(instance, "2010-12-01", "2010-12-01", dg.DagsterRunStatus.STARTED)
    waiting = tick(instance)
    assert asked(waiting) == []
    instance.report_run_failed(run, "killed")
    assert asked(tick(instance)) == [], "a failed day waits a little"
    monkeypatch.setattr("orchestration.triggers.FIRST_WAIT_S", 0.0)
    assert asked(tick(instance)) == [("2010-12-01", "2010-12-01")]


def test_a_tick_wakes_up_when_a_batch_lands(
    landing: HandLanding, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing_sensors, "WAIT_S", 30.0)
    later = threading.Timer(1.0, landing.land, [[event()]])
    later.start()
    started = time.monotonic()
    result = tick(instance)
    later.join()
    assert asked(result) == [("2010-12-01", "2010-12-01")]
    assert time.monotonic() - started < 15


def test_an_event_as_far_ahead_as_its_contract_takes_is_loaded_and_shown_at_once(
    landing: HandLanding, instance: dg.DagsterInstance, load_days: Run, warehouse: Any
) -> None:
    ahead = datetime.now(tz=UTC) + timedelta(seconds=landing.contract.maximum_ahead_s - 60)
    landing.land([event(invoiced_at=ahead.isoformat())])
    [(first, last)] = asked(tick(instance))
    assert first == last == ahead.astimezone(LONDON).date().isoformat()
    assert first in DAYS.get_partition_keys()
    assert load_days(first).success
    assert (
        defs.resolve_job_def("__ASSET_JOB")
        .execute_in_process(instance=instance, asset_selection=[dg.AssetKey(["mart", "dates"])])
        .success
    )
    lines, dates = warehouse.table_id("mart.invoice_lines"), warehouse.table_id("mart.dates")
    shown = warehouse.run(f"SELECT date FROM `{dates}` JOIN `{lines}` ON date = invoice_date").rows
    assert [str(row["date"]) for row in shown] == [first]


def test_today_goes_first_in_one_run_with_tomorrow(
    landing: HandLanding, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing_sensors, "today", lambda _now: date(2010, 12, 1))
    landing.land([event(), event(line_no=2, invoiced_at="2010-12-02T09:00:00Z")])
    result = tick(instance)
    assert asked(result) == [("2010-12-01", "2010-12-02")]
    assert isinstance(result, dg.SensorResult)
    assert [each.tags.get("dagster/priority") for each in result.run_requests or []] == ["1"]


def test_a_day_waits_until_it_has_a_partition(
    landing: HandLanding, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.land([event()])
    monkeypatch.setattr(landing_sensors, "last_day", lambda _now: date(2010, 11, 30))
    assert asked(tick(instance)) == []


def serve_tick(instance: dg.DagsterInstance) -> Any:
    return published_days(dg.build_sensor_context(instance=instance, definitions=defs))


def refreshed(instance: dg.DagsterInstance) -> None:
    changed = changed_since_refresh(instance)
    assert changed is not None
    started = dg.MetadataValue.timestamp(datetime.now(tz=UTC))
    materialization = dg.AssetMaterialization(
        SEMANTIC_MODEL, metadata={"covers_event": changed.newest, "refresh_started_at": started}
    )
    instance.report_runless_asset_event(materialization)


def test_the_report_is_served_once_for_each_publication(
    landing: HandLanding, instance: dg.DagsterInstance, load_days: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_sensors, "SETTLED_S", 0.0)
    monkeypatch.setenv("SERVE_EVERY_S", "0")
    assert isinstance(serve_tick(instance), dg.SkipReason)
    landing.land([event()])
    assert load_days("2010-12-01").success
    assert isinstance(serve_tick(instance), dg.RunRequest)
    refreshed(instance)
    assert isinstance(serve_tick(instance), dg.SkipReason)
    assert load_days("2010-12-01", mode="rebuild").success
    assert isinstance(serve_tick(instance), dg.RunRequest), "a restated day is shown too"
    changed = changed_since_refresh(instance)
    assert changed is not None
    assert changed.days is not None
    assert [str(day) for day in changed.days] == ["2010-12-01"]


def test_the_report_is_served_once_where_dagster_s_database_was_lost(
    landing: HandLanding, instance: dg.DagsterInstance, load_days: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_sensors, "SETTLED_S", 0.0)
    monkeypatch.setattr(serving_sensors, "WAIT_S", 0.0)
    monkeypatch.setenv("SERVE_EVERY_S", "0")
    landing.land([event()])
    with dg.DagsterInstance.ephemeral() as emptied:
        assert isinstance(serve_tick(emptied), dg.SkipReason), "nothing is published yet"
        assert load_days("2010-12-01").success
        assert isinstance(serve_tick(emptied), dg.RunRequest), "it was published, and nobody knows whether it is shown"
        shown = {"covers_event": 0, "refresh_started_at": dg.MetadataValue.timestamp(datetime.now(tz=UTC))}
        emptied.report_runless_asset_event(dg.AssetMaterialization(SEMANTIC_MODEL, metadata=shown))
        assert isinstance(serve_tick(emptied), dg.SkipReason)


def test_the_report_is_served_once_where_dagster_s_database_is_an_older_copy(
    landing: HandLanding, instance: dg.DagsterInstance, load_days: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_sensors, "SETTLED_S", 0.0)
    monkeypatch.setattr(serving_sensors, "WAIT_S", 0.0)
    monkeypatch.setattr(serving_sensors, "MARKED_LATER_S", 0.0)
    monkeypatch.setenv("SERVE_EVERY_S", "0")
    landing.land([event()])
    shown = {"covers_event": 0, "refresh_started_at": dg.MetadataValue.timestamp(datetime.now(tz=UTC))}
    with dg.DagsterInstance.ephemeral() as copied:  # it knows of a refresh, and of no publication since
        copied.report_runless_asset_event(dg.AssetMaterialization(SEMANTIC_MODEL, metadata=shown))
        assert isinstance(serve_tick(copied), dg.SkipReason)
        assert load_days("2010-12-01").success
        assert isinstance(serve_tick(copied), dg.RunRequest), "published after the copy was made"
        copied.report_runless_asset_event(dg.AssetMaterialization(SEMANTIC_MODEL, metadata=shown))
        assert isinstance(serve_tick(copied), dg.SkipReason)
        take_back_marks(LakeResource(), [date(2010, 12, 1)])
        assert isinstance(serve_tick(copied), dg.SkipReason), "a mark that is taken back is no publication"


def test_the_report_is_not_served_more_often_than_the_setting_says(
    landing: HandLanding, instance: dg.DagsterInstance, load_days: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_sensors, "SETTLED_S", 0.0)
    monkeypatch.setenv("SERVE_EVERY_S", "3600")
    landing.land([event()])
    assert load_days("2010-12-01").success
    refreshed(instance)
    assert load_days("2010-12-01", mode="rebuild").success
    result = serve_tick(instance)
    assert isinstance(result, dg.SkipReason)
    assert "less than 3600 s ago" in (result.skip_message or "")


def test_refreshes_take_no_more_than_their_share_of_the_time(
    landing: HandLanding, instance: dg.DagsterInstance, load_days: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.asset(key=SEMANTIC_MODEL)
    def slow_model() -> dg.MaterializeResult:
        changed = changed_since_refresh(instance)
        time.sleep(1.0)
        return dg.MaterializeResult(metadata={"covers_event": changed.newest if changed else 0})

    monkeypatch.setattr(serving_sensors, "SETTLED_S", 0.0)
    monkeypatch.setenv("SERVE_EVERY_S", "0")
    monkeypatch.setenv("SERVE_SHARE", "0.001")
    landing.land([event()])
    assert load_days("2010-12-01").success
    assert dg.materialize([slow_model], instance=instance).success
    assert load_days("2010-12-01", mode="rebuild").success
    result = serve_tick(instance)
    assert isinstance(result, dg.SkipReason)
    assert "the last refresh took long" in (result.skip_message or "")
    monkeypatch.setenv("SERVE_SHARE", "1")
    assert isinstance(serve_tick(instance), dg.RunRequest)
