from __future__ import annotations

import struct
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming import decode
from streaming.batch import (
    COPY_COLUMNS,
    EPOCH_2000_US,
    Batch,
    Gap,
    _distinct,
    prepare_batch,
)
from streaming.decode import Decoder, Refusal
from streaming.headers import headers_from_json, headers_json

from .events import NOW, FakeMessage, order_bytes, orders_contract

DECODER = Decoder(orders_contract())
KEEPING_HEADERS = Decoder(
    orders_contract(**{"- {property: messageKey": "- {property: keepHeaders, value: true}\n  - {property: messageKey"})
)


def prepare(messages: list[FakeMessage], *, expected: int | None = None, decoder: Decoder = DECODER) -> Batch:
    start = messages[0].at if expected is None else expected
    return prepare_batch(decoder, 2, messages, expected_offset=start, now=NOW)


def unpack(rows: bytes) -> list[tuple[bytes | None, ...]]:
    """The inverse of COPY BINARY: columns as bytes."""
    found, at = [], 0
    while at < len(rows):
        (count,) = struct.unpack_from(">h", rows, at)
        at += 2
        columns: list[bytes | None] = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", rows, at)
            at += 4
            columns.append(None if length < 0 else rows[at : at + length])
            at += max(length, 0)
        found.append(tuple(columns))
    return found


def test_a_row_holds_identity_times_and_the_event_byte_for_byte() -> None:
    value = b' {"ordered_at":"2026-06-30T23:30:00+00:00", "amount":1.50,"items":1,"order_id":"o"}'
    batch = prepare([FakeMessage(17, value, b"o")])
    row = dict(zip(COPY_COLUMNS, unpack(batch.copy_rows)[0], strict=True))
    assert row["payload"] == value
    assert row["key"] == b"o"
    assert row["headers"] is None
    assert struct.unpack(">iq", row["topic_partition"] + row["topic_offset"]) == (2, 17)
    days = struct.unpack(">i", row["event_day"])[0]
    assert date(2000, 1, 1).toordinal() + days == date(2026, 7, 1).toordinal(), "London is an hour ahead in summer"
    micros = struct.unpack(">q", row["event_at"])[0]
    assert micros == (datetime(2026, 6, 30, 23, 30) - datetime(2000, 1, 1)).total_seconds() * 1_000_000  # noqa: DTZ001
    produced = struct.unpack(">q", row["produced_at"])[0]
    assert produced == (1_795_521_600_123 - 946_684_800_000) * 1000


def test_a_message_without_key_and_timestamp_lands_with_nulls() -> None:
    messages = [FakeMessage(1, order_bytes(), None, (0, -1)), FakeMessage(2, order_bytes(), b"", (1, 5))]
    first, second = (dict(zip(COPY_COLUMNS, row, strict=True)) for row in unpack(prepare(messages).copy_rows))
    assert (first["key"], first["produced_at"]) == (None, None)
    assert (second["key"], second["produced_at"] is None) == (b"", False)


def test_a_refused_event_is_kept_whole_and_the_others_land() -> None:
    headers = [("event-id", b"e"), ("event-id", b"f"), ("bin", b"\xff\0"), ("none", None)]
    broken = FakeMessage(11, b"\xff{", b"\xfe", fields=headers)
    batch = prepare([FakeMessage(10, order_bytes()), broken, FakeMessage(12, order_bytes())])
    assert batch.rows == 2
    (letter,) = batch.rejected
    assert (letter.topic_offset, letter.value, letter.key, letter.headers) == (11, b"\xff{", b"\xfe", headers)
    assert letter.refusal.reason == "not_utf8"
    assert letter.produced_at == datetime(2026, 11, 24, 12, 0, 0, 123_000, tzinfo=UTC)
    assert (batch.first_offset, batch.next_offset, batch.last_offset) == (10, 13, 12)


def test_an_event_on_which_the_check_itself_fails_is_kept_aside_and_the_others_land(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder, judge = Decoder(orders_contract()), Decoder.judge

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    def judge_or_fail(self: Decoder, value: bytes | None, **more: Any) -> Any:
        return fail() if value is not None and b"odd" in value else judge(self, value, **more)

    monkeypatch.setattr(Decoder, "check_all", fail)
    monkeypatch.setattr(Decoder, "judge", judge_or_fail)
    messages = [FakeMessage(1, order_bytes()), FakeMessage(2, order_bytes(note="odd")), FakeMessage(3, order_bytes())]
    batch = prepare(messages, decoder=decoder)
    (letter,) = batch.rejected
    assert (batch.rows, letter.topic_offset) == (2, 2)
    assert letter.refusal == Refusal("not_judged", "ZeroDivisionError: nobody foresaw this")


def test_an_event_is_not_refused_because_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    for name in ("check_all", "judge"):
        with monkeypatch.context() as patched:
            patched.setattr(Decoder, name, fail)
            with pytest.raises(MemoryError):
                prepare([FakeMessage(1, order_bytes()), FakeMessage(2, b"{")])


def test_a_batch_of_refused_events_only_moves_the_offset() -> None:
    batch = prepare([FakeMessage(5, None), FakeMessage(6, b"{")])
    assert (batch.rows, batch.copy_rows, batch.days, batch.next_offset) == (0, b"", (), 7)
    assert [letter.refusal.reason for letter in batch.rejected] == ["empty", "not_json"]


def test_holes_become_gaps_and_offsets_still_add_up() -> None:
    messages = [FakeMessage(at, order_bytes()) for at in (12, 13, 17, 20)]
    batch = prepare(messages, expected=10)
    assert [(gap.first_offset, gap.last_offset) for gap in batch.gaps] == [(10, 11), (14, 16), (18, 19)]
    assert batch.next_offset - batch.first_offset == batch.rows + batch.gap_offsets
    assert Gap(3, 3, "not_delivered", "").offsets == 1


def test_rows_are_summed_by_event_day() -> None:
    times = ["2026-11-24T01:00:00Z", "2026-11-23T01:00:00Z", "2026-11-24T02:00:00Z"]
    batch = prepare([FakeMessage(at, order_bytes(ordered_at=time)) for at, time in enumerate(times, start=100)])
    sums = [(day.event_day, day.rows, day.first_offset, day.last_offset) for day in batch.days]
    assert sums == [(date(2026, 11, 23), 1, 101, 101), (date(2026, 11, 24), 2, 100, 102)]
    assert sum(day.payload_bytes for day in batch.days) == batch.payload_bytes
    assert batch.first_event_at == datetime(2026, 11, 23, 1, tzinfo=UTC)
    assert batch.last_event_at == datetime(2026, 11, 24, 2, tzinfo=UTC)


@pytest.mark.parametrize(("ahead_s", "told_s"), [(-60, -60), (0, 0), (3_000, 0)])
def test_the_newest_moment_of_production_is_now_at_most(ahead_s: int, told_s: int) -> None:
    stamp = (1, round(NOW.timestamp() + ahead_s) * 1000)
    batch = prepare([FakeMessage(1, order_bytes(), stamp=(1, 1_000)), FakeMessage(2, order_bytes(), stamp=stamp)])
    assert batch.newest_produced_at == NOW + timedelta(seconds=told_s)
    (produced,) = struct.unpack(">q", unpack(batch.copy_rows)[1][4] or b"")
    assert produced == stamp[1] * 1000 - EPOCH_2000_US, "the row keeps what the message says"


def test_what_postgres_refused_becomes_a_dead_letter() -> None:
    messages = [FakeMessage(1, order_bytes()), FakeMessage(2, order_bytes())]
    refused = {2: Refusal("refused_by_postgres", "no")}
    batch = prepare_batch(DECODER, 0, messages, expected_offset=1, now=NOW, refused=refused)
    assert (batch.rows, [letter.topic_offset for letter in batch.rejected]) == (1, [2])


def test_headers_are_kept_with_the_row_if_the_contract_says_so() -> None:
    batch = prepare([FakeMessage(1, order_bytes(), fields=[("trace", b"abc")])], decoder=KEEPING_HEADERS)
    assert unpack(batch.copy_rows)[0][6] == b'[["trace", "abc", "utf8"]]'


def test_headers_to_keep_that_are_no_text_make_a_dead_letter() -> None:
    batch = prepare([FakeMessage(1, order_bytes(), fields=[("trace", b"\xff")])], decoder=KEEPING_HEADERS)
    assert batch.rejected[0].refusal.reason == "headers_undecodable"


@given(st.lists(st.tuples(st.text(), st.none() | st.binary())))
def test_headers_of_dead_letters_survive_the_way_there_and_back(headers: list[tuple[str, bytes | None]]) -> None:
    import json

    assert headers_from_json(json.loads(headers_json(headers))) == headers


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from([order_bytes(), b"{", None, order_bytes(items=-1)])),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 5),
)
def test_every_offset_is_landed_dead_or_a_gap(steps: list[tuple[int, bytes | None]], before: int) -> None:
    messages, at = [], 100
    for step, value in steps:
        at += step
        messages.append(FakeMessage(at, value))
    batch = prepare(messages, expected=messages[0].at - before)
    assert batch.next_offset - batch.first_offset == batch.rows + len(batch.rejected) + batch.gap_offsets
    assert len(unpack(batch.copy_rows)) == batch.rows == sum(day.rows for day in batch.days)


@pytest.mark.parametrize("days", [[3], [3, 3], [5, 4, 5, 4], [-2, 7, -2, 0], [0, 2_000_000, -700_000, 0]])
def test_the_days_of_a_batch_are_found_once_each_however_far_apart(days: list[int]) -> None:
    assert _distinct(np.array(days)).tolist() == sorted(set(days))


@pytest.mark.parametrize("keep_headers", ["false", "true"])
def test_a_pattern_that_takes_for_ever_costs_its_event_alone(
    monkeypatch: pytest.MonkeyPatch, keep_headers: str
) -> None:
    """Hours for forty letters, in which the process did nothing else; SIGTERM was not heard either."""
    monkeypatch.setattr(decode, "SLOW_BATCH_S", 0.1)
    monkeypatch.setattr(decode, "SLOW_EVENT_S", 0.1)
    slow = r'maxLength: 60, pattern: "^(\\w+\\s?)*$"'
    keeps = f"- {{property: keepHeaders, value: {keep_headers}}}\n  - {{property: messageKey"
    contract = orders_contract(**{'maxLength: 20, pattern: "^[^#]*$"': slow, "- {property: messageKey": keeps})
    values = [order_bytes(note="good"), order_bytes(note="a" * 40 + "!"), order_bytes(note="a!"), order_bytes()]
    messages = [FakeMessage(at, value) for at, value in enumerate(values)]
    batch = prepare_batch(Decoder(contract), 0, messages, expected_offset=0, now=NOW)
    assert batch.rows == 2
    assert [(letter.topic_offset, letter.refusal.reason) for letter in batch.rejected] == [
        (1, "not_judged"),
        (2, "out_of_range"),
    ]
    assert "a pattern of the contract (note)" in batch.rejected[0].refusal.detail
