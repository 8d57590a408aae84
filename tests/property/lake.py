"""A real lake for property tests: landed through the writer itself, emptied between examples."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import Any

from streaming import lake, migrate
from streaming.contract import Contract
from streaming.decode import Decoder
from streaming.ledger import Claim, claim
from streaming.metrics import LandingMetrics
from streaming.settings import KafkaSettings, LakeSettings, LandingSettings
from streaming.writer import Writer


class PropertyLake:
    """One lake, the contracts' streams in it, and writers that are called instead of being run as threads."""

    def __init__(self, dsn: str, contracts: Iterable[Contract]) -> None:
        self.decoders = {contract.topic: Decoder(contract) for contract in contracts}
        self.settings = LandingSettings(kafka=KafkaSettings("nowhere:1"), lake=LakeSettings(dsn=dsn))
        self.conn = lake.connect(dsn, application_name="property test")
        migrate.migrate(self.conn, [decoder.contract for decoder in self.decoders.values()])

    def writer(self, name: str) -> Writer:
        return Writer(self.settings, self.decoders, LandingMetrics(), name=name, owner=name)

    def claim(self, topic: str, number: int, *, low: int = 0, high: int = 10**9, owner: str = "property") -> Claim:
        with self.conn, self.conn.cursor() as cursor:
            return claim(cursor, topic, number, topic_id="id", low=low, high=high, owner=owner)[0]

    def query(self, statement: str, *values: Any) -> list[Any]:
        with self.conn, self.conn.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def empty(self) -> None:
        """As freshly migrated; `delete` is quicker than `truncate` where there is little."""
        with self.conn, self.conn.cursor() as cursor:
            for table in ("offset", "batch", "batch_day", "landed_day", "dead_letter", "gap"):
                cursor.execute(f"DELETE FROM control.{table}")
            for decoder in self.decoders.values():
                cursor.execute(f"DELETE FROM landing.{decoder.contract.stream}")

    def close(self) -> None:
        with closing(self.conn):
            pass
