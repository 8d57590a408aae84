"""Checks of the semantic model's files: words, references, types, DAX, M.

Not here: the marts' promises (contracts.py), best practice (rules.py).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from powerbi.dax.query import VisualQuery
from powerbi.dax.translate import translate
from powerbi.errors import DaxError
from powerbi.lint.finding import Finding
from powerbi.lint.keywords import KNOWN, OBJECTS, ROOTS, VALUES
from powerbi.m import parameters_of, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from powerbi.model import Column, Measure, Model, Place, Table
    from powerbi.tmdl import Node

_M_WORDS = {
    "let",
    "in",
    "each",
    "and",
    "or",
    "not",
    "if",
    "then",
    "else",
    "true",
    "false",
    "null",
    "meta",
    "type",
    "as",
    "is",
    "try",
    "otherwise",
}
_M_NAME = re.compile(r'"(?:[^"]|"")*"|#"(?P<quoted>[^"]+)"|\[[^\[\]{}()]*\]|#\w+|(?P<word>[A-Za-z_][\w.]*)')
_M_STEP = re.compile(r'^\s*(?:#"(?P<quoted>[^"]+)"|(?P<word>[A-Za-z_]\w*))\s*=(?!=)', re.MULTILINE)
_M_LIBRARY = {
    "GoogleBigQuery",
    "Table",
    "Date",
    "DateTime",
    "DateTimeZone",
    "Text",
    "Number",
    "List",
    "Record",
    "Value",
}
_PAIRS = {")": "(", "]": "[", "}": "{"}


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
        yield from _queries(table, model)
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


# ---------------------------------------------------------------------- M


def _queries(table: Table, model: Model) -> Iterator[Finding]:
    if not table.partitions:
        yield Finding(
            table.place.file,
            table.place.line,
            "no-partition",
            f"table {table.name!r} has no partition",
            "Add one with its M query.",
        )
    texts = [(one.source, one.place) for one in table.partitions]
    policy = table.refresh_policy
    if policy is not None:
        texts.append((policy.source_expression, policy.place))
    for text, place in texts:
        yield from _query(text, place, model, table)
    if policy is None:
        return
    for text, place in texts:
        missing = [name for name in ("RangeStart", "RangeEnd") if name not in text]
        if missing:
            what = f"table {table.name!r} has a refreshPolicy, but its query does not use {' and '.join(missing)}"
            yield Finding(
                place.file, place.line, "no-range", what, "Filter a DATE column from RangeStart to before RangeEnd."
            )
    for name in ("RangeStart", "RangeEnd"):
        if name not in model.expressions:
            yield Finding(
                policy.place.file,
                policy.place.line,
                "no-range",
                f"the parameter {name} does not exist",
                "Add it to expressions.tmdl.",
            )


def _query(text: str, place: Place, model: Model, table: Table) -> Iterator[Finding]:
    file, line = place.file, place.line
    fault = _unbalanced(text)
    if fault:
        yield Finding(file, line, "m-syntax", f"M of table {table.name!r}: {fault}", "Correct the brackets.")
        return
    if text.strip().startswith("let") and not re.search(r"\bin\b", text):
        yield Finding(file, line, "m-syntax", f"M of table {table.name!r}: `let` without `in`", "Add the result.")
        return
    for name in sorted(_unknown_names(text, model)):
        yield Finding(
            file,
            line,
            "m-name",
            f"M of table {table.name!r} uses {name!r}, which is neither a step nor a parameter",
            "Correct the name.",
        )
    if source_of(text, parameters_of(model.expressions)) is None:
        yield Finding(
            file,
            line,
            "m-source",
            f"M of table {table.name!r} does not navigate project, schema, table",
            "See the other tables' queries.",
        )


def _unbalanced(text: str) -> str:
    stack: list[str] = []
    for character in re.sub(r'"(?:[^"]|"")*"', "", text):
        if character in "([{":
            stack.append(character)
        elif character in _PAIRS and (not stack or stack.pop() != _PAIRS[character]):
            return f"{character} closes nothing"
    return f"{stack[-1]} is never closed" if stack else ""


def _unknown_names(text: str, model: Model) -> set[str]:
    steps = {match["quoted"] or match["word"] for match in _M_STEP.finditer(text)}
    known = (
        steps
        | set(model.expressions)
        | _M_WORDS
        | {"Name", "Kind", "Data", "BillingProject", "UseStorageApi", "Implementation"}
    )
    found = set()
    for match in _M_NAME.finditer(_outside_records(text)):
        name = match["quoted"] or match["word"]
        if name and name not in known and name.split(".")[0] not in _M_LIBRARY:
            found.add(name)
    return found


def _outside_records(text: str) -> str:
    """Record fields are names of their own: of `[Name = X]` only X is looked at."""

    def values(match: re.Match[str]) -> str:
        return "(" + re.sub(r"\w+\s*=", "", match[1]) + ")"

    return re.sub(r"\[([^\[\]]*=[^\[\]]*)\]", values, text)


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
            yield Finding(
                own.place.file,
                line,
                "dax",
                f"measure [{own.name}], character {fault.position + 1}: {fault.what}",
                "Correct the DAX, or see docs/rooms/powerbi.md for the subset.",
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
