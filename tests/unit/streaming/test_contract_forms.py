"""Contracts of topics that were not made for us: other keys than column names, times as numbers, any JSON."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from streaming import stream_tables
from streaming.contract import Contract, read_contract
from streaming.decode import Decoder, DoubtError, Refusal, decode_column
from streaming.errors import ContractError

from .events import NOW

READINGS = """
apiVersion: v3.1.0
kind: DataContract
id: 7c8f6d0e-0000-4000-8000-000000000002
version: 1.0.0
status: active
schema:
  - name: readings
    physicalName: plant.readings
    logicalType: object
    properties:
      - {name: meter, physicalName: "Zähler-Nr.", logicalType: string, required: true, primaryKey: true}
      - name: taken_at
        physicalName: ts
        logicalType: timestamp
        logicalTypeOptions: {format: epoch_ms}
        required: true
      - {name: seen_at, logicalType: timestamp, logicalTypeOptions: {timezone: false}}
      - {name: due_on, logicalType: date, logicalTypeOptions: {format: epoch_days}}
      - {name: extra, physicalType: json}
      - {name: parts, logicalType: array}
      - {name: site, logicalType: object}
customProperties:
  - {property: eventTimeField, value: taken_at}
"""
GOOD = {"Zähler-Nr.": "z1", "ts": 1_795_521_600_123}


def contract(**changes: str) -> Contract:
    text = READINGS
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return read_contract(text)


def judge(changes: dict[str, Any], decoder: Decoder | None = None, **more: Any) -> Any:
    event = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    return (decoder or Decoder(contract())).judge(json.dumps(event).encode(), now=NOW, **more)


def test_an_event_s_keys_need_not_be_columns_names() -> None:
    event = judge({})
    assert (event.meter, event.taken_at) == ("z1", 1_795_521_600_123)
    missing, wrong = judge({"Zähler-Nr.": ...}), judge({"Zähler-Nr.": 7})
    assert (missing.reason, missing.field) == ("missing_field", "meter")
    assert (wrong.reason, wrong.field) == ("wrong_type", "meter")
    assert "found '7'" in wrong.detail


def test_times_come_in_every_declared_form() -> None:
    decoder = Decoder(contract())
    rows = [
        {"seen_at": "2026-07-01T12:00:00", "due_on": 20_636},
        {"seen_at": "2026-07-01T12:00:00+02:00"},
        {"seen_at": None, "due_on": None},
    ]
    events, times = decoder.decode_all([json.dumps(GOOD | row).encode() for row in rows], now=NOW)
    assert times.tolist() == [1_795_521_600_123_000] * 3
    columns = {f.name: decode_column(decoder, events, f).to_pylist() for f in decoder.contract.fields}
    assert columns["taken_at"] == [datetime(2026, 11, 24, 12, 0, 0, 123_000, tzinfo=UTC)] * 3
    assert columns["seen_at"] == [
        datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 7, 1, 10, tzinfo=UTC), None,
    ]  # fmt: skip
    assert columns["due_on"] == [date(2026, 7, 2), None, None]


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"ts": "2026-07-01T12:00:00Z"}, "wrong_type", "taken_at"),
        ({"ts": 1e300}, "wrong_type", "taken_at"),
        ({"ts": 10**17}, "out_of_range", "taken_at"),
        ({"ts": -2}, "event_time_too_early", "taken_at"),
        ({"ts": 1_895_521_600_123}, "event_time_too_late", "taken_at"),
        ({"due_on": 10**9}, "out_of_range", "due_on"),
        ({"seen_at": "12:00"}, "wrong_type", "seen_at"),
        ({"parts": {}}, "wrong_type", "parts"),
        ({"site": []}, "wrong_type", "site"),
        ({"site": "x"}, "wrong_type", "site"),
    ],
)
def test_what_is_not_of_the_form_is_refused(changes: dict[str, Any], reason: str, field: str) -> None:
    refusal = judge(changes)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.field) == (reason, field)


@pytest.mark.parametrize("options", ["", ", logicalTypeOptions: {timezone: false}"])
@pytest.mark.parametrize(
    ("seen_at", "is_good"),
    [
        ("9999-12-31T23:59:59-05:00", False),
        ("9999-12-31T19:00:00-05:00", False),
        ("0001-01-01T00:00:00.0000000+01:00", False),
        ("9999-12-31T18:59:59.999999-05:00", True),
        ("9999-12-31T23:59:59Z", True),
        ("9999-12-31T23:59:59+15:59", True),
        ("0001-01-01T01:00:00+01:00", True),
        ("0001-01-01T00:00:00Z", True),
        (None, True),
    ],
)
def test_an_instant_outside_the_years_that_readers_know_is_refused(seen_at: str, is_good: bool, options: str) -> None:  # noqa: FBT001
    decoder = Decoder(contract(**{", logicalTypeOptions: {timezone: false}": options}))
    values = [json.dumps(GOOD | {"seen_at": at}).encode() for at in ("2026-07-01T12:00:00+02:00", seen_at)]
    judged = decoder.judge(values[1], now=NOW)
    if is_good:
        assert len(decoder.check_all(values, now=NOW)) == 2
        events, _ = decoder.decode_all(values, now=NOW)
        assert decode_column(decoder, events, decoder.contract.field("seen_at")).to_pylist()[1] == judged.seen_at
    else:
        assert (judged.reason, judged.field) == ("out_of_range", "seen_at")
        for check in (decoder.check_all, decoder.decode_all):
            with pytest.raises(DoubtError):
                check(values, now=NOW)


def test_an_event_time_outside_the_years_that_readers_know_is_refused_however_far_ahead_it_may_be() -> None:
    far = contract(
        **{
            "customProperties:": "customProperties:\n  - {property: maximumAheadSeconds, value: 1000000000000}",
            "eventTimeField, value: taken_at": "eventTimeField, value: seen_at",
            "timezone: false}": "}, required: true",
        }
    )
    decoder = Decoder(far)
    good, late = (json.dumps(GOOD | {"seen_at": f"9999-12-31T{hour}:00:00-05:00"}).encode() for hour in (18, 19))
    assert len(decoder.check_all([good], now=NOW)) == 1
    assert decoder.judge(late, now=NOW).reason == "event_time_too_late"
    with pytest.raises(DoubtError):
        decoder.check_all([late], now=NOW)


@pytest.mark.parametrize("value", [1, "x", True, None, [1, "a"], {"a": 1.10}])
def test_any_json_is_kept_as_it_came(value: Any) -> None:
    decoder = Decoder(contract())
    events, _ = decoder.decode_all([json.dumps(GOOD | {"extra": value}).encode()], now=NOW)
    column = decode_column(decoder, events, decoder.contract.field("extra"))
    assert column.type == pa.string()
    assert column.to_pylist() == [None if value is None else json.dumps(value)]


def test_numbers_within_objects_keep_every_digit() -> None:
    decoder = Decoder(contract())
    text = b'{"Z\xc3\xa4hler-Nr.":"z","ts":1,"site":{"height": 1.10000000000000000001}}'
    events, _ = decoder.decode_all([text], now=NOW)
    assert decode_column(decoder, events, decoder.contract.field("site")).to_pylist() == [
        '{"height": 1.10000000000000000001}'
    ]


def test_a_required_json_field_may_not_be_null() -> None:
    strict = Decoder(
        contract(**{"{name: extra, physicalType: json}": "{name: extra, physicalType: json, required: true}"})
    )
    assert judge({"extra": None}, strict).reason == "wrong_type"
    assert judge({}, strict).reason == "missing_field"
    assert judge({"extra": 0}, strict).extra is not None


def test_the_message_s_timestamp_may_be_the_event_time() -> None:
    decoder = Decoder(contract(**{"eventTimeField, value: taken_at": "eventTimeField, value: produced_at"}))
    stamp = 1_795_521_600_000_000
    value = json.dumps(GOOD).encode()
    assert decoder.decode_all([value], now=NOW, stamps_us=[stamp])[1].tolist() == [stamp]
    assert judge({}, decoder, stamp_us=stamp).meter == "z1"
    assert judge({}, decoder, stamp_us=None).reason == "missing_field"
    assert judge({}, decoder, stamp_us=-1).reason == "event_time_too_early"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("format: epoch_ms", "format: epoch_minutes", "format 'epoch_minutes', expected one of iso, epoch_s"),
        ("timezone: false", "timezone: maybe", "timezone is 'maybe', expected true or false"),
        ("timezone: false", "timezone: false, defaultTimezone: Europe/Rome", "only UTC is read"),
        ("physicalName: ts", "physicalName: parts", "physicalNames given twice: parts"),
        ("{name: extra, physicalType: json}", "{name: extra}", "or physicalType json and no logicalType"),
        ("eventTimeField, value: taken_at", "eventTimeField, value: due_on", "or produced_at for the timestamp"),
        ("customProperties:", "customProperties:\n  - {property: payloadFormat, value: xml}", "one of json, avro"),
        ("customProperties:", "customProperties:\n  - {property: envelope, value: soap}", "one of none, debezium"),
    ],
)
def test_forms_that_nobody_can_read_are_refused(old: str, new: str, problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        contract(**{old: new})


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("physicalName: ts", "physicalName: time", "was read from the key 'ts', is read from 'time'"),
        ("format: epoch_ms", "format: epoch_s", "was written as epoch_ms, is written as epoch_s"),
        (", primaryKey: true", "", "the primary key was meter, is none"),
        (
            "eventTimeField, value: taken_at",
            "eventTimeField, value: produced_at",
            "the event time was taken_at, is prod",
        ),
        ("  - {name: extra, physicalType: json}\n    ", "", "field extra is gone"),
        ("logicalType: array", "logicalType: string", "field parts was json, is text"),
    ],
)
def test_a_change_of_form_key_or_event_time_is_breaking(old: str, new: str, problem: str) -> None:
    before = stream_tables.describe_fields(contract())
    assert stream_tables.breaking_changes(before, contract(), "UTC") == []
    (found,) = stream_tables.breaking_changes(before, contract(**{old: new}), "UTC")
    assert problem in found


def test_the_event_time_cannot_leave_the_message_s_timestamp_either() -> None:
    before = stream_tables.describe_fields(
        contract(**{"eventTimeField, value: taken_at": "eventTimeField, value: produced_at"})
    )
    (found,) = stream_tables.breaking_changes(before, contract(), "UTC")
    assert "the event time was produced_at, is taken_at" in found


def test_a_lake_that_was_registered_before_roles_were_kept_is_not_called_broken() -> None:
    before = [
        {name: value for name, value in field.items() if name not in ("key", "event_time")}
        for field in stream_tables.describe_fields(contract())
    ]
    assert stream_tables.breaking_changes(before, contract(), "UTC") == []


def test_what_landed_stays_readable_when_a_limit_is_narrowed() -> None:
    narrow = contract(**{"logicalType: string, required: true, primaryKey": "logicalType: string, required: true, "
                         "logicalTypeOptions: {maxLength: 1}, primaryKey"})  # fmt: skip
    assert judge({}, Decoder(narrow)).reason == "out_of_range"
    assert judge({}, Decoder(narrow.without_limits())).meter == "z1"
