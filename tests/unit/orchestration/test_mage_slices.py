"""The runs of a partition's slices, told as one; and which pipelines are run in slices at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestration import mage
from orchestration.mage import BlockRun, Part, PipelineRun, TestRun
from orchestration.mage_slices import READ_ON, run_slices, together
from orchestration.mage_spec import BlockSpec, MageProject, PipelineSpec


def block(uuid: str, rows: int | None, *, mib: int = 1, tests: tuple[TestRun, ...] = ()) -> BlockRun:
    return BlockRun(block=uuid, rows_in=rows, rows_out=rows, columns=("a",), seconds=0.5, peak_mib=mib, tests=tests)


def outcome(message: str = "") -> TestRun:
    return TestRun(block="load", name="test_it", passed=not message, message=message)


def test_rows_and_seconds_are_added_and_each_test_keeps_its_first_failure() -> None:
    runs = [
        PipelineRun(blocks=(block("load", 3, mib=9, tests=(outcome(),)), block("write", None)), outputs={"write": 1}),
        PipelineRun(blocks=(block("load", 2, mib=7, tests=(outcome("first"),)), block("write", None)), outputs={}),
        PipelineRun(blocks=(block("load", 1, tests=(outcome("second"),)),), outputs={"write": 3}),
    ]
    found = together(runs)
    load, write = found.blocks
    assert (load.rows_in, load.rows_out, load.seconds, load.peak_mib) == (6, 6, 1.5, 9)
    assert [each.message for each in load.tests] == ["first"]
    assert (write.rows_in, write.rows_out, write.seconds) == (None, None, 1.0)
    assert found.outputs == {"write": 3}


def test_one_run_is_told_as_it_is() -> None:
    run = PipelineRun(blocks=(block("load", 3),), outputs={})
    assert together([run]) is run


def pipeline(*types: str) -> PipelineSpec:
    blocks = tuple(
        BlockSpec(
            uuid=f"{kind}_{at}",
            type=kind,
            language="python",
            upstream=(),
            configuration={},
            path=Path("block.py"),
            line=1,
            tests=(),
        )
        for at, kind in enumerate(types)
    )
    return PipelineSpec(
        uuid="shop", description=None, variables={}, blocks=blocks, path=Path("metadata.yaml"), code_version="1"
    )


@pytest.mark.parametrize(
    ("types", "is_sliced"),
    [
        (("data_loader", "transformer", "data_exporter"), True),
        (("data_loader", "data_loader", "data_exporter"), False),
        (("data_loader", "data_exporter", "data_exporter"), False),
    ],
)
def test_only_a_pipeline_of_one_loader_and_one_exporter_is_run_in_slices(
    monkeypatch: pytest.MonkeyPatch, types: tuple[str, ...], *, is_sliced: bool
) -> None:
    """Another loader would read its rows again for each slice."""
    given: list[Any] = []

    def run(_project: Any, spec: PipelineSpec, variables: dict[str, Any], **_: Any) -> PipelineRun:
        given.append(variables.get(READ_ON, "not given"))
        left = {"n": len(given)} if len(given) < 3 else None
        return PipelineRun(blocks=(), outputs={each.uuid: {READ_ON: left} for each in spec.outputs})

    monkeypatch.setattr(mage, "run_pipeline", run)
    project = MageProject(root=Path(), pipelines=())
    run_slices(project, pipeline(*types), {READ_ON: {}}, Part())
    assert given == ([{}, {"n": 1}, {"n": 2}] if is_sliced else ["not given"])


def test_who_does_not_give_the_variable_runs_a_pipeline_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = list[int]()

    def run(*_: Any, **__: Any) -> PipelineRun:
        runs.append(1)
        return PipelineRun(blocks=(), outputs={"data_exporter_1": {READ_ON: {"n": 1}}})

    monkeypatch.setattr(mage, "run_pipeline", run)
    spec = pipeline("data_loader", "data_exporter")
    run_slices(MageProject(root=Path(), pipelines=()), spec, {}, Part())
    assert runs == [1]


def test_a_failed_test_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = block("data_exporter_1", 1, tests=(outcome("no"),))

    def run(*_: Any, **__: Any) -> PipelineRun:
        return PipelineRun(blocks=(failing,), outputs={"data_exporter_1": {READ_ON: {"n": 1}}})

    monkeypatch.setattr(mage, "run_pipeline", run)
    spec = pipeline("data_loader", "data_exporter")
    found = run_slices(MageProject(root=Path(), pipelines=()), spec, {READ_ON: {}}, Part())
    assert found.failed is not None
