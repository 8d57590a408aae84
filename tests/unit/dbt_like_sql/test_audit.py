"""Checks of single rows are counted in one scan; all others stand as they were written."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from dbt_like_sql.audit_sql import audit_sql, ordered_checks, row_check
from dbt_like_sql.catalog import Table, load_catalog
from dbt_like_sql.checks import Check
from dbt_like_sql.render import Slice
from tests.unit.dbt_like_sql.models import column, write_table

CATALOG = load_catalog()


def check(sql: str) -> Check:
    return Check("c", "fail", sql)


def test_condition_on_one_row_is_found() -> None:
    found = row_check(check("SELECT a FROM mart.x WHERE d IN UNNEST(@days) AND a != b AND (c = 1 OR c = 2)"))
    assert found is not None
    assert (found.relation, found.day, found.condition) == ("mart.x", "d", "(a <> b) AND (c = 1 OR c = 2)")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM mart.x WHERE d IN UNNEST(@days) GROUP BY a HAVING COUNT(*) > 1",
        "SELECT x.a FROM mart.x AS x JOIN mart.y AS y ON x.a = y.a",
        "SELECT DISTINCT a FROM mart.x",
        "SELECT COUNT(*) AS n FROM mart.x",
        "SELECT a FROM mart.x QUALIFY ROW_NUMBER() OVER (PARTITION BY a ORDER BY b) > 1",
        "SELECT a FROM mart.x WHERE a IN (SELECT a FROM mart.x)",
        "SELECT * FROM mart.x WHERE a = 1",
        "SELECT a FROM mart.x WHERE d IN UNNEST(@days) OR a = 1",
        "SELECT a FROM mart.x LIMIT 1",
        "SELECT a FROM mart.x WHERE d IN UNNEST(ARRAY_CONCAT(@days, [DATE '2010-01-01']))",
        "WITH y AS (SELECT a FROM mart.x) SELECT a FROM y",
    ],
)
def test_check_that_is_more_than_a_condition_stands_as_it_is(sql: str) -> None:
    assert row_check(check(sql)) is None


def audit(table: Table, *, explain: bool) -> str:
    return audit_sql([table], lambda name: f"p.{name}", lambda _table: Slice([date(2010, 12, 1)]), explain=explain)


def test_checks_of_single_rows_share_one_scan_and_none_is_lost() -> None:
    fact = CATALOG["mart.invoice_lines"]
    sql = audit(fact, explain=True)
    assert sql.count("COUNTIF(") == sum(row_check(each) is not None for each in fact.checks) >= 5
    assert sql.count(" AS failed_rows") == len(fact.checks) == len(ordered_checks([fact]))
    assert {check.name for _table, check in ordered_checks([fact])} == {check.name for check in fact.checks}


def test_checks_are_asked_of_the_days_that_they_name(tmp_path: Path) -> None:
    day = "        partitioned: true\n        partitionKeyPosition: 1\n"
    columns = column("shipped", "DATE", more=day) + column("ordered", "DATE") + column("a", "INT64")
    sql = "SELECT ordered AS shipped, ordered, a FROM core.orders WHERE ordered IN UNNEST(@days)"
    checks = """
#fail shipped
SELECT a FROM mart.sent WHERE shipped IN UNNEST(@days) AND a < 0;
#fail ordered
SELECT a FROM mart.sent WHERE ordered IN UNNEST(@days) AND a < 1;
#fail ordered too
SELECT a FROM mart.sent WHERE ordered IN UNNEST(@days) AND a < 2;
#fail source
SELECT a FROM core.orders WHERE ordered IN UNNEST(@days) AND a < 3;
#fail all
SELECT a FROM mart.sent WHERE a < 4;
"""
    write_table(tmp_path, "core.orders", materialization="loaded", columns=column("ordered", "DATE"))
    write_table(tmp_path, "mart.sent", query=sql, checks=checks, columns=columns)
    scans = " ".join(audit(load_catalog(tmp_path)["mart.sent"], explain=False).split()).split("SELECT [")[1:]
    read = [(each.count("COUNTIF("), each.partition(" FROM ")[2].partition(" )")[0]) for each in scans]
    assert read == [
        (1, "`p`.`mart`.`sent` AS sent WHERE shipped = CAST('2010-12-01' AS DATE)"),
        (2, "`p`.`mart`.`sent` AS sent WHERE ordered = CAST('2010-12-01' AS DATE)"),
        (1, "`p`.`core`.`orders` AS orders WHERE ordered = CAST('2010-12-01' AS DATE)"),
        (1, "`p`.`mart`.`sent` AS sent"),
    ]


def test_examples_of_blocking_checks_are_collected_only_when_they_are_wanted() -> None:
    fact = CATALOG["mart.invoice_lines"]
    warnings = sum(each.severity == "warn" for each in fact.checks)
    assert audit(fact, explain=True).count("ANY_VALUE(") == len(fact.checks)
    assert audit(fact, explain=False).count("ANY_VALUE(") == warnings == 1
