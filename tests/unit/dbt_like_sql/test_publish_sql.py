"""What the one script of a publication says, whichever way its tables are built."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.publish_sql import Publication, publish_script
from dbt_like_sql.publish_state import (
    DIFFERENCE_FROM_ROWS,
    DayPublished,
    LoadSeen,
    OffsetRange,
    State,
    growing_days,
    rule_version,
)
from dbt_like_sql.settings import WarehouseSettings
from tests.unit.dbt_like_sql.models import write_table

CATALOG = load_catalog()
FACT, CORE, DAY, NEXT = "mart.invoice_lines", "core.invoice_lines", date(2010, 12, 1), date(2010, 12, 2)


def script(days: tuple[date, ...], *, published: tuple[date, ...] = (), loads: int = 0, rows: int = 10) -> str:
    """The fact table's publication, of days that were published before or not, and loaded since or not."""
    fact = CATALOG[FACT]
    seen = tuple(LoadSeen(2 + at, is_rebuild=False, ranges=(OffsetRange("t", 0, at, at, 1),)) for at in range(loads))
    state = State(
        publishers={FACT: 1},
        published={(FACT, day): DayPublished(1, rule_version(CATALOG, fact), rows, {}) for day in published},
        loaded={(CORE, day): {"t": 1 + loads} for day in days},
        loads={(CORE, day): seen for day in days},
    )
    growing = {FACT: growing_days(fact, days, state, rule_version(CATALOG, fact))}
    work = Publication(CATALOG, [fact], days, date(2011, 1, 1), "r", state, growing)
    return publish_script(WarehouseSettings(project="p"), work)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        (script((DAY,)), "= DATE '2010-12-01'"),
        (script((DAY,), published=(DAY,), loads=1), "= DATE '2010-12-01'"),
        (script((DAY, NEXT), published=(DAY,), loads=1), "BETWEEN DATE '2010-12-01' AND DATE '2010-12-02'"),
        (script((DAY,), published=(DAY,), rows=DIFFERENCE_FROM_ROWS), "= DATE '2010-12-01'"),
    ],
    ids=["whole", "growing", "whole and growing", "whole, repeats aside"],
)
def test_row_of_a_day_that_is_not_built_fails_as_it_is_written(sql: str, says: str) -> None:
    [insert] = [each for each in sql.split(";\n") if each.strip().startswith("INSERT INTO `p.mart.invoice_lines`")]
    assert f"SELECT IF(invoice_date {says}, invoice_date, ERROR(" in insert
    assert FACT in insert


def test_rule_of_a_table_is_another_one_when_a_view_of_a_view_that_it_reads_changes(tmp_path: Path) -> None:
    def rule(folder: str, inner: str) -> str:
        models = tmp_path / folder
        write_table(models, "core.lines", materialization="loaded")
        write_table(models, "mart.near", query=f"SELECT {inner} FROM core.lines", materialization="view")
        write_table(models, "mart.far", query="SELECT a FROM mart.near", materialization="view")
        write_table(models, "mart.reader", query="SELECT a FROM mart.far")
        catalog = load_catalog(models)
        return rule_version(catalog, catalog["mart.reader"])

    assert rule("now", "a") == rule("unchanged", "a")
    assert rule("now", "a") != rule("changed", "UPPER(a) AS a")


def test_rules_of_tables_that_read_no_view_are_what_they_were_before_views_counted(tmp_path: Path) -> None:
    """They stand in the ledger: another hash would have every published day look as if its rule had changed."""
    write_table(tmp_path, "core.lines", materialization="loaded")
    write_table(tmp_path, "mart.sums", query="SELECT a FROM core.lines")
    write_table(tmp_path, "mart.tops", query="SELECT a FROM mart.sums")
    catalog = load_catalog(tmp_path)
    assert rule_version(catalog, catalog["mart.tops"]) == "fa223510eb59"
