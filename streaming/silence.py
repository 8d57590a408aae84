"""A limit to what a server may keep us waiting: the connection to a lake that falls silent is given up.

A PostgreSQL backend that is stopped, or a network that swallows packets, leaves a client in its system call for ever:
the kernel's limits (database.py) help only where bytes stay unacknowledged. Here: cutting the connection from outside,
so that the call ends with an error. Not here: what is tried again, and when (writer.py, rejoining.py).
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2

from streaming.errors import LakeUnavailableError, SilentLakeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name


class Cutter:
    """Cuts one connection, from any thread. It has a handle of its own, so it can never cut another one."""

    def __init__(self, conn: Connection) -> None:
        self.is_expired = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = socket.socket(fileno=os.dup(conn.fileno()))

    def cut(self) -> None:
        """End whatever waits for the server; nothing if the connection has been released."""
        with self._lock:
            if self._socket is None:
                return
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:  # the server was quicker
                return

    def expire(self) -> None:
        """Cut it because the time is up."""
        with self._lock:
            self.is_expired = self._socket is not None
        self.cut()

    def release(self) -> None:
        """From here on nothing is cut."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


@contextmanager
def limited(conn: Connection, limit_s: float, tried: str) -> Iterator[Cutter]:
    """Cut the connection if the block takes longer.

    Whether the server committed is not known then: ask the ledger before trying again.

    Raises:
        SilentLakeError: the limit has passed.
        LakeUnavailableError: the connection was closed before.
    """
    try:
        cutter = Cutter(conn)
    except (psycopg2.Error, OSError) as error:
        raise LakeUnavailableError(f"{tried}: the connection is closed. Nothing was written.") from error
    timer = threading.Timer(limit_s, cutter.expire)
    timer.daemon = True
    timer.start()
    try:
        yield cutter
    except Exception as error:
        if not cutter.is_expired:
            raise
        raise SilentLakeError(
            f"{tried}: PostgreSQL took the connection, but was not done within {limit_s:.0f} s "
            f"(STREAMING_LAKE_ANSWER_S). The connection is given up; what it had not committed is tried again, what it "
            f"had is found in the ledger. Is the server stopped, its disk stuck, or the network in between silent? If "
            f"it is only slow, set a smaller STREAMING_BATCH_EVENTS or a larger STREAMING_LAKE_ANSWER_S."
        ) from error
    finally:
        timer.cancel()
        cutter.release()
