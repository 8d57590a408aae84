"""Dead letters as a file that a person mends and gives back: NDJSON or CSV, every byte kept.

Text stands beside its base64, so that it can be read and edited; what is no text has its base64 only. Pure but for the
file handles it is given. Not here: reading letters from the lake (dead_letter.py), landing them (replay.py).
"""

from __future__ import annotations

import base64
import csv
import itertools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from streaming.errors import ReplayError
from streaming.headers import headers_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO

    from streaming.dead_letter import DeadLetter

COLUMNS = (
    "topic", "topic_partition", "topic_offset", "reason", "field", "detail", "value", "value_base64", "key",
    "key_base64", "headers", "produced_at", "landed_at", "replayed_at",
)  # fmt: skip
NULL = "\\N"  # in CSV, where an empty text and none would look alike
FORMATS = ("ndjson", "csv")
SEPARATORS = ",;\t"  # what spreadsheets save with: the first two by the language, tabs as text
BOM = "\ufeff"  # theirs too, as "CSV UTF-8"
csv.field_size_limit(2**31 - 1)  # a value may have megabytes


@dataclass(frozen=True, slots=True)
class Given:
    """One line of a file that is given back: whose value it is. Texts are None where the file has none."""

    where: str
    topic: str
    topic_partition: int
    topic_offset: int
    text: bytes | None
    raw: bytes | None

    def edited(self, letter: DeadLetter) -> bytes | None:
        """The value to land instead of the stored one; None if it was not edited.

        Raises ReplayError if text and base64 were both edited, to different values.
        """
        changed = {value for value in (self.text, self.raw) if value is not None and value != letter.value}
        if len(changed) > 1:
            raise ReplayError(
                f"reading {self.where}: value and value_base64 were both edited, and differ. This letter was not "
                f"replayed. Edit one of them, or leave the other away."
            )
        return changed.pop() if changed else None


def write_letters(letters: Iterable[DeadLetter], out: TextIO, form: str) -> int:
    """Write letters; how many."""
    count = 0
    writer = csv.writer(out)
    if form == "csv":
        writer.writerow(COLUMNS)
    for letter in letters:
        record = _record(letter)
        if form == "csv":
            writer.writerow([_cell(record[name]) for name in COLUMNS])
        else:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
        count += 1
    return count


def _record(letter: DeadLetter) -> dict[str, Any]:
    return {
        "topic": letter.topic,
        "topic_partition": letter.topic_partition,
        "topic_offset": letter.topic_offset,
        "reason": letter.reason,
        "field": letter.field,
        "detail": letter.detail,
        "value": _text(letter.value),
        "value_base64": _base64(letter.value),
        "key": _text(letter.key),
        "key_base64": _base64(letter.key),
        "headers": json.loads(headers_json(letter.headers)),
        "produced_at": letter.produced_at and letter.produced_at.isoformat(),
        "landed_at": letter.landed_at.isoformat(),
        "replayed_at": letter.replayed_at and letter.replayed_at.isoformat(),
    }


def _text(value: bytes | None) -> str | None:
    """The value as text, if a text file keeps it exactly."""
    try:
        text = None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if text is None or "\0" in text or text == NULL else text


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode("ascii")


def _cell(value: Any) -> Any:
    if value is None:
        return NULL
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def read_given(lines: TextIO, form: str, *, name: str) -> Iterator[Given]:
    """What a file gives back. Raises ReplayError with the line that cannot be read."""
    first = lines.readline().removeprefix(BOM)
    whole = itertools.chain([first], lines)
    yield from _read_csv(whole, first, name) if form == "csv" else _read_ndjson(whole, name)


def _read_ndjson(lines: Iterable[str], name: str) -> Iterator[Given]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        try:
            record = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
            plain = {key: msgspec.json.decode(raw) for key, raw in record.items() if key not in ("value", "headers")}
            value = bytes(record.get("value", b"null"))
            is_event = value[:1] == b"{"  # written as JSON instead of as text: taken byte for byte
            decoded = None if is_event else msgspec.json.decode(value)
        except msgspec.MsgspecError as error:
            _refuse(where, f"it is no JSON object ({error})")
        except RecursionError:
            _refuse(f"{where}{_letter_in(line)}", "its JSON nests too deep to be read")
        if decoded is not None and not isinstance(decoded, str):
            _refuse(where, "value is neither a text nor a JSON object nor null")
        text = None if decoded is None else decoded.encode("utf-8")
        yield _given(where, plain, value if is_event else text)


def _letter_in(line: str) -> str:
    """Which letter a line is of that cannot be read as a whole: `export` writes that before any value."""
    places = [re.search(rf'"{name}"\s*:\s*(\d+)', line) for name in ("topic_partition", "topic_offset")]
    return f" (letter {':'.join(place[1] for place in places if place)})" if all(places) else ""


def _read_csv(lines: Iterable[str], header: str, name: str) -> Iterator[Given]:
    rows = csv.DictReader(lines, delimiter=max(SEPARATORS, key=header.count))
    missing = {"topic", "topic_partition", "topic_offset"} - set(rows.fieldnames or ())
    if missing:
        found = f"found {header.strip()[:200]!r}, expected names between commas, semicolons or tabs"
        _refuse(f"{name} line 1", f"columns are missing: {', '.join(sorted(missing))}; {found}")
    for row in rows:
        where = f"{name} line {rows.line_num}"
        plain = {key: None if cell in (NULL, None) else cell for key, cell in row.items()}
        value = plain.pop("value", None)
        yield _given(where, plain, None if value is None else value.encode("utf-8"))


def _given(where: str, plain: dict[str, Any], text: bytes | None) -> Given:
    try:
        encoded = plain.get("value_base64")
        return Given(
            where, str(plain["topic"]), _whole(plain["topic_partition"]), _whole(plain["topic_offset"]), text,
            None if encoded is None else base64.b64decode(encoded, validate=True),
        )  # fmt: skip
    except KeyError as error:
        _refuse(where, f"{error.args[0]} is missing")
    except (TypeError, ValueError) as error:
        _refuse(where, f"topic_partition, topic_offset or value_base64 cannot be read ({error})")


def _whole(value: Any) -> int:
    """A whole number or its text. int() would take 30.9 and true as well, and another letter would be mended."""
    text = str(value).strip()
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{value!r} is no whole number")
    return int(text)


def _refuse(where: str, problem: str) -> NoReturn:
    raise ReplayError(
        f"reading {where}: {problem}. Lines before it were replayed, this one and those after it were not. "
        f"Mend the file and give it again; what has landed is left out."
    )
