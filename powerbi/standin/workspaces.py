"""Power BI's REST for workspaces, their users and a model's users.

Here: answers in the service's shape. Not here: Fabric's items (items.py), tokens (app.py).
"""

# ruff: noqa: D102 - a handler's route says what it answers

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from powerbi.standin.answers import answer, error
from powerbi.standin.datasets import DATASET

if TYPE_CHECKING:
    from starlette.requests import Request

    from powerbi.standin.answers import Worker
    from powerbi.standin.service import Service

_GROUP = "/v1.0/myorg/groups/{group}"
_WORKSPACE_RIGHTS = {"Admin", "Member", "Contributor", "Viewer", "None"}
_GRANTED_RIGHTS = {"Read", "ReadReshare", "ReadExplore", "ReadReshareExplore"}
_INHERITED = {
    "Admin": "ReadWriteReshareExplore",
    "Member": "ReadWriteReshareExplore",
    "Contributor": "ReadWriteExplore",
    "Viewer": "Read",
}


@dataclass(frozen=True)
class _Kind:
    """Users of what: documents' kind, the property of their right, the workspace or model."""

    name: str
    right: str
    scope: str


class Workspaces:
    """Routes of workspaces and of users."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def routes(self) -> list[tuple[str, str, Worker]]:
        """Path, method and who answers it."""
        return [
            ("/v1.0/myorg/groups", "GET", self.groups),
            (_GROUP + "/reports", "GET", self.reports),
            (_GROUP + "/users", "GET", self.group_users),
            (_GROUP + "/users", "POST", self.put_group_user),
            (_GROUP + "/users", "PUT", self.put_group_user),
            (_GROUP + "/users/{user}", "DELETE", self.delete_group_user),
            (DATASET + "/users", "GET", self.dataset_users),
            (DATASET + "/users", "POST", self.put_dataset_user),
            (DATASET + "/users", "PUT", self.put_dataset_user),
        ]

    def groups(self, _request: Request, _: Any) -> Response:
        listed = [
            {
                "id": one["id"], "isReadOnly": False, "isOnDedicatedCapacity": bool(one["capacity"]),
                "name": one["name"], "type": "Workspace",
                **({"capacityId": one["capacity"]} if one["capacity"] else {}),
            }
            for one in self.service.workspaces()
        ]  # fmt: skip
        return answer({"value": listed})

    def reports(self, request: Request, _: Any) -> Response:
        listed = [
            {
                "id": one["id"], "name": one["displayName"], "datasetId": self.service.model_of_report(one["id"]),
                "reportType": "PowerBIReport", "webUrl": f"{str(request.base_url).rstrip('/')}/reports/{one['id']}",
            }
            for one in self.service.items(request.path_params["group"], kind="Report")
        ]  # fmt: skip
        return answer({"value": listed})

    # ------------------------------------------------------------------ users

    def group_users(self, request: Request, _: Any) -> Response:
        return answer({"value": self._users("group_user", request.path_params["group"])})

    def put_group_user(self, request: Request, body: Any) -> Response:
        group = request.path_params["group"]
        return self._put_user(request, body, _Kind("group_user", "groupUserAccessRight", group), _WORKSPACE_RIGHTS)

    def delete_group_user(self, request: Request, _: Any) -> Response:
        group, user = request.path_params["group"], request.path_params["user"]
        if not self.service.state.delete("group_user", f"{group}/{user.lower()}"):
            return error(404, "PowerBIEntityNotFound", "no such user in this workspace")
        return Response(status_code=200)

    def dataset_users(self, request: Request, _: Any) -> Response:
        """Who was granted a right, and who inherits one from the workspace."""
        right = "datasetUserAccessRight"
        found = {
            one["identifier"].lower(): {
                "identifier": one["identifier"], "principalType": one["principalType"],
                right: _INHERITED[one["groupUserAccessRight"]],
            }
            for one in self._users("group_user", request.path_params["group"])
        }  # fmt: skip
        for one in self._users("dataset_user", request.path_params["dataset"]):
            inherited = found.get(one["identifier"].lower())
            if inherited is None or inherited[right] == "Read":
                found[one["identifier"].lower()] = one
        return answer({"value": list(found.values())})

    def put_dataset_user(self, request: Request, body: Any) -> Response:
        rights = _GRANTED_RIGHTS | ({"None"} if request.method == "PUT" else set())
        if request.method == "PUT" and body.get("principalType") == "App":
            return error(400, "InvalidRequest", "updating permissions of service principals is not supported")
        dataset = request.path_params["dataset"]
        return self._put_user(request, body, _Kind("dataset_user", "datasetUserAccessRight", dataset), rights)

    def _users(self, kind: str, scope: str) -> list[dict[str, Any]]:
        listed = [one for one in self.service.state.all(kind) if one["scope"] == scope]
        return [{name: value for name, value in one.items() if name != "scope"} for one in listed]

    def _put_user(self, request: Request, body: Any, kind: _Kind, rights: set[str]) -> Response:
        user, right, is_group = (
            body.get("identifier") or body.get("emailAddress"),
            kind.right,
            kind.name == "group_user",
        )
        if not user or body.get(right) not in rights or body.get("principalType") not in ("User", "Group", "App"):
            return error(400, "InvalidRequest", f"a user needs identifier, principalType and {right}")
        key = f"{kind.scope}/{user.lower()}"
        exists = self.service.state.get(kind.name, key) is not None
        if request.method == "POST" and exists and is_group:
            return error(
                400, "AddingAlreadyExistsGroupUserNotSupportedError", f"{user} is a user of this workspace already"
            )
        if request.method == "PUT" and not exists and is_group:
            return error(404, "PowerBIEntityNotFound", f"{user} is no user here")
        if body[right] == "None":
            self.service.state.delete(kind.name, key)
        else:
            entry = {"identifier": user, "principalType": body["principalType"], right: body[right]}
            self.service.state.put(kind.name, key, entry | {"scope": kind.scope})
        return Response(status_code=200)
