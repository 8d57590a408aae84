"""Sums that a publication has made are taken by its checks; whatever asks for anything else reads the table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.counted import with_counted
from dbt_like_sql.graph import references, tree

TABLES = load_catalog().tables
FACT, SALES = "mart.invoice_lines", "mart.daily_sales_by_country"
DAYS = "invoice_date IN UNNEST(@days)"
BY_DAY = f"FROM {FACT} WHERE {DAYS} GROUP BY invoice_date"


def counted(inner: str, *names: str) -> str:
    published = {name: TABLES[name] for name in names or (FACT, SALES)}
    return with_counted(f"SELECT * FROM ({inner}) AS fact WHERE fact.lines IS NULL", published)


def test_sums_of_a_day_are_read_from_what_was_counted() -> None:
    found = counted(f"SELECT invoice_date, COUNT(*) AS lines, SUM(amount_gbp) AS amount_gbp {BY_DAY}")
    assert references(tree(found)) == ()
    assert "s.event_day AS invoice_date, s.row_count AS lines, s.m_4 AS amount_gbp" in found
    assert f"FROM UNNEST(published_sums) AS s WHERE s.table_name = '{FACT}'" in found


def test_whole_numbers_stay_whole_numbers() -> None:
    found = counted(f"SELECT invoice_date, SUM(lines) AS lines FROM {SALES} WHERE {DAYS} GROUP BY invoice_date")
    assert "CAST(s.m_0 AS INT64) AS lines" in found


def test_both_sides_of_the_checks_of_daily_sums_are_at_hand() -> None:
    for name in (SALES, "mart.daily_sales_by_product"):
        [check] = [each for each in TABLES[name].checks if each.name == "lines and amounts are those of the fact table"]
        assert references(tree(with_counted(check.sql, {each: TABLES[each] for each in (FACT, name)}))) == ()
        assert references(tree(with_counted(check.sql, {name: TABLES[name]}))) == (FACT,), "not counted here: read"


def test_core_is_counted_anew_by_the_check_of_the_fact_table() -> None:
    name = "rows and amount are those of the first deliveries in core"
    [check] = [each for each in TABLES[FACT].checks if each.name == name]
    assert references(tree(with_counted(check.sql, TABLES))) == ("core.invoice_lines",)


@pytest.mark.parametrize(
    "inner",
    [
        f"SELECT invoice_date, SUM(quantity * 2) AS lines {BY_DAY}",
        f"SELECT invoice_date, MAX(quantity) AS lines {BY_DAY}",
        f"SELECT invoice_date, SUM(line_no) AS lines {BY_DAY}",
        f"SELECT invoice_date, COUNT(DISTINCT invoice_no) AS lines {BY_DAY}",
        f"SELECT invoice_date, COUNT(customer_id) AS lines {BY_DAY}",
        f"SELECT invoice_date, SUM(DISTINCT amount_gbp) AS lines {BY_DAY}",
        f"SELECT invoice_date, COUNT(*) AS lines {BY_DAY} HAVING COUNT(*) > 1",
        f"SELECT invoice_date, COUNT(*) AS lines {BY_DAY} LIMIT 1",
        f"SELECT invoice_date, country, COUNT(*) AS lines {BY_DAY}, country",
        f"SELECT COUNT(*) AS lines FROM {FACT} WHERE invoice_date IN UNNEST(@days)",
        f"SELECT invoice_date, COUNT(*) AS lines FROM {FACT} GROUP BY invoice_date",
        f"SELECT invoice_date, COUNT(*) AS lines FROM {FACT} WHERE {DAYS} AND quantity > 0 GROUP BY invoice_date",
        f"SELECT invoice_date, COUNT(*) AS lines FROM {FACT} WHERE NOT {DAYS} GROUP BY invoice_date",
        (
            f"SELECT a.invoice_date, COUNT(*) AS lines FROM {FACT} AS a JOIN {SALES} AS b ON b.country = a.country "
            f"WHERE a.{DAYS} GROUP BY a.invoice_date"
        ),
        "SELECT country AS invoice_date, COUNT(*) AS lines FROM mart.countries GROUP BY country",
        f"SELECT invoice_date, COUNT(*) AS lines FROM core.invoice_lines WHERE {DAYS} GROUP BY invoice_date",
    ],
)
def test_anything_else_is_asked_of_the_table(inner: str) -> None:
    whole = f"SELECT * FROM ({inner}) AS fact WHERE fact.lines IS NULL"
    assert with_counted(whole, {name: TABLES[name] for name in (FACT, SALES, "mart.countries")}) == whole


def test_column_that_is_no_longer_additive_is_summed_up_from_the_table() -> None:
    columns = tuple(replace(each, is_additive=False) for each in TABLES[FACT].columns)
    inner = f"SELECT invoice_date, SUM(amount_gbp) AS lines {BY_DAY}"
    whole = f"SELECT * FROM ({inner}) AS fact"
    assert with_counted(whole, {FACT: replace(TABLES[FACT], columns=columns)}) == whole
