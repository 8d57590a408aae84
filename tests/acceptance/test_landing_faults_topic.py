"""Topics that are deleted, recreated and widened under the consumer; several topics in one consumer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from streaming.consumer_config import consumer_config
from streaming.errors import TopicError
from tests.acceptance.faults.proxy import LakeProxy, Moment
from tests.acceptance.faults.rig import (
    Dataset,
    FaultRig,
    Starter,
    chance,
    check_ledger,
    create_topic,
    delete_topic,
    lake_state,
    make_dataset,
    make_fault_rig,
    make_topic_rig,
    tell,
    wait_until,
    whole_or_ci,
)  # fmt: skip
from tests.integration.streaming.rig import line
from tests.schedule import IS_WHOLE

pytestmark = [pytest.mark.acceptance, pytest.mark.integration, pytest.mark.timeout(900)]

OLD, NEW = 600, 1_000


@pytest.fixture
def alone(kafka_bootstrap: str, lake_dsn: str, tmp_path: Path, starter: Starter) -> FaultRig:
    """A topic of two partitions for one test."""
    return make_topic_rig(kafka_bootstrap, lake_dsn, tmp_path, starter, partitions=2)


def send(faulty: FaultRig, tag: str, events: int) -> None:
    faulty.rig.send(line(number, description=tag) for number in range(events))


def landed_tags(faulty: FaultRig) -> set[str]:
    table = f"landing.{faulty.rig.contract.stream}"
    return {tag for (tag,) in faulty.rig.query(f"SELECT DISTINCT payload->>'description' FROM {table}")}


@pytest.mark.parametrize("events", [OLD // 3, NEW], ids=["fewer events", "more events"])
def test_a_topic_recreated_while_the_consumer_was_stopped_is_refused_at_the_start(alone: FaultRig, events: int) -> None:
    """With more events than before each of our offsets exists in the new topic too; only its id tells."""
    send(alone, "old", OLD)
    alone.rig.land()
    before = lake_state(alone.rig)
    delete_topic(alone.rig.bootstrap, alone.rig.topic)
    create_topic(alone.rig.bootstrap, alone.rig.topic, partitions=2)
    send(alone, "new", events)
    consumer = alone.start()
    assert consumer.wait() == 1
    assert "TopicRecreatedError" in consumer.errors()
    assert "was deleted and created again" in consumer.errors()
    assert lake_state(alone.rig) == before


@pytest.mark.parametrize("pause_s", [0.0, 0.7, 3.0] if IS_WHOLE else [0.0, 0.7])
@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "landing"])
def test_a_topic_recreated_under_a_running_consumer_stops_it_and_is_never_mixed(
    alone: FaultRig, pause_s: float, *, is_busy: bool
) -> None:
    """Librdkafka goes on at the old offset in the new topic; nothing of that may land."""
    send(alone, "old", OLD)
    with LakeProxy(alone.rig.dsn, pace_s=0.1 if is_busy else 0.0) as proxy:
        consumer = alone.start(LAKE_DSN=proxy.dsn, batch_events=50)
        wait_until(lambda: alone.landed() > 0, "the first batch")
        if not is_busy:
            alone.wait_landed(OLD)
        delete_topic(alone.rig.bootstrap, alone.rig.topic)
        time.sleep(pause_s)
        create_topic(alone.rig.bootstrap, alone.rig.topic, partitions=2)
        send(alone, "new", NEW)
        assert consumer.wait() == 1
    said = consumer.errors()
    assert "was deleted and created again" in said or "the topic is gone" in said
    assert "Traceback" not in said
    assert landed_tags(alone) == {"old"}
    check_ledger(alone.rig)
    again = alone.start()
    assert again.wait() == 1, "started again, it refuses the new topic"
    assert "TopicRecreatedError" in again.errors()
    assert landed_tags(alone) == {"old"}


@pytest.fixture
def quicker_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer looks for changes of a topic every 30 s; CI does not wait that long."""
    quicker = {} if IS_WHOLE else {"topic.metadata.refresh.interval.ms": 1_000}
    monkeypatch.setattr(
        "streaming.consumer.consumer_config", lambda *given, **named: consumer_config(*given, **named) | quicker
    )


@pytest.mark.usefixtures("quicker_metadata")
def test_a_topic_deleted_for_good_stops_the_consumer_with_the_cause(alone: FaultRig) -> None:
    send(alone, "old", OLD)
    with pytest.raises(TopicError, match="the topic is gone"):
        delete_under_the_consumer(alone)
    assert landed_tags(alone) == {"old"}
    check_ledger(alone.rig)


def delete_under_the_consumer(alone: FaultRig) -> None:
    with alone.rig.landing() as consumer:
        alone.wait_landed(OLD)
        delete_topic(alone.rig.bootstrap, alone.rig.topic)
        wait_until(lambda: consumer.has_ended, "the end of the consumer")  # type: ignore[attr-defined]


@pytest.mark.usefixtures("quicker_metadata")
def test_topic_partitions_that_are_added_are_landed_from_their_start(alone: FaultRig) -> None:
    send(alone, "old", OLD)
    with alone.rig.landing():
        alone.wait_landed(OLD)
        admin = AdminClient({"bootstrap.servers": alone.rig.bootstrap})
        added = admin.create_partitions([NewPartitions(alone.rig.topic, 5)])
        added[alone.rig.topic].result(20)
        for number in range(5):
            alone.rig.send((line(n, description="after") for n in range(200)), partition=number)
        alone.wait_landed(OLD + 1_000, timeout_s=60)
    firsts = alone.rig.query("SELECT topic_partition, first_offset FROM control.offset ORDER BY 1")
    assert firsts == [(number, 0) for number in range(5)]
    alone.rig.assert_exact(OLD + 1_000)
    check_ledger(alone.rig)


def test_several_topics_in_one_consumer_are_each_as_undisturbed(
    dataset: Dataset,
    kafka_bootstrap: str,
    fresh_database: Callable[[], AbstractContextManager[str]],
    lake_dsn: str,
    starter: Starter,
    tmp_path: Path,
) -> None:
    """Two more topics beside the dataset's, one of a single partition; killed and cut on the way."""
    folder = dataset.rig.contracts_dir
    draw = chance("several topics")
    others = []
    with fresh_database() as undisturbed:
        for events in (1_500, 700):
            others.append(make_dataset(kafka_bootstrap, undisturbed, tmp_path, events=events))  # noqa: PERF401
    contracts = tmp_path / "contracts"
    contracts.mkdir()
    for source in [*folder.glob("*.yaml"), *tmp_path.glob("*.yaml")]:
        (contracts / source.name).write_text(source.read_text())
    every = [make_fault_rig(each, lake_dsn, starter) for each in (dataset, *others)]
    for each in every:
        each.rig.contracts_dir = contracts
    topics = [argument for each in every for argument in ("--topic", each.rig.topic)]
    with LakeProxy(lake_dsn, pace_s=0.01) as proxy:
        env = {**every[0].rig.env, "LAKE_DSN": proxy.dsn, "STREAMING_BATCH_EVENTS": "100", "STREAMING_WRITERS": "2"}
        for _ in range(whole_or_ci(12, 3)):
            consumer = starter.start(["consume", *topics, "--json"], env)
            for moment in (Moment.COMMITTED, Moment.COPY):
                proxy.trap(moment, lambda session: session.cut(), nth=draw.randint(1, 3)).wait()
            proxy.trap(draw.choice(list(Moment)), lambda _, consumer=consumer: consumer.kill(), nth=2).wait()
            tell([each.landed() for each in every])
        last = starter.start(["consume", *topics, "--json"], env | {"STREAMING_BATCH_EVENTS": "20000"})
        for each in every:
            each.wait_landed()
        assert last.stop() == 0
    for each in every:
        each.assert_undisturbed()
