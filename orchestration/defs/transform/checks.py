"""Blocking reconciliation of core tables with what landed.

Belongs here: landed(day) = core(day). Not here: the blocks' own @tests (they come with the Mage assets), marts.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg

from orchestration.defs.check_results import comparison_result
from orchestration.defs.partitions import days_of_run
from orchestration.defs.resources import LakeResource, WarehouseResource
from orchestration.defs.topics import Feed, feeds
from orchestration.reconcile import DayComparison, DayTotals

# Started from the UI without days, a check looks at the newest landed ones.
DAYS_WITHOUT_PARTITION = 60
# Each try reads the ledger, the table and the ledger again; under a steady flow another load may come between.
LEDGER_TRIES = 5


def _landed_equals_core(feed: Feed) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=feed.table_key,
        name="landed_equals_core",
        blocking=True,
        description=(
            "Each day's landed events are exactly the rows of the table, by count and by a checksum of their "
            "(topic partition, offset), up to the batch that the table's ledger names."
        ),
    )
    def landed_equals_core(
        context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
    ) -> dg.AssetCheckResult:
        with lake.connect("orchestration.reconcile") as conn:
            days = days_of_run(context) or _newest_days(conn, feed)
            compared = compare_landed_with_core(conn, warehouse.open(), feed, days)
        return comparison_result(compared, "landed", "core")

    return landed_equals_core


def compare_landed_with_core(conn: Any, warehouse: Any, feed: Feed, days: Sequence[date]) -> list[DayComparison]:
    """Each day in both layers, as of one version of its ledger."""
    return [_compare_day(conn, warehouse, feed, day) for day in days]


def _compare_day(conn: Any, warehouse: Any, feed: Feed, day: date) -> DayComparison:
    from dbt_like_sql import reconcile  # noqa: PLC0415
    from dbt_like_sql.load import loaded_day  # noqa: PLC0415
    from streaming import lake  # noqa: PLC0415

    before = loaded_day(warehouse, feed.table, day, feed.topic)
    for _try in range(LEDGER_TRIES):
        core = reconcile.core_day(warehouse, day)
        after = loaded_day(warehouse, feed.table, day, feed.topic)
        if after.version == before.version:
            break
        before = after
    rows, checksum = lake.day_checksum(conn, feed.topic, day, upto=before.batches)
    return DayComparison(
        day, DayTotals(rows=rows, checksum=checksum), DayTotals(rows=core.rows, checksum=core.checksum)
    )


def _newest_days(conn: Any, feed: Feed) -> list[date]:
    from streaming import lake  # noqa: PLC0415

    return sorted(each.event_day for each in lake.landed_days(conn, feed.topic))[-DAYS_WITHOUT_PARTITION:]


core_checks = [_landed_equals_core(feed) for feed in feeds()]
