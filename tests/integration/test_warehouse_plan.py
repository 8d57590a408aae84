"""A plan says what publishing would do and why, and what a changed rule would change, before anything is written."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest

from dbt_like_sql.catalog import MODELS_DIR, Catalog, load_catalog
from dbt_like_sql.load import load_rows, loaded_day
from dbt_like_sql.migrate import migrate, unnamed_tables
from dbt_like_sql.plan import plan
from dbt_like_sql.publish import publish_all
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse
from tests.unit.dbt_like_sql.lines import TOPIC, day_lines, lines

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]
CATALOG = load_catalog()
CORE, FACT, BY_COUNTRY = "core.invoice_lines", "mart.invoice_lines", "mart.daily_sales_by_country"
DAILY = [FACT, BY_COUNTRY, "mart.daily_sales_by_product"]
D1, D2 = date(2010, 12, 1), date(2010, 12, 2)


@pytest.fixture(scope="module")
def warehouse(module_migrated_settings: WarehouseSettings) -> Warehouse:
    opened = open_warehouse(module_migrated_settings)
    for day in (D1, D2):
        _load(opened, day, 0)
    return opened


def _load(warehouse: Warehouse, day: date, first: int) -> None:
    seen = loaded_day(warehouse, CORE, day, TOPIC)
    rows = lines(day_lines(day, 0, first, 10))
    upto = {0: seen.version + 1}
    load_rows(
        warehouse, CORE, rows, day=day, topic=TOPIC, seen=seen, upto=upto, rebuild=False, run_id="r", code_version="1"
    )


def _changed(models: Path, name: str, old: str, new: str) -> Catalog:
    """The project's models with one rule changed."""
    shutil.copytree(MODELS_DIR, models)
    path = models / name.replace(".", "/") / "query.sql"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return load_catalog(models)


def test_plan_follows_a_table_from_never_published_through_late_data_to_up_to_date(warehouse: Warehouse) -> None:
    first, *_ = plan(warehouse, CATALOG, [FACT])
    assert (first.reasons, first.days) == (("2 day(s) never published",), (D1, D2))
    publish_all(warehouse, CATALOG, [*DAILY, "mart.countries"], days=[D1, D2], run_id="r")
    assert {planned.reasons for planned in plan(warehouse, CATALOG, [*DAILY, "mart.countries"], compare=True)} == {()}
    _load(warehouse, D2, 100)
    late, by_country, countries = plan(warehouse, CATALOG, [FACT, BY_COUNTRY, "mart.countries"], compare=True)[:3]
    assert (late.reasons, late.days) == (("1 day(s) its sources are newer",), (D2,))
    assert [(found.day, found.rows_published, found.rows_planned) for found in late.differences or ()] == [(D2, 10, 20)]
    # what reads the fact table is compared as if the fact table were published before it
    told = {planned.table: planned for planned in (by_country, countries)}
    assert [found.day for found in told[BY_COUNTRY].differences or ()] == [D2]
    assert told[BY_COUNTRY].reasons == ("1 day(s) a table that it reads is built before it",)
    assert told["mart.countries"].reasons == ("a table that it reads is built before it",)
    assert plan(warehouse, CATALOG, [BY_COUNTRY])[0].reasons == (), "alone it reads what is published"
    publish_all(warehouse, CATALOG, [*DAILY, "mart.countries"], days=[D2], run_id="r")
    assert {planned.reasons for planned in plan(warehouse, CATALOG, [*DAILY, "mart.countries"])} == {()}


def test_where_no_day_was_ever_loaded_nothing_would_differ(warehouse: Warehouse) -> None:
    [planned] = plan(warehouse, CATALOG, [FACT], days=[], compare=True)
    assert list(planned.lines()) == ["mart.invoice_lines: up to date", "  nothing would differ"]


def test_whole_tables_are_compared_whole_although_one_day_is_asked_for(warehouse: Warehouse) -> None:
    publish_all(warehouse, CATALOG, [FACT, "mart.products"], days=None, run_id="r")
    told = plan(warehouse, CATALOG, [FACT, "mart.products"], days=[D1], compare=True)
    assert [(planned.table, planned.differences) for planned in told] == [(FACT, ()), ("mart.products", ())]


def test_changed_rule_shows_the_days_and_sums_it_would_change(warehouse: Warehouse, tmp_path: Path) -> None:
    publish_all(warehouse, CATALOG, DAILY, days=[D1, D2], run_id="r")
    catalog = _changed(tmp_path / "models", FACT, "IF(l.line_kind = 'product' AND l.invoice_kind = 'sale'", "IF(TRUE")
    fact, by_country = plan(warehouse, catalog, [FACT, BY_COUNTRY], compare=True)
    assert fact.reasons == ("2 day(s) built by another rule",)
    assert by_country.reasons == ("2 day(s) built by another rule",), "its sums were made from the old rule's rows"
    for planned in (fact, by_country):
        assert [found.day for found in planned.differences or ()] == [D1, D2]
        assert {name for found in planned.differences or () for name in found.measures} == {"gross_sales_gbp"}
        assert all(found.rows_published == found.rows_planned for found in planned.differences or ())
    published, would_be = (fact.differences or ())[0].measures["gross_sales_gbp"]
    amount = sum(row["amount_gbp"] for row in day_lines(D1, 0, 0, 10))
    assert would_be == amount
    assert published != would_be
    # alone, the downstream table reads what is published
    (alone,) = plan(warehouse, catalog, [BY_COUNTRY], compare=True)
    assert alone.differences == ()


def test_rule_that_moves_no_sum_of_a_day_shows_the_rows_it_would_change(warehouse: Warehouse, tmp_path: Path) -> None:
    publish_all(warehouse, CATALOG, DAILY, days=[D1, D2], run_id="r")
    catalog = _changed(tmp_path / "models", FACT, "  l.country,", "  UPPER(l.country) AS country,")
    told = plan(warehouse, catalog, [FACT, BY_COUNTRY], days=[D1], compare=True)
    for planned in told:
        [found] = planned.differences or ()
        assert (found.day, found.measures, found.rows_published) == (D1, {}, found.rows_planned)
        assert found.rows_gone == found.rows_new == found.rows_published > 0
        line = (
            f"  {D1}: rows {found.rows_published} -> {found.rows_planned} ({found.rows_gone} go, {found.rows_new} come)"
        )
        assert list(planned.lines())[1:] == [line]


def test_a_table_that_was_dropped_and_made_again_is_not_up_to_date(warehouse: Warehouse) -> None:
    publish_all(warehouse, CATALOG, [FACT, "mart.countries"], days=[D1, D2], run_id="r")
    for name in (FACT, "mart.countries"):
        warehouse.run(f"DROP TABLE `{warehouse.table_id(name)}`")
    migrate(warehouse, CATALOG)
    fact, countries = plan(warehouse, CATALOG, [FACT, "mart.countries"])
    told = "published before its table was dropped and made again"
    assert (fact.reasons, fact.days, countries.reasons) == ((f"2 day(s) {told}",), (D1, D2), (told,))


def test_tables_that_no_contract_names_any_more_are_told(warehouse: Warehouse, tmp_path: Path) -> None:
    assert unnamed_tables(warehouse, CATALOG) == []
    shutil.copytree(MODELS_DIR, tmp_path / "models")
    shutil.rmtree(tmp_path / "models" / "mart" / "dates")
    fewer = load_catalog(tmp_path / "models")
    assert unnamed_tables(warehouse, fewer) == ["control.publisher_mart_dates", "mart.dates"]
