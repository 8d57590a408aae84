"""Whether a table may be published for some of its rows: each of its rows must be made of rows with its own key.

Belongs here: the proof on the syntax tree. Does not: publishing (publish_sql.py).

A contract says `incrementalBy: event_id`. Then a day that has grown is published by taking out and building anew the
rows of those keys that were loaded since; its other rows stay. That gives what a whole build gives if the query reads
one loaded table, and every window and group of it, and of each check of a day, keeps to one key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlglot import exp

from dbt_like_sql.difference import UNSTEADY, is_part
from dbt_like_sql.errors import ContractError
from dbt_like_sql.graph import table_nodes, tree
from dbt_like_sql.render import computes_with_days, is_days

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbt_like_sql.catalog import Table


def check_incremental(table: Table, tables: Mapping[str, Table]) -> None:
    """Refuse an `incrementalBy` that is not true.

    Raises:
        ContractError: the query or a check puts rows of several keys together.
    """
    key = table.incremental_by or ""
    problem = _problem(table, tables, key)
    if problem:
        raise ContractError(table.contract_path, None, f"incrementalBy is {key!r}, but {problem}")


def _problem(table: Table, tables: Mapping[str, Table], key: str) -> str | None:
    if key not in table.column_names or not table.partition_column or table.query is None:
        return "it must name a column of a table that is built from a query and partitioned by day"
    if not table.column(key).is_required:
        return "its column may be NULL, and NULL is found by no key"
    if len(table.depends_on) != 1 or tables[table.depends_on[0]].materialization != "loaded":
        return "its query must read one loaded table and nothing else"
    query = tree(table.query, table.query_path)
    if computes_with_days(query):
        return "its query uses @days for more than conditions such as invoice_date IN UNNEST(@days)"
    return _unsteady_problem(query) or _query_problem(query, key) or _check_problem(table, tables, key)


def _unsteady_problem(query: Any) -> str | None:
    if any(not is_days(found) for found in query.find_all(*UNSTEADY)):
        return "its query asks for @today, the clock or chance, and the rows that stay would keep what it was before"
    if any(is_part(node) for _name, node in table_nodes(query)):
        return "its query reads a part of its source, or an older state"
    return None


def _query_problem(query: Any, key: str) -> str | None:
    if len(table_nodes(query)) != 1 or query.args.get("joins"):
        return "its query must read its source once, without a join"
    if query.find(exp.SetOperation, exp.Distinct, exp.Limit):
        return "its query has a set operation, a DISTINCT or a LIMIT"
    if not all(_keeps_key(window.args.get("partition_by") or [], key) for window in query.find_all(exp.Window)):
        return f"a window of its query is not partitioned by {key}"
    groups = [select.args.get("group") for select in query.find_all(exp.Select)]
    has_aggregate = any(aggregate.find_ancestor(exp.Window) is None for aggregate in query.find_all(exp.AggFunc))
    if has_aggregate and not any(group and _keeps_key(group.expressions, key) for group in groups):
        return f"its query aggregates rows without grouping by {key}"
    selected = [each.unalias() for each in query.selects if each.alias_or_name == key]
    if len(selected) != 1 or not isinstance(selected[0], exp.Column) or selected[0].name != key:
        return f"its query does not hand {key} on as it is"
    return None


def _check_problem(table: Table, tables: Mapping[str, Table], key: str) -> str | None:
    """Relations of a check of some days must have the key, since the check sees the rows of some keys only."""
    for check in table.checks:
        for name, node in table_nodes(tree(check.sql)):
            select = node.find_ancestor(exp.Select)
            where = select.args.get("where") if select is not None else None
            if where is not None and where.find(exp.Parameter) and key not in tables[name].column_names:
                return f"check {check.name!r} reads days of {name}, which has no {key}"
    return None


def _keeps_key(columns: Any, key: str) -> bool:
    return any(isinstance(column, exp.Column) and column.name == key for column in columns)
