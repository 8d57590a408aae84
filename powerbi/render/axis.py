"""Where an axis has its ticks, and what stands at them: each label once.

Here: the instants of a time axis with their format, the rule for numbers, names cut short yet distinct. Not here: the
charts (chart.py), values in cards and tables (powerbi/formats.py).
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_LETTER, _GAP, _LINE = 6.2, 12, 18  # pixels at size 11: a letter, between two labels, from a line to the next
_LONGEST = 30  # letters of a name on an axis
_TAIL = 12  # of them, behind the dots, where the beginnings of two names are alike
_DAY = dt.timedelta(days=1)
_SECONDS = (1, 5, 15, 30, 60, 300, 900, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600)
_DAYS = (1, 2, 7, 14)
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200, 2400, 6000, 12000)


@dataclass(frozen=True)
class Ticks:
    """Instants as milliseconds since 1970, and the format that tells each from the others."""

    values: tuple[int, ...]
    format: str


def time_ticks(moments: Iterable[dt.date], length: float, *, is_upright: bool = False) -> Ticks:
    """The finest ticks of an axis `length` pixels long whose labels do not touch; days are never divided.

    Args:
        moments: what is shown; dates, or moments (without a zone: UTC).
        length: of the axis.
        is_upright: labels stand below each other, so that their length does not matter.
    """
    listed = sorted({*moments}, key=utc)
    if not listed:
        return Ticks((), "%-d %b")
    first, last = utc(listed[0]), utc(listed[-1])
    is_of_days = all(utc(one).time() == dt.time() for one in listed)
    for ticks, form, letters in _steps(first, last, is_of_days=is_of_days):
        most = max(1, int(length / (_LINE if is_upright else letters * _LETTER + _GAP)))
        values = []
        for tick in ticks:
            values.append(tick)
            if tick > last or len(values) > most + 1:
                break
        values = [tick for tick in values if first <= tick <= last]
        if 0 < len(values) <= most:
            return Ticks(tuple(round(tick.timestamp() * 1000) for tick in values), form)
    return Ticks((round(first.timestamp() * 1000),), "%-d %b %Y")


def utc(moment: dt.date) -> dt.datetime:
    """A date's midnight, a moment as it is; without a zone it is UTC."""
    if not isinstance(moment, dt.datetime):
        return dt.datetime(moment.year, moment.month, moment.day, tzinfo=dt.UTC)
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def _steps(
    first: dt.datetime, last: dt.datetime, *, is_of_days: bool
) -> Iterator[tuple[Iterator[dt.datetime], str, int]]:
    """Ticks from fine to coarse, each with its format and the letters of a label."""
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    for seconds in () if is_of_days else _SECONDS:
        form, letters = ("%H:%M:%S", 8) if seconds % 60 else ("%H:%M", 5)
        if last - first >= _DAY:
            form, letters = f"%-d %b {form}", letters + 7
        step = dt.timedelta(seconds=seconds)
        begin = midnight + (first - midnight) // step * step
        yield (begin + step * at for at in count(0 if begin >= first else 1)), form, letters
    for days in _DAYS:
        form, letters = ("%-d %b", 6) if first.year == last.year else ("%-d %b %Y", 11)
        yield (midnight + _DAY * days * at for at in count(0 if midnight >= first else 1)), form, letters
    for months in _MONTHS:
        yield _months(first, last, months), *(("%b %Y", 8) if months < 12 else ("%Y", 4))  # noqa: PLR2004 - a year


def _months(first: dt.datetime, last: dt.datetime, step: int) -> Iterator[dt.datetime]:
    """The first of every month, or of every `step` months counted from January of year 0, between two moments."""
    begin, end = first.year * 12 + first.month - 1, last.year * 12 + last.month - 1
    for at in range(-(-begin // step) * step, end + 1, step):
        tick = dt.datetime(at // 12, at % 12 + 1, 1, tzinfo=dt.UTC)
        if tick >= first:
            yield tick


def number_axis(format_string: str) -> dict[str, Any]:
    """An axis of a measure: as many digits as tell its ticks apart, units K, M and bn, counts in whole numbers."""
    size, sign = "abs(datum.value)", "£" if "£" in format_string else ""
    number = f"format({size}, '~%')"
    if "%" not in format_string:  # below 1, Vega's units would make "500m" of a half
        number = f"replace(replace(format({size}, '.12~s'), 'k', 'K'), 'G', 'bn')"
        number = f"({size} < 1 ? format({size}, '.12~f') : {number})"
    is_whole = "0" in format_string and "." not in format_string and "%" not in format_string
    return {
        "tickCount": {"signal": "max(1, min(5, floor(span(domain('y')))))"} if is_whole else 5,  # no half of an order
        "labelExpr": f"(datum.value < 0 ? '-{sign}' : '{sign}') + {number}",
    }


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each name with what stands on the axis: cut where it is long, and never the same for two names."""
    found = {name: name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in names}
    for cut in (lambda name: f"{name[: _LONGEST - _TAIL - 1]}…{name[-_TAIL:]}", str):
        times = Counter(found.values())
        found = {name: cut(name) if times[short] > 1 and len(name) > _LONGEST else short
                 for name, short in found.items()}  # fmt: skip
    return found
