"""`compare-rules` shows which days a changed rule of Mage would change, in every layer, and changes none of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from click.testing import CliRunner

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.publish import publish_all
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import open_warehouse
from mage_project.transforms import retail
from orchestration import compare
from orchestration.compare import compare_rules, main
from orchestration.errors import CompareError, MageRunError
from tests.integration.orchestration.conftest import run_load_days
from tests.integration.orchestration.landing import TOPIC, HandLanding, event

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

D1, D2 = date(2010, 12, 1), date(2010, 12, 2)
CORE, FACT, BY_COUNTRY = "core.invoice_lines", "mart.invoice_lines", "mart.daily_sales_by_country"


@dataclass(frozen=True)
class Line:
    """A lake and a warehouse with two days, of which the second alone has lines of Ireland; all marts are published."""

    env: dict[str, str]
    landing: HandLanding
    warehouse: Any


@pytest.fixture(scope="module")
def line(
    module_lake_dsn: str, module_migrated_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Line]:
    """For all tests here, which change nothing of it; those that land more do so last."""
    env = {**module_migrated_env, "LAKE_DSN": module_lake_dsn, "MAGE_DATA_DIR": str(tmp_path_factory.mktemp("mage"))}
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        for name, value in env.items():
            patch.setenv(name, value)
        landing = HandLanding(module_lake_dsn)
        landing.land([event(line_no=1), event(line_no=2)])
        eire = event(line_no=3, country="EIRE", invoiced_at="2010-12-02T08:00:00Z", quantity=2)
        landing.land([eire], topic_partition=1)
        landing.land([event(line_no=4, invoiced_at="2010-12-02T09:00:00Z")])
        assert run_load_days(instance, "2010-12-01", "2010-12-02").success
        catalog, warehouse = load_catalog(), open_warehouse(WarehouseSettings.from_env(env))
        tables = [each for each in catalog.layer("mart") if each.materialization == "table"]
        whole = [each.name for each in tables if not each.partition_column]
        publish_all(warehouse, catalog, whole, days=None, run_id="tests")
        yield Line(env, landing, warehouse)
        landing.close()


@pytest.fixture
def another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that moves no sum of any day: a country is called by another name."""
    monkeypatch.setitem(retail._COUNTRY_OF_SPELLING, "eire", "Eire")


def compared(env: dict[str, str], days: list[date] | None = None) -> dict[str, Any]:
    [(_feed, planned)] = compare_rules(env, days=days)
    return {each.table: each.differences for each in planned}


def everything(warehouse: Any) -> list[Any]:
    """Each row that a reader or the ledger sees."""
    tables = (CORE, FACT, BY_COUNTRY, "control.day", "control.load", "control.publication")
    where = dict.fromkeys((CORE, FACT, BY_COUNTRY), " WHERE invoice_date >= DATE '2000-01-01'")
    sql = "SELECT TO_JSON_STRING(t) AS line FROM `{}` AS t{} ORDER BY line"
    return [warehouse.run(sql.format(warehouse.table_id(name), where.get(name, ""))).rows for name in tables]


def staged(warehouse: Any) -> list[str]:
    dataset = f"{warehouse.settings.project}.{warehouse.settings.dataset_id('staging')}"
    return [each.table_id for each in warehouse.client.list_tables(dataset)]


def test_rules_as_they_were_change_nothing(line: Line) -> None:
    before = everything(line.warehouse)
    found = compared(line.env)
    assert {CORE, FACT, BY_COUNTRY, "mart.products"} <= set(found)
    assert set(found.values()) == {()}
    assert everything(line.warehouse) == before
    assert staged(line.warehouse) == []


def test_a_rule_that_moves_no_sum_shows_its_days_in_every_layer(line: Line, another_name: None) -> None:
    before = everything(line.warehouse)
    found = compared(line.env)
    for table in (CORE, FACT, BY_COUNTRY):
        [only] = found[table]
        assert (only.day, only.rows_gone, only.rows_new, only.measures) == (D2, 1, 1, {}), table
    [countries] = found["mart.countries"]
    assert (countries.day, countries.rows_gone, countries.rows_new) == (None, 1, 1)
    assert found["mart.daily_sales_by_product"] == ()
    assert everything(line.warehouse) == before
    assert staged(line.warehouse) == []


def test_sums_that_would_change_are_told(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(retail._LINE_KIND_OF_CODE, "85123A", "sample")
    found = compared(line.env, [D2])
    assert [each.day for each in found[FACT]] == [D2]
    published, would_be = found[FACT][0].measures["gross_sales_gbp"]
    assert (published, would_be) == (Decimal("20.4"), Decimal(0))
    assert found["mart.products"] is None, "whole tables are made of every day"


def test_days_of_several_passes_are_compared_as_one(
    line: Line, another_name: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.triggers.cut_passes", lambda days, _rows: [[day] for day in days])
    found = compared(line.env)
    assert [(each.day, each.rows_published, each.rows_planned) for each in found[CORE]] == [(D2, 2, 2)]
    assert [each.rows_new for each in found["mart.countries"]] == [1]


def test_a_rule_that_breaks_is_told_and_leaves_nothing(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retail, "line_kind", lambda _code: None)
    with pytest.raises(MageRunError, match="classify_lines: test_every_line_has_a_kind failed"):
        compared(line.env)
    assert staged(line.warehouse) == []


def test_the_command_tells_days_and_the_next_step(line: Line, another_name: None) -> None:
    ran = CliRunner().invoke(main, ["--day", "2010-12-02"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    assert "  2010-12-02: rows 2 -> 2 (1 go, 1 come)" in ran.output
    assert "backfill these days of core/invoice_lines" in ran.output
    refused = CliRunner().invoke(main, ["--day", "2011-01-01"])
    assert refused.exit_code == 1
    assert refused.output.startswith("CompareError: comparing 2011-01-01")


def test_a_run_of_dagster_does_not_claim_to_have_compared(line: Line) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_load_days(instance, "2010-12-01", "2010-12-01", mode="compare", compare_into="nowhere")
    assert not result.success
    assert "Use `compare-rules`" in str(result.failure_data_for_node("retail_invoices").user_failure_data.description)


def test_a_day_that_is_loaded_meanwhile_is_left_out_and_told(
    line: Line, another_name: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = compare._stage

    def stage_and_load(*args: Any) -> None:
        stage(*args)
        line.landing.land([event(line_no=8)])
        with dg.DagsterInstance.ephemeral() as instance:
            assert run_load_days(instance, "2010-12-01", "2010-12-01").success

    monkeypatch.setattr(compare, "_stage", stage_and_load)
    found = compared(line.env)
    assert [each.day for each in found[CORE]] == [each.day for each in found[FACT]] == [D2]
    assert found["mart.countries"] is None, "made of every day"
    assert "1 day(s) are left out, loaded while they were compared. Again: --day 2010-12-01" in capsys.readouterr().err


def test_events_that_are_not_loaded_yet_are_no_difference(line: Line, another_name: None) -> None:
    line.landing.land([event(line_no=9), event(line_no=10, country="EIRE")])
    assert [each.day for each in compared(line.env)[CORE]] == [D2]


def test_days_that_cannot_be_compared_are_refused_or_left_out(line: Line, another_name: None) -> None:
    with pytest.raises(CompareError, match=r"comparing 2011-01-01 of core\.invoice_lines: it was never loaded"):
        compared(line.env, [date(2011, 1, 1)])
    with line.landing.conn, line.landing.conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO control.retired_day (topic, topic_partition, event_day, rows, checksum, last_batch) "
            "VALUES (%s, 0, %s, 1, 0, 1)",
            (TOPIC, D1),
        )
    with pytest.raises(CompareError, match="retention has taken its events"):
        compared(line.env, [D1])
    found = compared(line.env)
    assert [each.day for each in found[CORE]] == [D2]
    assert found["mart.countries"] is None
