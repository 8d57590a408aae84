from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.powerbi.running import Running, running
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def lines() -> list[dict[str, Any]]:
    return shop.invoice_lines(invoices_a_day=1)


@pytest.fixture(scope="session")
def mart_tables(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return shop.marts(lines)


@pytest.fixture
def standin(tmp_path: Path, mart_tables: dict[str, Any]) -> Iterator[Running]:
    """An empty stand-in of its own for each test."""
    with running(tmp_path / "standin", mart_tables) as found:
        yield found


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, mart_tables: dict[str, Any]) -> Iterator[Running]:
    """A stand-in that has been refreshed; its tests leave it as it is."""
    from powerbi.refresh import refresh_model

    with running(tmp_path_factory.mktemp("standin"), mart_tables) as found:
        refresh_model(found.settings(), client=found.client())
        yield found
