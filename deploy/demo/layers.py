"""What each layer says it holds, asked of the layer itself: Kafka, PostgreSQL, BigQuery, the report's service.

No number is passed on from one layer to the next, so that agreement means something. Comparing them is pure
(reconcile); showing them does not belong here (show.py).
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections import deque
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TOPIC = "retail.invoices"
CHAIN = ("produced", "landed", "core", "mart", "report")
TOTAL_AMOUNT = 'EVALUATE ROW("amount", [Total Amount])'


@dataclass(frozen=True)
class Layer:
    """What one layer holds. `amount` is the exact sum of quantity x unit price over its rows; None if not asked."""

    rows: int = 0
    amount: Decimal | None = None
    dead_letters: int = 0
    gaps: int = 0
    repeats: int = 0
    repeats_amount: Decimal = Decimal(0)
    as_of: str | None = None

    @property
    def arrived(self) -> int:
        """How many produced events have come this far, one way or another."""
        return self.rows + self.dead_letters + self.gaps


@dataclass(frozen=True)
class Layers:
    """All layers, left to right."""

    produced: Layer
    landed: Layer
    core: Layer
    mart: Layer
    report: Layer

    def as_json(self) -> dict[str, dict[str, object]]:
        """As summary.json has it: amounts as strings, no digit lost."""
        return {
            "produced": {"rows": self.produced.rows},
            "landed": {
                "rows": self.landed.rows,
                "dead_letters": self.landed.dead_letters,
                "gaps": self.landed.gaps,
                "amount": plain(self.landed.amount),
            },
            "core": {"rows": self.core.rows, "amount": plain(self.core.amount), "repeats": self.core.repeats},
            "mart": {"rows": self.mart.rows, "amount": plain(self.mart.amount)},
            "report": {"rows": self.report.rows, "amount": plain(self.report.amount), "as_of": self.report.as_of},
        }


@dataclass(frozen=True)
class Difference:
    """A layer that does not agree with the one before it."""

    layer: str
    before: str
    what: str
    found: object
    expected: object

    def __str__(self) -> str:
        """In words, with the amount by which."""
        by = Decimal(str(self.found)) - Decimal(str(self.expected))
        return f"{self.layer} has {self.what} {self.found}, {self.before} has {self.expected}: differs by {by:+f}"


def plain(amount: Decimal | None) -> str | None:
    """A decimal without exponent or trailing zeros, so that equal amounts are equal strings."""
    if amount is None:
        return None
    text = f"{amount:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def reconcile(layers: Layers) -> list[Difference]:
    """Every disagreement between neighbours. An event delivered twice counts once in marts (repeats)."""
    produced, landed, core, mart, report = (getattr(layers, name) for name in CHAIN)
    wanted = [
        ("landed", "produced", "rows + dead letters + gaps", landed.arrived, produced.rows),
        ("core", "landed", "rows", core.rows, landed.rows),
        ("core", "landed", "amount", core.amount, landed.amount),
        ("mart", "core", "rows", mart.rows, core.rows - core.repeats),
        ("mart", "core", "amount", mart.amount, _less(core.amount, core.repeats_amount)),
        ("report", "mart", "rows", report.rows, mart.rows),
        ("report", "mart", "amount", report.amount, mart.amount),
    ]
    return [
        Difference(layer, before, what, _zero(found), _zero(expected))
        for layer, before, what, found, expected in wanted
        if _zero(found) != _zero(expected)
    ]


def _less(amount: Decimal | None, repeats: Decimal) -> Decimal | None:
    return None if amount is None else amount - repeats


def _zero(value: Decimal | int | None) -> Decimal | int:
    return Decimal(0) if value is None else value


class KafkaReader:
    """Offsets given out, summed over the topic partitions."""

    def __init__(self, bootstrap: str) -> None:
        from confluent_kafka import Consumer  # noqa: PLC0415 - imported in the thread that uses it

        settings = {"bootstrap.servers": bootstrap, "group.id": "demo-watch", "enable.auto.commit": False}
        self._consumer = Consumer(settings | {"log_level": 2})

    def read(self, *, whole: bool) -> Layer:  # noqa: ARG002 - Kafka has no amounts
        """Ask the broker."""
        from confluent_kafka import TopicPartition  # noqa: PLC0415

        topic = self._consumer.list_topics(TOPIC, timeout=10).topics[TOPIC]
        ends = (
            self._consumer.get_watermark_offsets(TopicPartition(TOPIC, each), timeout=10) for each in topic.partitions
        )
        return Layer(rows=sum(high for _, high in ends))


class LakeReader:
    """What landed; the whole reading counts the rows and sums the payloads themselves."""

    def __init__(self, dsn: str) -> None:
        import psycopg2  # noqa: PLC0415

        self._conn = psycopg2.connect(dsn, application_name="demo-watch")
        self._conn.autocommit = True

    def read(self, *, whole: bool) -> Layer:
        """Ask PostgreSQL."""
        with self._conn.cursor() as cursor:
            cursor.execute(
                "SELECT (SELECT coalesce(sum(rows), 0) FROM control.batch WHERE topic = %(topic)s),"
                " (SELECT count(*) FROM control.dead_letter WHERE topic = %(topic)s AND replayed_at IS NULL),"
                " (SELECT coalesce(sum(last_offset - first_offset + 1), 0) FROM control.gap WHERE topic = %(topic)s)",
                {"topic": TOPIC},
            )
            rows, dead, gaps = map(int, cursor.fetchone())
            if not whole:
                return Layer(rows=rows, dead_letters=dead, gaps=gaps)
            cursor.execute(
                "SELECT count(*), sum((payload->>'quantity')::numeric * (payload->>'unit_price')::numeric)"
                " FROM landing.retail_invoices"
            )
            rows, amount = cursor.fetchone()
        return Layer(rows=int(rows), dead_letters=dead, gaps=gaps, amount=amount)


class WarehouseReader:
    """Core and marts, by one query each."""

    def __init__(self, env: Mapping[str, str]) -> None:
        from dbt_like_sql.settings import WarehouseSettings  # noqa: PLC0415
        from dbt_like_sql.warehouse import open_warehouse  # noqa: PLC0415

        self._warehouse = open_warehouse(WarehouseSettings.from_env(env))

    def core(self, *, whole: bool) -> Layer:
        """Ask BigQuery about core.invoice_lines."""
        amounts = ", SUM(amount_gbp) AS amount" if whole else ""
        row = self._row(
            "SELECT COUNT(*) AS row_count, COUNT(DISTINCT CONCAT(CAST(invoice_date AS STRING), event_id)) AS events"
            f"{amounts} FROM {self._table('core.invoice_lines')} WHERE invoice_date >= DATE '0001-01-01'"
        )
        repeats = row["row_count"] - row["events"]
        again = Decimal(0)
        if whole and repeats:
            again = self._row(
                "SELECT SUM(amount_gbp) AS amount FROM (SELECT amount_gbp, ROW_NUMBER() OVER ("
                "PARTITION BY invoice_date, event_id ORDER BY topic_partition, topic_offset) AS nth "
                f"FROM {self._table('core.invoice_lines')} WHERE invoice_date >= DATE '0001-01-01') WHERE nth > 1"
            )["amount"]
        return Layer(
            rows=row["row_count"], repeats=repeats, amount=row.get("amount"), repeats_amount=again or Decimal(0)
        )

    def mart(self, *, whole: bool) -> Layer:
        """Ask BigQuery about mart.invoice_lines."""
        amounts = ", SUM(amount_gbp) AS amount" if whole else ""
        row = self._row(
            f"SELECT COUNT(*) AS row_count{amounts} FROM {self._table('mart.invoice_lines')} "
            "WHERE invoice_date >= DATE '0001-01-01'"
        )
        return Layer(rows=row["row_count"], amount=row.get("amount"))

    def _table(self, name: str) -> str:
        return f"`{self._warehouse.table_id(name)}`"

    def _row(self, sql: str) -> dict[str, Any]:
        return dict(self._warehouse.run(sql).rows[0])


class ReportReader:
    """What a reader of the report would see: the service is asked in DAX, over HTTP."""

    def __init__(self, env: Mapping[str, str]) -> None:
        from powerbi.rest import StandInCredential  # noqa: PLC0415
        from powerbi.settings import PowerBiSettings  # noqa: PLC0415

        self._credential = StandInCredential()
        settings = PowerBiSettings.from_env(env)
        self._url = settings.api_url
        group = f"{settings.api_url}/v1.0/myorg/groups/{settings.workspace_id}"
        self._queries = f"{group}/datasets/{settings.dataset_id}/executeQueries"

    def read(self, *, whole: bool) -> Layer:
        """Ask the service."""
        with urllib.request.urlopen(f"{self._url}/status", timeout=10) as response:  # noqa: S310 - our own address
            status = json.load(response)
        layer = Layer(rows=int(status.get("rows") or 0), as_of=status.get("as_of"))
        return replace(layer, amount=self._total()) if whole and layer.rows else layer

    def _total(self) -> Decimal | None:
        body = json.dumps({"queries": [{"query": TOTAL_AMOUNT}], "serializerSettings": {"includeNulls": True}}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._credential.get_token().token}"}
        request = urllib.request.Request(self._queries, body, headers)  # noqa: S310 - our own address
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            answer = json.load(response, parse_float=Decimal, parse_int=Decimal)
        value = answer["results"][0]["tables"][0]["rows"][0]["[amount]"]
        return None if value is None else Decimal(value)


@dataclass
class Watch:
    """Reads each layer again and again in a thread of its own, and works out how late each is.

    The delay of a layer is the age of the newest event in it when it got there, from counts alone: when it reaches
    n events, how long ago had Kafka reached n. Its resolution is the time between two readings.
    """

    readers: dict[str, Callable[[], Callable[..., Layer]]]
    every_s: float = 1.0  # two queries a second cost the emulator about a tenth of a core
    layers: dict[str, Layer] = field(default_factory=dict)
    delays: dict[str, float] = field(default_factory=dict)
    changed_at: dict[str, float] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    _history: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=20_000))
    _readings: dict[str, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin reading."""
        for name, open_reader in self.readers.items():
            thread = threading.Thread(target=self._loop, args=(name, open_reader), name=f"watch-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop reading."""
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)

    def refresh(self, name: str, *, timeout_s: float = 15.0) -> None:
        """Wait for a reading that begins after this call."""
        wanted = self._readings.get(name, 0) + 2  # one may be at work that began before
        deadline = time.monotonic() + timeout_s
        while self._readings.get(name, 0) < wanted and time.monotonic() < deadline and not self._stop.is_set():
            time.sleep(0.05)

    def rows(self, name: str) -> int:
        """How many produced events have come as far as this layer; dead letters and repeats are on their way's end."""
        layer = self.layers.get(name, Layer())
        if name == "produced":
            return layer.rows
        landed = self.layers.get("landed", Layer())
        beside = landed.dead_letters + landed.gaps
        repeats = self.layers.get("core", Layer()).repeats if name in {"mart", "report"} else 0
        return layer.rows + beside + repeats

    def _loop(self, name: str, open_reader: Callable[[], Callable[..., Layer]]) -> None:
        read = None
        while not self._stop.is_set():
            try:
                read = read or open_reader()
                self._note(name, read(whole=False))
                self.troubles.pop(name, None)
            except Exception as error:  # noqa: BLE001 - shown beside the layer; the next reading may succeed
                self.troubles[name] = f"{type(error).__name__}: {error}".splitlines()[0]
                read = None
            self._readings[name] = self._readings.get(name, 0) + 1
            self._stop.wait(self.every_s)

    def _note(self, name: str, layer: Layer) -> None:
        now = time.monotonic()
        if layer != self.layers.get(name):
            self.changed_at[name] = now
        self.layers[name] = layer
        arrived = self.rows(name)
        if name == "produced":
            if not self._history or self._history[-1][1] != arrived:
                self._history.append((now, arrived))
            return
        for at, count in list(self._history):
            if count >= arrived:
                if self.changed_at.get(name) == now and arrived:
                    self.delays[name] = now - at
                return


def read_whole(readers: Mapping[str, Callable[[], Callable[..., Layer]]]) -> Layers:
    """Every layer once, with amounts, straight from each."""
    found: dict[str, Layer] = {}
    for name, open_reader in readers.items():
        found[name] = open_reader()(whole=True)
    return Layers(**found)


def open_readers(env: Mapping[str, str]) -> dict[str, Callable[[], Callable[..., Layer]]]:
    """How to open each layer's reader; opening imports its driver, so it is done in the thread that reads."""
    return {
        "produced": lambda: KafkaReader(env["KAFKA_BOOTSTRAP_SERVERS"]).read,
        "landed": lambda: LakeReader(env["LAKE_DSN"]).read,
        "core": lambda: WarehouseReader(env).core,
        "mart": lambda: WarehouseReader(env).mart,
        "report": lambda: ReportReader(env).read,
    }
