"""A report's PBIR files as frozen dataclasses.

Here: pages, visuals, their places, fields, titles, filters and order. Not here: what a field is worth (evaluate.py),
how it looks (render/), whether it makes sense (lint.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from powerbi.errors import PbirError
from powerbi.texts import read_texts

if TYPE_CHECKING:
    from pathlib import Path

Json = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """A field of a visual: a measure or a column by its model names, and the label to show."""

    kind: str
    table: str
    name: str
    label: str
    query_ref: str


@dataclass(frozen=True)
class FieldFilter:
    """A filter of a visual or page: TopN by a measure, listed values, or a measure compared with a number."""

    field: Field
    type: str
    count: int = 0
    by: Field | None = None
    values: tuple[object, ...] = ()
    operator: str = ""  # of a comparison of a measure with `operand`
    operand: str = ""


_COMPARISONS = {0: "=", 1: ">", 2: ">=", 3: "<", 4: "<="}


@dataclass(frozen=True)
class Visual:
    """A visual: its type, its place in the page, its fields by role."""

    name: str
    type: str
    x: float
    y: float
    z: float
    width: float
    height: float
    roles: dict[str, tuple[Field, ...]]
    filters: tuple[FieldFilter, ...]
    sort: tuple[tuple[Field, bool], ...]
    objects: Json = field(repr=False)
    container: Json = field(repr=False)
    file: str = ""

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every field, in the order of the roles."""
        return tuple(one for fields in self.roles.values() for one in fields)

    def setting(self, group: str, name: str) -> object:
        """A formatting property: from the visual's objects, else from its container's."""
        for source in (self.objects, self.container):
            for entry in source.get(group, []):
                if name in entry.get("properties", {}):
                    return literal_value(entry["properties"][name])
        return None


@dataclass(frozen=True)
class Page:
    """A page with its visuals, lowest first."""

    name: str
    title: str
    width: float
    height: float
    visuals: tuple[Visual, ...]
    filters: tuple[FieldFilter, ...]
    file: str


@dataclass(frozen=True)
class Report:
    """A report: pages in order, and its theme."""

    pages: tuple[Page, ...]
    theme: Json = field(repr=False)

    def page(self, name: str) -> Page | None:
        """The page of that name."""
        return next((page for page in self.pages if page.name == name), None)


def read_report(folder: Path) -> Report:
    """Read a `<name>.Report` folder."""
    return report_of(read_texts(folder, frozenset({".json"})))


def report_of(files: dict[str, str]) -> Report:
    """Build the report from texts keyed by path, as a definition upload carries them."""
    order = _load(files, "definition/pages/pages.json").get("pageOrder", [])
    names = {
        path.split("/")[2] for path in files if path.startswith("definition/pages/") and path.endswith("/page.json")
    }
    for name in order:
        if name not in names:
            raise PbirError("definition/pages/pages.json", 1, f"pageOrder names {name!r}, which has no page.json")
    listed = [*order, *sorted(names - set(order))]
    return Report(tuple(_page(files, name) for name in listed), _theme(files))


def _load(files: dict[str, str], path: str) -> Json:
    try:
        loaded = json.loads(files[path])
    except KeyError:
        raise PbirError(path, 0, "the file is missing") from None
    except json.JSONDecodeError as error:
        raise PbirError(path, error.lineno, f"not JSON: {error.msg}") from None
    if not isinstance(loaded, dict):
        raise PbirError(path, 1, "expected a JSON object")
    return loaded


def _theme(files: dict[str, str]) -> Json:
    report = _load(files, "definition/report.json")
    custom = report.get("themeCollection", {}).get("customTheme", {}).get("name")
    path = f"StaticResources/RegisteredResources/{custom}"
    return _load(files, path) if custom and path in files else {}


def _page(files: dict[str, str], name: str) -> Page:
    path = f"definition/pages/{name}/page.json"
    page = _load(files, path)
    prefix = f"definition/pages/{name}/visuals/"
    visuals = [_visual(files, p) for p in files if p.startswith(prefix) and p.endswith("/visual.json")]
    return Page(
        name=page.get("name", name),
        title=page.get("displayName", name),
        width=float(page.get("width", 1280)),
        height=float(page.get("height", 720)),
        visuals=tuple(sorted(visuals, key=lambda one: (one.z, one.name))),
        filters=_filters(page, path),
        file=path,
    )


def _visual(files: dict[str, str], path: str) -> Visual:
    container = _load(files, path)
    place, visual = container.get("position"), container.get("visual")
    if not isinstance(place, dict) or not isinstance(visual, dict):
        raise PbirError(path, 1, "a visual needs `position` and `visual`")
    query = visual.get("query", {})
    roles = {
        role: tuple(_projection(one, path) for one in state.get("projections", []))
        for role, state in query.get("queryState", {}).items()
    }
    sort = tuple(
        (_field(one["field"], path), one.get("direction") == "Descending")
        for one in query.get("sortDefinition", {}).get("sort", [])
    )
    return Visual(
        name=container.get("name", ""),
        type=visual.get("visualType", ""),
        x=float(place.get("x", 0)),
        y=float(place.get("y", 0)),
        z=float(place.get("z", 0)),
        width=float(place.get("width", 0)),
        height=float(place.get("height", 0)),
        roles=roles,
        filters=_filters(container, path),
        sort=sort,
        objects=visual.get("objects", {}),
        container=visual.get("visualContainerObjects", {}),
        file=path,
    )


def _projection(projection: Json, path: str) -> Field:
    found = _field(projection.get("field", {}), path)
    label = projection.get("displayName") or projection.get("nativeQueryRef") or found.name
    return Field(found.kind, found.table, found.name, label, projection.get("queryRef", found.query_ref))


def _field(expression: Json, path: str, sources: dict[str, str] | None = None) -> Field:
    for kind in ("Measure", "Column"):
        if kind in expression:
            body = expression[kind]
            source = body.get("Expression", {}).get("SourceRef", {})
            table = source.get("Entity") or (sources or {}).get(source.get("Source", ""), "")
            name = body.get("Property", "")
            return Field(kind, table, name, name, f"{table}.{name}")
    raise PbirError(path, 1, f"a field must be a Measure or a Column, found {', '.join(expression) or 'nothing'}")


def _filters(container: Json, path: str) -> tuple[FieldFilter, ...]:
    found = []
    for one in container.get("filterConfig", {}).get("filters", []):
        target = _field(one.get("field", {}), path)
        if one.get("type") == "TopN":
            found.append(_top_filter(one, target, path))
        elif target.kind == "Measure" and one.get("filter"):
            found.append(_comparison_filter(one, target, path))
        elif one.get("filter"):
            found.append(FieldFilter(target, one.get("type", ""), values=_listed(one["filter"])))
    return tuple(found)


def _top_filter(one: Json, target: Field, path: str) -> FieldFilter:
    query = next((s["Expression"]["Subquery"]["Query"] for s in one["filter"]["From"] if "Expression" in s), None)
    if query is None:
        raise PbirError(path, 1, "a TopN filter needs a subquery")
    sources = {source["Name"]: source["Entity"] for source in query["From"]}
    by = _field(query["OrderBy"][0]["Expression"], path, sources)
    return FieldFilter(target, "TopN", count=int(query["Top"]), by=by)


def _comparison_filter(one: Json, target: Field, path: str) -> FieldFilter:
    condition = one["filter"].get("Where", [{}])[0].get("Condition", {}).get("Comparison")
    if condition is None or condition.get("ComparisonKind") not in _COMPARISONS:
        raise PbirError(path, 1, "a filter on a measure must be one comparison with a number")
    operand = literal_value({"expr": condition["Right"]})
    return FieldFilter(target, "Advanced", operator=_COMPARISONS[condition["ComparisonKind"]], operand=str(operand))


def _listed(filter_: Json) -> tuple[object, ...]:
    values: list[object] = []
    for where in filter_.get("Where", []):
        for row in where.get("Condition", {}).get("In", {}).get("Values", []):
            values += [literal_value({"expr": cell}) for cell in row]
    return tuple(values)


def literal_value(value: object) -> object:
    """`{"expr": {"Literal": {"Value": "'text'"}}}` -> text; numbers end in D or L; anything else stays."""
    if not isinstance(value, dict):
        return value
    if "solid" in value:
        return literal_value(value["solid"].get("color"))
    text = value.get("expr", {}).get("Literal", {}).get("Value")
    if not isinstance(text, str):
        return value
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    if text in ("true", "false"):
        return text == "true"
    return float(text[:-1]) if text[-1:] in ("D", "L", "M") else text
