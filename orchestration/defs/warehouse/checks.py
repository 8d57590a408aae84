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
from orchestration.reconcile import DayComparison, DayTotals

FACT = dg.AssetKey(["mart", "invoice_lines"])
DAYS_WITHOUT_PARTITION = 60


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
    """Compare the run's days, or the newest landed ones where the run has none."""
    days = list(days_of_run(context)) or _newest_days(lake)
    return comparison_result(compare_core_with_mart(warehouse.open(), days), "core", "mart")


def compare_core_with_mart(warehouse: Any, days: Sequence[date]) -> list[DayComparison]:
    """Each day in both layers."""
    from dbt_like_sql import reconcile  # noqa: PLC0415

    return [_compare_day(reconcile, warehouse, day) for day in days]


def _compare_day(reconcile: Any, warehouse: Any, day: date) -> DayComparison:
    core, mart = reconcile.core_day(warehouse, day), reconcile.mart_day(warehouse, day)
    return DayComparison(
        day,
        DayTotals(rows=core.rows - core.repeats, amount=core.amount),
        DayTotals(rows=mart.rows, amount=mart.amount),
    )


def _newest_days(lake: LakeResource) -> list[date]:
    from streaming import lake as ledger  # noqa: PLC0415

    with lake.connect("orchestration.reconcile") as conn:
        days = {each.event_day for feed in feeds() for each in ledger.landed_days(conn, feed.topic)}
    return sorted(days)[-DAYS_WITHOUT_PARTITION:]
