"""The report's pages kept with its materialization: files beside Dagster's own, the first page in the event itself.

Belongs here: where files go, how long they stay, what the UI shows. Not here: drawing (the service), when (assets.py).
"""

from __future__ import annotations

import base64
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Mapping

# A page is some 100 KB. Under a steady flow the report is refreshed every few seconds: not every state is worth one.
EVERY_S = 300.0
KEPT = 20
# A larger picture is only a file: it would be read with every look at the asset.
INLINE_BYTES = 400_000
TAKEN_AT = "pictures_taken_at"


def is_due(instance: dg.DagsterInstance, report: dg.AssetKey, now: float) -> bool:
    """Whether the last pictures are old enough."""
    records = instance.fetch_materializations(report, limit=1).records
    if not records or records[0].asset_materialization is None:
        return True
    value = records[0].asset_materialization.metadata.get(TAKEN_AT)
    return not isinstance(value, dg.TimestampMetadataValue) or now >= float(value.value) + EVERY_S


def taken_before(instance: dg.DagsterInstance, report: dg.AssetKey) -> dict[str, Any]:
    """The pictures of the last materialization, so that the newest one always shows some."""
    records = instance.fetch_materializations(report, limit=1).records
    found = records[0].asset_materialization if records else None
    names = (TAKEN_AT, "page", "html", "pages")
    return {name: found.metadata[name] for name in names if name in found.metadata} if found else {}


def keep(files: Mapping[str, bytes], folder: Path, run_id: str) -> dict[str, Any]:
    """Write the files to a folder of the run and describe them as metadata; the oldest folders go."""
    now = datetime.now(tz=UTC)
    target = folder / f"{now:%Y%m%dT%H%M%S}-{run_id[:8]}"
    target.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (target / Path(name).name).write_bytes(content)
    for old in sorted(each for each in folder.iterdir() if each.is_dir())[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    pages = [name for name in files if name.endswith(".png")]
    found: dict[str, Any] = {TAKEN_AT: dg.MetadataValue.timestamp(now)}
    if "report.html" in files:
        found["html"] = dg.MetadataValue.path(target / "report.html")
    if pages:
        found["pages"] = dg.MetadataValue.json([str(target / name) for name in pages])
        first = files[pages[0]]
        if len(first) <= INLINE_BYTES:
            found["page"] = dg.MetadataValue.md(
                f"![{pages[0]}](data:image/png;base64,{base64.b64encode(first).decode()})"
            )
    return found
