"""DAX queries (EVALUATE ...) and roles, as statements. Not here: expressions (translate.py)."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from powerbi.dax.context import ColumnKey
from powerbi.dax.query import VisualQuery
from powerbi.dax.syntax import Bracket, Call, Expr, Query, Text
from powerbi.dax.translate import translate
from powerbi.errors import DaxRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from powerbi.model import Model


def query_statement(
    model: Model, query: Query, *, security: Mapping[str, str] | None = None, user: str = "",
    blank_members: frozenset[str] = frozenset(),
) -> tuple[str, list[str]]:  # fmt: skip
    """A DAX query as SQL, with its result's column names: EVALUATE ROW(...) or SUMMARIZECOLUMNS(...).

    Raises:
        DaxError: by name and position.
    """
    visual = _as_visual(query)
    statement = translate(model, visual, security=security, user=user, blank_members=blank_members)
    columns = [f"{key.table}[{key.column}]" for key in statement.groups] + [f"[{name}]" for name, _ in visual.measures]
    return statement.sql, columns


def _as_visual(query: Query) -> VisualQuery:
    table = query.table
    if query.measures:
        raise DaxRefusedError("DEFINE MEASURE is outside the subset that is translated", position=query.position)
    if query.order_by:
        raise DaxRefusedError(
            "ORDER BY is outside the subset that is translated", position=query.order_by[0][0].position
        )
    if isinstance(table, Call) and table.function == "ROW" and table.arguments and len(table.arguments) % 2 == 0:
        return VisualQuery((), tuple(_named(table.arguments)))
    if isinstance(table, Call) and table.function == "SUMMARIZECOLUMNS":
        groups = list(takewhile(lambda one: isinstance(one, Bracket), table.arguments))
        rest = table.arguments[len(groups) :]
        if len(rest) % 2:
            raise DaxRefusedError(
                "SUMMARIZECOLUMNS takes columns, then names and expressions here", position=table.position
            )
        return VisualQuery(tuple(_column_key(one) for one in groups), tuple(_named(rest)))
    raise DaxRefusedError("EVALUATE takes ROW(...) or SUMMARIZECOLUMNS(...) here", position=table.position)


def _column_key(expression: Expr) -> ColumnKey:
    if not isinstance(expression, Bracket) or expression.table is None:
        raise DaxRefusedError("expected a column, written Table[column]", position=expression.position)
    return ColumnKey(expression.table, expression.name)


def _named(arguments: tuple[Expr, ...]) -> Iterator[tuple[str, Expr]]:
    for name, value in zip(arguments[::2], arguments[1::2], strict=True):
        if not isinstance(name, Text):
            raise DaxRefusedError("expected a column's name in quotes", position=name.position)
        yield name.value, value


def security_of(model: Model, roles: list[str]) -> dict[str, str]:
    """The row filters of these roles per table; several roles let through what any of them does."""
    found: dict[str, list[str]] = {}
    chosen = [role for role in model.roles if role.name in roles]
    if len(chosen) != len(set(roles)):
        missing = ", ".join(sorted(set(roles) - {role.name for role in chosen}))
        raise DaxRefusedError(f"role {missing} does not exist", where="roles")
    for table in {name for role in chosen for name in role.filters}:
        if all(table in role.filters for role in chosen):
            found[table] = [role.filters[table] for role in chosen]
    return {table: " || ".join(f"({text})" for text in texts) for table, texts in found.items()}
