from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.contract import load_contract
from streaming.decode import REASONS, DayClock, Decoder, DoubtError, Refusal, is_utf8

from .events import NOW, order, order_bytes, orders_contract

ORDERS = Decoder(orders_contract())
RETAIL = Decoder(load_contract("retail.invoices"))


def refusal_of(value: bytes | None) -> Refusal:
    judged = ORDERS.judge(value, now=NOW)
    assert isinstance(judged, Refusal), judged
    return judged


def accepts_all(decoder: Decoder, value: bytes | None) -> bool:
    """Whether a batch of it is accepted; both ways of checking a batch have to say the same."""
    texts, found = decoder._decode_texts, []
    for check in (decoder.decode_all, decoder.check_all):
        try:
            check([value], now=NOW)
        except DoubtError:
            found.append(False)
        else:
            found.append(True)
    if decoder is ORDERS:
        decoder._decode_texts = texts  # numbers without quotes end it; other tests are to take every way
    assert found[0] is found[1]
    return found[0]


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (None, "empty", None),
        (b"", "not_json", None),
        (b"{", "not_json", None),
        (b"not json", "not_json", None),
        (b"null", "wrong_type", None),
        (b"[]", "wrong_type", None),
        (b'{"a": NaN}', "not_json", None),
        (b"\xff\xfe", "not_utf8", None),
        (order_bytes(note="x" * 3000), "too_large", None),
        (order_bytes(note="a\0b"), "nul_character", "note"),
        (order_bytes(unknown={"deep": ["\0"]}), "nul_character", "unknown"),
        (order_bytes(**{"k\0": 1}), "nul_character", ""),
        (order_bytes(order_id=...), "missing_field", "order_id"),
        (order_bytes(order_id=None), "wrong_type", "order_id"),
        (order_bytes(order_id=""), "out_of_range", "order_id"),
        (order_bytes(amount="twelve"), "wrong_type", "amount"),
        (order_bytes(amount="1_0"), "wrong_type", "amount"),
        (order_bytes(amount=" 1 "), "wrong_type", "amount"),
        (order_bytes(amount="NaN"), "wrong_type", "amount"),
        (order_bytes(amount="\uff11\uff12"), "wrong_type", "amount"),
        (order_bytes(amount=True), "wrong_type", "amount"),
        (order_bytes(amount=None), "wrong_type", "amount"),
        (order_bytes(amount=[1]), "wrong_type", "amount"),
        (order_bytes(amount="0.00001"), "too_precise", "amount"),
        (order_bytes(amount="123456789"), "too_precise", "amount"),
        (order_bytes(amount="1e400"), "too_precise", "amount"),
        (order_bytes(tip="free"), "wrong_type", "tip"),
        (order_bytes(items="3"), "wrong_type", "items"),
        (order_bytes(items=3.5), "wrong_type", "items"),
        (order_bytes(items=-1), "out_of_range", "items"),
        (order_bytes(items=1001), "out_of_range", "items"),
        (order_bytes(items=10**30), "out_of_range", "items"),
        (order_bytes(is_gift="yes"), "wrong_type", "is_gift"),
        (order_bytes(ordered_at="2026-11-24T11:00:00"), "wrong_type", "ordered_at"),
        (order_bytes(ordered_at="yesterday"), "wrong_type", "ordered_at"),
        (order_bytes(ordered_at=1_700_000_000), "wrong_type", "ordered_at"),
        (order_bytes(ordered_at="2008-12-31T23:59:59Z"), "event_time_too_early", "ordered_at"),
        (order_bytes(ordered_at="0001-01-01T00:00:00+05:00"), "event_time_too_early", "ordered_at"),
        (order_bytes(ordered_at="2026-11-25T12:00:01Z"), "event_time_too_late", "ordered_at"),
        (order_bytes(ordered_at="9999-12-31T23:59:59-05:00"), "event_time_too_late", "ordered_at"),
        (order_bytes(due_on="2026-02-30"), "wrong_type", "due_on"),
        (order_bytes(channel="fax"), "not_allowed", "channel"),
        (order_bytes(address=[]), "wrong_type", "address"),
        (order_bytes(tags={}), "wrong_type", "tags"),
        (order_bytes(note="x" * 21), "out_of_range", "note"),
        (order_bytes(note="#1"), "out_of_range", "note"),
    ],
)
def test_a_broken_event_is_refused_with_reason_and_field(value: bytes | None, reason: str, field: str | None) -> None:
    refusal = refusal_of(value)
    assert (refusal.reason, refusal.field or None) == (reason, field or None)
    assert refusal.detail
    assert reason in REASONS
    assert not accepts_all(ORDERS, value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"amount": 12.5},
        {"amount": 12},
        {"amount": "-0.0001"},
        {"amount": "1e3"},
        {"amount": "2.50000000000000000"},
        {"amount": "99999999.9999"},
        {"tip": None},
        {"tip": "0.5"},
        {"items": 0},
        {"is_gift": True, "due_on": "2026-12-24", "channel": "till", "address": {"a": [1]}, "tags": ["x"], "note": ""},
        {"ordered_at": "2026-11-25T12:00:00Z"},
        {"ordered_at": "2009-01-01T00:00:00.000000Z"},
        {"ordered_at": "2026-11-24T16:30:00+05:30"},
        {"unknown": "a field of tomorrow"},
    ],
)
def test_a_good_event_is_accepted_both_ways(changes: dict[str, Any]) -> None:
    value = order_bytes(**changes)
    assert not isinstance(ORDERS.judge(value, now=NOW), Refusal)
    assert accepts_all(ORDERS, value)


def test_bytes_that_are_no_text_are_refused_both_ways_even_in_a_field_that_nobody_knows() -> None:
    good = order_bytes()
    value = good[:-1] + b',"\x80":1}'
    assert refusal_of(value).reason == "not_utf8"
    assert not accepts_all(ORDERS, value)
    assert accepts_all(ORDERS, good[:-1] + ',"\u00fc":1}'.encode())


UTF8_PIECES = [b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xf4\x8f\xbf\xbf", b"\xc3", b"\xa9", b"a"]


@settings(max_examples=500)
@given(
    st.binary(max_size=12) | st.text(max_size=12).map(str.encode) | st.lists(st.sampled_from(UTF8_PIECES)).map(b"".join)
)
def test_utf8_is_what_python_takes_for_utf8(text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError:
        assert not is_utf8(text)
    else:
        assert is_utf8(text)


def test_an_escaped_backslash_before_u0000_is_text_and_no_nul() -> None:
    value = order_bytes(note="a \\u0000 b")
    assert not isinstance(ORDERS.judge(value, now=NOW), Refusal)
    assert not accepts_all(ORDERS, value), "a doubt that the single judgement lifts"


def test_a_number_whose_digit_is_written_as_an_escape_is_refused_both_ways() -> None:
    value = order_bytes(amount="0.10").replace(b'"0.10"', b'"0.\\u00310"')
    assert b"u0031" in value
    assert isinstance(ORDERS.judge(value, now=NOW), Refusal)
    assert not accepts_all(ORDERS, value)


def test_a_batch_is_checked_alike_whether_numbers_came_with_quotes_without_or_broken() -> None:
    decoder = Decoder(orders_contract())
    quoted, bare = order_bytes(amount="1.5", tip="0.5"), order_bytes(amount=2.5, tip=None)
    for value in (quoted, order_bytes(amount=True), quoted, bare, quoted, order_bytes(amount="0.00001"), bare):
        is_good = value in (quoted, bare)
        assert accepts_all(decoder, value) is is_good
        assert isinstance(decoder.judge(value, now=NOW), Refusal) is not is_good


def test_a_broken_number_does_not_slow_the_batches_after_it() -> None:
    decoder = Decoder(orders_contract())
    for value in (order_bytes(amount=True), order_bytes(amount="1_0"), order_bytes(note="a\\b")):
        accepts_all(decoder, value)
    assert decoder._decode_texts is not None
    accepts_all(decoder, order_bytes(amount=1.5))
    assert decoder._decode_texts is None, "good numbers without quotes do: from there on texts are not tried"


def test_a_bare_number_is_read_digit_for_digit() -> None:
    value = b'{"order_id":"o","amount":0.1,"tip":12345678.1234,"items":1,"ordered_at":"2026-01-01T00:00:00Z"}'
    events, _ = ORDERS.decode_all([value], now=NOW)
    assert ORDERS.number_column(events, "amount") == [Decimal("0.1000")]
    assert ORDERS.number_column(events, "tip") == [Decimal("12345678.1234")]


@pytest.mark.parametrize(
    ("price", "is_accepted"),
    [
        ("999999999999.999999999", True),
        ("-999999999999.999999999", True),
        ("1000000000000", False),
        ("-1000000000000", False),
        ("0.000000001", True),
        ("0.0000000001", False),
        ("0", True),
    ],
)
def test_prices_of_retail_always_leave_room_for_the_amount(price: str, *, is_accepted: bool) -> None:
    event = {
        "event_id": "e", "invoice_no": "1", "line_no": 1, "stock_code": "", "quantity": 10**9, "unit_price": price,
        "invoiced_at": "2010-12-01T08:26:00Z", "country": "",
    }  # fmt: skip
    judged = RETAIL.judge(json.dumps(event).encode(), now=NOW)
    assert isinstance(judged, Refusal) is not is_accepted
    assert accepts_all(RETAIL, json.dumps(event).encode()) is is_accepted
    if is_accepted:
        assert abs(Decimal(price) * 10**9) < Decimal(10) ** 29


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.dates().map(str)
    | st.datetimes().map(lambda at: at.isoformat() + "Z") | st.decimals(allow_nan=False, allow_infinity=False).map(str),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from([*order(), "tip", "note", "channel", "due_on", "other"]), json_values))
def test_the_whole_batch_and_the_single_event_are_judged_alike(changes: dict[str, Any]) -> None:
    value = order_bytes(**changes)
    is_doubted_for_nothing = b"\\u0000" in value
    assert is_doubted_for_nothing or accepts_all(ORDERS, value) is not isinstance(ORDERS.judge(value, now=NOW), Refusal)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60) | st.binary(max_size=20).map(lambda noise: order_bytes()[:30] + noise + order_bytes()[30:])
)
def test_no_bytes_make_the_decoder_raise(value: bytes) -> None:
    judged = ORDERS.judge(value, now=NOW)
    assert accepts_all(ORDERS, value) is not isinstance(judged, Refusal)


@pytest.mark.parametrize("zone", ["+16:00", "-16:00", "-23:59", "+23:00"])
def test_a_zone_that_postgres_does_not_read_is_refused(zone: str) -> None:
    """One such event would make every read of the typed view fail."""
    value = order_bytes(ordered_at=f"2026-11-24T11:00:00{zone}")
    judged = ORDERS.judge(value, now=NOW)
    assert isinstance(judged, Refusal)
    assert (judged.reason, judged.field) == ("wrong_type", "ordered_at")
    assert not accepts_all(ORDERS, value)
    for near in ("+15:59", "-15:59"):
        value = order_bytes(ordered_at=f"2026-11-24T11:00:00{near}")
        assert not isinstance(ORDERS.judge(value, now=NOW), Refusal)
        assert accepts_all(ORDERS, value)


@pytest.mark.parametrize("depth", [300, 700, 1200, 5000])
def test_a_wrong_type_before_a_deeply_nested_value_is_a_refusal(depth: int) -> None:
    value = b'{"event_id": 5, "x": ' + b"[" * depth + b"]" * depth + b"}"
    judged = RETAIL.judge(value, now=NOW)
    assert isinstance(judged, Refusal)
    assert judged.reason in ("wrong_type", "not_json")
    assert not accepts_all(RETAIL, value)


@pytest.mark.parametrize("found", [b"[" * 700 + b"]" * 700, b"9" * 4400, b"[" + b"9" * 4400 + b"]"])
def test_a_value_that_cannot_be_shown_is_refused_without_it(found: bytes) -> None:
    assert isinstance(RETAIL.judge(b'{"event_id": ' + found + b"}", now=NOW), Refusal)


TIMES = Decoder(
    orders_contract(**{
        "- {name: due_on, logicalType: date}": "- {name: paid_at, logicalType: timestamp}\n      "
        "- {name: seen_at, logicalType: timestamp, logicalTypeOptions: {timezone: false}}"
    })
)  # fmt: skip


@pytest.mark.parametrize("field", ["ordered_at", "paid_at", "seen_at"])
@pytest.mark.parametrize("text", ["2026-11-24T11:00:00.{}Z", "2026-11-24 11:00:00.{}z", "2026-11-24T11:00:00.{}+05:45"])
def test_more_than_nine_digits_of_a_second_are_refused(field: str, text: str) -> None:
    for digits in ("1", "123456", "1234565", "123456789", "000000000"):
        value = order_bytes(**{field: text.format(digits)})
        assert not isinstance(TIMES.judge(value, now=NOW), Refusal)
        assert accepts_all(TIMES, value)
    for digits in ("1234567890", "0000000000", "1" * 200):
        value = order_bytes(**{field: text.format(digits)})
        judged = TIMES.judge(value, now=NOW)
        assert isinstance(judged, Refusal)
        assert (judged.reason, judged.field) == ("too_precise", field)
        assert judged.detail.endswith(f"has {len(digits)} digits of a second, at most 9 are read")
        assert not accepts_all(TIMES, value)


@pytest.mark.parametrize(
    "written", [rb"11:00:00\u002e1234567890Z", rb"11:00:00\u002E1234567890Z", rb"11:00:00.12345\u003667890Z",
                rb"11:00\u003a00.1234567890Z", rb"11:00\u003A00.1234567890Z", rb"11:00:0\u0030.1234567890Z"],
)  # fmt: skip
def test_digits_behind_an_escape_are_counted_too(written: bytes) -> None:
    for field in ("ordered_at", "paid_at"):
        value = order_bytes(**{field: "2026-11-24T@"}).replace(b"@", written)
        judged = TIMES.judge(value, now=NOW)
        assert isinstance(judged, Refusal)
        assert (judged.reason, judged.field) == ("too_precise", field)
        assert not accepts_all(TIMES, value)


def test_what_only_looks_like_a_long_fraction_lands() -> None:
    value = order_bytes(
        paid_at="2026-11-24T11:00:00.5Z", lat=51.0123456789, lon="7.0123456789", more={"at": "11:00:00.0123456789"}
    ).replace(b'": ', b'":')
    assert not isinstance(TIMES.judge(value, now=NOW), Refusal)
    numbers_only = order_bytes(paid_at="2026-11-24T11:00:00.5Z", lat=51.0123456789, a="<\u00e9>").replace(b'": ', b'":')
    assert accepts_all(TIMES, numbers_only)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["ordered_at", "paid_at", "seen_at"]), st.text("0123456789", min_size=1, max_size=14),
       st.sampled_from(["T", " "]), st.sampled_from(["Z", "+01:00", ""]))  # fmt: skip
def test_fractions_are_judged_alike_in_a_batch_and_alone(field: str, digits: str, mark: str, zone: str) -> None:
    value = order_bytes(**{field: f"2026-11-24{mark}08:59:59.{digits}{zone}"})
    assert accepts_all(TIMES, value) is not isinstance(TIMES.judge(value, now=NOW), Refusal)


def nested(levels: int, inner: bytes = b"") -> bytes:
    """An event with a key that the contract does not know; the event itself is the first level."""
    opened, closed = b'[{"a":' * 200, b"}]" * 200
    half, odd = divmod(levels - 1, 2)
    text = opened[: 6 * half] + b"[" * odd + (inner or b"1") + b"]" * odd + closed[: 2 * half]
    return order_bytes()[:-1] + b', "deep": ' + text + b"}"


LARGE = Decoder(orders_contract(**{"value: 2000": "value: 1000000"}))


@pytest.mark.parametrize("inner", [b"", b'"[[[{{"', b'"]]]}}}"', rb'"\\\"[\"]\\"', b'"\xc3\xbb\xc3\x9b"'])
def test_levels_are_counted_outside_of_texts_and_200_of_them_land(inner: bytes) -> None:
    assert not isinstance(LARGE.judge(nested(200, inner), now=NOW), Refusal)
    assert accepts_all(LARGE, nested(200, inner))
    judged = LARGE.judge(nested(201, inner), now=NOW)
    assert judged == Refusal("not_json", "it nests more than 200 levels deep")
    assert not accepts_all(LARGE, nested(201, inner))


def test_a_deep_event_is_found_among_others_and_wide_ones_are_not_deep() -> None:
    wide = order_bytes(wide=[{"n": [n, "{[", ']\\"']} for n in range(400)], end="]" * 300)
    many = [order_bytes(n=n, items=n % 9, more=[{}, [[]]]) for n in range(600)]
    LARGE.check_all([*many, wide, nested(200), *many], now=NOW)
    LARGE.decode_all([*many, wide, nested(200), *many], now=NOW)
    for check in (LARGE.check_all, LARGE.decode_all):
        with pytest.raises(DoubtError):
            check([*many, wide, nested(201), *many], now=NOW)


def test_u_0000_in_a_deep_value_is_refused() -> None:
    for levels in (150, 600, 960):
        judged = LARGE.judge(nested(levels, b'"\\u0000"'), now=NOW)
        assert isinstance(judged, Refusal)
        assert judged.reason == ("nul_character" if levels == 150 else "not_json")


def test_deep_nesting_is_refused_and_no_crash() -> None:
    value = order_bytes()[:-1] + b',"deep":' + b"[" * 900 + b"]" * 900 + b"}"
    judged = Decoder(orders_contract(**{"value: 2000": "value: 1000000"})).judge(value, now=NOW)
    assert isinstance(judged, Refusal) or judged is not None
    very_deep = order_bytes()[:-1] + b',"deep":' + b"[" * 100_000 + b"}"
    judged = Decoder(orders_contract(**{"value: 2000": "value: 1000000"})).judge(very_deep, now=NOW)
    assert isinstance(judged, Refusal)
    assert judged.reason == "not_json"


@pytest.mark.parametrize(
    "zone",
    [
        "UTC",
        "Europe/London",
        "America/St_Johns",
        "Asia/Kolkata",
        "Pacific/Apia",
        "Africa/Casablanca",
        "Australia/Lord_Howe",
    ],
)
@settings(max_examples=60, deadline=None)
@given(at=st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1)))  # noqa: DTZ001
def test_the_event_day_is_the_zone_s_date(zone: str, at: datetime) -> None:
    instant = at.replace(tzinfo=UTC)
    microseconds = (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    day = int(CLOCKS[zone].days(np.array([microseconds], dtype=np.int64))[0])
    assert date(1970, 1, 1) + timedelta(days=day) == instant.astimezone(ZoneInfo(zone)).date()


CLOCKS = {
    zone: DayClock(zone)
    for zone in (
        "UTC", "Europe/London", "America/St_Johns", "Asia/Kolkata", "Pacific/Apia", "Africa/Casablanca",
        "Australia/Lord_Howe",
    )
}  # fmt: skip


def test_the_event_day_is_right_at_every_change_of_summer_time() -> None:
    clock, zone = CLOCKS["Europe/London"], ZoneInfo("Europe/London")
    for year in range(2009, 2030):
        for month in (3, 10):
            start = datetime(year, month, 24, 20, tzinfo=UTC)
            instants = [start + timedelta(minutes=30 * step) for step in range(2 * 24 * 8)]
            epoch = datetime(1970, 1, 1, tzinfo=UTC)
            days = clock.days(np.array([(i - epoch) // timedelta(microseconds=1) for i in instants], dtype=np.int64))
            assert [date(1970, 1, 1) + timedelta(days=int(d)) for d in days] == [
                i.astimezone(zone).date() for i in instants
            ]
