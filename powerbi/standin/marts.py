"""Reads marts from BigQuery as the service does: by the model's M queries, over the network, by itself.

Here: the thin reader. Not here: what is done with the rows (copied.py). Google's client is imported on first use.
"""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from powerbi.errors import WarehouseError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Cut = tuple[str, "dt.date", "dt.date"]
"""A DATE column with the first day and the day after the last."""
_STREAMS = 1  # of one table; several tables are read at a time


@dataclass(frozen=True)
class MartsSettings:
    """Where the warehouse is."""

    project: str
    location: str = "EU"
    dataset_prefix: str = ""
    emulator_host: str = ""
    emulator_grpc: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> MartsSettings:
        """Read WAREHOUSE_PROJECT, _LOCATION, _DATASET_PREFIX, BIGQUERY_EMULATOR_HOST and BIGQUERY_EMULATOR_GRPC."""
        return cls(
            project=env.get("WAREHOUSE_PROJECT", "").strip(),
            location=env.get("WAREHOUSE_LOCATION", "").strip() or "EU",
            dataset_prefix=env.get("WAREHOUSE_DATASET_PREFIX", "").strip(),
            emulator_host=env.get("BIGQUERY_EMULATOR_HOST", "").strip(),
            emulator_grpc=env.get("BIGQUERY_EMULATOR_GRPC", "").strip(),
        )

    @property
    def mart_dataset(self) -> str:
        """The dataset of the marts."""
        return f"{self.dataset_prefix}_mart" if self.dataset_prefix else "mart"


class Marts:
    """A connection to the warehouse.

    Rows come by the Storage API, as Arrow: 500,000 in 3.3 s, where REST's JSON took 26 s for 200,000 (15 columns).
    An emulator whose gRPC address is not given is read by REST.

    `folder` takes the rows of a table while they are on their way (default: the system's for temporary files).
    """

    def __init__(self, settings: MartsSettings, folder: Path | None = None) -> None:
        self.settings = settings
        self.folder = folder
        self._client: Any = None
        self._storage: Any = None
        self._tables: dict[str, bool] = {}
        self._opening = threading.Lock()

    def read(self, table_id: str, columns: Mapping[str, str], *, cut: Cut | None = None) -> Any:
        """Read a table into a pyarrow table, which lies in a file where it is large.

        Args:
            table_id: project.dataset.table.
            columns: the mart's column for each name of the result.
            cut: a DATE column with the first day and the day after the last.

        Raises:
            WarehouseError: with BigQuery's message.
        """
        from google.api_core.exceptions import GoogleAPIError  # noqa: PLC0415 - imported only by who needs it

        try:
            storage = self._open_storage()
            if storage is not None and self._is_table(table_id):
                return self._read_table(storage, table_id, columns, cut)
            return self._query(storage, table_id, columns, cut)
        except (GoogleAPIError, OSError) as error:
            raise WarehouseError(
                f"reading {table_id}: {error}. The copy is unchanged; the refresh can be repeated."
            ) from error

    def _query(self, storage: Any, table_id: str, columns: Mapping[str, str], cut: Cut | None) -> Any:
        from google.cloud import bigquery  # noqa: PLC0415 - imported only by who needs it

        listed = ", ".join(f"`{source}` AS `{name}`" for name, source in columns.items())
        sql, parameters = f"SELECT {listed} FROM `{table_id}`", []
        if cut is not None:
            sql += f" WHERE `{cut[0]}` >= @start AND `{cut[0]}` < @end"
            parameters = [
                bigquery.ScalarQueryParameter("start", "DATE", cut[1]),
                bigquery.ScalarQueryParameter("end", "DATE", cut[2]),
            ]
        job = self._open().query(sql, job_config=bigquery.QueryJobConfig(query_parameters=parameters), job_retry=None)
        return job.result(timeout=600).to_arrow(bqstorage_client=storage, create_bqstorage_client=False)

    def _is_table(self, table_id: str) -> bool:
        """Whether the Storage API reads it as it is; views only a query reads. Remembered."""
        if table_id not in self._tables:
            self._tables[table_id] = self._open().get_table(table_id).table_type == "TABLE"
        return self._tables[table_id]

    def _read_table(self, storage: Any, table_id: str, columns: Mapping[str, str], cut: Cut | None) -> Any:
        """A table's rows without a query: half the time of one, and no result table in between."""
        import pyarrow as pa  # noqa: PLC0415 - imported only by who needs it
        from google.cloud.bigquery_storage_v1.types import stream as types  # noqa: PLC0415 - as above

        project, dataset, table = table_id.split(".")
        wanted = types.ReadSession(
            table=f"projects/{project}/datasets/{dataset}/tables/{table}", data_format=types.DataFormat.ARROW
        )
        wanted.read_options.selected_fields = list(dict.fromkeys(columns.values()))
        if cut is not None:
            wanted.read_options.row_restriction = f"{cut[0]} >= '{cut[1]}' AND {cut[0]} < '{cut[2]}'"
        session = storage.create_read_session(
            parent=f"projects/{self.settings.project}", read_session=wanted, max_stream_count=_STREAMS
        )
        schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
        batches = (
            pa.ipc.read_record_batch(pa.py_buffer(message.arrow_record_batch.serialized_record_batch), schema)
            for stream in session.streams
            for message in storage.read_rows(stream.name)
        )
        return self._mapped(schema, batches).select(list(columns.values())).rename_columns(list(columns))

    def _mapped(self, schema: Any, batches: Iterable[Any]) -> Any:
        """A table in a file without a name: a day of 1,700,000 rows would take 700 MB of memory until it is copied."""
        import pyarrow as pa  # noqa: PLC0415 - imported only by who needs it

        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".arrow") as file:
            with pa.ipc.new_file(file, schema) as kept:
                for batch in batches:
                    kept.write_batch(batch)
            file.flush()
            return pa.ipc.open_file(pa.memory_map(file.name)).read_all()

    def warm(self) -> None:
        """Import and open Google's clients ahead of the first refresh, which would wait three seconds for them."""
        self._open()
        self._open_storage()

    def _open(self) -> Any:
        with self._opening:
            if self._client is None:
                self._client = self._new_client()
        return self._client

    def _new_client(self) -> Any:
        from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415 - imported only by who needs it
        from google.cloud import bigquery  # noqa: PLC0415 - imported only by who needs it

        project, location = self.settings.project, self.settings.location
        if not self.settings.emulator_host:
            return bigquery.Client(project=project, location=location)
        return bigquery.Client(
            project=project,
            location=location,
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": self.settings.emulator_host},
        )

    def _open_storage(self) -> Any:
        """The Storage API's client; None where an emulator has none."""
        if self.settings.emulator_host and not self.settings.emulator_grpc:
            return None
        with self._opening:
            if self._storage is None:
                self._storage = self._new_storage()
        return self._storage

    def _new_storage(self) -> Any:
        from google.cloud import bigquery_storage  # noqa: PLC0415 - imported only by who needs it

        if not self.settings.emulator_grpc:
            return bigquery_storage.BigQueryReadClient()  # type: ignore[no-untyped-call]
        import grpc  # type: ignore[import-untyped]  # noqa: PLC0415 - imported only by who needs it
        from google.cloud.bigquery_storage_v1.services.big_query_read import (  # noqa: PLC0415 - as above
            transports,
        )

        options = [("grpc.max_receive_message_length", -1)]  # a block of rows is larger than gRPC's 4 MB
        channel = grpc.insecure_channel(self.settings.emulator_grpc, options=options)
        transport = transports.BigQueryReadGrpcTransport(channel=channel)
        return bigquery_storage.BigQueryReadClient(transport=transport)  # type: ignore[no-untyped-call]
