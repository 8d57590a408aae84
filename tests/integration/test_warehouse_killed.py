"""The warehouse is killed in mid-script: what was running ends, and the next run completes the day exactly."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.errors import WarehouseError
from dbt_like_sql.load import Loaded, load_rows, loaded_day
from dbt_like_sql.migrate import migrate
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse
from deploy.embedded.services import start_bigquery
from tests.schedule import whole_schedule_only
from tests.unit.dbt_like_sql.lines import TOPIC, day_lines, lines

pytestmark = [
    pytest.mark.integration,
    whole_schedule_only("a minute"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
CORE, DAY = "core.invoice_lines", date(2010, 12, 1)
ROWS = 20_000


def _load(warehouse: Warehouse, batch: int) -> Loaded | None:
    """What a run does: read the ledger, load what is missing."""
    seen = loaded_day(warehouse, CORE, DAY, TOPIC)
    if seen.batches.get(0, 0) >= batch:
        return None
    rows = lines(day_lines(DAY, 0, (batch - 1) * ROWS, ROWS))
    return load_rows(
        warehouse,
        CORE,
        rows,
        day=DAY,
        topic=TOPIC,
        seen=seen,
        upto={0: batch},
        rebuild=False,
        run_id="r",
        code_version="1",
    )


@pytest.mark.timeout(600)
def test_emulator_killed_in_mid_script_loses_and_doubles_nothing(tmp_path: Path) -> None:
    dice = random.Random(7)
    emulator = start_bigquery(tmp_path, project="local")
    try:
        settings = WarehouseSettings("local", dataset_prefix="kill", emulator_host=emulator.url, job_timeout_s=20)
        migrate(open_warehouse(settings), load_catalog())
        _load(open_warehouse(settings), 1)
        for batch in range(2, 5):
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(_load, open_warehouse(settings), batch)
                time.sleep(dice.uniform(0.2, 1.5))
                os.kill(emulator.pid, signal.SIGKILL)
                emulator.stop()
                emulator = start_bigquery(tmp_path, project="local", port=emulator.port)
                try:
                    running.result(timeout=120)
                except WarehouseError as error:
                    assert "job" in str(error)  # noqa: PT017  either way of ending is right; hanging is not
            _load(open_warehouse(settings), batch)
            found = open_warehouse(settings).run(
                f"SELECT COUNT(*) AS n, COUNT(DISTINCT topic_offset) AS d FROM `{settings.table_id(CORE)}` "
                f"WHERE invoice_date = DATE '{DAY}'"
            )
            assert found.rows == [{"n": batch * ROWS, "d": batch * ROWS}]
            assert loaded_day(open_warehouse(settings), CORE, DAY, TOPIC).batches == {0: batch}
    finally:
        emulator.stop()
