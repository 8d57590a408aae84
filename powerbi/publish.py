"""Bringing an environment to its declared state: workspace, definitions, source, rights. A plan first, then apply.

Here: what differs, in which order it is mended. Not here: what is declared (deployment.py), files (definitions.py),
single requests (fabric.py, source.py, access.py), HTTP (rest.py), data (refresh.py).

A plan holds every change that apply makes, also those to things that the same apply creates first: ids of what is made
on the way are handed on. Applying twice changes nothing the second time; after a failure, applying again goes on where
it stopped. fabric-cicd is not used: docs/decisions/0030.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from powerbi.access import DATASET, WORKSPACE, Difference, dataset_difference, rights, workspace_difference
from powerbi.definitions import Files, changed_parameters, changed_parts, model_files, report_files
from powerbi.errors import PowerBiError, PublishError
from powerbi.fabric import Fabric
from powerbi.lint.check import project_files
from powerbi.model import model_of
from powerbi.rest import POWERBI_SCOPE, answer
from powerbi.source import Key, SourceAccess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from powerbi.access import Request
    from powerbi.deployment import Environment
    from powerbi.rest import Client

_SHOWN = 5  # changed files named in a plan; enough to recognise a change
_NOT_YET = "00000000-0000-0000-0000-000000000000"


@dataclass
class Target:
    """The ids of an environment; None until what they name is created."""

    workspace: str | None = None
    model: str | None = None
    report: str | None = None

    def known(self, name: str) -> str:
        """An id that must be there by now."""
        found: str | None = getattr(self, name)
        if found is None:
            raise PublishError(f"the {name} does not exist yet, though it should have been created before")
        return found


@dataclass(frozen=True)
class Change:
    """One difference between what is declared and what is there."""

    what: str
    apply: Callable[[Target], object] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Plan:
    """Changes in the order in which they are applied, and notes: what only a person can do."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    target: Target

    @property
    def lines(self) -> list[str]:
        """What the changes are."""
        return [change.what for change in self.changes]


@dataclass
class Publisher:
    """Plans and applies changes for one environment.

    Attributes:
        key: the service account's key, where one was given.
        renew: whether credentials are sent although there are some: the API does not show which.
    """

    client: Client
    project: Path
    environment: Environment
    key: Key | None = None
    renew: bool = False

    def __post_init__(self) -> None:
        self.fabric = Fabric(self.client)
        self.access = SourceAccess(self.client, self.environment.source, self.key, self.renew)
        self._notes: list[str] = []

    def plan(self) -> Plan:
        """Everything that differs."""
        self._notes = []
        target = self.find()
        roles: dict[str, str] = {}
        changes = [
            *self._workspace(target),
            *self._workspace_users(target, roles),
            *self._model(target),
            *self._source(target),
            *self._report(target),
            *self._dataset_users(target, roles),
        ]
        return Plan(tuple(changes), tuple(self._notes), target)

    def apply(self, plan: Plan) -> Target:
        """Apply a plan and return the ids of what there is now.

        Raises:
            PublishError: a change failed; those before it are applied, and planning again shows what is left.
        """
        target = Target(plan.target.workspace, plan.target.model, plan.target.report)
        for number, change in enumerate(plan.changes, 1):
            try:
                change.apply(target)
            except PowerBiError as error:
                raise PublishError(
                    f"change {number} of {len(plan.changes)} ({change.what}) failed: {error} The {number - 1} before"
                    " it are applied; applying again goes on from here.",
                    status=getattr(error, "status", None),
                    code=getattr(error, "code", None),
                ) from error
        return target

    def find(self) -> Target:
        """The ids of what is there."""
        workspace = self._find_workspace()
        if workspace is None:
            return Target()
        names = {kind: self._name(kind) for kind in ("SemanticModel", "Report")}
        ids = {
            one["type"]: str(one["id"])
            for one in self.fabric.listed(f"/workspaces/{workspace}/items")
            if one["displayName"] == names.get(one["type"])
        }
        return Target(workspace, ids.get("SemanticModel"), ids.get("Report"))

    def _name(self, kind: str) -> str:
        return project_files(self.project, kind)[0].removesuffix(f".{kind}")

    # ------------------------------------------------------------------ workspace

    def _find_workspace(self) -> str | None:
        declared = self.environment
        listed = self.fabric.listed("/workspaces")
        wanted = declared.workspace_id or ("" if declared.workspace_name else self.client.settings.workspace_id)
        if wanted:
            if any(str(one["id"]).lower() == wanted.lower() for one in listed):
                return wanted
            raise PublishError(
                f"{declared.name}: workspace {wanted} does not exist, or whoever applies has no role in it. Nothing was"
                " changed. An Admin of the workspace adds the identity as Member."
            )
        return next((str(one["id"]) for one in listed if one["displayName"] == declared.workspace_name), None)

    def _workspace(self, target: Target) -> Iterator[Change]:
        name, capacity = self.environment.workspace_name, self.environment.capacity
        where = f" on capacity {capacity}" if capacity else ""
        if target.workspace is None:
            yield Change(f"create workspace {name}{where}", lambda made: self._create_workspace(made, name, capacity))
            return
        workspace = target.workspace
        if not capacity:
            return
        now = answer(self.client.send("GET", self.fabric.url(f"/workspaces/{workspace}"))).get("capacityId", "")
        if now.lower() != capacity:
            url = self.fabric.url(f"/workspaces/{workspace}/assignToCapacity")
            yield Change(
                f"move the workspace to capacity {capacity} (now {now or 'shared'})",
                lambda _: self.client.send("POST", url, {"capacityId": capacity}, is_repeatable=True),
            )

    def _create_workspace(self, target: Target, name: str, capacity: str) -> None:
        target.workspace = self.fabric.create_workspace(name, capacity)

    def _workspace_users(self, target: Target, roles: dict[str, str]) -> Iterator[Change]:
        """Rights on the workspace; `roles` is filled with what they will be."""
        caller = self._caller()
        now = dict.fromkeys(caller, ("Admin", "App"))
        if target.workspace is not None:
            now = rights(answer(self.client.send("GET", self._group(target, "/users")), "value")["value"], WORKSPACE)
        declared, is_exclusive = self.environment.workspace_users, self.environment.is_exclusive
        found = workspace_difference(now, declared, is_exclusive=is_exclusive, caller=caller)
        kept = {one.identifier.lower() for one in declared} | set(caller)
        roles |= {key: right for key, (right, _) in now.items() if not is_exclusive or key in kept}
        roles |= {one.identifier.lower(): one.right for one in declared}
        yield from self._requests(found, lambda at: self._group(at, "/users"))

    def _caller(self) -> list[str]:
        """Names by which the service may list whoever applies."""
        token = self.client.credential.get_token(POWERBI_SCOPE).token
        try:
            body = token.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (ValueError, IndexError):
            return []
        names = (claims.get(name) for name in ("oid", "upn", "unique_name", "preferred_username"))
        return [str(name).lower() for name in names if name]

    # ------------------------------------------------------------------ definitions

    def _model(self, target: Target) -> Iterator[Change]:
        name, files = self._name("SemanticModel"), model_files(self.project, self.environment)
        if target.model is None:
            what = ", ".join(f"{key} {value!r}" for key, value in self.environment.parameters.items())
            members = sum(len(listed) for listed in self.environment.roles.values())
            more = f" ({what}{f', {members} role members' if members else ''})"
            yield Change(f"create SemanticModel {name}{more}", lambda made: self._create_model(made, name, files))
            return
        there = self.fabric.download(target.known("workspace"), "SemanticModel", target.model)
        parameters = changed_parameters(there, files)
        if parameters is not None:
            shown = ", ".join(f"{key}: {old!r} -> {new!r}" for key, (old, new) in parameters.items())
            values = {key: new for key, (_, new) in parameters.items()}
            yield Change(f"set parameters {shown}", lambda made: self._set_parameters(made, values))
            return
        changed = changed_parts(there, files)
        if changed:
            yield Change(
                f"update SemanticModel {name}: {_shown(changed)}",
                lambda made: self.fabric.update(made.known("workspace"), "SemanticModel", made.known("model"), files),
            )

    def _create_model(self, target: Target, name: str, files: Files) -> None:
        target.model = self.fabric.create(target.known("workspace"), "SemanticModel", name, files)

    def _set_parameters(self, target: Target, values: dict[str, str]) -> None:
        details = {"updateDetails": [{"name": name, "newValue": value} for name, value in values.items()]}
        dataset = self._dataset(target, "")
        self.access.as_owner(
            dataset,
            lambda: self.client.send("POST", f"{dataset}/Default.UpdateParameters", details, is_repeatable=True),
        )

    def _source(self, target: Target) -> Iterator[Change]:
        what, note = self.access.missing(target.workspace, target.model)
        if note is not None:
            self._notes.append(note)
        if what is not None:
            yield Change(what, lambda made: self.access.apply(made.known("workspace"), made.known("model")))

    def _report(self, target: Target) -> Iterator[Change]:
        name = self._name("Report")
        if target.report is None:
            yield Change(f"create Report {name}", lambda made: self._create_report(made, name))
            return
        there = self.fabric.download(target.known("workspace"), "Report", target.report)
        changed = changed_parts(there, report_files(self.project, target.model or _NOT_YET))
        if changed:
            yield Change(f"update Report {name}: {_shown(changed)}", self._update_report)

    def _create_report(self, target: Target, name: str) -> None:
        files = report_files(self.project, target.known("model"))
        target.report = self.fabric.create(target.known("workspace"), "Report", name, files)

    def _update_report(self, target: Target) -> None:
        files = report_files(self.project, target.known("model"))
        self.fabric.update(target.known("workspace"), "Report", target.known("report"), files)

    # ------------------------------------------------------------------ rights on the model

    def _dataset_users(self, target: Target, roles: dict[str, str]) -> Iterator[Change]:
        now: dict[str, tuple[str, str]] = {}
        if target.model is not None:
            now = rights(answer(self.client.send("GET", self._dataset(target, "/users")), "value")["value"], DATASET)
        declared, is_exclusive = self.environment.dataset_users, self.environment.is_dataset_exclusive
        found = dataset_difference(now, declared, is_exclusive=is_exclusive, roles=roles)
        yield from self._requests(found, lambda at: self._dataset(at, "/users"))

    def _requests(self, found: Difference, url: Callable[[Target], str]) -> Iterator[Change]:
        self._notes += found.notes
        for one in found.requests:
            yield Change(one.what, self._sending(one, url))

    def _sending(self, one: Request, url: Callable[[Target], str]) -> Callable[[Target], object]:
        def send(target: Target) -> object:
            body = one.body or None
            return self.client.send(one.method, url(target) + one.path, body, is_repeatable=one.method != "POST")

        return send

    def _group(self, target: Target, path: str) -> str:
        return f"{self.client.settings.api_url}/v1.0/myorg/groups/{target.known('workspace')}{path}"

    def _dataset(self, target: Target, path: str) -> str:
        return self._group(target, f"/datasets/{target.known('model')}{path}")


def _shown(changed: Sequence[str]) -> str:
    return ", ".join(changed[:_SHOWN]) + (" ..." if len(changed) > _SHOWN else "")


def members_script(environment: Environment, files: Files, database: str) -> dict[str, Any]:
    """Roles and their members as a TMSL script for the XMLA endpoint, where a definition's members are not kept."""
    found = {role.name: role for role in model_of(files).roles}
    operations = [
        {
            "createOrReplace": {
                "object": {"database": database, "role": name},
                "role": {
                    "name": name,
                    "modelPermission": found[name].permission,
                    "members": [{"memberName": one.identifier, "identityProvider": "AzureAD"} for one in members],
                    "tablePermissions": [
                        {"name": table, "filterExpression": dax} for table, dax in found[name].filters.items()
                    ],
                },
            }
        }
        for name, members in environment.roles.items()
    ]
    return {"sequence": {"operations": operations}}
