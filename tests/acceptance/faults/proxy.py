"""A TCP proxy before PostgreSQL that knows where in a landing transaction a session is, and strikes there.

It reads the client's half of the protocol message by message (version 3, simple queries: what psycopg2 speaks). What
strikes (cut, kill, freeze) is given by the test. Not here: judging what is left afterwards (rig.py).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Self
from urllib.parse import urlsplit

READY_IDLE = b"Z\0\0\0\5I"
STARTUP_CODES = {196_608, 196_610}  # protocol 3.0 and 3.2; other codes ask for TLS or GSS, and another packet follows
FRAME = struct.Struct(">ci")


class Moment(Enum):
    """Where in a landing transaction."""

    BEGUN = "before COPY, the offsets locked"
    COPY = "in the middle of COPY's bytes"
    COPIED = "between COPY and the ledger"
    LEDGER = "between the ledger and COMMIT"  # the COMMIT is on its way, the server has not seen it
    COMMITTED = "the server has committed, the client does not know it"
    ANSWERED = "after the answer to COMMIT"


@dataclass
class Session:
    """One connection through the proxy."""

    client: socket.socket
    server: socket.socket
    has_copied: bool = False
    on_commit: Callable[[], None] | None = None
    hold: threading.Event = field(default_factory=threading.Event)

    def cut(self) -> None:
        """Reset both halves, as a failing network does."""
        for side in (self.client, self.server):
            with contextlib.suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()

    def pause(self) -> None:
        """Let nothing pass until somebody calls `release`; called by the thread that reads from the client."""
        self.hold.clear()
        self.hold.wait(120)

    def release(self) -> None:
        self.hold.set()


@dataclass
class Trap:
    """Strikes once, at the nth such moment from now."""

    moment: Moment
    nth: int
    strike: Callable[[Session], None]
    sprung: threading.Event = field(default_factory=threading.Event)

    def wait(self, timeout_s: float = 60.0) -> None:
        assert self.sprung.wait(timeout_s), f"{self.moment.value}: did not come {self.nth} times in {timeout_s:.0f} s"


class LakeProxy:
    """Listens before a server; `dsn` leads through it. `pace_s` slows each landing transaction down."""

    def __init__(self, dsn: str, *, pace_s: float = 0.0) -> None:
        parts = urlsplit(dsn)
        self.upstream = (parts.hostname, parts.port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        self.dsn = dsn.replace(f"@127.0.0.1:{parts.port}/", f"@127.0.0.1:{port}/")
        assert self.dsn != dsn
        self.pace_s = pace_s
        self.landings = 0
        self._traps: list[Trap] = []
        self._sessions: list[Session] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def trap(self, moment: Moment, strike: Callable[[Session], None], *, nth: int = 1) -> Trap:
        """Set a trap for whoever passes."""
        trap = Trap(moment, nth, strike)
        with self._lock:
            self._traps.append(trap)
        return trap

    def clear(self) -> None:
        """Take all traps away."""
        with self._lock:
            self._traps.clear()

    def close(self) -> None:
        self.listener.close()
        for session in self._sessions:
            session.release()
            session.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self.upstream, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for side in (client, server):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = Session(client, server)
            self._sessions.append(session)
            for relay in (self._relay_up, self._relay_down):
                threading.Thread(target=_quietly, args=(relay, session), daemon=True).start()

    def _relay_up(self, session: Session) -> None:
        """Client to server, message by message."""
        reader = session.client.makefile("rb")
        code = None
        while code not in STARTUP_CODES:
            head = _read(reader, 8)
            length, code = struct.unpack(">ii", head)
            session.server.sendall(head + _read(reader, length - 8))
        while True:
            head = _read(reader, 5)
            kind, length = FRAME.unpack(head)
            self._pass(session, kind, head, _read(reader, length - 4))

    def _pass(self, session: Session, kind: bytes, head: bytes, body: bytes) -> None:
        whole = head + body
        is_commit = kind == b"Q" and session.has_copied and body.startswith(b"COMMIT")
        if kind == b"Q" and body.startswith(b"COPY landing."):
            self._at(Moment.BEGUN, session)
        if kind == b"d" and len(body) > 200:
            session.server.sendall(whole[: len(whole) // 2])
            self._at(Moment.COPY, session)
            whole = whole[len(whole) // 2 :]
        if kind == b"c":
            session.has_copied = True
        if is_commit:
            self.landings += 1
            time.sleep(self.pace_s)
            self._at(Moment.LEDGER, session)
            session.on_commit = lambda: self._at(Moment.COMMITTED, session)
            session.has_copied = False
        session.server.sendall(whole)
        if kind == b"c":
            self._at(Moment.COPIED, session)

    def _relay_down(self, session: Session) -> None:
        """Server to client; the answer to COMMIT is held while the trap is sprung."""
        while data := session.server.recv(65_536):
            on_commit = session.on_commit
            is_answer = on_commit is not None and data.endswith(READY_IDLE)
            if is_answer:
                session.on_commit = None
                on_commit()
            session.client.sendall(data)
            if is_answer:
                self._at(Moment.ANSWERED, session)
        session.cut()

    def _at(self, moment: Moment, session: Session) -> None:
        due = []
        with self._lock:
            for trap in [trap for trap in self._traps if trap.moment is moment]:
                trap.nth -= 1
                if trap.nth <= 0:
                    self._traps.remove(trap)
                    due.append(trap)
        for trap in due:
            try:
                trap.strike(session)
            finally:
                trap.sprung.set()


def _read(reader: object, size: int) -> bytes:
    data = reader.read(size)
    if len(data) < size:
        raise ConnectionError
    return data


def _quietly(relay: Callable[[Session], None], session: Session) -> None:
    """A relay until either side has gone."""
    try:
        relay(session)
    except (OSError, ValueError):
        session.cut()
