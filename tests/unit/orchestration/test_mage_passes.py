"""One partition that is to blame keeps no other one from being written; what is not of partitions ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestration.errors import MageRunError
from orchestration.mage import Part, PipelineRun
from orchestration.mage_passes import MOST_FAILED, Outcome, run_passes

if TYPE_CHECKING:
    from collections.abc import Sequence

DAYS = [f"d{number}" for number in range(1, 9)]
NO_PIPELINE: Any = None


def error_of(part: Sequence[str], *, is_of_partitions: bool) -> MageRunError:
    error = MageRunError(f"bad: {', '.join(part)}", pipeline="p", block="b", path=Path("b.py"), line=3)
    error.is_of_partitions = is_of_partitions
    return error


def passed(
    passes: list[list[str]], bad: set[str], *, is_of_partitions: bool = True
) -> tuple[Outcome, list[list[str]], list[str]]:
    """The outcome, each pass that was tried, and what was told."""
    tried: list[list[str]] = []
    told: list[str] = []

    def run_pass(part: Sequence[str], _named: Part) -> PipelineRun:
        tried.append(list(part))
        if bad & set(part):
            raise error_of(part, is_of_partitions=is_of_partitions)
        return PipelineRun(blocks=(), outputs={})

    return run_passes(NO_PIPELINE, passes, run_pass, told.append), tried, told


def written(outcome: Outcome) -> list[str]:
    return [day for part, _run in outcome.written for day in part]


@pytest.mark.parametrize("bad", DAYS)
def test_all_days_but_the_one_to_blame_are_written_once_each(bad: str) -> None:
    outcome, _tried, _told = passed([DAYS[:5], DAYS[5:]], {bad})
    assert written(outcome) == [day for day in DAYS if day != bad]
    assert list(outcome.failed) == [bad]
    assert str(outcome.error()).startswith(f"bad: {bad}")


def test_the_error_says_what_was_written_after_it_and_what_else_failed() -> None:
    outcome, _, told = passed([DAYS], {"d3", "d8"})
    assert str(outcome.error()) == (
        "bad: d3 [Of the run's partitions d3, d8 failed; failed too, each with its error in the run's log: d8; "
        "written after it: d4, d5 to d6, d7.]"
    )
    assert [each for each in told if "two parts" not in each] == ["bad: d3", "bad: d8"]
    assert told[0] == "bad: d1, d2, d3, d4, d5, d6, d7, d8 It is tried in two parts, d1 to d4 and d5 to d8."


def test_a_day_that_fails_alone_is_told_as_it_is() -> None:
    outcome, tried, told = passed([["d1"]], {"d1"})
    assert (str(outcome.error()), tried, told) == ("bad: d1", [["d1"]], [])
    outcome, _, _ = passed([["d1"], ["d2"]], {"d2"})
    assert str(outcome.error()) == "bad: d2", "what was written before stands in its own text"


def test_what_fails_every_day_is_given_up_after_a_few() -> None:
    outcome, tried, told = passed([DAYS], set(DAYS))
    assert len(outcome.failed) == MOST_FAILED
    assert [each for each in told if "two parts" not in each] == [f"bad: {day}" for day in DAYS[:MOST_FAILED]]
    assert written(outcome) == []
    assert [day for part in outcome.left for day in part] == DAYS[MOST_FAILED:]
    assert len(tried) < len(DAYS) + MOST_FAILED
    assert "not tried any more: d6, d7 to d8" in str(outcome.error())


def test_a_server_that_is_away_ends_the_run_at_once() -> None:
    outcome, tried, told = passed([["d1"], ["d2", "d3"], ["d4"]], {"d2"}, is_of_partitions=False)
    assert (written(outcome), tried, told) == (["d1"], [["d1"], ["d2", "d3"]], [])
    assert str(outcome.error()) == "bad: d2, d3"


def test_an_asset_without_partitions_has_one_pass() -> None:
    outcome, tried, _ = passed([[]], set())
    assert (tried, len(outcome.written), outcome.failed) == ([[]], 1, {})
