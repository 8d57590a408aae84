"""Offsets that are not there: deleted before they landed (a loss), or never events at all (none)."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.acceptance.faults.rig import (
    FaultRig,
    Starter,
    check_ledger,
    make_topic_rig,
    merged_gaps,
    wait_until,
)  # fmt: skip
from tests.integration.streaming.rig import line
from tests.schedule import whole_schedule_only

pytestmark = [pytest.mark.acceptance, pytest.mark.integration, pytest.mark.timeout(600)]

MakeTopic = Callable[..., FaultRig]


@pytest.fixture
def make_topic(kafka_bootstrap: str, lake_dsn: str, tmp_path: Path, starter: Starter) -> MakeTopic:
    """Makes a topic of one partition."""
    return lambda **config: make_topic_rig(kafka_bootstrap, lake_dsn, tmp_path, starter, partitions=1, **config)


def delete_before(faulty: FaultRig, offset: int) -> None:
    """What retention does, at once."""
    admin = AdminClient({"bootstrap.servers": faulty.rig.bootstrap})
    deletions = admin.delete_records([TopicPartition(faulty.rig.topic, 0, offset)])
    for deletion in deletions.values():
        deletion.result(20)


def send_transaction(faulty: FaultRig, events: int, *, is_aborted: bool = False) -> None:
    """Wait for its control record, too: the broker writes it after its answer; others' events may come before it."""
    end = stable_end(faulty) + events + 1
    producer = Producer({
        "bootstrap.servers": faulty.rig.bootstrap, "transactional.id": f"{faulty.rig.topic}-{time.monotonic_ns()}",
    })  # fmt: skip
    producer.init_transactions()
    producer.begin_transaction()
    for number in range(events):
        producer.produce(faulty.rig.topic, json.dumps(line(number)).encode(), partition=0)
    assert producer.flush(30) == 0
    if is_aborted:
        producer.abort_transaction()
    else:
        producer.commit_transaction()
    wait_until(lambda: stable_end(faulty) >= end, "the transaction's control record")


def stable_end(faulty: FaultRig) -> int:
    """The offset behind the last event whose transaction has ended."""
    asking = Consumer({
        "bootstrap.servers": faulty.rig.bootstrap, "group.id": "asking", "isolation.level": "read_committed",
    })  # fmt: skip
    try:
        return int(asking.get_watermark_offsets(TopicPartition(faulty.rig.topic, 0), timeout=10)[1])
    finally:
        asking.close()


def test_offsets_deleted_while_the_consumer_was_stopped_are_a_loss_that_is_recorded(make_topic: MakeTopic) -> None:
    faulty = make_topic()
    faulty.rig.send(line(number) for number in range(100))
    faulty.rig.land()
    faulty.rig.send(line(number) for number in range(100))
    delete_before(faulty, 150)
    faulty.rig.land()
    assert merged_gaps(faulty.rig) == [(0, "below_log_start", 100, 149)]
    faulty.rig.assert_exact(150, gaps=50)
    check_ledger(faulty.rig)


def test_offsets_deleted_under_a_running_consumer_are_a_loss_that_is_recorded(make_topic: MakeTopic) -> None:
    """It is frozen for a moment, so that retention overtakes it; the session lives on."""
    faulty = make_topic()
    faulty.rig.send(line(number) for number in range(100))
    consumer = faulty.start(STREAMING_SESSION_TIMEOUT_S=60)
    faulty.wait_landed(100)
    time.sleep(0.5)
    consumer.signal(signal.SIGSTOP)
    time.sleep(0.3)
    faulty.rig.send(line(number) for number in range(1_000))
    delete_before(faulty, 900)
    consumer.signal(signal.SIGCONT)
    faulty.wait_landed(1_100)
    assert consumer.is_running()
    assert consumer.stop() == 0
    ((_, kind, first, last),) = merged_gaps(faulty.rig)
    assert (kind, last) == ("below_log_start", 899)
    assert first >= 100, "a fetch that was on its way may have brought some of them"
    faulty.rig.assert_exact(200 + first, gaps=900 - first)
    lost = consumer.events("offsets_lost")
    assert [(entry["first"], entry["last"]) for entry in lost] == [(first, 899)], "told as an error"
    check_ledger(faulty.rig)


def test_holes_of_transactions_are_no_loss_wherever_a_consumer_starts(make_topic: MakeTopic) -> None:
    """Right after an assignment, in the middle, at the end, and with nothing but a hole to read."""
    faulty = make_topic()
    send_transaction(faulty, 30, is_aborted=True)  # 0-29 and a control record, at the very start
    faulty.rig.send(line(number) for number in range(10))  # 31-40
    faulty.rig.land()
    assert merged_gaps(faulty.rig) == [(0, "not_delivered", 0, 30)]
    send_transaction(faulty, 5, is_aborted=True)  # 41-46: nothing but a hole
    faulty.rig.land()
    assert merged_gaps(faulty.rig)[-1] == (0, "not_delivered", 41, 46)
    send_transaction(faulty, 5, is_aborted=True)  # 47-52: right after the assignment, then events
    send_transaction(faulty, 20)  # 53-72, control record 73
    send_transaction(faulty, 5, is_aborted=True)  # 74-79
    faulty.rig.land()
    faulty.rig.land()
    assert merged_gaps(faulty.rig) == [
        (0, "not_delivered", 0, 30), (0, "not_delivered", 41, 52), (0, "not_delivered", 73, 79),
    ]  # fmt: skip
    faulty.rig.assert_exact(30, gaps=50)
    check_ledger(faulty.rig)


def test_a_transaction_that_is_still_open_is_waited_for_and_not_passed(make_topic: MakeTopic) -> None:
    faulty = make_topic()
    faulty.rig.send(line(number) for number in range(10))
    producer = Producer({"bootstrap.servers": faulty.rig.bootstrap, "transactional.id": faulty.rig.topic})
    producer.init_transactions()
    producer.begin_transaction()
    for number in range(10):
        producer.produce(faulty.rig.topic, json.dumps(line(number)).encode(), partition=0)
    assert producer.flush(30) == 0
    faulty.rig.send(line(number) for number in range(10))
    with faulty.rig.landing():
        faulty.wait_landed(10)
        time.sleep(1.5)
        assert faulty.landed() == 10, "nothing behind an open transaction is read, and no gap is made of it"
        producer.commit_transaction()
        faulty.wait_landed(30)
    faulty.rig.land()
    faulty.rig.assert_exact(30, gaps=1)
    check_ledger(faulty.rig)


@whole_schedule_only("the broker compacts every 15 s")
def test_offsets_that_compaction_took_are_no_loss(make_topic: MakeTopic) -> None:
    faulty = make_topic(**{
        "cleanup.policy": "compact", "segment.ms": "200", "min.cleanable.dirty.ratio": "0.01",
        "delete.retention.ms": "0",
        "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "1000",
    })  # fmt: skip
    for start in range(0, 500, 50):
        faulty.rig.send(line(number % 50) for number in range(start, start + 50))
        time.sleep(0.3)

    def left() -> int:
        from confluent_kafka import Consumer

        reader = Consumer({
            "bootstrap.servers": faulty.rig.bootstrap, "group.id": "left", "auto.offset.reset": "earliest",
        })  # fmt: skip
        reader.assign([TopicPartition(faulty.rig.topic, 0, 0)])
        count, deadline = 0, time.monotonic() + 2
        while time.monotonic() < deadline:
            count += len(reader.consume(1_000, 0.5))
        reader.close()
        return count

    wait_until(lambda: left() < 300, "the compaction", 90)
    faulty.rig.land()
    gaps = merged_gaps(faulty.rig)
    assert gaps
    assert {kind for _, kind, _, _ in gaps} == {"not_delivered"}
    assert faulty.landed() == 500
    check_ledger(faulty.rig)
