"""The landing's loop: reads Kafka, hands batches to the writers, and obeys rebalances, outages and signals.

Progress lives in Postgres: on assignment the consumer claims the topic partition there and seeks to its offset; what is
committed to the broker is only a hint for lag monitors. Not here: checks (batch.py), writing (writer.py).
"""

from __future__ import annotations

import gc
import json
import os
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import psycopg2
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streaming import database, kafka, ledger, migrate
from streaming.batch import Batch, Gap, extend_to_end, prepare_batch
from streaming.database import transaction
from streaming.decode import Decoder
from streaming.errors import (
    BrokerUnavailableError,
    LakeUnavailableError,
    RegistryUnavailableError,
    TopicError,
)
from streaming.formats.open_reader import open_reader
from streaming.kafka_trouble import advice, is_fenced, is_token_away
from streaming.membership import InstanceSlot
from streaming.metrics import LandingMetrics
from streaming.polled import group_messages, is_ascending
from streaming.refusal_window import RefusalWindow
from streaming.silence import limited
from streaming.topic_identity import TopicWatch
from streaming.writer import Claimed, Counts, Work, Writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from streaming.contract import Contract
    from streaming.ledger import Claim
    from streaming.polled import PolledMessage
    from streaming.settings import LandingSettings
    from streaming.silence import Cutter

OFFSET_GONE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001 public constants, odd names
TOPIC_GONE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}  # noqa: SLF001
PASSING = {
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._MAX_POLL_EXCEEDED,  # noqa: SLF001 librdkafka leaves the group and joins again by itself
}
HINT_EVERY_S = 5.0  # how often the broker is told the offsets, for lag monitors
STOP_S = 3.0  # to write what is queued; the process ends within 5 s of SIGTERM
CUT_S = 0.7  # for what waited for a silent lake until then, and is cut
CLOSE_S = 0.8
CLAIM_LIMIT_S = 120.0  # within max.poll.interval
PAUSE_AFTER_S = 5.0  # back-pressure: block so long, then pause and go on polling, within max.poll.interval
FENCE_LIMIT = 5  # so often in FENCE_WINDOW_S; a second consumer group on the same topic would fence for ever
FENCE_WINDOW_S = 600.0
UNHEALTHY_AFTER_S = 120.0
SHORTEST_SOCKET_TIMEOUT_MS = 6_000
CALM_S = 60.0  # so long assigned, the next rejoin is tried as soon as a first one
MESSAGES_A_TURN = 2_000  # about 0.5 ms in which no writer gets the interpreter; 20,000 are 5 ms
GC_OBJECTS = 100_000  # five transactions' messages; 10,000 still costs a twentieth, without a bound a cycle would stay

log = structlog.get_logger()


class _RejoinError(Exception):
    """Leave the group and join again: the claims hold no longer, or could not be made."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a consumer did since it started."""

    rows: int
    dead_letters: int
    gap_offsets: int
    transactions: int
    seconds: float


def spare_garbage_collector() -> None:
    """Let Python's cyclic collector look at a process that lands a hundred times less often.

    Messages are plain objects without cycles; by default they set it off every 700 of them, which costs a fifth of the
    processor time of an event (measured: 1.0 of 5.3 us). Cycles of anything else are still found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 100)


def _is_too_often(fences: deque[float]) -> bool:
    """Note a fence at this moment; whether there were FENCE_LIMIT of them within FENCE_WINDOW_S."""
    now = time.monotonic()
    fences.append(now)
    while now - fences[0] > FENCE_WINDOW_S:
        fences.popleft()
    return len(fences) >= FENCE_LIMIT


class LandingConsumer:
    """One landing process. `run` returns after a stop or when idle, and raises what a person has to decide."""

    def __init__(
        self, settings: LandingSettings, contracts: Mapping[str, Contract], *, metrics: LandingMetrics | None = None
    ) -> None:
        self.settings = settings
        self.contracts = contracts
        self.metrics = metrics or LandingMetrics()
        self.metrics.begin_at_zero(contracts)
        self.decoders = {
            topic: Decoder(contract, reader=open_reader(contract, settings.registry))
            for topic, contract in contracts.items()
        }
        self.windows = {
            topic: RefusalWindow(topic, events=settings.dead_letter_window, limit=settings.dead_letter_limit)
            for topic in contracts
        }
        self.claims: dict[tuple[str, int], Claim] = {}
        self.positions: dict[tuple[str, int], int] = {}
        self.ends: dict[tuple[str, int], int] = {}
        self.writers: list[Writer] = []
        self.ticked_at = time.monotonic()
        self.broker_down_since: float | None = None
        self.started_at = time.monotonic()
        self._failure: Exception | None = None
        self._finished = Counts()
        self._hinted: dict[tuple[str, int], int] = {}
        self._hinted_at = 0.0
        self._assigned_at: float | None = None
        self._started_wall = time.time()
        self._rate_from = (0, self.started_at)
        self._paused = False
        self._fences: deque[float] = deque()
        self._self_fences: deque[float] = deque()
        self._slot: InstanceSlot | None = None
        self._stop = threading.Event()
        self._watch = TopicWatch(settings.kafka)
        self._number = 0  # of the session; a consumer that closes slowly still calls back while the next one works
        self._current: Consumer | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event, *, until_idle_s: float | None = None) -> Summary:
        """Land until stopped, or until nothing has come for so long and everything is landed."""
        self._stop = stop
        self._check_start()
        self._slot = InstanceSlot(self.settings.group_id, self.settings.instance_id)
        delay, trouble_since, written = 0.5, None, 0
        try:
            while not stop.is_set():
                try:
                    self._session(stop, until_idle_s)
                    break
                except _RejoinError as error:
                    now = time.monotonic()
                    if self._assigned_at is not None:  # lake and broker have answered since
                        # A registry shows only by what it lets be written whether it is back.
                        is_calm = now - self._assigned_at > CALM_S or self.counts().transactions > written
                        if is_calm or not isinstance(error.__cause__, RegistryUnavailableError):
                            trouble_since = None  # this trouble is a new one
                        delay = 0.5 if now - self._assigned_at > CALM_S else delay
                        self._assigned_at = None
                    trouble_since, written = self._trouble(error, trouble_since, now), self.counts().transactions
                    log.warning("rejoins", reason=str(error), delay_s=delay)
                    stop.wait(delay)
                    delay = min(delay * 2, 10.0)
        finally:
            self._slot.release()
        return self.summary()

    def _trouble(self, error: Exception, since: float | None, now: float) -> float:
        """When the trouble began; raises once it has lasted too long."""
        cause = error.__cause__
        if not isinstance(cause, LakeUnavailableError | BrokerUnavailableError | RegistryUnavailableError):
            return now
        begun = now if since is None else since
        if now - begun > self.settings.outage_limit_s:
            raise cause
        return begun

    def _check_start(self) -> None:
        conn = database.connect(self.settings.lake.dsn, application_name="streaming consume")
        try:
            with limited(conn, self.settings.lake_answer_s, "comparing the contracts with the lake's"):
                for contract in self.contracts.values():
                    migrate.check_registered(conn, contract)
        finally:
            conn.close()
        found = kafka.describe_topics(self.settings.kafka, list(self.contracts))
        missing = sorted(set(self.contracts) - set(found))
        if missing:
            raise TopicError(
                f"subscribing to {', '.join(missing)}: no such topic at {self.settings.kafka.bootstrap_servers}. "
                f"Nothing was landed. Create it with `streaming topic create {missing[0]}`, or leave it out."
            )

    def _session(self, stop: threading.Event, until_idle_s: float | None) -> None:
        """From joining the group to leaving it."""
        self._failure = None
        self.broker_down_since = None
        self.writers = [
            Writer(self.settings, self.decoders, self.metrics, name=f"writer-{n}", owner=self.owner)
            for n in range(self.settings.writers)
        ]
        for writer in self.writers:
            writer.start()
        self._number += 1
        consumer = Consumer(self._config(self._number))
        consumer.subscribe(
            list(self.contracts), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        self._current = consumer
        try:
            self._loop(consumer, stop, until_idle_s)
        finally:
            self._leave(consumer)

    @property
    def owner(self) -> str:
        """Who lands, as the ledger says."""
        return f"{(self._slot and self._slot.name) or self.settings.group_id}, pid {os.getpid()}"

    def _config(self, session: int = 0) -> dict[str, Any]:
        settings = self.settings
        return {
            **settings.kafka.client_config(),
            "group.id": settings.group_id,
            **({"group.instance.id": self._slot.name} if self._slot and self._slot.name else {}),
            "client.id": "streaming-consume",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # an offset that is gone is a gap to record, not a reason to jump
            "isolation.level": "read_committed",
            "enable.partition.eof": True,  # tells the end of a transaction that is the last thing in a topic partition
            "allow.auto.create.topics": False,
            "fetch.queue.backoff.ms": 10,  # the default, 1000, stalls at 100,000 queued messages: a third of the rate
            "fetch.wait.max.ms": 100,  # other requests and a close wait behind an idle fetch; 500, the default, is felt
            "queued.max.messages.kbytes": 65_536,  # the bound of memory before back-pressure
            "session.timeout.ms": int(settings.session_timeout_s * 1000),
            # a broker that is silent on open connections is told of after it; default 60,000
            "socket.timeout.ms": max(int(settings.session_timeout_s * 1000), SHORTEST_SOCKET_TIMEOUT_MS),
            "max.poll.interval.ms": 300_000,
            "topic.metadata.refresh.interval.ms": 30_000,  # added topic partitions are seen after it; default 300,000
            "statistics.interval.ms": 5_000,
            "stats_cb": self._on_statistics,
            "error_cb": lambda error: self._on_error(error) if session == self._number else None,
            "logger": kafka.client_logger(),
        }

    def _loop(self, consumer: Consumer, stop: threading.Event, until_idle_s: float | None) -> None:
        busy_at = time.monotonic()
        while not stop.is_set():
            self.ticked_at = time.monotonic()
            messages = self._poll(consumer)
            self._raise_failure()
            if messages:
                busy_at = busy_at if all(message.error() for message in messages) else time.monotonic()
                self._take(consumer, messages)
            self._hint(consumer)
            if until_idle_s is not None and time.monotonic() - busy_at > until_idle_s and self._is_done():
                return

    def _poll(self, consumer: Consumer) -> list[PolledMessage]:
        """A batch's messages, or what has come within the linger; fetched in parts, so that writers get their turns.

        Should a rebalance fall between two parts, the first one's messages are old ones: `_expected` knows those.
        """
        wanted, deadline = self.settings.batch_events, time.monotonic() + self.settings.linger_s
        messages: list[PolledMessage] = []
        while True:
            size = min(wanted - len(messages), MESSAGES_A_TURN)
            part = consumer.consume(size, max(deadline - time.monotonic(), 0.0))
            messages += cast("list[PolledMessage]", part)
            if len(part) < size or len(messages) >= wanted:
                return messages

    def _leave(self, consumer: Consumer) -> None:
        """Write what is queued, then leave the group; bounded in time."""
        deadline = time.monotonic() + STOP_S
        for writer in self.writers:
            if not writer.finish(max(deadline - time.monotonic(), 0.1)):
                log.warning(
                    "left_unwritten", writer=writer.name, note="not committed; the next consumer reads it again"
                )
        for writer in self.writers:
            writer.join(max(deadline + CUT_S - time.monotonic(), 0.0))
        self._hint(consumer, is_last=True)
        for claim in self.claims.values():
            claim.is_live = False
        self.claims.clear()
        self.positions.clear()
        self.ends.clear()
        self._current = None
        closing = threading.Thread(target=consumer.close, name="close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        counts = self.counts()
        self.writers, self._finished = [], counts

    # -- messages -----------------------------------------------------------------------------------------------

    def _take(self, consumer: Consumer, messages: Sequence[PolledMessage]) -> None:
        """Check messages and hand them to the writers."""
        now = datetime.now(UTC)
        shares: list[Claimed] = [[] for _ in self.writers]
        groups, ends = group_messages(messages, self._on_message_error)
        self.ends |= ends
        if groups:
            self.broker_down_since = None
        for key in sorted(groups.keys() | ends.keys()):
            claim = self.claims.get(key)
            if claim is None:
                continue  # taken away while it was on its way; its new owner reads it
            batch = Batch(*key, first_offset=self.positions[key], next_offset=self.positions[key])
            if fresh := self._expected(consumer, claim, groups.get(key, [])):
                batch = self._prepare(key, fresh, batch.first_offset, now)
            if fresh or (key not in groups and self._is_believed_end(consumer, claim, ends[key])):
                batch = extend_to_end(batch, ends.get(key, 0))
            if batch.next_offset == batch.first_offset:
                continue
            self.windows[key[0]].add(batch)
            self.positions[key] = batch.next_offset
            shares[key[1] % len(self.writers)].append((batch, claim))
        topics = {batch.topic for share in shares for batch, _ in share}
        if not topics:
            return
        proof = self._watch.ask(topics)
        for writer, share in zip(self.writers, shares, strict=True):
            if share:
                self._put(consumer, writer, (share, proof))

    def _prepare(
        self, key: tuple[str, int], messages: Sequence[PolledMessage], first_offset: int, now: datetime
    ) -> Batch:
        """A checked batch; while the schema registry is away nothing can be checked, nor skipped."""
        try:
            return prepare_batch(self.decoders[key[0]], key[1], messages, expected_offset=first_offset, now=now)
        except RegistryUnavailableError as error:
            raise _RejoinError(f"the schema registry cannot be reached: {error}") from error

    def _expected(self, consumer: Consumer, claim: Claim, messages: list[PolledMessage]) -> list[PolledMessage]:
        """The messages that follow the position; what came before is left out, what comes too early is asked again.

        A hole right after an assignment may be a message of the assignment before, still on its way. It is believed
        only when the broker gives the same answer a second time: a hole that is believed is an event that nobody reads.
        """
        if not messages:
            return []
        position = self.positions[claim.topic, claim.topic_partition]
        fresh = messages
        if messages[0].offset() < position:
            fresh = [message for message in messages if message.offset() >= position]
        is_hole = bool(fresh) and fresh[0].offset() > position
        if (is_hole and position == claim.next_offset and not claim.is_asked_again) or not is_ascending(fresh):
            claim.is_asked_again = True
            consumer.seek(TopicPartition(claim.topic, claim.topic_partition, position))
            return []
        return fresh

    def _is_believed_end(self, consumer: Consumer, claim: Claim, end: int) -> bool:
        """Whether an end that came without messages may close a hole; right after an assignment it is asked again."""
        position = self.positions[claim.topic, claim.topic_partition]
        if end <= position or position != claim.next_offset or claim.is_asked_again:
            return True
        claim.is_asked_again = True
        consumer.seek(TopicPartition(claim.topic, claim.topic_partition, position))
        return False

    def _put(self, consumer: Consumer, writer: Writer, work: Work) -> None:
        """Queue for a writer. While it is full the topic partitions are paused and polling goes on."""
        waited_since = time.monotonic()
        try:
            while not self._stop.is_set():
                self._raise_failure()
                is_long = time.monotonic() - waited_since > PAUSE_AFTER_S
                try:
                    writer.queue.put(work, timeout=0.2 if is_long else 0.5)
                except queue.Full:
                    if is_long:
                        self._poll_paused(consumer)
                    continue
                return
        finally:
            self.metrics.queued_batches.set(sum(w.queue.qsize() for w in self.writers))
            if self._paused:
                self._paused = False
                consumer.resume(consumer.assignment())

    def _poll_paused(self, consumer: Consumer) -> None:
        """Stay in the group while the lake is slow or away; a rebalance may happen meanwhile."""
        self.ticked_at = time.monotonic()
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
            self._on_message_error(message)  # an error is told once: whoever drops it reads nothing more

    def _is_done(self) -> bool:
        """Whether everything that the topics hold is landed."""
        is_written = bool(self.claims) and all(writer.is_idle for writer in self.writers)
        return is_written and all(self.ends.get(key) == self.positions[key] for key in self.claims)

    # -- the group ----------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.metrics.rebalances.labels("assigned").inc()
        try:
            offsets = self._claim_all(consumer, [(p.topic, p.partition) for p in partitions])
        except Exception as error:  # noqa: BLE001 librdkafka would swallow it; raised by the loop
            self._failure = error
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

    def _claim_all(self, consumer: Consumer, keys: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        if not keys:
            return {}
        try:
            described = kafka.describe_topics(self.settings.kafka, sorted({topic for topic, _ in keys}))
            marks = {key: kafka.read_watermarks(consumer, *key) for key in sorted(keys)}
        except (KafkaException, BrokerUnavailableError) as error:
            cause = error if isinstance(error, BrokerUnavailableError) else kafka.unavailable(
                self.settings.kafka, "reading offsets", error
            )  # fmt: skip
            raise _RejoinError("the broker did not answer while claiming") from cause
        conn = self._connect_or_rejoin()
        try:
            for key, (low, high) in marks.items():
                topic_id = described[key[0]].topic_id if key[0] in described else None
                claim, gap = self._claim_one(conn, key, topic_id, (low, high))
                self.claims[key] = claim
                self.positions[key] = claim.next_offset
                self.ends.pop(key, None)
                if gap is not None:
                    self.metrics.gap_offsets.labels(key[0], gap.kind).inc(gap.offsets)
                    log.error("offsets_lost", topic=key[0], topic_partition=key[1], first=gap.first_offset,
                              last=gap.last_offset, detail=gap.detail)  # fmt: skip
        except LakeUnavailableError as error:
            raise _RejoinError("the lake did not answer while claiming") from error
        except psycopg2.Error as error:
            raise _RejoinError("the lake did not answer while claiming") from LakeUnavailableError(
                database.hide_password(str(error))
            )
        finally:
            conn.close()
        self._assigned_at = time.monotonic()
        return {key: self.positions[key] for key in keys}

    def _claim_one(
        self, conn: Any, key: tuple[str, int], topic_id: str | None, marks: tuple[int, int]
    ) -> tuple[Claim, Gap | None]:
        """Claim; end the previous owner's session if it holds the offset and is frozen."""
        deadline = time.monotonic() + CLAIM_LIMIT_S
        while True:
            try:
                with self._limited(conn, key), transaction(conn) as cursor:
                    return ledger.claim(cursor, *key, topic_id=topic_id, low=marks[0], high=marks[1], owner=self.owner)
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
            raise _RejoinError("the lake cannot be reached") from error

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Write what is queued, so that the next owner need not read it again; then let go."""
        if consumer is not self._current:
            return
        self.metrics.rebalances.labels("revoked").inc()
        deadline = time.monotonic() + self.settings.revoke_flush_s
        for writer in self.writers:
            writer.wait_idle(max(deadline - time.monotonic(), 0.0))
        self._let_go(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Somebody else may have them already: what is queued is dropped, the fence guards what is at work."""
        if consumer is not self._current:
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

    # -- trouble ------------------------------------------------------------------------------------------------

    def _raise_failure(self) -> None:
        """Raise what callbacks and writers have met."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        for writer in self.writers:
            if writer.failure is not None:
                raise writer.failure
        fenced = [claim for claim in self.claims.values() if claim.is_fenced]
        if fenced:
            self._raise_twin(fenced[0])
            self._count_fence(fenced[0])
            raise _RejoinError(f"fenced: another consumer took {fenced[0].topic}[{fenced[0].topic_partition}]")
        if self.broker_down_since is not None:
            down_s = time.monotonic() - self.broker_down_since
            if down_s > self.settings.outage_limit_s:
                raise BrokerUnavailableError(
                    f"reading from {self.settings.kafka.bootstrap_servers}: no broker for {down_s:.0f} s "
                    f"(STREAMING_OUTAGE_LIMIT_S). Nothing is lost: start `streaming consume` again once Kafka is back."
                )

    def _count_fence(self, claim: Claim) -> None:
        if not _is_too_often(self._fences):
            return
        conn = database.connect(self.settings.lake.dsn, application_name="streaming consume")
        try:
            with transaction(conn) as cursor:
                raise ledger.fenced(cursor, claim.topic, claim.topic_partition, claim.next_offset)
        finally:
            conn.close()

    def _on_error(self, error: KafkaError) -> None:
        """Librdkafka's events without a message."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001
            if self.broker_down_since is None:
                self.broker_down_since = time.monotonic()
                self.metrics.outages.labels("broker").inc()
                log.warning("broker_unavailable", error=error.str(), gives_up_after_s=self.settings.outage_limit_s)
        elif error.fatal():
            self._failure = self._fatal(error)
        elif is_token_away(error):
            log.warning("token_unavailable", error=error.str(), note="the broker is asked again with the next token")
        elif error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001
            self._failure = TopicError(
                f"logging in to {self.settings.kafka.bootstrap_servers}: {error.str()}. The consumer stopped; nothing "
                f"is lost. {advice(self.settings.kafka, error)}"
            )

    def _fatal(self, error: KafkaError) -> Exception:
        """What follows when librdkafka cannot go on: join anew if we were fenced by ourselves, else stop."""
        if is_fenced(error) and self._slot is not None and self._slot.is_held and self._may_fence_itself():
            # A broker that was frozen answers a join that we gave up long ago, and takes the next one for a twin's.
            return _RejoinError("the broker fenced this consumer's own name, which no other process holds")
        return TopicError(
            f"reading from {self.settings.kafka.bootstrap_servers}: {error.str()}. The consumer cannot go on; nothing "
            f"is lost. If it was fenced: another process with the same STREAMING_INSTANCE_ID took its place; give each "
            f"a name of its own, or none."
        )

    def _may_fence_itself(self) -> bool:
        """Count it; a name that is fenced again and again has a twin after all (two machines of one host name)."""
        return not _is_too_often(self._self_fences)

    def _raise_twin(self, claim: Claim) -> None:
        """Stop if the ledger's fence came from a process of our own name: to join again would only throw it out."""
        if self._current is None or self._slot is None or not self._slot.name:
            return
        at = TopicPartition(claim.topic, claim.topic_partition, claim.next_offset)
        try:
            self._current.commit(offsets=[at], asynchronous=False)
        except KafkaException as error:
            if error.args[0].fatal() or is_fenced(error.args[0]):
                raise self._fatal(error.args[0]) from error

    def _on_message_error(self, message: PolledMessage) -> None:
        """Errors that come in the place of a message."""
        error = message.error()
        if error is None:
            return
        code, where = error.code(), f"{message.topic()}[{message.partition()}]"
        if error.fatal() or code == KafkaError._FATAL:  # noqa: SLF001
            raise self._fatal(error)
        if code in OFFSET_GONE:
            raise _RejoinError(f"{where}: the offset that is due does not exist any more ({error.str()})")
        if code in PASSING or error.retriable():
            log.debug("passing_error", where=where, error=error.str())
            return
        if code in TOPIC_GONE:
            if self._is_known(message.topic()):
                raise _RejoinError(f"{where}: {error.str()}, but the broker knows it")
            raise TopicError(
                f"reading {where}: the topic is gone ({error.str()}). What was landed stays; nothing more was landed. "
                f"If it was deleted on purpose, remove its contract from this consumer."
            )
        raise TopicError(f"reading {where}: {error.str()} ({error.name()}). Nothing was skipped; the consumer stopped.")

    def _is_known(self, topic: str) -> bool:
        """Whether the broker knows the topic; one that has just started may deny it for a moment."""
        try:
            return topic in kafka.describe_topics(self.settings.kafka, [topic])
        except BrokerUnavailableError:
            return True

    def _on_statistics(self, text: str) -> None:
        statistics = json.loads(text)
        if any(b.get("state") == "UP" and b.get("nodeid", -1) >= 0 for b in statistics.get("brokers", {}).values()):
            if self.broker_down_since is not None:
                log.info("broker_available_again", seconds=round(time.monotonic() - self.broker_down_since, 1))
            self.broker_down_since = None
        committed, newest = self._committed(), self._newest_produced()
        for topic, found in statistics.get("topics", {}).items():
            for number, partition in found.get("partitions", {}).items():
                key, end = (topic, int(number)), partition.get("hi_offset", -1)
                if key in self.claims and end >= 0:
                    waiting = max(end - committed.get(key, self.claims[key].next_offset), 0)
                    self.metrics.lag_events.labels(*key).set(waiting)
                    age_s = max(time.time() - newest.get(key, self._started_wall), 0.0)
                    self.metrics.lag_seconds.labels(*key).set(age_s if waiting else 0.0)
        self.metrics.writing_seconds.set(max((writer.writing_s for writer in self.writers), default=0.0))
        rows, now = self.counts().rows, time.monotonic()
        before_rows, before_at = self._rate_from
        if now > before_at:
            self.metrics.rows_per_second.set(max(rows - before_rows, 0) / (now - before_at))
        self._rate_from = (rows, now)

    # -- numbers ------------------------------------------------------------------------------------------------

    def _committed(self) -> dict[tuple[str, int], int]:
        return {key: at for writer in self.writers for key, at in list(writer.committed.items())}

    def _newest_produced(self) -> dict[tuple[str, int], float]:
        return {key: at for writer in self.writers for key, at in list(writer.newest_produced.items())}

    def _hint(self, consumer: Consumer, *, is_last: bool = False) -> None:
        """Tell the broker what is landed; nobody's correctness rests on it."""
        if not is_last and time.monotonic() - self._hinted_at < HINT_EVERY_S:
            return
        self._hinted_at = time.monotonic()
        fresh = {key: at for key, at in self._committed().items() if key in self.claims and self._hinted.get(key) != at}
        if not fresh or self.broker_down_since is not None:
            return
        try:
            consumer.commit(offsets=[TopicPartition(*key, at) for key, at in fresh.items()], asynchronous=True)
            self._hinted.update(fresh)
        except KafkaException as error:
            log.debug("hint_failed", error=str(error))

    def counts(self) -> Counts:
        """What was written since the process started."""
        every = [self._finished, *(writer.counts for writer in self.writers)]
        return Counts(
            rows=sum(c.rows for c in every),
            dead_letters=sum(c.dead_letters for c in every),
            gap_offsets=sum(c.gap_offsets for c in every),
            transactions=sum(c.transactions for c in every),
        )

    def summary(self) -> Summary:
        """Counts and seconds."""
        counts = self.counts()
        return Summary(
            counts.rows, counts.dead_letters, counts.gap_offsets, counts.transactions,
            round(time.monotonic() - self.started_at, 3),
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """For /healthz and /readyz."""
        is_lake_down = any(writer.is_lake_down for writer in self.writers)
        ticked_s = time.monotonic() - self.ticked_at
        return {
            "healthy": ticked_s < UNHEALTHY_AFTER_S,
            "ready": bool(self.claims) and not is_lake_down and self.broker_down_since is None,
            "topic_partitions": sorted(f"{topic}[{number}]" for topic, number in self.claims),
            "lake_down": is_lake_down,
            "broker_down": self.broker_down_since is not None,
            "seconds_since_last_turn": round(ticked_s, 1),
        }
