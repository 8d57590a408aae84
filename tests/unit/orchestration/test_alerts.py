"""Alerts carry reason and next step, no secret, and never fail anything; told to a real HTTP server."""

import contextlib
import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import psycopg2
import pytest
from dagster._core.definitions.run_status_sensor_definition import RunStatusSensorCursor
from dagster._core.events import EngineEventData
from dagster_shared.error import SerializableErrorInfo

from deploy.processes import free_port
from orchestration import alerts
from orchestration.alerts import Alert, Kept, next_step, redact, tell
from orchestration.defs import alerts as sensors
from orchestration.defs.resources import LakeResource
from orchestration.errors import ReconcileError
from streaming import lake

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


class Receiver:
    """A webhook that answers as told, after so long, and keeps what it got."""

    def __init__(self) -> None:
        self.answers, self.got = list[int](), list[dict[str, Any]]()
        self.never, self.delay_s = "nothing", 0.0  # what it answers with 500 always
        self.moved_to = ""  # where its redirects lead
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                outer.got.append(json.loads(self.rfile.read(length)))
                outer.ended.wait(outer.delay_s)
                status = 500 if outer.got[-1]["subject"] == outer.never else 200
                with contextlib.suppress(BrokenPipeError):
                    self.send_response(outer.answers.pop(0) if outer.answers else status)
                    self.send_header("Location", outer.moved_to)
                    self.end_headers()

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.ended = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/secret-path"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def alert(reason: str = "core and landed differ", subject: str = "load_days") -> Alert:
    return Alert(
        kind="run_failed", subject=subject, reason=reason, next_step="Rebuild the day.", run_id="r1",
        days=["2010-12-01"],
    )  # fmt: skip


def test_an_alert_is_logged_and_sent_with_reason_and_next_step(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="orchestration.alerts"):
        assert tell([alert()], [], receiver.url, now=NOW) == []
    [got] = receiver.got
    assert (got["reason"], got["next_step"], got["run_id"]) == ("core and landed differ", "Rebuild the day.", "r1")
    assert got["text"].startswith("run failed: load_days (2010-12-01)\n")
    assert got["at"] == "2026-11-29T12:00:00+00:00", "it may come late"
    assert json.loads(caplog.messages[0])["event"] == "alert"


def test_what_a_webhook_that_is_down_does_not_take_is_sent_once_it_is_there(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    down = f"http://127.0.0.1:{free_port()}/hook/secret-path"
    waiting = tell([alert(subject="a"), alert(subject="b")], [], down, now=NOW)
    for _ in range(6):
        waiting = tell([], waiting, down, now=NOW)
    assert caplog.text.count('"event": "alert"') == 2, "it is logged once"
    assert "alerts wait for the next tick" in caplog.text
    assert "secret-path" not in caplog.text
    assert tell([], waiting, receiver.url, now=NOW + timedelta(hours=1)) == []
    assert sorted(got["subject"] for got in receiver.got) == ["a", "b"]


@pytest.mark.parametrize(("answer", "is_kept"), [(503, True), (429, True), (500, True), (404, False)])
def test_only_what_another_try_can_help_is_tried_again(receiver: Receiver, answer: int, *, is_kept: bool) -> None:
    receiver.answers = [answer]
    waiting = tell([alert()], [], receiver.url, now=NOW)
    assert len(receiver.got) == 1
    assert bool(waiting) is is_kept
    assert tell([], waiting, receiver.url, now=NOW) == []
    assert len(receiver.got) == 1 + is_kept


@pytest.mark.parametrize("answer", [301, 302, 303, 307, 308])
def test_an_alert_that_is_redirected_does_not_count_as_taken(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, answer: int
) -> None:
    receiver.answers, receiver.moved_to = [answer], f"{receiver.url}/moved"
    assert tell([alert()], [], receiver.url, now=NOW) == []
    [lost] = [json.loads(each) for each in caplog.messages if "alert not delivered" in each]
    assert f"HTTP {answer}, a redirect to http://127.0.0.1" in lost["problem"]
    assert "secret-path" not in caplog.text


def test_a_silent_receiver_costs_one_post_a_tick_and_gets_none_for_ever(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alerts, "POST_S", 0.3)
    receiver.delay_s = 60.0
    began = time.monotonic()
    waiting = tell([alert(subject=name) for name in "abc"], [], receiver.url, now=NOW)
    assert time.monotonic() - began < 1.0
    assert ([got["subject"] for got in receiver.got], len(waiting)) == (["a"], 3)
    told: list[int] = []
    for minutes in (0, 0, 0, 0, 1, 1, 1, 1, 14, 15, 15, 15):
        waiting = tell([], waiting, receiver.url, now=NOW + timedelta(minutes=minutes))
        told.append(len(receiver.got))
    assert told == [2, 3, 3, 3, 4, 5, 6, 6, 6, 7, 8, 9]
    assert waiting == []
    assert sorted(got["subject"] for got in receiver.got) == sorted("abc" * 3)
    assert caplog.text.count("alert not delivered") == 3


def test_an_alert_that_is_never_taken_holds_up_no_other(receiver: Receiver) -> None:
    receiver.never = "b"
    waiting = tell([alert(subject=name) for name in "abc"], [], receiver.url, now=NOW)
    waiting = tell([alert(subject="d")], waiting, receiver.url, now=NOW)
    waiting = tell([], waiting, receiver.url, now=NOW)
    assert {got["subject"] for got in receiver.got} == set("abcd")
    assert [each.content["subject"] for each in waiting] == ["b"]
    assert tell([], waiting, receiver.url, now=NOW + alerts.KEPT + timedelta(seconds=1)) == []


def test_posts_of_a_tick_have_one_budget_and_what_is_left_is_bounded(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    ticks = iter(range(0, 1000, 5))  # each post takes 5 s
    found = [alert(subject=str(number)) for number in range(alerts.MAX_WAITING + 10)]
    waiting = tell(found, [], receiver.url, now=NOW, clock=lambda: float(next(ticks)))
    told = [got["subject"] for got in receiver.got]
    assert told == ["0", "1", "2"], "a fourth might take until 30 s"
    assert len(waiting) == alerts.MAX_WAITING
    assert caplog.text.count("alert not delivered") == len(found) - 3 - alerts.MAX_WAITING


@pytest.mark.parametrize("webhook", ["ftp://somewhere/x", "not an address", "http://[broken"])
def test_a_webhook_that_is_no_address_fails_nothing(webhook: str) -> None:
    assert tell([alert()], [], webhook, now=NOW) == []


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("connecting to postgresql://reader:hunter2@db:5432/lake failed", "hunter2"),
        ("could not connect: host=db password=hunter2 user=x", "hunter2"),
        ('{"client_secret": "hunter2", "a": 1}', "hunter2"),
        ("401 for Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc was refused", "eyJhbGciOiJIUzI1NiJ9"),
        ("https://x.blob/y?sv=1&sig=hunter2&se=2", "hunter2"),
        ("key -----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----", "hunter2"),
    ],
)
def test_no_secret_leaves_in_an_alert(receiver: Receiver, text: str, secret: str) -> None:
    assert tell([alert(text)], [], receiver.url, now=NOW) == []
    assert secret not in json.dumps(receiver.got)
    assert secret not in redact(text)


@pytest.mark.parametrize("step", [*alerts.NEXT_STEPS.values(), alerts.OTHERWISE, alerts.REBUILD, alerts.CRASHED])
def test_no_next_step_is_taken_for_a_secret(step: str) -> None:
    assert redact(step) == step


def test_a_long_reason_is_cut() -> None:
    assert len(redact("x" * 100_000)) == alerts.MAX_REASON


def test_the_next_step_follows_from_the_first_error_that_is_known() -> None:
    assert "does-not-reconcile" in next_step(["DagsterExecutionStepExecutionError", "ReconcileError", "ValueError"], "")
    assert "lake restored" in next_step(["DagsterExecutionStepExecutionError", "MageRunError", "RestoredError"], "")
    assert "Mend the block" in next_step(["MageRunError", "KeyError"], "")
    assert "backup-and-restore" in next_step(["MageRunError", "LostRowsError"], "")
    assert "service-down" in next_step(["MageRunError", "SilentLakeError"], "")
    assert "failed-refresh" in next_step(["ThrottledError"], "429")
    assert "launchpad" in next_step(["MageRunError", "VariableError"], "mode is 'rebuld'"), "no block is to be mended"
    assert next_step(["KeyError"], "x") == alerts.OTHERWISE
    assert "sensor" not in next_step(["Failure"], "mode compare writes nothing"), "what a person asked for, refused"
    gone = "The run's process was killed by signal 9 before the run had ended."
    assert next_step([], gone) == alerts.CRASHED
    assert next_step([], "Run timed out due to taking longer than 120 seconds to start.") == alerts.CRASHED
    for found in ("its process 7 is gone", "the code server was started anew and does not have this run"):
        assert (
            next_step([], f"Detected run worker status FAILED: '{found}'. Marking run x as failed.") == alerts.CRASHED
        )


@dg.op
def fail() -> None:
    try:
        int("postgresql")
    except ValueError as error:
        raise ReconcileError("landed 3, core 2, asked of postgresql://reader:hunter2@db/lake") from error


@dg.job(executor_def=dg.in_process_executor)
def failing() -> None:
    fail()


@pytest.fixture(params=["in memory", "sqlite"])
def instance(request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    """Dagster's two storages of its own; the second, with a file a run, is that of a plain `dagster dev`."""
    is_ephemeral = request.param == "in memory"
    with dg.DagsterInstance.ephemeral() if is_ephemeral else dg.instance_for_test() as made:
        yield made


@dg.job(executor_def=dg.in_process_executor)
def interrupted() -> None:
    @dg.op
    def stop() -> None:
        raise dg.DagsterExecutionInterruptedError

    stop()


@dg.op(config_schema={"variables": dict})
def load(context: dg.OpExecutionContext) -> None:
    if "refused" in context.op_config["variables"]:
        raise dg.Failure("Mend the run's days in the launchpad.")
    raise ValueError(context.op_config)


@dg.job(executor_def=dg.in_process_executor)
def loading() -> None:
    load()


class FailedRuns:
    """The sensor's looks at an instance; they share a cursor."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.cursor = instance, ""

    def fail(self, day: str = "2010-12-01", **more: str) -> None:
        tags = {"dagster/partition": day, **more}
        assert not failing.execute_in_process(instance=self.instance, raise_on_error=False, tags=tags).success

    def load(self, **variables: str) -> None:
        config = {"ops": {"load": {"config": {"variables": variables}}}}
        done = loading.execute_in_process(run_config=config, instance=self.instance, raise_on_error=False)
        assert not done.success

    def look(self) -> None:
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        sensors.alert_failed_runs(context)
        self.cursor = context.cursor or ""


@pytest.fixture
def failed_runs(instance: dg.DagsterInstance, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> FailedRuns:
    monkeypatch.setenv("ALERT_WEBHOOK_URL", receiver.url)
    return FailedRuns(instance)


def test_a_failed_run_is_told_once_with_its_days_and_our_error_s_own_words(
    receiver: Receiver, failed_runs: FailedRuns
) -> None:
    failed_runs.fail("2010-11-30")
    failed_runs.look()
    failed_runs.fail()
    failed_runs.look()
    failed_runs.look()
    [got] = receiver.got
    assert (got["kind"], got["subject"], got["days"]) == ("run_failed", "failing", ["2010-12-01"])
    assert "postgresql://reader:***@db" in got["reason"]
    assert got["next_step"] == alerts.NEXT_STEPS["ReconcileError"]


@pytest.mark.parametrize(
    ("tags", "is_told"),
    [({}, False), ({"dagster/backfill": "b"}, True), ({"dagster/backfill": "b", "dagster/will_retry": "true"}, False)],
)
def test_a_failed_rebuild_is_not_left_to_the_sensor_which_rebuilds_nothing(
    receiver: Receiver, failed_runs: FailedRuns, tags: dict[str, str], *, is_told: bool
) -> None:
    failed_runs.look()
    failed_runs.fail(**tags)
    failed_runs.look()
    [got] = receiver.got
    assert got["next_step"].endswith(alerts.REBUILD) is is_told


@pytest.mark.parametrize(
    ("variables", "is_told"),
    [({"mode": "rebuild"}, True), ({"mode": "incremental"}, False), ({"mode": "rebuild", "refused": "yes"}, False)],
)
def test_a_rebuild_that_a_hand_has_started_is_not_left_to_the_sensor_either(
    receiver: Receiver, failed_runs: FailedRuns, variables: dict[str, str], *, is_told: bool
) -> None:
    failed_runs.look()
    failed_runs.load(**variables)
    failed_runs.look()
    [got] = receiver.got
    assert got["next_step"].endswith(alerts.REBUILD) is is_told


def test_a_run_whose_process_was_told_to_end_is_told_as_that(receiver: Receiver, failed_runs: FailedRuns) -> None:
    failed_runs.look()
    with contextlib.suppress(dg.DagsterExecutionInterruptedError):
        interrupted.execute_in_process(instance=failed_runs.instance, raise_on_error=False)
    failed_runs.look()
    [got] = receiver.got
    assert "interrupted unexpectedly" in got["reason"]
    assert got["next_step"] == alerts.NEXT_STEPS["DagsterExecutionInterruptedError"]


@pytest.mark.parametrize(
    ("message", "reason", "step"),
    [
        (None, "Could not reach user code server", alerts.NEXT_STEPS["DagsterUserCodeUnreachableError"]),
        ("The run's process was killed by signal 9 before the run had ended.", "killed by signal 9", alerts.CRASHED),
    ],
)
def test_a_run_that_dagster_gave_up_is_told_with_what_it_met_before(
    receiver: Receiver, failed_runs: FailedRuns, message: str | None, reason: str, step: str
) -> None:
    failed_runs.look()
    instance = failed_runs.instance
    run = instance.create_run_for_job(failing, status=dg.DagsterRunStatus.STARTING)

    def meet(text: str) -> None:
        error = SerializableErrorInfo(f"DagsterUserCodeUnreachableError: {text}", [], "DagsterUserCodeUnreachableError")
        instance.report_engine_event("of Dagster's own", run, EngineEventData.engine_error(error))

    meet("the first")
    meet("Could not reach user code server")
    instance.report_engine_event("without an error", run)
    instance.report_run_failed(run, message)
    meet("while it was to be tried again")
    failed_runs.look()
    [got] = receiver.got
    assert reason in got["reason"]
    assert got["next_step"] == step


def test_failed_runs_that_the_receiver_does_not_take_wait_in_the_cursor_without_secrets(
    receiver: Receiver, failed_runs: FailedRuns
) -> None:
    failed_runs.look()
    failed_runs.fail()
    receiver.answers = [503]
    failed_runs.look()
    assert [Kept(**each).content["days"] for each in json.loads(failed_runs.cursor)["waiting"]] == [["2010-12-01"]]
    assert "hunter2" not in failed_runs.cursor
    failed_runs.fail("2010-12-02")
    failed_runs.look()
    failed_runs.look()
    assert [got["days"] for got in receiver.got] == [["2010-12-01"], ["2010-12-01"], ["2010-12-02"]]


def test_the_sensor_goes_on_where_dagster_s_own_kind_of_sensor_stopped(
    receiver: Receiver, failed_runs: FailedRuns
) -> None:
    failed_runs.cursor = RunStatusSensorCursor(record_id=0).to_json()
    failed_runs.fail()
    failed_runs.look()
    assert len(receiver.got) == 1


SPOILT = [
    "garbage",
    "[1]",
    '{"event": "x"}',
    '{"event": 0, "waiting": [{"kind": "x"}]}',
    '{"waiting": [{"content": 1}]}',
]


@pytest.mark.parametrize("cursor", SPOILT)
def test_a_cursor_that_a_hand_has_spoilt_silences_no_alert_for_long(
    receiver: Receiver, failed_runs: FailedRuns, cursor: str
) -> None:
    failed_runs.cursor = cursor
    failed_runs.look()
    failed_runs.fail()
    failed_runs.look()
    assert [got["days"] for got in receiver.got] == [["2010-12-01"]]


@dg.asset(check_specs=[dg.AssetCheckSpec("agrees", asset="thing"), dg.AssetCheckSpec("is_close", asset="thing")])
def thing(context: dg.AssetExecutionContext) -> Iterator[Any]:
    yield dg.MaterializeResult()
    for name, severity in (("agrees", dg.AssetCheckSeverity.ERROR), ("is_close", dg.AssetCheckSeverity.WARN)):
        passed = name not in context.run.tags.get("failing", "")
        yield dg.AssetCheckResult(check_name=name, passed=passed, severity=severity, metadata={"rows": 7})


@pytest.fixture
def look(
    instance: dg.DagsterInstance, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str | None], str]:
    """Materialize with these checks failing (None: nothing), look, and say what was told; looks share a cursor."""
    monkeypatch.setenv("ALERT_WEBHOOK_URL", receiver.url)
    cursor: list[str | None] = [None]

    def once(failing_checks: str | None) -> str:
        if failing_checks is not None:
            dg.materialize([thing], instance=instance, tags={"failing": failing_checks})
        context = dg.build_sensor_context(instance=instance, cursor=cursor[0], definitions=dg.Definitions([thing]))
        sensors.alert_checks_and_freshness(context)
        cursor[0] = context.cursor
        subjects = ", ".join(each["subject"].partition(": ")[2] for each in receiver.got)
        receiver.got.clear()
        return subjects

    return once


def test_a_check_is_told_when_it_begins_to_fail_and_a_warning_at_the_third_time(look: Callable[..., str]) -> None:
    looks = ("agrees", "", "agrees is_close", "agrees is_close", "agrees is_close", "", "agrees")
    told = [look(failing_checks) for failing_checks in looks]
    assert told == ["", "", "agrees", "", "is_close", "", "agrees"], "the first look tells nothing of the past"


@pytest.mark.parametrize("spoilt", [*SPOILT, '{"checks": ["thing"]}', '{"stale": 5}'])
def test_a_spoilt_cursor_silences_no_check_for_long(instance: dg.DagsterInstance, spoilt: str) -> None:
    context = dg.build_sensor_context(instance=instance, cursor=spoilt, definitions=dg.Definitions([thing]))
    sensors.alert_checks_and_freshness(context)
    assert json.loads(context.cursor or "") == {"checks": {}, "event": 0, "stale": [], "told": [], "waiting": []}


def test_the_first_check_that_fails_on_a_new_instance_is_told(look: Callable[..., str]) -> None:
    assert [look(each) for each in (None, "agrees", "agrees")] == ["", "agrees", ""]


def test_a_check_that_failed_before_the_first_look_is_told_when_it_fails_again(look: Callable[..., str]) -> None:
    assert [look(each) for each in ("agrees", "agrees", "agrees")] == ["", "agrees", ""]


def test_an_asset_that_is_not_fresh_is_told_once(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster._core.definitions.freshness import FreshnessState

    monkeypatch.setenv("ALERT_WEBHOOK_URL", receiver.url)
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=1))
    spec = dg.AssetSpec("source", freshness_policy=policy)
    state = FreshnessState.PASS

    class Record:
        freshness_state = state

    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr(
            type(instance), "get_freshness_state_records", lambda _self, keys: {key: Record() for key in keys}
        )
        cursor, told = None, []
        for now in (FreshnessState.PASS, FreshnessState.FAIL, FreshnessState.FAIL, FreshnessState.PASS):
            Record.freshness_state = now
            context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=dg.Definitions([spec]))
            sensors.alert_checks_and_freshness(context)
            cursor = context.cursor
            told.append(len(receiver.got))
    assert told == [0, 1, 1, 1]
    assert receiver.got[0]["subject"] == "source"


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (psycopg2.OperationalError("server closed the connection unexpectedly"), "LakeUnavailableError"),
        (psycopg2.InterfaceError("connection already closed"), "LakeUnavailableError"),
        (psycopg2.ProgrammingError("no such column"), "ProgrammingError"),
    ],
)
def test_a_lake_that_is_lost_in_mid_run_is_told_as_one_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, error: psycopg2.Error, found: str
) -> None:
    monkeypatch.setenv("LAKE_DSN", "postgresql://u@h/lake")
    monkeypatch.setattr(lake, "connect", lambda *_, **__: io.BytesIO())
    with pytest.raises(Exception, match=str(error)) as caught, LakeResource().connect("orchestration.checks"):
        raise error
    assert type(caught.value).__name__ == found
    assert ("service-down" in next_step([found], str(caught.value))) is (found == "LakeUnavailableError")
