"""What a plan compares: queries in place of the tables that would be published before."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.plan import planned_sql
from tests.unit.dbt_like_sql.models import column, write_table

D1, D2 = date(2010, 12, 1), date(2010, 12, 2)
PARTITION = "        partitioned: true\n        partitionKeyPosition: 1\n"


def test_whole_tables_are_made_of_every_day_and_tables_of_days_of_those_asked_for(tmp_path: Path) -> None:
    day = column("day", "DATE", more=PARTITION)
    write_table(tmp_path, "core.lines", materialization="loaded", columns=day)
    write_table(tmp_path, "mart.daily", query="SELECT day FROM core.lines WHERE day IN UNNEST(@days)", columns=day)
    write_table(tmp_path, "mart.whole", query="SELECT a FROM mart.daily")
    reading = "SELECT d.day FROM mart.daily AS d JOIN mart.whole AS w ON TRUE WHERE d.day IN UNNEST(@days)"
    write_table(tmp_path, "mart.reader", query=reading, columns=day)
    catalog = load_catalog(tmp_path)
    sql = planned_sql(catalog, catalog["mart.reader"], set(catalog.tables), [D1, D2])
    daily, whole = sql.split(" JOIN ")
    assert daily == "SELECT d.day FROM (SELECT day FROM core.lines WHERE day IN UNNEST(@days)) AS d"
    assert "WHERE day BETWEEN CAST('2010-12-01' AS DATE) AND CAST('2010-12-02' AS DATE)) AS daily) AS w" in whole
    assert whole.endswith("WHERE d.day IN UNNEST(@days)")


def test_table_that_is_read_pivoted_stays_pivoted(tmp_path: Path) -> None:
    write_table(tmp_path, "mart.sums", query="SELECT 'x' AS a")
    write_table(tmp_path, "mart.wide", query="SELECT x AS a FROM mart.sums PIVOT(COUNT(a) FOR a IN ('x'))")
    catalog = load_catalog(tmp_path)
    sql = planned_sql(catalog, catalog["mart.wide"], set(catalog.tables), [])
    assert sql == "SELECT x AS a FROM (SELECT 'x' AS a) AS sums PIVOT(COUNT(a) FOR a IN ('x'))"
