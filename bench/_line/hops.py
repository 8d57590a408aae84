"""When each event was where: pure, from ledgers that the line itself keeps, one after the other.

Belongs here: joining the ledgers, percentiles. Not here: asking for them (ledgers.py), running the line (rig.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HOPS = (
    "produced -> landed",
    "landed -> sensed",
    "sensed -> run started",
    "run started -> core committed",
    "core committed -> mart published",
)


@dataclass(frozen=True, slots=True)
class Event:
    """A landed event; all times are seconds since 1970."""

    day: str
    part: int
    batch: int
    produced_at: float
    landed_at: float


@dataclass(frozen=True, slots=True)
class Load:
    """One load of a day into core. `batches`: topic partition -> last batch that is contained."""

    day: str
    version: int
    batches: Mapping[int, int]
    run_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Publication:
    """One publication of a day of the fact table, visible from `at` on, built from core's `source_version`."""

    day: str
    source_version: int
    at: float


@dataclass(frozen=True, slots=True)
class Run:
    """When a run was asked for, and when its own process had begun it."""

    requested_at: float
    started_at: float


def follow(
    events: Iterable[Event], loads: Iterable[Load], publications: Iterable[Publication], runs: Mapping[str, Run]
) -> tuple[list[tuple[float, ...]], int]:
    """For each event the instants of its way (one more than hops), and how many events are not in the mart.

    An event that lands while its run is at work is neither sensed nor waits for a start: both hops are 0.
    """
    by_day: dict[str, list[Load]] = defaultdict(list)
    for load in sorted(loads, key=lambda each: each.version):
        by_day[load.day].append(load)
    published: dict[str, list[Publication]] = defaultdict(list)
    for each in sorted(publications, key=lambda each: (each.source_version, each.at)):
        published[each.day].append(each)
    ways, missing = [], 0
    for event in events:
        load = _first_load(by_day[event.day], event)
        shown = _first_publication(published[event.day], load) if load else None
        if load is None or shown is None:
            missing += 1
            continue
        run = runs[load.run_id]
        way = [event.produced_at]
        for at in (event.landed_at, run.requested_at, run.started_at, load.at, shown.at):
            way.append(max(at, way[-1]))
        ways.append(tuple(way))
    return ways, missing


def _first_load(loads: Sequence[Load], event: Event) -> Load | None:
    at = bisect_left(loads, event.batch, key=lambda load: load.batches.get(event.part, 0))
    return loads[at] if at < len(loads) else None


def _first_publication(publications: Sequence[Publication], load: Load) -> Publication | None:
    at = bisect_left(publications, load.version, key=lambda each: each.source_version)
    return min(publications[at:], key=lambda each: each.at, default=None)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99, max in seconds."""
    ordered = sorted(values)
    last = len(ordered) - 1
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[round(share * last)], 3) for name, share in shares.items()} if ordered else {}


def summarize(ways: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    """From the first instant to the last, and each hop."""
    return {
        "events": len(ways),
        "event_to_mart_s": percentiles([way[-1] - way[0] for way in ways]),
        "landed_to_mart_s": percentiles([way[-1] - way[1] for way in ways]),
        "hops": {hop: percentiles([way[at + 1] - way[at] for way in ways]) for at, hop in enumerate(HOPS)},
    }
