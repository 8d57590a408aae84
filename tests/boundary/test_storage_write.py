"""What we would rely on if rows were staged by the Storage Write API (docs/decisions/0016): a pending stream.

Exactly once by offset: an append that is repeated is refused, one that leaves a hole too; nothing is seen before the
commit, and a commit happens once. On the emulator, and on a real project with TEST_BIGQUERY_PROJECT.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]
ALREADY_EXISTS, OUT_OF_RANGE = 6, 11
SCHEMA = pa.schema([("k", pa.int64())])


@pytest.fixture
def place(real_project: str | None, request: pytest.FixtureRequest) -> Iterator[tuple[Warehouse, Any, str]]:
    """A warehouse, a client that writes, and a table of one column."""
    from google.cloud.bigquery_storage_v1 import BigQueryWriteClient

    prefix = f"boundary{uuid.uuid4().hex[:8]}"
    if real_project:
        opened, client = open_warehouse(WarehouseSettings(real_project, dataset_prefix=prefix)), BigQueryWriteClient()
    else:
        import grpc

        host, address = request.getfixturevalue("bigquery_host"), request.getfixturevalue("bigquery_grpc")
        opened = open_warehouse(WarehouseSettings("local", dataset_prefix=prefix, emulator_host=host))
        transport = BigQueryWriteClient.get_transport_class("grpc")(channel=grpc.insecure_channel(address))
        client = BigQueryWriteClient(transport=transport)
    dataset = f"{opened.settings.project}.{opened.settings.dataset_id('x')}"
    opened.client.create_dataset(dataset)
    opened.run(f"CREATE TABLE `{dataset}.t` (k INT64)")
    yield opened, client, f"{dataset}.t"
    opened.client.delete_dataset(dataset, delete_contents=True)


def append(client: Any, stream: str, keys: list[int], offset: int) -> int:
    """Append rows at an offset; the error's code, 0 if there is none."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.cloud.bigquery_storage_v1 import types

    request = types.AppendRowsRequest(write_stream=stream, offset=offset)
    batch = pa.record_batch([pa.array(keys, pa.int64())], schema=SCHEMA)
    request.arrow_rows.writer_schema.serialized_schema = SCHEMA.serialize().to_pybytes()
    request.arrow_rows.rows.serialized_record_batch = batch.serialize().to_pybytes()
    try:
        [answer] = list(client.append_rows(iter([request])))
    except GoogleAPICallError as error:
        return int(error.grpc_status_code.value[0]) if error.grpc_status_code else -1
    return int(answer.error.code)


def test_pending_stream_is_exactly_once_by_offset_and_seen_whole_at_its_commit(
    place: tuple[Warehouse, Any, str],
) -> None:
    from google.cloud.bigquery_storage_v1 import types

    warehouse, client, table = place
    project, dataset, name = table.split(".")
    parent = f"projects/{project}/datasets/{dataset}/tables/{name}"
    pending = types.WriteStream(type_=types.WriteStream.Type.PENDING)
    stream = client.create_write_stream(parent=parent, write_stream=pending).name
    assert append(client, stream, [1, 2], 0) == 0
    assert append(client, stream, [1, 2], 0) == ALREADY_EXISTS
    assert append(client, stream, [9], 7) == OUT_OF_RANGE
    assert append(client, stream, [3], 2) == 0
    assert warehouse.run(f"SELECT k FROM `{table}`").rows == []
    assert client.finalize_write_stream(name=stream).row_count == 3
    commit = types.BatchCommitWriteStreamsRequest(parent=parent, write_streams=[stream])
    assert not client.batch_commit_write_streams(commit).stream_errors
    assert [row["k"] for row in warehouse.run(f"SELECT k FROM `{table}` ORDER BY k").rows] == [1, 2, 3]
    assert client.batch_commit_write_streams(commit).stream_errors, "a stream is committed once"
    assert len(warehouse.run(f"SELECT k FROM `{table}`").rows) == 3
