"""Blocking reconciliation of marts with core.

Belongs here: core(day) = mart(day), by rows and by amount. Not here: checks of a single table (its checks.sql).
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg

from orchestration.defs.check_results import comparison_result
from orchestration.defs.partitions import days_of_run
from orchestration.defs.resources import LakeResource, WarehouseResource
from orchestration.defs.topics import feeds
from orchestration.defs.transform.checks import core_as_of_ledger, newest_days
from orchestration.reconcile import DayComparison, DayTotals

FACT_TABLE = "mart.invoice_lines"
FACT = dg.AssetKey(FACT_TABLE.split("."))


@dg.asset_check(
    asset=FACT,
    name="core_equals_mart",
    blocking=True,
    description=(
        "Each day's rows of core, less repeated deliveries, are the rows of the mart, and the exact sum of amount_gbp "
        "is the same."
    ),
)
def core_equals_mart(
    context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
) -> dg.AssetCheckResult:
    """Compare the run's days, or the newest landed ones where the run has none, and keep the outcome."""
    opened = warehouse.open()
    with lake.connect("orchestration.reconcile") as conn:
        days = list(days_of_run(context)) or newest_days(conn)
        return reconcile_marts(conn, opened, days, context.run.run_id)


def reconcile_marts(conn: Any, warehouse: Any, days: Sequence[date], run_id: str) -> dg.AssetCheckResult:
    """Compare core with the fact table, record landed, core and mart of each day, and say what differs.

    A day on which another load has committed since its marts were published is left out: that load's own run
    publishes and compares it.
    """
    from dbt_like_sql import reconcile
    from dbt_like_sql.catalog import load_catalog
    from dbt_like_sql.publish import stale_days
    from streaming import lake

    marts = reconcile.mart_days(warehouse, days)
    recorded, compared = [], []
    moved: set[date] | None = None
    for feed in feeds():
        for day, (core, batches) in core_as_of_ledger(warehouse, feed, days).items():
            comparison = DayComparison(
                day,
                DayTotals(rows=core.rows - core.repeats, amount=core.amount),
                DayTotals(rows=marts[day].rows, amount=marts[day].amount),
            )
            if not comparison.agrees:
                moved = set(stale_days(warehouse, load_catalog(), FACT_TABLE)) if moved is None else moved
                if day in moved:
                    continue
            compared.append(comparison)
            landed_rows, landed_checksum = lake.day_checksum(conn, feed.topic, day, upto=batches)
            recorded.append(
                reconcile.Reconciliation(
                    topic=feed.topic,
                    day=day,
                    landed_rows=landed_rows,
                    landed_checksum=landed_checksum,
                    dead_letter_rows=None,
                    core=core,
                    mart=marts[day],
                    is_reconciled=comparison.agrees and (landed_rows, landed_checksum) == (core.rows, core.checksum),
                )
            )
    reconcile.record(warehouse, recorded, run_id=run_id)
    return comparison_result(compared, "core", "mart")
