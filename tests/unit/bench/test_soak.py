"""What the soak makes of its samples: growth and lag after the warm-up; and that it does not fall over at its end."""

from __future__ import annotations

from typing import Any

import pytest

from bench.soak import Sample, _sent, _summary, table


def samples(count: int, *, memory: Any, **facts: Any) -> list[Sample]:
    return [
        Sample(
            at_s=at * 10.0,
            memory_mb={"consumer": memory(at), "producer": 50.0},
            **{"unlanded": at, "mart_behind_s": 1.0, "report_behind_s": None, **facts},
        )
        for at in range(count)
    ]


def test_growth_before_the_end_of_the_warm_up_does_not_count() -> None:
    found = _summary(samples(90, memory=lambda at: 100.0 + min(at, 30) * 10))
    assert found["memory"] == {"consumer": {"first_mb": 400.0, "last_mb": 400.0, "most_mb": 400.0, "ratio": 1.0}}


def test_growth_afterwards_is_told_by_medians_that_one_peak_does_not_move() -> None:
    def memory(at: int) -> float:
        return 9_000.0 if at in {40, 80} else 100.0 if at < 60 else 150.0

    consumer = _summary(samples(90, memory=memory))["memory"]["consumer"]
    assert consumer == {"first_mb": 100.0, "last_mb": 150.0, "most_mb": 9_000.0, "ratio": 1.5}


def test_a_moment_in_which_a_process_did_not_tell_its_memory_is_no_growth() -> None:
    consumer = _summary(samples(90, memory=lambda at: 0.0 if at % 2 else 100.0))["memory"]["consumer"]
    assert consumer == {"first_mb": 100.0, "last_mb": 100.0, "most_mb": 100.0, "ratio": 1.0}


def test_a_process_that_never_told_its_memory_has_no_ratio_and_the_table_says_so() -> None:
    found = _summary(samples(90, memory=lambda _at: 0.0))
    assert found["memory"]["consumer"]["ratio"] is None
    assert "| consumer | 0 | 0 | 0 | not told |" in _table(found)


def test_lag_is_that_of_the_first_and_the_last_third_after_the_warm_up() -> None:
    found = _summary(samples(90, memory=lambda _at: 1.0))
    lag = found["lags"]["unlanded"]
    assert (lag["first_third"]["max"], lag["last_third"]["p50"], lag["last_third"]["max"]) == (49.0, 80.0, 89.0)
    assert found["lags"]["report_behind_s"] == {"first_third": {}, "last_third": {}}


def test_parts_that_did_not_answer_are_counted_over_the_whole_run_and_told() -> None:
    found = _summary(samples(9, memory=lambda _at: 1.0, troubles={"BigQuery": "silent"}))
    assert found["unanswered"] == 9
    assert "did not answer in time 9" in _table(found)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_run_of_hardly_any_samples_is_still_told(count: int) -> None:
    assert "whole: True" in _table(_summary(samples(count, memory=lambda _at: 1.0)))


def test_what_was_sent_is_what_the_producer_says_at_its_end() -> None:
    assert _sent('started\n{"event": "warmed"}\n{"sent": 1800000, "seconds": 3600}\nbye\n') == 1_800_000


@pytest.mark.parametrize("log", ["", "Traceback\n", '{"event": "warmed"}\n'])
def test_a_producer_that_broke_off_is_told_with_its_last_words(log: str) -> None:
    with pytest.raises(SystemExit, match="without telling what it had sent"):
        _sent(log)


def _table(found: dict[str, Any]) -> str:
    ledgers = {"minutes": 15, "sent": 9, "landed": 9, "core": 9, "mart": 9, "core_less_repeats": 9}
    return table({**ledgers, "differing_days": [], "is_whole": True, "runs": {}, **found})
