"""The loop of a run that keeps its day up, on a clock of its own; and when its successor is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import BACKFILL_ID_TAG

from orchestration import mage
from orchestration.definitions import defs
from orchestration.defs.keep_up import FOLLOW_S, HANDOVER_S, IDLE_S, TAG, Cycle, Followed, Followers, _load, keep_up
from orchestration.defs.partitions import range_tags
from orchestration.defs.runs import busy_days, runs_at_work
from orchestration.defs.topics import project
from orchestration.errors import MageRunError
from orchestration.triggers import MAX_DAYS_A_RUN

DAY = date(2010, 12, 1)


class Line:
    """Batches land at given seconds; a turn takes one second and brings all that has landed."""

    def __init__(self, *lands: float, wanted_at: float = float("inf")) -> None:
        self.now, self.lands, self.shown, self.wanted_at = 0.0, sorted(lands), 0, wanted_at

    def landed(self) -> int:
        return sum(at <= self.now for at in self.lands)

    def turn(self) -> Cycle:
        brought = self.landed() - self.shown
        self.shown += brought
        self.now += 1.0
        return Cycle(rows_inserted=brought, published={}, seconds=1.0)

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        coming = [at for at in self.lands if at > self.now]
        self.now = min([self.now + seconds, *coming[:1]])

    def run(self, seconds: float) -> list[int]:
        cycles = keep_up(
            is_behind=lambda: self.landed() > self.shown,
            wait=self.wait,
            turn=self.turn,
            is_wanted=lambda: self.now >= self.wanted_at,
            seconds=seconds,
            clock=lambda: self.now,
        )
        return [cycle.rows_inserted for cycle in cycles]


def test_silence_ends_it() -> None:
    line = Line()
    assert line.run(60) == []
    assert line.now == IDLE_S


def test_what_lands_meanwhile_is_brought_by_the_next_turn_all_at_once() -> None:
    line = Line(0.0, 0.2, 0.4, 0.6, 1.5, 3.0)
    assert line.run(60) == [1, 3, 1, 1]
    assert line.now == 4.0 + IDLE_S


def test_no_turn_begins_after_the_span_however_much_lands() -> None:
    line = Line(*(at / 10 for at in range(1000)))
    line.run(10)
    assert 10 <= line.now < 11.5
    assert line.shown < len(line.lands), "the sensor asks for the rest"


def test_it_makes_room_for_a_run_that_waits() -> None:
    line = Line(*(at / 10 for at in range(1000)), wanted_at=5.0)
    line.run(60)
    assert line.now == 5.0


def test_a_batch_at_the_last_moment_of_silence_is_still_brought() -> None:
    line = Line(IDLE_S - 0.01)
    assert line.run(60) == [1]


class Rest:
    """A publication that ends when it is told to."""

    def __init__(self) -> None:
        self.begun, self.go = 0, threading.Semaphore(0)
        self.error: Exception | None = None
        self.now = 100.0
        self.followers = Followers(self.publish, clock=lambda: self.now)

    def publish(self) -> dict[str, int]:
        self.begun += 1
        assert self.go.acquire(timeout=20)
        if self.error is not None:
            raise self.error
        return {"mart.sums": self.begun}

    def ended(self, shown: dict[str, dict[int, int]]) -> Followed:
        """Let the publication that is at work end, and look until it is seen."""
        self.go.release()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = self.followers.look(shown)
            if found is not None:
                return found
        raise AssertionError


def test_marts_that_follow_never_claim_more_than_the_first_ones_showed_when_they_began() -> None:
    rest = Rest()
    shown = {"t": {0: 1}}
    assert rest.followers.look(shown) is None
    shown["t"][0] = 2
    assert rest.ended(shown) == Followed({"t": {0: 1}}, {"mart.sums": 1})
    assert rest.followers.look(shown) is None
    assert rest.begun == 1, "not before it is time"
    rest.now += FOLLOW_S
    rest.followers.look(shown)
    assert rest.ended(shown) == Followed({"t": {0: 2}}, {"mart.sums": 2})
    rest.now += FOLLOW_S
    rest.followers.look(shown)
    assert rest.begun == 2, "nothing has moved"
    assert rest.followers.end() is None


def test_an_error_of_marts_that_follow_ends_the_run_and_at_the_end_leaves_them_to_the_last_publication() -> None:
    rest = Rest()
    rest.error = ValueError("checks failed")
    rest.followers.look({"t": {0: 1}})
    with pytest.raises(ValueError, match="checks failed"):
        rest.ended({"t": {0: 1}})
    rest.now += FOLLOW_S
    rest.followers.look({"t": {0: 2}})
    rest.go.release()
    assert rest.followers.end() is None


def test_the_publication_at_work_is_waited_for_at_the_end() -> None:
    rest = Rest()
    rest.followers.look({"t": {0: 1}})
    rest.go.release()
    assert rest.followers.end() == Followed({"t": {0: 1}}, {"mart.sums": 1})


def _busy(make: Callable[[dg.DagsterInstance], None], *, after_s: float) -> set[date]:
    with dg.DagsterInstance.ephemeral() as instance:
        make(instance)
        return busy_days(runs_at_work(instance), datetime.now(UTC).timestamp() + after_s)


def _started(instance: dg.DagsterInstance, **tags: str) -> None:
    run = instance.create_run_for_job(
        job_def=defs.resolve_job_def("load_days"), tags={**range_tags(DAY, DAY), **tags},
        status=dg.DagsterRunStatus.STARTING,
    )  # fmt: skip
    instance.handle_new_event(
        dg.EventLogEntry(
            error_info=None, level=10, user_message="", run_id=run.run_id, timestamp=datetime.now(UTC).timestamp(),
            job_name=run.job_name,
            dagster_event=dg.DagsterEvent(
                event_type_value=dg.DagsterEventType.RUN_START.value, job_name=run.job_name, message=""
            ),
        )
    )  # fmt: skip


def test_a_successor_is_asked_for_shortly_before_the_span_is_over_and_only_one() -> None:
    span = {TAG: "450"}

    def one(instance: dg.DagsterInstance) -> None:
        _started(instance, **span)

    def two(instance: dg.DagsterInstance) -> None:
        _started(instance, **span)
        _started(instance, **span)

    assert _busy(one, after_s=450 - HANDOVER_S - 60) == {DAY}
    assert _busy(one, after_s=450 - HANDOVER_S) == set()
    assert _busy(two, after_s=450) == {DAY}
    assert _busy(_started, after_s=1000) == {DAY}, "a run without a span never hands over"


def test_a_day_that_a_backfill_has_yet_to_come_to_is_free_and_one_that_waits_for_the_sensors_own_run_is_not() -> None:
    def to_come(instance: dg.DagsterInstance, **tags: str) -> None:
        instance.create_run_for_job(
            job_def=defs.resolve_job_def("load_days"), tags={**range_tags(DAY, DAY), **tags},
            status=dg.DagsterRunStatus.NOT_STARTED,
        )  # fmt: skip

    assert _busy(lambda instance: to_come(instance, **{BACKFILL_ID_TAG: "long"}), after_s=0) == set()
    assert _busy(to_come, after_s=0) == {DAY}
    years = range_tags(DAY, DAY + timedelta(days=MAX_DAYS_A_RUN))
    assert _busy(lambda instance: to_come(instance, **years), after_s=0) == set(), "a hand's own, of years"
    assert _busy(lambda instance: _started(instance, **{BACKFILL_ID_TAG: "long"}), after_s=0) == {DAY}


@dg.job
def another() -> None:
    """Somebody's job in the same instance."""


def test_a_mistyped_span_is_none() -> None:
    assert _busy(lambda instance: _started(instance, **{TAG: "1m"}), after_s=1000) == {DAY}


def test_runs_of_other_partitions_than_days_keep_no_day_busy() -> None:
    def others(instance: dg.DagsterInstance) -> None:
        for key in ("DE", "2010-12", "2010-12-01-08:00", "DE|2010-12-01", ""):
            tags = {"dagster/partition": key}
            instance.create_run_for_job(job_def=another, tags=tags, status=dg.DagsterRunStatus.STARTED)
        _started(instance)

    assert _busy(others, after_s=0) == {DAY}


def test_a_short_span_is_not_handed_over_from_its_first_second_on() -> None:
    def one(instance: dg.DagsterInstance) -> None:
        _started(instance, **{TAG: "20"})

    assert _busy(one, after_s=5) == {DAY}
    assert _busy(one, after_s=10) == set()


def test_a_failed_test_of_a_cycle_is_told_as_any_run_tells_it_with_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = project().pipeline("retail_invoices")
    loader = spec.blocks[0].uuid
    failed = mage.TestRun(block=loader, name="is_whole", passed=False, message="load.py:3: 1 row too many")
    block = mage.BlockRun(block=loader, rows_in=1, rows_out=2, columns=(), seconds=0.1, peak_mib=1, tests=(failed,))
    done = mage.PipelineRun(blocks=(block,), outputs={})
    monkeypatch.setattr(mage, "run_pipeline", lambda *_args, **_options: done)
    context: Any = SimpleNamespace(run=SimpleNamespace(run_id="r"))
    with pytest.raises(MageRunError) as told:
        _load(context, spec.uuid, DAY, {})
    assert str(told.value) == (
        f"testing Mage block {spec.uuid}/{loader}: is_whole failed: load.py:3: 1 row too many [Nothing was written of "
        "this cycle of 2010-12-01; already written before: what the marts show of it. Look at what the block was "
        "given, mend, and run it again.]"
    )
