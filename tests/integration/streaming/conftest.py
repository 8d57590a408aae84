"""Fixtures of the streaming room's integration tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .rig import Rig, make_rig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_kafka import NewTopic


@pytest.fixture
def rig(kafka_bootstrap: str, new_topic: NewTopic, lake_dsn: str, tmp_path: Path) -> Rig:
    """A topic of four partitions and a migrated lake."""
    made = make_rig(new_topic(), kafka_bootstrap, lake_dsn, tmp_path)
    made.migrate()
    return made
