"""Hands events to Kafka: idempotent, at a chosen rate, and once only when a killed producer is started again.

Not here: where events come from (sources/), what they must look like (contracts; the landing checks).
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from streaming import kafka
from streaming.already_sent import Sent
from streaming.contract import DEFAULT_MAXIMUM_PAYLOAD_BYTES, require_topic_name
from streaming.errors import ProduceError, SourceError, TopicError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streaming.already_sent import AlreadySent
    from streaming.settings import KafkaSettings

FLUSH_S = 30.0
SETTLE_S = 5.0  # for what is under way when something has failed, so that what was sent is counted
KEPT_BYTES = 10_000  # of an event that is too large: enough to find it in its source
POLL_EVERY = 500  # messages between two looks at delivery reports
CHANGED_SHOWN = 5
LOOK_S = 0.1  # a stop is noticed after it


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event on its way to Kafka. `due_at`: seconds since 1970 before which it has not happened yet."""

    key: bytes | None
    value: bytes | None
    event_id: str
    event_time: str
    due_at: float | None = None
    where: str = ""
    progress: float | None = None
    is_unreadable: bool = False  # a row that the landing will refuse: its dead letter says where it stands
    document: str | None = None  # in which the id counts rows: behind a changed one each has the number of another

    def headers(self) -> list[tuple[str, str | bytes | None]]:
        """Headers of the message."""
        headers: list[tuple[str, str | bytes | None]] = [
            ("event-id", self.event_id.encode()),
            ("event-time", self.event_time.encode()),
        ]
        return [*headers, ("source", self.where.encode())] if self.is_unreadable else headers

    def cut_down(self) -> Outgoing:
        """What is sent of an event that the broker does not take. It is no JSON, so that no contract lets it pass."""
        value = self.value or b""
        start = value[:KEPT_BYTES].decode("utf-8", "ignore")
        problem = f"too large for the broker: {len(value):,} bytes, SHA-256 {hashlib.sha256(value).hexdigest()}"
        return replace(
            self,
            key=self.key and self.key[:KEPT_BYTES],
            value=f"{problem}, beginning: {start}".encode(),
            event_time=self.event_time[:KEPT_BYTES],
            is_unreadable=True,
        )


@dataclass(slots=True)
class Produced:
    """Counts of a producer: sent is acknowledged by the broker."""

    queued: int = 0
    sent: int = 0
    skipped: int = 0
    changed: int = 0  # not sent: the topic has something else under the id
    changed_at: list[str] = field(default_factory=list)  # where the first of them stand
    unreadable: int = 0  # of those sent, rows that the landing will refuse
    bytes: int = 0
    progress: float | None = None
    started_at: float = field(default_factory=time.monotonic)

    def as_dict(self) -> dict[str, Any]:
        """For a machine."""
        seconds = time.monotonic() - self.started_at
        return {
            "sent": self.sent,
            "skipped": self.skipped,
            "changed": self.changed,
            "changed_at": self.changed_at,
            "unreadable": self.unreadable,
            "bytes": self.bytes,
            "seconds": round(seconds, 3),
            "events_per_s": round(self.sent / seconds, 1) if seconds > 0 else 0.0,
        }


class Pace:
    """Spreads events evenly over time."""

    def __init__(
        self,
        rate: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate = rate
        self.clock = clock
        self.sleep = sleep
        self.started_at = clock()
        self.events = 0

    def wait(self, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until the next event may go, or a stop."""
        if self.rate is None:
            return
        due = self.started_at + self.events / self.rate
        self.events += 1
        while (ahead := due - self.clock()) > 0 and not is_stopped():
            self.sleep(min(ahead, LOOK_S))


class EventProducer:
    """A Kafka producer of ours: acks from all replicas, idempotent, compressed. Use as a context manager."""

    def __init__(self, settings: KafkaSettings, topic: str, *, payload_bytes: int = 0) -> None:
        """Payload bytes: the largest value that the topic's contract takes; Kafka's own limit at least."""
        self.settings = settings
        self.topic = topic
        self.counts = Produced()
        self._failure: KafkaError | None = None
        is_larger = payload_bytes > DEFAULT_MAXIMUM_PAYLOAD_BYTES
        self._producer = Producer(
            {
                **settings.client_config(),
                "client.id": "streaming-produce",
                "enable.idempotence": True,
                "acks": "all",
                **({"message.max.bytes": payload_bytes + kafka.AROUND_PAYLOAD_BYTES} if is_larger else {}),
                "compression.type": "lz4",
                "linger.ms": 5,  # fuller batches at full rate; above 50 it is seen as delay
                "partitioner": "murmur2_random",  # as Java's clients: a key has one topic partition, whoever produces
                "allow.auto.create.topics": False,
                "log_level": 3,
            }
        )

    def send(self, event: Outgoing) -> None:
        """Queue one event, cut down if the broker does not take it whole; waits while the queue is full."""
        try:
            event = self._queue(event)
        except KafkaException as error:
            raise ProduceError(
                f"producing {event.where or event.event_id} to {self.topic}: {error}. {self._count_sent()} Mend the "
                f"cause and start again with --resume."
            ) from error
        self.counts.queued += 1
        self.counts.unreadable += event.is_unreadable
        self.counts.bytes += len(event.value or b"")
        self.counts.progress = event.progress
        if self.counts.queued % POLL_EVERY == 0:
            self._producer.poll(0)
            self._raise_failure()

    def _queue(self, event: Outgoing) -> Outgoing:
        """Hand it to the client; return what was taken."""
        is_whole = True
        while True:
            try:
                self._producer.produce(
                    self.topic, value=event.value, key=event.key, headers=event.headers(), on_delivery=self._delivered
                )
            except BufferError:
                self._producer.poll(0.1)
                self._raise_failure()
            except KafkaException as error:
                if not is_whole or error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise
                event, is_whole = event.cut_down(), False
            else:
                return event

    def poll(self) -> None:
        """Look at delivery reports."""
        self._producer.poll(0)
        self._raise_failure()

    def flush(self, timeout_s: float = FLUSH_S) -> None:
        """Wait for every acknowledgement. Raises ProduceError if some do not come."""
        deadline = time.monotonic() + timeout_s
        while (left := self._producer.flush(0.5)) > 0:
            self._raise_failure()
            if time.monotonic() > deadline:
                raise ProduceError(
                    f"producing to {self.topic} at {self.settings.bootstrap_servers}: {left} events were not "
                    f"acknowledged within {timeout_s:.0f} s, {self.counts.sent} were. Check the broker, then start "
                    f"again with --resume."
                )
        self._raise_failure()

    def _delivered(self, error: KafkaError | None, _message: Any) -> None:
        if error is None:
            self.counts.sent += 1
        elif self._failure is None:
            self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise ProduceError(
                f"producing to {self.topic} at {self.settings.bootstrap_servers}: {self._failure.str()}. "
                f"{self._count_sent()} Mend the cause and start again with --resume."
            )

    def _count_sent(self) -> str:
        """How many were sent, once those under way have their answer."""
        self._producer.flush(SETTLE_S)
        return f"{self.counts.sent:,} events were sent."


def require_topic(settings: KafkaSettings, topic: str) -> None:
    """Refuse to produce to a topic that does not exist: the broker would drop every event after minutes."""
    require_topic_name(topic)
    if topic not in kafka.describe_topics(settings, [topic]):
        raise TopicError(
            f"producing to {topic}: no such topic at {settings.bootstrap_servers}. Nothing was sent. "
            f"Create it with `streaming topic create {topic}`."
        )


def produce(
    producer: EventProducer,
    events: Iterator[Outgoing],
    *,
    already_sent: AlreadySent | None = None,
    rate: float | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    tell: Callable[[Produced], None] = lambda _: None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Produced:
    """Send events until there are no more, or until stopped; everything queued is acknowledged at the end."""
    pace = Pace(rate, sleep=sleep)
    counts = producer.counts
    try:
        for event in events:
            if is_stopped():
                break
            if already_sent is not None and _is_known(event, already_sent, counts):
                continue
            _wait_due(producer, event, is_stopped, (clock, sleep), lambda: tell(counts))
            pace.wait(is_stopped)
            if is_stopped():
                break
            producer.send(event)
            if rate is not None and rate < POLL_EVERY:
                producer.poll()
            tell(counts)
    except SourceError:
        producer.flush()  # what was read before it is sent, as its message says
        raise
    producer.flush()
    tell(counts)
    return counts


def _is_known(event: Outgoing, already_sent: AlreadySent, counts: Produced) -> bool:
    """Whether the event is not to be sent, and counted why."""
    state = already_sent.judge(event)
    if state is Sent.CHANGED:
        counts.changed += 1
        counts.changed_at += [event.where] if len(counts.changed_at) < CHANGED_SHOWN else []
    counts.skipped += state is Sent.SAME
    return state is not Sent.NOT


def _wait_due(
    producer: EventProducer,
    event: Outgoing,
    is_stopped: Callable[[], bool],
    time_of: tuple[Callable[[], float], Callable[[float], None]],
    tell: Callable[[], None],
) -> None:
    """Wait until the event has happened."""
    clock, sleep = time_of
    while event.due_at is not None and (ahead := event.due_at - clock()) > 0 and not is_stopped():
        producer.poll()
        tell()
        sleep(min(ahead, LOOK_S))
