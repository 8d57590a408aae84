"""What librdkafka's consumer is told, each setting with its reason. Not here: how to log in (settings.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streaming import kafka

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import KafkaError

    from streaming.settings import LandingSettings

SHORTEST_SOCKET_TIMEOUT_MS = 6_000


def consumer_config(
    settings: LandingSettings,
    *,
    instance_name: str,
    on_statistics: Callable[[str], None],
    on_error: Callable[[KafkaError], None],
) -> dict[str, Any]:
    """The whole configuration of one session's consumer.

    Args:
        settings: the landing's.
        instance_name: the stable name in the group; empty for a plain member.
        on_statistics: is given librdkafka's statistics as JSON text, every 5 s.
        on_error: is given its errors that come without a message.
    """
    session_timeout_ms = int(settings.session_timeout_s * 1000)
    return {
        **settings.kafka.client_config(),
        "group.id": settings.group_id,
        **({"group.instance.id": instance_name} if instance_name else {}),
        "client.id": "streaming-consume",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",  # an offset that is gone is a gap to record, not a reason to jump
        "isolation.level": "read_committed",
        "enable.partition.eof": True,  # tells the end of a transaction that is the last thing in a topic partition
        "allow.auto.create.topics": False,
        "fetch.queue.backoff.ms": 10,  # the default, 1000, stalls at 100,000 queued messages: a third of the rate
        "fetch.wait.max.ms": 100,  # other requests and a close wait behind an idle fetch; 500, the default, is felt
        # The bound of memory before back-pressure. The queue is looked at before a fetch and holds what is unpacked, an
        # answer is bounded as it was packed: at 50 MB (the default) and 64 MB a backlog of ordinary JSON, lz4 or
        # zstd in 12 or 60 topic partitions, took 520 and 720 MB, at these 365 and 440, and was landed no slower.
        "fetch.max.bytes": 4 * 2**20,
        "queued.max.messages.kbytes": 32 * 2**10,
        "session.timeout.ms": session_timeout_ms,
        # a broker that is silent on open connections is told of after it; default 60,000
        "socket.timeout.ms": max(session_timeout_ms, SHORTEST_SOCKET_TIMEOUT_MS),
        "max.poll.interval.ms": 300_000,
        "topic.metadata.refresh.interval.ms": 30_000,  # added topic partitions are seen after it; default 300,000
        "statistics.interval.ms": 5_000,
        "stats_cb": on_statistics,
        "error_cb": on_error,
        "logger": kafka.client_logger(),
    }
