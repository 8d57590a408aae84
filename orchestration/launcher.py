"""The run launchers of one machine; set in dagster.yaml only, on Kubernetes it is K8sRunLauncher instead.

CheckedRunLauncher is Dagster's own, and it notices runs that died with the code server: a child that dies alone is
noticed by the server; when the server itself is killed, its runs stay "started" for ever, hold their places in the
queue, and their days wait (seen: two such runs stopped the line until `max_runtime_seconds`).

WarmRunLauncher asks the warm pool (pool.py) to fork the run instead of starting a process that imports for 4 s. It is
the other one wherever the pool cannot serve: no pool yet, a pool with other libraries or settings than the code
server's, a code server on another machine or in another container, no Linux. It starts the pool when it misses it.

Not here: what happens to a failed run (run_retries, the sensors). Why: docs/decisions/0010-warm-launcher.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import Field
from dagster._core.errors import DagsterLaunchFailedError, DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._serdes import ConfigurableClass, deserialize_value

from orchestration.warm import Server, ask, find_server, fingerprint, process_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from dagster import DagsterRun
    from dagster._config import UserConfigSchema
    from dagster._serdes import ConfigurableClassData

ASK_S = 10  # the server answers in milliseconds; while it starts it answers nobody
# A pool that does not come up (a broken library) would be started with every run; each try costs 5 s of a core.
RESTART_AFTER_S = 30.0
REFUSES = "after telling it to shut down"  # what a code server that was told so answers to a run
LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}  # noqa: S104 - compared, not bound


class CheckedRunLauncher(DefaultRunLauncher, ConfigurableClass):
    """Runs as children of the code server, their health asked of the server."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run; a code server that is about to be replaced leaves it in the queue.

        Raises:
            DagsterUserCodeUnreachableError: it takes no more runs. The queue tries again, as for one that is away.
        """
        try:
            super().launch_run(context)
        except DagsterLaunchFailedError as error:
            if REFUSES in str(error):
                raise DagsterUserCodeUnreachableError(f"the code server is about to be replaced: {error}") from error
            raise

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Asked by run monitoring."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the code server has this run.

        A server that does not answer proves nothing: it may be busy, or be starting again, and says so soon. A run
        that a server has never heard of is dead.
        """
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, "the run does not say which code server it was given to")
        try:
            is_there = _has_run(client, run.run_id)
        except Exception as error:  # noqa: BLE001 whatever the transport says, it is no answer
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"the code server does not answer: {error}")
        if is_there:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "the code server was started anew and does not have this run")


def _has_run(client: Any, run_id: str) -> bool:
    from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult

    answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run_id), timeout=ASK_S)
    return bool(deserialize_value(answer, CanCancelExecutionResult).can_cancel)


class WarmRunLauncher(CheckedRunLauncher):
    """Runs as forks of the warm pool, or as children of the code server where there is none.

    Args:
        socket: where the pool listens; default `pool.sock` in Dagster's home.
        start_pool: start it when it is missing. False where something else does (a service of its own).
        max_children: how many runs the pool forks at a time; more wait in it. The queue's limit comes first.
        preload: modules that the pool imports; default those of pool.py.
        inst_data: how Dagster writes this launcher down.
    """

    def __init__(
        self,
        *,
        socket: str | None = None,
        start_pool: bool = True,
        max_children: int | None = None,
        preload: Sequence[str] | None = None,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        self._socket, self._starts_pool = socket, start_pool
        self._options = [] if max_children is None else ["--max-children", str(max_children)]
        self._options += [] if preload is None else ["--preload", ",".join(preload)]
        self._starting = threading.Lock()
        self._pool: subprocess.Popen[bytes] | None = None
        self._started_at = float("-inf")
        super().__init__(inst_data=inst_data)

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Options in dagster.yaml."""
        return {
            "socket": Field(str, is_required=False),
            "start_pool": Field(bool, is_required=False),
            "max_children": Field(int, is_required=False),
            "preload": Field([str], is_required=False),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """As Dagster makes it."""
        return cls(**config_value, inst_data=inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Fork the run in the pool, else start it as the default launcher does and say why."""
        why = self._launch_warm(context) if sys.platform == "linux" else "the pool needs Linux"
        if why is not None:
            self._instance.report_engine_event(
                f"Started without the warm pool: {why}.", context.dagster_run, cls=self.__class__
            )
            super().launch_run(context)

    def _launch_warm(self, context: LaunchRunContext) -> str | None:
        """None if the pool has taken the run, else why it has not."""
        from dagster._grpc.types import ExecuteRunArgs
        from dagster._serdes import serialize_value

        origin = context.job_code_origin
        if origin is None:
            return "the run does not say where its code is"
        if origin.executable_path and Path(origin.executable_path).resolve() != Path(sys.executable).resolve():
            return f"its code belongs to another Python, {origin.executable_path}"
        server = _server_of(context)
        if server is None:
            return "its code server is not on this machine, or not this user's"
        arguments = ExecuteRunArgs(
            job_origin=origin,
            run_id=context.dagster_run.run_id,
            instance_ref=self._instance.get_ref(),
            set_exit_code_on_failure=True,
        )
        order = {
            "op": "run",
            "run_id": context.dagster_run.run_id,
            "arguments": arguments.get_command_args()[-1],
            "instance_ref": serialize_value(self._instance.get_ref()),
            "directory": server.directory,
            "fingerprint": fingerprint(server.env),
        }
        reply = ask(self.socket, order)
        if reply is not None and ("process" in reply or "held" in reply):
            return None
        # An answer that came too late, or never: what the pool takes from here on, it takes only while somebody waits.
        if reply is None and (ask(self.socket, {"op": "has", "run_id": context.dagster_run.run_id}) or {}).get("has"):
            return None
        if reply is not None and reply.get("is_stale"):
            ask(self.socket, {"op": "retire"})
        self._start(server)
        return str(reply.get("refused", "it gave no answer that was understood")) if reply else "it does not answer yet"

    @property
    def socket(self) -> Path:
        """Where the pool listens."""
        return Path(self._socket) if self._socket else Path(self._instance.root_directory) / "pool.sock"

    def _start(self, server: Server) -> None:
        """Start a pool with the code server's own environment; it goes when this process goes or it is replaced.

        Its standard input is a pipe that this process keeps and nobody writes to: the kernel closes it whatever happens
        here. Its output is this process's.
        """
        with self._starting:
            if not self._starts_pool or time.monotonic() < self._started_at + RESTART_AFTER_S:
                return
            self._started_at = time.monotonic()
            self._let_go()
            command = [sys.executable, "-m", "orchestration.pool", "--socket", str(self.socket), "--lifeline"]
            self._pool = subprocess.Popen(
                [*command, *self._options],
                stdin=subprocess.PIPE,
                env=dict(server.env),
                cwd=_project_folder(),
                start_new_session=True,
            )

    def _let_go(self) -> None:
        """The pool that this process started retires, and is reaped whenever its last run has ended."""
        pool, self._pool = self._pool, None
        if pool is not None and pool.stdin is not None:
            pool.stdin.close()
            threading.Thread(target=pool.wait, name="pool", daemon=True).start()

    def dispose(self) -> None:
        """Dagster closes its instance."""
        self._let_go()
        super().dispose()

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run's process, and no other one that has its pid by now."""
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is None or run.is_finished:
            return False
        process = process_of(run.run_id, run.tags)
        if process is None:
            if sys.platform == "linux" and (ask(self.socket, {"op": "drop", "run_id": run_id}) or {}).get("dropped"):
                self._instance.report_run_canceled(run, "Canceled while it waited in the pool for a place.")
                return True
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        if process.is_visible and process.terminate():
            return True
        if process.is_visible and not process.is_alive():  # nobody else would say so before the time-out, minutes later
            found = self._instance.get_run_by_id(run_id)
            if found is not None and not found.is_finished:
                self._instance.report_run_canceled(found, f"Canceled; its process {process.pid} was gone already.")
            return True
        self._instance.report_engine_event(
            f"The run's process {process.pid} is in another container, or not ours to end.", run, cls=self.__class__
        )
        return False

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is alive; by pid and birth, so a pid that was used again does not count."""
        process = process_of(run.run_id, run.tags)
        if process is None:
            asked = sys.platform == "linux" and (ask(self.socket, {"op": "has", "run_id": run.run_id}) or {}).get("has")
            return CheckRunHealthResult(WorkerStatus.RUNNING) if asked else super().check_run_worker_health(run)
        if not process.is_visible:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "its process is in another container")
        if process.is_alive():
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(process.pid))
        return CheckRunHealthResult(
            WorkerStatus.FAILED, f"its process {process.pid} is gone", run_worker_id=str(process.pid)
        )


def _server_of(context: LaunchRunContext) -> Server | None:
    """The code server that the run's code location is served by, if it is this machine's."""
    origin = context.dagster_run.remote_job_origin
    if context.workspace is None or origin is None:
        return None
    location = context.workspace.get_code_location(origin.repository_origin.code_location_origin.location_name)
    client = getattr(location, "client", None)
    if client is None or (client.host or "localhost") not in LOCAL_HOSTS:
        return None
    return find_server(port=client.port, path=client.socket)


def _project_folder() -> str:
    """Where `orchestration` is importable from, whatever the code server's folder is."""
    return os.fspath(Path(__file__).resolve().parents[1])
