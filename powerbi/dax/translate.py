"""DAX -> one DuckDB statement a visual.

Here: the stated subset of DAX (docs/rooms/powerbi.md). Whatever lies outside is refused by name and position;
nothing is approximated. Not here: syntax (parse.py), where the data comes from (the tables of schema `model`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from powerbi.dax.context import ColumnKey, Context, Scalar, literal
from powerbi.dax.dates import DATE_TABLES
from powerbi.dax.modifiers import CLEARING, TOTALS, Modifiers
from powerbi.dax.parse import parse_expression
from powerbi.dax.query import Statement, VisualQuery
from powerbi.dax.rows import RowScope
from powerbi.dax.syntax import Binary, Bracket, Call, Expr, Name, Number, Text, Unary, Variables
from powerbi.dax.values import VALUE_FUNCTIONS, binary, is_in, literal_of, unary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from powerbi.dax.context import Cells
    from powerbi.model import Measure, Model

_AGGREGATES = {"SUM": "SUM", "MIN": "MIN", "MAX": "MAX", "AVERAGE": "AVG", "COUNT": "COUNT", "COUNTA": "COUNT"}
_ITERATORS = {"SUMX": "SUM", "MINX": "MIN", "MAXX": "MAX", "AVERAGEX": "AVG", "COUNTX": "COUNT"}
_FOLDS = {"SUM": "SUM", "MIN": "MIN", "MAX": "MAX", "COUNT": "SUM"}  # how partial aggregates become one
_MAXIMUM_DEPTH = 40  # measures that call measures; deeper is a circle


def translate(
    model: Model,
    query: VisualQuery,
    *,
    security: Mapping[str, str] | None = None,
    user: str = "",
    blank_members: frozenset[str] = frozenset(),
) -> Statement:
    """Translate what a visual asks.

    Args:
        model: names are resolved against it.
        query: groups, measures and selections.
        security: a role's DAX filter per table; no expression can clear it.
        user: what USERPRINCIPALNAME() gives.
        blank_members: tables on a "one" side that lack rows for some facts; they get their (Blank) member.

    Raises:
        DaxError: by name and position.
    """
    return Translator(model, user=user, blank_members=blank_members).statement(query, security or {})


class Translator(Modifiers):
    """Expressions, aggregating functions and the statement as a whole."""

    def statement(self, query: VisualQuery, security: Mapping[str, str]) -> Statement:
        """The statement of a visual."""
        groups = tuple(self.existing(key) for key in query.groups)
        self.security = tuple(self.security_filter(table, text) for table, text in security.items())
        filters = tuple(self.selection_filter(one) for one in query.selections)
        if query.top is not None:
            filters += (self.outer_top(query.top, filters),)
        cells, sorts = self.grid(groups, filters)
        context = Context(cells, frozenset(groups), filters)
        wanted = list(query.measures)
        for name in [one.measure for one in query.having] + [name for name, _ in query.order_by]:
            if all(name != known for known, _ in wanted) and self.model.measure(name) is not None:
                wanted.append((name, f"[{name}]"))
        scalars = [self.named_scalar(name, text, context) for name, text in wanted]
        return Statement(
            self.assemble(query, cells, sorts, wanted, scalars), groups, tuple(n for n, _ in query.measures)
        )

    def named_scalar(self, name: str, dax: str | Expr, context: Context) -> Scalar:
        """One of the visual's measures."""
        self.where = name if isinstance(dax, str) else "query"
        return self.scalar(parse_expression(dax, where=name) if isinstance(dax, str) else dax, context)

    def assemble(
        self,
        query: VisualQuery,
        cells: Cells,
        sorts: list[str],
        wanted: list[tuple[str, str | Expr]],
        scalars: list[Scalar],
    ) -> str:
        """Cells, measures, filters on measures and order as one SELECT."""
        columns = [f"{cells.name}.k{index} AS k{index}" for index in range(len(cells.keys))]
        columns += [f"{one.sql} AS m{index}" for index, one in enumerate(scalars)]
        columns += [f"{cells.name}.{name} AS {name}" for name in sorts]
        joins = "".join(self.join(cells, name) for name in sorted({n for one in scalars for n in one.reads}))
        shown = " OR ".join(f"m{index} IS NOT NULL" for index in range(len(query.measures)))
        where = f" WHERE ({shown})" if shown and cells.keys else ""
        names = {name: f"m{index}" for index, (name, _) in enumerate(wanted)}
        names |= {f"{key.table}.{key.column}": f"k{index}" for index, key in enumerate(cells.keys)}
        if query.having and cells.keys:
            tests = " AND ".join(
                f"{names[one.measure]} {one.operator} {literal_of(one.value, 'number')}" for one in query.having
            )
            where = f"{where} AND ({tests})" if where else f" WHERE {tests}"
        order = [
            f"{names[name]} {'DESC' if down else 'ASC'} NULLS LAST" for name, down in query.order_by if name in names
        ]
        order += [f"{name} NULLS FIRST" for name in sorts] + [
            f"k{index} NULLS FIRST" for index in range(len(cells.keys))
        ]
        by = f" ORDER BY {', '.join(order)}" if order else ""
        limit = f" LIMIT {query.limit}" if query.limit else ""
        ctes = ",\n".join(f"{name} AS ({sql})" for name, sql in self.ctes)
        result = f"SELECT {', '.join(columns) or '1'} FROM {cells.name}{joins}"
        return f"WITH {ctes}\nSELECT * FROM ({result}) AS result{where}{by}{limit}"

    # ------------------------------------------------------------------ scalars

    def scalar(self, expression: Expr, context: Context) -> Scalar:
        """The SQL of an expression that is one value a cell."""
        handlers: dict[type[Expr], Callable[..., Scalar]] = {
            Number: lambda e, _: Scalar(e.text, "number", constant=e.text),
            Text: lambda e, _: Scalar(literal(e.value), "text", constant=e.value),
            Bracket: self.measure_or_column,
            Name: self.variable,
            Unary: self.unary,
            Binary: self.binary,
            Variables: self.variables,
            Call: self.call,
        }
        handler = handlers.get(type(expression))
        if handler is None:
            raise self.refuse("a table where one value is expected", expression)
        return handler(expression, context)

    def measure_or_column(self, expression: Bracket, context: Context) -> Scalar:
        """A measure; a bare column has no one value."""
        measure = self.model.measure(expression.name)
        if measure is None:
            what = (
                f"column [{expression.name}] needs an aggregation here"
                if expression.table
                else f"measure [{expression.name}] does not exist"
            )
            raise self.refuse(what, expression)
        return self.measure(measure, context, expression)

    def measure(self, measure: Measure, context: Context, at: Expr) -> Scalar:
        """The value of a measure, translated once for each context."""
        memo = (measure.name, context)
        if memo in self.memo:
            return self.memo[memo]
        if self.depth > _MAXIMUM_DEPTH:
            raise self.refuse(f"measure [{measure.name}] refers to itself", at)
        outer, scopes = self.where, self.scopes
        self.where, self.scopes, self.depth = f"measure [{measure.name}]", [{}], self.depth + 1
        result = self.scalar(parse_expression(measure.expression, where=self.where), context)
        self.where, self.scopes, self.depth = outer, scopes, self.depth - 1
        self.memo[memo] = result
        return result

    def variable(self, expression: Name, context: Context) -> Scalar:
        """The value of a variable."""
        del context
        found = self.variable_value(expression)
        if found is None:
            raise self.refuse(f"'{expression.name}' is neither a variable nor a value", expression)
        return found

    def variable_value(self, expression: Name) -> Scalar | None:
        """The value of a variable, None where there is none."""
        if expression.is_quoted:
            return None
        return next(
            (scope[expression.name.lower()] for scope in reversed(self.scopes) if expression.name.lower() in scope),
            None,
        )

    def variables(self, expression: Variables, context: Context) -> Scalar:
        """VAR ... RETURN; variables are evaluated where they are defined."""
        scope: dict[str, Scalar] = {}
        self.scopes.append(scope)
        for name, value in expression.variables:
            scope[name] = self.scalar(value, context)
        result = self.scalar(expression.result, context)
        self.scopes.pop()
        return result

    def unary(self, expression: Unary, context: Context) -> Scalar:
        """-x, NOT x."""
        return unary(expression, self.scalar(expression.operand, context))

    def binary(self, expression: Binary, context: Context) -> Scalar:
        """An operator between two values."""
        if expression.operator == "IN":
            values = self.listed(expression.right, lambda one: self.scalar(one, context))
            return is_in(self.scalar(expression.left, context), values)
        return binary(
            expression.operator, self.scalar(expression.left, context), self.scalar(expression.right, context)
        )

    def call(self, expression: Call, context: Context) -> Scalar:
        """A function."""
        name = expression.function
        if name in _AGGREGATES:
            return self.simple_aggregate(expression, context)
        if name in _ITERATORS:
            return self.iterator(expression, context)
        if name in TOTALS:
            return self.total_to_date(expression, context)
        handler = _CONTEXT_FUNCTIONS.get(name)
        if handler is not None:
            return handler(self, expression, context)
        return self.plain(expression, lambda one: self.scalar(one, context))

    # ------------------------------------------------------------------ aggregating functions

    def simple_aggregate(self, expression: Call, context: Context) -> Scalar:
        """SUM, MIN, MAX, AVERAGE, COUNT."""
        self.arity(expression, 1, 1)
        key = self.column(expression.arguments[0])
        kind = self.type_of(key)
        if expression.function in ("SUM", "AVERAGE") and kind not in ("number", "money"):
            raise self.refuse(
                f"{expression.function} of '{key.table}'[{key.column}], which is not a number", expression
            )
        if expression.function in ("COUNT", "COUNTA"):
            return self.aggregate(context, key.table, f"NULLIF(COUNT({key.sql}), 0)", "number", fold="SUM")
        name = _AGGREGATES[expression.function]
        return self.aggregate(context, key.table, f"{name}({key.sql})", kind, fold=_FOLDS.get(name, ""))

    def distinct_count(self, expression: Call, context: Context) -> Scalar:
        """DISTINCTCOUNT; blank counts as a value."""
        self.arity(expression, 1, 1)
        key = self.column(expression.arguments[0])
        blank = (
            ""
            if expression.function == "DISTINCTCOUNTNOBLANK"
            else f" + MAX(CASE WHEN {key.sql} IS NULL THEN 1 ELSE 0 END)"
        )
        return self.aggregate(context, key.table, f"NULLIF(COUNT(DISTINCT {key.sql}){blank}, 0)", "number")

    def count_rows(self, expression: Call, context: Context) -> Scalar:
        """COUNTROWS; no rows are blank."""
        self.arity(expression, 1, 1)
        table, inner, also = self.row_table(expression.arguments[0], context)
        return self.aggregate(inner, table, "NULLIF(COUNT(*), 0)", "number", also=also, fold="SUM")

    def iterator(self, expression: Call, context: Context) -> Scalar:
        """SUMX and its like, over rows of a table."""
        self.arity(expression, 2, 2)
        table, inner, also = self.row_table(expression.arguments[0], context)
        rows = RowScope(self, inner, table)
        value = rows.value(expression.arguments[1])
        if rows.scalars:
            raise self.refuse(
                "a measure or variable inside an iterator is outside the subset that is translated",
                expression.arguments[1],
            )
        name = _ITERATORS[expression.function]
        sql = f"NULLIF({name}({value.sql}), 0)" if expression.function == "COUNTX" else f"{name}({value.sql})"
        columns = also | frozenset(rows.columns)
        return self.aggregate(inner, table, sql, value.type, also=columns, fold=_FOLDS.get(name, ""))

    def row_table(self, expression: Expr, context: Context) -> tuple[str, Context, frozenset[ColumnKey]]:
        """A table that is iterated row by row: a model table, or FILTER of one."""
        if isinstance(expression, Call) and expression.function == "FILTER":
            self.arity(expression, 2, 2)
            table, inner, also = self.row_table(expression.arguments[0], context)
            one = self.predicate_filter(expression.arguments[1], context, table)
            return table, inner.restricted(one), also
        name = self.table_name(expression)
        if name is None:
            raise self.refuse("only a table of the model, or FILTER of one, can be iterated here", expression)
        return name, context, frozenset()

    def selected_value(self, expression: Call, context: Context) -> Scalar:
        """SELECTEDVALUE."""
        self.arity(expression, 1, 2)
        key = self.column(expression.arguments[0])
        one = self.aggregate(
            context, key.table, f"CASE WHEN COUNT(DISTINCT {key.sql}) = 1 THEN MIN({key.sql}) END", self.type_of(key)
        )
        if len(expression.arguments) == 1:
            return one
        other = self.scalar(expression.arguments[1], context)
        return Scalar(f"COALESCE({one.sql}, {other.sql})", one.type, one.reads | other.reads)

    def has_one_value(self, expression: Call, context: Context) -> Scalar:
        """HASONEVALUE."""
        self.arity(expression, 1, 1)
        key = self.column(expression.arguments[0])
        count = self.aggregate(context, key.table, f"COUNT(DISTINCT {key.sql})", "number")
        return Scalar(f"(COALESCE({count.sql}, 0) = 1)", "boolean", count.reads)

    def is_in_scope(self, expression: Call, context: Context) -> Scalar:
        """ISINSCOPE: whether the visual's rows are members of the column."""
        self.arity(expression, 1, 1)
        return Scalar("TRUE" if self.column(expression.arguments[0]) in context.groups else "FALSE", "boolean")

    def is_filtered(self, expression: Call, context: Context) -> Scalar:
        """ISFILTERED."""
        self.arity(expression, 1, 1)
        name = self.table_name(expression.arguments[0])
        keys = self.columns_of(name) if name else frozenset({self.column(expression.arguments[0])})
        is_set = bool(context.groups & keys) or any(one.columns & keys for one in context.filters)
        return Scalar("TRUE" if is_set else "FALSE", "boolean")


_CONTEXT_FUNCTIONS: dict[str, Callable[[Translator, Call, Context], Scalar]] = {
    "CALCULATE": Translator.calculate,
    "COUNTROWS": Translator.count_rows,
    "DISTINCTCOUNT": Translator.distinct_count,
    "DISTINCTCOUNTNOBLANK": Translator.distinct_count,
    "SELECTEDVALUE": Translator.selected_value,
    "HASONEVALUE": Translator.has_one_value,
    "ISFILTERED": Translator.is_filtered,
    "ISINSCOPE": Translator.is_in_scope,
    "RANKX": Translator.rank,
}
FUNCTIONS = frozenset(
    {*_AGGREGATES, *_ITERATORS, *TOTALS, *DATE_TABLES, *CLEARING, *VALUE_FUNCTIONS, *_CONTEXT_FUNCTIONS}
    | {"ALLSELECTED", "KEEPFILTERS", "USERELATIONSHIP", "FILTER", "TREATAS", "TOPN", "VALUES", "RELATED"}
)
