"""The demo's processes: what is started, with which environment, in which order, and how all of it is stopped.

Every one is real: Kafka, PostgreSQL, the BigQuery emulator, Power BI's stand-in, the landing consumer, Dagster's code
server, webserver and daemon. What they hold (layers.py) and how it is shown (show.py) do not belong here.
"""

from __future__ import annotations

import os
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deploy import processes
from deploy.embedded.services import start_bigquery, start_kafka, start_postgres
from deploy.errors import DeployError, NotReadyError, tail
from deploy.processes import Process, is_listening, wait_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from deploy.demo.state import State
    from deploy.embedded.services import BigQuery, Kafka, Postgres, Running

T = TypeVar("T")
R = TypeVar("R", bound="Running")
ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".venv" / "bin"
CONTRACTS = ROOT / "streaming" / "contracts"
PROJECT = "demo-project"
DAGSTER_PORT, REPORT_PORT, MAGE_PORT = 3000, 8050, 6789
LOCATION = "orchestration"
CONSUMER, POOL = "landing consumer", "Dagster run pool"
# Of a user's own settings the one that goes through: without it files with many bad rows could never be shown.
DEAD_LETTER_LIMIT = "STREAMING_DEAD_LETTER_LIMIT"
READY_S = 180.0  # Dagster imports for 5 s; on a loaded machine of two cores beside everything else that took 60 s


@dataclass(frozen=True)
class Ports:
    """Where things listen; None: as State.port chooses."""

    kafka: int | None = None
    postgres: int | None = None
    bigquery: int | None = None
    dagster: int | None = None
    report: int | None = None


@dataclass
class Line:
    """The running processes of a demo. Start it once; `stop` may be called at any moment, from any state."""

    state: State
    ports: Ports
    note: Callable[[str], None]
    dagster_yaml: str = ""  # "": as the demo has it
    env: dict[str, str] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    producer: Process | None = None
    fed_at: float | None = None  # when the producer had sent everything
    _processes: dict[str, Process] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closing: bool = False
    _foreign: frozenset[int] = frozenset()  # what this program ran before: a test's own services
    _starter: threading.Thread | None = None
    _failure: BaseException | None = None

    # ---- starting

    def start(self, feed: Callable[[], object]) -> None:
        """Begin to bring everything up, in a thread of its own, so that whoever waits can be interrupted.

        Args:
            feed: called once events can be produced, which is long before everything is up.
        """

        def bring_up() -> None:
            try:
                self._bring_up(feed)
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                self._failure = error

        self._foreign = frozenset(process.pid for process in processes.living())
        self._starter = threading.Thread(target=bring_up, name="start", daemon=True)
        self._starter.start()

    def is_starting(self) -> bool:
        """Whether something is still on its way up.

        Raises:
            DeployError: something did not come up; the message says what, why and what to do.
        """
        if self._starter is not None and self._starter.is_alive():
            return True
        if self._failure is not None:
            raise self._failure
        return False

    def _bring_up(self, feed: Callable[[], object]) -> None:
        """Everything, side by side where one does not need the other.

        Raises:
            DeployError: something did not come up; the message says what, why and what to do.
        """
        began = time.monotonic()
        chosen = self._choose_ports()
        with ThreadPoolExecutor(thread_name_prefix="start") as pool:
            kafka = pool.submit(self._timed, "kafka", lambda: self._kafka(chosen["kafka"]))
            postgres = pool.submit(self._timed, "postgres", lambda: self._postgres(chosen["postgres"]))
            bigquery = pool.submit(self._timed, "bigquery", lambda: self._bigquery(chosen["bigquery"]))
            self._set_environment(kafka.result(), postgres.result(), bigquery.result(), chosen)
            steps = [
                pool.submit(self._timed, "landing", lambda: self._landing(feed)),
                pool.submit(self._timed, "warehouse", self._warehouse),
                pool.submit(self._timed, "dagster", lambda: self._dagster(chosen["dagster"], chosen["code"])),
            ]
            for step in steps:
                step.result()
        self.seconds["start"] = time.monotonic() - began

    def _choose_ports(self) -> dict[str, int]:
        asked = self.ports
        port = self.state.port
        return {
            "kafka": port("Kafka", asked=asked.kafka, note=self.note),
            "postgres": port("PostgreSQL", asked=asked.postgres, note=self.note),
            "bigquery": port("the BigQuery emulator", asked=asked.bigquery, note=self.note),
            "dagster": port("Dagster", asked=asked.dagster, preferred=DAGSTER_PORT, note=self.note),
            "report": port("the report", asked=asked.report, preferred=REPORT_PORT, note=self.note),
            "code": port("Dagster's code server", asked=None, note=self.note),
        }

    def _timed(self, name: str, work: Callable[[], T]) -> T:
        began = time.monotonic()
        result = work()
        self.seconds[f"start_{name}"] = time.monotonic() - began
        return result

    def _kafka(self, port: int) -> Kafka:
        return self._keep(start_kafka(self.state.root / "kafka", port=port))

    def _postgres(self, port: int) -> Postgres:
        server = self._keep(start_postgres(self.state.root / "postgres", port=port))
        for name in ("lake", "dagster"):
            server.create_database(name)
        return server

    def _bigquery(self, port: int) -> BigQuery:
        return self._keep(start_bigquery(self.state.root / "bigquery", port=port, project=PROJECT))

    def _keep(self, service: R) -> R:
        self._register(service.process)
        return service

    def _register(self, process: Process) -> Process:
        with self._lock:
            self._processes[process.name] = process
            closing = self._closing
        if closing:
            process.stop()
            raise DeployError("stopping")
        return process

    def _set_environment(self, kafka: Kafka, postgres: Postgres, bigquery: BigQuery, ports: dict[str, int]) -> None:
        dagster_home = self.state.root / "dagster"
        dagster_home.mkdir(exist_ok=True)
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
            "STREAMING_GROUP_ID": "demo-landing",
            "LAKE_DSN": postgres.dsn("lake"),
            "DAGSTER_POSTGRES_URL": postgres.dsn("dagster"),
            "WAREHOUSE_PROJECT": PROJECT,
            "WAREHOUSE_LOCATION": "EU",
            "BIGQUERY_EMULATOR_HOST": bigquery.url,
            "BIGQUERY_EMULATOR_GRPC": f"127.0.0.1:{bigquery.grpc_port}",
            "POWERBI_API_URL": f"http://127.0.0.1:{ports['report']}",
            "DAGSTER_HOME": str(dagster_home),
            "DAGSTER_URL": f"http://127.0.0.1:{ports['dagster']}",
            "MAGE_DATA_DIR": str(self.state.root / "mage"),
        }
        self.env = settings
        self.urls = {
            "Dagster": f"http://127.0.0.1:{ports['dagster']}",
            "Report": f"http://127.0.0.1:{ports['report']}/report",
            "Mage": "make mage",
        }
        self.state.write_environment(settings)

    def _landing(self, feed: Callable[[], object]) -> None:
        self.step("migrate the lake", ["-m", "streaming", "migrate"])
        for contract in sorted(CONTRACTS.glob("*.yaml")):  # a stream that the user has added lands as well
            self.step("create the topic", ["-m", "streaming", "topic", "create", contract.stem])
        self.spawn(CONSUMER, ["-m", "streaming", "consume"])
        feed()

    def _warehouse(self) -> None:
        self.step("migrate the warehouse", ["-m", "dbt_like_sql", "migrate"])
        url = self.env["POWERBI_API_URL"]
        data = self.state.root / "report"
        standin = self.spawn(
            "Power BI stand-in", ["-m", "powerbi.standin", "--port", url.rpartition(":")[2], "--data-dir", str(data)]
        )
        wait_ready(standin, lambda: answers(f"{url}/healthz"), timeout_s=READY_S)

    def _dagster(self, port: int, code_port: int) -> None:
        home = Path(self.env["DAGSTER_HOME"])
        (home / "dagster.yaml").write_text(self.dagster_yaml or DAGSTER_YAML)
        workspace = home / "workspace.yaml"
        workspace.write_text(WORKSPACE_YAML.format(port=code_port, location=LOCATION))
        self.step("make the Dagster tables", ["-m", "orchestration.instance_tables"])
        code = self.spawn(
            "Dagster code server",
            ["-m", "dagster", "api", "grpc", "-m", "orchestration.definitions", "--host", "127.0.0.1",
             "--port", str(code_port), "--location-name", LOCATION],
        )  # fmt: skip
        if "WarmRunLauncher" in (self.dagster_yaml or DAGSTER_YAML):
            # the daemon would start it with the first run: too late to be of use to that one
            self.spawn(POOL, ["-m", "orchestration.pool", "--socket", str(home / "pool.sock")])
        web = self.spawn(
            "Dagster webserver",
            ["-m", "dagster_webserver", "--host", "127.0.0.1", "--port", str(port), "--workspace", str(workspace)],
        )
        wait_ready(code, lambda: is_listening(code_port), timeout_s=READY_S)
        self.spawn("Dagster daemon", ["-m", "dagster._daemon", "run", "--workspace", str(workspace)])
        wait_ready(web, lambda: answers(f"http://127.0.0.1:{port}/server_info"), timeout_s=READY_S)

    # ---- processes of our own

    def spawn(self, name: str, arguments: Sequence[str]) -> Process:
        """Start one of our programs (python with these arguments) and keep it until the end."""
        if self._closing:
            raise DeployError("stopping")
        log = self.log_of(name)
        process = processes.start(
            name, [BIN / "python", *arguments], log=log, env=self.process_environment(), cwd=ROOT, grace_s=10.0
        )
        return self._register(process)

    def feed(self, arguments: Sequence[str]) -> None:
        """Start the producer and note the moment at which it ends."""
        producer = self.spawn("producer", arguments)

        def wait() -> None:
            producer.guard.wait()
            self.fed_at = time.monotonic()

        self.producer = producer
        threading.Thread(target=wait, name="fed", daemon=True).start()

    def step(self, name: str, arguments: Sequence[str]) -> None:
        """Run one of our programs to its end.

        Raises:
            NotReadyError: it failed.
        """
        process = self.spawn(name, arguments)
        while process.is_running():
            time.sleep(0.05)
        code = process.stop()
        with self._lock:
            self._processes.pop(name, None)
        if code:
            raise NotReadyError(
                f"The step '{name}'",
                found=f"it ended with exit code {code}",
                log=process.log,
                remedy="The log says why.",
            )

    def process_environment(self) -> dict[str, str]:
        """Ours, with the demo's settings over it; settings of a real deployment never leak into the demo."""
        foreign = (
            "KAFKA_",
            "STREAMING_",
            "LAKE_",
            "WAREHOUSE_",
            "BIGQUERY_",
            "POWERBI_",
            "DAGSTER_",
            "MAGE_",
            "METRICS_",
        )
        own = {
            name: value
            for name, value in os.environ.items()
            if name == DEAD_LETTER_LIMIT or not name.startswith(foreign)
        }
        own.pop("GOOGLE_APPLICATION_CREDENTIALS", None)
        return own | self.env | {"PYTHONUNBUFFERED": "1", "DAGSTER_DISABLE_TELEMETRY": "yes", "TZ": "UTC"}

    def log_of(self, name: str) -> Path:
        """Where a process writes."""
        return self.state.logs / f"{name.lower().replace(' ', '-')}.log"

    def processes(self) -> Iterator[Process]:
        """Everything that has been started and is to run until the end."""
        with self._lock:
            yield from list(self._processes.values())

    def check(self) -> None:
        """Every process must still run.

        Raises:
            NotReadyError: one has ended by itself.
        """
        for process in self.processes():
            code = process.exit_code()
            if code is not None and process.name not in {
                "producer",
                POOL,
            }:  # without a pool runs start as they always did
                raise NotReadyError(
                    process.name, found=f"it ended by itself, with exit code {code}", log=process.log,
                    remedy=remedy(process.name, tail(process.log, 1)),
                )  # fmt: skip

    # ---- stopping

    def stop(self) -> None:
        """Stop everything: first what writes, then what is written to. May be called twice, and while starting."""
        self._closing = True
        order = ("producer", CONSUMER, "Dagster daemon", POOL, "Dagster webserver", "Dagster code server")
        left = {process.name: process for process in self.processes()}
        first = [left.pop(name) for name in order if name in left]
        services = [left.pop(name) for name in ("Kafka", "PostgreSQL", "BigQuery emulator") if name in left]
        for group in (first, list(left.values()), services):
            processes.stop_all(group)
        while True:  # what was on its way up; its threads find their processes gone and end
            processes.stop_all(self._living())
            if self._starter is None or not self._starter.is_alive():
                break
            time.sleep(0.05)
        processes.stop_all(self._living())

    def _living(self) -> list[Process]:
        """All that runs and was not there before this line: also what is on its way up and not registered yet."""
        return [process for process in processes.living() if process.pid not in self._foreign]


def remedy(name: str, last_line: str) -> str:
    """What to do about a process that has ended by itself."""
    if name == CONSUMER and DEAD_LETTER_LIMIT in last_line:
        return (
            "The last line of its log says which events break the contract; started again it would stop at them again. "
            f"Let them become dead letters (`{DEAD_LETTER_LIMIT}=1 make demo`, with DATA as before), or mend the data "
            "and begin anew: `make demo-clean`."
        )
    return "The last line of its log may say why. `make demo` starts it again and goes on from where it was."


def answers(url: str) -> bool:
    """Whether a web server says 200 there."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own http://127.0.0.1
            return bool(response.status == 200)  # noqa: PLR2004
    except (OSError, urllib.error.URLError):
        return False


def log_tail(log: Path) -> str:
    """The end of a log, for a message."""
    return tail(log)


# Both are written anew at each start; the password comes by the environment.
DAGSTER_YAML = """\
# Written by the demo.
storage:
  postgres:
    postgres_url: {env: DAGSTER_POSTGRES_URL}
telemetry: {enabled: false}
nux: {enabled: false}
run_launcher: {module: orchestration.launcher, class: WarmRunLauncher}
run_monitoring: {enabled: true, start_timeout_seconds: 120, poll_interval_seconds: 20}
run_retries: {enabled: true, max_retries: 2, retry_on_asset_or_op_failure: false}
sensors: {use_threads: true, num_workers: 4}
schedules: {use_threads: true, num_workers: 2}
backfills: {use_threads: true, num_workers: 2}
# A run keeps today up for 45 s, the report has a place of its own, and a late day must wait for neither; none of them
# for a backfill of many runs.
concurrency:
  runs:
    max_concurrent_runs: 3
    tag_concurrency_limits:
      - {key: stage, value: core, limit: 2}
      - {key: stage, value: serving, limit: 1}
      - {key: dagster/backfill, limit: 1}
run_coordinator:
  module: dagster._core.run_coordinator
  class: QueuedRunCoordinator
  config: {dequeue_interval_seconds: 1, dequeue_use_threads: true, dequeue_num_workers: 2}
"""
WORKSPACE_YAML = """\
# Written by the demo.
load_from:
  - grpc_server: {{host: 127.0.0.1, port: {port}, location_name: {location}}}
"""
