"""The warm pool: one process that has the slow libraries imported, and forks a child for each run.

`python -m orchestration.pool --socket PATH` imports Dagster, Mage, Arrow and the Google client, no module of this
project, and opens no connection; then it forks whatever run it is asked for (orchestration/launcher.py asks). A child
imports the project's own modules itself, so an edit is live in the next run. One pool serves a socket, which is its
owner's alone (flock, mode 0600).

Belongs here: forking, reaping, telling that a child has crashed. Not here: choosing the pool or another launcher
(launcher.py), the protocol's words and what names a process (warm.py), anything that a run does. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from dataclasses import dataclass, field
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from orchestration.warm import (
    Identity,
    fingerprint,
    identity_of,
    process_tag,
    receive,
    send,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

# Found by comparing sys.modules before and after a run: what a run of ours imports from the environment, slowest first.
LIBRARIES = (
    "dagster",
    "dagster._cli.api",
    "dagster._core.execution.plan.execute_plan",
    "dagster._core.executor.in_process",
    "dagster._core.run_coordinator.queued_run_coordinator",
    "dagster._core.storage.local_compute_log_manager",
    "dagster_postgres",
    "psycopg2",
    "pyarrow",
    "pyarrow.csv",
    "pyarrow.parquet",
    "pandas",
    "polars",
    "msgspec",
    "sqlglot",
    "structlog",
    "open_data_contract_standard.model",
    "google.cloud.bigquery",
    "google.api_core.client_options",
    "google.auth.credentials",
    "mage_ai.data_preparation.models.pipeline",
    "mage_ai.data_preparation.decorators",
    "mage_ai.settings.repo",
    "requests",
)
# More runs than this wait here: each is 150-250 MB that it does not share with the pool.
MAX_CHILDREN = 8
CLIENT_S = 2.0  # a client that does not finish its sentence must not hold up the others
STOP_GRACE_S = 8.0  # below the 10 s after which Docker and the demo's guards kill
CRASHED = 1


@dataclass
class Child:
    """A run at work."""

    run_id: str
    order: dict[str, Any]


@dataclass
class Pool:
    """The loop.

    Attributes:
        listener: where orders come in.
        lock: held while it serves, let go as soon as it takes no more runs.
        key: fingerprint of its libraries and settings, taken before the libraries could change the environment.
        max_children: how many runs at a time; more wait in `held`.
        lifeline: end of file there says that whoever started the pool is gone.
    """

    listener: socket.socket
    lock: int
    key: str
    max_children: int = MAX_CHILDREN
    lifeline: int | None = None
    is_retiring: bool = False
    children: dict[int, Child] = field(default_factory=dict)
    reporters: set[int] = field(default_factory=set)
    held: deque[dict[str, Any]] = field(default_factory=deque)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def serve(self, wake: int) -> None:
        """Answer until told to go, and until the last child has ended."""
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(wake, selectors.EVENT_READ)
        if self.lifeline is not None:
            self.selector.register(self.lifeline, selectors.EVENT_READ)
        while not (self.is_retiring and not self.children and not self.reporters and not self.held):
            for key, _ in self.selector.select(5.0):
                if key.fileobj is self.listener:
                    self._answer()
                elif key.fileobj == wake:
                    self._woken(os.read(wake, 4096))
                elif not os.read(int(key.fd), 4096):
                    self.selector.unregister(key.fileobj)
                    self.retire()
            self._reap()
            self._start_held()

    def retire(self) -> None:
        """Take no more runs and make room for another pool; those at work go on to their end."""
        if not self.is_retiring:
            self.is_retiring = True
            self.selector.unregister(self.listener)
            self.listener.close()
            os.close(self.lock)
            _say("retires", children=len(self.children))

    def _woken(self, numbers: bytes) -> None:
        if any(number in {signal.SIGTERM, signal.SIGINT} for number in numbers):
            self.retire()
            self.held.clear()
            for pid in self.children:  # not reaped yet, so the pids are theirs
                os.kill(pid, signal.SIGTERM)

    def _answer(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            conn, _ = self.listener.accept()
            with conn:
                conn.settimeout(CLIENT_S)
                order = receive(conn)
                replies = {"run": self._take, "drop": self._drop, "has": self._has, "retire": self._go}
                send(conn, replies.get(order["op"], self._state)(order, conn))

    def _take(self, order: dict[str, Any], conn: socket.socket) -> dict[str, Any]:
        if not _is_waiting(conn):
            return {"refused": "its client had given up, and has started the run another way"}
        if order["fingerprint"] != self.key:
            return {"refused": "its libraries or settings are not the code server's any more", "is_stale": True}
        if len(self.children) >= self.max_children:
            self.held.append(order)
            return {"held": len(self.held)}
        return {"process": self._fork(order, conn).as_json()}

    def _drop(self, order: dict[str, Any], _conn: socket.socket) -> dict[str, Any]:
        kept = deque(each for each in self.held if each["run_id"] != order["run_id"])
        was_held, self.held = len(kept) < len(self.held), kept
        return {"dropped": was_held}

    def _has(self, order: dict[str, Any], _conn: socket.socket) -> dict[str, Any]:
        runs = {child.run_id for child in self.children.values()} | {each["run_id"] for each in self.held}
        return {"has": order["run_id"] in runs}

    def _go(self, _order: dict[str, Any], _conn: socket.socket) -> dict[str, Any]:
        self.retire()
        return {"retires": True}

    def _state(self, _order: dict[str, Any], _conn: socket.socket) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "children": len(self.children),
            "held": len(self.held),
            "threads": len(list(Path("/proc/self/task").iterdir())),
            "fingerprint": self.key,
        }

    def _fork(self, order: dict[str, Any], conn: socket.socket | None = None) -> Identity:
        pid = os.fork()
        if pid == 0:
            self._become_child(conn)
            _run(order)
        self.children[pid] = Child(order["run_id"], order)
        return identity_of(pid)

    def _become_child(self, conn: socket.socket | None = None) -> None:
        """Leave everything of the pool behind: its signals, its sockets, its lock, its lifeline, its session."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.selector.close()
        self.listener.close()
        if conn is not None:
            conn.close()
        if not self.is_retiring:
            os.close(self.lock)  # a child that outlives a killed pool would keep the next one from its place
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)

    def _start_held(self) -> None:
        while self.held and len(self.children) < self.max_children:
            self._fork(self.held.popleft())

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self.reporters.discard(pid)
                child = self.children.pop(pid, None)
                code = os.waitstatus_to_exitcode(status)
                if child is not None and code:
                    self._report(child, code)

    def _report(self, child: Child, code: int) -> None:
        """Tell Dagster, from a child of its own, that a run's process has gone before the run had ended."""
        _say("child ended badly", run_id=child.run_id, code=code)
        pid = os.fork()
        if pid == 0:
            self._become_child()
            _report_crash(child.order, code)
        self.reporters.add(pid)


def _is_waiting(conn: socket.socket) -> bool:
    """Whether the client is still there: an order may have lain here while this process was frozen."""
    conn.settimeout(0.0)  # with a longer one Python would wait for something to read
    try:
        return conn.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        conn.settimeout(CLIENT_S)


def _run(order: dict[str, Any]) -> NoReturn:
    """The child: what `dagster api execute_run` does, and nothing of it survives."""
    code = CRASHED
    try:
        _leave_project_modules()
        os.chdir(order["directory"])
        if order["directory"] not in sys.path:
            sys.path.insert(0, order["directory"])
        invalidate_caches()  # files that are new since the pool has looked
        code = _execute(order)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else CRASHED
    except BaseException:  # noqa: BLE001 this is the process's outermost frame
        traceback.print_exc()
    _leave(code)


def _execute(order: dict[str, Any]) -> int:
    from dagster import DagsterInstance
    from dagster._cli.api import execute_run_command
    from dagster._core.instance.ref import InstanceRef
    from dagster._serdes import deserialize_value
    from dagster._utils.interrupts import setup_interrupt_handlers

    setup_interrupt_handlers()  # SIGTERM interrupts the run, as it does a run of the default launcher
    with DagsterInstance.from_ref(deserialize_value(order["instance_ref"], InstanceRef)) as instance:
        run = instance.get_run_by_id(order["run_id"])
        if run is None or run.is_finished:
            return 0
        instance.add_run_tags(order["run_id"], process_tag(order["run_id"], identity_of(os.getpid())))
    execute_run_command.main([order["arguments"]], standalone_mode=False)
    return 0


def _report_crash(order: dict[str, Any], code: int) -> NoReturn:
    try:
        from dagster import DagsterInstance, DagsterRunStatus
        from dagster._core.instance.ref import InstanceRef
        from dagster._serdes import deserialize_value

        with DagsterInstance.from_ref(deserialize_value(order["instance_ref"], InstanceRef)) as instance:
            run = instance.get_run_by_id(order["run_id"])
            if run is not None and not run.is_finished:
                how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                message = (
                    f"The run's process {how} before the run had ended. What it had committed stays; the rest is "
                    "done by the next run of its days, which the sensor asks for by itself."
                )
                if run.status is DagsterRunStatus.CANCELING:
                    instance.report_run_canceled(run, message)
                else:
                    instance.report_run_failed(run, message)
    except BaseException:  # noqa: BLE001 nobody is above; run monitoring finds the run without a process
        traceback.print_exc()
        _leave(CRASHED)
    _leave(0)


def _leave(code: int) -> NoReturn:
    """Without the interpreter's own end: handlers that libraries registered in the pool are not the child's to run."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _leave_project_modules() -> None:
    """Forget what this file itself brought: the run's code is imported as it is now."""
    for name in [each for each in sys.modules if each == "orchestration" or each.startswith("orchestration.")]:
        del sys.modules[name]


def preload(libraries: Iterable[str]) -> None:
    """Import the libraries; one that is not installed is no reason not to serve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in libraries:
            try:
                import_module(name)
            except ImportError as error:
                _say("library not imported", library=name, error=str(error))
    gc.collect()
    gc.freeze()  # the children share these objects' pages as long as no collection touches them


def _say(event: str, **fields: object) -> None:
    sys.stderr.write(json.dumps({"event": f"pool: {event}", "pid": os.getpid(), **fields}) + "\n")
    sys.stderr.flush()


def _claim(path: Path) -> int | None:
    """The socket's lock; None while another pool has it."""
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _listen(path: Path) -> socket.socket:
    """A socket that only its owner can open, in its place only once it answers."""
    made = path.with_suffix(f".{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listener.bind(str(made))
    finally:
        os.umask(old)
    listener.listen(64)
    made.rename(path)
    return listener


def main() -> int:
    """Import, listen, serve."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--max-children", type=int, default=MAX_CHILDREN)
    parser.add_argument("--preload", default=",".join(LIBRARIES), help="modules, with commas between them")
    parser.add_argument("--lifeline", action="store_true", help="go when standard input ends")
    options = parser.parse_args()
    key = fingerprint(os.environ)
    lock = _claim(options.socket)
    if lock is None:
        return 0
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    began = time.monotonic()
    preload(options.preload.split(","))
    if threading.active_count() > 1:
        names = ", ".join(each.name for each in threading.enumerate())
        _say("not served: a library has started threads, which a fork would lose", threads=names)
        return CRASHED
    listener = _listen(options.socket)
    _say("serves", seconds=round(time.monotonic() - began, 2), socket=str(options.socket))
    Pool(listener, lock, key, options.max_children, 0 if options.lifeline else None).serve(wake_read)
    return 0


if __name__ == "__main__":
    sys.exit(main())
