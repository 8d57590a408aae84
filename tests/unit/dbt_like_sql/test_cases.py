"""The runner of YAML cases notices what differs, and refuses what it cannot compare exactly."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from dbt_like_sql.cases import Case, _value, case_sql, differences, read_cases
from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.contract import Column
from dbt_like_sql.errors import ContractError

CATALOG = load_catalog()
FILES = {
    "mart.invoice_lines": "- {country: Malta, invoice_date: 2010-12-02}\n",
    "expect": (
        "- {country: Malta, first_invoice_date: 2010-12-02}\n- {country: Spain, first_invoice_date: 2010-12-03}\n"
    ),
}
MALTA = {"country": "Malta", "first_invoice_date": date(2010, 12, 2), "last_invoice_date": date(2010, 12, 2)}
SPAIN = {"country": "Spain", "first_invoice_date": date(2010, 12, 3), "last_invoice_date": date(2010, 12, 3)}


def _case(root: Path, table: str = "mart.countries", **files: str):
    folder = root / table / "a_case"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**FILES, **files}.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return read_cases(root)[0]


def test_rows_agree_in_any_order_on_the_columns_that_are_named(tmp_path: Path) -> None:
    assert differences(CATALOG, _case(tmp_path), [SPAIN, MALTA]) == []


@pytest.mark.parametrize(
    ("rows", "problems"),
    [
        ([MALTA], 1),
        ([MALTA, SPAIN, SPAIN], 2),
        ([MALTA, {**SPAIN, "country": "France"}], 2),
        ([], 2),
    ],
)
def test_missing_and_surplus_rows_are_told(tmp_path: Path, rows: list[dict[str, object]], problems: int) -> None:
    assert len(differences(CATALOG, _case(tmp_path), rows)) == problems


def test_expectation_of_a_part_still_counts_all_rows(tmp_path: Path) -> None:
    case = _case(tmp_path, expect="row_count: 2\ncontains:\n  - {country: Malta}\n")
    assert differences(CATALOG, case, [MALTA, SPAIN]) == []
    assert differences(CATALOG, case, [MALTA]) == ["1 rows; expected 2"]
    assert len(differences(CATALOG, case, [SPAIN, SPAIN])) == 1


def test_input_rows_take_the_place_of_the_table_typed_by_its_contract(tmp_path: Path) -> None:
    sql = case_sql(CATALOG, _case(tmp_path))
    assert "`mart`" not in sql
    assert "CAST('Malta' AS STRING) AS country" in sql
    assert "CAST(NULL AS NUMERIC) AS amount_gbp" in sql


def test_amount_that_yaml_would_round_is_refused(tmp_path: Path) -> None:
    case = _case(tmp_path, **{"mart.invoice_lines": "- {country: Malta, amount_gbp: 2.55}\n"})
    with pytest.raises(ContractError, match="quote it"):
        case_sql(CATALOG, case)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"mart.invoice_lines": "- {contry: Malta}\n"}, "no column contry"),
        ({"mart.products": "[]\n"}, "not read"),
        ({"mart.invoice_lines": "- {country: Malta, invoice_date: soon}\n"}, "not a DATE"),
    ],
)
def test_wrong_case_is_refused(tmp_path: Path, files: dict[str, str], says: str) -> None:
    with pytest.raises(ContractError, match=says):
        case_sql(CATALOG, _case(tmp_path, **files))


def test_array_that_would_become_null_is_refused(tmp_path: Path) -> None:
    rows = {"control.day": [{"batches": [{"topic_partition": 0, "batch": 5}]}]}
    empty: dict[str, list[dict[str, object]]] = {"control.reconciliation": []}
    with pytest.raises(ContractError, match="batches: a case cannot give values of an ARRAY"):
        case_sql(CATALOG, Case(tmp_path, "control.compared_day", {**rows, **empty}, []))


def test_decimal_is_compared_to_the_last_digit(tmp_path: Path) -> None:
    case = _case(tmp_path, "mart.daily_sales_by_country", expect='- {amount_gbp: "0.1"}\n')
    assert differences(CATALOG, case, [{"amount_gbp": Decimal("0.100000001")}]) != []
    assert differences(CATALOG, case, [{"amount_gbp": Decimal("0.1")}]) == []


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"expect": "- {contry: Malta}\n"}, r"expect\.yaml: mart\.countries has no column contry"),
        (
            {"expect": "contains: [{country: Malta}]\n"},
            "it has contains; expected a list of rows, or contains and row_c",
        ),
        ({"expect": "country: Malta\n"}, "it has country; expected a list of rows"),
        ({"expect": "- Malta\n"}, "expected a list of rows, each with its columns by name"),
        ({"mart.invoice_lines": "country: Malta\n"}, r"invoice_lines\.yaml: expected a list of rows"),
        (
            {"expect": "- {country: Malta,\n   first_invoice_date: 2010-02-30}\n"},
            r"expect\.yaml:2: .*'2010-02-30': day is out",
        ),
        ({"expect": "- {1: Malta}\n"}, r"expect\.yaml: mart\.countries has no column 1"),
        ({"expect": "contains: []\nrow_count: '1'\n"}, r"expect\.yaml: row_count is '1'; expected a whole number"),
        ({"params": "- 2010-12-02\n"}, r"params\.yaml: expected parameters by name"),
        ({"params": "days: 2010-12-02\n"}, r"params\.yaml: days is .*; expected a list of dates, without quotes"),
        ({"params": "days: ['2010-12-02']\n"}, r"params\.yaml: days is \['2010-12-02'\]; expected a list of dates"),
    ],
)
def test_a_file_of_another_shape_is_told_with_its_name(tmp_path: Path, files: dict[str, str], says: str) -> None:
    with pytest.raises(ContractError, match=says):
        differences(CATALOG, _case(tmp_path, **files), [MALTA])


def test_a_case_of_no_table_or_without_an_expectation_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no contract names mart\.countrys"):
        case_sql(CATALOG, _case(tmp_path, "mart.countrys"))
    (tmp_path / "mart.countrys" / "a_case" / "expect.yaml").unlink()
    with pytest.raises(ContractError, match=r"a case without expect\.yaml"):
        read_cases(tmp_path)


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [("INT64", "7", 7), ("INT64", 7, 7), ("BOOL", True, True), ("BOOL", "false", False), ("STRING", 7, "7")],
)
def test_a_value_of_every_type_is_compared_as_the_client_returns_it(kind: str, written: object, value: object) -> None:
    assert _value(Column("it", kind, ""), written, Path()) == value
    assert type(_value(Column("it", kind, ""), written, Path())) is type(value)


@pytest.mark.parametrize(
    ("kind", "written"), [("INT64", True), ("INT64", "2.5"), ("BOOL", "yes and no"), ("DATE", "x"), ("STRING", False)]
)
def test_a_value_of_another_type_is_refused(kind: str, written: object) -> None:
    with pytest.raises(ContractError, match=f"is not a {kind}"):
        _value(Column("it", kind, ""), written, Path())
