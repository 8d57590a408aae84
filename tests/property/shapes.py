"""Contracts of every kind, and events made from them: valid ones with what they mean, broken ones, arbitrary bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from streaming.contract import Contract, Field, read_contract
from streaming.event_type import EPOCH_RANGE_S
from tests.unit.streaming.events import NOW, ORDERS, FakeMessage

HEAD = """
apiVersion: v3.1.0
kind: DataContract
id: 7c8f6d0e-0000-4000-8000-000000000002
version: 1.0.0
status: active
schema:
  - name: {stream}
    physicalName: {topic}
    logicalType: object
    properties:
"""
EVERYTHING = (
    HEAD.format(stream="p_everything", topic="p.everything")
    + """
      - {name: id, logicalType: string, required: true, logicalTypeOptions: {maxLength: 9}}
      - {name: code, logicalType: string, logicalTypeOptions: {pattern: "^[A-Z]{2}[0-9]+$"}}
      - {name: size, logicalType: integer, required: true, logicalTypeOptions: {minimum: -5, exclusiveMaximum: 900}}
      - {name: big, logicalType: integer}
      - {name: price, logicalType: number, physicalType: "NUMERIC(38,9)", required: true}
      - {name: rate, logicalType: number, physicalType: "NUMERIC(6,3)", logicalTypeOptions: {minimum: -1, maximum: 9.5}}
      - {name: whole, logicalType: number, physicalType: "NUMERIC(20,0)"}
      - {name: is_new, logicalType: boolean, required: true}
      - {name: at, logicalType: timestamp, required: true}
      - {name: seen_at, logicalType: timestamp, logicalTypeOptions: {timezone: false}}
      - {name: at_s, logicalType: timestamp, logicalTypeOptions: {format: epoch_s}}
      - {name: at_ms, logicalType: timestamp, logicalTypeOptions: {format: epoch_ms}}
      - {name: at_us, logicalType: timestamp, logicalTypeOptions: {format: epoch_us}}
      - {name: at_ns, logicalType: timestamp, logicalTypeOptions: {format: epoch_ns}}
      - {name: due, logicalType: date}
      - {name: due_days, logicalType: date, logicalTypeOptions: {format: epoch_days}}
      - {name: kind, logicalType: string, enum: [{value: web}, {value: "ü"}]}
      - {name: address, logicalType: object}
      - {name: tags, logicalType: array}
      - {name: extra, physicalType: json}
customProperties:
  - {property: eventTimeField, value: at}
  - {property: timeZone, value: Asia/Kathmandu}
  - {property: maximumPayloadBytes, value: 3000}
"""
)
KEPT_HEADERS = EVERYTHING.replace("p_everything", "p_headers").replace("p.everything", "p.headers") + (
    "  - {property: keepHeaders, value: true}\n"
)
EPOCH_TIME = (
    HEAD.format(stream="p_epoch", topic="p.epoch")
    + """
      - {name: id, logicalType: string, required: true}
      - {name: at, logicalType: timestamp, required: true, logicalTypeOptions: {format: epoch_s}}
customProperties:
  - {property: eventTimeField, value: at}
"""
)
MESSAGE_TIME = (
    HEAD.format(stream="p_message", topic="p.message")
    + """
      - {name: id, logicalType: string, required: true}
      - {name: n, logicalType: number, physicalType: "NUMERIC(9,2)"}
customProperties:
  - {property: eventTimeField, value: produced_at}
"""
)
CONTRACTS = {
    contract.stream: contract
    for contract in map(read_contract, (ORDERS, EVERYTHING, KEPT_HEADERS, EPOCH_TIME, MESSAGE_TIME))
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_NS = datetime(2262, 4, 11, tzinfo=UTC)  # in 64 bits
FIRST_COUNT_NS = EPOCH_RANGE_S[0] * 1_000_000_000
TEXTS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(TEXTS, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(TEXTS, max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """One field of an event: as it is written, and what it means (None: absent or null)."""

    raw: str
    meaning: Any


def numbers(field: Field) -> st.SearchStrategy[Written]:
    most = 10**field.precision - 1
    unit = Decimal(1).scaleb(-field.scale)
    low = -most if field.minimum is None else int(Decimal(field.minimum) / unit)
    high = most if field.maximum is None else int(Decimal(field.maximum) / unit)

    def write(count: int, form: int) -> Written:
        value = Decimal(f"{count}e-{field.scale}")  # exact, where scaleb would round to 28 digits
        fixed = format(value, "f")
        short = fixed.rstrip("0").rstrip(".") if "." in fixed else fixed
        raw = (fixed, f'"{fixed}"', short, f'"{short}"', f"{count}e-{field.scale}", f'"{count}E-{field.scale}"')[form]
        return Written(raw, value)

    return st.builds(write, st.integers(low, high), st.integers(0, 5))


def instants(first: datetime, last: datetime) -> st.SearchStrategy[datetime]:
    micros = st.integers(0, int((last - first) / timedelta(microseconds=1)))
    return micros.map(lambda count: first + timedelta(microseconds=count))


def iso_times(first: datetime, last: datetime, *, has_zone: bool) -> st.SearchStrategy[Written]:
    def write(instant: datetime, digits: int, minutes: int, form: int) -> Written:
        step = 10 ** (6 - digits)
        instant = instant.replace(microsecond=instant.microsecond // step * step)
        shown = instant.astimezone(timezone(timedelta(minutes=minutes if has_zone else 0)))
        text = shown.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
        fraction = f".{shown.microsecond:06d}"[: digits + 1] if digits else ""
        zone = ("Z" if not minutes and form else shown.isoformat()[-6:]) if has_zone else ""
        return Written(f'"{text}{fraction}{zone}"', instant)

    return st.builds(write, instants(first, last), st.integers(0, 6), st.integers(-839, 839), st.integers(0, 1))


def times(field: Field, first: datetime, last: datetime) -> st.SearchStrategy[Written]:
    if field.encoding.startswith("iso"):
        return iso_times(first, last, has_zone=field.encoding == "iso")
    if field.encoding == "epoch_ns":
        return st.builds(_written_ns, instants(first, min(last, LAST_NS)), st.integers(-500, 499))
    per_second = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000}[field.encoding]

    def write(instant: datetime) -> Written:
        count = (instant - EPOCH) // timedelta(seconds=1) if per_second == 1 else (
            (instant - EPOCH) // timedelta(microseconds=1_000_000 // per_second)
        )  # fmt: skip
        return Written(str(count), EPOCH + timedelta(microseconds=count * (1_000_000 // per_second)))

    return instants(first, last).map(write)


def _written_ns(instant: datetime, beside: int) -> Written:
    count = (instant - EPOCH) // timedelta(microseconds=1) * 1_000 + beside
    return Written(str(max(count, FIRST_COUNT_NS)), instant)


def dates(field: Field) -> st.SearchStrategy[Written]:
    days = st.dates(date(1900, 1, 1), date(2199, 12, 31))
    if field.encoding == "iso":
        return days.map(lambda day: Written(f'"{day.isoformat()}"', day))
    return days.map(lambda day: Written(str((day - date(1970, 1, 1)).days), day))


def integers(field: Field) -> st.SearchStrategy[Written]:
    low = -(2**63) if field.minimum is None else field.minimum
    low = low if field.exclusive_minimum is None else field.exclusive_minimum + 1
    high = 2**63 - 1 if field.maximum is None else field.maximum
    high = high if field.exclusive_maximum is None else field.exclusive_maximum - 1
    return st.integers(low, high).map(lambda number: Written(str(number), number))


def strings(field: Field) -> st.SearchStrategy[Written]:
    text = (
        st.from_regex(field.pattern, fullmatch=True, alphabet=TEXTS)
        if field.pattern is not None
        else st.text(TEXTS, min_size=field.minimum_length or 0, max_size=field.maximum_length or 20)
    )
    if field.allowed:
        text = st.sampled_from(field.allowed)
    if field.pattern is not None and field.maximum_length is not None:
        text = text.filter(lambda found: len(found) <= field.maximum_length)
    return st.builds(
        lambda found, is_ascii: Written(json.dumps(found, ensure_ascii=is_ascii), found), text, st.booleans()
    )


def documents(kind: st.SearchStrategy[Any]) -> st.SearchStrategy[Written]:
    return kind.map(lambda found: Written(json.dumps(found), found))


def field_values(contract: Contract, field: Field) -> st.SearchStrategy[Written]:
    """Valid values of a field, in every way in which they may be written."""
    is_event_time = field.name == contract.event_time_field
    first = contract.earliest_event_at if is_event_time else datetime(1900, 1, 1, tzinfo=UTC)
    last = NOW + timedelta(seconds=contract.maximum_ahead_s) if is_event_time else datetime(2199, 1, 1, tzinfo=UTC)
    makers: dict[str, Callable[[], st.SearchStrategy[Written]]] = {
        "string": lambda: strings(field),
        "integer": lambda: integers(field),
        "number": lambda: numbers(field),
        "boolean": lambda: st.booleans().map(lambda found: Written(json.dumps(found), found)),
        "timestamp": lambda: times(field, first, last),
        "date": lambda: dates(field),
        "object": lambda: documents(st.dictionaries(st.text(TEXTS, max_size=4), JSON_VALUES, max_size=3)),
        "array": lambda: documents(st.lists(JSON_VALUES, max_size=3)),
        "json": lambda: documents(JSON_VALUES.filter(lambda found: found is not None)),
    }
    return makers[field.logical_type]()


@dataclass(frozen=True)
class Event:
    """A valid event: its bytes, and what its fields mean."""

    value: bytes
    meanings: dict[str, Any]


@st.composite
def events(draw: st.DrawFn, contract: Contract) -> Event:
    """A valid event of a contract: fields in any order, unknown ones among them, blanks between."""
    pieces, meanings = [], {}
    for field in draw(st.permutations(contract.fields)):
        form = draw(st.sampled_from(["value", "value", "null", "absent"])) if field.nullable else "value"
        meanings[field.name] = None
        if form == "value":
            written = draw(field_values(contract, field))
            meanings[field.name] = written.meaning
            pieces.append(f"{json.dumps(field.event_key)}: {written.raw}")
        elif form == "null":
            pieces.append(f"{json.dumps(field.event_key)}:null")
    if draw(st.booleans()):
        pieces.append(f'"_unknown": {json.dumps(draw(JSON_VALUES))}')
    blank = draw(st.sampled_from(["", " ", "\n\t"]))
    return Event((blank + "{" + f",{blank}".join(pieces) + "}" + blank).encode(), meanings)


@st.composite
def broken(draw: st.DrawFn, contract: Contract) -> bytes:
    """A valid event with some bytes changed, dropped, doubled, or strange tokens put in."""
    value = bytearray(draw(events(contract)).value)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(value) - 1, 0)))
        length = draw(st.integers(0, 6))
        token = draw(
            st.sampled_from([
                b"", b"\0", b"\\u0000", b"\\ud800", b"\\udc00\\ud800", b"\xff", b"\xed\xa0\x80",
                b"1e999", b"-0", b"NaN",
                b"null", b"[", b"{}", b'"', b"\\", b"9" * 30, b"0001-01-01T00:00:00Z",
                b"9999-12-31T23:59:59Z", b"24:00:00",
                b"-999999999999999999", b"99999999999999999", b"\xef\xbb\xbf", b",", b":", b"true", b"[[[[", b"+14:00",
                b".1234567890",
            ])
            | st.binary(max_size=3)
        )  # fmt: skip
        value[at : at + length] = token
    return bytes(value)


def values(contract: Contract) -> st.SearchStrategy[bytes | None]:
    """Whatever a message may hold."""
    return st.one_of(
        st.none(),
        st.binary(max_size=40),
        events(contract).map(lambda event: event.value),
        broken(contract),
        JSON_VALUES.map(lambda found: json.dumps(found).encode()),
        st.just(b" " * (contract.maximum_payload_bytes + 1)),
        st.just(b"[" * 2_900),
    )


HEADERS = st.lists(
    st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.none() | st.binary(max_size=8)),
    max_size=3,
)
ODD_STAMPS = [-1, -(2**63), 2**63 - 1, 253_402_300_800_000, -62_135_596_800_001]
STAMPS = st.one_of(
    st.just((0, -1)),
    st.tuples(st.sampled_from([1, 2]), st.integers(0, int(NOW.timestamp() * 1000))),
    st.tuples(st.sampled_from([1, 2]), st.sampled_from(ODD_STAMPS)),
)


@st.composite
def messages(draw: st.DrawFn, contract: Contract) -> list[FakeMessage]:
    """Messages of a topic partition, with holes between the offsets."""
    at, made = draw(st.integers(0, 3)), []
    for value in draw(st.lists(values(contract), min_size=1, max_size=6)):
        at += draw(st.sampled_from([0, 0, 0, 1, 5]))
        key = draw(st.none() | st.binary(max_size=6))
        made.append(FakeMessage(at, value, key, draw(STAMPS), draw(HEADERS)))
        at += 1
    return made
