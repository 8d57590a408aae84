"""Bytes -> event or refusal, by a contract. Pure: no client, no driver, no clock.

Two ways that agree: `Decoder.check_all` takes a whole batch at once and raises `DoubtError` at the first doubt;
`Decoder.judge` takes one value and says why it is refused. The landing calls the first and, on doubt, the second.
Not here: Kafka messages and COPY (batch.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa

from streaming.contract import MESSAGE_TIME
from streaming.event_type import EPOCHS, event_struct, struct_fields, to_micros
from streaming.iso_times import iso_times_us
from streaming.long_fractions import LONG_FRACTION, MOST_DIGITS, has_long_fraction, may_have_long_fraction
from streaming.nesting import MOST_LEVELS, is_one_too_deep, is_too_deep
from streaming.slow_check import SlowCheckError, limited_check
from streaming.turns import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from streaming.contract import Contract, Field
    from streaming.formats.open_reader import PayloadReader

DAY_US = 86_400_000_000
EPOCH_2000_DAYS = 10_957  # days from 1970-01-01 to 2000-01-01, Postgres' own epoch
MEMO_ENTRIES = 200_000  # numbers repeat: a price list has thousands of prices; about 20 MB at worst
NUMBER_TEXT = re.compile(rb"-?\d{1,60}(?:\.\d{1,60})?(?:[eE][+-]?\d{1,3})?")
NUL_ESCAPE = b"\\u0000"
DETAIL_CHARS = 500
LONGEST_JSON_BYTES = 200_000_000  # of JSON made from another format, whose own size the contract limits
LAST_YEAR = 2200  # zones have no rules known beyond; later instants take the zone's last known offset
SLOW_BATCH_S = 5.0  # of the processor, where a contract has patterns; 20,000 events take 0.1
SLOW_EVENT_S = 1.0
SLOW_EVENTS = 10  # of a batch get that much; the others only
LESS_SLOW_EVENT_S = 0.05  # so that a batch of nothing else ends, and is counted as too many dead letters

ODDEST_ZONE = timedelta(hours=16)
EDGE_YEARS = frozenset({1, 9999})
LAST_INSTANT_US = 253_402_300_799_999_999  # of the year 9999
OPENINGS = {"object": b"{", "array": b"["}
MISSING_AT = re.compile(r"missing required field `(.*)`", re.DOTALL)
ERROR_PATH = re.compile(r"at `\$\.(.*)`", re.DOTALL)


class DoubtError(Exception):
    """Something in the batch may be wrong: judge its events one by one."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an event is refused. Reason is one of REASONS."""

    reason: str
    detail: str
    field: str | None = None


REASONS = {
    "empty": "the message has no value (a tombstone), and the contract has no deletions",
    "too_large": "the value has more bytes than the contract's maximumPayloadBytes",
    "not_utf8": "the value is not UTF-8 text",
    "not_json": f"the value is not JSON, or nests objects and arrays more than {MOST_LEVELS} levels deep",
    "nul_character": "a text holds the character U+0000, which PostgreSQL cannot store",
    "missing_field": "a required field is absent",
    "wrong_type": "a field has another type than the contract says",
    "out_of_range": "a field breaks a limit of the contract (size, length, pattern)",
    "not_allowed": "a field has a value that the contract's enumeration does not list",
    "too_precise": "a number has more digits than the contract keeps, or a time more than nine of a second",
    "event_time_too_early": "the event time is before the contract's minimum",
    "event_time_too_late": "the event time is further ahead of the clock than the contract allows",
    "headers_undecodable": "the headers are to be kept, and one of them is not text",
    "not_framed": "the value does not begin as a schema registry's serializer writes it",
    "unknown_schema": "the schema registry does not know the schema that the value names",
    "undecodable": "the value cannot be read by the schema that it names",
    "not_an_envelope": "the value is no Debezium envelope with the row",
    "not_judged": "the check failed on the value (a defect of this room), or a pattern of the contract takes too long",
    "refused_by_postgres": "PostgreSQL refused the value although the checks let it pass",
}


class NumberReader(dict[bytes, "Decimal | None"]):
    """JSON text of a number (bare or in quotes) -> exact Decimal, remembered by its text.

    Faster than letting msgspec build the Decimals (0.1 against 0.28 us where prices repeat), and stricter: Decimal()
    itself accepts '1_0', ' 1 ', 'NaN' and digits of any script.
    """

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field = field
        self.quantum = Decimal(1).scaleb(-field.scale)
        self.context = Context(prec=field.precision, traps=[Inexact, InvalidOperation])
        self._good_texts = set[str | None]()

    def __missing__(self, text: bytes) -> Decimal | None:
        value, refusal = self.judge(text)
        if refusal is not None:
            raise DoubtError
        if len(self) >= MEMO_ENTRIES:
            self.clear()
        self[text] = value
        return value

    def accept_texts(self, texts: Sequence[str | None]) -> None:
        """See that each is the content of a good JSON text, without an escape in it; raises DoubtError.

        Half the time of looking each up by its bytes (0.03 against 0.12 us), and msgspec reads a text quicker than it
        keeps raw bytes.
        """
        if self._good_texts.issuperset(texts):
            return
        unknown = set(texts) - self._good_texts
        for text in unknown:
            if self.judge(b"null" if text is None else b'"%b"' % text.encode("utf-8"))[1] is not None:
                raise DoubtError
        if len(self._good_texts) + len(unknown) > MEMO_ENTRIES:
            self._good_texts.clear()
        self._good_texts |= unknown

    def judge(self, text: bytes) -> tuple[Decimal | None, Refusal | None]:
        """The number, or why it is none."""
        field = self.field
        if text == b"null":
            refusal = None if field.nullable else Refusal("wrong_type", "Expected `number`, got `null`", field.name)
            return None, refusal
        inner = text[1:-1] if text[:1] == b'"' else text
        if not NUMBER_TEXT.fullmatch(inner):
            return None, Refusal("wrong_type", f"Expected `number`, got {_shown(text)}", field.name)
        return self._exact(Decimal(inner.decode("ascii")))

    def _exact(self, number: Decimal) -> tuple[Decimal | None, Refusal | None]:
        field = self.field
        try:
            exact = number.quantize(self.quantum, context=self.context)
        except (Inexact, InvalidOperation):
            detail = f"{number} does not fit NUMERIC({field.precision},{field.scale}) without rounding"
            return None, Refusal("too_precise", detail, field.name)
        limits = (
            (field.minimum, "<", field.minimum is not None and exact < field.minimum),
            (field.maximum, ">", field.maximum is not None and exact > field.maximum),
            (field.exclusive_minimum, "<=", field.exclusive_minimum is not None and exact <= field.exclusive_minimum),
            (field.exclusive_maximum, ">=", field.exclusive_maximum is not None and exact >= field.exclusive_maximum),
        )
        for limit, sign, is_broken in limits:
            if is_broken:
                return None, Refusal("out_of_range", f"{exact} {sign} {limit}", field.name)
        return exact, None


class DayClock:
    """Event day of an instant in a time zone, for whole arrays. Exact by the zone's offsets, also where days repeat."""

    def __init__(self, time_zone: str) -> None:
        self.zone = ZoneInfo(time_zone)
        starts, offsets = _zone_offsets(time_zone)
        self.starts_us = np.array(starts, dtype=np.int64)
        self.offsets_us = np.array(offsets, dtype=np.int64)

    def days(self, instants_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """Microseconds since 1970 UTC -> days since 1970 in the zone."""
        if not len(instants_us):
            return instants_us
        ends = np.array([instants_us.min(), instants_us.max()])
        first, last = np.maximum(np.searchsorted(self.starts_us, ends, side="right") - 1, 0).tolist()
        if first == last:  # one offset holds for all, as in nearly every batch
            at: Any = first
        else:
            at = np.maximum(np.searchsorted(self.starts_us, instants_us, side="right") - 1, 0)
        days: NDArray[np.int64] = (instants_us + self.offsets_us[at]) // DAY_US
        return days


@cache
def _zone_offsets(time_zone: str) -> tuple[list[int], list[int]]:
    """Instants (microseconds since 1970) from which an offset of the zone holds, and the offsets.

    Found once a process: it takes 0.1 s, and each load of a day makes a decoder.
    """
    zone = ZoneInfo(time_zone)
    epoch = datetime(1970, 1, 1, tzinfo=ZoneInfo("UTC"))

    def offset_us(second: int) -> int:
        offset = (epoch + timedelta(seconds=second)).astimezone(zone).utcoffset() or timedelta(0)
        return round(offset.total_seconds() * 1_000_000)

    first = round((datetime(1900, 1, 1, tzinfo=ZoneInfo("UTC")) - epoch).total_seconds())
    last = round((datetime(LAST_YEAR, 1, 1, tzinfo=ZoneInfo("UTC")) - epoch).total_seconds())
    starts, offsets = [first * 1_000_000], [offset_us(first)]
    step = 86_400 * 4  # two changes within four days do not occur, but for Ramadan's suspension, which lasts weeks
    for begin in range(first, last, step):
        low, high = begin, min(begin + step, last)
        if offset_us(high) == offsets[-1]:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset_us(middle) == offsets[-1] else (low, middle)
        starts.append(high * 1_000_000)
        offsets.append(offset_us(high))
    return starts, offsets


def _shown(text: bytes) -> str:
    return text[:80].decode("utf-8", "replace")


class Decoder:
    """A contract compiled: decodes and checks values of its topic."""

    def __init__(self, contract: Contract, *, reader: PayloadReader | None = None) -> None:
        self.contract = contract
        self.reader = reader  # of a format other than plain JSON: gives the JSON that is checked here
        self.translates = reader is not None or contract.tombstones == "skip"
        self.maximum_bytes = contract.maximum_payload_bytes if reader is None else LONGEST_JSON_BYTES
        required, optional = struct_fields(contract.fields)
        self.names = {f.event_key: f.name for f in contract.fields}
        self.struct = event_struct("Event", required, optional, contract.fields)
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(self.struct).decode
        self.patterns = [f.name for f in contract.fields if f.pattern is not None]
        self._slow_events = 0  # of the batch at work
        self._time_text: Callable[[Any], str] = attrgetter(contract.event_time_field)
        self.numbers = {f.name: NumberReader(f) for f in contract.fields if f.logical_type == "number"}
        self._decode_quick: Callable[[bytes], Any] | None = None
        self._decode_texts: Callable[[bytes], Any] | None = None  # only while numbers come as JSON texts
        if contract.event_time_field != MESSAGE_TIME and contract.field(contract.event_time_field).encoding == "iso":
            quick = [(name, str if name == contract.event_time_field else kind) for name, kind in required]
            struct = event_struct("Checked", quick, optional, contract.fields)
            self._decode_quick = msgspec.json.Decoder(struct).decode
            if self.numbers:
                texts = [(name, str if name in self.numbers else kind) for name, kind in quick]
                texts_or_null = [(n, str | None, None) if n in self.numbers else (n, k, d) for n, k, d in optional]
                struct = event_struct("Texts", texts, texts_or_null, contract.fields)
                self._decode_texts = msgspec.json.Decoder(struct).decode
        self.containers = [f for f in contract.fields if f.logical_type in ("object", "array", "json")]
        self.instants = [f for f in contract.fields if f.logical_type == "timestamp" and f.encoding not in EPOCHS]
        struct = event_struct("Times", [], [(f.name, str | None, None) for f in self.instants], self.instants)
        self._decode_time_texts: Callable[[bytes], Any] = msgspec.json.Decoder(struct).decode
        self._has_more_instants = any(f.name != contract.event_time_field for f in self.instants)
        self.uses_message_time = contract.event_time_field == MESSAGE_TIME
        self.event_time = None if self.uses_message_time else _time_reader(contract.field(contract.event_time_field))
        self.day_clock = DayClock(contract.time_zone)
        self.earliest_us = _epoch_us(contract.earliest_event_at)
        self.latest_field = None if self.uses_message_time else contract.field(contract.event_time_field).maximum

    def decode_all(
        self, values: Sequence[bytes | None], *, now: datetime, stamps_us: Sequence[int | None] = ()
    ) -> tuple[list[Any], NDArray[np.int64]]:
        """Events and their times (microseconds since 1970 UTC) of a batch in which everything keeps the contract.

        Raises DoubtError at the first doubt, without saying which event; `judge` says. `stamps_us` are the messages'
        own timestamps; they are looked at only where the contract takes them as the event time.
        """
        joined = self._join_values(values)
        if self.instants and may_have_long_fraction(joined):
            raise DoubtError
        events = self._decode_values(values, self.decode)
        times_us = self.event_times(events, stamps_us)
        self._check_values(events, times_us, now)
        if not self.uses_message_time and has_odd_zone(map(attrgetter(self.contract.event_time_field), events)):
            raise DoubtError
        return events, times_us

    def check_all(
        self, values: Sequence[bytes | None], *, now: datetime, stamps_us: Sequence[int | None] = ()
    ) -> NDArray[np.int64]:
        """The times of `decode_all`, and its checks, without the events: the landing's way, and the quicker one."""
        self._slow_events = 0
        if not self.patterns:
            return self._check_all(values, now=now, stamps_us=stamps_us)
        try:
            with limited_check(SLOW_BATCH_S):
                return self._check_all(values, now=now, stamps_us=stamps_us)
        except SlowCheckError as error:
            raise DoubtError from error

    def _check_all(
        self, values: Sequence[bytes | None], *, now: datetime, stamps_us: Sequence[int | None]
    ) -> NDArray[np.int64]:
        if self._decode_quick is not None:
            joined = self._join_values(values)
            if self._has_more_instants and may_have_long_fraction(joined):  # of the event time six digits are read here
                raise DoubtError
            # an escape is no number, even if it stands for a digit: with one, texts are looked at as they came
            decode_texts = None if b"\\" in joined else self._decode_texts
            events, has_texts = self._decode_quickly(values, decode_texts, self._decode_quick)
            times_us = iso_times_us([*map(self._time_text, events)])
            if times_us is not None:
                self._check_values(events, times_us, now, has_texts=has_texts)
                if decode_texts is not None and not has_texts:
                    self._decode_texts = None  # good numbers without quotes: from here on nothing is decoded twice
                return times_us
        return self.decode_all(values, now=now, stamps_us=stamps_us)[1]

    def _decode_quickly(
        self, values: Sequence[bytes | None], texts: Callable[[bytes], Any] | None, quick: Callable[[bytes], Any]
    ) -> tuple[list[Any], bool]:
        """Events for their check alone, and whether their numbers were read as texts."""
        if texts is not None:
            try:
                return self._decode_values(values, texts), True
            except DoubtError:
                pass  # the other way says whether it was the numbers
        return self._decode_values(values, quick), False

    def _join_values(self, values: Sequence[bytes | None]) -> bytes:
        """All values; a doubt if one is too large, too deep, missing, no UTF-8, or may hold U+0000."""
        try:
            longest = max(map(len, values), default=0)  # type: ignore[arg-type]
            if longest > self.maximum_bytes:
                raise DoubtError
            joined = b"".join(values)  # type: ignore[arg-type]
        except TypeError as error:
            raise DoubtError from error
        if is_one_too_deep(values, joined, longest):  # type: ignore[arg-type]
            raise DoubtError
        if not is_utf8(joined):  # msgspec does not look at names and texts that the contract does not know
            raise DoubtError
        if b"\\" in joined and NUL_ESCAPE in joined:  # a search a value costs ten times as much (0.3 us)
            raise DoubtError
        return joined

    def _decode_values(self, values: Sequence[bytes | None], decode: Callable[[bytes], Any]) -> list[Any]:
        try:
            return listed(map(decode, values))  # type: ignore[arg-type]
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError, RecursionError) as error:
            raise DoubtError from error

    def _check_values(
        self, events: Sequence[Any], times_us: NDArray[np.int64], now: datetime, *, has_texts: bool = False
    ) -> None:
        for name, reader in self.numbers.items():
            if has_texts:
                reader.accept_texts([*map(attrgetter(name), events)])
            else:
                self.number_column(events, name)
        if self.containers and any(self._judge_containers(event) for event in events):
            raise DoubtError
        for field in self.instants:  # of the event time it is seen where it is read
            if field.name != self.contract.event_time_field and _has_odd_instant(attrgetter(field.name), events):
                raise DoubtError
        if events and (times_us.min() < self.earliest_us or times_us.max() > self._latest_us(now)):
            raise DoubtError

    def number_column(self, events: Sequence[Any], name: str) -> list[Decimal | None]:
        """One number field of many events, exact."""
        return [*map(self.numbers[name].__getitem__, map(bytes, map(attrgetter(name), events)))]

    def event_times(self, events: Sequence[Any], stamps_us: Sequence[int | None] = ()) -> NDArray[np.int64]:
        """Event times in microseconds since 1970 UTC."""
        if self.event_time is None:
            if None in stamps_us:
                raise DoubtError
            return np.array(stamps_us, dtype=np.int64)
        field = self.contract.field(self.contract.event_time_field)
        if field.encoding in EPOCHS:
            counts = np.array([*map(attrgetter(field.name), events)], dtype=np.int64)
            in_micros: NDArray[np.int64] = to_micros(counts, field.encoding)
            return in_micros
        column = pa.array([*map(self.event_time, events)], pa.timestamp("us", tz="UTC"))
        times: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
        return times

    def judge(self, value: bytes | None, *, now: datetime, stamp_us: int | None = None) -> Any:
        """The event (a struct), or a Refusal with the first reason found."""
        if value is None:
            return Refusal("empty", "the message has no value")
        judged = _judge_bytes(value, self.maximum_bytes) or self.judge_fields(value)
        if isinstance(judged, Refusal):
            return judged
        return self._judge_fractions(value) or self._judge_time(judged, now, stamp_us) or judged

    def judge_fields(self, value: bytes) -> Any:
        """The event or a Refusal, whenever it happened."""
        try:
            event = self._decode_limited(value) if self.patterns else self.decode(value)
        except SlowCheckError:
            return Refusal(
                "not_judged",
                f"its check took too long: a pattern of the contract ({', '.join(self.patterns)}) tries too many ways "
                f"on it, as a repeat within a repeat does. Mend the pattern, then replay"[:DETAIL_CHARS],
            )
        except msgspec.ValidationError as error:
            return self._refused_by_type(value, error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Refusal("not_json", _short(error))
        return self._judge_numbers(event) or self._judge_containers(event) or self._judge_zones(event) or event

    def _decode_limited(self, value: bytes) -> Any:
        try:
            with limited_check(SLOW_EVENT_S if self._slow_events < SLOW_EVENTS else LESS_SLOW_EVENT_S):
                return self.decode(value)
        except SlowCheckError:
            self._slow_events += 1
            raise

    def _judge_numbers(self, event: Any) -> Refusal | None:
        judged = (reader.judge(bytes(getattr(event, name)))[1] for name, reader in self.numbers.items())
        return next(filter(None, judged), None)

    def _judge_containers(self, event: Any) -> Refusal | None:
        """Objects and arrays are kept as they came; here is seen that they are what they should be."""
        for field in self.containers:
            raw = bytes(getattr(event, field.name))
            is_null = raw == b"null"
            if (is_null and not field.nullable) or (
                not is_null and field.logical_type in OPENINGS and raw[:1] != OPENINGS[field.logical_type]
            ):
                wanted = "any JSON value but null" if field.logical_type == "json" else field.logical_type
                return Refusal("wrong_type", f"Expected `{wanted}`, got {_shown(raw)}", field.name)
        return None

    def _judge_zones(self, event: Any) -> Refusal | None:
        for field in self.instants:
            instant = getattr(event, field.name)
            if has_odd_zone([instant]):
                return Refusal(
                    "wrong_type", f"{instant.isoformat()} is 16 hours or more off UTC; no zone is", field.name
                )
            if field.name != self.contract.event_time_field and _leaves_calendar(instant):
                detail = f"{instant.isoformat()} is outside the years 1 to 9999 in UTC"
                return Refusal("out_of_range", detail, field.name)
        return None

    def _judge_fractions(self, value: bytes) -> Refusal | None:
        if not self.instants or not has_long_fraction(value):
            return None
        texts = self._decode_time_texts(value)
        for field in self.instants:
            found = LONG_FRACTION.search(getattr(texts, field.name) or "")
            if found:
                detail = f"{found.string[:40]!r} has {len(found[1])} digits of a second, at most {MOST_DIGITS} are read"
                return Refusal("too_precise", detail, field.name)
        return None

    def _judge_time(self, event: Any, now: datetime, stamp_us: int | None) -> Refusal | None:
        name = self.contract.event_time_field
        if self.event_time is None:
            if stamp_us is None:
                return Refusal("missing_field", "the message has no timestamp, which the contract takes as event time")
            instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=stamp_us)
        else:
            instant = self.event_time(event)
        instant_us = _epoch_us(instant)
        if instant_us < self.earliest_us:
            detail = f"{instant.isoformat()} is before {self.contract.earliest_event_at.isoformat()}"
            return Refusal("event_time_too_early", detail, name)
        if instant_us > self._latest_us(now):
            ahead = self.contract.maximum_ahead_s
            return Refusal("event_time_too_late", f"{instant.isoformat()} is over {ahead} s ahead of the clock", name)
        return None

    def _latest_us(self, now: datetime) -> int:
        latest = _epoch_us(now) + self.contract.maximum_ahead_s * 1_000_000
        return min(latest, LAST_INSTANT_US, *([] if self.latest_field is None else [_epoch_us(self.latest_field)]))

    def _refused_by_type(self, value: bytes, error: msgspec.ValidationError) -> Refusal:
        text = str(error)
        missing = MISSING_AT.search(text)
        if missing:
            return Refusal("missing_field", _short(error), self.names.get(missing[1], missing[1]))
        path = ERROR_PATH.search(text)
        source = path[1] if path else None
        field = None if source is None else self.names.get(source, source)
        if "Invalid enum value" in text:
            return Refusal("not_allowed", _short(error), field)
        got_other_type = ", got `" in text or "timezone" in text or "Invalid" in text or field is None
        reason = "wrong_type" if got_other_type else "out_of_range"
        return Refusal(reason, _short(error) + _value_of(value, source), field)


def _time_reader(field: Field) -> Callable[[Any], datetime]:
    """The event time of an event, as an instant."""
    read = attrgetter(field.name)
    if field.encoding == "iso":
        return read
    return lambda event: as_instant(read(event), field.encoding)


def has_odd_zone(instants: Iterable[datetime | None]) -> bool:
    """Whether one is 16 hours or more off UTC: Postgres reads none, and one would spoil all reads of a view."""
    return any(abs(offset) >= ODDEST_ZONE for offset in _zone_offsets_of(instants))


def _zone_offsets_of(instants: Iterable[datetime | None]) -> set[timedelta]:
    zones = {getattr(instant, "tzinfo", None) for instant in instants}
    return {zone.utcoffset(None) or timedelta(0) for zone in zones if zone is not None}


def _has_odd_instant(read: Callable[[Any], datetime | None], events: Sequence[Any]) -> bool:
    """Whether one is in an odd zone, or in a year that Python cannot read back from the view."""
    offsets = _zone_offsets_of(map(read, events))
    if offsets <= {timedelta(0)}:
        return False
    if any(abs(offset) >= ODDEST_ZONE for offset in offsets):
        return True
    if EDGE_YEARS.isdisjoint(map(attrgetter("year"), filter(None, map(read, events)))):  # half the time of asking each
        return False
    return any(map(_leaves_calendar, map(read, events)))


def _leaves_calendar(instant: datetime | None) -> bool:
    """Whether it lies outside the years 1 to 9999 in UTC."""
    if instant is None or instant.year not in EDGE_YEARS or instant.tzinfo is None:
        return False
    try:
        instant.astimezone(UTC)
    except OverflowError:
        return True
    return False


def as_instant(value: Any, encoding: str) -> datetime:
    """A time as an event has it -> an instant in UTC."""
    if encoding in EPOCHS:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=to_micros(value, encoding))
    instant: datetime = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return instant


def _value_of(value: bytes, source: str | None) -> str:
    """What stands in the field, for the reader of a dead letter."""
    if source is None:
        return ""
    try:
        found = str(msgspec.json.decode(value)[source])
    except (msgspec.DecodeError, LookupError, TypeError, ValueError, RecursionError):
        return ""  # only the value's depth or size can be the reason: the refusal stands without it
    return f"; found {found[:80]!r}"


def is_utf8(text: bytes) -> bool:
    """Whether bytes are UTF-8; Arrow's check takes 0.02 us an event, `bytes.decode` 0.2 where not all is ASCII."""
    ends = pa.py_buffer(np.array([0, len(text)], dtype=np.int64))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(text)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _judge_bytes(value: bytes, limit: int) -> Refusal | None:
    if len(value) > limit:
        return Refusal("too_large", f"{len(value)} bytes, the contract allows {limit}")
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as error:
        return Refusal("not_utf8", _short(error))
    if is_too_deep(value):
        return Refusal("not_json", f"it nests more than {MOST_LEVELS} levels deep")
    if NUL_ESCAPE not in value:
        return None
    try:
        document = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        return Refusal("not_json", _short(error))
    where = _find_nul(document, "")
    return Refusal("nul_character", f"U+0000 in {where or 'the value'}", where or None) if where is not None else None


def _find_nul(document: Any, where: str) -> str | None:
    """Name of the first field that holds U+0000 ('' at the top), None if there is none."""
    if isinstance(document, str):
        return where if "\0" in document else None
    if isinstance(document, dict):
        for key, inner in document.items():
            found = where if "\0" in key else _find_nul(inner, where or key)
            if found is not None:
                return found
    if isinstance(document, list):
        for inner in document:
            found = _find_nul(inner, where)
            if found is not None:
                return found
    return None


def _short(error: Exception) -> str:
    return str(error)[:DETAIL_CHARS]


def _epoch_us(instant: datetime) -> int:
    delta = instant - datetime(1970, 1, 1, tzinfo=ZoneInfo("UTC"))
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


ARROW_TYPES = {
    "string": pa.string(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "object": pa.string(),
    "array": pa.string(),
    "json": pa.string(),
}


def arrow_type(field: Field) -> pa.DataType:
    """Arrow type of a field in `decode_events`."""
    return (
        pa.decimal128(field.precision, field.scale)
        if field.logical_type == "number"
        else ARROW_TYPES[field.logical_type]
    )


def decode_column(decoder: Decoder, events: Sequence[Any], field: Field) -> pa.Array:
    """One field of many events as an Arrow array."""
    if field.logical_type == "number":
        return pa.array(decoder.number_column(events, field.name), arrow_type(field))
    column = [*map(attrgetter(field.name), events)]
    if field.logical_type in ("object", "array", "json"):
        raw = map(bytes, column)
        return pa.array([None if item == b"null" else item.decode("utf-8") for item in raw], arrow_type(field))
    if field.encoding in EPOCHS:
        counts = [None if item is None else to_micros(item, field.encoding) for item in column]
        return pa.array(counts, pa.int64()).cast(arrow_type(field))
    if field.encoding == "epoch_days":
        return pa.array(column, pa.int32()).cast(arrow_type(field))
    if field.encoding == "iso_utc":
        column = [None if item is None else as_instant(item, field.encoding) for item in column]
    return pa.array(column, arrow_type(field))
