"""Fixtures of the streaming room's integration tests."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy.embedded.services import Postgres, start_postgres

from .rig import Rig, make_rig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fix_kafka import NewTopic


@dataclass
class LakeServer:
    """A Postgres server that a test may kill and start again on the same port."""

    folder: Path
    running: Postgres

    def dsn(self) -> str:
        return self.running.dsn()

    def kill(self) -> None:
        os.kill(self.running.pid, signal.SIGKILL)
        self.running.stop()

    def start(self) -> None:
        self.running = start_postgres(self.folder, port=self.running.port)


@pytest.fixture
def lake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeServer]:
    """A server for one test alone."""
    folder = tmp_path_factory.mktemp("lake")
    server = LakeServer(folder, start_postgres(folder))  # it is killed: its commits must be on disk
    yield server
    server.running.stop()


@pytest.fixture
def rig(kafka_bootstrap: str, new_topic: NewTopic, lake_dsn: str, tmp_path: Path) -> Rig:
    """A topic of four partitions and a migrated lake."""
    made = make_rig(new_topic(), kafka_bootstrap, lake_dsn, tmp_path)
    made.migrate()
    return made
