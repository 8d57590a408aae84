"""docs/quickstart.md as its reader meets it: its commands, one block after the other, against a demo that runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy.demo.state import leftover_guards
from deploy.processes import free_port
from tests.deploy.docs_commands import blocks
from tests.schedule import whole_schedule_only

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.integration,
    pytest.mark.timeout(900),
    whole_schedule_only("three minutes"),
]

READY_S = 240


@pytest.fixture(scope="module")
def state(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A demo of one small day that has come to its summary and goes on."""
    base = tmp_path_factory.mktemp("quickstart")
    data = base / "data"
    data.mkdir()
    header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    (data / "day.csv").write_text(header + "536365,85123A,HOLDER,6,2010-12-05 10:26:00,2.55,17850,France\n")
    command = [sys.executable, "-m", "deploy.demo", "--state", str(base / "state"), "run", "--data", str(data)]
    ports = ["--dagster-port", str(free_port()), "--report-port", str(free_port())]
    with (base / "demo.log").open("w") as log:
        demo = subprocess.Popen([*command, *ports], cwd=repository, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + READY_S
        while not (base / "state" / "summary.json").exists():
            assert demo.poll() is None, (base / "demo.log").read_text()[-2000:]
            assert time.monotonic() < deadline, (base / "demo.log").read_text()[-2000:]
            time.sleep(0.2)
        yield base / "state"
    finally:
        os.kill(demo.pid, signal.SIGINT)
        demo.wait(90)
    assert leftover_guards(base / "state") == []


def test_the_commands_of_the_quickstart_do_what_it_says(state: Path, repository: Path, tmp_path: Path) -> None:
    page = [block.text for block in blocks(repository / "docs" / "quickstart.md")]
    assert page[0] == "make demo\n"
    script = "set -euo pipefail\n" + "echo ----\n".join(page[1:])
    script = script.replace(".demo/env.sh", str(state / "env.sh")).replace("$PWD/.venv", str(repository / ".venv"))
    script = script.replace("make status", f"(cd {repository} && python -m deploy.status || true)")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(repository)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=480, check=False
    )
    said = done.stdout.split("----\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    _, looked, broken, mended, traced, _ = said
    assert "2010-12-05" in looked
    assert "daemon up, code up" in looked
    assert "wrong_type" in broken
    assert "quantity" in broken
    assert re.search(r"\b1\b", mended)
    assert "Iceland" in traced
    assert re.search(r"retail\.invoices/\d/\d+|offset", traced)
    assert (tmp_path / "overview.png").read_bytes().startswith(b"\x89PNG")
