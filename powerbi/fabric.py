"""Fabric's items: listed, created, their definitions up and down, long-running operations followed to their end.

Here: requests about workspaces and items. Not here: what differs (publish.py), HTTP and its retries (rest.py).
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from powerbi.definitions import KINDS, Files
from powerbi.errors import OperationError
from powerbi.rest import answer

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from powerbi.rest import Client

_OPERATION_TIMEOUT_S = 900.0
_RESULT_PATH = 4  # /v1/operations/<id>/result


@dataclass
class Fabric:
    """Fabric's REST through a client; `clock` is the tests'."""

    client: Client
    clock: Callable[[], float] = time.monotonic

    def url(self, path: str) -> str:
        """An address of Fabric's API."""
        return f"{self.client.settings.fabric_url}/v1{path}"

    def listed(self, path: str) -> list[dict[str, Any]]:
        """Every entry of a list, page by page."""
        found: list[dict[str, Any]] = []
        token: str | None = None
        while True:
            query = f"?continuationToken={quote(token)}" if token else ""
            page = answer(self.client.send("GET", self.url(path) + query), "value")
            found += page["value"]
            token = page.get("continuationToken")
            if not token:
                return found

    def create_workspace(self, name: str, capacity: str) -> str:
        """Create a workspace; returns its id."""
        body = {"displayName": name, **({"capacityId": capacity} if capacity else {})}
        made = answer(self.client.send("POST", self.url("/workspaces"), body, is_repeatable=False), "id")
        return str(made["id"])

    def create(self, workspace: str, kind: str, name: str, files: Files) -> str:
        """Create an item from its definition; returns its id."""
        body = {"displayName": name, "type": kind, "definition": {"parts": parts_of(files)}}
        url = self.url(f"/workspaces/{workspace}/items")
        made = self.follow(self.client.send("POST", url, body, is_repeatable=False), wants_result=True)
        if "id" in made:
            return str(made["id"])
        # A service that gives no result still lists what it made.
        listed = self.listed(f"/workspaces/{workspace}/items")
        return next(str(one["id"]) for one in listed if (one["type"], one["displayName"]) == (kind, name))

    def update(self, workspace: str, kind: str, item: str, files: Files) -> None:
        """Replace an item's definition."""
        url = self.url(f"/workspaces/{workspace}/{KINDS[kind]}/{item}/updateDefinition")
        self.follow(self.client.send("POST", url, {"definition": {"parts": parts_of(files)}}, is_repeatable=True))

    def download(self, workspace: str, kind: str, item: str) -> Files:
        """An item's definition as the service has it."""
        url = self.url(f"/workspaces/{workspace}/{KINDS[kind]}/{item}/getDefinition")
        found = self.follow(self.client.send("POST", url, is_repeatable=True), wants_result=True)
        return {
            one["path"]: base64.b64decode(one["payload"]).decode(errors="replace")
            for one in found["definition"]["parts"]
        }

    def follow(self, response: requests.Response, *, wants_result: bool = False) -> dict[str, Any]:
        """Follow a long-running operation to its end; returns its result where that is wanted.

        Raises:
            OperationError: it failed, or has not ended after a quarter of an hour.
        """
        if response.status_code != 202:  # noqa: PLR2004 - the number says itself
            return answer(response) if response.content else {}
        # Asked for at the address we know: Location may name another host, which gets no token of ours.
        operation = response.headers.get("x-ms-operation-id") or _last(response.headers["Location"])
        wait = float(response.headers.get("Retry-After", "1"))
        began = self.clock()
        while True:
            self.client.sleep(wait)
            state = self.client.send("GET", self.url(f"/operations/{operation}"))
            found = answer(state, "status")
            if found["status"] == "Succeeded":
                return self._result(state, operation) if wants_result else {}
            if found["status"] not in ("NotStarted", "Running"):
                reason = found.get("error") or {}
                raise OperationError(
                    f"operation {operation} ended as {found['status']}: {reason.get('message', reason)}."
                    " The item is as before.",
                    code=reason.get("errorCode"),
                )
            if self.clock() - began > _OPERATION_TIMEOUT_S:
                raise OperationError(
                    f"operation {operation} has not ended after {_OPERATION_TIMEOUT_S:.0f} s; it still may."
                    " Plan again later."
                )
            wait = float(state.headers.get("Retry-After", "2"))

    def _result(self, state: requests.Response, operation: str) -> dict[str, Any]:
        """The result lies where Location says, which may be under another id."""
        path = urlsplit(state.headers.get("Location", "")).path.rstrip("/")
        if path.endswith("/result") and path.count("/") >= _RESULT_PATH:
            operation = path.split("/")[-2]
        return answer(self.client.send("GET", self.url(f"/operations/{operation}/result")))


def parts_of(files: Files) -> list[dict[str, str]]:
    """Files as the parts of an uploaded definition."""
    return [
        {"path": path, "payload": base64.b64encode(text.encode()).decode(), "payloadType": "InlineBase64"}
        for path, text in sorted(files.items())
    ]


def _last(location: str) -> str:
    return urlsplit(location).path.rstrip("/").rsplit("/", 1)[-1]
