"""The eight refreshes a day of a shared capacity: how many are left, and when the next one is worth its price.

Here: pure decisions from the refresh history. Not here: asking for it (refresh.py), waiting (whoever calls).
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

SHARED_BUDGET = 8  # refreshes a day, scheduled ones included
_DAY = dt.timedelta(days=1)


def refreshes_left(history: Iterable[dict[str, Any]], now: dt.datetime) -> int:
    """Refreshes that the rest of the day (UTC) allows."""
    today = now.astimezone(dt.UTC).date()
    return max(0, SHARED_BUDGET - sum(started_at(one).date() == today for one in history))


def next_refresh_at(history: Iterable[dict[str, Any]], now: dt.datetime) -> dt.datetime:
    """When a change may have its refresh so that the budget lasts until midnight.

    What is left is spread over what is left of the day, counted from the last refresh: a change after a quiet morning
    is shown at once, a stream of changes every few hours, and the last change of a day never finds the budget spent
    for long: the next day begins with a full one.
    """
    listed = list(history)
    midnight = dt.datetime.combine(now.astimezone(dt.UTC).date(), dt.time(), dt.UTC) + _DAY
    left = refreshes_left(listed, now)
    if left == 0:
        return midnight
    last = max((started_at(one) for one in listed), default=None)
    if last is None:
        return now
    return max(now, last + (midnight - max(last, midnight - _DAY)) / (left + 1))


def started_at(entry: dict[str, Any]) -> dt.datetime:
    """When a refresh of the history started."""
    found = dt.datetime.fromisoformat(entry["startTime"])
    return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
