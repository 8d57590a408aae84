"""Which days to load now: a pure decision, taken anew from what is at each tick.

Belongs here: grouping days into ranges, leaving out what is at work, waiting after failures. Not here: reading the
ledger, Dagster's instance, the clock (all are passed in), so that every case is tested without any of them.

Level-triggered: nothing here remembers what was asked before. A lost trigger, a killed run or a daemon that was
down change nothing: the day still differs, so the next tick asks again (docs/decisions/0006-level-triggered.md).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

# Days without events between two touched ones cost a ledger query each in the same run; a run of its own costs some
# seconds to start. A week bridges week-ends and holidays without walking through empty months.
BRIDGED_GAP_DAYS = 7
# A year in one run; more is split, so that a failure late in it does not repeat the whole history.
MAX_DAYS_A_RUN = 366
# Rows of all days of a pass are held at once, at roughly 1 KB each through all blocks.
MAX_ROWS_A_PASS = 500_000
# BigQuery changes at most 4,000 table partitions in one job; the script that names each day stays readable.
MAX_DAYS_A_PASS = 62
# The same after so many failures in a row: what fails by one of its days is cut down until that day fails alone, and
# the others are loaded. The first failure may be an outage, for which nothing need be cut.
MAX_DAYS_AFTER = {0: MAX_DAYS_A_RUN, 1: MAX_DAYS_A_RUN, 2: 7}
# After the n-th failure in a row a day waits; a permanent error then costs a run every ten minutes, not every tick.
FIRST_WAIT_S, MAX_WAIT_S = 5.0, 600.0


@dataclass(frozen=True, order=True)
class Pending:
    """A day on which more has landed than the marts show. `landed` names how far landing has got."""

    day: date
    landed: str


@dataclass(frozen=True)
class Failures:
    """How often in a row runs of a day have failed, and when the last one ended (epoch seconds)."""

    count: int
    last_ended_at: float


@dataclass(frozen=True)
class DayRange:
    """Days from first to last that one run loads; `key` differs whenever what it would load differs."""

    first: date
    last: date
    key: str

    @property
    def days(self) -> tuple[date, ...]:
        """Every day of the range."""
        return days_between(self.first, self.last)


def cut_passes(
    days: Sequence[str], rows: Mapping[str, int], *, max_rows: int = MAX_ROWS_A_PASS, max_days: int = MAX_DAYS_A_PASS
) -> list[list[str]]:
    """Days in order, cut so that each pass is bounded; a day larger than the bound is a pass of its own."""
    passes: list[list[str]] = []
    held = 0
    for day in days:
        size = rows.get(day, 0)
        if not passes or held + size > max_rows or len(passes[-1]) >= max_days:
            passes.append([])
            held = 0
        passes[-1].append(day)
        held += size
    return passes


def landed_key(batches: Mapping[int, int]) -> str:
    """A short text of how far each topic partition has landed: '0:12,3:7'."""
    return ",".join(f"{part}:{batch}" for part, batch in sorted(batches.items()))


def days_between(first: date, last: date) -> tuple[date, ...]:
    """Every day from first to last, both included."""
    return tuple(first + timedelta(days=offset) for offset in range((last - first).days + 1))


def wait_after(failures: Failures) -> float:
    """Seconds that a day waits after its failures: 5, 20, 80, 320, then ten minutes."""
    return float(min(FIRST_WAIT_S * 4 ** (failures.count - 1), MAX_WAIT_S)) if failures.count else 0.0


def choose_ranges(
    pending: Iterable[Pending],
    *,
    busy: Collection[date],
    failures: Mapping[date, Failures],
    first_day: date,
    last_day: date,
    now: float,
    is_one_queued: bool = False,
) -> list[DayRange]:
    """The runs to request now.

    Args:
        pending: the days that differ.
        busy: days that a run is at work on; they are asked for again when it has ended and they still differ.
        failures: days whose last runs failed; they wait, longer each time.
        first_day: the first day that has a partition; earlier ones never get a run (the landing refuses them).
        last_day: the last day that has a partition; later ones wait until it exists.
        now: epoch seconds.
        is_one_queued: whether a run that was asked for has not begun. Then only the last day is asked for: what would
            wait behind it one by one is asked for together once it has begun.
    """
    avoided = {*busy, *(day for day, failed in failures.items() if now < failed.last_ended_at + wait_after(failed))}
    ready = [each for each in sorted(pending) if first_day <= each.day <= last_day and each.day not in avoided]
    if is_one_queued:
        ready = [each for each in ready if each.day == last_day]
    return [_range(group, failures) for group in _groups(ready, avoided, failures)]


_NEVER = Failures(count=0, last_ended_at=0.0)


def _groups(
    ready: Sequence[Pending], avoided: Collection[date], failures: Mapping[date, Failures]
) -> list[list[Pending]]:
    """Neighbours together, unless the gap is long, the run would be, or a day that must not run lies between them."""
    groups: list[list[Pending]] = []
    for each in ready:
        if groups and _joins(groups[-1], each.day, avoided, failures):
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def _joins(group: Sequence[Pending], day: date, avoided: Collection[date], failures: Mapping[date, Failures]) -> bool:
    gap = (day - group[-1].day).days - 1
    length = (day - group[0].day).days + 1
    between = days_between(group[-1].day, day)
    failed = max(failures.get(each, _NEVER).count for each in (*(each.day for each in group), day))
    return (
        gap <= BRIDGED_GAP_DAYS
        and length <= MAX_DAYS_AFTER.get(failed, 1)
        and not any(each in avoided for each in between)
    )


def _range(group: Sequence[Pending], failures: Mapping[date, Failures]) -> DayRange:
    first, last = group[0].day, group[-1].day
    attempt = max(failures.get(each.day, _NEVER).count for each in group)
    state = ";".join(f"{each.day}={each.landed}" for each in group)
    digest = hashlib.sha256(state.encode()).hexdigest()[:12]
    return DayRange(first=first, last=last, key=f"{first}:{last}:{digest}:{attempt}")
