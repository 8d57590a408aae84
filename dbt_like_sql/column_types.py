"""One column type in its four spellings: GoogleSQL, BigQuery's schema API, Arrow, and what a cast needs.

Belongs here: pure conversions between type names. Does not: values, tables.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from dbt_like_sql.contract import Column

_API = {"INT64": "INTEGER", "BOOL": "BOOLEAN", "FLOAT64": "FLOAT"}
_SQL = {"INTEGER": "INT64", "BOOLEAN": "BOOL", "FLOAT": "FLOAT64", "RECORD": "STRUCT"}
_ARRAY_OF_STRUCT = re.compile(r"^ARRAY<STRUCT<(.+)>>$")
_ARRAY = re.compile(r"^ARRAY<(.+)>$")


def bigquery_schema(columns: Iterable[Column]) -> list[Any]:
    """Columns as the BigQuery API spells them, descriptions and modes included."""
    from google.cloud.bigquery import SchemaField  # noqa: PLC0415

    fields = []
    for column in columns:
        nested = _ARRAY_OF_STRUCT.match(column.type)
        if nested:
            parts = [SchemaField(name, _API.get(kind, kind), "NULLABLE") for name, kind in struct_fields(nested[1])]
            fields.append(SchemaField(column.name, "RECORD", "REPEATED", description=column.description, fields=parts))
            continue
        array = _ARRAY.match(column.type)
        mode = "REPEATED" if array else "REQUIRED" if column.is_required else "NULLABLE"
        kind = array[1] if array else column.type
        kind = _API.get(kind, kind)
        fields.append(SchemaField(column.name, kind, mode, description=column.description))
    return fields


def struct_fields(text: str) -> list[tuple[str, str]]:
    """`a INT64, b STRING` as pairs."""
    pairs = [part.strip().split(" ", 1) for part in text.split(",")]
    return [(name, kind) for name, kind in pairs]


def type_sql(field: Any) -> str:
    """GoogleSQL's name of an API schema field's type."""
    kind = _SQL.get(field.field_type, field.field_type)
    if kind == "STRUCT":
        kind = f"STRUCT<{', '.join(f'{part.name} {type_sql(part)}' for part in field.fields)}>"
    return f"ARRAY<{kind}>" if field.mode == "REPEATED" else kind


def arrow_type(kind: str) -> pa.DataType:
    """Arrow type in which a column's values arrive.

    Raises:
        KeyError: the type cannot be loaded by this room.
    """
    import pyarrow as pa  # noqa: PLC0415

    return {
        "STRING": pa.string(),
        "INT64": pa.int64(),
        "NUMERIC": pa.decimal128(38, 9),
        "BOOL": pa.bool_(),
        "DATE": pa.date32(),
        "TIMESTAMP": pa.timestamp("us", tz="UTC"),
    }[kind]
