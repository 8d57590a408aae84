"""What a measure is in terms of core, by the models alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from dbt_like_sql.additive import HASH, Measure, additive_measures, fact_table, label_hashes
from dbt_like_sql.catalog import Catalog, load_catalog
from tests.unit.dbt_like_sql.models import column, write_table
from tests.unit.dbt_like_sql.orders import ADDITIVE, DAY, DAYS, LAST, NULL_KEY, ROWS, write_fact, write_orders
from tests.unit.dbt_like_sql.orders import CORE as ORDERS

if TYPE_CHECKING:
    from pathlib import Path

CORE = "core.invoice_lines"


def test_every_additive_column_of_every_daily_mart_is_derived_from_core() -> None:
    catalog = load_catalog()
    found = additive_measures(catalog, CORE)
    expected = {
        f"{table.name}.{column.name}"
        for table in map(catalog.__getitem__, catalog.downstream(CORE))
        for column in table.columns
        if table.layer == "mart" and table.materialization == "table" and table.partition_column and column.is_additive
    }
    assert {each.name for each in found} == expected
    assert len(expected) > 10
    assert [each.name for each in found if each.source_sql is None] == []


def test_measures_of_sums_are_followed_through_the_fact_table_to_cores_own_columns() -> None:
    catalog = load_catalog()
    found = {each.name: each.source_sql for each in additive_measures(catalog, CORE)}
    assert found["mart.daily_sales_by_country.lines"] == "1"
    assert found["mart.daily_sales_by_product.amount_gbp"] == "amount_gbp"
    returns = found["mart.daily_sales_by_country.returns_gbp"]
    assert returns == found["mart.invoice_lines.returns_gbp"]
    assert returns is not None
    assert "-amount_gbp" in returns
    assert "l." not in returns


def test_measure_whose_rows_are_filtered_is_told_and_not_guessed(tmp_path: Path) -> None:
    catalog = load_catalog()
    fact = catalog["mart.invoice_lines"]
    filtered = tmp_path / "query.sql"
    text = (fact.query or "").replace("IN UNNEST(@days)", "IN UNNEST(@days) AND l.line_kind = 'product'")
    filtered.write_text(text)
    changed = Catalog({**catalog.tables, fact.name: replace(fact, query_path=filtered)})
    assert all(each.source_sql is None for each in additive_measures(changed, CORE))


def test_column_that_becomes_additive_is_compared_from_then_on() -> None:
    catalog = load_catalog()
    fact = catalog["mart.invoice_lines"]
    columns = tuple(replace(each, is_additive=True) if each.name == "line_no" else each for each in fact.columns)
    changed = Catalog({**catalog.tables, fact.name: replace(fact, columns=columns)})
    new = {each.name for each in additive_measures(changed, CORE)} - {
        each.name for each in additive_measures(catalog, CORE)
    }
    assert new == {"mart.invoice_lines.line_no"}


def test_fact_table_says_by_which_columns_an_event_is_known_and_which_delivery_counts(tmp_path: Path) -> None:
    write_orders(tmp_path)
    write_fact(tmp_path, "mart.latest", order=LAST)
    found = fact_table(load_catalog(tmp_path), ORDERS)
    assert found is not None
    assert (found[0].name, found[1].keys) == ("mart.latest", ("order_no", "line_no"))
    assert found[1].order == (("topic", True), ("topic_partition", True), ("topic_offset", True))


def test_table_that_keeps_every_delivery_adds_repeats_up_and_is_no_fact_beside_one_that_does_not(
    tmp_path: Path,
) -> None:
    write_orders(tmp_path)
    write_fact(tmp_path, "mart.all_of_them", order=None)
    write_fact(tmp_path, "mart.lines")
    both = load_catalog(tmp_path)
    alone = Catalog({name: table for name, table in both.tables.items() if name != "mart.lines"})
    assert [(found := fact_table(each, ORDERS)) and found[0].name for each in (alone, both)] == [
        "mart.all_of_them",
        "mart.lines",
    ]
    told = {each.name: (each.source_sql, each.counts_repeats) for each in additive_measures(both, ORDERS)}
    assert told["mart.all_of_them.qty"] == ("qty", True)
    assert told["mart.lines.qty"] == ("qty", False)


def test_measure_of_a_table_with_other_repeats_than_the_fact_s_is_told_and_not_guessed(tmp_path: Path) -> None:
    write_orders(tmp_path)
    write_fact(tmp_path, "mart.a_first")
    write_fact(tmp_path, "mart.b_latest", order=LAST)
    told = {each.name: each.source_sql for each in additive_measures(load_catalog(tmp_path), ORDERS)}
    assert (told["mart.a_first.qty"], told["mart.b_latest.qty"]) == ("qty", None)


def test_marts_whose_days_are_built_whole_are_compared_as_those_that_grow(tmp_path: Path) -> None:
    write_orders(tmp_path)
    write_fact(tmp_path, "mart.lines", grows_by=None)
    columns = DAY + column("sold", "INT64", more=ADDITIVE) + column("lines", "INT64", more=ADDITIVE)
    sums = f"SELECT order_day, SUM(IF(qty > 0, qty, 0)) AS sold, COUNT(*) AS lines FROM mart.lines {DAYS}"
    write_table(tmp_path, "mart.daily", query=f"{sums} GROUP BY order_day", columns=columns)
    catalog = load_catalog(tmp_path)
    found = fact_table(catalog, ORDERS)
    assert found is not None
    assert (found[0].name, found[1].keys) == ("mart.lines", ("order_no", "line_no"))
    assert {each.name: (each.source_sql, each.counts_repeats) for each in additive_measures(catalog, ORDERS)} == {
        "mart.daily.sold": ("IF(qty > 0, qty, 0)", False),
        "mart.daily.lines": ("1", False),
        "mart.lines.qty": ("qty", False),
        "mart.lines.price": ("price", False),
    }


@pytest.mark.parametrize(
    "query",
    [
        ROWS.replace("SELECT", "SELECT DISTINCT"),
        ROWS + " LIMIT 5",
        ROWS.replace("FROM core.orders", "FROM core.orders CROSS JOIN UNNEST([1, 2])"),
        ROWS + " QUALIFY ROW_NUMBER() OVER (ORDER BY topic, topic_partition, topic_offset) = 1",
        f"{ROWS} UNION ALL {ROWS}",
    ],
    ids=["distinct", "limit", "join", "one row of all", "union"],
)
def test_table_built_whole_that_does_more_than_take_rows_is_no_fact_table(tmp_path: Path, query: str) -> None:
    write_orders(tmp_path)
    write_fact(tmp_path, "mart.lines", query=query, order=None, grows_by=None)
    assert fact_table(load_catalog(tmp_path), ORDERS) is None


@pytest.mark.parametrize(
    "query",
    [
        ROWS.replace("SELECT order_day", "SELECT DATE(due_day) AS order_day"),
        ROWS.replace(f"FROM {ORDERS}", f"FROM (SELECT * FROM {ORDERS} WHERE qty > 0) AS some"),
    ],
    ids=["rows of other days", "rows filtered below"],
)
def test_table_of_other_rows_than_the_day_s_is_no_fact_table(tmp_path: Path, query: str) -> None:
    write_orders(tmp_path)
    write_fact(tmp_path, "mart.lines", query=query)
    assert fact_table(load_catalog(tmp_path), ORDERS) is None


def measure_by_sku(models: Path, quantity: str) -> Measure:
    """The one measure of a mart that sums up quantities by day and article."""
    write_orders(models)
    columns = DAY + column("sku", "STRING", more=NULL_KEY) + column("qty", "INT64", more=ADDITIVE)
    write_table(models, "mart.by_sku", query=f"SELECT order_day, sku, {quantity}", columns=columns)
    [found] = additive_measures(load_catalog(models), ORDERS)
    return found


@pytest.mark.parametrize(
    ("groups", "added"),
    [
        ("order_day, sku", "qty"),
        ("GROUPING SETS ((order_day, sku), (order_day))", None),
        ("ROLLUP (order_day, sku)", None),
    ],
)
def test_sums_over_core_itself_count_repeats_and_those_with_subtotals_are_not_derived(
    tmp_path: Path, groups: str, added: str | None
) -> None:
    found = measure_by_sku(tmp_path, f"SUM(qty) AS qty FROM {ORDERS} {DAYS} GROUP BY {groups}")
    assert (found.source_sql, found.counts_repeats) == (added, added is not None)


@pytest.mark.parametrize(
    ("added", "of"),
    [
        ("SUM(IF(order_day < @today, qty, 0))", ORDERS),
        ("COUNTIF(order_day < CURRENT_DATE())", ORDERS),
        ("SUM(CAST(RAND() * 10 AS INT64))", ORDERS),
        ("SUM(qty HAVING MAX topic_offset)", ORDERS),
        ("SUM(qty)", f"{ORDERS} TABLESAMPLE SYSTEM (10 PERCENT)"),
        ("SUM(qty)", f"{ORDERS} FOR SYSTEM_TIME AS OF TIMESTAMP '2010-12-01'"),
    ],
)
def test_sum_that_is_another_one_when_it_is_compared_is_told_and_not_asked_for(
    tmp_path: Path, added: str, of: str
) -> None:
    """A comparison has no @today: asking for it failed those of all other measures too."""
    found = measure_by_sku(tmp_path, f"{added} AS qty FROM {of} {DAYS} GROUP BY order_day, sku")
    assert found.source_sql is None


def test_column_of_the_fact_table_that_depends_on_the_clock_is_told_and_not_guessed(tmp_path: Path) -> None:
    write_orders(tmp_path)
    query = ROWS.replace("qty", "IF(order_day < @today, qty, 0) AS qty")
    write_fact(tmp_path, "mart.a_first", query=query, grows_by="")
    found = {each.name: each.source_sql for each in additive_measures(load_catalog(tmp_path), ORDERS)}
    assert found == {"mart.a_first.qty": None, "mart.a_first.price": "price"}


def test_labels_are_hashed_in_terms_of_core_and_as_often_as_rows_were_counted() -> None:
    found = {each.table: each for each in label_hashes(load_catalog(), CORE)}
    assert found.keys() == {"mart.invoice_lines", "mart.daily_sales_by_country", "mart.daily_sales_by_product"}
    fact, sums = found["mart.invoice_lines"], found["mart.daily_sales_by_country"]
    assert "(COALESCE(customer_id, 'guest')) AS STRING)" in (fact.source_sql or "")
    assert "gross_sales_gbp" not in (fact.source_sql or ""), "measures have sums of their own"
    assert (sums.table_sql or "").endswith(" * lines")
    assert not (sums.source_sql or "").endswith(" * lines")
    assert "country" in (sums.source_sql or "")
    assert sums.name == f"mart.daily_sales_by_country.{HASH}"


def test_labels_of_sums_that_count_no_rows_or_read_more_than_a_row_are_not_compared(tmp_path: Path) -> None:
    write_orders(tmp_path)
    asked = ROWS.replace("event_id,", "CAST(CURRENT_DATE() AS STRING) AS event_id,")
    write_fact(tmp_path, "mart.a_lines", query=asked, grows_by=None)
    query = f"SELECT order_day, sku AS item, SUM(qty) AS qty FROM {ORDERS} {DAYS} GROUP BY order_day, sku"
    columns = DAY + column("item", "STRING", more=NULL_KEY) + column("qty", "INT64", more=ADDITIVE)
    write_table(tmp_path, "mart.b_sums", query=query, columns=columns)
    query = query.replace("SUM(qty) AS qty", "COUNT(*) AS orders")
    write_table(tmp_path, "mart.c_counts", query=query, columns=columns.replace("name: qty", "name: orders"))
    found = {each.table: each for each in label_hashes(load_catalog(tmp_path), ORDERS)}
    assert found.keys() == {"mart.a_lines", "mart.c_counts"}
    assert "CURRENT_DATE" not in (found["mart.a_lines"].source_sql or "")
    assert "event_id" not in (found["mart.a_lines"].table_sql or "")
    assert "item" in (found["mart.c_counts"].table_sql or "")
    assert "sku" in (found["mart.c_counts"].source_sql or "")
    assert found["mart.c_counts"].counts_repeats
