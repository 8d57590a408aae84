"""The passes of a run, and one that fails: a partition that is to blame alone keeps no other one from being written.

Belongs here: which passes are run, cut and left, and what the run then says. Not here: how a pass runs, and which of
its errors are of its partitions (mage.py); events and metadata (mage_assets.py).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from orchestration import mage
from orchestration.errors import MageRunError
from orchestration.mage import Part, PipelineRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orchestration.mage_spec import PipelineSpec

    Partitions = Sequence[str]

MOST_FAILED = 5  # partitions that fail one by one: then it is hardly they that are to be mended
TOLD = 5  # passes that a message names


@dataclass
class Outcome:
    """How a run's passes went.

    Attributes:
        written: the partitions and the outcome of each pass that is written, in order.
        failed: what each partition, or pass, failed with that nobody could write.
        tested: the outcome of those of them that a test has ended.
        left: passes that were not tried any more.
    """

    written: list[tuple[Partitions, PipelineRun]] = field(default_factory=list)
    failed: dict[str, MageRunError] = field(default_factory=dict)
    tested: dict[str, PipelineRun] = field(default_factory=dict)
    left: list[Partitions] = field(default_factory=list)
    _written_before: int = 0

    @property
    def labels(self) -> list[str]:
        """The passes that are written, as text."""
        return [part_label(part) for part, _run in self.written]

    def fail(self, label: str, error: MageRunError) -> None:
        """Note a failure. What was written before the first one stands in its text already."""
        if not self.failed:
            self._written_before = len(self.written)
        self.failed[label] = error

    def error(self) -> MageRunError:
        """The first failure, and what became of the other passes."""
        first, *others = self.failed.values()
        after = self.labels[self._written_before :]
        told = [
            f"{what}: {_listed(labels)}"
            for what, labels in (
                ("failed too, each with its error in the run's log", list(self.failed)[1:]),
                ("written after it", after),
                ("not tried any more", [part_label(part) for part in self.left]),
            )
            if labels
        ]
        if not others and not after:
            return first
        error = MageRunError(
            f"{first} [Of the run's partitions {_listed(self.failed)} failed; {'; '.join(told)}.]",
            pipeline=first.pipeline,
            block=first.block,
            path=first.path,
            line=first.line,
        )
        error.__cause__ = first
        return error


def run_passes(
    pipeline: PipelineSpec,
    passes: Iterable[Partitions],
    run_pass: Callable[[Partitions, Part], PipelineRun],
    tell: Callable[[str], None],
) -> Outcome:
    """Run the passes in order.

    One that fails by what its partitions hold, with nothing of it written, is cut in two, and so on, until the
    partition stands alone whose rows are to blame; the others are written. Other failures end the run.

    Args:
        pipeline: whose passes these are.
        passes: the partitions of each; one without any for an asset that has none.
        run_pass: runs the pipeline for these partitions; raises MageRunError.
        tell: is told of each pass that is cut, and of each failure.
    """
    outcome, todo = Outcome(), deque(passes)
    while todo:
        part = todo.popleft()
        label = part_label(part)
        named, ended = Part(name=label if part else None, before=tuple(outcome.labels)), None
        try:
            run = run_pass(part, named)
            if run.failed is None:
                outcome.written.append((part, run))
                continue
            ended, error = run, mage.failed_test(pipeline, run, named)
        except MageRunError as raised:
            error = raised
        if error.is_of_partitions and len(part) > 1:
            half = (len(part) + 1) // 2
            tell(f"{error} It is tried in two parts, {part_label(part[:half])} and {part_label(part[half:])}.")
            todo.extendleft([part[half:], part[:half]])
            continue
        outcome.fail(label, error)
        if ended is not None:
            outcome.tested[label] = ended
        if len(outcome.failed) > 1 or (todo and error.is_of_partitions):  # a run's only failure is what it raises
            tell(str(error))
        if not error.is_of_partitions or len(outcome.failed) == MOST_FAILED:
            outcome.left = [*todo]
            break
    return outcome


def part_label(part: Partitions) -> str:
    """The partitions of a pass as text."""
    return "the run" if not part else part[0] if len(part) == 1 else f"{part[0]} to {part[-1]}"


def _listed(labels: Iterable[str]) -> str:
    """The first of them, and how many more there are."""
    named = list(labels)
    more = f" and {len(named) - TOLD} more" if len(named) > TOLD else ""
    return ", ".join(islice(named, TOLD)) + more
