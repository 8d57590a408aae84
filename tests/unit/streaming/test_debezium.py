"""Debezium's envelopes: what Kafka Connect's JSON converter writes, with schemas and without."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from streaming.decode import Refusal
from streaming.formats.debezium import unwrap
from streaming.formats.exact_json import exact_decimal, to_json


def enveloped(row: dict[str, Any], fields: list[dict[str, Any]], op: str = "c") -> bytes:
    image = {"type": "struct", "optional": True, "field": "after", "fields": fields}
    schema = {"type": "struct", "fields": [image | {"field": "before"}, image, {"type": "string", "field": "op"}]}
    payload = {"before": None, "after": row, "op": op, "ts_ms": 5, "source": {"ts_ms": 4, "db": "x"}}
    return json.dumps({"schema": schema, "payload": payload}).encode()


def decimal_bytes(unscaled: int) -> str:
    return base64.b64encode(unscaled.to_bytes((unscaled.bit_length() + 8) // 8, "big", signed=True)).decode()


@pytest.mark.parametrize(
    ("name", "value", "parameters", "expected"),
    [
        ("org.apache.kafka.connect.data.Decimal", decimal_bytes(-12345), {"scale": "2"}, "-123.45"),
        ("org.apache.kafka.connect.data.Decimal", decimal_bytes(0), {"scale": "2"}, "0.00"),
        ("org.apache.kafka.connect.data.Decimal", decimal_bytes(10**38 - 1), {"scale": "9"},
         "99999999999999999999999999999.999999999"),
        ("io.debezium.data.VariableScaleDecimal", {"scale": 3, "value": decimal_bytes(1)}, None, "0.001"),
        ("io.debezium.time.Timestamp", 1_795_521_600_123, None, "2026-11-24T12:00:00.123000Z"),
        ("org.apache.kafka.connect.data.Timestamp", -1, None, "1969-12-31T23:59:59.999000Z"),
        ("io.debezium.time.MicroTimestamp", 1_795_521_600_123_456, None, "2026-11-24T12:00:00.123456Z"),
        ("io.debezium.time.NanoTimestamp", 1_795_521_600_123_456_789, None, "2026-11-24T12:00:00.123456789Z"),
        ("io.debezium.time.Date", 20_781, None, "2026-11-24"),
        ("io.debezium.time.MicroTime", 43_200_000_001, None, "12:00:00.000001"),
        ("io.debezium.time.MicroTime", 0, None, "00:00:00"),
        ("io.debezium.time.MicroTime", 86_400_000_000, None, "24:00:00"),
        ("io.debezium.time.MicroTime", 3_020_399_000_000, None, "838:59:59"),
        ("io.debezium.time.MicroTime", -3_600_000_000, None, "-01:00:00"),
        ("io.debezium.time.MicroTime", -1, None, "-00:00:00.000001"),
        ("io.debezium.time.NanoTime", 43_200_000_000_001, None, "12:00:00.000000001"),
        ("io.debezium.time.NanoTime", -43_200_000_001_000, None, "-12:00:00.000001"),
        ("io.debezium.time.NanoTime", 0, None, "00:00:00"),
        ("io.debezium.time.Time", -3_020_399_000, None, "-838:59:59"),
        ("org.apache.kafka.connect.data.Time", 86_399_999, None, "23:59:59.999000"),
        ("io.debezium.time.Timestamp", -62_135_596_800_000, None, "0001-01-01T00:00:00.000000Z"),
        ("io.debezium.time.NanoTimestamp", -59_011_459_199_999_999_999, None, "0100-01-01T00:00:00.000000001Z"),
        ("io.debezium.time.ZonedTimestamp", "2026-11-24T12:00:00Z", None, "2026-11-24T12:00:00Z"),
        ("io.debezium.data.Json", '{"a": 1}', None, '{"a": 1}'),
        ("io.debezium.time.Timestamp", None, None, None),
        # what Debezium makes of PostgreSQL's infinity and -infinity, and of a day after 9999
        ("io.debezium.time.MicroTimestamp", 9_223_372_036_825_200_000, None, 9_223_372_036_825_200_000),
        ("io.debezium.time.MicroTimestamp", -9_223_372_036_832_400_000, None, -9_223_372_036_832_400_000),
        ("io.debezium.time.Date", 2_147_483_647, None, 2_147_483_647),
        ("org.apache.kafka.connect.data.Timestamp", 9_223_372_036_825_200, None, 9_223_372_036_825_200),
    ],
)  # fmt: skip
def test_what_connect_writes_as_bytes_and_counts_is_read_by_its_schema(
    name: str, value: Any, parameters: dict[str, str] | None, expected: Any
) -> None:
    found = unwrap(enveloped({"id": 1, "x": value}, [{"field": "x", "name": name, "parameters": parameters}]))
    assert isinstance(found, bytes), found
    assert json.loads(found)["x"] == expected
    assert json.loads(found)["__deleted"] is False


def test_what_lies_in_arrays_maps_and_records_is_read_by_its_schema_too() -> None:
    """PostgreSQL's numeric[] and date[]: their items landed as base64 and as counts of days, in JSON alone."""
    price = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
    day = {"type": "int32", "name": "io.debezium.time.Date"}
    fields = [
        {"field": "prices", "type": "array", "items": price},
        {"field": "days", "type": "array", "items": {"type": "array", "items": day}},
        {"field": "by_name", "type": "map", "keys": {"type": "string"}, "values": price},
        {"field": "by_day", "type": "map", "keys": {"type": "int32"}, "values": day},
        {"field": "line", "type": "struct", "fields": [day | {"field": "on"}, {"field": "n", "type": "int64"}]},
        {"field": "plain", "type": "array", "items": {"type": "double"}},
    ]
    row = {
        "prices": [decimal_bytes(-255), None], "days": [[20_781], [], None], "by_name": {"a": decimal_bytes(5)},
        "by_day": [[7, 20_781]], "line": {"on": 20_781, "n": 2**53 + 1}, "plain": [0.1],
    }  # fmt: skip
    found = unwrap(enveloped(row, fields))
    assert isinstance(found, bytes), found
    event = json.loads(found)
    assert {name: event[name] for name in row} == {
        "prices": ["-2.55", None], "days": [["2026-11-24"], [], None], "by_name": {"a": "0.05"},
        "by_day": [[7, "2026-11-24"]], "line": {"on": "2026-11-24", "n": 2**53 + 1}, "plain": [0.1],
    }  # fmt: skip
    assert json.loads(unwrap(enveloped({"prices": None}, fields)))["prices"] is None  # type: ignore[arg-type]


def test_a_delete_is_the_row_before_it_and_says_so() -> None:
    found = unwrap(b'{"before":{"id":7},"after":null,"op":"d","ts_ms":5,"source":{"ts_ms":4}}')
    assert isinstance(found, bytes)
    event = json.loads(found)
    assert (event["id"], event["__op"], event["__deleted"], event["__source_ts_ms"]) == (7, "d", True, 4)


def test_numbers_that_need_no_conversion_keep_every_digit() -> None:
    text = b'{"before":null,"after":{"x":0.10000000000000000000001,"y":12345678901234567890},"op":"r","ts_ms":1}'
    found = unwrap(text)
    assert isinstance(found, bytes)
    assert b'"x":0.10000000000000000000001,"y":12345678901234567890' in found
    assert json.loads(found)["__op"] == "r"
    assert json.loads(found)["__source_ts_ms"] is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not_an_envelope"),
        (b"[]", "not_an_envelope"),
        (b'{"a": 1}', "not_an_envelope"),
        (b'{"op": "c", "after": 5}', "not_an_envelope"),
        (b'{"op": "c", "before": {"a": 1}}', "not_an_envelope"),
        (b'{"op": "d", "before": null, "after": null}', "not_an_envelope"),
        (b'{"op": "t", "before": null}', "not_allowed"),
        (b'{"op": 5, "before": null}', "not_allowed"),
        (b'{"op": ["c"], "after": {}}', "not_allowed"),
        (b'{"schema": {}, "payload": null}', "not_an_envelope"),
        (b"[" * 100_000, "not_an_envelope"),
        (b'{"op":"c","after":{"id":1},"source":{"na\xefve":1}}', "not_an_envelope"),
        (b'{"op":"c","after":{"na\xefve":1}}', "not_an_envelope"),
        (b'{"op":"c","after":{"id":1},"source":{' + b'"a":[' * 100_000, "not_an_envelope"),
        (b'{"op":"c","after":{"a":' + b"[" * 100_000, "not_an_envelope"),
        (b'{"schema":{"fields":["a"]},"payload":{"op":"c","after":{"x":1}}}', "not_an_envelope"),
        (b'{"schema":{"fields":5},"payload":{"op":"c","after":{"x":1}}}', "not_an_envelope"),
        (b'{"schema":{"fields":[{"field":"after","fields":"ab"}]},"payload":{"op":"c","after":{"x":1}}}',
         "not_an_envelope"),
        (enveloped({"x": "AA=="}, [{"field": "x", "name": "org.apache.kafka.connect.data.Decimal",
                                    "parameters": ["scale"]}]), "not_an_envelope"),
        (enveloped({"x": "?"}, [{"field": "x", "name": "org.apache.kafka.connect.data.Decimal"}]), "not_an_envelope"),
        (enveloped({"x": 10**30}, [{"field": "x", "name": "io.debezium.time.Date"}]), "not_an_envelope"),
    ],
)  # fmt: skip
def test_what_is_no_change_of_a_row_is_refused(value: bytes, reason: str) -> None:
    refusal = unwrap(value)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason
    assert refusal.detail


@pytest.mark.parametrize("number", ["12.50", "-0.00", "99999999999999999999999999999.999999999", "1E+3", "7"])
def test_decimals_that_the_converter_writes_as_numbers_keep_every_digit(number: str) -> None:
    """JsonConverter with decimal.format=NUMERIC: every event was refused, since its decimals were no base64."""
    price = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
    fields = [price | {"field": "price"}, {"field": "prices", "type": "array", "items": price}]
    value = enveloped({"id": 1, "price": 1, "prices": []}, fields)
    value = value.replace(b'"price": 1', f'"price": {number}'.encode())
    found = unwrap(value.replace(b'"prices": []', f'"prices": [{number}, null]'.encode()))
    assert isinstance(found, bytes), found
    event = json.loads(found)
    assert (event["price"], event["prices"]) == (number, [number, None])


def test_decimals_of_any_length_are_exact() -> None:
    assert format(exact_decimal(-(10**60) - 1, 30), "f") == f"-1{'0' * 30}.{'0' * 29}1"
    assert to_json({"x": exact_decimal(15, 1)}) == b'{"x":"1.5"}'


def test_a_type_s_name_around_the_row_is_taken_off_and_a_column_with_a_dot_in_its_name_is_not() -> None:
    found = unwrap(b'{"op":"c","before":null,"after":{"db.public.sales.Value":{"id":7}}}')
    assert isinstance(found, bytes)
    assert json.loads(found)["id"] == 7
    free = {"scale": 2, "value": decimal_bytes(1042)}
    for name, expected in (("io.debezium.data.VariableScaleDecimal", "10.42"), ("db.Own", free)):
        found = unwrap(enveloped({"a.b": free}, [{"field": "a.b", "type": "struct", "name": name}]))
        assert isinstance(found, bytes)
        assert json.loads(found)["a.b"] == expected
