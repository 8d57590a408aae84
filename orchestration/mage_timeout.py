"""How long a Mage block may run: Mage's `timeout` of a block, in seconds.

Belongs here: what its values mean, and interrupting what runs longer. Not here: files (mage_spec.py), running and what
a failed block says (mage.py).
Source: mage_ai/orchestration/pipeline_scheduler_original.py, which counts from the block's start, all its tries in it.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator


class BlockTimeoutError(Exception):
    """A block ran longer than its `timeout`; it was interrupted, and trying it again is not asked for."""

    is_retryable = False


def read_timeout(value: Any) -> int | None:
    """A block's `timeout` in seconds as Mage's scheduler takes it, by int(); None, "" and 0 are none.

    Raises:
        ValueError: Mage's scheduler would fail on it in each run.
    """
    if not value:
        return None
    try:
        seconds = int(value)
    except (TypeError, ValueError):
        seconds = 0
    if isinstance(value, bool) or seconds < 1:
        raise ValueError(f"timeout is {value!r}; expected whole seconds from 1 on, or null")
    return seconds


def timeout_problem(value: Any) -> str | None:
    """What is wrong with a `timeout`, in words."""
    try:
        read_timeout(value)
    except ValueError as error:
        return str(error)
    return None


@contextlib.contextmanager
def time_limit(seconds: float | None, block: str) -> Iterator[None]:
    """Interrupt what runs within once the time is up, as a termination from Dagster's UI does: between two statements.

    Only a process's main thread can be interrupted, and it runs the blocks; elsewhere a warning says that none is.

    Raises:
        BlockTimeoutError: it ran longer, also where its own code has caught the interruption.
    """
    if seconds is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        text = "Block %s has a timeout of %g s, which is not kept: it does not run in its process's main thread"
        logging.getLogger(__name__).warning(text, block, seconds)
        yield
        return
    problem = f"it ran longer than its timeout of {seconds:g} s in its pipeline's metadata.yaml"
    is_up = False

    def interrupt(*_signal: object) -> NoReturn:
        nonlocal is_up
        is_up = True
        raise BlockTimeoutError(problem)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if is_up:
        raise BlockTimeoutError(problem)
