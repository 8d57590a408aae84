"""Checks of the M queries: brackets, names, what they read, and their cut by RangeStart and RangeEnd.

Not here: evaluating M, or reading facts from it (powerbi/m.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from powerbi.lint.finding import Finding
from powerbi.m import parameters_of, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from powerbi.model import Model, Place, Table

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


def check_queries(table: Table, model: Model) -> Iterator[Finding]:
    """What is wrong with a table's queries, and with how they are cut into refresh partitions."""
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
    yield from _ranges(table, model, texts)


def _ranges(table: Table, model: Model, texts: list[tuple[str, Place]]) -> Iterator[Finding]:
    policy = table.refresh_policy
    if policy is None:
        for text, place in texts:
            if "RangeStart" in text or "RangeEnd" in text:
                yield Finding(
                    place.file,
                    place.line,
                    "range-without-policy",
                    f"table {table.name!r} is cut by RangeStart and RangeEnd, but has no refreshPolicy",
                    "Add a refreshPolicy: without one only the parameters' own period is ever read.",
                )
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
