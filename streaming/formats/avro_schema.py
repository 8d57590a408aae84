"""Parsed Avro schemas -> the same, marked where fastavro would alter a value, and with what reads such a value. Pure.

A mark is a logical type of our own; fastavro looks its reader up by type and logical type, in one table of the process.
Not here: the registry's texts (avro.py), how much a value may become (avro_depth.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fastavro.read

from streaming.formats.debezium import CONVERSIONS
from streaming.formats.exact_json import exact_decimal, shortest_float

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

SHORTEST = "as-short-as-float32"
CONNECT = "as-connect-names-it"
OR_COUNT = "-or-count"
BOUNDED = (  # Python ends with the year 9999; a field may say "for ever" by more, and its event is as good as others
    "int-date", "int-time-millis", "long-time-micros", "long-timestamp-millis", "long-timestamp-micros",
    "long-local-timestamp-millis", "long-local-timestamp-micros",
)  # fmt: skip


def register_readers() -> None:
    """Put our readers into fastavro's table. Only its decimals are replaced; nobody else has the marks."""
    table = fastavro.read.LOGICAL_READERS
    table.update({f"{kind}{OR_COUNT}": _or_count(table[kind]) for kind in BOUNDED})
    table.update({
        "bytes-decimal": _read_decimal, "fixed-decimal": _read_decimal, f"float-{SHORTEST}": _read_float,
        **{f"{kind}-{CONNECT}": _read_connect for kind in ("int", "long", "bytes", "record")},
    })  # fmt: skip


def mark(schema: Any, *, is_connect: bool = False) -> Any:
    """The schema with its marks; what is marked within it is marked in place.

    With `is_connect`, values that Kafka Connect names (`connect.name`) are read as such where Avro has no word.
    """
    if schema == "float":
        return {"type": "float", "logicalType": SHORTEST}
    if isinstance(schema, list):
        return [mark(branch, is_connect=is_connect) for branch in schema]
    if isinstance(schema, dict):
        for part in ("items", "values"):
            if part in schema:
                schema[part] = mark(schema[part], is_connect=is_connect)
        for field in schema.get("fields", ()):
            field["type"] = mark(field["type"], is_connect=is_connect)
        _mark_one(schema)
        if is_connect and schema.get("connect.name") in CONVERSIONS and schema.get("logicalType") != "decimal":
            schema["logicalType"] = CONNECT  # Avro's own date and timestamp-millis end at the year 9999 with an error
    return schema


def _mark_one(schema: dict[str, Any]) -> None:
    if schema["type"] == "float":
        schema["logicalType"] = SHORTEST
    elif schema["type"] == "string" and schema.get("logicalType") == "uuid":
        del schema["logicalType"]  # a text like any other: read as a UUID it would be written anew, or be refused
    elif f"{schema['type']}-{schema.get('logicalType')}" in BOUNDED:
        schema["logicalType"] += OR_COUNT


def _read_decimal(data: bytes, writer_schema: Any, _reader_schema: Any = None) -> Decimal:
    """A decimal with every digit: fastavro's own reader rounds to the schema's precision what goes beyond it."""
    return exact_decimal(int.from_bytes(data, "big", signed=True), writer_schema.get("scale", 0))


def _or_count(read: Callable[..., Any]) -> Callable[..., Any]:
    """A reader of times; what is beyond Python's stays a count, as in Debezium's: its field refuses it, not the row."""

    def reader(value: int, writer_schema: Any, reader_schema: Any = None) -> Any:
        try:
            return read(value, writer_schema, reader_schema)
        except (OverflowError, ValueError):
            return value

    return reader


def _read_connect(value: Any, writer_schema: Any, _reader_schema: Any = None) -> Any:
    return CONVERSIONS[writer_schema["connect.name"]](value, writer_schema.get("connect.parameters") or {})


def _read_float(value: float, _writer_schema: Any, _reader_schema: Any = None) -> float:
    return shortest_float(value)
