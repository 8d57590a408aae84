"""A topic with a contract of its own, a lake, and consumers to run against them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

from streaming import lake, migrate
from streaming.consumer import LandingConsumer, Summary
from streaming.contract import CONTRACTS_DIR, Contract, load_contracts
from streaming.settings import LandingSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 60.0


def line(number: int, **changes: Any) -> dict[str, Any]:
    """An invoice line; every tenth number is another invoice."""
    event = {
        "event_id": f"e{number}",
        "invoice_no": f"{number // 10}",
        "line_no": number % 10 + 1,
        "stock_code": "85123A",
        "description": "WHITE HANGING HEART",
        "quantity": 6,
        "unit_price": "2.55",
        "invoiced_at": f"2010-12-{number % 28 + 1:02d}T08:26:00Z",
        "customer_id": None,
        "country": "United Kingdom",
    }
    return event | changes


@dataclass
class Rig:
    """One topic, one lake."""

    topic: str
    bootstrap: str
    dsn: str
    contracts_dir: Path
    group: str

    @property
    def env(self) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "LAKE_DSN": self.dsn,
            "STREAMING_CONTRACTS_DIR": str(self.contracts_dir),
            "STREAMING_GROUP_ID": self.group,
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def contracts(self) -> dict[str, Contract]:
        return load_contracts(self.contracts_dir)

    @property
    def contract(self) -> Contract:
        return self.contracts[self.topic]

    def settings(self, **changes: Any) -> LandingSettings:
        return replace(LandingSettings.from_env(self.env), **changes)

    def migrate(self) -> None:
        with self.connect() as conn:
            migrate.migrate(conn, self.contracts.values())

    @contextmanager
    def connect(self) -> Iterator[Any]:
        with closing(lake.connect(self.dsn, application_name="test")) as conn:
            yield conn

    def query(self, statement: str, *values: Any) -> list[Any]:
        with self.connect() as conn, conn.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def execute(self, statement: str, *values: Any) -> None:
        with self.connect() as conn:
            with conn.cursor() as cursor:
                cursor.execute(statement, values)
            conn.commit()

    def send(
        self, values: Iterable[bytes | dict[str, Any] | None], *, partition: int | None = None, **config: Any
    ) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 20, **config})
        if "transactional.id" in config:
            producer.init_transactions()
            producer.begin_transaction()
        for value in values:
            payload = json.dumps(value).encode() if isinstance(value, dict) else value
            key = str(value["invoice_no"]).encode() if isinstance(value, dict) else b"raw"
            place = {} if partition is None else {"partition": partition}
            producer.produce(self.topic, payload, key=key, headers=[("event-id", b"e")], **place)
            producer.poll(0)
        if "transactional.id" in config:
            producer.commit_transaction()
        assert producer.flush(30) == 0

    def land(self, *, idle_s: float = 0.6, **changes: Any) -> Summary:
        """Land what is in the topic, in this process."""
        consumer = LandingConsumer(self.settings(**changes), {self.topic: self.contract})
        return consumer.run(threading.Event(), until_idle_s=idle_s)

    @contextmanager
    def landing(self, **changes: Any) -> Iterator[LandingConsumer]:
        """A consumer at work in a thread of this process; its error, if any, is raised at the end."""
        consumer = LandingConsumer(self.settings(**changes), {self.topic: self.contract})
        stop, failures = threading.Event(), list[Exception]()

        def run() -> None:
            try:
                consumer.run(stop)
            except Exception as error:  # noqa: BLE001 raised below
                failures.append(error)
            consumer.has_ended = True  # type: ignore[attr-defined]

        consumer.has_ended = False  # type: ignore[attr-defined]
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield consumer
        finally:
            stop.set()
            thread.join(30)
        assert not thread.is_alive()
        if failures:
            raise failures[0]

    def start_consumer(self, *, stderr: Any = subprocess.PIPE, **env: str) -> subprocess.Popen[bytes]:
        """`streaming consume` as a process."""
        return subprocess.Popen(
            [sys.executable, "-m", "streaming", "consume", "--topic", self.topic, "--json"],
            env={**os.environ, **self.env, **env},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )

    @contextmanager
    def started(self, log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """`streaming consume` as a process which logs into a file; killed at the end."""
        with log.open("wb") as errors:
            process = self.start_consumer(stderr=errors, **env)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def wait(self, is_true: Callable[[], bool], *, what: str, timeout_s: float = DEADLINE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_true():
            assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:.0f} s"
            time.sleep(0.05)

    def accounted(self) -> int:
        """Offsets that are landed, dead or a gap."""
        with self.connect() as conn:
            return sum(c.next_offset - c.first_offset for c in lake.topic_counts(conn, self.topic))

    def assert_exact(self, events: int, *, dead: int = 0, gaps: int = 0) -> None:
        """Every event once: in the table, in the ledger, in the view."""
        table = f"landing.{self.contract.stream}"
        ((rows, identities),) = self.query(
            f"SELECT count(*), count(DISTINCT (topic_partition, topic_offset)) FROM {table}"
        )
        assert (rows, identities) == (events, events)
        with self.connect() as conn:
            counts = lake.topic_counts(conn, self.topic)
            days = lake.landed_days(conn, self.topic)
        assert all(c.is_closed for c in counts), counts
        assert sum(c.landed for c in counts) == events == sum(day.rows for day in days)
        assert sum(c.dead_letters for c in counts) == dead
        assert sum(c.gap_offsets for c in counts) == gaps
        by_batch = self.query("SELECT coalesce(sum(rows), 0) FROM control.batch WHERE topic = %s", self.topic)
        by_day = self.query("SELECT coalesce(sum(rows), 0) FROM control.batch_day WHERE topic = %s", self.topic)
        assert by_batch[0][0] == by_day[0][0] == events
        numbers = self.query(
            "SELECT topic_partition, count(*), max(batch) FROM control.batch WHERE topic = %s GROUP BY 1", self.topic
        )
        assert all(count == highest for _, count, highest in numbers), "batches are numbered without holes"


def stop_process(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    """Signal a process and wait for its end."""
    if process.poll() is None:
        process.send_signal(number)
    code = process.wait(20)
    if process.stderr is not None:
        process.stderr.close()
    return code


def make_rig(topic: str, bootstrap: str, dsn: str, folder: Path) -> Rig:
    """A contract for the topic: retail's, under another name."""
    stream = "t_" + "".join(c if c.isalnum() else "_" for c in topic.lower())[-40:]
    text = (CONTRACTS_DIR / "retail.invoices.yaml").read_text(encoding="utf-8")
    text = text.replace("name: retail_invoices", f"name: {stream}").replace(
        "physicalName: retail.invoices", f"physicalName: {topic}"
    )
    (folder / f"{topic}.yaml").write_text(text, encoding="utf-8")
    return Rig(topic, bootstrap, dsn, folder, f"g-{uuid.uuid4().hex[:8]}")
