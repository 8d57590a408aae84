"""The report as pictures and as a file, for whoever keeps them: exported by the service, which draws them itself.

Here: asking for an export and following it. Not here: drawing (render/), where the files are kept (whoever calls).

Export to file needs Premium, Embedded or Fabric; a shared capacity refuses it. A file of HTML is the stand-in's own.
"""

from __future__ import annotations

import io
import time
import zipfile
from typing import TYPE_CHECKING

from powerbi.errors import ServiceError
from powerbi.rest import Client, answer, credential_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from powerbi.settings import PowerBiSettings

_TIMEOUT_S = 300.0
_POLLS_S = (0.2, 0.5, 1.0, 2.0, 5.0)


def export_report(
    settings: PowerBiSettings, *, client: Client | None = None, clock: Callable[[], float] = time.monotonic
) -> dict[str, bytes]:
    """Every page as a PNG, and from the stand-in the whole report as HTML, by file name, in the report's order.

    Raises:
        ServiceError: there is no report of this model, its capacity does not export, or the export failed.
    """
    client = client or Client(settings, credential_of(settings))
    report = _report(client)
    base = client.group(f"/reports/{report}")
    export = answer(client.send("POST", f"{base}/ExportTo", {"format": "PNG"}, is_repeatable=True), "id")["id"]
    _follow(client, f"{base}/exports/{export}", clock)
    content = client.send("GET", f"{base}/exports/{export}/file").content
    files = _unpacked(content)
    if settings.is_standin:
        files["report.html"] = client.send("GET", f"{settings.api_url}/report.html").content
    return files


def _report(client: Client) -> str:
    """The report that shows the model, the oldest where there are several."""
    for one in answer(client.send("GET", client.group("/reports")), "value")["value"]:
        if str(one.get("datasetId", "")).lower() == client.settings.dataset_id.lower():
            return str(one["id"])
    raise ServiceError(
        f"no report of semantic model {client.settings.dataset_id} in workspace {client.settings.workspace_id};"
        " nothing was exported. `powerbi apply` creates it."
    )


def _follow(client: Client, url: str, clock: Callable[[], float]) -> None:
    began, polls = clock(), iter(_POLLS_S)
    while True:
        state = client.send("GET", url)
        status = answer(state, "status")["status"]
        if status == "Succeeded":
            return
        if status not in ("NotStarted", "Running", "Undefined"):
            raise ServiceError(f"the export of the report ended as {status}: {state.text[:300]}. Nothing was kept.")
        if clock() - began > _TIMEOUT_S:
            raise ServiceError(f"the export of the report has not ended after {_TIMEOUT_S:.0f} s. Nothing was kept.")
        client.sleep(float(state.headers.get("Retry-After") or next(polls, _POLLS_S[-1])))


def _unpacked(content: bytes) -> dict[str, bytes]:
    """PNGs of several pages come as a zip, a single one as it is."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return {"page.png": content}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        return {name.replace("\\", "/").rsplit("/", 1)[-1]: archive.read(name) for name in names}
