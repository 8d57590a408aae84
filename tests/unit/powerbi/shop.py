"""A made-up shop for the tests of this room: marts-shaped tables over sixteen months, and the model's copy of them.

Generated from a seed: returns, guests, fees, closed Sundays, a leap day, a country that stops buying, a customer that
returns after a year, prices with three decimals.
"""

# ruff: noqa: E501 - rows side by side

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from powerbi.model import Model, read_model
from powerbi.pbir import Report, read_report
from powerbi.standin.copied import Copy, Filled

ROOM = Path(__file__).parents[3] / "powerbi"
FIRST, LAST = dt.date(2023, 11, 3), dt.date(2025, 2, 20)
CALENDAR = (dt.date(2023, 1, 1), dt.date(2025, 12, 31))
COUNTRIES = ("United Kingdom", "France", "Germany", "EIRE", "Spain", "Côte d'Ivoire")
AT = dt.datetime(2025, 2, 21, 6, 30, 1)  # noqa: DTZ001 - as DuckDB gives it, UTC
MARTS = {
    "Sales": "invoice_lines",
    "Date": "dates",
    "Product": "products",
    "Customer": "customers",
    "Country": "countries",
    "Data Trust": "data_trust",
}
_NUMERIC = pa.decimal128(38, 9)


def model() -> Model:
    return read_model(ROOM / "Retail.SemanticModel")


def report() -> Report:
    return read_report(ROOM / "Retail.Report")


def invoice_lines(*, seed: int = 7, invoices_a_day: int = 3) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    products = [
        (f"{20000 + n}{'A' if n % 7 == 0 else ''}", Decimal(chance.randrange(29, 2999)) / 100) for n in range(30)
    ]
    products.append(("22999", Decimal("0.125")))
    rows: list[dict[str, Any]] = []
    number, day = 500000, FIRST
    while day <= LAST:
        if day.weekday() != 6 and not (day.month == 7 and day.year == 2024):
            for _ in range(chance.randrange(1, 2 * invoices_a_day)):
                number += 1
                rows += _invoice(chance, number, day, products)
        day += dt.timedelta(days=1)
    return rows


def _invoice(
    chance: random.Random, number: int, day: dt.date, products: list[tuple[str, Decimal]]
) -> list[dict[str, Any]]:
    kind = chance.choices(("sale", "cancellation", "adjustment"), (88, 10, 2))[0]
    country = chance.choices(COUNTRIES, (70, 10, 8, 6, 3, 3))[0]
    if country == "Spain" and day > dt.date(2024, 6, 1):
        country = "France"
    customer = "guest" if chance.random() < 0.2 else str(10000 + int(chance.random() ** 2 * 60))
    prefix = {"sale": "", "cancellation": "C", "adjustment": "A"}[kind]
    rows = []
    for line in range(1, chance.randrange(2, 6)):
        code, price = chance.choice(products)
        line_kind = "product"
        if chance.random() < 0.08:
            code, price, line_kind = "POST", Decimal("18.00"), "postage"
        if kind == "adjustment":
            code, price, line_kind = "B", Decimal("-11062.06"), "adjustment"
        quantity = chance.randrange(1, 40) * (-1 if kind == "cancellation" else 1)
        rows.append(
            _line((day, f"{prefix}{number}", line, kind), (line_kind, code, customer, country), quantity, price)
        )
    return rows


def _line(head: tuple[Any, ...], body: tuple[Any, ...], quantity: int, price: Decimal) -> dict[str, Any]:
    day, number, line, kind = head
    line_kind, code, customer, country = body
    amount = price * quantity
    is_product = line_kind == "product"
    zero = Decimal(0)
    return {
        "invoice_date": day, "invoice_no": number, "line_no": line, "invoice_kind": kind, "line_kind": line_kind,
        "price_kind": "negative" if price < 0 else "priced", "stock_code": code, "customer_id": customer, "country": country,
        "quantity": quantity, "unit_price_gbp": price, "amount_gbp": amount,
        "gross_sales_gbp": amount if is_product and kind == "sale" else zero,
        "returns_gbp": -amount if is_product and kind == "cancellation" else zero,
        "net_sales_gbp": amount if is_product and kind in ("sale", "cancellation") else zero,
    }  # fmt: skip


def marts(lines: list[dict[str, Any]]) -> dict[str, pa.Table]:
    """Every mart the model reads, made from the lines in plain Python."""
    return {
        "invoice_lines": _table(lines),
        "dates": _table(dates()),
        "products": _table(
            [
                {"stock_code": c, "description": f"THING {c}", "product": f"{c} THING {c}"}
                for c in sorted({r["stock_code"] for r in lines})
            ]
        ),
        "customers": _table(_customers(lines)),
        "countries": _table([{"country": c} for c in sorted({r["country"] for r in lines})]),
        "data_trust": _table(_trust(lines)),
    }


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        columns[name] = pa.array(values, type=_NUMERIC) if name.endswith("_gbp") else pa.array(values)
    return pa.table(columns)


def dates(first: dt.date = CALENDAR[0], last: dt.date = CALENDAR[1]) -> list[dict[str, Any]]:
    rows, day = [], first
    while day <= last:
        year, week, weekday = day.isocalendar()
        rows.append({
            "date": day, "year": day.year, "quarter": f"{day.year} Q{(day.month + 2) // 3}", "month_number": day.month,
            "month_name": day.strftime("%B"), "year_month": day.strftime("%Y-%m"), "year_month_number": day.year * 100 + day.month,
            "iso_year_week": f"{year}-W{week:02}", "weekday_number": weekday, "weekday_name": day.strftime("%A"),
        })  # fmt: skip
        day += dt.timedelta(days=1)
    return rows


def _customers(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for customer in sorted({row["customer_id"] for row in lines}):
        days = [row["invoice_date"] for row in lines if row["customer_id"] == customer]
        country = next(row["country"] for row in reversed(lines) if row["customer_id"] == customer)
        rows.append({
            "customer_id": customer, "country": country, "first_invoice_date": min(days), "last_invoice_date": max(days),
            "is_guest": customer == "guest",
        })  # fmt: skip
    return rows


def _trust(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_day: dict[dt.date, list[dict[str, Any]]] = {}
    for row in lines:
        by_day.setdefault(row["invoice_date"], []).append(row)
    rows = []
    for day, found in sorted(by_day.items()):
        amount, repeats = sum((row["amount_gbp"] for row in found), Decimal(0)), int(day.day == 13)
        rows.append({
            "invoice_date": day, "landed_rows": len(found) + repeats, "dead_letter_rows": int(day.day == 5), "open_dead_letter_rows": 17,
            "core_rows": len(found) + repeats, "core_amount_gbp": amount, "repeat_rows": repeats, "mart_rows": len(found),
            "mart_amount_gbp": amount - int(day.day == 14), "published_amount_gbp": amount, "is_reconciled": None if day.day == 14 else day != LAST, "published_at": AT, "newest_produced_at": AT - dt.timedelta(seconds=2),
        })  # fmt: skip
    return rows


def fill(copy: Copy, tables: dict[str, pa.Table], *, at: dt.datetime = AT) -> None:
    """Import every mart as a refresh of everything would."""
    found = model()
    copy.prepare(found)
    parts = []
    for table in found.tables:
        rows = tables[MARTS[table.name]]
        rows = rows.select([column.source_column for column in table.columns]).rename_columns(
            [column.name for column in table.columns]
        )
        parts.append(Filled(table.name, rows))
    copy.replace(found, parts, at=at)
