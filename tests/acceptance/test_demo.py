"""`make demo` as its user meets it: every process real, every layer equal to a sum made straight from the CSV files.

The demo runs as the Makefile runs it, on a state folder and ports of its own, so that a demo in this checkout is left
alone. One module-wide state goes through a life: killed while producing, started again, fed with more, started again.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.csv_amount import csv_amount
from deploy.demo.state import leftover_guards
from deploy.processes import free_port
from tests.schedule import IS_WHOLE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.acceptance, pytest.mark.integration, pytest.mark.timeout(900)]

PATIENCE_S = 240
HEADER = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
FIRST = [
    ["536365", "85123A", "WHITE HANGING HEART HOLDER", "6", "2010-12-01 08:26:00", "2.55", "17850", "United Kingdom"],
    ["536365", "85123A", "WHITE HANGING HEART HOLDER", "6", "2010-12-01 08:26:00", "2.55", "17850", "United Kingdom"],
    ["536366", "22086", "KIT 50'S \u2615 \u00ef \U0001f381 \u4e2d", "3", "2010-12-01 08:34:00", "0.001", "", "EIRE"],
    ["536367", "POST", "POSTAGE", "1", "2010-12-01 23:59:59", "18.123456789", "12583.0", "France"],
    ["C536379", "D", "Discount", "-1", "2010-12-02 09:41:00", "27.5", "14527", "United Kingdom"],
    ["A563185", "B", "Adjust bad debt", "1", "2010-12-02 14:50:00", "-11062.06", "", "United Kingdom"],
    ["536414", "22139", "", "56", "2010-12-03 11:52:00", "0.0", "", "United Kingdom"],
    ["536544", "21774", 'DECORATIVE "CATS", BATHROOM', "1000000", "2011-06-30 00:00:00", "649999.99", "", "Germany"],
]  # fmt: skip
SECOND = [
    ["600001", "22086", "SECOND FILE", "2", "2010-12-01 10:00:00", "1.0000001", "1", "Spain"],  # late
    ["600002", "22087", "SECOND FILE", "5", "2012-02-29 10:00:00", "0.42", "1", "Spain"],
]  # fmt: skip
BROKEN = [["600003", "22088", "NO PRICE", "5", "2012-02-29 10:00:00", "a lot", "1", "Spain"]]


@dataclass
class Demo:
    """A demo's state folder and how to run it."""

    repository: Path
    state: Path
    data: Path

    def command(self, *more: str) -> list[str]:
        ports = ["--dagster-port", str(free_port()), "--report-port", str(free_port())]
        run = [sys.executable, "-m", "deploy.demo", "--state", str(self.state), "run", "--data", str(self.data)]
        return [*run, "--patience-s", str(PATIENCE_S), *ports, *more]

    def start(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*more), cwd=self.repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run_to_exit(self, *more: str) -> tuple[int, str]:
        process = self.start("--exit", *more)
        try:
            output, _ = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            process.kill()  # or every later test would find it running
            output, _ = process.communicate()
            daemon = self.state / "logs" / "dagster-daemon.log"
            pytest.fail(f"the demo stands\n{output}\n{daemon.read_text()[-4000:] if daemon.exists() else ''}")
        return process.returncode, output

    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.state / "summary.json").read_text()))

    def write(self, name: str, rows: list[list[str]]) -> None:
        self.data.mkdir(exist_ok=True)
        with (self.data / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([HEADER, *rows])


def processes_of(state: Path) -> dict[int, str]:
    """Whatever runs on behalf of a demo: its folder stands in the environment or on the command line."""
    mark = str(state).encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark in (entry / "environ").read_bytes() or mark in (entry / "cmdline").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
            except OSError:
                continue
    return found


def wait_for(condition: Any, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Demo]:
    base = tmp_path_factory.mktemp("demo")
    demo = Demo(repository, state=base / "state", data=base / "data")
    demo.write("a.csv", FIRST)
    yield demo
    assert leftover_guards(demo.state) == []


def require_agreement(demo: Demo, *, dead_letters: int = 0) -> dict[str, Any]:
    readable = [file for file in demo.data.glob("*.csv") if "broken" not in file.name]
    sums = [csv_amount(file) for file in readable]
    rows, amount = sum(count for count, _ in sums), sum((each for _, each in sums), Decimal(0))
    layers = demo.summary()["layers"]
    assert layers["produced"]["rows"] == rows + dead_letters
    assert layers["landed"]["rows"] == rows
    assert layers["landed"]["dead_letters"] == dead_letters
    assert layers["landed"]["gaps"] == 0
    for layer in ("core", "mart"):
        assert layers[layer]["rows"] == rows
    for layer in ("landed", "core", "mart", "report"):
        assert Decimal(layers[layer]["amount"]) == amount
        assert isinstance(layers[layer]["amount"], str)
    assert layers["report"]["as_of"]
    assert demo.summary()["reconciled"] is True
    return layers


def test_killed_demo_leaves_no_process_behind(demo: Demo) -> None:
    process = demo.start()
    ready = wait_for(
        lambda: "lake" in (demo.state / "env.sh").read_text() if (demo.state / "env.sh").exists() else False, 240
    )
    assert ready, "the services did not come up"
    assert wait_for((demo.state / "logs" / "landing-consumer.log").exists, 120)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert wait_for(lambda: not processes_of(demo.state), 60), processes_of(demo.state)


def test_next_demo_after_a_kill_brings_every_layer_to_the_sum_of_the_files(demo: Demo) -> None:
    code, output = demo.run_to_exit()
    assert code == 0, output
    require_agreement(demo)
    assert "Every layer agrees" in output
    assert not processes_of(demo.state)


def test_second_start_continues_and_takes_late_and_broken_rows(demo: Demo) -> None:
    demo.write("b.csv", SECOND)
    demo.write("broken.csv", BROKEN)
    code, output = demo.run_to_exit()
    assert code == 0, output
    require_agreement(demo, dead_letters=1)
    assert not processes_of(demo.state)


def test_second_demo_beside_a_running_one_is_told_so_and_interrupt_stops_everything(demo: Demo) -> None:
    process = demo.start()
    assert wait_for((demo.state / "running.json").exists, 240)
    code, output = demo.run_to_exit()
    assert code == 1
    assert re.search(rf"already running .*process {process.pid}", output.replace("\n", " "))
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    assert not processes_of(demo.state)


@pytest.mark.parametrize("after_s", [0.3, 2.0, 6.0] if IS_WHOLE else [2.0])
def test_interrupt_while_starting_leaves_nothing(demo: Demo, after_s: float) -> None:
    process = demo.start()
    time.sleep(after_s)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=90)
    assert "Traceback" not in output
    assert not processes_of(demo.state), output


def test_port_that_was_asked_for_and_is_taken_is_named(demo: Demo) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output = demo.run_to_exit("--kafka-port", str(port))
    assert code == 1
    assert re.search(rf"port {port} .*in use", output.replace("\n", " "))
    assert "Traceback" not in output


def test_month_of_real_invoices_is_equal_in_every_layer(retail_dir: Path, repository: Path, tmp_path: Path) -> None:
    demo = Demo(repository, state=tmp_path / "state", data=retail_dir)
    code, output = demo.run_to_exit()
    assert code == 0, output
    layers = require_agreement(demo)
    assert layers["core"] == {"rows": 42_481, "amount": "748957.02", "repeats": 0}
