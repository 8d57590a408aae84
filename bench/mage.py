"""Mage's share: a chain of blocks in process against the same functions called directly, and Mage's own two ways."""

# ruff: noqa: TID251, S310  the bench runs what orchestration runs, and asks a server of its own
from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa
import pyarrow.parquet as pq

from bench._warehouse.rig import made_up_lines
from deploy.processes import free_port
from mage_project.transforms import lines as rules
from orchestration.mage import run_pipeline
from orchestration.mage_spec import MageProject, load_project

if TYPE_CHECKING:
    from collections.abc import Iterator

OVERHEAD_GOAL = 0.05
PIPELINE = "priced"
SERVER_READY_S = 120
RUN_S, RUN_S_A_MILLION_ROWS = 60, 240  # a run takes 2 s, and 17 s more a million rows
SERVER_TRIES = 4  # one in five of Mage's servers leaves a small run at "running" for ever
_BLOCKS = {
    "data_loaders/load": """
@data_loader
def load(*args, **kwargs):
    import pyarrow.parquet as pq
    return pq.read_table(kwargs['frame'])
""",
    "transformers/classify": """
@transformer
def classify(lines, *args, **kwargs):
    from mage_project.transforms import lines as rules
    return rules.classify_lines(lines)
""",
    "transformers/price": """
@transformer
def price(lines, *args, **kwargs):
    from mage_project.transforms import lines as rules
    return rules.price_lines(lines)
""",
    "data_exporters/keep": """
@data_exporter
def keep(lines, *args, **kwargs):
    import pyarrow.parquet as pq
    pq.write_table(lines, kwargs['result'])
    return {'rows': lines.num_rows}
""",
}


def direct(frame: Path, result: Path) -> None:
    """The same functions in the same order, without Mage."""
    pq.write_table(rules.price_lines(rules.classify_lines(pq.read_table(frame))), result)


def project(root: Path, frame: Path) -> MageProject:
    """A Mage project of four blocks; its variables name the file it reads and the one it writes."""
    order = [name.partition("/")[2] for name in _BLOCKS]
    kinds = ("data_loader", "transformer", "transformer", "data_exporter")
    listed = []
    for at, (name, code) in enumerate(_BLOCKS.items()):
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
        listed.append(
            {
                "uuid": order[at], "name": order[at], "type": kinds[at], "language": "python",
                "upstream_blocks": order[at - 1 : at] if at else [], "downstream_blocks": order[at + 1 : at + 2],
            }
        )  # fmt: skip
    pipeline = root / "pipelines" / PIPELINE / "metadata.yaml"
    pipeline.parent.mkdir(parents=True, exist_ok=True)
    variables = {"frame": str(frame), "result": str(root / "by_mage.parquet")}
    fields = {"uuid": PIPELINE, "name": PIPELINE, "type": "python", "blocks": listed, "variables": variables}
    pipeline.write_text(json.dumps({**fields, "run_pipeline_in_one_process": True}), encoding="utf-8")
    (root / "metadata.yaml").write_text("project_type: standalone\nhelp_improve_mage: false\n", encoding="utf-8")
    return load_project(root)


def timed(call: Any, repeats: int) -> list[float]:
    found = []
    for _ in range(repeats):
        gc.collect()
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return found


def by_execute_sync(root: Path, variables: dict[str, Any]) -> None:
    """Mage's own run in this process; never used for data that must be right (docs/decisions/0007)."""
    from mage_ai.data_preparation.models.pipeline import Pipeline  # noqa: PLC0415  it costs seconds

    with contextlib.redirect_stdout(io.StringIO()):
        Pipeline.get(PIPELINE, repo_path=str(root)).execute_sync(global_vars=variables, update_status=False)


class HungRunError(Exception):
    """Mage's scheduler calls the run alive, and nothing runs: its worker process is gone or stuck."""


class Server:
    """Mage's own server on the project, and runs started by its API."""

    def __init__(self, url: str, limit_s: float) -> None:
        self.url, self.limit_s = url, limit_s
        made = self._call(
            f"pipelines/{PIPELINE}/pipeline_schedules",
            {"pipeline_schedule": {"name": "bench", "schedule_type": "api", "status": "active"}},
        )["pipeline_schedule"]
        if made.get("status") != "active":
            self._call(f"pipeline_schedules/{made['id']}", {"pipeline_schedule": {"status": "active"}}, method="PUT")
        self.trigger = f"pipeline_schedules/{made['id']}/pipeline_runs/{made['token']}"

    def run(self) -> None:
        started = self._call(self.trigger, {"pipeline_run": {"variables": {}}})["pipeline_run"]["id"]
        deadline = time.monotonic() + self.limit_s
        while time.monotonic() < deadline:
            status = self._call(f"pipeline_runs/{started}")["pipeline_run"]["status"]
            if status == "completed":
                return
            if status in {"failed", "cancelled"}:
                raise SystemExit(f"Mage's server: the run is {status}")
            time.sleep(0.05)
        raise HungRunError(f"Mage's server: no end of the run after {self.limit_s:.0f} s")

    def _call(self, path: str, body: Any = None, method: str | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextlib.contextmanager
def server(root: Path, folder: Path, limit_s: float) -> Iterator[Server]:
    port = free_port()
    env = {
        **os.environ,
        "MAGE_DATA_DIR": str(folder / "server"), "RUN_PIPELINE_IN_ONE_PROCESS": "1", "REQUIRE_USER_AUTHENTICATION": "0",
        "SCHEDULER_TRIGGER_INTERVAL": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "HOME": str(folder), "ENV": "prod",
    }  # fmt: skip
    command = [
        str(Path(sys.executable).parent / "mage"),
        "start",
        str(root),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + SERVER_READY_S
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/api/status", timeout=5).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"Mage's server did not start:\n{(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.5)
        yield Server(url, limit_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)


def measure(rows: int, repeats: int, *, with_server: bool) -> dict[str, Any]:
    """One size: the median seconds of each way; all ways must have written the same frame."""
    with tempfile.TemporaryDirectory(prefix="bench-mage-") as name:
        folder = Path(name)
        os.environ["MAGE_DATA_DIR"] = str(folder / "data")
        frame, expected = folder / "frame.parquet", folder / "direct.parquet"
        pq.write_table(made_up_lines(rows), frame)
        root = folder / "project"
        spec = project(root, frame)
        result = root / "by_mage.parquet"
        blocks, plain = [], []
        for _ in range(repeats):  # in turns: whatever else the machine does hits both
            plain += timed(lambda: direct(frame, expected), 1)
            blocks += timed(lambda: run_pipeline(spec, spec.pipeline(PIPELINE), {}), 1)
        ways = {"direct": statistics.median(plain), "blocks in process": statistics.median(blocks)}
        _same(expected, result, "blocks in process")
        variables = dict(spec.pipeline(PIPELINE).variables)
        by_execute_sync(root, variables)
        ways["execute_sync"] = statistics.median(timed(lambda: by_execute_sync(root, variables), max(1, repeats // 2)))
        _same(expected, result, "execute_sync")
        hung = 0
        if with_server:
            ways["API trigger"], hung = by_server(
                root, folder, result, max(1, repeats // 2), limit_s=RUN_S + RUN_S_A_MILLION_ROWS * rows / 1e6
            )
            _same(expected, result, "API trigger")
        overhead = statistics.median(b - p for b, p in zip(blocks, plain, strict=True)) / ways["direct"]
        return {
            "rows": rows, "overhead": round(overhead, 4), "seconds": {k: round(v, 4) for k, v in ways.items()},
            "hung_runs_of_mage": hung,
        }  # fmt: skip


def by_server(root: Path, folder: Path, result: Path, repeats: int, *, limit_s: float) -> tuple[float, int]:
    """Median seconds of a run by the server's API, and how many runs never ended: each time a new server is asked."""
    for hung in range(SERVER_TRIES):
        try:
            with server(root, folder, limit_s) as running:
                running.run()
                result.unlink()
                return statistics.median(timed(running.run, repeats)), hung
        except HungRunError as error:
            print(f"{error}; a new server is asked", file=sys.stderr, flush=True)
            shutil.rmtree(folder / "server", ignore_errors=True)
    raise SystemExit(f"Mage's server left a run without an end {SERVER_TRIES} times in a row")


def _same(expected: Path, result: Path, way: str) -> None:
    wanted, found = pq.read_table(expected), pq.read_table(result)
    if not (wanted.schema.equals(found.schema, check_metadata=False) and wanted.equals(found)):
        raise SystemExit(f"{way}: another frame than by the functions alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,100000,1000000")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-server", action="store_true", help="leave out Mage's server (20 s to start, each size)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    pa.set_cpu_count(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("mage_ai.data_preparation.models.pipeline")
        sizes = [int(size) for size in options.sizes.split(",")]
        found = [measure(size, options.repeats, with_server=not options.no_server) for size in sizes]
    ways = list(found[0]["seconds"])
    print("| rows | " + " | ".join(f"{way}, s" for way in ways) + " | overhead of blocks |")
    print("|---" * (len(ways) + 2) + "|")
    for each in found:
        seconds = " | ".join(f"{each['seconds'][way]:.4f}" for way in ways)
        print(f"| {each['rows']:,} | {seconds} | {each['overhead']:.1%} |")
    print(f"\nGoal: below {OVERHEAD_GOAL:.0%} at 1,000,000 rows. Every way has written the same frame, types included.")
    if options.json:
        result = {"overhead": {str(each["rows"]): each["overhead"] for each in found}, "sizes": found}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
