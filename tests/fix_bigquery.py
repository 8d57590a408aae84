"""The BigQuery emulator for the run, and a fresh dataset prefix for each test.

Every table that exists slows each of the emulator's statements by about 2 ms, so datasets are deleted after the test.
"""

from __future__ import annotations

import json
import os
import urllib.request
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from deploy.embedded.services import start_bigquery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from deploy.embedded.services import BigQuery

HOST = "TEST_BIGQUERY_HOST"
GRPC = "TEST_BIGQUERY_GRPC"
PROJECT = "local"


@pytest.fixture(scope="session")
def bigquery_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The emulator's address, for BIGQUERY_EMULATOR_HOST."""
    if HOST in os.environ:
        yield os.environ[HOST]
        return
    with start_bigquery(tmp_path_factory.mktemp("bigquery"), project=PROJECT) as emulator:
        os.environ[HOST] = emulator.url  # pytest in a child process uses the same one
        os.environ[GRPC] = f"127.0.0.1:{emulator.grpc_port}"
        yield emulator.url
        del os.environ[HOST], os.environ[GRPC]


@pytest.fixture(scope="session")
def bigquery_grpc(bigquery_host: str) -> str:
    """The address of the emulator's Storage API, for BIGQUERY_EMULATOR_GRPC."""
    del bigquery_host
    return os.environ[GRPC]


@pytest.fixture(scope="session")
def fresh_warehouse(bigquery_host: str) -> Callable[[], AbstractContextManager[dict[str, str]]]:
    """For fixtures of any scope: the environment of an empty warehouse, as a context manager."""

    @contextmanager
    def warehouse() -> Iterator[dict[str, str]]:
        prefix = f"t{uuid.uuid4().hex[:8]}"
        try:
            yield {
                "WAREHOUSE_PROJECT": PROJECT,
                "WAREHOUSE_LOCATION": "EU",
                "WAREHOUSE_DATASET_PREFIX": prefix,
                "BIGQUERY_EMULATOR_HOST": bigquery_host,
            }
        finally:
            _delete_datasets(bigquery_host, prefix)

    return warehouse


@pytest.fixture
def warehouse_env(fresh_warehouse: Callable[[], AbstractContextManager[dict[str, str]]]) -> Iterator[dict[str, str]]:
    """Environment variables of an empty warehouse for this test."""
    with fresh_warehouse() as env:
        yield env


@pytest.fixture(scope="module")
def module_warehouse_env(
    fresh_warehouse: Callable[[], AbstractContextManager[dict[str, str]]],
) -> Iterator[dict[str, str]]:
    """Environment variables of an empty warehouse for this test file."""
    with fresh_warehouse() as env:
        yield env


@pytest.fixture
def warehouse_settings(warehouse_env: dict[str, str]) -> Any:
    """`WarehouseSettings` of an empty warehouse for this test."""
    from dbt_like_sql.settings import WarehouseSettings

    return WarehouseSettings.from_env(warehouse_env)


@pytest.fixture(scope="module")
def module_warehouse_settings(module_warehouse_env: dict[str, str]) -> Any:
    """`WarehouseSettings` of an empty warehouse for this test file."""
    from dbt_like_sql.settings import WarehouseSettings

    return WarehouseSettings.from_env(module_warehouse_env)


@pytest.fixture
def own_bigquery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQuery]:
    """An emulator for one test alone, which may kill it."""
    with start_bigquery(tmp_path_factory.mktemp("bigquery"), project=PROJECT) as emulator:
        yield emulator


def _delete_datasets(host: str, prefix: str) -> None:
    base = f"{host}/bigquery/v2/projects/{PROJECT}/datasets"
    with urllib.request.urlopen(base, timeout=30) as response:
        listed = json.load(response).get("datasets", [])
    for dataset in listed:
        name = dataset["datasetReference"]["datasetId"]
        if name.startswith(prefix):
            request = urllib.request.Request(f"{base}/{name}?deleteContents=true", method="DELETE")
            urllib.request.urlopen(request, timeout=30).close()
