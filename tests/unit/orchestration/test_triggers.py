"""Which days get a run: every case without a ledger, a daemon or a clock."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from orchestration.triggers import (
    MAX_DAYS_A_RUN,
    Failures,
    Pending,
    choose_ranges,
    cut_passes,
    days_between,
    landed_key,
    wait_after,
)

FIRST, TODAY, NOW = date(2009, 1, 1), date(2011, 12, 9), 1_000_000.0


def pending(*days: str, landed: str = "0:1") -> list[Pending]:
    return [Pending(date.fromisoformat(day), landed) for day in days]


def ranges(
    days: list[Pending],
    *,
    busy: set[date] | None = None,
    failures: dict[date, Failures] | None = None,
    is_one_queued: bool = False,
) -> list[str]:
    chosen = choose_ranges(
        days, busy=busy or set(), failures=failures or {}, first_day=FIRST, last_day=TODAY, now=NOW,
        is_one_queued=is_one_queued,
    )  # fmt: skip
    return [f"{each.first}:{each.last}" for each in chosen]


def test_a_touched_day_gets_a_run() -> None:
    assert ranges(pending("2010-12-01")) == ["2010-12-01:2010-12-01"]


def test_nothing_pending_asks_for_nothing() -> None:
    assert ranges([]) == []


def test_neighbouring_days_become_one_run_with_the_week_ends_between_them() -> None:
    assert ranges(pending("2010-12-03", "2010-12-01", "2010-12-05")) == ["2010-12-01:2010-12-05"]


def test_days_far_apart_get_a_run_each() -> None:
    assert ranges(pending("2010-12-01", "2011-12-09")) == ["2010-12-01:2010-12-01", "2011-12-09:2011-12-09"]


def test_a_late_event_asks_for_its_own_day() -> None:
    assert ranges(pending("2009-01-01", "2011-12-09"))[0] == "2009-01-01:2009-01-01"


def test_while_a_run_waits_for_its_turn_only_today_is_asked_for_and_afterwards_the_rest_together() -> None:
    late = pending("2010-12-01", "2010-12-02", "2010-12-03")
    assert ranges(late, is_one_queued=True) == []
    assert ranges([*late, *pending("2011-12-08", "2011-12-09")], is_one_queued=True) == ["2011-12-09:2011-12-09"]
    assert ranges(late) == ["2010-12-01:2010-12-03"]


def test_a_busy_day_waits_and_is_not_bridged() -> None:
    assert ranges(pending("2010-12-01", "2010-12-02", "2010-12-03"), busy={date(2010, 12, 2)}) == [
        "2010-12-01:2010-12-01",
        "2010-12-03:2010-12-03",
    ]


def test_a_day_whose_run_was_lost_is_asked_for_again() -> None:
    """Nothing remembers an earlier request: as long as the day differs, the same answer comes."""
    assert ranges(pending("2010-12-01")) == ranges(pending("2010-12-01"))


def test_a_day_without_a_partition_waits_until_it_exists() -> None:
    tomorrow = TODAY + timedelta(days=1)
    assert ranges([Pending(tomorrow, "0:1")]) == []


def test_a_day_before_the_first_partition_never_gets_a_run() -> None:
    assert ranges(pending("2008-12-31")) == []


def test_a_failed_day_waits_longer_each_time() -> None:
    assert [wait_after(Failures(count, 0.0)) for count in (0, 1, 2, 3, 4, 5, 50)] == [0, 5, 20, 80, 320, 600, 600]


@pytest.mark.parametrize(("ago", "asked"), [(4.0, []), (5.0, ["2010-12-01:2010-12-01"])])
def test_a_failed_day_is_asked_for_again_after_its_wait(ago: float, asked: list[str]) -> None:
    failures = {date(2010, 12, 1): Failures(1, NOW - ago)}
    assert ranges(pending("2010-12-01"), failures=failures) == asked


def test_a_failing_day_does_not_hold_up_its_neighbours() -> None:
    failures = {date(2010, 12, 2): Failures(3, NOW)}
    assert ranges(pending("2010-12-01", "2010-12-02", "2010-12-03"), failures=failures) == [
        "2010-12-01:2010-12-01",
        "2010-12-03:2010-12-03",
    ]


@pytest.mark.parametrize(
    ("count", "asked"),
    [
        (1, ["2010-12-01:2010-12-12"]),
        (2, ["2010-12-01:2010-12-07", "2010-12-08:2010-12-12"]),
        (3, [f"2010-12-{day:02d}:2010-12-{day:02d}" for day in range(1, 13)]),
        (9, [f"2010-12-{day:02d}:2010-12-{day:02d}" for day in range(1, 13)]),
    ],
)
def test_days_that_fail_together_are_asked_for_in_smaller_runs(count: int, asked: list[str]) -> None:
    days = [f"2010-12-{day:02d}" for day in range(1, 13)]
    failed = {date.fromisoformat(day): Failures(count, NOW - 10_000) for day in days}
    assert ranges(pending(*days), failures=failed) == asked


def test_a_day_that_fails_is_not_joined_by_days_that_do_not() -> None:
    failed = {date(2010, 12, 2): Failures(3, NOW - 10_000)}
    assert ranges(pending("2010-12-01", "2010-12-02", "2010-12-03"), failures=failed) == [
        "2010-12-01:2010-12-01",
        "2010-12-02:2010-12-02",
        "2010-12-03:2010-12-03",
    ]


def test_a_long_history_is_cut_into_runs() -> None:
    days = days_between(date(2009, 12, 1), date(2011, 12, 9))
    chosen = choose_ranges(
        [Pending(day, "0:1") for day in days], busy=set(), failures={}, first_day=FIRST, last_day=TODAY, now=NOW
    )
    assert [day for each in chosen for day in each.days] == list(days)
    assert max(len(each.days) for each in chosen) == MAX_DAYS_A_RUN


def test_the_key_changes_when_more_has_landed_and_with_each_failure() -> None:
    def key(landed: str, failures: int) -> str:
        [chosen] = choose_ranges(
            pending("2010-12-01", landed=landed),
            busy=set(),
            failures={date(2010, 12, 1): Failures(failures, 0.0)},
            first_day=FIRST,
            last_day=TODAY,
            now=NOW,
        )
        return chosen.key

    assert key("0:1", 0) == key("0:1", 0)
    assert len({key("0:1", 0), key("0:2", 0), key("0:1", 1)}) == 3


def test_how_far_landing_has_got_is_written_in_partition_order() -> None:
    assert landed_key({3: 7, 0: 12}) == "0:12,3:7"


def test_passes_hold_as_many_days_as_fit() -> None:
    rows = {"a": 40, "b": 50, "c": 20, "d": 200, "e": 1}
    assert cut_passes(["a", "b", "c", "d", "e"], rows, max_rows=100) == [["a", "b"], ["c"], ["d"], ["e"]]


def test_passes_hold_every_day_once_and_in_order() -> None:
    days = [day.isoformat() for day in days_between(date(2010, 1, 1), date(2010, 12, 31))]
    passes = cut_passes(days, {}, max_days=62)
    assert [day for each in passes for day in each] == days
    assert max(map(len, passes)) == 62
