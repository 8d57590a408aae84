"""HTTP of the stand-in: the REST subset of Power BI and Fabric, the report's pages, health and status.

Here: routes, tokens, faults, status codes. Not here: what the answers contain (service.py, refreshes.py).
"""

# ruff: noqa: E501 - answers side by side

from __future__ import annotations

import base64
import datetime as dt
import json
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from powerbi.dax.query import VisualQuery
from powerbi.dax.translate import translate
from powerbi.errors import DaxError, ProjectError
from powerbi.render.page import page_html, page_png, page_svg, selections_of
from powerbi.standin import answers
from powerbi.standin.answers import answer, error
from powerbi.standin.faults import KINDS
from powerbi.standin.refreshes import RequestRefusedError

if TYPE_CHECKING:
    from powerbi.standin.service import Service

Handler = Callable[[Request], Awaitable[Response]]
Worker = Callable[[Request, Any], Response]
_OPERATION_SECONDS = 0.2  # a definition is taken at once; the operation still takes a moment, as the service's do
_GROUP = "/v1.0/myorg/groups/{group}"
_DATASET = _GROUP + "/datasets/{dataset}"


def create_app(service: Service) -> Starlette:
    """The application for a service that is open."""
    return Starlette(routes=_Routes(service).all())


class _Routes:
    def __init__(self, service: Service) -> None:
        self.service = service

    def all(self) -> list[Route]:
        api = [
            ("/v1.0/myorg/groups", "GET", self.groups),
            (_GROUP + "/datasets", "GET", self.datasets),
            (_DATASET, "GET", self.dataset),
            (_DATASET + "/refreshes", "GET", self.history),
            (_DATASET + "/refreshes", "POST", self.refresh),
            (_DATASET + "/refreshes/{refresh}", "GET", self.refresh_detail),
            (_DATASET + "/refreshes/{refresh}", "DELETE", self.cancel),
            (_DATASET + "/executeQueries", "POST", self.execute_queries),
            (_DATASET + "/parameters", "GET", self.parameters),
            (_DATASET + "/Default.UpdateParameters", "POST", self.update_parameters),
            (_DATASET + "/Default.TakeOver", "POST", self.take_over),
            (_DATASET + "/datasources", "GET", self.datasources),
            (_DATASET + "/users", "GET", self.dataset_users),
            (_DATASET + "/users", "POST", self.put_dataset_user),
            (_DATASET + "/users", "PUT", self.put_dataset_user),
            (_GROUP + "/users", "GET", self.group_users),
            (_GROUP + "/users", "POST", self.put_group_user),
            (_GROUP + "/users", "PUT", self.put_group_user),
            (_GROUP + "/users/{user}", "DELETE", self.delete_group_user),
            (_GROUP + "/reports", "GET", self.reports),
            ("/v1/workspaces", "GET", self.workspaces),
            ("/v1/workspaces/{group}", "GET", self.workspace),
            ("/v1/workspaces/{group}/items", "GET", self.items),
            ("/v1/workspaces/{group}/{kind:str}/{item}/updateDefinition", "POST", self.update_definition),
            ("/v1/workspaces/{group}/{kind:str}/{item}/getDefinition", "POST", self.get_definition),
            ("/v1/operations/{operation}", "GET", self.operation),
            ("/v1/operations/{operation}/result", "GET", self.operation_result),
        ]
        routes = [Route(path, self.guarded(worker), methods=[method]) for path, method, worker in api]
        routes += [
            Route("/", lambda _: RedirectResponse("/report")),
            Route("/healthz", self.open(self.health)),
            Route("/status", self.open(self.status)),
            Route("/report", self.open(self.first_page)),
            Route("/report/{page}", self.open(self.page)),
            Route("/standin/faults", self.open(self.faults), methods=["POST", "DELETE"]),
        ]
        return routes

    # ------------------------------------------------------------------ around every answer

    def open(self, worker: Worker) -> Handler:
        """A route of the stand-in's own: no token."""

        async def handle(request: Request) -> Response:
            body = await _body(request)
            return await run_in_threadpool(worker, request, body)

        return handle

    def guarded(self, worker: Worker) -> Handler:
        """A route of the service: faults first, then the token, then the ids."""

        async def handle(request: Request) -> Response:
            refused = self._fault(request) or _token_error(request) or self._unknown(request)
            if refused is not None:
                return refused
            body = await _body(request)
            if body is None:
                return error(400, "InvalidRequest", "the body is not JSON")
            try:
                return await run_in_threadpool(worker, request, body)
            except RequestRefusedError as refusal:
                return error(refusal.status, refusal.code, str(refusal))

        return handle

    def _fault(self, request: Request) -> Response | None:
        faults, path = self.service.faults, f"{request.method} {request.url.path}"
        if (fault := faults.take("throttle", path)) is not None:
            return error(
                429, "TooManyRequests", "too many requests", headers={"Retry-After": str(fault.get("retry_after", 1))}
            )
        if (fault := faults.take("status", path)) is not None:
            return error(int(fault["status"]), fault.get("code", "ServiceError"), fault.get("message", "asked to fail"))
        if faults.take("expire_tokens", path) is not None:
            return error(403, "TokenExpired", "Access token has expired, resubmit with a new access token")
        return None

    def _unknown(self, request: Request) -> Response | None:
        settings = self.service.settings
        group, dataset = request.path_params.get("group"), request.path_params.get("dataset")
        if group not in (None, settings.workspace_id):
            return error(404, "PowerBIEntityNotFound", f"workspace {group} does not exist or is not shared with you")
        if dataset not in (None, settings.dataset_id):
            return error(404, "PowerBIEntityNotFound", f"dataset {dataset} does not exist in workspace {group}")
        return None

    # ------------------------------------------------------------------ refreshes

    def refresh(self, request: Request, body: Any) -> Response:
        document = self.service.refreshes.accept(body)
        headers = {"RequestId": str(uuid.uuid4())}
        if document["refreshType"] == "ViaEnhancedApi":
            headers |= {"x-ms-request-id": document["requestId"], "Location": f"{request.url}/{document['requestId']}"}
        return Response(status_code=202, headers=headers)

    def history(self, request: Request, _: Any) -> Response:
        top = int(request.query_params.get("$top", "60"))
        return answer({"value": [answers.history_entry(one) for one in self.service.refreshes.history(top)]})

    def refresh_detail(self, request: Request, _: Any) -> Response:
        found = self.service.state.get("refresh", request.path_params["refresh"])
        if found is None or found["refreshType"] != "ViaEnhancedApi":
            return error(404, "RefreshNotFound", f"refresh {request.path_params['refresh']} does not exist")
        is_running = found["extendedStatus"] in ("NotStarted", "InProgress")
        return answer(answers.detail(found), status=202 if is_running else 200)

    def cancel(self, request: Request, _: Any) -> Response:
        self.service.refreshes.cancel(request.path_params["refresh"])
        return Response(status_code=200)

    # ------------------------------------------------------------------ dataset

    def groups(self, _request: Request, _: Any) -> Response:
        group = {
            "id": self.service.settings.workspace_id,
            "isReadOnly": False,
            "isOnDedicatedCapacity": not self.service.settings.is_shared,
            "name": "Retail",
            "type": "Workspace",
        }
        return answer({"value": [group]})

    def datasets(self, _request: Request, _: Any) -> Response:
        return answer({"value": [self._dataset()]})

    def dataset(self, _request: Request, _: Any) -> Response:
        return answer(self._dataset())

    def _dataset(self) -> dict[str, Any]:
        has_roles = bool(self.service.model.roles)
        return {
            "id": self.service.settings.dataset_id, "name": "Retail", "isRefreshable": True, "configuredBy": "stand-in",
            "addRowsAPIEnabled": False, "isEffectiveIdentityRequired": has_roles, "isEffectiveIdentityRolesRequired": has_roles,
            "isOnPremGatewayRequired": False, "targetStorageMode": "Abf",
        }  # fmt: skip

    def execute_queries(self, _request: Request, body: Any) -> Response:
        queries = body.get("queries")
        if not isinstance(queries, list) or len(queries) != 1 or "query" not in queries[0]:
            return error(400, "InvalidRequest", "exactly one query is taken")
        settings = body.get("serializerSettings", {})
        try:
            rows = self.service.query(queries[0]["query"], user=body.get("impersonatedUserName", ""))
        except DaxError as refusal:
            return error(400, "DatasetExecuteQueriesError", str(refusal))
        if not settings.get("includeNulls", False):
            rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
        return answer({"results": [{"tables": [{"rows": rows}]}]})

    def parameters(self, _request: Request, _: Any) -> Response:
        values = self.service.project().parameters
        return answer(
            {"value": [{"name": n, "type": "Text", "currentValue": v, "isRequired": True} for n, v in values.items()]}
        )

    def update_parameters(self, _request: Request, body: Any) -> Response:
        known = self.service.project().parameters
        details = {one["name"]: one["newValue"] for one in body.get("updateDetails", [])}
        unknown = sorted(set(details) - set(known))
        if unknown or not details:
            return error(400, "InvalidRequest", f"parameters that do not exist: {', '.join(unknown) or 'none given'}")
        values = (self.service.state.get("parameters", "values") or {}).get("values", {})
        self.service.state.put("parameters", "values", {"values": values | details})
        return Response(status_code=200)

    def take_over(self, _request: Request, _: Any) -> Response:
        return Response(status_code=200)

    def datasources(self, _request: Request, _: Any) -> Response:
        one = {
            "datasourceType": "Extension", "datasourceId": self.service.settings.dataset_id, "gatewayId": self.service.settings.workspace_id,
            "connectionDetails": {"extensionDataSourceKind": "GoogleBigQuery", "extensionDataSourcePath": "GoogleBigQuery"},
        }  # fmt: skip
        return answer({"value": [one]})

    def reports(self, _request: Request, _: Any) -> Response:
        settings = self.service.settings
        one = {
            "id": settings.report_id,
            "name": "Retail",
            "datasetId": settings.dataset_id,
            "reportType": "PowerBIReport",
            "webUrl": "/report",
        }
        return answer({"value": [one]})

    # ------------------------------------------------------------------ users

    def group_users(self, _request: Request, _: Any) -> Response:
        return answer({"value": self.service.state.all("group_user")})

    def put_group_user(self, request: Request, body: Any) -> Response:
        return self._put_user(
            request, body, "group_user", "groupUserAccessRight", {"Admin", "Member", "Contributor", "Viewer", "None"}
        )

    def delete_group_user(self, request: Request, _: Any) -> Response:
        if not self.service.state.delete("group_user", request.path_params["user"]):
            return error(404, "PowerBIEntityNotFound", "no such user in this workspace")
        return Response(status_code=200)

    def dataset_users(self, _request: Request, _: Any) -> Response:
        return answer({"value": self.service.state.all("dataset_user")})

    def put_dataset_user(self, request: Request, body: Any) -> Response:
        rights = {
            "None",
            "Read",
            "ReadReshare",
            "ReadExplore",
            "ReadReshareExplore",
            "ReadWrite",
            "ReadWriteReshare",
            "ReadWriteExplore",
            "ReadWriteReshareExplore",
        }
        return self._put_user(request, body, "dataset_user", "datasetUserAccessRight", rights)

    def _put_user(self, request: Request, body: Any, kind: str, right: str, rights: set[str]) -> Response:
        key = body.get("identifier") or body.get("emailAddress")
        if not key or body.get(right) not in rights or body.get("principalType") not in ("User", "Group", "App"):
            return error(400, "InvalidRequest", f"a user needs identifier, principalType and {right}")
        exists = self.service.state.get(kind, key) is not None
        if request.method == "POST" and exists and kind == "group_user":
            return error(
                400, "AddingAlreadyExistsGroupUserNotSupportedError", f"{key} is a user of this workspace already"
            )
        if request.method == "PUT" and not exists:
            return error(404, "PowerBIEntityNotFound", f"{key} is no user here")
        if body[right] == "None":
            self.service.state.delete(kind, key)
        else:
            self.service.state.put(
                kind, key, {"identifier": key, "principalType": body["principalType"], right: body[right]}
            )
        return Response(status_code=200)

    # ------------------------------------------------------------------ Fabric

    def workspaces(self, _request: Request, _: Any) -> Response:
        return answer({"value": [self._workspace()]})

    def workspace(self, _request: Request, _: Any) -> Response:
        return answer(self._workspace())

    def _workspace(self) -> dict[str, Any]:
        return {
            "id": self.service.settings.workspace_id,
            "displayName": "Retail",
            "description": "",
            "type": "Workspace",
        }

    def items(self, request: Request, _: Any) -> Response:
        settings = self.service.settings
        listed = [(settings.dataset_id, "SemanticModel"), (settings.report_id, "Report")]
        wanted = request.query_params.get("type")
        return answer(
            {
                "value": [
                    {
                        "id": i,
                        "type": t,
                        "displayName": "Retail",
                        "description": "",
                        "workspaceId": settings.workspace_id,
                    }
                    for i, t in listed
                    if wanted in (None, t)
                ]
            }
        )

    def _kind(self, request: Request) -> str | None:
        settings = self.service.settings
        return {settings.dataset_id: "model", settings.report_id: "report"}.get(request.path_params["item"])

    def update_definition(self, request: Request, body: Any) -> Response:
        kind = self._kind(request)
        if kind is None:
            return error(404, "ItemNotFound", f"item {request.path_params['item']} does not exist")
        try:
            files = {
                part["path"]: base64.b64decode(part["payload"], validate=True).decode()
                for part in body["definition"]["parts"]
            }
        except (KeyError, TypeError, ValueError):
            return error(400, "InvalidDefinitionParts", "definition.parts needs path, payload (base64) and payloadType")
        operation = str(uuid.uuid4())
        document: dict[str, Any] = {"id": operation, "createdTimeUtc": _now(), "status": "Succeeded", "error": None}
        try:
            if kind == "report" and "byPath" in json.loads(files.get("definition.pbir", "{}")).get(
                "datasetReference", {}
            ):
                raise ProjectError("definition.pbir", 1, "the service takes byConnection only")  # noqa: TRY301 - one way out for every fault
            self.service.define(kind, files)
        except (ProjectError, ValueError) as failure:
            document |= {"status": "Failed", "error": {"errorCode": "InvalidDefinition", "message": str(failure)}}
        self.service.state.put("operation", operation, document)
        return Response(status_code=202, headers=_operation_headers(request, operation))

    def get_definition(self, request: Request, _: Any) -> Response:
        kind = self._kind(request)
        found = self.service.state.get("definition", kind or "")
        if found is None:
            return error(404, "ItemNotFound", f"item {request.path_params['item']} does not exist")
        parts = [
            {"path": path, "payload": base64.b64encode(text.encode()).decode(), "payloadType": "InlineBase64"}
            for path, text in found["files"].items()
        ]
        operation = str(uuid.uuid4())
        self.service.state.put(
            "operation",
            operation,
            {
                "id": operation,
                "createdTimeUtc": _now(),
                "status": "Succeeded",
                "error": None,
                "result": {"definition": {"parts": parts}},
            },
        )
        return Response(status_code=202, headers=_operation_headers(request, operation))

    def operation(self, request: Request, _: Any) -> Response:
        found = self.service.state.get("operation", request.path_params["operation"])
        if found is None:
            return error(404, "OperationNotFound", "no such operation")
        age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(found["createdTimeUtc"])
        is_done = age.total_seconds() >= _OPERATION_SECONDS
        body = {
            "status": found["status"] if is_done else "Running",
            "createdTimeUtc": found["createdTimeUtc"],
            "lastUpdatedTimeUtc": _now(),
            "percentComplete": 100 if is_done else 50,
            "error": found["error"] if is_done else None,
        }
        headers = {"x-ms-operation-id": found["id"]}
        if is_done and "result" in found:
            headers["Location"] = f"{str(request.base_url).rstrip('/')}/v1/operations/{found['id']}/result"
        elif not is_done:
            headers |= {"Retry-After": "1", "Location": str(request.url)}
        return answer(body, headers=headers)

    def operation_result(self, request: Request, _: Any) -> Response:
        found = self.service.state.get("operation", request.path_params["operation"])
        if found is None or "result" not in found:
            return error(404, "OperationHasNoResult", "the operation has no result")
        return answer(found["result"])

    # ------------------------------------------------------------------ the stand-in's own

    def health(self, _request: Request, _: Any) -> Response:
        return answer({"status": "ok"})

    def status(self, _request: Request, _: Any) -> Response:
        return answer(self.service.status())

    def faults(self, request: Request, body: Any) -> Response:
        if request.method == "DELETE":
            self.service.faults.clear()
            return Response(status_code=204)
        if not isinstance(body, dict) or body.get("kind") not in KINDS:
            return error(400, "InvalidRequest", f"kind must be one of {', '.join(sorted(KINDS))}")
        self.service.faults.add(body)
        return Response(status_code=204)

    def first_page(self, request: Request, _: Any) -> Response:
        return RedirectResponse(
            f"/report/{self.service.report.pages[0].name}" + (f"?{request.url.query}" if request.url.query else "")
        )

    def page(self, request: Request, _: Any) -> Response:
        name, _, suffix = request.path_params["page"].partition(".")
        page = self.service.report.page(name)
        if page is None or suffix not in ("", "svg", "png"):
            return error(404, "PageNotFound", f"the report has no page {name!r}")
        selections = selections_of(request.query_params.multi_items(), self.service.model)
        roles = request.query_params.getlist("role")
        connection = self.service.copy.reader()
        try:
            translate(self.service.model, VisualQuery((), (), selections))  # a value that is none is refused once
            reader = self.service.reader(connection, selections=selections, roles=roles)
            if suffix == "svg":
                return Response(page_svg(page, reader), media_type="image/svg+xml")
            if suffix == "png":
                return Response(page_png(page, reader), media_type="image/png")
            return HTMLResponse(page_html(page, reader))
        except DaxError as refusal:
            return error(400, "InvalidFilter", str(refusal))
        finally:
            connection.close()


async def _body(request: Request) -> Any:
    raw = await request.body()
    if not raw:
        return {}
    try:
        return json.loads(raw)
    except json.JSONDecodeError:
        return None


def _token_error(request: Request) -> Response | None:
    """401 without a bearer token, 403 with one that has expired; a token's signature is not looked at."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    parts = token.split(".")
    if scheme.lower() != "bearer" or len(parts) != 3:  # noqa: PLR2004 - the number says itself
        return error(401, "PowerBINotAuthorizedException", "a bearer token is needed")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expires_at = float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        return error(401, "PowerBINotAuthorizedException", "the token cannot be read")
    if expires_at < dt.datetime.now(dt.UTC).timestamp():
        return error(403, "TokenExpired", "Access token has expired, resubmit with a new access token")
    return None


def _operation_headers(request: Request, operation: str) -> dict[str, str]:
    base = str(request.base_url).rstrip("/")
    return {"Location": f"{base}/v1/operations/{operation}", "x-ms-operation-id": operation, "Retry-After": "1"}


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def project_folder() -> Path:
    """The project that comes with this package."""
    return Path(__file__).parent.parent
