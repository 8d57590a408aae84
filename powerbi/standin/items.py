"""Fabric's REST: workspaces, items, definitions up and down, long-running operations.

Here: answers in the service's shape. Not here: what a definition means (service.py), tokens (app.py).
"""

# ruff: noqa: D102 - a handler's route says what it answers

from __future__ import annotations

import base64
import datetime as dt
import uuid
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from powerbi.errors import ProjectError
from powerbi.standin.answers import answer, error

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from powerbi.standin.answers import Worker
    from powerbi.standin.service import Service
    from powerbi.standin.state import Document

_OPERATION_S = 0.2  # a definition is taken at once; the operation still takes a moment, as the service's do
_ROOT = "/v1/workspaces/{group}"
_KINDS = {"semanticModels": "SemanticModel", "reports": "Report"}


class Items:
    """Routes of Fabric."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def routes(self) -> list[tuple[str, str, Worker]]:
        """Path, method and who answers it."""
        return [
            ("/v1/workspaces", "GET", self.workspaces),
            ("/v1/workspaces", "POST", self.create_workspace),
            (_ROOT, "GET", self.workspace),
            (_ROOT + "/assignToCapacity", "POST", self.assign),
            (_ROOT + "/items", "GET", self.items),
            (_ROOT + "/items", "POST", self.create_item),
            (_ROOT + "/items/{item}/connections", "GET", self.connections),
            (_ROOT + "/semanticModels/{item}/bindConnection", "POST", self.bind_connection),
            (_ROOT + "/{kind:str}/{item}/updateDefinition", "POST", self.update_definition),
            (_ROOT + "/{kind:str}/{item}/getDefinition", "POST", self.get_definition),
            ("/v1/operations/{operation}", "GET", self.operation),
            ("/v1/operations/{operation}/result", "GET", self.operation_result),
        ]

    # ------------------------------------------------------------------ workspaces

    def workspaces(self, request: Request, _: Any) -> Response:
        return self._paged(request, [_workspace(one) for one in self.service.workspaces()])

    def workspace(self, request: Request, _: Any) -> Response:
        return answer(_workspace(self.service.workspace(request.path_params["group"]) or {}))

    def create_workspace(self, request: Request, body: Any) -> Response:
        if not body.get("displayName"):
            return error(400, "InvalidRequest", "displayName is needed")
        try:
            made = self.service.create_workspace(body["displayName"], body.get("capacityId"))
        except ValueError:
            name = body["displayName"]
            return error(409, "WorkspaceNameAlreadyExists", f"there is a workspace {name!r} already")
        headers = {"Location": f"{request.url}/{made['id']}"}
        return answer(_workspace(made), status=201, headers=headers)

    def assign(self, request: Request, body: Any) -> Response:
        found = self.service.workspace(request.path_params["group"]) or {}
        self.service.state.put("workspace", found["id"], found | {"capacity": body.get("capacityId")})
        return Response(status_code=202)

    def _paged(self, request: Request, listed: list[dict[str, Any]]) -> Response:
        size, start = self.service.settings.page_size, int(request.query_params.get("continuationToken", "0"))
        body: dict[str, Any] = {"value": listed[start : start + size]}
        if start + size < len(listed):
            token = str(start + size)
            address = request.url.include_query_params(continuationToken=token)
            body |= {"continuationToken": token, "continuationUri": str(address)}
        return answer(body)

    # ------------------------------------------------------------------ items

    def items(self, request: Request, _: Any) -> Response:
        found = self.service.items(request.path_params["group"], kind=request.query_params.get("type"))
        return self._paged(request, [_item(one) for one in found])

    def create_item(self, request: Request, body: Any) -> Response:
        group, kind, name = request.path_params["group"], body.get("type"), body.get("displayName")
        if kind not in _KINDS.values() or not name:
            return error(400, "InvalidRequest", "displayName and type (SemanticModel, Report) are needed")
        if any(one["displayName"].lower() == name.lower() for one in self.service.items(group, kind=kind)):
            return error(409, "ItemDisplayNameAlreadyInUse", f"there is a {kind} {name!r} in this workspace already")
        files = _files(body)
        if files is None:
            return _no_parts()
        return self._long(request, lambda: _item(self.service.create_item(group, kind, name, files)))

    def update_definition(self, request: Request, body: Any) -> Response:
        item = self._item(request)
        if item is None:
            return _no_item(request)
        files = _files(body)
        if files is None:
            return _no_parts()
        return self._long(request, lambda: self.service.define(item["id"], files))

    def get_definition(self, request: Request, _: Any) -> Response:
        item = self._item(request)
        found = self.service.state.get("definition", item["id"]) if item else None
        if item is None or found is None:
            return _no_item(request)
        parts = [
            {"path": path, "payload": base64.b64encode(text.encode()).decode(), "payloadType": "InlineBase64"}
            for path, text in found["files"].items()
        ]
        return self._long(request, lambda: {"definition": {"parts": parts}})

    def bind_connection(self, request: Request, body: Any) -> Response:
        binding = body.get("connectionBinding") or {}
        item = self.service.item(request.path_params["item"], kind="SemanticModel")
        if item is None:
            return _no_item(request)
        if "connectivityType" not in binding or "connectionDetails" not in binding:
            return error(400, "InvalidRequest", "connectionBinding needs connectivityType and connectionDetails")
        bound = {"type": "Basic", "user": "", "connection": binding.get("id")}
        self.service.state.put("credential", item["id"], bound)
        return Response(status_code=200)

    def connections(self, request: Request, _: Any) -> Response:
        bound = self.service.state.get("credential", request.path_params["item"]) or {}
        details = {"path": "GoogleBigQuery", "type": "GoogleBigQuery"}
        kind = {"connectivityType": "ShareableCloud" if bound.get("connection") else "PersonalCloud"}
        identifier = {"id": bound["connection"]} if bound.get("connection") else {}
        return answer({"value": [{**identifier, "connectionDetails": details, **kind}]})

    def _item(self, request: Request) -> Document | None:
        found = self.service.item(request.path_params["item"], kind=_KINDS.get(request.path_params["kind"], ""))
        return found if found and found["workspace"] == request.path_params["group"] else None

    # ------------------------------------------------------------------ operations

    def _long(self, request: Request, work: Callable[[], object]) -> Response:
        """Do it now, and answer as if it took a while."""
        made = {"id": str(uuid.uuid4()), "result": str(uuid.uuid4())}
        document: dict[str, Any] = {**made, "createdTimeUtc": _now(), "status": "Succeeded", "error": None}
        slow = self.service.faults.take("slow_operation", request.url.path)
        document["seconds"] = float(slow.get("seconds", 5)) if slow else _OPERATION_S
        failure = self.service.faults.take("fail_operation", request.url.path)
        try:
            if failure is not None:
                raise ProjectError("operation", 1, failure.get("message", "asked to fail"))  # noqa: TRY301 - one way out
            result = work()
        except (ProjectError, ValueError) as refusal:
            code = (failure or {}).get("code", "InvalidDefinition")
            document |= {"status": "Failed", "error": {"errorCode": code, "message": str(refusal)}}
        else:
            if result is not None:
                self.service.remember_operation({"id": made["result"], "content": result})
                document["has_result"] = True
        self.service.remember_operation(document)
        return Response(status_code=202, headers=_operation_headers(request, made["id"]))

    def operation(self, request: Request, _: Any) -> Response:
        found = self.service.state.get("operation", request.path_params["operation"])
        if found is None or "status" not in found:
            return error(404, "OperationNotFound", "no such operation")
        age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(found["createdTimeUtc"])
        is_done = age.total_seconds() >= found["seconds"]
        body = {
            "status": found["status"] if is_done else "Running",
            "createdTimeUtc": found["createdTimeUtc"],
            "lastUpdatedTimeUtc": _now(),
            "percentComplete": 100 if is_done else 50,
            "error": found["error"] if is_done else None,
        }
        headers = {"x-ms-operation-id": found["id"]}
        if is_done and found.get("has_result"):  # under another id, as was recorded of the service
            base = str(request.base_url).rstrip("/")
            headers = {
                "x-ms-operation-id": found["result"],
                "Location": f"{base}/v1/operations/{found['result']}/result",
            }
        elif not is_done:
            headers |= {"Retry-After": "1", "Location": str(request.url)}
        return answer(body, headers=headers)

    def operation_result(self, request: Request, _: Any) -> Response:
        found = self.service.state.get("operation", request.path_params["operation"])
        if found is None or "content" not in found:
            return error(404, "OperationHasNoResult", "the operation has no result")
        return answer(found["content"])


def _workspace(one: Document) -> dict[str, Any]:
    found = {"id": one["id"], "displayName": one["name"], "description": "", "type": "Workspace"}
    return found | ({"capacityId": one["capacity"]} if one["capacity"] else {})


def _item(one: Document) -> dict[str, Any]:
    return {
        "id": one["id"], "type": one["type"], "displayName": one["displayName"], "description": "",
        "workspaceId": one["workspace"],
    }  # fmt: skip


def _files(body: Any) -> dict[str, str] | None:
    """The parts of an uploaded definition; None where they cannot be read."""
    try:
        return {
            part["path"]: base64.b64decode(part["payload"], validate=True).decode()
            for part in body["definition"]["parts"]
        }
    except (KeyError, TypeError, ValueError):
        return None


def _no_parts() -> Response:
    return error(400, "InvalidDefinitionParts", "definition.parts needs path, payload (base64) and payloadType")


def _no_item(request: Request) -> Response:
    return error(404, "ItemNotFound", f"item {request.path_params['item']} does not exist")


def _operation_headers(request: Request, operation: str) -> dict[str, str]:
    base = str(request.base_url).rstrip("/")
    return {"Location": f"{base}/v1/operations/{operation}", "x-ms-operation-id": operation, "Retry-After": "1"}


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
