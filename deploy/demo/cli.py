"""The demo's command line: run, status, mage, clean. What each does stands beside it (run.py, layers.py, state.py)."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from rich.console import Console

from deploy.demo import show
from deploy.demo.line import BIN, DAGSTER_PORT, MAGE_PORT, REPORT_PORT, ROOT, Ports
from deploy.demo.run import Wishes, run_demo
from deploy.demo.state import State
from deploy.errors import DeployError

STATE = ROOT / ".demo"


def main() -> int:
    """Do what was asked; return the exit code."""
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 140)
    state = State(options.state.resolve())
    try:
        return int(options.act(options, state, console))
    except DeployError as error:
        console.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        return 130
    return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description="The whole line on this machine.")
    parser.add_argument("--state", type=Path, default=STATE, help="folder of the demo's state (default .demo)")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", prog="make demo ARGS='...'", help="start the line, feed it, show it")
    run.add_argument(
        "--data", type=Path, metavar="DIR", help="CSV invoices in UCI Online Retail's columns; else a shop"
    )
    run.add_argument("--exit", action="store_true", help="stop after the summary; exit code 0 only if all agree")
    run.add_argument("--rate", type=float, default=2.0, help="live events a second after the summary (default 2)")
    run.add_argument("--patience-s", type=float, default=180.0, help="give up after so long without any change")
    run.add_argument("--dagster-port", type=int, help=f"default {DAGSTER_PORT}, or a free one")
    run.add_argument("--report-port", type=int, help=f"default {REPORT_PORT}, or a free one")
    for service in ("kafka", "postgres", "bigquery"):
        run.add_argument(f"--{service}-port", type=int, help="default: a free one, kept for the next start")
    run.set_defaults(act=_run)
    commands.add_parser("status", help="the running demo's layers").set_defaults(act=_status)
    mage = commands.add_parser("mage", help="Mage's own UI on the running demo")
    mage.add_argument("--port", type=int, default=MAGE_PORT)
    mage.set_defaults(act=_mage)
    commands.add_parser("clean", help="remove the state").set_defaults(act=_clean)
    return parser.parse_args()


def _run(options: argparse.Namespace, state: State, console: Console) -> int:
    data: Path | None = options.data
    if data is not None and not data.exists():
        raise DeployError(f"There is no {data}. DATA names a folder of CSV files, or one file.")
    wishes = Wishes(
        data=None if data is None else data.resolve(),
        is_exit=options.exit,
        ports=Ports(
            kafka=options.kafka_port,
            postgres=options.postgres_port,
            bigquery=options.bigquery_port,
            dagster=options.dagster_port,
            report=options.report_port,
        ),
        rate=options.rate,
        patience_s=options.patience_s,
    )
    return run_demo(state, wishes, console=console)


def _environment(state: State) -> dict[str, str]:
    """The running demo's settings.

    Raises:
        DeployError: no demo runs.
    """
    if not state.running.exists():
        raise DeployError(f"No demo runs in this checkout (state {state.root}). Start one with `make demo`.")
    words = (shlex.split(line)[1] for line in state.env_file.read_text().splitlines() if line.startswith("export "))
    return dict(word.split("=", 1) for word in words)


def _status(_: argparse.Namespace, state: State, console: Console) -> int:
    from deploy.demo.layers import open_readers, read_whole, reconcile  # noqa: PLC0415

    layers = read_whole(open_readers(_environment(state)))
    differences = reconcile(layers)
    console.print(show.summary_table(layers, differences))
    for difference in differences:
        console.print(f"behind or wrong: {difference}", highlight=False)
    for name, url in json.loads(state.running.read_text())["urls"].items():
        console.print(f"  {name:8} {url}", highlight=False)
    return 0


def _mage(options: argparse.Namespace, state: State, console: Console) -> int:
    env = dict(os.environ) | _environment(state)
    # No log-in: it listens on this machine only, and a demo's user has no account (containers demand one).
    env |= {"RUN_PIPELINE_IN_ONE_PROCESS": "1", "REQUIRE_USER_AUTHENTICATION": "0", "PYTHONPATH": str(ROOT)}
    console.print(f"Mage's UI: http://127.0.0.1:{options.port} (Ctrl-C stops it)", highlight=False)
    os.chdir(ROOT)
    command = [str(BIN / "mage"), "start", "mage_project", "--host", "127.0.0.1", "--port", str(options.port)]
    os.execve(command[0], command, env)  # noqa: S606 - the terminal is Mage's from here on


def _clean(_: argparse.Namespace, state: State, console: Console) -> int:
    state.clean()
    console.print(f"{state.root} is removed")
    return 0
