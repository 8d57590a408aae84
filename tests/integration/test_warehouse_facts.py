"""Core and marts of a second stream, in shapes that the shop has not: on the emulator, by models of the tests."""

from __future__ import annotations

import shutil
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from dbt_like_sql.__main__ import main
from dbt_like_sql.catalog import MODELS_DIR, Catalog, load_catalog
from dbt_like_sql.compare import stage_rows, staged_name
from dbt_like_sql.errors import SelectionError
from dbt_like_sql.load import DayLoad, load_days, loaded_day
from dbt_like_sql.migrate import migrate
from dbt_like_sql.plan import plan
from dbt_like_sql.publish import publish_all
from dbt_like_sql.reconcile import (
    core_days,
    core_measures,
    events_on_several_days,
    fact_of,
    mart_days,
    measured_days,
    totals,
)
from dbt_like_sql.rows import arrow_type
from dbt_like_sql.trace import trace_event, trace_mart
from dbt_like_sql.warehouse import Warehouse, open_warehouse
from tests.unit.dbt_like_sql.models import column, write_table
from tests.unit.dbt_like_sql.orders import (
    CORE,
    DAY,
    DAYS,
    KEY,
    LAST,
    REQUIRED,
    TOPIC,
    write_fact,
    write_joined,
    write_orders,
    write_view,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dbt_like_sql.settings import WarehouseSettings

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]
D1, D2 = date(2010, 12, 1), date(2010, 12, 2)
RETURNS = "shop.returns"
FIRST, LATEST, EVERY = "mart.a_first", "mart.b_latest", "mart.c_every"


def order(part: int, offset: int, no: int, line: int | None, price: str | None, **more: Any) -> dict[str, Any]:
    row = {"topic": TOPIC, "topic_partition": part, "topic_offset": offset, "order_day": D1, "order_no": no}
    value = None if price is None else Decimal(price)
    return {**row, "line_no": line, "event_id": "e", "sku": "a", "qty": 1, "price": value, **more}


ORDERS = [
    order(0, 1, 1, 1, "1.5"),
    order(0, 2, 1, 2, "2"),
    order(1, 1, 1, 2, "3"),  # the same line, with another price, through another topic partition
    order(0, 3, 2, None, "4", sku=None),
    order(0, 4, 2, None, "5", sku=None),  # and one whose number is missing
    order(1, 2, 3, 1, None, qty=None),
    order(1, 3, 1, 1, "1.5", order_day=D2),
]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(MODELS_DIR / "control", models / "control")
    write_orders(models)
    write_fact(models, FIRST)
    write_fact(models, LATEST, order=LAST)
    write_fact(models, EVERY, order=None)
    write_view(models)
    write_joined(models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dbt_like_sql.catalog.MODELS_DIR", models)
        yield load_catalog()


@pytest.fixture(scope="module")
def warehouse(module_warehouse_settings: WarehouseSettings, catalog: Catalog) -> Warehouse:
    opened = open_warehouse(module_warehouse_settings)
    migrate(opened, catalog)
    load(opened, catalog, CORE, ORDERS)
    load(opened, catalog, "core.returns", [{**ORDERS[1], "topic": RETURNS}])
    publish_all(opened, catalog, [each.name for each in catalog.layer("mart")], days=[D1, D2], run_id="r")
    return opened


def load(warehouse: Warehouse, catalog: Catalog, table: str, orders: list[dict[str, Any]]) -> None:
    topic, days = orders[0]["topic"], {each["order_day"] for each in orders}
    loads = [DayLoad(day, loaded_day(warehouse, table, day, topic), {0: 1, 1: 1}) for day in sorted(days)]
    given = rows(catalog, orders)
    load_days(warehouse, table, given, loads=loads, topic=topic, rebuild=False, run_id="r", code_version="1")


def rows(catalog: Catalog, orders: list[dict[str, Any]]) -> pa.Table:
    columns = catalog[CORE].columns
    return pa.Table.from_pylist(orders, pa.schema([(each.name, arrow_type(each.type)) for each in columns]))


@pytest.mark.parametrize(("mart", "repeats", "price"), [(FIRST, 2, "7.5"), (LATEST, 2, "9.5"), (EVERY, 0, "15.5")])
def test_core_counts_those_deliveries_that_the_fact_table_keeps(
    warehouse: Warehouse, catalog: Catalog, mart: str, repeats: int, price: str
) -> None:
    alone = Catalog({name: table for name, table in catalog.tables.items() if table.layer != "mart" or name == mart})
    fact, measures = fact_of(alone, CORE), core_measures(alone, CORE)
    core, there = core_days(warehouse, [D1], measures, fact=fact)[D1], mart_days(warehouse, [D1], fact=fact)[D1]
    assert (core.rows, core.repeats, core.rows - core.repeats) == (6, repeats, there.rows)
    assert core.sums == measured_days(warehouse, [D1], measures)[D1]
    assert core.sums[f"{mart}.price"] == Decimal(price)


def test_totals_are_of_every_core_table_and_say_which_has_no_fact_table(warehouse: Warehouse) -> None:
    orders, returns = totals(warehouse).values()
    assert (orders["core"], orders["mart"]) == ({"rows": 7, "repeats": 2}, {"table": FIRST, "rows": 5, "as_of": None})
    assert orders["measures"][f"{FIRST}.price"] == {"core": Decimal(9), "mart": Decimal(9)}
    assert orders["measures"][f"{LATEST}.price"] == {"core": None, "mart": Decimal(11)}
    assert returns == {"core": {"rows": 1, "repeats": 0}, "mart": None, "measures": {}}
    settings = warehouse.settings
    env = {
        "WAREHOUSE_PROJECT": settings.project,
        "WAREHOUSE_DATASET_PREFIX": settings.dataset_prefix,
        "BIGQUERY_EMULATOR_HOST": settings.emulator_host,
    }
    printed = CliRunner().invoke(main, ["totals"], env=env, catch_exceptions=False).output.splitlines()
    assert printed[:2] == ["core.orders: rows 7, repeats 2", f"  {FIRST}: rows 5, as of unknown"]
    assert any(each.startswith(f"  {LATEST}.price: core not derivable from the queries, mart 11") for each in printed)
    assert printed[-2:] == ["core.returns: rows 1, repeats 0", "  no daily mart keeps its events one by one"]
    listed = CliRunner().invoke(main, ["days"], env=env, catch_exceptions=False).output.splitlines()
    assert [each for each in listed if each.endswith(":")] == [f"{CORE} of {TOPIC}:", f"core.returns of {RETURNS}:"]


def test_event_on_two_days_is_told_by_all_columns_that_it_is_known_by(warehouse: Warehouse, catalog: Catalog) -> None:
    found = events_on_several_days(warehouse, [D1, D2], fact=fact_of(catalog, CORE))
    assert found == [{"event_id": "1 1", "days": "2010-12-01 2010-12-02"}]


def test_mart_behind_a_view_is_compared_with_the_rows_that_changed_rules_make(
    warehouse: Warehouse, catalog: Catalog
) -> None:
    into = staged_name(warehouse, CORE, "compare")
    dearer = [{**each, "price": each["price"] and each["price"] + 1} for each in ORDERS]
    stage_rows(warehouse, CORE, rows(catalog, dearer), days=[D1, D2], topic=TOPIC, into=into)
    names = [CORE, *catalog.downstream(CORE)]
    told = {
        each.table: each.differences for each in plan(warehouse, catalog, names, compare=True, instead={CORE: into})
    }
    warehouse.drop_table(into)
    assert [found.measures for found in told["mart.by_sku"] or ()] == [
        {"price": (Decimal("15.5"), Decimal("20.5"))},
        {"price": (Decimal("1.5"), Decimal("2.5"))},
    ]


def test_event_is_traced_through_views_and_by_keys_of_any_type_and_a_repeat_is_named_by_its_key(
    warehouse: Warehouse, catalog: Catalog
) -> None:
    def traced(part: int, offset: int) -> dict[str, Any]:
        identity = {"topic": TOPIC, "topic_partition": part, "topic_offset": offset}
        return {each.table: each for each in trace_event(warehouse, catalog, CORE, identity, D1).marts}

    repeat = traced(0, 4)  # of a line without a number, with a product that nobody knows
    assert (
        repeat[FIRST].note
        == "this delivery is a repeat of event 2, None: the row counts its first delivery, shop.orders/0/3"
    )
    assert (repeat[LATEST].note, repeat[LATEST].rows[0]["price"]) == ("", Decimal(5))
    assert [each["price"] for each in repeat["mart.by_sku"].rows] == [Decimal(9)]
    assert "marks no column as primaryKey" in repeat[EVERY].note
    assert "the row counts its last delivery, shop.orders/0/4" in traced(0, 3)[LATEST].note
    assert [each["pairs"] for each in traced(0, 2)["mart.sent_back"].rows] == [1]


def test_mart_row_is_made_of_the_events_of_both_streams_that_it_joins(warehouse: Warehouse, catalog: Catalog) -> None:
    found = trace_mart(warehouse, catalog, "mart.sent_back", {"order_day": str(D1), "sku": "a", "price": "2"})
    assert found.paths == (("mart.sent_back", CORE), ("mart.sent_back", "core.returns"))
    assert (found.ranges, found.events) == (((TOPIC, 0, 2, 2, 1), (RETURNS, 0, 2, 2, 1)), 2)
    with pytest.raises(SelectionError, match="marks no column as primaryKey; name columns of the row yourself"):
        trace_mart(warehouse, catalog, EVERY, {})


def test_mart_that_was_dropped_on_purpose_is_made_again_with_the_word_that_it_is_empty(
    warehouse: Warehouse, catalog: Catalog
) -> None:
    """No load will publish the days that it had: to the ledger of publications they are up to date."""
    warehouse.drop_table(warehouse.table_id("mart.sent_back"))
    [made] = migrate(warehouse, catalog)
    assert made.table == "mart.sent_back"
    assert made.what.endswith("is empty now, until `dbt-like-sql publish mart.sent_back`")
    publish_all(warehouse, catalog, ["mart.sent_back"], days=[D1, D2], run_id="r")
    assert warehouse.run(f"SELECT pairs FROM `{warehouse.table_id('mart.sent_back')}`").rows


def test_mart_row_is_traced_by_a_missing_key_and_a_value_of_another_type_is_told(
    warehouse: Warehouse, catalog: Catalog
) -> None:
    found = trace_mart(warehouse, catalog, "mart.by_sku", {"order_day": str(D1), "sku": "NULL"})
    assert (found.row and found.row["price"], found.ranges) == (Decimal(9), ((TOPIC, 0, 3, 4, 2),))
    for named, value, expected in (
        ("order_day", "2010-13-01", "a date such as"),
        ("price", "NaN", "a number"),
        ("order_no", "1.5", "a whole number"),
    ):
        with pytest.raises(SelectionError, match=f"{named} is '{value}'; expected {expected}.*Nothing was read"):
            trace_mart(warehouse, catalog, EVERY, {named: value})


def test_mart_row_is_traced_by_a_key_that_its_model_makes_of_a_column(
    warehouse: Warehouse, catalog: Catalog, tmp_path: Path
) -> None:
    """The name of missing values stands in no row of core, so that by the column alone nothing was found."""
    write_view(tmp_path)
    write_orders(tmp_path)
    query = (
        f"WITH upper_case AS (SELECT order_day, UPPER(sku) AS sku, price FROM mart.priced {DAYS}) "
        "SELECT order_day, COALESCE(sku, 'NONE') AS named, SUM(price) AS price FROM upper_case "
        "GROUP BY order_day, COALESCE(sku, 'NONE')"
    )
    columns = DAY.replace(REQUIRED, KEY) + column("named", "STRING", more=KEY) + column("price", "NUMERIC")
    write_table(tmp_path, "mart.by_name", query=query, columns=columns)
    more = Catalog({**catalog.tables, **load_catalog(tmp_path).tables})
    migrate(warehouse, more)
    publish_all(warehouse, more, ["mart.by_name"], days=[D1], run_id="r")
    missing = trace_mart(warehouse, more, "mart.by_name", {"order_day": str(D1), "named": "NONE"})
    assert (missing.row and missing.row["price"], missing.ranges) == (Decimal(9), ((TOPIC, 0, 3, 4, 2),))
    changed = trace_mart(warehouse, more, "mart.by_name", {"order_day": str(D1), "named": "A"})
    assert changed.ranges == ((TOPIC, 0, 1, 2, 2), (TOPIC, 1, 1, 2, 2))


def test_event_is_followed_into_a_mart_that_turns_its_values_into_columns(
    warehouse: Warehouse, catalog: Catalog, tmp_path: Path
) -> None:
    write_orders(tmp_path)
    query = (
        f"SELECT order_day, a FROM (SELECT order_day, sku, price FROM {CORE} {DAYS}) PIVOT(SUM(price) FOR sku IN ('a'))"
    )
    write_table(tmp_path, "mart.wide", query=query, columns=DAY.replace(REQUIRED, KEY) + column("a", "NUMERIC"))
    of_orders = "SELECT order_no, a FROM mart.priced_orders PIVOT(SUM(price) FOR sku IN ('a'))"
    priced = f"SELECT order_no, sku, price FROM {CORE}"
    columns = column("order_no", "INT64", more=KEY)
    both = columns + column("sku", "STRING") + column("price", "NUMERIC")
    write_table(tmp_path, "mart.priced_orders", query=priced, columns=both, materialization="view")
    write_table(tmp_path, "mart.wide_orders", query=of_orders, columns=columns + column("a", "NUMERIC"))
    more = Catalog({**catalog.tables, **load_catalog(tmp_path).tables})
    migrate(warehouse, more)
    publish_all(warehouse, more, ["mart.wide", "mart.wide_orders"], days=[D1, D2], run_id="r")
    identity = {"topic": TOPIC, "topic_partition": 0, "topic_offset": 1}
    traced = {each.table: each.rows for each in trace_event(warehouse, more, CORE, identity, D1).marts}
    assert traced["mart.wide"] == ({"order_day": D1, "a": Decimal("6.5")},)
    assert traced["mart.wide_orders"] == ({"order_no": 1, "a": Decimal(8)},)
