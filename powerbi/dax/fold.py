"""Summing a fact once by one of its columns, when all else is known from that column: a day, a product, a customer.

Month to date, a previous month, a moving average and the months themselves all need sums of days; a product's name and
rank need sums of stock codes. Those are read from the fact once a statement, and the rest is done over some hundreds of
rows. Here: whether that is possible, and the two halves' SQL. Not here: what is aggregated (builder.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from powerbi.dax.context import ColumnKey, placed, quote

if TYPE_CHECKING:
    from powerbi.dax.context import Filter
    from powerbi.dax.source import Source

PIVOT = "g0"


class Fold:
    """The two halves of an aggregate: rows by `pivot`, then everything else over those."""

    def __init__(self, source: Source, pivot: str, dimension: str | None, late: list[Filter]) -> None:
        self.source = source
        self.pivot = pivot
        self.dimension = dimension
        self.late = late

    def inner(self) -> str:
        """FROM ... WHERE ... of the fact, with the conditions that its own columns answer."""
        source = self.source
        early = [one for one in source.filters if one.predicate and one not in self.late]
        return source.from_where([placed(one.predicate, one.columns, source.column) for one in early], set(), [])

    def outer(self, scan: str) -> str:
        """FROM ... WHERE ... of the rows by pivot, with the dimension, what is listed, and the other conditions."""
        source = self.source
        joins = ""
        if self.dimension is not None:
            one = source.paths[self.dimension][0]
            right = ColumnKey(one.to_table, one.to_column).sql
            joins = f" LEFT JOIN model.{quote(self.dimension)} AS {quote(self.dimension)} ON {scan}.{PIVOT} = {right}"
        joins += "".join(f" CROSS JOIN {name}" for name in source.lists(source.members))
        conditions = source.member_conditions(lambda key: self.column(key, scan))
        conditions += [placed(one.predicate, one.columns, lambda key: self.column(key, scan)) for one in self.late]
        return f"{scan}{joins}" + (f" WHERE {' AND '.join(f'({one})' for one in conditions)}" if conditions else "")

    def column(self, key: ColumnKey, scan: str) -> str:
        """A column in the outer half."""
        sql = self.source.column(key)
        return f"{scan}.{PIVOT}" if sql == self.pivot else sql


def fold_of(source: Source, known: dict[str, str]) -> Fold | None:
    """How an aggregate can be folded; None where rows must be looked at one by one.

    Args:
        source: what is aggregated.
        known: for the FROM ... WHERE ... of each scan that is there already, the column it is summed by: a total is
            made of it, rather than of the rows again.
    """
    if source.cells or any(key.table != source.table for key in source.also):
        return None
    if any(one.column is None for one in source.members):
        return None
    late = [one for one in source.filters if one.predicate and any(_is_joined(source, key) for key in one.columns)]
    asked = {*source.own, *(one.column for one in source.members if one.column)}
    asked |= {key for one in late for key in one.columns}
    dimensions = {key.table for key in asked if _is_joined(source, key)}
    pivots = {source.column(key) for key in asked if not _is_joined(source, key)}
    for name in dimensions:
        path = source.paths[name]
        if len(path) != 1:
            return None
        pivots.add(ColumnKey(source.table, path[0].from_column).sql)
    if not pivots:
        total = Fold(source, "", None, [])
        pivot = known.get(total.inner())
        return None if pivot is None else Fold(source, pivot, None, [])
    if len(pivots) != 1 or len(dimensions) > 1:
        return None
    return Fold(source, pivots.pop(), next(iter(dimensions), None), late)


def _is_joined(source: Source, key: ColumnKey) -> bool:
    return key.table != source.table and source.column(key) == key.sql
