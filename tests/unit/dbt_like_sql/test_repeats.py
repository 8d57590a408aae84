"""Which tables are built without putting rows of their own key in order, and what their statements read."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from sqlglot import exp, parse_one

from dbt_like_sql.catalog import Catalog, load_catalog
from dbt_like_sql.graph import DIALECT, table_nodes
from dbt_like_sql.repeats import keeps_first_of_key, query_by_repeats, repeats_sql

FACT, CORE, DAY = "mart.invoice_lines", "core.invoice_lines", date(2010, 12, 1)
CATALOG = load_catalog()
DAYS = "WHERE invoice_date IN UNNEST(@days)"
FIRST = "QUALIFY ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY topic_offset) = 1"


def catalog_with(tmp_path: Path, query: str | None = None, *, key_may_be_null: bool = False) -> Catalog:
    tables = dict(CATALOG.tables)
    if query is not None:
        path = tmp_path / "query.sql"
        path.write_text(query, encoding="utf-8")
        tables[FACT] = replace(tables[FACT], query_path=path)
    if key_may_be_null:
        columns = [
            replace(each, is_required=False) if each.name == "event_id" else each for each in tables[CORE].columns
        ]
        tables[CORE] = replace(tables[CORE], columns=tuple(columns))
    return replace(CATALOG, tables=tables)


def test_fact_table_takes_repeats_aside(tmp_path: Path) -> None:
    assert keeps_first_of_key(CATALOG[FACT], CATALOG)
    plain = catalog_with(tmp_path, f"SELECT event_id FROM core.invoice_lines {DAYS} {FIRST}")
    assert keeps_first_of_key(plain[FACT], plain)
    assert not keeps_first_of_key(CATALOG["mart.daily_sales_by_country"], CATALOG)


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT event_id FROM core.invoice_lines {DAYS}",
        f"SELECT event_id FROM core.invoice_lines {FIRST}",
        f"SELECT event_id FROM core.invoice_lines {DAYS} {FIRST.replace('= 1', '= 2')}",
        f"SELECT event_id FROM core.invoice_lines {DAYS} {FIRST.replace('= 1', '<= 1')}",
        f"SELECT event_id FROM core.invoice_lines {DAYS} QUALIFY COUNT(*) OVER (PARTITION BY event_id) = 1",
        f"SELECT event_id FROM (SELECT * FROM core.invoice_lines {DAYS}) AS lines {FIRST}",
        f"WITH lines AS (SELECT * FROM core.invoice_lines {DAYS}) SELECT event_id FROM lines {FIRST}",
        f"SELECT event_id FROM core.invoice_lines {DAYS} GROUP BY event_id, topic_offset {FIRST}",
    ],
)
def test_query_that_is_more_or_less_than_the_first_row_of_each_key_is_run_as_it_is(tmp_path: Path, query: str) -> None:
    catalog = catalog_with(tmp_path, query)
    assert not keeps_first_of_key(catalog[FACT], catalog)


def test_key_that_may_be_null_is_not_taken_aside(tmp_path: Path) -> None:
    """NULL is among no keys and outside of none: such a row would be in neither part."""
    catalog = catalog_with(tmp_path, key_may_be_null=True)
    assert not keeps_first_of_key(catalog[FACT], catalog)


def test_only_what_was_taken_aside_is_put_in_order() -> None:
    def table_id(name: str) -> str:
        return f"p.d.{name.replace('.', '_')}"

    query = parse_one(query_by_repeats(CATALOG[FACT], [DAY], table_id), dialect=DIALECT)
    assert isinstance(query, exp.SetOperation)
    alone, first = query.left, query.right
    assert "QUALIFY" not in alone.sql()
    assert "QUALIFY" in first.sql()
    assert [node.name for _name, node in table_nodes(alone)] == ["core_invoice_lines"]
    assert table_nodes(first) == [], "the temporary table has no dataset"
    assert "DATE '2010-12-01'" in repeats_sql(CATALOG[FACT], CATALOG, [DAY], table_id)
    assert [each.alias_or_name for each in query.selects] == list(CATALOG[FACT].column_names)
