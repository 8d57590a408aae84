"""Loading a day: each event once, whatever is repeated, runs at the same time, or is killed in between."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from dbt_like_sql.errors import FencedError, JobError, LoadError, StaleRowsError
from dbt_like_sql.load import DayLoad, LoadedDay, load_days, load_rows, loaded_day, loaded_days, newest_loads
from dbt_like_sql.migrate import STAGING
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse
from tests.unit.dbt_like_sql.lines import TOPIC, day_lines, line, lines

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]
CORE = "core.invoice_lines"
D1, D2, D3 = date(2010, 12, 1), date(2010, 12, 2), date(2010, 12, 3)


@pytest.fixture(scope="module")
def migrated(module_migrated_settings: WarehouseSettings) -> Warehouse:
    return open_warehouse(module_migrated_settings)


@pytest.fixture
def warehouse(migrated: Warehouse) -> Warehouse:
    """Empty tables: emptying them is ten times as fast as making them anew."""
    tables = ("core.invoice_lines", "control.day", "control.load")
    wheres = ("invoice_date >= DATE '0001-01-01'", "TRUE", "TRUE")
    script = "\n".join(
        f"DELETE FROM `{migrated.table_id(table)}` WHERE {where};" for table, where in zip(tables, wheres, strict=True)
    )
    # The incarnation is renamed as well: job ids of earlier tests must not be taken for this one's.
    script += f"\nUPDATE `{migrated.table_id('control.incarnation')}` SET incarnation = GENERATE_UUID() WHERE TRUE;"
    migrated.run(script)
    return migrated


def load(warehouse: Warehouse, rows: list[dict[str, Any]], upto: dict[int, int], **changes: Any):
    day = changes.pop("day", D1)
    seen = changes.pop("seen", None) or loaded_day(warehouse, CORE, day, TOPIC)
    arguments = {"topic": TOPIC, "rebuild": False, "run_id": "test", "code_version": "1", **changes}
    return load_rows(warehouse, CORE, lines(rows), day=day, seen=seen, upto=upto, **arguments)


def contents(warehouse: Warehouse, day: date = D1) -> list[dict[str, Any]]:
    """Every column of the day, in order of identity: equal lists are byte-identical days."""
    return warehouse.run(
        f"SELECT * FROM `{warehouse.table_id(CORE)}` WHERE invoice_date = @day ORDER BY topic_partition, topic_offset",
        params={"day": day},
    ).rows


def staging_tables(warehouse: Warehouse) -> list[str]:
    dataset = f"{warehouse.settings.project}.{warehouse.settings.dataset_id(STAGING)}"
    return [table.table_id for table in warehouse.client.list_tables(dataset)]


def test_day_that_was_never_loaded_is_version_nought(warehouse: Warehouse) -> None:
    seen = loaded_day(warehouse, CORE, D1, TOPIC)
    assert (seen.version, seen.batches) == (0, {})
    assert len(seen.incarnation) == 36


def test_rows_arrive_exactly_and_the_ledger_tells_what_was_loaded(warehouse: Warehouse) -> None:
    rows = day_lines(D1, 0, 100, 20) + day_lines(D1, 3, 7, 5)
    done = load(warehouse, rows, {0: 4, 3: 1})
    assert (done.rows_staged, done.rows_inserted, done.version) == (25, 25, 1)
    assert contents(warehouse) == lines(rows).to_pylist()
    seen = loaded_day(warehouse, CORE, D1, TOPIC)
    assert (seen.version, seen.batches) == (1, {0: 4, 3: 1})
    (entry,) = warehouse.run(f"SELECT * FROM `{warehouse.table_id('control.load')}`").rows
    assert entry["offsets"] == [
        {"topic_partition": 0, "first_offset": 100, "last_offset": 119, "row_count": 20},
        {"topic_partition": 3, "first_offset": 7, "last_offset": 11, "row_count": 5},
    ]
    assert (entry["staged_rows"], entry["is_rebuild"], entry["run_id"]) == (25, False, "test")
    assert staging_tables(warehouse) == []


def test_extreme_but_lawful_values_survive_to_the_last_digit(warehouse: Warehouse) -> None:
    price = Decimal("999999999999.999999999")
    row = line(D1, 0, 0, unit_price_gbp=price, quantity=10**9, amount_gbp=price * 10**9, description="\\'\"\n✿\u202e")
    tiny = line(D1, 0, 1, unit_price_gbp=Decimal("-0.000000001"), quantity=1, amount_gbp=Decimal("-0.000000001"))
    load(warehouse, [row, tiny], {0: 1})
    assert contents(warehouse) == lines([row, tiny]).to_pylist()
    total = warehouse.run(
        f"SELECT SUM(amount_gbp) AS total FROM `{warehouse.table_id(CORE)}` WHERE invoice_date = @day",
        params={"day": D1},
    ).rows[0]["total"]
    assert total == Decimal("999999999999999999998.999999999")


def test_rows_that_are_there_already_are_left_out(warehouse: Warehouse) -> None:
    load(warehouse, day_lines(D1, 0, 0, 10), {0: 1})
    done = load(warehouse, day_lines(D1, 0, 5, 10), {0: 2})
    assert (done.rows_staged, done.rows_inserted, done.version) == (10, 5, 2)
    assert [row["topic_offset"] for row in contents(warehouse)] == list(range(15))


@pytest.mark.parametrize("seed", range(3))
def test_incremental_loads_equal_a_rebuild_whatever_the_order(warehouse: Warehouse, seed: int) -> None:
    dice = random.Random(seed)
    rows = [row for part in range(3) for row in day_lines(D1, part, part * 1000, dice.randrange(5, 25))]
    rows += [line(D1, 1, 5000 + n, event_id=dice.choice(rows)["event_id"]) for n in range(5)]  # repeated deliveries
    dice.shuffle(rows)
    batches = dict.fromkeys(range(3), 0)
    left = list(rows)
    while left:
        size = dice.randrange(1, 12)
        batch, left = left[:size], left[size:]
        replayed = dice.sample(rows, k=min(3, len(rows)))  # a batch that is delivered again with the next one
        offered = list({(row["topic_partition"], row["topic_offset"]): row for row in batch + replayed}.values())
        batches[dice.randrange(3)] += 1
        load(warehouse, offered, dict(batches))
    incremental = contents(warehouse)
    load(warehouse, rows, dict(batches), rebuild=True)
    assert contents(warehouse) == incremental
    assert len(incremental) == len(rows)
    assert loaded_day(warehouse, CORE, D1, TOPIC).batches == batches


def test_rebuild_replaces_the_day_and_leaves_its_neighbours(warehouse: Warehouse) -> None:
    load(warehouse, day_lines(D1, 0, 0, 10), {0: 1})
    load(warehouse, day_lines(D2, 0, 50, 10), {0: 1}, day=D2)
    fewer = day_lines(D1, 0, 0, 4)
    done = load(warehouse, fewer, {0: 1}, rebuild=True)
    assert done.rows_inserted == 4
    assert contents(warehouse) == lines(fewer).to_pylist()
    assert len(contents(warehouse, D2)) == 10


def test_rebuild_without_rows_empties_the_day(warehouse: Warehouse) -> None:
    load(warehouse, day_lines(D1, 0, 0, 10), {0: 1})
    done = load(warehouse, [], {0: 1}, rebuild=True)
    assert (done.rows_staged, done.rows_inserted, done.version) == (0, 0, 2)
    assert contents(warehouse) == []


def test_rebuild_that_read_less_than_the_day_holds_is_refused(warehouse: Warehouse) -> None:
    load(warehouse, day_lines(D1, 0, 0, 10), {0: 3})
    with pytest.raises(StaleRowsError, match="batch 2 of topic partition 0, the day holds 3"):
        load(warehouse, day_lines(D1, 0, 0, 5), {0: 2}, rebuild=True)
    assert len(contents(warehouse)) == 10


def test_load_that_saw_an_older_ledger_is_fenced(warehouse: Warehouse) -> None:
    seen = loaded_day(warehouse, CORE, D1, TOPIC)
    load(warehouse, day_lines(D1, 0, 0, 10), {0: 1}, seen=seen)
    with pytest.raises(FencedError, match="another load was faster"):
        load(warehouse, day_lines(D1, 0, 0, 11), {0: 2}, seen=seen)
    seen = loaded_day(warehouse, CORE, D1, TOPIC)
    load(warehouse, day_lines(D1, 0, 10, 1), {0: 2}, seen=seen)
    with pytest.raises(FencedError):
        load(warehouse, day_lines(D1, 0, 11, 3), {0: 3}, seen=seen)
    assert len(contents(warehouse)) == 11


def test_work_seen_in_tables_that_were_dropped_since_is_fenced(warehouse: Warehouse) -> None:
    seen = LoadedDay(incarnation="00000000-0000-0000-0000-000000000000")
    with pytest.raises(FencedError):
        load(warehouse, day_lines(D1, 0, 0, 10), {0: 1}, seen=seen)
    assert contents(warehouse) == []


@pytest.mark.parametrize("racers", [2, 5])
@pytest.mark.parametrize("first_load", [True, False])
def test_loads_of_one_day_at_once_double_nothing_and_lose_nothing(
    warehouse: Warehouse, racers: int, *, first_load: bool
) -> None:
    if not first_load:
        load(warehouse, day_lines(D1, 9, 0, 3), {9: 1})
    seen = loaded_day(warehouse, CORE, D1, TOPIC)

    def race(racer: int) -> bool:
        # each racer read one row more: other rows, so none attaches to another's job
        try:
            load(warehouse, day_lines(D1, 0, 0, 40 + racer), {0: 1}, seen=seen, run_id=f"racer-{racer}")
        except FencedError:
            return False
        return True

    with ThreadPoolExecutor(racers) as pool:
        won = list(pool.map(race, range(racers)))
    assert won.count(True) == 1
    offsets = [row["topic_offset"] for row in contents(warehouse) if row["topic_partition"] == 0]
    assert offsets == list(range(40 + won.index(True)))
    assert loaded_day(warehouse, CORE, D1, TOPIC).version == seen.version + 1


def test_same_load_by_two_runs_at_once_is_one_job(warehouse: Warehouse) -> None:
    seen = loaded_day(warehouse, CORE, D1, TOPIC)
    rows = day_lines(D1, 0, 0, 50)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda run: load(warehouse, rows, {0: 1}, seen=seen, run_id=run), ["a", "b"]))
    assert {each.version for each in done} == {1}
    assert {each.rows_inserted for each in done} == {50}
    assert len(contents(warehouse)) == 50


def test_first_loads_of_different_days_at_once_all_arrive(warehouse: Warehouse) -> None:
    def until_through(day: date) -> int:
        for _ in range(8):
            try:
                return load(warehouse, day_lines(day, 0, day.day * 100, 10), {0: 1}, day=day).rows_inserted
            except FencedError:
                continue
        return -1

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(until_through, [D1, D2, D3])) == [10, 10, 10]
    assert {day: len(contents(warehouse, day)) for day in (D1, D2, D3)} == {D1: 10, D2: 10, D3: 10}


def test_several_days_go_in_one_transaction_or_not_at_all(warehouse: Warehouse) -> None:
    load(warehouse, day_lines(D2, 0, 50, 5), {0: 1}, day=D2)
    seen = loaded_days(warehouse, CORE, [D1, D2, D3], TOPIC)
    rows = lines(day_lines(D1, 0, 0, 10) + day_lines(D2, 0, 50, 10) + day_lines(D3, 1, 0, 10))
    loads = [DayLoad(day, seen[day], {0: 2, 1: 1}) for day in (D1, D2, D3)]
    arguments: dict[str, Any] = {"topic": TOPIC, "rebuild": False, "run_id": "r", "code_version": "1"}
    done = load_days(warehouse, CORE, rows, loads=loads, **arguments)
    assert (done.rows_staged, done.rows_inserted) == (30, 25)
    assert done.versions == {D1: 1, D2: 2, D3: 1}
    # one of three days has moved on: none is written
    stale = [DayLoad(day, loaded_days(warehouse, CORE, [day], TOPIC)[day], {0: 3}) for day in (D1, D3)]
    load(warehouse, day_lines(D3, 2, 0, 1), {2: 1}, day=D3)
    more = lines(day_lines(D1, 0, 100, 7) + day_lines(D3, 3, 100, 7))
    with pytest.raises(FencedError):
        load_days(warehouse, CORE, more, loads=stale, **arguments)
    assert (len(contents(warehouse, D1)), len(contents(warehouse, D3))) == (10, 11)


def test_the_ledger_keeps_when_the_batches_landed_and_takes_it_for_no_other_batch(warehouse: Warehouse) -> None:
    """It tells a batch from another one of its number, in a lake that came back from a backup."""
    arguments: dict[str, Any] = {"topic": TOPIC, "run_id": "r", "code_version": "1"}

    def load_again(at: int, upto: dict[int, int], landed_us: dict[int, int], *, rebuild: bool = False) -> LoadedDay:
        loads = [DayLoad(D1, loaded_day(warehouse, CORE, D1, TOPIC), upto, landed_us)]
        load_days(warehouse, CORE, lines(day_lines(D1, 0, at, 1)), loads=loads, rebuild=rebuild, **arguments)
        return loaded_day(warehouse, CORE, D1, TOPIC)

    instant = 1_764_318_000_123_457  # microseconds: more digits than a float holds
    first = load_again(0, {0: 4, 3: 1}, {0: instant, 3: instant + 1})
    assert (first.batches, first.landed_us) == ({0: 4, 3: 1}, {0: instant, 3: instant + 1})
    second = load_again(1, {0: 5}, {0: instant + 2})
    assert (second.batches, second.landed_us) == ({0: 5, 3: 1}, {0: instant + 2, 3: instant + 1})
    behind = load_again(2, {0: 2, 3: 2}, {0: 7, 3: instant + 3})
    assert (behind.batches, behind.landed_us) == ({0: 5, 3: 2}, {0: instant + 2, 3: instant + 3})
    assert newest_loads(warehouse, 10) == [(CORE, TOPIC, D1, behind)]
    day = warehouse.table_id("control.day")
    six = "ARRAY<STRUCT<topic_partition INT64, batch INT64>>[(0, 6), (3, 2)]"
    # a program of a version that knows nothing of times
    warehouse.run(f"UPDATE `{day}` SET batches = {six}, version = 4 WHERE TRUE")
    moved = loaded_day(warehouse, CORE, D1, TOPIC)
    assert (moved.batches, moved.landed_us) == ({0: 6, 3: 2}, {3: instant + 3})
    warehouse.run(f"UPDATE `{day}` SET batch_times = NULL WHERE TRUE")  # as `migrate` adds the column
    assert loaded_day(warehouse, CORE, D1, TOPIC).landed_us == {}
    rebuilt = load_again(3, {0: 6, 3: 2}, {0: instant + 4}, rebuild=True)
    assert (rebuilt.batches, rebuilt.landed_us) == ({0: 6, 3: 2}, {0: instant + 4})


def test_run_killed_between_staging_and_commit_repeats_without_harm(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = day_lines(D1, 0, 0, 30)
    seen = loaded_day(warehouse, CORE, D1, TOPIC)
    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "run", _killed)
        with pytest.raises(KeyboardInterrupt):
            load(warehouse, rows, {0: 1}, seen=seen)
    assert len(staging_tables(warehouse)) == 1
    assert contents(warehouse) == []
    done = load(warehouse, rows, {0: 1}, run_id="the next run")
    assert (done.rows_inserted, len(contents(warehouse))) == (30, 30)
    assert staging_tables(warehouse) == []


def test_run_killed_after_the_commit_finds_its_work_done(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = day_lines(D1, 0, 0, 30)
    seen = loaded_day(warehouse, CORE, D1, TOPIC)
    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "drop_table", _killed)
        with pytest.raises(KeyboardInterrupt):
            load(warehouse, rows, {0: 1}, seen=seen)
    # It asks again as it did before, as after a lost answer: it is told what came of the first try.
    again = load(warehouse, rows, {0: 1}, seen=seen)
    assert again.is_attached
    assert (again.rows_inserted, again.version) == (30, 1)
    # It reads the ledger first, as a new run does: nothing is left to do.
    assert loaded_day(warehouse, CORE, D1, TOPIC).batches == {0: 1}
    assert len(contents(warehouse)) == 30
    assert staging_tables(warehouse) == []


def test_work_whose_first_try_failed_is_tried_again(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed job keeps its id for ever; the same work must not be told that it has failed for ever."""
    rows = day_lines(D1, 0, 0, 5)
    seen = loaded_day(warehouse, CORE, D1, TOPIC)
    with monkeypatch.context() as patch:
        original = Warehouse.load_parquet

        def loses_staging(self: Warehouse, payload: bytes, destination: str, **arguments: Any) -> Any:
            done = original(self, payload, destination, **arguments)
            self.drop_table(destination)
            return done

        patch.setattr(Warehouse, "load_parquet", loses_staging)
        with pytest.raises(JobError):
            load(warehouse, rows, {0: 1}, seen=seen)
    assert load(warehouse, rows, {0: 1}, seen=seen).rows_inserted == 5
    assert len(contents(warehouse)) == 5


def _killed(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"invoice_date": D2}, "invoice_date 2010-12-02 is not among the days"),
        ({"topic": "other"}, "rows of topic 'other'"),
        ({"country": None}, "country is required and NULL in 1 row"),
        ({"topic_offset": 0}, "3 rows have 2 different"),
    ],
)
def test_rows_that_break_the_contract_are_refused_whole(
    warehouse: Warehouse, change: dict[str, Any], says: str
) -> None:
    rows = [*day_lines(D1, 0, 0, 2), {**line(D1, 0, 2), **change}]
    with pytest.raises(LoadError, match="Nothing was written") as caught:
        load(warehouse, rows, {0: 1})
    assert says in str(caught.value)
    assert contents(warehouse) == []
