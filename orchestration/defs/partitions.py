"""The days of the business: one partition a calendar day of the shop, up to the last that an event may have.

Belongs here: partitions and how a run's days are read back. Not here: which days need a run (triggers.py).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from orchestration.triggers import days_between

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The landing makes earlier events dead letters, so nothing older can ever arrive.
FIRST_DAY = date(2009, 1, 1)
TIME_ZONE = "Europe/London"

# The contract takes events up to 24 h ahead of the clock (maximumAheadSeconds): tomorrow's, and late on the eve of a
# day of 23 h those of the day after. A day without a partition is not loaded: the line would stand still until then.
DAYS_AHEAD = 2

DAYS = dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), timezone=TIME_ZONE, end_offset=1 + DAYS_AHEAD)


def range_tags(first: date, last: date) -> dict[str, str]:
    """Tags that make one run load every day from first to last."""
    return {ASSET_PARTITION_RANGE_START_TAG: first.isoformat(), ASSET_PARTITION_RANGE_END_TAG: last.isoformat()}


def days_in_tags(tags: Mapping[str, str]) -> tuple[date, ...]:
    """The days that a run with these tags is about; none for a run without partitions, or with those of other assets.

    Assets of another project may be partitioned by country, hour or whatever (the sensors look at every run).
    """
    one = tags.get(PARTITION_NAME_TAG, "")
    first = tags.get(ASSET_PARTITION_RANGE_START_TAG, one)
    last = tags.get(ASSET_PARTITION_RANGE_END_TAG, one)
    try:
        return days_between(date.fromisoformat(first), date.fromisoformat(last))
    except ValueError:
        return ()


def days_of_run(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> Sequence[date]:
    """The days of the run that is at work."""
    return days_in_tags(context.run.tags)


def require_days(context: dg.AssetExecutionContext) -> Sequence[date]:
    """The days of a run that loads or publishes days; a job's launchpad also starts one without any, or of any year.

    Raises:
        Failure: it has none, or some that no partition is of. Nothing was read.
    """
    found = days_of_run(context)
    first, last = (
        context.run.tags.get(tag) for tag in (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
    )
    if not found and first and last:
        raise dg.Failure(
            f"running {context.job_name}: the run is of {first} to {last}, and there is no day in it. "
            "Nothing was read or written. Mend the run's days in the launchpad."
        )
    if not found:
        raise dg.Failure(
            f"running {context.job_name}: no day was chosen for this run, and it loads and publishes days. Nothing was "
            "read or written. Choose a partition in the launchpad, or materialize the assets for a range of days."
        )
    newest = last_day(datetime.now(UTC))
    if found[0] < FIRST_DAY or found[-1] > newest:
        raise dg.Failure(
            f"running {context.job_name}: the run is of {found[0]} to {found[-1]}, and days have partitions from "
            f"{FIRST_DAY} to {newest}. Nothing was read or written. Mend the run's days in the launchpad."
        )
    return found


def today(now: datetime) -> date:
    """The day in the shop's time zone."""
    return now.astimezone(ZoneInfo(TIME_ZONE)).date()


def last_day(now: datetime) -> date:
    """The newest day that has a partition at `now`."""
    return today(now) + timedelta(days=DAYS_AHEAD)
