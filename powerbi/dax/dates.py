"""Date functions: a map from each cell to the days it stands for, as a CTE.

Here: DATEADD, SAMEPERIODLASTYEAR, DATESMTD/QTD/YTD, PREVIOUS..., DATESINPERIOD and
DATESBETWEEN over the marked date table.
"""

from __future__ import annotations

from powerbi.dax.builder import Builder
from powerbi.dax.context import ColumnKey, Context, Filter, quote
from powerbi.dax.source import Source
from powerbi.dax.syntax import Bracket, Call, Expr, Name

_UNITS = ("DAY", "MONTH", "QUARTER", "YEAR")
_TO_DATE = {"DATESMTD": "month", "DATESQTD": "quarter", "DATESYTD": "year"}
_PREVIOUS = {"PREVIOUSDAY": "day", "PREVIOUSMONTH": "month", "PREVIOUSQUARTER": "quarter", "PREVIOUSYEAR": "year"}
DATE_TABLES = {*_TO_DATE, *_PREVIOUS, "DATEADD", "SAMEPERIODLASTYEAR", "DATESINPERIOD", "DATESBETWEEN"}


class DateTables(Builder):
    """Tables of dates."""

    def date_filter(self, argument: Call, outer: Context, result: Context) -> tuple[Context, list[Filter]]:
        """A date function as a filter argument of CALCULATE."""
        members, keys, key = self.dates(argument, outer)
        return result.cleared(self.columns_of(key.table)), [
            Filter(frozenset({key}), members=members, column=key, keys=keys)
        ]

    def dates(self, expression: Expr, context: Context) -> tuple[str, tuple[ColumnKey, ...], ColumnKey]:
        """A table of dates: its CTE (keys, value), the keys it depends on, and the date column."""
        if isinstance(expression, Bracket):
            key = self.date_column(expression)
            return (*self.visible_dates(key, context), key)
        if not isinstance(expression, Call) or expression.function not in DATE_TABLES:
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
        """The marked date table's date column."""
        key = self.column(expression)
        table = self.model.date_table
        if table is None or key.table != table.name or self.type_of(key) != "date":
            raise self.refuse("date functions work on the date column of the table marked as date table", expression)
        return key

    def visible_dates(self, key: ColumnKey, context: Context) -> tuple[str, tuple[ColumnKey, ...]]:
        """The days that the filter context leaves, for each cell."""
        source = Source(self, context, key.table, frozenset())
        keys = source.keys()
        columns = "".join(f"{sql} AS k{context.cells.keys.index(one)}, " for one, sql in keys)
        return self.cte(
            "d", f"SELECT DISTINCT {columns}{key.sql} AS value FROM {source.sql()}", tuple(one for one, _ in keys)
        ), tuple(one for one, _ in keys)

    def shifted(
        self, expression: Call, context: Context, source: str, keys: tuple[ColumnKey, ...], key: ColumnKey
    ) -> str:
        """Days moved or widened: DATEADD, DATESYTD, PREVIOUSMONTH and their like."""
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
                start = f"date_trunc('{unit}', v.edge)"
                on = f"{date} >= {start} - INTERVAL 1 {unit} AND {date} < {start}"
            return self.cte("d", f"SELECT {listed}{date} AS value FROM {edges} JOIN {calendar} ON {on}", keys)
        count, unit = (
            ("-1", "YEAR") if name == "SAMEPERIODLASTYEAR" else self.interval(expression.arguments[1:], context)
        )
        if unit == "DAY":
            return self.cte(
                "d",
                f"SELECT {listed}{date} AS value FROM {source} AS v"
                f" JOIN {calendar} ON {date} = v.value + INTERVAL ({count}) DAY",
                keys,
            )
        return self.shifted_months(source, listed, names, (calendar, date), (count, unit), keys)

    def shifted_months(  # noqa: PLR0917 - one call shape
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
            f"(SELECT *, value = last_day(value)"
            f" AND COALESCE(LAG(value) OVER ({window}) = value - INTERVAL 1 DAY, FALSE)"
            f" AS is_end FROM {source}) AS v"
        )
        moved = f"CAST(v.value + {interval} AS DATE)"
        same = f"SELECT {listed}{date} AS value FROM {source} AS v JOIN {table} ON {date} = {moved}"
        ends = f"date_trunc('month', {date}) = date_trunc('month', {moved}) AND {date} > {moved}"
        rest = f"SELECT {listed}{date} AS value FROM {marked} JOIN {table} ON {ends} WHERE v.is_end"
        return self.cte("d", f"{same} UNION {rest}", keys)

    def interval(self, arguments: tuple[Expr, ...], context: Context) -> tuple[str, str]:
        """The number and unit of an interval."""
        count = self.scalar(arguments[0], context)
        unit = arguments[1]
        if count.reads or not isinstance(unit, Name) or unit.name.upper() not in _UNITS:
            raise self.refuse(f"expected a constant number and one of {', '.join(_UNITS)}", arguments[1])
        return count.sql, unit.name.upper()

    def dates_in_period(self, expression: Call, context: Context) -> tuple[str, tuple[ColumnKey, ...], ColumnKey]:
        """DATESINPERIOD."""
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
        """DATESBETWEEN."""
        self.arity(expression, 3, 3)
        key = self.date_argument(expression)
        ends = [self.scalar(one, context) for one in expression.arguments[1:]]
        cell = self.cell_values(context, ends)
        date = f"d.{quote(key.column)}"
        return self.ranged(context, cell, key, f"(c.v0 IS NULL OR {date} >= c.v0) AND (c.v1 IS NULL OR {date} <= c.v1)")

    def date_argument(self, expression: Call) -> ColumnKey:
        """The first argument, which is the date column."""
        first = expression.arguments[0]
        if not isinstance(first, Bracket):
            raise self.refuse("expected the date table's date column", first)
        return self.date_column(first)

    def ranged(
        self, context: Context, cell: str, key: ColumnKey, on: str
    ) -> tuple[str, tuple[ColumnKey, ...], ColumnKey]:
        """Days of the calendar in a range around each cell's values."""
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
