"""Reads marts from BigQuery as the service does: by the model's M queries, over the network, by itself.

Here: the thin reader. Not here: what is done with the rows (copied.py). Google's client is imported on first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from powerbi.errors import WarehouseError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping


@dataclass(frozen=True)
class MartsSettings:
    """Where the warehouse is."""

    project: str
    location: str = "EU"
    dataset_prefix: str = ""
    emulator_host: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> MartsSettings:
        """Read WAREHOUSE_PROJECT, WAREHOUSE_LOCATION, WAREHOUSE_DATASET_PREFIX and BIGQUERY_EMULATOR_HOST."""
        return cls(
            project=env.get("WAREHOUSE_PROJECT", "").strip(),
            location=env.get("WAREHOUSE_LOCATION", "").strip() or "EU",
            dataset_prefix=env.get("WAREHOUSE_DATASET_PREFIX", "").strip(),
            emulator_host=env.get("BIGQUERY_EMULATOR_HOST", "").strip(),
        )

    @property
    def mart_dataset(self) -> str:
        """The dataset of the marts."""
        return f"{self.dataset_prefix}_mart" if self.dataset_prefix else "mart"


class Marts:
    """A connection to the warehouse."""

    def __init__(self, settings: MartsSettings) -> None:
        self.settings = settings
        self._client: Any = None

    def read(
        self, table_id: str, columns: Mapping[str, str], *, cut: tuple[str, dt.date, dt.date] | None = None
    ) -> Any:
        """Read a table into a pyarrow table.

        Args:
            table_id: project.dataset.table.
            columns: the mart's column for each name of the result.
            cut: a DATE column with the first day and the day after the last.

        Raises:
            WarehouseError: with BigQuery's message.
        """
        from google.api_core.exceptions import GoogleAPIError  # noqa: PLC0415 - imported only by who needs it
        from google.cloud import bigquery  # noqa: PLC0415 - imported only by who needs it

        listed = ", ".join(f"`{source}` AS `{name}`" for name, source in columns.items())
        sql, parameters = f"SELECT {listed} FROM `{table_id}`", []
        if cut is not None:
            sql += f" WHERE `{cut[0]}` >= @start AND `{cut[0]}` < @end"
            parameters = [
                bigquery.ScalarQueryParameter("start", "DATE", cut[1]),
                bigquery.ScalarQueryParameter("end", "DATE", cut[2]),
            ]
        try:
            job = self._open().query(
                sql, job_config=bigquery.QueryJobConfig(query_parameters=parameters), job_retry=None
            )
            return job.result(timeout=600).to_arrow(create_bqstorage_client=False)
        except (GoogleAPIError, OSError) as error:
            raise WarehouseError(
                f"reading {table_id}: {error}. The copy is unchanged; the refresh can be repeated."
            ) from error

    def _open(self) -> Any:
        if self._client is None:
            from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415 - imported only by who needs it
            from google.cloud import bigquery  # noqa: PLC0415 - imported only by who needs it

            project, location = self.settings.project, self.settings.location
            if self.settings.emulator_host:
                self._client = bigquery.Client(
                    project=project,
                    location=location,
                    credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
                    client_options={"api_endpoint": self.settings.emulator_host},
                )
            else:
                self._client = bigquery.Client(project=project, location=location)
        return self._client
