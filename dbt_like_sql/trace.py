"""One event's way through the warehouse, and back: which rows hold it, and which events a row is made of.

Belongs here: finding rows by running the models on one row, and walking keys back. Does not: the lake, measures.

Forward, each model's own query is run with its source replaced by the one row in question: whatever rows come out name,
by their key, the rows of the published table that contain it. So no model has to describe its lineage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlglot import exp, parse_one

from dbt_like_sql.errors import SelectionError
from dbt_like_sql.graph import DIALECT, table_nodes, tree
from dbt_like_sql.publish import parameters
from dbt_like_sql.render import quote, render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.warehouse import Warehouse

# A model that answers one row with more than these depends on its table as a whole.
MAX_ROWS = 5
# Offsets of one mart row that are listed one by one; beyond, as ranges.
MAX_RANGES = 200
# How a value is given for a column that is no text: what is expected, and what refuses anything else.
_READ: dict[str, tuple[str, Callable[[str], Any]]] = {
    "INT64": ("a whole number", int),
    "NUMERIC": ("a number", lambda value: int(Decimal(value) * 0)),
    "BOOL": ("true or false", lambda value: ("false", "true").index(value.lower())),
    "DATE": ("a date such as 2010-12-01", date.fromisoformat),
    "TIMESTAMP": ("an instant such as 2010-12-01T08:26:00Z", datetime.fromisoformat),
}
_NO_KEY = "its contract marks no column as primaryKey"


@dataclass(frozen=True)
class TracedRow:
    """Rows of one table that contain what is traced. `rows` is empty where it is not counted; `note` says why."""

    table: str
    key: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    note: str = ""


@dataclass(frozen=True)
class TracedEvent:
    """What the warehouse knows of one event."""

    loads: tuple[dict[str, Any], ...]
    core: TracedRow | None
    marts: tuple[TracedRow, ...] = ()


@dataclass(frozen=True)
class TracedMart:
    """A mart row and the events it is made of. `ranges`: topic, topic partition, first and last offset, rows.

    `paths`: for each stream whose events are in it, the tables from the mart to the one that knows offsets.
    """

    table: str
    row: dict[str, Any] | None
    ranges: tuple[tuple[str, int, int, int, int], ...]
    events: int
    paths: tuple[tuple[str, ...], ...]


def trace_event(
    warehouse: Warehouse, catalog: Catalog, table: str, identity: Mapping[str, Any], day: date
) -> TracedEvent:
    """The row of a loaded table with this identity, the loads that brought it, and every mart row that contains it.

    Args:
        warehouse: an open warehouse.
        catalog: the models.
        table: a loaded table, `core.invoice_lines`.
        identity: its identity columns: topic, topic_partition, topic_offset.
        day: the event's day.
    """
    source = catalog[table]
    where = f"{source.partition_column} = DATE '{day}' AND {_equal(identity)}"
    rows = _rows(warehouse, f"SELECT * FROM `{warehouse.table_id(table)}` WHERE {where}")
    loads = _loads(warehouse, table, identity, day)
    core = TracedRow(table, source.identity, tuple(rows))
    if not rows:
        return TracedEvent(loads, None)
    inlined = {table: f"(SELECT * FROM `{warehouse.table_id(table)}` WHERE {where})"}
    marts = []
    for name in catalog.downstream(table):
        model = catalog[name]
        if model.materialization == "view" and set(model.depends_on) & set(inlined):
            inlined[name] = f"({_on_one_row(warehouse, model, inlined, day)})"
        if model.materialization != "table":
            continue
        traced, sql = _forward(warehouse, model, inlined, day, rows[0])
        marts.append(traced)
        if sql:
            inlined[name] = sql
    return TracedEvent(loads, core, tuple(marts))


def _loads(warehouse: Warehouse, table: str, identity: Mapping[str, Any], day: date) -> tuple[dict[str, Any], ...]:
    sql = f"""
SELECT l.version, l.is_rebuild, l.run_id, l.code_version, l.loaded_at
FROM `{warehouse.table_id("control.load")}` AS l
CROSS JOIN UNNEST(l.offsets) AS o
WHERE l.table_name = {quote(table)} AND l.event_day = DATE '{day}' AND l.topic = {quote(str(identity["topic"]))}
  AND o.topic_partition = {int(identity["topic_partition"])}
  AND {int(identity["topic_offset"])} BETWEEN o.first_offset AND o.last_offset
ORDER BY l.version
"""
    return tuple(_rows(warehouse, sql))


def _forward(
    warehouse: Warehouse, model: Table, inlined: Mapping[str, str], day: date, event: Mapping[str, Any]
) -> tuple[TracedRow, str | None]:
    """Rows of the published table that the traced rows of its sources lead to, and how to select them."""
    key = _key(model)
    if not any(parent in inlined for parent in model.depends_on):
        return TracedRow(model.name, key, (), "what it reads does not hold the event"), None
    query = _on_one_row(warehouse, model, inlined, day)
    if not key:
        return TracedRow(model.name, key, (), f"{_NO_KEY}, so its rows cannot be told apart"), f"({query})"
    made = _rows(warehouse, query)
    if not made:
        return TracedRow(model.name, key, (), "its query gives no row for this event"), None
    if len(made) > MAX_ROWS:
        return TracedRow(model.name, key, (), f"depends on the event as a whole ({len(made)} rows)"), None
    found = " OR ".join(f"({_equal({name: row[name] for name in key})})" for row in made)
    prune = f"{model.partition_column} = DATE '{day}' AND " if model.partition_column else ""
    sql = f"SELECT * FROM `{warehouse.table_id(model.name)}` WHERE {prune}({found})"
    rows = tuple(_rows(warehouse, sql))
    note = "" if rows else "not published yet"
    for row in rows:
        if any(row.get(name, event.get(name)) != event.get(name) for name in ("topic_partition", "topic_offset")):
            named = ", ".join(str(row[name]) for name in key if name != model.partition_column)
            counted = f"{event['topic']}/{row['topic_partition']}/{row['topic_offset']}"
            note = (
                f"this delivery is a repeat of event {named}: the row counts its {_counted(model)} delivery, {counted}"
            )
    return TracedRow(model.name, key, rows, note), f"({sql})"


def _key(model: Table) -> tuple[str, ...]:
    return tuple(column.name for column in model.columns if column.is_key)


def _counted(model: Table) -> str:
    """Which delivery of an event a table keeps, in a word."""
    ordered = tree(model.query or "", model.query_path).find_all(exp.Ordered)
    return "last" if any(each.args.get("desc") for each in ordered) else "first"


def _on_one_row(warehouse: Warehouse, model: Table, inlined: Mapping[str, str], day: date) -> str:
    query = tree(model.query or "", model.query_path).copy()
    marks: dict[str, str] = {}
    for name, node in table_nodes(query):
        if name in inlined:
            mark = f"__inlined_{len(marks)}__"  # the last two: else that of the second row begins that of the eleventh
            marks[mark] = inlined[name]
            alias = exp.TableAlias(this=exp.to_identifier(node.alias or name.partition(".")[2]))
            kept = {key: node.args[key] for key in ("pivots", "joins") if node.args.get(key)}
            node.replace(exp.Table(this=exp.to_identifier(mark), alias=alias, **kept))
    sql = render(query.sql(dialect=DIALECT), table_id=warehouse.table_id, days=[day], path=model.query_path)
    # at once: what is put in holds the event's texts, which may look like a mark
    pattern = "|".join(f"`{mark}`|{mark}" for mark in marks)
    return re.sub(pattern, lambda found: marks[found[0].strip("`")], sql) if marks else sql


def trace_mart(warehouse: Warehouse, catalog: Catalog, name: str, key: Mapping[str, str]) -> TracedMart:
    """The offsets that one mart row is made of.

    The row's key is followed through the models, by the columns it comes from, to the tables that know offsets.
    `NULL` as the value of a column that may be missing is a missing one.

    Raises:
        SelectionError: no such table, no key or one that is none of its columns, a value that is not of its column's
            type, or a key that no source carries.
    """
    if name not in catalog.tables:
        raise SelectionError(f"tracing {name!r}: no such table. There are: {', '.join(catalog.tables)}")
    table = catalog[name]
    wanted = _key(table)
    if not key and not wanted:
        raise SelectionError(f"tracing {name}: {_NO_KEY}; name columns of the row yourself. Nothing was read.")
    unknown = sorted(set(key) - set(table.column_names))
    missing = [column for column in wanted if column not in key]
    if unknown or missing:
        problem = f"unknown column {', '.join(unknown)}" if unknown else f"missing {', '.join(missing)}"
        raise SelectionError(f"tracing {name}: {problem}; its key is {', '.join(wanted)}. Nothing was read.")
    typed = {column: _is_value(table, column, value) for column, value in key.items()}
    where = " AND ".join(f"{column} {is_value}" for column, is_value in typed.items())
    rows = _rows(warehouse, f"SELECT * FROM `{warehouse.table_id(name)}` WHERE {_prunable(table, typed)}{where}")
    row = rows[0] if rows else None
    ways = _back(catalog, table, typed)
    if not ways:
        sources = ", ".join(table.depends_on) or "its sources"
        raise SelectionError(
            f"tracing {name}: {', '.join(key)} is carried by none of {sources} to a table that knows offsets: its rows "
            "are made of the table as a whole."
        )
    ranges = [each for path, condition in ways for each in _ranges(warehouse, catalog[path[-1]], condition)]
    return TracedMart(name, row, tuple(ranges), sum(each[4] for each in ranges), tuple(path for path, _ in ways))


def _back(catalog: Catalog, table: Table, key: Mapping[str, str]) -> list[tuple[tuple[str, ...], Mapping[str, str]]]:
    """Follow the key to tables that have offsets: the ways there, each with the condition at its end.

    A mart of two streams is made of events of both. Of several ways to one loaded table the first counts.
    """
    if "topic_offset" in table.column_names:
        return [((table.name,), key)]
    found: list[tuple[tuple[str, ...], Mapping[str, str]]] = []
    for parent in table.depends_on:
        moved = _moved(catalog, table, catalog[parent], key)
        for path, condition in _back(catalog, catalog[parent], moved) if moved is not None else []:
            known = {name for other, _ in found for name in _loaded(catalog, other[-1])}
            if not known & _loaded(catalog, path[-1]):
                found.append(((table.name, *path), condition))
    return found


def _loaded(catalog: Catalog, name: str) -> set[str]:
    return {each for each in (name, *catalog.upstream(name)) if catalog[each].materialization == "loaded"}


def _moved(catalog: Catalog, table: Table, parent: Table, key: Mapping[str, str]) -> dict[str, str] | None:
    """The same key by the parent's columns: a plain column of it, or what the model makes of one of its rows."""
    from dbt_like_sql.lineage import column_expression, column_sources  # noqa: PLC0415

    moved = {}
    for column, value in key.items():
        if column not in table.column_names:
            made = _by_parent(catalog, table, parent, parse_one(column, dialect=DIALECT))
        else:
            made = column_expression(catalog, table.name, column, parent.name)
        if made is not None and not isinstance(made, exp.Column):
            moved[made.sql(dialect=DIALECT)] = value
            continue
        if column not in table.column_names:
            return None
        sources = [source for source in column_sources(catalog, table.name, column) if source[0] == parent.name]
        names = {name for _, name in sources}
        same = [name for name in names if parent.column(name).type == table.column(column).type]
        if len(same) != 1 and column in parent.column_names:
            same = [column] if column in names or not names else same
        if len(same) != 1:
            return None
        moved[same[0]] = value
    return moved


def _by_parent(catalog: Catalog, table: Table, parent: Table, expression: exp.Expr) -> exp.Expr | None:
    """An expression of the table's columns by those of the parent."""
    from dbt_like_sql.lineage import column_expression  # noqa: PLC0415

    for each in list(expression.find_all(exp.Column)):
        made = column_expression(catalog, table.name, each.name, parent.name)
        if made is None:
            return None
        each.replace(made)
    return expression


def _ranges(warehouse: Warehouse, table: Table, key: Mapping[str, str]) -> list[tuple[str, int, int, int, int]]:
    where = " AND ".join(f"{column} {is_value}" for column, is_value in key.items())
    topic = "topic" if "topic" in table.column_names else "CAST(NULL AS STRING) AS topic"
    sql = f"""
SELECT
  topic, topic_partition, MIN(topic_offset) AS first_offset, MAX(topic_offset) AS last_offset,
  COUNT(*) AS row_count
FROM (
  SELECT {topic}, topic_partition, topic_offset,
    topic_offset - ROW_NUMBER() OVER (PARTITION BY topic, topic_partition ORDER BY topic_offset) AS island
  FROM `{warehouse.table_id(table.name)}` WHERE {_prunable(table, key)}{where}
) AS offsets
GROUP BY topic, topic_partition, island
ORDER BY topic, topic_partition, first_offset
"""
    return [
        (row["topic"], row["topic_partition"], row["first_offset"], row["last_offset"], row["row_count"])
        for row in _rows(warehouse, sql)
    ]


def _prunable(table: Table, key: Mapping[str, str]) -> str:
    """Tables that require a filter on their day get one, even where the key does not name it."""
    if table.requires_partition_filter and table.partition_column not in key:
        return f"{table.partition_column} >= DATE '0001-01-01' AND "
    return ""


def _is_value(table: Table, column: str, value: str) -> str:
    """What follows the column's name in a condition that it has this value."""
    found = table.column(column)
    if value == "NULL" and not found.is_required:
        return "IS NULL"
    if found.type == "STRING":
        return f"= {quote(value)}"
    if found.type not in _READ:
        raise SelectionError(
            f"tracing {table.name}: {column} is an {found.type}, by which no row is found; name other columns. "
            "Nothing was read."
        )
    expected, read = _READ[found.type]
    try:
        read(value)
    except (ValueError, ArithmeticError) as error:
        raise SelectionError(
            f"tracing {table.name}: {column} is {value!r}; expected {expected}. Nothing was read."
        ) from error
    return f"= CAST({quote(value)} AS {found.type})"


def _equal(values: Mapping[str, Any]) -> str:
    return " AND ".join(
        f"{name} IS NULL" if value is None else f"{name} = {_value(value)}" for name, value in values.items()
    )


def _value(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return f"{'TIMESTAMP' if hasattr(value, 'hour') else 'DATE'} {quote(value.isoformat())}"
    if isinstance(value, Decimal):
        return f"NUMERIC '{value:f}'"
    return (
        str(value).upper() if isinstance(value, bool) else str(value) if isinstance(value, int) else quote(str(value))
    )


def _rows(warehouse: Warehouse, sql: str) -> Sequence[dict[str, Any]]:
    return warehouse.run(sql, params=parameters(warehouse, sql), kind="trace").rows
