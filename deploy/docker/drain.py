"""PID 1 of the code server's container: when it is told to stop, the runs at work end first.

    python deploy/docker/drain.py PORT COMMAND...      the port on which the command serves gRPC

Docker tells one process only. Without this the code server ends at once and its runs with it: nothing is lost, but each
new image leaves failed runs and an alert behind. Here: the server is told to take no more runs, a file tells those at
work to come to an end (RUNS_STOP_FILE, which orchestration/defs/keep_up.py looks for), they are waited for, then the
server stopped. What it refuses meanwhile stays in Dagster's queue (orchestration/launcher.py).

Run as a file, like probe.py. Linux only. Not here: what a run does then; runs that are killed (launcher.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

STOP_FILE = "/tmp/runs-stop"  # noqa: S108 - a tmpfs of the container's own
WITHIN_S = 45.0  # stop_grace_period is 60 s
LOOK_S = 0.2
ANSWER_S = 5.0


def runs_of(server: int) -> set[int]:
    """Processes that the code server has spawned for runs; its resource tracker is none."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        if fields[1] == str(server) and fields[0] not in {"Z", "X"} and b"spawn_main" in command:
            found.add(int(entry.name))
    return found


def take_no_more(port: int) -> bool:
    """Dagster's own request to a code server: refuse new runs. Whether it has answered."""
    import grpc  # noqa: PLC0415 - half a second that a start need not wait for

    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            channel.unary_unary("/api.DagsterApi/ShutdownServer")(b"", timeout=ANSWER_S)
    except grpc.RpcError as error:
        sys.stderr.write(f"drain: the code server was not told to refuse runs: {error}\n")
        return False
    return True


def main(arguments: list[str]) -> int:
    """Start the command, wait for it or for a signal; the command's exit code."""
    if len(arguments) < 2 or not arguments[0].isdecimal():  # noqa: PLR2004 - a port and a command
        raise SystemExit(__doc__)
    port, command = int(arguments[0]), arguments[1:]
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    stop_file = Path(os.environ.get("RUNS_STOP_FILE") or STOP_FILE)
    stop_file.unlink(missing_ok=True)
    server = subprocess.Popen(command, env={**os.environ, "RUNS_STOP_FILE": str(stop_file)})
    while server.poll() is None and not told.wait(LOOK_S):
        pass
    if server.poll() is None:
        stop_file.touch()
        deadline = time.monotonic() + WITHIN_S
        take_no_more(port)
        at_work = runs_of(server.pid)
        while server.poll() is None and time.monotonic() < deadline and at_work & runs_of(server.pid):
            time.sleep(LOOK_S)
        server.terminate()
    return server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
