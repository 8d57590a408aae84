"""Which warehouse columns each measure is made of, through other measures too."""

from __future__ import annotations

from pathlib import Path

from dbt_like_sql.catalog import load_catalog
from powerbi.lineage import measure_lineage

FACT = "mart.invoice_lines"


def lineage(repository: Path) -> dict[str, set[tuple[str, str]]]:
    found = measure_lineage(repository / "powerbi" / "Retail.SemanticModel")
    return {each.name: set(each.columns) for each in found}


def test_measure_is_made_of_columns_of_other_measures_too(repository: Path) -> None:
    found = lineage(repository)
    assert found["Total Amount"] == {(FACT, "amount_gbp")}
    assert found["Net Sales"] == {(FACT, "gross_sales_gbp"), (FACT, "returns_gbp")}
    assert found["Return Rate"] == found["Net Sales"]
    assert found["Invoice Lines"] == {(FACT, "*")}
    assert ("mart.data_trust", "core_rows") in found["Core Rows"]


def test_every_measure_names_columns_that_the_warehouse_promises(repository: Path) -> None:
    catalog = load_catalog()
    found = lineage(repository)
    assert len(found) > 40
    for name, columns in found.items():
        assert columns, f"{name} is made of nothing"
        for table, column in columns:
            assert column == "*" or column in catalog[table].column_names, f"{name}: {table}.{column}"
