"""A count of the layers before and after says what was lost or doubled, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from deploy.docker.compare_layers import Counts, await_agreement, problems

ROOT = Path(__file__).resolve().parents[2]
BEFORE = Counts(
    next_offsets={"t/0": 60, "t/1": 40}, waiting={"t": 7}, landed={"t": 97}, dead_letters=1, gaps=2, is_closed=True,
    topics={"core.t": ["t"]}, core={"core.t": 90}, repeats={"core.t": 3}, mart={"core.t": 80},
)  # fmt: skip
AFTER = Counts(
    next_offsets={"t/0": 70, "t/1": 50, "t/2": 5}, waiting={"t": 0}, landed={"t": 120}, dead_letters=3, gaps=2,
    is_closed=True, topics={"core.t": ["t"]}, core={"core.t": 120}, repeats={"core.t": 4}, mart={"core.t": 116},
)  # fmt: skip


def test_a_line_that_went_on_from_a_busy_moment_has_no_problem() -> None:
    assert problems(BEFORE, AFTER) == []


def test_each_topic_is_compared_with_its_own_tables_alone() -> None:
    """One has no pipeline yet; one is in two tables, of which the second keeps no single events in a mart."""
    found = replace(
        AFTER,
        waiting={"t": 0, "new": 0},
        landed={"t": 120, "new": 30},
        topics={"core.t": ["t"], "core.twice": ["t"], "core.by_hand": []},
        core={"core.t": 120, "core.twice": 120, "core.by_hand": 5},
        repeats={"core.t": 4, "core.twice": 0, "core.by_hand": 0},
    )
    assert problems(BEFORE, found) == []
    short = replace(found, core={**found.core, "core.t": 121, "core.twice": 119}, mart={"core.t": 117})
    assert problems(BEFORE, short) == [
        "core.t has 121 rows of 120 landed of t",
        "core.twice has 119 rows of 120 landed of t",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"next_offsets": {"t/0": 59, "t/1": 50}}, "t/0 went back from offset 60 to 59"),
        ({"next_offsets": {"t/0": 70}}, "t/1 went back from offset 40 to 0"),
        ({"waiting": {"t": 1}}, "1 events of t in Kafka have not landed"),
        ({"waiting": {"t": None}}, "unknown number"),
        ({"is_closed": False}, "neither landed"),
        ({"gaps": 3}, "gaps grew from 2 to 3"),
        ({"core": {"core.t": 119}, "mart": {"core.t": 115}}, "core.t has 119 rows of 120 landed of t"),
        ({"core": {"core.t": 121}, "mart": {"core.t": 117}}, "core.t has 121 rows of 120 landed of t"),
        ({"mart": {"core.t": 115}}, "the mart of core.t has 115 rows, core 116"),
        ({"mart": {"core.t": 117}}, "the mart of core.t has 117 rows, core 116"),
        ({"landed": {"t": 96}, "core": {"core.t": 96}, "mart": {"core.t": 92}}, "landed of t fell from 97 to 96"),
    ],
)
def test_each_loss_and_each_double_is_told(change: dict[str, object], words: str) -> None:
    (found,) = problems(BEFORE, replace(AFTER, **change))  # type: ignore[arg-type]
    assert words in found


def test_it_waits_for_what_is_on_its_way_and_no_longer_than_told() -> None:
    now = [0.0]
    answers = [replace(AFTER, waiting={"t": 3}), replace(AFTER, mart={"core.t": 1}), AFTER]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def clock() -> float:
        return now[0]

    after, found = await_agreement(BEFORE, lambda: answers.pop(0), patience_s=60, clock=clock, sleep=sleep)
    assert (after, found, answers) == (AFTER, [], [])
    late = replace(AFTER, waiting={"t": 3})
    after, found = await_agreement(BEFORE, lambda: late, patience_s=60, clock=clock, sleep=sleep)
    assert after is late
    assert len(found) == 1
    assert now[0] <= 20 + 60 + 10


def test_the_workflow_compares_counts_around_its_kill() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["containers"]["steps"]
    (step,) = (step["run"] for step in steps if " kill " in step.get("run", ""))
    order = [step.index(word) for word in ("compare_layers > ", " kill ", " up -d", " stop producer", "--since -")]
    assert order == sorted(order)
    assert step.index("stop producer") < step.index("--since -")
