"""A count of the layers before and after says what was lost or doubled, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from deploy.docker.compare_layers import Counts, await_agreement, problems

ROOT = Path(__file__).resolve().parents[2]
BEFORE = Counts(
    next_offsets={"t/0": 60, "t/1": 40}, waiting=7, landed=97, dead_letters=1, gaps=2, is_closed=True, core=90,
    repeats=3, mart=80,
)  # fmt: skip
AFTER = Counts(
    next_offsets={"t/0": 70, "t/1": 50, "t/2": 5}, waiting=0, landed=120, dead_letters=3, gaps=2, is_closed=True,
    core=120, repeats=4, mart=116,
)  # fmt: skip


def test_a_line_that_went_on_from_a_busy_moment_has_no_problem() -> None:
    assert problems(BEFORE, AFTER) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"next_offsets": {"t/0": 59, "t/1": 50}}, "t/0 went back from offset 60 to 59"),
        ({"next_offsets": {"t/0": 70}}, "t/1 went back from offset 40 to 0"),
        ({"waiting": 1}, "1 events in Kafka have not landed"),
        ({"waiting": None}, "unknown number"),
        ({"is_closed": False}, "neither landed"),
        ({"gaps": 3}, "gaps grew from 2 to 3"),
        ({"core": 119, "mart": 115}, "core has 119 rows of 120 landed"),
        ({"core": 121, "mart": 117}, "core has 121 rows of 120 landed"),
        ({"mart": 115}, "the marts have 115 rows, core 116"),
        ({"mart": 117}, "the marts have 117 rows, core 116"),
        ({"landed": 96, "core": 96, "mart": 92}, "landed fell from 97 to 96"),
    ],
)
def test_each_loss_and_each_double_is_told(change: dict[str, object], words: str) -> None:
    (found,) = problems(BEFORE, replace(AFTER, **change))  # type: ignore[arg-type]
    assert words in found


def test_it_waits_for_what_is_on_its_way_and_no_longer_than_told() -> None:
    now = [0.0]
    answers = [replace(AFTER, waiting=3), replace(AFTER, mart=1), AFTER]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def clock() -> float:
        return now[0]

    after, found = await_agreement(BEFORE, lambda: answers.pop(0), patience_s=60, clock=clock, sleep=sleep)
    assert (after, found, answers) == (AFTER, [], [])
    late = replace(AFTER, waiting=3)
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
