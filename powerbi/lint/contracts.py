"""The model's columns against the marts' promises: names, types, keys. Reads only `dbt_like_sql.catalog`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from powerbi.lint.finding import Finding
from powerbi.m import parameters_of, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from powerbi.model import Column, Model, Table

# BigQuery's type -> (dataType, whether the column must be marked as a date without time)
_TYPES = {
    "STRING": ("string", False),
    "INT64": ("int64", False),
    "NUMERIC": ("decimal", False),
    "FLOAT64": ("double", False),
    "BOOL": ("boolean", False),
    "DATE": ("dateTime", True),
    "TIMESTAMP": ("dateTime", False),
}


def check_contracts(model: Model, catalog: Any) -> Iterator[Finding]:
    """Every table reads a mart that exists, by columns that it promises, with types that hold them."""
    for table in model.tables:
        if not table.partitions:
            continue
        place = table.partitions[0].place
        source = source_of(table.partitions[0].source, parameters_of(model.expressions))
        if source is None:
            continue
        name = f"mart.{source.table}"
        if name not in catalog:
            yield Finding(
                place.file,
                place.line,
                "unknown-mart",
                f"table {table.name!r} reads {name}, which no contract promises",
                "Correct the M query.",
            )
            continue
        promised = {column.name: column for column in catalog[name].columns}
        for column in table.columns:
            yield from _column(column, promised, name)
        yield from _keys(table, model, catalog[name].columns, name)
        if source.range_column is not None and _base(promised.get(source.range_column)) != "DATE":
            yield Finding(
                place.file,
                place.line,
                "range-type",
                f"table {table.name!r} is cut by {source.range_column}, which is no DATE of {name}",
                "Cut by a DATE column: a TIMESTAMP does not compare with RangeStart.",
            )


def _keys(table: Table, model: Model, promised: Any, mart: str) -> Iterator[Finding]:
    """The one side of a relationship needs a column without repeats, and only a promised key is one."""
    keys = [column.name for column in promised if column.is_key]
    wanted = {one.to_column for one in model.relationships if one.to_table == table.name}
    for column in table.columns:
        if (column.name in wanted or column.is_key) and keys != [column.source_column]:
            yield Finding(
                column.place.file,
                column.place.line,
                "source-key",
                f"column {column.name!r} is a key, but {mart} promises {', '.join(keys) or 'nothing'} to be unique",
                "Relate by the mart's key: a repeated value on the one side fails the refresh.",
            )


def _column(column: Column, promised: dict[str, Any], mart: str) -> Iterator[Finding]:
    place = column.place
    found = promised.get(column.source_column)
    if found is None:
        yield Finding(
            place.file,
            place.line,
            "unknown-source",
            f"{mart} promises no column {column.source_column!r}",
            f"One of {', '.join(sorted(promised))}.",
        )
        return
    wanted, is_date = _TYPES.get(_base(found), (None, False))
    if wanted is None:
        yield Finding(
            place.file,
            place.line,
            "source-type",
            f"{mart}.{column.source_column} is {_base(found)}, which Power BI cannot hold",
            "Flatten or cast it in the mart.",
        )
    elif column.data_type != wanted:
        yield Finding(
            place.file,
            place.line,
            "source-type",
            f"column {column.name!r} is {column.data_type}, {mart}.{column.source_column} is {_base(found)}",
            f"Use dataType: {wanted}.",
        )
    elif column.is_date != is_date:
        yield Finding(
            place.file,
            place.line,
            "source-type",
            f"column {column.name!r}: {mart}.{column.source_column} is {_base(found)}",
            f"{'Add' if is_date else 'Remove'} `annotation UnderlyingDateTimeDataType = Date`.",
        )


def _base(column: Any) -> str:
    return str(getattr(column, "type", "")).split("(", maxsplit=1)[0].upper()
