"""The Kafka broker dies and is away: the lake equals that of an undisturbed run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from deploy.embedded.services import Kafka, start_kafka
from tests.acceptance.faults.proxy import LakeProxy, Moment
from tests.acceptance.faults.rig import (
    Dataset,
    FaultRig,
    Starter,
    chance,
    lake_state,
    make_dataset,
    make_fault_rig,
    produce_everything,
    tell,
    wait_until,
    whole_or_ci,
)  # fmt: skip
from tests.schedule import whole_schedule_only

pytestmark = [pytest.mark.acceptance, pytest.mark.integration, pytest.mark.timeout(900)]

KILLS = whole_or_ci(6, 1)
OUTAGE_S = whole_or_ci(75, 5)


class Broker:
    """A broker that may be killed, and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: Kafka = start_kafka(folder)

    def kill(self) -> None:
        os.kill(self.running.pid, signal.SIGKILL)
        wait_until(lambda: not self.running.is_running(), "the broker's end")

    def start(self) -> None:
        self.running.stop()
        self.running = start_kafka(self.folder, port=self.running.port)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("broker"))
    yield made
    made.running.stop()


@pytest.fixture(scope="module")
def own_dataset(
    broker: Broker,
    fresh_database: Callable[[], AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Dataset]:
    """A dataset on the broker that is going to be killed, landed undisturbed before that."""
    with fresh_database() as dsn:
        yield make_dataset(broker.running.bootstrap, dsn, tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def faulty(own_dataset: Dataset, lake_dsn: str, starter: Starter) -> FaultRig:
    return make_fault_rig(own_dataset, lake_dsn, starter)


def test_a_broker_killed_and_started_again_costs_no_event(faulty: FaultRig, broker: Broker) -> None:
    """Kill -9 while batches are fetched, written and committed; the consumer survives all of them."""
    draw = chance("broker")
    with LakeProxy(faulty.rig.dsn, pace_s=0.05) as proxy:
        consumer = faulty.start(LAKE_DSN=proxy.dsn)
        wait_until(lambda: proxy.landings > 3, "the first batches")
        for _ in range(KILLS):
            before = proxy.landings
            trap = proxy.trap(draw.choice(list(Moment)), lambda _: broker.kill(), nth=draw.randint(1, 3))
            trap.wait()
            assert consumer.is_running()
            time.sleep(draw.random() * 2)
            broker.start()
            tell((trap.moment.name, before, proxy.landings, faulty.landed()))
            wait_until(lambda before=before: proxy.landings > before + 2, "batches after the restart")
        assert faulty.landed() < faulty.all_offsets, "the kills happened during the landing"
        proxy.pace_s = 0.0
        faulty.wait_landed()
        assert consumer.stop() == 0
    faulty.assert_undisturbed()


@whole_schedule_only("half a minute; the next test has it away too")
def test_a_broker_that_is_away_costs_neither_an_event_nor_the_process(
    faulty: FaultRig, broker: Broker, own_dataset: Dataset
) -> None:
    consumer = faulty.start(batch_events=20_000)
    faulty.wait_landed()
    broker.kill()
    time.sleep(OUTAGE_S)
    assert consumer.is_running()
    broker.start()
    back_at = time.monotonic()
    produce_everything(broker.running.bootstrap, faulty.rig.topic, 900, first=10_000_000)
    landed = faulty.all_offsets
    wait_until(lambda: faulty.landed() > landed, "the first batch after the outage", 45)
    tell(f"away for {OUTAGE_S} s; landed again {time.monotonic() - back_at:.1f} s after it was back")
    own_dataset.rig.land()
    own_dataset.state = lake_state(own_dataset.rig)
    faulty.wait_landed()
    assert consumer.stop() == 0
    faulty.assert_undisturbed()


def test_a_consumer_stopped_while_the_broker_is_away_leaves_within_five_seconds(
    faulty: FaultRig, broker: Broker
) -> None:
    """Also with batches in its queue that wait for the broker's word on their topic."""
    with LakeProxy(faulty.rig.dsn, pace_s=0.05) as proxy:
        consumer = faulty.start(LAKE_DSN=proxy.dsn)
        wait_until(lambda: proxy.landings > 3, "the first batches")
        broker.kill()
        time.sleep(1)
        started = time.monotonic()
        assert consumer.stop() == 0
        assert time.monotonic() - started < 5.5
        broker.start()
        proxy.pace_s = 0.0
        last = faulty.start(batch_events=20_000)
        faulty.wait_landed()
        assert last.stop() == 0
    faulty.assert_undisturbed()


def test_a_broker_that_is_frozen_is_told_and_costs_neither_an_event_nor_the_process(
    faulty: FaultRig, broker: Broker
) -> None:
    """SIGSTOP: every connection stays open, and nothing is answered."""
    with LakeProxy(faulty.rig.dsn, pace_s=0.05) as proxy:
        consumer = faulty.start(LAKE_DSN=proxy.dsn)
        wait_until(lambda: proxy.landings > 3, "the first batches")
        os.kill(broker.running.pid, signal.SIGSTOP)
        try:
            frozen_at = time.monotonic()
            wait_until(lambda: consumer.events("broker_unavailable"), "the silence to be told", 40)
            tell(f"told after {time.monotonic() - frozen_at:.1f} s")
            time.sleep(whole_or_ci(60, 1))
            assert consumer.is_running()
        finally:
            os.kill(broker.running.pid, signal.SIGCONT)
        proxy.pace_s = 0.0
        faulty.wait_landed()
        assert consumer.stop() == 0
    faulty.assert_undisturbed()
