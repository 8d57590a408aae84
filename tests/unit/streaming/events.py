"""What the tests of this room share: a contract that is not retail's, messages, events."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from streaming.contract import Contract, read_contract

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)

ORDERS = """
apiVersion: v3.1.0
kind: DataContract
id: 7c8f6d0e-0000-4000-8000-000000000001
version: 2.1.0
status: active
schema:
  - name: shop_orders
    physicalName: shop.orders
    logicalType: object
    properties:
      - {name: order_id, logicalType: string, required: true, primaryKey: true, logicalTypeOptions: {minLength: 1}}
      - {name: amount, logicalType: number, physicalType: "NUMERIC(12,4)", required: true}
      - {name: tip, logicalType: number, physicalType: "NUMERIC(12,4)"}
      - {name: items, logicalType: integer, required: true, logicalTypeOptions: {minimum: 0, maximum: 1000}}
      - {name: is_gift, logicalType: boolean}
      - name: ordered_at
        logicalType: timestamp
        required: true
        logicalTypeOptions: {minimum: "2009-01-01T00:00:00Z"}
      - {name: due_on, logicalType: date}
      - {name: channel, logicalType: string, enum: [{value: web}, {value: till}]}
      - {name: address, logicalType: object}
      - {name: tags, logicalType: array}
      - {name: note, logicalType: string, logicalTypeOptions: {maxLength: 20, pattern: "^[^#]*$"}}
customProperties:
  - {property: eventTimeField, value: ordered_at}
  - {property: timeZone, value: Europe/London}
  - {property: messageKey, value: order_id}
  - {property: maximumPayloadBytes, value: 2000}
"""


def orders_contract(**changes: str) -> Contract:
    """The contract, with pieces of its text replaced: old_text="new_text" is given as a pair of keyword and value."""
    text = ORDERS
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return read_contract(text)


def order(**changes: Any) -> dict[str, Any]:
    event = {"order_id": "o-1", "amount": "12.5", "items": 3, "ordered_at": "2026-11-24T11:00:00Z"}
    return {name: value for name, value in (event | changes).items() if value is not ...}


def order_bytes(**changes: Any) -> bytes:
    return json.dumps(order(**changes)).encode()


@dataclass
class FakeMessage:
    """A Kafka message without Kafka."""

    at: int
    payload: bytes | None
    message_key: bytes | None = b"k"
    stamp: tuple[int, int] = (1, 1_795_521_600_123)
    fields: list[tuple[str, bytes | None]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.payload or b"")

    def value(self) -> bytes | None:
        return self.payload

    def key(self) -> bytes | None:
        return self.message_key

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return self.stamp

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self.fields or None
