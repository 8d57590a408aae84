"""Avro, Protobuf and Debezium's envelopes: exact, whole, and refused for the right reason."""

from __future__ import annotations

import base64
import importlib
import io
import json
import pkgutil
import re
import resource
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import google.type
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

from streaming import dead_letter, lake, replay
from streaming.consumer import LandingConsumer
from streaming.contract import Contract, read_contract
from streaming.decode import Decoder, Refusal
from streaming.errors import RegistryError, RegistryUnavailableError, SettingsError
from streaming.formats.open_reader import PayloadReader, open_reader
from streaming.settings import RegistrySettings
from tests.fix_registry import StandIn
from tests.fix_secure_kafka import KEY_PASSWORD, Authority

from .rig import Rig, make_rig

pytestmark = pytest.mark.integration

TOPIC = "shop.payments"
AVRO = {
    "type": "record", "name": "Payment", "namespace": "shop",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9}},
        {"name": "paid_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "booked_on", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
        {"name": "count", "type": "long"},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["CARD", "CASH"]}},
        {"name": "payer", "type": ["null", {"type": "record", "name": "Payer", "fields": [
            {"name": "name", "type": "string"}, {"name": "tags", "type": {"type": "map", "values": "double"}}]}]},
        {"name": "blob", "type": ["null", "bytes"], "default": None},
    ],
}  # fmt: skip
EXACT = [Decimal("12345678901234567890123456789.123456789"), Decimal("-0.000000001"), Decimal("0.000000000")]


def contract(payload_format: str, *, topic: str = TOPIC, stream: str = "payments", **more: str) -> Contract:
    return read_contract(contract_text(payload_format, topic=topic, stream=stream, **more))


def contract_text(payload_format: str, *, topic: str, stream: str, **more: str) -> str:
    properties = {"payloadFormat": payload_format, "eventTimeField": "paid_at", **more}
    listed = "".join(f"  - {{property: {name}, value: {value}}}\n" for name, value in properties.items())
    return f"""
apiVersion: v3.1.0
kind: DataContract
id: 7c8f6d0e-0000-4000-8000-000000000003
version: 1.0.0
status: active
schema:
  - name: {stream}
    physicalName: {topic}
    properties:
      - {{name: id, logicalType: string, required: true, primaryKey: true}}
      - {{name: amount, logicalType: number, physicalType: "NUMERIC(38,9)", required: true}}
      - {{name: paid_at, logicalType: timestamp, required: true}}
      - {{name: booked_on, logicalType: date}}
      - {{name: count, logicalType: integer, required: true}}
      - {{name: kind, logicalType: string, enum: [{{value: CARD}}, {{value: CASH}}]}}
      - {{name: payer, logicalType: object}}
      - {{name: blob, logicalType: string}}
customProperties:
{listed}"""


def payment(number: int = 0, **changes: Any) -> dict[str, Any]:
    event = {
        "id": f"p{number}", "amount": EXACT[number % 3], "paid_at": datetime(2026, 11, 1, 10, 0, 0, 123456, tzinfo=UTC),
        "booked_on": date(2026, 11, 2), "count": 2**53 + 1 + number, "kind": "CASH",
        "payer": {"name": "Ä\u0001", "tags": {"x": 0.1}}, "blob": b"\x00\xff",
    }  # fmt: skip
    return event | changes


CLIENTS: list[SchemaRegistryClient] = []


def registry_client(url: str) -> SchemaRegistryClient:
    CLIENTS.append(SchemaRegistryClient({"url": url}))
    return CLIENTS[-1]


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while CLIENTS:
        CLIENTS.pop().__exit__(None, None, None)


def avro(url: str, topic: str = TOPIC, **config: Any) -> Callable[[dict[str, Any]], bytes]:
    serializer = AvroSerializer(registry_client(url), json.dumps(AVRO), conf=config or None)
    return lambda event: serializer(event, SerializationContext(topic, MessageField.VALUE))  # type: ignore[return-value]


def open_avro(url: str, **settings: Any) -> PayloadReader:
    reader = open_reader(contract("avro"), RegistrySettings(url=url, **settings))
    assert reader is not None
    return reader


def read(reader: PayloadReader, value: bytes, headers: Any = ()) -> Any:
    found = reader(value, list(headers))
    assert isinstance(found, bytes), found
    return json.loads(found)


# -- Avro ------------------------------------------------------------------------------------------


def test_avro_is_read_exactly(registry_url: str) -> None:
    write, reader = avro(registry_url), open_avro(registry_url)
    for number, exact in enumerate(EXACT):
        event = read(reader, write(payment(number)))
        assert Decimal(event["amount"]) == exact
        assert event["paid_at"] == "2026-11-01T10:00:00.123456Z"
        assert event["booked_on"] == "2026-11-02"
        assert event["count"] == 2**53 + 1 + number
        assert event["payer"] == {"name": "Ä\u0001", "tags": {"x": 0.1}}
        assert base64.b64decode(event["blob"]) == b"\x00\xff"
    assert read(reader, write(payment(payer=None, booked_on=None, blob=None)))["payer"] is None
    assert read(reader, write(payment(payer={"name": "", "tags": {"a": float("nan"), "b": float("-inf")}})))["payer"][
        "tags"
    ] == {"a": "NaN", "b": "-Infinity"}


def test_a_decimal_beyond_its_schema_s_precision_is_not_rounded(registry: StandIn) -> None:
    """Avro's own readers would make 1.235E+6 of it."""
    schema = {"type": "record", "name": "R", "fields": [
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}},
        {"name": "f", "type": {"type": "fixed", "name": "F", "size": 4, "logicalType": "decimal", "precision": 4}},
    ]}  # fmt: skip
    number = registry.register("x", {"schema": json.dumps(schema)})["id"]
    digits = (123456789).to_bytes(4, "big")
    value = b"\0" + number.to_bytes(4, "big") + b"\x08" + digits + digits
    assert read(open_avro(registry.url), value) == {"d": "1234567.89", "f": "123456789"}


@pytest.mark.parametrize("text", [
    "0A4F2B1C-8d3e-4f5a-9b6c-7d8e9f0a1b2c", "{0a4f2b1c-8d3e-4f5a-9b6c-7d8e9f0a1b2c}",
    "0a4f2b1c8d3e4f5a9b6c7d8e9f0a1b2c", "no uuid at all",
])  # fmt: skip
def test_the_text_of_a_uuid_is_kept_as_it_is(registry: StandIn, text: str) -> None:
    kind = {"type": "string", "logicalType": "uuid"}
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": kind}, {"name": "b", "type": [kind]}]}
    coded = bytes([2 * len(text)]) + text.encode()
    assert read(open_avro(registry.url), framed(registry, schema, coded + b"\0" + coded)) == {"a": text, "b": text}


@pytest.mark.parametrize(
    ("kind", "logical_type", "count", "beyond", "expected"),
    [
        ("long", "timestamp-millis", -1, 253_402_300_800_000, "1969-12-31T23:59:59.999000Z"),
        ("long", "timestamp-micros", 1_795_521_600_123_456, 2**63 - 1, "2026-11-24T12:00:00.123456Z"),
        ("long", "local-timestamp-micros", 1_795_521_600_123_456, -(2**63), "2026-11-24T12:00:00.123456"),
        ("long", "time-micros", 86_399_999_999, 86_400_000_000, "23:59:59.999999"),
        ("int", "date", 20_781, 2**31 - 1, "2026-11-24"),
    ],
)
def test_a_time_beyond_the_year_9999_stays_its_count_and_its_event_is_read(
    registry: StandIn, kind: str, logical_type: str, count: int, beyond: int, expected: str
) -> None:
    """As "valid until" for ever: the whole event was undecodable, whether its contract knows the field or not."""
    field = {"type": kind, "logicalType": logical_type}
    schema = {"type": "record", "name": "R", "fields": [
        {"name": "a", "type": field}, {"name": "b", "type": ["null", field]}]}  # fmt: skip
    value = _coded(count) + b"\x02" + _coded(beyond)  # of the union the second branch
    assert read(open_avro(registry.url), framed(registry, schema, value)) == {"a": expected, "b": beyond}


def _coded(number: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", number)
    return out.getvalue()


def test_a_float_is_the_shortest_number_that_means_it(registry: StandIn) -> None:
    inner = {"type": "record", "name": "I", "fields": [{"name": "x", "type": "float"}]}
    schema = {"type": "record", "name": "R", "fields": [
        {"name": "a", "type": "float"}, {"name": "b", "type": ["null", "float"], "default": None},
        {"name": "c", "type": {"type": "array", "items": {"type": "float"}}},
        {"name": "d", "type": {"type": "map", "values": "float"}}, {"name": "e", "type": inner},
        {"name": "f", "type": "I"}, {"name": "g", "type": "double"},
    ]}  # fmt: skip
    event = {"a": 2.55, "b": 0.1, "c": [16777216.0, 1e-45], "d": {"k": -3.3}, "e": {"x": 0.2}, "f": {"x": 0.7},
             "g": 2.549999952316284}  # fmt: skip
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), event)
    assert read(open_avro(registry.url), framed(registry, schema, out.getvalue())) == event
    assert read(open_avro(registry.url), framed(registry, ["null", "float"], b"\x02\0\0\xc0\x7f")) == "NaN"
    assert read(open_avro(registry.url), framed(registry, '"float"', struct.pack("<f", 2.55))) == 2.55


DEBEZIUM_AVRO = {"type": "record", "name": "Envelope", "namespace": "db.t", "fields": [
    {"name": "before", "type": ["null", {"type": "record", "name": "Value", "fields": [
        {"name": "id", "type": "int"},
        {"name": "free", "type": ["null", {
            "type": "record", "name": "VariableScaleDecimal", "namespace": "io.debezium.data",
            "connect.version": 1, "connect.name": "io.debezium.data.VariableScaleDecimal",
            "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}]}]},
        {"name": "again", "type": ["null", "io.debezium.data.VariableScaleDecimal"]},
        {"name": "price", "type": {
            "type": "bytes", "scale": 2, "precision": 10, "logicalType": "decimal", "connect.version": 1,
            "connect.parameters": {"scale": "2"}, "connect.name": "org.apache.kafka.connect.data.Decimal"}},
        {"name": "at", "type": {"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"}},
        {"name": "span", "type": {"type": "long", "connect.name": "io.debezium.time.MicroTime"}},
        {"name": "day", "type": {"type": "int", "connect.name": "io.debezium.time.Date"}},
        {"name": "zoned", "type": {"type": "string", "connect.name": "io.debezium.time.ZonedTimestamp"}},
    ], "connect.name": "db.t.Value"}], "default": None},
    {"name": "after", "type": ["null", "Value"], "default": None},
    {"name": "op", "type": "string"}, {"name": "ts_ms", "type": ["null", "long"]},
]}  # fmt: skip


def test_debezium_s_avro_is_read_as_connect_names_its_values(registry: StandIn) -> None:
    """Avro has no word for most of them; the same names convert what JSON's schema says."""
    row = {
        "id": 7, "free": {"scale": 2, "value": b"\x04\x12"}, "again": {"scale": 0, "value": b"\xff"},
        "price": Decimal("1.50"), "at": 1_795_521_600_123_456, "span": -3_600_000_000, "day": 20_781,
        "zoned": "2026-11-24T12:00:00Z",
    }  # fmt: skip
    out = io.BytesIO()
    event = {"before": None, "after": row, "op": "c", "ts_ms": 5}
    fastavro.schemaless_writer(out, fastavro.parse_schema(DEBEZIUM_AVRO), event)
    value = framed(registry, DEBEZIUM_AVRO, out.getvalue())
    reader = open_reader(contract("avro", envelope="debezium"), RegistrySettings(url=registry.url))
    assert reader is not None
    found = read(reader, value)
    assert {name: found[name] for name in row} == {
        "id": 7, "free": "10.42", "again": "-1", "price": "1.50", "at": "2026-11-24T12:00:00.123456Z",
        "span": "-01:00:00", "day": "2026-11-24", "zoned": "2026-11-24T12:00:00Z",
    }  # fmt: skip
    plain = read(open_avro(registry.url), value)["after"]
    assert (plain["at"], plain["free"]["scale"]) == (row["at"], 2), "without the envelope a contract has its own forms"


def test_an_infinite_date_in_debezium_s_avro_stays_its_count_as_in_json(registry: StandIn) -> None:
    """time.precision.mode=connect names Avro's own types too, and Avro's own reading made the row a dead letter."""
    connect = "org.apache.kafka.connect.data"
    at = {"type": "long", "logicalType": "timestamp-millis", "connect.name": f"{connect}.Timestamp"}
    day = {"type": "int", "logicalType": "date", "connect.name": f"{connect}.Date"}
    row = {"type": "record", "name": "Value", "fields": [
        {"name": "at", "type": at}, {"name": "until", "type": ["null", day]}, {"name": "day", "type": day},
    ]}  # fmt: skip
    schema = {"type": "record", "name": "Envelope", "fields": [
        {"name": "after", "type": ["null", row]}, {"name": "op", "type": "string"}]}  # fmt: skip
    counts = {"at": 9_223_372_036_825_200, "until": 2_147_483_647, "day": 20_781}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {"after": counts, "op": "c"})
    reader = open_reader(contract("avro", envelope="debezium"), RegistrySettings(url=registry.url))
    assert reader is not None
    found = read(reader, framed(registry, schema, out.getvalue()))
    assert {name: found[name] for name in counts} == counts | {"day": "2026-11-24"}


def test_a_schema_s_guid_in_the_header_is_understood(registry: StandIn) -> None:
    serializer = AvroSerializer(
        registry_client(registry.url), json.dumps(AVRO),
        conf={"schema.id.serializer": header_schema_id_serializer},
    )  # fmt: skip
    headers: list[Any] = []
    value = serializer(payment(), SerializationContext(TOPIC, MessageField.VALUE, headers))
    assert isinstance(value, bytes)
    assert value[:1] != b"\0"
    assert [name for name, _ in headers] == ["__value_schema_id"]
    assert read(open_avro(registry.url), value, headers)["id"] == "p0"


def test_what_is_no_avro_of_the_registry_is_refused_with_its_reason(registry_url: str) -> None:
    write, reader = avro(registry_url), open_avro(registry_url)
    good = write(payment())
    cases = {
        b"": "not_framed", b'{"id": 1}': "not_framed", good[5:]: "not_framed", b"\0\0": "not_framed",
        b"\0" + (99_999).to_bytes(4, "big") + good[5:]: "unknown_schema", good[:9]: "undecodable",
        good[:5]: "undecodable",
        good[:5] + b"\xff" * 40: "undecodable",
    }  # fmt: skip
    for value, reason in cases.items():
        refusal = reader(value, [])
        assert isinstance(refusal, Refusal), value
        assert refusal.reason == reason, (value, refusal)
        assert refusal.detail


def test_an_unknown_schema_is_asked_for_once_in_a_while_and_not_for_every_event(registry: StandIn) -> None:
    reader = open_avro(registry.url)
    value = b"\0\0\0\0\x07xx"
    for _ in range(50):
        assert reader(value, []).reason == "unknown_schema"  # type: ignore[union-attr]
    assert registry.asked < 5


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (40403, "Schema 7 not found"),  # Confluent
        (40403, "No content with ID '7' was found."),  # Apicurio, since 2.1
        (40401, "No artifact with ID '7' in group 'null' was found."),  # where ids are the artifacts' (legacy-id-mode)
        (404, "No content with ID '7' was found."),  # 2.0
        (404, "No artifact with ID '7' in group 'null' was found."),
    ],
)
def test_whatever_a_registry_says_of_a_schema_that_it_does_not_know(registry: StandIn, code: int, message: str) -> None:
    registry.fails_with, registry.page = 404, json.dumps({"error_code": code, "message": message}).encode()
    refusal = open_avro(registry.url)(b"\0\0\0\0\x07xx", [])
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.detail) == ("unknown_schema", f"the registry has no schema 7: {message}")


@pytest.mark.parametrize("number", [2**31, 2**32 - 1])
def test_an_id_that_no_registry_gives_is_the_message_s_fault(registry: StandIn, number: int) -> None:
    """Confluent's registry answers as for a wrong path, since the id is no number to it: taken as an outage."""
    registry.fails_with, registry.page = 404, b'{"error_code": 404, "message": "HTTP 404 Not Found"}'
    refusal = open_avro(registry.url)(b"\0" + number.to_bytes(4, "big") + b"xx", [])
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "unknown_schema"
    assert str(number) in refusal.detail


def test_a_schema_of_another_format_is_the_message_s_fault(registry: StandIn) -> None:
    """The registry's answer was right: what asks it again for ever would stop the topic."""
    classes = proto_classes()
    by_avro, by_proto = open_avro(registry.url), open_reader(contract("protobuf"), RegistrySettings(url=registry.url))
    assert by_proto is not None
    cases = [
        (by_avro, write_proto(registry.url, classes["Payment"])(proto_payment(classes)), "is PROTOBUF, .* says avro"),
        (by_proto, avro(registry.url)(payment()), "is AVRO, .* says protobuf"),
        (by_avro, framed(registry, "no JSON"), "JSONDecodeError"),
        (by_avro, framed(registry, "{}"), "KeyError"),
        (by_avro, framed(registry, {"type": "array", "items": "Gone"}), "TypeError"),
    ]  # fmt: skip
    for reader, value, detail in cases:
        refusal = reader(value, [])
        assert isinstance(refusal, Refusal), value
        assert refusal.reason == "undecodable"
        assert re.search(detail, refusal.detail), refusal


def test_a_value_of_a_schema_that_refers_to_itself_ends_no_process(registry: StandIn) -> None:
    """C code follows it, for which 6,000 records within each other are more than a thread's stack."""
    schema = {"type": "record", "name": "N", "fields": [{"name": "n", "type": ["null", "N"]}]}
    reader = open_avro(registry.url)
    refusal = reader(framed(registry, schema, b"\x02" * 20_000 + b"\0"), [])
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "undecodable"
    assert "RecursionError" in refusal.detail
    found = reader(framed(registry, schema, b"\x02" * 300 + b"\0"), [])
    assert found == b'{"n":' * 301 + b"null" + b"}" * 301


def test_an_array_of_nothing_takes_no_memory(registry: StandIn) -> None:
    """Ten bytes say that it has 10^12 items, and fastavro would make them."""
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": "null"}}]}
    reader, out = open_avro(registry.url), io.BytesIO()
    fastavro.schemaless_writer(out, "long", 10**12)
    assert read(reader, framed(registry, schema, b"\x06\0")) == {"a": [None] * 3}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 500_000_000, limit[1]))
    try:
        refusal = reader(framed(registry, schema, out.getvalue() + b"\0"), [])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, "1000000000000 items without bytes" in refusal.detail) == ("undecodable", True), refusal


def framed(registry: StandIn, schema: Any, value: bytes = b"x") -> bytes:
    """A value by a schema that no serializer would write by."""
    text = schema if isinstance(schema, str) else json.dumps(schema)
    number: int = registry.register("any", {"schema": text})["id"]
    return b"\0" + number.to_bytes(4, "big") + value


# -- Protobuf --------------------------------------------------------------------------------------


def proto_classes() -> dict[str, Any]:
    """Classes of a file with nested messages, as protoc would generate them."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="shop/payment.proto", package="shop", syntax="proto3")
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    other = file.message_type.add(name="Other")
    other.field.add(name="x", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    message = file.message_type.add(name="Payment")
    inner = message.nested_type.add(name="Payer")
    inner.field.add(name="name", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    deep = inner.nested_type.add(name="Deep")
    deep.field.add(name="y", number=1, type=field.TYPE_SINT64, label=field.LABEL_OPTIONAL)
    entry = message.nested_type.add(name="TagsEntry", options=descriptor_pb2.MessageOptions(map_entry=True))
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=field.TYPE_FLOAT, label=field.LABEL_OPTIONAL)
    kind = file.enum_type.add(name="Kind")
    for number, name in enumerate(("CARD", "CASH")):
        kind.value.add(name=name, number=number)
    for number, (name, kind_of, more) in enumerate((
        ("id", field.TYPE_STRING, {}),
        ("amount", field.TYPE_STRING, {}),
        ("paid_at", field.TYPE_MESSAGE, {"type_name": ".google.protobuf.Timestamp"}),
        ("count", field.TYPE_INT64, {}),
        ("kind", field.TYPE_ENUM, {"type_name": ".shop.Kind"}),
        ("payer", field.TYPE_MESSAGE, {"type_name": ".shop.Payment.Payer"}),
        ("blob", field.TYPE_BYTES, {}),
        ("tags", field.TYPE_MESSAGE, {"type_name": ".shop.Payment.TagsEntry", "label": field.LABEL_REPEATED}),
        ("maybe", field.TYPE_MESSAGE, {"type_name": ".google.protobuf.Int64Value"}),
        ("ratios", field.TYPE_FLOAT, {"label": field.LABEL_REPEATED}),
    ), start=1):  # fmt: skip
        message.field.add(name=name, number=number, type=kind_of, **{"label": field.LABEL_OPTIONAL, **more})  # type: ignore[arg-type]
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"shop.{name}")) for name in (
        "Other", "Payment", "Payment.Payer", "Payment.Payer.Deep")}  # fmt: skip


def proto_payment(classes: dict[str, Any], **changes: Any) -> Any:
    message = classes["Payment"](
        id="p1", amount="0.000000001", count=2**53 + 1, kind=1, blob=b"\x00\xff", tags={"x": 0.1}, ratios=[0.1],
        **changes,
    )  # fmt: skip
    message.paid_at.FromJsonString("2026-11-01T10:00:00.123456Z")
    message.payer.name = "Ä"
    return message


def write_proto(url: str, kind: Any, topic: str = TOPIC) -> Callable[[Any], bytes]:
    serializer = ProtobufSerializer(kind, registry_client(url))
    return lambda message: serializer(message, SerializationContext(topic, MessageField.VALUE))  # type: ignore[return-value]


def test_protobuf_is_read_exactly_without_generated_classes(registry: StandIn) -> None:
    classes = proto_classes()
    reader = open_reader(contract("protobuf"), RegistrySettings(url=registry.url))
    assert reader is not None
    event = read(reader, write_proto(registry.url, classes["Payment"])(proto_payment(classes)))
    assert event == {
        "id": "p1", "amount": "0.000000001", "paid_at": "2026-11-01T10:00:00.123456Z", "count": 2**53 + 1,
        "kind": "CASH",
        "payer": {"name": "Ä"}, "blob": base64.b64encode(b"\x00\xff").decode(), "tags": {"x": 0.1}, "ratios": [0.1],
    }  # fmt: skip
    with_wrapper = proto_payment(classes)
    with_wrapper.maybe.value = -(2**63)
    assert read(reader, write_proto(registry.url, classes["Payment"])(with_wrapper))["maybe"] == -(2**63)


@pytest.mark.parametrize("value", [b"\x0a\x01\xff", b"\x12\x05\x0a\x01\xff\x12\x00", b"\x12\x05\x0a\x00\x12\x01\xff"])
def test_a_string_that_is_no_utf_8_is_refused_and_not_shown_as_base64(registry: StandIn, value: bytes) -> None:
    """Only proto2 has such a string; in its maps too, as key and as value."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="old.proto", package="old", syntax="proto2")
    message = file.message_type.add(name="Old")
    message.field.add(name="text", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    message.field.add(
        name="map", number=2, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED, type_name=".old.Old.MapEntry"
    )
    message.field.add(name="blob", number=3, type=field.TYPE_BYTES, label=field.LABEL_OPTIONAL)
    entry = message.nested_type.add(name="MapEntry", options=descriptor_pb2.MessageOptions(map_entry=True))
    for number, name in enumerate(("key", "value"), start=1):
        entry.field.add(name=name, number=number, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    reader = open_reader(contract("protobuf"), RegistrySettings(url=registry.url))
    assert reader is not None
    prefix = proto_framed(registry, file)
    refusal = reader(prefix + value, [])
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "undecodable"
    assert "is a string, and not UTF-8" in refusal.detail
    good = b"\x0a\x01x\x12\x06\x0a\x01k\x12\x01v\x1a\x01\xff"
    assert read(reader, prefix + good) == {"text": "x", "map": {"k": "v"}, "blob": "/w=="}


def proto_framed(registry: StandIn, file: descriptor_pb2.FileDescriptorProto, references: Any = ()) -> bytes:
    """The frame of a value of a file's first message."""
    text = base64.b64encode(file.SerializeToString()).decode()
    schema = {"schema": text, "schemaType": "PROTOBUF", "references": references}
    number: int = registry.register("any", schema)["id"]
    return b"\0" + number.to_bytes(4, "big") + b"\0"


def test_every_common_type_of_google_is_known(registry: StandIn) -> None:
    """No registry is asked for these files, so they have to be in the pool, whatever confluent-kafka has in its own."""
    names = sorted(module.name for module in pkgutil.iter_modules(google.type.__path__) if module.name.endswith("_pb2"))
    assert len(names) > 15
    files = [importlib.import_module(f"google.type.{name}").DESCRIPTOR.name for name in names]
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="price.proto", package="shop", syntax="proto3", dependency=files)
    message = file.message_type.add(name="Price")
    for number, (name, kind) in enumerate((("amount", "Decimal"), ("day", "Date"), ("call", "PhoneNumber")), start=1):
        message.field.add(name=name, number=number, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL,
                          type_name=f".google.type.{kind}")  # fmt: skip
    reader = open_reader(contract("protobuf"), RegistrySettings(url=registry.url))
    assert reader is not None
    value = b"\x0a\x08\x0a\x061.2300\x12\x07\x08\xea\x0f\x10\x0b\x18\x1d\x1a\x04\x0a\x02+1"
    event = read(reader, proto_framed(registry, file) + value)
    assert (event["amount"], event["day"], event["call"]["e164_number"]) == ("1.2300", "2026-11-29", "+1")


def proto_reader(registry: StandIn) -> PayloadReader:
    reader = open_reader(contract("protobuf"), RegistrySettings(url=registry.url))
    assert reader is not None
    return reader


def proto_holder(type_name: str, *files: str) -> descriptor_pb2.FileDescriptorProto:
    """A file whose message has one field, of a type of another file."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="holder.proto", package="shop", syntax="proto3", dependency=files)
    file.message_type.add(name="Holder").field.add(
        name="held", number=1, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL, type_name=type_name
    )
    return file


def test_a_file_that_is_called_message_proto_may_be_imported(registry: StandIn) -> None:
    """Our own name for the value's file was that, and every event of such a schema was undecodable."""
    field = descriptor_pb2.FieldDescriptorProto
    money = descriptor_pb2.FileDescriptorProto(name="message.proto", package="common", syntax="proto3")
    money.message_type.add(name="Money").field.add(
        name="units", number=1, type=field.TYPE_INT64, label=field.LABEL_OPTIONAL
    )
    text = base64.b64encode(money.SerializeToString()).decode()
    registry.register("message", {"schema": text, "schemaType": "PROTOBUF"})
    refers = [{"name": "message.proto", "subject": "message", "version": 1}]
    prefix = proto_framed(registry, proto_holder(".common.Money", "message.proto"), refers)
    assert read(proto_reader(registry), prefix + b"\x0a\x02\x08\x05") == {"held": {"units": 5}}


def test_the_paths_of_a_field_mask_are_the_schema_s_names(registry: StandIn) -> None:
    """Protobuf's own JSON has no word for a path with an upper-case letter: the event became a dead letter."""
    mask = field_mask_pb2.FieldMask(paths=["unit_price", "orderLine.stock_code", "labels.Env"])
    prefix = proto_framed(registry, proto_holder(".google.protobuf.FieldMask", "google/protobuf/field_mask.proto"))
    size = bytes([mask.ByteSize()])
    held = read(proto_reader(registry), prefix + b"\x0a" + size + mask.SerializeToString())["held"]
    assert held == "unit_price,orderLine.stock_code,labels.Env"


def test_a_document_in_protobuf_keeps_nan_and_infinities_as_text(registry: StandIn) -> None:
    """As every other number does; Protobuf's own JSON refuses them here, and the event became a dead letter."""
    document = struct_pb2.Struct()
    document.update({"a": 1, "b": [float("nan"), float("inf"), -0.5, True, None, {"c": "x", "d": {}}], "e": []})
    document.fields["unset"].SetInParent()
    prefix = proto_framed(registry, proto_holder(".google.protobuf.Struct", "google/protobuf/struct.proto"))
    value = prefix + b"\x0a" + bytes([document.ByteSize()]) + document.SerializeToString()
    assert read(proto_reader(registry), value)["held"] == {
        "a": 1, "b": ["NaN", "Infinity", -0.5, True, None, {"c": "x", "d": {}}], "e": [], "unset": None,
    }  # fmt: skip


def test_extensions_of_a_message_are_read(registry: StandIn) -> None:
    """Proto2's: they were left out of the event without a word."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="base.proto", package="shop", syntax="proto2")
    message = file.message_type.add(name="Base")
    message.field.add(name="x", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    message.extension_range.add(start=100, end=200)
    for number, (name, label) in enumerate((("one", field.LABEL_OPTIONAL), ("many", field.LABEL_REPEATED),
                                            ("unset", field.LABEL_OPTIONAL)), start=100):  # fmt: skip
        file.extension.add(name=name, number=number, type=field.TYPE_SINT64, label=label, extendee=".shop.Base")
    value = b"\x08\x05\xa0\x06\x01\xa8\x06\x02\xa8\x06\x04"
    event = read(proto_reader(registry), proto_framed(registry, file) + value)
    assert event == {"x": 5, "[shop.one]": -1, "[shop.many]": [1, 2]}


def test_protobuf_s_message_indexes_name_nested_messages(registry: StandIn) -> None:
    classes = proto_classes()
    reader = open_reader(contract("protobuf"), RegistrySettings(url=registry.url))
    assert reader is not None
    write = write_proto(registry.url, classes["Payment.Payer.Deep"])
    value = write(classes["Payment.Payer.Deep"](y=-(2**63)))
    assert value[5:9] == b"\x06\x02\x00\x00", "three indexes: the second message, its first, that one's first"
    assert read(reader, value) == {"y": -(2**63)}
    first = write_proto(registry.url, classes["Other"])(classes["Other"](x=7))
    assert first[5:6] == b"\x00", "the first message of a file is written as a single zero"
    assert read(reader, first) == {"x": 7}


def test_what_is_no_protobuf_of_the_registry_is_refused_with_its_reason(registry: StandIn) -> None:
    classes = proto_classes()
    good = write_proto(registry.url, classes["Payment"])(proto_payment(classes))
    reader = open_reader(contract("protobuf"), RegistrySettings(url=registry.url))
    assert reader is not None
    cases = {
        b"{}": "not_framed", good[:5] + b"\x02\x7e" + good[7:]: "undecodable", good[:-1]: "undecodable",
        b"\0\0\0\0\x63" + good[5:]: "unknown_schema", good[:5]: "undecodable",
    }  # fmt: skip
    for value, reason in cases.items():
        refusal = reader(value, [])
        assert isinstance(refusal, Refusal), value
        assert refusal.reason == reason, (value, refusal)


# -- the registry's own trouble --------------------------------------------------------------------


def test_a_registry_that_is_away_is_no_reason_to_refuse_an_event(registry: StandIn) -> None:
    value = avro(registry.url)(payment())
    reader = open_avro(registry.url)
    for status in (500, 503, 429, 408):
        registry.fails_with = status
        with pytest.raises(RegistryUnavailableError, match=rf"schema 1: HTTP {status}.*Nothing was skipped"):
            reader(value, [])
    registry.fails_with = 0
    assert read(reader, value)["id"] == "p0"
    nowhere = open_avro("http://127.0.0.1:9")
    with pytest.raises(RegistryUnavailableError, match="Check that it is up, SCHEMA_REGISTRY_URL"):
        nowhere(value, [])


@pytest.mark.parametrize("page", [
    b"", b"<html>404 Not Found: nginx</html>", b"null", b'{"error_code": 404, "message": "HTTP 404 Not Found"}',
    b'{"error_code": 0, "message": "RESTEASY003210: Could not find resource for full path"}',
])  # fmt: skip
def test_a_404_that_is_not_about_the_schema_makes_no_dead_letter(registry: StandIn, page: bytes) -> None:
    """An ingress without its service, or a path that is wrong: the registry was never asked."""
    value, reader = avro(registry.url)(payment()), open_avro(registry.url)
    registry.fails_with, registry.page = 404, page
    with pytest.raises(RegistryUnavailableError, match=rf"{registry.url} .*404.*path of SCHEMA_REGISTRY_URL"):
        reader(value, [])
    registry.fails_with, registry.page = 0, b""
    assert read(reader, value)["id"] == "p0"


@pytest.mark.parametrize("status", [302, 401, 404, 418, 502])
def test_of_a_page_that_comes_in_place_of_an_answer_the_beginning_is_told(registry: StandIn, status: int) -> None:
    """All of it stood in the log, at each try."""
    value, reader = avro(registry.url)(payment()), open_avro(registry.url)
    registry.fails_with, registry.page = status, b"<html><title>Sorry</title>" + b"x" * 1_000_000
    with pytest.raises((RegistryError, RegistryUnavailableError), match=f"HTTP {status}") as told:
        reader(value, [])
    assert len(str(told.value)) < 1000


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_registry_that_redirects_is_told_as_one(registry: StandIn, status: int) -> None:
    """As a load balancer from http to https: "Unknown Schema Registry Error" and its page named no cause."""
    value, reader = avro(registry.url)(payment()), open_avro(registry.url)
    registry.fails_with, registry.page = status, b"<html>Moved</html>"
    with pytest.raises(
        RegistryError, match=rf"HTTP {status}.*redirects are not followed.*SCHEMA_REGISTRY_URL to where"
    ):
        reader(value, [])


@pytest.mark.parametrize("page", [b"null", b"[]", b"{}", b"<html>Welcome to nginx!</html>", b'{"schema": 5}'])
def test_an_answer_that_is_none_is_asked_for_again(registry: StandIn, page: bytes) -> None:
    value, reader = avro(registry.url)(payment()), open_avro(registry.url)
    registry.page = page
    with pytest.raises(RegistryUnavailableError, match="schema 1: what came is no registry's answer"):
        reader(value, [])
    registry.page = b""
    assert read(reader, value)["id"] == "p0"


def test_an_answer_that_comes_byte_by_byte_is_not_waited_for(
    registry: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's limit is one of silence: a consumer did not stop before all of such an answer was there."""
    monkeypatch.setattr("streaming.formats.registry.WHOLE_S", 0.3)
    value, reader = avro(registry.url)(payment()), open_avro(registry.url)
    registry.drip_s = 0.02  # more than 10 s for the schema
    started = time.monotonic()
    with pytest.raises(RegistryUnavailableError, match=r"not whole within 0\.3 s.*tried again until the outage limit"):
        reader(value, [])
    assert time.monotonic() - started < 5
    registry.drip_s = 0.0
    assert read(reader, value)["id"] == "p0"


def test_a_registry_that_is_away_while_a_reference_is_asked_for_is_an_outage(registry: StandIn) -> None:
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": "int"}]}
    registry.register("inner", {"schema": json.dumps(inner)})
    outer = {"type": "record", "name": "Outer", "fields": [{"name": "inner", "type": "Inner"}]}
    refers = [{"name": "Inner", "subject": "inner", "version": 1}]
    number = registry.register("outer", {"schema": json.dumps(outer), "references": refers})["id"]
    value, reader = b"\0" + number.to_bytes(4, "big") + b"\x02", open_avro(registry.url)
    registry.fails_after = 1
    with pytest.raises(RegistryUnavailableError, match="HTTP 503"):
        reader(value, [])
    registry.fails_after = None
    assert read(reader, value) == {"inner": {"x": 1}}


def test_a_wrong_log_in_stops_and_shows_no_password(registry: StandIn) -> None:
    value = avro(registry.url)(payment())
    registry.user = "lander:right-horse"
    assert read(open_avro(registry.url, username="lander", password="right-horse"), value)["id"] == "p0"  # noqa: S106
    with pytest.raises(RegistryError, match="refuses our log-in") as caught:
        open_avro(registry.url, username="lander", password="wrong-horse")(value, [])  # noqa: S106
    assert "horse" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_contract_that_needs_a_registry_says_so_at_the_start() -> None:
    with pytest.raises(SettingsError, match="SCHEMA_REGISTRY_URL is not set, but a contract's payloadFormat needs it"):
        open_reader(contract("avro"), RegistrySettings())


def test_certificates_and_keys_that_cannot_be_used_are_named_at_the_start(tmp_path: Path) -> None:
    """They ended `consume` with a traceback, and a key without its password asked for it at the terminal."""
    authority = Authority(tmp_path, "ca")
    certificate, key = map(str, authority.issue("lander", password=KEY_PASSWORD))
    other_key = str(authority.issue("other")[1])
    ours = RegistrySettings(
        url="https://localhost:1", ca_file=str(authority.ca_file), certificate_file=certificate, key_file=key,
        key_password=KEY_PASSWORD,
    )  # fmt: skip
    assert open_reader(contract("avro"), ours) is not None
    with pytest.raises(SettingsError, match=r"SCHEMA_REGISTRY_CA_FILE=.*other.key.pem has no certificates in PEM"):
        open_reader(contract("avro"), replace(ours, ca_file=other_key))
    for wrong in ({"key_file": other_key}, {"key_password": "wrong"}, {"key_password": ""}, {"certificate_file": key}):
        with pytest.raises(SettingsError, match="SCHEMA_REGISTRY_KEY_PASSWORD is not its") as raised:
            open_reader(contract("avro"), replace(ours, **wrong))
        assert KEY_PASSWORD not in str(raised.value)


# -- landed ----------------------------------------------------------------------------------------


@pytest.fixture
def other_rig(kafka_bootstrap: str, new_topic: Any, lake_dsn: str, tmp_path: Any) -> Callable[..., Rig]:
    def make(payload_format: str, **more: str) -> Rig:
        made = make_rig(new_topic(partitions=1), kafka_bootstrap, lake_dsn, tmp_path)
        stream = made.contract.stream
        (tmp_path / f"{made.topic}.yaml").write_text(
            contract_text(payload_format, topic=made.topic, stream=stream, **more)
        )
        made.migrate()
        return made

    return make


def land(rig: Rig, url: str, **changes: Any) -> Any:
    settings = replace(rig.settings(), registry=RegistrySettings(url=url), dead_letter_limit=1.0, **changes)
    return LandingConsumer(settings, {rig.topic: rig.contract}).run(threading.Event(), until_idle_s=0.6)


def test_avro_lands_typed_with_the_message_beside_it_and_bad_ones_are_dead_letters(
    other_rig: Callable[..., Rig], registry_url: str
) -> None:
    rig = other_rig("avro")
    write = avro(registry_url, rig.topic)
    values = [write(payment(number)) for number in range(30)]
    bad = [b"\0" + (88_888).to_bytes(4, "big") + b"x", b"{}", values[0][:20], write(payment(kind="CARD"))]
    rig.send([*values, *bad, None])
    assert (land(rig, registry_url).rows, len(bad)) == (31, 4)
    rig.assert_exact(31, dead=4)
    stream = rig.contract.stream
    kept = rig.query(f"SELECT value FROM landing.{stream} ORDER BY topic_offset")
    assert [bytes(row[0]) for row in kept] == [*values, bad[3]]
    view = rig.query(f"SELECT amount, paid_at, count, booked_on FROM lake.{stream} ORDER BY topic_offset LIMIT 3")
    assert [row[0] for row in view] == EXACT
    assert view[0][1:] == (datetime(2026, 11, 1, 10, 0, 0, 123456, tzinfo=UTC), 2**53 + 1, date(2026, 11, 2))
    with rig.connect() as conn:
        letters = dead_letter.read_dead_letters(conn, rig.topic)
        (day,) = lake.landed_days(conn, rig.topic)
        decoded = lake.decode_events(rig.contract, lake.read_events(conn, rig.topic, day=day.event_day))
    assert [letter.reason for letter in letters] == ["unknown_schema", "not_framed", "undecodable", "empty"]
    assert [letter.value for letter in letters] == [*bad[:3], None]
    assert decoded["amount"].to_pylist()[:3] == EXACT
    replay_both_ways(rig, registry_url, letters, write)


def replay_both_ways(rig: Rig, url: str, letters: list[Any], write: Callable[[dict[str, Any]], bytes]) -> None:
    """A mended value is Avro, or the event's JSON."""
    decoder = Decoder(rig.contract, reader=open_reader(rig.contract, RegistrySettings(url=url)))
    as_json = json.dumps({"id": "j", "amount": "1.5", "paid_at": "2026-11-01T00:00:00Z", "count": 1}).encode()
    with rig.connect() as conn:
        done = replay.replay_edited(
            conn, decoder, [(letters[0], write(payment(7))), (letters[1], as_json), (letters[2], None)]
        )
    assert (done.landed, done.refused) == (2, 1)
    rig.assert_exact(33, dead=2)


def test_a_message_of_another_format_stops_no_topic(other_rig: Callable[..., Rig], registry: StandIn) -> None:
    rig, classes = other_rig("avro"), proto_classes()
    good, other = avro(registry.url, rig.topic), write_proto(registry.url, classes["Payment"], rig.topic)
    rig.send([good(payment(1)), other(proto_payment(classes)), good(payment(2))])
    assert land(rig, registry.url, outage_limit_s=2.0).rows == 2
    rig.assert_exact(2, dead=1)


def test_a_registry_that_comes_back_costs_nothing_and_one_that_stays_away_stops_the_consumer(
    other_rig: Callable[..., Rig], registry: StandIn
) -> None:
    rig = other_rig("avro")
    write = avro(registry.url, rig.topic)
    rig.send(write(payment(number)) for number in range(20))
    registry.fails_with = 503
    started = time.monotonic()
    with pytest.raises(RegistryUnavailableError, match="asking the schema registry"):
        land(rig, registry.url, outage_limit_s=2.0)
    assert time.monotonic() - started < 30
    rig.assert_exact(0)
    timer = threading.Timer(2.0, lambda: setattr(registry, "fails_with", 0))
    timer.start()
    assert land(rig, registry.url, outage_limit_s=60.0).rows == 20
    timer.join()
    rig.assert_exact(20)


def test_protobuf_lands(other_rig: Callable[..., Rig], registry: StandIn) -> None:
    rig = other_rig("protobuf")
    classes = proto_classes()
    write = write_proto(registry.url, classes["Payment"], rig.topic)
    rig.send([write(proto_payment(classes)), write(classes["Payment"](id="no time"))])
    assert land(rig, registry.url).rows == 1
    rig.assert_exact(1, dead=1)
    assert rig.query(f"SELECT amount, count FROM lake.{rig.contract.stream}") == [(Decimal("0.000000001"), 2**53 + 1)]
    with rig.connect() as conn:
        (letter,) = dead_letter.read_dead_letters(conn, rig.topic)
    assert (letter.reason, letter.field) == ("missing_field", "paid_at")


def change(op: str, *, before: Any = None, after: Any = None) -> dict[str, Any]:
    source = {"version": "3.5.0", "connector": "postgresql", "ts_ms": 1_795_521_600_000, "lsn": 24_023_128}
    return {
        "before": before,
        "after": after,
        "source": source,
        "op": op,
        "ts_ms": 1_795_521_600_123,
        "transaction": None,
    }


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"r{number}", "amount": "12345678901234567890.123456789", "paid_at": "2026-11-01T10:00:00Z",
            "count": number, **more}  # fmt: skip


def test_debezium_s_changes_land_as_events_and_tombstones_are_no_loss(other_rig: Callable[..., Rig]) -> None:
    rig = other_rig("json", envelope="debezium")
    changes = [
        change("r", after=row(0)), change("c", after=row(1)), change("u", before=row(1), after=row(1, kind="CARD")),
        change("d", before=row(1)),
    ]  # fmt: skip
    values = [json.dumps(document).encode() for document in changes]
    bad = [
        json.dumps(change("t")).encode(), json.dumps(change("d")).encode(), json.dumps(row(5)).encode(), b"[1]",
        json.dumps(change("c", after={"id": 1})).encode(),
    ]  # fmt: skip
    rig.send([*values, None, None, *bad, None])
    land(rig, "")
    rig.assert_exact(4, dead=5, gaps=3)
    assert rig.query("SELECT first_offset, last_offset, kind FROM control.gap ORDER BY 1") == [
        (4, 5, "tombstone"), (11, 11, "tombstone"),
    ]  # fmt: skip
    stream = rig.contract.stream
    landed = rig.query(f"SELECT payload, value FROM landing.{stream} ORDER BY topic_offset")
    assert [bytes(value) for _, value in landed] == values
    assert [(p["__op"], p["__deleted"], p["__source_ts_ms"], p["__source"]["lsn"]) for p, _ in landed] == [
        (op, op == "d", 1_795_521_600_000, 24_023_128) for op in "rcud"
    ]
    amounts = rig.query(f"SELECT amount FROM lake.{stream}")
    assert amounts == [(Decimal("12345678901234567890.123456789"),)] * 4
    with rig.connect() as conn:
        reasons = [letter.reason for letter in dead_letter.read_dead_letters(conn, rig.topic)]
    assert reasons == ["not_allowed", "not_an_envelope", "not_an_envelope", "not_an_envelope", "wrong_type"]
    assert all(c.lost_offsets == 0 for c in counts(rig))


def counts(rig: Rig) -> list[Any]:
    with rig.connect() as conn:
        return lake.topic_counts(conn, rig.topic)


def test_only_tombstones_move_the_offset_too(other_rig: Callable[..., Rig]) -> None:
    rig = other_rig("json", tombstones="skip")
    rig.send([None, None])
    land(rig, "")
    rig.assert_exact(0, gaps=2)
    rig.send([json.dumps(row(1)).encode(), None, json.dumps(row(2)).encode(), b"bad"])
    land(rig, "")
    rig.assert_exact(2, gaps=3, dead=1)


def test_a_stream_may_change_its_format_and_keeps_what_landed(other_rig: Callable[..., Rig], registry: StandIn) -> None:
    rig = other_rig("json")
    rig.send([json.dumps(row(1)).encode()])
    land(rig, "")
    path = rig.contracts_dir / f"{rig.topic}.yaml"
    path.write_text(path.read_text().replace("payloadFormat, value: json", "payloadFormat, value: avro"))
    rig.migrate()
    rig.send([avro(registry.url, rig.topic)(payment(2))])
    land(rig, registry.url)
    rig.assert_exact(2)
    kept = rig.query(f"SELECT value IS NULL, id FROM landing.{rig.contract.stream} JOIN lake.{rig.contract.stream} "
                     f"USING (topic_partition, topic_offset) ORDER BY topic_offset")  # fmt: skip
    assert kept == [(True, "r1"), (False, "p2")]
