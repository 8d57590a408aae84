"""Checks as few scans: those that look at one row of one table at a time are counted in one pass over it.

Belongs here: pure rewriting of checks. Does not: what a check says (checks.py), running them (publish.py).

A result is a number and an example, nothing else: names and severities are known to whoever asked, in the same order.
Examples of blocking checks are collected only when they are wanted (`explain`): a publication asks for them when it
has failed, and what it asks for every time is a fifth of the text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from dbt_like_sql.graph import DIALECT, table_nodes, tree
from dbt_like_sql.render import DAYS, is_in_days, render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbt_like_sql.catalog import Table
    from dbt_like_sql.checks import Check
    from dbt_like_sql.render import Slice

RESULT = "STRUCT<failed_rows INT64, example STRING>"
# What makes a SELECT more than a condition on each row.
_WHOLE = ("joins", "group", "having", "qualify", "distinct", "limit", "with", "with_", "laterals", "windows", "order")


@dataclass(frozen=True)
class RowCheck:
    """A check that is a condition on single rows of one table; `day` is what it wants to be in @days, if it does."""

    check: Check
    relation: str
    day: str | None
    condition: str
    shown: str


def ordered_checks(tables: Sequence[Table]) -> list[tuple[Table, Check]]:
    """The checks in the order of the results of `audit_sql`."""
    rows, whole = _split(tables)
    return [(table, each.check) for table, scan in rows for each in scan] + whole


def audit_sql(
    tables: Sequence[Table],
    table_id: Callable[[str], str],
    slices: Callable[[Table], Slice],
    *,
    explain: bool = True,
    at_hand: Callable[[Table, str], str] | None = None,
) -> str:
    """An expression: the array of the results of all checks of these tables, in the order of `ordered_checks`.

    Args:
        tables: whose checks.
        table_id: full id of a table.
        slices: the rows of a table that are looked at.
        explain: give an example of what each check found; otherwise only of what warnings found.
        at_hand: a check of a table (its SQL as it was written) with what need not be asked again.
    """
    rows, whole = _split(tables)
    if at_hand is not None:
        whole = [(table, replace(check, sql=at_hand(table, check.sql))) for table, check in whole]
    parts = [_one_scan(scan, table_id, slices(table), explain=explain) for table, scan in rows]
    if whole:
        listed = ",".join(
            check_sql(table, check, table_id, slices(table), explain=explain or check.severity == "warn")
            for table, check in whole
        )
        parts.append(f"[{listed}]")
    if not parts:
        return f"ARRAY<{RESULT}>[]"
    return parts[0] if len(parts) == 1 else f"ARRAY_CONCAT({', '.join(parts)})"


def check_sql(table: Table, check: Check, table_id: Callable[[str], str], part: Slice, *, explain: bool = True) -> str:
    """One check as a result: how many rows it found, and one of them."""
    query = render(check.sql, table_id=table_id, part=part, path=table.contract_path.with_name("checks.sql"))
    example = "ANY_VALUE(TO_JSON_STRING(found))" if explain else "CAST(NULL AS STRING)"
    return f"""
(SELECT AS STRUCT COUNT(*) AS failed_rows, {example} AS example FROM (
{query}
) AS found)"""


def _split(tables: Sequence[Table]) -> tuple[list[tuple[Table, list[RowCheck]]], list[tuple[Table, Check]]]:
    """Checks that share a scan of their relation, and those that stand as they were written."""
    rows: list[tuple[Table, list[RowCheck]]] = []
    whole: list[tuple[Table, Check]] = []
    for table in tables:
        scans: dict[tuple[str, str | None], list[RowCheck]] = {}
        for check in table.checks:
            found = row_check(check)
            if found is None:
                whole.append((table, check))
            else:
                scans.setdefault((found.relation, found.day), []).append(found)
        rows += [(table, scan) for scan in scans.values()]
    return rows, whole


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
    by_day = [each for each in conditions if is_in_days(each)]
    own = [each for each in conditions if not is_in_days(each)]
    if len(by_day) > 1 or any(parameter.name == DAYS for each in own for parameter in each.find_all(exp.Parameter)):
        return None
    shown = ", ".join(each.sql(dialect=DIALECT) for each in query.expressions)
    condition = " AND ".join(f"({each.sql(dialect=DIALECT)})" for each in own) or "TRUE"
    day = by_day[0].this.sql(dialect=DIALECT) if by_day else None
    return RowCheck(check, name, day, condition, shown)


def _one_scan(checks: Sequence[RowCheck], table_id: Callable[[str], str], part: Slice, *, explain: bool) -> str:
    first = checks[0]
    results = []
    for each in checks:
        example = "CAST(NULL AS STRING)"
        if explain or each.check.severity == "warn":
            example = f"ANY_VALUE(IF({each.condition}, TO_JSON_STRING(STRUCT({each.shown})), NULL))"
        results.append(f"STRUCT(COUNTIF({each.condition}) AS failed_rows, {example} AS example)")
    where = f"\nWHERE {first.day} IN UNNEST(@{DAYS})" if first.day else ""
    listed = ",\n  ".join(results)
    scan = render(f"SELECT [{listed}]\nFROM {first.relation}{where}", table_id=table_id, part=part)
    return f"(\n{scan}\n)"


def _conjuncts(node: Any) -> Any:
    if isinstance(node, exp.And):
        yield from _conjuncts(node.left)
        yield from _conjuncts(node.right)
    elif isinstance(node, exp.Paren):
        yield from _conjuncts(node.this)
    else:
        yield node
