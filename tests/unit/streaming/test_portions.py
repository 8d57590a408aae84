"""How many messages are asked for: neither too many events nor too many bytes."""

from __future__ import annotations

import pytest

from streaming.portions import BATCH_BYTES, MESSAGES_A_TURN, UNKNOWN_BYTES, Portions, weigh

from .events import FakeMessage


def fetch(portions: Portions, event_bytes: int, *, most_events: int = 20_000) -> tuple[int, int]:
    """A batch of a backlog of such events: its events, and its largest part."""
    portions.begin()
    events, largest = 0, 0
    while True:
        size = portions.size(most_events - events)
        portions.add(size, event_bytes * size)
        events, largest = events + size, max(largest, size)
        if events >= most_events or portions.is_full:
            return events, largest


def test_small_events_fill_a_batch_by_their_number() -> None:
    portions = Portions()
    for _ in range(5):
        events, largest = fetch(portions, 262)
        assert events == 20_000
    assert largest == MESSAGES_A_TURN


def test_large_events_fill_a_batch_by_their_bytes() -> None:
    portions = Portions()
    fetch(portions, 900_000)  # they were not expected: the first part of all may be too large
    for _ in range(3):
        events, _ = fetch(portions, 900_000)
        assert 0.7 * BATCH_BYTES < events * 900_000 <= BATCH_BYTES


def test_large_events_after_small_ones_are_over_with_one_part_and_expected_afterwards() -> None:
    portions = Portions()
    fetch(portions, 262)
    assert fetch(portions, 900_000)[0] <= MESSAGES_A_TURN
    assert fetch(portions, 900_000)[0] * 900_000 <= BATCH_BYTES


def test_what_is_not_known_yet_is_asked_for_carefully() -> None:
    assert Portions().size(20_000) == BATCH_BYTES // UNKNOWN_BYTES


def test_an_event_larger_than_a_batch_is_a_batch() -> None:
    portions = Portions()
    fetch(portions, BATCH_BYTES + 1)
    assert fetch(portions, BATCH_BYTES + 1) == (1, 1)


def test_messages_without_a_value_are_counted_as_events() -> None:
    portions = Portions()
    for _ in range(3):
        assert fetch(portions, 0)[0] == 20_000


@pytest.mark.parametrize("part", ["key", "headers"])
def test_keys_and_headers_fill_a_batch_as_values_do(part: str) -> None:
    """Small values with keys of 100 kB were 20,000 to a batch: 2 GB, four of which are in memory at a time."""
    of_key, of_headers = (bytes(100_000), []) if part == "key" else (b"k", [("name", bytes(100))] * 1_000)
    messages = [FakeMessage(offset, b"{}", message_key=of_key, fields=[*of_headers]) for offset in range(100)]
    assert 100 * 100_000 <= weigh(messages) <= 100 * 400_000  # type: ignore[arg-type]


def test_messages_without_anything_weigh_nothing() -> None:
    assert weigh([]) == 0
    assert weigh([FakeMessage(0, None, message_key=None)]) == 0  # type: ignore[list-item]
