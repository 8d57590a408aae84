"""Refresh partitions of an incremental refresh policy: which there are on a day, and which holds an invoice day.

Pure. Names are those the service gives: 2010, 2010Q4, 2010Q412, 2010Q41201. Not here: refreshing them (refresh.py).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from powerbi.model import RefreshPolicy

_GRAINS = ("day", "month", "quarter", "year")
_MONTHS = {"month": 1, "quarter": 3, "year": 12}


@dataclass(frozen=True)
class RefreshPartition:
    """A partition: the days from `start` to before `end`."""

    name: str
    start: dt.date
    end: dt.date

    def holds(self, day: dt.date) -> bool:
        """Whether rows of this day belong to the partition."""
        return self.start <= day < self.end


def granule(day: dt.date, grain: str) -> RefreshPartition:
    """The day, month, quarter or year that holds a day."""
    start = _floor(day, grain)
    quarter = (start.month - 1) // 3 + 1
    names = {
        "year": f"{start.year}",
        "quarter": f"{start.year}Q{quarter}",
        "month": f"{start.year}Q{quarter}{start.month:02}",
        "day": f"{start.year}Q{quarter}{start.month:02}{start.day:02}",
    }
    return RefreshPartition(names[grain], start, _add(start, grain, 1))


def partition_named(name: str) -> RefreshPartition:
    """The partition that has this name: 2010, 2010Q4, 2010Q412 or 2010Q41201."""
    grain = {len("2010"): "year", len("2010Q4"): "quarter", len("2010Q412"): "month", len("2010Q41201"): "day"}[
        len(name)
    ]
    month = int(name[6:8] or int(name[5:6] or 1) * 3 - 2)
    return granule(dt.date(int(name[:4]), month, int(name[8:] or 1)), grain)


def policy_partitions(policy: RefreshPolicy, today: dt.date) -> list[RefreshPartition]:
    """Every partition that applying the policy on a day leaves, oldest first.

    Before the incremental window days are kept in the rolling window's grain, and in finer ones only where a coarse
    one would reach into the incremental window.
    """
    oldest = _add(
        _floor(today, policy.rolling_window_granularity),
        policy.rolling_window_granularity,
        -policy.rolling_window_periods,
    )
    window = _add(
        _floor(today, policy.incremental_granularity), policy.incremental_granularity, 1 - policy.incremental_periods
    )
    end = _add(_floor(today, policy.incremental_granularity), policy.incremental_granularity, 1)
    found, day = [], oldest
    while day < end:
        grain = policy.incremental_granularity if day >= window else _coarsest(day, window, policy)
        one = granule(day, grain)
        found.append(one)
        day = one.end
    return found


def incremental_partitions(policy: RefreshPolicy, today: dt.date) -> list[RefreshPartition]:
    """Those that applying the policy reads again although they are filled."""
    count = policy.incremental_periods
    return policy_partitions(policy, today)[-count:]


def _coarsest(day: dt.date, window: dt.date, policy: RefreshPolicy) -> str:
    allowed = _GRAINS[
        _GRAINS.index(policy.incremental_granularity) : _GRAINS.index(policy.rolling_window_granularity) + 1
    ]
    for grain in reversed(allowed):
        one = granule(day, grain)
        if one.start == day and one.end <= window:
            return grain
    return allowed[0]


def _floor(day: dt.date, grain: str) -> dt.date:
    if grain == "day":
        return day
    if grain == "year":
        return day.replace(month=1, day=1)
    month = day.month if grain == "month" else (day.month - 1) // 3 * 3 + 1
    return day.replace(month=month, day=1)


def _add(start: dt.date, grain: str, count: int) -> dt.date:
    if grain == "day":
        return start + dt.timedelta(days=count)
    months = start.year * 12 + start.month - 1 + count * _MONTHS[grain]
    return start.replace(year=months // 12, month=months % 12 + 1)
