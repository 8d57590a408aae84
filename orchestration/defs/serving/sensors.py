"""When to refresh the report: as soon as the marts show more than it does, but not more often than the setting says.

Belongs here: asking Dagster's instance and waiting. Not here: what has changed (changes.py), what a refresh does
(assets.py), how a shared capacity's refreshes are spread over the day (powerbi).
"""

import os
import time
from datetime import UTC, datetime

import dagster as dg

from orchestration.defs.jobs import serve_reports
from orchestration.defs.resources import LakeResource
from orchestration.defs.runs import at_work, failures_in_a_row
from orchestration.defs.serving.changes import DAILY_MARTS, SEMANTIC_MODEL, Changed, changed_since_refresh
from orchestration.defs.topics import MARTS_READER, feeds
from orchestration.defs.warehouse.events import newest_event
from orchestration.settings import OrchestrationSettings
from orchestration.triggers import wait_after

WAIT_S = 25.0
POLL_S = 0.5
# A run reports its days one after the other; a refresh between two of them would be followed by another at once.
SETTLED_S = 1.0
# A report that is later than this is a worse evil than a line that runs a little slower beside its refreshes.
SHARED_PAUSE_MOST_S = 120.0
# A run marks its days in the lake some seconds after its events, a minute on a busy machine: what is later than this
# belongs to events that are lost.
MARKED_LATER_S = 300.0
# What marts have published by no event that Dagster has: of all days, and long ago.
NEVER_TOLD = Changed(newest=0, newest_at=0.0, days=None)


@dg.sensor(
    job=serve_reports,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Requests dimensions, refresh and report whenever a mart was published since what the last refresh covers; "
        "waits in its tick, and keeps the least time between two refreshes (SERVE_EVERY_S; on a shared capacity what "
        "is left of its eight a day is spread over what is left of the day)."
    ),
)
def published_days(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Return as soon as a refresh is due, at the latest after WAIT_S."""
    settings = OrchestrationSettings.from_env(os.environ)
    deadline = time.monotonic() + WAIT_S
    is_history_lost = _is_history_lost(context.instance)
    while True:
        # Before the rest: of a refresh that ends meanwhile, the others know neither that it runs nor how long it took.
        is_at_work = at_work(context.instance, serve_reports.name)
        now = datetime.now(tz=UTC).timestamp()
        last = context.instance.get_latest_materialization_event(SEMANTIC_MODEL)
        due_at = _due_at(context.instance, settings, last)
        if due_at > now:
            reason: str | None = f"the last refresh was less than {settings.serve_every_s:.0f} s ago"
            if due_at - now > settings.serve_every_s:
                reason = f"the last refresh took long; the next is due in {due_at - now:.0f} s (SERVE_SHARE)"
        else:
            changed = changed_since_refresh(context.instance) or (NEVER_TOLD if is_history_lost else None)
            reason = _why_not(context.instance, changed, settings.serve_every_s, now, last, is_at_work=is_at_work)
            reason = reason or _why_the_budget_does_not()
        if reason is None:
            return dg.RunRequest()
        left = deadline - time.monotonic()
        if left <= 0 or reason.startswith(_BUDGET):
            return dg.SkipReason(reason)
        # What the pause hides need not be looked at twice a second: each look is several queries of Dagster's storage.
        time.sleep(min(left, max(POLL_S, due_at - now)))


_BUDGET = "the budget of the shared capacity"


def _due_at(instance: dg.DagsterInstance, settings: OrchestrationSettings, last: dg.EventLogEntry | None) -> float:
    """When the pause since the last refresh is over, in seconds since 1970; 0 before the first one."""
    if last is None:
        return 0.0
    pause_s = settings.serve_every_s
    if settings.serve_share < 1 and last.run_id and instance.has_run(last.run_id):
        stats = instance.get_run_stats(last.run_id)
        if stats.start_time and stats.end_time:
            pause_s = pause_after(stats.end_time - stats.start_time, pause_s, settings.serve_share)
    return float(last.timestamp) + pause_s


def pause_after(took_s: float, every_s: float, share: float) -> float:
    """The pause after a refresh that took so long, in seconds; `share`: the most of the time that refreshes may take.

    A day's refresh reads the day whole, so it takes longer as the day grows: where the parts share a machine, the pause
    grows with it. At some length it stays, so that the report does not fall behind all day; half of the time is the
    line's in any case.
    """
    shared_s = took_s / share if share < 1 else 0.0
    return max(every_s, min(shared_s, max(SHARED_PAUSE_MOST_S, took_s)))


def _why_the_budget_does_not() -> str | None:
    """Why a shared capacity's budget lets the change wait, or None; asked from the service once a tick."""
    from powerbi.errors import PowerBiError
    from powerbi.refresh import refresh_due_at
    from powerbi.settings import PowerBiSettings

    settings = PowerBiSettings.from_env(os.environ, needs_ids=False)
    if settings.refresh_mode != "basic":
        return None
    try:
        due = refresh_due_at(settings)
    except PowerBiError as error:
        return f"{_BUDGET} is not known: {error}"
    if due <= datetime.now(tz=UTC):
        return None
    return f"{_BUDGET} allows the next refresh at {due:%Y-%m-%d %H:%M} UTC; the change waits"


def _is_history_lost(instance: dg.DagsterInstance) -> bool:
    """Whether marts were published after all that Dagster knows of: its database was emptied, or is an older copy.

    What had been published and not been shown is in no event then, and would wait for the next publication, on a quiet
    line for days. Asked from the marks in the lake, a cheap question: a line that is new has none. The marks come
    first: a run's events are older than its marks, and one that publishes meanwhile is not taken for lost.
    """
    from streaming import lake

    with LakeResource().connect("orchestration.published_days") as conn:
        marked = [lake.last_marked_at(conn, feed.topic, MARTS_READER) for feed in feeds()]
    refreshed = instance.get_latest_materialization_event(SEMANTIC_MODEL)
    known_at = max(newest_event(instance, DAILY_MARTS)[1], refreshed.timestamp if refreshed else 0.0)
    return any(each is not None and each.timestamp() > known_at + MARKED_LATER_S for each in marked)


def _why_not(
    instance: dg.DagsterInstance,
    changed: Changed | None,
    every_s: float,
    now: float,
    last: dg.EventLogEntry | None,
    *,
    is_at_work: bool,
) -> str | None:
    """Why no refresh of what has changed is due, or None."""
    if changed is None:
        return "the report shows everything that was published"
    if is_at_work:
        return "a refresh is at work"
    if now < changed.newest_at + SETTLED_S and (last is None or now < last.timestamp + 2 * every_s + SETTLED_S):
        return "marts are being published"
    failed = failures_in_a_row(instance, serve_reports.name)
    if now < failed.last_ended_at + wait_after(failed):
        return f"{failed.count} refresh(es) failed in a row; the next is due {wait_after(failed):.0f} s after the last"
    return None
