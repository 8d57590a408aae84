"""The marts of the real month: its CSV files through the line's own transforms and the marts' own SQL, in DuckDB.

The SQL is turned from GoogleSQL to DuckDB's by SQLGlot (but for the calendar, whose formats it does not know). Nothing
of this room takes part, so what is computed from these tables is independent of it. Without the files beside the
checkout there is nothing to test.
"""

from __future__ import annotations

import csv
import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp

from mage_project.transforms.lines import CORE_SCHEMA, INSTANT, MONEY, classify_lines, price_lines
from mage_project.transforms.plan import ReadPlan, attach_plan
from tests.unit.powerbi import shop

ROOT = Path(__file__).parents[3]
FILES = ROOT.parent / "shared/retail"
MARTS = ("invoice_lines", "products", "customers", "countries")


def events() -> pa.Table:
    """The files' lines as decoded events, one topic partition, offsets in the order of the files."""
    rows: list[dict[str, Any]] = []
    line_nos: dict[str, int] = {}
    for file in sorted(FILES.glob("*.csv")):
        with file.open(encoding="utf-8-sig", newline="") as text:
            for line in csv.DictReader(text):
                number = line["InvoiceNo"]
                line_nos[number] = line_nos.get(number, 0) + 1
                rows.append(_event(line, line_nos[number], len(rows)))
    types = {"unit_price": MONEY, "produced_at": INSTANT, "invoiced_at": INSTANT}
    table = pa.table({
        name: pa.array([row[name] for row in rows], type=types.get(name) or pa.infer_type([row[name] for row in rows]))
        for name in rows[0]
    })  # fmt: skip
    return attach_plan(table, ReadPlan(topic="retail.invoices", table="core.invoice_lines", mode="rebuild", days=()))


def _event(line: dict[str, str], line_no: int, offset: int) -> dict[str, Any]:
    moment = dt.datetime.fromisoformat(line["InvoiceDate"]).replace(tzinfo=dt.UTC)
    return {
        "topic": "retail.invoices", "topic_partition": 0, "topic_offset": offset, "produced_at": moment,
        "event_day": moment.date(), "event_id": f"{line['InvoiceNo']}-{line_no}", "invoice_no": line["InvoiceNo"],
        "line_no": line_no, "stock_code": line["StockCode"], "description": line["Description"] or None,
        "quantity": int(line["Quantity"]), "unit_price": Decimal(line["UnitPrice"]), "invoiced_at": moment,
        "customer_id": line["CustomerID"].removesuffix(".0") or None, "country": line["Country"],
    }  # fmt: skip


def marts() -> dict[str, pa.Table]:
    """Every mart that the model reads."""
    core = price_lines(classify_lines(events()))
    assert core.schema.names == CORE_SCHEMA.names
    days = sorted(set(core["invoice_date"].to_pylist()))
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.execute("CREATE SCHEMA core")
        db.execute("CREATE SCHEMA mart")
        db.register("rows", core)
        db.execute("CREATE TABLE core.invoice_lines AS SELECT * FROM rows")
        for name in MARTS:
            text = (ROOT / f"dbt_like_sql/models/mart/{name}/query.sql").read_text(encoding="utf-8")
            db.execute(f"CREATE TABLE mart.{name} AS {in_duckdb(text, days)}")
        db.execute(
            "CREATE TABLE mart.data_trust AS SELECT invoice_date, COUNT(*) AS landed_rows,"
            " 0::BIGINT AS dead_letter_rows, 3::BIGINT AS open_dead_letter_rows,"
            " COUNT(*) AS core_rows, SUM(amount_gbp)::DECIMAL(38, 9) AS core_amount_gbp, 0::BIGINT AS repeat_rows,"
            " COUNT(*) AS mart_rows, SUM(amount_gbp)::DECIMAL(38, 9) AS mart_amount_gbp,"
            " SUM(amount_gbp)::DECIMAL(38, 9) AS published_amount_gbp, TRUE AS is_reconciled,"
            " TIMESTAMP '2011-01-01 06:00:02' AS published_at, MAX(produced_at)::TIMESTAMP AS newest_produced_at"
            " FROM core.invoice_lines GROUP BY invoice_date"
        )
        found = {name: db.execute(f"FROM mart.{name}").to_arrow_table() for name in (*MARTS, "data_trust")}
    return found | {"dates": pa.Table.from_pylist(shop.dates(dt.date(2010, 1, 1), dt.date(2010, 12, 31)))}


def in_duckdb(text: str, days: list[dt.date]) -> str:
    """A model's GoogleSQL as DuckDB's SQL, with its parameters' values."""

    def value(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Parameter) and node.name.lower() == "days":
            return exp.Array(expressions=[exp.cast(exp.Literal.string(day.isoformat()), "date") for day in days])
        return node

    return sqlglot.parse_one(text, read="bigquery").transform(value).sql("duckdb")
