"""Records of CSV text by strict rules; a line that breaks them costs itself, never the lines after it.

Not here: files, and what their columns mean (csv_invoices.py).
"""

from __future__ import annotations

import csv
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIELD_LIMIT_BYTES = 16_000_000  # csv's own limit of 131,072 would stop at one long field
UNCLOSED = "a quote is opened and not closed before the next row"


@dataclass(frozen=True, slots=True)
class Record:
    """Values of a record and the line that it begins on; with a problem, `values` is that one line as it stands."""

    line: int
    values: list[str]
    problem: str = ""


class _Lines:
    """Lines for csv's reader, of which those after a record's first one can be read again."""

    def __init__(self, lines: Iterator[str], *, first: int, is_row: Callable[[str], bool]) -> None:
        self.number = first  # of the record's first line
        self._lines = lines
        self._is_row = is_row
        self._again: deque[str] = deque()
        self._taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._taken.append(line)
        if len(self._taken) > 1 and self._swallows_row(line):
            raise csv.Error(UNCLOSED)
        return line

    def _swallows_row(self, line: str) -> bool:
        """Whether the record, which goes on with this line, is several in truth: its first line, or this one, is a row.

        A first line that ends within its last value looks like a row and is none. Inside a value quotes come in pairs,
        and the line that ends it has one more.
        """
        first = self._taken[0]
        is_first_row = len(self._taken) == 2 and not self._is_row(first) and self._is_row(first.replace('"', ""))  # noqa: PLR2004 asked once
        return is_first_row or (line.count('"') % 2 == 0 and self._is_row(line))

    def next_record(self) -> None:
        self.number += len(self._taken)
        self._taken.clear()

    def keep_first(self) -> str:
        """The record's first line; the others will be read again."""
        first, *others = self._taken
        self._again.extendleft(reversed(others))
        self._taken = [first]
        return first


def read_records(
    lines: Iterator[str], *, first: int, delimiter: str, is_row: Callable[[list[str]], bool]
) -> Iterator[Record]:
    """Records of lines, whose number begins with `first`; empty lines, and rows of empty values, are left out.

    A quote that nobody closes makes all up to the next quote one value, and rows vanish in it. So text after a closing
    quote is a problem, and so is a record with lines that are rows of their own, by `is_row`, which sees only values.
    Its first line is at fault; with the second, reading begins anew.
    """
    csv.field_size_limit(FIELD_LIMIT_BYTES)
    given = _Lines(lines, first=first, is_row=lambda line: is_row(split_line(line, delimiter)))
    records = csv.reader(given, delimiter=delimiter, strict=True)
    while True:
        given.next_record()
        try:
            values = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record(given.number, [given.keep_first().rstrip("\r\n")], str(error))
            continue
        if any(map(str.strip, values)):
            yield Record(given.number, values)


def split_line(line: str, delimiter: str) -> list[str]:
    """Values of one line, whatever its quotes; none of a line that cannot be split."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []
