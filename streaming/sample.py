"""A sample of events, looked at: which keys there are, and what each of them holds. Pure.

Not here: what is made of it (propose.py).
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from streaming.errors import SourceError
from streaming.event_type import EPOCHS
from streaming.nesting import MOST_LEVELS, is_too_deep

if TYPE_CHECKING:
    from collections.abc import Iterable

DECIMAL_TEXT = re.compile(r"-?(0|[1-9][0-9]{0,59})(\.[0-9]{1,60})?")
GZIP = b"\x1f\x8b"
SHOWN_VALUES = 12  # more distinct texts than this are no enumeration
SHOWN_CHARS = 40
YEAR_2000_S, YEAR_2100_S = 946_684_800, 4_102_444_800
BEYOND_DECIMALS = Decimal("1e-999999")  # stands for an exponent too long for Python; fits no NUMERIC either
MAXIMUM_EVENTS = 100_000  # a sample is read into memory; more tells nothing new


@dataclass
class Seen:
    """What one key of the events held."""

    key: str
    present: int = 0
    nulls: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] | None = field(default_factory=Counter)
    distinct: set[Any] | None = field(default_factory=set)
    integer_digits: int = 0
    scale: int = 0
    lowest: int | None = None
    highest: int | None = None
    first_at: datetime | None = None
    last_at: datetime | None = None

    def add(self, value: Any) -> None:
        """Look at one value."""
        self.present += 1
        if value is None:
            self.nulls += 1
            return
        self._add_distinct(value)
        match value:
            case bool():
                self.kinds["boolean"] += 1
            case int():
                self.kinds["integer"] += 1
                self._add_number(Decimal(value))
                self.lowest = value if self.lowest is None else min(self.lowest, value)
                self.highest = value if self.highest is None else max(self.highest, value)
            case Decimal():
                self.kinds["decimal"] += 1
                self._add_number(value)
            case str():
                self._add_text(value)
            case dict():
                self.kinds["object"] += 1
            case _:
                self.kinds["array"] += 1

    def _add_distinct(self, value: Any) -> None:
        if not isinstance(value, str | int) or isinstance(value, bool):
            self.distinct = None
        elif self.distinct is not None:
            self.distinct.add(value)

    def _add_number(self, number: Decimal) -> None:
        _, digits, exponent = number.as_tuple()
        exponent = int(exponent)
        self.scale = max(self.scale, -exponent)
        self.integer_digits = max(self.integer_digits, len(digits) + exponent if number else 1)

    def _add_text(self, text: str) -> None:
        if self.texts is not None:
            self.texts[text] += 1
            if len(self.texts) > SHOWN_VALUES or len(text) > SHOWN_CHARS:
                self.texts = None
        if DECIMAL_TEXT.fullmatch(text):
            self.kinds["decimal_text" if "." in text else "integer_text"] += 1
            self._add_number(Decimal(text))
            return
        kind, instant = _read_time(text)
        self.kinds[kind] += 1
        if instant is not None:
            self.first_at = instant if self.first_at is None else min(self.first_at, instant)
            self.last_at = instant if self.last_at is None else max(self.last_at, instant)

    def epoch(self) -> str | None:
        """As which count since 1970 whole numbers may be read: all of them lie between 2000 and 2100."""
        if self.lowest is None or self.highest is None:
            return None
        for name, factor in EPOCHS.items():
            if self.lowest >= YEAR_2000_S * factor and self.highest <= YEAR_2100_S * factor:
                return name
        return None


def _read_time(text: str) -> tuple[str, datetime | None]:
    """What a text is: timestamp (with a zone), local_timestamp, date, or text; read exactly as the landing does."""
    try:
        instant = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        instant = None
    if instant is not None and instant.tzinfo is None:
        return "local_timestamp", instant.replace(tzinfo=UTC)
    if instant is not None:
        try:
            return "timestamp", instant.astimezone(UTC)
        except OverflowError:  # outside of the years 1 to 9999 in UTC: the landing takes it as a text alone
            return "text", None
    try:
        msgspec.convert(text, date)
    except msgspec.ValidationError:
        return "text", None
    return "date", None


@dataclass
class Sample:
    """Events as lines, and what was seen in them."""

    name: str
    lines: list[bytes] = field(default_factory=list)
    keys: dict[str, Seen] = field(default_factory=dict)
    longest_bytes: int = 0
    is_cut: bool = False

    @property
    def events(self) -> int:
        """How many events were looked at."""
        return len(self.lines)


def read_sample(lines: Iterable[bytes], *, name: str) -> Sample:
    """Look at every line. Raises SourceError with the line that is no event."""
    sample = Sample(name)
    for number, raw in enumerate(lines, start=1):
        line = (raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw).rstrip(b"\r\n")
        if not line.strip():
            continue
        if sample.events >= MAXIMUM_EVENTS:
            sample.is_cut = True
            break
        for key, value in _read_event(line, name, number).items():
            sample.keys.setdefault(key, Seen(key)).add(value)
        sample.lines.append(line)
        sample.longest_bytes = max(sample.longest_bytes, len(line))
    if not sample.lines:
        raise SourceError(f"reading the sample {name}: it has no events. Give a file with one JSON object a line.")
    if not sample.keys:
        raise SourceError(f"reading the sample {name}: its events are empty objects; there is nothing to promise.")
    return sample


def _read_event(line: bytes, name: str, number: int) -> dict[str, Any]:
    def refuse(problem: str) -> NoReturn:
        raise SourceError(
            f"reading the sample {name}, line {number}: {problem}. Nothing was written. Each line has to be one event, "
            f"a JSON object; take the line out, or mend it."
        )

    if number == 1 and (form := _other_form(line)):
        raise SourceError(
            f"reading the sample {name}: it begins as {form[0]}, not as lines of JSON. Nothing was written. {form[1]}"
        )
    try:
        msgspec.json.decode(line)  # what the landing would refuse is refused here too: NaN, lone surrogates
        event = json.loads(line.decode("utf-8"), parse_float=_read_number)
    except UnicodeDecodeError as error:
        refuse(f"it is not UTF-8 ({error})")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        refuse(f"it is not JSON ({error})")
    if not isinstance(event, dict):
        refuse(f"it is {_kind(event)}, not a JSON object")
    if is_too_deep(line):
        refuse(f"it nests more than {MOST_LEVELS} levels deep, which the landing would refuse")
    if b"\\u0000" in line and (where := _find_nul(event, "")) is not None:
        refuse(f"{where or 'a key'} holds the character U+0000, which PostgreSQL cannot store")
    return event


def _read_number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        return BEYOND_DECIMALS


def _other_form(line: bytes) -> tuple[str, str] | None:
    """What a first line says of a file that holds its events in another form, and how to make lines of it."""
    if line.startswith(GZIP):
        return "a gzip file", "Give what is in it: zcat FILE | streaming new-stream TOPIC --from-sample -"
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in line[:2]:
        return "UTF-16 text", "Save it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE"
    if line.strip() in (b"[", b"{") or line.lstrip().startswith(b"[{"):
        return (
            "a JSON array" if line.rstrip().endswith(b"]") else "one JSON text over several lines",
            "Make a line of each event: jq -c 'if type == \"array\" then .[] else . end' FILE",
        )
    return None


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _find_nul(value: Any, where: str) -> str | None:
    if isinstance(value, str):
        return where if "\0" in value else None
    if isinstance(value, dict):
        found = (where if "\0" in key else _find_nul(inner, where or key) for key, inner in value.items())
    elif isinstance(value, list):
        found = (_find_nul(inner, where) for inner in value)
    else:
        return None
    return next((place for place in found if place is not None), None)
