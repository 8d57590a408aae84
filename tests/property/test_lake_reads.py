"""Whatever landed can be read: by the typed view, by the reader of the next room, byte for byte as it came."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming import lake
from streaming.batch import prepare_batch
from streaming.dead_letter import read_dead_letters
from streaming.decode import Refusal
from tests.acceptance.faults.rig import SEED, tell
from tests.schedule import IS_WHOLE
from tests.unit.streaming.events import NOW, FakeMessage, order_bytes

from .lake import PropertyLake
from .shapes import CONTRACTS, messages

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600 if IS_WHOLE else 300)]

every_contract = pytest.mark.parametrize("stream", CONTRACTS)


@pytest.fixture(scope="module")
def lake_of_all(fresh_database: Callable[[], AbstractContextManager[str]]) -> Iterator[PropertyLake]:
    with fresh_database() as dsn:
        made = PropertyLake(dsn, CONTRACTS.values())
        yield made
        made.close()


def land(made: PropertyLake, stream: str, given_messages: list[FakeMessage]) -> None:
    topic = CONTRACTS[stream].topic
    decoder = made.decoders[topic]
    first = given_messages[0].offset()
    batch = prepare_batch(decoder, 0, given_messages, expected_offset=first, now=NOW)
    writer = made.writer("writer")
    writer._write_once([(batch, made.claim(topic, 0, low=first))])
    writer._disconnect()


def check_reads(made: PropertyLake, stream: str, given_messages: list[FakeMessage]) -> None:
    topic = CONTRACTS[stream].topic
    rows = dict(made.query(f"SELECT topic_offset, payload::text FROM landing.{stream}"))
    letters = {letter.topic_offset: letter for letter in read_dead_letters(made.conn, topic, limit=None)}
    assert not rows.keys() & letters.keys()
    assert rows.keys() | letters.keys() == {message.offset() for message in given_messages}
    for message in given_messages:
        if message.offset() in rows:
            assert rows[message.offset()].encode() == message.value()
        else:
            letter = letters[message.offset()]
            assert (letter.value, letter.key, letter.headers) == (message.value(), message.key(), message.fields)
    assert len(made.query(f"SELECT * FROM lake.{stream}")) == len(rows), "the typed view reads every row"
    for day in lake.landed_days(made.conn, topic):
        table = lake.read_events(made.conn, topic, day=day.event_day)
        assert lake.decode_events(CONTRACTS[stream], table).num_rows == day.rows


@every_contract
@given(data=st.data())
def test_whatever_landed_can_be_read_and_dead_letters_are_whole(
    lake_of_all: PropertyLake, stream: str, data: st.DataObject
) -> None:
    given_messages = data.draw(messages(CONTRACTS[stream]))
    lake_of_all.empty()
    land(lake_of_all, stream, given_messages)
    check_reads(lake_of_all, stream, given_messages)


SEEDS = [
    order_bytes(address={"street": "\U0001f381 1", "n": [1, {"x": None}]}, tags=["a"], note="n\\u00fc", channel="web"),
    order_bytes(
        amount=-12.5, tip="0.0001", is_gift=True, due_on="2026-12-24", ordered_at="2026-11-24T11:00:00.123456+01:00"
    ),
    b' {"order_id" : "x", "amount":1e3,"items":3,"ordered_at":"2026-11-24T11:00:00Z","unknown":{"a":[1,"\\"\\\\"]}}\n',
]
TOKENS = [
    b"\\u0000", b"\\ud800", b"\\udfff", b"\\ud83d\\ude00", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"NaN", b"-Infinity", b"1e308", b"1E+400", b"-0.0", b"00", b"0x1", b"9223372036854775808",
    b"99999999999999999999.999999999", b"null", b"true", b"[", b"]", b"{", b"}", b'"', b"\\", b",", b":", b"/*", b"'",
    b"\r", b"\t", b"\x7f", b"\x1f", b"\\/", b"\\x", b"+00:00", b"Z", b"T24:00:00", b'"order_id":"again",',
    b'"\\u006frder_id":1,', b'"":0,', b"0001-01-01", b"10000-01-01", b"60", b" " * 50, b"[" * 60,
]  # fmt: skip


def mutate(draw: random.Random) -> bytes:
    value = bytearray(draw.choice(SEEDS))
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        at = draw.randrange(len(value) + 1)
        action = draw.randrange(5)
        if action == 0:
            value[at:at] = draw.choice(TOKENS)
        elif action == 1:
            del value[at : at + draw.randrange(1, 8)]
        elif action == 2 and at < len(value):
            value[at] ^= 1 << draw.randrange(8)
        elif action == 3:
            value[at:at] = value[at : at + draw.randrange(1, 20)]
        else:
            value[at : at + draw.randrange(1, 12)] = draw.choice(TOKENS)
    return bytes(value)


def test_fuzzed_events_are_landed_or_kept_aside_and_all_can_be_read(lake_of_all: PropertyLake) -> None:
    """FUZZ_SECONDS=28800 makes a night of it; CI takes as many as fit into some seconds."""
    seconds = float(os.environ.get("FUZZ_SECONDS", "120" if IS_WHOLE else "6"))
    seed = random.randrange(10**9) if IS_WHOLE else SEED
    draw, deadline, tried, landed = random.Random(seed), time.monotonic() + seconds, 0, 0
    decoder = lake_of_all.decoders["shop.orders"]
    while tried == 0 or time.monotonic() < deadline:
        given_messages = [FakeMessage(at, mutate(draw)) for at in range(2_000)]
        lake_of_all.empty()
        land(lake_of_all, "shop_orders", given_messages)
        check_reads(lake_of_all, "shop_orders", given_messages)
        tried += len(given_messages)
        landed += sum(not isinstance(decoder.judge(m.value(), now=NOW), Refusal) for m in given_messages[:100]) * 20
    tell(json.dumps({"fuzz_seed": seed, "events": tried, "landed_about": landed}))
    assert 0.05 * tried < landed < 0.95 * tried, "some mutations are still events, some are not"
