"""Which topic partitions this consumer owns, and how far each is read: assigned, claimed, revoked, lost.

The group (Kafka) says who may have a topic partition, the ledger (Postgres) who has it: on assignment it is claimed
there, and read from the offset that the ledger names. Not here: the claim's statements (ledger.py), what is done about
a fence (fencing.py).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg2
import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from streaming import database, kafka, ledger
from streaming.database import transaction
from streaming.errors import BrokerUnavailableError, LakeUnavailableError
from streaming.rejoining import RejoinError
from streaming.silence import limited

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from streaming.batch import Gap
    from streaming.client_errors import ClientErrors
    from streaming.fencing import Fencing
    from streaming.ledger import Claim
    from streaming.metrics import LandingMetrics
    from streaming.settings import LandingSettings
    from streaming.silence import Cutter
    from streaming.writer_pool import WriterPool

CLAIM_LIMIT_S = 120.0  # within max.poll.interval

log = structlog.get_logger()


class Ownership:
    """The topic partitions of the session at work; all keys are (topic, topic partition).

    `claims` are what the ledger has given, `positions` the next offset to read of each, `ends` where the broker has
    said that a topic partition ends. The group's callbacks run in the loop's thread, within its polls.

    A consumer that closes slowly still calls back while the next session works: `consumer` is the one that counts.
    """

    def __init__(
        self,
        settings: LandingSettings,
        metrics: LandingMetrics,
        *,
        pool: WriterPool,
        fencing: Fencing,
        errors: ClientErrors,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.pool = pool
        self.fencing = fencing
        self.errors = errors
        self.claims: dict[tuple[str, int], Claim] = {}
        self.positions: dict[tuple[str, int], int] = {}
        self.ends: dict[tuple[str, int], int] = {}
        self.assigned_at: float | None = None
        self.consumer: Consumer | None = None
        self._stop = threading.Event()
        self._topics = set[str]()

    def join(self, consumer: Consumer, topics: list[str], stop: threading.Event) -> None:
        """Subscribe: a session begins. From here on the group's callbacks of this consumer count."""
        self._stop, self._topics = stop, set(topics)
        consumer.subscribe(topics, on_assign=self.on_assign, on_revoke=self.on_revoke, on_lost=self.on_lost)
        self.consumer = consumer

    def leave(self) -> None:
        """The session ends: what is still queued under its claims is not written any more."""
        for claim in self.claims.values():
            claim.is_live = False
        self.claims.clear()
        self.positions.clear()
        self.ends.clear()
        self.consumer = None

    def take_assigned_at(self) -> float | None:
        """When topic partitions were assigned last, once; None if they have not been since it was asked."""
        assigned_at, self.assigned_at = self.assigned_at, None
        return assigned_at

    def fenced(self) -> Claim | None:
        """A claim that the ledger has fenced, if there is one."""
        return next((claim for claim in self.claims.values() if claim.is_fenced), None)

    @property
    def is_at_end(self) -> bool:
        """Whether there are topic partitions, and all are read to their ends."""
        return bool(self.claims) and all(self.ends.get(key) == self.positions[key] for key in self.claims)

    # -- the group's callbacks ----------------------------------------------------------------------------------

    def on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Claim what the group has assigned, and read on from the ledger's offsets."""
        self.metrics.rebalances.labels("assigned").inc()
        strange = sorted({p.topic for p in partitions} - self._topics)
        if strange:  # nobody here can read them: to claim them would keep them from whoever can
            log.error("assigned_without_a_contract", topics=strange, note="they are not read by this consumer")
        try:
            offsets = self._claim_all(consumer, [(p.topic, p.partition) for p in partitions if p.topic in self._topics])
        except Exception as error:  # noqa: BLE001 librdkafka would swallow it; raised by the loop
            self.errors.keep(error)
            consumer.unassign()
            return
        consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in offsets.items()])
        # librdkafka keeps a pause across a loss and a new assignment: without this, nothing is ever fetched again
        consumer.resume([TopicPartition(topic, number) for topic, number in offsets])
        if partitions:
            log.info(
                "assigned",
                topic_partitions=sorted(f"{topic}[{number}]@{at}" for (topic, number), at in offsets.items()),
            )

    def on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Write what is queued, so that the next owner need not read it again; then let go."""
        if consumer is not self.consumer:
            return
        self.metrics.rebalances.labels("revoked").inc()
        self.pool.wait_idle(self.settings.revoke_flush_s)
        self._let_go(partitions)

    def on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Somebody else may have them already: what is queued is dropped, the fence guards what is at work."""
        if consumer is not self.consumer:
            return
        self.metrics.rebalances.labels("lost").inc()
        log.warning("lost", topic_partitions=[f"{p.topic}[{p.partition}]" for p in partitions])
        self._let_go(partitions)

    def _let_go(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            key = (partition.topic, partition.partition)
            claim = self.claims.pop(key, None)
            if claim is not None:
                claim.is_live = False
            self.positions.pop(key, None)

    # -- claiming -----------------------------------------------------------------------------------------------

    def _claim_all(self, consumer: Consumer, keys: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Claim topic partitions; the offset to read each from.

        Raises:
            RejoinError: one could not be claimed for now.
            StreamingError: one cannot be claimed, and a person has to decide.
        """
        if not keys:
            return {}
        try:
            described = kafka.describe_topics(self.settings.kafka, sorted({topic for topic, _ in keys}))
            marks = {key: kafka.read_watermarks(consumer, *key) for key in sorted(keys)}
        except (KafkaException, BrokerUnavailableError) as error:
            cause = error if isinstance(error, BrokerUnavailableError) else kafka.unavailable(
                self.settings.kafka, "reading offsets", error
            )  # fmt: skip
            raise RejoinError("the broker did not answer while claiming") from cause
        conn = self._connect_or_rejoin()
        try:
            for key, (low, high) in marks.items():
                topic_id = described[key[0]].topic_id if key[0] in described else None
                try:
                    claim, gap = self._claim_one(conn, key, topic_id, (low, high))
                except psycopg2.Error as error:
                    database.raise_landing_error(error, f"claiming {key[0]}[{key[1]}]")
                self.claims[key] = claim
                self.positions[key] = claim.next_offset
                self.ends.pop(key, None)
                if gap is not None:
                    self.metrics.gap_offsets.labels(key[0], gap.kind).inc(gap.offsets)
                    log.error("offsets_lost", topic=key[0], topic_partition=key[1], first=gap.first_offset,
                              last=gap.last_offset, detail=gap.detail)  # fmt: skip
        except LakeUnavailableError as error:
            raise RejoinError("the lake did not answer while claiming") from error
        finally:
            conn.close()
        self.assigned_at = time.monotonic()
        return {key: self.positions[key] for key in keys}

    def _claim_one(
        self, conn: Any, key: tuple[str, int], topic_id: str | None, marks: tuple[int, int]
    ) -> tuple[Claim, Gap | None]:
        """Claim; end the previous owner's session if it holds the offset and is frozen."""
        deadline = time.monotonic() + CLAIM_LIMIT_S
        owner = self.fencing.owner
        while True:
            try:
                with self._limited(conn, key), transaction(conn) as cursor:
                    return ledger.claim(cursor, *key, topic_id=topic_id, low=marks[0], high=marks[1], owner=owner)
            except psycopg2.errors.LockNotAvailable:
                if self._stop.is_set() or time.monotonic() > deadline:
                    raise
                with self._limited(conn, key), transaction(conn) as cursor:
                    ended = ledger.end_stuck_writers(cursor)
                log.warning("claim_waits", topic=key[0], topic_partition=key[1], ended_sessions=ended)

    def _limited(self, conn: Any, key: tuple[str, int]) -> AbstractContextManager[Cutter]:
        return limited(conn, self.settings.lake_answer_s, f"claiming {key[0]}[{key[1]}]")

    def _connect_or_rejoin(self) -> Any:
        try:
            return database.connect(self.settings.lake.dsn, application_name="streaming claim")
        except LakeUnavailableError as error:
            raise RejoinError("the lake cannot be reached") from error
