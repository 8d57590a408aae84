"""Contract -> DDL of one stream: its landing table and its typed view. Pure: text only; migrate.py runs it.

The landing table keeps each event as it came (`json` keeps the text byte for byte; `jsonb` would reorder keys and costs
40 % of the rate), its identity and its times. It is partitioned by month of the event day, months are made on demand.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streaming.contract import MESSAGE_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from streaming.contract import Contract, Field

FORM = ""  # stands for the message's form among the described fields; no field is called so
NO_FIELDS = (MESSAGE_TIME, FORM)
LONGEST_IDENTIFIER = 63  # bytes
EPOCH_UNITS = {  # of what the view adds, and how many a second has
    "epoch_s": ("second", 1), "epoch_ms": ("millisecond", 1_000), "epoch_us": ("microsecond", 1_000_000),
    "epoch_ns": ("microsecond", 1_000_000),
}  # fmt: skip
LONGEST_MICROS = len("2010-12-01T08:26:00.123456")  # anything longer has a zone, or more digits
HAS_ZONE = r"([zZ]|[T t].*[+-]\d\d:?\d*)$"
SQL_TYPES = {
    "string": "text",
    "integer": "bigint",
    "boolean": "boolean",
    "timestamp": "timestamptz",
    "date": "date",
    "object": "json",
    "array": "json",
    "json": "json",
}
# what JSON calls a value that a field takes whatever it holds
JSON_KINDS = {"string": "string", "boolean": "boolean", "object": "object", "array": "array"}


def landing_table(contract: Contract) -> str:
    """Name of the landing table; the contract has checked that it is an identifier."""
    return f"landing.{contract.stream}"


def sql_type(field: Field) -> str:
    """Postgres type of a field in the typed view."""
    if field.logical_type == "number":
        return f"numeric({field.precision},{field.scale})"
    return SQL_TYPES[field.logical_type]


def create_landing_table(contract: Contract) -> str:
    """DDL of the landing table. Wide columns first, so that a row wastes no bytes on alignment."""
    table = landing_table(contract)
    value_column = "" if contract.is_plain_json else (
        f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS value bytea;\n"
        f"COMMENT ON COLUMN {table}.value IS 'The message as it came; payload is the JSON that was read from it.';\n"
    )  # fmt: skip
    return f"""
CREATE TABLE IF NOT EXISTS {table} (
    topic_offset     bigint NOT NULL,
    event_at         timestamptz NOT NULL,
    produced_at      timestamptz,
    topic_partition  integer NOT NULL,
    event_day        date NOT NULL,
    key              bytea,
    headers          json,
    payload          json NOT NULL,
    PRIMARY KEY (event_day, topic_partition, topic_offset)
) PARTITION BY RANGE (event_day);
{value_column}COMMENT ON TABLE {table} IS {quote(f"Topic {contract.topic} as it came. {contract.description}")};
COMMENT ON COLUMN {table}.event_day IS {quote(f"Date of {contract.event_time_field} in {contract.time_zone}.")};
COMMENT ON COLUMN {table}.produced_at IS 'Timestamp of the Kafka message.';
"""


def create_view(contract: Contract) -> str:
    """DDL of the typed view, whatever was there; who reads it needs its rights anew."""
    return f"DROP VIEW IF EXISTS lake.{contract.stream};\n{replace_view(contract)}"


def view_fingerprint(contract: Contract) -> str:
    """Changes with what `replace_view` says."""
    return hashlib.sha256(replace_view(contract).encode("utf-8")).hexdigest()


def in_view_order(contract: Contract, columns: Sequence[str]) -> Contract:
    """The contract with its fields as the columns of a view stand, new ones last: PostgreSQL replaces no other view."""
    places = {name: at for at, name in enumerate(columns)}
    ordered = sorted(contract.fields, key=lambda field: places.get(field.name, len(places)))
    return replace(contract, fields=tuple(ordered))


def replace_view(contract: Contract) -> str:
    """DDL of the typed view in the place of one whose columns are the first of its own, if there is one.

    Rights on it stay, and views of it.

    The payload is parsed once a row. The event time is the one that the decoder read when the event landed.
    """
    view = f"lake.{contract.stream}"
    in_payload = [field for field in contract.fields if field.name != contract.event_time_field]
    inner = [field for field in in_payload if _is_identifier(field.event_key)]
    typed = ", ".join(f"{identifier(field.event_key)} {_json_type(field)}" for field in inner)
    columns = ", ".join(
        f'{_column(field) if field in in_payload else "e.event_at"} AS "{field.name}"' for field in contract.fields
    )
    comments = "\n".join(
        f'COMMENT ON COLUMN {view}."{field.name}" IS {quote(field.description)};'
        for field in contract.fields
        if field.description
    )
    parsed = f"CROSS JOIN LATERAL json_to_record(e.payload) AS f({typed})" if inner else ""
    return f"""
CREATE OR REPLACE VIEW {view} AS
SELECT e.topic_partition, e.topic_offset, e.event_day, e.event_at, e.produced_at, {columns}
FROM {landing_table(contract)} AS e
{parsed};
COMMENT ON VIEW {view} IS {quote(f"{contract.topic} {contract.version}: {contract.description}")};
{comments}
"""


def select_gained(contract: Contract, gained: Iterable[Field], *, since: Mapping[int, int] | None = None) -> str:
    """Query of the landed events that may have something else under the keys of new fields.

    `since`: only of the batches from these numbers on, by topic partition; of one that is not named, of all.
    """
    conditions = (
        f"json_typeof(e.payload -> {quote(field.event_key)}) "
        f"NOT IN ('null', {quote(JSON_KINDS.get(field.logical_type, 'null'))})"
        for field in gained
    )
    of_batches = "" if since is None else (
        f"JOIN control.batch_day AS b ON b.topic = {quote(contract.topic)} AND b.topic_partition = e.topic_partition "
        f"AND b.event_day = e.event_day AND e.topic_offset BETWEEN b.first_offset AND b.last_offset "
        f"AND b.batch >= coalesce(({quote(json.dumps(since))}::json ->> b.topic_partition::text)::integer, 1) "
    )  # fmt: skip
    return (
        f"SELECT e.topic_partition, e.topic_offset, e.payload::text FROM {landing_table(contract)} AS e {of_batches}"
        f"WHERE {' OR '.join(conditions)}"
    )


def _is_identifier(source: str) -> bool:
    """Whether a key of the event can name a column: Postgres cuts longer names off."""
    return 0 < len(source.encode("utf-8")) <= LONGEST_IDENTIFIER and source.isprintable()


def identifier(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def _json_type(field: Field) -> str:
    """Type as which a field is read from the JSON."""
    if field.encoding.startswith("epoch"):
        return "bigint"
    return "text" if field.logical_type == "timestamp" else sql_type(field)


def _column(field: Field) -> str:
    """Expression of a field in the typed view; independent of the session's time zone."""
    source = field.event_key
    if _is_identifier(source):
        value = f"f.{identifier(source)}"
    else:
        arrow = "->" if _json_type(field) == "json" else "->>"
        value = f"(e.payload {arrow} {quote(source)})::{_json_type(field)}"
    if field.encoding == "epoch_days":
        return f"(date '1970-01-01' + {value}::integer)"
    if field.encoding in EPOCH_UNITS:
        if field.encoding == "epoch_ns":
            value = f"floor(({value} + 500) * 0.001)::bigint"  # half up, as the decoder rounds
        unit, of_second = EPOCH_UNITS[field.encoding]  # parts, since an interval is multiplied as a float of 53 bits
        return (
            f"(timestamptz '1970-01-01 00:00:00+00' + {value} / {of_second} * interval '1 second' "
            f"+ {value} % {of_second} * interval '1 {unit}')"
        )
    if field.logical_type == "timestamp":
        zone = f" || CASE WHEN {value} ~ {quote(HAS_ZONE)} THEN '' ELSE 'Z' END" if field.encoding == "iso_utc" else ""
        return f"({_rounded(value)}{zone})::timestamptz"
    return value


def _rounded(text: str) -> str:
    """A time's text that PostgreSQL reads to the microsecond as the decoder does: half up, by the seventh digit alone.

    By itself it rounds to even, and reads no text of more than 128 characters.
    """
    up, down = quote(r"(\.\d{6})[5-9]\d*"), quote(r"(\.\d{6})[0-4]\d*")
    cut = rf"regexp_replace(regexp_replace({text}, {up}, '\19'), {down}, '\1')"  # a 9 is always rounded up
    return f"CASE WHEN length({text}) > {LONGEST_MICROS} THEN {cut} ELSE {text} END"


def quote(text: str) -> str:
    """A standard SQL string literal (standard_conforming_strings is on)."""
    return "'" + text.replace("'", "''") + "'"


def describe_fields(contract: Contract) -> list[dict[str, Any]]:
    """The part of a contract against which a later version is judged."""
    described = []
    for field in contract.fields:
        roles: dict[str, Any] = {}
        if field.event_key != field.name:
            roles["source"] = field.event_key
        if field.encoding != "iso":
            roles["encoding"] = field.encoding
        if field.is_key:
            roles["key"] = True
        if field.name == contract.event_time_field:
            roles["event_time"] = True
        described.append({"name": field.name, "type": sql_type(field), "nullable": field.nullable, **roles})
    if not contract.is_plain_json:
        described.append({"name": FORM, "format": contract.payload_format, "envelope": contract.envelope})
    if contract.event_time_field == MESSAGE_TIME:
        described.append({"name": MESSAGE_TIME, "type": "timestamptz", "nullable": True, "event_time": True})
    return described


def breaking_changes(before: list[dict[str, Any]], contract: Contract, time_zone: str) -> list[str]:
    """What a new version of a contract would break for what has landed already; empty if nothing."""
    described = describe_fields(contract)
    now = {field["name"]: field for field in described if field["name"] not in NO_FIELDS}
    problems: list[str] = []
    for old in before:
        if old["name"] not in NO_FIELDS:
            problems.extend(_broken_field(old, now.pop(old["name"], None)))
    problems.extend(
        f"field {name} is new and required: landed events do not have it; make it optional"
        for name, field in now.items()
        if not field["nullable"]
    )
    if any("event_time" in field for field in before):  # lakes registered before roles were kept cannot be compared
        problems.extend(_broken_roles(before, described))
    if time_zone != contract.time_zone:
        problems.append(f"timeZone was {time_zone}, is {contract.time_zone}: landed events have other event days")
    return problems


def _broken_field(old: dict[str, Any], new: dict[str, Any] | None) -> Iterator[str]:
    name = old["name"]
    if new is None:
        yield f"field {name} is gone: the view and its readers lose it"
        return
    if new["type"] != old["type"]:
        yield f"field {name} was {old['type']}, is {new['type']}: landed events may not be read"
    if old["nullable"] and not new["nullable"]:
        yield f"field {name} was optional, is required: landed events without it break the promise"
    if new.get("source", name) != old.get("source", name):
        was, now = old.get("source", name), new.get("source", name)
        yield f"field {name} was read from the key {was!r}, is read from {now!r}: in landed events it would be empty"
    if new.get("encoding", "iso") != old.get("encoding", "iso"):
        was, now = old.get("encoding", "iso"), new.get("encoding", "iso")
        yield f"field {name} was written as {was}, is written as {now}: landed events could not be read"


def _broken_roles(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> Iterator[str]:
    for role, what, effect in (
        ("key", "the primary key", "readers tell repeats of an event by it"),
        ("event_time", "the event time", "landed events have other event days"),
    ):
        was, is_now = ([f["name"] for f in fields if f.get(role)] for fields in (before, now))
        if was != is_now:
            yield f"{what} was {', '.join(was) or 'none'}, is {', '.join(is_now) or 'none'}: {effect}"


def fields_document(contract: Contract) -> str:
    """`describe_fields` as JSON text for control.stream."""
    return json.dumps(describe_fields(contract))
