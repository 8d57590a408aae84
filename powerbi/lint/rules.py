"""Best-practice rules that matter for this model, as data: id, severity, what they look at, condition, what to do.

Ported by meaning from the published best-practice rules for semantic models; each id keeps its published name in lower
case. Not here: what makes a model wrong (model_checks.py).
"""

# ruff: noqa: E501 - one rule, or one breakage, a line

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from powerbi.lint.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from powerbi.model import Column, Measure, Model, Relationship, Table


@dataclass(frozen=True)
class Rule:
    """A rule: `broken_by` tells whether an object of the scope breaks it."""

    id: str
    severity: Severity
    scope: str
    broken_by: Callable[[Any, Model], bool]
    what: str
    remedy: str


def _is_foreign_key(column: Column, model: Model) -> bool:
    return any((r.from_table, r.from_column) == (column.table, column.name) for r in model.relationships)


def _in_relationship(column: Column, model: Model) -> bool:
    return _is_foreign_key(column, model) or any(
        (r.to_table, r.to_column) == (column.table, column.name) for r in model.relationships
    )


def _unqualified_column(measure: Measure, model: Model) -> bool:
    """`[x]` without a table where x is a column of the measure's own table and no measure."""
    text = _code(measure.expression)
    names = re.findall(r"(?<![\w'])\[([^\]]+)\]", text)
    return any(model.measure(name) is None for name in names)


def _qualified_measure(measure: Measure, model: Model) -> bool:
    names = re.findall(r"(?:\w|')\[([^\]]+)\]", _code(measure.expression))
    return any(model.measure(name) is not None for name in names)


def _divides(measure: Measure, _: Model) -> bool:
    return bool(re.search(r"[\])]\s*/(?![/*])", _code(measure.expression)))


def _code(expression: str) -> str:
    """DAX without comments and texts."""
    return re.sub(r'"(?:[^"]|"")*"|//[^\n]*|--[^\n]*|/\*.*?\*/', "", expression, flags=re.DOTALL)


def _never_activated(relationship: Relationship, model: Model) -> bool:
    text = " ".join(m.expression for t in model.tables for m in t.measures)
    return not relationship.is_active and not re.search(
        rf"USERELATIONSHIP\s*\(.*{re.escape(relationship.from_column)}", text, re.IGNORECASE | re.DOTALL
    )


def _no_date_table(model: Model, _: Model) -> bool:
    table = model.date_table
    return table is None or not any(c.is_key and c.data_type == "dateTime" for c in table.columns)


def _snowflake(table: Table, model: Model) -> bool:
    return any(r.from_table == table.name for r in model.relationships) and any(
        r.to_table == table.name for r in model.relationships
    )


RULES: tuple[Rule, ...] = (
    Rule("avoid_floating_point_data_types", "warning", "column", lambda c, _: c.data_type == "double", "the column is a double", "Use decimal for money, int64 for counts."),
    Rule("isavailableinmdx_false_nonattribute_columns", "warning", "hidden column", lambda c, m: _is_in_mdx(c, m), "the hidden column is available in MDX", "Add isAvailableInMdx: false."),  # noqa: PLW0108 - defined further down
    Rule("snowflake_schema_architecture", "warning", "table", _snowflake, "the table is on both sides of relationships", "Flatten it into a star."),
    Rule("model_should_have_a_date_table", "error", "model", _no_date_table, "no table is marked as the date table", "Set dataCategory: Time and isKey on its date."),
    Rule("bi_directional_relationships", "error", "relationship", lambda r, _: r.cross_filter == "bothDirections", "the relationship filters in both directions", "Filter in one direction."),
    Rule("inactive_relationships_that_are_never_activated", "warning", "relationship", _never_activated, "no measure activates the relationship", "Delete it or use USERELATIONSHIP."),
    Rule("dax_columns_fully_qualified", "error", "measure", _unqualified_column, "a column is written without its table", "Write Table[column]."),
    Rule("dax_measures_unqualified", "error", "measure", _qualified_measure, "a measure is written with a table", "Write [measure]."),
    Rule("use_the_divide_function_for_division", "error", "measure", _divides, "division by /", "Use DIVIDE."),
    Rule("avoid_using_the_iferror_function", "warning", "measure", lambda m, _: "IFERROR" in m.expression.upper(), "IFERROR is slow", "Use DIVIDE or test beforehand."),
    Rule("measures_should_not_be_direct_references", "warning", "measure", lambda m, _: bool(re.fullmatch(r"\s*\[[^\]]+\]\s*", m.expression)), "the measure only repeats another", "Use the other one."),
    Rule("expression_reliant_objects_must_have_an_expression", "error", "measure", lambda m, _: not m.expression.strip(), "the measure has no expression", "Add it."),
    Rule("provide_format_string_for_measures", "error", "measure", lambda m, _: not m.is_hidden and not m.format_string, "the measure has no format", "Add formatString."),
    Rule("measures_in_display_folders", "warning", "measure", lambda m, _: not m.is_hidden and not m.display_folder, "the measure is in no folder", "Add displayFolder."),
    Rule("numeric_column_summarize_by", "error", "column", lambda c, _: c.data_type in ("int64", "decimal", "double") and c.summarize_by != "none", "the number is summarized by itself", "Set summarizeBy: none and write a measure."),
    Rule("hide_foreign_keys", "error", "column", lambda c, m: _is_foreign_key(c, m) and not c.is_hidden, "the foreign key is shown", "Add isHidden."),
    Rule("no_float_keys", "error", "column", lambda c, m: _in_relationship(c, m) and c.data_type in ("double", "decimal"), "a key is not a whole number, text or date", "Change its type."),
    Rule("month_as_a_string_must_be_sorted", "error", "column", lambda c, _: "month" in c.name.lower() and c.data_type == "string" and not c.sort_by, "month names sort by alphabet", "Add sortByColumn."),
    Rule("objects_with_no_description", "error", "described", lambda o, _: not o.description.strip(), "the object has no description", "Add /// above it."),
    Rule("trim_object_names", "error", "described", lambda o, _: o.name != o.name.strip(), "the name begins or ends with a space", "Trim it."),
    Rule("ensure_tables_have_relationships", "warning", "table", lambda t, m: not any(t.name in (r.from_table, r.to_table) for r in m.relationships), "the table has no relationship", "Relate it or delete it."),
    Rule("partition_name_should_match_table_name", "warning", "table", lambda t, _: len(t.partitions) == 1 and t.partitions[0].name != t.name, "the only partition is named otherwise than its table", "Name them alike."),
    Rule("date_calendar_tables_should_be_marked", "error", "table", lambda t, _: "calendar" in t.name.lower() and t.data_category != "Time", "the calendar is not marked as date table", "Set dataCategory: Time."),
)  # fmt: skip


def _is_in_mdx(column: Column, model: Model) -> bool:
    table = model.table(column.table)
    sorts = table is not None and any(other.sort_by == column.name for other in table.columns)
    return not sorts and not any(
        child.name == "isAvailableInMdx" and child.value == "false" for child in _node(column, model)
    )


def _node(column: Column, model: Model) -> list[Any]:
    for node in model.nodes:
        for child in node.children:
            if child.kind == "column" and (child.file, child.line) == (column.place.file, column.place.line):
                return child.children
    return []


def check_rules(model: Model) -> Iterator[Finding]:
    """Every rule on every object of its scope."""
    columns = [column for table in model.tables for column in table.columns]
    measures = [measure for table in model.tables for measure in table.measures]
    scopes: dict[str, list[Any]] = {
        "model": [model],
        "table": list(model.tables),
        "column": columns,
        "hidden column": [column for column in columns if column.is_hidden],
        "measure": measures,
        "relationship": list(model.relationships),
        "described": [*model.tables, *columns, *measures],
    }
    for rule in RULES:
        for one in scopes[rule.scope]:
            if rule.broken_by(one, model):
                name = getattr(one, "name", "the model")
                place = getattr(one, "place", None)
                file, line = (place.file, place.line) if place else ("definition/model.tmdl", 1)
                yield Finding(file, line, rule.id, f"{name}: {rule.what}", rule.remedy, rule.severity)
