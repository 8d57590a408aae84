"""The embedded line under a steady flow: start it, warm it up, let it flow, wait until the mart holds everything.

Belongs here: running. Not here: what is measured (ledgers.py, hops.py).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench._line.hops import follow, summarize
from bench._line.ledgers import Ledgers
from deploy.demo.line import DAGSTER_YAML, Line, Ports
from deploy.demo.state import State
from streaming.sources.shop import season

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What `dagster` does without a word in dagster.yaml beyond where it keeps its records.
DEFAULTS_YAML = """\
storage:
  postgres:
    postgres_url: {env: DAGSTER_POSTGRES_URL}
telemetry: {enabled: false}
"""
YAML = {"warm": DAGSTER_YAML, "default": DEFAULTS_YAML}
# As the emulator has it (None), and without what is ours: a run for each batch, a process for each run.
KEEP_UP_S = {"warm": None, "default": "0"}
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Flow:
    """What is let through the line."""

    rate: float
    warm_up_s: float
    seconds: float
    keep_up_s: float | None = None  # of the arm whose runs keep up; None: as it comes


def measure(launcher: str, flow: Flow, tell: Callable[[str], None] = lambda _text: None) -> dict[str, Any]:
    """One line from nothing to an empty state folder; what it took, hop by hop."""
    tell("starting the line")
    with running(launcher, keep_up_s=flow.keep_up_s) as (line, ledgers):
        cpu = CpuMeter(line)
        tell(f"{flow.rate:.0f} events/s for {flow.warm_up_s:.0f} + {flow.seconds:.0f} s")
        sent, since, until = _let_flow(line, flow)
        cores = cpu.cores()
        tell(f"{sent} events sent; waiting until the mart holds them")
        drained_s = wait_until_all_is_there(line, ledgers, sent)
        tell(f"caught up in {drained_s:.0f} s; reading the ledgers")
        events = ledgers.events(since, until)
        ways, missing = follow(events, ledgers.loads(), ledgers.publications(), ledgers.runs())
        expected, mart = ledgers.mart()
        return {
            "launcher": launcher,
            "rate_events_per_s": round(len(events) / (until - since), 1),
            "seconds": until - since,
            "missing": missing,
            **summarize(ways),
            "caught_up_s": round(drained_s, 1),
            "landed_rows": ledgers.landed(),
            "core_rows": ledgers.core(),
            "core_rows_less_repeats": expected,
            "mart_rows": mart,
            "is_whole": missing == 0 and mart == expected and ledgers.core() == ledgers.landed() == sent,
            "runs": ledgers.statuses(),
            "bigquery_jobs": ledgers.jobs(),
            "cores": cores,
            "loads": len(ledgers.loads()),
            "publications": len(ledgers.publications()),
            "load_average": [round(each, 2) for each in os.getloadavg()],
        }


class CpuMeter:
    """Which share of a core each process of the line has used, its children included, since this was made."""

    def __init__(self, line: Line) -> None:
        self._line, self._began, self._before = line, time.monotonic(), self._read(line)

    def cores(self) -> dict[str, float]:
        """Cores a process."""
        seconds = time.monotonic() - self._began
        now = self._read(self._line)
        return {name: round((used - self._before.get(name, 0.0)) / seconds, 2) for name, used in now.items()}

    @staticmethod
    def _read(line: Line) -> dict[str, float]:
        found = {}
        for process in line.processes():
            try:
                top = psutil.Process(process.pid)
                times = [each.cpu_times() for each in (top, *top.children(recursive=True))]
            except psutil.Error:
                continue
            found[process.name] = sum(each.user + each.system for each in times) + sum(
                each.children_user + each.children_system for each in times[:1]
            )
        return found


@contextmanager
def running(launcher: str, *, keep_up_s: float | None = None) -> Iterator[tuple[Line, Ledgers]]:
    root = Path(tempfile.mkdtemp(prefix="bench-line-"))
    root.chmod(0o755)  # root's PostgreSQL runs as another user, who must reach its folder
    os.environ.pop("KEEP_UP_S", None)
    span = KEEP_UP_S[launcher] or (None if keep_up_s is None else f"{keep_up_s:g}")
    if span is not None:
        os.environ["KEEP_UP_S"] = span
    line = Line(state=State(root), ports=Ports(), note=lambda _: None, dagster_yaml=YAML[launcher])
    ledgers: Ledgers | None = None
    try:
        line.start(lambda: None)
        while line.is_starting():
            time.sleep(0.2)
        ledgers = Ledgers(line.env)
        yield line, ledgers
    finally:
        if ledgers is not None:
            ledgers.close()
        line.stop()
        kept = os.environ.get("BENCH_LINE_KEEP")
        if kept:
            shutil.copytree(root / "logs", Path(kept) / launcher, dirs_exist_ok=True)
        shutil.rmtree(root, ignore_errors=True)


def _let_flow(line: Line, flow: Flow) -> tuple[int, float, float]:
    """Let the shop sell, whatever its hour and season; return what it sent, and the span measured."""
    asked = flow.rate / (0.5 + min(season(datetime.now(UTC)), 2.0) / 2)
    seconds = flow.warm_up_s + flow.seconds
    producer = line.spawn(
        "producer",
        ["-m", "streaming", "produce", "--shop", "--rate", f"{asked:.3f}", "--seconds", str(seconds), "--broken", "0",
         "--json"],
    )  # fmt: skip
    began = time.time()
    while producer.is_running():
        line.check()
        time.sleep(0.5)
    last = [each for each in producer.log.read_text(encoding="utf-8").splitlines() if each.startswith("{")][-1]
    first = began + flow.warm_up_s
    return int(json.loads(last)["sent"]), first, first + flow.seconds - 2.0


def wait_until_all_is_there(line: Line, ledgers: Ledgers, sent: int) -> float:
    """Until the mart holds what was sent, less repeats; as long as it moves."""
    began = moved = time.monotonic()
    before = -1
    while True:
        line.check()
        core, (expected, mart) = ledgers.core(), ledgers.mart()
        if core == sent and expected == mart:
            return time.monotonic() - began
        if core + mart != before:
            before, moved = core + mart, time.monotonic()
        elif time.monotonic() - moved > PATIENCE_S:
            print(f"the line stands still: sent {sent}, core {core}, mart {mart} of {expected}", file=sys.stderr)
            return time.monotonic() - began
        time.sleep(1.0)
