"""The day's budget of modifications, counted in the ledgers of a real warehouse, really limits."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.errors import BudgetError
from dbt_like_sql.load import load_rows, loaded_day
from dbt_like_sql.publish import publish_all
from dbt_like_sql.quotas import KEPT_BACK, pace, renewed_at, used_today
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse
from tests.unit.dbt_like_sql.lines import TOPIC, line, lines

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]
CATALOG = load_catalog()
CORE, FACT, DAY = "core.invoice_lines", "mart.invoice_lines", date(2010, 12, 1)
LIMIT = 10


def run(warehouse: Warehouse, number: int) -> None:
    """One load and one publication of a day."""
    seen = loaded_day(warehouse, CORE, DAY, TOPIC)
    load_rows(
        warehouse, CORE, lines([line(DAY, 0, number)]), day=DAY, topic=TOPIC, seen=seen, upto={0: number + 1},
        rebuild=False, run_id="r", code_version="1",
    )  # fmt: skip
    publish_all(warehouse, CATALOG, [FACT], days=[DAY], run_id="r")


def test_flood_waits_for_its_budget_and_stops_short_of_the_limit(module_migrated_settings: WarehouseSettings) -> None:
    warehouse = open_warehouse(replace(module_migrated_settings, daily_partition_modifications=LIMIT))
    now = renewed_at(datetime.now(tz=UTC))  # the limits have just been renewed
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += timedelta(seconds=seconds)
        waited.append(seconds)

    done = 0

    def flood() -> None:
        nonlocal done
        while done < LIMIT:
            pace(warehouse, CATALOG, sleep=sleep, now=lambda: now)
            run(warehouse, done)
            done += 1

    with pytest.raises(BudgetError, match=r"mart\.invoice_lines"):
        flood()
    use = {each.table: each for each in used_today(warehouse, CATALOG).tables}
    assert (use[CORE].modifications, use[CORE].load_jobs, use[FACT].modifications) == (done, done, 2 * done)
    assert done == int(LIMIT * (1 - KEPT_BACK)) // 2
    assert sum(waited) > 3600 * 12, "a budget of four runs a day is spread over the day"


def test_emulator_without_a_limit_is_not_even_asked(module_migrated_settings: WarehouseSettings) -> None:
    if module_migrated_settings.emulator_host is None:
        pytest.skip("on Google every run is paced")
    nowhere = replace(module_migrated_settings, emulator_host="http://127.0.0.1:1")
    assert pace(open_warehouse(nowhere), CATALOG) == 0.0
