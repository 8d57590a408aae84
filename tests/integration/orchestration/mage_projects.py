"""Mage projects made up for a test: a pipeline, and for each block its type, what it reads, and its function."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orchestration.mage_spec import RUNNABLE, MageProject, load_project

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Block = tuple[str, list[str], str] | tuple[str, list[str], str, dict[str, Any]]
"""Type, upstream blocks, code below the decorator (a whole query for a SQL block), and more fields of its metadata."""

LOAD: Block = (
    "data_loader",
    [],
    "def load(*a, **k):\n    import pandas as pd\n    return pd.DataFrame({'n': [1, 2, 3]})\n",
)


def write_project(root: Path, uuid: str, blocks: Mapping[str, Block], **fields: Any) -> MageProject:
    """Write a pipeline into the project at `root`; `fields` are more of its metadata."""
    listed = []
    for name, (kind, upstream, code, *more) in blocks.items():
        block = {"uuid": name, "name": name, "type": kind, "language": "python", **(more[0] if more else {})}
        downstream = [other for other, (_, read, *_) in blocks.items() if name in read]
        listed.append({**block, "upstream_blocks": upstream, "downstream_blocks": downstream})
        is_sql = block["language"] == "sql"
        path = root / RUNNABLE[kind] / f"{name}.{'sql' if is_sql else 'py'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code if is_sql else f"@{kind}\n{code}")
    pipeline = root / "pipelines" / uuid / "metadata.yaml"
    pipeline.parent.mkdir(parents=True)
    pipeline.write_text(json.dumps({"uuid": uuid, "name": uuid, "type": "python", "blocks": listed, **fields}))
    (root / "metadata.yaml").write_text("project_type: standalone\nhelp_improve_mage: false\n")
    return load_project(root)
