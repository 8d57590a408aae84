"""Made-up rows of core.invoice_lines for tests, from a seed, and how a day of them is counted."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Any

import pyarrow as pa

from dbt_like_sql import reconcile
from dbt_like_sql.catalog import load_catalog

TOPIC = "retail.invoices"
_FACT = reconcile.fact_of(load_catalog(), "core.invoice_lines")
core_days = partial(reconcile.core_days, fact=_FACT)
mart_days = partial(reconcile.mart_days, fact=_FACT)
SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("topic_partition", pa.int64()),
        ("topic_offset", pa.int64()),
        ("event_id", pa.string()),
        ("invoice_date", pa.date32()),
        ("invoiced_at", pa.timestamp("us", tz="UTC")),
        ("invoice_no", pa.string()),
        ("line_no", pa.int64()),
        ("invoice_kind", pa.string()),
        ("line_kind", pa.string()),
        ("price_kind", pa.string()),
        ("stock_code", pa.string()),
        ("description", pa.string()),
        ("quantity", pa.int64()),
        ("unit_price_gbp", pa.decimal128(38, 9)),
        ("amount_gbp", pa.decimal128(38, 9)),
        ("customer_id", pa.string()),
        ("is_guest", pa.bool_()),
        ("country", pa.string()),
        ("produced_at", pa.timestamp("us", tz="UTC")),
    ]
)


def line(day: date, part: int, offset: int, *, event_id: str | None = None, **changes: Any) -> dict[str, Any]:
    """One row; everything else about it follows from where it came from."""
    dice = random.Random(f"{day}/{part}/{offset}")
    quantity = dice.choice([1, 2, 6, 12, -3])
    price = Decimal(dice.randrange(0, 10**7)) / Decimal(10**4) + Decimal(dice.randrange(10)) / Decimal(10**9)
    guest = dice.random() < 0.2
    row = {
        "topic": TOPIC,
        "topic_partition": part,
        "topic_offset": offset,
        "event_id": event_id or f"{day}-{part}-{offset}",
        "invoice_date": day,
        "invoiced_at": datetime.combine(day, time(9 + offset % 8), UTC),
        "invoice_no": ("C" if quantity < 0 else "") + str(536000 + offset // 5),
        "line_no": offset % 5 + 1,
        "invoice_kind": "cancellation" if quantity < 0 else "sale",
        "line_kind": dice.choice(["product"] * 8 + ["postage", "manual"]),
        "price_kind": "priced" if price > 0 else "free",
        "stock_code": str(20000 + dice.randrange(40)),
        "description": dice.choice(["WHITE METAL LANTERN", "JAM MAKING SET ✿", None]),
        "quantity": quantity,
        "unit_price_gbp": price,
        "amount_gbp": price * quantity,
        "customer_id": None if guest else str(12000 + dice.randrange(30)),
        "is_guest": guest,
        "country": dice.choice(["United Kingdom", "France", "Côte d'Ivoire"]),
        "produced_at": datetime.combine(day, time(20, offset % 60), UTC),
    }
    return {**row, **changes}


def lines(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as the table that Mage's exporter hands over."""
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def day_lines(day: date, part: int, first: int, count: int) -> list[dict[str, Any]]:
    """`count` rows of one topic partition, offsets ascending."""
    return [line(day, part, offset) for offset in range(first, first + count)]
