"""Every mart has YAML cases: rows in, rows out (format: dbt_like_sql/cases.py). No table is created."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt_like_sql.cases import Case, case_sql, differences, read_cases
from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse

CATALOG = load_catalog()
CASES = read_cases(Path(__file__).parent)


@pytest.fixture(scope="module")
def warehouse(bigquery_host: str) -> Warehouse:
    return open_warehouse(WarehouseSettings("local", emulator_host=bigquery_host))


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.table}/{case.folder.name}")
def test_query_makes_the_expected_rows(warehouse: Warehouse, case: Case) -> None:
    rows = warehouse.run(case_sql(CATALOG, case), params=case.params).rows
    assert differences(CATALOG, case, rows) == []


def test_every_mart_and_view_has_a_case() -> None:
    views = {table.name for table in CATALOG.tables.values() if table.materialization == "view"}
    assert {table.name for table in CATALOG.layer("mart")} | views == {case.table for case in CASES}
