"""Real Kafka, real PostgreSQL and a BigQuery emulator as child processes, each with a data folder and ports.

For the demo and the tests. Each `start_*` returns when the service answers, and its end is certain: by `stop()`, or by
the end of this process (see guard.py). A data folder serves one server at a time and survives restarts and kills.

What runs on the services (topics, tables, datasets) does not belong here, nor does how they are deployed for real.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import stat
import struct
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from deploy.embedded.guard import become
from deploy.embedded.parts import parts
from deploy.errors import AlreadyRunningError, DeployError, NotInstalledError, NotReadyError
from deploy.processes import Owner, Process, free_port, is_listening, start, take_port, wait_ready

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from deploy.embedded.parts import Parts

# Generous: a loaded machine of two cores took 20 s for what takes 3 s on an idle one.
KAFKA_READY_S, POSTGRES_READY_S, BIGQUERY_READY_S = 90.0, 60.0, 90.0
SUPERUSER = "postgres"
EMULATOR = Path(__file__).resolve().parent / "bigquery_emulator.py"


@dataclass
class Running:
    """A service that answers."""

    process: Process
    port: int

    @property
    def pid(self) -> int:
        """The server's own process, for tests that kill it."""
        return self.process.pid

    @property
    def log(self) -> Path:
        """What it has to say."""
        return self.process.log

    def is_running(self) -> bool:
        """Whether it still runs."""
        return self.process.is_running()

    def stop(self) -> None:
        """End it; calling it twice does no harm."""
        self.process.stop()

    def __enter__(self) -> Self:
        """Use it for a while."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()


@dataclass
class Kafka(Running):
    """A broker that is its own controller."""

    @property
    def bootstrap(self) -> str:
        """For bootstrap.servers."""
        return f"127.0.0.1:{self.port}"


@dataclass
class Postgres(Running):
    """A PostgreSQL server; its password was made when its data folder was."""

    password: str

    def dsn(self, database: str = SUPERUSER) -> str:
        """A connection URL with the password in it."""
        return f"postgresql://{SUPERUSER}:{quote(self.password)}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create a database unless it exists; return its connection URL."""
        self._statement(f'CREATE DATABASE "{name}"', unless="SELECT 1 FROM pg_database WHERE datname = %s", value=name)
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and end whoever is connected to it."""
        self._statement(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _statement(self, statement: str, *, unless: str | None = None, value: str | None = None) -> None:
        import psycopg2  # noqa: PLC0415 - only who has a database to create needs the driver

        connection = psycopg2.connect(self.dsn())
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                if unless is not None:
                    cursor.execute(unless, (value,))
                    if cursor.fetchone():
                        return
                cursor.execute(statement)
        finally:
            connection.close()


@dataclass
class BigQuery(Running):
    """The emulator: REST on `port`, the Storage API's gRPC beside it."""

    grpc_port: int
    project: str

    @property
    def url(self) -> str:
        """For BIGQUERY_EMULATOR_HOST."""
        return f"http://127.0.0.1:{self.port}"


def start_kafka(
    data_dir: Path,
    *,
    port: int | None = None,
    controller_port: int | None = None,
    heap: str = "512m",
    settings: Mapping[str, str] | None = None,
    java_options: Sequence[str] = (),
) -> Kafka:
    """Start Apache Kafka (KRaft, one node). Ports may differ from the last start on the same folder.

    `settings` come after ours and win, so a test may give the broker further listeners, with TLS and log-ins.
    """
    installed = _installed()
    data_dir.mkdir(parents=True, exist_ok=True)
    port = take_port("Kafka", port)
    controller_port = take_port("Kafka's controller", controller_port)
    config = data_dir / "server.properties"
    log = data_dir / "kafka.log"
    config.write_text(_kafka_config(data_dir, port, controller_port) + _lines(settings or {}))
    java = [
        # The second compiler takes half a microsecond of processor an event from its neighbours for the broker's first
        # millions, and a broker for one laptop is not faster afterwards.
        installed.java, f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
        f"-Dlog4j2.configurationFile={Path(__file__).parent / 'kafka' / 'log4j2.properties'}",
        "-Djava.awt.headless=true", *java_options, "-cp", f"{installed.kafka_libs}/*",
    ]  # fmt: skip
    if not (data_dir / "log" / "meta.properties").exists():
        _format_kafka(java, config, log)
    log.write_bytes(b"")  # "started" must be this start's
    process = start(
        "Kafka", [*java, "kafka.Kafka", config], log=log, env=_java_environment(), cwd=data_dir, grace_s=20.0
    )
    wait_ready(
        process, lambda: b"Kafka Server started" in log.read_bytes() and is_listening(port), timeout_s=KAFKA_READY_S
    )
    return Kafka(process=process, port=port)


def _kafka_config(data_dir: Path, port: int, controller_port: int) -> str:
    return _lines({
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data_dir / "log"),
        "log.retention.ms": "-1",  # the demo's state is a folder one may delete; nothing in it expires by itself
        "auto.create.topics.enable": "false",
        "num.partitions": "4",
        "default.replication.factor": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
    })  # fmt: skip


def _lines(settings: Mapping[str, str]) -> str:
    return "".join(f"{name}={_escaped(value)}\n" for name, value in settings.items())


def _escaped(value: str) -> str:
    """As Java reads it, which takes a file of properties for Latin-1: a folder with an accent would be another one."""
    units = (unit for (unit,) in struct.iter_unpack(">H", value.encode("utf-16-be")))
    return "".join(chr(unit) if unit < 128 else f"\\u{unit:04x}" for unit in units)  # noqa: PLR2004 - ASCII


def _format_kafka(java: list[str | Path], config: Path, log: Path) -> None:
    command = [*java, "kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", _cluster_id(), "-c", config]
    with log.open("ab") as out:
        code = subprocess.run(command, stdout=out, stderr=out, env=_java_environment(), check=False).returncode
    if code:
        raise NotReadyError(
            "Kafka", found=f"formatting its folder ended with code {code}", log=log, remedy="See below."
        )


def _cluster_id() -> str:
    return secrets.token_urlsafe(16).replace("-", "A").replace("_", "B")


def start_postgres(
    data_dir: Path, *, port: int | None = None, durable: bool = True, settings: Mapping[str, str] | None = None
) -> Postgres:
    """Start PostgreSQL on 127.0.0.1 with a password of its own. As root, it runs as another user.

    Args:
        data_dir: holds `pgdata`, `password` (readable by its owner alone) and the log.
        port: None: any free one.
        durable: False in tests: may lose the last commits when it is killed, not when it is stopped.
        settings: further server settings.
    """
    installed = _installed()
    data_dir.mkdir(parents=True, exist_ok=True)
    port = take_port("PostgreSQL", port)
    owner = _postgres_owner(data_dir, installed.postgres_bin)
    log = data_dir / "postgres.log"
    password = _password(data_dir)
    pgdata = data_dir / "pgdata"
    if not (pgdata / "PG_VERSION").exists():
        _initdb(installed.postgres_bin, pgdata, password, owner)
    _refuse_second_server(pgdata)
    unsafe = {} if durable else {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    chosen = {
        "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200", "timezone": "UTC",
        "log_timezone": "UTC", "max_wal_size": "2GB", "wal_buffers": "16MB", **unsafe, **(settings or {}),
    }  # fmt: skip
    command: list[str | Path] = [installed.postgres_bin / "postgres", "-D", pgdata, "-p", str(port)]
    for name, value in chosen.items():
        command += ["-c", f"{name}={value}"]
    process = start(
        "PostgreSQL", command, log=log, env=_bare_environment(), cwd=data_dir, stop_signal=signal.SIGINT, owner=owner
    )
    wait_ready(process, lambda: _accepts(pgdata, process.pid) and is_listening(port), timeout_s=POSTGRES_READY_S)
    return Postgres(process=process, port=port, password=password)


def _postgres_owner(data_dir: Path, binaries: Path) -> Owner | None:
    """PostgreSQL refuses root: root's server runs as `nobody`, who must be able to get at its files."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    reachable = all(
        parent.stat().st_mode & stat.S_IXOTH
        for path in (data_dir.resolve(), binaries.resolve())
        for parent in (path, *path.parents)
    )
    return Owner(uid=nobody.pw_uid, gid=nobody.pw_gid, keep_reach=not reachable)


def _password(data_dir: Path) -> str:
    file = data_dir / "password"
    if not file.exists():
        made = data_dir / "password.new"
        made.touch(mode=0o600)
        made.write_text(secrets.token_urlsafe(18))
        made.rename(file)
    return file.read_text()


def _initdb(binaries: Path, pgdata: Path, password: str, owner: Owner | None) -> None:
    """Make the cluster beside its place and rename it, so that an interrupted start leaves nothing half made."""
    made = pgdata.with_name("pgdata.new")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(mode=0o700)
    secret = pgdata.with_name("initdb.password")
    secret.unlink(missing_ok=True)
    secret.touch(mode=0o600)
    secret.write_text(password + "\n")
    if owner is not None:
        os.chown(made, owner.uid, owner.gid)
        os.chown(secret, owner.uid, owner.gid)
    command = [
        binaries / "initdb", "-D", made, "-U", SUPERUSER, f"--pwfile={secret}", "--auth=scram-sha-256", "--no-sync",
        "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
    ]  # fmt: skip
    switch = None if owner is None else partial(become, owner.uid, owner.gid, keep_reach=owner.keep_reach)
    done = subprocess.run(
        command, text=True, capture_output=True, check=False, env=_bare_environment(), preexec_fn=switch, cwd="/"
    )
    secret.unlink()
    if done.returncode:
        raise DeployError(
            f"PostgreSQL's data folder {pgdata} could not be made: initdb ended with code {done.returncode}. Nothing "
            f"was kept.\n{(done.stdout + done.stderr).strip()[-2000:]}"
        )
    made.rename(pgdata)


def _refuse_second_server(pgdata: Path) -> None:
    """Say in our words what PostgreSQL would say in its own: this folder has a living server."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int((pgdata / "postmaster.pid").read_text().splitlines()[0])
        if "postgres" in Path(f"/proc/{pid}/comm").read_text():
            raise AlreadyRunningError(
                f"PostgreSQL could not start: process {pid} already serves {pgdata}. Stop it (kill -INT {pid})."
            )


def _accepts(pgdata: Path, pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        lines = (pgdata / "postmaster.pid").read_text().splitlines()
        return lines[0] == str(pid) and lines[7].strip() == "ready"
    return False


def start_bigquery(
    data_dir: Path,
    *,
    port: int | None = None,
    grpc_port: int | None = None,
    project: str = "local",
    housekeeping: Sequence[str] = (),
) -> BigQuery:
    """Start the BigQuery emulator, with its housekeeping; options of that one as on its command line."""
    installed = _installed()
    data_dir.mkdir(parents=True, exist_ok=True)
    port = take_port("The BigQuery emulator", port)
    grpc_port = take_port("The BigQuery emulator's gRPC", grpc_port)
    command = [
        installed.python, "-P", EMULATOR, "serve", "--host", "127.0.0.1", "--port", str(port),
        "--grpc-port", str(grpc_port), "--data-dir", data_dir / "data", "--project", project, *housekeeping,
    ]  # fmt: skip
    env = _bare_environment() | {"HOME": str(installed.duckdb_home)}  # where DuckDB looks for its extensions
    log = data_dir / "bigquery.log"
    log.write_bytes(b"")
    process = start("BigQuery emulator", command, log=log, env=env, cwd=data_dir)
    service = BigQuery(process=process, port=port, grpc_port=grpc_port, project=project)
    datasets = f"{service.url}/bigquery/v2/projects/{project}/datasets"
    wait_ready(process, lambda: _answers(datasets), timeout_s=BIGQUERY_READY_S, fatal="Failed to download extension")
    return service


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own http://127.0.0.1
            return bool(response.status == 200)  # noqa: PLR2004
    except (OSError, urllib.error.URLError):
        return False


def _installed() -> Parts:
    found = parts()
    missing = found.missing()
    if missing:
        raise NotInstalledError(
            "The embedded parts are not all installed. Run `make setup`. Missing:\n  " + "\n  ".join(missing)
        )
    return found


def _java_environment() -> dict[str, str]:
    """Java names files by the locale; without one it can name none that has an accent in its path."""
    return _bare_environment() | {"LC_ALL": "C.UTF-8"}


def _bare_environment() -> dict[str, str]:
    """What a server needs of our environment: no setting of ours, no JAVA_TOOL_OPTIONS, no PGDATA."""
    kept = ("PATH", "HOME", "TMPDIR", "LANG", "USER")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"TZ": "UTC", "PYTHONUNBUFFERED": "1"}


__all__ = ["BigQuery", "Kafka", "Postgres", "Running", "free_port", "start_bigquery", "start_kafka", "start_postgres"]
