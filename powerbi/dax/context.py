"""What a DAX expression is evaluated in: the cells of a visual, and the filters in force on each.

A visual is a grid of cells: one row for each combination of its group columns. Every scalar is SQL over one cell;
every aggregate is a CTE grouped by the keys it depends on, joined to the cells. Here: the data classes, and how
filters are cleared and added. Not here: SQL of functions (translate.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


_MARK = "\x01"  # no name and no literal holds it


@dataclass(frozen=True, order=True)
class ColumnKey:
    """A column by its model names."""

    table: str
    column: str

    @property
    def sql(self) -> str:
        """The column under its table's alias."""
        return f"{quote(self.table)}.{quote(self.column)}"

    @property
    def marked(self) -> str:
        """The column in a condition whose tables are not known yet: `placed` puts the SQL in its place."""
        return f"{_MARK}{self.sql}{_MARK}"


@dataclass(frozen=True)
class Cells:
    """A CTE with one row a cell; key i is its column `k{i}`."""

    name: str
    keys: tuple[ColumnKey, ...]

    def key(self, column: ColumnKey) -> str:
        """The CTE's column that holds this key."""
        return f"k{self.keys.index(column)}"


@dataclass(frozen=True)
class Filter:
    """A restriction of some columns.

    Either a predicate over marked columns (which may read values of the cell from the CTE `cell`), or membership:
    the CTE `members` lists, for each combination of `keys`, the values that `column` may take.
    """

    columns: frozenset[ColumnKey]
    predicate: str = ""
    cell: str | None = None
    members: str | None = None
    column: ColumnKey | None = None
    keys: tuple[ColumnKey, ...] = ()
    is_outer: bool = False


@dataclass(frozen=True)
class Context:
    """The filter context of an expression."""

    cells: Cells
    groups: frozenset[ColumnKey]
    filters: tuple[Filter, ...] = ()
    switched_on: frozenset[str] = frozenset()

    def cleared(self, columns: Iterable[ColumnKey]) -> Context:
        """Without any restriction of these columns."""
        gone = frozenset(columns)
        kept = tuple(one for one in self.filters if not one.columns <= gone and one.column not in gone)
        return replace(self, groups=self.groups - gone, filters=kept)

    def selected(self, columns: Iterable[ColumnKey]) -> Context:
        """As the reader's slicers left these columns: without the visual's own groups and inner filters."""
        gone = frozenset(columns)
        kept = tuple(one for one in self.filters if one.is_outer or not one.columns <= gone)
        return replace(self, groups=self.groups - gone, filters=kept)

    def restricted(self, *filters: Filter) -> Context:
        """With these filters as well."""
        return replace(self, filters=self.filters + filters)


@dataclass(frozen=True)
class Scalar:
    """SQL for one value a cell, the CTEs it reads, and its type: number, text, date, boolean or blank."""

    sql: str
    type: str
    reads: frozenset[str] = frozenset()
    constant: object = None


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A text as an SQL literal."""
    return "'" + value.replace("'", "''").replace(_MARK, "").replace("\0", "") + "'"


def placed(text: str, columns: Iterable[ColumnKey], sql: Callable[[ColumnKey], str]) -> str:
    """A condition with its marked columns written as SQL."""
    for key in columns:
        text = text.replace(key.marked, sql(key))
    return text
