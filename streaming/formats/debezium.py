"""Debezium's envelopes -> the row after the change, with what happened to it. Pure.

The row's fields come first, as they are; beside them stand `__op` (c, u, d, r), `__deleted`, `__ts_ms`,
`__source_ts_ms` and `__source`, the names that Debezium's own unwrapping uses. A delete is an event like any
other: the row before it, with `__deleted` true; nothing is taken out of an append-only lake.
Not here: tombstones (batch.py).
"""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from streaming.decode import Refusal
from streaming.formats.exact_json import exact_decimal

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ROW_OF = {"c": "after", "u": "after", "r": "after", "d": "before"}
Raws = dict[str, msgspec.Raw]
NULL = msgspec.Raw(b"null")
DECIMAL = "org.apache.kafka.connect.data.Decimal"
NUMBER_BEGINS = b"-0123456789"
# what parts of an envelope, its schema among them, may raise if they are not what Debezium writes
MALFORMED = (
    msgspec.DecodeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError,
)  # fmt: skip


def unwrap(value: bytes) -> bytes | Refusal:
    """The event of an envelope; numbers keep every digit, since what is not converted is not read."""
    try:
        envelope = msgspec.json.decode(value, type=Raws)
        schema = None
        if envelope.keys() == {"schema", "payload"}:
            schema = msgspec.json.decode(envelope["schema"])
            envelope = msgspec.json.decode(envelope["payload"], type=Raws)
        operation = msgspec.json.decode(envelope.get("op", NULL))
    except MALFORMED as error:
        return Refusal("not_an_envelope", f"no Debezium envelope: {error}"[:500])
    if "op" not in envelope or not envelope.keys() & {"before", "after"}:
        return Refusal("not_an_envelope", f"no Debezium envelope: its keys are {', '.join(sorted(envelope))[:300]}")
    side = ROW_OF.get(operation) if isinstance(operation, str) else None
    if side is None:
        return Refusal("not_allowed", f"the operation {operation!r} is no change of a row (c, u, d, r)", "__op")
    try:
        row = _row(envelope, side, schema)
        about = _about(envelope, operation)
    except MALFORMED as error:
        return Refusal(
            "not_an_envelope", f"its {side}, source or schema cannot be read: {type(error).__name__}: {error}"[:500]
        )
    if row is None:
        return Refusal("not_an_envelope", f"the operation is {operation!r}, but there is no {side} (REPLICA IDENTITY?)")
    return msgspec.json.encode(row | about)


def _row(envelope: Raws, side: str, schema: Any) -> Raws | None:
    raw = envelope.get(side, NULL)
    if bytes(raw) == b"null":
        return None
    row: Raws = msgspec.json.decode(raw, type=Raws)
    if schema is None:  # a schema comes with values that name no type: what has a dot is a column's name
        row = _without_union(row)
    return _converted_fields(row, _row_schema(schema, side))


def _without_union(row: Raws) -> Raws:
    """Avro's JSON names the type of a nullable record: {"db.Value": {...}}."""
    if len(row) == 1:
        (name, inner), = row.items()  # fmt: skip
        if "." in name and bytes(inner)[:1] == b"{":
            unwrapped: Raws = msgspec.json.decode(inner, type=Raws)
            return unwrapped
    return row


def _about(envelope: Raws, operation: str) -> Raws:
    source = envelope.get("source", NULL)
    stamp = msgspec.json.decode(source, type=Raws).get("ts_ms", NULL) if bytes(source)[:1] == b"{" else NULL
    return {
        "__op": msgspec.Raw(msgspec.json.encode(operation)),
        "__deleted": msgspec.Raw(b"true" if operation == "d" else b"false"),
        "__ts_ms": envelope.get("ts_ms", NULL),
        "__source_ts_ms": stamp,
        "__source": source,
    }


# -- with a schema, of JSON or Avro (avro_schema.py): what Kafka Connect writes as bytes and counts ----------------


def _row_schema(schema: Any, side: str) -> dict[str, Any]:
    """The row's schema, of the envelope's."""
    if not isinstance(schema, dict):
        return {}
    return next((field for field in schema.get("fields") or () if field.get("field") == side), {})


def _converted_fields(row: Raws, schema: dict[str, Any]) -> Raws:
    """A row, or a record within one, with what has to be converted."""
    fields = {field["field"]: field for field in schema.get("fields") or () if _holds_converted(field)}
    return {name: _converted(value, fields[name]) if name in fields else value for name, value in row.items()}


def _holds_converted(schema: dict[str, Any]) -> bool:
    """Whether values of a schema have to be converted, themselves or within: PostgreSQL has arrays of numeric."""
    parts = [*(schema.get("fields") or ()), *(schema[part] for part in ("items", "values") if part in schema)]
    return schema.get("name") in CONVERSIONS or any(map(_holds_converted, parts))


def _converted(raw: msgspec.Raw, schema: dict[str, Any]) -> msgspec.Raw:
    if bytes(raw) == b"null" or not _holds_converted(schema):
        return raw
    found: Any
    if schema.get("name") == DECIMAL and bytes(raw)[:1] in NUMBER_BEGINS:
        found = bytes(raw).decode("ascii")  # by decimal.format=NUMERIC; read as a float it would be rounded
    elif schema.get("name") in CONVERSIONS:
        found = CONVERSIONS[schema["name"]](msgspec.json.decode(raw), schema.get("parameters") or {})
    elif "items" in schema:
        found = [_converted(item, schema["items"]) for item in msgspec.json.decode(raw, type=list[msgspec.Raw])]
    elif "values" in schema:
        found = _converted_map(raw, schema["values"])
    else:
        found = _converted_fields(msgspec.json.decode(raw, type=Raws), schema)
    return msgspec.Raw(msgspec.json.encode(found))


def _converted_map(raw: msgspec.Raw, schema: dict[str, Any]) -> Any:
    """A map's values; Connect writes one whose keys are no texts as pairs."""
    if bytes(raw)[:1] == b"{":
        return {key: _converted(value, schema) for key, value in msgspec.json.decode(raw, type=Raws).items()}
    pairs = msgspec.json.decode(raw, type=list[tuple[msgspec.Raw, msgspec.Raw]])
    return [(key, _converted(value, schema)) for key, value in pairs]


def _decimal(value: Any, parameters: dict[str, str]) -> str:
    digits = value if isinstance(value, bytes) else base64.b64decode(value, validate=True)  # by Avro, by JSON
    unscaled = int.from_bytes(digits, "big", signed=True)
    return format(exact_decimal(unscaled, int(parameters["scale"])), "f")


def _variable_decimal(value: Any, _: dict[str, str]) -> str:
    return _decimal(value["value"], {"scale": str(value["scale"])})


def _instant(microseconds: int) -> str:
    instant = EPOCH + timedelta(microseconds=microseconds)
    return instant.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _or_count(written: Callable[[Any], str]) -> Callable[[Any, dict[str, str]], Any]:
    """A count beyond the years 1 to 9999 stays one, as PostgreSQL's infinity: its field refuses it, not the row."""

    def converted(value: Any, _: dict[str, str]) -> Any:
        try:
            return written(value)
        except OverflowError:
            if abs(value) >= 2**63:  # Connect counts in 64 bits
                raise
            return value

    return converted


def _nanoseconds(value: Any) -> str:
    microseconds, rest = divmod(value, 1000)
    return _instant(microseconds)[:-1] + f"{rest:03d}Z" if rest else _instant(microseconds)


def _day(value: Any) -> str:
    return (date(1970, 1, 1) + timedelta(days=value)).isoformat()


def _time(nanoseconds: int) -> Callable[[Any, dict[str, str]], str]:
    """A time of day or, in MySQL, a span of up to 838 hours, counted in such steps: [-]hh:mm:ss[.ffffff[fff]]."""

    def written(value: Any, _: dict[str, str]) -> str:
        seconds, rest = divmod(abs(value * nanoseconds), 1_000_000_000)
        minutes, second = divmod(seconds, 60)
        hour, minute = divmod(minutes, 60)
        fraction = "" if not rest else f".{rest:09d}" if rest % 1000 else f".{rest // 1000:06d}"
        return f"{'-' if value < 0 else ''}{hour:02d}:{minute:02d}:{second:02d}{fraction}"

    return written


CONVERSIONS: dict[str, Callable[[Any, dict[str, str]], Any]] = {
    DECIMAL: _decimal,
    "io.debezium.data.VariableScaleDecimal": _variable_decimal,
    "org.apache.kafka.connect.data.Timestamp": _or_count(lambda value: _instant(value * 1000)),
    "io.debezium.time.Timestamp": _or_count(lambda value: _instant(value * 1000)),
    "io.debezium.time.MicroTimestamp": _or_count(_instant),
    "io.debezium.time.NanoTimestamp": _or_count(_nanoseconds),
    "org.apache.kafka.connect.data.Date": _or_count(_day),
    "io.debezium.time.Date": _or_count(_day),
    "org.apache.kafka.connect.data.Time": _time(1_000_000),
    "io.debezium.time.Time": _time(1_000_000),
    "io.debezium.time.MicroTime": _time(1000),
    "io.debezium.time.NanoTime": _time(1),
}
