"""What the producer told at its end: read from its log, and put into words for the summary.

Not here: the layers, which are counted each by itself (layers.py), and how the producer is started (run.py).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OTHERS_SHOWN = 10
Fed = dict[str, Any]  # as `streaming produce --json` says it


def log_end(log: Path) -> int:
    """Where the next producer will begin to write."""
    return log.stat().st_size if log.exists() else 0


def read_fed(log: Path, *, since: int) -> Fed | None:
    """Its last words, from this byte of the log on; None if it did not get to its end."""
    with log.open("rb") as lines:
        lines.seek(since)
        return next((found for line in lines if (found := _read(line)).get("event") == "produced"), None)


def _read(line: bytes) -> Fed:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def files_line(fed: Fed) -> str:
    """What was read of the files; nothing of a shop, which has none."""
    if "files" not in fed:
        return ""
    rows = fed["sent"] + fed["skipped"] + fed["changed"]
    unreadable = f", {fed['unreadable']:,} of them unreadable" if fed["unreadable"] else ""
    others = f"; left out, as they are no .csv files: {_some(fed['left_out'])}" if fed["left_out"] else ""
    copies = f"; alike to the byte, and each counted: {_some(fed['copies'])}" if fed["copies"] else ""
    overlaps = (
        f"; with invoices in common, each counted twice: {_some(found)}" if (found := fed.get("overlaps")) else ""
    )
    return f"{fed['files']:,} files with {rows:,} rows{unreadable}{others}{copies}{overlaps}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:OTHERS_SHOWN] + ["..."] * (len(names) > OTHERS_SHOWN))


def complaints(fed: Fed) -> Iterator[str]:
    """What of the files is not in the line, so that its sums are not theirs."""
    if fed["changed"]:
        yield (
            f"{fed['changed']:,} rows are not what was sent before under their number and were left out, the first at "
            f"{', '.join(fed['changed_at'])}. The end of the producer's log says what to do"
        )
