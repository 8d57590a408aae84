"""Publishing marts: audited before anyone sees them, exactly the days that were touched, never doubled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dbt_like_sql.__main__ import main
from dbt_like_sql.catalog import FENCE, Catalog, fence_name, load_catalog
from dbt_like_sql.errors import ChecksFailedError, MigrateError, PublishError
from dbt_like_sql.load import load_rows, loaded_day
from dbt_like_sql.migrate import create_sql, migrate
from dbt_like_sql.publish import check_tables, publish, publish_all, stale_days, stale_tables
from dbt_like_sql.publish_state import LoadSeen, Memory, OffsetRange
from dbt_like_sql.reconcile import Reconciliation, record, totals
from dbt_like_sql.repeats import query_by_repeats
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse
from tests.unit.dbt_like_sql.lines import TOPIC, core_days, day_lines, line, lines, mart_days
from tests.unit.dbt_like_sql.models import column, write_table

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]
CATALOG = load_catalog()
CORE, FACT = "core.invoice_lines", "mart.invoice_lines"
DAILY = [FACT, "mart.daily_sales_by_country", "mart.daily_sales_by_product"]
DIMENSIONS = ["mart.products", "mart.customers", "mart.countries", "mart.dates"]
D1, D2, D3 = date(2010, 12, 1), date(2010, 12, 2), date(2010, 12, 3)


def load(warehouse: Warehouse, day: date, rows: list[dict[str, Any]]) -> None:
    seen = loaded_day(warehouse, CORE, day, TOPIC)
    upto = {0: seen.batches.get(0, 0) + 1}
    load_rows(
        warehouse,
        CORE,
        lines(rows),
        day=day,
        topic=TOPIC,
        seen=seen,
        upto=upto,
        rebuild=False,
        run_id="r",
        code_version="1",
    )


def rows_of(warehouse: Warehouse, table: str, order: str) -> list[dict[str, Any]]:
    return warehouse.run(f"SELECT * FROM `{warehouse.table_id(table)}` ORDER BY {order}").rows


@pytest.fixture(scope="module")
def warehouse(module_migrated_settings: WarehouseSettings) -> Warehouse:
    """Three days with repeats, published; tests that change them put them back or use a day of their own."""
    opened = open_warehouse(module_migrated_settings)
    first = day_lines(D1, 0, 0, 40)
    load(opened, D1, [*first, line(D1, 0, 100, event_id=first[3]["event_id"], country="France")])
    load(opened, D2, day_lines(D2, 1, 0, 30))
    load(opened, D3, day_lines(D3, 2, 0, 20))
    publish_all(opened, CATALOG, DAILY + DIMENSIONS, days=[D1, D2, D3], run_id="first")
    return opened


def test_marts_hold_the_first_deliveries_exactly(warehouse: Warehouse) -> None:
    core, mart = core_days(warehouse, [D1, D2, D3]), mart_days(warehouse, [D1, D2, D3])
    assert (core[D1].rows, core[D1].repeats) == (41, 1)
    for day in (D1, D2, D3):
        assert mart[day].rows == core[day].rows - core[day].repeats
        assert mart[day].amount == core[day].amount
    expected = sum((row["amount_gbp"] for row in day_lines(D1, 0, 0, 40)), Decimal(0))
    assert mart[D1].amount == expected
    assert core[D1].checksum == sum((0 * 1000003 + row) % 1000000007 for row in [*range(40), 100])
    found = totals(warehouse)["core.invoice_lines"]
    assert found["core"] == {"rows": 91, "repeats": 1}
    assert found["mart"] == {
        "table": FACT,
        "rows": 90,
        "as_of": max(mart[day].newest_produced_at for day in (D1, D2, D3)),
    }
    amount = sum((mart[day].amount for day in (D1, D2, D3)), Decimal(0))
    assert found["measures"][f"{FACT}.amount_gbp"] == {"core": amount, "mart": amount}
    assert all(sums["core"] == sums["mart"] for sums in found["measures"].values())
    assert {name.rpartition(".")[0] for name in found["measures"]} == set(DAILY)


def test_days_published_together_equal_days_published_alone(warehouse: Warehouse) -> None:
    together = {name: rows_of(warehouse, name, "invoice_date, amount_gbp, 2, 3, 4") for name in DAILY}
    for name in DAILY:
        for day in (D3, D1, D2):
            publish(warehouse, CATALOG, name, days=[day], run_id="alone")
    assert {name: rows_of(warehouse, name, "invoice_date, amount_gbp, 2, 3, 4") for name in DAILY} == together


def test_late_event_makes_exactly_its_day_stale_and_publishing_cures_it(warehouse: Warehouse) -> None:
    assert stale_tables(warehouse, CATALOG) == {}
    before = rows_of(warehouse, FACT, "event_id")
    load(warehouse, D2, [line(D2, 1, 900)])
    assert stale_days(warehouse, CATALOG, FACT) == [D2]
    publish(warehouse, CATALOG, FACT, days=[D2], run_id="late")
    assert {name: days for name, days in stale_tables(warehouse, CATALOG).items() if name in DAILY} == {
        "mart.daily_sales_by_country": [D2],
        "mart.daily_sales_by_product": [D2],
    }
    publish_all(warehouse, CATALOG, DAILY[1:] + DIMENSIONS, days=[D2], run_id="late")
    assert stale_tables(warehouse, CATALOG) == {}
    after = rows_of(warehouse, FACT, "event_id")
    assert [row for row in after if row["topic_offset"] != 900] == before
    assert len(after) == len(before) + 1


def test_restated_day_is_recorded_with_what_changed_and_the_events_that_changed_it(warehouse: Warehouse) -> None:
    day = date(2010, 12, 6)
    load(warehouse, day, day_lines(day, 3, 0, 4))
    publish_all(warehouse, CATALOG, DAILY, days=[day, D1], run_id="first")
    before = mart_days(warehouse, [day])[day]
    load(warehouse, day, [line(day, 3, 70), line(day, 1, 9)])
    load(warehouse, day, [line(day, 3, 71)])
    publish_all(warehouse, CATALOG, DAILY, days=[day, D1], run_id="late events")
    publish_all(warehouse, CATALOG, DAILY, days=[day, D1], run_id="nothing new")
    restated = rows_of(warehouse, "control.restatement", "table_name")
    restated = [row for row in restated if row["event_day"] in {day, D1} and row["run_id"] != "late"]
    assert [(row["table_name"], row["event_day"], row["run_id"]) for row in restated] == [
        (name, day, "late events") for name in sorted(DAILY)
    ]
    fact = restated[-1]
    after = mart_days(warehouse, [day])[day]
    assert (fact["rows_before"], fact["rows_after"]) == (4, 7)
    amounts = {each["name"]: (each["before"], each["after"]) for each in fact["measures"]}
    assert amounts["amount_gbp"] == (before.amount, after.amount)
    assert set(amounts) == {"quantity", "gross_sales_gbp", "returns_gbp", "net_sales_gbp", "amount_gbp"}
    for row in restated:
        caused_by = {
            (each["topic"], each["topic_partition"], each["first_offset"], each["last_offset"])
            for each in row["caused_by"]
        }
        assert caused_by == {(TOPIC, 1, 9, 9), (TOPIC, 3, 70, 70), (TOPIC, 3, 71, 71)}
    _forget(warehouse, day)


def test_day_that_has_grown_is_published_by_what_is_new_and_equals_the_day_built_anew(warehouse: Warehouse) -> None:
    day = date(2010, 12, 13)
    first = day_lines(day, 2, 50, 12)
    load(warehouse, day, first)
    assert publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="first")[FACT].grown_days == ()
    earlier = line(day, 1, 7, event_id=first[4]["event_id"], country="France")  # delivered before what is published
    later = line(day, 3, 8, event_id=first[5]["event_id"])
    load(warehouse, day, [earlier, later, line(day, 3, 9)])
    load(warehouse, day, [line(day, 0, 2)])
    grown = publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="grown")
    assert (grown[FACT].grown_days, grown[FACT].rows) == ((day,), 14)
    assert grown[DAILY[1]].grown_days == ()
    where = f"WHERE invoice_date = DATE '{day}' ORDER BY 1, 2, 3, topic_offset"
    rows = warehouse.run(f"SELECT * FROM `{warehouse.table_id(FACT)}` {where}").rows
    assert {
        (row["topic_partition"], row["topic_offset"]) for row in rows if row["event_id"] == first[4]["event_id"]
    } == {(1, 7)}
    anew = publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="anew")
    assert anew[FACT].grown_days == (), "nothing was loaded since: who asks wants the day mended"
    assert warehouse.run(f"SELECT * FROM `{warehouse.table_id(FACT)}` {where}").rows == rows
    load(warehouse, day, [line(day, 0, 30, line_kind="bribe")])
    with pytest.raises(ChecksFailedError, match="line_kind is one of its contract's values: 1 row"):
        publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="bad")
    _forget(warehouse, day)


def test_sums_of_a_large_day_grow_by_difference_and_equal_the_day_built_anew(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbt_like_sql.publish_state.DIFFERENCE_FROM_ROWS", 10)
    day, sums = date(2010, 12, 14), DAILY[1:]
    load(warehouse, day, day_lines(day, 2, 0, 23))
    first = publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="first")
    assert {first[name].grown_days for name in sums} == {()}, "the first publication of a day is whole"
    load(warehouse, day, day_lines(day, 2, 23, 9))  # goes on with an invoice that was counted
    load(warehouse, day, [line(day, 1, 1, country="Malta"), line(day, 3, 5, event_id=f"{day}-2-4")])  # and a repeat
    publish(warehouse, CATALOG, FACT, days=[day], run_id="fact ahead")
    load(warehouse, day, day_lines(day, 2, 40, 2))
    grown = publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="grown")
    assert {grown[name].grown_days for name in DAILY} == {(day,)}
    found = {name: rows_of(warehouse, name, "invoice_date, 2, 3, 4") for name in sums}
    whole = publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="whole")
    assert {whole[name].grown_days for name in DAILY} == {()}
    assert {name: rows_of(warehouse, name, "invoice_date, 2, 3, 4") for name in sums} == found

    earlier = line(day, 1, 0, event_id=f"{day}-2-7", country="Malta")  # takes the place of a line that was counted
    load(warehouse, day, [earlier])
    displaced = publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="displaced")
    assert {name: displaced[name].grown_days for name in DAILY} == {FACT: (day,), sums[0]: (), sums[1]: ()}
    found = {name: rows_of(warehouse, name, "invoice_date, 2, 3, 4") for name in sums}
    publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="whole")
    assert {name: rows_of(warehouse, name, "invoice_date, 2, 3, 4") for name in sums} == found

    spoilt = f"UPDATE `{warehouse.table_id(sums[0])}` SET lines = lines + 1 WHERE invoice_date = DATE '{day}'"
    warehouse.run(spoilt, kind="test")
    load(warehouse, day, day_lines(day, 2, 50, 2))
    mended = publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="spoilt by hand")
    assert {name: mended[name].grown_days for name in DAILY} == {FACT: (day,), sums[0]: (), sums[1]: ()}
    found = {name: rows_of(warehouse, name, "invoice_date, 2, 3, 4") for name in sums}
    publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="whole")
    assert {name: rows_of(warehouse, name, "invoice_date, 2, 3, 4") for name in sums} == found
    _forget(warehouse, day)


def test_large_day_built_anew_puts_only_repeats_in_order_and_holds_the_same_rows(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbt_like_sql.publish_state.DIFFERENCE_FROM_ROWS", 10)
    day, taken = date(2010, 12, 15), []
    monkeypatch.setattr(
        "dbt_like_sql.publish_sql.query_by_repeats", lambda *args: taken.append(query_by_repeats(*args)) or taken[-1]
    )
    repeats = [line(day, 0, 9, event_id=f"{day}-1-4", country="Malta"), line(day, 2, 0, event_id=f"{day}-1-4")]
    load(warehouse, day, [*day_lines(day, 1, 0, 12), *repeats, line(day, 3, 1, event_id=f"{day}-1-7")])
    plain = publish(warehouse, CATALOG, FACT, days=[day], run_id="first")
    found = rows_of(warehouse, FACT, "event_id")
    assert (plain.rows, taken) == (12, []), "how many rows a day holds is not known before it was published"
    again = publish(warehouse, CATALOG, FACT, days=[day], run_id="again")
    assert (again.rows, len(taken), again.grown_days) == (12, 1, ())
    assert rows_of(warehouse, FACT, "event_id") == found
    _forget(warehouse, day)


def test_process_that_remembers_the_ledgers_asks_once_and_notices_loads_of_others(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, memory = date(2010, 12, 16), Memory()
    load(warehouse, day, day_lines(day, 0, 0, 5))
    publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="first", memory=memory)
    for count in (1, 2):
        rows = day_lines(day, 0, 10 * count, count)
        load(warehouse, day, rows)
        brought = OffsetRange(TOPIC, 0, 10 * count, 10 * count + count - 1, count)
        mine = LoadSeen(1 + count, is_rebuild=False, ranges=(brought,))
        memory.loaded(CORE, day, TOPIC, version=1 + count, load=mine)
        with monkeypatch.context() as without_ledgers:
            without_ledgers.setattr("dbt_like_sql.publish.state_sql", None)
            done = publish_all(warehouse, CATALOG, [FACT], days=[day], run_id="mine", memory=memory)[FACT]
        assert (done.rows, done.grown_days) == (5 + (1 if count == 1 else 3), (day,))
    load(warehouse, day, [line(day, 1, 1)])  # somebody else's
    load(warehouse, day, [line(day, 1, 2)])
    memory.loaded(CORE, day, TOPIC, version=5, load=LoadSeen(5, is_rebuild=False, ranges=()))
    assert memory.state is None, "a load in between is not ours: the ledgers are read again"
    assert publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="all", memory=memory)[FACT].rows == 10
    publish(warehouse, CATALOG, FACT, days=[day], run_id="another process")
    fenced = publish_all(warehouse, CATALOG, [FACT], days=[day], run_id="fenced, then read", memory=memory)
    assert fenced[FACT].rows == 10
    assert mart_days(warehouse, [day])[day].amount == core_days(warehouse, [day])[day].amount
    _forget(warehouse, day)


def test_published_of_many_days_is_one_job(warehouse: Warehouse) -> None:
    done = publish_all(warehouse, CATALOG, DAILY, days=[D1, D3], run_id="range")
    assert len({each.job_id for each in done.values()}) == 1
    assert done[FACT].rows == 60
    assert done[FACT].days == (D1, D3)
    assert all(check.passed for each in done.values() for check in each.checks)


def test_none_means_every_loaded_day(warehouse: Warehouse) -> None:
    done = publish(warehouse, CATALOG, FACT, days=None, run_id="all")
    assert done.days == (D1, D2, D3)


def test_readers_never_see_a_day_half_published(warehouse: Warehouse) -> None:
    """While days are published again and again, every reader sees all rows of the day, never none, never twice."""
    expected = mart_days(warehouse, [D1])[D1]
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(
            lambda: [publish_all(warehouse, CATALOG, DAILY, days=[D1], run_id="again") for _ in range(3)]
        )
        seen = []
        reader = open_warehouse(warehouse.settings)
        while not work.done():
            seen.append(mart_days(reader, [D1])[D1])
        work.result()
    assert len(seen) >= 3
    assert set(seen) == {expected}


@pytest.mark.parametrize("racers", [2, 4])
def test_publications_of_one_day_at_once_double_nothing(warehouse: Warehouse, racers: int) -> None:
    expected = mart_days(warehouse, [D1])[D1]
    with ThreadPoolExecutor(racers) as pool:
        done = list(pool.map(lambda _: publish(warehouse, CATALOG, FACT, days=[D1], run_id="race"), range(racers)))
    assert {each.rows for each in done} == {expected.rows}
    assert mart_days(warehouse, [D1])[D1] == expected
    rows = warehouse.run(
        f"SELECT version, COUNT(*) AS n FROM `{warehouse.table_id('control.publication')}` "
        f"WHERE table_name = '{FACT}' AND event_day = DATE '{D1}' GROUP BY version"
    ).rows
    assert {row["n"] for row in rows} == {1}


def test_a_table_published_again_and_again_keeps_no_other_one_out(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dimensions, which take seconds, beside the fact table and its sums, without a second try for anybody."""
    monkeypatch.setattr("dbt_like_sql.publish.TRIES", 1)
    with ThreadPoolExecutor(2) as pool:
        works = [
            pool.submit(publish_all, open_warehouse(warehouse.settings), CATALOG, names, days=[D2], run_id="beside")
            for names in (DIMENSIONS, DAILY[1:])
        ]
        turns = 0
        while turns < 3 or not all(work.done() for work in works):
            publish(warehouse, CATALOG, FACT, days=[D2], run_id="again")
            turns += 1
        for work in works:
            work.result()
    publish_all(warehouse, CATALOG, DAILY + DIMENSIONS, days=[D2], run_id="after")
    assert stale_tables(warehouse, CATALOG) == {}


def test_fences_of_a_warehouse_that_had_one_for_all_go_on_from_there(warehouse: Warehouse) -> None:
    fence, shared = warehouse.table_id(fence_name(FACT)), warehouse.table_id(FENCE)
    [row] = warehouse.run(f"SELECT version FROM `{fence}`").rows
    warehouse.drop_table(fence)
    warehouse.run(create_sql(CATALOG[FENCE], shared))
    warehouse.run(
        f"INSERT INTO `{shared}` (table_name, version, run_id, published_at) VALUES "
        f"('{FACT}', {row['version']}, 'old', CURRENT_TIMESTAMP()), ('mart.dates', 0, 'old', CURRENT_TIMESTAMP())"
    )
    dates = warehouse.run(f"SELECT version FROM `{warehouse.table_id(fence_name('mart.dates'))}`").rows
    would = migrate(warehouse, CATALOG, dry_run=True)
    assert warehouse.table_exists(shared)
    assert not warehouse.table_exists(fence)
    done = migrate(warehouse, CATALOG)
    assert would == done, "what the dry run tells is what is done"
    assert [(each.table, each.what.partition(":")[0]) for each in done] == [
        (fence_name(FACT), "created it (fence)"),
        (FENCE, "1 fence rows added"),
        (FENCE, "dropped it"),
    ]
    assert warehouse.run(f"SELECT version FROM `{fence}`").rows == [row]
    assert warehouse.run(f"SELECT version FROM `{warehouse.table_id(fence_name('mart.dates'))}`").rows == dates
    assert not warehouse.table_exists(shared)
    assert migrate(warehouse, CATALOG) == []
    publish(warehouse, CATALOG, FACT, days=[D1], run_id="goes on")


@pytest.mark.parametrize("lost", ["DELETE FROM `{}` WHERE TRUE", "DROP TABLE `{}`"])
def test_fence_that_was_lost_goes_on_from_what_the_ledger_knows(warehouse: Warehouse, lost: str) -> None:
    """From 0 on, the next publications were older than those before, and each was compared with the last of these."""
    day, name = date(2011, 2, 1 if "DROP" in lost else 2), FACT
    load(warehouse, day, day_lines(day, 0, 9_000, 3))
    for _time in range(3):
        publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="before")
    warehouse.run(lost.format(warehouse.table_id(fence_name(name))))
    assert migrate(warehouse, CATALOG)
    load(warehouse, day, day_lines(day, 0, 9_100, 3))
    assert [each["rows_after"] for each in publish(warehouse, CATALOG, name, days=[day], run_id="after").restated] == [
        6
    ]
    assert publish(warehouse, CATALOG, name, days=[day], run_id="again").restated == (), "nothing is new since"
    publish_all(warehouse, CATALOG, DAILY[1:] + DIMENSIONS, days=[day], run_id="what other tests find")


def test_first_publications_of_a_day_at_once_double_nothing(warehouse: Warehouse) -> None:
    """Nothing is there to delete, so only the fence is between two that insert."""
    day = date(2010, 12, 9)
    load(warehouse, day, day_lines(day, 3, 0, 12))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: publish(warehouse, CATALOG, FACT, days=[day], run_id="race"), range(3)))
    assert mart_days(warehouse, [day])[day].rows == 12
    _forget(warehouse, day)


def test_failed_check_leaves_what_readers_saw(warehouse: Warehouse) -> None:
    day = date(2010, 12, 8)
    load(warehouse, day, [line(day, 3, 0, line_kind="bribe"), line(day, 3, 1)])
    before = rows_of(warehouse, FACT, "event_id"), rows_of(warehouse, "mart.daily_sales_by_country", "1, 2")
    ledger = rows_of(warehouse, "control.publication", "table_name, event_day, version")
    with pytest.raises(ChecksFailedError, match=r"line_kind is one of its contract's values: 1 row") as caught:
        publish_all(warehouse, CATALOG, DAILY, days=[D1, day], run_id="bad")
    assert "bribe" in str(caught.value)
    assert sum(not check.passed for check in caught.value.checks) == 1
    assert (rows_of(warehouse, FACT, "event_id"), rows_of(warehouse, "mart.daily_sales_by_country", "1, 2")) == before
    assert rows_of(warehouse, "control.publication", "table_name, event_day, version") == ledger
    assert day in stale_days(warehouse, CATALOG, FACT)
    _forget(warehouse, day)


def test_warning_is_told_and_does_not_block(warehouse: Warehouse) -> None:
    day = date(2010, 12, 7)
    load(warehouse, day, [line(day, 3, 0, line_kind="unknown", stock_code="X-RAY")])
    done = publish(warehouse, CATALOG, FACT, days=[day], run_id="warned")
    (warned,) = [check for check in done.checks if not check.passed]
    assert (warned.severity, warned.rows) == ("warn", 1)
    assert "X-RAY" in (warned.example or "")
    assert mart_days(warehouse, [day])[day].rows == 1
    _forget(warehouse, day)


def test_checks_can_be_asked_without_publishing(warehouse: Warehouse) -> None:
    results = check_tables(warehouse, CATALOG, list(CATALOG.tables), days=[D1, D2, D3])
    assert len(results) == sum(len(table.checks) for table in CATALOG if table.materialization != "fence")
    assert [check for check in results if not check.passed] == []


def test_loaded_table_cannot_be_published(warehouse: Warehouse) -> None:
    with pytest.raises(PublishError, match=r"core\.invoice_lines"):
        publish(warehouse, CATALOG, CORE, days=[D1], run_id="x")


def test_trust_view_shows_a_day_as_reconciled_until_the_next_load(warehouse: Warehouse) -> None:
    core, mart = core_days(warehouse, [D3])[D3], mart_days(warehouse, [D3])[D3]
    compared = Reconciliation(TOPIC, CORE, D3, 20, core.checksum, 1, core, mart, is_reconciled=True)
    record(warehouse, [compared], run_id="trust")
    trust = {row["invoice_date"]: row for row in rows_of(warehouse, "mart.data_trust", "1")}
    assert trust[D3]["is_reconciled"] is True
    assert (trust[D3]["landed_rows"], trust[D3]["dead_letter_rows"], trust[D3]["core_amount_gbp"]) == (
        20,
        1,
        core.amount,
    )
    assert trust[D3]["newest_produced_at"] == datetime(2010, 12, 3, 20, 19, tzinfo=UTC)
    assert trust[D1]["is_reconciled"] is None, "never compared"
    load(warehouse, D3, day_lines(D3, 2, 0, 1))  # nothing new in it, but nobody has counted since
    trust = {row["invoice_date"]: row for row in rows_of(warehouse, "mart.data_trust", "1")}
    assert trust[D3]["is_reconciled"] is None


def test_trust_view_has_the_amount_as_published_whoever_has_compared(warehouse: Warehouse) -> None:
    def amounts() -> tuple[Decimal | None, Decimal | None]:
        [row] = [each for each in rows_of(warehouse, "mart.data_trust", "1") if each["invoice_date"] == day]
        return row["mart_amount_gbp"], row["published_amount_gbp"]

    day = date(2010, 12, 9)
    load(warehouse, day, day_lines(day, 0, 0, 5))
    assert amounts() == (None, None)
    publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="first")
    first = mart_days(warehouse, [day])[day]
    assert amounts() == (None, first.amount)
    core = core_days(warehouse, [day])[day]
    record(
        warehouse, [Reconciliation(TOPIC, CORE, day, 5, core.checksum, 0, core, first, is_reconciled=True)], run_id="t"
    )
    load(warehouse, day, day_lines(day, 1, 5, 4))
    assert amounts() == (first.amount, first.amount)
    publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="grown")
    grown = mart_days(warehouse, [day])[day].amount
    assert grown != first.amount
    assert amounts() == (first.amount, grown)


def test_trust_view_says_as_of_when_the_fact_table_is_although_nobody_has_compared_since(warehouse: Warehouse) -> None:
    def as_of() -> dict[date, datetime]:
        return {row["invoice_date"]: row["newest_produced_at"] for row in rows_of(warehouse, "mart.data_trust", "1")}

    day, later = date(2010, 12, 8), datetime(2010, 12, 8, 23, 58, tzinfo=UTC)
    load(warehouse, day, day_lines(day, 0, 0, 5))
    assert as_of()[day] is None
    publish(warehouse, CATALOG, FACT, days=[day], run_id="first")
    first = mart_days(warehouse, [day])[day].newest_produced_at
    assert as_of()[day] == first
    load(warehouse, day, [{**line(day, 0, 400), "produced_at": later}])
    assert as_of()[day] == first, "loaded, not yet shown"
    publish(warehouse, CATALOG, FACT, days=[day], run_id="grown")
    assert as_of()[day] == later
    publish_all(warehouse, CATALOG, DAILY, days=[day], run_id="anew")
    assert as_of()[day] == later
    load(warehouse, day, [{**line(day, 0, 401), "produced_at": datetime.now(UTC) + timedelta(hours=1)}])
    publish(warehouse, CATALOG, FACT, days=[day], run_id="a producer's clock is ahead")
    core, mart = (of(warehouse, [day])[day].newest_produced_at for of in (core_days, mart_days))
    assert core is not None
    assert mart is not None
    assert later < as_of()[day] <= core <= mart < datetime.now(UTC) + timedelta(minutes=1), "no later than now"


@pytest.mark.parametrize("command", ["totals", "days"])
def test_command_line_says_what_a_new_warehouse_needs(warehouse_env: dict[str, str], command: str) -> None:
    ran = CliRunner().invoke(main, [command], env=warehouse_env, catch_exceptions=False)
    assert ran.exit_code == 1
    assert "Not found: Dataset" in ran.output
    assert "run `dbt-like-sql migrate`" in ran.output


def test_command_line_prints_exact_totals(warehouse: Warehouse) -> None:
    settings = warehouse.settings
    env = {
        "WAREHOUSE_PROJECT": settings.project,
        "WAREHOUSE_DATASET_PREFIX": settings.dataset_prefix,
        "BIGQUERY_EMULATOR_HOST": settings.emulator_host,
    }
    ran = CliRunner().invoke(main, ["totals", "--json"], env=env, catch_exceptions=False)
    assert ran.exit_code == 0
    found, expected = json.loads(ran.output)["core.invoice_lines"], totals(warehouse)["core.invoice_lines"]
    amount = f"{FACT}.amount_gbp"
    assert found["measures"][amount]["core"] == f"{expected['measures'][amount]['core']:f}"
    assert found["mart"]["rows"] == expected["mart"]["rows"]
    refused = CliRunner().invoke(main, ["publish", "mart.nope"], env=env)
    assert refused.exit_code == 1
    assert "no table matches" in refused.output
    checked = CliRunner().invoke(main, ["check", "mart.dates"], env=env)
    assert checked.exit_code == 0
    assert "ok   mart.dates: no day is missing in between" in checked.output


def test_tables_in_bigquery_are_what_the_contracts_say(warehouse: Warehouse) -> None:
    for table in CATALOG.physical():
        there = warehouse.client.get_table(warehouse.table_id(table.name))
        assert [field.name for field in there.schema] == list(table.column_names)
        assert [field.description for field in there.schema] == [each.description for each in table.columns]
        assert there.description == table.description
        if table.materialization != "view":
            assert (there.time_partitioning.field if there.time_partitioning else None) == table.partition_column
            assert tuple(there.clustering_fields or ()) == table.clustering
            assert bool(there.require_partition_filter) == table.requires_partition_filter
            assert there.labels["owner"] == table.owner
    assert migrate(warehouse, CATALOG) == []


@pytest.fixture
def small(warehouse: Warehouse, tmp_path: Path) -> Iterator[Path]:
    """A folder of models beside the real ones, in the same datasets."""
    for table in CATALOG.layer("control"):
        folder = tmp_path / "control" / table.name.partition(".")[2]
        folder.mkdir(parents=True)
        for file in table.contract_path.parent.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    yield tmp_path
    for name in ("mart.small", "mart.reader"):
        warehouse.drop_table(warehouse.table_id(name))
        warehouse.drop_table(warehouse.table_id(fence_name(name)))


def _catalog(models: Path) -> Catalog:
    load_catalog.__globals__["_load"].cache_clear()
    return load_catalog(models)


def test_contract_changes_that_bigquery_can_follow_are_made(warehouse: Warehouse, small: Path) -> None:
    query = "SELECT 'x' AS a"
    write_table(small, "mart.small", query=query)
    migrate(warehouse, _catalog(small))
    wider = column("a", "STRING").replace("The a.", "Better said.") + column("b", "NUMERIC")
    write_table(small, "mart.small", query="SELECT 'x' AS a, NUMERIC '1' AS b", columns=wider)
    catalog = _catalog(small)
    (would,) = migrate(warehouse, catalog, dry_run=True)
    assert would.what == "altered schema"
    with pytest.raises(PublishError, match="run `dbt-like-sql migrate`"):
        publish(warehouse, catalog, "mart.small", days=None, run_id="before the column is there")
    (did,) = migrate(warehouse, catalog)
    assert did == would
    there = warehouse.client.get_table(warehouse.table_id("mart.small"))
    assert [(field.name, field.description) for field in there.schema] == [("a", "Better said."), ("b", "The b.")]
    assert migrate(warehouse, catalog) == []


def test_what_a_contract_says_of_a_view_follows_it(warehouse: Warehouse, small: Path) -> None:
    folder = write_table(small, "mart.small", query="SELECT 'x' AS a", materialization="view")
    migrate(warehouse, _catalog(small))
    contract = folder / "contract.yaml"
    text = contract.read_text(encoding="utf-8")
    for old, new in (("limitations: L.", "limitations: Nothing before 2010."), ("version: 1.0.0", "version: 1.1.0")):
        text = text.replace(old, new)
        contract.write_text(text, encoding="utf-8")
        (did,) = migrate(warehouse, _catalog(small))
        assert did.what == "replaced the view"
        assert migrate(warehouse, _catalog(small)) == [], "a second migrate says nothing"
    there = warehouse.client.get_table(warehouse.table_id("mart.small"))
    assert "Known limits: Nothing before 2010." in there.description
    assert there.labels["contract_version"] == "1_1_0"


def test_a_view_s_checks_are_run_and_what_they_find_is_told_with_what_was_published(
    warehouse: Warehouse, small: Path
) -> None:
    """Its readers see the rows already: it has nothing to hold back, and tables beside it are published."""
    columns = column("a", "STRING", more="        required: true\n")
    checks = "#fail a is x\nSELECT a FROM mart.reader WHERE a != 'x';\n#warn a is long\nSELECT a FROM mart.reader;\n"
    write_table(small, "mart.small", query="SELECT 'x' AS a", columns=columns)
    view = {"query": "SELECT a FROM mart.small", "materialization": "view", "columns": columns, "checks": checks}
    write_table(small, "mart.reader", **view)  # type: ignore[arg-type]
    catalog = _catalog(small)
    migrate(warehouse, catalog)
    both = ["mart.small", "mart.reader"]
    found = publish_all(warehouse, catalog, both, days=None, run_id="r")["mart.reader"]
    assert [(each.name, each.rows) for each in found.checks] == [
        ("required columns have a value", 0),
        ("a is x", 0),
        ("a is long", 1),
    ]
    assert found.rows == 1
    view["query"] = "SELECT NULLIF(a, 'x') AS a FROM mart.small UNION ALL SELECT 'y'"
    write_table(small, "mart.reader", **view)  # type: ignore[arg-type]
    catalog = _catalog(small)
    migrate(warehouse, catalog)
    with pytest.raises(ChecksFailedError, match=r"2 blocking check\(s\).*readers of the view see") as caught:
        publish_all(warehouse, catalog, both, days=None, run_id="r")
    assert "mart.reader: a is x: 1 row(s)" in str(caught.value)
    assert "Nothing was published" not in str(caught.value)
    assert {each.name for each in caught.value.checks} == {"required columns have a value", "a is x", "a is long"}
    assert sorted(caught.value.published) == sorted(both)


def test_a_column_that_becomes_numeric_holds_fractions_from_then_on(warehouse: Warehouse, small: Path) -> None:
    columns = column("k", "INT64", more="        required: true\n") + column("s", "STRING")
    write_table(small, "mart.small", query="SELECT 7 AS k, 'x' AS s", columns=columns)
    migrate(warehouse, _catalog(small))
    publish(warehouse, _catalog(small), "mart.small", days=[], run_id="whole")
    write_table(
        small,
        "mart.small",
        query="SELECT NUMERIC '7.25' AS k, 'x' AS s, NUMERIC '0.5' AS n",
        columns=columns.replace("INT64", "NUMERIC").replace("integer", "number") + column("n", "NUMERIC"),
    )
    catalog = _catalog(small)
    would = migrate(warehouse, catalog, dry_run=True)
    assert [each.what for each in would] == ["altered schema"]
    assert migrate(warehouse, catalog) == would
    assert migrate(warehouse, catalog) == [], "a second migrate says nothing"
    there = warehouse.client.get_table(warehouse.table_id("mart.small"))
    assert [(field.name, field.field_type, field.mode, field.description) for field in there.schema] == [
        ("k", "NUMERIC", "REQUIRED", "The k."),
        ("s", "STRING", "NULLABLE", "The s."),
        ("n", "NUMERIC", "NULLABLE", "The n."),
    ]
    assert warehouse.run(f"SELECT k FROM `{warehouse.table_id('mart.small')}`").rows == [{"k": Decimal(7)}]
    publish(warehouse, catalog, "mart.small", days=[], run_id="fractions")
    assert warehouse.run(f"SELECT k FROM `{warehouse.table_id('mart.small')}`").rows == [{"k": Decimal("7.25")}]


def test_an_array_of_plain_values_is_as_the_contract_says_at_once(warehouse: Warehouse, small: Path) -> None:
    columns = column("a", "ARRAY<STRING>") + column("n", "ARRAY<INT64>")
    write_table(small, "mart.small", query="SELECT ['x', 'y'] AS a, [1] AS n", columns=columns)
    catalog = _catalog(small)
    migrate(warehouse, catalog)
    assert migrate(warehouse, catalog) == [], "a second migrate says nothing"
    publish(warehouse, catalog, "mart.small", days=[], run_id="arrays")
    rows = warehouse.run(f"SELECT a, n FROM `{warehouse.table_id('mart.small')}`").rows
    assert rows == [{"a": ["x", "y"], "n": [1]}]


def test_breaking_change_is_refused_with_what_reads_the_table(warehouse: Warehouse, small: Path) -> None:
    write_table(small, "mart.small", query="SELECT 'x' AS a", columns=column("a", "STRING"))
    migrate(warehouse, _catalog(small))
    write_table(
        small, "mart.small", query="SELECT 1 AS b", columns=column("b", "INT64", more="        required: true\n")
    )
    write_table(small, "mart.reader", query="SELECT CAST(b AS STRING) AS a FROM mart.small")
    with pytest.raises(MigrateError, match="Nothing was changed") as caught:
        migrate(warehouse, _catalog(small))
    assert "column a is not in the contract any more" in str(caught.value)
    assert "column b is new and required" in str(caught.value)
    assert "read by mart.reader" in str(caught.value)
    assert not warehouse.table_exists(warehouse.table_id("mart.reader"))


def test_another_case_of_a_name_is_refused_and_not_asked_for_again_and_again(warehouse: Warehouse, small: Path) -> None:
    write_table(small, "mart.small", query="SELECT 'x' AS a")
    migrate(warehouse, _catalog(small))
    write_table(small, "mart.small", query="SELECT 'x' AS A", columns=column("A", "STRING"))
    with pytest.raises(MigrateError, match=r"mart\.small: column a is spelt A in the contract; its case cannot change"):
        migrate(warehouse, _catalog(small))


def _forget(warehouse: Warehouse, day: date) -> None:
    """Take a day out of every table again, its ledger rows too."""
    statements = [
        f"DELETE FROM `{warehouse.table_id(name)}` WHERE invoice_date = DATE '{day}';" for name in [CORE, *DAILY]
    ]
    statements += [
        f"DELETE FROM `{warehouse.table_id(name)}` WHERE event_day = DATE '{day}';"
        for name in ("control.day", "control.load", "control.publication")
    ]
    warehouse.run("\n".join(statements))
