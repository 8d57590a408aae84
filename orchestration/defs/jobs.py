"""Jobs that sensors start.

Belongs here: which assets run together. Not here: when (the sensors of each stage).
"""

from __future__ import annotations

import dagster as dg

from orchestration.defs.topics import CORE, SERVING
from orchestration.defs.transform.assets import core_tables
from orchestration.defs.warehouse.assets import daily_marts, whole_marts

# One process a run: a step is some tenths of a second, starting a process for it some seconds.
_EXECUTOR = dg.in_process_executor

load_days = dg.define_asset_job(
    "load_days",
    selection=dg.AssetSelection.assets(*core_tables, daily_marts),
    executor_def=_EXECUTOR,
    description="Landed events of some days to core and to the daily marts, reconciled. Started by `landed_batches`.",
    tags={"stage": CORE},
)

serve_reports = dg.define_asset_job(
    "serve_reports",
    selection=dg.AssetSelection.assets(whole_marts) | dg.AssetSelection.groups(SERVING),
    executor_def=_EXECUTOR,
    description="Dimensions, then the refresh of the semantic model, then the report. Started by `published_days`.",
    tags={"stage": SERVING},
)
