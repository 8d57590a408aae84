"""Every measure, in every context, against SQL that was written apart from the DAX, over the marts' own columns.

The SQL knows nothing of filter contexts: each cell is one query over a range of days and a condition.
"""

from __future__ import annotations

import calendar
import datetime as dt
import math
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from powerbi.dax.context import ColumnKey
from powerbi.dax.query import Selection, VisualQuery
from powerbi.dax.translate import translate
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from powerbi.model import Model

Day = dt.date


@dataclass(frozen=True)
class Cell:
    """One cell: days from first to last, and a condition on invoice lines."""

    first: Day
    last: Day
    where: str = "TRUE"

    @property
    def lines(self) -> str:
        return f"invoice_date BETWEEN DATE '{self.first}' AND DATE '{self.last}' AND {self.where}"

    def lies_within(self, period: str) -> bool:
        return self.first.strftime(period) == self.last.strftime(period)

    def shifted(self, *, days: int = 0, months: int = 0) -> Cell:
        if days:
            move = dt.timedelta(days=days)
            return replace(
                self, first=max(self.first + move, shop.CALENDAR[0]), last=min(self.last + move, shop.CALENDAR[1])
            )
        return replace(self, first=max(_months(self.first, months), shop.CALENDAR[0]), last=self._last_shifted(months))

    def _last_shifted(self, months: int) -> Day:
        moved = _months(self.last, months)
        if self.first != self.last and self.last.day == calendar.monthrange(self.last.year, self.last.month)[1]:
            moved = moved.replace(day=calendar.monthrange(moved.year, moved.month)[1])
        return min(moved, shop.CALENDAR[1])


def _months(day: Day, count: int) -> Day:
    total = day.year * 12 + day.month - 1 + count
    year, month = divmod(total, 12)
    return Day(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


class Truth:
    """The marts as tables of an own database, and what each measure is by plain SQL."""

    def __init__(self, tables: dict[str, Any]) -> None:
        self.db = duckdb.connect()
        for name, rows in tables.items():
            self.db.register("rows", rows)
            self.db.execute(f"CREATE TABLE {name} AS SELECT * FROM rows")
            self.db.unregister("rows")

    def one(self, sql: str) -> Any:
        row = self.db.execute(sql).fetchone()
        assert row is not None
        return row[0]

    def lines(self, what: str, cell: Cell, extra: str = "TRUE") -> Any:
        return self.one(f"SELECT {what} FROM invoice_lines WHERE {cell.lines} AND {extra}")

    def net(self, cell: Cell) -> Any:
        return self.lines("SUM(net_sales_gbp)", cell)

    def trust(self, what: str, cell: Cell) -> Any:
        return self.one(
            f"SELECT {what} FROM data_trust WHERE invoice_date BETWEEN DATE '{cell.first}' AND DATE '{cell.last}'"
        )

    def difference(self, cell: Cell) -> Any:
        mart = self.trust("SUM(mart_amount_gbp)", cell)
        return None if mart is None else (self.lines("SUM(amount_gbp)", replace(cell, where="TRUE")) or 0) - mart

    def known(self, cell: Cell) -> Any:
        return self.lines("NULLIF(COUNT(DISTINCT customer_id), 0)", cell, "customer_id <> 'guest'")

    def new(self, cell: Cell) -> Any:
        mine = "(SELECT first_invoice_date FROM customers c WHERE c.customer_id = invoice_lines.customer_id)"
        first = f"{mine} BETWEEN DATE '{cell.first}' AND DATE '{cell.last}'"
        return self.lines("NULLIF(COUNT(DISTINCT customer_id), 0)", cell, f"customer_id <> 'guest' AND {first}")

    def last_day(self, cell: Cell) -> Any:
        return self.lines("MAX(invoice_date)", cell)

    def since(self, cell: Cell, unit: str) -> Any:
        day = self.last_day(cell)
        if day is None:
            return None
        first = day.replace(day=1) if unit == "month" else day.replace(month=1, day=1)
        return self.net(replace(cell, first=first, last=day))

    def best_products(self, cell: Cell, count: int) -> Any:
        rank = "RANK() OVER (ORDER BY SUM(net_sales_gbp) DESC) AS r"
        source = f"FROM invoice_lines WHERE {cell.lines} GROUP BY stock_code"
        ranked = f"SELECT stock_code, SUM(net_sales_gbp) AS s, {rank} {source}"
        return self.one(f"SELECT SUM(s) FROM ({ranked}) WHERE r <= {count}")


def ratio(top: Any, bottom: Any) -> float | None:
    return None if not bottom or top is None else float(top) / float(bottom)


def each(top: Any, bottom: Any) -> Decimal | None:
    """Money for each of something: Power BI keeps four digits of it."""
    if not bottom or top is None:
        return None
    return (Decimal(top) / Decimal(bottom)).quantize(Decimal("0.0001"), ROUND_HALF_UP)


def change(now: Any, before: Any) -> float | None:
    return None if now is None or before is None else ratio(now - before, before)


def minus(left: Any, right: Any) -> Any:
    return None if left is None and right is None else (left or 0) - (right or 0)


def _seven(truth: Truth, cell: Cell) -> Any:
    day = truth.last_day(cell)
    return None if day is None else each(truth.net(replace(cell, first=day - dt.timedelta(days=6), last=day)), 7)


def _on_last_day(truth: Truth, cell: Cell, shift: int) -> Any:
    day = truth.last_day(cell)
    if day is None:
        return None
    day += dt.timedelta(days=shift)
    return truth.net(replace(cell, first=day, last=day))


SALE = "invoice_kind = 'sale'"
MEASURES = {
    "Total Amount": lambda t, c: t.lines("SUM(amount_gbp)", c),
    "Gross Sales": lambda t, c: t.lines(
        "SUM(CASE WHEN line_kind = 'product' AND invoice_kind = 'sale' THEN amount_gbp ELSE 0 END)", c
    ),
    "Returns": lambda t, c: t.lines(
        "SUM(CASE WHEN line_kind = 'product' AND invoice_kind = 'cancellation' THEN -amount_gbp ELSE 0 END)", c
    ),
    "Net Sales": lambda t, c: t.net(c),
    "Return Rate": lambda t, c: ratio(t.lines("SUM(returns_gbp)", c), t.lines("SUM(gross_sales_gbp)", c)),
    "Other Amount": lambda t, c: t.lines("SUM(amount_gbp) - SUM(net_sales_gbp)", c),
    "Orders": lambda t, c: t.lines("NULLIF(COUNT(DISTINCT invoice_no), 0)", c, SALE),
    "Cancellations": lambda t, c: t.lines("NULLIF(COUNT(DISTINCT invoice_no), 0)", c, "invoice_no LIKE 'C%'"),
    "Items": lambda t, c: t.lines("SUM(quantity)", c, f"{SALE} AND line_kind = 'product'"),
    "Invoice Lines": lambda t, c: t.lines("NULLIF(COUNT(*), 0)", c),
    "Average Order Value": lambda t, c: each(
        t.lines("SUM(gross_sales_gbp)", c), t.lines("COUNT(DISTINCT invoice_no)", c, SALE)
    ),
    "Items per Order": lambda t, c: ratio(
        t.lines("SUM(quantity)", c, f"{SALE} AND line_kind = 'product'"), t.lines("COUNT(DISTINCT invoice_no)", c, SALE)
    ),
    "Customers": lambda t, c: t.known(c),
    "New Customers": lambda t, c: t.new(c),
    "Returning Customers": lambda t, c: minus(t.known(c), t.new(c)),
    "Sales per Customer": lambda t, c: each(t.lines("SUM(net_sales_gbp)", c, "customer_id <> 'guest'"), t.known(c)),
    "Guest Share": lambda t, c: ratio(t.lines("SUM(net_sales_gbp)", c, "customer_id = 'guest'"), t.net(c)),
    "Products Sold": lambda t, c: t.lines(
        "NULLIF(COUNT(DISTINCT stock_code), 0)", c, f"{SALE} AND line_kind = 'product'"
    ),
    "Net Sales Previous Day": lambda t, c: t.net(c.shifted(days=-1)),
    "Net Sales Previous Week": lambda t, c: t.net(c.shifted(days=-7)),
    "Net Sales Previous Month": lambda t, c: t.net(c.shifted(months=-1)),
    "Net Sales Previous Year": lambda t, c: t.net(c.shifted(months=-12)),
    "vs Previous Day": lambda t, c: change(t.net(c), t.net(c.shifted(days=-1))) if c.first == c.last else None,
    "vs Previous Week": lambda t, c: change(t.net(c), t.net(c.shifted(days=-7))) if c.lies_within("%G-%V") else None,
    "vs Previous Month": lambda t, c: change(t.net(c), t.net(c.shifted(months=-1))) if c.lies_within("%Y-%m") else None,
    "vs Previous Year": lambda t, c: change(t.net(c), t.net(c.shifted(months=-12))),
    "Net Sales MTD": lambda t, c: t.since(c, "month"),
    "Net Sales YTD": lambda t, c: t.since(c, "year"),
    "Net Sales 7-Day Average": _seven,
    "Net Sales Last Day": lambda t, c: _on_last_day(t, c, 0),
    "Last Day vs Week Before": lambda t, c: change(_on_last_day(t, c, 0), _on_last_day(t, c, -7)),
    "Last Sales Date": lambda t, c: t.last_day(c),
    "Data As Of": lambda t, c: t.trust("MAX(newest_produced_at)", c),
    "Last Published At": lambda t, c: t.trust("MAX(published_at)", c),
    "Landed Rows": lambda t, c: t.trust("SUM(landed_rows)", c),
    "Dead Letters": lambda t, c: t.trust("SUM(dead_letter_rows)", c),
    "Core Rows": lambda t, c: t.trust("SUM(core_rows)", c),
    "Repeated Rows": lambda t, c: t.trust("SUM(repeat_rows)", c),
    "Mart Rows": lambda t, c: t.trust("SUM(mart_rows)", c),
    "Mart Amount": lambda t, c: t.trust("SUM(mart_amount_gbp)", c),
    "Days": lambda t, c: t.trust("NULLIF(COUNT(*), 0)", c),
    "Days Not Reconciled": lambda t, c: t.trust("IF(COUNT(*) > 0, COUNT(*) FILTER (WHERE NOT is_reconciled), NULL)", c),
    "Reconciled Share": lambda t, c: t.trust("AVG(is_reconciled::INTEGER)", c),
    "Unexplained Rows": lambda t, c: t.trust("SUM(landed_rows) - SUM(core_rows)", c),
    "Report Difference": lambda t, c: t.difference(c),
}
# These depend on what lies outside the cell; each has a test of its own below.
APART = {"Share of Countries", "Share of Selection", "Share of Products", "Product Rank", "Top 10 Products Share"}


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


def evaluated(model: Model, connection: Any, measure: str, groups: Any, selections: Any) -> dict[Any, Any]:
    statement = translate(model, VisualQuery(groups, ((measure, f"[{measure}]"),), selections))
    rows = connection.execute(statement.sql).fetchall()
    return {tuple(row[: len(groups)]): row[len(groups)] for row in rows}


def same(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    if isinstance(left, float) or isinstance(right, float):
        return math.isclose(float(left), float(right), rel_tol=1e-9, abs_tol=1e-9)
    return bool(left == right)


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


def test_an_empty_selection_is_blank_and_not_zero(model: Model, connection: Any) -> None:
    nothing = (Selection(COUNTRY, ("Atlantis",)),)
    assert evaluated(model, connection, "Net Sales", (), nothing)[()] is None
    assert evaluated(model, connection, "Net Sales", (MONTH,), nothing) == {}
