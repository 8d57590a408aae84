"""A real PostgreSQL server for the run, and a fresh database for each test."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2
import pytest

from deploy.embedded.services import start_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from deploy.embedded.services import Postgres

SERVER = "TEST_POSTGRES_DSN"


@pytest.fixture(scope="session")
def postgres_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's maintenance database, for who creates databases. A test wants `lake_dsn`."""
    if SERVER in os.environ:
        yield os.environ[SERVER]
        return
    with start_postgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        os.environ[SERVER] = server.dsn()  # pytest in a child process uses the same one
        yield server.dsn()
        del os.environ[SERVER]


@pytest.fixture(scope="session")
def fresh_database(postgres_dsn: str) -> Callable[[], AbstractContextManager[str]]:
    """For fixtures of any scope: the connection URL of an empty database, as a context manager."""

    @contextmanager
    def database() -> Iterator[str]:
        name = f"test_{uuid.uuid4().hex[:12]}"
        _execute(postgres_dsn, f'CREATE DATABASE "{name}"')
        try:
            yield f"{postgres_dsn.rpartition('/')[0]}/{name}"
        finally:
            _execute(postgres_dsn, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    return database


@pytest.fixture
def lake_dsn(fresh_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """An empty database for this test."""
    with fresh_database() as dsn:
        yield dsn


@pytest.fixture(scope="module")
def module_lake_dsn(fresh_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """An empty database for this test file."""
    with fresh_database() as dsn:
        yield dsn


@pytest.fixture
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server for one test alone, which may kill it."""
    with start_postgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


def _execute(dsn: str, statement: str) -> None:
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
