"""A comparison of layers as the result of an asset check.

Belongs here: how it looks in the UI. Not here: comparing (orchestration/reconcile.py), asking the layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from orchestration.reconcile import as_records, differences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.reconcile import DayComparison


def comparison_result(compared: Sequence[DayComparison], left: str, right: str) -> dg.AssetCheckResult:
    """Passed if every day agrees; with both layers' numbers for each day, and what to do where they differ."""
    wrong = differences(compared)
    records = as_records(compared, left, right)
    return dg.AssetCheckResult(
        passed=not wrong,
        description=_sentence(compared, wrong, left, right),
        metadata={
            "days_checked": len(compared),
            "days_that_differ": len(wrong),
            f"{left}_rows": sum(each.left.rows for each in compared),
            f"{right}_rows": sum(each.right.rows for each in compared),
            "days": dg.MetadataValue.table(
                [dg.TableRecord(record) for record in records],
                schema=dg.TableSchema(columns=[dg.TableColumn(name) for name in (records[0] if records else {})]),
            ),
        },
    )


def _sentence(compared: Sequence[DayComparison], wrong: Sequence[DayComparison], left: str, right: str) -> str:
    if not compared:
        return "no day to check"
    span = f"{compared[0].day} to {compared[-1].day}" if len(compared) > 1 else f"{compared[0].day}"
    if not wrong:
        return f"{left} = {right} on {len(compared)} day(s), {span}"
    first = wrong[0]
    return (
        f"{left} and {right} differ on {len(wrong)} of {len(compared)} day(s), {span}. First: {first.day}: {left} "
        f"{first.left.rows} rows, {right} {first.right.rows} rows. Nothing downstream was published. Rebuild the day "
        f"(a backfill of it from the UI); if it differs again, compare the offsets of both layers for that day."
    )
