"""Format strings, against results written down from Power BI's documentation, and rules that hold for any value."""

from __future__ import annotations

import datetime as dt
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerbi.formats import format_short, format_value

DAY = dt.date(2010, 12, 5)
MOMENT = dt.datetime(2010, 12, 5, 8, 7, 9)  # noqa: DTZ001 - as DuckDB gives it

KNOWN: list[tuple[Any, str, str]] = [
    (1234.5, "#,##0.00", "1,234.50"),
    (Decimal("1234567.125"), "#,##0.00", "1,234,567.13"),
    (Decimal("-1234.567"), "#,##0.00", "-1,234.57"),
    (0, "#,##0", "0"),
    (999, "#,##0", "999"),
    (0.5, "0", "1"),
    (2.5, "0", "3"),
    (-2.5, "0", "-3"),
    (7, "000", "007"),
    (1.5, "0.##", "1.5"),
    (1, "0.##", "1"),
    (1.005, "0.00", "1.01"),
    (0.1234, "0.0%", "12.3%"),
    (1, "0%", "100%"),
    (0.05, "+0.0%;-0.0%;0.0%", "+5.0%"),
    (-0.05, "+0.0%;-0.0%;0.0%", "-5.0%"),
    (0, "+0.0%;-0.0%;0.0%", "0.0%"),
    (Decimal("748957.02"), "£#,##0.00", "£748,957.02"),
    (Decimal("-51.36"), "£#,##0.00", "-£51.36"),
    (-3, "#,##0.00;(#,##0.00)", "(3.00)"),
    (Decimal("-0.004"), "0.00", "0.00"),
    (12, '0" items"', "12 items"),
    (12, "\\#0", "#12"),
    (1234567, "#,##0,", "1,235"),
    (1234567, "0.0,,", "1.2"),
    (DAY, "yyyy-mm-dd", "2010-12-05"),
    (DAY, "d mmm yyyy", "5 Dec 2010"),
    (DAY, "dddd", "Sunday"),
    (DAY, "", "2010-12-05"),
    (MOMENT, "yyyy-mm-dd hh:nn:ss", "2010-12-05 08:07:09"),
    (MOMENT, "", "2010-12-05 08:07:09"),
    (None, "#,##0", ""),
    (True, "", "True"),
    ("text", "#,##0", "text"),
    (float("inf"), "0", "∞"),
    (float("nan"), "0", "NaN"),
    (Decimal("-0.1"), "000.0", "-000.1"),
    (Decimal("1E+3"), "", "1000"),
]
SHORT: list[tuple[Any, str, str]] = [
    (Decimal("760323.91"), "£#,##0.00", "£760.32K"),
    (1699, "#,##0", "1.70K"),
    (948, "#,##0", "948"),
    (Decimal(-1234567), "£#,##0.00", "-£1.23M"),
    (2_500_000_000, "#,##0", "2.50bn"),
    (0.125, "0.0%", "12.5%"),
    (None, "#,##0", ""),
]


@pytest.mark.parametrize(("value", "format_string", "expected"), KNOWN)
def test_value_is_written_as_power_bi_writes_it(value: Any, format_string: str, expected: str) -> None:
    assert format_value(value, format_string) == expected


@pytest.mark.parametrize(("value", "format_string", "expected"), SHORT)
def test_card_shortens_with_a_unit(value: Any, format_string: str, expected: str) -> None:
    assert format_short(value, format_string) == expected


@given(st.decimals(min_value=-(10**12), max_value=10**12, allow_nan=False, allow_infinity=False, places=9))
def test_money_reads_back_as_the_value_rounded_half_up(value: Decimal) -> None:
    text = format_value(value, "£#,##0.00")
    assert Decimal(text.replace("£", "").replace(",", "")) == value.quantize(Decimal("0.01"), ROUND_HALF_UP)
    assert text.count("-") == (1 if Decimal(text.replace("£", "").replace(",", "")) < 0 else 0)


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_whole_numbers_lose_nothing(value: int) -> None:
    assert int(format_value(value, "#,##0").replace(",", "")) == value


@given(st.one_of(st.floats(), st.decimals(allow_nan=False), st.integers(), st.dates(), st.none(), st.text()), st.text())
def test_no_value_and_no_format_string_breaks_a_page(value: Any, format_string: str) -> None:
    assert isinstance(format_value(value, format_string), str)
    assert isinstance(format_short(value, format_string), str)
