"""deployment.yaml: what each environment should be like, as data. Not here: bringing it about (publish.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from powerbi.errors import ProjectError

if TYPE_CHECKING:
    from pathlib import Path

_STORAGE = {"import", "directQuery", "hybrid"}
_TYPES = {"User", "Group", "App"}
_WORKSPACE_RIGHTS = {"Admin", "Member", "Contributor", "Viewer"}
_DATASET_RIGHTS = {"Read", "ReadReshare", "ReadExplore", "ReadReshareExplore"}
_ACCESS = ("service_account", "connection", "gateway", "by_hand")


@dataclass(frozen=True)
class Principal:
    """A person, a group or a service principal."""

    identifier: str
    type: str


@dataclass(frozen=True)
class Access(Principal):
    """One principal's right."""

    right: str


@dataclass(frozen=True)
class Source:
    """How the semantic model may read BigQuery.

    Attributes:
        access: service_account (its key is sent as the credential of the cloud source), connection (a shareable cloud
            connection that exists), gateway (a source of an on-premises gateway), by_hand (somebody signs in).
        connection: id of the cloud connection.
        gateway: id of the gateway.
        gateway_sources: ids of its data sources.
    """

    access: str = "by_hand"
    connection: str = ""
    gateway: str = ""
    gateway_sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Environment:
    """What one environment should be like; a workspace is found by id, or else by name, and made if there is none."""

    name: str
    storage: str
    parameters: dict[str, str]
    workspace_users: tuple[Access, ...]
    dataset_users: tuple[Access, ...]
    is_exclusive: bool
    workspace_name: str = ""
    workspace_id: str = ""
    capacity: str = ""
    is_dataset_exclusive: bool = False
    source: Source = field(default_factory=Source)
    roles: dict[str, tuple[Principal, ...]] = field(default_factory=dict)


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
    _known(path, body, {"storage", "parameters", "workspace", "dataset", "source", "roles"}, name)
    workspace, dataset = body.get("workspace") or {}, body.get("dataset") or {}
    _known(path, workspace, {"name", "id", "capacity", "exclusive", "users"}, f"{name}.workspace")
    _known(path, dataset, {"exclusive", "users"}, f"{name}.dataset")
    storage = body.get("storage", "import")
    if storage not in _STORAGE:
        raise ProjectError(
            str(path), 1, f"{name}.storage is {storage!r}; expected one of {', '.join(sorted(_STORAGE))}"
        )
    return Environment(
        name=name,
        storage=storage,
        parameters={key: str(value) for key, value in (body.get("parameters") or {}).items()},
        workspace_users=_users(path, workspace.get("users") or [], _WORKSPACE_RIGHTS),
        dataset_users=_users(path, dataset.get("users") or [], _DATASET_RIGHTS),
        is_exclusive=bool(workspace.get("exclusive", False)),
        workspace_name=str(workspace.get("name") or ""),
        workspace_id=str(workspace.get("id") or "").lower(),
        capacity=str(workspace.get("capacity") or "").lower(),
        is_dataset_exclusive=bool(dataset.get("exclusive", False)),
        source=_source(path, body.get("source") or {}, name),
        roles={role: _members(path, listed or [], role) for role, listed in (body.get("roles") or {}).items()},
    )


def _known(path: Path, body: dict[str, Any], keys: set[str], where: str) -> None:
    unknown = sorted(set(body) - keys)
    if unknown:
        raise ProjectError(
            str(path), 1, f"{where}: {', '.join(unknown)} is not known; expected {', '.join(sorted(keys))}"
        )


def _source(path: Path, body: dict[str, Any], name: str) -> Source:
    _known(path, body, {"access", "connection", "gateway", "gateway_sources"}, f"{name}.source")
    found = Source(
        access=body.get("access", "by_hand"),
        connection=str(body.get("connection") or ""),
        gateway=str(body.get("gateway") or ""),
        gateway_sources=tuple(body.get("gateway_sources") or ()),
    )
    if found.access not in _ACCESS:
        raise ProjectError(str(path), 1, f"{name}.source.access is {found.access!r}; expected {', '.join(_ACCESS)}")
    if found.access in ("connection", "gateway") and not getattr(found, found.access):
        raise ProjectError(str(path), 1, f"{name}.source: access {found.access} needs {found.access}, its id")
    return found


def _members(path: Path, listed: list[dict[str, str]], role: str) -> tuple[Principal, ...]:
    found = []
    for one in listed:
        _known(path, one, {"identifier", "type"}, f"a member of {role}")
        member = Principal(one.get("identifier", ""), one.get("type", ""))
        if not member.identifier or "'" in member.identifier or member.type not in ("User", "Group"):
            raise ProjectError(str(path), 1, f"a member of {role} needs identifier and type (Group, User); found {one}")
        found.append(member)
    return tuple(found)


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
