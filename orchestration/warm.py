"""What launcher and pool say to each other, and what names a process: for them alone.

One JSON object a line over a unix socket, one order a connection:
  run   run_id, arguments, instance_ref, directory, fingerprint -> process | held | refused (is_stale)
  drop  run_id -> dropped: a held run was forgotten           has  run_id -> has
  retire -> retires                                           state -> pid, children, held, threads, fingerprint

Belongs here: words, processes as /proc tells of them. Not here: forking (pool.py), launching (launcher.py), Dagster.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import sys
import sysconfig
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PROCESS_TAG = "warm_launcher/process"
MAX_MESSAGE_BYTES = 8_000_000
ORDER_S = 5.0  # a fork takes 10-20 ms; the pool may have some to do before
# Differ from process to process without meaning anything to a run.
_OWN = re.compile(r"^(_|PWD|OLDPWD|SHLVL|INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_EXEC_PID|GRPC_.*|DAGSTER_CLI_API_.*)$")


@dataclass(frozen=True)
class Identity:
    """One process for ever: its pid, when it was born (ticks since boot), of which boot, in which pid namespace."""

    pid: int
    birth: int
    boot: str
    namespace: str

    def as_json(self) -> dict[str, Any]:
        """For a tag."""
        return asdict(self)

    @property
    def is_visible(self) -> bool:
        """Whether this process could see it at all: a container's pids mean nothing in another one."""
        return self.boot != _boot() or self.namespace == _namespace()

    def is_alive(self) -> bool:
        """Whether this very process runs; another one that was given the same pid does not count."""
        return self.boot == _boot() and _birth(self.pid) == self.birth

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> bool:
        """Signal it, and never another process: the pid is held by a descriptor while its birth is compared."""
        try:
            held = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.is_alive():
                return False
            signal.pidfd_send_signal(held, number)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(held)


def process_tag(run_id: str, process: Identity) -> dict[str, str]:
    """The tag by which a run names its process, and the process its run."""
    return {PROCESS_TAG: json.dumps({"run_id": run_id, **process.as_json()})}


def process_of(run_id: str, tags: Mapping[str, str]) -> Identity | None:
    """The process that a run's tags name as its own.

    None if they name none, or another run's: Dagster copies the tags of a failed run to its automatic retry.
    """
    try:
        named = json.loads(tags.get(PROCESS_TAG, ""))
        return Identity(**named) if named.pop("run_id") == run_id else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def identity_of(pid: int) -> Identity:
    """The process that has this pid now; birth 0 if there is none."""
    return Identity(pid, _birth(pid) or 0, _boot(), _namespace())


def _birth(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; the name before it may hold spaces and brackets. A zombie is no process any more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def fingerprint(env: Mapping[str, str]) -> str:
    """What a pool cannot change once it runs: the interpreter, the installed libraries, the environment.

    A package that is installed, removed or replaced changes the folder that holds it.
    """
    changed = [str(Path(path).stat().st_mtime_ns) for path in sorted(_library_folders()) if Path(path).is_dir()]
    settings = sorted(f"{name}={value}" for name, value in env.items() if not _OWN.match(name))
    return hashlib.sha256("\0".join([sys.executable, sys.version, *changed, *settings]).encode()).hexdigest()[:16]


def _library_folders() -> set[str]:
    return {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}


@dataclass(frozen=True)
class Server:
    """A code server on this machine: where it runs and with which settings, as the kernel tells it."""

    pid: int
    env: Mapping[str, str]
    directory: str


def find_server(*, port: int | None, path: str | None) -> Server | None:
    """The process of this user that listens there; None if it is elsewhere, or another user's."""
    inode = _listening(port, path)
    if inode is None:
        return None
    wanted = f"socket:[{inode}]"
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _holds(entry, wanted):
            try:
                listed = (entry / "environ").read_bytes().split(b"\0")
                pairs = (os.fsdecode(each).partition("=") for each in listed if b"=" in each)
                return Server(int(entry.name), {k: v for k, _, v in pairs}, str((entry / "cwd").readlink()))
            except OSError:
                return None
    return None


def _listening(port: int | None, path: str | None) -> str | None:
    """The inode of the listening socket."""
    if path:
        for line in Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()[1:]:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[7] == path and fields[3] == "00010000":  # noqa: PLR2004 - accepts
                return fields[6]
        return None
    for table in ("tcp", "tcp6"):
        file = Path(f"/proc/net/{table}")
        for line in file.read_text(encoding="ascii").splitlines()[1:] if file.exists() else []:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                return fields[9]
    return None


def _holds(process: Path, wanted: str) -> bool:
    try:
        return any(os.readlink(each) == wanted for each in (process / "fd").iterdir())  # noqa: PTH115 - 3 times faster
    except OSError:
        return False


def ask(path: Path, order: Mapping[str, Any], *, timeout_s: float = ORDER_S) -> dict[str, Any] | None:
    """Give one order to the pool; None if there is no pool that answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as conn:
            conn.settimeout(timeout_s)
            conn.connect(str(path))
            send(conn, order)
            return receive(conn)
    except (OSError, ValueError):
        return None


def send(conn: socket.socket, message: Mapping[str, Any]) -> None:
    """One message."""
    conn.sendall(json.dumps(message).encode() + b"\n")


def receive(conn: socket.socket) -> dict[str, Any]:
    """One message. Raises ValueError if it is none, OSError if it does not come."""
    parts = bytearray()
    while not parts.endswith(b"\n"):
        found = conn.recv(65536)
        if not found or len(parts) > MAX_MESSAGE_BYTES:
            raise ValueError("the message has no end")
        parts += found
    message = json.loads(parts)
    if not isinstance(message, dict):
        raise ValueError("the message is no object")  # noqa: TRY004 - one error for what is no message
    return message
