"""The code server's container is stopped: the runs at work end first, within a limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DRAIN = Path(__file__).parents[2] / "deploy" / "docker" / "drain.py"
SERVER = """
import multiprocessing, os, pathlib, signal, sys, time

def run(log, ends):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    said = pathlib.Path(log)
    said.write_text("run started")
    while not (ends and os.path.exists(os.environ["RUNS_STOP_FILE"])):
        time.sleep(0.02)
    time.sleep(1.0)
    said.write_text("run ended")

def stop(*_):
    pathlib.Path(sys.argv[2]).write_text(pathlib.Path(sys.argv[1]).read_text())
    os._exit(7)

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    if sys.argv[3] != "idle":
        multiprocessing.get_context("spawn").Process(target=run, args=(sys.argv[1], sys.argv[3] == "ends")).start()
    else:
        pathlib.Path(sys.argv[1]).write_text("run started")
    while True:
        time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("run", "within_s", "seen_at_stop", "least_s", "most_s"),
    [
        ("ends", 30.0, "run ended", 0.9, 10.0),
        ("hangs", 2.0, "run started", 1.9, 10.0),
        ("idle", 30.0, "run started", 0, 5),
    ],
    ids=["a run that ends", "a run that does not", "no run"],
)
def test_the_server_is_stopped_once_its_runs_have_ended_or_the_time_is_up(
    tmp_path: Path, run: str, within_s: float, seen_at_stop: str, least_s: float, most_s: float
) -> None:
    server, log, at_stop, stop_file = (tmp_path / name for name in ("server.py", "log", "at_stop", "stop"))
    server.write_text(SERVER)
    stop_file.touch()  # left behind by a container that was killed
    code = f"import runpy, sys; m = runpy.run_path({str(DRAIN)!r}); m['main'].__globals__['WITHIN_S'] = {within_s}; "
    code += "sys.exit(m['main'](sys.argv[1:]))"
    drain = subprocess.Popen(
        [sys.executable, "-c", code, "1", sys.executable, str(server), str(log), str(at_stop), run],
        env={**os.environ, "RUNS_STOP_FILE": str(stop_file)},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 20
        while not log.exists() or "started" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not stop_file.exists(), "an old one stops nobody"
        told = time.monotonic()
        drain.send_signal(signal.SIGTERM)
        assert drain.wait(20) == 7, "the server's own exit code"
        assert least_s <= time.monotonic() - told < most_s
        assert at_stop.read_text() == seen_at_stop
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(drain.pid, signal.SIGKILL)


def test_a_server_that_ends_by_itself_ends_the_container() -> None:
    ended = subprocess.run(
        [sys.executable, str(DRAIN), "1", sys.executable, "-c", "raise SystemExit(3)"], timeout=20, check=False
    )
    assert ended.returncode == 3
