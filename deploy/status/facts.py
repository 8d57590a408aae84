"""What is known of the line at one moment, and what follows from it. Pure: no service is asked here.

Belongs here: numbers, limits, findings and the words for them. Not here: asking (ask.py), serving (__main__.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum

PARTS = ("kafka", "lake", "dagster", "warehouse", "report")
"""In the order of an event's way; dagster stands where it moves events from the lake to the warehouse."""


class Level(IntEnum):
    """How bad something is; the worst of all findings is the line's."""

    WELL = 0
    LOOK = 1  # nothing is late or lost, somebody should look some time today
    LATE = 2  # numbers are right but old
    BROKEN = 3  # something is down, lost or does not add up


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Beyond them it is told. The alert rules (deploy/monitoring/alerts.yaml) carry the same numbers, by a test."""

    unlanded_events: int = 10_000  # two seconds of a busy consumer; lower tells of every restart
    unlanded_s: float = 120.0  # the event that waits longest; a consumer that is started anew lands within a minute
    pending_s: float = 900.0  # a day waits so long for its run; a run takes seconds to a few minutes
    mart_behind_s: float = 900.0  # newest landed event against newest in the marts
    report_behind_s: float = 3_600.0  # the report is refreshed every five minutes; on Pro 8 times a day: raise it there
    failed_runs: int = 5  # within a day; single ones are tried again by themselves


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the parts say. None: not known, see troubles."""

    asked_at: datetime
    troubles: dict[str, str] = field(default_factory=dict)
    unlanded: int | None = None
    waiting_since: datetime | None = None
    landed_rows: int | None = None
    dead_letters: int | None = None
    lost_offsets: int | None = None
    newly_lost_offsets: int | None = None
    unaccounted: int | None = None
    newest_landed_at: datetime | None = None
    pending_days: int | None = None
    oldest_pending_at: datetime | None = None
    is_daemon_alive: bool | None = None
    is_code_loaded: bool | None = None
    failed_runs: int | None = None
    runs_at_work: int | None = None
    days: int | None = None
    differing_days: tuple[str, ...] = ()  # each with its topic
    uncompared_days: int | None = None  # loaded since their last comparison: while events flow that is today
    uncompared_since: datetime | None = None  # when the first of them was loaded last
    is_lake_restored: bool | None = None  # and was not told of it
    mart_rows: int | None = None
    mart_as_of: datetime | None = None
    report_as_of: datetime | None = None
    refreshed_at: datetime | None = None
    is_refresh_failed: bool | None = None

    @property
    def unlanded_s(self) -> float:
        """How long the event that waits longest has waited to be landed."""
        return _seconds(self.waiting_since, self.asked_at)

    @property
    def pending_s(self) -> float:
        """How long the day that waits longest has waited."""
        return _seconds(self.oldest_pending_at, self.asked_at)

    @property
    def uncompared_s(self) -> float:
        """How long ago a day was loaded that has not been compared since; the longest."""
        return _seconds(self.uncompared_since, self.asked_at)

    @property
    def mart_behind_s(self) -> float | None:
        """By how much the newest event in the marts is older than the newest landed one."""
        return None if self.mart_as_of is None else _seconds(self.mart_as_of, self.newest_landed_at)

    @property
    def report_behind_s(self) -> float | None:
        """By how much the report is older than the newest landed event."""
        return None if self.report_as_of is None else _seconds(self.report_as_of, self.newest_landed_at)


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be, and what to do."""

    level: Level
    part: str
    what: str
    do: str
    runbook: str

    def __str__(self) -> str:
        """In one line."""
        return f"{self.part}: {self.what} -> {self.do} (docs/runbooks/{self.runbook}.md)"


def judge(facts: Facts, limits: Limits | None = None) -> list[Finding]:
    """Everything worth telling, the worst first."""
    limits = limits or Limits()
    found = [
        Finding(Level.BROKEN, part, f"does not answer: {why}", "start it or see its log", "service-down")
        for part, why in facts.troubles.items()
    ]
    found += _judge_landing(facts, limits) + _judge_runs(facts, limits) + _judge_results(facts, limits)
    return sorted(found, key=lambda finding: (-finding.level, PARTS.index(finding.part)))


def _judge_landing(facts: Facts, limits: Limits) -> list[Finding]:
    found = []
    if (facts.unlanded or 0) > limits.unlanded_events or facts.unlanded_s > limits.unlanded_s:
        what = f"{_count(facts.unlanded)} events wait to be landed, the first for {span(facts.unlanded_s)}"
        found.append(Finding(Level.LATE, "kafka", what, "is the consumer up?", "landing-lag"))
    if facts.newly_lost_offsets:
        what = f"{facts.newly_lost_offsets:,} events were deleted from Kafka before they landed"
        found.append(Finding(Level.BROKEN, "lake", what, "produce them again from their source", "lost-events"))
    if facts.is_lake_restored:
        what = "it came back from a backup and lacks batches that are loaded already: days are not loaded any more"
        do = "as its owner: streaming lake restored"
        found.append(Finding(Level.BROKEN, "lake", what, do, "backup-and-restore"))
    if facts.unaccounted:
        what = f"{facts.unaccounted:,} offsets are neither landed nor dead letters nor gaps"
        found.append(Finding(Level.BROKEN, "lake", what, "stop loading and look", "does-not-reconcile"))
    if facts.dead_letters:
        found.append(
            Finding(Level.LOOK, "lake", f"{facts.dead_letters:,} dead letters", "mend and replay them", "dead-letters")
        )
    return found


def _judge_runs(facts: Facts, limits: Limits) -> list[Finding]:
    found = []
    if facts.is_daemon_alive is False:
        found.append(
            Finding(Level.BROKEN, "dagster", "the daemon is silent: nothing is triggered", "start it", "service-down")
        )
    if facts.is_code_loaded is False:
        found.append(Finding(Level.BROKEN, "dagster", "the code location does not load", "see its log", "service-down"))
    if facts.pending_days and facts.pending_s > limits.pending_s:
        what = f"{facts.pending_days} day(s) landed but not in the marts, for {span(facts.pending_s)}"
        found.append(Finding(Level.LATE, "dagster", what, "did a run fail, is a sensor stopped?", "days-pending"))
    if (facts.failed_runs or 0) >= limits.failed_runs:
        found.append(
            Finding(
                Level.LOOK,
                "dagster",
                f"{facts.failed_runs} runs failed within a day",
                "read their errors",
                "days-pending",
            )
        )
    return found


def _judge_results(facts: Facts, limits: Limits) -> list[Finding]:
    found = []
    if facts.differing_days:
        days = ", ".join(facts.differing_days[:3]) + (" ..." if len(facts.differing_days) > 3 else "")  # noqa: PLR2004
        found.append(
            Finding(
                Level.BROKEN, "warehouse", f"does not reconcile: {days}", "rebuild these days", "does-not-reconcile"
            )
        )
    if facts.uncompared_s > limits.pending_s:
        what = f"a day was loaded {span(facts.uncompared_s)} ago and not compared since: do its marts show it?"
        found.append(Finding(Level.LOOK, "warehouse", what, "dbt-like-sql plan 'mart.*' tells", "does-not-reconcile"))
    if (facts.mart_behind_s or 0.0) > limits.mart_behind_s:
        what = f"the marts are {span(facts.mart_behind_s)} behind what landed"
        found.append(Finding(Level.LATE, "warehouse", what, "did a run fail, is a sensor stopped?", "days-pending"))
    if facts.is_refresh_failed:
        found.append(Finding(Level.LATE, "report", "the last refresh failed", "read its error", "failed-refresh"))
    elif (facts.report_behind_s or 0.0) > limits.report_behind_s:
        what = f"the report is {span(facts.report_behind_s)} behind what landed"
        found.append(Finding(Level.LATE, "report", what, "is a refresh blocked?", "failed-refresh"))
    return found


def describe(facts: Facts, findings: list[Finding]) -> str:
    """The status in about ten lines."""
    worst = max((finding.level for finding in findings), default=Level.WELL)
    word = {
        Level.WELL: "WELL",
        Level.LOOK: "WELL, with something to look at",
        Level.LATE: "LATE: what it shows is right but old",
        Level.BROKEN: "BROKEN",
    }[worst]
    lines = [f"The line is {word}   ({facts.asked_at:%Y-%m-%d %H:%M:%S} UTC)"]
    lines += [f"  {part:<10} {facts.troubles.get(part) or text}" for part, text in _parts(facts).items()]
    if findings:
        lines += ["What to do:", *(f"  {finding}" for finding in findings[:4])]
    if len(findings) > 4:  # noqa: PLR2004
        lines.append(f"  ... and {len(findings) - 4} more")
    return "\n".join(lines)


def _parts(facts: Facts) -> dict[str, str]:
    landed, dead, lost = (_count(each) for each in (facts.landed_rows, facts.dead_letters, facts.lost_offsets))
    work, failed, pending = (_count(each) for each in (facts.runs_at_work, facts.failed_runs, facts.pending_days))
    daemon, code = _yes(facts.is_daemon_alive), _yes(facts.is_code_loaded)
    # the rows are those of the last comparison, minutes ago: beside the newest instant they would look like a loss
    days, differ, uncompared = _count(facts.days), len(facts.differing_days), _count(facts.uncompared_days)
    compared = f"{days} days, {differ} differ, {uncompared} not compared yet ({_count(facts.mart_rows)} rows compared)"
    refreshed = instant(facts.refreshed_at)
    return {
        "kafka": f"{_count(facts.unlanded)} events wait to be landed",
        "lake": f"{landed} events landed, newest {instant(facts.newest_landed_at)}; {dead} dead letters, {lost} lost",
        "dagster": f"daemon {daemon}, code {code}; {work} runs at work, {failed} failed; {pending} day(s) to load",
        "warehouse": f"{compared}; marts as of {instant(facts.mart_as_of)}, {_behind(facts.mart_behind_s)}",
        "report": f"as of {instant(facts.report_as_of)}, {_behind(facts.report_behind_s)}; refreshed {refreshed}",
    }


def _seconds(earlier: datetime | None, later: datetime | None) -> float:
    if earlier is None or later is None:
        return 0.0
    return max(0.0, (later - earlier).total_seconds())


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _yes(value: bool | None) -> str:  # noqa: FBT001 - a value to put into words
    return {None: "?", True: "up", False: "DOWN"}[value]


def _behind(seconds: float | None) -> str:
    return "not filled yet" if seconds is None else "current" if seconds < 1 else f"{span(seconds)} behind"


def instant(at: datetime | None) -> str:
    """A time of day and its date, or that there is none."""
    return "none yet" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def span(seconds: float | None) -> str:
    """A duration as one reads it: 12 s, 5 min, 3 h 20 min, 2 days."""
    whole = timedelta(seconds=round(seconds or 0))
    hours, rest = divmod(whole.seconds, 3600)
    if whole.days:
        return f"{whole.days} day(s) {hours} h"
    if hours:
        return f"{hours} h {rest // 60} min"
    return f"{rest // 60} min" if rest >= 120 else f"{rest} s"  # noqa: PLR2004
