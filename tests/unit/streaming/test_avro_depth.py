"""Values of Avro schemas that may become too much are followed exactly as far as fastavro would follow them."""

from __future__ import annotations

import io
import random
from typing import Any

import fastavro
import pytest
from fastavro.schema import parse_schema

from streaming.formats.avro_depth import MOST_EMPTY_ITEMS, Follower, check_value, names_to_follow

CHAIN = {"type": "record", "name": "N", "fields": [{"name": "n", "type": ["null", "N"]}]}
TREE = {"type": "record", "name": "a.T", "fields": [{"name": "kids", "type": {"type": "array", "items": "T"}}]}
MAPS = {"type": "record", "name": "M", "fields": [{"name": "m", "type": {"type": "map", "values": "M"}}]}
MUTUAL = {"type": "record", "name": "A", "fields": [{"name": "b", "type": ["null", {
    "type": "record", "name": "B", "fields": [{"name": "a", "type": "A"}]}]}]}  # fmt: skip
ENDLESS = {"type": "record", "name": "E", "fields": [{"name": "e", "type": "E"}]}
EVERYTHING = {"type": "record", "name": "x.R", "fields": [
    {"name": "null", "type": "null"}, {"name": "boolean", "type": "boolean"}, {"name": "int", "type": "int"},
    {"name": "long", "type": {"type": "long", "logicalType": "timestamp-micros"}}, {"name": "float", "type": "float"},
    {"name": "double", "type": "double"}, {"name": "bytes", "type": "bytes"}, {"name": "string", "type": "string"},
    {"name": "fixed", "type": {"type": "fixed", "name": "F", "size": 5}},
    {"name": "enum", "type": {"type": "enum", "name": "E", "symbols": ["X", "Y"]}},
    {"name": "again", "type": ["F", "E"]},
    {"name": "array", "type": {"type": "array", "items": ["null", "R", "string"]}},
    {"name": "map", "type": {"type": "map", "values": ["null", "R", "double"]}},
]}  # fmt: skip


def follow(parsed: Any, value: bytes) -> None:
    names = names_to_follow(parsed)
    assert names is not None
    check_value(parsed, names, value)


@pytest.mark.parametrize("schema", [CHAIN, TREE, MAPS, MUTUAL, ENDLESS, EVERYTHING])
def test_a_schema_that_refers_to_itself_is_found(schema: Any) -> None:
    assert names_to_follow(parse_schema(schema))
    assert names_to_follow(parse_schema(["null", schema]))


@pytest.mark.parametrize("schema", [
    "string", ["null", "long"], {"type": "array", "items": "float"}, {"type": "array", "items": ["null"]},
    {"type": "map", "values": "null"}, {"type": "array", "items": {"type": "array", "items": "int"}},
    {"type": "record", "name": "P", "fields": [
        {"name": "x", "type": {"type": "record", "name": "Q", "fields": [{"name": "y", "type": "int"}]}},
        {"name": "z", "type": ["null", "Q"]}]},
])  # fmt: skip
def test_one_that_only_uses_a_name_twice_or_whose_items_take_bytes_is_not(schema: Any) -> None:
    assert names_to_follow(parse_schema(schema)) is None


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (CHAIN, b"\x02" * 20_000 + b"\0"),
        (CHAIN, b"\x01" * 20_000 + b"\0"),  # the branch -1, which is the last one
        (TREE, b"\x02" * 20_000 + b"\0" * 20_000),
        (TREE, b"\x01\x7e" * 20_000),  # blocks with their sizes
        (MAPS, b"\x02\x02x" * 20_000),
        (MUTUAL, b"\x02" * 20_000),
        (ENDLESS, b""),
    ],
)
def test_a_value_that_would_end_the_process_is_too_deep(schema: Any, value: bytes) -> None:
    parsed = parse_schema(schema)
    with pytest.raises(RecursionError):
        follow(parsed, value)


def test_a_number_without_an_end_is_refused_since_fastavro_would_drop_its_upper_bits() -> None:
    with pytest.raises(ValueError, match="more than ten bytes"):
        follow(parse_schema(CHAIN), b"\x82" + b"\x80" * 12 + b"\0\0")


@pytest.mark.parametrize("value", [b"", b"\x02", b"\x01", b"\x08", b"\x03", b"\xff" * 9])
def test_a_value_that_breaks_off_is_left_to_its_reader(value: bytes) -> None:
    for schema in (CHAIN, TREE, MAPS, EVERYTHING):
        parsed = parse_schema(schema)
        follow(parsed, value)


EMPTY = {"type": "record", "name": "O", "fields": [{"name": "x", "type": "null"}, {"name": "y", "type": {
    "type": "fixed", "name": "F0", "size": 0}}]}  # fmt: skip
TWICE = {"type": "record", "name": "T", "fields": [
    {"name": "o", "type": EMPTY}, {"name": "a", "type": {"type": "array", "items": "O"}}]}  # fmt: skip


def counted(items: int) -> bytes:
    """An array's bytes, of so many items of none."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parse_schema("long"), items)
    return out.getvalue() + b"\0"


@pytest.mark.parametrize("items", ["null", {"type": "null"}, EMPTY, {"type": "fixed", "name": "F", "size": 0}])
def test_more_items_without_bytes_than_memory_takes_are_refused_before_they_are_made(items: Any) -> None:
    array = {"type": "array", "items": items}
    places = [(array, b""), ([array], b"\0"), ({"type": "array", "items": array}, b"\x02"),
              ({"type": "map", "values": array}, b"\x02\x02k")]  # fmt: skip
    for schema, before in places:
        parsed = parse_schema(schema)
        follow(parsed, before + counted(MOST_EMPTY_ITEMS))
        for count in (MOST_EMPTY_ITEMS + 1, 10**12, 2**63 - 1, -(2**63)):
            with pytest.raises(ValueError, match="items without bytes"):
                follow(parsed, before + counted(count))


def test_items_without_bytes_are_counted_over_all_arrays_of_a_value() -> None:
    parsed = parse_schema({"type": "array", "items": TWICE})
    with pytest.raises(ValueError, match="it says that it has 10080 items without bytes"):
        follow(parsed, b"\xc8\x01" + counted(105) * 100)


def some_value(dice: random.Random, depth: int) -> dict[str, Any]:
    def inner() -> Any:
        return some_value(dice, depth - 1) if depth and dice.random() < 0.6 else None

    size = dice.choice((0, 1, 63, 64, 9_000))
    return {
        "null": None, "boolean": dice.random() < 0.5, "int": dice.randint(-(2**31), 2**31 - 1),
        "long": dice.randint(-(2**62), 2**62) if dice.random() < 0.5 else -(2**63), "float": dice.random(),
        "double": dice.random(), "bytes": bytes(size), "string": "é" * size, "fixed": b"12345", "enum": "Y",
        "again": dice.choice((b"54321", "X")),
        "array": [dice.choice((inner(), "x")) for _ in range(dice.randrange(4))],
        "map": {f"k{n}": dice.choice((inner(), 0.5)) for n in range(dice.randrange(4))},
    }  # fmt: skip


def test_every_kind_of_value_is_followed_to_its_last_byte() -> None:
    dice, parsed = random.Random(7), parse_schema(EVERYTHING)
    for _ in range(100):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, some_value(dice, 4))
        written = out.getvalue()
        assert Follower(names_to_follow(parsed) or {}, written).skip(parsed, 0) == len(written)
        follow(parsed, written[: dice.randrange(len(written))])
