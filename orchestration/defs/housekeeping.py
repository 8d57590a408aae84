"""The nightly purge of old runs.

Belongs here: the job and its schedule. Not here: which runs may go (orchestration/housekeeping.py).
"""

import os
from datetime import UTC, datetime, timedelta

import dagster as dg

from orchestration.housekeeping import purge_runs
from orchestration.settings import OrchestrationSettings


@dg.op(description="Deletes old runs, but for those by which some partition was last materialized.")
def delete_old_runs(context: dg.OpExecutionContext) -> None:
    """Of ended runs created more than DAGSTER_RUNS_KEPT_DAYS ago."""
    days = OrchestrationSettings.from_env(os.environ).runs_kept_days
    done = purge_runs(context.instance, before=datetime.now(tz=UTC) - timedelta(days=days))
    context.add_output_metadata({"deleted": done.deleted, "kept_as_newest": done.kept, "kept_days": days})
    rest = "" if done.is_finished else "; the next pass goes on"
    context.log.info(
        "%d run(s) older than %d days deleted, %d kept as the newest of a partition%s",
        done.deleted,
        days,
        done.kept,
        rest,
    )


@dg.job(
    executor_def=dg.in_process_executor, description="Deletes old runs from Dagster's database. Started every night."
)
def purge_old_runs() -> None:
    """One op."""
    delete_old_runs()


nightly_purge = dg.ScheduleDefinition(
    name="nightly_purge",
    job=purge_old_runs,
    cron_schedule="20 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
