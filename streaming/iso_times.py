"""ISO 8601 instants -> microseconds, whole columns at a time. Pure.

Reads only what the decoder's own reader of single times reads alike, to the microsecond; for anything else the answer
is None, and the caller reads one by one. Not here: what an event time may be (decode.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SECONDS = len("2010-12-01T08:26:00")
ZONE = len("+00:00")
SHORTEST, LONGEST = SECONDS + len("Z"), SECONDS + len(".123456") + ZONE
FRACTIONS = (0, 2, 3, 4, 5, 6, 7)  # a point and up to six digits, or nothing
SEPARATORS = {4: "-", 7: "-", 10: "T", 13: ":", 16: ":"}


def iso_times_us(texts: Sequence[str]) -> NDArray[np.int64] | None:
    """Microseconds since 1970 UTC, None if any text is not `YYYY-MM-DDThh:mm:ss[.f{1,6}](Z|+hh:mm|-hh:mm)`.

    A third of the time of making a datetime of each (0.10 against 0.28 us). Numpy alone: Arrow's first cast imports its
    compute functions, its first array pandas, a quarter of a second each, which the first batch would wait for.
    """
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    joined = "".join(texts)
    if not len(lengths) or lengths.min() < SHORTEST or lengths.max() > LONGEST or not joined.isascii():
        return None
    data = np.frombuffer(joined.encode("ascii"), dtype=np.uint8)
    ends = np.cumsum(lengths)
    is_utc = data[ends - 1] == ord("Z")
    if lengths.min() == lengths.max() and (is_utc.all() or not is_utc.any()):  # as most producers write
        return _read_equal(data.reshape(len(lengths), -1), 1 if is_utc[0] else ZONE)
    times = np.empty(len(lengths), dtype=np.int64)
    for length in np.unique(lengths):
        for zone in (1, ZONE):
            chosen = np.flatnonzero((lengths == length) & (is_utc == (zone == 1)))
            if len(chosen):
                starts = ends[chosen] - length
                found = _read_equal(data[starts[:, None] + np.arange(length)], zone)
                if found is None:
                    return None
                times[chosen] = found
    return times


def _read_equal(rows: NDArray[np.uint8], zone: int) -> NDArray[np.int64] | None:
    """Times of texts of one length and one kind of zone, a row each."""
    fraction = rows.shape[1] - SECONDS - zone
    if fraction not in FRACTIONS or (fraction and (rows[:, SECONDS] != ord(".")).any()):
        return None
    if any((rows[:, at] != ord(separator)).any() for at, separator in SEPARATORS.items()):
        return None
    read = _Digits(rows)
    month, day = read.number(5, 7), read.number(8, 10)
    hour, minute, second = read.number(11, 13), read.number(14, 16), read.number(17, 19)
    year = read.number(0, 4)
    months = (year - 1970) * 12 + month - 1
    if (months == months[0]).all():  # the calendar is a third of the time here; a batch seldom has two months
        months = months[:1]
    first = months.astype("M8[M]").astype("M8[D]").astype(np.int64)
    after = (months + 1).astype("M8[M]").astype("M8[D]").astype(np.int64)
    is_good = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= after - first)  # noqa: PLR2004 a calendar
    is_good &= (hour < 24) & (minute < 60) & (second < 60)  # noqa: PLR2004 a clock
    seconds = (first + day - 1) * 86_400 + hour * 3_600 + minute * 60 + second
    if zone == ZONE:
        ahead, is_zone = _read_offsets(rows, read)
        seconds -= ahead
        is_good &= is_zone
    micros = read.number(SECONDS + 1, SECONDS + fraction) * 10 ** (7 - fraction) if fraction else 0
    return seconds * 1_000_000 + micros if read.is_digits and is_good.all() else None


def _read_offsets(rows: NDArray[np.uint8], read: _Digits) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Seconds ahead of UTC, and whether they are any."""
    at = rows.shape[1] - ZONE
    hours, minutes = read.number(at + 1, at + 3), read.number(at + 4, at + 6)
    is_ahead, is_behind = rows[:, at] == ord("+"), rows[:, at] == ord("-")
    is_good = (is_ahead | is_behind) & (rows[:, at + 3] == ord(":")) & (hours < 16) & (minutes < 60)  # noqa: PLR2004 Postgres' limit
    return (hours * 3_600 + minutes * 60) * np.where(is_ahead, 1, -1), is_good


class _Digits:
    """Whole numbers in columns of text; remembers whether all were digits."""

    def __init__(self, rows: NDArray[np.uint8]) -> None:
        self.columns = np.ascontiguousarray(rows.T) - np.uint8(ord("0"))
        self.is_digits = True

    def number(self, begin: int, end: int) -> NDArray[np.int64]:
        """The number that stands in columns begin to end, exclusive."""
        total = np.zeros(self.columns.shape[1], dtype=np.int64)
        for column in self.columns[begin:end]:
            self.is_digits = self.is_digits and bool((column <= 9).all())  # noqa: PLR2004 the last digit
            total = total * 10 + column
        return total
