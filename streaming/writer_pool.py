"""The writers of one process: started and ended together, and the sum of what they did.

Not here: one of them (writer.py), which of them a topic partition goes to (intake.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from streaming.turns import freed
from streaming.writer import Counts, Writer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streaming.decode import Decoder
    from streaming.metrics import LandingMetrics
    from streaming.settings import LandingSettings

log = structlog.get_logger()


class WriterPool:
    """The writers of the session at work, none between sessions; counts go on over all sessions."""

    def __init__(self, settings: LandingSettings, decoders: Mapping[str, Decoder], metrics: LandingMetrics) -> None:
        self.settings = settings
        self.decoders = decoders
        self.metrics = metrics
        self.writers: list[Writer] = []
        self._finished = Counts()

    def start(self, owner: str) -> None:
        """Start a session's writers; `owner` is who lands, as the ledger says."""
        self.writers = [
            Writer(self.settings, self.decoders, self.metrics, name=f"writer-{n}", owner=owner)
            for n in range(self.settings.writers)
        ]
        for writer in self.writers:
            writer.start()

    def finish(self, timeout_s: float, *, cut_s: float) -> None:
        """Write what is queued.

        Args:
            timeout_s: for all of them together; what is not written by then is left to the next consumer.
            cut_s: so much longer for those that waited for a silent lake until then, and are cut.
        """
        deadline = time.monotonic() + timeout_s
        for writer in self.writers:
            if not writer.finish(max(deadline - time.monotonic(), 0.1)):
                log.warning(
                    "left_unwritten", writer=writer.name, note="not committed; the next consumer reads it again"
                )
        for writer in self.writers:
            writer.join(max(deadline + cut_s - time.monotonic(), 0.0))

    def free(self) -> None:
        """Free the messages of what is written. Called by the loop's thread: PostgreSQL waits for a writer's."""
        for writer in self.writers:
            while writer.written:
                for batch, _ in writer.written.popleft():
                    if isinstance(batch.messages, list):
                        freed(batch.messages)

    def forget(self) -> None:
        """The session is over: keep its counts, let its writers go."""
        counts = self.counts()
        self.writers, self._finished = [], counts

    def wait_idle(self, timeout_s: float) -> None:
        """Wait until everything queued is written, or the time is up."""
        deadline = time.monotonic() + timeout_s
        for writer in self.writers:
            writer.wait_idle(max(deadline - time.monotonic(), 0.0))

    def raise_failure(self) -> None:
        """Raise what a writer could not help."""
        for writer in self.writers:
            if writer.failure is not None:
                raise writer.failure

    @property
    def is_idle(self) -> bool:
        """Whether everything queued is written."""
        return all(writer.is_idle for writer in self.writers)

    @property
    def is_lake_down(self) -> bool:
        """Whether the lake is away for one of them, or silent."""
        return any(writer.is_lake_down for writer in self.writers)

    @property
    def writing_s(self) -> float:
        """How long the longest of the transactions at work has taken so far; 0 without one."""
        return max((writer.writing_s for writer in self.writers), default=0.0)

    @property
    def queued(self) -> int:
        """Transactions waiting for a writer."""
        return sum(writer.queue.qsize() for writer in self.writers)

    def committed(self) -> dict[tuple[str, int], int]:
        """The next offset of each topic partition that was written, as committed in this session."""
        return {key: at for writer in self.writers for key, at in list(writer.committed.items())}

    def newest_produced(self) -> dict[tuple[str, int], float]:
        """When the newest event written of each topic partition was produced, as Unix time."""
        return {key: at for writer in self.writers for key, at in list(writer.newest_produced.items())}

    def counts(self) -> Counts:
        """What was written since the process started."""
        every = [self._finished, *(writer.counts for writer in self.writers)]
        return Counts(
            rows=sum(c.rows for c in every),
            dead_letters=sum(c.dead_letters for c in every),
            gap_offsets=sum(c.gap_offsets for c in every),
            transactions=sum(c.transactions for c in every),
        )
