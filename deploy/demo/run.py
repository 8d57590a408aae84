"""The course of a demo: start the line, feed it, wait until every layer agrees, say so, then let live events trickle.

What is started (line.py), what is read (layers.py) and how it looks (show.py) stand beside it.
"""

from __future__ import annotations

import itertools
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.live import Live
from rich.markup import escape

from deploy.demo import show
from deploy.demo.fed import complaints, files_line, log_end, read_fed
from deploy.demo.layers import CHAIN, Watch, open_readers, read_whole, reconcile
from deploy.demo.line import POOL, Line, Ports
from deploy.demo.state import State, write_json
from deploy.errors import DeployError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rich.console import Console

    from deploy.demo.fed import Fed
    from deploy.demo.layers import Difference, Layer, Layers
    from deploy.processes import Process

TICK_S = 0.25
PLAIN_EVERY_S = 5.0
RUNS_PATIENCE = 5  # runs that fail and are tried again write logs for ever: their noise counts as life only so long
HISTORY_DAYS = 30
LOGS = {
    "produced": "producer",
    "landed": "landing consumer",
    "core": "Dagster daemon",
    "mart": "Dagster daemon",
    "report": "Power BI stand-in",
}


@dataclass(frozen=True)
class Wishes:
    """What the user asked for."""

    data: Path | None
    is_exit: bool
    ports: Ports
    rate: float
    patience_s: float


class StalledError(DeployError):
    """The line stands still before every layer agrees."""


def run_demo(state: State, wishes: Wishes, *, console: Console) -> int:
    """Run a demo to its end; return the exit code."""
    began = time.monotonic()
    _die_kindly()
    state.claim(console.print)
    line = Line(state=state, ports=wishes.ports, note=console.print)
    watch: Watch | None = None
    try:
        console.print(f"Starting the line; state is under {state.root}, logs in {state.logs}")
        log_began = log_end(line.log_of("producer"))
        fed_at = _start(line, wishes, console)
        watch = Watch(_readers(line))
        watch.start()
        write_json(state.running, {"urls": line.urls, "env_file": str(state.env_file)})
        fed = _see_through(line, watch, wishes, console, fed_at=fed_at, log_began=log_began)
        code = _sum_up(line, watch, state, console, began=began, fed=fed)
        if not wishes.is_exit:
            _trickle(line, watch, wishes, console)
            code = 0
    except KeyboardInterrupt:
        console.print("\nStopping")
        code = 130 if wishes.is_exit else 0
    except (DeployError, OSError) as error:  # the latter: a full disk, say
        console.print(f"\n[bold red]error:[/] {escape(str(error))}", markup=True, highlight=False, soft_wrap=True)
        code = 1
    finally:
        with _undisturbed(console):
            if watch is not None:
                watch.stop()
            line.stop()
            state.release()
    console.print("Everything is stopped; `make demo` goes on from here, `make demo-clean` removes the state.")
    return code


def _readers(line: Line) -> dict[str, Callable[[], Callable[..., Layer]]]:
    return open_readers(line.env)


def _start(line: Line, wishes: Wishes, console: Console) -> float:
    """Bring the line up and start the producer as soon as there is a topic; return when that was."""
    fed_at = 0.0

    def feed() -> None:
        nonlocal fed_at
        fed_at = time.monotonic()
        line.feed(_source(line.state, wishes))

    line.start(feed)
    with console.status("Starting") as status:
        while line.is_starting():
            status.update(f"Starting; up: {', '.join(line.seconds) or 'nothing yet'}".replace("start_", ""))
            time.sleep(TICK_S)
    return fed_at


def _see_through(line: Line, watch: Watch, wishes: Wishes, console: Console, *, fed_at: float, log_began: int) -> Fed:
    """Wait until the producer has ended and what it produced has come through the whole line; return what it told."""
    producer = line.producer
    if producer is None:
        raise StalledError("the producer was never started. See the log of the landing consumer.")
    ended: dict[str, float] = {}
    is_told = False
    with _screen(watch, console, "Producing") as update:
        while True:
            line.check()
            if "produced" not in ended and not producer.is_running():
                fed = _require_fed(producer, log_began)
                ended["produced"] = line.fed_at or time.monotonic()
                watch.refresh("produced")
            if "produced" in ended:
                _note_arrivals(watch, ended)
                if len(ended) == len(CHAIN):
                    break
                _require_progress(line, watch, ended, wishes)
                if not is_told and _idle_s(watch, ended) > wishes.patience_s:
                    is_told = True
                    console.print(
                        f"[yellow]Nothing has arrived anywhere for {wishes.patience_s:.0f} s[/], though Dagster is at "
                        f"work: a long run, or runs and sensors that fail and are tried again. Look: "
                        f"{line.urls['Dagster']}/runs, {line.log_of('Dagster daemon')}", soft_wrap=True, highlight=False
                    )  # fmt: skip
            update("Producing" if "produced" not in ended else "Produced; waiting until every layer has it")
            time.sleep(TICK_S)
    line.seconds["produce"] = ended["produced"] - fed_at
    for before, name in itertools.pairwise(CHAIN):
        line.seconds[f"{before}_to_{name}"] = max(0.0, ended[name] - ended[before])
    line.seconds["produced_to_report"] = ended["report"] - ended["produced"]
    return fed


def _source(state: State, wishes: Wishes) -> list[str]:
    if wishes.data is not None:
        return ["-m", "streaming", "produce", "--csv", str(wishes.data), "--resume", "--rate", "max", "--json"]
    since = state.root / "shop-began"
    if not since.exists():
        since.write_text(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    return [
        "-m", "streaming", "produce", "--shop", "--history-days", str(HISTORY_DAYS), "--history-only",
        "--start", since.read_text(), "--resume", "--json",
    ]  # fmt: skip


def _require_fed(producer: Process, log_began: int) -> Fed:
    """What the producer told at its end. Where it sent all but changed rows it fails, and the summary says so."""
    fed = read_fed(producer.log, since=log_began)
    if fed is None:
        _require_success(producer)
        raise StalledError(f"the producer ended without saying what it sent. See {producer.log}.")
    return fed


def _require_success(producer: Process) -> None:
    code = producer.exit_code()
    if code:
        raise NotReadyError(
            "The producer", found=f"it ended with exit code {code}", log=producer.log,
            remedy="What it has sent stays; the next `make demo` sends the rest.",
        )  # fmt: skip


def _note_arrivals(watch: Watch, ended: dict[str, float]) -> None:
    """A layer has arrived once it holds everything that Kafka does, and every layer before it has arrived."""
    produced = watch.rows("produced")
    for before, name in itertools.pairwise(CHAIN):
        if before not in ended:
            return
        if name not in ended and name in watch.layers and watch.rows(name) >= produced:
            ended[name] = watch.changed_at.get(name, time.monotonic())
            ended[name] = max(ended[name], ended[before])


def _require_progress(line: Line, watch: Watch, ended: dict[str, float], wishes: Wishes) -> None:
    """Something must change now and then: a layer, or the log of Dagster's runs, which may take long."""
    idle_s = _idle_s(watch, ended)
    with suppress(OSError, ValueError):
        logs = [line.log_of(name) for name in ("Dagster code server", POOL)]
        silent_s = time.time() - max(log.stat().st_mtime for log in logs if log.exists())
        idle_s = idle_s if idle_s > RUNS_PATIENCE * wishes.patience_s else min(idle_s, silent_s)
    if idle_s > wishes.patience_s:
        waiting = next(name for name in CHAIN if name not in ended)
        raise StalledError(
            f"the line stands still: {show.NAMES[waiting]} has {watch.rows(waiting):,} of "
            f"{watch.rows('produced'):,} events, and nothing has changed for {wishes.patience_s:.0f} s. "
            f"{watch.troubles.get(waiting, '')} What has arrived stays. See the log of the {LOGS[waiting]} and, in "
            "Dagster, the runs that failed."
        )


def _idle_s(watch: Watch, ended: dict[str, float]) -> float:
    """How long no layer has changed."""
    return time.monotonic() - max([*watch.changed_at.values(), *ended.values()])


def _sum_up(line: Line, watch: Watch, state: State, console: Console, *, began: float, fed: Fed) -> int:
    """Read every layer whole, compare, tell, and write summary.json."""
    layers, differences = _read_until_agreed(line)
    line.seconds["total"] = time.monotonic() - began
    if files := files_line(fed):
        console.print(f"Read {files}", markup=False, highlight=False, soft_wrap=True)
    console.print(show.summary_table(layers, differences))
    console.print(show.seconds_line(line.seconds), style="dim")
    _write_summary(state, layers, line, fed, is_reconciled=not differences)
    watch.delays.clear()
    for difference in differences:
        log = line.log_of(LOGS[difference.layer])
        console.print(
            f"[bold red]Not reconciled:[/] {escape(str(difference))}. See {log}", soft_wrap=True, highlight=False
        )
    if not differences:
        console.print("[green]Every layer agrees, to the last digit.[/]")
    unsent = list(complaints(fed))
    for complaint in unsent:
        console.print(f"[bold red]Not in the line:[/] {escape(complaint)}: {line.log_of('producer')}", soft_wrap=True)
    for name, url in line.urls.items():
        console.print(f"  {name:8} {url}", highlight=False)
    return 1 if differences or unsent else 0


def _read_until_agreed(line: Line) -> tuple[Layers, list[Difference]]:
    """A refresh of the report may be at work while we read: differences are taken seriously when they stay."""
    for _ in range(5):
        layers = read_whole(_readers(line))
        differences = reconcile(layers)
        if not differences:
            break
        line.check()
        time.sleep(2.0)
    return layers, differences


def _write_summary(state: State, layers: Layers, line: Line, fed: Fed, *, is_reconciled: bool) -> None:
    write_json(
        state.summary,
        {
            "fed": fed,
            "layers": layers.as_json(),
            "reconciled": is_reconciled,
            "seconds": {name: round(value, 3) for name, value in line.seconds.items()},
            "urls": line.urls,
            "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def _trickle(line: Line, watch: Watch, wishes: Wishes, console: Console) -> None:
    """Live events until Ctrl-C."""
    console.print(f"Live events from the simulated shop, about {wishes.rate:g} a second, until Ctrl-C")
    producer = line.spawn("producer", ["-m", "streaming", "produce", "--shop", "--rate", str(wishes.rate), "--json"])
    with _screen(watch, console, "Live") as update:
        while True:
            line.check()
            _require_success(producer)
            update("Live (Ctrl-C stops everything)")
            time.sleep(TICK_S)


@contextmanager
def _screen(watch: Watch, console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """A live table in a terminal; elsewhere a line now and then."""
    if not console.is_terminal:
        told_at, told = 0.0, ""

        def tell(_: str) -> None:
            nonlocal told_at, told
            line = show.live_line(watch)
            if line != told and time.monotonic() - told_at > PLAIN_EVERY_S:
                told_at, told = time.monotonic(), line
                console.print(line, highlight=False, soft_wrap=True)

        yield tell
        return
    with Live(show.live_table(watch, title=title), console=console, refresh_per_second=4, transient=True) as live:
        yield lambda now: live.update(show.live_table(watch, title=now))


def _die_kindly() -> None:
    """A closed terminal and `kill` stop the demo as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


@contextmanager
def _undisturbed(console: Console) -> Iterator[None]:
    """While everything is being stopped another Ctrl-C only says so; a third one leaves the rest to the guards."""
    pressed = 0

    def say(*_: object) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 1:
            with suppress(Exception):
                console.print("Leaving; the guards end what is left")
            sys.exit(130)
        console.print("Stopping everything, a moment (once more: leave at once)")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, say)
    yield
