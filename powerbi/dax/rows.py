"""An expression evaluated row by row: filters' conditions and what iterators sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from powerbi.dax.context import ColumnKey, Context, Scalar
from powerbi.dax.syntax import Binary, Bracket, Call, Expr, Unary
from powerbi.dax.values import VALUE_FUNCTIONS, binary, is_in, unary

if TYPE_CHECKING:
    from powerbi.dax.builder import Builder


class RowScope:
    """An expression evaluated row by row: columns are the row's, everything else is a value of the outer cell."""

    def __init__(self, translator: Builder, context: Context, table: str | None) -> None:
        self.translator = translator
        self.context = context
        self.table = table
        self.columns: set[ColumnKey] = set()
        self.scalars: list[Scalar] = []

    def value(self, expression: Expr) -> Scalar:  # noqa: PLR0911 - one return a case
        """The SQL of an expression for one row."""
        if isinstance(expression, Bracket) and self.is_column(expression):
            key = self.column(expression)
            self.columns.add(key)
            return Scalar(key.marked, self.translator.type_of(key))
        if isinstance(expression, Unary):
            return unary(expression, self.value(expression.operand))
        if isinstance(expression, Binary):
            if expression.operator == "IN":
                return is_in(self.value(expression.left), self.translator.listed(expression.right, self.value))
            return binary(expression.operator, self.value(expression.left), self.value(expression.right))
        if isinstance(expression, Call) and expression.function == "RELATED" and len(expression.arguments) == 1:
            return self.value(expression.arguments[0])
        if isinstance(expression, Call) and expression.function in VALUE_FUNCTIONS:
            return self.translator.plain(expression, self.value)
        return self.outer(expression)

    def is_column(self, expression: Bracket) -> bool:
        """Whether a bracket names a column rather than a measure."""
        if expression.table is not None:
            return self.translator.model.measure(expression.name) is None
        table = self.translator.model.table(self.table) if self.table else None
        return table is not None and table.column(expression.name) is not None

    def column(self, expression: Bracket) -> ColumnKey:
        """The column that a bracket names."""
        if expression.table is None and self.table is not None:
            return self.translator.existing(ColumnKey(self.table, expression.name))
        return self.translator.column(expression)

    def outer(self, expression: Expr) -> Scalar:
        """What is no column: a value of the outer cell, read from the cell's CTE."""
        found = self.translator.scalar(expression, self.context)
        if not found.reads:
            return found
        self.scalars.append(found)
        return Scalar(f"@cell@.v{len(self.scalars) - 1}", found.type)
