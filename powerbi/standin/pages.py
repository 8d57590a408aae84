"""The report's pages over HTTP: HTML, SVG, PNG, with filters and roles from the address.

Here: addresses. Not here: drawing (powerbi/render), the REST (app.py and its neighbours).
"""

# ruff: noqa: D102 - a handler's route says what it answers

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, RedirectResponse, Response

from powerbi.dax.query import VisualQuery
from powerbi.dax.translate import translate
from powerbi.errors import DaxError
from powerbi.render.page import page_html, page_png, page_svg, selections_of
from powerbi.render.whole import report_html
from powerbi.standin.answers import error

if TYPE_CHECKING:
    from starlette.requests import Request

    from powerbi.standin.answers import Worker
    from powerbi.standin.service import Service


class Pages:
    """Pages of the first report at /report, of any report at /reports/<id>."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def routes(self) -> list[tuple[str, Worker]]:
        """Address and who answers it."""
        return [
            ("/report", self.first_page),
            ("/report.html", self.whole),
            ("/report/{page}", self.page),
            ("/reports/{report}", self.first_page),
            ("/reports/{report}/{page}", self.page),
        ]

    def first_page(self, request: Request, _: Any) -> Response:
        identifier = request.path_params.get("report")
        report = self.service.report_by_id(identifier or self.service.settings.report_id)
        if report is None:
            return error(404, "PowerBIEntityNotFound", f"report {identifier} does not exist")
        base = f"/reports/{identifier}" if identifier else "/report"
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{base}/{report.pages[0].name}{query}")

    def whole(self, request: Request, _: Any) -> Response:
        """Every page in one file that needs no server."""
        connection = self.service.default.copy.reader()
        try:
            reader = self.service.reader(connection, roles=request.query_params.getlist("role"))
            return HTMLResponse(report_html(reader))
        except DaxError as refusal:
            return error(400, "InvalidFilter", str(refusal))
        finally:
            connection.close()

    def page(self, request: Request, _: Any) -> Response:
        identifier = request.path_params.get("report") or self.service.settings.report_id
        name, _, suffix = request.path_params["page"].partition(".")
        report = self.service.report_by_id(identifier)
        page = report.page(name) if report else None
        if page is None or suffix not in ("", "svg", "png"):
            return error(404, "PageNotFound", f"the report has no page {name!r}")
        hosted = self.service.hosted(self.service.model_of_report(identifier))
        roles = request.query_params.getlist("role")
        connection = hosted.copy.reader()
        try:
            selections = selections_of(request.query_params.multi_items(), hosted.model)
            translate(hosted.model, VisualQuery((), (), selections))  # a value that is none is refused once
            reader = self.service.reader(connection, selections=selections, roles=roles, report=identifier)
            reader = replace(reader, kept=tuple(("role", role) for role in roles))
            if suffix == "svg":
                return Response(page_svg(page, reader), media_type="image/svg+xml")
            if suffix == "png":
                return Response(page_png(page, reader), media_type="image/png")
            return HTMLResponse(page_html(page, reader))
        except DaxError as refusal:
            return error(400, "InvalidFilter", str(refusal))
        finally:
            connection.close()
