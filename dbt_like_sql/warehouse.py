"""The one place that talks to BigQuery: jobs with deterministic ids, labels and a limit on what they may cost.

Belongs here: submitting jobs and what came of them. Does not: what the SQL means, ledgers, contracts.
The Google client is imported when a warehouse is opened: it costs about a second.
"""

from __future__ import annotations

import hashlib
import io
import re
import socket
import time
import uuid
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dbt_like_sql.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from dbt_like_sql.settings import WarehouseSettings

# A job id can be taken by an earlier, failed try of the same work; more than this many failures are not transient.
TWIN_TRIES = 5
TWIN_PAUSE_S = 0.3  # a small load takes the emulator 0.1 s
MAX_ATTEMPTS = 20
MISSING_TABLE = re.compile(r"Not found: (Dataset|Table)")
MISSING_COLUMN = re.compile(  # Google's words, then the emulator's
    r"Unrecognized name: |Column \S+ is not present in table |Name \S+ not found inside |"
    r"does not have a column (with name|named) "
)
REACH_S = 3.0  # an emulator beside us takes a connection within milliseconds, one elsewhere within a second
# bool is an int, datetime is a date: order matters.
_TYPES = {bool: "BOOL", int: "INT64", datetime: "TIMESTAMP", date: "DATE", Decimal: "NUMERIC", float: "FLOAT64"}
_LABEL = re.compile(r"[^a-z0-9_-]")


@dataclass(frozen=True)
class Done:
    """What came of a job. `rows` are those of its last statement; bytes are 0 on the emulator."""

    job_id: str
    rows: list[dict[str, Any]]
    rows_changed: int
    bytes_billed: int
    bytes_processed: int
    seconds: float
    is_attached: bool = False  # the job had been run before, by this process or another; this is its result


@dataclass
class Warehouse:
    """A connection to BigQuery or its emulator. Open it with `open_warehouse`."""

    settings: WarehouseSettings
    labels: Mapping[str, str] = field(default_factory=dict)
    _client: Any = None

    @property
    def client(self) -> Any:
        """The google.cloud.bigquery client, built on first use."""
        if self._client is None:
            self._client = _build_client(self.settings)
        return self._client

    def table_id(self, name: str) -> str:
        """Full id of a table, see `WarehouseSettings.table_id`."""
        return self.settings.table_id(name)

    def run(
        self,
        sql: str,
        *,
        params: Mapping[str, object] | None = None,
        labels: Mapping[str, str] | None = None,
        job_key: str | None = None,
        kind: str = "query",
    ) -> Done:
        """Run one statement or script and wait for it.

        Args:
            sql: GoogleSQL with full table ids and named parameters.
            params: values by name; their BigQuery type follows from their Python type.
            labels: added to the warehouse's own; cleaned to what BigQuery accepts.
            job_key: the same key names the same job: a repeat attaches to it instead of running again. A key whose
                job failed is run again. None: every call is a job of its own.
            kind: first word of the job id, for whoever reads the job list.

        Raises:
            JobError: the job failed; the message is BigQuery's.
        """
        from google.cloud import bigquery  # noqa: PLC0415

        config = bigquery.QueryJobConfig(
            query_parameters=[_parameter(name, value) for name, value in (params or {}).items()],
            labels=self._labels(labels),
            job_timeout_ms=self.settings.job_timeout_s * 1000,
        )
        if not self.settings.emulator_host:
            config.maximum_bytes_billed = self.settings.maximum_bytes_billed

        def submit(job_id: str) -> Any:
            return self.client.query(
                sql, job_config=config, job_id=job_id, location=self.settings.location, job_retry=None
            )

        return self._finish(submit, job_key=job_key, kind=kind)

    def dry_run(self, sql: str, *, params: Mapping[str, object] | None = None) -> int | None:
        """Bytes that a query would scan; None on an emulator, which does not count.

        Raises:
            JobError: the query is not valid, or a table is missing.
        """
        from google.api_core.exceptions import GoogleAPIError  # noqa: PLC0415
        from google.cloud import bigquery  # noqa: PLC0415

        if self.settings.emulator_host:
            return None
        config = bigquery.QueryJobConfig(
            query_parameters=[_parameter(name, value) for name, value in (params or {}).items()],
            dry_run=True,
            use_query_cache=False,
        )
        try:
            job = self.client.query(sql, job_config=config, location=self.settings.location, job_retry=None)
        except GoogleAPIError as error:
            raise _job_error(error, "dry run") from error
        return int(job.total_bytes_processed or 0)

    def load_parquet(
        self,
        payload: bytes,
        destination: str,
        *,
        schema: Sequence[Any],
        labels: Mapping[str, str] | None = None,
        job_key: str | None = None,
        append: bool = False,
    ) -> Done:
        """Replace a staging table by one Parquet file with one load job (free of charge, 1,500 a table a day).

        Args:
            payload: the file, see `parquet_bytes`.
            destination: full id of the staging table; created or overwritten.
            schema: explicit BigQuery schema; nothing is detected.
            labels: as in `run`.
            job_key: as in `run`; name the content in it too.
            append: to what the staging table has, instead.
        """
        from google.cloud import bigquery  # noqa: PLC0415

        write = bigquery.WriteDisposition
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            schema=list(schema),
            write_disposition=write.WRITE_APPEND if append else write.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_IF_NEEDED,
            labels=self._labels(labels),
        )

        def submit(job_id: str) -> Any:
            return self.client.load_table_from_file(
                io.BytesIO(payload),
                destination,
                job_config=config,
                job_id=job_id,
                location=self.settings.location,
                size=len(payload),
            )

        return self._finish(submit, job_key=job_key, kind="load", needs=destination)

    def drop_table(self, table_id: str) -> None:
        """Drop a staging table; one that is gone already, or that its twin drops in this instant, is fine.

        It would expire by itself: tidying up must not fail the load that has just been committed.
        """
        from google.api_core.exceptions import BadRequest  # noqa: PLC0415

        with suppress(BadRequest):  # the emulator's answer to two at once: "Failed to commit DuckLake transaction"
            self.client.delete_table(table_id, not_found_ok=True)

    def table_exists(self, table_id: str) -> bool:
        """Whether a table exists (metadata only)."""
        from google.api_core.exceptions import NotFound  # noqa: PLC0415

        try:
            self.client.get_table(table_id)
        except NotFound:
            return False
        return True

    def _labels(self, labels: Mapping[str, str] | None) -> dict[str, str]:
        return {key: clean_label(value) for key, value in {**self.labels, **(labels or {})}.items()}

    def _finish(self, submit: Any, *, job_key: str | None, kind: str, needs: str | None = None) -> Done:
        """Submit, or attach to the job that has this key already, and wait.

        A finished job counts only if it succeeded and, for a load, if its table is still there (`needs`).
        """
        from google.api_core import exceptions  # noqa: PLC0415
        from requests.exceptions import RequestException  # noqa: PLC0415

        started = time.monotonic()
        for attempt in range(MAX_ATTEMPTS):
            job_id = job_id_for(kind, job_key, attempt)
            is_attached = False
            try:
                try:
                    job = _submit_once(submit, job_id, kind)
                except exceptions.Conflict:
                    job, is_attached = self.client.get_job(job_id, location=self.settings.location), True
                result = job.result(timeout=self.settings.job_timeout_s)
                rows = [dict(row) for row in result or ()] if kind != "load" else []
            except (exceptions.GoogleAPIError, RequestException, TimeoutError) as error:
                if is_attached:
                    continue  # the earlier try failed or died with its server: this work has not been done
                raise _job_error(error, job_id) from error
            if is_attached and needs and not self.table_exists(needs):
                continue
            return _done(job, rows, time.monotonic() - started, is_attached=is_attached)
        message = (
            f"job {job_id}: {MAX_ATTEMPTS} earlier tries of the same work failed. Nothing was run. Read their errors."
        )
        raise JobError(message, job_id=job_id)


def open_warehouse(settings: WarehouseSettings, *, labels: Mapping[str, str] | None = None) -> Warehouse:
    """Open the warehouse; nothing is sent before the first job."""
    # Google's clients tell on which day they will leave this Python: eight lines before each command's answer
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")
    return Warehouse(settings, labels=dict(labels or {}))


def reach_emulator(settings: WarehouseSettings) -> None:
    """For commands, whose user waits: Google's client tries for ten minutes, without a word, where no emulator is.

    A run does not ask: it rides out an emulator that is started anew. Google's BigQuery is never asked.

    Raises:
        JobError: nothing takes a connection there.
    """
    if settings.emulator_host is None:
        return
    url = urlsplit(settings.emulator_host)
    address = url.hostname or "", url.port or {"https": 443}.get(url.scheme, 80)
    try:
        socket.create_connection(address, timeout=REACH_S).close()
    except OSError as error:
        raise JobError(
            f"connecting to the BigQuery emulator at {settings.emulator_host}: {error}. Nothing was done. Start it "
            "(`make demo` on this machine, `make up` in containers), or let BIGQUERY_EMULATOR_HOST say where it is.",
            is_retryable=True,
        ) from error


def parquet_bytes(rows: pa.Table) -> bytes:
    """Rows as one Parquet file; zstd is a third of the bytes of snappy's at the same speed on invoice lines."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", compression_level=1)
    return bytes(memoryview(sink.getvalue()))


def job_id_for(kind: str, job_key: str | None, attempt: int = 0) -> str:
    """Job id of a piece of work: the same key and attempt always give the same id; no key, a new one."""
    if job_key is None:
        return f"{kind}_{uuid.uuid4().hex}"
    digest = hashlib.sha256(job_key.encode()).hexdigest()[:40]
    return f"{kind}_{digest}_{attempt}" if attempt else f"{kind}_{digest}"


def clean_label(value: str) -> str:
    """A label value as BigQuery accepts it: lower case, 63 characters, letters, digits, _ and -."""
    return _LABEL.sub("_", value.lower())[:63]


def _build_client(settings: WarehouseSettings) -> Any:
    from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415
    from google.cloud import bigquery  # noqa: PLC0415

    if settings.emulator_host:
        return bigquery.Client(
            project=settings.project,
            location=settings.location,
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": settings.emulator_host},
        )
    return bigquery.Client(project=settings.project, location=settings.location)


def _submit_once(submit: Any, job_id: str, kind: str) -> Any:
    """Submit; a job that the emulator refuses since its twin arrives in the same instant is submitted again.

    Google answers the second of two jobs of one id with 409. The emulator does too, but within the first's own
    milliseconds it says 400 instead (see `_is_twin`); asked again, it says 409.
    """
    from google.api_core import exceptions  # noqa: PLC0415

    for _ in range(TWIN_TRIES):
        try:
            return submit(job_id)
        except exceptions.BadRequest as error:
            if not _is_twin(str(error), job_id, kind):
                raise
            time.sleep(TWIN_PAUSE_S)
    return submit(job_id)


def _is_twin(message: str, job_id: str, kind: str) -> bool:
    """Whether a refusal means that the same job was just submitted by somebody else.

    Either its id is taken, in so many words, or a load job met its twin at the staging table, which is its own alone;
    the conflict of a script may be a lost race and says nothing of a twin.
    """
    words = message.lower()
    is_id_taken = "duplicate key" in words and job_id.lower() in words
    return is_id_taken or (kind == "load" and "conflict on update" in words)


def _job_error(error: Any, job_id: str) -> JobError:
    from google.api_core import exceptions  # noqa: PLC0415
    from requests.exceptions import RequestException  # noqa: PLC0415

    transient = (
        exceptions.ServerError,
        exceptions.TooManyRequests,
        exceptions.RetryError,
        RequestException,
        TimeoutError,
    )
    message = " ".join(str(error).split()) or f"no answer in time ({type(error).__name__})"
    is_lacking = isinstance(error, exceptions.NotFound) and MISSING_TABLE.search(message)
    if is_lacking or (isinstance(error, exceptions.BadRequest) and MISSING_COLUMN.search(message)):
        message += " [If this warehouse is new, or older than this program, run `dbt-like-sql migrate`.]"
    return JobError(
        f"job {job_id}: {message}", job_id=job_id, is_retryable=isinstance(error, transient), detail=str(error)
    )


def _done(job: Any, rows: list[dict[str, Any]], seconds: float, *, is_attached: bool) -> Done:
    return Done(
        job_id=job.job_id,
        rows=rows,
        rows_changed=int(getattr(job, "num_dml_affected_rows", None) or getattr(job, "output_rows", None) or 0),
        bytes_billed=int(getattr(job, "total_bytes_billed", None) or 0),
        bytes_processed=int(getattr(job, "total_bytes_processed", None) or 0),
        seconds=seconds,
        is_attached=is_attached,
    )


def _parameter(name: str | None, value: Any) -> Any:
    from google.cloud import bigquery  # noqa: PLC0415

    if isinstance(value, (list, tuple)):
        if not value:
            message = f"parameter @{name} is an empty array: its type is unknown; leave the statement out instead"
            raise JobError(message)
        first = value[0]
        if isinstance(first, dict):
            structs = [bigquery.StructQueryParameter(None, *_fields(item)) for item in value]
            return bigquery.ArrayQueryParameter(name, "STRUCT", structs)
        return bigquery.ArrayQueryParameter(name, _type(first), list(value))
    return bigquery.ScalarQueryParameter(name, _type(value), value)


def _fields(struct: Mapping[str, object]) -> list[Any]:
    return [_parameter(name, value) for name, value in struct.items()]


def _type(value: object) -> str:
    return next((name for kind, name in _TYPES.items() if isinstance(value, kind)), "STRING")
