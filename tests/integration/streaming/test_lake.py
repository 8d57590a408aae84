"""The room's door, as its readers use it."""

from __future__ import annotations

import json
import struct
import threading
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from streaming import copy_out, lake
from streaming.errors import LostRowsError

from .rig import Rig, line

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.integration

DAY = date(2010, 12, 1)


def at(day: date, number: int, **changes: Any) -> dict[str, Any]:
    return line(number, invoiced_at=f"{day}T08:26:00Z", **changes)


def land(rig: Rig, events: Iterable[dict[str, Any]], *, partition: int) -> None:
    """One batch."""
    rig.send(events, partition=partition)
    rig.land(idle_s=0.3)


def offsets(table: pa.Table) -> list[tuple[int, int]]:
    return [(row["topic_partition"], row["topic_offset"]) for row in table.to_pylist()]


def test_events_are_read_by_day_and_batch(rig: Rig) -> None:
    other = DAY + timedelta(days=1)
    land(rig, [at(DAY, 1), at(other, 2), at(DAY, 3)], partition=0)
    land(rig, [at(DAY, 4)], partition=1)
    land(rig, [at(other, 5), at(DAY, 6)], partition=0)
    with rig.connect() as conn:
        days = lake.landed_days(conn, rig.topic)
        assert [(day.event_day, day.rows, day.batches) for day in days] == [
            (DAY, 4, {0: 2, 1: 1}),
            (other, 2, {0: 2}),
        ]
        assert lake.landed_days(conn, rig.topic, days=[other]) == days[1:]
        assert lake.landed_days(conn, rig.topic, days=[]) == []
        assert offsets(lake.read_events(conn, rig.topic, day=DAY)) == [(0, 0), (0, 2), (0, 4), (1, 0)]
        assert offsets(lake.read_events(conn, rig.topic, day=DAY, upto={0: 1, 1: 1})) == [(0, 0), (0, 2), (1, 0)]
        assert offsets(lake.read_events(conn, rig.topic, day=DAY, after={0: 1, 1: 1})) == [(0, 4)]
        assert offsets(lake.read_events(conn, rig.topic, day=DAY, after={0: 1}, upto={0: 2, 1: 1})) == [(0, 4), (1, 0)]
        assert offsets(lake.read_events(conn, rig.topic, day=DAY, upto={0: 1})) == [(0, 0), (0, 2)]
        assert offsets(lake.read_events(conn, rig.topic, day=DAY, after={0: 2}, upto={0: 2})) == []
        assert offsets(lake.read_events(conn, rig.topic, day=DAY, upto={})) == []
        assert lake.read_events(conn, rig.topic, day=date(1999, 1, 1)).num_rows == 0


@pytest.mark.parametrize(
    ("after", "most_rows", "most_bytes", "batches", "rows_left"),
    [
        ({}, 100, 1 << 30, {0: 3, 1: 1}, 0),
        ({}, 4, 1 << 30, {0: 1, 1: 1}, 2),
        ({}, 5, 1 << 30, {0: 2, 1: 1}, 1),
        ({0: 1, 1: 1}, 1, 1 << 30, {0: 2}, 1),
        ({0: 3}, 2, 1 << 30, {1: 1}, 0),
        ({}, 1, 1 << 30, {0: 1}, 3),  # a batch larger than that is read all the same
        ({}, 100, 1, {0: 1}, 3),
        ({}, 100, 1_000, {0: 1, 1: 1}, 2),  # a line has some 200 bytes; of the other day's none are counted
        ({0: 3, 1: 1}, 2, 1 << 30, {}, 0),
    ],
)
def test_a_day_is_read_by_parts_of_so_many_rows_and_bytes(
    rig: Rig, after: dict[int, int], most_rows: int, most_bytes: int, batches: dict[int, int], rows_left: int
) -> None:
    other = [at(DAY + timedelta(days=1), number) for number in range(20, 40)]
    land(rig, [at(DAY, 1), at(DAY, 2), at(DAY, 3), *other], partition=0)
    land(rig, [at(DAY, 4)], partition=0)
    land(rig, [at(DAY, 5), *other], partition=0)
    land(rig, [at(DAY, 6)], partition=1)
    with rig.connect() as conn:
        [day, _] = lake.landed_days(conn, rig.topic)
        part = lake.next_part(
            conn, rig.topic, day=DAY, after=after, upto=day.batches, most_rows=most_rows, most_bytes=most_bytes
        )
    assert part.batches == batches
    stored = rig.query(
        "SELECT topic_partition, batch, (extract(epoch FROM landed_at) * 1000000)::bigint FROM control.batch"
    )
    times = {(number, batch): landed_us for number, batch, landed_us in stored}
    assert part.landed_us == {number: times[number, batch] for number, batch in batches.items()}
    assert part.rows_left == rows_left


def test_rows_that_were_taken_out_by_hand_are_missed_by_who_reads_their_batches(rig: Rig) -> None:
    """A day that was rebuilt of what is left would lose the event, and every layer would agree that it never was."""
    land(rig, [at(DAY, 1), at(DAY, 2)], partition=0)
    land(rig, [at(DAY, 3)], partition=0)
    rig.execute(f"DELETE FROM landing.{rig.contract.stream} WHERE topic_offset = 1")
    with rig.connect() as conn:
        for bounds in ({"upto": {0: 2}}, {"after": {}, "upto": {0: 1, 1: 1}}, {"after": {1: 1}}):
            with pytest.raises(LostRowsError, match=r"rows where the lake's ledger counts .* Restore the rows"):
                lake.read_events(conn, rig.topic, day=DAY, **bounds)
        assert offsets(lake.read_events(conn, rig.topic, day=DAY, after={0: 1}, upto={0: 2})) == [(0, 2)]


def test_days_whose_rows_are_not_those_that_the_ledger_counts_are_told(rig: Rig) -> None:
    other, empty = date(2010, 12, 2), date(2010, 12, 3)
    land(rig, [at(DAY, 1), at(DAY, 2)], partition=0)
    land(rig, [at(DAY, 3)], partition=1)
    land(rig, [at(other, 4), at(other, 5)], partition=0)
    table = f"landing.{rig.contract.stream}"
    with rig.connect() as conn:
        assert lake.miscounted_days(conn, rig.topic, days=[DAY, other, empty]) == {}
        rig.execute(f"DELETE FROM {table} WHERE topic_partition = 0 AND topic_offset = 1")
        rig.execute(f"DELETE FROM {table} WHERE event_day = '{other}'")
        assert lake.miscounted_days(conn, rig.topic, days=[DAY, other, empty]) == {DAY: (3, 2), other: (2, 0)}
        assert lake.miscounted_days(conn, rig.topic, days=[other]) == {other: (2, 0)}
        assert lake.miscounted_days(conn, rig.topic, days=[]) == {}
        rig.execute(
            "INSERT INTO control.retired_day (topic, event_day, topic_partition, rows, checksum, last_batch) "
            f"VALUES ('{rig.topic}', '{other}', 0, 2, 0, 2)"
        )
        assert lake.miscounted_days(conn, rig.topic, days=[other]) == {}, "retention has taken them, and remembers it"


@pytest.mark.parametrize("copies", [1, 2, 3, 4])
def test_many_rows_are_read_by_several_copies_as_by_one(rig: Rig, monkeypatch: pytest.MonkeyPatch, copies: int) -> None:
    spread = json.dumps(at(DAY, 5, description='over\nlines, "quoted"'), indent=1).encode()
    for partition in (0, 1, 2):
        land(rig, [at(DAY, 10 * partition + number) for number in range(3)], partition=partition)
    rig.send([spread], partition=1)
    rig.land(idle_s=0.3)
    upto = {0: 1, 1: 2, 2: 1, 3: 4}  # nothing has landed in topic partition 3
    with rig.connect() as conn:
        one = lake.read_events(conn, rig.topic, day=DAY, upto=upto)
        monkeypatch.setattr(lake, "MANY_OFFSETS", 0)
        monkeypatch.setattr(lake, "MOST_COPIES", copies)
        monkeypatch.setattr(copy_out, "PART_ROWS", copies)
        several = lake.read_events(conn, rig.topic, day=DAY, upto=upto)
        monkeypatch.setattr(copy_out, "PART_BYTES", 1)
        assert lake.read_events(conn, rig.topic, day=DAY, upto=upto).equals(one)
        counted = lake.day_checksum(conn, rig.topic, DAY, upto=upto)
    assert offsets(one) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2)]
    assert one["payload"].to_pylist()[6] == spread.decode()
    assert several.equals(one)
    assert counted[0] == one.num_rows


def test_an_answer_in_another_form_is_refused() -> None:
    fields = (4, 4, 0, 8, 7, 8, 0, 2)
    assert copy_out.read_rows([struct.pack(">hiiiqiqi", *fields) + b"{}"])["topic_offset"].to_pylist() == [7]
    for at, wrong in ((0, 5), (1, 8), (3, 4), (5, 4), (7, 3)):
        row = struct.pack(">hiiiqiqi", *(wrong if index == at else each for index, each in enumerate(fields))) + b"{}"
        with pytest.raises(ValueError, match="not in PostgreSQL's binary form"):
            copy_out.read_rows([row])


def test_payloads_and_times_come_back_as_they_were(rig: Rig) -> None:
    texts = ['comma, "quote"', "new\nline\r\n", "\\N", "", "ÄÖ€😀", "\\\\", "\u0085\u2028", '"', "x" * 5000, "\t\x7f"]
    events = [at(DAY, number, description=text) for number, text in enumerate(texts)]
    before = datetime.now(UTC)
    land(rig, events, partition=0)
    with rig.connect() as conn:
        table = lake.read_events(conn, rig.topic, day=DAY)
    assert table.schema == lake.EVENTS_SCHEMA
    assert table["payload"].to_pylist() == [json.dumps(event) for event in events]
    assert table["topic"].to_pylist() == [rig.topic] * len(texts)
    assert table["event_day"].to_pylist() == [DAY] * len(texts)
    produced = table["produced_at"].to_pylist()
    assert all(
        before - timedelta(seconds=1) < instant < datetime.now(UTC) + timedelta(seconds=1) for instant in produced
    )
    stored = rig.query(f"SELECT produced_at FROM landing.{rig.contract.stream} ORDER BY topic_offset")
    assert produced == [row[0] for row in stored]


def test_rows_without_a_timestamp_of_their_message_are_read_among_others(rig: Rig) -> None:
    last = datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    land(rig, [at(DAY, number) for number in range(3)], partition=0)
    with rig.connect() as conn:
        before = lake.read_events(conn, rig.topic, day=DAY)
        with conn.cursor() as cursor:
            for offset, instant in ((1, None), (2, last)):
                cursor.execute(
                    f"UPDATE landing.{rig.contract.stream} SET produced_at = %s WHERE topic_offset = %s",
                    (instant, offset),
                )
        conn.commit()
        table = lake.read_events(conn, rig.topic, day=DAY)
    assert table["produced_at"].to_pylist() == [before["produced_at"][0].as_py(), None, last]
    assert table.drop_columns(["produced_at"]).equals(before.drop_columns(["produced_at"]))


def test_decoded_events_have_the_contract_s_types_and_exact_values(rig: Rig) -> None:
    prices = ["2.55", "0.123456789", "-11062.06", "999999999999.999999999", "0"]
    events = [at(DAY, number, unit_price=price) for number, price in enumerate(prices)]
    events.append(at(DAY, 9, unit_price=0.1, customer_id="17850", description=None))
    land(rig, events, partition=0)
    with rig.connect() as conn:
        decoded = lake.decode_events(rig.contract, lake.read_events(conn, rig.topic, day=DAY))
    assert decoded.schema.field("unit_price").type == pa.decimal128(38, 9)
    assert decoded["unit_price"].to_pylist() == [Decimal(price) for price in [*prices, "0.1"]]
    assert decoded["quantity"].type == pa.int64()
    assert decoded["invoiced_at"].type == pa.timestamp("us", tz="UTC")
    assert decoded["customer_id"].to_pylist()[-2:] == [None, "17850"]
    assert decoded["description"].to_pylist()[-1] is None
    assert decoded.column_names == [
        "topic", "topic_partition", "topic_offset", "produced_at", "event_day",
        *(field.name for field in rig.contract.fields),
    ]  # fmt: skip
    empty = lake.decode_events(rig.contract, lake.EVENTS_SCHEMA.empty_table())
    assert (empty.num_rows, empty.schema) == (0, decoded.schema)


def test_a_day_is_pending_until_its_reader_has_read_it(rig: Rig) -> None:
    land(rig, [at(DAY, 1)], partition=0)
    land(rig, [at(DAY, 2)], partition=1)
    with rig.connect() as conn:
        (pending,) = lake.pending_days(conn, rig.topic, "core")
        assert (pending.event_day, pending.landed, pending.read, pending.rows_landed) == (DAY, {0: 1, 1: 1}, {}, 2)
        lake.mark_read(conn, rig.topic, "core", day=DAY, batches={0: 1})
        (pending,) = lake.pending_days(conn, rig.topic, "core")
        assert pending.read == {0: 1}
        lake.mark_read(conn, rig.topic, "core", day=DAY, batches={0: 1, 1: 1})
        assert lake.pending_days(conn, rig.topic, "core") == []
        assert len(lake.pending_days(conn, rig.topic, "another reader")) == 1
    land(rig, [at(DAY, 3)], partition=0)
    with rig.connect() as conn:
        (pending,) = lake.pending_days(conn, rig.topic, "core")
        assert (pending.landed, pending.read) == ({0: 2, 1: 1}, {0: 1, 1: 1})


def test_a_mark_never_moves_backwards_unless_reset(rig: Rig) -> None:
    with rig.connect() as conn:
        lake.mark_read(conn, rig.topic, "core", day=DAY, batches={0: 5, 1: 7})
        lake.mark_read(conn, rig.topic, "core", day=DAY, batches={0: 4, 1: 8})
        assert read_marks(rig) == {0: 5, 1: 8}
        lake.mark_read(conn, rig.topic, "core", day=DAY, batches={0: 1}, reset=True)
        assert read_marks(rig) == {0: 1}


def read_marks(rig: Rig) -> dict[int, int]:
    return dict(rig.query("SELECT topic_partition, batch FROM control.reader_day"))


def test_a_waiting_reader_is_woken_by_a_landing_and_by_nothing_else(rig: Rig) -> None:
    with rig.connect() as conn:
        lake.listen(conn)
        assert lake.wait_landed(conn, 0.2) is False
        rig.send([at(DAY, 1)])
        landing = threading.Thread(target=rig.land)
        started = time.monotonic()
        landing.start()
        assert lake.wait_landed(conn, 20) is True
        assert time.monotonic() - started < 10
        assert len(lake.pending_days(conn, rig.topic, "core")) == 1, "what woke the reader is there to be read"
        landing.join()
        assert lake.wait_landed(conn, 0.2) is False


def test_a_landing_between_two_waits_is_not_missed(rig: Rig) -> None:
    with rig.connect() as conn:
        lake.listen(conn)
        land(rig, [at(DAY, 1)], partition=0)
        assert lake.wait_landed(conn, 0) is True
        assert lake.wait_landed(conn, 0) is False


def test_the_cursor_gives_each_batch_once_also_of_a_slower_writer(rig: Rig) -> None:
    land(rig, [at(DAY, 1)], partition=0)
    with rig.connect() as conn, rig.connect() as slow, rig.connect() as fast:
        found, cursor = lake.batches_after(conn, rig.topic, None)
        assert [(b.topic_partition, b.batch, b.rows, b.dead_letters) for b in found] == [(0, 1, 1, 0)]
        assert found[0].lag_s is not None
        assert 0 <= found[0].lag_s < 60
        insert = (
            "INSERT INTO control.batch (topic, topic_partition, batch, first_offset, last_offset, rows, dead_letters, "
            "gap_offsets, payload_bytes) VALUES (%s, %s, 9, 0, 0, 0, 0, 0, 0)"
        )
        slow.cursor().execute(insert, (rig.topic, 8))
        fast.cursor().execute(insert, (rig.topic, 9))
        fast.commit()
        first, cursor = lake.batches_after(conn, rig.topic, cursor)
        slow.commit()
        second, cursor = lake.batches_after(conn, rig.topic, cursor)
        assert sorted(b.topic_partition for b in [*first, *second]) == [8, 9]
        assert lake.batches_after(conn, rig.topic, cursor)[0] == []


def test_the_checksum_is_the_sum_that_bigquery_computes(rig: Rig) -> None:
    land(rig, [at(DAY, number) for number in range(50)], partition=3)
    land(rig, [at(DAY, number) for number in range(50)], partition=2)
    with rig.connect() as conn:
        expected = sum((p * 1_000_003 + o) % 1_000_000_007 for p in (2, 3) for o in range(50))
        assert lake.day_checksum(conn, rig.topic, DAY) == (100, expected)
        part = sum((3 * 1_000_003 + o) % 1_000_000_007 for o in range(50))
        assert lake.day_checksum(conn, rig.topic, DAY, upto={3: 1}) == (50, part)
        assert lake.day_checksum(conn, rig.topic, date(1999, 1, 1)) == (0, 0)


def test_a_topic_that_the_lake_does_not_know_is_told(rig: Rig) -> None:
    with rig.connect() as conn, pytest.raises(LookupError, match="streaming migrate"):
        lake.read_events(conn, "nowhere", day=DAY)


def test_the_watermark_is_the_newest_production_time(rig: Rig) -> None:
    with rig.connect() as conn:
        assert lake.watermark(conn, rig.topic) is None
    land(rig, [at(DAY, 1)], partition=0)
    with rig.connect() as conn:
        newest = lake.watermark(conn, rig.topic)
    assert newest is not None
    assert abs((datetime.now(UTC) - newest).total_seconds()) < 60


def test_settings_of_the_connection_url_hold_beside_ours(rig: Rig) -> None:
    rig.dsn += "?options=-c%20statement_timeout%3D7s%20-c%20TimeZone%3DAsia/Tokyo&application_name=other"
    with rig.connect() as conn, conn.cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout'), current_setting('TimeZone')")
        assert cursor.fetchone() == ("7s", "UTC")
