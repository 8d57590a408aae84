"""How many messages to ask the client for, so that a batch has neither too many events nor too many bytes. Pure.

Events may be as large as the contract lets them, 1 MB and more: 20,000 of those are no batch. How large the next ones
are is not known before they are there, so each part is asked for as if they were like the largest seen lately.
Here: that guess, and when a batch is full. Not here: how long is waited for a part (consumer.py), values that
become larger when they are read (intake.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streaming.headers import read_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streaming.polled import PolledMessage

# Of messages; 20,000 events of 800 bytes. Four batches are kept at a time, and rows made of them.
BATCH_BYTES = 16 << 20
MESSAGES_A_TURN = 2_000  # about 0.5 ms in which no writer gets the interpreter; 20,000 are 5 ms
UNKNOWN_BYTES = 1 << 20  # an event, as long as none has been seen: what a broker takes unless it is told otherwise
EACH = 16  # key and headers of every 16th message are weighed: to ask each for them costs five times all else here
HEADER_BYTES = 200  # what a header takes in memory beside its name and value
FORGETS = 0.8  # of the guess, a part later: small events after large ones are soon fetched in large parts again


def weigh(messages: Sequence[PolledMessage]) -> int:
    """About how many bytes messages hold: values, keys and headers, any of which may be the largest."""
    if not messages:
        return 0
    sampled = messages[::EACH]
    beside = sum(len(message.key() or b"") + _headers_bytes(message) for message in sampled)
    return sum(map(len, messages)) + beside * len(messages) // len(sampled)


def _headers_bytes(message: PolledMessage) -> int:
    headers = read_headers(message) or ()
    return sum(HEADER_BYTES + len(name) + len(value or b"") for name, value in headers)


class Portions:
    """The parts of one batch after another."""

    def __init__(self) -> None:
        self._event_bytes = float(UNKNOWN_BYTES)
        self._left_bytes = BATCH_BYTES

    def begin(self) -> None:
        """A batch begins."""
        self._left_bytes = BATCH_BYTES

    def size(self, most_events: int) -> int:
        """How many messages to ask for, one at least."""
        return max(min(most_events, MESSAGES_A_TURN, int(self._left_bytes / self._event_bytes)), 1)

    def add(self, events: int, part_bytes: int) -> None:
        """A part has come: so many events, which weigh so much."""
        if events:
            self._left_bytes -= part_bytes
            self._event_bytes = max(part_bytes / events, self._event_bytes * FORGETS, 1.0)

    @property
    def is_full(self) -> bool:
        """Whether one more event like those seen lately would be too many bytes."""
        return self._left_bytes < self._event_bytes
