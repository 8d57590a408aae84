"""The landing against a real broker and a real Postgres: exactly once, whatever the events."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.status.ask import ask_kafka
from streaming import dead_letter, lake, landing, ledger, replay
from streaming.batch import Batch, extend_to_end, prepare_batch
from streaming.consumer import LandingConsumer
from streaming.database import transaction
from streaming.decode import Decoder
from streaming.errors import (
    DeadLetterLimitError,
    LandingError,
    MigrationError,
    ReplayError,
    TopicError,
    TopicRecreatedError,
)
from streaming.portions import BATCH_BYTES

from .rig import Rig, line, make_rig

if TYPE_CHECKING:
    from tests.fix_kafka import NewTopic

pytestmark = pytest.mark.integration


def test_every_event_lands_once_and_byte_for_byte(rig: Rig) -> None:
    events = [line(number) for number in range(3_000)]
    rig.send(events)
    assert rig.land().rows == 3_000
    rig.assert_exact(3_000)
    payloads = {row[0] for row in rig.query(f"SELECT payload::text FROM landing.{rig.contract.stream}")}
    assert payloads == {json.dumps(event) for event in events}


def test_the_view_is_typed_and_exact(rig: Rig) -> None:
    prices = ["2.55", "0.123456789", "-11062.06", "999999999999.999999999", "0"]
    rig.send([line(number, unit_price=price, description="ÄÖ \"7'' \\ \n") for number, price in enumerate(prices)])
    rig.land()
    ((total, kinds, text),) = rig.query(
        f"SELECT sum(quantity * unit_price), count(DISTINCT pg_typeof(unit_price)), min(description) "
        f"FROM lake.{rig.contract.stream}"
    )
    assert total == sum(6 * Decimal(price) for price in prices)
    assert (kinds, text) == (1, "ÄÖ \"7'' \\ \n")


def test_a_second_run_goes_on_where_the_first_stopped(rig: Rig) -> None:
    rig.send(line(number) for number in range(500))
    rig.land()
    rig.send(line(number) for number in range(500, 900))
    assert rig.land().rows == 400
    rig.assert_exact(900)


def test_a_consumer_of_another_group_goes_on_too_since_offsets_live_in_postgres(rig: Rig) -> None:
    rig.send(line(number) for number in range(500))
    rig.land()
    rig.group += "-other"
    assert rig.land().rows == 0
    rig.assert_exact(500)


def test_a_consumer_that_comes_back_with_other_topics_reads_those(
    rig: Rig, new_topic: NewTopic, tmp_path: Path
) -> None:
    """Within the session timeout, in which the broker remembers what the member of that name had."""
    (tmp_path / "second").mkdir()
    second = make_rig(new_topic(), rig.bootstrap, rig.dsn, tmp_path / "second")
    second.migrate()
    contracts = {each.topic: each.contract for each in (rig, second)}

    def land(*topics: str) -> int:
        chosen = {topic: contracts[topic] for topic in topics}
        consumer = LandingConsumer(rig.settings(session_timeout_s=6.0), chosen)
        return consumer.run(threading.Event(), until_idle_s=0.6).rows

    for each in (rig, second):
        each.send(line(number) for number in range(10))
    assert land(rig.topic) == 10
    assert land(rig.topic, second.topic) == 10, "the topic that was added"
    for each in (rig, second):
        each.send(line(number) for number in range(10, 15))
    assert land(second.topic) == 5, "the topic that was taken away is left alone"
    assert land(rig.topic, second.topic) == 5
    rig.assert_exact(15)
    second.assert_exact(15)


def test_small_transactions_and_two_writers_land_the_same(rig: Rig) -> None:
    rig.send(line(number) for number in range(2_000))
    summary = rig.land(batch_events=70, writers=2)
    assert summary.transactions > 20
    rig.assert_exact(2_000)


def test_a_backlog_of_large_events_is_landed_in_transactions_of_few_bytes(rig: Rig) -> None:
    rig.send(line(number, description="x" * 200_000) for number in range(400))  # 80 MB, and far from 20,000 events
    rig.land()
    rig.assert_exact(400)
    transactions = rig.query("SELECT sum(payload_bytes) FROM control.batch GROUP BY written_by")
    assert max(size for (size,) in transactions) <= BATCH_BYTES + 200_000, "four of them are in memory at a time"


BROKEN = [
    (b"{", "not_json"),
    (b"\xff\xfe", "not_utf8"),
    (None, "empty"),
    (line(1, description="a\0b"), "nul_character"),
    (line(1, quantity="six"), "wrong_type"),
    (line(1, unit_price="0.0000000001"), "too_precise"),
    (line(1, invoiced_at="1999-01-01T00:00:00Z"), "event_time_too_early"),
    (line(1, invoiced_at="2999-01-01T00:00:00Z"), "event_time_too_late"),
    (json.dumps(line(1))[:-1].encode() + b',"unknown":"\xff"}', "not_utf8"),
    (json.dumps(line(1))[:-1].encode() + b',"unknown":"\x01"}', "not_json"),
    (json.dumps(line(1, description="x" * 990_000)).encode()[:-1] + b" " * 50_000 + b"}", "too_large"),
]


def test_broken_events_become_dead_letters_and_the_others_land(rig: Rig) -> None:
    good = [line(number) for number in range(100)]
    mixed: list[object] = [*good]
    for at, (value, _) in enumerate(BROKEN):
        mixed.insert(at * 9, value)
    rig.send(mixed, partition=1, **{"message.max.bytes": 2_000_000})  # type: ignore[arg-type]
    summary = rig.land()
    assert (summary.rows, summary.dead_letters) == (100, len(BROKEN))
    rig.assert_exact(100, dead=len(BROKEN))
    with rig.connect() as conn:
        letters = dead_letter.read_dead_letters(conn, rig.topic)
    assert [letter.reason for letter in letters] == [reason for _, reason in BROKEN]
    sent = [json.dumps(value).encode() if isinstance(value, dict) else value for value, _ in BROKEN]
    assert [letter.value for letter in letters] == sent
    assert all(letter.headers == [("event-id", b"e")] for letter in letters)


def test_what_only_postgres_refuses_becomes_a_dead_letter(rig: Rig) -> None:
    """The decoder skips fields that the contract does not know, so the batch is refused by COPY and then sifted."""
    odd = json.dumps(line(5))[:-1].encode() + b',"unknown":"\xff"}'
    rig.send([*(line(number) for number in range(5)), odd, *(line(number) for number in range(5))], partition=3)
    rig.land()
    rig.assert_exact(10, dead=1)
    with rig.connect() as conn:
        (letter,) = dead_letter.read_dead_letters(conn, rig.topic)
    assert (letter.topic_offset, letter.reason, letter.value) == (5, "not_utf8", odd)


def test_a_batch_that_is_sifted_by_postgres_keeps_its_end(rig: Rig) -> None:
    """What was closed behind its last event stays closed: the next batch follows it."""
    now = datetime.now(UTC)
    message = Message(
        topic=rig.topic, partition=0, offset=7, key=b"k", value=json.dumps(line(1)).encode(), timestamp=(1, 1_290_000)
    )
    batch = extend_to_end(prepare_batch(Decoder(rig.contract), 0, [message], expected_offset=7, now=now), 12)
    with rig.connect() as conn:
        sifted = landing.refuse_by_postgres(conn, Decoder(rig.contract), batch, now=now)
    assert (sifted.rows, sifted.next_offset, sifted.gaps) == (1, 12, batch.gaps)


def test_a_poison_event_in_every_hundredth_place_costs_no_other_event(rig: Rig) -> None:
    rig.send((b"poison" if number % 100 == 0 else line(number)) for number in range(5_000))
    rig.land(dead_letter_limit=1.0)
    rig.assert_exact(4_950, dead=50)


def test_too_many_refused_events_stop_the_consumer_before_they_are_written(rig: Rig) -> None:
    rig.send((line(number) for number in range(300)), partition=0)
    rig.send((line(number, quantity="six") for number in range(300)), partition=1)
    with pytest.raises(DeadLetterLimitError, match="wrong_type in quantity"):
        rig.land(dead_letter_window=200, dead_letter_limit=0.1)
    with rig.connect() as conn:
        assert all(counts.is_closed for counts in lake.topic_counts(conn, rig.topic))
        assert dead_letter.read_dead_letters(conn, rig.topic) == []


def test_a_replayed_letter_lands_under_its_own_offset_and_counts_close(rig: Rig) -> None:
    rig.send([line(1), line(2, quantity="six"), line(3)], partition=2)
    rig.land()
    day = rig.query(f"SELECT max(event_day) FROM landing.{rig.contract.stream}")[0][0].replace(day=3)
    with rig.connect() as conn:
        before = {2: 1}
        letters = dead_letter.read_dead_letters(conn, rig.topic)
        decoder = Decoder(rig.contract)
        assert replay.replay(conn, decoder, letters).landed == 0, "it is as broken as before"
        edited = json.dumps(line(2)).encode()
        assert replay.replay(conn, decoder, letters, edited=edited).landed == 1
        assert replay.replay(conn, decoder, letters, edited=edited).landed == 0, "once only"
        assert dead_letter.read_dead_letters(conn, rig.topic) == []
        assert [row["topic_offset"] for row in lake.read_events(conn, rig.topic, day=day).to_pylist()] == [1]
        assert lake.read_events(conn, rig.topic, day=day, upto=before).num_rows == 0
        assert lake.read_events(conn, rig.topic, day=day, after=before).num_rows == 1
        (counts,) = [c for c in lake.topic_counts(conn, rig.topic) if c.topic_partition == 2]
    assert (counts.landed, counts.dead_letters, counts.dead_letters_replayed, counts.is_closed) == (3, 0, 1, True)
    kept = rig.query("SELECT value, replay_value FROM control.dead_letter")[0]
    assert (bytes(kept[0]), bytes(kept[1])) == (json.dumps(line(2, quantity="six")).encode(), edited)


def test_replaying_many_letters_with_one_edited_value_is_refused(rig: Rig) -> None:
    rig.send([b"{", b"["], partition=0)
    rig.land(dead_letter_limit=1.0)
    with rig.connect() as conn:
        letters = dead_letter.read_dead_letters(conn, rig.topic)
    with rig.connect() as conn, pytest.raises(ReplayError, match="name one letter"):
        replay.replay(conn, Decoder(rig.contract), letters, edited=b"{}")


def test_events_deleted_before_they_landed_are_a_gap_that_is_told(rig: Rig) -> None:
    rig.send((line(number) for number in range(100)), partition=0)
    rig.land()
    rig.send((line(number) for number in range(100)), partition=0)
    admin = AdminClient({"bootstrap.servers": rig.bootstrap})
    deletions = admin.delete_records([TopicPartition(rig.topic, 0, 150)])
    for deletion in deletions.values():
        deletion.result(20)
    status = ask_kafka(rig.env)
    assert status["unlanded"] == 50, "what is deleted waits no more"
    assert status["waiting_since"] is not None
    rig.land()
    rig.assert_exact(150, gaps=50)
    assert rig.query("SELECT first_offset, last_offset, kind FROM control.gap") == [(100, 149, "below_log_start")]


def test_a_transaction_s_control_records_are_no_loss(rig: Rig) -> None:
    for number in range(3):
        values = (line(n) for n in range(number * 10, number * 10 + 10))
        rig.send(values, partition=0, **{"transactional.id": f"{rig.topic}-{number}"})
    rig.land()
    rig.assert_exact(30, gaps=3)
    assert rig.query("SELECT first_offset, last_offset, kind FROM control.gap ORDER BY 1") == [
        (10, 10, "not_delivered"),
        (21, 21, "not_delivered"),
        (32, 32, "not_delivered"),
    ]


def test_a_topic_created_again_is_never_mixed_with_the_old_one(rig: Rig, new_topic: NewTopic) -> None:
    rig.send((line(number) for number in range(100)), partition=0)
    rig.land()
    admin = AdminClient({"bootstrap.servers": rig.bootstrap})
    deletions = admin.delete_topics([rig.topic], operation_timeout=10)
    deletions[rig.topic].result(20)
    rig.wait(lambda: rig.topic not in admin.list_topics(timeout=5).topics, what="the deletion")
    new_topic(rig.topic.partition(".")[2])
    rig.send((line(number) for number in range(500)), partition=0)
    with pytest.raises(TopicRecreatedError, match="deleted and created again"):
        rig.land()
    rig.assert_exact(100)


def test_a_topic_that_does_not_exist_is_told_at_the_start(rig: Rig) -> None:
    rig.topic += ".missing"
    rig.contracts_dir.joinpath(f"{rig.topic}.yaml").write_text(
        next(rig.contracts_dir.glob("*.yaml")).read_text().replace(rig.topic.removesuffix(".missing"), rig.topic)
        .replace("name: t_", "name: u_")
    )  # fmt: skip
    rig.migrate()
    with pytest.raises(TopicError, match="streaming topic create"):
        rig.land()


def test_landing_into_a_lake_that_is_not_migrated_is_refused(rig: Rig) -> None:
    rig.execute("DROP SCHEMA control CASCADE")
    with pytest.raises(MigrationError, match="streaming migrate"):
        rig.land()


def test_months_are_created_on_demand_by_several_writers_at_once(rig: Rig) -> None:
    rig.send(line(n, invoiced_at=f"20{10 + n % 15}-{n % 12 + 1:02d}-15T12:00:00Z") for n in range(600))
    rig.land(writers=4, batch_events=100)
    rig.assert_exact(600)
    partitions = rig.query(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = %s::regclass", f"landing.{rig.contract.stream}"
    )
    assert partitions == [(60,)]


def test_a_rule_that_was_added_to_a_landing_table_by_hand_is_named_and_nothing_is_lost(rig: Rig) -> None:
    rig.send([line(1), line(1)], partition=0)
    table = f"landing.{rig.contract.stream}"
    for added, dropped, what in (
        ("COLUMN mine text NOT NULL", "COLUMN mine", "column mine"),
        ("CONSTRAINT by_hand CHECK (topic_offset > 0)", "CONSTRAINT by_hand", "by_hand"),
        ("CONSTRAINT by_hand UNIQUE (event_day, topic_partition)", "CONSTRAINT by_hand", "event_day_topic_parti"),
    ):
        rig.execute(f"ALTER TABLE {table} ADD {added}")
        with pytest.raises(LandingError, match=rf"a rule that the landing did not make \(.*{what}.*\): was it added"):
            rig.land(outage_limit_s=3.0)
        rig.execute(f"ALTER TABLE {table} DROP {dropped}")
    rig.execute(f"ALTER TABLE {table} ADD COLUMN mine text DEFAULT 'x'")
    rig.land()
    rig.assert_exact(2)


def test_a_batch_of_a_lost_claim_writes_nothing(rig: Rig) -> None:
    with rig.connect() as conn:
        with transaction(conn) as cursor:
            old, _ = ledger.claim(cursor, rig.topic, 0, topic_id=None, low=0, high=0, owner="old")
        with transaction(conn) as cursor:
            ledger.claim(cursor, rig.topic, 0, topic_id=None, low=0, high=0, owner="new")
        batch = Batch(rig.topic, 0, 0, 5)
        with transaction(conn) as cursor:
            assert ledger.lock(cursor, [(batch, old)]) == [old]
        with pytest.raises(Exception, match="taken by new"), transaction(conn) as cursor:
            ledger.advance(cursor, [(batch, old)], owner="old")
    assert rig.query("SELECT next_offset, next_batch FROM control.offset") == [(0, 1)]
    assert rig.query("SELECT count(*) FROM control.batch") == [(0,)]
