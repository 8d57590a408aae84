"""Two layers, day by day."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from orchestration.defs.check_results import comparison_result
from orchestration.reconcile import DayTotals, as_records, compare_days, differences

ONE, TWO = date(2010, 12, 1), date(2010, 12, 2)


def test_equal_days_agree() -> None:
    left = {ONE: DayTotals(rows=2, checksum=7), TWO: DayTotals(rows=0)}
    assert differences(compare_days([ONE, TWO], left, {ONE: DayTotals(rows=2, checksum=7)})) == []


def test_a_row_too_few_differs() -> None:
    [wrong] = differences(compare_days([ONE], {ONE: DayTotals(rows=2)}, {ONE: DayTotals(rows=1)}))
    assert wrong.day == ONE


def test_the_same_count_of_other_rows_differs() -> None:
    left, right = DayTotals(rows=2, checksum=7), DayTotals(rows=2, checksum=8)
    assert differences(compare_days([ONE], {ONE: left}, {ONE: right}))


def test_an_amount_that_is_off_in_the_ninth_decimal_differs() -> None:
    left, right = DayTotals(rows=1, amount=Decimal("2.550000000")), DayTotals(rows=1, amount=Decimal("2.550000001"))
    assert differences(compare_days([ONE], {ONE: left}, {ONE: right}))


def test_a_total_that_one_layer_lacks_is_not_compared() -> None:
    left, right = DayTotals(rows=1, checksum=3), DayTotals(rows=1, amount=Decimal(1))
    assert not differences(compare_days([ONE], {ONE: left}, {ONE: right}))


def test_days_that_differ_come_first_with_both_layers_numbers() -> None:
    left = {ONE: DayTotals(rows=1), TWO: DayTotals(rows=5, amount=Decimal("0.10"))}
    right = {ONE: DayTotals(rows=1), TWO: DayTotals(rows=4, amount=Decimal("0.10"))}
    first = as_records(compare_days([ONE, TWO], left, right), "core", "mart")[0]
    assert first["day"] == "2010-12-02"
    assert (first["core rows"], first["mart rows"], first["core amount"]) == (5, 4, "0.10")


def test_a_failed_check_says_which_day_what_was_found_and_what_to_do() -> None:
    compared = compare_days([ONE, TWO], {ONE: DayTotals(rows=1)}, {TWO: DayTotals(rows=3)})
    result = comparison_result(compared, "landed", "core")
    assert not result.passed
    assert result.description is not None
    for part in ("2 of 2 day(s)", "2010-12-01", "landed 1 rows", "core 0 rows", "Rebuild the day"):
        assert part in result.description


def test_a_passed_check_says_on_what_it_looked() -> None:
    result = comparison_result(compare_days([ONE], {}, {}), "landed", "core")
    assert result.passed
    assert result.description == "landed = core on 1 day(s), 2010-12-01"
