"""Models beside the project's own: days that are not their source's, views in between."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from dbt_like_sql.catalog import MODELS_DIR, Catalog, load_catalog
from dbt_like_sql.errors import PublishError
from dbt_like_sql.load import DayLoad, load_days, loaded_day
from dbt_like_sql.migrate import migrate
from dbt_like_sql.publish import publish, publish_all, stale_tables
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse
from tests.unit.dbt_like_sql.lines import TOPIC, day_lines, lines
from tests.unit.dbt_like_sql.models import column, write_table

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]
CORE, OTHER = "core.invoice_lines", "core.returned_lines"
D1, D2, D3 = date(2010, 12, 1), date(2010, 12, 2), date(2010, 12, 3)
PARTITION = "        partitioned: true\n        partitionKeyPosition: 1\n"
SHIPPED = """\
SELECT DATE_ADD(invoice_date, INTERVAL 1 DAY) AS ship_date, event_id
FROM core.invoice_lines
WHERE invoice_date IN UNNEST(@days)
"""
COMPARED = """\
WITH now AS (
  SELECT invoice_date, COUNT(*) AS lines
  FROM core.invoice_lines
  WHERE invoice_date IN UNNEST(@days)
  GROUP BY invoice_date
),
before AS (
  SELECT invoice_date, COUNT(*) AS lines
  FROM core.invoice_lines
  WHERE invoice_date IN UNNEST(ARRAY(SELECT DATE_SUB(day, INTERVAL 1 DAY) FROM UNNEST(@days) AS day))
  GROUP BY invoice_date
)
SELECT now.invoice_date, now.lines, before.lines AS lines_before
FROM now
LEFT JOIN before ON before.invoice_date = DATE_SUB(now.invoice_date, INTERVAL 1 DAY)
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    models = tmp_path_factory.mktemp("models")
    for layer in ("control", "core"):
        shutil.copytree(MODELS_DIR / layer, models / layer)
    other = models / "core/returned_lines"
    shutil.copytree(models / "core/invoice_lines", other)
    contract = (other / "contract.yaml").read_text(encoding="utf-8")
    (other / "contract.yaml").write_text(contract.replace("invoice_lines", "returned_lines"), encoding="utf-8")
    shipped = column("ship_date", "DATE", more=PARTITION) + column("event_id", "STRING")
    write_table(models, "mart.shipped", query=SHIPPED, columns=shipped)
    counts = column("lines", "INT64") + column("lines_before", "INT64")
    write_table(
        models, "mart.compared", query=COMPARED, columns=column("invoice_date", "DATE", more=PARTITION) + counts
    )
    day = column("invoice_date", "DATE")
    seen = "SELECT invoice_date FROM core.invoice_lines WHERE invoice_date >= DATE '2000-01-01'"
    write_table(models, "mart.seen", query=seen, materialization="view", columns=day)
    write_table(models, "mart.shown", query="SELECT invoice_date FROM mart.seen", materialization="view", columns=day)
    shown = "SELECT invoice_date, COUNT(*) AS lines FROM mart.shown WHERE invoice_date IN UNNEST(@days) GROUP BY 1"
    counts = column("invoice_date", "DATE", more=PARTITION) + column("lines", "INT64")
    write_table(models, "mart.counted", query=shown, columns=counts)
    write_table(
        models, "mart.total", query="SELECT COUNT(*) AS lines FROM mart.shown", columns=column("lines", "INT64")
    )
    return load_catalog(models)


@pytest.fixture(scope="module")
def warehouse(module_warehouse_settings: WarehouseSettings, catalog: Catalog) -> Warehouse:
    opened = open_warehouse(module_warehouse_settings)
    migrate(opened, catalog)
    for day in (D1, D2):
        load(opened, day)
    return opened


def load(warehouse: Warehouse, day: date, first: int = 0) -> None:
    seen = loaded_day(warehouse, CORE, day, TOPIC)
    load_lines(warehouse, CORE, DayLoad(day, seen, {0: seen.version + 1}), day_lines(day, 0, first, 10))


def load_lines(
    warehouse: Warehouse, table: str, each: DayLoad, rows: list[dict[str, Any]], catalog: Catalog | None = None
) -> None:
    """No rows: the day is rebuilt without an event."""
    load_days(
        warehouse, table, lines(rows), loads=[each], topic=TOPIC, rebuild=not rows, run_id="r", code_version="1",
        catalog=catalog,
    )  # fmt: skip


def test_a_day_can_look_at_the_day_before_it(warehouse: Warehouse, catalog: Catalog) -> None:
    publish(warehouse, catalog, "mart.compared", days=[D2], run_id="r")
    assert rows_of(warehouse, "mart.compared", "1") == [{"invoice_date": D2, "lines": 10, "lines_before": 10}]


def test_tables_that_read_views_are_behind_when_what_the_views_read_is_loaded(
    warehouse: Warehouse, catalog: Catalog
) -> None:
    """Through a view of a view, for a table of days and for a whole one."""
    names = ["mart.counted", "mart.total"]

    def stale() -> dict[str, list[date]]:
        return {name: days for name, days in stale_tables(warehouse, catalog).items() if name in names}

    assert stale() == {"mart.counted": [D1, D2], "mart.total": [D2]}
    publish_all(warehouse, catalog, names, days=[D1, D2], run_id="first")
    assert stale() == {}
    load(warehouse, D1, 100)
    assert stale() == {"mart.counted": [D1], "mart.total": [D2]}
    done = publish_all(warehouse, catalog, names, days=[D1], run_id="late")
    assert (done["mart.counted"].rows, done["mart.counted"].source_version) == (1, 2)
    assert stale() == {}
    assert [row["lines"] for row in rows_of(warehouse, "mart.counted", "1")] == [20, 10]


def test_a_day_that_only_another_stream_has_is_not_asked_for(warehouse: Warehouse, catalog: Catalog) -> None:
    """Else a day of core that is rebuilt without an event would be published by every run of that day, for nothing."""
    names = ["mart.counted", "mart.total"]
    publish_all(warehouse, catalog, names, days=[D1, D2], run_id="before")
    other, core = (DayLoad(D3, loaded_day(warehouse, table, D3, TOPIC), {}) for table in (OTHER, CORE))
    load_lines(warehouse, OTHER, replace(other, upto={0: 1}), day_lines(D3, 0, 0, 10), catalog)
    load_lines(warehouse, CORE, core, [])
    assert loaded_day(warehouse, CORE, D3, TOPIC).version == 1
    assert D3 not in stale_tables(warehouse, catalog).get("mart.counted", [])
    load(warehouse, D3)
    assert stale_tables(warehouse, catalog)["mart.counted"] == [D3]


def rows_of(warehouse: Warehouse, table: str, order: str) -> list[dict[str, Any]]:
    return warehouse.run(f"SELECT * FROM `{warehouse.table_id(table)}` ORDER BY {order}").rows


def test_rows_of_days_that_were_not_asked_for_are_refused_and_none_is_left(
    warehouse: Warehouse, catalog: Catalog
) -> None:
    """Each publication would add them once more, since it takes out the rows of its own days."""
    for _ in range(2):
        with pytest.raises(PublishError, match=r"mart\.shipped: .* ship_date .* but 2010-12-02; .*@days") as caught:
            publish(warehouse, catalog, "mart.shipped", days=[D1], run_id="r")
        assert not caught.value.is_retryable
    assert rows_of(warehouse, "mart.shipped", "event_id") == []
    assert not [row for row in rows_of(warehouse, "control.publication", "1") if row["table_name"] == "mart.shipped"]
