"""The FROM and WHERE of one aggregate: which tables it needs, which filters reach it, where its keys come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from powerbi.dax.context import ColumnKey, placed, quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from powerbi.dax.builder import Builder
    from powerbi.dax.context import Context, Filter


class Source:
    """The FROM and WHERE of an aggregate, and where each of its keys comes from."""

    def __init__(self, translator: Builder, context: Context, table: str, also: frozenset[ColumnKey]) -> None:
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
        conditions = self.cell_conditions() + self.member_conditions(self.column)
        filters = [one for one in self.filters if one.predicate]
        conditions += [
            placed(one.predicate, one.columns, self.column) for one in sorted(filters, key=lambda one: bool(one.cell))
        ]
        asked = {*self.also, *self.own, *(one.column for one in self.members if one.column)}
        asked |= {key for one in filters for key in one.columns}
        needed = {key.table for key in asked if self.column(key) == key.sql}
        return self.from_where(conditions, needed, [*self.cells, *self.lists(self.members)])

    def from_where(self, conditions: list[str], needed: set[str], beside: list[str]) -> str:
        """The table with these tables joined along relationships, and these CTEs beside it."""
        joins = "".join(self.joins(needed - {self.table})) + "".join(f" CROSS JOIN {name}" for name in beside)
        where = f" WHERE {' AND '.join(f'({one})' for one in conditions)}" if conditions else ""
        return f"model.{quote(self.table)} AS {quote(self.table)}{joins}{where}"

    def lists(self, members: list[Filter]) -> list[str]:
        """The CTEs that list what is allowed."""
        return list(dict.fromkeys(one.members for one in members if one.members))

    def joins(self, needed: set[str]) -> list[str]:
        """LEFT JOINs along the relationships to these tables."""
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
        """Which cell's values a row is compared with."""
        if not self.cells:
            return []
        first, *others = self.cells
        found = [f"{self.column(key)} IS NOT DISTINCT FROM {first}.{self.context.cells.key(key)}" for key in self.own]
        for name in others:
            found += [f"{name}.k{i} IS NOT DISTINCT FROM {first}.k{i}" for i in range(len(self.context.cells.keys))]
        return found

    def member_conditions(self, column: Callable[[ColumnKey], str]) -> list[str]:
        """Membership in the lists of allowed values."""
        found = []
        for one in self.members:
            if one.column is not None:
                # the blank member may be among what is listed
                same = "IS NOT DISTINCT FROM" if one.column.table in self.translator.blank_members else "="
                found.append(f"{column(one.column)} {same} {one.members}.value")
            known = dict(self.keys())
            for key in one.keys:
                own = f"{one.members}.k{self.context.cells.keys.index(key)}"
                if known[key] != own:
                    found.append(f"{known[key]} IS NOT DISTINCT FROM {own}")
        return found
