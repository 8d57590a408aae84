"""Which tables of sums may be published by difference: what the syntax tree proves, and what it does not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlglot

from dbt_like_sql.catalog import Table, load_catalog
from dbt_like_sql.difference import Growth, check_additive, counting_column, new_rows_sql, touched_name
from dbt_like_sql.errors import ContractError
from dbt_like_sql.publish_state import OffsetRange

if TYPE_CHECKING:
    from pathlib import Path

DAY = date(2010, 12, 1)
SALES, FACT = "mart.daily_sales_by_country", "mart.invoice_lines"
TABLES = dict(load_catalog().tables)
FROM = "FROM mart.invoice_lines WHERE invoice_date IN UNNEST(@days) GROUP BY invoice_date, country"


def sales(tmp_path: Path, query: str) -> Table:
    path = tmp_path / "query.sql"
    path.write_text(query, encoding="utf-8")
    return replace(TABLES[SALES], query_path=path)


@pytest.mark.parametrize("name", [SALES, "mart.daily_sales_by_product"])
def test_sums_and_a_distinct_count_of_the_key_add_up(name: str) -> None:
    check_additive(TABLES[name], TABLES)
    assert counting_column(TABLES[name]) == "lines"


def test_table_of_other_days_than_its_parent_s_does_not_grow() -> None:
    by_other_day = replace(TABLES[SALES], partition_column="shipped_date")
    with pytest.raises(ContractError, match="it is partitioned by shipped_date, and mart"):
        check_additive(by_other_day, TABLES)


def test_one_grouped_select_adds_up(tmp_path: Path) -> None:
    check_additive(sales(tmp_path, f"SELECT invoice_date, country, COUNT(*) AS lines {FROM}"), TABLES)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (f"SELECT invoice_date, country, COUNT(*) AS lines, MAX(amount_gbp) AS m {FROM}", "m is neither"),
        (f"SELECT invoice_date, country, COUNT(*) AS lines, AVG(amount_gbp) AS m {FROM}", "m is neither"),
        (f"SELECT invoice_date, country, COUNT(*) AS lines, COUNT(DISTINCT customer_id) AS m {FROM}", "m is neither"),
        (f"SELECT invoice_date, country, COUNT(*) AS lines, SUM(DISTINCT quantity) AS m {FROM}", "m is neither"),
        (f"SELECT invoice_date, country, COUNT(*) AS lines, SUM(quantity) + 1 AS m {FROM}", "m is neither"),
        (
            f"SELECT invoice_date, country, COUNT(*) AS lines, SUM(IF(invoice_date < @today, 1, 0)) AS m {FROM}",
            "m is neither COUNT",
        ),
        (
            "SELECT invoice_date, country, COUNT(*) AS lines "
            + FROM.replace("mart.invoice_lines", "mart.invoice_lines TABLESAMPLE SYSTEM (10 PERCENT)"),
            "a part of its source",
        ),
        (f"SELECT invoice_date, country, SUM(quantity) AS lines {FROM}", "COUNT"),
        (f"SELECT invoice_date, country, COUNT(*) AS lines {FROM} HAVING COUNT(*) > 1", "more than group"),
        (f"SELECT invoice_date, UPPER(country) AS country, COUNT(*) AS lines {FROM}", "as it is"),
        (f"SELECT invoice_date, country, COUNT(*) AS lines {FROM}, stock_code", "table's key"),
        (
            (
                "SELECT invoice_date, country, COUNT(*) AS lines FROM mart.invoice_lines "
                "WHERE invoice_date IN UNNEST(@days) AND quantity > 0 GROUP BY invoice_date, country"
            ),
            "filters",
        ),
        (
            (
                f"WITH a AS (SELECT invoice_date, country, COUNT(*) AS lines {FROM}), "
                f"b AS (SELECT invoice_date, country, SUM(quantity) AS q {FROM}) "
                "SELECT a.invoice_date, a.country, a.lines, b.q FROM a JOIN b "
                "ON b.country = a.country"
            ),
            "join",
        ),
        (
            (
                f"WITH a AS (SELECT invoice_date, country, COUNT(*) AS lines {FROM}) "
                "SELECT invoice_date, country, lines * 2 AS lines FROM a"
            ),
            "computes",
        ),
        (
            (
                f"WITH a AS (SELECT invoice_date, country, COUNT(*) AS lines {FROM}) "
                "SELECT invoice_date, country, lines FROM a WHERE lines > 1"
            ),
            "more than join",
        ),
    ],
)
def test_query_that_does_not_add_up_is_refused(tmp_path: Path, query: str, problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        check_additive(sales(tmp_path, query), TABLES)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("= 1", "= 2"), "first"),
        (("ROW_NUMBER()", "RANK()"), "first"),
        (("ORDER BY l.topic, l.topic_partition, l.topic_offset", "ORDER BY l.produced_at"), "first"),
        (("l.topic_offset\nFROM", "l.topic_offset + 1 AS topic_offset\nFROM"), "known by"),
        (("l.invoice_no,", "MAX(l.invoice_no) OVER (PARTITION BY l.event_id) AS invoice_no,"), "several source rows"),
        (("IN UNNEST(@days)", "IN UNNEST(@days) AND l.quantity > 0"), "filters"),
    ],
)
def test_source_whose_rows_may_vanish_or_change_is_refused(
    tmp_path: Path, change: tuple[str, str], problem: str
) -> None:
    path = tmp_path / "query.sql"
    query = TABLES[FACT].query or ""
    assert change[0] in query
    path.write_text(query.replace(*change), encoding="utf-8")
    with pytest.raises(ContractError, match=problem):
        check_additive(TABLES[SALES], {**TABLES, FACT: replace(TABLES[FACT], query_path=path)})


def test_columns_that_do_not_add_up_exactly_are_refused() -> None:
    columns = [replace(each, type="FLOAT64") if each.name == "items" else each for each in TABLES[SALES].columns]
    with pytest.raises(ContractError, match="exactly"):
        check_additive(replace(TABLES[SALES], columns=tuple(columns)), TABLES)


def test_tables_share_their_new_rows_only_where_these_are_the_same() -> None:
    day, other = date(2010, 12, 1), "mart.daily_sales_by_product"
    some, more = (OffsetRange("t", 0, 5, 9, 5),), (OffsetRange("t", 0, 5, 10, 6),)
    one = touched_name(Growth(TABLES[SALES], TABLES[FACT], {day: some}))
    assert touched_name(Growth(TABLES[other], TABLES[FACT], {day: some})) == one
    assert touched_name(Growth(TABLES[other], TABLES[FACT], {day: more})) != one


def test_new_rows_are_bounded_over_all_ranges_and_the_bounds_leave_none_out() -> None:
    """A warehouse skips blocks by a bound of its own, not by an OR of pairs; rows of each range have to stay in."""
    ranges = {
        DAY: (OffsetRange("t", 0, 70, 79, 10), OffsetRange("t", 1, 5, 9, 5)),
        DAY + timedelta(days=1): (OffsetRange("t", 1, 10, 12, 3),),
    }
    sql = new_rows_sql("day", ranges)
    assert sql.startswith("(topic_offset BETWEEN 5 AND 79 AND (")
    condition = sqlglot.parse_one(sql, dialect="bigquery").sql(dialect="sqlite")
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE TABLE t (day TEXT, topic_partition INTEGER, topic_offset INTEGER)")
        days = [str(day) for day in (DAY - timedelta(days=1), *ranges)]
        rows = [(day, partition, offset) for day in days for partition in (0, 1, 2) for offset in range(90)]
        conn.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        found = set(conn.execute(f"SELECT * FROM t WHERE {condition}"))
    assert found == {
        (str(day), each.topic_partition, offset)
        for day, listed in ranges.items()
        for each in listed
        for offset in range(each.first_offset, each.last_offset + 1)
    }
