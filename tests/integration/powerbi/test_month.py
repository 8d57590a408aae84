"""The real month: the report's numbers against SQL on the marts, to the last digit, and against its files."""

from __future__ import annotations

import csv
import datetime as dt
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from powerbi.dax.context import ColumnKey
from powerbi.dax.query import Selection
from powerbi.standin.copied import Copy
from tests.integration.powerbi import month
from tests.unit.powerbi import shop
from tests.unit.powerbi.truth import APART, MEASURES, Cell, Truth, evaluated, ratio, same

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

SPAN = (dt.date(2010, 1, 1), dt.date(2010, 12, 31))
WHOLE = Cell(*SPAN, span=SPAN)
DATE, COUNTRY = ColumnKey("Date", "date"), ColumnKey("Country", "country")
PRODUCT, PRODUCT_NAME = ColumnKey("Product", "stock_code"), ColumnKey("Product", "product")
WEEK = Selection(DATE, None, "2010-12-06", "2010-12-12")
FEW = Selection(COUNTRY, ("Germany", "France"))


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    if not month.FILES.is_dir():
        pytest.skip(f"the month's files are not at {month.FILES}")
    return month.marts()


@pytest.fixture(scope="module")
def truth(tables: dict[str, Any]) -> Truth:
    return Truth(tables)


@pytest.fixture(scope="module")
def connection(tables: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    copy = Copy(tmp_path_factory.mktemp("month") / "imported.duckdb")
    shop.fill(copy, tables)
    yield copy.reader()
    copy.close()


def contexts(tables: dict[str, Any]) -> dict[str, tuple[tuple[ColumnKey, ...], tuple[Selection, ...], dict[Any, Cell]]]:
    days = sorted(set(tables["invoice_lines"]["invoice_date"].to_pylist()))
    countries = tables["countries"]["country"].to_pylist()
    codes = tables["products"]["stock_code"].to_pylist()[::40]
    sliced = Cell(dt.date(2010, 12, 6), dt.date(2010, 12, 12), "country IN ('Germany', 'France')", SPAN)
    return {
        "in total": ((), (), {(): WHOLE}),
        "by day": ((DATE,), (), {(day,): Cell(day, day, span=SPAN) for day in days}),
        "by country": ((COUNTRY,), (), {(one,): replace(WHOLE, where=f"country = '{one}'") for one in countries}),
        "by some products": ((PRODUCT,), (), {(one,): replace(WHOLE, where=f"stock_code = '{one}'") for one in codes}),
        "by country and day of a week": (
            (COUNTRY, DATE),
            (WEEK, FEW),
            {
                (one, day): Cell(day, day, f"country = '{one}'", SPAN)
                for one in ("Germany", "France")
                for day in days
                if sliced.first <= day <= sliced.last
            },
        ),
        "under both slicers": ((), (WEEK, FEW), {(): sliced}),
    }


@pytest.mark.parametrize(
    "context",
    ["in total", "by day", "by country", "by some products", "by country and day of a week", "under both slicers"],
)
def test_every_measure_equals_sql_on_the_marts(
    truth: Truth, connection: Any, tables: dict[str, Any], context: str
) -> None:
    model = shop.model()
    groups, selections, cells = contexts(tables)[context]
    wrong = {}
    for measure, expected in MEASURES.items():
        found = evaluated(model, connection, measure, groups, selections)
        for key, cell in cells.items():
            if not same(found.get(key), expected(truth, cell)):
                wrong[f"[{measure}] {key}"] = (found.get(key), expected(truth, cell))
    assert not wrong, f"{len(wrong)} cells differ: {dict(list(wrong.items())[:8])}"


def test_money_and_counts_are_those_of_the_files(connection: Any, tables: dict[str, Any]) -> None:
    """No transform, no SQL: the files read line by line, by the standard library alone."""
    model = shop.model()
    lines, amount, sold, taken_back, orders = 0, Decimal(0), Decimal(0), Decimal(0), set()
    goods = {row["stock_code"] for row in tables["products"].to_pylist() if row["line_kind"] == "product"}
    for file in sorted(month.FILES.glob("*.csv")):
        with file.open(encoding="utf-8-sig", newline="") as text:
            for line in csv.DictReader(text):
                value = Decimal(line["Quantity"]) * Decimal(line["UnitPrice"])
                lines, amount = lines + 1, amount + value
                is_goods = line["StockCode"].strip().upper() in goods
                if line["InvoiceNo"].startswith("C"):
                    taken_back -= value if is_goods else 0
                elif line["InvoiceNo"].isdigit():
                    sold += value if is_goods else 0
                    orders.add(line["InvoiceNo"])

    def shown(measure: str) -> Any:
        return evaluated(model, connection, measure, (), ())[()]

    assert (shown("Invoice Lines"), shown("Total Amount")) == (lines, amount)
    assert (shown("Gross Sales"), shown("Returns"), shown("Net Sales")) == (sold, taken_back, sold - taken_back)
    assert shown("Orders") == len(orders)


@pytest.mark.parametrize("measure", sorted(APART))
def test_shares_and_ranks_equal_sql_on_the_marts(truth: Truth, connection: Any, measure: str) -> None:
    model, net = shop.model(), truth.net(WHOLE)
    nets = {
        ("product" if key is PRODUCT_NAME else "country", one): truth.net(replace(WHOLE, where=f"{column} = $${one}$$"))
        for key, column, ones in (
            (
                PRODUCT_NAME,
                "stock_code",
                [code for (code,) in truth.db.execute("SELECT stock_code FROM products").fetchall()],
            ),
            (COUNTRY, "country", [one for (one,) in truth.db.execute("SELECT country FROM countries").fetchall()]),
        )
        for one in ones
    }
    if measure == "Top 10 Products Share":
        assert same(evaluated(model, connection, measure, (), ())[()], ratio(truth.best_products(WHOLE, 10), net))
    elif measure in ("Share of Countries", "Share of Selection"):
        found = evaluated(model, connection, measure, (COUNTRY,), ())
        for (kind, one), value in nets.items():
            assert kind == "product" or same(found.get((one,)), ratio(value, net))
    else:
        found = evaluated(model, connection, measure, (PRODUCT_NAME,), ())
        codes = dict(truth.db.execute("SELECT product, stock_code FROM products").fetchall())
        products = {one: value for (kind, one), value in nets.items() if kind == "product"}
        assert len(found) > 2000
        for (name,), value in found.items():
            code = codes[name]
            better = sum((other or 0) > products[code] for other in products.values())
            expected = ratio(products[code], net) if measure == "Share of Products" else 1 + better
            assert same(value, expected), (code, value, expected)
