"""Every measure, in every context, against SQL that was written apart from the DAX, over the marts' own columns.

The SQL knows nothing of filter contexts: each cell is one query over a range of days and a condition.
"""

from __future__ import annotations

import calendar
import datetime as dt
import math
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from powerbi.dax.context import ColumnKey
from powerbi.dax.query import Selection
from powerbi.standin.copied import Copy
from tests.unit.powerbi import shop
from tests.unit.powerbi.truth import APART, MEASURES, Cell, Day, Truth, evaluated, ratio, same

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from powerbi.model import Model


@pytest.fixture(scope="module")
def truth(mart_tables: dict[str, Any]) -> Truth:
    return Truth(mart_tables)


@pytest.fixture(scope="module")
def model() -> Model:
    return shop.model()


WHOLE = Cell(*shop.CALENDAR)
MONTH = ColumnKey("Date", "year_month")
DATE = ColumnKey("Date", "date")
WEEK = ColumnKey("Date", "iso_year_week")
COUNTRY = ColumnKey("Country", "country")
PRODUCT = ColumnKey("Product", "product")
SLICER = (Selection(DATE, None, "2024-01-15", "2024-06-20"), Selection(COUNTRY, ("France", "Côte d'Ivoire")))
SLICED = Cell(Day(2024, 1, 15), Day(2024, 6, 20), "country IN ('France', 'Côte d''Ivoire')")


def month_cells() -> Iterator[tuple[tuple[str, ...], Cell]]:
    day = shop.CALENDAR[0]
    while day < shop.CALENDAR[1]:
        last = day.replace(day=calendar.monthrange(day.year, day.month)[1])
        yield (day.strftime("%Y-%m"),), Cell(day, last)
        day = last + dt.timedelta(days=1)


def day_cells() -> Iterator[tuple[tuple[object, ...], Cell]]:
    for number in range(95):
        day = Day(2024, 1, 20) + dt.timedelta(days=number)
        yield (day,), Cell(day, day)


def week_cells() -> Iterator[tuple[tuple[str, ...], Cell]]:
    monday = Day(2024, 1, 15)
    while monday <= SLICED.last:
        yield (monday.strftime("%G-W%V"),), Cell(monday, min(monday + dt.timedelta(days=6), SLICED.last))
        monday += dt.timedelta(days=7)


def country_cells() -> Iterator[tuple[tuple[str, ...], Cell]]:
    for country in shop.COUNTRIES:
        quoted = country.replace("'", "''")
        yield (country,), replace(WHOLE, where=f"country = '{quoted}'")


def product_cells(tables: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Cell]]:
    for row in tables["products"].to_pylist():
        yield (row["product"],), replace(WHOLE, where=f"stock_code = '{row['stock_code']}'")


def sliced_month_cells() -> Iterator[tuple[tuple[str, ...], Cell]]:
    for (name,), cell in month_cells():
        first, last = max(cell.first, SLICED.first), min(cell.last, SLICED.last)
        if first <= last:
            yield (name,), replace(SLICED, first=first, last=last)


CONTEXTS = ("total", "months", "days", "weeks", "countries", "products", "sliced", "sliced months")
SOMETIMES_BLANK = {f"vs Previous {one}" for one in ("Day", "Week", "Month", "Year")} | {"Net Sales Previous Year"}


def contexts(tables: dict[str, Any]) -> dict[str, tuple[tuple[ColumnKey, ...], tuple[Selection, ...], dict[Any, Cell]]]:
    return {
        "total": ((), (), {(): WHOLE}),
        "months": ((MONTH,), (), dict(month_cells())),
        "days": ((DATE,), (Selection(DATE, None, "2024-01-20", "2024-04-23"),), dict(day_cells())),
        "weeks": ((WEEK,), (Selection(DATE, None, "2024-01-15", "2024-06-20"),), dict(week_cells())),
        "countries": ((COUNTRY,), (), dict(country_cells())),
        "products": ((PRODUCT,), (), dict(product_cells(tables))),
        "sliced": ((), SLICER, {(): SLICED}),
        "sliced months": ((MONTH,), SLICER, dict(sliced_month_cells())),
    }


def test_every_measure_of_the_model_has_a_truth(model: Model) -> None:
    names = {measure.name for table in model.tables for measure in table.measures}
    assert names == set(MEASURES) | APART


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("context", CONTEXTS)
def test_measure_equals_independent_sql_in_every_cell(
    model: Model, connection: Any, truth: Truth, mart_tables: dict[str, Any], measure: str, context: str
) -> None:
    groups, selections, cells = contexts(mart_tables)[context]
    found = evaluated(model, connection, measure, groups, selections)
    expected = {key: MEASURES[measure](truth, cell) for key, cell in cells.items()}
    wrong = {key: (found.get(key), value) for key, value in expected.items() if not same(found.get(key), value)}
    assert not wrong, f"[{measure}] by {context}: found, expected: {dict(list(wrong.items())[:5])}"
    assert any(value is not None for value in expected.values()) or measure in SOMETIMES_BLANK


def test_amounts_are_exact_to_the_last_digit(model: Model, connection: Any, lines: list[dict[str, Any]]) -> None:
    found = evaluated(model, connection, "Total Amount", (), ())[()]
    assert found == sum((row["amount_gbp"] for row in lines), Decimal(0))
    assert isinstance(found, Decimal)


def test_share_of_countries_compares_with_all_countries(model: Model, connection: Any, truth: Truth) -> None:
    found = evaluated(model, connection, "Share of Countries", (MONTH, COUNTRY), SLICER[:1])
    assert found
    for (name, country), value in found.items():
        first = max(Day.fromisoformat(f"{name}-01"), SLICED.first)
        last = min(dict(month_cells())[(name,)].last, SLICED.last)
        quoted = country.replace("'", "''")
        cell = Cell(first, last)
        assert same(value, ratio(truth.net(replace(cell, where=f"country = '{quoted}'")), truth.net(cell)))


def test_share_of_selection_compares_with_what_the_slicers_leave(model: Model, connection: Any, truth: Truth) -> None:
    found = evaluated(model, connection, "Share of Selection", (MONTH,), SLICER)
    cells = dict(sliced_month_cells())
    for key, value in found.items():
        assert same(value, ratio(truth.net(cells[key]), truth.net(SLICED)))
    assert math.isclose(sum(found.values()), 1)


def test_share_of_products_compares_with_all_products(
    model: Model, connection: Any, truth: Truth, mart_tables: dict[str, Any]
) -> None:
    found = evaluated(model, connection, "Share of Products", (PRODUCT,), ())
    for key, cell in product_cells(mart_tables):
        assert same(found.get(key), ratio(truth.net(cell), truth.net(WHOLE)))


def test_product_rank_counts_the_better_products(
    model: Model, connection: Any, truth: Truth, mart_tables: dict[str, Any]
) -> None:
    found = evaluated(model, connection, "Product Rank", (PRODUCT,), SLICER)
    nets = {
        key: truth.net(replace(SLICED, where=f"{SLICED.where} AND {cell.where}"))
        for key, cell in product_cells(mart_tables)
    }
    for key, net in nets.items():
        expected = None if net is None else 1 + sum(other is not None and other > net for other in nets.values())
        assert found.get(key) == expected


@pytest.mark.parametrize("context", ["total", "months", "countries", "sliced"])
def test_top_products_share_takes_the_ten_best_of_each_cell(
    model: Model, connection: Any, truth: Truth, mart_tables: dict[str, Any], context: str
) -> None:
    groups, selections, cells = contexts(mart_tables)[context]
    found = evaluated(model, connection, "Top 10 Products Share", groups, selections)
    for key, cell in cells.items():
        assert same(found.get(key), ratio(truth.best_products(cell, 10), truth.net(cell)))


def test_the_day_that_events_still_come_for_is_not_compared_with_a_whole_one(
    model: Model, mart_tables: dict[str, Any], tmp_path: Path
) -> None:
    """By noon of a Friday its sales would be half of the Friday before, every week."""
    noon = dt.datetime.combine(shop.LAST, dt.time(12))
    trust = mart_tables["data_trust"]
    newest = pa.array([noon] * trust.num_rows)
    trust = trust.set_column(trust.column_names.index("newest_produced_at"), "newest_produced_at", newest)
    tables = {**mart_tables, "data_trust": trust}
    copy, truth = Copy(tmp_path / "imported.duckdb"), Truth(tables)
    shop.fill(copy, tables)
    measure, until = "Last Day vs Week Before", {"today": shop.LAST, "yesterday": shop.LAST - dt.timedelta(days=1)}
    found = {
        name: evaluated(model, copy.reader(), measure, (), (Selection(DATE, None, "2025-01-01", str(last)),))[()]
        for name, last in until.items()
    }
    copy.close()
    assert found["today"] == found["yesterday"]
    for name, last in until.items():
        assert same(found[name], MEASURES[measure](truth, Cell(Day(2025, 1, 1), last))), name
    whole = evaluated_whole(mart_tables, model, tmp_path, measure)
    assert not same(found["today"], whole), "once the day is over it is compared"


def evaluated_whole(tables: dict[str, Any], model: Model, folder: Path, measure: str) -> Any:
    """The measure where every day is over."""
    copy = Copy(folder / "over.duckdb")
    shop.fill(copy, tables)
    found = evaluated(model, copy.reader(), measure, (), (Selection(DATE, None, "2025-01-01", str(shop.LAST)),))[()]
    copy.close()
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.dates(shop.FIRST - dt.timedelta(days=40), shop.LAST),
    length=st.integers(0, 400),
    countries=st.sets(st.sampled_from(shop.COUNTRIES), min_size=1),
    measure=st.sampled_from(sorted(MEASURES)),
)
def test_any_range_of_days_and_any_countries_give_what_sql_gives(
    model: Model, connection: Any, truth: Truth, first: Day, length: int, countries: set[str], measure: str
) -> None:
    last = min(first + dt.timedelta(days=length), shop.CALENDAR[1])
    chosen = tuple(sorted(countries))
    quoted = ", ".join("'" + one.replace("'", "''") + "'" for one in chosen)
    selections = (Selection(DATE, None, str(first), str(last)), Selection(COUNTRY, chosen))
    found = evaluated(model, connection, measure, (), selections)[()]
    assert same(found, MEASURES[measure](truth, Cell(first, last, f"country IN ({quoted})")))


def test_an_empty_selection_is_blank_and_not_zero(model: Model, connection: Any) -> None:
    nothing = (Selection(COUNTRY, ("Atlantis",)),)
    assert evaluated(model, connection, "Net Sales", (), nothing)[()] is None
    assert evaluated(model, connection, "Net Sales", (MONTH,), nothing) == {}
