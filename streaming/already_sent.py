"""What a topic has already: ids of events, and whether the source still has what was sent under them.

Not here: sending (produce.py), ids (sources/). Why: docs/decisions/0038-a-changed-row-is-told-not-sent.md.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import Consumer, KafkaError, TopicPartition

from streaming import kafka
from streaming.errors import TopicError
from streaming.headers import read_headers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streaming.polled import PolledMessage
    from streaming.produce import Outgoing
    from streaming.settings import KafkaSettings

SCAN_TIMEOUT_S = 30.0
FINGERPRINT_BYTES = 16


class Sent(Enum):
    """Whether an event of the source was sent."""

    NOT = "not"
    SAME = "same"
    CHANGED = "changed"


@dataclass(slots=True)
class AlreadySent:
    """How often each id is in the topic, and fingerprints of what stands under them: some 220 bytes an event."""

    ids: Counter[bytes] = field(default_factory=Counter)
    fingerprints: set[bytes] = field(default_factory=set)
    changed_documents: set[str] = field(default_factory=set)

    def add(self, event_id: bytes, value: bytes | None) -> None:
        """Note an event of the topic."""
        self.ids[event_id] += 1
        self.fingerprints.add(_fingerprint(event_id, value))

    def judge(self, event: Outgoing) -> Sent:
        """Whether this event is in the topic. One that is there n times counts n times: duplicates may be on purpose.

        Where ids count the rows of a document, rows behind a changed one that the topic lacks are not new: one was put
        in or taken out before them, and they would be sent a second time under the next number.
        """
        event_id = event.event_id.encode()
        if self.ids[event_id] <= 0:
            return Sent.CHANGED if event.document in self.changed_documents else Sent.NOT
        self.ids[event_id] -= 1
        if any(_fingerprint(event_id, sent.value) in self.fingerprints for sent in _as_sent(event)):
            return Sent.SAME
        if event.document is not None:
            self.changed_documents.add(event.document)
        return Sent.CHANGED


def _as_sent(event: Outgoing) -> Iterator[Outgoing]:
    """In which forms it may stand in the topic."""
    yield event
    yield event.cut_down()


def _fingerprint(event_id: bytes, value: bytes | None) -> bytes:
    return hashlib.blake2b(event_id + b"\0" + (value or b""), digest_size=FINGERPRINT_BYTES).digest()


def read_already_sent(settings: KafkaSettings, topic: str) -> AlreadySent:
    """What the topic has already, by a scan of it up to the ends that it has now.

    Not until there is nothing more to read: under a producer at work the broker's word for that may never come.
    """
    consumer = Consumer(
        {
            **settings.client_config(),
            "group.id": "streaming-resume",  # never joined: partitions are assigned by hand
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 10,
            "log_level": 3,
        }
    )
    found = AlreadySent()
    try:
        partitions = consumer.list_topics(topic, timeout=kafka.ADMIN_TIMEOUT_S).topics[topic].partitions
        marks = {number: kafka.read_watermarks(consumer, topic, number) for number in partitions}
        open_partitions = {number for number, (low, high) in marks.items() if high > low}
        consumer.assign([TopicPartition(topic, number, marks[number][0]) for number in sorted(open_partitions)])
        heard_at = time.monotonic()
        while open_partitions:
            for message in cast("Sequence[PolledMessage]", consumer.consume(10_000, 0.5)):
                heard_at = time.monotonic()
                error = message.error()
                if error is None:
                    _note(found, message)
                    if message.offset() + 1 >= marks[message.partition()][1]:
                        open_partitions.discard(message.partition())
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 the constant's public name
                    open_partitions.discard(message.partition())
                elif not error.retriable():
                    raise TopicError(f"reading {topic} to resume: {error.str()}. Nothing was sent.")
            if time.monotonic() - heard_at > SCAN_TIMEOUT_S:
                raise kafka.unavailable(settings, f"reading {topic} to resume", TimeoutError("no answer"))
    finally:
        consumer.close()
    return found


def _note(found: AlreadySent, message: Any) -> None:
    event_id = next((value for name, value in read_headers(message) or [] if name == "event-id"), None)
    if event_id is not None:
        found.add(event_id, message.value())
