"""Proposes the contract of a topic from a sample of its events; the proposal lands that sample as it is. Pure.

A proposal says what a person has to decide, as comments: which times could be the event time and why one was chosen,
which field looks like a key, which texts look like an enumeration. Not here: looking at the sample (sample.py).
"""

from __future__ import annotations

import re
import unicodedata
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import yaml

from streaming.contract import (
    DEFAULT_MAXIMUM_AHEAD_S,
    DEFAULT_MAXIMUM_PAYLOAD_BYTES,
    DEFAULT_ZONE,
    EARLIEST_POSSIBLE,
    EVENT_KEY,
    MESSAGE_TIME,
    MONTH_NAME,
    MOST_FIELDS,
    RESERVED_FIELDS,
    RESERVED_PREFIX,
    Contract,
    read_contract,
)
from streaming.decode import Decoder, Refusal, as_instant
from streaming.errors import SourceError

if TYPE_CHECKING:
    from streaming.sample import Sample, Seen

INT64_MAX = 2**63 - 1
DIGITS = 38
BIGQUERY_SCALE, BIGQUERY_INTEGER_DIGITS = 9, 29
LONGEST_NAME = 59
LONGEST_STREAM = 50
ENUM_REPEATS = 5  # a text that is one of few is seen so often on average
TIME_WORDS = re.compile(
    r"(^|_)(t|ts|time|timestamp|datetime|date|epoch|at|on|when|created|updated|modified|occurred)(_|$)"
)
EVENT_WORDS = ("event_time", "event_at", "occurred_at", "event_timestamp", "timestamp", "ts", "time", "created_at")
KEY_WORDS = re.compile(r"(^|_)(id|uuid|guid|key|no|nr|number|code)$")
VERSION_WORDS = re.compile(r"version|(^|_)ip(_|$)")
NAMESPACE = uuid.UUID("6f1d0f2a-93a4-4c6e-9d5b-0f2f8b6e7a11")


@dataclass
class Proposed:
    """One property of the proposal."""

    name: str
    seen: Seen
    logical_type: str
    is_required: bool
    physical_type: str = ""
    options: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    first_at: datetime | None = None
    last_at: datetime | None = None

    def as_any_json(self, why: str) -> Proposed:
        """The property as any JSON value."""
        return Proposed(self.name, self.seen, "", self.is_required, "json", notes=[why])


def propose_contract(
    topic: str, sample: Sample, *, now: datetime, zone: str = DEFAULT_ZONE, zone_note: str = ""
) -> tuple[str, Contract]:
    """Text of a contract under which every event of the sample lands, and the contract.

    Zone is whose midnight ends its days; the note says, as a comment, why it is that one.

    Raises SourceError if no contract could land the sample.
    """
    names: set[str] = set()
    fields = [
        _property(seen, sample.events, _column_name(seen.key, number, names))
        for number, seen in enumerate(sample.keys.values(), start=1)
        if EVENT_KEY.fullmatch(seen.key)
    ]
    if not fields:
        raise SourceError(f"proposing a contract for {topic} from {sample.name}: no key of its events can be a field.")
    if len(fields) > MOST_FIELDS:
        raise SourceError(
            f"proposing a contract for {topic} from {sample.name}: its events have {len(fields)} keys, a table of "
            f"PostgreSQL takes {MOST_FIELDS}. Nothing was written. Take keys that are values, such as dates, out of "
            f"the sample; they stay in the payload."
        )
    for _ in range(len(fields) + 1):
        text = _render(topic, sample, fields, now, (zone, zone_note))
        contract = read_contract(text, path=f"the proposal for {topic}")
        refusal, line = _first_refusal(contract, sample, now)
        if refusal is None:
            return text, contract
        at = next((n for n, found in enumerate(fields) if found.name == refusal.field), None)
        if at is None or fields[at].physical_type == "json":
            break
        fields[at] = fields[at].as_any_json(f"not every value could be read as one type: {refusal.detail}")
    raise SourceError(
        f"proposing a contract for {topic} from {sample.name}: event {line} could not land: {refusal.reason}, "  # type: ignore[union-attr]
        f"{refusal.detail}. Nothing was written. Take the event out of the sample."  # type: ignore[union-attr]
    )


def _first_refusal(contract: Contract, sample: Sample, now: datetime) -> tuple[Refusal | None, int]:
    decoder = Decoder(contract)
    stamp_us = round(now.timestamp() * 1_000_000)
    for number, line in enumerate(sample.lines, start=1):
        judged = decoder.judge(line, now=now, stamp_us=stamp_us)
        if isinstance(judged, Refusal):
            return judged, number
    return None, 0


# -- types ------------------------------------------------------------------------------------------------------------


def _property(seen: Seen, events: int, name: str) -> Proposed:
    is_required = seen.present == events and not seen.nulls
    kinds = set(seen.kinds)
    found = Proposed(name, seen, "", is_required, "json")
    if seen.present < events:
        found.notes.append(f"absent from {events - seen.present:,} of {events:,} events")
    if seen.nulls:
        found.notes.append(f"null in {seen.nulls:,} of {events:,} events")
    if not kinds:
        found.notes.append("only null in the sample: any JSON value, until its type is known")
    elif len(kinds) == 1 and (kind := next(iter(kinds))) in ("boolean", "object", "array", "date"):
        found.logical_type, found.physical_type = kind, ""
    elif kinds <= {"integer"}:
        _as_integer(found)
    elif kinds <= {"timestamp", "local_timestamp"}:
        _as_timestamp(found)
    elif _is_number(seen, name):
        _as_number(found)
    elif kinds <= {"text", "date", "timestamp", "local_timestamp", "decimal_text", "integer_text"}:
        _as_string(found)
    else:
        found.notes.append(f"holds {', '.join(sorted(kinds))}: any JSON value")
    return found


def _as_integer(found: Proposed) -> None:
    seen, epoch = found.seen, found.seen.epoch()
    if max(abs(seen.lowest or 0), abs(seen.highest or 0)) > INT64_MAX:
        _as_number(found)
    elif epoch and TIME_WORDS.search(found.name):
        found.logical_type, found.physical_type = "timestamp", "timestamptz"
        found.options["format"] = epoch
        found.first_at, found.last_at = (as_instant(count, epoch) for count in (seen.lowest or 0, seen.highest or 0))
        found.notes.append(f"whole numbers that are times as {epoch}; say so if they are not")
    else:
        found.logical_type, found.physical_type = "integer", "bigint"


def _as_timestamp(found: Proposed) -> None:
    found.logical_type, found.physical_type = "timestamp", "timestamptz"
    found.first_at, found.last_at = found.seen.first_at, found.seen.last_at
    if found.seen.kinds["local_timestamp"]:
        found.options["timezone"] = "false"
        found.notes.append(
            "times without a zone are read as UTC; if they are local times, have the producer add the zone"
        )


def _is_number(seen: Seen, name: str) -> bool:
    kinds = set(seen.kinds)
    if not kinds <= {"integer", "decimal", "decimal_text", "integer_text"}:
        return False
    if kinds & {"integer", "decimal"}:
        return True
    return "decimal_text" in kinds and not VERSION_WORDS.search(name)


def _as_number(found: Proposed) -> None:
    seen = found.seen
    scale = seen.scale
    if scale <= BIGQUERY_SCALE and seen.integer_digits <= BIGQUERY_INTEGER_DIGITS:
        scale = BIGQUERY_SCALE
    if seen.integer_digits + scale > DIGITS:
        found.notes.append(
            f"{seen.integer_digits + scale} digits are more than {DIGITS}: any JSON value, to round none"
        )
        return
    found.logical_type, found.physical_type = "number", f"NUMERIC({DIGITS},{scale})"
    found.notes.append(
        f"the sample has up to {seen.integer_digits} digits before and {seen.scale} after the point; a number with "
        f"more than {scale} decimals is refused, never rounded"
    )


def _as_string(found: Proposed) -> None:
    found.logical_type, found.physical_type = "string", "text"
    texts = found.seen.texts
    if texts and len(texts) > 1 and sum(texts.values()) >= ENUM_REPEATS * len(texts):
        listed = ", ".join(f"{{value: {_scalar(text)}}}" for text in sorted(texts))
        found.notes.append(f"has {len(texts)} values; if that is all of them: enum: [{listed}]")


# -- names ------------------------------------------------------------------------------------------------------------


def _column_name(key: str, number: int, taken: set[str]) -> str:
    """A column's name for a key, and it is taken from then on."""
    text = unicodedata.normalize("NFKD", key)
    text = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", "".join(c for c in text if not unicodedata.combining(c)))
    text = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", text).lower()
    is_lost = any(c.isalnum() and not c.isascii() for c in text)  # a script of which nothing would be left
    text = re.sub(r"[^a-z0-9_]+", "_", text)
    text = text if text.startswith("_") and key.startswith("_") else text.strip("_")
    if text.startswith(RESERVED_PREFIX):
        text = f"_{text.lstrip('_')}"
    if is_lost or not text:
        text = f"field_{number}"
    if text[0].isdigit():
        text = f"f_{text}"
    if text in RESERVED_FIELDS:
        text = f"event_{text}"
    text = name = text[:LONGEST_NAME]
    suffix = 1
    while name in taken:
        suffix += 1
        name = f"{text[: LONGEST_NAME - 4]}_{suffix}"
    taken.add(name)
    return name


def stream_name(topic: str) -> str:
    """The landing table's name for a topic."""
    name = re.sub(r"[^a-z0-9]+", "_", topic.lower()).strip("_") or "stream"
    name = (f"s_{name}" if name[0].isdigit() else name)[:LONGEST_STREAM]
    if MONTH_NAME.fullmatch(name):  # as a month of another stream's table may be called
        name = f"{name[: LONGEST_STREAM - len('_events')]}_events"
    return name


# -- choices ----------------------------------------------------------------------------------------------------------


def _event_time(fields: list[Proposed], now: datetime) -> tuple[Proposed | None, list[str]]:
    """The field that is proposed as the event time, and what can be said of each that could be."""
    latest = now + timedelta(seconds=DEFAULT_MAXIMUM_AHEAD_S)
    good, notes = list[Proposed](), list[str]()
    for found in fields:
        if found.logical_type != "timestamp" or found.first_at is None or found.last_at is None:
            continue
        span = f"{found.first_at:%Y-%m-%dT%H:%M:%SZ} to {found.last_at:%Y-%m-%dT%H:%M:%SZ}"
        if not found.is_required:
            notes.append(f"{found.name}: not in every event, so no event time")
        elif found.last_at > latest:
            notes.append(f"{found.name}: {span}; lies ahead of the clock, as a due date does")
        elif found.first_at < EARLIEST_POSSIBLE:
            notes.append(f"{found.name}: {span}; lies before {EARLIEST_POSSIBLE:%Y}")
        else:
            good.append(found)
            notes.append(f"{found.name}: in every event, {span}")
    good.sort(key=lambda found: EVENT_WORDS.index(found.name) if found.name in EVENT_WORDS else len(EVENT_WORDS))
    if good:
        notes.append(f"chosen: {good[0].name}" + (", for its name and place; decide" if len(good) > 1 else ""))
        return good[0], notes
    notes.append(f"no field is a time that every event has: the message's own timestamp ({MESSAGE_TIME}) is taken")
    return None, notes


def _key(fields: list[Proposed], events: int) -> tuple[Proposed | None, str]:
    unique = [
        found
        for found in fields
        if found.is_required and found.logical_type in ("string", "integer")
        and found.seen.distinct is not None and len(found.seen.distinct) == events
    ]  # fmt: skip
    if events < 2 or not unique:  # noqa: PLR2004 of one event everything is unique
        return None, "no single field tells the events of the sample apart; name the key's fields with primaryKey: true"
    unique.sort(key=lambda found: 0 if KEY_WORDS.search(found.name) else 1)
    if not KEY_WORDS.search(unique[0].name):
        listed = ", ".join(found.name for found in unique)
        return None, f"unique in the sample, but not named like a key: {listed}; name the key's with primaryKey: true"
    others = ", ".join(found.name for found in unique[1:])
    return unique[0], f"{unique[0].name} is unique in the sample" + (f"; so are {others}" if others else "")


# -- text -------------------------------------------------------------------------------------------------------------


def _render(topic: str, sample: Sample, fields: list[Proposed], now: datetime, zone: tuple[str, str]) -> str:
    event_time, time_notes = _event_time(fields, now)
    key, key_note = _key(fields, sample.events)
    for left_out in sorted(sample.keys.keys() - {found.seen.key for found in fields}):
        key_note += (
            f"\n    # the key {_one_line(repr(left_out))} is left out (quotes, backslashes): it stays in the payload"
        )
    head = f"""\
# Proposed from {sample.events:,} events on {now:%Y-%m-%d}, which it lands as it is. Read the comments and delete them.
apiVersion: v3.1.0
kind: DataContract
id: {uuid.uuid5(NAMESPACE, topic)}
name: {_scalar(topic)}
version: 0.1.0
status: draft
description:
  purpose: ""  # what one event tells, and to whom
  limitations: ""
schema:
  - name: {_word(stream_name(topic))}
    physicalName: {_scalar(topic)}
    physicalType: topic
    logicalType: object
    # {key_note}
    properties:
"""
    body = "".join(_render_field(found, is_key=found is key, event_time=event_time) for found in fields)
    return head + body + _render_custom(sample, event_time, time_notes, key, zone)


def _render_field(found: Proposed, *, is_key: bool, event_time: Proposed | None) -> str:
    lines = [f"      - name: {_word(found.name)}"]
    lines += [f"        # {_one_line(note)}" for note in found.notes]
    if found.seen.key != found.name:
        lines.append(f"        physicalName: {_scalar(found.seen.key)}")
    if found.logical_type:
        lines.append(f"        logicalType: {found.logical_type}")
    if found.physical_type:
        lines.append(f"        physicalType: {found.physical_type}")
    lines.append(f"        required: {'true' if found.is_required else 'false'}")
    if is_key:
        lines += ["        primaryKey: true", "        primaryKeyPosition: 1"]
    options = dict(found.options)
    if found is event_time and found.first_at is not None and found.first_at < datetime(1970, 1, 1, tzinfo=UTC):
        options["minimum"] = f'"{EARLIEST_POSSIBLE:%Y-%m-%dT%H:%M:%SZ}"'
    if options:
        lines.append(f"        logicalTypeOptions: {{{', '.join(f'{n}: {v}' for n, v in options.items())}}}")
    lines.append('        description: ""')
    return "\n".join(lines) + "\n"


def _render_custom(
    sample: Sample, event_time: Proposed | None, notes: list[str], key: Proposed | None, zone: tuple[str, str]
) -> str:
    lines = ["customProperties:"]
    if _has_envelopes(sample):
        lines += [
            "  # by their keys these are Debezium's envelopes. To land the row of each change instead, take the two",
            "  # signs away below, and let properties, primaryKey and eventTimeField name the row's own fields, and",
            "  # __op, __deleted, __source_ts_ms and the like: docs/rooms/streaming.md; before `streaming migrate`",
            "  # - property: envelope",
            "  #   value: debezium",
        ]
    lines += [f"  # {_one_line(note)}" for note in notes]
    lines += ["  - property: eventTimeField", f"    value: {_word(event_time.name if event_time else MESSAGE_TIME)}"]
    name, why = zone
    lines += ["  # whose midnight ends the event day; it cannot be changed once `streaming migrate` has made the table"]
    lines += [f"  # {_one_line(why)}"] if why else []
    lines += ["  - property: timeZone", f"    value: {_word(name)}"]
    if key is not None:
        lines.append(
            "  # the field by which producers choose the topic partition: events with the same value stay in order"
        )
        lines += [f"  # - property: messageKey\n  #   value: {_word(key.name)}"]
    limit = DEFAULT_MAXIMUM_PAYLOAD_BYTES
    if sample.longest_bytes > limit:
        lines.append(
            f"  # the longest event of the sample has {sample.longest_bytes:,} bytes; the topic has to allow it too "
            f"(max.message.bytes): `streaming topic create` says so"
        )
        limit = 2 * sample.longest_bytes
    lines += ["  - property: maximumPayloadBytes", f"    value: {limit}"]
    return "\n".join(lines) + "\n"


def _has_envelopes(sample: Sample) -> bool:
    """Whether every event has the keys of Debezium's envelope, or of what Connect writes around it with schemas."""
    keys = {key for key, seen in sample.keys.items() if seen.present == sample.events}
    if keys == sample.keys.keys() == {"schema", "payload"}:
        return all(b'"op"' in line and b'"after"' in line for line in sample.lines)
    return "op" in keys and bool(keys & {"before", "after"}) and "source" in keys


def _scalar(text: str) -> str:
    """A YAML scalar in quotes, on one line."""
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=2**31).strip()


def _word(name: str) -> str:
    """A name, in quotes where YAML would take it for something else, such as `no` or `on`."""
    return name if yaml.safe_load(name) == name else _scalar(name)


def _one_line(text: str) -> str:
    """Text that cannot break out of a comment."""
    return "".join(c if c.isprintable() else " " for c in text)
