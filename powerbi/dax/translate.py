"""DAX -> one DuckDB statement a visual.

Here: the stated subset of DAX (see docs/rooms/powerbi.md). Whatever lies outside is refused by name and position;
nothing is approximated. Not here: syntax (parse.py), where the data comes from (the tables of schema `model`).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from powerbi.dax.context import Cells, ColumnKey, Context, Filter, Scalar, literal, quote
from powerbi.dax.parse import parse_expression
from powerbi.dax.syntax import Binary, Bracket, Call, Expr, Name, Number, Query, Rows, Text, Unary, Variables
from powerbi.errors import DaxRefusedError

if TYPE_CHECKING:
    from powerbi.model import Measure, Model, Relationship

_TYPES = {
    "int64": "number",
    "double": "number",
    "decimal": "number",
    "string": "text",
    "dateTime": "date",
    "boolean": "boolean",
}
_ZERO = {"number": "0", "text": "''", "date": "DATE '1899-12-30'", "boolean": "FALSE", "blank": "0"}
_AGGREGATES = {"SUM": "SUM", "MIN": "MIN", "MAX": "MAX", "AVERAGE": "AVG", "COUNT": "COUNT", "COUNTA": "COUNT"}
_ITERATORS = {"SUMX": "SUM", "MINX": "MIN", "MAXX": "MAX", "AVERAGEX": "AVG", "COUNTX": "COUNT"}
_UNITS = ("DAY", "MONTH", "QUARTER", "YEAR")
_TO_DATE = {"DATESMTD": "month", "DATESQTD": "quarter", "DATESYTD": "year"}
_TOTALS = {"TOTALMTD": "DATESMTD", "TOTALQTD": "DATESQTD", "TOTALYTD": "DATESYTD"}
_PREVIOUS = {"PREVIOUSDAY": "day", "PREVIOUSMONTH": "month", "PREVIOUSQUARTER": "quarter", "PREVIOUSYEAR": "year"}
_DATE_TABLES = {*_TO_DATE, *_PREVIOUS, "DATEADD", "SAMEPERIODLASTYEAR", "DATESINPERIOD", "DATESBETWEEN"}
_CLEARING = {"ALL", "REMOVEFILTERS", "ALLCROSSFILTERED"}
_EQUALS = {"=": True, "<>": False}
_MAXIMUM_DEPTH = 40  # measures that call measures; deeper is a circle


@dataclass(frozen=True)
class Selection:
    """What a slicer or a filter pane leaves of a column: listed values, or an inclusive range."""

    column: ColumnKey
    values: tuple[object, ...] | None = None
    low: str | None = None
    high: str | None = None


@dataclass(frozen=True)
class TopN:
    """Only the members of a column with the largest values of a measure; ties are all kept, as Power BI does."""

    column: ColumnKey
    count: int
    measure: str


@dataclass(frozen=True)
class Having:
    """Only cells in which a measure compares so: `>`, `>=`, `<`, `<=`, `=` or `<>` with a number."""

    measure: str
    operator: str
    value: str


@dataclass(frozen=True)
class VisualQuery:
    """What a visual asks: groups, measures (alias, DAX), selections, order and top."""

    groups: tuple[ColumnKey, ...]
    measures: tuple[tuple[str, str | Expr], ...]
    selections: tuple[Selection, ...] = ()
    top: TopN | None = None
    having: tuple[Having, ...] = ()
    order_by: tuple[tuple[str, bool], ...] = ()
    limit: int | None = None


@dataclass(frozen=True)
class Statement:
    """SQL whose result columns are k0..kn (groups) and m0..mn (measures)."""

    sql: str
    groups: tuple[ColumnKey, ...]
    measures: tuple[str, ...]


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
    return _Translator(model, user=user, blank_members=blank_members).statement(query, security or {})


class _Translator:
    def __init__(self, model: Model, *, user: str, blank_members: frozenset[str]) -> None:
        self.model = model
        self.user = user
        self.blank_members = blank_members
        self.ctes: list[tuple[str, str]] = []
        self.known: dict[str, str] = {}
        self.memo: dict[object, Scalar] = {}
        self.where = "query"
        self.depth = 0
        self.known_keys: dict[str, tuple[ColumnKey, ...]] = {}
        self.scopes: list[dict[str, Scalar]] = [{}]
        self.security: tuple[Filter, ...] = ()

    # ------------------------------------------------------------------ the statement

    def statement(self, query: VisualQuery, security: Mapping[str, str]) -> Statement:
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
                f"{names[one.measure]} {one.operator} {_value(one.value, 'number')}" for one in query.having
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

    def join(self, cells: Cells, name: str) -> str:
        keys = self.known_keys[name]
        on = " AND ".join(
            f"{cells.name}.{cells.key(key)} IS NOT DISTINCT FROM {name}.k{cells.keys.index(key)}" for key in keys
        )
        return f"\n  LEFT JOIN {name} ON {on or 'TRUE'}"

    # ------------------------------------------------------------------ names

    def refuse(self, what: str, expression: Expr) -> DaxRefusedError:
        return DaxRefusedError(what, position=expression.position, where=self.where)

    def existing(self, key: ColumnKey) -> ColumnKey:
        table = self.model.table(key.table)
        column = table.column(key.column) if table else None
        if table is None or column is None:
            raise DaxRefusedError(f"column '{key.table}'[{key.column}] does not exist in the model", where=self.where)
        return ColumnKey(table.name, column.name)

    def column(self, expression: Expr) -> ColumnKey:
        if not isinstance(expression, Bracket) or expression.table is None:
            raise self.refuse("expected a column, written Table[column]", expression)
        table = self.model.table(expression.table)
        if table is None:
            raise self.refuse(f"table '{expression.table}' does not exist", expression)
        column = table.column(expression.name)
        if column is None:
            raise self.refuse(f"column [{expression.name}] does not exist in table '{table.name}'", expression)
        return ColumnKey(table.name, column.name)

    def type_of(self, key: ColumnKey) -> str:
        table = self.model.table(key.table)
        column = table.column(key.column) if table else None
        return _TYPES.get(column.data_type if column else "", "text")

    def table_name(self, expression: Expr) -> str | None:
        if isinstance(expression, Name):
            table = self.model.table(expression.name)
            if table is None:
                raise self.refuse(f"table '{expression.name}' does not exist", expression)
            return table.name
        return None

    def columns_of(self, table: str) -> frozenset[ColumnKey]:
        found = self.model.table(table)
        return frozenset(ColumnKey(table, column.name) for column in (found.columns if found else ()))

    def expanded(self, table: str, context: Context) -> frozenset[ColumnKey]:
        """The columns of a table and of every table its rows belong to: what ALL(table) clears."""
        return frozenset(key for name in self.paths(table, context) for key in self.columns_of(name))

    def paths(self, table: str, context: Context) -> dict[str, tuple[Relationship, ...]]:
        """For each table that filters `table`: the relationships from `table` to it."""
        found: dict[str, tuple[Relationship, ...]] = {table: ()}
        queue = [table]
        switched = set(context.switched_on)
        while queue:
            name = queue.pop(0)
            for one in self.model.relationships:
                if one.from_table != name or one.to_table in found or not self.is_used(one, switched):
                    continue
                found[one.to_table] = (*found[name], one)
                queue.append(one.to_table)
        return found

    def is_used(self, one: Relationship, switched: set[str]) -> bool:
        if one.name in switched:
            return True
        rivals = {
            r.name for r in self.model.relationships if {r.from_table, r.to_table} == {one.from_table, one.to_table}
        }
        return one.is_active and not (rivals & switched)

    # ------------------------------------------------------------------ CTEs

    def cte(self, prefix: str, sql: str, keys: tuple[ColumnKey, ...] = ()) -> str:
        if sql in self.known:
            return self.known[sql]
        name = f"{prefix}{len(self.ctes)}"
        self.ctes.append((name, sql))
        self.known[sql] = name
        self.known_keys[name] = keys
        return name

    def grid(self, groups: tuple[ColumnKey, ...], filters: tuple[Filter, ...]) -> tuple[Cells, list[str]]:
        tables: dict[str, list[int]] = {}
        for index, key in enumerate(groups):
            tables.setdefault(key.table, []).append(index)
        sorts: list[str] = []
        parts = [self.grid_part(table, indexes, groups, filters, sorts) for table, indexes in tables.items()]
        sql = " CROSS JOIN ".join(f"({part})" for part in parts)
        name = self.cte("grid", f"SELECT * FROM {sql}" if parts else "SELECT 1 AS one", groups)
        return Cells(name, groups), sorts

    def grid_part(
        self,
        table: str,
        indexes: list[int],
        groups: tuple[ColumnKey, ...],
        filters: tuple[Filter, ...],
        sorts: list[str],
    ) -> str:
        columns, found = [], self.model.table(table)
        for index in indexes:
            column = found.column(groups[index].column) if found else None
            columns.append(f"{groups[index].sql} AS k{index}")
            if column is not None and column.sort_by:
                columns.append(f"MIN({ColumnKey(table, column.sort_by).sql}) AS s{index}")
                sorts.append(f"s{index}")
        own = [one for one in (*filters, *self.security) if one.columns and all(c.table == table for c in one.columns)]
        tests = [f"({one.predicate})" for one in own if one.predicate]
        tests += [
            f"{one.column.sql} IN (SELECT value FROM {one.members})"
            for one in own
            if one.members and one.column and not one.keys
        ]
        where = " AND ".join(tests) or "TRUE"
        by = ", ".join(groups[index].sql for index in indexes)
        sql = f"SELECT {', '.join(columns)} FROM model.{quote(table)} AS {quote(table)} WHERE {where} GROUP BY {by}"
        if table in self.blank_members and not own:
            blanks = ", ".join("NULL" for _ in columns)
            sql += f" UNION ALL SELECT {blanks}"
        return sql

    # ------------------------------------------------------------------ filters from outside

    def outer_top(self, top: TopN, filters: tuple[Filter, ...]) -> Filter:
        """A visual's TopN: the members are found under the slicers alone and then restrict cells and totals alike."""
        key = self.existing(top.column)
        self.where = top.measure
        context = Context(Cells(self.cte("grid", "SELECT 1 AS one"), ()), frozenset(), filters)
        name, _ = self.ranked(key, Bracket(0, None, top.measure), context, is_all=False)
        window = "ORDER BY v DESC NULLS LAST"
        members = self.cte("t", f"SELECT k0 AS value FROM {name} QUALIFY RANK() OVER ({window}) <= {int(top.count)}")
        return Filter(frozenset({key}), members=members, column=key, is_outer=True)

    def selection_filter(self, one: Selection) -> Filter:
        key = self.existing(one.column)
        kind = self.type_of(key)
        parts = []
        if one.values is not None:
            listed = [_value(value, kind) for value in one.values if value is not None]
            some = [f"{key.sql} IN ({', '.join(listed)})"] if listed else []
            some += [f"{key.sql} IS NULL"] if None in one.values else []
            parts.append(f"({' OR '.join(some) or 'FALSE'})")
        if one.low is not None:
            parts.append(f"{key.sql} >= {_value(one.low, kind)}")
        if one.high is not None:
            parts.append(f"{key.sql} <= {_value(one.high, kind)}")
        return Filter(frozenset({key}), " AND ".join(parts) or "TRUE", is_outer=True)

    def security_filter(self, table: str, text: str) -> Filter:
        self.where = f"role filter on '{table}'"
        found = self.model.table(table)
        if found is None:
            raise DaxRefusedError(f"table '{table}' does not exist", where=self.where)
        if not text.strip():
            return Filter(frozenset())
        context = Context(Cells("none", ()), frozenset())
        rows = _RowScope(self, context, found.name)
        predicate = rows.value(parse_expression(text, where=self.where)).sql
        return Filter(frozenset(rows.columns) or frozenset({ColumnKey(found.name, found.columns[0].name)}), predicate)

    # ------------------------------------------------------------------ aggregates

    def aggregate(
        self, context: Context, table: str, value: str, kind: str, *, also: frozenset[ColumnKey] = frozenset()
    ) -> Scalar:
        """One aggregate under its own filter context: a CTE keyed by what it depends on."""
        source = _Source(self, context, table, also)
        keys = source.keys()
        columns = [f"{sql} AS k{context.cells.keys.index(key)}" for key, sql in keys]
        by = f" GROUP BY {', '.join(sql for _, sql in keys)}" if keys else ""
        sql = f"SELECT {', '.join([*columns, f'{value} AS v'])} FROM {source.sql()}{by}"
        name = self.cte("a", sql, tuple(key for key, _ in keys))
        return Scalar(f"{name}.v", kind, frozenset({name}))

    def cell_values(self, context: Context, scalars: list[Scalar]) -> str:
        """A CTE with the cells' keys and the values v0, v1, ... of these scalars."""
        cells = context.cells
        columns = [f"{cells.name}.k{index}" for index in range(len(cells.keys))]
        columns += [f"{one.sql} AS v{index}" for index, one in enumerate(scalars)]
        joins = "".join(self.join(cells, name) for name in sorted({n for one in scalars for n in one.reads}))
        return self.cte("c", f"SELECT {', '.join(columns)} FROM {cells.name}{joins}", cells.keys)

    # ------------------------------------------------------------------ scalars

    def scalar(self, expression: Expr, context: Context) -> Scalar:
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
        del context
        found = self.variable_value(expression)
        if found is None:
            raise self.refuse(f"'{expression.name}' is neither a variable nor a value", expression)
        return found

    def variable_value(self, expression: Name) -> Scalar | None:
        if expression.is_quoted:
            return None
        return next(
            (scope[expression.name.lower()] for scope in reversed(self.scopes) if expression.name.lower() in scope),
            None,
        )

    def variables(self, expression: Variables, context: Context) -> Scalar:
        scope: dict[str, Scalar] = {}
        self.scopes.append(scope)
        for name, value in expression.variables:
            scope[name] = self.scalar(value, context)
        result = self.scalar(expression.result, context)
        self.scopes.pop()
        return result

    def unary(self, expression: Unary, context: Context) -> Scalar:
        return _unary(expression, self.scalar(expression.operand, context))

    def binary(self, expression: Binary, context: Context) -> Scalar:
        if expression.operator == "IN":
            values = self.listed(expression.right, lambda one: self.scalar(one, context))
            return _in(self.scalar(expression.left, context), values)
        return _binary(
            expression.operator, self.scalar(expression.left, context), self.scalar(expression.right, context)
        )

    def listed(self, expression: Expr, evaluate: Callable[[Expr], Scalar]) -> list[Scalar]:
        if not isinstance(expression, Rows) or any(len(row) != 1 for row in expression.rows):
            raise self.refuse("IN takes a list in braces here: { 1, 2 }", expression)
        return [evaluate(row[0]) for row in expression.rows]

    def call(self, expression: Call, context: Context) -> Scalar:
        name = expression.function
        if name in _AGGREGATES:
            return self.simple_aggregate(expression, context)
        if name in _ITERATORS:
            return self.iterator(expression, context)
        if name in _TOTALS:
            return self.total_to_date(expression, context)
        handler = _CONTEXT_FUNCTIONS.get(name)
        if handler is not None:
            return handler(self, expression, context)
        return self.plain(expression, lambda one: self.scalar(one, context))

    def plain(self, expression: Call, evaluate: Callable[[Expr], Scalar]) -> Scalar:
        """A function of values alone."""
        handler = _VALUE_FUNCTIONS.get(expression.function)
        if handler is None:
            raise self.refuse(f"function {expression.function} is outside the subset that is translated", expression)
        function, least, most = handler
        self.arity(expression, least, most)
        return function(self, expression, [evaluate(one) for one in expression.arguments])

    def arity(self, expression: Call, least: int, most: int) -> None:
        if not least <= len(expression.arguments) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise self.refuse(
                f"{expression.function} takes {wanted} arguments, found {len(expression.arguments)}", expression
            )

    # ------------------------------------------------------------------ aggregating functions

    def simple_aggregate(self, expression: Call, context: Context) -> Scalar:
        self.arity(expression, 1, 1)
        key = self.column(expression.arguments[0])
        kind = self.type_of(key)
        if expression.function in ("SUM", "AVERAGE") and kind != "number":
            raise self.refuse(
                f"{expression.function} of '{key.table}'[{key.column}], which is not a number", expression
            )
        if expression.function in ("COUNT", "COUNTA"):
            return self.aggregate(context, key.table, f"NULLIF(COUNT({key.sql}), 0)", "number")
        return self.aggregate(context, key.table, f"{_AGGREGATES[expression.function]}({key.sql})", kind)

    def distinct_count(self, expression: Call, context: Context) -> Scalar:
        self.arity(expression, 1, 1)
        key = self.column(expression.arguments[0])
        blank = (
            ""
            if expression.function == "DISTINCTCOUNTNOBLANK"
            else f" + MAX(CASE WHEN {key.sql} IS NULL THEN 1 ELSE 0 END)"
        )
        return self.aggregate(context, key.table, f"NULLIF(COUNT(DISTINCT {key.sql}){blank}, 0)", "number")

    def count_rows(self, expression: Call, context: Context) -> Scalar:
        self.arity(expression, 1, 1)
        table, inner, also = self.row_table(expression.arguments[0], context)
        return self.aggregate(inner, table, "NULLIF(COUNT(*), 0)", "number", also=also)

    def iterator(self, expression: Call, context: Context) -> Scalar:
        self.arity(expression, 2, 2)
        table, inner, also = self.row_table(expression.arguments[0], context)
        rows = _RowScope(self, inner, table)
        value = rows.value(expression.arguments[1])
        if rows.scalars:
            raise self.refuse(
                "a measure or variable inside an iterator is outside the subset that is translated",
                expression.arguments[1],
            )
        sql = f"{_ITERATORS[expression.function]}({value.sql})"
        sql = f"NULLIF({sql}, 0)" if expression.function == "COUNTX" else sql
        return self.aggregate(inner, table, sql, value.type, also=also | frozenset(rows.columns))

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
        self.arity(expression, 1, 1)
        key = self.column(expression.arguments[0])
        count = self.aggregate(context, key.table, f"COUNT(DISTINCT {key.sql})", "number")
        return Scalar(f"(COALESCE({count.sql}, 0) = 1)", "boolean", count.reads)

    def is_filtered(self, expression: Call, context: Context) -> Scalar:
        self.arity(expression, 1, 1)
        name = self.table_name(expression.arguments[0])
        keys = self.columns_of(name) if name else frozenset({self.column(expression.arguments[0])})
        is_set = bool(context.groups & keys) or any(one.columns & keys for one in context.filters)
        return Scalar("TRUE" if is_set else "FALSE", "boolean")

    # ------------------------------------------------------------------ CALCULATE

    def calculate(self, expression: Call, context: Context) -> Scalar:
        if not expression.arguments:
            raise self.refuse("CALCULATE needs an expression", expression)
        return self.scalar(expression.arguments[0], self.modified(expression.arguments[1:], context))

    def total_to_date(self, expression: Call, context: Context) -> Scalar:
        self.arity(expression, 2, 3)
        dates = Call(expression.position, _TOTALS[expression.function], (expression.arguments[1],))
        return self.scalar(expression.arguments[0], self.modified((dates, *expression.arguments[2:]), context))

    def modified(self, arguments: tuple[Expr, ...], context: Context) -> Context:
        """Filters are read in the outer context; then all clearing happens; then all are added."""
        result, added = context, []
        for argument in arguments:
            result, new = self.modifier(argument, context, result)
            added += new
        return result.restricted(*added)

    def modifier(self, argument: Expr, outer: Context, result: Context) -> tuple[Context, list[Filter]]:
        if isinstance(argument, Call):
            name = argument.function
            if name in _CLEARING or name == "ALLSELECTED":
                return self.clear(argument, outer, result), []
            if name == "KEEPFILTERS":
                self.arity(argument, 1, 1)
                _, added = self.modifier(argument.arguments[0], outer, result)
                return result, added
            if name == "USERELATIONSHIP":
                return self.switch_on(argument, result), []
            if name in _DATE_TABLES:
                return self.date_filter(argument, outer, result)
            if name == "FILTER":
                return self.filter_table(argument, outer, result)
            if name == "TREATAS":
                return self.treat_as(argument, outer, result)
            if name == "TOPN":
                return self.top_filter(argument, outer, result)
            if name == "VALUES":
                return self.keep_values(argument, outer, result)
        one = self.predicate_filter(argument, outer, None)
        return result.cleared(self.overridden(one.columns)), [one]

    def overridden(self, columns: frozenset[ColumnKey]) -> frozenset[ColumnKey]:
        """A filter on the marked date table's date column overrides every filter of that table, as in Power BI."""
        table = self.model.date_table
        keys = {ColumnKey(table.name, column.name) for column in table.columns if column.is_key} if table else set()
        return columns | self.columns_of(table.name) if table is not None and columns & keys else columns

    def clear(self, argument: Call, outer: Context, result: Context) -> Context:
        columns: set[ColumnKey] = set()
        for item in argument.arguments:
            table = self.table_name(item)
            columns |= self.expanded(table, outer) if table else {self.column(item)}
        if not argument.arguments:
            columns = {key for table in self.model.tables for key in self.columns_of(table.name)}
        return result.selected(columns) if argument.function == "ALLSELECTED" else result.cleared(columns)

    def switch_on(self, argument: Call, result: Context) -> Context:
        self.arity(argument, 2, 2)
        ends = {
            (key.table, key.column) for key in (self.column(argument.arguments[0]), self.column(argument.arguments[1]))
        }
        for one in self.model.relationships:
            if {(one.from_table, one.from_column), (one.to_table, one.to_column)} == ends:
                return replace(result, switched_on=result.switched_on | {one.name})
        raise self.refuse("USERELATIONSHIP names two columns that no relationship joins", argument)

    def keep_values(self, argument: Call, outer: Context, result: Context) -> tuple[Context, list[Filter]]:
        self.arity(argument, 1, 1)
        key = self.column(argument.arguments[0])
        kept = [one for one in outer.filters if key in one.columns and one not in result.filters]
        groups = result.groups | ({key} & outer.groups)
        return replace(result, groups=groups), kept

    def filter_table(self, argument: Call, outer: Context, result: Context) -> tuple[Context, list[Filter]]:
        self.arity(argument, 2, 2)
        source = argument.arguments[0]
        one = self.predicate_filter(
            argument.arguments[1], outer, self.table_name(source) if isinstance(source, Name) else None
        )
        if isinstance(source, Name):
            return result, [one]
        if isinstance(source, Call) and source.function == "ALL":
            return self.clear(source, outer, result).cleared(self.overridden(one.columns)), [one]
        if isinstance(source, Call) and source.function == "VALUES":
            return result, [one]
        raise self.refuse("FILTER takes a table, ALL(...) or VALUES(...) here", source)

    def treat_as(self, argument: Call, outer: Context, result: Context) -> tuple[Context, list[Filter]]:
        self.arity(argument, 2, 2)
        key = self.column(argument.arguments[1])
        values = self.listed(argument.arguments[0], lambda one: self.scalar(one, outer))
        predicate = _in(Scalar(key.sql, self.type_of(key)), values).sql
        return result.cleared(self.overridden(frozenset({key}))), [Filter(frozenset({key}), predicate)]

    def predicate_filter(self, expression: Expr, context: Context, table: str | None) -> Filter:
        """A condition on columns. What it reads beside columns is evaluated in the outer context, once a cell."""
        rows = _RowScope(self, context, table)
        value = rows.value(expression)
        if not rows.columns:
            raise self.refuse("a filter must name a column", expression)
        cell = None
        sql = f"COALESCE({value.sql}, FALSE)"
        if rows.scalars:
            cell = self.cell_values(context, rows.scalars)
            sql = sql.replace("@cell@", cell)
        return Filter(frozenset(rows.columns), sql, cell=cell)

    # ------------------------------------------------------------------ top

    def top_filter(self, argument: Call, outer: Context, result: Context) -> tuple[Context, list[Filter]]:
        self.arity(argument, 3, 4)
        source = argument.arguments[1]
        if not isinstance(source, Call) or source.function not in ("ALL", "VALUES") or len(source.arguments) != 1:
            raise self.refuse("TOPN takes ALL(column) or VALUES(column) here", source)
        key = self.column(source.arguments[0])
        count = self.scalar(argument.arguments[0], outer)
        name, keys = self.ranked(key, argument.arguments[2], outer, is_all=source.function == "ALL")
        order = self.top_order(argument)
        position = ", ".join(f"k{keys.index(one)}" for one in keys[:-1])
        window = f"{f'PARTITION BY {position} ' if position else ''}ORDER BY v {order} NULLS LAST"
        columns = "".join(f"k{keys.index(one)} AS k{outer.cells.keys.index(one)}, " for one in keys[:-1])
        members = self.cte(
            "t",
            f"SELECT {columns}k{len(keys) - 1} AS value FROM {name} QUALIFY RANK() OVER ({window}) <= {count.sql}",
            keys[:-1],
        )
        return result.cleared({key}), [Filter(frozenset({key}), members=members, column=key, keys=keys[:-1])]

    def top_order(self, argument: Call) -> str:
        if len(argument.arguments) < 4:
            return "DESC"
        order = argument.arguments[3]
        return "ASC" if isinstance(order, Name) and order.name.upper() == "ASC" else "DESC"

    def ranked(
        self, key: ColumnKey, expression: Expr, context: Context, *, is_all: bool
    ) -> tuple[str, tuple[ColumnKey, ...]]:
        """A CTE with a row for each remaining key and each value of `key`, and the expression's value there."""
        base = context.cleared({key}) if is_all else context
        kept = tuple(one for one in base.cells.keys if one in base.groups and one != key)
        listed = ", ".join(f"k{base.cells.keys.index(one)} AS k{index}" for index, one in enumerate(kept))
        filters = () if is_all else tuple(one for one in context.filters if one.cell is None and not one.keys)
        part = self.grid_part(key.table, [len(kept)], (*kept, key), filters, [])
        left = f"(SELECT DISTINCT {listed} FROM {base.cells.name}) CROSS JOIN " if kept else ""
        cells = Cells(self.cte("grid", f"SELECT * FROM {left}({part})", (*kept, key)), (*kept, key))
        inner = Context(cells, frozenset(cells.keys), base.filters, base.switched_on)
        if any(one.cell or (one.members and one.keys) for one in base.filters):
            raise self.refuse(
                "a ranking under a filter that differs from cell to cell is outside the subset", expression
            )
        return self.value_rows(cells, self.scalar(expression, inner)), cells.keys

    def value_rows(self, cells: Cells, value: Scalar) -> str:
        columns = ", ".join(f"{cells.name}.k{index}" for index in range(len(cells.keys)))
        joins = "".join(self.join(cells, name) for name in sorted(value.reads))
        return self.cte(
            "r",
            f"SELECT * FROM (SELECT {columns}, {value.sql} AS v FROM {cells.name}{joins}) AS x WHERE v IS NOT NULL",
            cells.keys,
        )

    def rank(self, expression: Call, context: Context) -> Scalar:
        self.arity(expression, 2, 2)
        source = expression.arguments[0]
        if not isinstance(source, Call) or source.function != "ALL" or len(source.arguments) != 1:
            raise self.refuse("RANKX takes ALL(column) here", source)
        key = self.column(source.arguments[0])
        name, keys = self.ranked(key, expression.arguments[1], context, is_all=True)
        own = self.scalar(expression.arguments[1], context)
        cell = self.cell_values(context, [own])
        same = " AND ".join(
            f"c.k{context.cells.keys.index(one)} IS NOT DISTINCT FROM r.k{index}" for index, one in enumerate(keys[:-1])
        )
        columns = "".join(f"c.k{index}, " for index in range(len(context.cells.keys)))
        by = f" GROUP BY {columns.rstrip(', ')}" if columns else ""
        sql = f"SELECT {columns}COUNT(*) FILTER (WHERE r.v > COALESCE(c.v0, 0)) + 1 AS v FROM {cell} AS c JOIN {name} AS r ON {same or 'TRUE'}{by}"
        result = self.cte("a", sql, context.cells.keys)
        return Scalar(f"{result}.v", "number", frozenset({result}))

    # ------------------------------------------------------------------ dates

    def date_filter(self, argument: Call, outer: Context, result: Context) -> tuple[Context, list[Filter]]:
        members, keys, key = self.dates(argument, outer)
        return result.cleared(self.columns_of(key.table)), [
            Filter(frozenset({key}), members=members, column=key, keys=keys)
        ]

    def dates(self, expression: Expr, context: Context) -> tuple[str, tuple[ColumnKey, ...], ColumnKey]:
        """A table of dates: its CTE (keys, value), the keys it depends on, and the date column."""
        if isinstance(expression, Bracket):
            key = self.date_column(expression)
            return (*self.visible_dates(key, context), key)
        if not isinstance(expression, Call) or expression.function not in _DATE_TABLES:
            raise self.refuse("expected the date table's date column or a date function", expression)
        name = expression.function
        if name == "DATESINPERIOD":
            return self.dates_in_period(expression, context)
        if name == "DATESBETWEEN":
            return self.dates_between(expression, context)
        self.arity(expression, *((3, 3) if name == "DATEADD" else (1, 1)))
        source, keys, key = self.dates(expression.arguments[0], context)
        return self.shifted(expression, context, source, keys, key), keys, key

    def date_column(self, expression: Bracket) -> ColumnKey:
        key = self.column(expression)
        table = self.model.date_table
        if table is None or key.table != table.name or self.type_of(key) != "date":
            raise self.refuse("date functions work on the date column of the table marked as date table", expression)
        return key

    def visible_dates(self, key: ColumnKey, context: Context) -> tuple[str, tuple[ColumnKey, ...]]:
        source = _Source(self, context, key.table, frozenset())
        keys = source.keys()
        columns = "".join(f"{sql} AS k{context.cells.keys.index(one)}, " for one, sql in keys)
        return self.cte(
            "d", f"SELECT DISTINCT {columns}{key.sql} AS value FROM {source.sql()}", tuple(one for one, _ in keys)
        ), tuple(one for one, _ in keys)

    def shifted(
        self, expression: Call, context: Context, source: str, keys: tuple[ColumnKey, ...], key: ColumnKey
    ) -> str:
        names = [f"k{context.cells.keys.index(one)}" for one in keys]
        listed = "".join(f"v.{name}, " for name in names)
        calendar = f"model.{quote(key.table)} AS d"
        date = f"d.{quote(key.column)}"
        name = expression.function
        if name in _TO_DATE or name in _PREVIOUS:
            edge = "MAX" if name in _TO_DATE else "MIN"
            by = f" GROUP BY {', '.join(names)}" if names else ""
            edges = f"(SELECT {''.join(f'{n}, ' for n in names)}{edge}(value) AS edge FROM {source}{by}) AS v"
            if name in _TO_DATE:
                unit = _TO_DATE[name]
                on = f"date_trunc('{unit}', {date}) = date_trunc('{unit}', v.edge) AND {date} <= v.edge"
            else:
                unit = _PREVIOUS[name]
                on = f"{date} >= date_trunc('{unit}', v.edge) - INTERVAL 1 {unit} AND {date} < date_trunc('{unit}', v.edge)"
            return self.cte("d", f"SELECT {listed}{date} AS value FROM {edges} JOIN {calendar} ON {on}", keys)
        count, unit = (
            ("-1", "YEAR") if name == "SAMEPERIODLASTYEAR" else self.interval(expression.arguments[1:], context)
        )
        if unit == "DAY":
            return self.cte(
                "d",
                f"SELECT {listed}{date} AS value FROM {source} AS v JOIN {calendar} ON {date} = v.value + INTERVAL ({count}) DAY",
                keys,
            )
        return self.shifted_months(source, listed, names, (calendar, date), (count, unit), keys)

    def shifted_months(
        self,
        source: str,
        listed: str,
        names: list[str],
        calendar: tuple[str, str],
        shift: tuple[str, str],
        keys: tuple[ColumnKey, ...],
    ) -> str:
        """A month's end moves to the other month's end when the two last days of the month are selected."""
        table, date = calendar
        interval = f"INTERVAL ({shift[0]}) {shift[1]}"
        window = f"{'PARTITION BY ' + ', '.join(names) + ' ' if names else ''}ORDER BY value"
        marked = (
            f"(SELECT *, value = last_day(value) AND COALESCE(LAG(value) OVER ({window}) = value - INTERVAL 1 DAY, FALSE)"
            f" AS is_end FROM {source}) AS v"
        )
        moved = f"CAST(v.value + {interval} AS DATE)"
        same = f"SELECT {listed}{date} AS value FROM {source} AS v JOIN {table} ON {date} = {moved}"
        ends = f"date_trunc('month', {date}) = date_trunc('month', {moved}) AND {date} > {moved}"
        rest = f"SELECT {listed}{date} AS value FROM {marked} JOIN {table} ON {ends} WHERE v.is_end"
        return self.cte("d", f"{same} UNION {rest}", keys)

    def interval(self, arguments: tuple[Expr, ...], context: Context) -> tuple[str, str]:
        count = self.scalar(arguments[0], context)
        unit = arguments[1]
        if count.reads or not isinstance(unit, Name) or unit.name.upper() not in _UNITS:
            raise self.refuse(f"expected a constant number and one of {', '.join(_UNITS)}", arguments[1])
        return count.sql, unit.name.upper()

    def dates_in_period(self, expression: Call, context: Context) -> tuple[str, tuple[ColumnKey, ...], ColumnKey]:
        self.arity(expression, 4, 4)
        key = self.date_argument(expression)
        cell = self.cell_values(context, [self.scalar(expression.arguments[1], context)])
        count, unit = self.interval(expression.arguments[2:], context)
        other = f"CAST(c.v0 + INTERVAL ({count}) {unit} AS DATE)"
        date = f"d.{quote(key.column)}"
        forward = f"{date} >= c.v0 AND {date} < {other}"
        backward = f"{date} > {other} AND {date} <= c.v0"
        return self.ranged(context, cell, key, backward if count.startswith("(-") else forward)

    def dates_between(self, expression: Call, context: Context) -> tuple[str, tuple[ColumnKey, ...], ColumnKey]:
        self.arity(expression, 3, 3)
        key = self.date_argument(expression)
        ends = [self.scalar(one, context) for one in expression.arguments[1:]]
        cell = self.cell_values(context, ends)
        date = f"d.{quote(key.column)}"
        return self.ranged(context, cell, key, f"(c.v0 IS NULL OR {date} >= c.v0) AND (c.v1 IS NULL OR {date} <= c.v1)")

    def date_argument(self, expression: Call) -> ColumnKey:
        first = expression.arguments[0]
        if not isinstance(first, Bracket):
            raise self.refuse("expected the date table's date column", first)
        return self.date_column(first)

    def ranged(
        self, context: Context, cell: str, key: ColumnKey, on: str
    ) -> tuple[str, tuple[ColumnKey, ...], ColumnKey]:
        columns = "".join(f"c.k{index}, " for index in range(len(context.cells.keys)))
        date = f"d.{quote(key.column)}"
        # Cells without an end of the range are few less: most days of a calendar have no facts.
        some = f"(SELECT * FROM {cell} WHERE v0 IS NOT NULL) AS c" if "IS NULL" not in on else f"{cell} AS c"
        name = self.cte(
            "d",
            f"SELECT {columns}{date} AS value FROM {some} JOIN model.{quote(key.table)} AS d ON {on}",
            context.cells.keys,
        )
        return name, context.cells.keys, key


class _Source:
    """The FROM and WHERE of an aggregate, and where each of its keys comes from."""

    def __init__(self, translator: _Translator, context: Context, table: str, also: frozenset[ColumnKey]) -> None:
        self.translator = translator
        self.context = context
        self.table = table
        self.paths = translator.paths(table, context)
        self.filters = [
            one
            for one in (*context.filters, *translator.security)
            if one.columns and all(c.table in self.paths for c in one.columns)
        ]
        self.members = [one for one in self.filters if one.members]
        self.cells = sorted({one.cell for one in self.filters if one.cell})
        self.own = [key for key in context.cells.keys if key in context.groups and key.table in self.paths]
        self.also = also

    def keys(self) -> list[tuple[ColumnKey, str]]:
        """Keys that the aggregate depends on, with their SQL."""
        if self.cells:
            return [(key, f"{self.cells[0]}.k{index}") for index, key in enumerate(self.context.cells.keys)]
        found = {key: self.column(key) for key in self.own}
        for one in self.members:
            for key in one.keys:
                found.setdefault(key, f"{one.members}.k{self.context.cells.keys.index(key)}")
        return sorted(found.items(), key=lambda item: self.context.cells.keys.index(item[0]))

    def column(self, key: ColumnKey) -> str:
        """A dimension's key column is read from the fact where every fact has its row in the dimension."""
        path = self.paths[key.table]
        if len(path) == 1 and path[0].to_column == key.column and key.table not in self.translator.blank_members:
            return ColumnKey(self.table, path[0].from_column).sql
        return key.sql

    def sql(self) -> str:
        """FROM ... WHERE ..., with only the joins that are needed."""
        conditions = self.cell_conditions() + self.member_conditions()
        conditions += [one.predicate for one in self.filters if one.predicate and not one.cell]
        conditions += [one.predicate for one in self.filters if one.cell]
        needed = {key.table for key in self.also}
        needed |= {key.table for one in self.filters if one.predicate for key in one.columns}
        needed |= {
            key.table
            for key in [*self.own, *(o.column for o in self.members if o.column)]
            if self.column(key) == key.sql
        }
        joins = "".join(self.joins(needed - {self.table}))
        extra = "".join(
            f" CROSS JOIN {name}"
            for name in [*self.cells, *dict.fromkeys(o.members for o in self.members if o.members)]
        )
        where = f" WHERE {' AND '.join(f'({one})' for one in conditions)}" if conditions else ""
        return f"model.{quote(self.table)} AS {quote(self.table)}{joins}{extra}{where}"

    def joins(self, needed: set[str]) -> list[str]:
        done: dict[str, str] = {}
        for table in sorted(needed, key=lambda name: len(self.paths[name])):
            for one in self.paths[table]:
                left, right = ColumnKey(one.from_table, one.from_column), ColumnKey(one.to_table, one.to_column)
                done.setdefault(
                    one.to_table,
                    f" LEFT JOIN model.{quote(one.to_table)} AS {quote(one.to_table)} ON {left.sql} = {right.sql}",
                )
        return list(done.values())

    def cell_conditions(self) -> list[str]:
        if not self.cells:
            return []
        first, *others = self.cells
        found = [f"{self.column(key)} IS NOT DISTINCT FROM {first}.{self.context.cells.key(key)}" for key in self.own]
        for name in others:
            found += [f"{name}.k{i} IS NOT DISTINCT FROM {first}.k{i}" for i in range(len(self.context.cells.keys))]
        return found

    def member_conditions(self) -> list[str]:
        found = []
        for one in self.members:
            if one.column is not None:
                found.append(f"{self.column(one.column)} = {one.members}.value")
            known = dict(self.keys())
            for key in one.keys:
                own = f"{one.members}.k{self.context.cells.keys.index(key)}"
                if known[key] != own:
                    found.append(f"{known[key]} IS NOT DISTINCT FROM {own}")
        return found


class _RowScope:
    """An expression evaluated row by row: columns are the row's, everything else is a value of the outer cell."""

    def __init__(self, translator: _Translator, context: Context, table: str | None) -> None:
        self.translator = translator
        self.context = context
        self.table = table
        self.columns: set[ColumnKey] = set()
        self.scalars: list[Scalar] = []

    def value(self, expression: Expr) -> Scalar:
        if isinstance(expression, Bracket) and self.is_column(expression):
            key = self.column(expression)
            self.columns.add(key)
            return Scalar(key.sql, self.translator.type_of(key))
        if isinstance(expression, Unary):
            return _unary(expression, self.value(expression.operand))
        if isinstance(expression, Binary):
            if expression.operator == "IN":
                return _in(self.value(expression.left), self.translator.listed(expression.right, self.value))
            return _binary(expression.operator, self.value(expression.left), self.value(expression.right))
        if isinstance(expression, Call) and expression.function == "RELATED" and len(expression.arguments) == 1:
            return self.value(expression.arguments[0])
        if isinstance(expression, Call) and expression.function in _VALUE_FUNCTIONS:
            return self.translator.plain(expression, self.value)
        return self.outer(expression)

    def is_column(self, expression: Bracket) -> bool:
        if expression.table is not None:
            return self.translator.model.measure(expression.name) is None
        table = self.translator.model.table(self.table) if self.table else None
        return table is not None and table.column(expression.name) is not None

    def column(self, expression: Bracket) -> ColumnKey:
        if expression.table is None and self.table is not None:
            return self.translator.existing(ColumnKey(self.table, expression.name))
        return self.translator.column(expression)

    def outer(self, expression: Expr) -> Scalar:
        found = self.translator.scalar(expression, self.context)
        if not found.reads:
            return found
        self.scalars.append(found)
        return Scalar(f"@cell@.v{len(self.scalars) - 1}", found.type)


# ---------------------------------------------------------------------- values


def _value(value: object, kind: str) -> str:
    if kind == "number":
        text = str(value)
        if not re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text):
            raise DaxRefusedError(f"{text!r} is not a number", where="slicer")
        return text
    if kind == "boolean":
        return "TRUE" if value in (True, "true", "True") else "FALSE"
    if kind == "date":
        try:
            day = datetime.date.fromisoformat(str(value)[:10])
        except ValueError:
            raise DaxRefusedError(f"{str(value)!r} is not a date", where="slicer") from None
        return f"DATE '{day}'"
    return literal(str(value))


def _unary(expression: Unary, value: Scalar) -> Scalar:
    if expression.operator == "NOT":
        return Scalar(f"(NOT COALESCE({value.sql}, FALSE))", "boolean", value.reads)
    sign = "-" if expression.operator == "-" else ""
    return Scalar(f"({sign}{value.sql})", value.type, value.reads)


def _binary(operator: str, left: Scalar, right: Scalar) -> Scalar:
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
        return Scalar(f"({left.sql} * {right.sql})", "number", reads)
    if operator == "/":
        return Scalar(f"(CAST({left.sql} AS DOUBLE) / COALESCE({right.sql}, 0))", "number", reads)
    if operator == "^":
        return Scalar(f"POWER(COALESCE({left.sql}, 0), COALESCE({right.sql}, 0))", "number", reads)
    return Scalar(_comparison(operator, left, right), "boolean", reads)


def _sum(operator: str, left: Scalar, right: Scalar) -> Scalar:
    """BLANK + BLANK is BLANK; with one side BLANK it counts as 0. A date moves by days."""
    reads = left.reads | right.reads
    kind = "date" if "date" in (left.type, right.type) and left.type != right.type else "number"
    if kind == "date":
        moved = f"({left.sql} {operator} INTERVAL (CAST({right.sql} AS BIGINT)) DAY)"
        return Scalar(f"CAST({moved} AS DATE)", "date", reads)
    if left.type == "date":
        return Scalar(f"date_diff('day', {right.sql}, {left.sql})", "number", reads)
    if left.constant is not None and right.constant is not None:
        return Scalar(f"({left.sql} {operator} {right.sql})", "number")
    sql = f"CASE WHEN {left.sql} IS NULL AND {right.sql} IS NULL THEN NULL ELSE COALESCE({left.sql}, 0) {operator} COALESCE({right.sql}, 0) END"
    return Scalar(f"({sql})", "number", reads)


def _comparison(operator: str, left: Scalar, right: Scalar) -> str:
    kind = left.type if left.type != "blank" else right.type
    if operator == "==":
        return f"({left.sql} IS NOT DISTINCT FROM {right.sql})"
    a, b = (f"COALESCE({one.sql}, {_ZERO[kind]})" if one.constant is None else one.sql for one in (left, right))
    if kind == "text":
        a, b = f"lower({a})", f"lower({b})"
    return f"({a} {operator} {b})"


def _in(left: Scalar, values: list[Scalar]) -> Scalar:
    reads = left.reads.union(*(one.reads for one in values))
    return Scalar("(" + (" OR ".join(_comparison("=", left, one) for one in values) or "FALSE") + ")", "boolean", reads)


def _reads(values: list[Scalar]) -> frozenset[str]:
    return frozenset(name for one in values for name in one.reads)


def _divide(_: _Translator, expression: Call, values: list[Scalar]) -> Scalar:
    del expression
    other = values[2].sql if len(values) == 3 else "NULL"
    top, bottom = values[0].sql, values[1].sql
    sql = f"(CASE WHEN COALESCE({bottom}, 0) = 0 THEN {other} ELSE CAST({top} AS DOUBLE) / {bottom} END)"
    return Scalar(sql, "number", _reads(values))


def _if(_: _Translator, expression: Call, values: list[Scalar]) -> Scalar:
    del expression
    other = values[2].sql if len(values) == 3 else "NULL"
    return Scalar(
        f"(CASE WHEN COALESCE({values[0].sql}, FALSE) THEN {values[1].sql} ELSE {other} END)",
        values[1].type,
        _reads(values),
    )


def _switch(_: _Translator, expression: Call, values: list[Scalar]) -> Scalar:
    del expression
    subject, rest = values[0], values[1:]
    pairs = list(zip(rest[::2], rest[1::2], strict=False))
    other = rest[-1].sql if len(rest) % 2 else "NULL"
    whens = " ".join(f"WHEN {_comparison('=', subject, when)} THEN {then.sql}" for when, then in pairs)
    return Scalar(f"(CASE {whens} ELSE {other} END)", pairs[0][1].type, _reads(values))


def _template(sql: str, kind: str) -> Callable[[_Translator, Call, list[Scalar]], Scalar]:
    def build(_: _Translator, expression: Call, values: list[Scalar]) -> Scalar:
        del expression
        found = sql
        for index, value in enumerate(values):
            found = found.replace(f"${index}", value.sql)
        return Scalar(found, kind if kind != "same" else values[0].type, _reads(values))

    return build


def _coalesce(_: _Translator, expression: Call, values: list[Scalar]) -> Scalar:
    del expression
    return Scalar(f"COALESCE({', '.join(one.sql for one in values)})", values[0].type, _reads(values))


def _logical(operator: str) -> Callable[[_Translator, Call, list[Scalar]], Scalar]:
    return lambda _, __, values: _binary(operator, values[0], values[1])


def _user(translator: _Translator, expression: Call, values: list[Scalar]) -> Scalar:
    del expression, values
    return Scalar(literal(translator.user), "text", constant=translator.user)


_Function = Callable[[_Translator, Call, list[Scalar]], Scalar]
_VALUE_FUNCTIONS: dict[str, tuple[_Function, int, int]] = {
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
    "ABS": (_template("ABS($0)", "number"), 1, 1),
    "INT": (_template("FLOOR($0)", "number"), 1, 1),
    "ROUND": (_template("ROUND($0, $1)", "number"), 2, 2),
    "MIN": (_template("LEAST($0, $1)", "same"), 2, 2),
    "MAX": (_template("GREATEST($0, $1)", "same"), 2, 2),
    "DATE": (_template("make_date(CAST($0 AS BIGINT), CAST($1 AS BIGINT), CAST($2 AS BIGINT))", "date"), 3, 3),
    "YEAR": (_template("YEAR($0)", "number"), 1, 1),
    "MONTH": (_template("MONTH($0)", "number"), 1, 1),
    "UPPER": (_template("UPPER($0)", "text"), 1, 1),
    "LOWER": (_template("LOWER($0)", "text"), 1, 1),
    "USERPRINCIPALNAME": (_user, 0, 0),
    "USERNAME": (_user, 0, 0),
}
_CONTEXT_FUNCTIONS: dict[str, Callable[[_Translator, Call, Context], Scalar]] = {
    "CALCULATE": _Translator.calculate,
    "COUNTROWS": _Translator.count_rows,
    "DISTINCTCOUNT": _Translator.distinct_count,
    "DISTINCTCOUNTNOBLANK": _Translator.distinct_count,
    "SELECTEDVALUE": _Translator.selected_value,
    "HASONEVALUE": _Translator.has_one_value,
    "ISFILTERED": _Translator.is_filtered,
    "RANKX": _Translator.rank,
}
FUNCTIONS = frozenset(
    {*_AGGREGATES, *_ITERATORS, *_TOTALS, *_DATE_TABLES, *_CLEARING, *_VALUE_FUNCTIONS, *_CONTEXT_FUNCTIONS}
    | {"ALLSELECTED", "KEEPFILTERS", "USERELATIONSHIP", "FILTER", "TREATAS", "TOPN", "VALUES", "RELATED"}
)


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
