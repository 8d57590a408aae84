"""Jobs that sensors start, and the nightly comparison.

Belongs here: which assets or checks run together. Not here: when sensors start them (the sensors of each stage).
"""

from __future__ import annotations

import dagster as dg

from orchestration.defs.topics import CORE, MARTS, SERVING
from orchestration.defs.transform.assets import core_tables
from orchestration.defs.transform.checks import core_checks, nightly_core_checks
from orchestration.defs.warehouse.assets import daily_marts, whole_marts
from orchestration.defs.warehouse.checks import layer_checks, nightly_checks

# One process a run: a step is some tenths of a second, starting a process for it some seconds.
_EXECUTOR = dg.in_process_executor
# What somebody has changed by hand, or a producer sent wrongly: it blocks nothing, and a run need not wait for it.
_NIGHTLY = dg.AssetSelection.checks(*nightly_core_checks, *nightly_checks)

load_days = dg.define_asset_job(
    "load_days",
    selection=dg.AssetSelection.assets(*core_tables, daily_marts) - _NIGHTLY,
    executor_def=_EXECUTOR,
    description="Landed events of some days to core and to the daily marts, reconciled. Started by `landed_batches`.",
    tags={"stage": CORE},
)

serve_reports = dg.define_asset_job(
    "serve_reports",
    selection=(dg.AssetSelection.assets(whole_marts) - _NIGHTLY) | dg.AssetSelection.groups(SERVING),
    executor_def=_EXECUTOR,
    description="Dimensions, then the refresh of the semantic model, then the report. Started by `published_days`.",
    tags={"stage": SERVING},
)

compare_days = dg.define_asset_job(
    "compare_days",
    selection=dg.AssetSelection.checks(*core_checks, *layer_checks) | _NIGHTLY,
    executor_def=_EXECUTOR,
    description=(
        "Compares landed, core and marts of the newest days once more; loads and publishes nothing. Finds what was "
        "changed by hand in the warehouse since the day's last run. Started every night."
    ),
    tags={"stage": MARTS},
)

nightly_comparison = dg.ScheduleDefinition(
    name="nightly_comparison",
    job=compare_days,
    cron_schedule="40 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
