"""All problems of the settings are told at once."""

from __future__ import annotations

import pytest

from dbt_like_sql.errors import SettingsError
from dbt_like_sql.settings import DEFAULT_MAXIMUM_BYTES_BILLED, WarehouseSettings


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        WarehouseSettings.from_env(
            {
                "WAREHOUSE_DATASET_PREFIX": "a-b",
                "BIGQUERY_EMULATOR_HOST": "localhost:9050",
                "WAREHOUSE_MAXIMUM_BYTES_BILLED": "10 GB",
                "WAREHOUSE_TIME_ZONE": "Mars/Olympus",
            }
        )
    assert len(caught.value.problems) == 5
    for name in ("WAREHOUSE_PROJECT", "WAREHOUSE_DATASET_PREFIX", "BIGQUERY_EMULATOR_HOST", "MAXIMUM_BYTES"):
        assert name in str(caught.value)


def test_only_the_project_is_needed() -> None:
    settings = WarehouseSettings.from_env({"WAREHOUSE_PROJECT": "shop-1"})
    assert settings == WarehouseSettings("shop-1", "EU", "", None, DEFAULT_MAXIMUM_BYTES_BILLED, "Europe/London", 300)


def test_prefix_is_joined_by_one_underscore() -> None:
    env = {"WAREHOUSE_PROJECT": "shop-1", "WAREHOUSE_DATASET_PREFIX": "dev_"}
    assert WarehouseSettings.from_env(env).table_id("core.invoice_lines") == "shop-1.dev_core.invoice_lines"
