"""Checks of the report's files against the model: fields, visual types, places, names. Not here: the model's own."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from powerbi.lint.finding import Finding, Severity
from powerbi.lint.keywords import OTHER_VISUALS, VISUALS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from powerbi.model import Model
    from powerbi.pbir import Field, Page, Report, Visual


def check_report(report: Report, model: Model, files: dict[str, str]) -> Iterator[Finding]:
    """Everything that is wrong with a report that could be read."""
    for page in report.pages:
        folder = PurePosixPath(page.file).parent.name
        if page.name != folder:
            yield _finding(
                files, page.file, "name", f"page {page.name!r} lies in folder {folder!r}", "Name both alike.", page.name
            )
        names = [visual.name for visual in page.visuals]
        for visual in page.visuals:
            yield from _visual(visual, page, model, files)
            if names.count(visual.name) > 1:
                yield _finding(
                    files,
                    visual.file,
                    "duplicate-name",
                    f"two visuals of the page are named {visual.name!r}",
                    "Rename one.",
                    visual.name,
                )
    yield from _theme(report, files)


def _theme(report: Report, files: dict[str, str]) -> Iterator[Finding]:
    if '"customTheme"' in files.get("definition/report.json", "") and not report.theme:
        yield _finding(
            files,
            "definition/report.json",
            "theme",
            "the custom theme's file is not there",
            "Add it below StaticResources/RegisteredResources.",
            "customTheme",
        )


def _visual(visual: Visual, page: Page, model: Model, files: dict[str, str]) -> Iterator[Finding]:
    folder = PurePosixPath(visual.file).parent.name
    if visual.name != folder:
        yield _finding(
            files,
            visual.file,
            "name",
            f"visual {visual.name!r} lies in folder {folder!r}",
            "Name both alike.",
            visual.name,
        )
    if visual.type not in VISUALS:
        severity: Severity = "warning" if visual.type in OTHER_VISUALS else "error"
        what = "is not drawn by the stand-in" if visual.type in OTHER_VISUALS else "is no visual type of Power BI"
        yield Finding(
            visual.file,
            _line(files, visual.file, visual.type),
            "visual-type",
            f"{visual.type!r} {what}",
            f"Known: {', '.join(sorted(VISUALS))}.",
            severity,
        )
    for role in visual.roles:
        if visual.type in VISUALS and role not in VISUALS[visual.type]:
            yield _finding(
                files,
                visual.file,
                "role",
                f"a {visual.type} has no role {role!r}",
                f"Known: {', '.join(sorted(VISUALS[visual.type]))}.",
                role,
            )
    if VISUALS.get(visual.type) and not visual.fields:
        yield _finding(
            files,
            visual.file,
            "no-fields",
            f"visual {visual.name!r} shows no field",
            "Add fields or delete it.",
            "queryState",
        )
    if visual.x < 0 or visual.y < 0 or visual.x + visual.width > page.width or visual.y + visual.height > page.height:
        yield _finding(
            files,
            visual.file,
            "place",
            f"visual {visual.name!r} reaches beyond the page of {page.width:g} x {page.height:g}",
            "Move or shrink it.",
            "position",
        )
    for field in (
        *visual.fields,
        *(one.field for one in visual.filters),
        *(one.by for one in visual.filters if one.by),
        *(field for field, _ in visual.sort),
    ):
        yield from _field(field, visual, model, files)


def _field(field: Field, visual: Visual, model: Model, files: dict[str, str]) -> Iterator[Finding]:
    table = model.table(field.table)
    if table is None:
        yield _finding(
            files,
            visual.file,
            "unknown-table",
            f"table {field.table!r} does not exist in the model",
            "Correct the field.",
            field.table,
        )
        return
    if field.kind == "Measure":
        owner = next((t for t in model.tables if any(m.name == field.name for m in t.measures)), None)
        if owner is None:
            yield _finding(
                files,
                visual.file,
                "unknown-measure",
                f"measure [{field.name}] does not exist",
                "Correct the field.",
                field.name,
            )
        elif owner.name != field.table:
            yield _finding(
                files,
                visual.file,
                "wrong-table",
                f"measure [{field.name}] belongs to {owner.name!r}, not to {field.table!r}",
                "Correct Entity.",
                field.name,
            )
    elif table.column(field.name) is None:
        yield _finding(
            files,
            visual.file,
            "unknown-column",
            f"column {field.table}[{field.name}] does not exist",
            "Correct the field.",
            field.name,
        )
    if field.query_ref != f"{field.table}.{field.name}":
        yield _finding(
            files,
            visual.file,
            "query-ref",
            f"queryRef {field.query_ref!r} does not name {field.table}.{field.name}",
            "Write Table.field.",
            field.query_ref,
        )


def _finding(files: dict[str, str], file: str, rule: str, what: str, remedy: str, near: str) -> Finding:  # noqa: PLR0917 - one call shape
    return Finding(file, _line(files, file, near), rule, what, remedy)


def _line(files: dict[str, str], file: str, near: str) -> int:
    """The first line that holds a text, as a JSON string if there is one; JSON readers keep no positions."""
    lines = files.get(file, "").splitlines()
    for wanted in (f'"{near}"', near):
        for number, line in enumerate(lines, 1):
            if near and wanted in line:
                return number
    return 1
