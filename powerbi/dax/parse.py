"""DAX text -> tree, by recursive descent.

Here: DAX's syntax. Not here: which functions and names exist (translate.py decides and refuses by position).
Operator precedence, weakest first: || / && / NOT / = == <> < > <= >= IN / & / + - / * / / unary - / ^ (Microsoft's
"DAX operator reference"; unary minus binds weaker than ^, so -2 ^ 2 is -4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from powerbi.dax.syntax import Binary, Bracket, Call, Expr, Name, Number, Query, Rows, Text, Unary, Variables
from powerbi.errors import DaxSyntaxError

if TYPE_CHECKING:
    from collections.abc import Callable

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|--[^\n]*|/\*.*?\*/)
    |(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)
    |(?P<text>"(?:[^"]|"")*")
    |(?P<quoted>'(?:[^']|'')+')
    |(?P<bracket>\[(?:[^\]]|\]\])+\])
    |(?P<word>[^\W\d][\w.]*)
    |(?P<symbol>==|<>|<=|>=|&&|\|\||[-+*/^&=<>(){},;@])""",
    re.VERBOSE | re.DOTALL,
)
_LEVELS = (("||", "OR"), ("&&", "AND"))
_COMPARISONS = ("=", "==", "<>", "<", ">", "<=", ">=")
_RESERVED = {"VAR", "RETURN", "NOT", "IN", "DEFINE", "EVALUATE", "ORDER", "MEASURE"}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int

    @property
    def upper(self) -> str:
        return self.text.upper() if self.kind == "word" else self.text


def parse_expression(text: str, *, where: str = "expression") -> Expr:
    """Parse the DAX of a measure or a filter."""
    parser = _Parser(text, where)
    expression = parser.expression()
    parser.expect_end()
    return expression


def parse_query(text: str, *, where: str = "query") -> Query:
    """Parse a DAX query: [DEFINE MEASURE ...] EVALUATE table [ORDER BY ...]."""
    parser = _Parser(text, where)
    query = parser.query()
    parser.expect_end()
    return query


def _tokens(text: str, where: str) -> list[_Token]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise DaxSyntaxError(f"unexpected {text[at]!r}", position=at, where=where)
        if match.lastgroup != "space":
            found.append(_Token(match.lastgroup or "", match.group(), at))
        at = match.end()
    return [*found, _Token("end", "the end", len(text))]


class _Parser:
    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self.tokens = _tokens(text, where)
        self.at = 0

    @property
    def now(self) -> _Token:
        return self.tokens[self.at]

    def error(self, what: str, token: _Token | None = None) -> DaxSyntaxError:
        return DaxSyntaxError(what, position=(token or self.now).position, where=self.where)

    def take(self) -> _Token:
        token = self.now
        self.at += 1
        return token

    def accept(self, *texts: str) -> _Token | None:
        if self.now.kind in ("symbol", "word") and self.now.upper in texts:
            return self.take()
        return None

    def expect(self, text: str) -> _Token:
        token = self.accept(text)
        if token is None:
            raise self.error(f"expected {text}, found {self.now.text}")
        return token

    def expect_end(self) -> None:
        if self.now.kind != "end":
            raise self.error(f"expected the end, found {self.now.text}")

    def query(self) -> Query:
        start, measures = self.now.position, []
        if self.accept("DEFINE"):
            while self.accept("MEASURE"):
                target = self.primary()
                if not isinstance(target, Bracket) or target.table is None:
                    raise self.error("expected MEASURE 'Table'[name] = expression")
                self.expect("=")
                measures.append((target.table, target.name, self.expression()))
        self.expect("EVALUATE")
        table = self.expression()
        order = []
        if self.accept("ORDER"):
            self.expect("BY")
            order.append(self.order_item())
            while self.accept(","):
                order.append(self.order_item())
        return Query(start, tuple(measures), table, tuple(order))

    def order_item(self) -> tuple[Expr, bool]:
        expression = self.expression()
        descending = self.accept("ASC", "DESC")
        return expression, descending is not None and descending.upper == "DESC"

    def expression(self) -> Expr:
        if self.now.upper == "VAR":
            return self.variables()
        return self.logical(0)

    def variables(self) -> Expr:
        start, found = self.now.position, []
        while self.accept("VAR"):
            name = self.take()
            if name.kind != "word" or name.upper in _RESERVED:
                raise self.error(f"expected a variable's name, found {name.text}", name)
            self.expect("=")
            found.append((name.text.lower(), self.expression()))
        self.expect("RETURN")
        return Variables(start, tuple(found), self.expression())

    def logical(self, level: int) -> Expr:
        if level == len(_LEVELS):
            return self.negation()
        symbol, word = _LEVELS[level]
        left = self.logical(level + 1)
        while self.now.kind == "symbol" and self.now.text == symbol:
            token = self.take()
            left = Binary(token.position, word, left, self.logical(level + 1))
        return left

    def negation(self) -> Expr:
        if self.now.upper == "NOT":
            token = self.take()
            return Unary(token.position, "NOT", self.negation())
        return self.comparison()

    def comparison(self) -> Expr:
        left = self.concatenation()
        while token := self.accept(*_COMPARISONS, "IN"):
            left = Binary(token.position, token.upper, left, self.concatenation())
        return left

    def concatenation(self) -> Expr:
        return self.chain(("&",), lambda: self.chain(("+", "-"), lambda: self.chain(("*", "/"), self.signed)))

    def chain(self, operators: tuple[str, ...], operand: Callable[[], Expr]) -> Expr:
        left = operand()
        while token := self.accept(*operators):
            left = Binary(token.position, token.text, left, operand())
        return left

    def signed(self) -> Expr:
        if token := self.accept("-", "+"):
            return Unary(token.position, token.text, self.signed())
        base = self.primary()
        if token := self.accept("^"):
            return Binary(token.position, "^", base, self.signed())
        return base

    def primary(self) -> Expr:  # noqa: PLR0911 - one return a case
        token = self.take()
        if token.kind == "number":
            return Number(token.position, token.text)
        if token.kind == "text":
            return Text(token.position, token.text[1:-1].replace('""', '"'))
        if token.kind == "bracket":
            return Bracket(token.position, None, _unbracket(token.text))
        if token.kind == "quoted":
            return self.named(token, token.text[1:-1].replace("''", "'"))
        if token.kind == "word" and token.upper not in _RESERVED | {"VAR"}:
            if self.now.text == "(" and self.now.kind == "symbol":
                return self.call(token)
            return self.named(token, token.text)
        return self.group(token)

    def group(self, token: _Token) -> Expr:
        if token.text == "(" and token.kind == "symbol":
            inner = self.expression()
            if self.now.text != ",":
                self.expect(")")
                return inner
            self.at = self.tokens.index(token) + 1
            return Rows(token.position, (self.tuple_rest(),))
        if token.text == "{" and token.kind == "symbol":
            return self.rows(token)
        raise self.error(f"expected an expression, found {token.text}", token)

    def named(self, token: _Token, name: str) -> Expr:
        if self.now.kind == "bracket":
            return Bracket(token.position, name, _unbracket(self.take().text))
        return Name(token.position, name, token.kind == "quoted")

    def call(self, token: _Token) -> Expr:
        self.expect("(")
        arguments = []
        if not self.accept(")"):
            arguments.append(self.expression())
            while self.accept(","):
                arguments.append(self.expression())
            self.expect(")")
        return Call(token.position, token.upper, tuple(arguments))

    def rows(self, token: _Token) -> Expr:
        found = [self.row()]
        while self.accept(","):
            found.append(self.row())
        self.expect("}")
        if len({len(row) for row in found}) > 1:
            raise self.error("the rows of { } have different lengths", token)
        return Rows(token.position, tuple(found))

    def row(self) -> tuple[Expr, ...]:
        if self.now.kind == "symbol" and self.now.text == "(":
            mark = self.at
            self.take()
            self.expression()
            is_tuple = self.now.text == ","
            self.at = mark + 1 if is_tuple else mark
            if is_tuple:
                return self.tuple_rest()
        return (self.expression(),)

    def tuple_rest(self) -> tuple[Expr, ...]:
        found = [self.expression()]
        while self.accept(","):
            found.append(self.expression())
        self.expect(")")
        return tuple(found)


def _unbracket(text: str) -> str:
    return text[1:-1].replace("]]", "]")
