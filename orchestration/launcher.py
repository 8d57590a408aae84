"""The run launcher of one machine: Dagster's own, and it notices runs that died with the code server.

Dagster's default launcher starts a run as a child of the code server. A child that dies alone is noticed by the server;
when the server itself is killed, its runs stay "started" for ever, hold their places in the queue, and their days wait
(seen: two such runs stopped the line until `max_runtime_seconds`). This one answers run monitoring's question by asking
the server whether it has the run. Set in deploy/dagster.yaml only; on Kubernetes it is K8sRunLauncher instead.

Not here: starting and ending of runs (Dagster's), what happens to a failed run (run_retries, the sensors).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClass, deserialize_value

if TYPE_CHECKING:
    from dagster import DagsterRun

ASK_S = 10  # the server answers in milliseconds; while it starts it answers nobody


class CheckedRunLauncher(DefaultRunLauncher, ConfigurableClass):
    """Runs as children of the code server, their health asked of the server."""

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
