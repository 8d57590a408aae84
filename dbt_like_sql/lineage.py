"""Which columns a column is made of, by the syntax trees of the models.

Belongs here: pure questions to SQLGlot's lineage. Does not: drawing (docs.py), measures (they belong to the report).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage

from dbt_like_sql.graph import DIALECT, outer_selects, table_nodes, tree

if TYPE_CHECKING:
    from dbt_like_sql.catalog import Catalog, Table

Column = tuple[str, str]
_NOT_OF_ONE_ROW = (
    exp.AggFunc,
    exp.Window,
    exp.Query,
    exp.Anonymous,
)  # a function that nobody knows may be of many rows


def column_sources(catalog: Catalog, table: str, column: str) -> tuple[Column, ...]:
    """Columns of other tables that a column is directly made of, as (table, column); none for a loaded table."""
    return _sources(catalog[table], column, _schema(catalog, catalog[table]))


def column_ancestors(catalog: Catalog, table: str, column: str) -> tuple[Column, ...]:
    """The same, through all tables in between, nearest first."""
    found: list[Column] = []
    todo = [(table, column)]
    while todo:
        for source in column_sources(catalog, *todo.pop(0)):
            if source not in found:
                found.append(source)
                todo.append(source)
    return tuple(found)


def column_expression(catalog: Catalog, table: str, column: str, parent: str) -> exp.Expr | None:
    """What a column is by one row of a parent; none where it is made of several rows, or of another table too."""
    node = _node(catalog[table], column, _schema(catalog, catalog[table]))
    return None if node is None else _by_columns_of(parent, node)


def _by_columns_of(parent: str, node: Node) -> exp.Expr | None:
    if isinstance(node.source, exp.Table):
        is_parent = f"{node.source.db}.{node.source.name}" == parent and not node.downstream
        return exp.column(node.name.rpartition(".")[2].strip('`"'), quoted=True) if is_parent else None
    if not isinstance(node.expression, exp.Alias) or node.expression.find(*_NOT_OF_ONE_ROW):
        return None
    made = exp.paren(node.expression.this.copy())  # a root, so that a lone column can be replaced too
    below = {each.name.replace("`", "").replace('"', ""): each for each in node.downstream}
    for each in list(made.find_all(exp.Column)):
        source = below.get(f"{each.table}.{each.name}")
        found = _by_columns_of(parent, source) if source is not None else None
        if found is None:
            return None
        each.replace(found)
    inner = made.this
    return inner if isinstance(inner, exp.Column) else made


def column_readers(catalog: Catalog, table: str, column: str) -> tuple[Column, ...]:
    """Columns of other tables that a column goes into, through all tables in between."""
    return tuple(
        (reader, each)
        for reader in catalog.downstream(table)
        for each in catalog[reader].column_names
        if (table, column) in column_ancestors(catalog, reader, each)
    )


def _schema(catalog: Catalog, table: Table) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    return tuple(
        (parent, tuple((column.name, _kind(column.type)) for column in catalog[parent].columns))
        for parent in table.depends_on
    )


def _kind(kind: str) -> str:
    return kind if "<" not in kind else "ARRAY<STRING>"


def _node(table: Table, column: str, schema: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]) -> Node | None:
    """The column in SQLGlot's graph; none for a loaded table, and where the query cannot be followed."""
    if table.query is None:
        return None
    nested: dict[str, Any] = {}
    for parent, columns in schema:
        layer, _, name = parent.partition(".")
        nested.setdefault(layer, {})[name] = dict(columns)
    try:
        query = _with_arrays(tree(table.query, table.query_path).copy())
        return lineage(column, query, schema=nested, dialect=DIALECT)
    except (SqlglotError, ValueError, KeyError):
        return None


@lru_cache(maxsize=4096)
def _sources(
    table: Table, column: str, schema: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
) -> tuple[Column, ...]:
    node = _node(table, column, schema)
    if node is None or table.query is None:
        return ()
    found: set[Column] = set()
    for each in node.walk():
        source = each.source
        if isinstance(source, exp.Table) and source.db and not each.downstream:
            found.add((f"{source.db}.{source.name}", each.name.rpartition(".")[2].strip('`"')))
    known = {name for name, _ in table_nodes(tree(table.query, table.query_path))}
    return tuple(sorted(pair for pair in found if pair[0] in known))


def _with_arrays(query: exp.Query) -> exp.Expr:
    """The query without brackets around it, whose columns name the arrays that a subquery of theirs reads row by row.

    SQLGlot's lineage neither looks into brackets nor follows UNNEST out of a subquery.
    """
    for node in list(query.find_all(exp.Unnest)):
        outer = next(outer_selects(node), None)
        column = (
            next((each for each in outer.expressions if node in each.find_all(exp.Unnest)), None) if outer else None
        )
        if column is not None:
            made = column.unalias()
            arrays = [each.copy() for each in node.find_all(exp.Column)]
            made.replace(exp.Anonymous(this="made_of", expressions=[made.copy(), *arrays]))
    return query.unnest()
