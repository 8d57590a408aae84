"""Limits and values that a contract states for a field: can they be read, and can a value keep them. Pure.

Not here: what an event is checked against (event_type.py, decode.py).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from streaming.event_type import INT64_MAX, INT64_MIN, field_type, integer_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streaming.contract import Field

LEAST = {"minLength": 0, "maxLength": 0, "multipleOf": 1}  # of options that are whole numbers for any type
ALLOWED_TYPES = {  # of which values can be listed, and how such a value is written
    "string": ("a text", "quote it, YAML takes it for something else"),
    "integer": ("a whole number of 64 bits", "write it without quotes or a point"),
}


def read_limit(option: str, value: Any, logical_type: str) -> Any:
    """A limit of a whole number, number, timestamp or length as it is compared. Raises ValueError: what is expected."""
    if option in LEAST or logical_type == "integer":
        return _whole(value, LEAST.get(option, INT64_MIN))
    if logical_type == "number":
        return _finite(value)
    try:
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        raise ValueError(f"expected a timestamp: {error}") from error
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _whole(value: Any, least: int) -> int:
    if not _is_whole(value) or value < least:
        raise ValueError(f"expected a whole number from {least} to {INT64_MAX}, without quotes or a point")
    return int(value)


def _finite(value: Any) -> Decimal:
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        number = Decimal("NaN")
    if not number.is_finite():
        raise ValueError("expected a number; leave it out where there is no limit")
    return number


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and INT64_MIN <= value <= INT64_MAX


def contradictions(field: Field) -> Iterator[str]:
    """Limits that no value can keep, and listed values that are not of the type or break the field's own limits."""
    if field.logical_type == "integer":
        limits = integer_limits(field)
        pairs = [(limits["ge"], limits["le"], False)]
    else:
        pairs = [
            (field.minimum, field.maximum, False),
            (field.minimum, field.exclusive_maximum, True),
            (field.exclusive_minimum, field.maximum, True),
            (field.exclusive_minimum, field.exclusive_maximum, True),
        ]
    pairs.append((field.minimum_length, field.maximum_length, False))
    for low, high, is_exclusive in pairs:
        if low is not None and high is not None and (low > high or (is_exclusive and low == high)):
            yield f"no value lies between its limits {low} and {high}; mend one of them"
            return
    yield from _odd_allowed(field)


def _odd_allowed(field: Field) -> Iterator[str]:
    if not field.allowed:
        return
    if field.logical_type not in ALLOWED_TYPES:
        yield "enum is known for string and integer only"
        return
    wanted, remedy = ALLOWED_TYPES[field.logical_type]
    one_value = field_type(replace(field, allowed=(), nullable=False))
    for value in field.allowed:
        if not (isinstance(value, str) if field.logical_type == "string" else _is_whole(value)):
            yield f"enum value {value!r} is not {wanted}; {remedy}"
            continue
        try:
            msgspec.convert(value, one_value)
        except msgspec.ValidationError as error:
            yield f"enum value {value!r} breaks the field's own limits: {error}; leave out the value or the limit"
