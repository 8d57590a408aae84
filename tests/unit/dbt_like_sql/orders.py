"""A second stream for tests: orders, whose events are known by two columns, and marts unlike those of the shop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.dbt_like_sql.models import column, write_table

if TYPE_CHECKING:
    from pathlib import Path

CORE, TOPIC = "core.orders", "shop.orders"
REQUIRED = "        required: true\n"
KEY = REQUIRED + "        primaryKey: true\n"
NULL_KEY = "        primaryKey: true\n"
ADDITIVE = "        customProperties: [{property: additive, value: true}]\n"
DAY = column("order_day", "DATE", more=REQUIRED + "        partitioned: true\n        partitionKeyPosition: 1\n")
SOURCE = column("topic_partition", "INT64", more=REQUIRED) + column("topic_offset", "INT64", more=REQUIRED)
# An order's lines without a number are one line; `event_id` is a name that the fact table's own check gives to its key.
LINE = column("order_no", "INT64", more=KEY) + column("line_no", "INT64", more=NULL_KEY) + column("event_id", "STRING")
FIRST = "topic, topic_partition, topic_offset"
LAST = "topic DESC, topic_partition DESC, topic_offset DESC"
DAYS = "WHERE order_day IN UNNEST(@days)"
ROWS = f"SELECT order_day, order_no, line_no, event_id, qty, price, topic_partition, topic_offset FROM {CORE} {DAYS}"


def write_orders(models: Path, name: str = CORE) -> None:
    """core.orders, or another table of the same columns, without a mart."""
    identity = "      - property: identity\n        value: [topic, topic_partition, topic_offset]\n"
    columns = column("topic", "STRING", more=REQUIRED) + SOURCE + DAY + LINE
    columns += column("sku", "STRING") + column("qty", "INT64") + column("price", "NUMERIC")
    write_table(models, name, materialization="loaded", columns=columns, extra=identity)


def write_view(models: Path) -> None:
    """mart.by_sku, a daily mart that reads core through a view."""
    columns = column("order_day", "DATE") + column("sku", "STRING") + column("price", "NUMERIC")
    query = f"SELECT order_day, sku, price FROM {CORE}"
    write_table(models, "mart.priced", materialization="view", query=query, columns=columns)
    columns = DAY + column("sku", "STRING", more=NULL_KEY) + column("price", "NUMERIC", more=ADDITIVE)
    query = f"SELECT order_day, sku, SUM(price) AS price FROM mart.priced {DAYS} GROUP BY order_day, sku"
    write_table(models, "mart.by_sku", query=query, columns=columns)


def write_joined(models: Path) -> None:
    """mart.sent_back, made of events of two streams: orders, and returns, which are written as orders are."""
    write_orders(models, "core.returns")
    query = (
        f"SELECT o.order_day, o.sku, o.price, COUNT(*) AS pairs FROM {CORE} AS o "
        "JOIN core.returns AS r ON r.sku = o.sku AND r.price = o.price AND r.order_day = o.order_day "
        "WHERE o.order_day IN UNNEST(@days) AND r.order_day IN UNNEST(@days) GROUP BY o.order_day, o.sku, o.price"
    )
    columns = DAY.replace(REQUIRED, KEY) + column("sku", "STRING", more=KEY) + column("price", "NUMERIC", more=KEY)
    write_table(models, "mart.sent_back", query=query, columns=columns + column("pairs", "INT64"))


def write_fact(
    models: Path, name: str, *, order: str | None = FIRST, query: str = ROWS, grows_by: str | None = "order_no"
) -> None:
    """A mart that keeps of each line the first delivery in an order; without one, every delivery."""
    if order:
        query += f" QUALIFY ROW_NUMBER() OVER (PARTITION BY order_day, order_no, line_no ORDER BY {order}) = 1"
    columns = DAY + LINE + column("qty", "INT64", more=ADDITIVE) + column("price", "NUMERIC", more=ADDITIVE) + SOURCE
    extra = f"      - {{property: incrementalBy, value: {grows_by}}}\n" if grows_by else ""
    if not order:
        columns = columns.replace(NULL_KEY, "")
    write_table(models, name, query=query, columns=columns, extra=extra)
