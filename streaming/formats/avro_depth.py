"""What the bytes of an Avro value would become, where a few of them can become too much. Pure.

fastavro follows a value of a schema that refers to itself in C, where nothing counts the depth: a few kilobytes of
nested records end the process. It makes as many items of an array as the value says, and where items take no bytes (of
type null, say), ten bytes say any number: a list of 10^12 takes the memory. So a value of such a schema is followed to
its end here first, where Python stops at its recursion limit (about 490 records in a row), and where items are counted.
Not here: reading values (avro.py), and schemas whose values are as deep as they are and take bytes for all they hold.
"""

from __future__ import annotations

from typing import Any

LONG_BYTES = 10  # of a 64-bit number; fastavro reads on and drops the upper bits
LONG_MASK = 2**64 - 1
SIZES = {"null": 0, "boolean": 1, "float": 4, "double": 8}
MOST_EMPTY_ITEMS = 10_000  # of one value, in all its arrays; nobody counts by such items
COUNTED = ("bytes", "string")
NUMBERS = ("int", "long", "enum")

Names = dict[str, Any]


def names_to_follow(schema: Any) -> Names | None:
    """The schema's named types by name, if its values have to be followed before they are read; else None."""
    names: Names = {}
    is_recursive = _refers_to_itself(schema, names, frozenset())
    return names if is_recursive or _has_empty_items(schema, names) else None


def _refers_to_itself(schema: Any, names: Names, within: frozenset[str]) -> bool:
    if isinstance(schema, str):
        return schema in within
    if isinstance(schema, dict) and "name" in schema:
        names[schema["name"]] = schema
        within |= {schema["name"]}
    return any([_refers_to_itself(part, names, within) for part in _parts(schema)])  # noqa: C419 every name is wanted


def _parts(schema: Any) -> list[Any]:
    """The schemas that a schema is made of, as they stand in it."""
    if isinstance(schema, str | list):
        return schema if isinstance(schema, list) else []
    fields = [field["type"] for field in schema.get("fields", ())]
    return fields + [schema[part] for part in ("items", "values") if part in schema]


def _has_empty_items(schema: Any, names: Names) -> bool:
    """Whether a schema without circles has an array of which an item takes no bytes."""
    if isinstance(schema, dict) and "items" in schema and _is_empty(schema["items"], names):
        return True
    return any(_has_empty_items(part, names) for part in _parts(schema))


def _is_empty(schema: Any, names: Names) -> bool:
    """Whether values of a schema take no bytes; of a union, an array, a map the first number always does."""
    if isinstance(schema, str):
        schema = names.get(schema, {"type": schema})
    if isinstance(schema, list):
        return False
    if schema["type"] == "fixed":
        return int(schema["size"]) == 0
    is_record = "fields" in schema
    return schema["type"] == "null" or (is_record and all(_is_empty(part, names) for part in _parts(schema)))


def check_value(schema: Any, names: Names, value: bytes) -> None:
    """Follow a value to its end, or to where it breaks off, which its reader will tell.

    Raises:
        RecursionError: it is too deep.
        ValueError: it has too many items without bytes, or a number in it has no end.
    """
    try:
        Follower(names, value).skip(schema, 0)
    except IndexError:
        return


class Follower:
    """Follows one value."""

    def __init__(self, names: Names, value: bytes) -> None:
        self.names = names
        self.value = value
        self.empty_items = 0

    def skip(self, schema: Any, at: int) -> int:
        """Where a value ends that begins at `at`. Two frames a nested record, so that what to_json can write passes."""
        if isinstance(schema, str):
            schema = self.names.get(schema, schema)
        if isinstance(schema, list):
            branch, at = self._long(at)
            return self.skip(schema[branch], at)
        kind = schema if isinstance(schema, str) else schema["type"]
        if kind in NUMBERS:
            return self._long(at)[1]
        if kind in COUNTED:
            return self._skip_counted(at)
        if (size := schema["size"] if kind == "fixed" else SIZES.get(kind)) is not None:
            return at + abs(int(size))
        if kind in ("array", "map"):
            return self._skip_blocks(schema, at)
        for field in schema["fields"]:
            at = self.skip(field["type"], at)
        return at

    def _skip_blocks(self, schema: Any, at: int) -> int:
        while True:
            count, at = self._long(at)
            if count == 0:
                return at
            if count < 0:  # with the block's size behind it
                _, at = self._long(at)
            for _ in range(abs(count)):
                start = at
                if schema["type"] == "map":
                    at = self._skip_counted(at)
                at = self.skip(schema["values" if schema["type"] == "map" else "items"], at)
                if at == start:
                    self._count_empty(abs(count))
                    break  # the others take no bytes either

    def _count_empty(self, items: int) -> None:
        self.empty_items += items
        if self.empty_items > MOST_EMPTY_ITEMS:
            raise ValueError(f"it says that it has {self.empty_items} items without bytes, over {MOST_EMPTY_ITEMS}")

    def _skip_counted(self, at: int) -> int:
        size, at = self._long(at)
        if size < 0:
            raise IndexError
        return at + size

    def _long(self, at: int) -> tuple[int, int]:
        found = 0
        for place in range(LONG_BYTES):
            byte = self.value[at + place]
            found |= (byte & 0x7F) << 7 * place
            if byte < 0x80:  # noqa: PLR2004 the upper bit says that another byte follows
                found &= LONG_MASK
                return (found >> 1) ^ -(found & 1), at + place + 1
        raise ValueError("a number of more than ten bytes")
