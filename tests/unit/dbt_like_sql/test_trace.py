"""A model run on one event's rows: what is put in place of its sources is put there as it is."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.trace import _on_one_row

from .models import write_table


def test_an_event_s_text_that_looks_like_a_place_for_rows_is_a_text(tmp_path: Path) -> None:
    write_table(tmp_path, "mart.one", query="SELECT 'x' AS a")
    write_table(tmp_path, "mart.two", query="SELECT 'x' AS a")
    write_table(tmp_path, "mart.both", query="SELECT mart.one.a FROM mart.one JOIN mart.two USING (a)")
    model = load_catalog(tmp_path)["mart.both"]
    warehouse: Any = SimpleNamespace(table_id=lambda name: f"p.{name}")
    inlined = {"mart.one": "(SELECT '__inlined_1__' AS a)", "mart.two": "(SELECT '`__inlined_0__`' AS a)"}
    sql = _on_one_row(warehouse, model, inlined, date(2010, 12, 1))
    assert all(sql.count(each) == 1 for each in inlined.values()), sql
