"""The dead-letter limit: stops a consumer before a bad release sends everything to the dead letters. Pure."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from streaming.errors import DeadLetterLimitError

if TYPE_CHECKING:
    from streaming.batch import Batch


class RefusalWindow:
    """Share of refused events among the last ones of a topic."""

    def __init__(self, topic: str, *, events: int, limit: float) -> None:
        self.topic = topic
        self.events = events
        self.limit = limit
        self.seen: deque[tuple[int, int]] = deque()
        self.total = 0
        self.refused = 0
        self.last_bad: Batch | None = None

    def add(self, batch: Batch) -> None:
        """Count a batch that is about to be written. Raises DeadLetterLimitError.

        The window is the fewest last batches that hold at least `events`; while there are fewer, nothing is judged.
        """
        events, refused = batch.rows + len(batch.rejected), len(batch.rejected)
        if not events:
            return
        if refused:
            self.last_bad = batch
        self.seen.append((events, refused))
        self.total, self.refused = self.total + events, self.refused + refused
        while self.total - self.seen[0][0] >= self.events:
            old_events, old_refused = self.seen.popleft()
            self.total, self.refused = self.total - old_events, self.refused - old_refused
        if self.total >= self.events and self.refused > self.limit * self.total and self.last_bad is not None:
            raise self._error(self.last_bad)

    def _error(self, bad: Batch) -> DeadLetterLimitError:
        causes = Counter((letter.refusal.reason, letter.refusal.field) for letter in bad.rejected)
        (reason, name), count = causes.most_common(1)[0]
        example = next(letter for letter in bad.rejected if letter.refusal.reason == reason)
        cause = f"{reason} in {name}" if name else reason
        return DeadLetterLimitError(
            f"landing {self.topic}: {self.refused} of the last {self.total} events break the contract, the limit is "
            f"{self.limit:.0%}. Most frequent lately: {cause} ({count} times), such as {example.refusal.detail!r} at "
            f"{self.topic}[{bad.topic_partition}] offset {example.topic_offset}. A producer or the contract has "
            f"probably changed. The consumer stopped before this batch; nothing is lost. Mend the contract, or raise "
            f"STREAMING_DEAD_LETTER_LIMIT to let them become dead letters."
        )
