"""A lake, a warehouse and an instance of Dagster for each test, and a run of our job in this process."""

from __future__ import annotations

import importlib
import warnings
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from orchestration.definitions import defs
from orchestration.defs.partitions import range_tags
from tests.integration.orchestration.landing import HandLanding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def mage_imported() -> None:
    """Mage's import warns about its own code; ours still must not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("mage_ai.data_preparation.models.pipeline")


@pytest.fixture
def line_env(
    lake_dsn: str, migrated_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The environment of the line, set for this test: an empty lake and an empty, migrated warehouse."""
    env = {**migrated_env, "LAKE_DSN": lake_dsn, "MAGE_DATA_DIR": str(tmp_path / "mage")}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


@pytest.fixture
def landing(line_env: dict[str, str]) -> Iterator[HandLanding]:
    hand = HandLanding(line_env["LAKE_DSN"])
    yield hand
    hand.close()


@pytest.fixture
def warehouse(line_env: dict[str, str]) -> Any:
    from dbt_like_sql.settings import WarehouseSettings
    from dbt_like_sql.warehouse import open_warehouse

    return open_warehouse(WarehouseSettings.from_env(line_env))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def run_load_days(instance: dg.DagsterInstance, first: str, last: str, **variables: str) -> dg.ExecuteInProcessResult:
    """Run the job for these days in this process; returns its result, failed or not."""
    return defs.resolve_job_def("load_days").execute_in_process(
        instance=instance,
        tags=range_tags(date.fromisoformat(first), date.fromisoformat(last)),
        run_config={"ops": {"retail_invoices": {"config": {"variables": variables}}}},
        raise_on_error=False,
    )


@pytest.fixture
def load_days(instance: dg.DagsterInstance, line_env: dict[str, str]) -> Callable[..., dg.ExecuteInProcessResult]:
    """`load_days("2010-12-01", "2010-12-03", mode="rebuild")` runs the job and returns its result, failed or not."""

    def run(first: str, last: str | None = None, **variables: str) -> dg.ExecuteInProcessResult:
        return run_load_days(instance, first, last or first, **variables)

    return run
