"""What a breaking change is told to break: tables, measures, visuals."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dbt_like_sql.catalog import Catalog, load_catalog
from dbt_like_sql.column_types import bigquery_schema
from dbt_like_sql.contract import Column
from dbt_like_sql.errors import MigrateError
from dbt_like_sql.migrate import migrate, read_readers
from dbt_like_sql.settings import WarehouseSettings


@dataclass
class Client:
    """Tables as they stand in BigQuery."""

    tables: dict[str, Any]

    def get_table(self, name: str) -> Any:
        return copy.deepcopy(self.tables[name])

    def get_dataset(self, _reference: Any) -> None:
        """Every dataset is there."""

    def update_table(self, _table: Any, _fields: list[str]) -> None:
        """Take it and change nothing, as the emulator does with types."""


@dataclass
class Standing:
    """A warehouse whose tables are what a catalog says; nothing else may be asked of it."""

    client: Client
    settings: Any = field(default_factory=lambda: WarehouseSettings("local"))

    def table_id(self, name: str) -> str:
        return f"local.{name}"


def standing(catalog: Catalog) -> Any:
    from google.cloud import bigquery

    tables = {}
    for table in catalog.physical():
        found = bigquery.Table(f"local.{table.name}", schema=bigquery_schema(table.columns))
        if table.partition_column:
            found.time_partitioning = bigquery.TimePartitioning(field=table.partition_column)
        found._properties["type"] = "VIEW" if table.materialization == "view" else "TABLE"
        tables[f"local.{table.name}"] = found
    return Standing(Client(tables))


def refusal(changed: Catalog) -> str:
    with pytest.raises(MigrateError, match="Nothing was changed") as caught:
        migrate(standing(load_catalog()), changed)
    return str(caught.value)


def with_columns(name: str, columns: tuple[Any, ...]) -> Catalog:
    catalog = load_catalog()
    return Catalog({**catalog.tables, name: replace(catalog[name], columns=columns)})


def test_a_column_that_goes_names_the_measures_and_visuals_that_show_it() -> None:
    fact = load_catalog()["mart.invoice_lines"]
    told = refusal(with_columns(fact.name, tuple(each for each in fact.columns if each.name != "returns_gbp")))
    assert "1 breaking change(s)" in told
    assert "read by" in told
    assert "mart.daily_sales_by_country" in told
    measures = next(line for line in told.splitlines() if "breaks measures" in line)
    visuals = next(line for line in told.splitlines() if "breaks visuals" in line)
    assert "Net Sales" in measures
    assert "Return Rate" in measures
    assert "Total Amount" not in measures
    assert "overview/card_net_sales" in visuals


def test_a_column_of_core_names_what_is_made_of_it_in_the_report() -> None:
    core = load_catalog()["core.invoice_lines"]
    told = refusal(with_columns(core.name, tuple(each for each in core.columns if each.name != "amount_gbp")))
    assert "core.invoice_lines (read by" in told
    assert "Total Amount" in told
    assert "Net Sales" in told


def test_a_type_that_changes_names_them_too_and_one_that_nobody_shows_names_none() -> None:
    fact = load_catalog()["mart.invoice_lines"]
    changed = tuple(replace(each, type="STRING") if each.name == "topic_offset" else each for each in fact.columns)
    told = refusal(with_columns(fact.name, changed))
    assert "column topic_offset is INT64; the contract says STRING" in told
    assert "breaks" not in told.replace("breaking", "")


def test_another_partitioning_names_all_that_reads_the_table() -> None:
    catalog = load_catalog()
    fact = catalog["mart.invoice_lines"]
    told = refusal(Catalog({**catalog.tables, fact.name: replace(fact, partition_column=None)}))
    assert "it is partitioned by invoice_date" in told
    assert "and " in next(line for line in told.splitlines() if "breaks measures" in line)


def test_a_table_that_would_have_to_become_a_view_is_refused_up_front() -> None:
    catalog = load_catalog()
    told = refusal(Catalog({**catalog.tables, "mart.dates": replace(catalog["mart.dates"], materialization="view")}))
    assert "mart.dates: it is a table; the contract says it is a view" in told
    assert "breaks visuals" in told


def test_a_table_that_is_not_as_asked_after_it_was_altered_is_told_with_its_columns() -> None:
    fact = load_catalog()["mart.invoice_lines"]
    more = (*fact.columns, Column("note", "ARRAY<STRING>", "A note."))
    with pytest.raises(MigrateError, match=r"altering mart.invoice_lines: .*note is missing, .* says ARRAY<STRING>"):
        migrate(standing(load_catalog()), with_columns(fact.name, more))


def test_readers_name_columns_that_the_contracts_promise() -> None:
    catalog = load_catalog()
    for reader in read_readers():
        for each in reader.columns:
            table, _, column = each.rpartition(".")
            assert column == "*" or column in catalog[table].column_names, f"{reader.name}: {each}"
