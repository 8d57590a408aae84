"""Runs that die with the code server are noticed: what the server answers decides, silence decides nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import dagster as dg
import grpc
import pytest
import yaml
from dagster._core.errors import DagsterLaunchFailedError, DagsterUserCodeUnreachableError
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionResult
from dagster._serdes import serialize_value

from deploy.docker.drain import take_no_more
from deploy.docker.probe import is_serving
from deploy.processes import free_port
from orchestration.launcher import REFUSES, CheckedRunLauncher


class Server:
    """A code server that answers as told."""

    def __init__(self, answer: bool | Exception) -> None:  # noqa: FBT001 - what it says
        self.answer = answer

    def can_cancel_execution(self, _: Any, timeout: int) -> str:
        assert timeout < 60  # run monitoring asks one run after the other
        if isinstance(self.answer, Exception):
            raise self.answer
        return serialize_value(CanCancelExecutionResult(can_cancel=self.answer))


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (True, WorkerStatus.RUNNING),
        (False, WorkerStatus.FAILED),
        (grpc.RpcError("starting"), WorkerStatus.RUNNING),
    ],
)
def test_the_code_server_s_answer_decides(
    monkeypatch: pytest.MonkeyPatch,
    answer: bool | Exception,  # noqa: FBT001
    status: WorkerStatus,
) -> None:
    launcher = CheckedRunLauncher()
    monkeypatch.setattr(launcher, "_get_grpc_client_for_termination", lambda _: Server(answer))
    assert launcher.supports_check_run_worker_health
    assert launcher.check_run_worker_health(dg.DagsterRun(job_name="load_days")).status is status


def test_a_run_without_a_server_is_not_called_well(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = CheckedRunLauncher()
    monkeypatch.setattr(launcher, "_get_grpc_client_for_termination", lambda _: None)
    assert launcher.check_run_worker_health(dg.DagsterRun(job_name="load_days")).status is WorkerStatus.UNKNOWN


def test_the_server_is_found_by_the_run_s_own_tag(tmp_path: Any) -> None:
    """What is private to Dagster and relied on: an instance with this launcher finds the server's address."""
    (tmp_path / "dagster.yaml").write_text(
        yaml.safe_dump({"run_launcher": {"module": "orchestration.launcher", "class": "CheckedRunLauncher"}})
    )
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path))) as instance:
        assert isinstance(instance.run_launcher, CheckedRunLauncher)
        run = instance.add_run(
            dg.DagsterRun(job_name="load_days", tags={GRPC_INFO_TAG: json.dumps({"host": "127.0.0.1", "port": 9})})
        )
        found = instance.run_launcher.check_run_worker_health(run)
    assert found.status is WorkerStatus.RUNNING
    assert "does not answer" in str(found.msg)


def test_a_run_that_the_server_refuses_since_it_is_replaced_stays_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue tries again what is unreachable; what has failed to launch is a failed run."""
    launcher = CheckedRunLauncher()

    def refuse(text: str) -> None:
        def launch_run(*_: Any) -> None:
            raise DagsterLaunchFailedError(text)

        monkeypatch.setattr(DefaultRunLauncher, "launch_run", launch_run)

    refuse(f"Tried to start a run on a server {REFUSES}")
    with pytest.raises(DagsterUserCodeUnreachableError, match="about to be replaced"):
        launcher.launch_run(None)  # type: ignore[arg-type]
    refuse("no such job")
    with pytest.raises(DagsterLaunchFailedError, match="no such job"):
        launcher.launch_run(None)  # type: ignore[arg-type]


def test_a_code_server_that_is_told_takes_no_more_runs_in_the_words_that_we_know(tmp_path: Any) -> None:
    (tmp_path / "nothing.py").write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
    port = free_port()
    command = [sys.executable, "-m", "dagster", "api", "grpc", "-f", "nothing.py", "-p", str(port)]
    server = subprocess.Popen(command, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not is_serving(port):
            assert time.monotonic() < deadline
            assert server.poll() is None
            time.sleep(0.1)
        assert take_no_more(port)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer = channel.unary_unary("/api.DagsterApi/StartRun")(b"", timeout=10)
        assert REFUSES.encode() in answer
        assert server.wait(60) == 0, "without runs it ends by itself"
        assert not take_no_more(port), "told, and not raised"
    finally:
        server.kill()
        server.wait()
