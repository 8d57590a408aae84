"""Two layers, day by day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestration.defs.check_results import comparison_result
from orchestration.defs.topics import Feed
from orchestration.defs.transform.checks import offsets_result
from orchestration.defs.warehouse.checks import core_equals_mart_check, shown_at
from orchestration.reconcile import DayTotals, as_records, compare_days, differences
from tests.unit.dbt_like_sql.models import column, write_table
from tests.unit.dbt_like_sql.orders import DAY, write_orders

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

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
    for part in (
        "2 of 2 day(s)",
        "2010-12-01",
        "landed 1 rows in the batches that the table's ledger names",
        "core 0 rows",
        "Rebuild the day",
    ):
        assert part in result.description


def test_a_passed_check_says_on_what_it_looked() -> None:
    result = comparison_result(compare_days([ONE], {}, {}), "landed", "core")
    assert result.passed
    assert result.description == "landed = core on 1 day(s), 2010-12-01"


def test_a_check_names_the_sums_that_nobody_has_compared() -> None:
    told = {"measures_not_derivable": [f"mart.daily.{name}" for name in "abcd"]}
    result = comparison_result(compare_days([ONE], {}, {}), "core", "mart", more=told)
    assert result.description == (
        "core = mart on 1 day(s), 2010-12-01; not compared, since no query shows what a row of core adds: "
        "mart.daily.a, mart.daily.b, mart.daily.c and 1 more"
    )


@dataclass(frozen=True)
class Counts:
    topic_partition: int
    first_offset: int
    next_offset: int
    landed: int
    dead_letters: int
    gap_offsets: int
    lost_offsets: int = 0


def test_offsets_that_add_up_pass_with_the_numbers_of_each_topic_partition() -> None:
    result = offsets_result("t", [Counts(0, 10, 30, 15, 3, 2), Counts(1, 0, 0, 0, 0, 0)])
    assert result.passed
    records = [record.data for record in result.metadata["topic_partitions"].records]
    assert records[0] == {
        "topic partition": 0, "offsets passed": 20, "landed": 15, "dead letters": 3, "gaps": 2, "of these lost": 0,
        "unaccounted": 0,
    }  # fmt: skip


def test_offset_that_is_nowhere_or_twice_is_named_with_its_topic_partition() -> None:
    result = offsets_result("t", [Counts(0, 0, 20, 15, 3, 1), Counts(1, 0, 5, 6, 0, 0), Counts(2, 0, 5, 5, 0, 0)])
    assert not result.passed
    assert "t/0: +1 of 20; t/1: -1 of 5" in (result.description or "")
    assert result.metadata["unaccounted"].value == 2


def test_two_streams_whose_first_daily_mart_is_one_of_both_share_its_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_orders(tmp_path)
    write_orders(tmp_path, "core.returns")
    query = (
        "SELECT o.order_day, o.sku FROM core.orders AS o JOIN core.returns AS r ON r.order_no = o.order_no "
        "WHERE o.order_day IN UNNEST(@days) AND r.order_day IN UNNEST(@days)"
    )
    write_table(tmp_path, "mart.sent_back", query=query, columns=DAY + column("sku", "STRING"))
    monkeypatch.setattr("dbt_like_sql.catalog.MODELS_DIR", tmp_path)
    both = [Feed("shop.orders", "core.orders", "orders"), Feed("shop.returns", "core.returns", "returns")]
    [(asset, of)] = shown_at(both).items()
    assert (asset.path, of) == (["mart", "sent_back"], both)
    told = next(iter(core_equals_mart_check(of, asset).check_specs)).description or ""
    assert "rows of core.orders, core.returns" in told
