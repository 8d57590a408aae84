"""Format strings: a value as Power BI would write it.

Here: numbers (sections, thousands, decimals, percent, literals), dates, and display units (K, M, bn). Not here: where
the text goes. Culture en-GB only; a format letter that is not known stays as it stands, as in Power BI.
"""

from __future__ import annotations

import datetime as dt
import re
from decimal import ROUND_HALF_UP, Decimal, localcontext

_NUMBER = re.compile(r"[0#][0#,]*(?:\.[0#]+,*)?")
_WORDS = re.compile(r'\\.|"[^"]*"')  # text of a format string, in which a 0 is a letter
_LARGEST = 60  # digits; beyond, a number is written as it is
_DATE = re.compile(r"yyyy|yy|mmmm|mmm|mm|m|dddd|ddd|dd|d|hh|h|nn|ss", re.IGNORECASE)
_DATE_CODES = {
    "yyyy": "%Y", "yy": "%y", "mmmm": "%B", "mmm": "%b", "mm": "%m", "dddd": "%A", "ddd": "%a", "dd": "%d",
    "hh": "%H", "nn": "%M", "ss": "%S",
}  # fmt: skip
_UNITS = ((Decimal(10**12), "T"), (Decimal(10**9), "bn"), (Decimal(10**6), "M"), (Decimal(10**3), "K"))


def format_value(value: object, format_string: str) -> str:
    """Write a value; BLANK is an empty text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, dt.date):
        return _date(value, format_string)
    if isinstance(value, int | float | Decimal):
        return _number(_decimal(value), format_string)
    return str(value)


def format_short(value: object, format_string: str) -> str:
    """Write a number with automatic display units, as cards and axes do: £760.26K."""
    if not isinstance(value, int | float | Decimal) or isinstance(value, bool) or "%" in format_string:
        return format_value(value, format_string)
    number = _decimal(value)
    for size, name in _UNITS:
        if number.is_finite() and abs(number) >= size:
            scaled = format_value(number / size, _with_two_decimals(format_string))
            return re.sub(r"(\d)(\D*)$", rf"\g<1>{name}\g<2>", scaled)
    return format_value(value, format_string)


def _with_two_decimals(format_string: str) -> str:
    return _NUMBER.sub(lambda match: match.group().split(".")[0] + ".00", format_string or "0")


def _decimal(value: float | Decimal) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(repr(value))


def _date(value: dt.date, format_string: str) -> str:
    if not format_string:
        is_moment = isinstance(value, dt.datetime)
        return value.strftime("%Y-%m-%d %H:%M:%S" if is_moment else "%Y-%m-%d")

    def part(match: re.Match[str]) -> str:
        letters = match.group().lower()
        if letters in _DATE_CODES:
            return value.strftime(_DATE_CODES[letters])
        return str({"m": value.month, "d": value.day, "h": getattr(value, "hour", 0)}[letters])

    return _DATE.sub(part, format_string)


def _number(number: Decimal, format_string: str) -> str:
    if not number.is_finite():
        return "∞" if number.is_infinite() else "NaN"
    if not format_string:
        return f"{number.normalize():f}"
    sections = format_string.split(";")
    section = sections[0]
    if number < 0 and len(sections) > 1:
        section, number = sections[1], -number
    if number == 0 and len(sections) > 2:  # noqa: PLR2004 - the number says itself
        section = sections[2]
    if "%" in section:
        number *= 100
    match = _NUMBER.search(_WORDS.sub(lambda words: "\0" * len(words.group()), section))
    if match is None or number.adjusted() > _LARGEST:
        return _literal(section) if match is None else str(number)
    digits = _digits(abs(number), match.group())
    is_negative = number < 0 and any(letter in "123456789" for letter in digits)
    return f"{'-' if is_negative else ''}{_literal(section[: match.start()])}{digits}{_literal(section[match.end() :])}"


def _digits(number: Decimal, pattern: str) -> str:
    thousands = len(pattern) - len(pattern.rstrip(","))  # a comma behind the last digit divides by a thousand
    whole, _, fraction = pattern.rstrip(",").partition(".")
    with localcontext(prec=_LARGEST + 40):
        rounded = (number / 1000**thousands).quantize(Decimal(1).scaleb(-len(fraction)), rounding=ROUND_HALF_UP)
    text = f"{rounded:,f}" if "," in whole else f"{rounded:f}"
    text = "0" * (whole.count("0") - len(text.split(".", maxsplit=1)[0])) + text
    optional = len(fraction) - len(fraction.rstrip("#"))
    while optional and text.endswith("0") and "." in text:
        text, optional = text[:-1], optional - 1
    return text.rstrip(".") if fraction else text


def _literal(text: str) -> str:
    return re.sub(r'\\(.)|"([^"]*)"', lambda match: match[1] or match[2] or "", text)
