"""What can go wrong with the processes that the demo and the tests start.

    DeployError
    ├── NotInstalledError    a part is missing: `make setup` brings it
    ├── PortInUseError       somebody else listens there
    ├── NotReadyError        the process ended, or did not answer in time; carries its log's tail
    ├── StateError           the folder cannot be a demo's state
    └── AlreadyRunningError  another demo or server works on the same state

Each message says what was tried, what was found, and what to do. Errors of the rooms themselves do not belong here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class DeployError(Exception):
    """Root of this room's errors."""


class NotInstalledError(DeployError):
    """A part is not there."""


class AlreadyRunningError(DeployError):
    """The state is in use by another process."""


class StateError(DeployError):
    """A folder cannot be a demo's state."""


class PortInUseError(DeployError):
    """A port that was asked for is taken."""

    def __init__(self, service: str, port: int, *, remedy: str) -> None:
        self.service = service
        self.port = port
        super().__init__(
            f"{service} could not start: port {port} on 127.0.0.1 is in use by another program. "
            f"Nothing was changed. {remedy}"
        )


class NotReadyError(DeployError):
    """A process ended at once or never answered."""

    def __init__(self, service: str, *, found: str, log: Path, remedy: str) -> None:
        self.service = service
        self.log = log
        super().__init__(f"{service} did not come up: {found}. {remedy}\nLast lines of {log}:\n{tail(log)}")


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, indented, for a message."""
    try:
        text = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return "    (there is no such file)"
    return "\n".join(f"    {line}" for line in text) or "    (empty)"
