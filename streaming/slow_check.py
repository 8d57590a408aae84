r"""Ends the check of an event that takes far too long: a contract's `pattern` may try more ways than there is time for.

Python's regular expressions go back: `^(\w+\s?)*$` takes hours over forty letters and an exclamation mark, while
nothing else of the process runs. Python looks for signals as it matches, so a timer's signal can end it. Its time is
the process' own on the processor: a busy machine, or a process that was stopped, makes no event slow.
Not here: what becomes of such an event (decode.py).
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class SlowCheckError(Exception):
    """The check has taken its time."""


@contextmanager
def limited_check(seconds: float) -> Iterator[None]:
    """Raise SlowCheckError in the block after so many seconds of processor time.

    Only in a process' main thread, where commands check events; in another one there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_on = True

    def on_signal(_number: int, _frame: Any) -> None:
        if is_on:
            raise SlowCheckError

    signal.signal(signal.SIGVTALRM, on_signal)  # it stays: a late signal would end the process without a handler
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        is_on = False  # one that comes now is late
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
