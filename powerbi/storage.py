"""The storage mode of an environment, written into the model's files on their way to the service.

import: a copy, refreshed. directQuery: facts are asked live, dimensions both ways, no refresh policy. hybrid: a copy,
and the newest partition asked live. The files in git say import; only what is uploaded differs.
"""

from __future__ import annotations

from powerbi import tmdl


def with_storage(files: dict[str, str], storage: str) -> dict[str, str]:
    """The files for a storage mode."""
    if storage == "import":
        return files
    change = _hybrid if storage == "hybrid" else _direct_query
    return {path: change(text, path) if path.startswith("definition/tables/") else text for path, text in files.items()}


def _hybrid(text: str, file: str) -> str:
    table = tmdl.parse(text, file)[0]
    policy = next(table.all("refreshPolicy"), None)
    if policy is None:
        return text
    lines = text.splitlines()
    lines.insert(policy.line, "\t\tmode: hybrid")
    return "\n".join(lines) + "\n"


def _direct_query(text: str, file: str) -> str:
    table = tmdl.parse(text, file)[0]
    policy = next(table.all("refreshPolicy"), None)
    lines = text.splitlines()
    mode = "dual" if policy is None else "directQuery"
    for partition in table.all("partition"):
        for child in partition.children:
            if child.is_property and child.name == "mode":
                lines[child.line - 1] = f"\t\tmode: {mode}"
    if policy is not None:
        end = next((child.line - 1 for child in table.children if child.line > policy.line), len(lines))
        while end > policy.line and (lines[end - 1].lstrip().startswith("///") or not lines[end - 1].strip()):
            end -= 1
        del lines[policy.line - 1 : end]
    return "\n".join(lines) + "\n"
