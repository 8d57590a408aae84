"""The days that have a partition are those that an event may have."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from orchestration.defs.partitions import DAYS, DAYS_AHEAD, FIRST_DAY, TIME_ZONE, last_day, today
from orchestration.defs.topics import feeds
from streaming.contract import Contract, load_contract

CONTRACTS = [load_contract(topic) for topic in sorted({feed.topic for feed in feeds()})]
# A year, its short and its long day included, on the half hour.
MOMENTS = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=30) * step for step in range(366 * 48)]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.topic)
def test_every_event_that_a_contract_takes_has_a_partition(contract: Contract) -> None:
    assert contract.time_zone == TIME_ZONE, (
        f"{contract.path}: write timeZone {TIME_ZONE}, whose midnight ends a day of Dagster's"
    )
    ahead, zone = timedelta(seconds=contract.maximum_ahead_s), ZoneInfo(contract.time_zone)
    without = [now for now in MOMENTS if (now + ahead).astimezone(zone).date() > last_day(now)]
    assert without == [], "events of these moments would wait for their day; raise DAYS_AHEAD or lower the contract"


def test_no_day_has_a_partition_that_no_event_may_have() -> None:
    ahead = timedelta(seconds=max(contract.maximum_ahead_s for contract in CONTRACTS))
    assert max((today(now + ahead) - today(now)).days for now in MOMENTS) == DAYS_AHEAD


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-07-01T22:59:59+00:00", date(2026, 7, 1)),
        ("2026-07-01T23:00:00+00:00", date(2026, 7, 2)),
        ("2026-03-28T23:30:00+00:00", date(2026, 3, 28)),  # tomorrow has 23 h
        ("2026-10-24T23:30:00+00:00", date(2026, 10, 25)),  # today has 25 h
    ],
)
def test_dagster_s_last_partition_is_our_last_day(now: str, day: date) -> None:
    moment = datetime.fromisoformat(now)
    assert today(moment) == day
    with dg.partition_loading_context(effective_dt=moment):
        assert DAYS.get_last_partition_key() == last_day(moment).isoformat()
        assert DAYS.get_first_partition_key() == FIRST_DAY.isoformat()
