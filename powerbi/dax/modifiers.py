"""What CALCULATE does to the filter context, and rankings: clearing, adding, TOPN, RANKX."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from powerbi.dax.context import Cells, ColumnKey, Context, Filter, Scalar
from powerbi.dax.dates import DATE_TABLES, DateTables
from powerbi.dax.rows import RowScope
from powerbi.dax.syntax import Bracket, Call, Expr, Name
from powerbi.dax.values import is_in

if TYPE_CHECKING:
    from powerbi.dax.query import TopN

TOTALS = {"TOTALMTD": "DATESMTD", "TOTALQTD": "DATESQTD", "TOTALYTD": "DATESYTD"}
CLEARING = {"ALL", "REMOVEFILTERS", "ALLCROSSFILTERED"}


class Modifiers(DateTables):
    """Changes of the filter context."""

    def calculate(self, expression: Call, context: Context) -> Scalar:
        """CALCULATE."""
        if not expression.arguments:
            raise self.refuse("CALCULATE needs an expression", expression)
        return self.scalar(expression.arguments[0], self.modified(expression.arguments[1:], context))

    def total_to_date(self, expression: Call, context: Context) -> Scalar:
        """TOTALMTD, TOTALQTD, TOTALYTD."""
        self.arity(expression, 2, 3)
        dates = Call(expression.position, TOTALS[expression.function], (expression.arguments[1],))
        return self.scalar(expression.arguments[0], self.modified((dates, *expression.arguments[2:]), context))

    def modified(self, arguments: tuple[Expr, ...], context: Context) -> Context:
        """Filters are read in the outer context; then all clearing happens; then all are added."""
        result, added = context, []
        for argument in arguments:
            result, new = self.modifier(argument, context, result)
            added += new
        return result.restricted(*added)

    def modifier(self, argument: Expr, outer: Context, result: Context) -> tuple[Context, list[Filter]]:  # noqa: PLR0911 - one return a case
        """One argument of CALCULATE: what it clears, and the filters it adds."""
        if isinstance(argument, Call):
            name = argument.function
            if name in CLEARING or name == "ALLSELECTED":
                return self.clear(argument, outer, result), []
            if name == "KEEPFILTERS":
                self.arity(argument, 1, 1)
                _, added = self.modifier(argument.arguments[0], outer, result)
                return result, added
            if name == "USERELATIONSHIP":
                return self.switch_on(argument, result), []
            if name in DATE_TABLES:
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
        """ALL, REMOVEFILTERS, ALLSELECTED."""
        columns: set[ColumnKey] = set()
        for item in argument.arguments:
            table = self.table_name(item)
            columns |= self.expanded(table, outer) if table else {self.column(item)}
        if not argument.arguments:
            columns = {key for table in self.model.tables for key in self.columns_of(table.name)}
        return result.selected(columns) if argument.function == "ALLSELECTED" else result.cleared(columns)

    def switch_on(self, argument: Call, result: Context) -> Context:
        """USERELATIONSHIP."""
        self.arity(argument, 2, 2)
        ends = {
            (key.table, key.column) for key in (self.column(argument.arguments[0]), self.column(argument.arguments[1]))
        }
        for one in self.model.relationships:
            if {(one.from_table, one.from_column), (one.to_table, one.to_column)} == ends:
                return replace(result, switched_on=result.switched_on | {one.name})
        raise self.refuse("USERELATIONSHIP names two columns that no relationship joins", argument)

    def keep_values(self, argument: Call, outer: Context, result: Context) -> tuple[Context, list[Filter]]:
        """VALUES as a filter: what was in force on a column stays."""
        self.arity(argument, 1, 1)
        key = self.column(argument.arguments[0])
        kept = [one for one in outer.filters if key in one.columns and one not in result.filters]
        groups = result.groups | ({key} & outer.groups)
        return replace(result, groups=groups), kept

    def filter_table(self, argument: Call, outer: Context, result: Context) -> tuple[Context, list[Filter]]:
        """FILTER as a filter argument."""
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
        """TREATAS of a written list."""
        self.arity(argument, 2, 2)
        key = self.column(argument.arguments[1])
        values = self.listed(argument.arguments[0], lambda one: self.scalar(one, outer))
        predicate = is_in(Scalar(key.marked, self.type_of(key)), values).sql
        return result.cleared(self.overridden(frozenset({key}))), [Filter(frozenset({key}), predicate)]

    def predicate_filter(self, expression: Expr, context: Context, table: str | None) -> Filter:
        """A condition on columns. What it reads beside columns is evaluated in the outer context, once a cell."""
        rows = RowScope(self, context, table)
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
        """TOPN as a filter argument."""
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
        """ASC or DESC of TOPN."""
        if len(argument.arguments) < 4:  # noqa: PLR2004 - the number says itself
            return "DESC"
        order = argument.arguments[3]
        return "ASC" if isinstance(order, Name) and order.name.upper() == "ASC" else "DESC"

    def ranked(
        self, key: ColumnKey, expression: Expr, context: Context, *, is_all: bool, blank: str = ""
    ) -> tuple[str, tuple[ColumnKey, ...]]:
        """A CTE with a row for each remaining key and each value of `key`, and the expression's value there.

        Without a value for `blank`, members whose value is BLANK are left out.
        """
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
        return self.value_rows(cells, self.scalar(expression, inner), blank), cells.keys

    def value_rows(self, cells: Cells, value: Scalar, blank: str) -> str:
        """Cells with a value, as rows (keys, v)."""
        columns = ", ".join(f"{cells.name}.k{index}" for index in range(len(cells.keys)))
        joins = "".join(self.join(cells, name) for name in sorted(value.reads))
        sql = f"COALESCE({value.sql}, {blank})" if blank else value.sql
        return self.cte(
            "r",
            f"SELECT * FROM (SELECT {columns}, {sql} AS v FROM {cells.name}{joins}) AS x WHERE v IS NOT NULL",
            cells.keys,
        )

    def rank(self, expression: Call, context: Context) -> Scalar:
        """RANKX over ALL(column)."""
        self.arity(expression, 2, 2)
        source = expression.arguments[0]
        if not isinstance(source, Call) or source.function != "ALL" or len(source.arguments) != 1:
            raise self.refuse("RANKX takes ALL(column) here", source)
        key = self.column(source.arguments[0])
        name, keys = self.ranked(key, expression.arguments[1], context, is_all=True, blank="0")
        own = self.scalar(expression.arguments[1], context)
        cell = self.cell_values(context, [own])
        # The nearest greater value tells by its own place how many are greater: no pair of members is compared.
        place = "".join(f"{_joined(f'k{index}')}, " for index in range(len(keys) - 1))
        window = f"{f'PARTITION BY {place[:-2]} ' if place else ''}ORDER BY v DESC"
        listed = "".join(f"{_joined(f'k{index}')} AS k{index}, " for index in range(len(keys) - 1))
        greater = f"(SELECT {listed}v, COUNT(*) OVER ({window}) AS n FROM {name}) AS r"
        same = "".join(
            f"{_joined(f'c.k{context.cells.keys.index(one)}')} = r.k{index} AND " for index, one in enumerate(keys[:-1])
        )
        columns = "".join(f"c.k{index}, " for index in range(len(context.cells.keys)))
        sql = (
            f"SELECT {columns}COALESCE(r.n, 0) + 1 AS v"
            f" FROM {cell} AS c ASOF LEFT JOIN {greater} ON {same}COALESCE(c.v0, 0) < r.v"
        )
        result = self.cte("a", sql, context.cells.keys)
        return Scalar(f"{result}.v", "number", frozenset({result}))

    def outer_top(self, top: TopN, filters: tuple[Filter, ...]) -> Filter:
        """A visual's TopN: the members are found under the slicers alone and then restrict cells and totals alike."""
        key = self.existing(top.column)
        self.where = top.measure
        context = Context(Cells(self.cte("grid", "SELECT 1 AS one"), ()), frozenset(), filters)
        name, _ = self.ranked(key, Bracket(0, None, top.measure), context, is_all=False)
        window = "ORDER BY v DESC NULLS LAST"
        members = self.cte("t", f"SELECT k0 AS value FROM {name} QUALIFY RANK() OVER ({window}) <= {int(top.count)}")
        return Filter(frozenset({key}), members=members, column=key, is_outer=True)


def _joined(column: str) -> str:
    """A key for a join that knows no IS NOT DISTINCT FROM."""
    return f"COALESCE(CAST({column} AS VARCHAR), chr(1))"
