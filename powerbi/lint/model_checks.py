"""Checks of the semantic model's files: words, references, types, DAX.

Not here: M (m_checks.py), the marts' promises (contracts.py), best practice (rules.py).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from powerbi.dax.query import VisualQuery
from powerbi.dax.translate import FUNCTIONS, translate
from powerbi.errors import DaxError
from powerbi.lint.dax_functions import DAX_FUNCTIONS
from powerbi.lint.finding import Finding
from powerbi.lint.keywords import KNOWN, OBJECTS, ROOTS, VALUES
from powerbi.lint.m_checks import check_queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from powerbi.model import Column, Measure, Model, Place, Table
    from powerbi.tmdl import Node


def check_model(model: Model) -> Iterator[Finding]:
    """Everything that is wrong with a model that could be read."""
    for node in model.nodes:
        yield from _words(node, None)
    yield from _references(model)
    yield from _duplicates(model)
    yield from _lineage_tags(model)
    yield from _columns(model)
    yield from _relationships(model)
    for table in model.tables:
        yield from check_queries(table, model)
    yield from _measures(model)
    yield from _roles(model)


def _words(node: Node, parent: Node | None) -> Iterator[Finding]:
    if node.is_reference:
        return
    known = ROOTS if parent is None else KNOWN.get(parent.kind, set())
    word = node.name if node.is_property else node.kind
    where = f"under {parent.kind}" if parent else "at the top of a file"
    if word not in known:
        yield Finding(
            node.file,
            node.line,
            "unknown-word",
            f"{word!r} is not known {where}",
            f"Known there: {', '.join(sorted(known)) or 'nothing'}.",
        )
    elif parent is not None and node.is_property and word in OBJECTS and word != "source":
        yield Finding(
            node.file,
            node.line,
            "unknown-word",
            f"{word} is an object, written without a colon",
            f"Write `{word} Name`.",
        )
    allowed = VALUES.get((parent.kind, word)) if parent else None
    if allowed and node.value not in allowed:
        yield Finding(
            node.file, node.line, "unknown-value", f"{word} is {node.value!r}", f"One of {', '.join(sorted(allowed))}."
        )
    if node.kind in KNOWN or parent is None:
        for child in node.children:
            yield from _words(child, node)


def _references(model: Model) -> Iterator[Finding]:
    names = {
        "table": {table.name for table in model.tables},
        "role": {role.name for role in model.roles},
        "culture": {node.name for node in model.nodes if node.kind == "cultureInfo"},
        "expression": set(model.expressions),
    }
    seen: dict[str, set[str]] = {kind: set() for kind in names}
    for node in model.nodes:
        if not node.is_reference:
            continue
        seen.setdefault(node.kind, set()).add(node.name)
        if node.name not in names.get(node.kind, set()):
            yield Finding(
                node.file,
                node.line,
                "missing-ref",
                f"ref {node.kind} {node.name!r} names nothing that exists",
                "Correct the name or add the file.",
            )
    for table in model.tables:
        if table.name not in seen["table"]:
            yield Finding(
                table.place.file,
                table.place.line,
                "no-ref",
                f"table {table.name!r} has no `ref table` in model.tmdl",
                f"Add `ref table {table.name}`.",
            )
    for role in model.roles:
        if role.name not in seen["role"]:
            yield Finding(
                role.place.file,
                role.place.line,
                "no-ref",
                f"role {role.name!r} has no `ref role` in model.tmdl",
                f"Add `ref role {role.name}`.",
            )


def _duplicates(model: Model) -> Iterator[Finding]:
    for table in model.tables:
        names = [(column.name.lower(), column.place) for column in table.columns]
        names += [(measure.name.lower(), measure.place) for measure in table.measures]
        yield from _twice(names, f"in table {table.name!r}")
    yield from _twice(
        [(m.name.lower(), m.place) for table in model.tables for m in table.measures], "among the measures"
    )
    yield from _twice([(table.name.lower(), table.place) for table in model.tables], "among the tables")


def _twice(names: list[tuple[str, Place]], where: str) -> Iterator[Finding]:
    counted = Counter(name for name, _ in names)
    last = {name: place for name, place in names if counted[name] > 1}
    for name, place in last.items():
        yield Finding(
            place.file, place.line, "duplicate-name", f"the name {name!r} is used twice {where}", "Rename one of them."
        )


def _lineage_tags(model: Model) -> Iterator[Finding]:
    objects: list[Table | Column | Measure] = []
    for table in model.tables:
        objects += [table, *table.columns, *table.measures]
    tagged = [(one.lineage_tag, one.place) for one in objects]
    first: dict[str, object] = {}
    for tag, place in tagged:
        if tag is None:
            yield Finding(
                place.file,
                place.line,
                "no-lineage-tag",
                "the object has no lineageTag",
                "Run `powerbi tidy`.",
                "warning",
            )
        elif tag in first:
            yield Finding(
                place.file,
                place.line,
                "duplicate-tag",
                f"lineageTag {tag} is used twice",
                "Delete it and run `powerbi tidy`.",
            )
        else:
            first[tag] = place


def _columns(model: Model) -> Iterator[Finding]:
    for table in model.tables:
        for column in table.columns:
            place = column.place
            if column.sort_by is not None and table.column(column.sort_by) is None:
                yield Finding(
                    place.file,
                    place.line,
                    "unknown-column",
                    f"sortByColumn names {column.sort_by!r}, which is no column of {table.name!r}",
                    "Correct the name.",
                )
            if not column.data_type:
                yield Finding(place.file, place.line, "no-type", f"column {column.name!r} has no dataType", "Add it.")


def _relationships(model: Model) -> Iterator[Finding]:
    for one in model.relationships:
        ends = []
        for side, table_name, column_name in (
            ("from", one.from_table, one.from_column),
            ("to", one.to_table, one.to_column),
        ):
            table = model.table(table_name)
            column = table.column(column_name) if table else None
            if column is None:
                yield Finding(
                    one.place.file,
                    one.place.line,
                    "unknown-column",
                    f"{side}Column names {table_name}.{column_name}, which does not exist",
                    "Correct the name.",
                )
            else:
                ends.append(column)
        if len(ends) == 2 and ends[0].data_type != ends[1].data_type:  # noqa: PLR2004 - the number says itself
            what = (
                f"{one.from_table}.{one.from_column} is {ends[0].data_type},"
                f" {one.to_table}.{one.to_column} is {ends[1].data_type}"
            )
            yield Finding(one.place.file, one.place.line, "key-type", what, "Key types are equal on both sides.")
        if len(ends) == 2 and not ends[1].is_key:  # noqa: PLR2004 - the number says itself
            yield Finding(
                ends[1].place.file,
                ends[1].place.line,
                "no-key",
                f"{one.to_table}.{one.to_column} is the one side of a relationship but not isKey",
                "Add isKey.",
                "warning",
            )


# ---------------------------------------------------------------------- DAX


def _measures(model: Model) -> Iterator[Finding]:
    for table in model.tables:
        for measure in table.measures:
            fault = _dax_fault(model, measure)
            if fault is None:
                continue
            own = next((m for t in model.tables for m in t.measures if f"measure [{m.name}]" == fault.where), measure)
            if own.name != measure.name:
                continue  # it is told where it is written, not wherever it is used
            line = own.expression_line + own.expression[: fault.position].count("\n")
            called = re.match(r"[A-Za-z.]+", own.expression[fault.position :])
            is_beyond = called is not None and called[0].upper() in DAX_FUNCTIONS - FUNCTIONS
            yield Finding(
                own.place.file,
                line,
                "dax",
                f"measure [{own.name}], character {fault.position + 1}: {fault.what}",
                "Power BI knows the function, the preview does not: it says so on the visual's place."
                if is_beyond
                else "Correct the DAX, or see docs/rooms/powerbi.md for the subset.",
                "warning" if is_beyond else "error",
            )


def _dax_fault(model: Model, measure: Measure) -> DaxError | None:
    try:
        translate(model, VisualQuery((), ((measure.name, f"[{measure.name}]"),)))
    except DaxError as error:
        return error
    return None


def _roles(model: Model) -> Iterator[Finding]:
    for role in model.roles:
        for table, text in role.filters.items():
            if model.table(table) is None:
                yield Finding(
                    role.place.file,
                    role.place.line,
                    "unknown-table",
                    f"role {role.name!r} filters {table!r}, which does not exist",
                    "Correct the name.",
                )
                continue
            try:
                translate(model, VisualQuery((), ()), security={table: text})
            except DaxError as error:
                yield Finding(
                    role.place.file,
                    role.place.line,
                    "dax",
                    f"role {role.name!r}, table {table!r}: {error.what}",
                    "Correct the filter.",
                )
