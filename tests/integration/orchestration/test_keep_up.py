"""A run that keeps its day up, on a real lake and warehouse: nothing is missed, and it makes room for others."""

from __future__ import annotations

import multiprocessing
import threading
import time
import uuid
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dbt_like_sql.reconcile import totals
from orchestration.definitions import defs
from orchestration.defs import keep_up
from orchestration.defs.keep_up import LOCK_SPACE, TAG, await_turn, locked
from orchestration.defs.partitions import range_tags
from orchestration.defs.resources import LakeResource
from streaming import lake
from tests.integration.orchestration.landing import TOPIC, HandLanding, event

pytestmark = pytest.mark.integration
DAY = date(2010, 12, 1)


def run(instance: dg.DagsterInstance, seconds: float) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("load_days").execute_in_process(
        instance=instance, tags=_tags(seconds), raise_on_error=False
    )


def _tags(seconds: float) -> dict[str, str]:
    return {**range_tags(DAY, DAY), TAG: str(seconds)}


def publications(result: dg.ExecuteInProcessResult, key: str) -> list[int]:
    """Rows that each materialization of a table in a run told of, in order."""
    return [
        int(each.step_materialization_data.materialization.metadata["dagster/partition_row_count"].value)
        for each in result.get_asset_materialization_events()
        if each.step_materialization_data.materialization.asset_key.to_user_string() == key
        and "dagster/partition_row_count" in each.step_materialization_data.materialization.metadata
    ]


def provenances(result: dg.ExecuteInProcessResult, key: str) -> list[dict[str, str]]:
    """The tags that each materialization of a table in a run carries, in order."""
    return [
        dict(each.step_materialization_data.materialization.tags)
        for each in result.get_asset_materialization_events()
        if each.step_materialization_data.materialization.asset_key.to_user_string() == key
    ]


class Landing(threading.Thread):
    """Lands a batch now and then, on a connection of its own, until told to stop."""

    def __init__(self, dsn: str, pause_s: float, limit: int) -> None:
        super().__init__(daemon=True)
        self.hand, self.pause_s, self.limit, self.landed = HandLanding(dsn), pause_s, limit, 0
        self.enough = threading.Event()

    def run(self) -> None:
        # The first batch lands while the run keeps up, however slow its first steps are.
        while not self._is_kept_up() and not self.enough.wait(0.05):
            pass
        while self.landed < self.limit and not self.enough.wait(self.pause_s):
            self.hand.land([event(line_no=self.landed + 2)], topic_partition=1)
            self.landed += 1

    def _is_kept_up(self) -> bool:
        with self.hand.conn.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted "
                "AND classid::bigint = %s",
                (LOCK_SPACE,),
            )
            found = cursor.fetchone()[0]
        self.hand.conn.rollback()
        return bool(found)

    def end(self) -> None:
        self.enough.set()
        self.join()
        self.hand.close()


def test_what_lands_while_a_run_is_at_work_is_in_the_mart_when_it_ends(
    landing: HandLanding,
    instance: dg.DagsterInstance,
    line_env: dict[str, str],
    warehouse: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestration.defs.keep_up.COMPARE_S", 0.0)
    landing.land([event()])
    flow = Landing(line_env["LAKE_DSN"], 0.5, 6)
    flow.start()
    result = run(instance, 60.0)
    flow.end()
    assert result.success
    assert flow.landed == 6
    found = totals(warehouse)["core.invoice_lines"]
    assert (found["core"]["rows"], found["mart"]["rows"]) == (7, 7)
    assert lake.pending_days(landing.conn, TOPIC, "marts") == []
    assert len(publications(result, "mart/invoice_lines")) >= 1, "each publication is a materialization of its own"
    country = publications(result, "mart/daily_sales_by_country")
    assert country, "the marts made of it have followed, each time as a materialization"
    for key in ("core/invoice_lines", "mart/invoice_lines", "mart/daily_sales_by_country"):
        told = provenances(result, key)
        assert len(told) > 1
        assert all("dagster/code_version" in each for each in told), f"a cycle's {key} is shown as unsynced by an edit"
        assert all(each.keys() == told[0].keys() for each in told), "and by new inputs, as the run's own step is"
        assert len({each["dagster/code_version"] for each in told}) == 1
    checks = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert checks["core_equals_mart"], "compared once more at the end"
    table = warehouse.table_id("control.reconciliation")
    [row] = warehouse.run(f"SELECT COUNT(*) AS n, COUNTIF(is_reconciled) AS good FROM `{table}`").rows
    assert row["n"] > 1, "within the loop, since whoever has the day next moves it, and once at the end"
    assert row["good"] == row["n"]


def test_it_makes_room_for_a_run_that_waits_for_its_day(
    landing: HandLanding, instance: dg.DagsterInstance, line_env: dict[str, str]
) -> None:
    landing.land([event()])
    flow = Landing(line_env["LAKE_DSN"], 0.3, 1000)
    flow.start()
    results: list[dg.ExecuteInProcessResult] = []
    at_work = threading.Thread(target=lambda: results.append(run(instance, 250.0)))
    began = time.monotonic()
    at_work.start()
    resource = LakeResource()
    try:
        while _is_free(resource):
            assert time.monotonic() - began < 100, "the run never took its day's lock"
            time.sleep(0.2)
        assert await_turn(resource, [DAY], patience_s=60.0) < 60
    finally:
        flow.end()
        at_work.join()
    assert time.monotonic() - began < 200
    assert results[0].success


def test_a_successor_does_its_steps_beside_the_run_at_work_and_takes_the_day_over(
    landing: HandLanding, line_env: dict[str, str], warehouse: Any, tmp_path: Path
) -> None:
    landing.land([event()])
    flow = Landing(line_env["LAKE_DSN"], 0.3, 1000)
    flow.start()
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        first, second = (RunApart(instance, 250.0) for _ in range(2))
        try:
            first.start()
            while flow.landed < 3:
                assert first.is_alive(), f"it ended before anybody waited: {first.told()}"
                time.sleep(0.1)
            second.start()
            while first.is_alive():
                assert second.is_alive(), f"the successor ended before it had its day: {second.told()}"
                time.sleep(0.1)
            landed_then = flow.landed
            while flow.landed < landed_then + 5:
                assert second.is_alive(), f"the successor keeps the day up from then on: {second.told()}"
                time.sleep(0.1)
        finally:
            flow.end()
            first.end()
            second.end()
        assert first.is_success(), first.told()
        assert second.is_success(), second.told()
        [compared] = first.evaluations("core_equals_mart")
        assert "handed over" in (compared.description or "")
        [compared] = second.evaluations("core_equals_mart")
        assert compared.description == f"core = mart on 1 day(s), {DAY}"
        began = min(at for at, each in second.events() if each.is_step_start)
        published = [
            at
            for at, each in first.events()
            if each.event_type_value == "ASSET_MATERIALIZATION"
            and each.asset_key == dg.AssetKey(["mart", "invoice_lines"])
        ]
        assert max(published) > began, "the first went on while the second began"
    found = totals(warehouse)["core.invoice_lines"]
    assert found["core"]["rows"] == found["mart"]["rows"] == flow.landed + 1
    assert lake.pending_days(landing.conn, TOPIC, "marts") == []


class RunApart:
    """A run in a process of its own, as Dagster starts them: two at once share neither modules nor the environment."""

    def __init__(self, instance: dg.DagsterInstance, seconds: float) -> None:
        self.instance, self.run_id = instance, str(uuid.uuid4())
        of_its_own = multiprocessing.get_context("spawn")
        self.process = of_its_own.Process(target=_run_apart, args=(instance.get_ref(), self.run_id, seconds))

    def start(self) -> None:
        self.process.start()

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def end(self, patience_s: float = 120.0) -> None:
        """Wait for its end; kill it if that does not come."""
        if self.process.pid is None:
            return
        self.process.join(patience_s)
        self.process.kill()
        self.process.join()

    def is_success(self) -> bool:
        run = self.instance.get_run_by_id(self.run_id)
        return run is not None and run.is_success

    def told(self) -> list[str]:
        """What it logged, and what failed in it."""
        logs = self.instance.all_logs(self.run_id)
        return [each.user_message for each in logs if each.dagster_event is None or each.dagster_event.is_failure]

    def events(self) -> list[tuple[float, dg.DagsterEvent]]:
        """When each event of it happened, seconds since 1970, and the event."""
        return [
            (each.timestamp, each.dagster_event) for each in self.instance.all_logs(self.run_id) if each.dagster_event
        ]

    def evaluations(self, name: str) -> list[dg.AssetCheckEvaluation]:
        found = [each.event_specific_data for _, each in self.events()]
        return [each for each in found if isinstance(each, dg.AssetCheckEvaluation) and each.check_name == name]


def _run_apart(ref: Any, run_id: str, seconds: float) -> None:
    with dg.DagsterInstance.from_ref(ref) as instance:
        defs.resolve_job_def("load_days").execute_in_process(
            instance=instance, run_id=run_id, tags=_tags(seconds), raise_on_error=False
        )


@pytest.mark.parametrize("why", ["a new image comes", "a block was edited"])
def test_it_ends_well_when_runs_are_told_to(
    landing: HandLanding,
    instance: dg.DagsterInstance,
    line_env: dict[str, str],
    warehouse: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    why: str,
) -> None:
    stop_file = tmp_path / "runs-stop"
    if why == "a new image comes":
        monkeypatch.setenv("RUNS_STOP_FILE", str(stop_file))
    else:
        monkeypatch.setattr(keep_up, "edited_pipelines", lambda _: ["retail_invoices"] if stop_file.exists() else [])
    landing.land([event()])
    flow = Landing(line_env["LAKE_DSN"], 0.3, 1000)
    flow.start()
    ended: list[tuple[bool, float]] = []
    at_work = threading.Thread(target=lambda: ended.append((run(instance, 250.0).success, time.monotonic())))
    at_work.start()
    try:
        while flow.landed < 3:
            assert at_work.is_alive(), "it ended before it was told to"
            time.sleep(0.1)
        stop_file.touch()
        told = time.monotonic()
        at_work.join(100)
    finally:
        flow.end()
        stop_file.touch()
        at_work.join()
    [(is_success, ended_at)] = ended
    assert is_success
    assert ended_at - told < 45, "what a container is given to stop"
    found = totals(warehouse)["core.invoice_lines"]
    assert found["core"]["rows"] == found["mart"]["rows"] > 1


def test_layers_that_differ_within_the_loop_fail_the_run(
    landing: HandLanding, instance: dg.DagsterInstance, line_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.defs.warehouse import assets

    landing.land([event()])
    monkeypatch.setattr("orchestration.defs.keep_up.COMPARE_S", 0.0)
    monkeypatch.setattr(
        assets, "reconcile_marts", lambda *_: dg.AssetCheckResult(passed=False, description="core 2 rows, mart 1 rows")
    )
    flow = Landing(line_env["LAKE_DSN"], 0.1, 1)
    flow.start()
    result = run(instance, 20.0)
    flow.end()
    [failure] = [each for each in result.all_events if each.is_step_failure]
    cause = failure.step_failure_data.error.cause
    assert cause is not None
    assert "core 2 rows, mart 1 rows" in cause.message


def _is_free(resource: LakeResource) -> bool:
    with locked(resource, DAY) as is_ours:
        return is_ours


def test_nobody_waits_for_a_day_that_nobody_keeps_up_nor_for_ever(line_env: dict[str, str]) -> None:
    resource = LakeResource()
    assert await_turn(resource, [DAY]) < 5
    with locked(resource, DAY) as is_ours:
        assert is_ours
        with locked(resource, DAY) as again:
            assert not again
        assert await_turn(resource, [date(2010, 12, 2)], patience_s=30.0) < 5
        assert 0.9 < await_turn(resource, [DAY], patience_s=1.0) < 10
    with locked(resource, DAY) as is_ours:
        assert is_ours, "a lock that was waited for in vain is not kept"
