"""The code location: what `dagster dev` loads.

Belongs here: putting the stages together. Not here: anything that does something.
"""

from __future__ import annotations

import dagster as dg

from orchestration.defs.alerts import alert_checks_and_freshness, alert_failed_runs
from orchestration.defs.housekeeping import nightly_purge, purge_old_runs
from orchestration.defs.jobs import compare_days, load_days, nightly_comparison, serve_reports
from orchestration.defs.landing.assets import landed_topics
from orchestration.defs.landing.sensors import landed_batches
from orchestration.defs.resources import RESOURCES
from orchestration.defs.serving.assets import report, semantic_model
from orchestration.defs.serving.checks import every_quarter, report_is_fresh, watch_report
from orchestration.defs.serving.sensors import published_days
from orchestration.defs.transform.assets import core_tables
from orchestration.defs.transform.checks import core_checks, nightly_core_checks
from orchestration.defs.warehouse.assets import daily_marts, whole_marts
from orchestration.defs.warehouse.checks import layer_checks, nightly_checks

defs = dg.Definitions(
    assets=[*landed_topics, *core_tables, daily_marts, whole_marts, semantic_model, report],
    asset_checks=[*core_checks, *nightly_core_checks, *layer_checks, *nightly_checks, report_is_fresh],
    jobs=[load_days, serve_reports, compare_days, watch_report, purge_old_runs],
    schedules=[nightly_purge, nightly_comparison, every_quarter],
    sensors=[landed_batches, published_days, alert_failed_runs, alert_checks_and_freshness],
    resources=RESOURCES,
    executor=dg.in_process_executor,  # of runs from the UI: a step takes tenths of a second, a process for it 4 s
)
