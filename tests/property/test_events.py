"""Any bytes: each event is landed or kept aside, exactly one of both, whole, and nothing raises."""

from __future__ import annotations

import json
import struct
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.batch import prepare_batch
from streaming.contract import Contract
from streaming.decode import Decoder, DoubtError, Refusal, decode_column
from streaming.headers import headers_from_json, headers_json
from tests.schedule import IS_WHOLE
from tests.unit.streaming.events import NOW, FakeMessage

from .shapes import CONTRACTS, HEADERS, events, messages, values

pytestmark = pytest.mark.timeout(3600 if IS_WHOLE else 300)

DECODERS = {stream: Decoder(contract) for stream, contract in CONTRACTS.items()}
every_contract = pytest.mark.parametrize("stream", CONTRACTS)


def read_copy(rows: bytes) -> list[list[bytes | None]]:
    """COPY BINARY rows -> columns."""
    found, at = [], 0
    while at < len(rows):
        (columns,) = struct.unpack_from(">h", rows, at)
        at += 2
        row: list[bytes | None] = []
        for _ in range(columns):
            (length,) = struct.unpack_from(">i", rows, at)
            at += 4
            row.append(None if length < 0 else rows[at : at + length])
            at += max(length, 0)
        found.append(row)
    return found


@every_contract
@given(data=st.data())
def test_any_bytes_are_landed_or_kept_aside_whole(stream: str, data: st.DataObject) -> None:
    decoder = DECODERS[stream]
    given_messages: list[FakeMessage] = data.draw(messages(decoder.contract))
    batch = prepare_batch(decoder, 2, given_messages, expected_offset=0, now=NOW)
    rows = read_copy(batch.copy_rows)
    landed = {int.from_bytes(row[1], "big"): row for row in rows}
    dead = {letter.topic_offset: letter for letter in batch.rejected}
    assert batch.rows == len(rows) == len(landed)
    assert not landed.keys() & dead.keys()
    assert landed.keys() | dead.keys() == {message.offset() for message in given_messages}
    for message in given_messages:
        if message.offset() in landed:
            row = landed[message.offset()]
            assert row[5] == message.key()
            assert row[7] == message.value(), "the payload is kept as it came"
        else:
            letter = dead[message.offset()]
            assert (letter.value, letter.key, letter.headers) == (message.value(), message.key(), message.fields)
    missing = {offset for gap in batch.gaps for offset in range(gap.first_offset, gap.last_offset + 1)}
    assert missing | landed.keys() | dead.keys() == set(range(batch.next_offset))
    assert batch.rows + len(batch.rejected) + batch.gap_offsets == batch.next_offset
    assert sum(day.rows for day in batch.days) == batch.rows


@every_contract
@given(data=st.data())
def test_a_batch_is_judged_as_its_events_are_one_by_one(stream: str, data: st.DataObject) -> None:
    """The quick way over a whole batch lands nothing that the slow way refuses, and the same times."""
    decoder = DECODERS[stream]
    value = data.draw(values(decoder.contract))
    stamp = data.draw(st.none() | st.integers(0, int(NOW.timestamp() * 1e6)))
    judged = decoder.judge(value, now=NOW, stamp_us=stamp)
    try:
        quick = decoder.check_all([value], now=NOW, stamps_us=[stamp])
    except DoubtError:
        return
    assert not isinstance(judged, Refusal), judged
    assert quick.tolist() == decoder.event_times([judged], [stamp]).tolist()


@every_contract
@given(data=st.data())
def test_valid_events_land_and_mean_what_they_meant(stream: str, data: st.DataObject) -> None:
    decoder = DECODERS[stream]
    contract: Contract = decoder.contract
    made = data.draw(st.lists(events(contract), min_size=1, max_size=4))
    stamps = [1_700_000_000_000_000] * len(made)
    decoded = [decoder.judge(event.value, now=NOW, stamp_us=stamps[0]) for event in made]
    assert not [event for event in decoded if isinstance(event, Refusal)]
    if not any(b"\\u0000" in event.value for event in made):  # perhaps but a text that looks like it: judged one by one
        quick, _ = decoder.decode_all([event.value for event in made], now=NOW, stamps_us=stamps)
        assert quick == decoded
        decoder.check_all([event.value for event in made], now=NOW, stamps_us=stamps)
    for field in contract.fields:
        column = decode_column(decoder, decoded, field).to_pylist()
        for event, found in zip(made, column, strict=True):
            assert meaning(found, field.logical_type) == event.meanings[field.name], field.name


def meaning(found: Any, logical_type: str) -> Any:
    if found is None:
        return None
    if logical_type in ("object", "array", "json"):
        return json.loads(found)
    if logical_type == "number":
        assert isinstance(found, Decimal)
    if logical_type == "timestamp":
        assert isinstance(found, datetime)
    return found


@given(HEADERS)
def test_headers_survive_as_json(headers: list[tuple[str, bytes | None]]) -> None:
    assert headers_from_json(json.loads(headers_json(headers))) == headers
