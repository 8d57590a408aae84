"""PostgreSQL is there and silent: a frozen backend, a frozen server, a network that swallows what it is given.

Nothing fails then, nothing closes: without a limit of ours the landing would wait for ever. The lake equals that of an
undisturbed run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from deploy.embedded.services import Postgres, start_postgres
from streaming.consumer import LandingConsumer
from tests.acceptance.faults.proxy import LakeProxy, Moment, Session
from tests.acceptance.faults.rig import (
    Dataset,
    FaultRig,
    Starter,
    make_fault_rig,
    tell,
    wait_until,
    whole_or_ci,
)  # fmt: skip
from tests.schedule import IS_WHOLE

pytestmark = [pytest.mark.acceptance, pytest.mark.integration, pytest.mark.timeout(600)]

ANSWER_S = 2.0
IN_TRANSACTION = [Moment.BEGUN, Moment.COPY, Moment.COPIED, Moment.LEDGER] if IS_WHOLE else [Moment.COPY, Moment.LEDGER]


def silences(consumer: LandingConsumer) -> float:
    return float(consumer.metrics.silences._value.get())


@pytest.mark.parametrize("moment", IN_TRANSACTION, ids=lambda moment: moment.name)
def test_a_backend_frozen_in_a_transaction_is_given_up_and_what_it_did_is_found_in_the_ledger(
    faulty: FaultRig, moment: Moment
) -> None:
    """SIGSTOP of the server's process that serves the writer; it goes on later, maybe with a COMMIT in its ears."""
    frozen: list[int] = []

    def freeze(_: Session) -> None:
        for (pid,) in faulty.rig.query(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'streaming writer%%' "
            "AND datname = current_database()"
        ):
            os.kill(pid, signal.SIGSTOP)
            frozen.append(pid)

    with (
        LakeProxy(faulty.rig.dsn, pace_s=0.01) as proxy,
        replace(faulty.rig, dsn=proxy.dsn).landing(batch_events=100, lake_answer_s=ANSWER_S) as consumer,
    ):
        try:
            proxy.trap(moment, freeze, nth=5).wait()
            frozen_at = time.monotonic()
            wait_until(lambda: silences(consumer) > 0, "the silence to be noticed", ANSWER_S + 8)
            tell(f"noticed after {time.monotonic() - frozen_at:.1f} s")
            assert time.monotonic() - frozen_at > ANSWER_S - 0.5
            assert not consumer.state()["ready"]
            assert consumer.state()["lake_down"]
            assert consumer.state()["healthy"], "to start it again would not help"
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        faulty.wait_landed()
        wait_until(lambda: consumer.state()["ready"], "ready again", 10)
    faulty.assert_undisturbed()


@pytest.mark.parametrize("moment", [*IN_TRANSACTION, Moment.COMMITTED], ids=lambda moment: moment.name)
def test_a_network_that_swallows_everything_costs_no_event_though_nothing_ever_fails(
    faulty: FaultRig, moment: Moment
) -> None:
    """Both ends stay open for good. At COMMITTED the server has committed, and its answer is what is swallowed."""
    held: list[Session] = []

    def swallow(session: Session) -> None:
        held.append(session)
        session.pause()

    with LakeProxy(faulty.rig.dsn, pace_s=0.01) as proxy:
        through = replace(faulty.rig, dsn=proxy.dsn)
        with through.landing(batch_events=100, lake_answer_s=ANSWER_S) as consumer:
            for number in range(whole_or_ci(4, 1)):
                before = silences(consumer)
                proxy.trap(moment, swallow, nth=3)
                wait_until(lambda number=number: len(held) > number, "a transaction to be swallowed", 40)
                wait_until(lambda before=before: silences(consumer) > before, "the silence to be noticed", 40)
                # the next attempt may be as silent, while the one that was swallowed still has the offsets locked
                wait_until(lambda: consumer.state()["ready"], "ready again", 40)
            faulty.wait_landed()
            assert len(held) == whole_or_ci(4, 1)
            assert not any(session.hold.is_set() for session in held), "nothing was ever let through"
    faulty.assert_undisturbed()


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with start_postgres(tmp_path_factory.mktemp("lake")) as server:
        yield server


@contextlib.contextmanager
def frozen(server: Postgres) -> Iterator[None]:
    """Every process of a server, stopped: the first one first, so that no other begins; a child may end meanwhile."""
    first = psutil.Process(server.pid)
    first.suspend()
    stopped = [first]
    for process in first.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
            stopped.append(process)
    try:
        yield
    finally:
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def test_a_frozen_server_costs_neither_an_event_nor_the_place_and_a_stop_leaves_within_five_seconds(
    dataset: Dataset, own_server: Postgres, starter: Starter
) -> None:
    faulty = make_fault_rig(dataset, own_server.create_database("lake"), starter)
    with LakeProxy(faulty.rig.dsn, pace_s=0.02) as proxy:
        consumer = faulty.start(LAKE_DSN=proxy.dsn, STREAMING_LAKE_ANSWER_S=5)
        wait_until(lambda: proxy.landings > 5, "the first batches")
        with frozen(own_server):
            wait_until(lambda: consumer.events("lake_unavailable"), "the silence to be noticed", 20)
            assert "STREAMING_LAKE_ANSWER_S" in str(consumer.events("lake_unavailable"))
            time.sleep(whole_or_ci(60, 3))
            assert consumer.is_running()
        landed = faulty.landed()
        wait_until(lambda: faulty.landed() > landed, "the first batch afterwards", 40)
        assert len(consumer.events("assigned")) == 1, "its place in the group was kept"
        with frozen(own_server):
            time.sleep(1)
            started = time.monotonic()
            assert consumer.stop() == 0
            tell(f"left a frozen lake within {time.monotonic() - started:.1f} s")
            assert time.monotonic() - started < 5.5
        proxy.pace_s = 0.0
        last = faulty.start(batch_events=20_000)
        faulty.wait_landed()
        assert last.stop() == 0
    faulty.assert_undisturbed()


def test_a_stop_leaves_within_five_seconds_while_the_main_thread_waits_for_a_frozen_lake(
    dataset: Dataset, own_server: Postgres, starter: Starter
) -> None:
    """A claim, and the start, connect in the thread that Python's signal handlers need: libpq gives up after 10 s."""
    faulty = make_fault_rig(dataset, own_server.create_database("lake"), starter)
    with frozen(own_server):
        consumer = faulty.start()
        wait_until(lambda: consumer.events("consumes"), "the start")
        time.sleep(0.5)
        started = time.monotonic()
        assert consumer.stop() == 0
        tell(f"left a frozen lake within {time.monotonic() - started:.1f} s")
        assert 4.0 < time.monotonic() - started < 5.5
    assert consumer.events("left_at_once")
    last = faulty.start(batch_events=20_000)
    faulty.wait_landed()
    assert last.stop() == 0
    faulty.assert_undisturbed()
