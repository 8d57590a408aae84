"""Bringing a workspace to its declared state: definitions, parameters, permissions. First a plan, then its application.

Here: what differs, and one change at a time. Not here: what is declared (deployment.py), HTTP (rest.py), data
(refresh.py). Applying twice changes nothing the second time. fabric-cicd is not used: docs/decisions/0008.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from powerbi.errors import OperationError
from powerbi.lint.check import project_files
from powerbi.storage import with_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from powerbi.deployment import Access, Environment
    from powerbi.rest import Client

Files = dict[str, str]
_OPERATION_TIMEOUT_S = 900.0
_SHOWN = 5  # changed files named in a plan; enough to recognise a change
_KINDS = {"SemanticModel": "semanticModels", "Report": "reports"}


@dataclass(frozen=True)
class Change:
    """One difference between what is declared and what is there."""

    what: str
    apply: Callable[[], object] = field(repr=False, compare=False)


@dataclass
class Publisher:
    """Plans and applies changes for one workspace."""

    client: Client
    project: Path
    environment: Environment
    clock: Callable[[], float] = time.monotonic

    def plan(self) -> list[Change]:
        """Everything that differs, in the order in which it must be applied."""
        return [*self._definitions(), *self._parameters(), *self._workspace_users(), *self._dataset_users()]

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply changes in order. One that fails leaves those before it applied; planning again shows what is left."""
        for change in changes:
            change.apply()

    # ------------------------------------------------------------------ definitions

    def _definitions(self) -> Iterator[Change]:
        items = {one["type"]: one for one in self._items()}
        for kind in _KINDS:
            name, files = self.definition(kind)
            item = items.get(kind)
            if item is None:
                yield Change(f"create {kind} {name}", partial(self.create, kind, name, files))
                continue
            changed = changed_parts(self.download(kind, item["id"]), files)
            if changed:
                shown = ", ".join(changed[:_SHOWN]) + (" ..." if len(changed) > _SHOWN else "")
                what = f"update {kind} {item['displayName']}: {shown}"
                yield Change(what, partial(self.update, kind, item["id"], files))

    def definition(self, kind: str) -> tuple[str, Files]:
        """The project's files as this environment's service takes them."""
        folder, files = project_files(self.project, kind)
        if kind == "SemanticModel":
            return folder.removesuffix(f".{kind}"), with_storage(files, self.environment.storage)
        return folder.removesuffix(f".{kind}"), {
            **files,
            "definition.pbir": self._by_connection(files["definition.pbir"]),
        }

    def _by_connection(self, text: str) -> str:
        """The service knows no paths: a report names its model by id."""
        found = json.loads(text)
        found["datasetReference"] = {
            "byConnection": {"connectionString": f"semanticmodelid={self.client.settings.dataset_id}"}
        }
        return json.dumps(found, indent=2) + "\n"

    def _items(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.client.send("GET", self._fabric("/items")).json()["value"]
        wanted = {"SemanticModel": self.client.settings.dataset_id}
        names = {kind: self.definition(kind)[0] for kind in _KINDS}
        return [
            one
            for one in listed
            if one["type"] in _KINDS
            and (
                one["id"] == wanted.get(one["type"])
                or (one["type"] not in wanted and one["displayName"] == names[one["type"]])
            )
        ]

    def _fabric(self, path: str) -> str:
        settings = self.client.settings
        return f"{settings.fabric_url}/v1/workspaces/{settings.workspace_id}{path}"

    def create(self, kind: str, name: str, files: Files) -> dict[str, Any]:
        """Create an item; returns it as the service describes it."""
        body = {"displayName": name, "type": kind, "definition": {"parts": parts_of(files)}}
        return self._long(
            self.client.send("POST", self._fabric("/items"), body, is_repeatable=False), wants_result=True
        )

    def update(self, kind: str, item: str, files: Files) -> None:
        """Replace an item's definition."""
        body = {"definition": {"parts": parts_of(files)}}
        url = self._fabric(f"/{_KINDS[kind]}/{item}/updateDefinition")
        self._long(self.client.send("POST", url, body, is_repeatable=True))

    def download(self, kind: str, item: str) -> Files:
        """An item's definition as the service has it."""
        url = self._fabric(f"/{_KINDS[kind]}/{item}/getDefinition")
        found = self._long(self.client.send("POST", url, is_repeatable=True), wants_result=True)
        return {one["path"]: base64.b64decode(one["payload"]).decode() for one in found["definition"]["parts"]}

    def _long(self, response: Any, *, wants_result: bool = False) -> dict[str, Any]:
        """Follow a long-running operation to its end.

        Raises:
            OperationError: it failed, or has not ended after a quarter of an hour.
        """
        if response.status_code != 202:  # noqa: PLR2004 - the number says itself
            done: dict[str, Any] = response.json() if response.content else {}
            return done
        # Asked for at the address we know: Location may name another host, which gets no token of ours.
        operation = response.headers["x-ms-operation-id"]
        url = f"{self.client.settings.fabric_url}/v1/operations/{operation}"
        began = self.clock()
        while True:
            state = self.client.send("GET", url)
            found: dict[str, Any] = state.json()
            if found["status"] == "Succeeded":
                result: dict[str, Any] = self.client.send("GET", f"{url}/result").json() if wants_result else {}
                return result
            if found["status"] == "Failed":
                reason = found.get("error") or {}
                raise OperationError(
                    f"operation {operation} failed: {reason.get('message', reason)}. The item is as before.",
                    code=reason.get("errorCode"),
                )
            if self.clock() - began > _OPERATION_TIMEOUT_S:
                raise OperationError(
                    f"operation {operation} has not ended after {_OPERATION_TIMEOUT_S:.0f} s; it still may."
                    " Plan again later."
                )
            self.client.sleep(float(state.headers.get("Retry-After", "2")))

    # ------------------------------------------------------------------ parameters and permissions

    def _parameters(self) -> Iterator[Change]:
        listed = self.client.send("GET", self.client.dataset("/parameters")).json()["value"]
        now = {one["name"]: one.get("currentValue") for one in listed}
        wanted = {name: value for name, value in self.environment.parameters.items() if now.get(name) != value}
        if not wanted:
            return
        details = {"updateDetails": [{"name": name, "newValue": value} for name, value in wanted.items()]}
        what = ", ".join(f"{name}: {now.get(name)!r} -> {value!r}" for name, value in wanted.items())
        url = self.client.dataset("/Default.UpdateParameters")
        yield Change(f"set parameters {what}", lambda: self.client.send("POST", url, details, is_repeatable=True))

    def _workspace_users(self) -> Iterator[Change]:
        now = self._rights(self.client.group("/users"), "groupUserAccessRight")
        url = self.client.group("/users")
        yield from self._users(now, self.environment.workspace_users, url, "groupUserAccessRight", "workspace")
        if not self.environment.is_exclusive:
            return
        declared = {one.identifier for one in self.environment.workspace_users}
        for identifier in sorted(set(now) - declared):
            address = self.client.group(f"/users/{identifier}")
            yield Change(f"remove {identifier} from the workspace", partial(self.client.send, "DELETE", address))

    def _dataset_users(self) -> Iterator[Change]:
        url = self.client.dataset("/users")
        now = self._rights(url, "datasetUserAccessRight")
        yield from self._users(now, self.environment.dataset_users, url, "datasetUserAccessRight", "semantic model")

    def _rights(self, url: str, right: str) -> dict[str, str]:
        listed = self.client.send("GET", url).json()["value"]
        return {one.get("identifier") or one.get("emailAddress", ""): one[right] for one in listed}

    def _users(
        self, now: dict[str, str], declared: Sequence[Access], url: str, right: str, where: str
    ) -> Iterator[Change]:
        for one in declared:
            if now.get(one.identifier) == one.right:
                continue
            method = "PUT" if one.identifier in now else "POST"
            body = {"identifier": one.identifier, "principalType": one.type, right: one.right}
            what = f"{one.identifier} on the {where}: {now.get(one.identifier, 'none')} -> {one.right}"
            send = partial(self.client.send, method, url, body, is_repeatable=method == "PUT")
            yield Change(what, send)


def parts_of(files: Files) -> list[dict[str, str]]:
    """Files as the parts of an uploaded definition."""
    return [
        {"path": path, "payload": base64.b64encode(text.encode()).decode(), "payloadType": "InlineBase64"}
        for path, text in sorted(files.items())
    ]


def changed_parts(there: Files, here: Files) -> list[str]:
    """Paths whose content differs in meaning: line ends, JSON's spacing and the platform file do not count."""
    paths = sorted((set(there) | set(here)) - {".platform"})
    return [path for path in paths if _meaning(path, there.get(path)) != _meaning(path, here.get(path))]


def _meaning(path: str, text: str | None) -> object:
    if text is None:
        return None
    if path.endswith((".json", ".pbir", ".pbism")):
        return json.loads(text)
    return [line.rstrip() for line in text.splitlines() if line.strip()]
