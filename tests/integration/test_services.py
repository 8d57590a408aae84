"""The embedded services: real, restartable, alone on their ports, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest

from deploy.embedded.services import BigQuery, start_bigquery, start_kafka, start_postgres
from deploy.errors import AlreadyRunningError, NotReadyError, PortInUseError
from deploy.processes import start, wait_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.fix_kafka import NewTopic

pytestmark = pytest.mark.integration


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def wait_gone(pids: list[int], timeout_s: float) -> list[int]:
    deadline = time.monotonic() + timeout_s
    while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def test_kafka_keeps_its_events_over_a_kill_and_new_ports(tmp_path: Path) -> None:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    first = start_kafka(tmp_path)
    admin = AdminClient({"bootstrap.servers": first.bootstrap})
    creations = admin.create_topics([NewTopic("kept", num_partitions=1)])
    creations["kept"].result(20)
    producer = Producer({"bootstrap.servers": first.bootstrap, "enable.idempotence": True})
    producer.produce("kept", "naïve ☕".encode())
    assert producer.flush(20) == 0
    os.kill(first.pid, signal.SIGKILL)
    assert wait_gone([first.pid], 5) == []
    first.stop()
    with start_kafka(tmp_path) as second:
        consumer = Consumer({"bootstrap.servers": second.bootstrap, "group.id": "g", "auto.offset.reset": "earliest"})
        consumer.subscribe(["kept"])
        message = consumer.poll(20)
        consumer.close()
    assert message is not None
    assert message.value().decode() == "naïve ☕"


def test_kafka_keeps_its_log_in_a_folder_with_an_accent_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "un café ☕"
    for _ in range(2):  # the second start looks where the first one wrote
        start_kafka(folder).stop()
    assert (folder / "log" / "meta.properties").exists()
    assert [each.name for each in tmp_path.iterdir()] == [folder.name]


def test_postgres_keeps_its_rows_over_a_kill_and_asks_for_its_password(tmp_path: Path) -> None:
    first = start_postgres(tmp_path)
    dsn = first.create_database("kept")
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t AS SELECT 'naïve ☕' AS v")
    connection.close()
    os.kill(first.pid, signal.SIGKILL)
    assert wait_gone([first.pid], 5) == []
    first.stop()
    with start_postgres(tmp_path) as second:
        connection = psycopg2.connect(second.create_database("kept"))
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT v, current_setting('server_version_num')::int / 10000, current_setting('timezone') FROM t"
            )
            row = cursor.fetchone()
        connection.close()
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(second.dsn().replace(second.password, "guess"))
    assert row == ("naïve ☕", 18, "UTC")


def test_bigquery_keeps_its_datasets_over_a_kill(tmp_path: Path) -> None:
    first = start_bigquery(tmp_path)
    path = "/bigquery/v2/projects/local/datasets"
    body = b'{"datasetReference": {"projectId": "local", "datasetId": "kept"}}'
    request = urllib.request.Request(first.url + path, body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()
    os.kill(first.pid, signal.SIGKILL)
    assert wait_gone([first.pid], 5) == []
    first.stop()
    with start_bigquery(tmp_path) as second, urllib.request.urlopen(second.url + path, timeout=10) as response:
        assert b'"kept"' in response.read()


def test_bigquery_keeps_its_rows_where_its_folder_is_moved(tmp_path: Path) -> None:
    def ask(server: BigQuery, sql: str) -> bytes:
        body = json.dumps({"query": sql, "useLegacySql": False}).encode()
        url = f"{server.url}/bigquery/v2/projects/local/queries"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return bytes(response.read())

    with start_bigquery(tmp_path / "old") as first:
        ask(first, "CREATE SCHEMA kept")
        ask(first, "CREATE TABLE kept.t AS SELECT 'naïve' AS v")
    moved = (tmp_path / "old").rename(tmp_path / "un café")
    with start_bigquery(moved) as second:
        assert "naïve".encode() in ask(second, "SELECT v FROM kept.t")
        ask(second, "INSERT INTO kept.t SELECT 'more'")
    assert not (tmp_path / "old").exists()


@pytest.mark.parametrize("starter", [start_kafka, start_postgres, start_bigquery])
def test_port_in_use_is_said_with_the_remedy(starter: Callable[..., object], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"port {port} .* in use .*choose another port"):
            starter(tmp_path, port=port)


def test_second_server_on_one_folder_is_refused(tmp_path: Path) -> None:
    with start_postgres(tmp_path) as first, pytest.raises(AlreadyRunningError, match=f"process {first.pid} already"):
        start_postgres(tmp_path)


def test_process_that_ends_at_once_shows_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no space for me')"]
    process = start("Thing", command, log=tmp_path / "thing.log", env=os.environ)
    with pytest.raises(NotReadyError, match=r"(?s)Thing did not come up: it ended with exit code 1.*no space for me"):
        wait_ready(process, lambda: False, timeout_s=20)


def test_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="/does/not/exist could not be executed"):
        start("Thing", ["/does/not/exist"], log=tmp_path / "thing.log", env=os.environ)


STARTS_ALL = """
import signal, sys, time
from pathlib import Path
from deploy.embedded.services import start_bigquery, start_kafka, start_postgres
signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background hands down that it is ignored,
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # and Dagster, after a run in this process, the same for SIGTERM
folder = Path(sys.argv[1])
services = [start_kafka(folder / "k"), start_postgres(folder / "p"), start_bigquery(folder / "b")]
print(*(service.pid for service in services), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_death_of_the_starter_ends_every_service(number: signal.Signals, tmp_path: Path, repository: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTS_ALL, tmp_path], cwd=repository, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    pids = [int(pid) for pid in starter.stdout.readline().split()]
    assert len(pids) == 3
    starter.send_signal(number)
    starter.wait()
    starter.stdout.close()
    assert wait_gone(pids, 20) == []


def test_death_of_the_guard_ends_its_service(tmp_path: Path) -> None:
    server = start_postgres(tmp_path)
    server.process.guard.kill()
    assert wait_gone([server.pid], 20) == []
    server.stop()


FORKS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands a grandchild in its own session to the guard")
def test_stubborn_process_and_its_runaway_grandchild_are_ended(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    command = [sys.executable, "-c", FORKS, noted]
    process = start("Thing", command, log=tmp_path / "thing.log", env=os.environ, grace_s=0.5)
    wait_ready(process, lambda: noted.exists() and bool(noted.read_text()), timeout_s=20)
    process.stop()
    assert wait_gone([process.pid, int(noted.read_text())], 1) == []


@pytest.fixture
def seen(fresh_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    with fresh_database() as dsn:
        yield dsn


def test_each_test_has_its_own_database_topic_and_datasets(
    seen: str, lake_dsn: str, new_topic: NewTopic, warehouse_env: dict[str, str]
) -> None:
    assert seen != lake_dsn
    assert new_topic() != new_topic()
    assert warehouse_env["WAREHOUSE_DATASET_PREFIX"]


def test_a_line_that_stops_leaves_what_its_program_ran_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy import processes
    from deploy.demo.line import Line, Ports
    from deploy.demo.state import State

    def sleeper(name: str) -> processes.Process:
        return processes.start(name, ["sleep", "60"], log=tmp_path / f"{name}.log", env={}, cwd=tmp_path, grace_s=1.0)

    before, mine = sleeper("before"), []
    monkeypatch.setattr(Line, "_bring_up", lambda _line, _feed: mine.append(sleeper("mine")))
    line = Line(state=State(tmp_path), ports=Ports(), note=lambda _: None)
    try:
        line.start(lambda: None)
        while line.is_starting():
            time.sleep(0.05)
        line.stop()
        assert before.is_running()
        assert not mine[0].is_running()
    finally:
        before.stop()
