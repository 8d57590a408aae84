"""What the demo reads in its producer's log, and says of it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from deploy.demo.fed import complaints, files_line, log_end, read_fed
from deploy.demo.run import _require_fed
from deploy.errors import NotReadyError

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.processes import Process

FED = {"event": "produced", "sent": 5, "skipped": 2, "changed": 0, "changed_at": []}


def ended(log: Path, code: int) -> Process:
    return cast("Process", SimpleNamespace(log=log, exit_code=lambda: code))


def write(log: Path, *told: dict[str, Any]) -> None:
    with log.open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in told)


def test_the_end_that_an_earlier_producer_told_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    log = tmp_path / "producer.log"
    assert log_end(log) == 0
    write(log, FED)
    began = log_end(log)
    with pytest.raises(NotReadyError, match="exit code 1"):
        _require_fed(ended(log, 1), began)
    write(log, {"event": "producing", "sent": 1}, FED | {"sent": 1})
    log.write_text(log.read_text() + "SourceError: not JSON\n")
    assert read_fed(log, since=began) == FED | {"sent": 1}


def test_a_producer_that_sent_all_but_changed_rows_does_not_stop_the_demo_and_is_complained_of(tmp_path: Path) -> None:
    log = tmp_path / "producer.log"
    write(log, FED | {"changed": 1_200, "changed_at": ["a.csv:3", "a.csv:7"]})
    fed = _require_fed(ended(log, 1), 0)
    (complaint,) = complaints(fed)
    assert complaint.startswith("1,200 rows are not what was sent before")
    assert "a.csv:3, a.csv:7" in complaint


def test_the_summary_says_what_was_read_and_what_was_left_out() -> None:
    files = FED | {"files": 3, "sent": 4_000, "unreadable": 2, "left_out": ["more.csv.gz", "old/"], "copies": []}
    assert files_line(files) == (
        "3 files with 4,002 rows, 2 of them unreadable; left out, as they are no .csv files: more.csv.gz, old/"
    )
    assert files_line(files | {"unreadable": 0, "left_out": []}) == "3 files with 4,002 rows"
    overlapping = files | {"unreadable": 0, "left_out": [], "overlaps": ["b.csv and a.csv (2, as 536367)"]}
    assert files_line(overlapping).endswith("in common, each counted twice: b.csv and a.csv (2, as 536367)")
    copied = files | {"unreadable": 0, "left_out": [], "copies": ["b.csv = a.csv"]}
    assert files_line(copied) == "3 files with 4,002 rows; alike to the byte, and each counted: b.csv = a.csv"
    assert files_line(FED) == ""


def test_files_that_are_in_the_line_whole_are_no_complaint() -> None:
    assert list(complaints(FED)) == []
