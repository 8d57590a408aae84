"""Signals: a first SIGTERM or SIGINT asks to stop, a second one ends the process. Not here: what stopping means."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger()


@contextmanager
def stopping(stop: threading.Event | None = None, *, leaves_within_s: float | None = None) -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; the second signal ends the process.

    Args:
        stop: the event, for who has had to hand it on before.
        leaves_within_s: so long after the first signal the process ends with code 0, whatever it waits for. Only for
            a program that loses nothing by it.
    """
    stop = stop or threading.Event()

    def on_signal(number: int, _frame: Any) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        with nullcontext() if leaves_within_s is None else _leaving_within(leaves_within_s):
            yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _leaving_within(seconds: float) -> Iterator[None]:
    """End the process so long after a signal, unless the block is left before.

    Python runs a signal's handler between two steps of its main thread, so not while that waits in a library's code: a
    connection to a frozen server takes ten seconds to fail. The signal's number is written to a pipe at once.
    """
    left = threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # as set_wakeup_fd demands

    def watch() -> None:
        while number := os.read(reader, 1):
            if number[0] in SIGNALS:
                if not left.wait(seconds):
                    _end_now()
                break

    before = signal.set_wakeup_fd(writer)
    watcher = threading.Thread(target=watch, name="leaving", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        os.close(writer)  # which ends the watcher's read
        watcher.join()
        os.close(reader)


def _end_now() -> None:
    try:  # what was printed is flushed by who printed it; a full disk or a reader that left must not keep us here
        log.warning(
            "left_at_once", note="what the landing waited for did not answer; what is not committed will be read again"
        )
    finally:
        os._exit(0)
