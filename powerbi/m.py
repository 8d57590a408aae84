"""Power Query M, as far as the project uses it: what a query reads, and by which column it is cut into partitions.

Here: reading those facts from the text, and checking its brackets and names. Not here: evaluating M.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAVIGATION = re.compile(
    r"\{\[\s*Name\s*=\s*(?P<name>\"[^\"]*\"|\w+)\s*(?:,\s*Kind\s*=\s*\"(?P<kind>\w+)\"\s*)?\]\}\s*\[Data\]"
)
_RANGE = re.compile(
    r"Table\.SelectRows\(.*?\[(?P<column>\w+)\]\s*>=\s*(?:Date\.From\(\s*)?RangeStart\s*\)?\s*and\s*"
    r"\[(?P=column)\]\s*<\s*(?:Date\.From\(\s*)?RangeEnd\s*\)?\s*\)",
    re.DOTALL,
)
_CUT = re.compile(
    r"Table\.SelectRows\(\s*(?P<rows>#\"[^\"]*\"|\w+)\s*,\s*each\s[^\n]*?RangeStart[^\n]*?RangeEnd\s*\)?\s*\)"
)
_PARAMETER = re.compile(r"^\s*(?P<value>\"(?:[^\"]|\"\")*\"|#datetime\([^)]*\)|[^\s]+)\s+meta\s*\[", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """What an M query reads: names or parameters of project and dataset, the table, and the range's column."""

    project: str
    dataset: str
    table: str
    range_column: str | None


def source_of(text: str, parameters: dict[str, str]) -> Source | None:
    """What a BigQuery query reads; None where its navigation is not project, schema, table.

    Args:
        text: the M query.
        parameters: values of the model's parameters, which stand for project and dataset.
    """
    names = [match["name"] for match in _NAVIGATION.finditer(text)]
    if len(names) != 3:  # noqa: PLR2004 - the number says itself
        return None
    values = [name[1:-1] if name.startswith('"') else parameters.get(name, "") for name in names]
    cut = _RANGE.search(text)
    return Source(values[0], values[1], values[2], cut["column"] if cut else None)


def without_range(text: str) -> str:
    """The text with every step that cuts rows by RangeStart and RangeEnd made one that takes all of them."""
    return _CUT.sub(lambda match: match["rows"], text)


def parameter_value(expression: str) -> str | None:
    """The value of a parameter query (`"text" meta [...]`), as text; None for any other query."""
    match = _PARAMETER.match(expression)
    if match is None:
        return None
    value = match["value"]
    return value[1:-1].replace('""', '"') if value.startswith('"') else value


def parameters_of(expressions: dict[str, str]) -> dict[str, str]:
    """Values of all parameters among a model's expressions."""
    values = {name: parameter_value(text) for name, text in expressions.items()}
    return {name: value for name, value in values.items() if value is not None}
