"""Checks as few scans: those that look at one row of one table at a time are counted in one pass over it.

Belongs here: pure rewriting of checks. Does not: what a check says (checks.py), running them (publish.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from dbt_like_sql.graph import DIALECT, table_nodes, tree
from dbt_like_sql.render import DAYS, quote, render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbt_like_sql.catalog import Table
    from dbt_like_sql.checks import Check
    from dbt_like_sql.render import Slice

RESULT = "STRUCT<table_name STRING, name STRING, severity STRING, failed_rows INT64, example STRING>"
# What makes a SELECT more than a condition on each row.
_WHOLE = ("joins", "group", "having", "qualify", "distinct", "limit", "with", "with_", "laterals", "windows", "order")


@dataclass(frozen=True)
class RowCheck:
    """A check that is a condition on single rows of one table."""

    check: Check
    relation: str
    is_by_day: bool
    condition: str
    shown: str


def audit_sql(tables: Sequence[Table], table_id: Callable[[str], str], slices: Callable[[Table], Slice]) -> str:
    """An expression: the array of all results of all checks of these tables."""
    parts: list[str] = []
    whole: list[str] = []
    for table in tables:
        rows: dict[tuple[str, bool], list[RowCheck]] = {}
        for check in table.checks:
            found = row_check(check)
            if found is None:
                whole.append(check_sql(table, check, table_id, slices(table)))
            else:
                rows.setdefault((found.relation, found.is_by_day), []).append(found)
        parts += [_one_scan(table, found, table_id, slices(table)) for found in rows.values()]
    if whole:
        listed = "\nUNION ALL".join(whole)
        columns = "c.table_name, c.name, c.severity, c.failed_rows, c.example"
        parts.append(f"ARRAY(\nSELECT AS STRUCT {columns} FROM ({listed}\n) AS c\n)")
    if not parts:
        return f"ARRAY<{RESULT}>[]"
    return parts[0] if len(parts) == 1 else f"ARRAY_CONCAT({', '.join(parts)})"


def check_sql(table: Table, check: Check, table_id: Callable[[str], str], part: Slice) -> str:
    """One check as a row: how many rows it found, and one of them."""
    query = render(check.sql, table_id=table_id, part=part, path=table.contract_path.with_name("checks.sql"))
    return f"""
SELECT
  {quote(table.name)} AS table_name,
  {quote(check.name)} AS name,
  {quote(check.severity)} AS severity,
  COUNT(*) AS failed_rows,
  ANY_VALUE(TO_JSON_STRING(found)) AS example
FROM (
{query}
) AS found"""


def row_check(check: Check) -> RowCheck | None:
    """The check as a condition on rows; None if it is more than that."""
    query = tree(check.sql)
    named = table_nodes(query)
    if not isinstance(query, exp.Select) or len(named) != 1 or any(query.args.get(key) for key in _WHOLE):
        return None
    name, node = named[0]
    if (
        node.alias
        or query.find(exp.AggFunc, exp.Window, exp.Subquery, exp.Star)
        or len(list(query.find_all(exp.Select))) > 1
    ):
        return None
    if any(column.table for column in query.find_all(exp.Column)):
        return None
    conditions = list(_conjuncts(query.args["where"].this)) if query.args.get("where") else []
    by_day = [each for each in conditions if _is_days(each)]
    own = [each for each in conditions if not _is_days(each)]
    if len(by_day) > 1 or any(parameter.name == DAYS for each in own for parameter in each.find_all(exp.Parameter)):
        return None
    shown = ", ".join(each.sql(dialect=DIALECT) for each in query.expressions)
    condition = " AND ".join(f"({each.sql(dialect=DIALECT)})" for each in own) or "TRUE"
    return RowCheck(check, name, bool(by_day), condition, shown)


def _one_scan(table: Table, checks: Sequence[RowCheck], table_id: Callable[[str], str], part: Slice) -> str:
    first = checks[0]
    counted = ",\n  ".join(
        f"COUNTIF({each.condition}) AS n_{at}, "
        f"ANY_VALUE(IF({each.condition}, TO_JSON_STRING(STRUCT({each.shown})), NULL)) AS e_{at}"
        for at, each in enumerate(checks)
    )
    where = f"\nWHERE {table.partition_column} IN UNNEST(@{DAYS})" if first.is_by_day else ""
    scan = render(f"SELECT {counted}\nFROM {first.relation}{where}", table_id=table_id, part=part)
    listed = ",\n  ".join(
        f"STRUCT({quote(table.name)} AS table_name, {quote(each.check.name)} AS name, "
        f"{quote(each.check.severity)} AS severity, s.n_{at} AS failed_rows, s.e_{at} AS example)"
        for at, each in enumerate(checks)
    )
    return f"(\nSELECT [\n  {listed}\n]\nFROM (\n{scan}\n) AS s\n)"


def _conjuncts(node: Any) -> Any:
    if isinstance(node, exp.And):
        yield from _conjuncts(node.left)
        yield from _conjuncts(node.right)
    elif isinstance(node, exp.Paren):
        yield from _conjuncts(node.this)
    else:
        yield node


def _is_days(node: Any) -> bool:
    unnest = node.args.get("unnest") if isinstance(node, exp.In) else None
    return unnest is not None and any(found.name == DAYS for found in unnest.find_all(exp.Parameter))
