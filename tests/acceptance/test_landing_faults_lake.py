"""PostgreSQL dies, is away, loses connections, has no space: the lake equals that of an undisturbed run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded.services import Postgres, start_postgres
from tests.acceptance.faults.proxy import LakeProxy, Moment
from tests.acceptance.faults.rig import (
    Dataset,
    FaultRig,
    Starter,
    chance,
    make_fault_rig,
    tell,
    wait_until,
    whole_or_ci,
)  # fmt: skip

pytestmark = [pytest.mark.acceptance, pytest.mark.integration, pytest.mark.timeout(900)]

CUTS = whole_or_ci(60, 14)
OUTAGE_S = whole_or_ci(75, 6)
DISK_MB = 160


class Server:
    """A server that may be killed, and started again on its port."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.settings = settings
        self.running: Postgres = start_postgres(folder, settings=settings)

    def start(self) -> None:
        self.running.stop()
        self.running = start_postgres(self.folder, port=self.running.port, settings=self.settings)

    def end(self, number: int) -> None:
        os.kill(self.running.pid, number)
        wait_until(lambda: not self.running.is_running(), "the server's end")


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A durable server (fsync on) for one test."""
    made = Server(tmp_path_factory.mktemp("lake"))
    yield made
    made.running.stop()


def test_connections_cut_at_every_step_neither_lose_nor_double_an_event(faulty: FaultRig) -> None:
    """In COPY, between COPY and COMMIT, before the server saw the COMMIT and after; one process survives them all."""
    draw = chance("cuts")
    moments = list(Moment)
    with LakeProxy(faulty.rig.dsn, pace_s=0.01) as proxy:
        consumer = faulty.start(LAKE_DSN=proxy.dsn)
        struck = []
        for number in range(CUTS):
            moment = moments[number % len(moments)] if number < 2 * len(moments) else draw.choice(moments)
            proxy.trap(moment, lambda session: session.cut(), nth=draw.randint(1, 3)).wait()
            struck.append((moment.name, faulty.landed()))
        tell(struck)
        assert struck[-1][1] < faulty.all_offsets, "the cuts were spread over the landing"
        faulty.wait_landed()
        assert len(consumer.events("lake_unavailable")) >= CUTS // 2
        assert consumer.events("fenced") == [], "nobody else was there; its own commit is not taken for another's"
        assert consumer.stop() == 0
    faulty.assert_undisturbed()


def test_postgres_killed_and_started_again_neither_loses_nor_doubles_an_event(
    dataset: Dataset, server: Server, starter: Starter
) -> None:
    """Kill -9, immediate and fast shutdown, each in the middle of the landing."""
    faulty = make_fault_rig(dataset, server.running.create_database("lake"), starter)
    draw = chance("postgres")
    with LakeProxy(faulty.rig.dsn, pace_s=0.01) as proxy:
        consumer = faulty.start(LAKE_DSN=proxy.dsn)
        for number in [signal.SIGKILL, signal.SIGQUIT, signal.SIGINT] * whole_or_ci(4, 1):
            landed = faulty.landed()
            moment = draw.choice([Moment.COPY, Moment.LEDGER, Moment.COMMITTED, Moment.ANSWERED])
            proxy.trap(
                moment, lambda _, number=number: os.kill(server.running.pid, number), nth=draw.randint(1, 4)
            ).wait()
            wait_until(lambda: not server.running.is_running(), "the server's end")
            server.start()
            tell((signal.Signals(number).name, moment.name, landed, faulty.landed()))
        faulty.wait_landed()
        assert consumer.stop() == 0
    faulty.assert_undisturbed()


def test_a_lake_that_is_away_costs_neither_an_event_nor_the_place(
    dataset: Dataset, server: Server, starter: Starter
) -> None:
    """It waits with growing pauses, says so once, and goes on where it was, without joining the group again."""
    faulty = make_fault_rig(dataset, server.running.create_database("lake"), starter)
    with LakeProxy(faulty.rig.dsn, pace_s=0.02) as proxy:
        consumer = faulty.start(LAKE_DSN=proxy.dsn)
        wait_until(lambda: proxy.landings > 5, "the first batches")
        server.end(signal.SIGINT)
        time.sleep(OUTAGE_S)
        assert consumer.is_running()
        server.start()
        back_at = time.monotonic()
        landed = faulty.landed()
        wait_until(lambda: faulty.landed() > landed, "the first batch after the outage", 30)
        tell(f"away for {OUTAGE_S} s; landed again {time.monotonic() - back_at:.1f} s after it was back")
        assert time.monotonic() - back_at < 12, "pauses grow to 5 s and no further"
        proxy.pace_s = 0.0
        faulty.wait_landed()
        assert len(consumer.events("lake_unavailable")) == 1
        assert len(consumer.events("lake_available_again")) == 1
        assert len(consumer.events("assigned")) == 1, "its place in the group was kept"
        assert consumer.stop() == 0
    faulty.assert_undisturbed()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little space."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=755", "tmpfs", str(folder)],
        check=False, capture_output=True, text=True,
    ) if shutil.which("mount") else None  # fmt: skip
    if mounted is None or mounted.returncode:
        pytest.skip(f"NOT TESTED: a full disk; mounting a small one is not allowed here: {mounted and mounted.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_nothing_for_good_and_loses_nothing(
    dataset: Dataset, small_disk: Path, starter: Starter
) -> None:
    """The disk of a real server fills up while it lands; once there is space again, everything is there."""
    server = Server(small_disk, max_wal_size="32MB", min_wal_size="32MB", log_min_messages="warning")
    try:
        faulty = make_fault_rig(dataset, server.running.create_database("lake"), starter)
        with LakeProxy(faulty.rig.dsn, pace_s=0.02) as proxy:
            consumer = faulty.start(LAKE_DSN=proxy.dsn)
            wait_until(lambda: proxy.landings > 5, "the first batches")
            fill(small_disk / "ballast")
            wait_until(lambda: consumer.events("lake_unavailable") or not consumer.is_running(), "the full disk", 60)
            proxy.pace_s = 0.0
            time.sleep(2)
            said = str(consumer.events("lake_unavailable"))
            tell((said, server.running.is_running()))
            assert consumer.is_running(), "it waits for space, as for any outage"
            assert "No space left" in said or "terminat" in said or "connect" in said
            (small_disk / "ballast").unlink()
            if not server.running.is_running():  # no space for the WAL ends the server; its keeper starts it again
                server.start()
            faulty.wait_landed()
            assert len(consumer.events("lake_unavailable")) == 1, "one outage is told once"
            assert len(consumer.events("lake_available_again")) == 1
            assert consumer.stop() == 0
        faulty.assert_undisturbed()
    finally:
        server.running.stop()


def fill(ballast: Path) -> None:
    """Take all the space there is."""
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(b"\0" * 65_536)
                file.flush()
        except OSError as error:
            tell(f"the disk is full: {error}")
