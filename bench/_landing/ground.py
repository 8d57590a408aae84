"""What a landing bench stands on: a broker, a durable PostgreSQL, a topic full of events, fresh lakes.

Not here: what is measured on it (limits.py, product.py, peer.py, steady.py).
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
import zlib
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.embedded.services import Kafka, Postgres, start_kafka, start_postgres
from streaming import lake, migrate
from streaming.contract import CONTRACTS_DIR, Contract, load_contracts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOPIC_PARTITIONS = 4
TOPIC = "bench.invoices"
STREAM = "bench_invoices"
FIRST_EVENT_AT = datetime(2026, 3, 2, 8, tzinfo=UTC)
DAYS = 10  # over which the events of a run are spread, in the order of their time, as a shop writes them
DISTINCT_EVENTS = 1_000_000  # more than these repeat (their offsets tell them apart); bounds this process' memory
SETTINGS = {"track_io_timing": "off"}


@dataclass(frozen=True, slots=True)
class Sent:
    """What a topic holds: events, and a sum over their bytes that PostgreSQL can compute too."""

    events: int
    payload_bytes: int
    crc32_sum: int
    seconds: float


@dataclass
class Ground:
    """Two services, one contract."""

    kafka: Kafka
    postgres: Postgres
    contracts_dir: Path
    made: int = 0

    @property
    def contract(self) -> Contract:
        """The contract of the bench's topic: retail's, under another name."""
        return load_contracts(self.contracts_dir)[TOPIC]

    def env(self, dsn: str) -> dict[str, str]:
        """What a process of the product is given, all else as it comes."""
        return {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap,
            "LAKE_DSN": dsn,
            "STREAMING_CONTRACTS_DIR": str(self.contracts_dir),
            "STREAMING_GROUP_ID": f"bench-{self.made}",
            "METRICS_PORT": "0",
            "LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }

    @contextmanager
    def lake(self) -> Iterator[str]:
        """A migrated lake with nothing in it, the server's write-ahead log at rest; gone afterwards."""
        self.made += 1
        name = f"bench_{self.made}"
        dsn = self.postgres.create_database(name)
        with closing(lake.connect(dsn, application_name="bench")) as conn:
            migrate.migrate(conn, [self.contract])
            with conn.cursor() as cursor:
                cursor.execute(
                    "SELECT control.ensure_landing_partition(%s, %s)", (STREAM, FIRST_EVENT_AT.date().replace(day=1))
                )
            conn.commit()
        self.checkpoint()
        try:
            yield dsn
        finally:
            self.postgres.drop_database(name)

    def checkpoint(self) -> None:
        """Write out what the arm before has left, so that each begins alike."""
        query(self.postgres.dsn(), "CHECKPOINT", autocommit=True)

    def create_topic(self, name: str = TOPIC) -> None:
        """A topic of the bench, its log compressed with lz4 as it comes from the producer."""
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        created = admin.create_topics([NewTopic(name, num_partitions=TOPIC_PARTITIONS, replication_factor=1)])
        created[name].result(20)

    def fill(self, events: int, *, name: str = TOPIC) -> Sent:
        """Produce that many events, spread evenly over the topic partitions."""
        producer = Producer({
            "bootstrap.servers": self.kafka.bootstrap, "compression.type": "lz4", "linger.ms": 20,
            "batch.size": 262_144, "queue.buffering.max.messages": 400_000, "enable.idempotence": True,
        })  # fmt: skip
        started, size, checksum = time.monotonic(), 0, 0
        values = list(make_events(min(events, DISTINCT_EVENTS)))
        for number in range(events):
            key, value = values[number % len(values)]
            while True:
                try:
                    producer.produce(name, value, key=key, partition=number // 8 % TOPIC_PARTITIONS)
                    break
                except BufferError:
                    producer.poll(0.05)
            size += len(value)
            checksum += zlib.crc32(value)
            if not number % 10_000:
                producer.poll(0)
        left = producer.flush(120)
        if left:
            raise SystemExit(f"{left} of {events} events were not acknowledged by the broker: nothing can be measured")
        return Sent(events, size, checksum, round(time.monotonic() - started, 2))


def make_events(events: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of invoice lines, about 250 bytes each, always the same ones."""
    random_ = random.Random(20_260_302)  # noqa: S311 figures are to be repeatable, not secret
    words = ["WHITE", "HANGING", "HEART", "T-LIGHT", "HOLDER", "METAL", "LANTERN", "CREAM", "CUPID", "COAT", "HANGER"]
    articles = [
        (f"{random_.randrange(10_000, 99_999)}{random_.choice('ABC')}", " ".join(random_.sample(words, 4)),
         f"{random_.randrange(19, 4_999) / 100:.2f}")
        for _ in range(4_000)
    ]  # fmt: skip
    step = timedelta(days=DAYS) / max(events, 1)
    for number in range(events):
        code, description, price = articles[random_.randrange(len(articles))]
        invoice = f"{536_365 + number // 20}"
        value = {
            "event_id": f"{invoice}-{number:012d}",
            "invoice_no": invoice,
            "line_no": number % 20 + 1,
            "stock_code": code,
            "description": description,
            "quantity": random_.randrange(-4, 48),
            "unit_price": price,
            "invoiced_at": (FIRST_EVENT_AT + number * step).isoformat(timespec="milliseconds"),
            "customer_id": None if number % 4 == 0 else f"{random_.randrange(12_000, 18_000)}",
            "country": "United Kingdom" if number % 10 else "Channel Islands",
        }
        yield invoice.encode(), json.dumps(value, separators=(",", ":")).encode()


@contextmanager
def ground(folder: str | None = None) -> Iterator[Ground]:
    """Start Kafka and PostgreSQL (fsync on) in a folder of their own, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-landing-", dir=folder) as base_name:
        base = Path(base_name)
        base.chmod(0o755)
        contracts_dir = base / "contracts"
        contracts_dir.mkdir()
        text = (CONTRACTS_DIR / "retail.invoices.yaml").read_text(encoding="utf-8")
        text = text.replace("name: retail_invoices", f"name: {STREAM}")
        text = text.replace("physicalName: retail.invoices", f"physicalName: {TOPIC}")
        (contracts_dir / f"{TOPIC}.yaml").write_text(text, encoding="utf-8")
        # two consumers that start together are to share the topic from the start: Kafka's own default is 3 s
        kafka_settings = {"group.initial.rebalance.delay.ms": "3000"}
        with (
            start_kafka(base / "kafka", settings=kafka_settings) as kafka,
            start_postgres(base / "postgres", durable=True) as postgres,
        ):
            yield Ground(kafka, postgres, contracts_dir)


def query(dsn: str, statement: str, values: Sequence[Any] = (), *, autocommit: bool = False) -> list[Any]:
    """Rows of one statement, on a connection of its own."""
    with closing(lake.connect(dsn, application_name="bench")) as conn:
        conn.autocommit = autocommit
        with conn.cursor() as cursor:
            cursor.execute(statement, values)
            rows = list(cursor.fetchall()) if cursor.description else []
        if not autocommit:
            conn.commit()
    return rows


def verify(dsn: str, sent: Sent) -> None:
    """Nothing lost, nothing doubled, not a byte changed; by another way than the product's own counts."""
    ((rows, identities, size, checksum),) = query(
        dsn,
        f"SELECT count(*), count(DISTINCT (topic_partition, topic_offset)), sum(octet_length(payload::text)), "
        f"sum(crc32(convert_to(payload::text, 'UTF8'))) FROM landing.{STREAM}",
    )
    found = (int(rows), int(identities), int(size or 0), int(checksum or 0))
    if found != (sent.events, sent.events, sent.payload_bytes, sent.crc32_sum):
        raise SystemExit(f"WRONG: rows, identities, bytes, checksum are {found}, sent was {sent}")
