"""Real invoices from CSV files in the columns of UCI's Online Retail, as events of retail.invoices.

Nothing is lost here: a row that cannot be read properly is sent with its raw values, and the landing keeps it as a dead
letter with a reason. Not here: retail rules (mage_project), sending (produce.py).
"""

from __future__ import annotations

import codecs
import dataclasses
import hashlib
import json
import re
import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, BinaryIO
from zoneinfo import ZoneInfo

from streaming.errors import SourceError
from streaming.produce import Outgoing
from streaming.sources.csv_records import read_records, split_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from streaming.sources.csv_records import Record

    Watch = Callable[[BinaryIO, Path], AbstractContextManager[BinaryIO]]

NAMESPACE = uuid.UUID("5b1c4f6e-3f0a-4b7e-9a5d-2f1f6a1f7c11")
TILL_ZONE = ZoneInfo("Europe/London")
HEADER_LIMIT = 1_000_000  # characters in which a header must end
LINES_ABOVE = 50  # in which a header is looked for that is not the first line, to say so
WHOLE = re.compile(r"[+-]?\d+(?:\.0*)?")
PLAIN_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
US_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?:[ T]+(\d{1,2}):(\d{2})(?::(\d{2}))?)?", re.ASCII)
DECIMAL_COMMA = re.compile(
    r"[+-]?(?:\d+,(?:\d{1,2}|\d{4,})|0+,\d+|\d{1,3}(?:\.\d{3})+,\d+)"
)  # 1,234 may part thousands
MAYBE_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:\.\d{3})+")
QUANTITY_LENGTH = 100  # the contract's largest has 10 digits
LONGEST_READ = 200  # characters of a date or number that are looked at before anything is sent
MONTHS = 12
FEW_DATES, FEW_OF_ALL = 10, 0.2  # fewer with the day first are mistakes of single rows
MOST_ROWS = 0.5  # of which the landing would stop at so many dead letters
READABLE = {  # what a row cannot do without, and how it is written
    "quantity": "a whole number as 6",
    "invoiced_at": "2010-12-01 08:26 or, with the month first, 12/1/2010 8:26",
    "unit_price": "a number with a decimal point as 2.55",
    "invoice_no": "all of its digits as 536365",
    "stock_code": "all of its digits as 5012345678900",
    "customer_id": "all of its digits as 17850",
}
NUMBERS = ("quantity", "invoiced_at", "unit_price")
# A spreadsheet shows a long number so, and saves what it shows: many numbers become one.
ROUNDED_NUMBER = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d{2,3}", re.ASCII)
DELIMITERS = ",;\t|"
FORMS = {  # how a file begins that is no CSV, whatever it is called
    b"PK\x03\x04": "an Excel workbook (or another zip archive)",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "a gzip file",
    codecs.BOM_UTF16_LE: "UTF-16 text",
    codecs.BOM_UTF16_BE: "UTF-16 text",
}
# field of the event -> names of its column, compared without case, blanks and underscores
COLUMNS = {
    "invoice_no": ("invoiceno", "invoice"),
    "stock_code": ("stockcode",),
    "description": ("description",),
    "quantity": ("quantity",),
    "invoiced_at": ("invoicedate",),
    "unit_price": ("unitprice", "price"),
    "customer_id": ("customerid",),
    "country": ("country",),
}
SHOWN = {
    "invoice_no": "InvoiceNo", "stock_code": "StockCode", "description": "Description", "quantity": "Quantity",
    "invoiced_at": "InvoiceDate", "unit_price": "UnitPrice", "customer_id": "CustomerID", "country": "Country",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A file whose header has been read."""

    path: Path
    encoding: str
    delimiter: str
    header: tuple[str, ...]
    places: dict[str, int]
    size: int
    has_decimal_commas: bool = False  # in some price: a point may then part thousands
    invoices: dict[str, int] = dataclasses.field(default_factory=dict)  # number -> hash of its rows, in any order


def _unwatched(raw: BinaryIO, _path: Path) -> AbstractContextManager[BinaryIO]:
    return raw


def open_csv_source(path: Path, watch: Watch = _unwatched) -> list[CsvFile]:
    """The CSV files of a folder (or the one file), in order of their names; all headers and dates are checked first.

    `watch` is given each file as it is opened to be looked through, and may give another one that tells how it is read.
    """
    if not path.exists():
        raise SourceError(f"reading invoices from {path}: it does not exist. Nothing was sent. Check --csv.")
    with _is_read(path, "Nothing was sent."):
        paths = sorted(filter(_is_csv, path.iterdir())) if path.is_dir() else [path]
    if not paths:
        others = len(list(path.iterdir()))
        raise SourceError(
            f"reading invoices from {path}: the folder has no .csv files ({others} other entries). Nothing was sent. "
            f"Name a folder with files in the columns {', '.join(SHOWN.values())}."
        )
    problems, files, found = [], [], []
    for one in paths:
        try:
            with _is_read(one, "Nothing was sent."):
                file, written = _looked_through(_open(one), watch)
            files.append(file)
            found.append(written)
            _require_as_expected(written)
        except SourceError as error:
            problems.append(str(error))
    if not problems:
        _require_as_expected(_of_small_files(path, found))
    if problems:
        raise SourceError("\n".join(problems))
    return files


@contextmanager
def _is_read(path: Path, state: str) -> Iterator[None]:
    """Tells of a file or folder that the system does not let us read."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"reading invoices from {path}: {error.strerror}. {state} See that the file is there and may be read, or "
            f"leave it out."
        ) from error


def left_out(path: Path) -> list[str]:
    """Names of what else lies in the folder, in order; hidden files aside."""
    others = [entry for entry in path.iterdir() if not _is_csv(entry)] if path.is_dir() else []
    return sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in others if entry.name[0] != ".")


def copies(files: Sequence[CsvFile]) -> list[str]:
    """Names of files that hold the same bytes as another one, with its name: their rows are counted twice."""
    sizes = Counter(file.size for file in files)
    first, found = dict[bytes, str](), []
    for path in (file.path for file in files if sizes[file.size] > 1):
        with _is_read(path, "Nothing was sent."), path.open("rb") as raw:
            original = first.setdefault(hashlib.file_digest(raw, "sha256").digest(), path.name)
        if original != path.name:
            found.append(f"{path.name} = {original}")
    return found


def overlaps(files: Sequence[CsvFile]) -> list[str]:
    """Pairs of files with whole invoices in common, as months that overlap have: these are counted twice."""
    first: dict[tuple[str, int], CsvFile] = {}
    shared: dict[tuple[str, str], list[str]] = {}
    for file in files:
        for number, rows in file.invoices.items():
            original = first.setdefault((number, rows), file)
            if number and original is not file:
                shared.setdefault((file.path.name, original.path.name), []).append(number)
    return [f"{one} and {other} ({len(numbers):,}, as {numbers[0]})" for (one, other), numbers in shared.items()]


def _is_csv(path: Path) -> bool:
    """Hidden files are not: nobody sees the ._NAME.csv that macOS puts beside a file, or what a copy left half done."""
    return path.suffix.lower() == ".csv" and path.name[0] != "." and path.is_file()


def _open(path: Path) -> CsvFile:
    _require_text(path)
    encoding = _encoding(path)
    with path.open(encoding=encoding, newline="", errors="cp1252_or_latin1") as text:
        lines = [line.rstrip("\r") for line in text.read(HEADER_LIMIT).split("\n")]
    first = next((line for line in lines if line.strip()), "")
    if "\r" in first:
        raise SourceError(
            f"reading the header of {path}: lines end with CR alone. Nothing was sent. Save the file with LF or CRLF."
        )
    delimiter, header = _header(first)
    columns = _columns(header)
    _require_header_first(path, lines, columns)
    _require_one_column_each(path, header, columns)
    places = {field: found[0] for field, found in columns.items()}
    return CsvFile(path, encoding, delimiter, header, places, path.stat().st_size)


def _header(line: str) -> tuple[str, tuple[str, ...]]:
    """The delimiter that finds most columns in the line, and all names that it parts."""
    headers = {delimiter: tuple(split_line(line, delimiter)) for delimiter in DELIMITERS}
    return max(headers.items(), key=lambda found: len(_columns(found[1])))


def _require_header_first(path: Path, lines: Sequence[str], columns: dict[str, list[int]]) -> None:
    """Tell of lines above the header, as Excel's sep=; or a report's title: renaming columns would not help."""
    if len(columns) == len(COLUMNS):
        return
    at = next((at for at, line in enumerate(lines[:LINES_ABOVE]) if len(_columns(_header(line)[1])) == len(COLUMNS)), 0)
    if at:
        above = next(line for line in lines if line.strip())
        raise SourceError(
            f"reading the header of {path}: the columns stand in line {at + 1}, the file begins with {above[:100]!r}. "
            f"Nothing was sent. Remove what stands above them, or leave the file out."
        )


def _require_text(path: Path) -> None:
    with path.open("rb") as raw:
        start = raw.read(4)
    form = next((form for mark, form in FORMS.items() if start.startswith(mark)), None)
    if form is None and b"\0" in start:
        form = "UTF-16 text, or no text at all"
    if form is not None:
        raise SourceError(
            f"reading the header of {path}: the file is {form}. Nothing was sent. Save or unpack it as CSV in UTF-8, "
            f"or leave it out."
        )


def _columns(header: Sequence[str]) -> dict[str, list[int]]:
    """Field -> places of all columns that are called like it."""
    names = [re.sub(r"[\s_]", "", name).lower() for name in header]
    found = {field: [place for place, name in enumerate(names) if name in known] for field, known in COLUMNS.items()}
    return {field: places for field, places in found.items() if places}


def _require_one_column_each(path: Path, header: Sequence[str], columns: dict[str, list[int]]) -> None:
    missing = [SHOWN[field] for field in COLUMNS if field not in columns]
    if missing:
        found = ", ".join(header) if header else "nothing: the file is empty"
        raise SourceError(
            f"reading the header of {path}: column(s) {', '.join(missing)} missing; found {found[:300]}. Nothing was "
            f"sent. Rename the columns, or leave the file out."
        )
    doubled = [" and ".join(repr(header[at]) for at in places) for places in columns.values() if len(places) > 1]
    if doubled:
        raise SourceError(
            f"reading the header of {path}: columns {', '.join(doubled)} are names of one thing. Nothing was sent. "
            f"Rename or remove the one that is not meant."
        )


@dataclass(slots=True)
class _Written:
    """How rows write their dates and numbers, and where each kind stands first."""

    where: str
    file: str
    rows: int = 0
    dates: Counter[str] = dataclasses.field(default_factory=Counter)  # order of a date -> rows
    unread: Counter[str] = dataclasses.field(default_factory=Counter)  # field -> rows in which it cannot be read
    first: dict[str, str] = dataclasses.field(
        default_factory=dict
    )  # order or field -> its first text and where that stands


def _looked_through(file: CsvFile, watch: Watch) -> tuple[CsvFile, _Written]:
    """The file with what only all of its rows tell: how its dates and numbers are written."""
    found, has_decimal_commas = _Written(str(file.path), file.path.name), False
    invoices: Counter[str] = Counter()
    values_of = itemgetter(*(file.places[field] for field in COLUMNS))  # the invoice's number is the first
    with watch(file.path.open("rb"), file.path) as raw:
        for record in _read_rows(file, raw):
            if record.problem:
                continue
            found.rows += 1
            if len(record.values) >= len(file.header):
                row = values_of(record.values)
                invoices[row[0].strip()] += hash(row)
            might_be_rounded = any(
                "+" in value for value in record.values
            )  # few rows have one, and each look costs 1 us
            looked_at = READABLE if might_be_rounded else NUMBERS
            texts = {field: "".join(record.values[file.places[field] :][:1]).strip() for field in looked_at}
            if date := US_DATE.fullmatch(texts["invoiced_at"]):
                order = _order(int(date[1]), int(date[2]))
                found.dates[order] += 1
                found.first.setdefault(order, f"{texts['invoiced_at']} in line {record.line}")
            has_decimal_commas = has_decimal_commas or DECIMAL_COMMA.fullmatch(texts["unit_price"]) is not None
            for field, text in texts.items():
                if not _is_readable(field, text[:LONGEST_READ]):
                    found.unread[field] += 1
                    found.first.setdefault(field, f"{text[:LONGEST_READ]!r} in line {record.line}")
    return replace(file, has_decimal_commas=has_decimal_commas, invoices=invoices), found


def _of_small_files(folder: Path, found: Sequence[_Written]) -> _Written:
    """What the files of too few rows to show anything alone tell together, as a shop's days of a few rows each do."""
    small = [one for one in found if one.rows * FEW_OF_ALL < FEW_DATES]
    together = _Written(f"{len(small)} small files of {folder}, taken together", "")
    for one in small:
        together.rows += one.rows
        together.dates += one.dates
        together.unread += one.unread
        for kind, text in one.first.items():
            together.first.setdefault(kind, f"{text} of {one.file}")
    return together


def _require_as_expected(found: _Written) -> None:
    _require_month_first(found)
    _require_readable(found)


@lru_cache(maxsize=10_000)  # the rows of an invoice have one date, and prices repeat: 2 instead of 8 us a row
def _is_readable(field: str, text: str) -> bool:
    if field == "quantity":
        return isinstance(read_quantity(text), int)
    if field in ("invoice_no", "stock_code", "customer_id"):
        return ROUNDED_NUMBER.fullmatch(text) is None
    return (NUMBER.fullmatch(text) if field == "unit_price" else _instant(text)) is not None


def _require_readable(found: _Written) -> None:
    """Refuse a column that is written otherwise than it is read; a row or some are dead letters of their own.

    Once they are sent, a mended file does not bring them: each row is another one than was sent under its number.
    """
    problems = [
        f"{SHOWN[field]} in {count:,} of {found.rows:,} rows, as {found.first[field]}; expected is {READABLE[field]}"
        for field, count in found.unread.items()
        if count >= max(FEW_DATES, found.rows * MOST_ROWS)
    ]
    if problems:
        raise SourceError(
            f"reading the rows of {found.where}: what cannot be read is {', and '.join(problems)}. Nothing was sent. "
            f"Write the column so in the whole file (a spreadsheet writes as its language is set), or leave the file "
            f"out."
        )


def _order(one: int, two: int) -> str:
    if (one > MONTHS) == (two > MONTHS):
        return "either"
    return "D/M/Y" if one > MONTHS else "M/D/Y"


def _require_month_first(found: _Written) -> None:
    """Refuse D/M/Y: its days up to the 12th would be read as months, without any row to show it.

    Of a month, three of five dates show it. Few that do are mistakes of their own rows, which the landing keeps aside.
    """
    dates, first = found.dates, found.first
    if dates["D/M/Y"] < max(FEW_DATES, dates.total() * FEW_OF_ALL):
        return
    beside = f", beside M/D/Y, as {first['M/D/Y']}" if dates["M/D/Y"] else ""
    count = f"{dates['D/M/Y']} of {dates.total()}"
    raise SourceError(
        f"reading the dates of {found.where}: {count} are D/M/Y, as {first['D/M/Y']}{beside}; M/D/Y is expected, and "
        f"1/2 would become January 2. Nothing was sent. Write all of the file's dates as YYYY-MM-DD or M/D/Y."
    )


def _encoding(path: Path) -> str:
    """UTF-8 (a BOM is skipped) if the whole file is, else Windows' Western European code page."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as raw:
            while chunk := raw.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _keep_byte(error: UnicodeError) -> tuple[str, int]:
    """The five bytes that cp1252 leaves undefined become the control characters of the same number, as browsers do."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("cp1252_or_latin1", _keep_byte)


def read_csv_events(files: Sequence[CsvFile]) -> Iterator[Outgoing]:
    """One event a row. `line_no` counts the rows of an invoice in file order, from 1, across files."""
    lines_of: Counter[str] = Counter()
    total = sum(file.size for file in files) or 1
    done = 0
    for file in files:
        state = "What was read before is sent, the rest is not: then go on with --resume."
        with _is_read(file.path, state), file.path.open("rb") as raw:
            for record in _read_rows(file, raw):
                progress = min((done + raw.tell()) / total, 1.0)
                yield _outgoing(file, record, lines_of, progress=progress)
        done += file.size


def _read_rows(file: CsvFile, raw: BinaryIO) -> Iterator[Record]:
    """The records after the header, which is the first line that is not blank."""
    lines = enumerate(_lines(codecs.getreader(file.encoding)(raw, "cp1252_or_latin1")), start=1)
    header_at = next((number for number, line in lines if line.strip()), 0)
    return read_records(
        (line for _, line in lines),
        first=header_at + 1,
        delimiter=file.delimiter,
        is_row=lambda values: _is_row(file, values),
    )


def _lines(text: Any) -> Iterator[str]:
    """Lines ending as CSV has them; a reader's own idea of lines breaks at U+0085 and others inside fields."""
    rest = ""
    while chunk := text.read(1 << 16):
        *whole, rest = (rest + chunk).split("\n")
        for line in whole:
            yield line + "\n"
    if rest:
        yield rest


def _is_row(file: CsvFile, values: list[str]) -> bool:
    """Whether these are the values of a whole row: as many as the header has, and two of its three numbers readable."""
    if len(values) != len(file.header):
        return False
    quantity, price, at = (values[file.places[field]].strip() for field in ("quantity", "unit_price", "invoiced_at"))
    found = (isinstance(read_quantity(quantity), int), NUMBER.fullmatch(price), _instant(at))
    return sum(map(bool, found)) >= 2  # noqa: PLR2004 one of them may be what is wrong with the row


def _outgoing(file: CsvFile, record: Record, lines_of: Counter[str], *, progress: float) -> Outgoing:
    values = split_line(record.values[0], file.delimiter) if record.problem else record.values
    raw = {field: values[place] for field, place in file.places.items() if place < len(values)}
    problem = record.problem or _shifted(file, values) or _rounded(raw)
    invoice_no = raw.get("invoice_no", "").strip()
    lines_of[invoice_no] += 1
    line_no = lines_of[invoice_no]
    event_id = str(uuid.uuid5(NAMESPACE, f"{invoice_no}/{line_no}"))
    event: dict[str, Any] = {"event_id": event_id, "invoice_no": invoice_no, "line_no": line_no}
    event |= _unreadable(record, problem) if problem else _readable(file, raw)
    return Outgoing(
        key=invoice_no.encode("utf-8"),
        value=json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8"),
        event_id=event_id,
        event_time=str(event.get("invoiced_at", "")),
        where=f"{file.path}:{record.line}",
        progress=progress,
        is_unreadable=bool(problem),
        document=invoice_no,
    )


def _shifted(file: CsvFile, values: list[str]) -> str:
    """What is wrong with a row of more values than the header: nobody knows which is which."""
    if not any(values[len(file.header) :]):
        return ""
    return f"the row has {len(values)} values, the header {len(file.header)}"


def _rounded(raw: dict[str, str]) -> str:
    """Which number of the row has lost its digits; that it stands for others too shows nowhere later."""
    for name in ("invoice_no", "stock_code", "customer_id"):
        if ROUNDED_NUMBER.fullmatch(raw.get(name, "").strip()):
            return f"{SHOWN[name]} is {raw[name].strip()}, a number that a spreadsheet has rounded"
    return ""


def _readable(file: CsvFile, raw: dict[str, str]) -> dict[str, Any]:
    """Values in the contract's types; one that cannot be read stays as it is, for the landing to refuse."""
    event: dict[str, Any] = {}
    for field, text in raw.items():
        if field != "invoice_no":
            event[field] = READERS[field](text)
    for field in ("quantity", "unit_price"):
        if file.has_decimal_commas and MAYBE_THOUSANDS.fullmatch(raw.get(field, "").strip()):
            event[field] = f"{raw[field]}: thousands, or decimals? Other prices of the file have decimal commas"
    return event


def _unreadable(record: Record, problem: str) -> dict[str, Any]:
    """The row as it stands. Its quantity is the problem, so that the landing refuses it and names that."""
    return {"quantity": problem, "unreadable_row": record.values, "problem": problem}


def read_quantity(text: str) -> int | str:
    """'6' and '6.0' -> 6. Text of absurd length stays text: Python reads no number of over 4,300 digits."""
    stripped = text.strip()
    is_whole = len(stripped) <= QUANTITY_LENGTH and WHOLE.fullmatch(stripped) and stripped.isascii()
    return int(stripped.split(".")[0]) if is_whole else text


def read_price(text: str) -> str:
    """A plain decimal, digit for digit: '2.55', '.5' -> '0.5', '1e-3' -> '0.001'."""
    stripped = text.strip()
    if PLAIN_NUMBER.fullmatch(stripped) or not NUMBER.fullmatch(stripped):
        return stripped
    try:
        return format(Decimal(stripped), "f")
    except InvalidOperation:
        return stripped


def read_time(text: str) -> str:
    """ISO or M/D/YYYY H:MM, in London's time unless it has a zone -> ISO in UTC."""
    instant = _instant(text.strip())
    return text if instant is None else instant.isoformat().replace("+00:00", "Z")


def _instant(text: str) -> datetime | None:
    match = US_DATE.fullmatch(text)
    try:
        if match:
            month, day, year = int(match[1]), int(match[2]), int(match[3]) + (2000 if len(match[3]) == 2 else 0)  # noqa: PLR2004
            instant = datetime(year, month, day, int(match[4] or 0), int(match[5] or 0), int(match[6] or 0))  # noqa: DTZ001 zone below
        else:
            instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=TILL_ZONE)
        return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def read_customer(text: str) -> str | None:
    """'17850.0' -> '17850'; empty -> None, a guest."""
    stripped = text.strip()
    return (stripped.split(".")[0] if re.fullmatch(r"\d+\.0+", stripped) else stripped) or None


READERS: dict[str, Any] = {
    "stock_code": lambda text: text,
    "description": lambda text: text or None,
    "quantity": read_quantity,
    "invoiced_at": read_time,
    "unit_price": read_price,
    "customer_id": read_customer,
    "country": lambda text: text,
}
