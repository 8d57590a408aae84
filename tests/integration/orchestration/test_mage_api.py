"""The same pipeline by the API trigger of Mage's own server and by Dagster's chain: equal frames after every block."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploy.processes import free_port, start, wait_ready
from orchestration.defs.topics import project
from orchestration.mage import run_pipeline
from orchestration.mage_spec import load_project
from tests.integration.orchestration.landing import HandLanding, odd_events
from tests.integration.orchestration.test_load_days import core_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.processes import Process

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning:mage_ai")]

PIPELINE = "retail_invoices"
DAY = "2010-12-01"
START_S, RUN_S = 150, 150  # a busy machine; a quiet one needs a tenth


class Server:
    """Mage's own server on a copy of the project."""

    def __init__(self, process: Process, url: str) -> None:
        self.process, self.url = process, url

    def call(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """One request of the API that Mage's page itself uses."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def trigger(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Run the pipeline through an API trigger of its own, and wait for the run's end."""
        schedule = {"name": "by_api", "schedule_type": "api", "status": "active"}
        made = self._made(f"pipelines/{PIPELINE}/pipeline_schedules", {"pipeline_schedule": schedule})
        activate = {"pipeline_schedule": {"status": "active"}}
        self.call(f"pipeline_schedules/{made['id']}", activate, method="PUT")  # what is made is inactive at first
        where = f"pipeline_schedules/{made['id']}/pipeline_runs/{made['token']}"
        run = self.call(where, {"pipeline_run": {"variables": variables}})["pipeline_run"]
        deadline = time.monotonic() + RUN_S
        while run["status"] in {"initial", "running"}:
            assert time.monotonic() < deadline, f"the run is still {run['status']}:\n{self._tail()}"
            time.sleep(0.1)
            run = self.call(f"pipeline_runs/{run['id']}")["pipeline_run"]
        assert run["status"] == "completed", self._tail()
        return dict(run)

    def _made(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What was made; asked again, since Mage answers now and then with an error while it starts."""
        [name] = body
        deadline = time.monotonic() + START_S
        while name not in (found := self.call(path, body)):
            assert time.monotonic() < deadline, f"{found}:\n{self._tail()}"
            time.sleep(0.5)
        return dict(found[name])

    def _tail(self) -> str:
        return self.process.log.read_text(encoding="utf-8", errors="replace")[-3000:]


@pytest.fixture
def mage_root(tmp_path: Path) -> Path:
    """A copy: Mage writes each block's status into the pipeline's file."""
    copy = tmp_path / "mage_project"
    shutil.copytree(project().root, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def server(mage_root: Path, line_env: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    mage, port = Path(sys.executable).parent / "mage", free_port()
    process = start(
        "mage",
        [mage, "start", mage_root, "--host", "127.0.0.1", "--port", str(port)],
        log=tmp_path / "mage.log",
        env={
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(project().root.parent), "ENV": "prod",
            "REQUIRE_USER_AUTHENTICATION": "0", "SCHEDULER_TRIGGER_INTERVAL": "1", **line_env,
        },
    )  # fmt: skip
    found = Server(process, f"http://127.0.0.1:{port}")

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return "pipeline" in found.call(f"pipelines/{PIPELINE}")  # it answers before its own database is made
        return False

    try:
        wait_ready(process, answers, timeout_s=START_S)
        yield found
    finally:
        process.stop()


def test_mages_api_trigger_and_our_chain_give_equal_frames_after_each_block(
    landing: HandLanding, server: Server, mage_root: Path, warehouse: Any
) -> None:
    landing.land(odd_events())
    theirs = server.trigger({"day": DAY})
    written = core_rows(warehouse)
    assert len(written) == 4

    ours: dict[str, Any] = {}
    spec = load_project(mage_root)
    run = run_pipeline(spec, spec.pipeline(PIPELINE), {"day": DAY, "mode": "rebuild"}, keep=ours.__setitem__)
    assert run.failed is None
    frames = [block.uuid for block in spec.pipeline(PIPELINE).blocks if block.type != "data_exporter"]
    assert len(frames) == 4
    for block in frames:
        kept = stored(mage_root, block, theirs)
        assert kept.schema.equals(ours[block].schema, check_metadata=False), block
        assert kept.equals(ours[block]), block
    assert core_rows(warehouse) == written


def stored(root: Path, block: str, run: dict[str, Any]) -> Any:
    """A block's frame in Mage's own store, read by Mage itself."""
    from mage_ai.data_preparation.models.pipeline import Pipeline

    pipeline = Pipeline.get(PIPELINE, repo_path=str(root))
    at = datetime.fromisoformat(run["execution_date"]).strftime("%Y%m%dT%H%M%S_%f")
    partition = f"{run['pipeline_schedule_id']}/{at}"  # Mage's PipelineRun.execution_partition
    (output,) = pipeline.get_block(block).output_variables(execution_partition=partition) or ["output_0"]
    return pipeline.variable_manager.get_variable(PIPELINE, block, output, partition=partition)
