"""Power BI's REST for one semantic model: refreshes, queries, parameters, sources and their credentials.

Here: answers in the service's shape. Not here: what a refresh does (refreshes.py), tokens (app.py).
"""

# ruff: noqa: D102 - a handler's route says what it answers

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from powerbi.errors import DaxError, ProjectError
from powerbi.ids import id_of
from powerbi.standin import answers
from powerbi.standin.answers import answer, error

if TYPE_CHECKING:
    from starlette.requests import Request

    from powerbi.standin.answers import Worker
    from powerbi.standin.hosted import Hosted
    from powerbi.standin.service import Service
    from powerbi.standin.state import Document

DATASET = "/v1.0/myorg/groups/{group}/datasets/{dataset}"
_GATEWAY = id_of("cloud gateway")
_SOURCE = "/v1.0/myorg/gateways/{gateway}/datasources/{source}"


class Datasets:
    """Routes below a dataset, and those of its sources."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def routes(self) -> list[tuple[str, str, Worker]]:
        """Path, method and who answers it."""
        return [
            ("/v1.0/myorg/groups/{group}/datasets", "GET", self.datasets),
            (DATASET, "GET", self.dataset),
            (DATASET + "/refreshes", "GET", self.history),
            (DATASET + "/refreshes", "POST", self.refresh),
            (DATASET + "/refreshes/{refresh}", "GET", self.refresh_detail),
            (DATASET + "/refreshes/{refresh}", "DELETE", self.cancel),
            (DATASET + "/executeQueries", "POST", self.execute_queries),
            (DATASET + "/parameters", "GET", self.parameters),
            (DATASET + "/Default.UpdateParameters", "POST", self.update_parameters),
            (DATASET + "/Default.TakeOver", "POST", self.take_over),
            (DATASET + "/Default.BindToGateway", "POST", self.bind_to_gateway),
            (DATASET + "/datasources", "GET", self.datasources),
            (_SOURCE, "GET", self.source),
            (_SOURCE, "PATCH", self.update_source),
        ]

    def _hosted(self, request: Request) -> Hosted:
        return self.service.hosted(request.path_params["dataset"])

    # ------------------------------------------------------------------ refreshes

    def refresh(self, request: Request, body: Any) -> Response:
        document = self._hosted(request).refreshes.accept(body)
        headers = {"RequestId": str(uuid.uuid4())}
        if document["refreshType"] == "ViaEnhancedApi":
            headers |= {"x-ms-request-id": document["requestId"], "Location": f"{request.url}/{document['requestId']}"}
        return Response(status_code=202, headers=headers)

    def history(self, request: Request, _: Any) -> Response:
        top = int(request.query_params.get("$top", "60"))
        return answer({"value": [answers.history_entry(one) for one in self._hosted(request).refreshes.history(top)]})

    def refresh_detail(self, request: Request, _: Any) -> Response:
        found = self._hosted(request).refreshes.get(request.path_params["refresh"])
        if found is None or found["refreshType"] != "ViaEnhancedApi":
            return error(404, "RefreshNotFound", f"refresh {request.path_params['refresh']} does not exist")
        is_running = found["extendedStatus"] in ("NotStarted", "InProgress")
        return answer(answers.detail(found), status=202 if is_running else 200)

    def cancel(self, request: Request, _: Any) -> Response:
        self._hosted(request).refreshes.cancel(request.path_params["refresh"])
        return Response(status_code=200)

    # ------------------------------------------------------------------ the model

    def datasets(self, request: Request, _: Any) -> Response:
        found = self.service.items(request.path_params["group"], kind="SemanticModel")
        return answer({"value": [self._dataset(one) for one in found]})

    def dataset(self, request: Request, _: Any) -> Response:
        return answer(self._dataset(self.service.item(request.path_params["dataset"]) or {}))

    def _dataset(self, item: Document) -> dict[str, Any]:
        has_roles = bool(self.service.hosted(item["id"]).model.roles)
        return {
            "id": item["id"], "name": item["displayName"], "isRefreshable": True, "configuredBy": "stand-in",
            "addRowsAPIEnabled": False, "isEffectiveIdentityRequired": has_roles,
            "isEffectiveIdentityRolesRequired": has_roles, "isOnPremGatewayRequired": False, "targetStorageMode": "Abf",
        }  # fmt: skip

    def execute_queries(self, request: Request, body: Any) -> Response:
        queries = body.get("queries")
        if not isinstance(queries, list) or len(queries) != 1 or "query" not in queries[0]:
            return error(400, "InvalidRequest", "exactly one query is taken")
        settings = body.get("serializerSettings", {})
        try:
            rows = self._hosted(request).query(queries[0]["query"], user=body.get("impersonatedUserName", ""))
        except DaxError as refusal:
            return error(400, "DatasetExecuteQueriesError", str(refusal))
        if not settings.get("includeNulls", False):
            rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
        return answer({"results": [{"tables": [{"rows": rows}]}]})

    def parameters(self, request: Request, _: Any) -> Response:
        values = self._hosted(request).parameters()
        return answer(
            {"value": [{"name": n, "type": "Text", "currentValue": v, "isRequired": True} for n, v in values.items()]}
        )

    def update_parameters(self, request: Request, body: Any) -> Response:
        hosted = self._hosted(request)
        details = {one["name"]: one["newValue"] for one in body.get("updateDetails", [])}
        unknown = sorted(set(details) - set(hosted.parameters()))
        if unknown or not details:
            return error(400, "InvalidRequest", f"parameters that do not exist: {', '.join(unknown) or 'none given'}")
        try:
            hosted.set_parameters(details)
        except ProjectError as refusal:
            return error(400, "InvalidRequest", str(refusal))
        return Response(status_code=200)

    # ------------------------------------------------------------------ sources

    def take_over(self, _request: Request, _: Any) -> Response:
        return Response(status_code=200)

    def bind_to_gateway(self, request: Request, body: Any) -> Response:
        if not body.get("gatewayObjectId"):
            return error(400, "InvalidRequest", "gatewayObjectId is needed")
        binding = {"gateway": body["gatewayObjectId"], "sources": body.get("datasourceObjectIds", [])}
        item = request.path_params["dataset"]
        self.service.state.put("credential", item, {"type": "Basic", "user": "", **binding})
        return Response(status_code=200)

    def datasources(self, request: Request, _: Any) -> Response:
        item = request.path_params["dataset"]
        bound = self.service.state.get("credential", item) or {}
        one = {
            "datasourceType": "Extension",
            "datasourceId": next(iter(bound.get("sources", [])), item),
            "gatewayId": bound.get("gateway", _GATEWAY),
            "connectionDetails": {"path": "GoogleBigQuery", "kind": "GoogleBigQuery"},
        }
        return answer({"value": [one]})

    def source(self, request: Request, _: Any) -> Response:
        """A source as its owner sees it; without credentials it is not known to the gateway."""
        item = request.path_params["source"]
        found = self.service.state.get("credential", item)
        if found is None or request.path_params["gateway"] != _GATEWAY:
            return error(404, "DMTS_DataSourceNotFoundError", f"data source {item} has no credentials")
        return answer(
            {
                "id": item, "gatewayId": _GATEWAY, "datasourceType": "Extension", "datasourceName": "GoogleBigQuery",
                "connectionDetails": json.dumps({"path": "GoogleBigQuery", "kind": "GoogleBigQuery"}),
                "credentialType": found["type"], "credentialDetails": {"useEndUserOAuth2Credentials": False},
            }
        )  # fmt: skip

    def update_source(self, request: Request, body: Any) -> Response:
        """Take credentials; the secret itself is not kept."""
        item = request.path_params["source"]
        if self.service.item(item, kind="SemanticModel") is None or request.path_params["gateway"] != _GATEWAY:
            return error(404, "DMTS_DataSourceNotFoundError", f"no data source {item}")
        details = body.get("credentialDetails") or {}
        missing = {"credentials", "credentialType", "encryptedConnection", "encryptionAlgorithm", "privacyLevel"}
        missing -= set(details)
        if missing:
            return error(400, "InvalidRequest", f"credentialDetails lacks {', '.join(sorted(missing))}")
        if details["encryptionAlgorithm"] != "None":
            return error(
                400, "DM_GWPipeline_Client_InvalidCredentials", "a cloud source takes encryptionAlgorithm None"
            )
        try:
            given = {one["name"]: one["value"] for one in json.loads(details["credentials"])["credentialData"]}
            key = json.loads(given["password"]) if details["credentialType"] == "Basic" else {}
        except (ValueError, KeyError, TypeError):
            return error(400, "DM_GWPipeline_Client_InvalidCredentials", "the credentials cannot be read")
        if details["credentialType"] == "Basic" and key.get("client_email") != given.get("username"):
            return error(400, "DM_GWPipeline_Gateway_DataSourceAccessError", "the key is not the user's")
        self.service.state.put(
            "credential", item, {"type": details["credentialType"], "user": given.get("username", "")}
        )
        return Response(status_code=200)
