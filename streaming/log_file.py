"""Where log lines go, and what becomes of one that is not taken. Not here: what is logged, in which form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import MutableMapping


class LogFile:
    """A file for `structlog.PrintLogger` that a full disk does not turn into the end of what is logged about.

    A landing that waits for a lake whose disk is full says so; where its own log is on that disk, the line would end it
    and nobody start it again. A reader that has left its pipe (`2>&1 | head`) ends the process as ever.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._held_up = 0
        self._line: list[str] = []

    def write(self, text: str) -> None:
        """Keep a part of a line until `flush`."""
        self._line.append(text)

    def flush(self) -> None:
        """Write the line; one that is not taken is counted. What fits into the file's own buffer comes out later."""
        line = "".join(self._line)
        self._line.clear()
        try:
            self._file.write(line)
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError:
            self._held_up += 1
        else:
            self._held_up = 0

    def tell_held_up(self, _logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """A processor: the next line says how many before it were not taken."""
        return {**event, "log_lines_held_up": self._held_up} if self._held_up else event
