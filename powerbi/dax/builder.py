"""The growing statement: names found in the model, CTEs, grids of cells, aggregates.

Here: what every DAX function builds upon. Not here: the functions (dates.py, modifiers.py, translate.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from powerbi.dax.context import Cells, ColumnKey, Context, Filter, Scalar, placed, quote
from powerbi.dax.fold import PIVOT, fold_of
from powerbi.dax.parse import parse_expression
from powerbi.dax.rows import RowScope
from powerbi.dax.source import Source
from powerbi.dax.syntax import Bracket, Call, Expr, Name, Rows
from powerbi.dax.values import VALUE_FUNCTIONS, literal_of
from powerbi.errors import DaxRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from powerbi.dax.query import Selection
    from powerbi.model import Model, Relationship

_TYPES = {
    "int64": "number",
    "double": "number",
    "decimal": "money",
    "string": "text",
    "dateTime": "date",
    "boolean": "boolean",
}


@dataclass
class Scan:
    """A CTE that aggregates rows; whatever else is asked of the same rows by the same keys is computed beside it."""

    name: str
    place: int
    values: list[str]


class Builder:
    """A statement under construction."""

    def __init__(self, model: Model, *, user: str, blank_members: frozenset[str]) -> None:
        self.model = model
        self.user = user
        self.blank_members = blank_members
        self.ctes: list[tuple[str, str]] = []
        self.known: dict[str, str] = {}
        self.scans: dict[tuple[str, ...], Scan] = {}
        self.pivots: dict[str, str] = {}
        self.memo: dict[object, Scalar] = {}
        self.where = "query"
        self.depth = 0
        self.known_keys: dict[str, tuple[ColumnKey, ...]] = {}
        self.scopes: list[dict[str, Scalar]] = [{}]
        self.security: tuple[Filter, ...] = ()

    def scalar(self, expression: Expr, context: Context) -> Scalar:
        """The SQL of an expression that is one value a cell."""
        raise NotImplementedError

    def join(self, cells: Cells, name: str) -> str:
        """Join a CTE to cells by the keys it depends on."""
        keys = self.known_keys[name]
        on = " AND ".join(
            f"{cells.name}.{cells.key(key)} IS NOT DISTINCT FROM {name}.k{cells.keys.index(key)}" for key in keys
        )
        return f"\n  LEFT JOIN {name} ON {on or 'TRUE'}"

    # ------------------------------------------------------------------ names

    def refuse(self, what: str, expression: Expr) -> DaxRefusedError:
        """The error for what is outside the subset, at its position."""
        return DaxRefusedError(what, position=expression.position, where=self.where)

    def existing(self, key: ColumnKey) -> ColumnKey:
        """A column by the model's own spelling."""
        table = self.model.table(key.table)
        column = table.column(key.column) if table else None
        if table is None or column is None:
            raise DaxRefusedError(f"column '{key.table}'[{key.column}] does not exist in the model", where=self.where)
        return ColumnKey(table.name, column.name)

    def column(self, expression: Expr) -> ColumnKey:
        """The column that `Table[column]` names."""
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
        """A column's type: number, text, date or boolean."""
        table = self.model.table(key.table)
        column = table.column(key.column) if table else None
        return _TYPES.get(column.data_type if column else "", "text")

    def table_name(self, expression: Expr) -> str | None:
        """The table that a bare name names; None for any other expression."""
        if isinstance(expression, Name):
            table = self.model.table(expression.name)
            if table is None:
                raise self.refuse(f"table '{expression.name}' does not exist", expression)
            return table.name
        return None

    def columns_of(self, table: str) -> frozenset[ColumnKey]:
        """Every column of a table."""
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
        """Whether filters flow through a relationship here."""
        if one.name in switched:
            return True
        rivals = {
            r.name for r in self.model.relationships if {r.from_table, r.to_table} == {one.from_table, one.to_table}
        }
        return one.is_active and not (rivals & switched)

    # ------------------------------------------------------------------ CTEs

    def cte(self, prefix: str, sql: str, keys: tuple[ColumnKey, ...] = ()) -> str:
        """Add a CTE, or find the one with this very text."""
        if sql in self.known:
            return self.known[sql]
        name = f"{prefix}{len(self.ctes)}"
        self.ctes.append((name, sql))
        self.known[sql] = name
        self.known_keys[name] = keys
        return name

    def grid(self, groups: tuple[ColumnKey, ...], filters: tuple[Filter, ...]) -> tuple[Cells, list[str]]:
        """The cells of a visual, with the columns that sort them."""
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
        """The members of the group columns of one table."""
        columns, found = [], self.model.table(table)
        for index in indexes:
            column = found.column(groups[index].column) if found else None
            columns.append(f"{groups[index].sql} AS k{index}")
            if column is not None and column.sort_by:
                columns.append(f"MIN({ColumnKey(table, column.sort_by).sql}) AS s{index}")
                sorts.append(f"s{index}")
        own = [one for one in (*filters, *self.security) if one.columns and all(c.table == table for c in one.columns)]
        tests = [f"({placed(one.predicate, one.columns, lambda key: key.sql)})" for one in own if one.predicate]
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

    def selection_filter(self, one: Selection) -> Filter:
        """A reader's selection as a filter."""
        key = self.existing(one.column)
        kind = self.type_of(key)
        parts = []
        if one.values is not None:
            listed = [literal_of(value, kind) for value in one.values if value is not None]
            some = [f"{key.marked} IN ({', '.join(listed)})"] if listed else []
            some += [f"{key.marked} IS NULL"] if None in one.values else []
            parts.append(f"({' OR '.join(some) or 'FALSE'})")
        if one.low is not None:
            parts.append(f"{key.marked} >= {literal_of(one.low, kind)}")
        if one.high is not None:
            parts.append(f"{key.marked} <= {literal_of(one.high, kind)}")
        return Filter(frozenset({key}), " AND ".join(parts) or "TRUE", is_outer=True)

    def security_filter(self, table: str, text: str) -> Filter:
        """A role's row filter."""
        self.where = f"role filter on '{table}'"
        found = self.model.table(table)
        if found is None:
            raise DaxRefusedError(f"table '{table}' does not exist", where=self.where)
        if not text.strip():
            return Filter(frozenset())
        context = Context(Cells("none", ()), frozenset())
        rows = RowScope(self, context, found.name)
        predicate = rows.value(parse_expression(text, where=self.where)).sql
        return Filter(frozenset(rows.columns) or frozenset({ColumnKey(found.name, found.columns[0].name)}), predicate)

    # ------------------------------------------------------------------ aggregates

    def aggregate(
        self,
        context: Context,
        table: str,
        value: str,
        kind: str,
        *,
        also: frozenset[ColumnKey] = frozenset(),
        fold: str = "",
    ) -> Scalar:
        """One aggregate under its own filter context: a CTE keyed by what it depends on.

        Args:
            context: the filters in force.
            table: the table whose rows are aggregated.
            value: the aggregate's SQL.
            kind: its type.
            also: columns that the value reads.
            fold: the aggregate that makes one of partial ones (SUM of sums), where there is one.
        """
        source = Source(self, context, table, also)
        keys = source.keys()
        names = [f"k{context.cells.keys.index(key)}" for key, _ in keys]
        value = placed(value, also, source.column)
        folded = fold_of(source, self.pivots) if fold else None
        if folded is not None:
            scan, column = self.scan([f"{folded.pivot} AS {PIVOT}"], folded.inner(), [folded.pivot], value)
            self.pivots.setdefault(folded.inner(), folded.pivot)
            keys = [(key, f"{scan}.{PIVOT}" if sql == folded.pivot else sql) for key, sql in keys]
            rows, value = folded.outer(scan), f"{fold}({scan}.{column})"
        else:
            rows = source.sql()
        name, column = self.scan(
            [f"{sql} AS {name}" for name, (_, sql) in zip(names, keys, strict=True)],
            rows,
            [sql for _, sql in keys],
            value,
        )
        self.known_keys[name] = tuple(key for key, _ in keys)
        return Scalar(f"{name}.{column}", kind, frozenset({name}))

    def scan(self, columns: list[str], rows: str, by: list[str], value: str) -> tuple[str, str]:
        """The CTE that aggregates these rows by these keys, and the column of this value in it."""
        shape = (*columns, rows)
        found = self.scans.get(shape)
        if found is None:
            found = Scan(f"a{len(self.ctes)}", len(self.ctes), [])
            self.scans[shape] = found
            self.ctes.append((found.name, ""))
        if value not in found.values:
            found.values.append(value)
            listed = [*columns, *(f"{one} AS v{index}" for index, one in enumerate(found.values))]
            group = f" GROUP BY {', '.join(by)}" if by else ""
            self.ctes[found.place] = (found.name, f"SELECT {', '.join(listed)} FROM {rows}{group}")
        return found.name, f"v{found.values.index(value)}"

    def cell_values(self, context: Context, scalars: list[Scalar]) -> str:
        """A CTE with the cells' keys and the values v0, v1, ... of these scalars."""
        cells = context.cells
        columns = [f"{cells.name}.k{index}" for index in range(len(cells.keys))]
        columns += [f"{one.sql} AS v{index}" for index, one in enumerate(scalars)]
        joins = "".join(self.join(cells, name) for name in sorted({n for one in scalars for n in one.reads}))
        return self.cte("c", f"SELECT {', '.join(columns)} FROM {cells.name}{joins}", cells.keys)

    # ------------------------------------------------------------------ arguments

    def listed(self, expression: Expr, evaluate: Callable[[Expr], Scalar]) -> list[Scalar]:
        """The values of `{ 1, 2 }`."""
        if not isinstance(expression, Rows) or any(len(row) != 1 for row in expression.rows):
            raise self.refuse("IN takes a list in braces here: { 1, 2 }", expression)
        return [evaluate(row[0]) for row in expression.rows]

    def plain(self, expression: Call, evaluate: Callable[[Expr], Scalar]) -> Scalar:
        """A function of values alone."""
        handler = VALUE_FUNCTIONS.get(expression.function)
        if handler is None:
            raise self.refuse(f"function {expression.function} is outside the subset that is translated", expression)
        function, least, most = handler
        self.arity(expression, least, most)
        return function(self.user, [evaluate(one) for one in expression.arguments])

    def arity(self, expression: Call, least: int, most: int) -> None:
        """Refuse a wrong number of arguments."""
        if not least <= len(expression.arguments) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise self.refuse(
                f"{expression.function} takes {wanted} arguments, found {len(expression.arguments)}", expression
            )
