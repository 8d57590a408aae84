"""Which measures and visuals show which columns of the warehouse. This is a door of the room.

Belongs here: pure questions about a model that was read. Does not: DAX semantics (dax/), the warehouse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from powerbi.model import read_model
from powerbi.pbir import read_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from powerbi.model import Model
    from powerbi.pbir import Field, Visual

_TABLE = re.compile(r'\[Name = "(\w+)", Kind = "(?:Table|View)"\]')
_COLUMN = re.compile(r"(?:'([^']+)'|\b(\w+))\s*\[([^\]]+)\]")
_MEASURE = re.compile(r"(?<![\w'\]])\[([^\]]+)\]")
_COUNTED = re.compile(r"COUNTROWS\s*\(\s*(?:'([^']+)'|(\w+))\s*\)", re.IGNORECASE)


@dataclass(frozen=True)
class MeasureLineage:
    """One measure: the warehouse columns it is made of, through other measures too.

    `columns` are (table, column); a measure that counts rows of a table names it with the column "*".
    """

    name: str
    expression: str
    description: str
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class VisualLineage:
    """One visual, `page/visual`: the warehouse columns of its fields, filters and order, through measures too."""

    name: str
    columns: tuple[tuple[str, str], ...]


def visual_lineage(model_dir: Path, report_dir: Path) -> list[VisualLineage]:
    """Every visual of a report's folder that shows something of the warehouse, page by page."""
    model = read_model(model_dir)
    sources = _warehouse_tables(model)
    measures = {each.name: each.columns for each in measure_lineage(model_dir)}
    columns = {(table.name, column.name): column.source_column for table in model.tables for column in table.columns}
    found = []
    for page in read_report(report_dir).pages:
        for visual in page.visuals:
            shown: set[tuple[str, str]] = set()
            for field in _fields(visual):
                if (field.table, field.name) not in columns and field.name in measures:
                    shown |= set(measures[field.name])
                elif field.table in sources:
                    shown.add((sources[field.table], columns.get((field.table, field.name)) or field.name))
            if shown:
                found.append(VisualLineage(f"{page.name}/{visual.name}", tuple(sorted(shown))))
    return found


def _fields(visual: Visual) -> Iterator[Field]:
    yield from visual.fields
    for each in visual.filters:
        yield each.field
        if each.by is not None:
            yield each.by
    for field, _ascending in visual.sort:
        yield field


def measure_lineage(model_dir: Path) -> list[MeasureLineage]:
    """Every measure of a semantic model's folder, in its order."""
    model = read_model(model_dir)
    sources = _warehouse_tables(model)
    measures = {measure.name: measure for table in model.tables for measure in table.measures}
    return [
        MeasureLineage(
            name=measure.name,
            expression=" ".join(measure.expression.split()),
            description=measure.description,
            columns=tuple(sorted(_columns(measure.name, model, sources, frozenset()))),
        )
        for measure in measures.values()
    ]


def _warehouse_tables(model: Model) -> dict[str, str]:
    """Name in the model -> name in the warehouse, by what its source navigates to."""
    found = {}
    for table in model.tables:
        sources = [partition.source for partition in table.partitions]
        if table.refresh_policy is not None:
            sources.append(table.refresh_policy.source_expression)
        for source in sources:
            named = _TABLE.findall(source)
            if named:
                found[table.name] = f"mart.{named[-1]}"
    return found


def _columns(name: str, model: Model, sources: dict[str, str], above: frozenset[str]) -> set[tuple[str, str]]:
    measures = {measure.name: measure for table in model.tables for measure in table.measures}
    fields = {(table.name, column.name): column.source_column for table in model.tables for column in table.columns}
    text = measures[name].expression
    found = {
        (sources[quoted or bare], fields.get((quoted or bare, column)) or column)
        for quoted, bare, column in _COLUMN.findall(text)
        if (quoted or bare) in sources
    }
    found |= {(sources[quoted or bare], "*") for quoted, bare in _COUNTED.findall(text) if (quoted or bare) in sources}
    for other in _MEASURE.findall(text):
        if other in measures and other not in above and other != name:
            found |= _columns(other, model, sources, above | {name})
    return found
