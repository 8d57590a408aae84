"""What arrives in the wrong assignment: messages and ends of the one before, callbacks of a consumer that is closing.

librdkafka leaves most of it out by itself, so no broker brings these cases about at will; here they are made by hand.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from streaming.consumer import FIRST_BATCH_EVENTS, LandingConsumer
from streaming.decode import Decoder
from streaming.errors import StreamingError, TopicError
from streaming.fencing import FENCE_LIMIT
from streaming.ledger import Claim
from streaming.membership import InstanceSlot
from streaming.rejoining import RejoinError
from streaming.settings import KafkaSettings, LakeSettings, LandingSettings
from streaming.writer import Writer

from .events import FakeMessage, order_bytes, orders_contract

TOPIC = "shop.orders"


class Polled(FakeMessage):
    """A message as polled, with its place; or an error in its place."""

    kafka_error: KafkaError | None = None

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return 0

    def error(self) -> KafkaError | None:
        return self.kafka_error


def event(at: int) -> Polled:
    return Polled(at, order_bytes(order_id=f"o{at}"))


def problem(code: int, at: int = 0) -> Polled:
    message = Polled(at, None)
    message.kafka_error = KafkaError(code)
    return message


class FakeConsumer:
    """Notes seeks and pauses, and hands out what poll is to bring."""

    def __init__(self, *polled: Polled) -> None:
        self.seeks: list[int] = []
        self.polled = list(polled)

    def seek(self, place: TopicPartition) -> None:
        self.seeks.append(place.offset)

    def assignment(self) -> list[TopicPartition]:
        return []

    def pause(self, _: list[TopicPartition]) -> None:
        return

    def poll(self, _: float) -> Polled | None:
        return self.polled.pop(0) if self.polled else None


class FakeWriter:
    """Takes what is put."""

    def __init__(self) -> None:
        self.queue: queue.Queue[Any] = queue.Queue()
        self.failure = None
        self.committed: dict[Any, int] = {}
        self.written: deque[Any] = deque()

    def wait_idle(self, _: float) -> bool:
        return True

    def batches(self) -> list[tuple[int, int, int]]:
        """First offset, next offset and gap offsets of what was put."""
        found = []
        while not self.queue.empty():
            (claimed, _) = self.queue.get()
            found += [(batch.first_offset, batch.next_offset, batch.gap_offsets) for batch, _ in claimed]
        return found


@pytest.fixture
def landing() -> LandingConsumer:
    """A consumer that has just been assigned shop.orders[0] at offset 50."""
    settings = LandingSettings(kafka=KafkaSettings("127.0.0.1:1"), lake=LakeSettings("postgresql://x", Path()))
    consumer = LandingConsumer(settings, {TOPIC: orders_contract()})
    consumer.intake.watch = type("Watch", (), {"ask": lambda _, __: None})()  # type: ignore[assignment]
    consumer.ownership.claims[TOPIC, 0] = Claim(TOPIC, 0, 50, 1)
    consumer.ownership.positions[TOPIC, 0] = 50
    consumer.pool.writers = [FakeWriter()]  # type: ignore[list-item]
    for _ in range(60):
        consumer._portions.add(1, 200)  # it knows how small the events are
    return consumer


def take(landing: LandingConsumer, consumer: FakeConsumer, *messages: Polled) -> list[tuple[int, int, int]]:
    landing.intake.take(consumer, messages, threading.Event())  # type: ignore[arg-type]
    return landing.pool.writers[0].batches()  # type: ignore[attr-defined, no-any-return]


def test_a_hole_right_after_an_assignment_is_believed_only_the_second_time(landing: LandingConsumer) -> None:
    consumer = FakeConsumer()
    assert take(landing, consumer, event(60)) == []
    assert consumer.seeks == [50], "asked again, from where the ledger stands"
    assert take(landing, consumer, event(60)) == [(50, 61, 10)]


def test_a_stale_message_is_dropped_and_the_right_ones_are_taken(landing: LandingConsumer) -> None:
    consumer = FakeConsumer()
    assert take(landing, consumer, event(90)) == []
    assert take(landing, consumer, event(50), event(51)) == [(50, 52, 0)]


def expand(landing: LandingConsumer) -> None:
    """Read the topic's values as a format that takes little, and is 1 MB as JSON."""
    decoder = Decoder(landing.contracts[TOPIC], reader=lambda value, _: value + b" " * (1 << 20))
    landing.decoders[TOPIC] = decoder


def test_values_that_become_large_as_json_are_handed_over_in_batches_of_few_bytes(landing: LandingConsumer) -> None:
    expand(landing)
    assert take(landing, FakeConsumer(), *map(event, range(50, 90))) == [(50, 66, 0), (66, 82, 0), (82, 90, 0)]
    assert landing.ownership.positions[TOPIC, 0] == 90


def test_the_rest_of_what_is_handed_over_in_parts_is_left_to_the_next_owner(landing: LandingConsumer) -> None:
    expand(landing)
    writer = landing.pool.writers[0]
    put = writer.queue.put

    def put_and_lose(*args: Any, **named: Any) -> None:
        put(*args, **named)
        landing.ownership.claims.clear()  # as a rebalance does while a full queue is waited for
        landing.ownership.positions.clear()

    writer.queue.put = put_and_lose  # type: ignore[method-assign]
    assert take(landing, FakeConsumer(), *map(event, range(50, 90))) == [(50, 66, 0)]
    assert not landing.ownership.positions


def test_a_rebalance_between_two_parts_of_a_poll_neither_loses_nor_doubles_an_event(landing: LandingConsumer) -> None:
    consumer = FakeConsumer()
    assert take(landing, consumer, event(50), event(51), event(50), event(51), event(52)) == []
    assert consumer.seeks == [50], "the first part came under the assignment before: all is asked again"
    assert take(landing, consumer, event(50), event(51), event(52)) == [(50, 53, 0)]


class Parts:
    """Hands out so many messages a call, and notes what was asked."""

    def __init__(self, *sizes: int) -> None:
        self.sizes, self.asked = list(sizes), list[tuple[int, float]]()

    def consume(self, size: int, timeout_s: float) -> list[Polled]:
        self.asked.append((size, timeout_s))
        return [event(0)] * min(self.sizes.pop(0), size)


@pytest.mark.parametrize(
    ("comes", "asked", "polled"),
    [
        ([9_999, 9_999, 9_999], [2_000, 2_000, 1_000], 5_000),  # plenty: a whole batch, never more
        ([2_000, 700], [2_000, 2_000], 2_700),  # what has come within the linger
        ([0], [2_000], 0),
    ],
)
def test_a_batch_is_fetched_in_parts_within_one_linger(
    landing: LandingConsumer, comes: list[int], asked: list[int], polled: int
) -> None:
    landing.settings = replace(landing.settings, batch_events=5_000, linger_s=0.2)
    landing._most_events = 5_000  # the session is not young any more
    consumer = Parts(*comes)
    assert len(landing._poll(consumer)) == polled  # type: ignore[arg-type]
    assert [size for size, _ in consumer.asked] == asked
    timeouts = [timeout_s for _, timeout_s in consumer.asked]
    assert timeouts == sorted(timeouts, reverse=True), "the later parts wait only for what is left of the linger"
    assert 0.0 <= timeouts[-1] <= timeouts[0] <= 0.2


def test_the_loop_frees_the_messages_of_what_is_written_and_of_nothing_else(landing: LandingConsumer) -> None:
    writer = landing.pool.writers[0]
    landing.intake.take(FakeConsumer(), [event(50), event(51)], threading.Event())  # type: ignore[arg-type]
    landing.intake.take(FakeConsumer(), [event(52)], threading.Event())  # type: ignore[arg-type]
    (first, _), (second, _) = writer.queue.get(), writer.queue.get()  # type: ignore[misc]
    writer.written.append(first)
    landing.pool.free()
    assert [len(batch.messages) for batch, _ in first] == [0]
    assert [len(batch.messages) for batch, _ in second] == [1], "it may still be refused, and its events kept aside"
    assert not writer.written


def test_a_young_session_begins_with_small_batches(landing: LandingConsumer) -> None:
    sizes = [len(landing._poll(Parts(*[9_999] * 20))) for _ in range(5)]  # type: ignore[arg-type]
    assert sizes == [2_500, 5_000, 10_000, 20_000, 20_000], "so that PostgreSQL need not wait for the first large one"
    landing.settings = replace(landing.settings, batch_events=3_000)
    assert len(landing._poll(Parts(*[9_999] * 20))) == 3_000, "never more than was set"  # type: ignore[arg-type]


def test_every_session_is_young_at_first(landing: LandingConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    stop.set()
    landing._most_events = 20_000
    monkeypatch.setattr(landing.pool, "start", lambda _owner: None)
    monkeypatch.setattr(landing, "_open_consumer", FakeConsumer)
    monkeypatch.setattr(landing.ownership, "join", lambda *_: None)
    monkeypatch.setattr(landing, "_leave", lambda _consumer: None)
    landing._land_session(stop, None)
    assert landing._most_events == FIRST_BATCH_EVENTS


def test_a_writer_hands_back_what_it_has_written(landing: LandingConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    landing.intake.take(FakeConsumer(), [event(50)], threading.Event())  # type: ignore[arg-type]
    (claimed, _) = landing.pool.writers[0].queue.get()  # type: ignore[misc]
    writer = Writer(landing.settings, landing.intake.decoders, landing.metrics, name="w", owner="o")
    monkeypatch.setattr(writer, "_connect", lambda: None)
    monkeypatch.setattr(writer, "_is_confirmed", lambda *_: True)
    seen = list[int]()
    monkeypatch.setattr(writer, "_write", lambda work: seen.append(len(work[0][0].messages)))
    writer.start()
    writer.queue.put((claimed, None))  # type: ignore[arg-type]
    assert writer.wait_idle(5)
    assert list(writer.written) == [claimed], "freed by the loop, and only after it was written"
    assert seen == [1]
    writer.finish(1)
    writer.join(5)


def test_a_batch_that_is_not_whole_leaves_the_next_one_small(landing: LandingConsumer) -> None:
    sizes = [len(landing._poll(Parts(*comes))) for comes in ([2_000, 499], [9_999] * 9)]  # type: ignore[arg-type]
    assert sizes == [2_499, 2_500], "a steady flow stays as it is; only a backlog needs large batches"


def test_what_follows_a_whole_batch_is_the_rest_of_a_backlog_and_does_not_linger(landing: LandingConsumer) -> None:
    landing.settings = replace(landing.settings, batch_events=2_000, linger_s=0.2)
    consumer = Parts(2_000, 7, 7)
    assert [len(landing._poll(consumer)) for _ in range(3)] == [2_000, 7, 7]  # type: ignore[arg-type]
    first, rest, later = [timeout_s for _, timeout_s in consumer.asked]
    assert first > 0.15
    assert rest <= 0.01, "the rest of the backlog lands at once"
    assert 0.15 < later <= 0.2, "a steady flow lingers again"


def test_messages_before_the_position_are_left_out(landing: LandingConsumer) -> None:
    assert take(landing, FakeConsumer(), event(48), event(49), event(50)) == [(50, 51, 0)]


def test_an_end_right_after_an_assignment_closes_a_hole_only_the_second_time(landing: LandingConsumer) -> None:
    """The end of the assignment before may lie behind events that were read and never landed."""
    consumer = FakeConsumer()
    end = problem(KafkaError._PARTITION_EOF, 100)
    assert take(landing, consumer, end) == []
    assert consumer.seeks == [50]
    assert take(landing, consumer, end) == [(50, 100, 50)]


def test_an_end_that_comes_before_messages_closes_nothing(landing: LandingConsumer) -> None:
    assert take(landing, FakeConsumer(), problem(KafkaError._PARTITION_EOF, 100), event(50)) == [(50, 51, 0)]
    assert take(landing, FakeConsumer(), event(51), problem(KafkaError._PARTITION_EOF, 53)) == [(51, 53, 1)]


def test_messages_of_a_topic_partition_that_was_lost_are_dropped(landing: LandingConsumer) -> None:
    landing.ownership.claims.clear()
    assert take(landing, FakeConsumer(), event(50)) == []


def test_a_consumer_that_is_still_closing_takes_nothing_from_the_next_session(landing: LandingConsumer) -> None:
    old, current = FakeConsumer(), FakeConsumer()
    landing.ownership.consumer = current  # type: ignore[assignment]
    landing.ownership.on_revoke(old, [TopicPartition(TOPIC, 0)])  # type: ignore[arg-type]
    landing.ownership.on_lost(old, [TopicPartition(TOPIC, 0)])  # type: ignore[arg-type]
    assert take(landing, current, event(50)) == [(50, 51, 0)]
    claim = landing.ownership.claims[TOPIC, 0]
    landing.ownership.on_revoke(current, [TopicPartition(TOPIC, 0)])  # type: ignore[arg-type]
    assert not claim.is_live, "what is queued under it is not written any more"
    assert take(landing, current, event(51)) == []


def test_an_error_that_comes_while_paused_is_not_dropped(landing: LandingConsumer) -> None:
    """It is told once: dropped, the topic partition would stand still for ever."""
    consumer = FakeConsumer(problem(KafkaError._AUTO_OFFSET_RESET))
    with pytest.raises(RejoinError, match="does not exist any more"):
        landing.intake.poll_paused(consumer)  # type: ignore[arg-type]


def test_what_comes_while_paused_is_asked_for_again(landing: LandingConsumer) -> None:
    consumer = FakeConsumer(event(50), problem(KafkaError._PARTITION_EOF, 53))
    landing.intake.poll_paused(consumer)  # type: ignore[arg-type]
    landing.intake.poll_paused(consumer)  # type: ignore[arg-type]
    assert consumer.seeks == [50, 53]


@pytest.mark.parametrize(("instance_id", "joins_anew"), [("", True), ("given-by-a-person", False), ("dynamic", False)])
def test_a_name_that_nobody_else_can_hold_is_taken_again_when_the_broker_fences_it(
    landing: LandingConsumer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance_id: str, *, joins_anew: bool
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    landing.fencing.slot = InstanceSlot(landing.settings.group_id, instance_id, [TOPIC])
    fenced = problem(KafkaError._FATAL)
    fenced.kafka_error = KafkaError(
        KafkaError._FATAL, "Static consumer fenced by other consumer with same group.instance.id", fatal=True
    )
    found = [landing.fencing.fatal(KafkaError(KafkaError.FENCED_INSTANCE_ID)) for _ in range(FENCE_LIMIT)]
    assert [isinstance(each, RejoinError) for each in found[:-1]] == [joins_anew] * (FENCE_LIMIT - 1)
    assert isinstance(found[-1], TopicError), "again and again: there is a twin after all"
    landing.fencing.by_own_name.clear()
    with pytest.raises(RejoinError if joins_anew else TopicError):
        landing.errors.on_message_error(fenced)  # type: ignore[arg-type]
    landing.fencing.slot.release()
    assert not landing.fencing.slot.is_held


def test_a_stable_name_is_another_one_for_other_topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def name(wanted: str, *topics: str) -> str:
        slot = InstanceSlot("group", wanted, topics)
        slot.release()
        return slot.name

    for wanted in ("", "landing-0"):
        assert name(wanted, "a", "b") == name(wanted, "b", "a") != name(wanted, "a")
    assert name("dynamic", "a") == ""


def test_a_folder_for_temporary_files_that_takes_no_lock_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/nothing")
    with pytest.raises(StreamingError, match=r"No such file or directory: /proc/nothing.* STREAMING_INSTANCE_ID"):
        InstanceSlot("group", "", [TOPIC])


def test_topics_without_a_contract_are_left_to_whoever_has_one(
    landing: LandingConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Group(FakeConsumer):
        def subscribe(self, _topics: list[str], **_: Any) -> None:
            return

        def assign(self, places: list[TopicPartition]) -> None:
            self.assigned = [(place.topic, place.partition) for place in places]

        def resume(self, _: list[TopicPartition]) -> None:
            return

    asked = list[Any]()
    monkeypatch.setattr(landing.ownership, "_claim_all", lambda _, keys: asked.extend(keys) or dict.fromkeys(keys, 50))
    group = Group()
    landing.ownership.join(group, [TOPIC], threading.Event())  # type: ignore[arg-type]
    landing.ownership.on_assign(group, [TopicPartition("gone", 0), TopicPartition(TOPIC, 0)])  # type: ignore[arg-type]
    landing.errors.raise_kept()
    assert asked == group.assigned == [(TOPIC, 0)]
