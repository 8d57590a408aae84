"""The quick way of reading landed events gives what the decoder gives, or steps aside."""

from __future__ import annotations

import json
import random
from typing import Any

import pyarrow as pa
import pytest

from streaming import lake
from streaming.columnar import quick_columns
from streaming.contract import Contract, load_contract

CONTRACT = load_contract("retail.invoices")


def event(**changes: Any) -> dict[str, Any]:
    return {
        "event_id": "e1", "invoice_no": "536365", "line_no": 1, "stock_code": "85123A", "description": "LANTERN",
        "quantity": 6, "unit_price": "2.55", "invoiced_at": "2010-12-01T08:26:00Z", "customer_id": None,
        "country": "France", **changes,
    }  # fmt: skip


def events(*payloads: str) -> pa.Table:
    rows = len(payloads)
    return pa.table(
        {
            "topic": pa.repeat("t", rows),
            "topic_partition": pa.repeat(0, rows),
            "topic_offset": pa.array(range(rows), pa.int64()),
            "produced_at": pa.array([0] * rows, pa.timestamp("us", tz="UTC")),
            "event_day": pa.array([0] * rows, pa.date32()),
            "payload": pa.array(payloads),
        },
        schema=lake.EVENTS_SCHEMA,
    )


def by_decoder(contract: Contract, table: pa.Table) -> pa.Table:
    return lake.decode_events(contract, table)  # below QUICK_FROM_ROWS it decodes event by event


def deep_event(levels: int) -> str:
    return json.dumps(event())[:-1] + ', "x": ' + "[" * levels + "]" * levels + "}"


def test_what_landed_deeply_nested_is_read_whatever_the_stack_of_the_caller() -> None:
    def read(frames: int) -> pa.Table:
        return read(frames - 1) if frames else lake.decode_events(CONTRACT, events(deep_event(960)))

    assert [read(frames).num_rows for frames in (0, 100, 400)] == [1, 1, 1]


def test_many_rows_with_one_that_is_deeply_nested_are_read() -> None:
    texts = [json.dumps(event())] * lake.QUICK_FROM_ROWS + [deep_event(960)]
    for odd in ([], [json.dumps(event(invoiced_at="2011-06-01t00:30:00z"))]):  # the second is left to the decoder
        assert lake.decode_events(CONTRACT, events(*texts, *odd)).num_rows == len(texts) + len(odd)


SAME = [
    event(),
    event(description=None, customer_id="17850", quantity=-3),
    event(description='quotes " and \\ and é ✿ 日本 \u2028', country="Côte d'Ivoire"),
    event(unit_price="999999999999.999999999"),
    event(unit_price="-0.000000001"),
    event(invoiced_at="2011-06-01T00:30:00.123456+01:00"),
    event(quantity=10**9, line_no=999_999_999),
    event(unknown={"nested": [1, 2, {"a": None}]}),
]


def test_columns_are_those_of_the_decoder_to_the_last_digit() -> None:
    texts = [json.dumps(each, ensure_ascii=at % 2 == 0) for at, each in enumerate(SAME)]
    texts.append(json.dumps(event()).replace('"2.55"', "1234567890.123456789"))  # a number, beyond a float's digits
    table = events(*texts)
    quick = quick_columns(CONTRACT, table["payload"])
    assert quick is not None
    expected = by_decoder(CONTRACT, table)
    for field, column in zip(CONTRACT.fields, quick, strict=True):
        assert column.equals(expected[field.name].combine_chunks()), field.name


@pytest.mark.parametrize("part_bytes", [1, 700, 1 << 20])
def test_many_chunks_and_parts_of_any_size_give_the_same_columns(
    part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As COPY's answer becomes them: the text of a day is never put together."""
    monkeypatch.setattr("streaming.columnar.PART_BYTES", part_bytes)
    whole = events(*[json.dumps(event(event_id=f"e{at}"), indent=2 if at % 3 else None) for at in range(50)])
    payloads = whole["payload"]
    chunks = pa.chunked_array([c for start, n in ((0, 1), (1, 30), (31, 19)) for c in payloads.slice(start, n).chunks])
    quick = quick_columns(CONTRACT, chunks)
    assert quick is not None
    expected = by_decoder(CONTRACT, whole)
    for field, column in zip(CONTRACT.fields, quick, strict=True):
        assert column.equals(expected[field.name].combine_chunks()), field.name


def test_a_doubt_in_the_last_part_leaves_all_to_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.columnar.PART_BYTES", 1)
    odd = json.dumps(event()).replace('"quantity": 6', '"quantity": 6.0')
    assert quick_columns(CONTRACT, events(json.dumps(event()), json.dumps(event()), odd)["payload"]) is None


def test_event_over_several_lines_is_one_event() -> None:
    table = events(json.dumps(event(), indent=2), json.dumps(event(event_id="e2")), json.dumps(event(), indent=1))
    quick = quick_columns(CONTRACT, table["payload"])
    assert quick is not None
    assert quick[0].to_pylist() == ["e1", "e2", "e1"]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(event()).replace("2010-12-01T08:26:00Z", "2010-12-01T08:26:00.1234567Z"),
        json.dumps(event()).replace('"quantity": 6', '"quantity": 6.0'),
        json.dumps(event()).replace('"quantity": 6', '"quantity": 5, "quantity": 6'),
        json.dumps({key: value for key, value in event().items() if key != "country"}),
        json.dumps(event(country=None)),
        json.dumps(event()) + "{}",
        "[]",
    ],
)
def test_whatever_is_in_doubt_is_left_to_the_decoder(text: str) -> None:
    assert quick_columns(CONTRACT, events(json.dumps(event()), text)["payload"]) is None


def test_many_events_take_the_quick_way_and_give_the_same_table() -> None:
    dice = random.Random(3)
    texts = [
        json.dumps(
            event(
                event_id=f"e{at}",
                quantity=dice.randrange(-100, 100),
                unit_price=f"{dice.randrange(10**6)}.{dice.randrange(10**9):09}",
                description=dice.choice([None, "a", "ü\n\t"]),
            )
        )
        for at in range(lake.QUICK_FROM_ROWS)
    ]
    table = events(*texts)
    quick = lake.decode_events(CONTRACT, table)
    parts = [by_decoder(CONTRACT, table.slice(at, 5_000)) for at in range(0, table.num_rows, 5_000)]
    assert quick.equals(pa.concat_tables(parts).combine_chunks())
    assert quick.schema.equals(parts[0].schema)
