"""What may go wrong in this room, as one tree.

Belongs here: errors of wiring and of running Mage in process. Not here: errors of the rooms that are wired; they
pass through and keep their names.

OrchestrationError
├── SettingsError      the environment is incomplete; all problems are listed at once
├── MageSpecError      a Mage project cannot become assets: file, line and reason. Raised when it is loaded
├── MageRunError       a block failed: pipeline, block, file, line, and what had been written
├── ZoneError          a topic's days end at another midnight than the partitions'
├── ReconcileError     two layers disagree; the numbers of both are in the message
├── CompareError       a day was asked for that cannot be compared
└── TraceError         an event or a row was named in a way that cannot be read
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class OrchestrationError(Exception):
    """Root of this room's errors."""


class SettingsError(OrchestrationError):
    """The environment is incomplete."""


class MageSpecError(OrchestrationError):
    """A Mage project is wrong where `path`, at `line`, says."""

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        self.path, self.line, self.problem = path, line, problem
        place = f"{path}:{line}" if line else str(path)
        super().__init__(f"{place}: {problem}. No asset was made of this project; mend the file and reload.")


class MageRunError(OrchestrationError):
    """A block of a pipeline failed.

    `is_retryable`: the block's own error says that reading again may help. `is_of_partitions`: by what the run's
    partitions hold, and nothing of them was written, so that each may be tried without the others.
    """

    is_retryable = False
    is_of_partitions = False

    def __init__(self, message: str, *, pipeline: str, block: str, path: Path, line: int | None) -> None:
        self.pipeline, self.block, self.path, self.line = pipeline, block, path, line
        super().__init__(message)


class ZoneError(OrchestrationError):
    """A topic's days are not those of Dagster's partitions; nothing was loaded."""


class ReconcileError(OrchestrationError):
    """Two layers disagree."""


class CompareError(OrchestrationError):
    """A day that was never loaded, or whose events are gone; nothing was read."""


class TraceError(OrchestrationError):
    """What to trace was not understood; nothing was read."""
