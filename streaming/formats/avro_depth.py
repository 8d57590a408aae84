"""How deep a value of an Avro schema goes that refers to itself. Pure.

fastavro follows such a value in C, where nothing counts the depth: a few kilobytes of nested records end the process.
So it is followed to its end here first, where Python stops at its recursion limit (about 490 records in a row).
Not here: reading values (avro.py), and schemas that do not refer to themselves, whose depth is their own.
"""

from __future__ import annotations

from typing import Any

LONG_BYTES = 10  # of a 64-bit number; fastavro reads on and drops the upper bits
LONG_MASK = 2**64 - 1
SIZES = {"null": 0, "boolean": 1, "float": 4, "double": 8}
COUNTED = ("bytes", "string")
NUMBERS = ("int", "long", "enum")

Names = dict[str, Any]


def names_if_recursive(schema: Any) -> Names:
    """The schema's named types by name, if one of them refers to itself; else none."""
    names: Names = {}
    return names if _refers_to_itself(schema, names, frozenset()) else {}


def _refers_to_itself(schema: Any, names: Names, within: frozenset[str]) -> bool:
    if isinstance(schema, str):
        return schema in within
    if isinstance(schema, list):
        inner = schema
    else:
        if "name" in schema:
            names[schema["name"]] = schema
            within |= {schema["name"]}
        inner = [field["type"] for field in schema.get("fields", ())]
        inner += [schema[part] for part in ("items", "values") if part in schema]
    return any([_refers_to_itself(part, names, within) for part in inner])  # noqa: C419 every name is wanted


def check_depth(schema: Any, names: Names, value: bytes) -> None:
    """Follow a value to its end, or to where it breaks off, which its reader will tell.

    Raises:
        RecursionError: it is too deep.
        ValueError: a number in it has no end.
    """
    try:
        _skip(schema, names, value, 0)
    except IndexError:
        return


def _skip(schema: Any, names: Names, value: bytes, at: int) -> int:
    """Where a value ends that begins at `at`. Two frames a nested record, so that what to_json can write passes."""
    if isinstance(schema, str):
        schema = names.get(schema, schema)
    if isinstance(schema, list):
        branch, at = _long(value, at)
        return _skip(schema[branch], names, value, at)
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind in NUMBERS:
        return _long(value, at)[1]
    if kind in COUNTED:
        return _skip_counted(value, at)
    if (size := schema["size"] if kind == "fixed" else SIZES.get(kind)) is not None:
        return at + abs(int(size))
    if kind in ("array", "map"):
        return _skip_blocks(schema, names, value, at)
    for field in schema["fields"]:
        at = _skip(field["type"], names, value, at)
    return at


def _skip_blocks(schema: Any, names: Names, value: bytes, at: int) -> int:
    while True:
        count, at = _long(value, at)
        if count == 0:
            return at
        if count < 0:  # with the block's size behind it
            _, at = _long(value, at)
        for _ in range(abs(count)):
            start = at
            if schema["type"] == "map":
                at = _skip_counted(value, at)
            at = _skip(schema["values" if schema["type"] == "map" else "items"], names, value, at)
            if at == start:
                break  # the others take no bytes either, however many are told


def _skip_counted(value: bytes, at: int) -> int:
    size, at = _long(value, at)
    if size < 0:
        raise IndexError
    return at + size


def _long(value: bytes, at: int) -> tuple[int, int]:
    found = 0
    for place in range(LONG_BYTES):
        byte = value[at + place]
        found |= (byte & 0x7F) << 7 * place
        if byte < 0x80:  # noqa: PLR2004 the upper bit says that another byte follows
            found &= LONG_MASK
            return (found >> 1) ^ -(found & 1), at + place + 1
    raise ValueError("a number of more than ten bytes")
