"""How fresh the report is, as a number that is looked at also when nothing is refreshed any more.

Belongs here: the check and the job that runs it by the clock. Not here: what has changed (changes.py).
"""

import os
from datetime import UTC, datetime

import dagster as dg

from orchestration.defs.serving.changes import REPORT, SEMANTIC_MODEL, Changed, changed_since_refresh
from orchestration.settings import OrchestrationSettings

# A refresh takes minutes on a large model, and the sensor waits between two: so much more than its pause is not normal.
GRACE_S = 900.0
# On a shared capacity eight refreshes a day are three hours apart.
SHARED_PAUSE_S = 3 * 3600.0


@dg.asset_check(
    asset=REPORT,
    name="report_is_fresh",
    description=(
        "The oldest change that a mart has published and the report does not show has not waited longer than the pause "
        "between two refreshes and a quarter of an hour. A quiet night is no reason to fail: there is nothing to show."
    ),
)
def report_is_fresh(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Compare the oldest change not shown with the limit."""
    now = datetime.now(tz=UTC).timestamp()
    changed = changed_since_refresh(context.instance)
    waited, limit = max(0.0, now - changed.oldest_at) if changed else 0.0, freshness_limit_s()
    last = context.instance.get_latest_materialization_event(SEMANTIC_MODEL)
    return dg.AssetCheckResult(
        passed=waited <= limit,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            "the report shows everything that was published"
            if changed is None
            else f"a change has waited for {waited:.0f} s, the limit is {limit:.0f} s. Look at the runs of "
            "serve_reports and at the refresh history in the service."
        ),
        metadata={
            "oldest_change_waits_s": round(waited, 1),
            "limit_s": limit,
            "days_not_shown": len(changed.days)
            if changed and changed.days is not None
            else 0
            if not changed
            else "all",
            **({"last_refresh_at": dg.MetadataValue.timestamp(last.timestamp)} if last else {}),
        },
    )


def _days_shown(changed: Changed | None) -> int | str:
    if changed is None:
        return 0
    return "all" if changed.days is None else len(changed.days)


def freshness_limit_s() -> float:
    """The pause between two refreshes, and what a refresh may take."""
    from powerbi.settings import PowerBiSettings

    pause = OrchestrationSettings.from_env(os.environ).serve_every_s
    is_shared = PowerBiSettings.from_env(os.environ, needs_ids=False).refresh_mode == "basic"
    return max(pause, SHARED_PAUSE_S if is_shared else 0.0) + GRACE_S


watch_report = dg.define_asset_job(
    "watch_report",
    selection=dg.AssetSelection.checks(report_is_fresh),
    executor_def=dg.in_process_executor,
    description="Looks how fresh the report is. Started by the clock: what has stopped does not tell by itself.",
)

every_quarter = dg.ScheduleDefinition(
    name="every_quarter_of_an_hour",
    job=watch_report,
    cron_schedule="*/15 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
