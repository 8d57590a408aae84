"""What the room asks of Kafka besides messages: create a topic, its id, its offsets.

Not here: the loop (consumer.py).
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exported, not in __all__

from streaming.contract import DEFAULT_MAXIMUM_PAYLOAD_BYTES, require_topic_name
from streaming.errors import BrokerRefusedError, BrokerUnavailableError, TopicError
from streaming.kafka_trouble import RIGHTS, advice, is_denied, look_for_reason

if TYPE_CHECKING:
    from streaming.settings import KafkaSettings

ADMIN_TIMEOUT_S = 10.0
TELL_AGAIN_S = 60.0
AROUND_PAYLOAD_BYTES = 50_000  # key, headers and frame of a large message; Kafka's own 1 MB leaves as much
NUMBERS = re.compile(r"\(after .*?\)|\d+")


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as the broker knows it."""

    topic_id: str | None
    topic_partitions: int


class _Calm(logging.Filter):
    """Passes a line once in a while: in an outage librdkafka tells of each attempt to connect, several a second."""

    def __init__(self, every_s: float) -> None:
        super().__init__()
        self.every_s = every_s
        self.told_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether nothing alike, numbers aside, was passed lately."""
        text, now = NUMBERS.sub("", record.getMessage()), time.monotonic()
        if now - self.told_at.get(text, -self.every_s) < self.every_s:
            return False
        self.told_at[text] = now
        return True


def client_logger() -> logging.Logger:
    """Where librdkafka tells its own."""
    logger = logging.getLogger("librdkafka")
    if not logger.filters:
        logger.addFilter(_Calm(TELL_AGAIN_S))
    return logger


def admin_client(settings: KafkaSettings) -> AdminClient:
    """A client for administration; its log goes nowhere, since each call reports its own error."""
    try:
        return AdminClient({**settings.client_config(), "log_level": 0})
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"preparing a connection to {settings.bootstrap_servers}: {error.args[0].str()}. Nothing was started. "
            f"{advice(settings, error.args[0])}"
        ) from error


def unavailable(settings: KafkaSettings, tried: str, error: Exception) -> BrokerUnavailableError:
    """The error for a broker that does not answer, with the reason if one is told, or that denies us this."""
    if isinstance(error, KafkaException) and is_denied(error.args[0]):
        told = error.args[0]
        return BrokerRefusedError(f"{tried} at {settings.bootstrap_servers}: {told.str()}. {advice(settings, told)}")
    reason = look_for_reason(settings)
    found = f"{error.args[0].str() if isinstance(error, KafkaException) else error}"
    kind = BrokerRefusedError if reason.is_refusal else BrokerUnavailableError
    return kind(
        f"{tried} at {settings.bootstrap_servers}: {f'{reason.text} ({found})' if reason.text else found}. "
        f"{reason.remedy}"
    )


def describe_topics(
    settings: KafkaSettings, topics: list[str], *, admin: AdminClient | None = None
) -> dict[str, TopicDescription]:
    """Id and topic partitions of the topics that exist."""
    client = admin or admin_client(settings)
    futures = client.describe_topics(TopicCollection(topics), request_timeout=ADMIN_TIMEOUT_S)
    found: dict[str, TopicDescription] = {}
    for topic, future in futures.items():
        try:
            described = future.result()
        except KafkaException as error:
            if is_unknown_topic(error):
                continue
            raise unavailable(settings, f"describing topic {topic}", error) from error
        found[topic] = TopicDescription(topic_id(described), len(described.partitions))
    return found


def is_unknown_topic(error: KafkaException) -> bool:
    """Whether the broker knows no such topic."""
    return error.args[0].name() in ("UNKNOWN_TOPIC_OR_PART", "UNKNOWN_TOPIC_OR_PARTITION")


def topic_id(described: Any) -> str | None:
    """Kafka's id of a described topic, None from brokers that have none."""
    text = str(described.topic_id) if described.topic_id is not None else ""
    return text if text.strip("A=") else None  # brokers before 2.8 have none


def create_topic(
    settings: KafkaSettings, topic: str, *, topic_partitions: int, replication: int = -1, payload_bytes: int = 0
) -> bool:
    """Create a topic unless it exists; whether it was created. Replication -1: the broker's default.

    Payload bytes: the largest value that it has to take; of Kafka's own limit or less, the broker's default is kept.
    """
    require_topic_name(topic)
    client = admin_client(settings)
    if topic in describe_topics(settings, [topic], admin=client):
        return False
    is_larger = payload_bytes > DEFAULT_MAXIMUM_PAYLOAD_BYTES
    config = {"max.message.bytes": str(payload_bytes + 2 * AROUND_PAYLOAD_BYTES)} if is_larger else {}
    new = NewTopic(topic, num_partitions=topic_partitions, replication_factor=replication, config=config)
    future = client.create_topics([new], request_timeout=ADMIN_TIMEOUT_S)[topic]
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].name() == "TOPIC_ALREADY_EXISTS":
            return False
        told = error.args[0]
        raise TopicError(
            f"creating topic {topic} at {settings.bootstrap_servers}: {told.str().removesuffix('.')} ({told.name()}). "
            f"{_creation_advice(settings, told)}"
        ) from error
    _wait_topic(settings, client, topic)
    return True


def _creation_advice(settings: KafkaSettings, told: KafkaError) -> str:
    if told.code() < KafkaError.UNKNOWN:  # the client's own word: no answer came
        return f"It may have been created: run it again, which tells. {advice(settings, told)}"
    if is_denied(told):
        return f"It was not created. {advice(settings, told)}"
    if told.code() == KafkaError.UNKNOWN:
        return f"It was not created. The broker's log tells more; a right may be missing: {RIGHTS}."
    return "It was not created. Change what the broker names, and run it again."


def _wait_topic(settings: KafkaSettings, client: AdminClient, topic: str) -> None:
    """A created topic is known to every broker only a moment later."""
    deadline = time.monotonic() + ADMIN_TIMEOUT_S
    while time.monotonic() < deadline:
        if topic in describe_topics(settings, [topic], admin=client):
            return
        time.sleep(0.05)


def read_watermarks(consumer: Consumer, topic: str, topic_partition: int) -> tuple[int, int]:
    """Log start offset and log end offset."""
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, topic_partition), timeout=ADMIN_TIMEOUT_S)
    return int(low), int(high)
