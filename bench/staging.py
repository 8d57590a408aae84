"""Three ways of rows into staging: a Parquet load job, one array parameter, a stream of the Storage Write API."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa
import pyarrow.compute as pc

from bench._warehouse.rig import TABLE, made_up_lines
from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.column_types import bigquery_schema
from dbt_like_sql.migrate import create_sql
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse, parquet_bytes
from deploy.embedded.services import start_bigquery
from mage_project.transforms import lines as rules

if TYPE_CHECKING:
    from collections.abc import Callable

CORE = load_catalog()[TABLE]


def by_load_job(warehouse: Warehouse, rows: pa.Table, table: str) -> None:
    warehouse.load_parquet(parquet_bytes(rows), table, schema=bigquery_schema(CORE.columns))


def by_parameter(warehouse: Warehouse, rows: pa.Table, table: str) -> None:
    """The rows as one array of JSON texts, cast by the statement: no upload, one job; at most 10 MB a request."""
    documents = [json.dumps(row, default=str) for row in rows.to_pylist()]
    casts = ", ".join(f"CAST(JSON_VALUE(r, '$.{each.name}') AS {each.type}) AS {each.name}" for each in CORE.columns)
    warehouse.run(f"CREATE TABLE `{table}` AS SELECT {casts} FROM UNNEST(@rows) AS r", params={"rows": documents})


def by_storage_write(channel: Any) -> Callable[[Warehouse, pa.Table, str], None]:
    """A pending stream: rows are seen all at once when it is committed; an append repeated at its offset is refused."""
    from google.cloud import bigquery_storage_v1 as storage  # noqa: PLC0415
    from google.cloud.bigquery_storage_v1 import types  # noqa: PLC0415

    client = channel(storage.BigQueryWriteClient)

    def write(warehouse: Warehouse, rows: pa.Table, table: str) -> None:
        warehouse.run(create_sql(CORE, table).partition("PARTITION BY")[0])
        project, dataset, name = table.split(".")
        parent = f"projects/{project}/datasets/{dataset}/tables/{name}"
        stream = client.create_write_stream(
            parent=parent, write_stream=types.WriteStream(type_=types.WriteStream.Type.PENDING)
        )
        requests, at = [], 0
        for batch in rows.to_batches(max_chunksize=5_000):
            request = types.AppendRowsRequest(write_stream=stream.name, offset=at)
            request.arrow_rows.writer_schema.serialized_schema = rows.schema.serialize().to_pybytes()
            request.arrow_rows.rows.serialized_record_batch = batch.serialize().to_pybytes()
            requests.append(request)
            at += batch.num_rows
        for answer in client.append_rows(iter(requests)):
            if answer.error.code:
                raise SystemExit(f"append refused: {answer.error.message}")
        client.finalize_write_stream(name=stream.name)
        commit = types.BatchCommitWriteStreamsRequest(parent=parent, write_streams=[stream.name])
        done = client.batch_commit_write_streams(commit)
        if done.stream_errors:
            raise SystemExit(f"commit refused: {done.stream_errors}")

    return write


def measure(warehouse: Warehouse, ways: dict[str, Any], rows: pa.Table, repeats: int) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            table = warehouse.table_id(f"staging.t{uuid.uuid4().hex[:8]}")
            started = time.perf_counter()
            way(warehouse, rows, table)
            found[name].append(time.perf_counter() - started)
            [row] = warehouse.run(f"SELECT COUNT(*) AS n, SUM(amount_gbp) AS amount FROM `{table}`").rows
            if (row["n"], row["amount"]) != (rows.num_rows, pc.sum(rows["amount_gbp"]).as_py()):
                raise SystemExit(f"{name}: other rows than were sent: {row}")
            warehouse.drop_table(table)
    return {name: round(statistics.median(each), 4) for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="200,2000,10000")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import grpc  # noqa: PLC0415

    project = os.environ.get("TEST_BIGQUERY_PROJECT")
    with tempfile.TemporaryDirectory(prefix="bench-staging-") as folder:
        emulator = None if project else start_bigquery(Path(folder), project="local")
        try:
            prefix = f"bench{uuid.uuid4().hex[:8]}"
            host = emulator.url if emulator else None
            settings = WarehouseSettings(project or "local", dataset_prefix=prefix, emulator_host=host)
            warehouse = open_warehouse(settings)

            def client(kind: Any) -> Any:
                if emulator is None:
                    return kind()
                address = f"127.0.0.1:{emulator.grpc_port}"
                transport = kind.get_transport_class("grpc")(channel=grpc.insecure_channel(address))
                return kind(transport=transport)

            ways = {"load job": by_load_job, "array parameter": by_parameter, "Storage Write": by_storage_write(client)}
            dataset = f"{settings.project}.{settings.dataset_id('staging')}"
            warehouse.client.create_dataset(dataset)
            found = {}
            for size in map(int, options.sizes.split(",")):
                rows = rules.price_lines(rules.classify_lines(made_up_lines(size))).replace_schema_metadata(None)
                found[str(size)] = measure(warehouse, ways, rows, options.repeats)
            warehouse.client.delete_dataset(dataset, delete_contents=True)
        finally:
            if emulator:
                emulator.stop()
    print(f"on {'project ' + project if project else 'the emulator'}, seconds (median of {options.repeats})\n")
    print("| rows | " + " | ".join(ways) + " |\n" + "|---" * (len(ways) + 1) + "|")
    for size_text, seconds in found.items():
        print(f"| {size_text} | " + " | ".join(f"{seconds[way]:.3f}" for way in ways) + " |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
