"""Every error of this room, in one tree. What belongs here: classes and their attributes; what does not: text.

WarehouseError
├── SettingsError     a setting is missing or wrong; all of them are listed. No retry helps.
├── ContractError     a contract, query or checks file is wrong; file and line are named. No retry helps.
├── JobError          BigQuery refused or failed a job. `is_retryable` says whether trying again can help.
├── MigrateError      a contract asks for a change that would break readers. No retry helps.
├── LoadError         rows do not fit the contract of their table. Nothing was written. No retry helps.
├── FencedError       another load of the same day was faster. Nothing was written: re-read the ledger, try again.
│   └── StaleRowsError       a rebuild read less than the day holds by now. Read the day again.
├── PublishError      a mart could not be published; readers see what they saw before.
│   └── ChecksFailedError    blocking checks found rows; `checks` names them. No retry helps.
├── SelectionError    a selector, or a key to trace, names nothing
├── BudgetError       the day's budget of BigQuery's limits is used up; `renewed_at` says when a retry can help.
└── AccessError       our account lacks permissions; all of them are listed. No retry helps.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime


class WarehouseError(Exception):
    """Root of this room's errors."""

    is_retryable = False


class SettingsError(WarehouseError):
    """One or more settings are missing or wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        listed = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"warehouse settings: {len(problems)} problem(s). Nothing was started.\n{listed}")


class ContractError(WarehouseError):
    """A file under models/ is wrong."""

    def __init__(self, path: object, line: int | None, problem: str) -> None:
        self.path, self.line, self.problem = str(path), line, problem
        super().__init__(f"{path}:{line}: {problem}" if line else f"{path}: {problem}")


class JobError(WarehouseError):
    """A BigQuery job was refused or failed; `detail` is BigQuery's own text."""

    def __init__(
        self, message: str, *, job_id: str | None = None, is_retryable: bool = False, detail: str = ""
    ) -> None:
        self.job_id, self.is_retryable, self.detail = job_id, is_retryable, detail
        super().__init__(message)


class MigrateError(WarehouseError):
    """A contract asks for a change that BigQuery, or a reader, cannot follow."""


class LoadError(WarehouseError):
    """Rows do not fit their table's contract."""

    is_of_rows = True  # whoever loads days together may try each without the others


class FencedError(WarehouseError):
    """Another load of the same day was faster."""

    is_retryable = True


class StaleRowsError(FencedError):
    """A rebuild brought fewer batches than the day holds by now."""


class PublishError(WarehouseError):
    """A table could not be published."""

    def __init__(self, message: str, *, is_retryable: bool = False) -> None:
        self.is_retryable = is_retryable
        super().__init__(message)


class ChecksFailedError(PublishError):
    """Blocking checks found rows; nothing was published, but for what `published` says by table."""

    def __init__(
        self, message: str, checks: Sequence[object], published: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.checks, self.published = tuple(checks), published
        super().__init__(message)


class SelectionError(WarehouseError):
    """A selector, or a key to trace, names nothing."""


class BudgetError(WarehouseError):
    """A daily limit of BigQuery would be exceeded; nothing was written."""

    def __init__(self, message: str, *, renewed_at: datetime) -> None:
        self.renewed_at = renewed_at
        super().__init__(message)


class AccessError(WarehouseError):
    """Permissions are missing."""

    def __init__(self, missing: Sequence[str]) -> None:
        self.missing = tuple(missing)
        listed = "\n".join(f"  - {each}" for each in missing)
        super().__init__(
            f"checking our rights in BigQuery: {len(missing)} permission(s) are missing. Nothing was started.\n{listed}"
        )
