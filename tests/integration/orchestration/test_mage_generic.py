"""Mage projects that are not ours: Mage's own scaffolding, SQL blocks, memory; assets without an edit."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any
from urllib.error import URLError

import dagster as dg
import pandas as pd
import pytest

from orchestration.errors import MageRunError
from orchestration.mage import run_pipeline
from orchestration.mage_assets import build_mage_assets
from orchestration.mage_spec import load_project
from tests.integration.orchestration.mage_projects import write_project

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mage_ai"),
    pytest.mark.filterwarnings("ignore::pandas.errors.SettingWithCopyWarning"),  # Mage's own template does that
]
PASSENGERS = pd.DataFrame(
    {"Age": [22.0, None, 26.0], "Fare": [7.25, 71.28, 7.92], "Parch": 0, "Pclass": 3, "SibSp": 1, "Survived": 1}
)


@pytest.fixture(scope="module")
def scaffolded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mage init` writes: a project with its example pipeline."""
    folder = tmp_path_factory.mktemp("mage")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "mage"), "init", "their_project"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "MAGE_DATA_DIR": str(folder / "data")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "their_project"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Template exporters write into the working directory."""
    monkeypatch.setenv("MAGE_DATA_DIR", str(tmp_path / "mage"))
    monkeypatch.chdir(tmp_path)


def test_mages_own_scaffolding_becomes_assets_that_run_without_an_edit(
    scaffolded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pd, "read_csv", lambda _url: PASSENGERS.copy())  # its loader fetches a file from the internet
    [asset] = build_mage_assets(load_project(scaffolded))
    assert asset.keys == {dg.AssetKey(["example_pipeline", "export_titanic_clean"])}
    result = dg.materialize([asset])
    assert result.success
    written = pd.DataFrame(pd.io.parsers.read_csv(tmp_path / "titanic_clean.csv"))
    assert list(written["Age"]) == [22.0, 26.0, 26.0]
    checks = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert checks == {"load_titanic__test_output": True, "fill_in_missing_values__test_output": True}
    [event] = result.get_asset_materialization_events()
    blocks = [row.data for row in event.step_materialization_data.materialization.metadata["blocks"].value.records]
    assert [(row["block"], row["rows out"]) for row in blocks][:2] == [
        ("load_titanic", 3),
        ("fill_in_missing_values", 3),
    ]


def test_template_block_that_fails_is_named_with_its_line_and_nothing_is_written(
    scaffolded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(_url: str) -> Any:
        raise URLError("no network")

    monkeypatch.setattr(pd, "read_csv", no_network)
    spec = load_project(scaffolded)
    with pytest.raises(
        MageRunError, match=r"example_pipeline/load_titanic \(.*load_titanic\.py:\d+\).*no network.*Nothing was written"
    ):
        run_pipeline(spec, spec.pipeline("example_pipeline"), {})
    assert not (tmp_path / "titanic_clean.csv").exists()


def sql_project(tmp_path: Path) -> Path:
    """A loader, a SQL block that reads its frame, and an exporter that reads the SQL block's."""
    root = tmp_path / "sql_project"
    blocks = {
        "data_loaders/load.py": "@data_loader\ndef load(*args, **kwargs):\n    import pandas as pd\n"
        "    return pd.DataFrame({'n': range(kwargs['rows'])})\n",
        "transformers/add_up.sql": "SELECT SUM(n) AS total, COUNT(*) AS row_count FROM {{ df_1 }}",
        "data_exporters/keep.py": "@data_exporter\ndef keep(df, *args, **kwargs):\n"
        "    return {'total': int(df.total[0]), 'rows': int(df.row_count[0])}\n",
    }
    for name, code in blocks.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    listed = [
        {"uuid": "load", "name": "load", "type": "data_loader", "language": "python", "upstream_blocks": [],
         "downstream_blocks": ["add_up"]},
        {"uuid": "add_up", "name": "add_up", "type": "transformer", "language": "sql", "upstream_blocks": ["load"],
         "downstream_blocks": ["keep"],
         "configuration": {"data_provider": "duckdb", "data_provider_profile": "default",
                           "export_write_policy": "replace"}},
        {"uuid": "keep", "name": "keep", "type": "data_exporter", "language": "python", "upstream_blocks": ["add_up"],
         "downstream_blocks": []},
    ]  # fmt: skip
    pipeline = root / "pipelines" / "sums" / "metadata.yaml"
    pipeline.parent.mkdir(parents=True)
    pipeline.write_text(json.dumps({"uuid": "sums", "name": "sums", "type": "python", "blocks": listed}))
    (root / "metadata.yaml").write_text("project_type: standalone\nhelp_improve_mage: false\n")
    (root / "io_config.yaml").write_text(
        f"version: 0.1.1\ndefault:\n  DUCKDB_DATABASE: {tmp_path / 'sums.duckdb'}\n  DUCKDB_SCHEMA: main\n"
    )
    return root


def test_sql_block_reads_the_frame_of_this_run_never_that_of_an_earlier_one(tmp_path: Path) -> None:
    project = load_project(sql_project(tmp_path))
    outputs = [run_pipeline(project, project.pipeline("sums"), {"rows": rows}).outputs["keep"] for rows in (5, 100, 1)]
    assert outputs == [{"total": 10, "rows": 5}, {"total": 4950, "rows": 100}, {"total": 0, "rows": 1}]


def test_a_frame_is_let_go_once_no_later_block_reads_it(tmp_path: Path) -> None:
    made = "    import pandas as pd\n    return pd.DataFrame({'n': range(3)})\n"
    blocks = {
        "load": ("data_loader", [], f"def load(*args, **kwargs):\n{made}"),
        "left": ("transformer", ["load"], "def left(df, *args, **kwargs):\n    return df + 1\n"),
        "right": ("transformer", ["load"], "def right(df, *args, **kwargs):\n    return df * 10\n"),
        "join": ("transformer", ["left", "right"], "def join(a, b, *args, **kwargs):\n    return a + b\n"),
        "keep": ("data_exporter", ["join"], "def keep(df, *args, **kwargs):\n    return {'sum': int(df.n.sum())}\n"),
        "last": ("data_exporter", ["right"], "def last(df, *args, **kwargs):\n    return df + 2\n"),
    }
    write_project(tmp_path / "project", "branches", blocks)
    project = load_project(tmp_path / "project")
    frames: dict[str, weakref.ref[Any]] = {}
    alive: dict[str, set[str]] = {}

    def look(block: str, output: Any) -> None:
        gc.collect()
        alive[block] = {name for name, frame in frames.items() if frame() is not None}
        if isinstance(output, pd.DataFrame):
            frames[block] = weakref.ref(output)

    run = run_pipeline(project, project.pipeline("branches"), {}, keep=look)
    assert run.outputs["keep"] == {"sum": 36}
    assert run.outputs["last"].n.tolist() == [2, 12, 22]
    assert alive["right"] == {"load", "left"}, "the loader's frame is read twice"
    assert alive["join"] == {"left", "right"}
    assert alive["last"] == {"join", "right"}
    assert alive["keep"] == {"join", "last"}, "what an exporter gave is the run's result"


def test_memory_of_a_block_is_its_own_and_not_that_of_the_greediest_before_it(tmp_path: Path) -> None:
    root = tmp_path / "greedy"
    blocks = {
        "greedy": ("data_loader", [], "def load(*args, **kwargs):\n    return len(bytearray(400 * 2**20))\n"),
        "modest": ("data_exporter", ["greedy"], "def keep(n, *args, **kwargs):\n    return {'n': n}\n"),
    }
    write_project(root, "greed", blocks)
    project = load_project(root)
    greedy, modest = run_pipeline(project, project.pipeline("greed"), {}).blocks
    if sys.platform != "linux":
        pytest.skip("only Linux tells the peak of a span")
    assert greedy.peak_mib - modest.peak_mib > 300
