"""Comparing two layers day by day: pure, with the numbers that a reader needs to act.

Belongs here: what agrees and what does not. Not here: asking the layers (defs/*/checks.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date
    from decimal import Decimal

# A table of a year's days is still readable; beyond it only the days that differ are worth showing.
MAX_DAYS_SHOWN = 366


@dataclass(frozen=True)
class DayTotals:
    """One layer's totals of one day; None where the layer has no such total. `sums`: measure -> its exact sum."""

    rows: int
    checksum: int | None = None
    amount: Decimal | None = None
    sums: Mapping[str, Decimal] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class DayComparison:
    """One day in two layers."""

    day: date
    left: DayTotals
    right: DayTotals

    @property
    def agrees(self) -> bool:
        """Whether every total that both layers have is the same."""
        pairs = (
            (self.left.rows, self.right.rows),
            (self.left.checksum, self.right.checksum),
            (self.left.amount, self.right.amount),
        )
        is_equal = all(left == right for left, right in pairs if left is not None and right is not None)
        return is_equal and not self.measures_that_differ

    @property
    def measures_that_differ(self) -> list[str]:
        """Measures that both layers have, with different sums."""
        return [name for name, total in self.left.sums.items() if self.right.sums.get(name, total) != total]


def compare_days(
    days: Iterable[date], left: Mapping[date, DayTotals], right: Mapping[date, DayTotals]
) -> list[DayComparison]:
    """Each day's totals side by side; a day that a layer does not know has no rows there."""
    nothing = DayTotals(rows=0)
    return [DayComparison(day, left.get(day, nothing), right.get(day, nothing)) for day in days]


def differences(compared: Iterable[DayComparison]) -> list[DayComparison]:
    """The days on which the layers disagree."""
    return [each for each in compared if not each.agrees]


def as_records(compared: Iterable[DayComparison], left: str, right: str) -> list[dict[str, Any]]:
    """Rows of a table for the UI: the days that differ first, amounts as exact text."""
    ordered = sorted(compared, key=lambda each: (each.agrees, each.day))
    return [
        {
            "day": each.day.isoformat(),
            "agrees": each.agrees,
            f"{left} rows": each.left.rows,
            f"{right} rows": each.right.rows,
            f"{left} checksum": _text(each.left.checksum),
            f"{right} checksum": _text(each.right.checksum),
            f"{left} amount": _text(each.left.amount),
            f"{right} amount": _text(each.right.amount),
            "measures compared": len(each.left.sums.keys() & each.right.sums.keys()),
            "measures that differ": "; ".join(measures_text(each, left, right)),
        }
        for each in ordered[:MAX_DAYS_SHOWN]
    ]


def measures_text(each: DayComparison, left: str, right: str) -> list[str]:
    """Each measure that differs, with both layers' sums and what is between them."""
    found = []
    for name in each.measures_that_differ:
        one, other = each.left.sums[name], each.right.sums[name]
        found.append(f"{name}: {left} {_plain(one)}, {right} {_plain(other)} ({_plain(other - one, '+')})")
    return found


def _plain(value: Decimal, sign: str = "") -> str:
    text = f"{value:{sign}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _text(value: int | Decimal | None) -> str:
    return "" if value is None else f"{value:f}" if not isinstance(value, int) else str(value)
