"""A column of times is read as the decoder reads each, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streaming.decode import Decoder, DoubtError
from streaming.iso_times import iso_times_us

from .events import NOW, order_bytes, orders_contract

DECODER = Decoder(orders_contract())
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(text: str) -> int:
    """As msgspec reads one time."""
    delta = msgspec.convert(text, datetime) - EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


two = st.integers(0, 99).map("{:02d}".format)
time_texts = st.builds(
    "".join,
    st.tuples(
        st.integers(0, 9999).map("{:04d}".format), st.sampled_from("-/"), two, st.just("-"), two,
        st.sampled_from(["T", "T", "T", " ", "t"]), two, st.just(":"), two, st.sampled_from([":", ":", ""]), two,
        st.sampled_from(["", ".", ".5", ".123", ".123456", ".1234567", ".1234567890"]),
        st.sampled_from(["Z", "Z", "z", "", "+00:00", "-05:30", "+23:59", "+24:00", "+0100", "+01", "+01:60"]),
    ),
)  # fmt: skip
good_texts = st.datetimes(timezones=st.sampled_from([UTC])).map(datetime.isoformat)


@settings(deadline=None)
@given(st.lists(time_texts | good_texts | st.text(max_size=30), min_size=1, max_size=4))
@example(["2024-02-29T00:00:00Z", "2023-02-28T23:59:59.999999+23:59"])
@example(["2023-02-29T00:00:00Z"])
@example(["1969-12-31T23:59:59.000001-00:01"])
def test_what_is_read_by_columns_is_what_is_read_one_by_one(texts: list[str]) -> None:
    found = iso_times_us(texts)
    if found is not None:
        assert found.tolist() == [micros(text) for text in texts]


@settings(deadline=None)
@given(st.lists(good_texts, min_size=1, max_size=20))
def test_what_producers_write_is_read_by_columns(texts: list[str]) -> None:
    found = iso_times_us(texts)
    assert found is not None
    assert found.tolist() == [micros(text) for text in texts]


@pytest.mark.parametrize(
    "text",
    [
        "2010-12-01 08:26:00Z", "2010-12-01T08:26Z+00:00", "2010-12-01T08:26:00", "2010-12-01T24:00:00Z",
        "2010-13-01T08:26:00Z", "2010-11-31T08:26:00Z", "2010-12-01T08:26:60Z", "2010-12-01T08:26:00.Z",
        "2010-12-01T08:26:00.1234567Z", "2010-12-01T08:26:00+24:00", "2010-12-01T08:26:00,5Z", "",
        "\uff1210-12-01T08:26:00Z",
    ],
)  # fmt: skip
def test_what_is_written_otherwise_is_left_to_the_reader_of_single_times(text: str) -> None:
    assert iso_times_us(["2010-12-01T08:26:00Z", text]) is None


@settings(deadline=None)
@given(st.lists(time_texts | good_texts, min_size=1, max_size=4))
def test_the_quick_check_of_a_batch_accepts_nothing_that_the_judge_refuses(texts: list[str]) -> None:
    values = [order_bytes(ordered_at=text) for text in texts]
    try:
        times = DECODER.check_all(values, now=NOW)
    except DoubtError:
        return
    judged = [DECODER.judge(value, now=NOW) for value in values]
    assert times.tolist() == DECODER.event_times(judged).tolist()
