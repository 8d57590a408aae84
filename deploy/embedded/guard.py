"""Run one command and end it, with everything it started, as soon as the process that asked for it is gone.

Started as a program of its own (`python guard.py OPTIONS -- COMMAND`), one per service. Its standard input is a pipe
whose other end the asking process holds and never writes to: end of file means "stop", whether that process closed
it on purpose or was killed. On its standard output it says the command's pid, once. Only the standard library is
used, and nothing of this project is imported, so that the guard starts in a few hundredths of a second.

What does not belong here: which services exist, how they are configured, or when one is ready.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_CHILD_SUBREAPER, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 36, 47, 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522
ON_LINUX = sys.platform == "linux"


def _prctl(*arguments: int) -> bool:
    """Call Linux's prctl; elsewhere, and where it is refused, do nothing and say so."""
    if not ON_LINUX:
        return False
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:5]]
    return ctypes.CDLL(None, use_errno=True).prctl(*padded) == 0


def become(uid: int, gid: int, *, keep_reach: bool) -> None:
    """Turn this process, which is root's, into another user's.

    Args:
        uid: the user to become.
        gid: its group.
        keep_reach: keep the one capability to walk through folders that only root may enter (a checkout under
            /root, say); PostgreSQL refuses to run as root but does not mind this.
    """
    kept = keep_reach and _prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if not kept:
        return
    bit = 1 << CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, sets) == 0:
        _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE)


def _prepare(options: argparse.Namespace) -> Callable[[], None]:
    def in_child() -> None:
        if options.uid is not None:
            become(options.uid, options.gid, keep_reach=options.keep_reach)
        _prctl(PR_SET_PDEATHSIG, options.stop_signal)  # after the change of user, which would clear it

    return in_child


def _descendants(root: int) -> list[int]:
    """Every living process below `root`, found in /proc; orphans count, since the guard is their subreaper."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    found: list[int] = []
    queue = [root]
    while queue:
        above = queue.pop()
        below = [pid for pid, parent in parents.items() if parent == above]
        found += below
        queue += below
    return found


def _sweep(group: int) -> None:
    """Kill what the command left behind: its process group and, on Linux, every descendant."""
    for _ in range(50):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        left = _descendants(os.getpid()) if ON_LINUX else []
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not left:
            return
        time.sleep(0.02)


def _reap(pid: int) -> int | None:
    """The command's exit code once it has ended; every other child is reaped on the way."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == 0:
                break
            if ended == pid:
                code = os.waitstatus_to_exitcode(status)
    return code


def _watch(pid: int, wake: int, options: argparse.Namespace) -> int:
    """Wait for the command's end or for the order to stop it; return its exit code."""
    deadline: float | None = None
    watched = [0, wake]
    while True:
        code = _reap(pid)
        if code is not None:
            return code
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(watched, [], [], left)
        told = 0 in ready and not os.read(0, 4096)
        if wake in ready:
            told = any(number != signal.SIGCHLD for number in os.read(wake, 4096)) or told
        if told and deadline is None:
            deadline = time.monotonic() + options.grace_s
            watched = [wake]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, options.stop_signal)
        elif deadline is not None and time.monotonic() >= deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 5.0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--log", required=True)
    parser.add_argument("--stop-signal", type=int, default=int(signal.SIGTERM))
    parser.add_argument("--grace-s", type=float, default=10.0)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--keep-reach", action="store_true")
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def main() -> int:
    """Start the command, report its pid, and see it through to its end."""
    options = _options()
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    with Path(options.log).open("ab") as log:
        child = subprocess.Popen(
            options.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_prepare(options),  # noqa: PLW1509 - this process has one thread
        )
    sys.stdout.write(f"{child.pid}\n")
    sys.stdout.flush()
    code = _watch(child.pid, wake_read, options)
    child.returncode = code  # reaped by hand
    _sweep(child.pid)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
