"""What blocks are given in a run, and what is told of a run that failed half-way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestration.mage import run_pipeline
from tests.integration.orchestration.mage_projects import write_project

if TYPE_CHECKING:
    from pathlib import Path

    from orchestration.mage import PipelineRun
    from tests.integration.orchestration.mage_projects import Block

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning:mage_ai")]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Mage keeps for itself."""
    monkeypatch.setenv("MAGE_DATA_DIR", str(tmp_path / "mage"))


def run(root: Path, blocks: dict[str, Block], variables: dict[str, Any] | None = None, **fields: Any) -> PipelineRun:
    project = write_project(root, "p", blocks, **fields)
    return run_pipeline(project, project.pipeline("p"), variables or {})


FIRST_OF_BOTH = (
    "def out(changed, kept, *a, **k):\n    first = lambda read: read[0] if isinstance(read, list) else read\n"
    "    return {'first': [int(first(each)['n'][0]) for each in (changed, kept)]}\n"
)
FRAME_AND_TABLE = (
    "def load(*a, **k):\n    import pandas as pd, pyarrow as pa\n"
    "    return pd.DataFrame({'n': [1]}), pa.table({'n': [1]})\n"
)


@pytest.mark.parametrize(
    "made",
    [
        "__import__('pandas').DataFrame({'n': [1, 2]})",
        "{'n': __import__('numpy').array([1, 2])}",
        "{'n': [1, 2]}",
        "__import__('polars').DataFrame({'n': [1, 2]})",
        "__import__('pandas').DataFrame({'n': [1, 2]}), {'note': 1}",
    ],
)
def test_a_branch_does_not_see_what_another_changes_in_place(tmp_path: Path, made: str) -> None:
    change = "frame = read[0] if isinstance(read, list) else read\n    frame['n'][0] = 100\n"
    if "polars" in made:
        change = "read[0, 'n'] = 100\n"
    elif "pandas" in made:
        change = change.replace("frame['n'][0]", "frame.loc[0, 'n']")
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], f"def load(*a, **k):\n    return {made}\n"),
        "changed": ("transformer", ["load"], f"def changed(read, *a, **k):\n    {change}    return read\n"),
        "kept": ("transformer", ["load"], "def kept(read, *a, **k):\n    return read\n"),
        "out": ("data_exporter", ["changed", "kept"], FIRST_OF_BOTH),
    }
    assert run(tmp_path / "project", blocks).outputs["out"] == {"first": [100, 1]}


def test_only_what_is_read_again_is_copied_and_an_arrow_table_never_is(tmp_path: Path) -> None:
    told = "def {0}(read, *a, **k):\n    return {{'{0}': [id(each) for each in read]}}\n"
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], FRAME_AND_TABLE),
        "one": ("data_exporter", ["load"], told.format("one")),
        "two": ("data_exporter", ["load"], told.format("two")),
    }
    project = write_project(tmp_path / "project", "p", blocks)
    made: dict[str, Any] = {}
    outputs = run_pipeline(project, project.pipeline("p"), {}, keep=made.setdefault).outputs
    frame, table = map(id, made["load"])
    first, last = (outputs[block.uuid][block.uuid] for block in project.pipeline("p").outputs)
    assert first[0] != frame
    assert (first[1], last) == (table, [frame, table])
