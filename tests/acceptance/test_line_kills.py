"""The line as processes, killed while the source is silent: the next tick completes the work without a new event."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from bench._line.ledgers import Ledgers
from deploy.demo.line import Line, Ports
from deploy.demo.state import State
from orchestration.defs.keep_up import TAG
from orchestration.warm import ask, process_of
from tests.schedule import whole_schedule_only

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.integration,
    pytest.mark.timeout(900),
    whole_schedule_only("minutes; test_warm.py, test_sensors.py and test_demo.py kill its parts"),
]
PATIENCE_S = 240.0
EVENTS = 1500


@dataclass
class Watched:
    """A running line, and what its ledgers and Dagster's instance say of it."""

    line: Line
    ledgers: Ledgers
    instance: dg.DagsterInstance
    sent: int = 0
    seeds: Iterator[int] = field(default_factory=lambda: iter(range(1, 100)))

    def produce(self) -> None:
        """Some events, all at once, for a run of their own; then the source is silent."""
        until(self.is_idle, "earlier runs have ended")
        self.send()

    def send(self) -> None:
        """Some events, whatever is at work."""
        name = f"producer {next(self.seeds)}"
        producer = self.line.spawn(
            name, ["-m", "streaming", "produce", "--shop", "--rate", "max", "--events", str(EVENTS), "--json"]
        )
        until(lambda: not producer.is_running(), "the producer ends")
        last = [each for each in producer.log.read_text().splitlines() if each.startswith("{")][-1]
        self.sent += int(json.loads(last)["sent"])

    def runs(self, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs(dg.RunsFilter(job_name="load_days", statuses=list(statuses) or None)))

    def is_idle(self) -> bool:
        status = dg.DagsterRunStatus
        return not self.runs(status.QUEUED, status.NOT_STARTED, status.STARTING, status.STARTED, status.CANCELING)

    def started_run(self) -> dg.DagsterRun:
        """A run that is at work and has said which process it is."""
        found: list[dg.DagsterRun] = []

        def look() -> bool:
            found[:] = [run for run in self.runs(dg.DagsterRunStatus.STARTED) if process_of(run.run_id, run.tags)]
            return bool(found)

        until(look, "a forked run is at work")
        return found[0]

    def whole(self) -> bool:
        expected, mart = self.ledgers.mart()
        return self.ledgers.core() == self.ledgers.landed() == self.sent and mart == expected

    @property
    def socket(self) -> Path:
        return Path(self.line.env["DAGSTER_HOME"]) / "pool.sock"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    root = tmp_path_factory.mktemp("line")
    before = dict(os.environ)
    line = Line(state=State(root), ports=Ports(), note=lambda _: None)
    with ExitStack() as stack:
        stack.callback(line.stop)
        line.start(lambda: None)
        while line.is_starting():
            time.sleep(0.2)
        os.environ.update(line.env)
        stack.callback(lambda: (os.environ.clear(), os.environ.update(before)))
        ledgers = Ledgers(line.env)
        stack.callback(ledgers.close)
        instance = stack.enter_context(dg.DagsterInstance.get())
        until(lambda: ask(Path(line.env["DAGSTER_HOME"]) / "pool.sock", {"op": "state"}), "the pool serves")
        yield Watched(line, ledgers, instance)


def until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, f"not within {patience_s:.0f} s: {what}"
        time.sleep(0.1)


def test_a_killed_run_is_told_within_seconds_and_completed_without_a_new_event(watched: Watched) -> None:
    watched.produce()
    run = watched.started_run()
    process = process_of(run.run_id, run.tags)
    assert process is not None
    assert process.terminate(signal.SIGKILL)
    failed = dg.DagsterRunStatus.FAILURE
    until(lambda: run.run_id in {each.run_id for each in watched.runs(failed)}, "the run has failed", 30.0)
    until(watched.whole, "the mart holds everything")


def test_a_killed_pool_and_run_are_noticed_and_the_work_is_done_without_the_pool(watched: Watched) -> None:
    watched.produce()
    run = watched.started_run()
    process = process_of(run.run_id, run.tags)
    pool = (ask(watched.socket, {"op": "state"}) or {})["pid"]
    os.kill(pool, signal.SIGKILL)
    assert process is not None
    process.terminate(signal.SIGKILL)
    until(watched.whole, "the mart holds everything")
    found = watched.instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status is dg.DagsterRunStatus.FAILURE
    until(lambda: (ask(watched.socket, {"op": "state"}) or {}).get("pid") not in {None, pool}, "another pool serves")


def test_what_a_killed_daemon_left_is_done_by_the_next_one(watched: Watched) -> None:
    watched.produce()
    watched.started_run()
    [daemon] = [each for each in watched.line.processes() if each.name == "Dagster daemon"]
    os.kill(daemon.pid, signal.SIGKILL)
    until(lambda: not daemon.is_running(), "the daemon is gone")
    daemon.stop()
    watched.send()  # lands while no daemon looks
    workspace = Path(watched.line.env["DAGSTER_HOME"]) / "workspace.yaml"
    watched.line.spawn("Dagster daemon", ["-m", "dagster._daemon", "run", "--workspace", str(workspace)])
    until(watched.whole, "the mart holds everything")


def test_a_flood_gets_no_more_runs_of_one_day_than_the_one_at_work_and_its_successor(watched: Watched) -> None:
    until(watched.is_idle, "earlier runs have ended")
    before = {run.run_id for run in watched.runs()}
    for _ in range(4):
        watched.send()
    until(watched.whole, "the mart holds everything")
    until(watched.is_idle, "the runs end")
    records = [
        record
        for record in watched.instance.get_run_records(dg.RunsFilter(job_name="load_days"))
        if record.dagster_run.run_id not in before
    ]
    assert 1 <= len(records) <= 4
    assert all(TAG in record.dagster_run.tags for record in records)
    moments = [(record.start_time or 0.0, record.end_time or 0.0) for record in records]
    assert max(sum(start <= at < end for start, end in moments) for at, _ in moments) <= 2
