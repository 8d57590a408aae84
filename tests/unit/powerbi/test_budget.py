"""The eight refreshes a day: spread over what is left of it, and the last change always gets its own."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from powerbi.budget import SHARED_BUDGET, next_refresh_at, refreshes_left

MIDNIGHT = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def entry(at: dt.datetime) -> dict[str, Any]:
    return {"startTime": at.isoformat()}


def test_change_after_a_quiet_time_is_due_at_once() -> None:
    assert next_refresh_at([], MIDNIGHT + 10 * HOUR) == MIDNIGHT + 10 * HOUR
    yesterday = [entry(MIDNIGHT - 5 * HOUR)]
    assert next_refresh_at(yesterday, MIDNIGHT + 10 * HOUR) == MIDNIGHT + 10 * HOUR


def test_stream_of_changes_has_a_refresh_every_three_hours() -> None:
    history: list[dict[str, Any]] = []
    now, seen = MIDNIGHT, []
    while now < MIDNIGHT + 24 * HOUR:
        if next_refresh_at(history, now) <= now:
            history.append(entry(now))
            seen.append(now)
        now += dt.timedelta(minutes=1)
    assert [(at - MIDNIGHT) // HOUR for at in seen] == [0, 3, 6, 9, 12, 15, 18, 21]


def test_spent_budget_is_due_again_at_midnight() -> None:
    history = [entry(MIDNIGHT + number * HOUR / 10) for number in range(SHARED_BUDGET)]
    assert refreshes_left(history, MIDNIGHT + HOUR) == 0
    assert next_refresh_at(history, MIDNIGHT + HOUR) == MIDNIGHT + 24 * HOUR


def test_time_without_a_zone_is_utc_and_other_zones_count_by_their_utc_day() -> None:
    late = {"startTime": "2026-03-01T23:30:00-02:00"}  # already 2 March in UTC
    assert refreshes_left([late, {"startTime": "2026-03-02T00:10:00"}], MIDNIGHT + HOUR) == SHARED_BUDGET - 2


@given(st.lists(st.integers(min_value=0, max_value=3 * 24 * 60 - 1), min_size=1, max_size=200, unique=True))
def test_budget_is_never_exceeded_and_the_last_change_is_always_shown(minutes: list[int]) -> None:
    changes = sorted(MIDNIGHT + dt.timedelta(minutes=minute) for minute in minutes)
    history: list[dict[str, Any]] = []
    shown: dt.datetime | None = None
    pending = list(changes)
    now = changes[0]
    while pending or (shown is not None and shown < changes[-1]):
        pending = [at for at in pending if at > now]
        newest = max(at for at in changes if at <= now)
        due = next_refresh_at(history, now)
        if (shown is None or shown < newest) and due <= now:
            assert refreshes_left(history, now) > 0
            history.append(entry(now))
            shown = now
            continue
        waits = [at for at in (min(pending, default=None), due if shown is None or shown < newest else None) if at]
        now = min(waits)
    assert shown is not None
    assert changes[-1] <= shown <= changes[-1] + 24 * HOUR
    days = [at.date() for at in (dt.datetime.fromisoformat(one["startTime"]) for one in history)]
    assert all(days.count(day) <= SHARED_BUDGET for day in days)
