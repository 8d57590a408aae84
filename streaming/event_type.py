"""A contract's fields as the type by which msgspec reads an event. Pure.

Not here: what that type cannot check (decode.py), and which limits a contract may state (contract_limits.py).
"""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streaming.contract import Field

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EPOCHS = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000, "epoch_ns": 1_000_000_000}  # counts in a second
EPOCH_RANGE_S = (-2_208_988_800, 253_402_300_799)  # 1900 to 9999, what both Python and Postgres can hold
EPOCH_RANGE_DAYS = (-25_567, 2_932_896)

Required = tuple[str, Any]  # a field's name and type
Optional = tuple[str, Any, Any]  # and its default


def struct_fields(fields: Iterable[Field]) -> tuple[list[Required], list[Optional]]:
    """Fields as `event_struct` takes them: the required ones, the optional ones."""
    required, optional = list[Required](), list[Optional]()
    for field in fields:
        kind = field_type(field)
        if field.nullable:
            optional.append((field.name, kind, msgspec.Raw(b"null") if kind is msgspec.Raw else None))
        else:
            required.append((field.name, kind))
    return required, optional


def event_struct(name: str, required: list[Required], optional: list[Optional], fields: Sequence[Field]) -> type[Any]:
    """The type of an event with these members, read from the keys of the fields.

    Members stand in the fields' order, which is mostly the events' own: msgspec looks for a key behind the last one.
    """
    places = {f.name: at for at, f in enumerate(fields)}
    members: list[Required | Optional] = [*required, *optional]
    members.sort(key=lambda member: places[member[0]])
    rename = {f.name: f.event_key for f in fields if f.event_key != f.name} or None
    return msgspec.defstruct(name, members, kw_only=True, gc=False, rename=rename)


def field_type(field: Field) -> Any:
    """The type of one field, with its limits."""
    lengths = {"min_length": field.minimum_length, "max_length": field.maximum_length}
    limits: dict[str, Any] = {name: value for name, value in lengths.items() if value is not None}
    if field.pattern is not None:
        limits["pattern"] = field.pattern
    kind: Any = {
        "string": str,
        "integer": int,
        "number": msgspec.Raw,
        "boolean": bool,
        "timestamp": datetime,
        "date": date,
        "object": msgspec.Raw,
        "array": msgspec.Raw,
        "json": msgspec.Raw,
    }[field.logical_type]
    if field.encoding in EPOCHS or field.encoding == "epoch_days":
        kind, limits = int, _epoch_limits(field)
    elif field.logical_type == "integer":
        limits |= integer_limits(field)
    elif field.logical_type == "timestamp" and field.encoding == "iso":
        limits["tz"] = True
    if field.allowed:
        kind = Literal[field.allowed]
        limits = {}
    annotated = Annotated[kind, msgspec.Meta(**limits)] if limits else kind
    return Union[annotated, None] if field.nullable and kind is not msgspec.Raw else annotated  # noqa: UP007


def _epoch_limits(field: Field) -> dict[str, Any]:
    first, last = EPOCH_RANGE_DAYS if field.encoding == "epoch_days" else EPOCH_RANGE_S
    factor = 1 if field.encoding == "epoch_days" else EPOCHS[field.encoding]
    return {"ge": first * factor, "le": min(last * factor, INT64_MAX - 1_000)}  # of nanoseconds: the year 2262


def to_micros(counts: Any, encoding: str) -> Any:
    """A count since 1970, or an array of int64, in microseconds: of nanoseconds the nearest, half up, as of texts."""
    if encoding == "epoch_ns":
        return (counts + 500) // 1_000
    return counts * (EPOCHS["epoch_us"] // EPOCHS[encoding])


def integer_limits(field: Field) -> dict[str, Any]:
    """Lowest and highest value of a whole number, and what it is a multiple of."""
    lowest = [INT64_MIN] + ([field.minimum] if field.minimum is not None else [])
    highest = [INT64_MAX] + ([field.maximum] if field.maximum is not None else [])
    lowest += [field.exclusive_minimum + 1] if field.exclusive_minimum is not None else []
    highest += [field.exclusive_maximum - 1] if field.exclusive_maximum is not None else []
    limits: dict[str, Any] = {"ge": max(lowest), "le": min(highest)}
    return limits | ({"multiple_of": field.multiple_of} if field.multiple_of else {})
