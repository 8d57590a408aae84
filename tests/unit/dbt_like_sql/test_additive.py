"""What a measure is in terms of core, by the models alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dbt_like_sql.additive import additive_measures
from dbt_like_sql.catalog import Catalog, load_catalog

if TYPE_CHECKING:
    from pathlib import Path

CORE = "core.invoice_lines"


def test_every_additive_column_of_every_daily_mart_is_derived_from_core() -> None:
    catalog = load_catalog()
    found = additive_measures(catalog, CORE)
    expected = {
        f"{table.name}.{column.name}"
        for table in catalog
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
