"""A pass of a pipeline whose partition is larger than memory: the blocks run slice after slice, and it is one pass.

An exporter that has only laid its rows aside returns a mapping with an entry `read_on`. The pipeline is then run again
with that entry as its variable `read_on`, until no exporter returns one. Only a pipeline that is given the variable by
its project is (`RunOptions.variables`), and only if it has one loader and one exporter: another loader's rows would be
read again for each slice.

Belongs here: that loop, and its runs told as one. Not here: what a slice is (the project's blocks), how blocks run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestration import mage
from orchestration.mage import BlockRun, PipelineRun, TestRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.mage import Part
    from orchestration.mage_spec import MageProject, PipelineSpec

READ_ON = "read_on"


def run_slices(project: MageProject, spec: PipelineSpec, variables: Mapping[str, Any], part: Part) -> PipelineRun:
    """Run the pipeline until nothing is left to read; a failed test ends it.

    Raises:
        MageRunError: as `mage.run_pipeline`; what was laid aside is no part of any table.
    """
    given, runs = {**variables}, list[PipelineRun]()
    types = Counter(block.type for block in spec.blocks)
    if (types["data_loader"], len(spec.outputs)) != (1, 1):
        given.pop(READ_ON, None)
    while True:
        runs.append(mage.run_pipeline(project, spec, given, part=part, as_read=True))
        left = _left(runs[-1]) if READ_ON in given and runs[-1].failed is None else None
        if not left:
            return together(runs)
        given[READ_ON] = left


def _left(run: PipelineRun) -> Mapping[str, Any] | None:
    """What the exporter wants to be given, None if it is done."""
    [output] = run.outputs.values()
    left = output.get(READ_ON) if isinstance(output, Mapping) else None
    return left if isinstance(left, Mapping) else None


def together(runs: Sequence[PipelineRun]) -> PipelineRun:
    """The runs of all slices as one: rows and seconds added, the most memory, each test with its first failure."""
    if len(runs) == 1:
        return runs[0]
    found: dict[str, list[BlockRun]] = {}
    for block in (block for run in runs for block in run.blocks):
        found.setdefault(block.block, []).append(block)
    return PipelineRun(blocks=tuple(map(_block, found.values())), outputs=runs[-1].outputs)


def _block(runs: Sequence[BlockRun]) -> BlockRun:
    tests: dict[str, TestRun] = {}
    for test in (test for run in runs for test in run.tests):
        if test.name not in tests or tests[test.name].passed:
            tests[test.name] = test
    return BlockRun(
        block=runs[0].block,
        rows_in=_sum([run.rows_in for run in runs]),
        rows_out=_sum([run.rows_out for run in runs]),
        columns=runs[-1].columns,
        seconds=sum(run.seconds for run in runs),
        peak_mib=max(run.peak_mib for run in runs),
        tests=tuple(tests.values()),
    )


def _sum(rows: Sequence[int | None]) -> int | None:
    counted = [each for each in rows if each is not None]
    return sum(counted) if counted else None
