"""Faults while landing: each ends with every event exactly once."""

from __future__ import annotations

import json
import random
import select
import signal
import socket
import socketserver
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Producer

from streaming import lake, ledger
from streaming.consumer import LandingConsumer
from streaming.database import transaction
from streaming.errors import FencedError, LakeRefusedError, LakeUnavailableError
from streaming.metrics import LandingMetrics, MetricsServer

from .rig import Rig, line, make_rig, stop_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fix_kafka import NewTopic

    from .conftest import LakeServer

pytestmark = pytest.mark.integration

EVENTS = 20_000


@pytest.fixture
def own_rig(kafka_bootstrap: str, new_topic: NewTopic, lake_server: LakeServer, tmp_path: Path) -> Rig:
    """A topic, and a lake of its own that may be killed."""
    rig = make_rig(new_topic(), kafka_bootstrap, lake_server.dsn(), tmp_path)
    rig.migrate()
    return rig


def feed(rig: Rig, events: int = EVENTS, *, seconds: float = 0.0) -> None:
    """Send events, spread over some seconds."""
    chunk = events // 20
    for part in range(20):
        rig.send(line(number) for number in range(part * chunk, part * chunk + chunk))
        time.sleep(seconds / 20)


def test_kill_9_at_random_moments_neither_loses_nor_doubles_an_event(rig: Rig) -> None:
    chance = random.Random(4)
    feeding = threading.Thread(target=feed, args=(rig,), kwargs={"seconds": 5.0})
    feeding.start()
    for _ in range(4):
        process = rig.start_consumer(STREAMING_BATCH_EVENTS="300")
        time.sleep(1.0 + chance.random() * 1.5)
        stop_process(process, signal.SIGKILL)
    feeding.join()
    rig.land()
    rig.assert_exact(EVENTS)


def test_two_consumers_share_a_topic_through_rebalances(rig: Rig) -> None:
    feeding = threading.Thread(target=feed, args=(rig,), kwargs={"seconds": 6.0})
    feeding.start()
    with rig.landing(batch_events=200):
        for _ in range(2):
            with rig.landing(batch_events=200, session_timeout_s=6.0):
                time.sleep(2)
        feeding.join()
        rig.wait(lambda: rig.accounted() == EVENTS, what="landing of everything")
    rig.assert_exact(EVENTS)


def test_a_paused_consumer_that_lost_its_topic_partitions_is_fenced_when_it_wakes_up(rig: Rig) -> None:
    """SIGSTOP past the session timeout, another consumer takes over, SIGCONT: the zombie writes nothing."""
    rig.send(line(number) for number in range(2_000))
    zombie = rig.start_consumer(STREAMING_BATCH_EVENTS="50", STREAMING_SESSION_TIMEOUT_S="6")
    try:
        rig.wait(lambda: rig.accounted() > 0, what="the first batch")
        zombie.send_signal(signal.SIGSTOP)
        rig.send(line(number) for number in range(2_000, 6_000))
        with rig.landing(batch_events=50, session_timeout_s=6.0):
            rig.wait(lambda: rig.accounted() == 6_000, what="the take-over")
            zombie.send_signal(signal.SIGCONT)
            rig.send(line(number) for number in range(6_000, 8_000))
            rig.wait(lambda: rig.accounted() == 8_000, what="landing by both")
            time.sleep(1)
            assert zombie.poll() is None, "the zombie joins again and goes on"
        assert stop_process(zombie) == 0
    finally:
        stop_process(zombie, signal.SIGKILL)
    rig.assert_exact(8_000)


def test_a_stolen_topic_partition_makes_the_consumer_claim_again(rig: Rig) -> None:
    with rig.landing(batch_events=100) as consumer:
        rig.send(line(number) for number in range(1_000))
        rig.wait(lambda: rig.accounted() == 1_000, what="landing")
        with rig.connect() as conn, transaction(conn) as cursor:
            for number in range(4):
                ledger.claim(cursor, rig.topic, number, topic_id=None, low=0, high=10**9, owner="thief")
        rig.send(line(number) for number in range(1_000, 2_000))
        rig.wait(lambda: rig.accounted() == 2_000, what="landing after the theft")
        assert sum(sample.value for metric in consumer.metrics.fences.collect() for sample in metric.samples
                   if sample.name.endswith("_total")) >= 1  # fmt: skip
    rig.assert_exact(2_000)


def test_two_groups_on_one_topic_stop_with_the_cause_instead_of_fencing_for_ever(rig: Rig) -> None:
    stop = threading.Event()

    def steal() -> None:
        while not stop.wait(0.2):
            with rig.connect() as conn, transaction(conn) as cursor:
                for number in range(4):
                    ledger.claim(cursor, rig.topic, number, topic_id=None, low=0, high=10**9, owner="other-group/host")
            rig.send(line(number) for number in range(40))

    thief = threading.Thread(target=steal)
    thief.start()
    try:
        with pytest.raises(FencedError, match="taken by other-group/host"), rig.landing() as consumer:
            rig.wait(lambda: consumer.has_ended, what="the end of the fenced consumer")  # type: ignore[attr-defined]
    finally:
        stop.set()
        thief.join(20)


def test_cut_connections_neither_lose_nor_double_an_event(rig: Rig) -> None:
    """The server ends the writer's session in the middle of COPY, between COPY and commit, and idle."""
    feeding = threading.Thread(target=feed, args=(rig,), kwargs={"seconds": 4.0})
    chance = random.Random(5)
    with rig.landing(batch_events=500):
        feeding.start()
        cuts = 0
        while feeding.is_alive():
            cuts += len(
                rig.query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                    "application_name LIKE 'streaming writer%%' "
                    "AND datname = current_database()"
                )
            )
            time.sleep(chance.random() * 0.2)
        rig.wait(lambda: rig.accounted() == EVENTS, what="landing of everything")
    assert cuts > 5
    rig.assert_exact(EVENTS)


def test_a_commit_whose_answer_is_lost_is_not_repeated(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from streaming import landing

    real, lost = landing.land_batches, []

    def commit_then_lose(conn, *args, **kwargs):
        landed = real(conn, *args, **kwargs)
        if len(lost) < 3:
            lost.append(landed.rows)
            conn.close()
            raise LakeUnavailableError("the answer to COMMIT was lost")
        return landed

    monkeypatch.setattr(landing, "land_batches", commit_then_lose)
    rig.send(line(number) for number in range(1_000))
    assert rig.land(batch_events=200).rows == 1_000
    assert len(lost) == 3
    rig.assert_exact(1_000)


def test_postgres_killed_and_started_again_costs_nothing(own_rig: Rig, lake_server: LakeServer) -> None:
    with own_rig.landing(batch_events=200) as consumer:
        own_rig.send(line(number) for number in range(2_000))
        own_rig.wait(lambda: own_rig.accounted() == 2_000, what="landing")
        lake_server.kill()
        own_rig.send(line(number) for number in range(2_000, 6_000))
        time.sleep(2)
        assert consumer.state()["lake_down"]
        assert not consumer.state()["ready"]
        assert consumer.state()["healthy"]
        lake_server.start()
        own_rig.wait(lambda: own_rig.accounted() == 6_000, what="landing after the restart")
        assert consumer.state()["ready"]
    own_rig.assert_exact(6_000)


def test_a_lake_that_stays_away_ends_the_consumer_with_a_message(own_rig: Rig, lake_server: LakeServer) -> None:
    with pytest.raises(LakeUnavailableError, match="STREAMING_OUTAGE_LIMIT_S"):
        lose_the_lake(own_rig, lake_server)


def lose_the_lake(rig: Rig, lake_server: LakeServer) -> None:
    with rig.landing(outage_limit_s=2.0) as consumer:
        rig.send(line(number) for number in range(100))
        rig.wait(lambda: rig.accounted() == 100, what="landing")
        lake_server.kill()
        rig.send(line(number) for number in range(100))
        rig.wait(lambda: consumer.has_ended, what="the end of the consumer")  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_consumer_writes_what_it_has_and_leaves_within_five_seconds(rig: Rig, number: signal.Signals) -> None:
    rig.send(line(n) for n in range(EVENTS))
    process = rig.start_consumer(STREAMING_BATCH_EVENTS="500")
    rig.wait(lambda: rig.accounted() > 0, what="the first batch")
    started = time.monotonic()
    assert stop_process(process, number) == 0
    assert time.monotonic() - started < 5
    with rig.connect() as conn:
        assert all(counts.is_closed for counts in lake.topic_counts(conn, rig.topic))
    rig.land()
    rig.assert_exact(EVENTS)


class Stream(threading.Thread):
    """Sends without a pause, AHEAD events before what has landed, so that a consumer never waits for one."""

    AHEAD = 100_000  # more than a consumer holds: four batches of 20,000

    def __init__(self, rig: Rig) -> None:
        super().__init__(name="stream")
        self.rig = rig
        self.sent = 0
        self.stopping = threading.Event()

    def waiting(self) -> int:
        return self.sent - self.rig.accounted()

    def run(self) -> None:
        payloads = [json.dumps(line(number)).encode() for number in range(4_000)]
        producer = Producer({"bootstrap.servers": self.rig.bootstrap, "linger.ms": 5})
        while not self.stopping.is_set():
            if self.waiting() > self.AHEAD:
                time.sleep(0.01)
                continue
            for number, payload in enumerate(payloads):
                producer.produce(self.rig.topic, payload, key=b"k", partition=number % 4)
            assert producer.flush(30) == 0
            self.sent += len(payloads)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.join(60)


def test_a_consumer_stopped_at_full_load_leaves_within_five_seconds_and_the_next_one_goes_on(rig: Rig) -> None:
    """Messages stream in faster than they land, in batches of the usual size; soon after its start, and later."""
    with Stream(rig) as stream:
        for events in (1, 40_000):
            rig.wait(lambda: stream.waiting() > stream.AHEAD, what="a full topic")
            enough = rig.accounted() + events
            process = rig.start_consumer()
            rig.wait(lambda enough=enough: rig.accounted() >= enough, what=f"{events} events")
            waiting, started = stream.waiting(), time.monotonic()
            assert stop_process(process) == 0
            assert time.monotonic() - started < 5
            assert waiting > 20_000, "there was more than a batch to come"
            with rig.connect() as conn:
                assert all(counts.is_closed for counts in lake.topic_counts(conn, rig.topic))
    assert stream.waiting() > 0, "the last start has something left to land"
    rig.land()
    rig.assert_exact(stream.sent)


def test_a_consumer_stopped_while_the_lake_is_away_leaves_within_five_seconds(
    own_rig: Rig, lake_server: LakeServer
) -> None:
    process = own_rig.start_consumer()
    own_rig.send(line(n) for n in range(100))
    own_rig.wait(lambda: own_rig.accounted() == 100, what="landing")
    lake_server.kill()
    own_rig.send(line(n) for n in range(1_000))
    time.sleep(1.5)
    started = time.monotonic()
    assert stop_process(process) == 0
    assert time.monotonic() - started < 5.5
    lake_server.start()
    own_rig.land()
    own_rig.assert_exact(1_100)


def test_metrics_and_health_are_served(rig: Rig) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = rig.start_consumer(METRICS_PORT=str(port))
    try:
        rig.send([*(line(n) for n in range(90)), *(b"{" for _ in range(10))])
        rig.wait(lambda: rig.accounted() == 100, what="landing")
        time.sleep(0.3)
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        assert f'landing_rows_total{{topic="{rig.topic}"}} 90.0' in text
        assert f'landing_dead_letters_total{{reason="not_json",topic="{rig.topic}"}} 10.0' in text
        ready = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5))
        assert len(ready["topic_partitions"]) == 4
        assert json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5))["healthy"]
    finally:
        assert stop_process(process) == 0


def test_a_health_page_says_503_while_the_landing_is_not_ready() -> None:
    state = {"healthy": True, "ready": False}
    with MetricsServer(LandingMetrics(), 0, state=lambda: state) as server:
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/readyz", timeout=5)
        assert urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=5).status == 200


@pytest.mark.parametrize("path", ["metrics?name[]=landing_rows_total", "healthz?verbose", "readyz?"])
def test_a_page_is_found_by_its_path_whatever_is_asked_of_it(path: str) -> None:
    with MetricsServer(LandingMetrics(), 0, state=lambda: {"healthy": True, "ready": True}) as server:
        assert urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{path}", timeout=5).status == 200


def test_secrets_are_never_printed(rig: Rig) -> None:
    dsn = "postgresql://lander:hunter2-secret@127.0.0.1:1/lake"
    process = rig.start_consumer(LAKE_DSN=dsn, STREAMING_OUTAGE_LIMIT_S="1")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"Check that PostgreSQL is up" in errors
    assert b"hunter2" not in errors


def test_a_lake_that_is_away_at_the_start_is_told_and_waited_for(
    own_rig: Rig, lake_server: LakeServer, tmp_path: Path
) -> None:
    own_rig.send(line(number) for number in range(500))
    lake_server.kill()
    with own_rig.started(tmp_path / "log") as process:
        own_rig.wait(lambda: "the lake is away at the start" in (tmp_path / "log").read_text(), what="the message")
        assert process.poll() is None
        lake_server.start()
        own_rig.wait(lambda: own_rig.accounted() == 500, what="landing once the lake is there")
        assert stop_process(process) == 0
    said = (tmp_path / "log").read_text()
    assert "Check that PostgreSQL is up and LAKE_DSN is right" in said
    assert "Traceback" not in said
    own_rig.assert_exact(500)


@pytest.mark.parametrize("service", ["lake", "broker"])
def test_readyz_says_what_is_away_at_the_start(rig: Rig, service: str) -> None:
    """The runbook of a landing that lags goes by it."""
    contracts, nowhere = rig.contracts, "127.0.0.1:1"
    rig.dsn = f"postgresql://lander@{nowhere}/lake" if service == "lake" else rig.dsn
    rig.bootstrap = nowhere if service == "broker" else rig.bootstrap
    consumer, stop = LandingConsumer(rig.settings(), contracts), threading.Event()
    landing = threading.Thread(target=consumer.run, args=(stop,))
    landing.start()
    try:
        rig.wait(lambda: consumer.state()[f"{service}_down"], what=f"saying that the {service} is away")
    finally:
        stop.set()
        landing.join()
    assert not consumer.state()["ready"]
    assert consumer.metrics.outages.labels(service)._value.get() == 1


def test_a_lake_that_stays_away_at_the_start_ends_the_consumer_at_the_limit(
    own_rig: Rig, lake_server: LakeServer
) -> None:
    lake_server.kill()
    started = time.monotonic()
    with pytest.raises(LakeUnavailableError, match="Check that PostgreSQL is up"):
        own_rig.land(outage_limit_s=2.0)
    assert time.monotonic() - started >= 2.0
    lake_server.start()


def test_a_lake_that_refuses_the_log_in_ends_the_consumer_at_once(rig: Rig) -> None:
    rig.dsn = urlsplit(rig.dsn)._replace(path="/no_such_lake").geturl()
    started = time.monotonic()
    with pytest.raises(LakeRefusedError, match="no_such_lake"):
        rig.land(outage_limit_s=60.0)
    assert time.monotonic() - started < 5


def test_a_broker_that_is_away_at_the_start_is_told_and_waited_for(rig: Rig, tmp_path: Path) -> None:
    """A port that nobody listens at, until something forwards it to the broker."""
    rig.send(line(number) for number in range(100))
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host, _, real_port = rig.bootstrap.rpartition(":")
    log = tmp_path / "log"
    with rig.started(log, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}") as process:
        rig.wait(lambda: "the broker is away at the start" in log.read_text(), what="the message")
        assert process.poll() is None
        with forwarding(port, (host, int(real_port))):
            rig.wait(lambda: rig.accounted() == 100, what="landing once the broker is there")
            assert stop_process(process) == 0
    assert "Check that Kafka is up" in log.read_text()
    rig.assert_exact(100)


@contextmanager
def forwarding(port: int, to: tuple[str, int]) -> Iterator[None]:
    """A port that leads to another one, for the first contact: after it Kafka is asked where it says that it is."""

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(to) as there:
                ends = {self.request: there, there: self.request}
                while True:
                    for ready in select.select(list(ends), [], [])[0]:
                        if not (data := ready.recv(65_536)):
                            return
                        ends[ready].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", port), Forward) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
