"""The same pipeline by Mage's own command and by Dagster's chain: equal frames after every block, types included."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mage_project.transforms.plan import plan_of
from orchestration.defs.topics import project
from orchestration.errors import MageRunError
from orchestration.mage import run_pipeline
from orchestration.mage_spec import load_project
from tests.integration.orchestration.landing import HandLanding, odd_events
from tests.integration.orchestration.test_load_days import core_rows

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning:mage_ai")]

# Mage's own command, then its own store of the blocks' outputs, read back by its own variable manager.
BY_MAGE = """
import json, sys
from mage_ai.cli.main import app
root, folder, variables, blocks = sys.argv[1:]
sys.argv = ["mage", "run", root, "retail_invoices", "--runtime-vars", variables]
try:
    app()
except SystemExit as stop:
    if stop.code:
        raise
import pyarrow.feather
from mage_ai.data_preparation.models.pipeline import Pipeline
pipeline = Pipeline.get("retail_invoices", repo_path=root)
for block in json.loads(blocks):
    [output] = pipeline.get_block(block).output_variables() or ["output_0"]
    table = pipeline.variable_manager.get_variable("retail_invoices", block, output)
    with pyarrow.ipc.new_file(f"{folder}/{block}.arrow", table.schema) as file:
        file.write_table(table)
"""
FRAMES = ["load_landed_events", "parse_events", "classify_lines", "price_lines"]


def test_mages_own_run_and_ours_give_equal_frames_after_each_block(
    landing: HandLanding, line_env: dict[str, str], warehouse: Any, tmp_path: Path
) -> None:
    landing.land(odd_events())
    copy = tmp_path / "mage_project"  # Mage writes each block's status into the pipeline's file
    shutil.copytree(project().root, copy, ignore=shutil.ignore_patterns("__pycache__"))
    frames = tmp_path / "frames"
    frames.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BY_MAGE, str(copy), str(frames), json.dumps({"day": "2010-12-01"}), json.dumps(FRAMES)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(project().root.parent), **line_env},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    written = core_rows(warehouse)
    assert len(written) == 4

    kept: dict[str, Any] = {}
    ours = run_pipeline(
        project(),
        project().pipeline("retail_invoices"),
        {"day": "2010-12-01", "mode": "rebuild"},
        keep=kept.__setitem__,
    )
    assert ours.failed is None
    for block in FRAMES:
        theirs = pa.ipc.open_file(frames / f"{block}.arrow").read_all()
        assert theirs.schema.equals(kept[block].schema, check_metadata=False), block
        assert theirs.equals(kept[block]), block
        assert plan_of(theirs).rows_read == plan_of(kept[block]).rows_read == 4
    assert core_rows(warehouse) == written


def test_an_edit_in_mages_folder_is_live_in_the_next_run(tmp_path: Path, line_env: dict[str, str]) -> None:
    root = scaffold(tmp_path)
    spec = load_project(root)
    first = run_pipeline(spec, spec.pipeline("numbers"), {})
    block = root / "transformers" / "double.py"
    block.write_text(block.read_text().replace("* 2", "* 10"))
    second = run_pipeline(spec, spec.pipeline("numbers"), {})
    assert (first.outputs["keep"], second.outputs["keep"]) == ({"sum": 12}, {"sum": 60})


def test_a_block_that_exits_fails_the_run_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGE_DATA_DIR", str(tmp_path / "mage"))
    root = scaffold(tmp_path)
    block = root / "transformers" / "double.py"
    block.write_text(block.read_text().replace("    return df.assign(n=df.n * 2)", "    raise SystemExit(3)"))
    spec = load_project(root)
    with pytest.raises(MageRunError, match=r"numbers/double .*double\.py:3\): SystemExit: 3 \[Nothing was written"):
        run_pipeline(spec, spec.pipeline("numbers"), {})


def test_a_failed_test_of_a_block_keeps_the_exporter_from_running(tmp_path: Path, line_env: dict[str, str]) -> None:
    root = scaffold(tmp_path)
    block = root / "transformers" / "double.py"
    block.write_text(block.read_text().replace("* 2", "* 0"))
    spec = load_project(root)
    run = run_pipeline(spec, spec.pipeline("numbers"), {})
    assert run.failed is not None
    assert run.failed.name == "test_it_grew"
    assert "double.py:" in run.failed.message
    assert "keep" not in run.outputs


def scaffold(tmp_path: Path) -> Path:
    """A project that knows nothing of ours: pandas frames, a branch, a join, a test that takes no variables."""
    root = tmp_path / "numbers_project"
    blocks = {
        "data_loaders/load": "@data_loader\ndef load(*args, **kwargs):\n"
        "    import pandas as pd\n    return pd.DataFrame({'n': [1, 2, 3]})\n",
        "transformers/double": "@transformer\ndef double(df, *args, **kwargs):\n    return df.assign(n=df.n * 2)\n\n\n"
        "@test\ndef test_it_grew(df) -> None:\n    assert df.n.sum() > 6, 'nothing grew'\n",
        "transformers/same": "@transformer\ndef same(df, *args, **kwargs):\n    return df\n",
        "data_exporters/keep": "@data_exporter\ndef keep(doubled, same, *args, **kwargs):\n"
        "    assert list(same.n) == [1, 2, 3]\n    return {'sum': int(doubled.n.sum())}\n",
    }
    for name, code in blocks.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    reads = {"load": [], "double": ["load"], "same": ["load"], "keep": ["double", "same"]}
    kinds = {"load": "data_loader", "double": "transformer", "same": "transformer", "keep": "data_exporter"}
    listed = [
        {
            "uuid": uuid,
            "name": uuid,
            "type": kinds[uuid],
            "language": "python",
            "upstream_blocks": upstream,
            "downstream_blocks": [each for each, read in reads.items() if uuid in read],
        }
        for uuid, upstream in reads.items()
    ]
    pipeline = root / "pipelines" / "numbers" / "metadata.yaml"
    pipeline.parent.mkdir(parents=True)
    pipeline.write_text(json.dumps({"uuid": "numbers", "name": "numbers", "type": "python", "blocks": listed}))
    (root / "metadata.yaml").write_text("project_type: standalone\nhelp_improve_mage: false\n")
    return root
