"""A code server, an instance of Dagster with the warm launcher, and runs of small jobs, without a daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from deploy.processes import free_port, is_listening
from orchestration.warm import Identity, ask, process_of

ROOT = Path(__file__).resolve().parents[3]
LOCATION = "small"
PATIENCE_S = 90.0
JOBS = """
import os, signal, sys, time
from pathlib import Path
import dagster as dg

WORD = "first"

@dg.op(config_schema={"out": str, "seconds": dg.Field(float, default_value=0.0)})
def tell(context):
    with open(context.op_config["out"] + ".times", "a") as times:
        times.write(str(os.getpid()) + "\\n")
    time.sleep(context.op_config["seconds"])
    print("said on stdout")
    print("said on stderr", file=sys.stderr)
    seen = [WORD, os.environ.get("SERVER_ONLY", ""), str(os.getppid()), str(Path.cwd())]
    Path(context.op_config["out"]).write_text("\\n".join(seen))

@dg.op(config_schema={"seconds": float})
def sleep(context):
    time.sleep(context.op_config["seconds"])

@dg.op(config_schema={"how": str})
def end(context):
    how = context.op_config["how"]
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "system_exit":
        raise SystemExit(0)
    raise RuntimeError("raised on purpose")

@dg.job(executor_def=dg.in_process_executor)
def telling(): tell()

@dg.job(executor_def=dg.in_process_executor)
def sleeping(): sleep()

@dg.job(executor_def=dg.in_process_executor)
def ending(): end()

defs = dg.Definitions(jobs=[telling, sleeping, ending])
"""


@dataclass
class Rig:
    """Everything under one folder; `close` ends all of it."""

    folder: Path
    options: dict[str, Any] = field(default_factory=dict)
    instance: dg.DagsterInstance = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)
    _workspace: Any = None
    _definitions: Any = None
    _server: subprocess.Popen[bytes] | None = None
    _port: int = 0

    def open(self) -> None:
        home = self.folder / "home"
        home.mkdir()
        self.write_jobs(JOBS)
        names: dict[str, Any] = {}
        exec(JOBS, names)  # noqa: S102 - the jobs of this file
        self._definitions = names["defs"]
        launcher = {
            "module": "orchestration.launcher",
            "class": "WarmRunLauncher",
            "config": {"preload": ["dagster", "dagster._cli.api"], **self.options},
        }
        (home / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": launcher, "telemetry": {"enabled": False}}))
        self.start_server()
        self.instance = self._stack.enter_context(dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home))))
        self.connect()

    def write_jobs(self, text: str) -> None:
        (self.folder / "small_jobs.py").write_text(text)

    def start_server(self, **env: str) -> None:
        self._port = self._port or free_port()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "dagster", "api", "grpc", "-m", "small_jobs", "--host", "127.0.0.1",
             "--port", str(self._port), "--location-name", LOCATION],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SERVER_ONLY": "of the server", **env},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until(lambda: is_listening(self._port), "the code server listens")

    def stop_server(self) -> None:
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def connect(self) -> None:
        target = GrpcServerTarget(host="127.0.0.1", port=self._port, socket=None, location_name=LOCATION)
        context = self._stack.enter_context(WorkspaceProcessContext(self.instance, target))
        self._workspace = context.create_request_context()

    @property
    def socket(self) -> Path:
        return self.folder / "home" / "pool.sock"

    def pool(self) -> int:
        """The pid of the pool that serves; waits for one."""
        until(lambda: (ask(self.socket, {"op": "state"}) or {}).get("pid"), "a pool answers")
        return int((ask(self.socket, {"op": "state"}) or {})["pid"])

    def warm_up(self) -> int:
        """One run that finds no pool and starts one."""
        self.wait(self.launch("sleeping", seconds=0.0))
        return self.pool()

    def launch(self, job: str, **config: Any) -> str:
        location = self._workspace.get_code_location(LOCATION)
        remote = next(iter(location.get_repositories().values())).get_full_job(job)
        op = {"telling": "tell", "sleeping": "sleep", "ending": "end"}[job]
        run = self.instance.create_run_for_job(
            job_def=self._definitions.get_job_def(job),
            run_config={"ops": {op: {"config": config}}},
            remote_job_origin=remote.get_remote_origin(),
            job_code_origin=remote.get_python_origin(),
        )
        self.instance.launch_run(run.run_id, self._workspace)
        return run.run_id

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def process(self, run_id: str) -> Identity:
        """The run's own process, once it has said which it is."""
        until(lambda: process_of(run_id, self.run(run_id).tags), "the run names its process")
        found = process_of(run_id, self.run(run_id).tags)
        assert found is not None
        return found

    def wait(self, run_id: str, patience_s: float = PATIENCE_S) -> dg.DagsterRunStatus:
        until(lambda: self.run(run_id).is_finished, f"run {run_id} ends", patience_s)
        return self.run(run_id).status

    def started(self, run_id: str) -> None:
        until(lambda: self.run(run_id).status is dg.DagsterRunStatus.STARTED, "the run has started")

    def messages(self, run_id: str) -> str:
        return "\n".join(each.user_message or each.message for each in self.instance.all_logs(run_id))

    def close(self) -> None:
        state = ask(self.socket, {"op": "state"})
        self._stack.close()
        self.stop_server()
        if state:
            _kill(state["pid"])


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    until(lambda: has_ended(pid), "the pool ends")


def has_ended(pid: int) -> bool:
    """Whether there is no such process, or one that only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(condition: Any, what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for it; say what did not come."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, f"not within {patience_s:.0f} s: {what}"
        time.sleep(0.05)
