"""From polled messages to the writers' queues: what is due is checked and queued, what is not is asked for again.

Here: which of the messages that arrive follow the position, and back-pressure while a queue is full. Not here: which
topic partitions are owned (ownership.py), the checks of an event (batch.py), writing (writer.py).
"""

from __future__ import annotations

import queue
import time
from datetime import UTC, datetime
from itertools import compress
from typing import TYPE_CHECKING, cast

import numpy as np
import structlog
from confluent_kafka import Consumer, KafkaError, TopicPartition

from streaming.batch import Batch, extend_to_end, prepare_batch, read_offsets
from streaming.errors import RegistryUnavailableError
from streaming.polled import group_messages, is_ascending
from streaming.portions import BATCH_BYTES
from streaming.refusal_window import RefusalWindow
from streaming.rejoining import RejoinError
from streaming.topic_identity import TopicWatch

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from streaming.client_errors import ClientErrors
    from streaming.decode import Decoder
    from streaming.ledger import Claim
    from streaming.metrics import LandingMetrics
    from streaming.ownership import Ownership
    from streaming.polled import PolledMessage
    from streaming.settings import LandingSettings
    from streaming.writer import Claimed, Work, Writer
    from streaming.writer_pool import WriterPool

NO_OFFSETS = np.empty(0, dtype=np.int64)
PAUSE_AFTER_S = 5.0  # back-pressure: block so long, then pause and go on polling, within max.poll.interval

log = structlog.get_logger()


class Intake:
    """Takes what the loop has polled.

    `check` is called while a full queue is waited for, and raises what would end the session; `turn` tells that the
    loop is alive though it waits.
    """

    def __init__(
        self,
        settings: LandingSettings,
        decoders: Mapping[str, Decoder],
        metrics: LandingMetrics,
        *,
        ownership: Ownership,
        pool: WriterPool,
        errors: ClientErrors,
        check: Callable[[], None],
        turn: Callable[[], None],
    ) -> None:
        self.decoders = decoders
        self.metrics = metrics
        self.ownership = ownership
        self.pool = pool
        self.errors = errors
        self.windows = {
            topic: RefusalWindow(topic, events=settings.dead_letter_window, limit=settings.dead_letter_limit)
            for topic in decoders
        }
        self.watch = TopicWatch(settings.kafka)
        self._check = check
        self._turn = turn
        self._paused = False

    def take(self, consumer: Consumer, messages: Sequence[PolledMessage], stop: threading.Event) -> None:
        """Check messages and hand them to the writers; a topic partition always goes to the same one.

        Blocks while a writer's queue is full, until `stop` is set.

        Raises:
            RejoinError: an error among the messages, or the schema registry is away.
            TopicError: an error among the messages that a person has to mend.
            DeadLetterLimitError: too many events are refused; they are not queued.
        """
        now = datetime.now(UTC)
        owned, writers = self.ownership, self.pool.writers
        shares: list[Claimed] = [[] for _ in writers]
        groups, ends = group_messages(messages, self.errors.on_message_error, is_one_topic=len(self.decoders) == 1)
        owned.ends |= ends
        if groups:
            self.errors.broker_down_since = None
        for key in sorted(groups.keys() | ends.keys()):
            claim = owned.claims.get(key)
            if claim is None:
                continue  # taken away while it was on its way; its new owner reads it
            batch = Batch(*key, first_offset=owned.positions[key], next_offset=owned.positions[key])
            fresh, offsets = self._expected(consumer, claim, groups.get(key, []))
            if fresh:
                prepared = self._prepare_in_parts(consumer, claim, fresh, offsets, now, shares=shares, stop=stop)
                if prepared is None:
                    continue
                batch = prepared
            if fresh or (key not in groups and self._is_believed_end(consumer, claim, ends[key])):
                batch = extend_to_end(batch, ends.get(key, 0))
            if batch.next_offset > batch.first_offset:
                self._add(shares, batch, claim)
        self._hand_over(consumer, shares, stop)

    def _add(self, shares: list[Claimed], batch: Batch, claim: Claim) -> None:
        self.windows[batch.topic].add(batch)
        self.ownership.positions[batch.topic, batch.topic_partition] = batch.next_offset
        shares[batch.topic_partition % len(shares)].append((batch, claim))

    def _hand_over(self, consumer: Consumer, shares: Sequence[Claimed], stop: threading.Event) -> None:
        """Each writer's share into its queue."""
        topics = {batch.topic for share in shares for batch, _ in share}
        if not topics:
            return
        proof = self.watch.ask(topics)
        for writer, share in zip(self.pool.writers, shares, strict=True):
            if share:
                self._put(consumer, writer, (share, proof), stop)

    def _prepare_in_parts(
        self,
        consumer: Consumer,
        claim: Claim,
        messages: Sequence[PolledMessage],
        offsets: NDArray[np.int64],
        now: datetime,
        *,
        shares: list[Claimed],
        stop: threading.Event,
    ) -> Batch | None:
        """A checked batch of the messages, or of their last ones where they become too much as JSON.

        What comes before those is on its way to the writers by then, together with the shares so far. None if the topic
        partition was taken away meanwhile, or the consumer stops.
        """
        key = claim.topic, claim.topic_partition
        while True:
            room = BATCH_BYTES - sum(len(batch.copy_rows) for share in shares for batch, _ in share)
            batch = self._prepare(key, messages, offsets, now, most_bytes=room)
            taken = len(batch.messages)
            if taken == len(messages):
                return batch
            messages, offsets = messages[taken:], offsets[taken:]
            self._add(shares, batch, claim)
            self._hand_over(consumer, shares, stop)
            shares[:] = [[] for _ in shares]
            if stop.is_set() or self.ownership.claims.get(key) is not claim:
                return None

    def _prepare(
        self,
        key: tuple[str, int],
        messages: Sequence[PolledMessage],
        offsets: NDArray[np.int64],
        now: datetime,
        *,
        most_bytes: int,
    ) -> Batch:
        """A checked batch; while the schema registry is away nothing can be checked, nor skipped."""
        decoder, first_offset = self.decoders[key[0]], self.ownership.positions[key]
        try:
            return prepare_batch(
                decoder, key[1], messages,
                expected_offset=first_offset, now=now, offsets=offsets, most_bytes=most_bytes,
            )  # fmt: skip
        except RegistryUnavailableError as error:
            raise RejoinError(f"the schema registry cannot be reached: {error}") from error

    def _expected(
        self, consumer: Consumer, claim: Claim, messages: list[PolledMessage]
    ) -> tuple[list[PolledMessage], NDArray[np.int64]]:
        """The messages that follow the position, with their offsets; earlier ones are left out, later ones asked again.

        A hole right after an assignment may be a message of the assignment before, still on its way. It is believed
        only when the broker gives the same answer a second time: a hole that is believed is an event that nobody reads.
        """
        if not messages:
            return [], NO_OFFSETS
        position = self.ownership.positions[claim.topic, claim.topic_partition]
        fresh, offsets = messages, read_offsets(messages)
        if offsets[0] < position:
            is_fresh = offsets >= position
            fresh, offsets = [*compress(messages, is_fresh)], offsets[is_fresh]
        is_hole = bool(fresh) and offsets[0] > position
        if (is_hole and position == claim.next_offset and not claim.is_asked_again) or not is_ascending(offsets):
            claim.is_asked_again = True
            consumer.seek(TopicPartition(claim.topic, claim.topic_partition, position))
            return [], NO_OFFSETS
        return fresh, offsets

    def _is_believed_end(self, consumer: Consumer, claim: Claim, end: int) -> bool:
        """Whether an end that came without messages may close a hole; right after an assignment it is asked again."""
        position = self.ownership.positions[claim.topic, claim.topic_partition]
        if end <= position or position != claim.next_offset or claim.is_asked_again:
            return True
        claim.is_asked_again = True
        consumer.seek(TopicPartition(claim.topic, claim.topic_partition, position))
        return False

    # -- back-pressure ------------------------------------------------------------------------------------------

    def _put(self, consumer: Consumer, writer: Writer, work: Work, stop: threading.Event) -> None:
        """Queue for a writer. While it is full the topic partitions are paused and polling goes on."""
        waited_since = time.monotonic()
        try:
            while not stop.is_set():
                self._check()
                is_long = time.monotonic() - waited_since > PAUSE_AFTER_S
                try:
                    writer.queue.put(work, timeout=0.2 if is_long else 0.5)
                except queue.Full:
                    if is_long:
                        self.poll_paused(consumer)
                    continue
                return
        finally:
            self.metrics.queued_batches.set(self.pool.queued)
            if self._paused:
                self._paused = False
                consumer.resume(consumer.assignment())

    def poll_paused(self, consumer: Consumer) -> None:
        """Stay in the group while the lake is slow or away; a rebalance may happen meanwhile."""
        self._turn()
        if not self._paused:
            self._paused = True
            log.info("paused", reason="the writers' queues are full")
        consumer.pause(consumer.assignment())
        message = cast("PolledMessage | None", consumer.poll(0))
        if message is None:
            return
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            # delivered in spite of the pause (just assigned, or on its way): have it delivered again later
            consumer.seek(TopicPartition(message.topic(), message.partition(), message.offset()))
        else:
            self.errors.on_message_error(message)  # an error is told once: whoever drops it reads nothing more
