"""What a visual asks, and the statement that answers it: data classes only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from powerbi.dax.context import ColumnKey
    from powerbi.dax.syntax import Expr


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
