"""The peer: Kafka Connect with Debezium's JDBC sink, from the same topic into the same PostgreSQL, in its best setting.

Its rows are the event's bytes as text under (topic, partition, offset) as primary key: no JSON is checked, no contract,
no day, no ledger; it does less than the product. Its jars come from Maven Central by jgo, once.
Not here: the product (product.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from _landing.ground import TOPIC, TOPIC_PARTITIONS, Ground, Sent, query
from deploy.embedded.parts import STATE, VENV, parts
from deploy.processes import free_port, start
from streaming import lake

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.processes import Process

COORDINATES = (
    "org.apache.kafka:connect-runtime:4.3.1",
    "org.apache.kafka:connect-api:4.3.1",
    "org.apache.kafka:connect-json:4.3.1",
    "org.apache.kafka:connect-transforms:4.3.1",
    "org.apache.kafka:kafka-clients:4.3.1",
    "io.debezium:debezium-connector-jdbc:3.5.0.Final",
    "org.postgresql:postgresql:42.7.7",
    # jgo takes older ones of these than Connect's REST server and Hibernate are built for
    "jakarta.ws.rs:jakarta.ws.rs-api:3.1.0",
    "jakarta.servlet:jakarta.servlet-api:6.0.0",
    "jakarta.persistence:jakarta.persistence-api:3.2.0",
    "jakarta.xml.bind:jakarta.xml.bind-api:4.0.2",
    "jakarta.inject:jakarta.inject-api:2.0.1",
    "jakarta.transaction:jakarta.transaction-api:2.0.1",
    "jakarta.annotation:jakarta.annotation-api:2.1.1",
    "org.antlr:antlr4-runtime:4.13.2",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
    "org.apache.logging.log4j:log4j-core:2.25.3",
)
JARS = STATE / "connect-4.3.1-debezium-3.5.0"
# UNNEST fails with the coordinates as the connector's own key (a null pointer in 3.5.0): they come as plain fields
UNNEST = {
    "dialect.postgres.unnest.insert.enabled": "true",
    "primary.key.mode": "none",
    "transforms": "hoist,place",
    "transforms.place.type": "org.apache.kafka.connect.transforms.InsertField$Value",
    "transforms.place.topic.field": "__connect_topic",
    "transforms.place.partition.field": "__connect_partition",
    "transforms.place.offset.field": "__connect_offset",
}
SETTINGS: dict[str, dict[str, str]] = {
    "INSERT, batches rewritten, 2 tasks": {"tasks.max": "2"},
    "INSERT by UNNEST, 2 tasks": {"tasks.max": "2", **UNNEST},
    "INSERT by UNNEST, 1 task": {"tasks.max": "1", **UNNEST},
}
BATCH_ROWS = 10_000
TIMEOUT_S = 120.0


class PeerMissingError(Exception):
    """The peer cannot be brought here; the figures say so."""


def fetch_jars() -> Path:
    """The peer's jars, in a folder that is there whole or not at all."""
    if JARS.is_dir():
        return JARS
    with tempfile.TemporaryDirectory(dir=STATE, suffix=".new") as name:
        work = Path(name)
        listed = ",\n".join(f'    "{coordinate}"' for coordinate in COORDINATES)
        (work / "jgo.toml").write_text(
            f'[environment]\nname = "connect"\n\n[dependencies]\ncoordinates = [\n{listed}\n]\n\n'
            f'[settings]\ncache_dir = ".jgo"\n'
        )
        command = [VENV / "bin" / "jgo", "--ignore-config", "--resolver", "python", "--timeout", "60",
                   "--repo-cache", work / "m2", "sync"]  # fmt: skip
        env = os.environ | {"M2_REPO": str(work / "m2"), "JGO_CACHE_DIR": str(work / "cache"), "COLUMNS": "100"}
        try:
            done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=False, timeout=240)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PeerMissingError(f"its jars could not be fetched: {error}") from error
        if done.returncode:
            raise PeerMissingError(f"its jars could not be fetched: {(done.stdout + done.stderr).strip()[-300:]}")
        libs = work / "libs"
        libs.mkdir(mode=0o755)
        for jar in (work / ".jgo").glob("*/*.jar"):
            shutil.move(jar, libs / jar.name)
        libs.rename(JARS)
    return JARS


def land_all(ground: Ground, sent: Sent, setting: Mapping[str, str]) -> float:
    """Rows/s of the peer, from its first transaction that is seen to its last; its first transaction is left out."""
    jars = fetch_jars()
    ground.made += 1
    name = f"peer_{ground.made}"
    dsn = ground.postgres.create_database(name)
    ground.checkpoint()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-peer-") as folder:
            process = _start(ground, dsn, jars, Path(folder), setting)
            try:
                return _time_rows(dsn, sent, process)
            finally:
                process.stop()
    finally:
        ground.postgres.drop_database(name)


def _start(ground: Ground, dsn: str, jars: Path, folder: Path, setting: Mapping[str, str]) -> Process:
    query(dsn, CREATE_TABLE)
    server = urlsplit(dsn)
    worker = {
        "bootstrap.servers": ground.kafka.bootstrap,
        "key.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
        "value.converter": "org.apache.kafka.connect.storage.StringConverter",
        "offset.storage.file.filename": str(folder / "offsets"),
        "listeners": f"http://127.0.0.1:{free_port()}",
        "connector.client.config.override.policy": "All",
        "offset.flush.interval.ms": "5000",
        "plugin.discovery": "service_load",
    }
    connector = {
        "name": f"peer-{ground.made}",
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "topics": TOPIC,
        "connection.url": f"jdbc:postgresql://127.0.0.1:{server.port}{server.path}?reWriteBatchedInserts=true",
        "connection.username": server.username or "",
        "connection.password": server.password or "",
        "insert.mode": "insert",
        "primary.key.mode": "kafka",
        "schema.evolution": "none",
        "collection.name.format": "peer",
        "batch.size": str(BATCH_ROWS),
        "consumer.override.max.poll.records": str(BATCH_ROWS),
        "consumer.override.fetch.max.bytes": "52428800",
        "consumer.override.max.partition.fetch.bytes": "10485760",
        "consumer.override.auto.offset.reset": "earliest",
        "transforms": "hoist",
        "transforms.hoist.type": "org.apache.kafka.connect.transforms.HoistField$Value",
        "transforms.hoist.field": "payload",
        **setting,
    }
    for file, options in (("worker", worker), ("connector", connector)):
        lines = "".join(f"{option}={value}\n" for option, value in options.items())
        (folder / f"{file}.properties").write_text(lines)
    log_config = Path(__file__).parents[2] / "deploy" / "embedded" / "kafka" / "log4j2.properties"
    command = [
        parts().java, "-Xmx2g", "-XX:+UseParallelGC", f"-Dlog4j2.configurationFile={log_config}", "-cp", f"{jars}/*",
        "org.apache.kafka.connect.cli.ConnectStandalone", folder / "worker.properties", folder / "connector.properties",
    ]  # fmt: skip
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return start("Kafka Connect", command, log=folder / "connect.log", env=kept, cwd=folder)


CREATE_TABLE = """
CREATE TABLE peer (
    __connect_topic text NOT NULL, __connect_partition integer NOT NULL, __connect_offset bigint NOT NULL, payload text,
    PRIMARY KEY (__connect_topic, __connect_partition, __connect_offset))
"""
LANDED = f"""
SELECT coalesce(sum(top + 1), 0) FROM (
    SELECT (SELECT max(__connect_offset) FROM peer WHERE __connect_topic = '{TOPIC}' AND __connect_partition = p) AS top
    FROM generate_series(0, {TOPIC_PARTITIONS - 1}) AS p) AS tops
"""


def _time_rows(dsn: str, sent: Sent, process: Process) -> float:
    deadline = time.monotonic() + TIMEOUT_S
    started, already = 0.0, 0
    with closing(lake.connect(dsn, application_name="bench watch")) as conn, conn.cursor() as cursor:
        conn.autocommit = True
        while time.monotonic() < deadline:
            cursor.execute(LANDED)
            landed = int(cursor.fetchone()[0])
            if landed and not started:
                started, already = time.monotonic(), landed
            if landed >= sent.events:
                seconds = time.monotonic() - started
                cursor.execute("SELECT count(*), sum(crc32(convert_to(payload, 'UTF8'))) FROM peer")
                if tuple(map(int, cursor.fetchone())) != (sent.events, sent.crc32_sum):
                    raise SystemExit("WRONG: the peer's rows are not the events")
                if landed == already:
                    raise PeerMissingError("all rows came in one transaction: too few events to time it")
                return (landed - already) / seconds
            if not process.is_running() or "Task is being killed" in _log(process):
                break
            time.sleep(0.01)
    causes = [line for line in _log(process).splitlines() if line.startswith("Caused by") or "ERROR:" in line]
    raise PeerMissingError(f"it landed {landed} of {sent.events} events; its log: {' | '.join(causes[-3:])[:400]}")


def _log(process: Process) -> str:
    with suppress(OSError):
        return process.log.read_text(errors="replace")
    return ""
