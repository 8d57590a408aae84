"""DAX as a tree. Every node knows the character at which it begins. Nothing here evaluates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Expr:
    """Any expression; `position` is its first character in the text it was parsed from."""

    position: int


@dataclass(frozen=True)
class Number(Expr):
    """A number as it was written."""

    text: str


@dataclass(frozen=True)
class Text(Expr):
    """A string literal, unquoted."""

    value: str


@dataclass(frozen=True)
class Bracket(Expr):
    """`[name]` or `Table[name]`: a measure or a column, told apart by the model."""

    table: str | None
    name: str


@dataclass(frozen=True)
class Name(Expr):
    """A bare or quoted name: a variable or a table."""

    name: str
    is_quoted: bool


@dataclass(frozen=True)
class Call(Expr):
    """`FUNCTION ( argument, ... )`; the function's name in capitals."""

    function: str
    arguments: tuple[Expr, ...]


@dataclass(frozen=True)
class Unary(Expr):
    """`-x`, `+x` or `NOT x`."""

    operator: str
    operand: Expr


@dataclass(frozen=True)
class Binary(Expr):
    """`left operator right`."""

    operator: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Rows(Expr):
    """`{ 1, 2 }` or `{ (1, "a") }`: a table written out."""

    rows: tuple[tuple[Expr, ...], ...]


@dataclass(frozen=True)
class Variables(Expr):
    """`VAR a = ... VAR b = ... RETURN result`."""

    variables: tuple[tuple[str, Expr], ...]
    result: Expr


@dataclass(frozen=True)
class Query(Expr):
    """`DEFINE MEASURE ... EVALUATE table ORDER BY ...`; measures as (table, name, expression)."""

    measures: tuple[tuple[str, str, Expr], ...]
    table: Expr
    order_by: tuple[tuple[Expr, bool], ...]
