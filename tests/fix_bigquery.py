"""The BigQuery emulator for the run, and a fresh dataset prefix for each test.

With TEST_BIGQUERY_PROJECT (`make test-bigquery PROJECT=...`) the same tests run on that Google project instead, by
Application Default Credentials; datasets have a prefix of their own and are deleted afterwards.
Every table that exists slows each of the emulator's statements by about 2 ms, so datasets are deleted after the test.
"""

from __future__ import annotations

import json
import os
import urllib.request
import uuid
from contextlib import ExitStack, contextmanager
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
REAL_PROJECT = "TEST_BIGQUERY_PROJECT"


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
def real_project() -> str | None:
    """The Google project to test on; None without one. A project without credentials is a failure, not a skip."""
    project = os.environ.get(REAL_PROJECT)
    if not project:
        return None
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError as error:
        pytest.fail(
            f"{REAL_PROJECT} is {project}, but there are no credentials, so nothing was tested on it: run `gcloud auth "
            f"application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file. ({error})",
            pytrace=False,
        )
    return project


@pytest.fixture(scope="session")
def fresh_warehouse(
    real_project: str | None, request: pytest.FixtureRequest
) -> Callable[[], AbstractContextManager[dict[str, str]]]:
    """For fixtures of any scope: the environment of an empty warehouse, as a context manager."""
    if real_project is not None:
        return lambda: _on_google(real_project)
    bigquery_host = request.getfixturevalue("bigquery_host")

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


@pytest.fixture(scope="session")
def lend_warehouse(
    fresh_warehouse: Callable[[], AbstractContextManager[dict[str, str]]],
) -> Iterator[Callable[[], AbstractContextManager[dict[str, str]]]]:
    """For fixtures of any scope: the environment of a warehouse that is migrated and empty.

    Making the tables costs seconds, emptying them tenths: a warehouse that a test gives back is emptied and lent again.
    """
    free: list[dict[str, str]] = []
    with ExitStack() as made:

        @contextmanager
        def lend() -> Iterator[dict[str, str]]:
            env = free.pop() if free else _migrated(made.enter_context(fresh_warehouse()))
            yield dict(env)
            if _emptied(env):
                free.append(env)

        yield lend


@pytest.fixture
def migrated_env(lend_warehouse: Callable[[], AbstractContextManager[dict[str, str]]]) -> Iterator[dict[str, str]]:
    """Environment variables of a warehouse for this test: its tables are there and empty."""
    with lend_warehouse() as env:
        yield env


@pytest.fixture(scope="module")
def module_migrated_env(
    lend_warehouse: Callable[[], AbstractContextManager[dict[str, str]]],
) -> Iterator[dict[str, str]]:
    """The same for this test file."""
    with lend_warehouse() as env:
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


@pytest.fixture(scope="module")
def module_migrated_settings(module_migrated_env: dict[str, str]) -> Any:
    """`WarehouseSettings` of a warehouse for this test file: its tables are there and empty."""
    from dbt_like_sql.settings import WarehouseSettings

    return WarehouseSettings.from_env(module_migrated_env)


@pytest.fixture
def own_bigquery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQuery]:
    """An emulator for one test alone, which may kill it."""
    with start_bigquery(tmp_path_factory.mktemp("bigquery"), project=PROJECT) as emulator:
        yield emulator


def _migrated(env: dict[str, str]) -> dict[str, str]:
    from dbt_like_sql.catalog import load_catalog
    from dbt_like_sql.migrate import migrate
    from dbt_like_sql.settings import WarehouseSettings
    from dbt_like_sql.warehouse import open_warehouse

    migrate(open_warehouse(WarehouseSettings.from_env(env)), load_catalog())
    return env


def _emptied(env: dict[str, str]) -> bool:
    """Empty every table and make the ledger a new one; False if it holds other tables than the contracts say.

    A run that a test has killed leaves its staging table, as it would in production, where it expires: it goes too.
    The ledger's incarnation is part of every job's id: with the old one, a test that loads what an earlier test has
    loaded would be taken for its repetition.
    """
    from dbt_like_sql.catalog import load_catalog
    from dbt_like_sql.errors import WarehouseError
    from dbt_like_sql.load_sql import STAGING
    from dbt_like_sql.migrate import migrate, unnamed_tables
    from dbt_like_sql.settings import WarehouseSettings
    from dbt_like_sql.warehouse import open_warehouse

    warehouse, catalog = open_warehouse(WarehouseSettings.from_env(env)), load_catalog()
    statements = []
    for table in catalog.physical():
        where = f"{table.partition_column} >= DATE '0001-01-01'" if table.partition_column else "TRUE"
        if table.materialization in {"loaded", "table"}:
            statements.append(f"DELETE FROM `{warehouse.table_id(table.name)}` WHERE {where};")
        if table.materialization == "fence":
            statements.append(f"UPDATE `{warehouse.table_id(table.name)}` SET version = 0 WHERE TRUE;")
    incarnation = warehouse.table_id("control.incarnation")
    statements.append(f"UPDATE `{incarnation}` SET incarnation = GENERATE_UUID(), rows_created = 0 WHERE TRUE;")
    staging = f"{warehouse.settings.project}.{warehouse.settings.dataset_id(STAGING)}"
    try:
        warehouse.run("\n".join(statements))
        for left in warehouse.client.list_tables(staging):
            warehouse.client.delete_table(left.reference, not_found_ok=True)
        return not unnamed_tables(warehouse, catalog) and not migrate(warehouse, catalog, dry_run=True)
    except WarehouseError:
        return False


@contextmanager
def _on_google(project: str) -> Iterator[dict[str, str]]:
    from google.cloud import bigquery

    prefix, location = f"t{uuid.uuid4().hex[:8]}", os.environ.get("WAREHOUSE_LOCATION", "EU")
    client = bigquery.Client(project=project, location=location)
    try:
        yield {"WAREHOUSE_PROJECT": project, "WAREHOUSE_LOCATION": location, "WAREHOUSE_DATASET_PREFIX": prefix}
    finally:
        for dataset in client.list_datasets():
            if dataset.dataset_id.startswith(f"{prefix}_"):
                client.delete_dataset(dataset.reference, delete_contents=True, not_found_ok=True)


def _delete_datasets(host: str, prefix: str) -> None:
    base = f"{host}/bigquery/v2/projects/{PROJECT}/datasets"
    with urllib.request.urlopen(base, timeout=30) as response:
        listed = json.load(response).get("datasets", [])
    for dataset in listed:
        name = dataset["datasetReference"]["datasetId"]
        if name.startswith(prefix):
            request = urllib.request.Request(f"{base}/{name}?deleteContents=true", method="DELETE")
            urllib.request.urlopen(request, timeout=30).close()
