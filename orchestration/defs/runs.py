"""What Dagster's instance says of the runs of a job: at work, ended, failed in a row.

Belongs here: questions that both sensors ask. Not here: what follows from the answers (triggers.py, sensors).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import BACKFILL_ID_TAG

from orchestration.defs import keep_up
from orchestration.defs.partitions import days_in_tags
from orchestration.triggers import MAX_DAYS_A_RUN, Failures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

AT_WORK = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.MANAGED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
YET_TO_BEGIN = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
BACKFILL_TAG = "retail/backfill"  # ours, beside Dagster's: transform/assets.py says why
# Enough to see every day's last run in a flow of one run every few seconds; older failures are no reason to wait.
RUNS_LOOKED_AT = 200


def runs_at_work(instance: dg.DagsterInstance) -> Sequence[dg.RunRecord]:
    """The runs of all jobs that are queued or running: asked for once, for all questions of a look."""
    return instance.get_run_records(dg.RunsFilter(statuses=AT_WORK))


def busy_days(records: Sequence[dg.RunRecord], now: float) -> set[date]:
    """Days that any run, of whatever job or backfill, is at work on.

    A day that only one run keeps up, and not for long any more, is free for its successor: the two hand over under the
    day's lock, so that no batch waits for a new run between them. So is one that a backfill, or a run of years, has
    yet to come to: a long one takes many minutes, and today would stand still behind it.
    """
    count = Counter(
        day for record in records if not _is_long_to_come(record) for day in days_in_tags(record.dagster_run.tags)
    )
    leaving = {day for record in records if _hands_over(record, now) for day in days_in_tags(record.dagster_run.tags)}
    return {day for day, runs in count.items() if runs > 1 or day not in leaving}


def _is_long_to_come(record: dg.RunRecord) -> bool:
    """Whether a run of a backfill, or a longer one than the sensor asks for, has yet to begin.

    A hand can start one of all days, whose planned events alone take Dagster minutes to write.
    """
    run = record.dagster_run
    is_long = BACKFILL_ID_TAG in run.tags or len(days_in_tags(run.tags)) > MAX_DAYS_A_RUN
    return is_long and run.status in YET_TO_BEGIN


def _hands_over(record: dg.RunRecord, now: float) -> bool:
    run = record.dagster_run
    seconds = keep_up.seconds_in_tags(run.tags)
    if run.status is not dg.DagsterRunStatus.STARTED or record.start_time is None or not seconds:
        return False
    return now >= record.start_time + seconds - keep_up.handover_s(seconds)


def at_work(instance: dg.DagsterInstance, job_name: str) -> bool:
    """Whether a run of the job is queued or running."""
    return bool(instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=AT_WORK), limit=1))


def is_one_queued(records: Sequence[dg.RunRecord], job_name: str) -> bool:
    """Whether a run of the job waits for its turn in Dagster's queue."""
    runs = [record.dagster_run for record in records]
    return any(run.job_name == job_name and run.status is dg.DagsterRunStatus.QUEUED for run in runs)


def failures_in_a_row(instance: dg.DagsterInstance, job_name: str) -> Failures:
    """How many of the newest runs of the job have failed since the last one that did not."""
    records = instance.get_run_records(
        dg.RunsFilter(job_name=job_name, statuses=ENDED), limit=RUNS_LOOKED_AT, ascending=False
    )
    found = Failures(0, 0.0)
    for record in records:
        if record.dagster_run.status is dg.DagsterRunStatus.SUCCESS:
            break
        found = Failures(found.count + 1, max(found.last_ended_at, record.end_time or 0.0))
    return found


def failures_by_day(instance: dg.DagsterInstance, job_name: str) -> Mapping[date, Failures]:
    """The same for each day that the job's runs were about."""
    records = instance.get_run_records(
        dg.RunsFilter(job_name=job_name, statuses=ENDED), limit=RUNS_LOOKED_AT, ascending=False
    )
    counted: dict[date, Failures] = {}
    settled: set[date] = set()
    for record in records:
        days = set(days_in_tags(record.dagster_run.tags)) - settled
        if record.dagster_run.status is dg.DagsterRunStatus.SUCCESS:
            settled |= days
            continue
        for day in days:
            known = counted.get(day, Failures(0, 0.0))
            counted[day] = Failures(known.count + 1, max(known.last_ended_at, record.end_time or 0.0))
    return counted
