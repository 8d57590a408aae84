"""Values of Avro schemas that refer to themselves are followed exactly as far as fastavro would follow them."""

from __future__ import annotations

import io
import random
from typing import Any

import fastavro
import pytest
from fastavro.schema import parse_schema

from streaming.formats.avro_depth import _skip, check_depth, names_if_recursive

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


@pytest.mark.parametrize("schema", [CHAIN, TREE, MAPS, MUTUAL, ENDLESS, EVERYTHING])
def test_a_schema_that_refers_to_itself_is_found(schema: Any) -> None:
    assert names_if_recursive(parse_schema(schema))
    assert names_if_recursive(parse_schema(["null", schema]))


@pytest.mark.parametrize("schema", [
    "string", ["null", "long"], {"type": "array", "items": "float"},
    {"type": "record", "name": "P", "fields": [
        {"name": "x", "type": {"type": "record", "name": "Q", "fields": [{"name": "y", "type": "int"}]}},
        {"name": "z", "type": ["null", "Q"]}]},
])  # fmt: skip
def test_one_that_only_uses_a_name_twice_does_not(schema: Any) -> None:
    assert not names_if_recursive(parse_schema(schema))


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
        check_depth(parsed, names_if_recursive(parsed), value)


def test_a_number_without_an_end_is_refused_since_fastavro_would_drop_its_upper_bits() -> None:
    with pytest.raises(ValueError, match="more than ten bytes"):
        check_depth(parse_schema(CHAIN), names_if_recursive(parse_schema(CHAIN)), b"\x82" + b"\x80" * 12 + b"\0\0")


@pytest.mark.parametrize("value", [b"", b"\x02", b"\x01", b"\x08", b"\x03", b"\xff" * 9])
def test_a_value_that_breaks_off_is_left_to_its_reader(value: bytes) -> None:
    for schema in (CHAIN, TREE, MAPS, EVERYTHING):
        parsed = parse_schema(schema)
        check_depth(parsed, names_if_recursive(parsed), value)


def test_elements_without_bytes_take_no_time() -> None:
    parsed = parse_schema({"type": "record", "name": "N", "fields": [
        {"name": "a", "type": {"type": "array", "items": "null"}}, {"name": "n", "type": ["null", "N"]}]})  # fmt: skip
    check_depth(parsed, names_if_recursive(parsed), b"\xfe" + b"\xff" * 7 + b"\x7f\0\0")


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
        assert _skip(parsed, names_if_recursive(parsed), written, 0) == len(written)
        check_depth(parsed, names_if_recursive(parsed), written[: dice.randrange(len(written))])
