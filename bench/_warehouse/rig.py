"""A lake with made-up days, an empty warehouse, and the steps of a run with a clock on each.

Belongs here: what bench/warehouse.py and bench/mage.py share. Not here: figures and their goals.
Events are landed by the product's own code, batch by batch, so that the ledger looks as it does in production.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pyarrow as pa

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.migrate import migrate as migrate_warehouse
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse
from deploy.embedded.services import start_bigquery, start_postgres
from mage_project.transforms.plan import DayPlan, ReadPlan, attach_plan
from streaming import lake
from streaming.batch import prepare_batch
from streaming.contract import load_contract
from streaming.database import transaction
from streaming.decode import Decoder
from streaming.landing import land_batches
from streaming.ledger import claim
from streaming.migrate import migrate as migrate_lake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOPIC, TABLE, PIPELINE = "retail.invoices", "core.invoice_lines", "retail_invoices"
DAILY = ("mart.invoice_lines", "mart.daily_sales_by_country", "mart.daily_sales_by_product")
TOPIC_PARTITIONS = 4
BATCH_ROWS = 5_000
_COUNTRIES = (
    "United Kingdom",
    "France",
    "Germany",
    "EIRE",
    "Spain",
    "Netherlands",
    "Belgium",
    "Norway",
    "Côte d'Ivoire",
)


@dataclass(frozen=True)
class Message:
    """What the landing needs of a Kafka message."""

    at: int
    body: bytes
    invoice_no: bytes
    produced_ms: int

    def value(self) -> bytes:
        return self.body

    def key(self) -> bytes:
        return self.invoice_no

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return (1, self.produced_ms)

    def headers(self) -> None:
        return None


@dataclass
class Rig:
    """Services of one bench, and what was timed."""

    env: dict[str, str]
    conn: Any
    warehouse: Warehouse
    next_offset: dict[int, int] = field(default_factory=dict)
    jobs: list[tuple[str, float]] = field(default_factory=list)

    def land(self, day: date, rows: int) -> None:
        """Land `rows` events of a day, in batches, over all topic partitions."""
        decoder = Decoder(load_contract(TOPIC))
        months: set[tuple[str, date]] = set()
        left, part = rows, 0
        while left > 0:
            count = min(BATCH_ROWS, left)
            first = self.next_offset.get(part, 0)
            messages = [_message(day, part, first + at) for at in range(count)]
            batch = prepare_batch(decoder, part, messages, expected_offset=first, now=datetime.now(tz=UTC))
            with transaction(self.conn) as cursor:
                owner, _gap = claim(cursor, TOPIC, part, topic_id=None, low=0, high=first + count, owner="bench")
            land_batches(self.conn, {TOPIC: decoder}, [(batch, owner)], owner="bench", months=months)
            self.next_offset[part] = first + count
            left, part = left - count, (part + 1) % TOPIC_PARTITIONS
        with contextlib.suppress(psycopg2.Error):
            self.conn.rollback()
            self.conn.autocommit = True
            with self.conn.cursor() as cursor:
                cursor.execute("VACUUM ANALYZE")
        self.conn.autocommit = False

    def watch(self) -> list[tuple[str, float]]:
        """Forget what was timed; jobs from now on are in the list that is returned."""
        self.jobs = []
        _listeners[:] = [self.jobs]
        return self.jobs


_listeners: list[list[tuple[str, float]]] = []


def _timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Warehouse, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(self, *args, **kwargs)
        finally:
            for jobs in _listeners:
                jobs.append((kwargs.get("kind", name), time.perf_counter() - started))

    return call


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    """PostgreSQL and the emulator in a temporary folder, migrated; a clock on every BigQuery job of this process."""
    Warehouse.run = _timed("query", Warehouse.run)  # type: ignore[method-assign]
    Warehouse.load_parquet = _timed("load", Warehouse.load_parquet)  # type: ignore[method-assign]
    Warehouse.drop_table = _timed("drop", Warehouse.drop_table)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(prefix="bench-warehouse-") as folder:
        base = Path(folder)
        base.chmod(0o755)
        with start_bigquery(base / "bigquery") as bigquery, start_postgres(base / "postgres") as postgres:
            env = {
                "WAREHOUSE_PROJECT": "local",
                "WAREHOUSE_DATASET_PREFIX": "bench",
                "BIGQUERY_EMULATOR_HOST": bigquery.url,
                "WAREHOUSE_JOB_TIMEOUT_S": "300",
                "LAKE_DSN": postgres.dsn(),
                "MAGE_DATA_DIR": str(base / "mage"),
            }
            os.environ.update(env)
            warehouse = open_warehouse(WarehouseSettings.from_env(env))
            migrate_warehouse(warehouse, load_catalog())
            with contextlib.closing(lake.connect(env["LAKE_DSN"], application_name="bench")) as conn:
                migrate_lake(conn, [load_contract(TOPIC)])
                yield Rig(env, conn, warehouse)


def _message(day: date, part: int, offset: int) -> Message:
    """One invoice line; what it holds follows from where it is, and looks like the shop's."""
    mixed = int.from_bytes(hashlib.blake2b(f"{part}/{offset}".encode(), digest_size=8).digest(), "little")
    dice = mixed % 1_000_003
    code = 20_000 + mixed % 4_000
    invoice = f"{'C' if dice % 50 == 0 else ''}{536_000 + offset // 20}"
    at = datetime(day.year, day.month, day.day, 8, tzinfo=UTC) + timedelta(seconds=offset % 36_000)
    customer = "null" if dice % 4 == 0 else f'"{12_000 + mixed % 4_300}"'
    body = (
        f'{{"event_id":"{mixed:016x}-{part}-{offset}","invoice_no":"{invoice}","line_no":{offset % 20 + 1},'
        f'"stock_code":"{code}","description":"{_descriptions()[code % 4_000]}",'
        f'"quantity":{-(dice % 12) - 1 if dice % 50 == 0 else dice % 48 + 1},"unit_price":"{dice % 9_000 / 1000:.3f}",'
        f'"invoiced_at":"{at:%Y-%m-%dT%H:%M:%SZ}","customer_id":{customer},'
        f'"country":"{_COUNTRIES[mixed % 7 if dice % 9 == 0 else 0]}"}}'
    )
    return Message(offset, body.encode(), invoice.encode(), int(at.timestamp() * 1000))


def _descriptions(kept: list[str] = []) -> list[str]:  # noqa: B006  made once
    if not kept:
        dice = random.Random(5)  # noqa: S311
        words = ("WHITE", "HANGING", "HEART", "LANTERN", "RED", "METAL", "JAM", "SET OF 6", "VINTAGE", "MUG", "T-LIGHT")
        kept.extend(f"{' '.join(dice.sample(words, 4))} {at}" for at in range(4_000))
    return kept


def made_up_lines(rows: int) -> pa.Table:
    """Decoded events of one day, as the parser hands them on."""
    day = date(2010, 12, 1)
    contract = load_contract(TOPIC)
    messages = [_message(day, at % TOPIC_PARTITIONS, at // TOPIC_PARTITIONS) for at in range(rows)]
    events = pa.table(
        {
            "topic": pa.repeat(TOPIC, rows),
            "topic_partition": pa.array([at % TOPIC_PARTITIONS for at in range(rows)], pa.int64()),
            "topic_offset": pa.array([at // TOPIC_PARTITIONS for at in range(rows)], pa.int64()),
            "produced_at": pa.array([each.produced_ms * 1000 for each in messages], pa.timestamp("us", tz="UTC")),
            "event_day": pa.repeat(pa.scalar(day, pa.date32()), rows),
            "payload": pa.array([each.body.decode() for each in messages]),
        },
        schema=lake.EVENTS_SCHEMA,
    )
    plan = DayPlan(day=day, incarnation="bench", version=0, after={}, upto={0: 1}, rows_read=rows)
    frame = lake.decode_events(contract, events)
    return attach_plan(frame, ReadPlan(topic=TOPIC, table=TABLE, mode="incremental", days=(plan,)))
