"""Which batches a reader may take for read, in a lake that came back from a backup or did not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from streaming import lake, migrate
from streaming.contract import load_contracts
from streaming.errors import RestoredError
from streaming.known_batches import NAMED
from streaming.restored import number_anew

pytestmark = pytest.mark.integration
TOPIC = "retail.invoices"
DAY, OTHER_DAY = date(2010, 12, 1), date(2010, 12, 2)
BEGAN = datetime(2026, 11, 24, 8, 0, 0, 123_456, tzinfo=UTC)


def at(batch: int, *, life: int = 0) -> datetime:
    """When a batch landed: in the lake's first life, or again after a restore."""
    return BEGAN + timedelta(minutes=batch, hours=life)


def us(batch: int, *, life: int = 0) -> int:
    return (at(batch, life=life) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def execute(conn: Any, statement: str, values: tuple[Any, ...] = ()) -> None:
    with conn, conn.cursor() as cursor:
        cursor.execute(statement, values)


def land(conn: Any, batches: range, *, life: int = 0, part: int = 0) -> None:
    """Ledger rows as the landing writes them: each takes the next number."""
    for number in batches:
        execute(
            conn,
            "INSERT INTO control.offset (topic, topic_partition, first_offset, next_offset) VALUES (%s, %s, 0, 0) "
            "ON CONFLICT DO NOTHING",
            (TOPIC, part),
        )
        execute(
            conn,
            "WITH moved AS (UPDATE control.offset SET next_batch = next_batch + 1 WHERE topic = %s "
            "AND topic_partition = %s RETURNING next_batch - 1 AS batch) INSERT INTO control.batch (topic, "
            "topic_partition, batch, first_offset, last_offset, rows, dead_letters, gap_offsets, payload_bytes, "
            "landed_at) SELECT %s, %s, batch, 0, 0, 1, 0, 0, 1, %s FROM moved",
            (TOPIC, part, TOPIC, part, at(number, life=life)),
        )


@pytest.fixture
def conn(lake_dsn: str) -> Iterator[Any]:
    """A lake whose topic partition 0 has batches 1 to 3 of its first life."""
    with closing(lake.connect(lake_dsn, application_name="test")) as opened:
        migrate.migrate(opened, load_contracts().values())
        land(opened, range(1, 4))
        yield opened


def confirm(conn: Any, batch: int, landed_us: int | None, *, part: int = 0) -> dict[int, int]:
    return lake.confirm_read(conn, TOPIC, {DAY: {part: (batch, landed_us)}})[DAY]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_what_was_read_and_is_there_counts(conn: Any, batch: int) -> None:
    assert confirm(conn, batch, us(batch)) == {0: batch}
    assert confirm(conn, batch, None) == {0: batch}, "of a reader that has not kept when it landed"


def test_nothing_read_needs_no_lake() -> None:
    assert lake.confirm_read(None, TOPIC, {DAY: {}}) == {DAY: {}}  # type: ignore[arg-type]


@pytest.mark.parametrize("landed_us", [us(4), None])
def test_a_batch_that_the_lake_has_not_given_yet_was_lost(conn: Any, landed_us: int | None) -> None:
    with pytest.raises(RestoredError, match=r"batch 4 .*the next one to land is 4"):
        confirm(conn, 4, landed_us)
    with pytest.raises(RestoredError, match=r"topic partition 9, batch 1 .*the next one to land is 1"):
        confirm(conn, 1, landed_us, part=9)


@pytest.mark.parametrize("given_since", [1, 2, 50])
def test_a_number_that_was_given_again_is_found_however_many_were(conn: Any, given_since: int) -> None:
    land(conn, range(4, 4 + given_since), life=1)
    with pytest.raises(
        RestoredError,
        match=r"batch 4 that landed 2026-11-24 08:04:00\.123456 UTC was read, .* that one landed 2026-11-24 09:04:00",
    ):
        confirm(conn, 4, us(4))
    assert confirm(conn, 4, us(4, life=1)) == {0: 4}
    assert confirm(conn, 3, us(3)) == {0: 3}, "what the backup holds was read"


def test_one_microsecond_makes_another_batch(conn: Any) -> None:
    with pytest.raises(RestoredError):
        confirm(conn, 3, us(3) + 1)


@pytest.mark.parametrize("given_before_told", [0, 1, 2, 5])
def test_once_told_nothing_that_was_lost_counts_and_all_else_does(conn: Any, given_before_told: int) -> None:
    land(conn, range(4, 4 + given_before_told), life=1)
    number_anew(conn)
    land(conn, range(10, 12), life=1)
    for lost in (4, 5, 6):
        assert confirm(conn, lost, us(lost)) == {}
    assert confirm(conn, 3, us(3)) == {0: 3}
    first = 1_000_004 + given_before_told
    assert confirm(conn, first, us(10, life=1)) == {0: first}
    for later in (first + 2, first + 1_000_000):
        with pytest.raises(RestoredError):
            confirm(conn, later, us(12))


def test_one_number_left_out_is_enough_to_see_that_it_was_told(conn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches were given before or since: a lake of years has more of them than a restore leaves out."""
    monkeypatch.setattr("streaming.restored.AHEAD", 1)
    land(conn, range(4, 6), life=1)
    with pytest.raises(RestoredError):
        confirm(conn, 4, us(4))
    number_anew(conn)
    for more in (0, 7):
        land(conn, range(7, 7 + more), life=1)
        assert confirm(conn, 4, us(4)) == confirm(conn, 6, us(6)) == {}
        with pytest.raises(RestoredError):
            confirm(conn, 7, us(7))


def test_a_second_restore_wants_to_be_told_too(conn: Any) -> None:
    number_anew(conn)
    land(conn, range(4, 6))  # 1,000,004 and 1,000,005, of which a backup has the first
    execute(conn, "DELETE FROM control.batch WHERE batch = 1000005")
    execute(conn, "UPDATE control.offset SET next_batch = 1000005")
    land(conn, range(5, 8), life=1)
    with pytest.raises(RestoredError):
        confirm(conn, 1_000_005, us(5))
    number_anew(conn)
    assert confirm(conn, 1_000_005, us(5)) == {}
    assert confirm(conn, 1_000_004, us(4)) == {0: 1_000_004}


def test_what_retention_took_was_read_before_and_is_not_read_again(conn: Any) -> None:
    execute(
        conn,
        "INSERT INTO control.retired_day (topic, event_day, topic_partition, rows, checksum, last_batch) "
        "VALUES (%s, %s, 0, 7, 7, 2)",
        (TOPIC, DAY),
    )
    number_anew(conn)
    assert lake.confirm_read(conn, TOPIC, {DAY: {0: (5, us(5))}, OTHER_DAY: {0: (5, us(5))}}) == {
        DAY: {0: 2},
        OTHER_DAY: {},
    }


def test_days_and_topic_partitions_are_told_apart_and_the_first_are_named(conn: Any) -> None:
    land(conn, range(1, 3), part=1)
    read: Any = {DAY: {0: (3, us(3)), 1: (2, us(2))}, OTHER_DAY: {0: (2, us(2)), 1: (1, None)}}
    assert lake.confirm_read(conn, TOPIC, read) == {DAY: {0: 3, 1: 2}, OTHER_DAY: {0: 2, 1: 1}}
    lost = {date(2010, 12, day): {0: (3, us(3)), 1: (9, us(9))} for day in range(1, 3 + NAMED)}
    with pytest.raises(
        RestoredError, match=r"of 2010-12-01, topic partition 1, batch 9 .* is 3, perhaps more\."
    ) as failure:
        lake.confirm_read(conn, TOPIC, lost)
    assert "topic partition 0" not in str(failure.value)
    assert str(failure.value).count(" was read, and in the lake ") == NAMED
    number_anew(conn)
    assert lake.confirm_read(conn, TOPIC, lost) == {day: {0: 3} for day in lost}
