"""Build whole days of a table that keeps the first row of each key, without putting every row in order.

Belongs here: when that may be done, and its statements. Not here: the publication around them (publish_sql.py), tables
that grow by key (incremental.py, whose proof this rests on).

`QUALIFY ROW_NUMBER() OVER (PARTITION BY ..., key ORDER BY ...) = 1` sorts whole rows, and nearly all of them have a key
of their own: alone in their partition they are the first, in whatever order. So the rows of keys that stand twice or
more are taken aside, into a temporary table; the query runs over them as it is written, and without its QUALIFY over
all the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from dbt_like_sql.graph import DIALECT, table_nodes, tree
from dbt_like_sql.render import Slice, day_sql, is_by_days, render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date

    from dbt_like_sql.catalog import Catalog, Table


def keeps_first_of_key(table: Table, catalog: Catalog) -> bool:
    """Whether a table's query is a plain SELECT over days of its source that keeps row 1 of each key.

    That every window is partitioned by the key has been proved when its catalog was read (`incrementalBy`).
    """
    if not table.incremental_by or table.query is None:
        return False
    source = catalog[table.depends_on[0]]
    if not source.partition_column or table.incremental_by not in source.column_names:
        return False
    query = tree(table.query, table.query_path)
    qualify = query.args.get("qualify")
    if not isinstance(query, exp.Select) or qualify is None or query.args.get("group") or query.ctes:
        return False
    reads = [node.find_ancestor(exp.Select) is query and is_by_days(node) for _name, node in table_nodes(query)]
    return reads == [True] and source.column(table.incremental_by).is_required and _is_row_one(qualify.this)


def repeats_sql(table: Table, catalog: Catalog, days: Sequence[date], table_id: Callable[[str], str]) -> str:
    """The source's rows of the days whose key stands there more than once, as a temporary table."""
    source, key = catalog[table.depends_on[0]], table.incremental_by
    source_id, where = table_id(source.name), day_sql(source.partition_column or "", days)
    return f"""
CREATE TEMP TABLE {_repeats(table)} AS
SELECT {", ".join(source.column_names)} FROM `{source_id}`
WHERE {where} AND {key} IN (SELECT {key} FROM `{source_id}` WHERE {where} GROUP BY {key} HAVING COUNT(*) > 1);"""


def query_by_repeats(table: Table, days: Sequence[date], table_id: Callable[[str], str]) -> str:
    """The query's rows of the days: its columns in the order of the contract."""
    query = tree(table.query or "", table.query_path)
    single = query.copy()
    single.set("qualify", None)
    alone = f"{table.incremental_by} NOT IN (SELECT {table.incremental_by} FROM {_repeats(table)})"
    single = single.where(alone, dialect=DIALECT, copy=False)
    staged = Slice(days, staged={table.depends_on[0]: _repeats(table)})
    columns = ", ".join(table.column_names)
    rows_alone = render(
        str(single.sql(dialect=DIALECT, comments=False)), table_id=table_id, days=days, path=table.query_path
    )
    rows_first = render(table.query or "", table_id=table_id, part=staged, path=table.query_path)
    return f"""SELECT {columns} FROM (
{rows_alone}
) AS alone
UNION ALL
SELECT {columns} FROM (
{rows_first}
) AS first_of_several"""


def _repeats(table: Table) -> str:
    return f"repeats_of_{table.name.replace('.', '_')}"


def _is_row_one(condition: exp.Expr) -> bool:
    if not isinstance(condition, exp.EQ) or condition.expression.name != "1":
        return False
    window = condition.this
    return isinstance(window, exp.Window) and isinstance(window.this, exp.RowNumber)
