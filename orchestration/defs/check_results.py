"""A comparison of layers as the result of an asset check.

Belongs here: how it looks in the UI. Not here: comparing (orchestration/reconcile.py), asking the layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from orchestration.reconcile import as_records, differences, measures_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestration.reconcile import DayComparison

# A sentence with more of them is not read; the table has them all.
_MEASURES_NAMED = 3


def comparison_result(
    compared: Sequence[DayComparison], left: str, right: str, *, more: Mapping[str, list[str]] | None = None
) -> dg.AssetCheckResult:
    """Passed if every day agrees; with both layers' numbers for each day, and what to do where they differ."""
    wrong = differences(compared)
    records = as_records(compared, left, right)
    return dg.AssetCheckResult(
        passed=not wrong,
        description=_sentence(compared, wrong, left, right)
        + _not_compared((more or {}).get("measures_not_derivable"))
        + _of_another_rule((more or {}).get("days_of_another_rule")),
        metadata={
            **(more or {}),
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


def _not_compared(measures: Sequence[str] | None) -> str:
    """Says which sums nobody has compared, so that what agrees is not taken for all there is."""
    if not measures:
        return ""
    named = ", ".join(measures[:_MEASURES_NAMED])
    more = f" and {len(measures) - _MEASURES_NAMED} more" if len(measures) > _MEASURES_NAMED else ""
    return f"; not compared, since no query shows what a row of core adds: {named}{more}"


def _of_another_rule(days: Sequence[str] | None) -> str:
    """Says which days a changed rule has left as they were: whether they are published anew is the team's choice."""
    if not days:
        return ""
    count = len({each.partition(" ")[0] for each in days})
    named = ", ".join(sorted({each.partition(" ")[2] for each in days}))
    return (
        f"; {count} day(s) of {named} still hold the sums of an older rule, as published then: "
        "`dbt-like-sql plan --compare` shows what publishing them again would change"
    )


def _sentence(compared: Sequence[DayComparison], wrong: Sequence[DayComparison], left: str, right: str) -> str:
    if not compared:
        return "no day to check"
    span = f"{compared[0].day} to {compared[-1].day}" if len(compared) > 1 else f"{compared[0].day}"
    if not wrong:
        return f"{left} = {right} on {len(compared)} day(s), {span}"
    first = wrong[0]
    measures = measures_text(first, left, right)
    named = "".join(f"; {each}" for each in measures[:_MEASURES_NAMED])
    if len(measures) > _MEASURES_NAMED:
        named += f"; and {len(measures) - _MEASURES_NAMED} more measures"
    # Without its record in the ledger a day has no batches, and nothing would seem to have landed.
    counted = " in the batches that the table's ledger names" if left == "landed" else ""
    return (
        f"{left} and {right} differ on {len(wrong)} of {len(compared)} day(s), {span}. First: {first.day}: {left} "
        f"{first.left.rows} rows{counted}, {right} {first.right.rows} rows{named}. Nothing downstream was published. "
        "Rebuild the day (a backfill of it from the UI); if it differs again, compare the offsets of both layers "
        "for that day."
    )
