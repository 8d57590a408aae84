"""The job that brings days from the lake to reconciled marts, on a real PostgreSQL and the BigQuery emulator."""

from __future__ import annotations

import csv
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from click.testing import CliRunner

from dbt_like_sql import reconcile
from dbt_like_sql.__main__ import main
from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.load import loaded_day
from dbt_like_sql.reconcile import totals
from mage_project import reading
from orchestration.definitions import defs
from orchestration.defs.warehouse.checks import STILL_TRIES, reconcile_marts
from streaming import lake
from streaming.database import transaction
from tests.integration.orchestration.landing import TOPIC, HandLanding, event, events_of_csv
from tests.schedule import IS_WHOLE
from tests.unit.dbt_like_sql.lines import core_days, mart_days

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., dg.ExecuteInProcessResult]

pytestmark = pytest.mark.integration

DAY = date(2010, 12, 1)


def core_rows(warehouse: Any, day: date = DAY) -> list[dict[str, Any]]:
    sql = f"SELECT * FROM `{warehouse.table_id('core.invoice_lines')}` WHERE invoice_date = DATE '{day}'"
    rows = warehouse.run(sql).rows
    return sorted(rows, key=lambda row: (row["topic_partition"], row["topic_offset"]))


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {each.check_name: each.passed for each in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult, key: str, partition: str) -> dict[str, Any]:
    [found] = [
        each.materialization
        for each in result.get_asset_materialization_events()
        for each in [each.step_materialization_data]
        if each.materialization.asset_key.to_user_string() == key and each.materialization.partition == partition
    ]
    return {name: value.value for name, value in found.metadata.items()}


def test_real_days_reach_the_marts_to_the_last_digit(
    landing: HandLanding, load_days: Run, warehouse: Any, retail_dir: Path
) -> None:
    paths = sorted(retail_dir.glob("*.csv"))[:2]
    expected_rows, expected_amount = 0, Decimal(0)
    for path in paths:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                expected_rows += 1
                expected_amount += Decimal(row["Quantity"]) * Decimal(row["UnitPrice"])
    for at, path in enumerate(paths):
        landing.land(list(events_of_csv([path])), topic_partition=at)
    result = load_days("2010-12-01", "2010-12-02")
    assert result.success
    assert all(checks(result).values())
    found = totals(warehouse)["core.invoice_lines"]
    assert (found["core"]["rows"], found["mart"]["rows"]) == (expected_rows, expected_rows)
    assert found["measures"]["mart.invoice_lines.amount_gbp"] == {"core": expected_amount, "mart": expected_amount}
    assert lake.pending_days(landing.conn, TOPIC, "marts") == []


def test_a_second_run_writes_nothing_and_a_third_only_what_is_new(
    landing: HandLanding, load_days: Run, warehouse: Any
) -> None:
    landing.land([event(line_no=at) for at in (1, 2, 3)])
    assert metadata(load_days("2010-12-01"), "core/invoice_lines", "2010-12-01")["pass/rows_inserted"] == 3
    assert metadata(load_days("2010-12-01"), "core/invoice_lines", "2010-12-01")["pass/rows_inserted"] == 0
    landing.land([event(line_no=4)], topic_partition=2)
    third = metadata(load_days("2010-12-01"), "core/invoice_lines", "2010-12-01")
    assert (third["pass/rows_read"], third["pass/rows_inserted"], third["version"]) == (1, 1, 2)
    assert [row["line_no"] for row in core_rows(warehouse)] == [1, 2, 3, 4]


def test_an_incremental_day_and_a_rebuilt_one_hold_the_same_rows(
    landing: HandLanding, load_days: Run, warehouse: Any
) -> None:
    for at in range(3):
        landing.land([event(line_no=at + 1, unit_price="0.333333333", quantity=3)], topic_partition=at)
        assert load_days("2010-12-01").success
    before = core_rows(warehouse)
    assert load_days("2010-12-01", mode="rebuild").success
    assert core_rows(warehouse) == before
    assert len(before) == 3


def test_a_day_with_more_rows_than_memory_holds_is_loaded_by_parts(
    landing: HandLanding, load_days: Run, warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after hours in which nothing was loaded: each run leaves a day that agrees, and the rest still waits."""
    monkeypatch.setattr(reading, "MOST_ROWS", 4)
    for number, rows in enumerate([3, 1, 2, 3, 2]):
        lines = [event(line_no=at + 1, invoice_no=str(number)) for at in range(rows)]
        landing.land(lines, topic_partition=number % 2)  # batches 1, 2, 3 of one topic partition and 1, 2 of the other
    read, left = list[int](), list[int]()
    while lake.pending_days(landing.conn, TOPIC, "marts"):
        result = load_days("2010-12-01")
        assert result.success
        assert all(checks(result).values())
        found = metadata(result, "core/invoice_lines", "2010-12-01")
        read.append(found["pass/rows_read"])
        left.append(found.get("rows_left", 0))
        assert mart_days(warehouse, [DAY])[DAY].rows == sum(read), "what is loaded is published, and nothing else"
    assert (read, left) == ([4, 2, 3, 2], [7, 5, 2, 0]), (
        "whole batches, as many as are held, of all topic partitions in turn"
    )
    by_parts = core_rows(warehouse)
    ledger = loaded_day(warehouse, "core.invoice_lines", DAY, TOPIC)
    [landed] = lake.landed_days(landing.conn, TOPIC)
    assert (ledger.batches, ledger.landed_us) == (landed.batches, landed.landed_us)
    assert load_days("2010-12-01", mode="rebuild").success
    assert core_rows(warehouse) == by_parts
    assert len(by_parts) == 11


BATCHES = [3, 1, 2, 3, 2]  # rows of each, of two topic partitions by turns: slices of at most four are 4, 2, 3 and 2


def land_batches(landing: HandLanding) -> None:
    for number, rows in enumerate(BATCHES):
        lines = [event(line_no=at + 1, invoice_no=str(number), quantity=number + 1) for at in range(rows)]
        landing.land(lines, topic_partition=number % 2)


def staging_tables(warehouse: Any) -> list[str]:
    found = warehouse.client.list_tables(warehouse.settings.dataset_id("staging"))
    return [each.table_id for each in found]


def test_a_day_with_more_rows_than_memory_holds_is_rebuilt_in_slices_and_replaced_at_once(
    landing: HandLanding, load_days: Run, warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    land_batches(landing)
    assert load_days("2010-12-01").success
    whole = core_rows(warehouse)
    monkeypatch.setattr(reading, "MOST_ROWS", 4)
    read, held = list[int](), list[int]()
    read_events = lake.read_events

    def seen(*args: Any, **kwargs: Any) -> Any:
        events = read_events(*args, **kwargs)
        read.append(events.num_rows)
        held.append(len(core_rows(warehouse)))
        return events

    monkeypatch.setattr(lake, "read_events", seen)
    result = load_days("2010-12-01", mode="rebuild")
    assert result.success
    assert all(checks(result).values())
    assert (read, held) == ([4, 2, 3, 2], [11, 11, 11, 11]), "until the last slice the day is as it was"
    assert core_rows(warehouse) == whole
    found = metadata(result, "core/invoice_lines", "2010-12-01")
    assert (found["dagster/partition_row_count"], found["pass/rows_staged"], found["pass/rows_inserted"]) == (
        11,
        11,
        11,
    )
    assert found["offsets"] == [[0, 0, 6, 7], [1, 0, 3, 4]]
    blocks = {
        each["block"]: (each["rows in"], each["rows out"]) for each in (row.data for row in found["blocks"].records)
    }
    assert blocks["price_lines"] == (11, 11)
    assert staging_tables(warehouse) == []
    ledger = loaded_day(warehouse, "core.invoice_lines", DAY, TOPIC)
    [landed] = lake.landed_days(landing.conn, TOPIC)
    assert (ledger.version, ledger.batches, ledger.landed_us) == (2, landed.batches, landed.landed_us)


@pytest.mark.parametrize("meanwhile", ["nothing new", "an event lands", "another run loads it", "the last slice fails"])
def test_between_the_slices_of_a_rebuild_the_day_may_move(
    landing: HandLanding, load_days: Run, warehouse: Any, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    land_batches(landing)
    assert load_days("2010-12-01").success
    before = core_rows(warehouse)
    monkeypatch.setattr(reading, "MOST_ROWS", 4)
    read = list[int]()
    read_events = lake.read_events

    def seen(*args: Any, **kwargs: Any) -> Any:
        read.append(0)
        if len(read) == 3 and meanwhile != "nothing new" and "slice" not in meanwhile:
            landing.land([event(line_no=9, invoice_no="9")], topic_partition=1)
            if "another run" in meanwhile:
                with monkeypatch.context() as at_once:
                    at_once.setattr(lake, "read_events", read_events)
                    assert load_days("2010-12-01").success
        if len(read) == 4 and "slice" in meanwhile:
            raise OSError("the lake is gone")
        return read_events(*args, **kwargs)

    monkeypatch.setattr(lake, "read_events", seen)
    result = load_days("2010-12-01", mode="rebuild")
    assert result.success is ("slice" not in meanwhile)
    assert len(read) == (8 if "another run" in meanwhile else 4), "what is overtaken is read again from the beginning"
    monkeypatch.setattr(lake, "read_events", read_events)
    if "slice" in meanwhile:
        assert core_rows(warehouse) == before, "nothing of a rebuild is there before all of it is"
    assert load_days("2010-12-01").success
    of_day = {row["invoice_no"]: row["line_no"] for row in core_rows(warehouse)}
    lands = meanwhile in ("an event lands", "another run loads it")
    assert len(core_rows(warehouse)) == len(before) + lands
    assert ("9" in of_day) is lands
    assert mart_days(warehouse, [DAY])[DAY].rows == len(before) + lands
    assert lake.pending_days(landing.conn, TOPIC, "marts") == []


def test_a_late_event_restates_its_own_day_and_no_other(landing: HandLanding, load_days: Run, warehouse: Any) -> None:
    landing.land([event(), event(invoiced_at="2010-12-02T08:00:00Z", line_no=2)])
    assert load_days("2010-12-01", "2010-12-02").success
    landing.land([event(line_no=9, unit_price="1.11", quantity=1)])
    assert [each.event_day for each in lake.pending_days(landing.conn, TOPIC, "marts")] == [DAY]
    assert load_days("2010-12-01").success
    days = mart_days(warehouse, [DAY, date(2010, 12, 2)])
    assert [each.rows for each in days.values()] == [2, 1]
    assert days[DAY].amount == Decimal("16.41")


def test_a_repeated_delivery_stays_in_core_and_counts_once_in_the_marts(
    landing: HandLanding, load_days: Run, warehouse: Any
) -> None:
    twice = event()
    landing.land([twice, twice])
    assert load_days("2010-12-01").success
    assert (core_days(warehouse, [DAY])[DAY].rows, core_days(warehouse, [DAY])[DAY].repeats) == (2, 1)
    assert (mart_days(warehouse, [DAY])[DAY].rows, mart_days(warehouse, [DAY])[DAY].amount) == (1, Decimal("15.3"))


def test_a_range_materializes_each_of_its_days_with_its_own_rows(
    landing: HandLanding, load_days: Run, warehouse: Any
) -> None:
    landing.land([event(), event(line_no=2), event(line_no=3, invoiced_at="2010-12-03T09:00:00Z")])
    result = load_days("2010-12-01", "2010-12-03", mode="rebuild")
    for asset in ("core/invoice_lines", "mart/invoice_lines"):
        of_days = {day: metadata(result, asset, day) for day in ("2010-12-01", "2010-12-02", "2010-12-03")}
        rows = {day: found["dagster/partition_row_count"] for day, found in of_days.items()}
        assert rows == {"2010-12-01": 2, "2010-12-02": 0, "2010-12-03": 1}
        assert not any("dagster/row_count" in found for found in of_days.values()), "no day has the rows of them all"
    [days] = reconcile.compared_days(warehouse).values()
    compared = {each["event_day"].day: each["is_reconciled"] for each in days}
    assert compared == {1: True, 3: True}, "the day on which nothing has landed waits for no comparison"


def test_a_day_that_cannot_be_rebuilt_keeps_no_other_day_of_its_backfill_from_it(
    landing: HandLanding, load_days: Run, warehouse: Any
) -> None:
    days = ["2010-12-01", "2010-12-02", "2010-12-03"]
    landing.land([event(invoiced_at=f"{day}T09:00:00Z", line_no=number) for day in days for number in (1, 2)])
    assert load_days(days[0], days[-1]).success
    core = warehouse.table_id("core.invoice_lines")
    warehouse.run(f"UPDATE `{core}` SET amount_gbp = 1 WHERE invoice_date BETWEEN '2010-12-01' AND '2010-12-03'")
    with transaction(landing.conn) as cursor:
        cursor.execute("DELETE FROM landing.retail_invoices WHERE event_day = %s AND topic_offset %% 2 = 0", (days[1],))
    result = load_days(days[0], days[-1], mode="rebuild")
    assert not result.success
    amounts = {day: {row["amount_gbp"] for row in core_rows(warehouse, date.fromisoformat(day))} for day in days}
    assert [amounts[day] == {Decimal(1)} for day in days] == [False, True, False]
    assert len(core_rows(warehouse, date(2010, 12, 2))) == 2, "what was loaded before stays"
    [failure] = [each for each in result.all_events if each.is_step_failure]
    told = str(failure.step_failure_data.error)
    assert "LostRowsError: reading retail.invoices 2010-12-02: " in told
    assert "written after it: 2010-12-03" in told
    shown = [each.step_materialization_data.materialization for each in result.get_asset_materialization_events()]
    assert [(each.asset_key.path[0], each.partition) for each in shown] == [("core", days[0]), ("core", days[2])]


def test_a_variable_that_no_pipeline_declares_is_refused_before_anything_is_loaded(load_days: Run) -> None:
    result = load_days("2010-12-01", moed="rebuild")
    assert not result.success
    [failed] = [each for each in result.all_events if each.is_step_failure and each.step_key == "retail_invoices"]
    told = str(failed.step_failure_data.error)
    assert "variables name moed, which no pipeline declares; known: day, last_day, mode. Nothing was loaded." in told


def test_a_run_without_a_day_is_refused_before_anything_is_loaded(
    instance: dg.DagsterInstance, line_env: dict[str, str]
) -> None:
    """A job's launchpad starts one; it would load the days that the pipeline's metadata.yaml has for Mage's own UI."""
    result = defs.resolve_job_def("load_days").execute_in_process(instance=instance, raise_on_error=False)
    assert line_env
    assert [each.step_key for each in result.all_events if each.is_step_failure] == ["retail_invoices"]
    [failed] = [each for each in result.all_events if each.is_step_failure]
    assert "no day was chosen for this run" in str(failed.event_specific_data)


def test_a_range_that_ends_before_it_begins_is_told_as_that(
    instance: dg.DagsterInstance, line_env: dict[str, str]
) -> None:
    tags = {"dagster/asset_partition_range_start": "2010-12-20", "dagster/asset_partition_range_end": "2010-12-10"}
    job = defs.resolve_job_def("load_days")
    result = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    assert line_env
    [failed] = [each for each in result.all_events if each.is_step_failure]
    assert "the run is of 2010-12-20 to 2010-12-10, and there is no day in it" in str(failed.event_specific_data)


@pytest.mark.parametrize("days", [("2008-12-31", "2009-01-01"), ("2099-01-01", "2099-01-01")])
def test_days_that_have_no_partition_are_refused_before_anything_is_loaded(
    instance: dg.DagsterInstance, line_env: dict[str, str], days: tuple[str, str]
) -> None:
    """Dagster takes any in a launchpad's tags, and would show what no day of the calendar has."""
    tags = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[1]}
    job = defs.resolve_job_def("load_days")
    result = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    assert line_env
    [failed] = [each for each in result.all_events if each.is_step_failure]
    assert f"the run is of {days[0]} to {days[1]}, and days have partitions" in str(failed.event_specific_data)
    assert not instance.get_materialized_partitions(dg.AssetKey(["core", "invoice_lines"]))


def test_the_metadata_says_what_each_block_did(landing: HandLanding, load_days: Run) -> None:
    landing.land([event()])
    table = metadata(load_days("2010-12-01"), "core/invoice_lines", "2010-12-01")["blocks"]
    blocks = [record.data for record in table.records]
    assert [each["block"] for each in blocks] == [
        "load_landed_events",
        "parse_events",
        "classify_lines",
        "price_lines",
        "export_invoice_lines",
    ]
    assert [each["rows out"] for each in blocks[:4]] == [1, 1, 1, 1]
    assert all(each["tests passed"].split("/")[0] == each["tests passed"].split("/")[1] for each in blocks)


def test_a_row_lost_in_a_block_stops_the_run_before_anything_is_written(
    landing: HandLanding, load_days: Run, warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mage_project.transforms import lines

    real = lines.price_lines
    monkeypatch.setattr(lines, "price_lines", lambda table: real(table).slice(1))
    landing.land([event(), event(line_no=2)])
    result = load_days("2010-12-01")
    assert not result.success
    assert checks(result)["price_lines__test_no_line_is_lost"] is False
    assert checks(result)["classify_lines__test_no_line_is_lost"] is True
    assert core_rows(warehouse) == []
    assert totals(warehouse)["core.invoice_lines"]["mart"]["rows"] == 0
    assert [each.event_day for each in lake.pending_days(landing.conn, TOPIC, "marts")] == [DAY]


def test_an_error_in_a_block_names_pipeline_block_and_line(
    landing: HandLanding, load_days: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mage_project.transforms import lines

    def broken(_table: Any) -> Any:
        raise ValueError("no such country")

    monkeypatch.setattr(lines, "classify_lines", broken)
    landing.land([event()])
    result = load_days("2010-12-01")
    [failure] = [each for each in result.all_events if each.is_step_failure]
    message = failure.step_failure_data.error.cause.message if failure.step_failure_data.error.cause else ""
    for part in ("retail_invoices/classify_lines", "classify_lines.py:", "no such country", "Nothing was written"):
        assert part in message


def test_days_that_end_at_another_midnight_than_the_partitions_are_not_loaded(
    landing: HandLanding, load_days: Run, warehouse: Any
) -> None:
    landing.land([event()])
    with transaction(landing.conn) as cursor:
        cursor.execute("UPDATE control.stream SET time_zone = 'UTC'")
    result = load_days("2010-12-01")
    assert not result.success
    [failed] = [each for each in result.all_events if each.is_step_failure]
    told = failed.step_failure_data.error.cause.message if failed.step_failure_data.error.cause else ""
    assert "ZoneError: loading core.invoice_lines from retail.invoices: its days in the lake" in told
    assert "end at midnight in UTC" in told
    assert "Nothing of it was loaded" in told
    assert core_rows(warehouse) == []


def test_a_row_that_vanished_from_core_blocks_the_marts(landing: HandLanding, load_days: Run, warehouse: Any) -> None:
    landing.land([event(), event(line_no=2)])
    assert load_days("2010-12-01").success
    table = warehouse.table_id("core.invoice_lines")
    warehouse.run(f"DELETE FROM `{table}` WHERE invoice_date = DATE '2010-12-01' AND line_no = 2")
    landing.land([event(line_no=3)])
    result = load_days("2010-12-01")
    assert not result.success
    assert checks(result)["landed_equals_core"] is False
    assert mart_days(warehouse, [DAY])[DAY].rows == 2, "readers keep what was right"
    told = {"is_reconciled": False, "landed_rows": 3, "core_rows": 2, "mart_rows": 2}
    assert trust(warehouse, *told) == [told], "what the alert and the report's refresh look at"
    assert load_days("2010-12-01", mode="rebuild").success, "a rebuild heals the day"
    assert mart_days(warehouse, [DAY])[DAY].rows == 3
    assert trust(warehouse, "is_reconciled") == [{"is_reconciled": True}]


@pytest.mark.parametrize(("loads", "tries", "checked"), [(1, STILL_TRIES, 1), (2, 1, 0)][: 2 if IS_WHOLE else 1])
def test_a_run_beside_the_comparison_makes_no_day_differ(
    landing: HandLanding,
    load_days: Run,
    warehouse: Any,
    monkeypatch: pytest.MonkeyPatch,
    loads: int,
    tries: int,
    checked: int,
) -> None:
    """Between the reading of marts and of core another run loads and publishes: once, or each time it is looked at."""
    landing.land([event()])
    assert load_days("2010-12-01").success
    real, left, busy = reconcile.measured_days, [loads], [False]

    def beside(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        if left[0] and not busy[0]:
            busy[0] = True
            left[0] -= 1
            landing.land([event(line_no=100 + left[0])])
            assert load_days("2010-12-01").success
            busy[0] = False
        return found

    monkeypatch.setattr(reconcile, "measured_days", beside)
    monkeypatch.setattr("orchestration.defs.warehouse.checks.STILL_TRIES", tries)
    result = reconcile_marts(landing.conn, warehouse, [DAY], "beside")
    assert result.passed, result.description
    assert result.metadata["days_checked"].value == checked
    assert {row["is_reconciled"] for row in trust(warehouse, "is_reconciled")} == {True}
    left[0] = 0
    assert load_days("2010-12-01").success
    warehouse.run(f"DELETE FROM `{warehouse.table_id('mart.invoice_lines')}` WHERE line_no = 1")
    assert not reconcile_marts(landing.conn, warehouse, [DAY], "still").passed


def trust(warehouse: Any, *columns: str) -> list[dict[str, Any]]:
    """Columns of the trust page's rows."""
    sql = f"SELECT {', '.join(columns)} FROM `{warehouse.table_id('mart.data_trust')}`"
    return [dict(row) for row in warehouse.run(sql).rows]


@pytest.mark.parametrize(
    ("table", "failed"),
    [("core.invoice_lines", "landed_equals_core"), ("mart.invoice_lines", "core_equals_mart")][0 if IS_WHOLE else 1 :],
)
def test_the_nightly_comparison_finds_what_was_changed_by_hand_since(
    landing: HandLanding, load_days: Run, warehouse: Any, instance: dg.DagsterInstance, table: str, failed: str
) -> None:
    landing.land([event(), event(line_no=2)])
    assert load_days("2010-12-01").success
    job = defs.resolve_job_def("compare_days")
    assert job.execute_in_process(instance=instance, raise_on_error=False).success
    warehouse.run(f"DELETE FROM `{warehouse.table_id(table)}` WHERE invoice_date = DATE '2010-12-01' AND line_no = 2")
    night = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not night.success, "a failed run is what the failure sensor tells of"
    assert checks(night)[failed] is False
    assert trust(warehouse, "is_reconciled") == [{"is_reconciled": False}]
    landing.land([event(line_no=3)])
    assert "2010-12-01" not in str(checks_days(job.execute_in_process(instance=instance, raise_on_error=False))), (
        "a day that waits for its run is left to it"
    )


def test_rows_of_any_mart_that_were_changed_by_hand_are_told_at_night_with_what_heals_them(
    landing: HandLanding, load_days: Run, warehouse: Any, instance: dg.DagsterInstance
) -> None:
    """A table without days is compared with no other layer; nor is a line of sums that are all nothing."""
    landing.land([event(), event(line_no=2, country="France", unit_price="0", quantity=0)])
    assert load_days("2010-12-01").success
    for name in ("products", "countries"):
        assert CliRunner().invoke(main, ["publish", f"mart.{name}"]).exit_code == 0
    job = defs.resolve_job_def("compare_days")

    def night() -> dict[str, str]:
        done = job.execute_in_process(instance=instance, raise_on_error=False)
        found = [each for each in done.get_asset_check_evaluations() if each.check_name == "rows_are_as_published"]
        assert len(found) == len([each for each in load_catalog().layer("mart") if each.materialization == "table"])
        return {".".join(each.asset_key.path): each.description or "" for each in found if not each.passed}

    assert night() == {}
    warehouse.run(f"DELETE FROM `{warehouse.table_id('mart.countries')}` WHERE TRUE")
    sales = warehouse.table_id("mart.daily_sales_by_country")
    warehouse.run(
        f"INSERT INTO `{sales}` SELECT * FROM `{sales}` WHERE invoice_date = '2010-12-01' AND country = 'France'"
    )
    told = night()
    assert told.keys() == {"mart.countries", "mart.daily_sales_by_country"}
    assert "2 published, 0 there" in told["mart.countries"]
    assert "on 1 day(s). First: 2010-12-01: 2 published, 3 there" in told["mart.daily_sales_by_country"]
    for each in told.values():
        command = each.partition("`dbt-like-sql ")[2].partition("`")[0].split()
        assert CliRunner().invoke(main, command).exit_code == 0
    assert night() == {}


def test_landed_rows_that_were_taken_out_by_hand_are_told_at_night(
    landing: HandLanding, load_days: Run, warehouse: Any, instance: dg.DagsterInstance
) -> None:
    """Core holds them, and a day that was compared is not counted anew: landed and core agree on."""
    landing.land([event(), event(line_no=2)])
    assert load_days("2010-12-01").success
    with transaction(landing.conn) as cursor:
        cursor.execute("DELETE FROM landing.retail_invoices WHERE topic_offset = 1")
    night = defs.resolve_job_def("compare_days").execute_in_process(instance=instance, raise_on_error=False)
    assert night.success, "the warehouse is right, and goes on"
    [found] = [each for each in night.get_asset_check_evaluations() if each.check_name == "landing_has_what_it_counts"]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "First: 2010-12-01: 2 counted, 1 there" in (found.description or "")
    assert trust(warehouse, "is_reconciled") == [{"is_reconciled": True}]


@pytest.mark.parametrize("together", [True, False] if IS_WHOLE else [True])
def test_an_event_that_comes_again_on_another_day_blocks_no_day_and_is_told_at_night(
    landing: HandLanding, load_days: Run, warehouse: Any, instance: dg.DagsterInstance, *, together: bool
) -> None:
    """Whether its days are published together or one by one, they show the same."""
    for day in (1, 2):
        landing.land([event(event_id="moved", invoiced_at=f"2010-12-0{day}T08:26:00Z")])
    for first, last in [("2010-12-01", "2010-12-02")] if together else [("2010-12-01",) * 2, ("2010-12-02",) * 2]:
        assert load_days(first, last).success
    assert {day: each.rows for day, each in mart_days(warehouse, [DAY, DAY + timedelta(1)]).items()} == {
        DAY: 1, DAY + timedelta(1): 1,
    }  # fmt: skip
    night = defs.resolve_job_def("compare_days").execute_in_process(instance=instance, raise_on_error=False)
    assert night.success, "the numbers are right as they were sent; a person has to look"
    [found] = [each for each in night.get_asset_check_evaluations() if each.check_name == "no_event_stands_on_two_days"]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "moved on 2010-12-01 2010-12-02" in (found.description or "")


def checks_days(result: dg.ExecuteInProcessResult) -> list[Any]:
    """What the comparisons told of days."""
    return [each.metadata.get("days") for each in result.get_asset_check_evaluations()]


def test_a_mart_that_differs_from_core_fails_the_run_and_is_recorded(
    landing: HandLanding, load_days: Run, warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dbt_like_sql.publish as publishing

    real = publishing.publish_all

    def spoil(*args: Any, **kwargs: Any) -> Any:
        done = real(*args, **kwargs)
        warehouse.run(f"DELETE FROM `{warehouse.table_id('mart.invoice_lines')}` WHERE line_no = 2")
        return done

    monkeypatch.setattr(publishing, "publish_all", spoil)
    landing.land([event(), event(line_no=2)])
    result = load_days("2010-12-01")
    assert checks(result)["core_equals_mart"] is False
    sql = f"SELECT is_reconciled, core_rows, mart_rows FROM `{warehouse.table_id('mart.data_trust')}`"
    assert [dict(row) for row in warehouse.run(sql).rows] == [{"is_reconciled": False, "core_rows": 2, "mart_rows": 1}]


SPOILED = {
    "mart.invoice_lines.returns_gbp": ("1", "0", "core 0, mart 2 (+2)"),
    "mart.invoice_lines.quantity": ("7", "6", "core 12, mart 14 (+2)"),
    "mart.daily_sales_by_country.items": ("items + 1", "items - 1", "core 12, mart 13 (+1)"),
    "mart.daily_sales_by_product.net_sales_gbp": ("NUMERIC '0'", "NUMERIC '30.6'", "core 30.6, mart 0 (-30.6)"),
}
"""Measure: what it is set to, how that is undone, and what is told of it."""


def test_any_measure_of_any_daily_mart_that_differs_from_core_is_named_with_both_sums(
    landing: HandLanding, load_days: Run, warehouse: Any
) -> None:
    landing.land([event(), event(line_no=2)])
    assert load_days("2010-12-01").success
    for measure, (wrong, right, told) in SPOILED.items():
        table, _, column = measure.rpartition(".")
        update = f"UPDATE `{warehouse.table_id(table)}` SET {column} = {{}} WHERE invoice_date = DATE '2010-12-01'"
        warehouse.run(update.format(wrong))
        found = reconcile_marts(landing.conn, warehouse, [DAY], measure)
        assert not found.passed, measure
        assert f"{measure}: {told}" in (found.description or "")
        assert "rows; mart" in (found.description or ""), "rows agree: the measure alone gives it away"
        warehouse.run(update.format(right))
    assert reconcile_marts(landing.conn, warehouse, [DAY], "undone").passed


def test_a_day_that_an_older_rule_published_is_no_difference_while_it_is_as_it_was_published(
    landing: HandLanding, load_days: Run, warehouse: Any
) -> None:
    """Else a changed measure would keep the report from being refreshed until weeks of the past are published anew."""
    landing.land([event(), event(line_no=2)])
    assert load_days("2010-12-01").success
    table, publication = (warehouse.table_id(name) for name in ("mart.daily_sales_by_country", "control.publication"))
    # An older rule had counted an item more; and it knew no returns, a measure that the contract has gained since.
    warehouse.run(f"UPDATE `{table}` SET items = items + 1 WHERE invoice_date = DATE '2010-12-01'")
    assert not reconcile_marts(landing.conn, warehouse, [DAY], "by hand").passed
    warehouse.run(
        f"INSERT INTO `{publication}` SELECT * REPLACE (version + 1 AS version, 'older' AS model_version, "
        "ARRAY(SELECT AS STRUCT m.name, IF(m.name = 'items', m.value + 1, m.value) AS value FROM UNNEST(measures) AS m "
        f"WHERE m.name != 'returns_gbp') AS measures) FROM `{publication}` "
        "WHERE table_name = 'mart.daily_sales_by_country'"
    )
    found = reconcile_marts(landing.conn, warehouse, [DAY], "another rule")
    assert found.passed, found.description
    assert "1 day(s) of mart.daily_sales_by_country still hold the sums of an older rule" in (found.description or "")
    ledger = warehouse.table_id("control.reconciliation")
    newest = (
        f"SELECT is_reconciled FROM `{ledger}` WHERE TRUE QUALIFY ROW_NUMBER() OVER (ORDER BY recorded_at DESC) = 1"
    )
    assert [row["is_reconciled"] for row in warehouse.run(newest).rows] == [True], "the report may be refreshed"
    warehouse.run(f"UPDATE `{table}` SET items = items + 1 WHERE invoice_date = DATE '2010-12-01'")
    changed = reconcile_marts(landing.conn, warehouse, [DAY], "changed by hand since")
    assert not changed.passed
    assert "mart.daily_sales_by_country.items: core 12, mart 14" in (changed.description or "")


def test_a_label_that_was_changed_by_hand_is_told_at_night_of_each_mart_whose_sums_stay(
    landing: HandLanding, load_days: Run, warehouse: Any
) -> None:
    """Repeats, a missing label and a quote in one are no difference; nor do they hide one."""
    landing.land([event(event_id="twice"), event(event_id="twice", country="EIRE"), event(line_no=2, customer_id=None)])
    landing.land([event(line_no=3, description='6" "RULER"', country="France"), event(line_no=4, description=None)])
    landing.land([event(invoiced_at="2010-12-02T08:26:00Z")])
    assert load_days("2010-12-01", "2010-12-02").success
    days, table_of_countries = [DAY, DAY + timedelta(1)], "mart.daily_sales_by_country"
    assert reconcile_marts(landing.conn, warehouse, days, "night", labels=True).passed
    for table, column, was in (
        ("mart.invoice_lines", "description", '6" "RULER"'),
        ("mart.invoice_lines", "customer_id", "guest"),
        ("mart.daily_sales_by_country", "country", "France"),
        ("mart.daily_sales_by_product", "stock_code", "85123A"),
    ):
        update = f"UPDATE `{warehouse.table_id(table)}` SET {column} = {{}} WHERE invoice_date = DATE '2010-12-01' AND "
        warehouse.run(update.format("'other'") + f"{column} = '{was}'")
        assert reconcile_marts(landing.conn, warehouse, days, "by day").passed
        found = reconcile_marts(landing.conn, warehouse, days, "night", labels=True)
        assert not found.passed, table
        assert f"{table}.hash of its labels: core " in (found.description or "")
        assert "differ on 1 of 2 day(s)" in (found.description or "")
        warehouse.run(update.format(f"'{was}'") + f"{column} = 'other'")
    assert reconcile_marts(landing.conn, warehouse, days, "undone", labels=True).passed
    countries, publication = (warehouse.table_id(name) for name in (table_of_countries, "control.publication"))
    warehouse.run(f"UPDATE `{countries}` SET country = 'Eire' WHERE invoice_date = '2010-12-01' AND country = 'France'")
    warehouse.run(f"UPDATE `{publication}` SET model_version = 'older' WHERE table_name = '{table_of_countries}'")
    older = reconcile_marts(landing.conn, warehouse, days, "another rule", labels=True)
    assert older.passed, f"what an older rule called it is not wrong: {older.description}"


def test_repeats_count_once_in_every_measure(landing: HandLanding, load_days: Run) -> None:
    landing.land([event(event_id="twice"), event(event_id="twice"), event(line_no=2)])
    result = load_days("2010-12-01")
    assert result.success
    [found] = [each for each in result.get_asset_check_evaluations() if each.check_name == "core_equals_mart"]
    assert found.metadata["measures_not_derivable"].value == []
    [day] = [each.data for each in found.metadata["days"].records]
    assert (day["mart rows"], day["measures compared"]) == (2, len(found.metadata["measures"].value))


def test_the_outcome_of_a_run_is_kept_for_the_trust_page(landing: HandLanding, load_days: Run, warehouse: Any) -> None:
    landing.land([event(), event(line_no=2)])
    assert load_days("2010-12-01").success
    sql = f"SELECT landed_rows, core_rows, mart_rows, is_reconciled FROM `{warehouse.table_id('mart.data_trust')}`"
    assert [dict(row) for row in warehouse.run(sql).rows] == [
        {"landed_rows": 2, "core_rows": 2, "mart_rows": 2, "is_reconciled": True}
    ]
