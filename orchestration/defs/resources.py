"""What assets, checks and sensors reach the outside through; opened when used, never at import.

Belongs here: opening. Not here: what is done with what was opened.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import dagster as dg

from orchestration.settings import OrchestrationSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt_like_sql.warehouse import Warehouse

LOST = "What was written before stays; it may be done again. Check that PostgreSQL is up."


class LakeResource(dg.ConfigurableResource[Any]):
    """The lake of landed events (LAKE_DSN)."""

    @contextlib.contextmanager
    def connect(self, application_name: str) -> Iterator[Any]:
        """A connection that is closed in the end.

        Raises:
            LakeUnavailableError: it cannot be reached, or was lost while it was used.
        """
        from streaming import lake

        settings = OrchestrationSettings.from_env(os.environ)
        with (
            contextlib.closing(lake.connect(settings.lake_dsn, application_name=application_name)) as conn,
            lake.telling_outages(f"using the lake as {application_name}", remedy=LOST),
        ):
            yield conn


class WarehouseResource(dg.ConfigurableResource[Any]):
    """BigQuery, or its emulator where BIGQUERY_EMULATOR_HOST is set (WAREHOUSE_*)."""

    def open(self) -> Warehouse:
        """The warehouse; the Google client is imported with it."""
        from dbt_like_sql.settings import WarehouseSettings
        from dbt_like_sql.warehouse import open_warehouse

        return open_warehouse(WarehouseSettings.from_env(os.environ))


RESOURCES = {"lake": LakeResource(), "warehouse": WarehouseResource()}
