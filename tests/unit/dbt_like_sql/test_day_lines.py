"""What `dbt-like-sql days` prints of each day."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from dbt_like_sql.__main__ import _day_lines


def day(number: int, rows: int | None, amount: str | None, *, is_reconciled: bool | None) -> dict[str, Any]:
    names = ("landed_rows", "dead_letter_rows", "core_rows", "core_repeat_rows", "mart_rows")
    counts: dict[str, Any] = dict.fromkeys(names, rows)
    return {
        **counts,
        "event_day": date(2010, 12, number),
        "is_reconciled": is_reconciled,
        "mart_amount_gbp": None if amount is None else Decimal(amount),
    }


def test_numbers_stand_below_each_other_and_each_state_has_its_words() -> None:
    days = [
        day(1, 1000, "12345.60", is_reconciled=True),
        day(2, 0, "0", is_reconciled=False),
        day(3, None, None, is_reconciled=None),
    ]
    assert list(_day_lines(days)) == [
        "2010-12-01 reconciled       landed 1000 dead 1000 core 1000 repeats 1000 mart 1000 amount 12345.60",
        "2010-12-02 NOT RECONCILED   landed    0 dead    0 core    0 repeats    0 mart    0 amount        0",
        "2010-12-03 not compared yet landed    ? dead    ? core    ? repeats    ? mart    ? amount        ?",
    ]


def test_days_of_a_table_without_an_amount_name_none() -> None:
    assert list(_day_lines([day(1, 2, None, is_reconciled=True)])) == [
        "2010-12-01 reconciled       landed 2 dead 2 core 2 repeats 2 mart 2"
    ]


def test_a_warehouse_without_days_prints_nothing() -> None:
    assert list(_day_lines([])) == []
