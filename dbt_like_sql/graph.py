"""What a query reads, found on its syntax tree, and the order in which tables can be built.

Belongs here: pure questions about SQL text. Does not: files, BigQuery, rewriting (render.py).
"""

from __future__ import annotations

import re
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from dbt_like_sql.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DIALECT = "bigquery"
LAYERS = ("control", "core", "mart")
OPEN = re.compile(r"Missing (.+) from \d+:(\d+)$")  # the tokenizer's: its line is where the text ends


def tree(sql: str, path: object = "<query>") -> exp.Query:
    """Syntax tree of exactly one SELECT. Trees are shared: copy before changing.

    Raises:
        ContractError: not GoogleSQL, not one statement, not a SELECT, or it names a table otherwise than `layer.table`.
    """
    try:
        return _parse(sql)
    except TokenError as error:
        line, problem = _open_token(sql, error)
        raise ContractError(path, line, f"not GoogleSQL: {problem}") from error
    except ParseError as error:
        found = error.errors[0] if error.errors else {}
        raise ContractError(path, found.get("line"), f"not GoogleSQL: {_told(sql, error, found)}") from error
    except ContractError as error:
        raise ContractError(path, error.line, error.problem) from error
    except ValueError as error:
        raise ContractError(path, None, str(error)) from error


def _open_token(sql: str, error: TokenError) -> tuple[int | None, str]:
    """The line where a text, a name or a comment begins that does not end, and what would end it."""
    if found := OPEN.match(str(error.__context__ or error)):
        return sql.count("\n", 0, int(found[2])) + 1, f"no {found[1]} ends what begins here"
    at = sql.rfind("/*")
    if at > sql.rfind("*/"):
        return sql.count("\n", 0, at) + 1, "no */ ends the comment that begins here"
    return None, _told(sql, error, {})


def _told(sql: str, error: Exception, found: Mapping[str, Any]) -> str:
    """The parser's error without its colours, which are for terminals alone."""
    if "{{" in sql or "{%" in sql:
        return "it has a template, which nothing here renders; name tables as layer.table, days as @days"
    return f"{found['description'].rstrip('.')}, at {found['highlight']!r}" if found else str(error)


@lru_cache(maxsize=1024)
def _parse(sql: str) -> exp.Query:
    found = sqlglot.parse(sql, dialect=DIALECT)
    # A comment behind the last semicolon is a statement of its own to the parser.
    statements = [each for each in found if each is not None and not isinstance(each, exp.Semicolon)]
    if len(statements) != 1:
        line = line_of(statements[1]) if statements else None
        raise ContractError("<query>", line, f"expected one SELECT, found {len(statements)} statements")
    query = statements[0]
    if not isinstance(query, exp.Query):
        raise ContractError("<query>", line_of(query), f"expected a SELECT, found {query.key.upper()}")
    _unnest_arrays(query)
    for node in query.find_all(exp.Table):
        # Written in full, a table would stay in its own project and dataset in every environment, or become ours.
        if node.catalog or (node.db and "." in node.name):
            name = ".".join(part.sql(dialect=DIALECT) for part in node.parts)
            problem = f"{name} is not named as layer.table; project and dataset are settings"
            raise ContractError("<query>", line_of(node), problem)
    return query


def _unnest_arrays(query: exp.Query) -> None:
    """`EXISTS(SELECT 1 FROM s.tags)` reads an array of the table that is called s around it: say so with UNNEST."""
    for node in list(query.find_all(exp.Table)):
        parts = list(node.parts)
        first = parts[0].name.lower()
        if len(parts) == 1 or first in LAYERS or not isinstance(node.this, exp.Identifier):
            continue
        if any(first in _called(select) for select in outer_selects(node)):
            alias = exp.TableAlias(columns=[exp.to_identifier(node.alias or node.name)])
            array = exp.Column(**dict(zip(("this", "table", "db", "catalog"), reversed(parts), strict=False)))
            node.replace(exp.Unnest(expressions=[array], alias=alias))


def outer_selects(node: exp.Expr) -> Iterator[exp.Select]:
    """The SELECTs around the one of a node whose rows it sees, the nearest first; within a CTE or a FROM, none."""
    child: exp.Expr | None = node.find_ancestor(exp.Select)
    sees = True
    while child is not None and child.parent is not None:
        parent = child.parent
        if isinstance(parent, exp.CTE) or (isinstance(parent, exp.From | exp.Join) and child.arg_key == "this"):
            sees = False
        if isinstance(parent, exp.Select):
            if sees:
                yield parent
            sees = True
        child = parent


def _called(select: exp.Select) -> set[str]:
    read = [select.args.get("from_"), *(select.args.get("joins") or ())]
    return {each.this.alias_or_name.lower() for each in read if each is not None}


def table_nodes(query: exp.Query) -> list[tuple[str, exp.Table]]:
    """Nodes that name a table as `layer.table`; names of CTEs and UNNEST are no references."""
    return [
        (f"{node.db}.{node.name}", node)
        for node in query.find_all(exp.Table)
        if node.db and isinstance(node.this, exp.Identifier)
    ]


def unlayered(query: exp.Query) -> list[exp.Table]:
    """Nodes that name a table without its layer: neither `layer.table` nor a CTE, whose names' case does not count."""
    own = {each.alias.lower() for each in query.find_all(exp.CTE)}
    return [
        node
        for node in query.find_all(exp.Table)
        if not node.db and isinstance(node.this, exp.Identifier) and node.name.lower() not in own
    ]


def put_in_place(query: exp.Expr, name: str, node: exp.Table) -> None:
    """Have a query stand where a table is read: under its alias, with its PIVOT and its joins in brackets."""
    alias = exp.TableAlias(this=exp.to_identifier(node.alias or name.partition(".")[2]))
    kept = {key: node.args[key] for key in ("pivots", "joins") if node.args.get(key)}
    node.replace(exp.Subquery(this=query, alias=alias, **kept))


def line_of(node: exp.Expr | None) -> int | None:
    """Line of the first name in a part of a query as it was written, or in what stands around it."""
    while node is not None:
        for name in node.find_all(exp.Identifier):
            if "line" in name.meta:
                return int(name.meta["line"])
        node = node.parent
    return None


def references(query: exp.Query) -> tuple[str, ...]:
    """Tables that a query reads, each once, sorted."""
    return tuple(sorted({name for name, _ in table_nodes(query)}))


def order(depends_on: Mapping[str, Iterable[str]]) -> list[str]:
    """Names so that each stands behind what it depends on; the same input always gives the same order.

    Raises:
        ValueError: they depend on each other in a circle; the circle is named.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name in sorted(depends_on):
        sorter.add(name, *sorted(depends_on[name]))
    try:
        return list(sorter.static_order())
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        message = f"tables read each other in a circle: {circle}"
        raise ValueError(message) from error
