"""HTTP of the stand-in: which route is answered by whom, tokens, faults, status codes.

Here: what surrounds every answer. Not here: the answers (datasets.py, workspaces.py, items.py, pages.py).
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from powerbi.standin.answers import answer, error
from powerbi.standin.datasets import Datasets
from powerbi.standin.exports import Exports
from powerbi.standin.faults import KINDS
from powerbi.standin.items import Items
from powerbi.standin.pages import Pages
from powerbi.standin.refreshes import RequestRefusedError
from powerbi.standin.workspaces import Workspaces

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Receive, Scope, Send

    from powerbi.standin.answers import Worker
    from powerbi.standin.service import Service

Handler = Callable[[Request], Awaitable[Response]]


def create_app(service: Service) -> Starlette:
    """The application for a service that is open."""
    return Starlette(routes=_Routes(service).all())


class _Dropped(Response):
    """An answer that breaks off: what was asked for was done, and nobody is told."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"1")]})


class _Routes:
    def __init__(self, service: Service) -> None:
        self.service = service

    def all(self) -> list[Route]:
        groups: Iterable[Any] = (
            Datasets(self.service), Workspaces(self.service), Items(self.service), Exports(self.service)
        )  # fmt: skip
        api = [route for group in groups for route in group.routes()]
        pages = Pages(self.service)
        routes = [Route(path, self.guarded(worker), methods=[method]) for path, method, worker in api]
        routes += [Route(path, self.open(worker)) for path, worker in pages.routes()]
        routes += [
            Route("/", lambda _: RedirectResponse("/report")),
            Route("/healthz", self.open(lambda _request, _body: answer({"status": "ok"}))),
            Route("/status", self.open(lambda _request, _body: answer(self.service.status()))),
            Route("/standin/faults", self.open(self.faults), methods=["POST", "DELETE"]),
        ]
        return routes

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
                done = await run_in_threadpool(worker, request, body)
            except RequestRefusedError as refusal:
                return error(refusal.status, refusal.code, str(refusal))
            is_lost = self.service.faults.take("drop", f"{request.method} {request.url.path}") is not None
            return _Dropped() if is_lost else done

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
        group, dataset = request.path_params.get("group"), request.path_params.get("dataset")
        if group is not None and self.service.workspace(group) is None:
            return error(404, "PowerBIEntityNotFound", f"workspace {group} does not exist or is not shared with you")
        if dataset is not None:
            found = self.service.item(dataset, kind="SemanticModel")
            if found is None or found["workspace"] != group:
                return error(404, "PowerBIEntityNotFound", f"dataset {dataset} does not exist in workspace {group}")
        return None

    def faults(self, request: Request, body: Any) -> Response:
        if request.method == "DELETE":
            self.service.faults.clear()
            return Response(status_code=204)
        if not isinstance(body, dict) or body.get("kind") not in KINDS:
            return error(400, "InvalidRequest", f"kind must be one of {', '.join(sorted(KINDS))}")
        self.service.faults.add(body)
        return Response(status_code=204)


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


def project_folder() -> Path:
    """The project that comes with this package."""
    return Path(__file__).parent.parent
