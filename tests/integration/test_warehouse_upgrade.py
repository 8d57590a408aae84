"""A warehouse of an earlier version, brought up by `migrate`, goes on as one that was always of this version.

old_warehouses/<day>.sql is what that day's version created (without the texts that describe its columns), never edited.
Its rows are those of a warehouse of today, as far as its columns go.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.load import load_rows, loaded_day
from dbt_like_sql.migrate import migrate
from dbt_like_sql.publish import publish_all, stale_tables
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse
from tests.schedule import IS_WHOLE
from tests.unit.dbt_like_sql.lines import TOPIC, core_days, day_lines, line, lines, mart_days

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]
CATALOG = load_catalog()
CORE = "core.invoice_lines"
MARTS = [
    *("mart.invoice_lines", "mart.daily_sales_by_country", "mart.daily_sales_by_product"),
    *("mart.products", "mart.customers", "mart.countries", "mart.dates"),
]
D1, D2 = date(2010, 12, 1), date(2010, 12, 2)
OLD = sorted((Path(__file__).parent / "old_warehouses").glob("*.sql"))
# A minute each, and the oldest goes through all the steps: the others in the whole schedule.
TRIED = OLD if IS_WHOLE else OLD[:1]
# Before 2026-11-28 the fences of all tables were rows of one (docs/decisions/0033).
SHARED_FENCE = "control.publisher"
COLUMN = re.compile(r"^  (\w+) \w", re.MULTILINE)


def load(warehouse: Warehouse, day: date, rows: list[dict[str, Any]], batch: int) -> None:
    seen = loaded_day(warehouse, CORE, day, TOPIC)
    arguments: dict[str, Any] = {"rebuild": False, "run_id": "r", "code_version": "1"}
    load_rows(warehouse, CORE, lines(rows), day=day, topic=TOPIC, seen=seen, upto={0: batch}, **arguments)


def begin(warehouse: Warehouse) -> None:
    first = day_lines(D1, 0, 0, 30)
    load(warehouse, D1, [*first, line(D1, 0, 100, event_id=first[3]["event_id"], country="France")], 1)
    load(warehouse, D2, day_lines(D2, 0, 200, 10), 1)
    publish_all(warehouse, CATALOG, MARTS, days=[D1, D2], run_id="first")


def go_on(warehouse: Warehouse) -> None:
    load(warehouse, D1, [line(D1, 0, 101), line(D1, 0, 102, event_id=line(D1, 0, 4)["event_id"])], 2)
    publish_all(warehouse, CATALOG, MARTS, days=[D1], run_id="later")


def make_old(warehouse: Warehouse, ddl: str, like: Warehouse) -> None:
    """The tables of that version, with the rows of another warehouse."""
    for dataset in ("control", "core", "mart", "staging"):
        warehouse.client.create_dataset(f"{warehouse.settings.project}.{warehouse.settings.dataset_id(dataset)}")
    warehouse.run(re.sub(r"`project\.(\w+\.\w+)`", lambda found: f"`{warehouse.table_id(found[1])}`", ddl))
    for statement in re.findall(r"CREATE TABLE .*?;\n", ddl, re.DOTALL):
        name = re.findall(r"`project\.(\w+\.\w+)`", statement)[0]
        columns = COLUMN.findall(statement.partition("\n)")[0])
        table, listed = warehouse.table_id(name), ", ".join(columns)
        partition = re.findall(r"PARTITION BY (\w+)", statement)
        where = f"WHERE {partition[0]} >= DATE '2000-01-01'" if partition else "WHERE TRUE"
        sources = [like.table_id(name)]
        if name == SHARED_FENCE:
            sources = [like.table_id(f"control.publisher_{mart.replace('.', '_')}") for mart in MARTS]
        warehouse.run(f"DELETE FROM `{table}` {where}")
        for source in sources:
            warehouse.run(f"INSERT INTO `{table}` ({listed}) SELECT {listed} FROM `{source}` {where}")


def contents(warehouse: Warehouse, name: str) -> list[dict[str, Any]]:
    where = "WHERE invoice_date >= DATE '2000-01-01'" if "invoice_date" in CATALOG[name].column_names else ""
    rows = warehouse.run(f"SELECT * FROM `{warehouse.table_id(name)}` {where}").rows
    ours = {"loaded_at", "published_at"}  # when, by the clock of each
    return sorted(({key: row[key] for key in sorted(row) if key not in ours} for row in rows), key=repr)


@pytest.mark.parametrize("version", TRIED, ids=lambda path: path.stem)
def test_an_old_warehouse_keeps_its_rows_and_goes_on_as_a_new_one(
    version: Path,
    migrated_env: dict[str, str],
    fresh_warehouse: Callable[[], AbstractContextManager[dict[str, str]]],
) -> None:
    new = open_warehouse(WarehouseSettings.from_env(migrated_env))
    begin(new)
    with fresh_warehouse() as env:
        old = open_warehouse(WarehouseSettings.from_env(env))
        make_old(old, version.read_text(encoding="utf-8"), new)
        announced = migrate(old, CATALOG, dry_run=True)
        assert migrate(old, CATALOG) == announced
        assert announced
        assert migrate(old, CATALOG) == []
        before = {name: contents(old, name) for name in (CORE, *MARTS)}
        assert before == {name: contents(new, name) for name in (CORE, *MARTS)}
        assert stale_tables(old, CATALOG) == stale_tables(new, CATALOG) == {}
        for warehouse in (old, new):
            go_on(warehouse)
        after = {name: contents(old, name) for name in (CORE, *MARTS)}
        assert after == {name: contents(new, name) for name in (CORE, *MARTS)}
        assert all(after[name] != before[name] for name in (CORE, *MARTS[:3]))
        assert loaded_day(old, CORE, D1, TOPIC).batches == loaded_day(new, CORE, D1, TOPIC).batches == {0: 2}
        assert stale_tables(old, CATALOG) == {}
        assert core_days(old, [D1, D2]) == core_days(new, [D1, D2])
        assert mart_days(old, [D1, D2]) == mart_days(new, [D1, D2])
        assert [row["invoice_date"] for row in contents(old, "mart.data_trust")] == [D1, D2]


def test_there_are_old_versions() -> None:
    assert [path.stem for path in OLD] == ["2026-11-24", "2026-11-28"]
