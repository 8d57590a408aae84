"""What may go wrong in this room, as one tree.

Belongs here: errors of reading, transforming and exporting frames. Not here: errors of the lake or the
warehouse themselves, which their own rooms raise and which pass through unchanged.

MageProjectError
├── SettingsError     the environment does not say where the lake or the warehouse is
├── VariableError     a runtime variable (day, mode) is missing or cannot be read
├── PlanError         a frame has lost, or contradicts, the note of what it was read from
├── TransformError    a row breaks a rule that the contract should have kept out
└── ExportError       the warehouse refused the load; nothing of this run was written
"""

from __future__ import annotations


class MageProjectError(Exception):
    """Root of this room's errors."""


class SettingsError(MageProjectError):
    """The environment is incomplete; all problems are listed at once."""


class VariableError(MageProjectError):
    """A runtime variable is missing or unreadable; nothing was read."""

    says_next_step = True


class PlanError(MageProjectError):
    """The frame's read plan is missing or contradicts the block; nothing was written."""


class TransformError(MageProjectError):
    """One row broke a rule; attributes say which, so that nobody parses the message."""

    def __init__(self, message: str, *, topic_partition: int, topic_offset: int, column: str) -> None:
        super().__init__(message)
        self.topic_partition = topic_partition
        self.topic_offset = topic_offset
        self.column = column


class ExportError(MageProjectError):
    """The load was fenced off; nothing of this run was written. Reading again helps."""

    is_retryable = True
