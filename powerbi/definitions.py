"""A definition as an environment's service takes it, and whether two definitions mean the same.

Here: storage mode, parameters, role members and the report's connection written into files on their way to the service.
Not here: sending them (fabric.py), what is declared (deployment.py).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from powerbi import tmdl
from powerbi.errors import ProjectError
from powerbi.lint.check import project_files
from powerbi.m import parameters_of
from powerbi.model import model_of
from powerbi.parameters import EXPRESSIONS, with_parameters
from powerbi.storage import with_storage

if TYPE_CHECKING:
    from pathlib import Path

    from powerbi.deployment import Environment, Principal

Files = dict[str, str]
KINDS = {"SemanticModel": "semanticModels", "Report": "reports"}
_MODEL_ID = re.compile(r"semanticmodelid=\"?([0-9a-fA-F-]{36})", re.IGNORECASE)


def model_files(project: Path, environment: Environment) -> Files:
    """The semantic model's files for an environment.

    Raises:
        ProjectError: the environment names a parameter or role that the model does not have.
    """
    files = with_storage(project_files(project, "SemanticModel")[1], environment.storage)
    return with_members(with_parameters(files, environment.parameters), environment.roles)


def report_files(project: Path, model: str) -> Files:
    """The report's files, bound to a semantic model by id: the service knows no paths."""
    files = project_files(project, "Report")[1]
    found = json.loads(files["definition.pbir"])
    found["datasetReference"] = {"byConnection": {"connectionString": f"semanticmodelid={model}"}}
    return {**files, "definition.pbir": json.dumps(found, indent=2) + "\n"}


def with_members(files: Files, roles: dict[str, tuple[Principal, ...]]) -> Files:
    """The files with the declared members in each role's file."""
    found = dict(files)
    for role, members in roles.items():
        path = next((p for p in found if p.startswith("definition/roles/") and _defines(found[p], p, role)), None)
        if path is None:
            raise ProjectError("definition/roles", 1, f"no role {role!r} in the model; its members cannot be declared")
        lines = [
            line
            for one in members
            for line in (
                "",
                f"\tmember '{one.identifier}'",
                f"\t\tmemberType: {one.type.lower()}",
                "\t\tidentityProvider: AzureAD",
            )
        ]
        found[path] = found[path].rstrip("\n") + "\n" + "\n".join(lines) + "\n"
    return found


def _defines(text: str, path: str, role: str) -> bool:
    return any(node.kind == "role" and node.name == role and not node.is_reference for node in tmdl.parse(text, path))


# ---------------------------------------------------------------------- comparing


def changed_parts(there: Files, here: Files) -> list[str]:
    """Paths whose content differs in meaning: order, spacing, the platform file and the service's own notes do not."""
    paths = sorted((set(there) | set(here)) - {".platform"})
    return [path for path in paths if _meaning(path, there.get(path)) != _meaning(path, here.get(path))]


def changed_parameters(there: Files, here: Files) -> dict[str, tuple[str, str]] | None:
    """Old and new values where parameters' values are all that differs; None where anything else does."""
    if changed_parts(there, here) != [EXPRESSIONS]:
        return None
    old, new = (
        parameters_of(model_of({EXPRESSIONS: files.get(EXPRESSIONS, "")}).expressions) for files in (there, here)
    )
    changed = {name: (old[name], value) for name, value in new.items() if name in old and old[name] != value}
    try:
        levelled = with_parameters(there, {name: value for name, (_, value) in changed.items()})
    except ProjectError:
        return None
    return changed if changed and not changed_parts(levelled, here) else None


def _meaning(path: str, text: str | None) -> object:
    if text is None:
        return None
    if path.endswith(".tmdl"):
        try:
            return _tree(tmdl.parse(text, path))
        except ProjectError:
            return text  # what is no TMDL is sent, and the service says why it refuses it
    if path.endswith(".pbir"):
        return _connection(json.loads(text))
    if path.endswith((".json", ".pbism")):
        return json.loads(text)
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _connection(found: dict[str, Any]) -> object:
    """A report's connection is the id of its model; the service writes more around it."""
    by = (found.get("datasetReference") or {}).get("byConnection") or {}
    match = _MODEL_ID.search(str(by.get("connectionString", "")))
    return match[1].lower() if match else found


def _tree(nodes: list[tmdl.Node]) -> tuple[object, ...]:
    """Nodes without their order and place. Partitions under a refresh policy are the service's own."""
    return tuple(sorted((_node(one) for one in nodes if not _is_own_note(one)), key=repr))


def _node(node: tmdl.Node) -> tuple[object, ...]:
    children = node.children
    if any(child.kind == "refreshPolicy" for child in children):
        children = [child for child in children if child.kind != "partition"]
    value = "\n".join(line.rstrip() for line in (node.value or "").strip().splitlines())
    return (node.kind, node.name, node.is_reference, value, node.description, _tree(children))


def _is_own_note(node: tmdl.Node) -> bool:
    return node.kind == "annotation" and node.name.startswith(("PBI_", "__PBI_"))
