"""Frames of invoice lines: decoded events in, rows of core.invoice_lines out.

Belongs here: pure functions from one Arrow table to the next. Not here: the rules for a single value
(retail.py), reading and writing. Rows are never dropped, added or reordered, whatever they hold.

Shape in: topic str, topic_partition int64, topic_offset int64, produced_at timestamp, event_day date, event_id str,
invoice_no str, line_no int64, stock_code str, description str?, quantity int64, unit_price Decimal(38,9),
invoiced_at timestamp, customer_id str?, country str. Shape out: CORE_SCHEMA, one row per event.
"""

from __future__ import annotations

from decimal import localcontext
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from mage_project.transforms import retail
from mage_project.transforms.errors import TransformError
from mage_project.transforms.plan import carry_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

MONEY = pa.decimal128(38, 9)  # BigQuery's NUMERIC
INSTANT = pa.timestamp("us", tz="UTC")

# The contract's limits, which make the product fit NUMERIC: 10 digits times 12+9 digits are 31.
QUANTITY = pa.decimal128(10, 0)
UNIT_PRICE = pa.decimal128(21, 9)

CORE_SCHEMA = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("topic_partition", pa.int64(), nullable=False),
        pa.field("topic_offset", pa.int64(), nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("invoice_date", pa.date32(), nullable=False),
        pa.field("invoiced_at", INSTANT, nullable=False),
        pa.field("invoice_no", pa.string(), nullable=False),
        pa.field("line_no", pa.int64(), nullable=False),
        pa.field("invoice_kind", pa.string(), nullable=False),
        pa.field("line_kind", pa.string(), nullable=False),
        pa.field("price_kind", pa.string(), nullable=False),
        pa.field("stock_code", pa.string(), nullable=False),
        pa.field("description", pa.string()),
        pa.field("quantity", pa.int64(), nullable=False),
        pa.field("unit_price_gbp", MONEY, nullable=False),
        pa.field("amount_gbp", MONEY, nullable=False),
        pa.field("customer_id", pa.string()),
        pa.field("is_guest", pa.bool_(), nullable=False),
        pa.field("country", pa.string(), nullable=False),
        pa.field("produced_at", INSTANT, nullable=False),
    ]
)


def classify_lines(lines: pa.Table) -> pa.Table:
    """Every line with its texts cleaned and its kinds named: invoice_kind, line_kind, is_guest are added."""
    invoice_no = _mapped(lines["invoice_no"], retail.clean_code)
    stock_code = _mapped(lines["stock_code"], retail.clean_code)
    customer_id = _mapped(lines["customer_id"], retail.clean_customer)
    changed = {
        "invoice_no": invoice_no,
        "invoice_kind": _mapped(invoice_no, retail.invoice_kind),
        "stock_code": stock_code,
        "line_kind": _mapped(stock_code, retail.line_kind),
        "description": _mapped(lines["description"], retail.clean_description),
        "customer_id": customer_id,
        "is_guest": pc.is_null(customer_id),
        "country": _mapped(lines["country"], retail.clean_country),
    }
    return _with_columns(lines, changed)


def price_lines(lines: pa.Table) -> pa.Table:
    """Classified lines, priced exactly and in the shape of core.invoice_lines.

    Arrow's decimal multiplication is exact and checked: it widens to 31 digits here, and a value that does not
    fit is an error, never a rounding (docs/decisions/0004-frames-are-arrow-tables.md).

    Raises:
        TransformError: a quantity or price beyond the contract's limits, with its topic partition and offset.
    """
    quantity = _narrowed(lines, "quantity", QUANTITY)
    unit_price = _narrowed(lines, "unit_price", UNIT_PRICE)
    priced = {
        "invoice_date": lines["event_day"],
        "unit_price_gbp": lines["unit_price"].cast(MONEY),
        "amount_gbp": pc.multiply(quantity, unit_price).cast(MONEY),
        "price_kind": _price_kinds(lines["unit_price"]),
    }
    wide = _with_columns(lines, priced)
    return carry_plan(lines, wide.select(CORE_SCHEMA.names).cast(CORE_SCHEMA).combine_chunks())


def _price_kinds(unit_price: pa.ChunkedArray) -> pa.ChunkedArray:
    return _mapped_values(unit_price, retail.price_kind)


def _mapped(column: pa.ChunkedArray, rule: Callable[[str], str | None]) -> pa.ChunkedArray:
    """`rule` applied to each distinct text; null stays null. A day has few distinct texts for its many rows."""
    return _mapped_values(column, rule)


def _mapped_values(
    column: pa.ChunkedArray, rule: Callable[[str], str | None] | Callable[[Decimal], str]
) -> pa.ChunkedArray:
    encoded = pa.chunked_array([column.combine_chunks()], type=column.type).dictionary_encode()
    chunks = [
        pa.array([rule(value) for value in chunk.dictionary.to_pylist()], pa.string()).take(chunk.indices)
        for chunk in encoded.chunks
    ]
    return pa.chunked_array(chunks, type=pa.string())


def _narrowed(lines: pa.Table, column: str, kind: pa.Decimal128Type) -> pa.ChunkedArray:
    """`column` in a type just wide enough for the contract's limits, or the row that breaks them."""
    values = lines[column]
    wide = (
        values.cast(pa.decimal128(38, kind.scale))
        if pa.types.is_decimal(values.type)
        else values.cast(pa.decimal128(19, 0))
    )
    try:
        return wide.cast(kind)
    except pa.ArrowInvalid:
        limit = 10 ** (kind.precision - kind.scale)
        row = pc.index(pc.greater_equal(pc.abs(wide), pa.scalar(limit, wide.type)), value=True).as_py()
        raise _out_of_range(lines, column, row, limit) from None


def _out_of_range(lines: pa.Table, column: str, row: int, limit: int) -> TransformError:
    part, offset = lines["topic_partition"][row].as_py(), lines["topic_offset"][row].as_py()
    return TransformError(
        f"pricing {lines['topic'][row].as_py()}[{part}] offset {offset}: {column} is {lines[column][row].as_py()}, "
        f"the contract keeps it below {limit}. Nothing was written. The landing should have made it a dead letter: "
        "compare the stream's contract with mage_project/transforms/lines.py.",
        topic_partition=part,
        topic_offset=offset,
        column=column,
    )


def _with_columns(table: pa.Table, columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        table = table.append_column(name, values) if index < 0 else table.set_column(index, name, values)
    return table


def first_wrong_amount(lines: pa.Table) -> dict[str, object] | None:
    """The first line whose amount is not quantity x price, by Python's own decimals on the distinct triples.

    Deliberately not Arrow's arithmetic: a check that repeats the computation it checks would agree with its error.
    """
    columns = ["quantity", "unit_price_gbp", "amount_gbp"]
    for triple in lines.select(columns).group_by(columns).aggregate([]).to_pylist():
        with localcontext(prec=60):
            if triple["quantity"] * triple["unit_price_gbp"] != triple["amount_gbp"]:
                return dict(triple)
    return None
