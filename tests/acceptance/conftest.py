"""Fixtures of the fault schedule: a dataset and what an undisturbed run makes of it, processes at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.acceptance.faults.rig import Dataset, FaultRig, Starter, make_dataset, make_fault_rig


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Starts `streaming` processes quickly; whatever still runs at the end is killed."""
    with Starter(tmp_path_factory.mktemp("consumers")) as made:
        yield made


@pytest.fixture(scope="session")
def dataset(
    kafka_bootstrap: str,
    fresh_database: Callable[[], AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Dataset]:
    """A topic with everything in it, and the state of a lake that landed it undisturbed; made once."""
    with fresh_database() as dsn:
        yield make_dataset(kafka_bootstrap, dsn, tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def faulty(dataset: Dataset, lake_dsn: str, starter: Starter, tmp_path: Path) -> FaultRig:
    """An empty lake and a new consumer group for the dataset's topic."""
    return make_fault_rig(dataset, lake_dsn, starter)
