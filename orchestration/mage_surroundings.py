"""What a Mage block finds around it and may change for the whole process: the folder at work, the environment.

Belongs here: keeping a pass's changes from the next pass and from the process, and naming them. Not here: variables,
frames and context of a run (mage.py), helper modules (mage_imports.py).
"""

from __future__ import annotations

import contextlib
import decimal
import locale
import os
import signal
import threading
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAGES_OWN = {"MAGE_RUNTIME__REPO_PATH"}  # set by Mage before each block's code


@dataclass(frozen=True)
class Surroundings:
    """The folder at work, None where it was removed, and the environment."""

    folder: str | None
    environment: Mapping[str, str]

    @classmethod
    def now(cls) -> Surroundings:
        """As they are."""
        folder = None
        with contextlib.suppress(OSError):
            folder = os.getcwd()  # noqa: PTH109 - a text to compare
        return cls(folder, dict(os.environ))

    def changes(self) -> list[str]:
        """What is different now, by name; values may be secrets."""
        now = Surroundings.now()
        names = {name for name, _ in self.environment.items() ^ now.environment.items()} - MAGES_OWN
        changed = [f"os.environ[{name!r}]" for name in sorted(names)]
        return changed if self.folder == now.folder else [f"the working directory (now {now.folder})", *changed]

    def restore(self) -> None:
        """Make it as it was; a folder that is there no more is left."""
        now = Surroundings.now()
        if self.folder is not None and now.folder != self.folder:
            with contextlib.suppress(OSError):
                os.chdir(self.folder)
        if now.environment == self.environment:
            return
        for name in now.environment.keys() - self.environment.keys():
            del os.environ[name]
        os.environ.update(self.environment)
        if now.environment.get("TZ") != self.environment.get("TZ"):
            time.tzset()


@contextlib.contextmanager
def own_surroundings() -> Iterator[None]:
    """Inside, blocks change them for each other as in Mage's runs in one process; outside they are as before.

    So is the context of decimal numbers: a precision that a block sets would round the sums that checks compare later.
    So is the locale, which blocks set to read the names of months: Mage reads blocks' files in its encoding.
    So is what a signal does: a block that ignores SIGTERM would keep Dagster from ending the run, and others after it.
    So is which warnings are errors or not told: what a block silences is told of the runs' own code.
    """
    before, spoken, handlers = Surroundings.now(), locale.setlocale(locale.LC_ALL), _signal_handlers()
    with decimal.localcontext(), warnings.catch_warnings():
        try:
            yield
        finally:
            before.restore()
            locale.setlocale(locale.LC_ALL, spoken)
            _restore_signals(handlers)


def _signal_handlers() -> Mapping[signal.Signals, Any]:
    """What Python does on each signal; not of those that are handled outside of Python, which cannot be set back."""
    found = {each: signal.getsignal(each) for each in signal.valid_signals() if isinstance(each, signal.Signals)}
    return {each: handler for each, handler in found.items() if handler is not None}


def _restore_signals(handlers: Mapping[signal.Signals, Any]) -> None:
    """Only the main thread may, and only there can a block have changed one."""
    if threading.current_thread() is threading.main_thread():
        for each, handler in handlers.items():
            if signal.getsignal(each) is not handler:
                signal.signal(each, handler)
