"""What one poll of the consumer brought: messages by topic partition, ends that were reached, errors. Pure.

Not here: what follows from it (intake.py), what is in a message (batch.py).
"""

from __future__ import annotations

from itertools import islice, pairwise
from operator import ne
from typing import TYPE_CHECKING, Protocol

import numpy as np
from confluent_kafka import KafkaError

from streaming.batch import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Key = tuple[str, int]  # topic and topic partition


class PolledMessage(Message, Protocol):
    """A message as the consumer gets it."""

    def __len__(self) -> int:
        """The bytes of its payload."""

    def topic(self) -> str:
        """The topic."""

    def partition(self) -> int:
        """The topic partition."""

    def error(self) -> KafkaError | None:
        """Set if it is no message but an error in its place."""


Groups = dict[Key, list[PolledMessage]]


def group_messages(
    messages: Sequence[PolledMessage], on_error: Callable[[PolledMessage], None], *, is_one_topic: bool = False
) -> tuple[Groups, dict[Key, int]]:
    """Messages by topic partition in their order, and the ends that were reached; other errors go to `on_error`.

    `is_one_topic`: no other topic is subscribed, so that each message need not be asked for its own.
    """
    if not messages:
        return {}, {}
    if not any(map(type(messages[0]).error, messages)):
        return _group_runs(messages, is_one_topic=is_one_topic), {}
    groups: Groups = {}
    ends: dict[Key, int] = {}
    for message in messages:
        error = message.error()
        if error is None:
            key = (message.topic(), message.partition())
            ends.pop(key, None)  # an end before messages is an old one, perhaps of another assignment
            groups.setdefault(key, []).append(message)
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 public constant, odd name
            ends[message.topic(), message.partition()] = message.offset()
        else:
            on_error(message)
    return groups, ends


def _group_runs(messages: Sequence[PolledMessage], *, is_one_topic: bool) -> Groups:
    """Librdkafka delivers runs of a topic partition: cut between them (0.06 us an event; one by one it is 0.2)."""
    kind, count = type(messages[0]), len(messages)
    numbers = np.fromiter(map(kind.partition, messages), dtype=np.int32, count=count)
    is_cut = numbers[1:] != numbers[:-1]
    if not is_one_topic:
        topics = [*map(kind.topic, messages)]
        if topics.count(topics[0]) < count:  # to count them takes a third of comparing them one by one
            is_cut |= np.fromiter(map(ne, topics, islice(topics, 1, None)), dtype=bool, count=count - 1)
    cuts = [0, *(np.flatnonzero(is_cut) + 1).tolist(), count]
    groups: Groups = {}
    for begin, end in pairwise(cuts):
        groups.setdefault((messages[begin].topic(), int(numbers[begin])), []).extend(messages[begin:end])
    return groups


def is_ascending(offsets: NDArray[np.int64]) -> bool:
    """Whether each offset is above the one before."""
    return bool((offsets[1:] > offsets[:-1]).all())
