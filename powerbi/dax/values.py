"""Operators and functions of values alone: DAX's BLANK rules, comparison and arithmetic as SQL.

Here: SQL of one value from SQL of others. Not here: anything that depends on filters (modifiers.py, translate.py).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from powerbi.dax.context import Scalar, literal
from powerbi.errors import DaxRefusedError

if TYPE_CHECKING:
    from powerbi.dax.syntax import Unary

_ZERO = {"number": "0", "money": "0", "text": "''", "date": "DATE '1899-12-30'", "boolean": "FALSE", "blank": "0"}
_WITH_OTHER = 3  # arguments of DIVIDE and IF when the last is given


def literal_of(value: object, kind: str) -> str:
    """A value from outside as an SQL literal of a column's type; what is none of that type is refused."""
    if kind in ("number", "money"):
        text = str(value)
        if not re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text):
            raise DaxRefusedError(f"{text!r} is not a number", where="slicer")
        return text
    if kind == "boolean":
        return "TRUE" if value in (True, "true", "True") else "FALSE"
    if kind == "date":
        try:
            day = dt.date.fromisoformat(str(value)[:10])
        except ValueError:
            raise DaxRefusedError(f"{str(value)!r} is not a date", where="slicer") from None
        return f"DATE '{day}'"
    return literal(str(value))


def unary(expression: Unary, value: Scalar) -> Scalar:
    """NOT, a sign."""
    if expression.operator == "NOT":
        return Scalar(f"(NOT COALESCE({value.sql}, FALSE))", "boolean", value.reads)
    sign = "-" if expression.operator == "-" else ""
    return Scalar(f"({sign}{value.sql})", value.type, value.reads)


def binary(operator: str, left: Scalar, right: Scalar) -> Scalar:  # noqa: PLR0911 - a kind of operator each
    """An operator between two values, with DAX's rules for BLANK."""
    reads = left.reads | right.reads
    if operator in ("AND", "OR"):
        return Scalar(f"(COALESCE({left.sql}, FALSE) {operator} COALESCE({right.sql}, FALSE))", "boolean", reads)
    if operator == "&":
        return Scalar(
            f"(COALESCE(CAST({left.sql} AS VARCHAR), '') || COALESCE(CAST({right.sql} AS VARCHAR), ''))", "text", reads
        )
    if operator in ("+", "-"):
        return _sum(operator, left, right)
    if operator == "*":
        return Scalar(f"({left.sql} * {right.sql})", _sort_of_number(left, right), reads)
    if operator == "/":
        return _quotient(f"CAST({left.sql} AS DOUBLE) / COALESCE({right.sql}, 0)", left, right, reads)
    if operator == "^":
        return Scalar(f"POWER(COALESCE({left.sql}, 0), COALESCE({right.sql}, 0))", "number", reads)
    return Scalar(comparison(operator, left, right), "boolean", reads)


def _sum(operator: str, left: Scalar, right: Scalar) -> Scalar:
    """BLANK + BLANK is BLANK; with one side BLANK it counts as 0. A date moves by days."""
    reads = left.reads | right.reads
    kind = "date" if "date" in (left.type, right.type) and left.type != right.type else _sort_of_number(left, right)
    if kind == "date":
        moved = f"({left.sql} {operator} INTERVAL (CAST({right.sql} AS BIGINT)) DAY)"
        return Scalar(f"CAST({moved} AS DATE)", "date", reads)
    if left.type == "date":
        return Scalar(f"date_diff('day', {right.sql}, {left.sql})", "number", reads)
    if left.constant is not None and right.constant is not None:
        return Scalar(f"({left.sql} {operator} {right.sql})", "number")
    both_blank = f"{left.sql} IS NULL AND {right.sql} IS NULL"
    result = f"COALESCE({left.sql}, 0) {operator} COALESCE({right.sql}, 0)"
    return Scalar(f"(CASE WHEN {both_blank} THEN NULL ELSE {result} END)", kind, reads)


def _sort_of_number(left: Scalar, right: Scalar) -> str:
    """Fixed decimals stay fixed decimals beside any other number."""
    return "money" if "money" in (left.type, right.type) else "number"


def _quotient(sql: str, top: Scalar, bottom: Scalar, reads: frozenset[str]) -> Scalar:
    """A fixed decimal divided by any other number is a fixed decimal again, of four digits; by its like, it is none."""
    if top.type == "money" and bottom.type != "money":
        return Scalar(f"ROUND({sql}, 4)", "money", reads)
    return Scalar(f"({sql})", "number", reads)


def comparison(operator: str, left: Scalar, right: Scalar) -> str:
    """A comparison: BLANK equals 0 and the empty text, texts differ not by case."""
    kind = left.type if left.type != "blank" else right.type
    if operator == "==":
        return f"({left.sql} IS NOT DISTINCT FROM {right.sql})"
    a, b = (f"COALESCE({one.sql}, {_ZERO[kind]})" if one.constant is None else one.sql for one in (left, right))
    if kind == "text":
        a, b = f"lower({a})", f"lower({b})"
    return f"({a} {operator} {b})"


def is_in(left: Scalar, values: list[Scalar]) -> Scalar:
    """Whether a value is among others."""
    reads = left.reads.union(*(one.reads for one in values))
    return Scalar("(" + (" OR ".join(comparison("=", left, one) for one in values) or "FALSE") + ")", "boolean", reads)


def _reads(values: list[Scalar]) -> frozenset[str]:
    return frozenset(name for one in values for name in one.reads)


def _divide(_: str, values: list[Scalar]) -> Scalar:
    other = values[2].sql if len(values) == _WITH_OTHER else "NULL"
    top, bottom = values[0], values[1]
    quotient = _quotient(f"CAST({top.sql} AS DOUBLE) / {bottom.sql}", top, bottom, _reads(values))
    sql = f"(CASE WHEN COALESCE({bottom.sql}, 0) = 0 THEN {other} ELSE {quotient.sql} END)"
    return Scalar(sql, quotient.type, quotient.reads)


def _if(_: str, values: list[Scalar]) -> Scalar:
    other = values[2].sql if len(values) == _WITH_OTHER else "NULL"
    return Scalar(
        f"(CASE WHEN COALESCE({values[0].sql}, FALSE) THEN {values[1].sql} ELSE {other} END)",
        values[1].type,
        _reads(values),
    )


def _switch(_: str, values: list[Scalar]) -> Scalar:
    subject, rest = values[0], values[1:]
    pairs = list(zip(rest[::2], rest[1::2], strict=False))
    other = rest[-1].sql if len(rest) % 2 else "NULL"
    whens = " ".join(f"WHEN {comparison('=', subject, when)} THEN {then.sql}" for when, then in pairs)
    return Scalar(f"(CASE {whens} ELSE {other} END)", pairs[0][1].type, _reads(values))


def _template(sql: str, kind: str) -> Callable[[str, list[Scalar]], Scalar]:
    def build(_: str, values: list[Scalar]) -> Scalar:
        found = sql
        for index, value in enumerate(values):
            found = found.replace(f"${index}", value.sql)
        return Scalar(found, kind if kind != "same" else values[0].type, _reads(values))

    return build


def _coalesce(_: str, values: list[Scalar]) -> Scalar:
    return Scalar(f"COALESCE({', '.join(one.sql for one in values)})", values[0].type, _reads(values))


def _logical(operator: str) -> Callable[[str, list[Scalar]], Scalar]:
    return lambda _, values: binary(operator, values[0], values[1])


def _user(user: str, values: list[Scalar]) -> Scalar:
    del values
    return Scalar(literal(user), "text", constant=user)


_Function = Callable[[str, list[Scalar]], Scalar]
VALUE_FUNCTIONS: dict[str, tuple[_Function, int, int]] = {
    "DIVIDE": (_divide, 2, 3),
    "IF": (_if, 2, 3),
    "SWITCH": (_switch, 3, 99),
    "COALESCE": (_coalesce, 2, 99),
    "AND": (_logical("AND"), 2, 2),
    "OR": (_logical("OR"), 2, 2),
    "NOT": (_template("(NOT COALESCE($0, FALSE))", "boolean"), 1, 1),
    "ISBLANK": (_template("($0 IS NULL)", "boolean"), 1, 1),
    "BLANK": (_template("NULL", "blank"), 0, 0),
    "TRUE": (_template("TRUE", "boolean"), 0, 0),
    "FALSE": (_template("FALSE", "boolean"), 0, 0),
    "ABS": (_template("ABS($0)", "same"), 1, 1),
    "INT": (_template("FLOOR($0)", "number"), 1, 1),
    "ROUND": (_template("ROUND($0, $1)", "number"), 2, 2),
    "MIN": (_template("LEAST($0, $1)", "same"), 2, 2),
    "MAX": (_template("GREATEST($0, $1)", "same"), 2, 2),
    "DATE": (_template("make_date(CAST($0 AS BIGINT), CAST($1 AS BIGINT), CAST($2 AS BIGINT))", "date"), 3, 3),
    "YEAR": (_template("YEAR($0)", "number"), 1, 1),
    "DAY": (_template("DAY($0)", "number"), 1, 1),
    "MONTH": (_template("MONTH($0)", "number"), 1, 1),
    "UPPER": (_template("UPPER($0)", "text"), 1, 1),
    "LOWER": (_template("LOWER($0)", "text"), 1, 1),
    "USERPRINCIPALNAME": (_user, 0, 0),
    "USERNAME": (_user, 0, 0),
}
