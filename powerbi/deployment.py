"""deployment.yaml: what each environment should be like, as data. Not here: bringing it about (publish.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from powerbi.errors import ProjectError

if TYPE_CHECKING:
    from pathlib import Path

_STORAGE = {"import", "directQuery", "hybrid"}
_TYPES = {"User", "Group", "App"}
_WORKSPACE_RIGHTS = {"Admin", "Member", "Contributor", "Viewer"}
_DATASET_RIGHTS = {"Read", "ReadReshare", "ReadExplore", "ReadReshareExplore"}


@dataclass(frozen=True)
class Access:
    """One principal's right."""

    identifier: str
    type: str
    right: str


@dataclass(frozen=True)
class Environment:
    """What one environment should be like."""

    name: str
    storage: str
    parameters: dict[str, str]
    workspace_users: tuple[Access, ...]
    dataset_users: tuple[Access, ...]
    is_exclusive: bool


def read_environment(path: Path, name: str) -> Environment:
    """Read one environment.

    Raises:
        ProjectError: the file says something that is not known; nothing is guessed.
    """
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    environments = loaded.get("environments", {}) if isinstance(loaded, dict) else {}
    if name not in environments:
        raise ProjectError(str(path), 1, f"no environment {name!r}; there are {', '.join(environments) or 'none'}")
    body = environments[name]
    _known(path, body, {"storage", "parameters", "workspace", "dataset"}, name)
    workspace, dataset = body.get("workspace", {}), body.get("dataset", {})
    _known(path, workspace, {"exclusive", "users"}, f"{name}.workspace")
    _known(path, dataset, {"users"}, f"{name}.dataset")
    storage = body.get("storage", "import")
    if storage not in _STORAGE:
        raise ProjectError(
            str(path), 1, f"{name}.storage is {storage!r}; expected one of {', '.join(sorted(_STORAGE))}"
        )
    return Environment(
        name=name,
        storage=storage,
        parameters={key: str(value) for key, value in body.get("parameters", {}).items()},
        workspace_users=_users(path, workspace.get("users", []), _WORKSPACE_RIGHTS),
        dataset_users=_users(path, dataset.get("users", []), _DATASET_RIGHTS),
        is_exclusive=bool(workspace.get("exclusive", False)),
    )


def _known(path: Path, body: dict[str, Any], keys: set[str], where: str) -> None:
    unknown = sorted(set(body) - keys)
    if unknown:
        raise ProjectError(
            str(path), 1, f"{where}: {', '.join(unknown)} is not known; expected {', '.join(sorted(keys))}"
        )


def _users(path: Path, listed: list[dict[str, str]], rights: set[str]) -> tuple[Access, ...]:
    found = []
    for one in listed:
        _known(path, one, {"identifier", "type", "right"}, "a user")
        access = Access(one.get("identifier", ""), one.get("type", ""), one.get("right", ""))
        if not access.identifier or access.type not in _TYPES or access.right not in rights:
            raise ProjectError(
                str(path),
                1,
                f"a user needs identifier, type ({', '.join(sorted(_TYPES))})"
                f" and right ({', '.join(sorted(rights))}); found {one}",
            )
        found.append(access)
    return tuple(found)
