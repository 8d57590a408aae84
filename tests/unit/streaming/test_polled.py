"""What a poll brought is sorted by topic partition, whichever way it is done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from confluent_kafka import KafkaError
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.polled import group_messages, is_ascending

from .events import FakeMessage


@dataclass
class Polled(FakeMessage):
    name: str = "a"
    number: int = 0
    code: int | None = None

    def topic(self) -> str:
        return self.name

    def partition(self) -> int:
        return self.number

    def error(self) -> KafkaError | None:
        return None if self.code is None else KafkaError(self.code)


END, OTHER = KafkaError._PARTITION_EOF, KafkaError._TRANSPORT
polled = st.builds(
    Polled,
    at=st.integers(0, 9),
    payload=st.just(b"{}"),
    name=st.sampled_from("ab"),
    number=st.integers(0, 2),
    code=st.sampled_from([None, None, None, None, END, OTHER]),
)


@settings(deadline=None)
@given(st.lists(polled, max_size=30))
def test_every_message_end_and_error_comes_out_once_and_in_order(messages: list[Polled]) -> None:
    errors: list[Polled] = []
    groups, ends = group_messages(messages, errors.append)  # type: ignore[arg-type]
    assert errors == [m for m in messages if m.code == OTHER]
    for key in {(m.name, m.number) for m in messages}:
        mine = [m for m in messages if (m.name, m.number) == key and m.code != OTHER]
        assert groups.get(key, []) == [m for m in mine if m.code is None]
        assert ends.get(key) == (mine[-1].at if mine and mine[-1].code == END else None)


@given(st.lists(polled, max_size=30))
def test_runs_without_errors_are_cut_where_the_topic_partition_changes(messages: list[Polled]) -> None:
    good = [m for m in messages if m.code is None]
    groups, ends = group_messages(good, lambda _: None)
    assert not ends
    assert sorted(groups) == sorted({(m.name, m.number) for m in good})
    assert all(group == [m for m in good if (m.name, m.number) == key] for key, group in groups.items())
    ones = [m for m in good if m.name == "a"]
    groups, _ = group_messages(ones, lambda _: None, is_one_topic=True)
    assert groups == {key: [m for m in ones if m.number == key[1]] for key in sorted({("a", m.number) for m in ones})}


def test_offsets_ascend_only_if_none_repeats() -> None:
    assert is_ascending(np.array([], dtype=np.int64))
    assert is_ascending(np.array([1, 2, 9]))
    assert not is_ascending(np.array([1, 2, 2]))
    assert not is_ascending(np.array([3, 2]))
