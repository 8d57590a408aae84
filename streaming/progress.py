"""How far the landing is, as others are told: lag and rate as metrics, landed offsets as hints to the broker.

Nobody's correctness rests on any of it. Not here: the offsets that count (ledger.py), the metrics' names (metrics.py).
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

if TYPE_CHECKING:
    from streaming.client_errors import ClientErrors
    from streaming.metrics import LandingMetrics
    from streaming.ownership import Ownership
    from streaming.writer_pool import WriterPool

HINT_EVERY_S = 5.0  # how often the broker is told the offsets, for lag monitors

log = structlog.get_logger()


class Progress:
    """Tells how far the landing is; it goes on over all sessions of the process."""

    def __init__(
        self, metrics: LandingMetrics, *, ownership: Ownership, pool: WriterPool, errors: ClientErrors
    ) -> None:
        self.metrics = metrics
        self.ownership = ownership
        self.pool = pool
        self.errors = errors
        self._started_at = time.time()
        self._rate_from = (0, time.monotonic())
        self._hinted: dict[tuple[str, int], int] = {}
        self._hinted_at = 0.0

    def on_statistics(self, text: str) -> None:
        """Librdkafka's callback: its statistics as JSON."""
        statistics = json.loads(text)
        brokers = statistics.get("brokers", {}).values()
        self.errors.note_brokers(is_any_up=any(b.get("state") == "UP" and b.get("nodeid", -1) >= 0 for b in brokers))
        claims, committed, newest = self.ownership.claims, self.pool.committed(), self.pool.newest_produced()
        for topic, found in statistics.get("topics", {}).items():
            for number, partition in found.get("partitions", {}).items():
                key, end = (topic, int(number)), partition.get("hi_offset", -1)
                if key in claims and end >= 0:
                    waiting = max(end - committed.get(key, claims[key].next_offset), 0)
                    self.metrics.lag_events.labels(*key).set(waiting)
                    age_s = max(time.time() - newest.get(key, self._started_at), 0.0)
                    self.metrics.lag_seconds.labels(*key).set(age_s if waiting else 0.0)
        self.metrics.writing_seconds.set(self.pool.writing_s)
        self._tell_rate()

    def _tell_rate(self) -> None:
        rows, now = self.pool.counts().rows, time.monotonic()
        before_rows, before_at = self._rate_from
        if now > before_at:
            self.metrics.rows_per_second.set(max(rows - before_rows, 0) / (now - before_at))
        self._rate_from = (rows, now)

    def hint(self, consumer: Consumer, *, is_last: bool = False) -> None:
        """Tell the broker what is landed, every HINT_EVERY_S or when it is the last time."""
        if not is_last and time.monotonic() - self._hinted_at < HINT_EVERY_S:
            return
        self._hinted_at = time.monotonic()
        fresh = {
            key: at
            for key, at in self.pool.committed().items()
            if key in self.ownership.claims and self._hinted.get(key) != at
        }
        if not fresh or self.errors.broker_down_since is not None:
            return
        try:
            consumer.commit(offsets=[TopicPartition(*key, at) for key, at in fresh.items()], asynchronous=True)
            self._hinted.update(fresh)
        except KafkaException as error:
            log.debug("hint_failed", error=str(error))
