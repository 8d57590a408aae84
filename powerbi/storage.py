"""The storage mode of an environment, written into the model's files on their way to the service.

import: a copy, refreshed. directQuery: facts are asked live, without a refresh policy and so without its cut by
RangeStart; the tables that filter them are kept both ways (dual). hybrid: a copy, its newest partition asked live, and
dual tables beside it. The files in git say import; only what is uploaded differs. Nothing is written to disk here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from powerbi import tmdl
from powerbi.m import without_range
from powerbi.model import model_of

if TYPE_CHECKING:
    from powerbi.tmdl import Node

STORAGES = ("import", "directQuery", "hybrid")


def with_storage(files: dict[str, str], storage: str) -> dict[str, str]:
    """The files for a storage mode."""
    if storage == "import":
        return files
    filtering = {one.to_table for one in model_of(files).relationships}
    change = _hybrid if storage == "hybrid" else _direct_query
    return {
        path: change(text, path, filtering) if path.startswith("definition/tables/") else text
        for path, text in files.items()
    }


def _hybrid(text: str, file: str, filtering: set[str]) -> str:
    table = tmdl.parse(text, file)[0]
    lines = text.splitlines()
    if table.name in filtering:
        _set_mode(lines, table, "dual")
    policy = next(table.all("refreshPolicy"), None)
    if policy is not None:
        lines.insert(policy.line, "\t\tmode: hybrid")
    return "\n".join(lines) + "\n"


def _direct_query(text: str, file: str, filtering: set[str]) -> str:
    table = tmdl.parse(text, file)[0]
    lines = text.splitlines()
    _set_mode(lines, table, "dual" if table.name in filtering else "directQuery")
    policy = next(table.all("refreshPolicy"), None)
    if policy is None:
        return "\n".join(lines) + "\n"
    end = next((child.line - 1 for child in table.children if child.line > policy.line), len(lines))
    while end > policy.line and (lines[end - 1].lstrip().startswith("///") or not lines[end - 1].strip()):
        end -= 1
    del lines[policy.line - 1 : end]
    return without_range("\n".join(lines)) + "\n"


def _set_mode(lines: list[str], table: Node, mode: str) -> None:
    for partition in table.all("partition"):
        for child in partition.children:
            if child.is_property and child.name == "mode":
                lines[child.line - 1] = f"\t\tmode: {mode}"
