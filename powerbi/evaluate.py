"""A visual's fields -> rows, by one DuckDB statement over the imported copy.

Here: what a visual asks of the model, and the answer with labels and formats. Not here: SQL (dax/translate.py),
drawing (render/).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from powerbi.dax.context import ColumnKey
from powerbi.dax.query import Having, Selection, TopN, VisualQuery
from powerbi.dax.translate import translate
from powerbi.errors import DaxError, DaxRefusedError
from powerbi.formats import format_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from powerbi.model import Model
    from powerbi.pbir import Field, FieldFilter, Visual


class Connection(Protocol):
    """What is needed of a DuckDB connection."""

    def execute(self, query: str) -> Any:
        """Run a statement; the result has fetchall()."""


@dataclass(frozen=True)
class Heading:
    """A column of a visual's answer."""

    field: Field
    format_string: str
    is_number: bool


@dataclass(frozen=True)
class Answer:
    """What a visual shows: one row a cell, groups first; `totals` are the measures without any group."""

    groups: tuple[Heading, ...]
    measures: tuple[Heading, ...]
    rows: tuple[tuple[object, ...], ...]
    totals: tuple[object, ...]

    @property
    def headings(self) -> tuple[Heading, ...]:
        """Groups, then measures: the columns of `rows`."""
        return self.groups + self.measures


@dataclass(frozen=True)
class Scope:
    """Under what a report is read: the reader's selections and role, and what the copy is like."""

    selections: tuple[Selection, ...] = ()
    security: Mapping[str, str] | None = None
    user: str = ""
    blank_members: frozenset[str] = frozenset()


WITH_TOTALS = {"tableEx", "pivotTable"}


def answer(
    visual: Visual, model: Model, connection: Connection, scope: Scope, *, page_filters: Sequence[FieldFilter] = ()
) -> Answer:
    """Evaluate a visual.

    Raises:
        DaxError: a field does not exist or a measure lies outside the subset.
    """
    groups = [one for one in visual.fields if one.kind == "Column"]
    measures = [one for one in visual.fields if one.kind == "Measure"]
    if visual.type == "pivotTable" and visual.roles.get("Columns") and measures:
        return _matrix(visual, measures, model, connection, scope, page_filters)
    headings = [_heading(one, model) for one in (*groups, *measures)]
    query = _query(visual, groups, measures, scope, page_filters)
    rows = _run(query, model, connection, scope)
    totals: tuple[object, ...] = ()
    if visual.type in WITH_TOTALS and measures:
        total = VisualQuery((), query.measures, query.selections, query.top)
        totals = _run(total, model, connection, scope)[0]
    return Answer(tuple(headings[: len(groups)]), tuple(headings[len(groups) :]), tuple(rows), totals)


def _matrix(  # noqa: PLR0917 - one call shape
    visual: Visual,
    measures: list[Field],
    model: Model,
    connection: Connection,
    scope: Scope,
    page_filters: Sequence[FieldFilter],
) -> Answer:
    """A matrix: its column fields' members side by side, each with every measure, then the rows' totals."""
    down, across = list(visual.roles.get("Rows", ())), list(visual.roles["Columns"])

    def asked(groups: list[Field]) -> dict[tuple[object, ...], tuple[object, ...]]:
        query = _query(visual, groups, measures, scope, page_filters)
        query = replace(query, order_by=() if groups == across else query.order_by)
        rows = _run(query, model, connection, scope)
        return {row[: len(groups)]: row[len(groups) :] for row in rows}

    cells, by_row, by_column, total = asked(down + across), asked(down), asked(across), asked([])
    blank = (None,) * len(measures)
    labels = [_heading(one, model) for one in across]
    names = [
        " ".join(format_value(v, h.format_string) or "(Blank)" for v, h in zip(member, labels, strict=True))
        for member in by_column
    ]
    headings = [
        replace(heading, field=replace(one, label=f"{name} {one.label}" if len(measures) > 1 else name))
        for name in [*names, "Total"]
        for one, heading in ((one, _heading(one, model)) for one in measures)
    ]
    rows = [
        (*member, *(value for other in by_column for value in cells.get((*member, *other), blank)), *totals)
        for member, totals in by_row.items()
    ]
    bottom = [value for values in by_column.values() for value in values]
    return Answer(
        tuple(_heading(one, model) for one in down),
        tuple(headings),
        tuple(rows),
        (*bottom, *total.get((), blank)),
    )


def answer_cards(
    visuals: Sequence[Visual],
    model: Model,
    connection: Connection,
    scope: Scope,
    *,
    page_filters: Sequence[FieldFilter] = (),
) -> dict[str, Answer]:
    """The page's visuals that have neither groups nor filters of their own, by one statement, by name.

    A measure that cannot be translated leaves all of them out: each then says for itself what is wrong.
    """
    cards = [
        one
        for one in visuals
        if one.fields
        and not one.filters
        and one.type not in WITH_TOTALS
        and all(f.kind == "Measure" for f in one.fields)
    ]
    fields = list({field.name: field for one in cards for field in one.fields}.values())
    if not fields:
        return {}
    try:
        query = replace(_query(cards[0], [], fields, scope, page_filters), order_by=())
        row = _run(query, model, connection, scope)[0]
        values = dict(zip((field.name for field in fields), row, strict=True))
        return {
            one.name: Answer(
                (),
                tuple(_heading(field, model) for field in one.fields),
                (tuple(values[field.name] for field in one.fields),),
                (),
            )
            for one in cards
        }
    except DaxError:
        return {}


def _query(
    visual: Visual, groups: list[Field], measures: list[Field], scope: Scope, page_filters: Sequence[FieldFilter]
) -> VisualQuery:
    listed = [one for one in (*visual.filters, *page_filters) if one.type != "TopN" and one.values]
    selections = [*scope.selections, *(Selection(_key(one.field), one.values) for one in listed)]
    top = next((one for one in visual.filters if one.type == "TopN"), None)
    return VisualQuery(
        groups=tuple(_key(one) for one in groups),
        measures=tuple((one.name, f"[{one.name}]") for one in measures),
        selections=tuple(selections),
        top=TopN(_key(top.field), top.count, top.by.name) if top is not None and top.by is not None else None,
        having=tuple(Having(one.field.name, one.operator, one.operand) for one in visual.filters if one.operator),
        order_by=tuple(
            (one.name if one.kind == "Measure" else f"{one.table}.{one.name}", down) for one, down in visual.sort
        ),
    )


def _run(query: VisualQuery, model: Model, connection: Connection, scope: Scope) -> list[tuple[object, ...]]:
    statement = translate(model, query, security=scope.security, user=scope.user, blank_members=scope.blank_members)
    width = len(statement.groups) + len(statement.measures)
    return [tuple(row[:width]) for row in connection.execute(statement.sql).fetchall()]


def _key(one: Field) -> ColumnKey:
    return ColumnKey(one.table, one.name)


def _heading(one: Field, model: Model) -> Heading:
    if one.kind == "Measure":
        measure = model.measure(one.name)
        if measure is None:
            raise DaxRefusedError(f"measure [{one.name}] does not exist", where="visual")
        return Heading(one, measure.format_string, is_number=True)
    table = model.table(one.table)
    column = table.column(one.name) if table else None
    if column is None:
        raise DaxRefusedError(f"column '{one.table}'[{one.name}] does not exist", where="visual")
    return Heading(one, column.format_string, is_number=column.data_type in ("int64", "double", "decimal"))
