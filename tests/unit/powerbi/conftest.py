from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from powerbi.standin.copied import Copy
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb


@pytest.fixture(scope="session")
def lines() -> list[dict[str, Any]]:
    return shop.invoice_lines()


@pytest.fixture(scope="session")
def mart_tables(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return shop.marts(lines)


@pytest.fixture(scope="session")
def copy(mart_tables: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    found = Copy(tmp_path_factory.mktemp("copy") / "imported.duckdb")
    shop.fill(found, mart_tables)
    yield found
    found.close()


@pytest.fixture
def connection(copy: Copy) -> Iterator[duckdb.DuckDBPyConnection]:
    cursor = copy.reader()
    yield cursor
    cursor.close()
