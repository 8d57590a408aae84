"""checks.sql is plain GoogleSQL, a SELECT of offending rows under each #fail or #warn line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt_like_sql.checks import contract_checks, read_checks
from dbt_like_sql.contract import Column
from dbt_like_sql.errors import ContractError


def _read(tmp_path: Path, text: str):
    path = tmp_path / "checks.sql"
    path.write_text(text, encoding="utf-8")
    return read_checks(path)


def test_each_head_line_begins_a_check(tmp_path: Path) -> None:
    checks = _read(
        tmp_path, "-- about\n#fail keys are unique\nSELECT 1\nFROM x;\n\n# warn: prices are high\nSELECT 2;\n"
    )
    assert [(check.name, check.severity, check.line) for check in checks] == [
        ("keys are unique", "fail", 2),
        ("prices are high", "warn", 6),
    ]
    assert checks[0].sql == "SELECT 1\nFROM x"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("SELECT 1;\n", 1, "before the first"),
        ("\n#fail\nSELECT 1;\n", 2, "without a name"),
        ("#fail a\n#warn b\nSELECT 1;\n", 1, "no SQL follows"),
        ("#fail a\nSELECT 1;\n#warn a\nSELECT 1;\n", 3, "stands twice"),
        ("#fail a\nSELECT 1;\n#warn b\n\nSELECT c\nFROM `prod-erp.core.d`;\n", 6, "#warn b: `prod-erp`.`core`.`d` is"),
        ("#fail a\nSELECT c FROM core.d;\nSELECT 1;\n", 1, "#fail a: expected one SELECT, found 2"),
        ("#fail a\nSELECT c FROM WHERE d (\n", 2, "not GoogleSQL"),
    ],
)
def test_wrong_checks_are_refused_where_they_are_wrong(tmp_path: Path, text: str, line: int, says: str) -> None:
    with pytest.raises(ContractError) as caught:
        _read(tmp_path, text)
    assert says in caught.value.problem
    assert caught.value.line == line


def test_contract_gives_checks_of_key_and_values() -> None:
    columns = [
        Column("day", "DATE", "d", is_key=True, is_partition=True),
        Column("kind", "STRING", "k", is_key=True, allowed=("a", "it's")),
    ]
    key, values = contract_checks("mart.t", columns, "day")
    assert key.sql == (
        "SELECT day, kind, COUNT(*) AS row_count FROM mart.t WHERE day IN UNNEST(@days) "
        "GROUP BY day, kind HAVING COUNT(*) > 1"
    )
    assert values.sql == r"SELECT kind FROM mart.t WHERE day IN UNNEST(@days) AND kind NOT IN ('a', 'it\'s')"
    assert {key.severity, values.severity} == {"fail"}


@pytest.mark.parametrize(
    ("kind", "value", "literal"),
    [("INT64", "1", "1"), ("NUMERIC", "1.5", "NUMERIC '1.5'"), ("DATE", "2010-12-01", "DATE '2010-12-01'")],
)
def test_values_that_are_no_text_are_compared_as_what_they_are(kind: str, value: str, literal: str) -> None:
    [check] = contract_checks("mart.t", [Column("n", kind, "n", allowed=(value,))], None)
    assert check.sql == f"SELECT n FROM mart.t WHERE TRUE AND n NOT IN ({literal})"


def test_table_without_promises_has_no_checks() -> None:
    assert contract_checks("mart.t", [Column("a", "STRING", "a")], None) == ()


def test_a_view_is_looked_at_for_the_nulls_that_bigquery_refuses_in_tables_only() -> None:
    columns = [
        Column("a", "STRING", "a", is_required=True),
        Column("b", "STRING", "b"),
        Column("c", "DATE", "c", is_required=True),
    ]
    assert contract_checks("mart.v", columns, None) == ()
    [check] = contract_checks("mart.v", columns, None, is_view=True)
    assert check.sql == "SELECT a, c FROM mart.v WHERE TRUE AND (a IS NULL OR c IS NULL)"
