"""The demo's folder: who uses it, which ports it had, what it found. Everything the demo keeps is under it.

Starting processes does not belong here (line.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.errors import AlreadyRunningError, PortInUseError, StateError
from deploy.processes import GUARD, free_port, is_free

if TYPE_CHECKING:
    from collections.abc import Mapping

PORTS = "ports.json"  # written before anything is started: a folder without it has been no demo's
LEFTOVER_S = 45.0  # a killed demo's Kafka may take its 20 s of grace, then force


@dataclass
class State:
    """Paths below the demo's folder."""

    root: Path
    _lock: int | None = None

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.root / "logs"

    @property
    def summary(self) -> Path:
        """What the start-up phase found."""
        return self.root / "summary.json"

    @property
    def running(self) -> Path:
        """The addresses of the demo that runs now; for `status` and `mage`."""
        return self.root / "running.json"

    @property
    def env_file(self) -> Path:
        """The environment of the demo's processes, to be sourced in a shell. Holds a password: for its owner only."""
        return self.root / "env.sh"

    def claim(self, say: Any = print) -> None:
        """Take the folder for this process, until it ends; wait for what a killed demo left to go away.

        Raises:
            AlreadyRunningError: another demo runs here.
            StateError: it is no folder, cannot be written, or holds something else than a demo's state.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._require_ours()
            self._take_lock()
        except OSError as error:
            self._let_go()
            raise StateError(
                f"Using {self.root} for the demo's state: {error}. Nothing was started or removed. Name a folder that "
                "can be written with --state, or leave it out."
            ) from error
        self._await_leftovers(say)

    def _take_lock(self) -> None:
        self._lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode().strip() or "unknown"
            self._let_go()
            raise AlreadyRunningError(
                f"A demo is already running in this checkout (process {holder}, state {self.root}). Nothing was "
                f"started. `make status` shows it; Ctrl-C in its terminal, or `kill {holder}`, stops it."
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _require_ours(self) -> None:
        """`clean` removes the whole folder, and `claim` ends what runs below it: never somebody's home by a slip."""
        if not (found := {each.name for each in self.root.iterdir()} - {"lock", "ports.new"}) or PORTS in found:
            return
        raise StateError(
            f"{self.root} is no demo's state: it holds {', '.join(sorted(found)[:3])}{', ...' * (len(found) > 3)} and "  # noqa: PLR2004
            f"no {PORTS}. Nothing was started or removed. Name a new or an empty folder with --state."
        )

    def release(self) -> None:
        """Give the folder back."""
        self.running.unlink(missing_ok=True)
        self._let_go()

    def _await_leftovers(self, say: Any) -> None:
        deadline = time.monotonic() + LEFTOVER_S
        left = leftover_guards(self.root)
        if left:
            say(f"Waiting for {len(left)} processes of an earlier demo to end")
        while left and time.monotonic() < deadline:
            time.sleep(0.2)
            left = leftover_guards(self.root)
        for pid in left:  # their children die with them, see guard.py
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if left:
            time.sleep(1.0)

    def port(self, service: str, *, asked: int | None, preferred: int | None = None, note: Any = print) -> int:
        """A port for a service: the one asked for, else the usual one, else the last one, else any free one.

        Raises:
            PortInUseError: the port that was asked for is taken.
        """
        if asked is not None:
            if not is_free(asked):
                raise PortInUseError(service, asked, remedy="Choose another in ARGS (see `make demo ARGS=--help`).")
            return asked
        remembered = self._ports().get(service)
        for candidate in (preferred, remembered):
            if candidate is not None and is_free(candidate):
                return self._remember(service, candidate)
        chosen = free_port()
        if preferred is not None:
            note(f"Port {preferred} is in use by another program: {service} gets {chosen}")
        return self._remember(service, chosen)

    def _ports(self) -> dict[str, int]:
        try:
            return dict(json.loads((self.root / PORTS).read_text()))
        except (OSError, ValueError):
            return {}

    def _remember(self, service: str, port: int) -> int:
        write_json(self.root / PORTS, self._ports() | {service: port})
        return port

    def write_environment(self, env: Mapping[str, str]) -> None:
        """Write the environment as a file for `source`."""
        lines = ["# Written by the demo. In a shell: source .demo/env.sh\n"]
        lines += [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(env.items())]
        made = self.env_file.with_suffix(".new")
        made.unlink(missing_ok=True)
        made.touch(mode=0o600)
        made.write_text("".join(lines))
        made.rename(self.env_file)

    def clean(self) -> None:
        """Remove the folder.

        Raises:
            AlreadyRunningError: a demo runs here.
            StateError: it is none of a demo.
        """
        if self.root.exists():
            self.claim()
            shutil.rmtree(self.root)
            self.release()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write whole or not at all."""
    made = path.with_suffix(".new")
    made.write_text(json.dumps(content, indent=2) + "\n")
    made.rename(path)


def leftover_guards(root: Path) -> list[int]:
    """Guards that still look after processes of this folder, whoever started them."""
    marks = (str(GUARD), f"{root.resolve()}{os.sep}")
    return [pid for pid, command in _commands() if pid != os.getpid() and all(mark in command for mark in marks)]


def _commands() -> list[tuple[int, str]]:
    if sys.platform == "linux":
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append((int(entry.name), command))
        return found
    listed = subprocess.run(["ps", "-axo", "pid=,args="], capture_output=True, text=True, check=False).stdout
    return [(int(pid), command) for pid, _, command in (line.strip().partition(" ") for line in listed.splitlines())]
