"""Start and stop child processes so that none is ever left behind; find ports; wait until something answers.

Used by the embedded services and by the demo. What the services are, and how each is configured, does not belong
here. The end of this process, however it comes, is the end of all it has started (see embedded/guard.py).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import NotReadyError, PortInUseError, tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

GUARD = Path(__file__).parent / "embedded" / "guard.py"
POLL_S = 0.05  # a service takes 0.2 to 5 s: finer polling only costs the processor that the service needs
PORTS = range(20000, 32768)  # below the ports of outgoing connections: Linux's begin at 32768, the others' at 49152
TRIES = 100
RESERVED = 64  # a start asks for six


_reserved: deque[int] = deque()  # open files
_started: list[Process] = []


@dataclass(frozen=True)
class Owner:
    """The user a process is to run as; needed only by root's PostgreSQL."""

    uid: int
    gid: int
    keep_reach: bool


@dataclass
class Process:
    """A running child: its pid (the command's own, not the guard's), its log, and how to end it."""

    name: str
    pid: int
    log: Path
    guard: subprocess.Popen[str] = field(repr=False)
    grace_s: float = 10.0

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.guard.poll()

    def is_running(self) -> bool:
        """Whether it still runs."""
        return self.exit_code() is None

    def stop(self) -> int:
        """End it, kindly first, then by force; return its exit code. Calling it twice does no harm."""
        self.ask_to_stop()
        try:
            code = self.guard.wait(self.grace_s + 8.0)
        except subprocess.TimeoutExpired:
            self.guard.kill()
            code = self.guard.wait()
        if self.guard.stdout is not None:
            self.guard.stdout.close()
        return code

    def ask_to_stop(self) -> None:
        """Begin the stop without waiting, so that several can stop side by side."""
        if self.guard.stdin is not None:
            with contextlib.suppress(OSError):
                self.guard.stdin.close()


def start(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    grace_s: float = 10.0,
    owner: Owner | None = None,
) -> Process:
    """Start a command under a guard. It has its own session: Ctrl-C in the terminal does not reach it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    options = ["--log", str(log), "--stop-signal", str(int(stop_signal)), "--grace-s", str(grace_s)]
    if owner is not None:
        options += ["--uid", str(owner.uid), "--gid", str(owner.gid)]
        options += ["--keep-reach"] if owner.keep_reach else []
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", str(GUARD), *options, "--", *map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(env),
        cwd=cwd,
        start_new_session=True,
    )
    line = guard.stdout.readline() if guard.stdout else ""
    if not line.strip():
        complaint = guard.communicate()[1].strip().splitlines()[-1:]
        raise NotReadyError(
            name,
            found=f"{command[0]} could not be executed ({' '.join(complaint)})",
            log=log,
            remedy="Run `make setup`.",
        )
    if guard.stderr is not None:
        guard.stderr.close()
    process = Process(name=name, pid=int(line), log=log, guard=guard, grace_s=grace_s)
    _started[:] = [each for each in _started if each.is_running()]
    _started.append(process)
    return process


def living() -> list[Process]:
    """Everything that this process has started and that still runs, whether or not it was ever ready."""
    return [process for process in list(_started) if process.is_running()]


def stop_all(processes: Sequence[Process]) -> None:
    """Stop several side by side."""
    for process in processes:
        process.ask_to_stop()
    for process in processes:
        process.stop()


def free_port() -> int:
    """A port that nobody uses, and that nobody who asks this function is given until long after.

    It lies below the ports that the kernel gives to outgoing connections: one of those could be taken by any
    connection in the seconds until a server listens there (seen: the emulator ended with "address already in use").
    """
    for port in random.sample(PORTS, min(TRIES, len(PORTS))):
        if is_free(port) and _reserve(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _reserve(port: int) -> bool:
    """Keep other processes of ours from the port until they can see that it is in use.

    A name in Linux's abstract namespace is taken once on a machine, leaves no file and dies with its process.
    Elsewhere there is none: two processes then meet at one port of some ten thousand at worst.
    """
    if sys.platform != "linux":
        return True
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0power-bi-project-port-{port}")
    except OSError:
        mark.close()
        return False
    _reserved.append(mark.detach())  # the end of the process closes it
    if len(_reserved) > RESERVED:
        os.close(_reserved.popleft())
    return True


def is_free(port: int) -> bool:
    """Whether a server could listen there now (a socket in TIME_WAIT does not hinder one)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return not is_listening(port)


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def take_port(service: str, port: int | None, *, remedy: str = "Stop that program or choose another port.") -> int:
    """The port asked for if it is free, or any free one if none was asked for."""
    if not port:
        return free_port()
    if not is_free(port):
        raise PortInUseError(service, port, remedy=remedy)
    return port


def wait_ready(process: Process, probe: Callable[[], bool], *, timeout_s: float, fatal: str | None = None) -> None:
    """Wait until the probe holds; say what happened if the process ends or time runs out.

    Args:
        process: what is to become ready.
        probe: whether it is.
        timeout_s: how long to wait.
        fatal: a text in its log after which waiting is pointless.
    """
    deadline = time.monotonic() + timeout_s
    while not probe():
        if fatal is not None and fatal in tail(process.log, 200):
            process.stop()
            raise NotReadyError(process.name, found="it cannot work", log=process.log, remedy=_remedy(process.log))
        code = process.exit_code()
        if code is not None:
            process.stop()
            raise NotReadyError(
                process.name, found=f"it ended with exit code {code}", log=process.log, remedy=_remedy(process.log)
            )
        if time.monotonic() > deadline:
            process.stop()
            raise NotReadyError(
                process.name,
                found=f"it did not answer within {timeout_s:.0f} s",
                log=process.log,
                remedy="The machine may be busy or short of memory: try again.",
            )
        time.sleep(POLL_S)


def _remedy(log: Path) -> str:
    text = tail(log, 200)
    known = {
        "Address already in use": "Another program took the port meanwhile: start again, or choose another port.",
        "No space left on device": "The disk is full: make room and start again.",
        "OutOfMemoryError": "Memory is short: close something and start again.",
        "Permission denied": "A file belongs to another user: `make demo-clean` removes the demo's state.",
        "Failed to download extension": "DuckDB's extensions are not all installed: run `make setup`.",
        "ModuleNotFoundError": "The environment is incomplete: run `make setup`.",
    }
    return next((remedy for sign, remedy in known.items() if sign in text), "The log says why.")
