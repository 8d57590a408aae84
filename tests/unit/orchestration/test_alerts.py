"""Alerts carry reason and next step, no secret, and never fail anything; told to a real HTTP server."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest

from deploy.processes import free_port
from orchestration import alerts
from orchestration.alerts import Alert, next_step, redact, tell
from orchestration.defs import alerts as sensors
from orchestration.errors import ReconcileError


class Receiver:
    """A webhook that answers as told, and keeps what it got."""

    def __init__(self, *answers: int) -> None:
        self.answers, self.got = list(answers), list[dict[str, Any]]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                outer.got.append(json.loads(self.rfile.read(length)))
                self.send_response(outer.answers.pop(0) if outer.answers else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/secret-path"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def alert(reason: str = "core and landed differ") -> Alert:
    return Alert(
        kind="run_failed", subject="load_days", reason=reason, next_step="Rebuild the day.", run_id="r1",
        days=["2010-12-01"],
    )  # fmt: skip


def test_an_alert_is_logged_and_sent_with_reason_and_next_step(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="orchestration.alerts"):
        assert tell(alert(), receiver.url)
    [got] = receiver.got
    assert (got["reason"], got["next_step"], got["run_id"]) == ("core and landed differ", "Rebuild the day.", "r1")
    assert got["text"].startswith("run failed: load_days (2010-12-01)\n")
    assert json.loads(caplog.messages[0])["event"] == "alert"


def test_a_webhook_that_is_down_is_tried_three_times_and_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    pauses: list[float] = []
    assert not tell(alert(), f"http://127.0.0.1:{free_port()}/hook/secret-path", sleep=pauses.append)
    assert pauses == [0.5, 2.0]
    assert "alert not delivered" in caplog.text
    assert "secret-path" not in caplog.text


@pytest.mark.parametrize(
    ("answers", "sent", "tries"), [([503, 429], True, 3), ([500, 500, 500], False, 3), ([404], False, 1)]
)
def test_only_what_another_try_can_help_is_tried_again(
    receiver: Receiver,
    answers: list[int],
    sent: bool,  # noqa: FBT001
    tries: int,
) -> None:
    receiver.answers = answers
    assert tell(alert(), receiver.url, sleep=lambda _: None) is sent
    assert len(receiver.got) == tries


@pytest.mark.parametrize("webhook", ["ftp://somewhere/x", "not an address", "http://[broken"])
def test_a_webhook_that_is_no_address_fails_nothing(webhook: str) -> None:
    assert not tell(alert(), webhook, sleep=lambda _: None)


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
    assert tell(alert(text), receiver.url)
    assert secret not in json.dumps(receiver.got)
    assert secret not in redact(text)


def test_a_long_reason_is_cut() -> None:
    assert len(redact("x" * 100_000)) == alerts.MAX_REASON


def test_the_next_step_follows_from_the_first_error_that_is_known() -> None:
    assert "does-not-reconcile" in next_step(["DagsterExecutionStepExecutionError", "ReconcileError", "ValueError"], "")
    assert "lake restored" in next_step(["DagsterExecutionStepExecutionError", "MageRunError", "RestoredError"], "")
    assert "Mend the block" in next_step(["MageRunError", "KeyError"], "")
    assert next_step(["KeyError"], "x") == alerts.OTHERWISE
    gone = "The run's process was killed by signal 9 before the run had ended."
    assert next_step([], gone) == alerts.CRASHED


@dg.op
def fail() -> None:
    try:
        int("postgresql")
    except ValueError as error:
        raise ReconcileError("landed 3, core 2, asked of postgresql://reader:hunter2@db/lake") from error


@dg.job(executor_def=dg.in_process_executor)
def failing() -> None:
    fail()


def test_a_failed_run_is_told_with_its_days_and_our_error_s_own_words(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERT_WEBHOOK_URL", receiver.url)
    with dg.DagsterInstance.ephemeral() as instance:
        result = failing.execute_in_process(
            instance=instance, raise_on_error=False, tags={"dagster/partition": "2010-12-01"}
        )
        context = dg.build_run_status_sensor_context(
            sensor_name="alert_failed_runs",
            dagster_event=result.get_run_failure_event(),
            dagster_instance=instance,
            dagster_run=result.dagster_run,
        ).for_run_failure()
        sensors.alert_failed_runs(context)
    [got] = receiver.got
    assert (got["kind"], got["subject"], got["days"]) == ("run_failed", "failing", ["2010-12-01"])
    assert "postgresql://reader:***@db" in got["reason"]
    assert got["next_step"] == alerts.NEXT_STEPS["ReconcileError"]


@dg.asset(check_specs=[dg.AssetCheckSpec("agrees", asset="thing"), dg.AssetCheckSpec("is_close", asset="thing")])
def thing(context: dg.AssetExecutionContext) -> Iterator[Any]:
    yield dg.MaterializeResult()
    for name, severity in (("agrees", dg.AssetCheckSeverity.ERROR), ("is_close", dg.AssetCheckSeverity.WARN)):
        passed = name not in context.run.tags.get("failing", "")
        yield dg.AssetCheckResult(check_name=name, passed=passed, severity=severity, metadata={"rows": 7})


@pytest.fixture(params=["in memory", "sqlite"])
def instance(request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    """Dagster's two storages of its own; the second, with a file a run, is that of a plain `dagster dev`."""
    is_ephemeral = request.param == "in memory"
    with dg.DagsterInstance.ephemeral() if is_ephemeral else dg.instance_for_test() as made:
        yield made


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


def test_the_first_check_that_fails_on_a_new_instance_is_told(look: Callable[..., str]) -> None:
    assert [look(each) for each in (None, "agrees", "agrees")] == ["", "agrees", ""]


def test_a_check_that_failed_before_the_first_look_is_told_when_it_fails_again(look: Callable[..., str]) -> None:
    assert [look(each) for each in ("agrees", "agrees", "agrees")] == ["", "agrees", ""]


def test_an_asset_that_is_not_fresh_is_told_once(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

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
