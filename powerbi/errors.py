"""Everything that can go wrong in this room, as one tree. No logic, no I/O.

PowerBiError
├── SettingsError            the environment is wrong; all problems at once
├── ProjectError             a file of the project folder cannot be read
│   ├── TmdlError            ... its TMDL
│   └── PbirError            ... its report JSON
├── DaxError                 a DAX text
│   ├── DaxSyntaxError       is not DAX
│   └── DaxRefusedError      is DAX, but outside the subset, or names what does not exist
├── ServiceError             the service answered with something else than asked for
│   ├── AuthorizationError   401 or 403: no retry helps
│   ├── ThrottledError       429 for longer than we are willing to wait
│   ├── RefreshError         a refresh failed, was cancelled or timed out
│   │   └── BudgetSpentError today's refreshes are used up; the change waits for the next budget
│   ├── OperationError       a long-running operation failed
│   └── PublishError         applying stopped at a change; those before it are done
├── StateError               the stand-in's folder was written by another version
└── WarehouseError           the stand-in could not read the marts
"""

from __future__ import annotations


class PowerBiError(Exception):
    """Root of this room's errors."""


class SettingsError(PowerBiError):
    """The environment is wrong; `problems` lists everything that is."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("Power BI settings: " + "; ".join(problems) + ". Nothing was sent. See .env.example.")
        self.problems = problems


class ProjectError(PowerBiError):
    """A file of the project folder cannot be read."""

    def __init__(self, file: str, line: int, what: str) -> None:
        super().__init__(f"{file}:{line}: {what}")
        self.file = file
        self.line = line
        self.what = what


class TmdlError(ProjectError):
    """A TMDL file does not follow the format."""


class PbirError(ProjectError):
    """A report file does not follow the format."""


class DaxError(PowerBiError):
    """A DAX text cannot be evaluated; `where` names it, `position` counts characters from 0."""

    def __init__(self, what: str, *, position: int = 0, where: str = "query") -> None:
        super().__init__(f"{where}, character {position + 1}: {what}")
        self.what = what
        self.position = position
        self.where = where


class DaxSyntaxError(DaxError):
    """Not DAX."""


class DaxRefusedError(DaxError):
    """DAX outside the subset that is translated, or a name that does not exist."""


class ServiceError(PowerBiError):
    """The service answered with something else than asked for."""

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class AuthorizationError(ServiceError):
    """401 or 403; retrying with the same identity does not help."""


class ThrottledError(ServiceError):
    """429 for longer than the caller is willing to wait."""


class RefreshError(ServiceError):
    """A refresh did not end as Completed; `request_id` names it."""

    def __init__(
        self, message: str, *, request_id: str | None = None, status: int | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.request_id = request_id


class BudgetSpentError(RefreshError):
    """Today's refreshes of a shared capacity are used up."""


class OperationError(ServiceError):
    """A long-running operation ended as Failed or did not end in time."""


class PublishError(ServiceError):
    """Applying stopped at a change; those before it are done, those after it are not."""


class StateError(PowerBiError):
    """The stand-in's folder was written by another version, or is not a stand-in's."""


class WarehouseError(PowerBiError):
    """The stand-in could not read a mart."""
