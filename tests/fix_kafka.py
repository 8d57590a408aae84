"""A real Kafka broker for the run, and fresh topics for each test."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Protocol

import pytest

from deploy.embedded.services import start_kafka

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from deploy.embedded.services import Kafka

BOOTSTRAP = "TEST_KAFKA_BOOTSTRAP"


class NewTopic(Protocol):
    """Creates a topic; without a name, one that nobody else has."""

    def __call__(
        self, name: str | None = None, *, partitions: int = 4, config: Mapping[str, str] | None = None
    ) -> str: ...


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the run's broker listens. Create topics by `new_topic`, or name them with `topic_prefix`."""
    if BOOTSTRAP in os.environ:
        yield os.environ[BOOTSTRAP]
        return
    with start_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        os.environ[BOOTSTRAP] = broker.bootstrap  # pytest in a child process uses the same one
        yield broker.bootstrap
        del os.environ[BOOTSTRAP]


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker for one test alone, which may kill it."""
    with start_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def topic_prefix(kafka_bootstrap: str) -> Iterator[str]:
    """A prefix for names of topics and groups; topics that carry it are deleted after the test."""
    from confluent_kafka.admin import AdminClient

    prefix = f"t{uuid.uuid4().hex[:10]}."
    yield prefix
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    mine = [name for name in admin.list_topics(timeout=10).topics if name.startswith(prefix)]
    if mine:
        deletions = admin.delete_topics(mine, operation_timeout=10)
        for deletion in deletions.values():
            deletion.result(15)


@pytest.fixture
def new_topic(kafka_bootstrap: str, topic_prefix: str) -> NewTopic:
    """Create topics that vanish after the test."""
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin import NewTopic as Wanted

    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})

    def create(name: str | None = None, *, partitions: int = 4, config: Mapping[str, str] | None = None) -> str:
        name = topic_prefix + (name or uuid.uuid4().hex[:8])
        wanted = Wanted(name, num_partitions=partitions, replication_factor=1, config=dict(config or {}))
        creations = admin.create_topics([wanted], operation_timeout=15)
        creations[name].result(20)
        return name

    return create
