"""What each measure is, by plain SQL over the marts' own columns: written apart from the DAX.

The SQL knows nothing of filter contexts: each cell is one query over a range of days and a condition.
"""

from __future__ import annotations

import calendar
import datetime as dt
import math
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import duckdb

from powerbi.dax.query import VisualQuery
from powerbi.dax.translate import translate
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from powerbi.model import Model

Day = dt.date


@dataclass(frozen=True)
class Cell:
    """One cell: days from first to last, and a condition on invoice lines."""

    first: Day
    last: Day
    where: str = "TRUE"
    span: tuple[Day, Day] = shop.CALENDAR

    @property
    def lines(self) -> str:
        return f"invoice_date BETWEEN DATE '{self.first}' AND DATE '{self.last}' AND {self.where}"

    def lies_within(self, period: str) -> bool:
        return self.first.strftime(period) == self.last.strftime(period)

    def shifted(self, *, days: int = 0, months: int = 0) -> Cell:
        if days:
            move = dt.timedelta(days=days)
            return replace(self, first=max(self.first + move, self.span[0]), last=min(self.last + move, self.span[1]))
        return replace(self, first=max(_months(self.first, months), self.span[0]), last=self._last_shifted(months))

    def _last_shifted(self, months: int) -> Day:
        moved = _months(self.last, months)
        if self.first != self.last and self.last.day == calendar.monthrange(self.last.year, self.last.month)[1]:
            moved = moved.replace(day=calendar.monthrange(moved.year, moved.month)[1])
        return min(moved, self.span[1])


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
        mart = self.trust("SUM(published_amount_gbp)", cell)
        return None if mart is None else (self.lines("SUM(amount_gbp)", replace(cell, where="TRUE")) or 0) - mart

    def known(self, cell: Cell) -> Any:
        return self.lines("NULLIF(COUNT(DISTINCT customer_id), 0)", cell, "customer_id <> 'guest'")

    def new(self, cell: Cell) -> Any:
        mine = "(SELECT first_invoice_date FROM customers c WHERE c.customer_id = invoice_lines.customer_id)"
        first = f"{mine} BETWEEN DATE '{cell.first}' AND DATE '{cell.last}'"
        return self.lines("NULLIF(COUNT(DISTINCT customer_id), 0)", cell, f"customer_id <> 'guest' AND {first}")

    def last_day(self, cell: Cell) -> Any:
        return self.lines("MAX(invoice_date)", cell)

    def last_whole_day(self, cell: Cell) -> Any:
        newest = "(SELECT MAX(newest_produced_at)::DATE FROM data_trust)"
        return self.lines("MAX(invoice_date)", cell, f"invoice_date < {newest}")

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


class Quotient(Decimal):
    """Money for each of something. `other` differs where it ends in half of its last digit: a float goes either way."""

    other: Decimal


def each(top: Any, bottom: Any) -> Quotient | None:
    """Money for each of something: Power BI keeps four digits of it."""
    if not bottom or top is None:
        return None
    exact, digits = Decimal(top) / Decimal(bottom), Decimal("0.0001")
    found = Quotient(exact.quantize(digits, ROUND_HALF_UP))
    found.other = exact.quantize(digits, ROUND_HALF_DOWN)
    return found


def change(now: Any, before: Any) -> float | None:
    return None if now is None or before is None else ratio(now - before, abs(before))


def minus(left: Any, right: Any) -> Any:
    return None if left is None and right is None else (left or 0) - (right or 0)


def _seven(truth: Truth, cell: Cell) -> Any:
    day = truth.last_day(cell)
    return None if day is None else each(truth.net(replace(cell, first=day - dt.timedelta(days=6), last=day)), 7)


def _on_last_day(truth: Truth, cell: Cell, shift: int, *, is_over: bool = False) -> Any:
    day = truth.last_whole_day(cell) if is_over else truth.last_day(cell)
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
    "Last Day vs Week Before": lambda t, c: change(
        _on_last_day(t, c, 0, is_over=True), _on_last_day(t, c, -7, is_over=True)
    ),
    "Last Sales Date": lambda t, c: t.last_day(c),
    "Data As Of": lambda t, c: t.trust("MAX(newest_produced_at)", c),
    "Last Published At": lambda t, c: t.trust("MAX(published_at)", c),
    "Landed Rows": lambda t, c: t.trust("SUM(landed_rows)", c),
    "Open Dead Letters": lambda t, _: t.one("SELECT DISTINCT open_dead_letter_rows FROM data_trust"),
    "Dead Letters": lambda t, c: t.trust("SUM(dead_letter_rows)", c),
    "Core Rows": lambda t, c: t.trust("SUM(core_rows)", c),
    "Repeated Rows": lambda t, c: t.trust("SUM(repeat_rows)", c),
    "Mart Rows": lambda t, c: t.trust("SUM(mart_rows)", c),
    "Mart Amount": lambda t, c: t.trust("SUM(mart_amount_gbp)", c),
    "Days": lambda t, c: t.trust("NULLIF(COUNT(*), 0)", c),
    "Days Not Reconciled": lambda t, c: t.trust("IF(COUNT(*) > 0, COUNT(*) FILTER (WHERE NOT is_reconciled), NULL)", c),
    "Days Not Compared Yet": lambda t, c: t.trust(
        "IF(COUNT(*) > 0, COUNT(*) FILTER (WHERE is_reconciled IS NULL), NULL)", c
    ),
    "Reconciled Share": lambda t, c: t.trust("AVG(COALESCE(is_reconciled, FALSE)::INTEGER)", c),
    "Unexplained Rows": lambda t, c: t.trust("SUM(landed_rows) - SUM(core_rows)", c),
    "Report Difference": lambda t, c: t.difference(c),
}
# These depend on what lies outside the cell; each has a test of its own below.
APART = {"Share of Countries", "Share of Selection", "Share of Products", "Product Rank", "Top 10 Products Share"}


def evaluated(model: Model, connection: Any, measure: str, groups: Any, selections: Any) -> dict[Any, Any]:
    statement = translate(model, VisualQuery(groups, ((measure, f"[{measure}]"),), selections))
    rows = connection.execute(statement.sql).fetchall()
    return {tuple(row[: len(groups)]): row[len(groups)] for row in rows}


def same(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    if isinstance(left, float) or isinstance(right, float):
        pairs = [(one, two) for one in _roundings(left) for two in _roundings(right)]
        return any(math.isclose(float(one), float(two), rel_tol=1e-9, abs_tol=1e-9) for one, two in pairs)
    return bool(left == right)


def _roundings(value: Any) -> tuple[Any, ...]:
    return (value, value.other) if isinstance(value, Quotient) else (value,)
