"""From a query as an analyst writes it to one that runs: table names made full, days made literal.

Belongs here: pure rewriting on the syntax tree. Does not: finding files, running anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp

from dbt_like_sql.errors import ContractError
from dbt_like_sql.graph import DIALECT, line_of, table_nodes, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

DAYS = "days"


@dataclass(frozen=True)
class Slice:
    """The rows of a table that a publication builds: whole days, and of growing days the rows of some keys.

    `keys_sql` is a query of the keys, `key` the column that holds them in every relation of the query. `staged` names
    temporary tables that stand for the days' rows of a table: what is built is audited there, before it is published.
    """

    days: Sequence[date]
    growing: Sequence[date] = ()
    key: str | None = None
    keys_sql: str = ""
    staged: Mapping[str, str] = field(default_factory=dict)

    def sql(self, column: str, qualifier: str = "") -> str:
        """The condition on a relation's day column, in literals, so that BigQuery prunes table partitions."""
        parts = [day_sql(column, self.days)] if self.days or not self.growing else []
        if self.growing:
            key = f"{qualifier}.{self.key}" if qualifier else self.key
            parts.append(f"{day_sql(column, self.growing)} AND {key} IN ({self.keys_sql})")
        return parts[0] if len(parts) == 1 else " OR ".join(f"({part})" for part in parts)


def render(
    sql: str,
    *,
    table_id: Callable[[str], str],
    days: Sequence[date] | None = None,
    part: Slice | None = None,
    path: object = "<query>",
) -> str:
    """Rewrite one SELECT for BigQuery.

    References `layer.table` become `project.dataset.table`. `column IN UNNEST(@days)` becomes a literal predicate,
    so that BigQuery prunes table partitions (a bound array does not promise that); without days it becomes TRUE.
    Anywhere else, such as `UNNEST(@days) AS day` or an expression of them, `@days` becomes the array of the days.

    Args:
        sql: plain GoogleSQL with named parameters.
        table_id: full id of a table, `WarehouseSettings.table_id`.
        days: the days to build; None for all.
        part: instead of `days`, for days of which only some rows are built.
        path: named in errors.

    Raises:
        ContractError: see `tree`; or all days are wanted, and `@days` stands where only an array can.
    """
    query = tree(sql, path).copy()
    wanted = part if part is not None else None if days is None else Slice(days)
    for name, node in table_nodes(query):
        staged = wanted.staged.get(name) if wanted is not None and is_by_days(node) else None
        project, dataset, table = (None, None, staged) if staged else table_id(name).split(".")
        node.set("catalog", exp.to_identifier(project, quoted=True))
        node.set("db", exp.to_identifier(dataset, quoted=True))
        node.set("this", exp.to_identifier(table, quoted=True))
        if not node.alias:
            node.set("alias", exp.TableAlias(this=exp.to_identifier(name.partition(".")[2])))
    return str(with_days(query, wanted, path).sql(dialect=DIALECT, pretty=True))


def with_days(query: exp.Query, part: Slice | None, path: object) -> exp.Query:
    """The query with literals in place of `@days`; see `render`."""
    found: exp.Query = query.transform(lambda node: _literal_days(node, part, path))
    return found


def _literal_days(node: Any, part: Slice | None, path: object) -> Any:
    if is_days(node):
        return _days_array(node, part, path)
    if not is_in_days(node):
        return node
    if part is None:
        return exp.true()
    qualifier = node.this.table if isinstance(node.this, exp.Column) else ""
    predicate = sqlglot.parse_one(part.sql(node.this.sql(dialect=DIALECT), qualifier), dialect=DIALECT)
    return exp.paren(predicate) if part.growing else predicate


def _days_array(node: exp.Expr, part: Slice | None, path: object) -> exp.Expr:
    if part is None:
        problem = "@days stands for all days here, so it can only be used as `column IN UNNEST(@days)`"
        raise ContractError(path, line_of(node), problem)
    listed = ", ".join(f"DATE '{day}'" for day in sorted({*part.days, *part.growing}))
    return sqlglot.parse_one(f"ARRAY<DATE>[{listed}]", dialect=DIALECT)


def parameters(query: exp.Query) -> list[tuple[str | None, exp.Expr]]:
    """The values that a query asks for, by their names; None is one by its position. `@@row_count` is none."""
    found = query.find_all(exp.Parameter, exp.Placeholder)
    return [
        (node.name if isinstance(node, exp.Parameter) else None, node)
        for node in found
        if not isinstance(node.parent, exp.Parameter) and not isinstance(node.this, exp.Parameter)
    ]


def uses_days(query: exp.Query) -> bool:
    """Whether a query asks for the days that are built at all."""
    return any(is_days(found) for found in query.find_all(exp.Parameter))


def computes_with_days(query: exp.Query) -> bool:
    """Whether a query uses `@days` for more than conditions `column IN UNNEST(@days)`."""
    used = sum(is_days(found) for found in query.find_all(exp.Parameter))
    return used > sum(is_in_days(found) for found in query.find_all(exp.In))


def is_in_days(node: Any) -> bool:
    """Whether a condition is `column IN UNNEST(@days)`: these days, and not some that are computed from them."""
    unnest = node.args.get("unnest") if isinstance(node, exp.In) else None
    return unnest is not None and all(is_days(each.unnest()) for each in unnest.expressions)


def is_by_days(node: exp.Table) -> bool:
    """Whether the SELECT that reads a table reads the rows of some days of it."""
    select = node.find_ancestor(exp.Select)
    where = select.args.get("where") if select is not None else None
    return where is not None and any(is_in_days(found) for found in where.find_all(exp.In))


def days_columns(node: exp.Table) -> set[str]:
    """By which of its columns the SELECT that reads a table takes days; of one among several, those named with it."""
    select = node.parent_select
    if select is None:
        return set()
    conditions = [each for each in select.find_all(exp.In) if each.parent_select is select and is_in_days(each)]
    columns = [each.this for each in conditions if isinstance(each.this, exp.Column)]
    return {each.name for each in columns if _is_of(each, node, select)}


def given_column(node: exp.Table, name: str) -> exp.Column | None:
    """The column of a table that the query gives as it is under a name; None where it is computed, or equals another.

    Of the outermost SELECT and of the SELECTs of a UNION; what comes through a subquery is not looked into.
    """
    select = node.parent_select
    root = select.parent if select is not None else None
    while isinstance(root, exp.SetOperation):
        root = root.parent
    if select is None or root is not None:
        return None
    column = next((each.unalias() for each in select.selects if each.alias_or_name == name), None)
    if not isinstance(column, exp.Column) or not _is_of(column, node, select):
        return None
    equal = {side.name for each in select.find_all(exp.EQ) for side in (each.this, each.expression)}
    return None if column.name in equal else column


def _is_of(column: exp.Column, node: exp.Table, select: exp.Select) -> bool:
    """Whether a SELECT's column is of this table: named with it, or bare where no other is joined."""
    return bool(column.table == node.alias_or_name or (not column.table and not select.args.get("joins")))


def is_days(node: exp.Expr) -> bool:
    """Whether a node is the parameter `@days`."""
    return isinstance(node, exp.Parameter) and node.name == DAYS


def day_sql(column: str, days: Iterable[date]) -> str:
    """`column` is one of these days, in literals: `=`, BETWEEN where no day is missing, else IN."""
    wanted = sorted(set(days))
    if not wanted:
        return "FALSE"
    if len(wanted) == 1:
        return f"{column} = DATE '{wanted[0]}'"
    if wanted[-1] - wanted[0] == timedelta(days=len(wanted) - 1):
        return f"{column} BETWEEN DATE '{wanted[0]}' AND DATE '{wanted[-1]}'"
    return f"{column} IN ({', '.join(f'DATE {day.isoformat()!r}' for day in wanted)})"


def newest_sql(column: str) -> str:
    """The newest instant of a column, now at most; NULL without rows.

    A producer's clock that is an hour ahead would have readers believe for an hour that nothing is missing.
    """
    return f"IF(MAX({column}) > CURRENT_TIMESTAMP(), CURRENT_TIMESTAMP(), MAX({column}))"


def quote(text: str) -> str:
    """A GoogleSQL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
