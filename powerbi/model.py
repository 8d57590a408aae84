"""The semantic model as frozen dataclasses, read from TMDL nodes.

Here: tables, columns, measures, relationships, roles, parameters and where each is written. Not here: syntax (tmdl.py),
judgement (lint.py), evaluation (dax/).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from powerbi import tmdl
from powerbi.errors import ProjectError
from powerbi.texts import read_texts

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Where something is written."""

    file: str
    line: int


@dataclass(frozen=True)
class Column:
    """A column; `source_column` is the mart's name for it."""

    table: str
    name: str
    data_type: str
    source_column: str
    format_string: str
    is_hidden: bool
    is_key: bool
    sort_by: str | None
    summarize_by: str
    display_folder: str
    description: str
    lineage_tag: str | None
    is_date: bool  # a dateTime without a time of day
    place: Place


@dataclass(frozen=True)
class Measure:
    """A measure; `expression_line` is the line of its file on which the DAX begins."""

    table: str
    name: str
    expression: str
    expression_line: int
    format_string: str
    is_hidden: bool
    display_folder: str
    description: str
    lineage_tag: str | None
    place: Place


@dataclass(frozen=True)
class RefreshPolicy:
    """Incremental refresh: how long a window is kept, in which grain, and how much of it is read again."""

    rolling_window_granularity: str
    rolling_window_periods: int
    incremental_granularity: str
    incremental_periods: int
    source_expression: str
    place: Place


@dataclass(frozen=True)
class Partition:
    """A partition as written in the project: one M query."""

    name: str
    mode: str
    source: str
    place: Place


@dataclass(frozen=True)
class Table:
    """A table with all that belongs to it."""

    name: str
    columns: tuple[Column, ...]
    measures: tuple[Measure, ...]
    partitions: tuple[Partition, ...]
    refresh_policy: RefreshPolicy | None
    is_hidden: bool
    data_category: str | None
    description: str
    lineage_tag: str | None
    place: Place

    def column(self, name: str) -> Column | None:
        """The column of that name (names are case-insensitive in DAX)."""
        return next((column for column in self.columns if column.name.lower() == name.lower()), None)


@dataclass(frozen=True)
class Relationship:
    """Many rows of `from_table` belong to one row of `to_table`; filters flow from the one to the many."""

    name: str
    from_table: str
    from_column: str
    to_table: str
    to_column: str
    is_active: bool
    cross_filter: str
    place: Place


@dataclass(frozen=True)
class Role:
    """A role: a DAX filter on each of some tables."""

    name: str
    permission: str
    filters: dict[str, str]
    place: Place


@dataclass(frozen=True)
class Model:
    """The semantic model; `nodes` keeps the syntax trees for the lint."""

    tables: tuple[Table, ...]
    relationships: tuple[Relationship, ...]
    roles: tuple[Role, ...]
    expressions: dict[str, str]
    culture: str
    nodes: tuple[tmdl.Node, ...] = field(repr=False, default=())

    def table(self, name: str) -> Table | None:
        """The table of that name (case-insensitive)."""
        return next((table for table in self.tables if table.name.lower() == name.lower()), None)

    def measure(self, name: str) -> Measure | None:
        """The measure of that name; measure names are unique in a model."""
        wanted = name.lower()
        return next((m for table in self.tables for m in table.measures if m.name.lower() == wanted), None)

    @property
    def date_table(self) -> Table | None:
        """The table marked as the date table."""
        return next((table for table in self.tables if table.data_category == "Time"), None)


def read_model(folder: Path) -> Model:
    """Read a `<name>.SemanticModel` folder."""
    definition = folder / "definition"
    files = {f"definition/{path}": text for path, text in read_texts(definition, frozenset({".tmdl"})).items()}
    if not files:
        raise ProjectError(str(definition), 0, "no .tmdl files; is this a semantic model's folder?")
    return model_of(files)


def model_of(files: dict[str, str]) -> Model:
    """Build the model from TMDL texts keyed by path, as a definition upload carries them."""
    nodes = [node for file in sorted(files) if file.endswith(".tmdl") for node in tmdl.parse(files[file], file)]
    root = next((node for node in nodes if node.kind == "model" and not node.is_reference), None)
    tables = {node.name: _table(node) for node in nodes if node.kind == "table" and not node.is_reference}
    order = [node.name for node in nodes if node.kind == "table" and node.is_reference]
    names = [name for name in order if name in tables] + [name for name in tables if name not in order]
    return Model(
        tables=tuple(tables[name] for name in names),
        relationships=tuple(_relationship(node) for node in nodes if node.kind == "relationship"),
        roles=tuple(_role(node) for node in nodes if node.kind == "role" and not node.is_reference),
        expressions={node.name: node.value or "" for node in nodes if node.kind == "expression"},
        culture=(root.text("culture") if root else None) or "en-US",
        nodes=tuple(nodes),
    )


def _place(node: tmdl.Node) -> Place:
    return Place(node.file, node.line)


def _table(node: tmdl.Node) -> Table:
    policy = next(node.all("refreshPolicy"), None)
    return Table(
        name=node.name,
        columns=tuple(_column(node.name, child) for child in node.all("column")),
        measures=tuple(_measure(node.name, child) for child in node.all("measure")),
        partitions=tuple(_partition(child) for child in node.all("partition")),
        refresh_policy=_policy(policy) if policy else None,
        is_hidden=node.flag("isHidden"),
        data_category=node.text("dataCategory"),
        description=node.description,
        lineage_tag=node.text("lineageTag"),
        place=_place(node),
    )


def _column(table: str, node: tmdl.Node) -> Column:
    return Column(
        table=table,
        name=node.name,
        data_type=node.text("dataType") or "",
        source_column=(node.text("sourceColumn") or node.name).strip("[]"),
        format_string=node.text("formatString") or "",
        is_hidden=node.flag("isHidden"),
        is_key=node.flag("isKey"),
        sort_by=node.text("sortByColumn"),
        summarize_by=node.text("summarizeBy") or "default",
        display_folder=node.text("displayFolder") or "",
        description=node.description,
        lineage_tag=node.text("lineageTag"),
        is_date=any(a.name == "UnderlyingDateTimeDataType" and a.value == "Date" for a in node.all("annotation")),
        place=_place(node),
    )


def _measure(table: str, node: tmdl.Node) -> Measure:
    return Measure(
        table=table,
        name=node.name,
        expression=node.value or "",
        expression_line=node.value_line,
        format_string=node.text("formatString") or "",
        is_hidden=node.flag("isHidden"),
        display_folder=node.text("displayFolder") or "",
        description=node.description,
        lineage_tag=node.text("lineageTag"),
        place=_place(node),
    )


def _partition(node: tmdl.Node) -> Partition:
    return Partition(node.name, node.text("mode") or "import", node.text("source") or "", _place(node))


def _policy(node: tmdl.Node) -> RefreshPolicy:
    def number(name: str) -> int:
        text = node.text(name) or ""
        if not text.isdigit():
            raise ProjectError(node.file, node.line, f"refreshPolicy needs {name}, a whole number; found {text!r}")
        return int(text)

    return RefreshPolicy(
        rolling_window_granularity=node.text("rollingWindowGranularity") or "",
        rolling_window_periods=number("rollingWindowPeriods"),
        incremental_granularity=node.text("incrementalGranularity") or "",
        incremental_periods=number("incrementalPeriods"),
        source_expression=node.text("sourceExpression") or "",
        place=_place(node),
    )


def _relationship(node: tmdl.Node) -> Relationship:
    ends = []
    for side in ("fromColumn", "toColumn"):
        text = node.text(side) or ""
        table, column = split_column(text)
        if not column:
            raise ProjectError(node.file, node.line, f"{side} must be Table.column, found {text!r}")
        ends.append((table, column))
    return Relationship(
        name=node.name,
        from_table=ends[0][0],
        from_column=ends[0][1],
        to_table=ends[1][0],
        to_column=ends[1][1],
        is_active=node.text("isActive") != "false",
        cross_filter=node.text("crossFilteringBehavior") or "oneDirection",
        place=_place(node),
    )


def split_column(text: str) -> tuple[str, str]:
    """`'Data Trust'.day` -> ("Data Trust", "day")."""
    if text.startswith("'"):
        table, _, column = text[1:].partition("'.")
    else:
        table, _, column = text.partition(".")
    return table, column.strip("'")


def _role(node: tmdl.Node) -> Role:
    filters = {child.name: child.value or "" for child in node.all("tablePermission")}
    return Role(node.name, node.text("modelPermission") or "read", filters, _place(node))
