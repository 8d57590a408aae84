"""Under a flood of runs the day's budget of modifications lasts until it is renewed; the flow never stops before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dbt_like_sql.errors import BudgetError
from dbt_like_sql.quotas import A_RUN, AT_ONCE, KEPT_BACK, TableUse, Use, as_records, renewed_at, wait_s

MIDNIGHT = datetime(2026, 3, 4, 8, tzinfo=UTC)  # midnight in California


def use(modifications: int, limit: int = 30_000, since: datetime = MIDNIGHT) -> Use:
    return Use(since, (TableUse("mart.a", modifications, limit), TableUse("mart.b", 0, limit)), 0)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (datetime(2026, 3, 4, 8, tzinfo=UTC), datetime(2026, 3, 4, 8, tzinfo=UTC)),
        (datetime(2026, 3, 4, 7, 59, tzinfo=UTC), datetime(2026, 3, 3, 8, tzinfo=UTC)),
        (datetime(2026, 7, 4, 12, tzinfo=UTC), datetime(2026, 7, 4, 7, tzinfo=UTC)),
    ],
)
def test_limits_are_renewed_at_midnight_in_california(now: datetime, expected: datetime) -> None:
    assert renewed_at(now) == expected


def test_quiet_day_never_waits_and_a_burst_is_free_at_first() -> None:
    assert wait_s(use(0), MIDNIGHT) == 0
    assert wait_s(use(int(30_000 * (1 - KEPT_BACK) * AT_ONCE) - A_RUN), MIDNIGHT) == 0
    assert wait_s(use(10_000), MIDNIGHT + timedelta(hours=12)) == 0


@pytest.mark.parametrize("limit", [300, 30_000])
@pytest.mark.parametrize("run_s", [0.5, 5.0])
def test_flood_of_a_whole_day_stays_within_the_budget_and_never_stops(limit: int, run_s: float) -> None:
    now, done, waits = MIDNIGHT, 0, []
    end = MIDNIGHT + timedelta(days=1)
    while now < end:
        try:
            waited = wait_s(use(done, limit), now)
        except BudgetError:
            break
        now += timedelta(seconds=waited)
        done += A_RUN
        waits.append(waited)
        now += timedelta(seconds=run_s)
    assert done <= limit * (1 - KEPT_BACK)
    assert done >= min(limit * (1 - KEPT_BACK), 86_400 / run_s * A_RUN) * 0.98, "the budget is used, not saved"
    assert now > end - timedelta(seconds=max(waits) + 2 * run_s + 60), "the flow went on to the end of the day"


def test_used_up_budget_is_an_error_that_says_when_it_is_renewed() -> None:
    with pytest.raises(BudgetError, match=r"29999 of BigQuery's 30000 .* after 2026-03-05 08:00 UTC") as caught:
        wait_s(use(29_999), MIDNIGHT)
    assert caught.value.renewed_at == MIDNIGHT + timedelta(days=1)


def test_table_for_people_begins_with_the_busiest() -> None:
    assert [each["table"] for each in as_records(use(15_000))] == ["mart.a", "mart.b"]
    assert as_records(use(15_000))[0]["used"] == "50.0%"
