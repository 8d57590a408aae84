"""Checks that sum up a day of a published table take the sums that the publication has made already.

A publication counts rows and sums every additive column of each day that it has written, for its ledger. A check such
as "lines and amounts are those of the fact table" asks for the same sums of the same rows at the same moment: a scan of
the day for each side, for numbers that are at hand. So a derived table that is nothing but such sums reads them from
the script's variable.

Belongs here: pure rewriting of checks. Does not: the sums themselves (publish_sql.py), what a check says (checks.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp

from dbt_like_sql.graph import DIALECT, table_nodes, tree
from dbt_like_sql.render import is_in_days, quote
from dbt_like_sql.restate_sql import measures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbt_like_sql.catalog import Table

SUMS = "published_sums"  # the script's variable: one row a table and day that has rows
# What makes a SELECT more than sums of the groups of one table.
_MORE = ("joins", "having", "qualify", "distinct", "limit", "offset", "with", "with_", "laterals", "windows", "order")


def with_counted(sql: str, tables: Mapping[str, Table]) -> str:
    """The check with the sums that are at hand in place of the derived tables that ask for them; others stay.

    Args:
        sql: a check as it was written, with `@days`.
        tables: those that are published, by name; the check is asked of exactly the days that are published.
    """
    query = tree(sql).copy()
    found = [(each, read) for each in query.find_all(exp.Subquery) if (read := _sums_at_hand(each.this, tables))]
    if not found:
        return sql
    for node, read in found:
        node.set("this", sqlglot.parse_one(read, dialect=DIALECT))
    return str(query.sql(dialect=DIALECT))


def _sums_at_hand(select: Any, tables: Mapping[str, Table]) -> str | None:
    """The same rows, read from the variable; None if the SELECT asks for anything else."""
    if not isinstance(select, exp.Select) or any(select.args.get(each) for each in _MORE):
        return None
    named = table_nodes(select)
    table = tables.get(named[0][0]) if len(named) == 1 else None
    if table is None or table.partition_column is None or select.find(exp.Subquery, exp.Window):
        return None
    day, where, group = table.partition_column, select.args.get("where"), select.args.get("group")
    if where is None or group is None or not is_in_days(where.this) or not _is_column(where.this.this, day):
        return None
    is_plain = not any(group.args[each] for each in group.args if each != "expressions")
    if not is_plain or len(group.expressions) != 1 or not _is_column(group.expressions[0], day):
        return None
    columns = [_at_hand(each.unalias(), table) for each in select.expressions]
    names = [each.alias_or_name for each in select.expressions]
    if None in columns or not all(names):
        return None
    listed = ", ".join(f"{column} AS {name}" for column, name in zip(columns, names, strict=True))
    return f"SELECT {listed} FROM UNNEST({SUMS}) AS s WHERE s.table_name = {quote(table.name)}"


def _at_hand(expression: Any, table: Table) -> str | None:
    """One column: the day, COUNT(*), or the sum of an additive column in the type that SUM gives it."""
    names = measures(table)
    if _is_column(expression, table.partition_column or ""):
        return "s.event_day"
    if isinstance(expression, exp.Count) and isinstance(expression.this, exp.Star):
        return "s.row_count"
    if not isinstance(expression, exp.Sum) or not isinstance(expression.this, exp.Column):
        return None
    column = expression.this.name
    if column not in names:
        return None
    kind = next(each.type for each in table.columns if each.name == column)
    value = f"s.m_{names.index(column)}"
    return f"CAST({value} AS INT64)" if kind == "INT64" else value


def _is_column(node: Any, name: str) -> bool:
    return isinstance(node, exp.Column) and node.name == name
