"""Lands events in the lake without Kafka: the landing's own code, fed by hand. For tests of what comes after it."""

from __future__ import annotations

import csv
import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from streaming import lake
from streaming.batch import prepare_batch
from streaming.contract import load_contract
from streaming.database import transaction
from streaming.decode import Decoder
from streaming.landing import land_batches
from streaming.ledger import claim
from streaming.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

TOPIC = "retail.invoices"
LONDON = ZoneInfo("Europe/London")


@dataclass(frozen=True)
class HandMessage:
    """What the landing needs of a Kafka message."""

    at: int
    body: bytes
    invoice_no: str

    def value(self) -> bytes:
        return self.body

    def key(self) -> bytes:
        return self.invoice_no.encode()

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return (1, int(time.time() * 1000))

    def headers(self) -> None:
        return None


class HandLanding:
    """A landing consumer of one lake; each call of `land` is one batch of one topic partition."""

    def __init__(self, dsn: str, topic: str = TOPIC, *, key: str = "invoice_no") -> None:
        self.conn = lake.connect(dsn, application_name="tests.landing")
        self.topic, self.key = topic, key
        self.contract = load_contract(topic)
        migrate(self.conn, [self.contract])
        self.decoder = Decoder(self.contract)
        self.next_offset: dict[int, int] = {}

    def land(self, events: Sequence[dict[str, Any]], *, topic_partition: int = 0) -> None:
        first = self.next_offset.get(topic_partition, 0)
        messages = [
            HandMessage(first + at, json.dumps(event).encode(), str(event[self.key])) for at, event in enumerate(events)
        ]
        batch = prepare_batch(self.decoder, topic_partition, messages, expected_offset=first, now=datetime.now(tz=UTC))
        with transaction(self.conn) as cursor:
            owner, _gap = claim(
                cursor, self.topic, topic_partition, topic_id=None, low=0, high=first + len(events), owner="tests"
            )
        landed = land_batches(self.conn, {self.topic: self.decoder}, [(batch, owner)], owner="tests", months=set())
        assert not landed.fenced
        self.next_offset[topic_partition] = first + len(events)

    def close(self) -> None:
        self.conn.close()


def event(**changes: Any) -> dict[str, Any]:
    """One invoice line, with whatever the test is about changed."""
    return {
        "event_id": str(uuid.uuid4()),
        "invoice_no": "536365",
        "line_no": 1,
        "stock_code": "85123A",
        "description": "WHITE HANGING HEART T-LIGHT HOLDER",
        "quantity": 6,
        "unit_price": "2.55",
        "invoiced_at": "2010-12-01T08:26:00Z",
        "customer_id": "17850",
        "country": "United Kingdom",
        **changes,
    }


def events_of_csv(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Real invoices as events, in the files' order."""
    lines: dict[str, int] = {}
    for path in paths:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                number = row["InvoiceNo"]
                lines[number] = lines.get(number, 0) + 1
                at = datetime.fromisoformat(row["InvoiceDate"]).replace(tzinfo=LONDON).astimezone(UTC)
                yield event(
                    event_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{number}/{lines[number]}")),
                    invoice_no=number,
                    line_no=lines[number],
                    stock_code=row["StockCode"],
                    description=row["Description"] or None,
                    quantity=int(row["Quantity"]),
                    unit_price=row["UnitPrice"],
                    invoiced_at=at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    customer_id=row["CustomerID"].removesuffix(".0") or None,
                    country=row["Country"],
                )


def odd_events() -> list[dict[str, Any]]:
    """Four lines of 2010-12-01 at the edges: fractions, a cancellation, the largest numbers, nothing for money."""
    return [
        event(unit_price="0.333333333", quantity=3, description=None),
        event(line_no=2, invoice_no="C536366", quantity=-1, customer_id=None, country="EIRE"),
        event(line_no=3, unit_price="999999999999.999999999", quantity=10**9, description="日本 ☃"),
        event(line_no=4, unit_price="0", stock_code="gift_0001_50"),
    ]
