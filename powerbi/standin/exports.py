"""Power BI's export to file: a report's pages as PNGs in one zip, drawn when the export is asked for.

Here: the REST around it. Not here: drawing (powerbi/render). Exports are kept in memory, the newest few.
"""

# ruff: noqa: D102 - a handler's route says what it answers

from __future__ import annotations

import datetime as dt
import io
import threading
import uuid
import zipfile
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from powerbi.render.page import page_png
from powerbi.standin.answers import answer, error

if TYPE_CHECKING:
    from starlette.requests import Request

    from powerbi.standin.answers import Worker
    from powerbi.standin.service import Service

_REPORT = "/v1.0/myorg/groups/{group}/reports/{report}"
_KEPT = 4


class Exports:
    """Routes of exports."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._done: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def routes(self) -> list[tuple[str, str, Worker]]:
        """Path, method and who answers it."""
        return [
            (_REPORT + "/ExportTo", "POST", self.export),
            (_REPORT + "/exports/{export}", "GET", self.state),
            (_REPORT + "/exports/{export}/file", "GET", self.file),
        ]

    def export(self, request: Request, body: Any) -> Response:
        report = request.path_params["report"]
        if self.service.report_by_id(report) is None:
            return error(404, "PowerBIEntityNotFound", f"report {report} does not exist")
        if not (self.service.workspace(request.path_params["group"]) or {}).get("capacity"):
            return error(403, "FeatureNotAvailable", "export to file needs a workspace on a capacity")
        if body.get("format") != "PNG":
            return error(400, "InvalidRequest", f"format {body.get('format')!r} is not exported here; PNG is")
        identifier = str(uuid.uuid4())
        document = {"id": identifier, "report": report, "created": _now(), "status": "Running", "content": b""}
        with self._lock:
            self._done[identifier] = document
            for old in list(self._done)[:-_KEPT]:
                del self._done[old]
        threading.Thread(target=self._draw, args=(document,), name="export", daemon=True).start()
        return answer(self._described(document), status=202)

    def _draw(self, document: dict[str, Any]) -> None:
        try:
            document["content"] = self._zip(document["report"])
            document["status"] = "Succeeded"
        except Exception:
            document["status"] = "Failed"
            raise

    def _zip(self, report: str) -> bytes:
        hosted = self.service.hosted(self.service.model_of_report(report))
        connection = hosted.copy.reader()
        try:
            reader = self.service.reader(connection, report=report)
            content = io.BytesIO()
            with zipfile.ZipFile(content, "w") as archive:
                for page in reader.report.pages:
                    archive.writestr(f"{page.name}.png", page_png(page, reader))
            return content.getvalue()
        finally:
            connection.close()

    def state(self, request: Request, _: Any) -> Response:
        found = self._done.get(request.path_params["export"])
        if found is None:
            return error(404, "ExportNotFound", "no such export")
        is_done = found["status"] in ("Succeeded", "Failed")
        return answer(self._described(found), status=200 if is_done else 202)

    def file(self, request: Request, _: Any) -> Response:
        found = self._done.get(request.path_params["export"])
        if found is None or found["status"] != "Succeeded":
            return error(404, "ExportNotFound", "no such export, or it has not succeeded")
        return Response(found["content"], media_type="application/zip")

    @staticmethod
    def _described(document: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": document["id"], "reportId": document["report"], "reportName": "Retail", "status": document["status"],
            "createdDateTime": document["created"], "lastActionDateTime": document["created"],
            "percentComplete": 100 if document["status"] == "Succeeded" else 50,
            **({"resourceFileExtension": ".zip"} if document["status"] == "Succeeded" else {}),
        }  # fmt: skip


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
