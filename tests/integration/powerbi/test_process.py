"""The stand-in as a process that reads the BigQuery emulator; killed while it refreshes it keeps the state before."""

from __future__ import annotations

import datetime as dt
import io
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from powerbi.refresh import history, query_row, refresh_model
from powerbi.rest import Client, StandInCredential
from powerbi.settings import PowerBiSettings
from powerbi.standin.marts import Marts, MartsSettings
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from powerbi.model import Model

pytestmark = pytest.mark.integration


@pytest.fixture
def warehouse(warehouse_env: dict[str, str], bigquery_grpc: str, mart_tables: dict[str, Any]) -> dict[str, str]:
    """The marts in an emulator's dataset of their own."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    client = bigquery.Client(
        project=warehouse_env["WAREHOUSE_PROJECT"],
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": warehouse_env["BIGQUERY_EMULATOR_HOST"]},
    )
    dataset = f"{warehouse_env['WAREHOUSE_DATASET_PREFIX']}_mart"
    client.create_dataset(dataset)
    for name, rows in mart_tables.items():
        file = io.BytesIO()
        pq.write_table(rows, file)
        file.seek(0)
        config = bigquery.LoadJobConfig(source_format="PARQUET")
        client.load_table_from_file(file, f"{client.project}.{dataset}.{name}", job_config=config).result()
    return {**warehouse_env, "BIGQUERY_EMULATOR_GRPC": bigquery_grpc}


@contextmanager
def process(env: dict[str, str], data_dir: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "powerbi.standin", "--port", str(port), "--data-dir", str(data_dir)]
    running = subprocess.Popen(command, env={**os.environ, **env}, cwd=shop.ROOM.parent)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                requests.get(url + "/healthz", timeout=5).raise_for_status()
                break
            except requests.ConnectionError:
                assert running.poll() is None, "the stand-in ended at its start"
                time.sleep(0.1)
        yield url, running
    finally:
        running.terminate()
        running.wait(timeout=20)


def _client(url: str) -> Client:
    return Client(PowerBiSettings.from_env({"POWERBI_API_URL": url}), StandInCredential())


def test_marts_are_imported_exactly_and_survive_a_kill_during_the_next_refresh(
    warehouse: dict[str, str], tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    amount = sum((row["amount_gbp"] for row in lines), Decimal(0))
    with process(warehouse, tmp_path) as (url, running):
        client = _client(url)
        refresh_model(client.settings, client=client)
        assert query_row(client, 'EVALUATE ROW("amount", [Total Amount])') == {"amount": amount}
        fault = {"kind": "slow_refresh", "seconds": 60}
        requests.post(url + "/standin/faults", json=fault, timeout=10).raise_for_status()
        client.send("POST", client.dataset("/refreshes"), {"type": "Full"}, is_repeatable=False)
        running.send_signal(signal.SIGKILL)
        running.wait(timeout=10)
    with process(warehouse, tmp_path) as (url, _):
        client = _client(url)
        assert [one["status"] for one in history(client)] == ["Failed", "Completed"]
        status = requests.get(url + "/status", timeout=30).json()
        assert Decimal(status["amount"]) == amount
        assert status["rows"] == len(lines)
        done = refresh_model(client.settings, client=client, days=[lines[-1]["invoice_date"]])
        assert done.request_id == history(client)[0]["requestId"]


# Google's client of BigQuery calls what Google's client of the Storage API is about to move elsewhere.
@pytest.mark.filterwarnings("ignore:Retrieving Arrow record batches:PendingDeprecationWarning")
def test_marts_come_the_same_by_the_storage_api_and_by_rest(
    warehouse: dict[str, str], bigquery_grpc: str, mart_tables: dict[str, Any]
) -> None:
    dataset = f"{warehouse['WAREHOUSE_PROJECT']}.{warehouse['WAREHOUSE_DATASET_PREFIX']}_mart"
    columns = {name: name for name in mart_tables["invoice_lines"].column_names}
    cut = ("invoice_date", dt.date(2024, 3, 1), dt.date(2024, 4, 1))
    read = []
    for grpc in ("", bigquery_grpc):
        marts = Marts(MartsSettings.from_env({**warehouse, "BIGQUERY_EMULATOR_GRPC": grpc}))
        rows = marts.read(f"{dataset}.invoice_lines", columns, cut=cut)
        read.append(sorted(rows.to_pylist(), key=lambda row: (row["invoice_no"], row["line_no"])))
    assert read[0] == read[1] != []
    assert {row["invoice_date"].month for row in read[1]} == {3}


def test_rows_on_their_way_lie_in_a_file_without_a_name_not_in_memory(
    warehouse: dict[str, str], mart_tables: dict[str, Any], tmp_path: Path
) -> None:
    """A day of 1,700,000 rows takes 700 MB, more than the container has left."""
    dataset = f"{warehouse['WAREHOUSE_PROJECT']}.{warehouse['WAREHOUSE_DATASET_PREFIX']}_mart"
    columns = {name: name for name in mart_tables["invoice_lines"].column_names}
    marts = Marts(MartsSettings.from_env(warehouse), tmp_path)
    before = pa.total_allocated_bytes()
    rows = marts.read(f"{dataset}.invoice_lines", columns)
    assert rows.num_rows == mart_tables["invoice_lines"].num_rows
    assert pa.total_allocated_bytes() - before < rows.nbytes / 10
    assert not list(tmp_path.iterdir()), "what a killed process leaves behind"


def test_folder_of_an_older_version_is_read_anew_and_of_a_newer_one_refused(
    warehouse: dict[str, str], tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    with sqlite3.connect(tmp_path / "service.sqlite") as old:
        old.execute("CREATE TABLE document (kind TEXT, id TEXT, sequence INTEGER, body TEXT, PRIMARY KEY (kind, id))")
        old.execute("INSERT INTO document VALUES ('refresh', 'a', 1, '{}')")
    (tmp_path / "imported.duckdb").write_bytes(b"not what this version writes")
    with process(warehouse, tmp_path) as (url, _):
        for _ in range(300):
            status = requests.get(url + "/status", timeout=30).json()
            if status["rows"]:
                break
            time.sleep(0.1)
        assert status["rows"] == len(lines)  # nobody asked for it: whoever believed it was there need not know
        assert [one["refreshType"] for one in history(_client(url))] == ["Scheduled"]
    with sqlite3.connect(tmp_path / "service.sqlite") as newer:
        newer.execute("PRAGMA user_version = 99")
    command = [sys.executable, "-m", "powerbi.standin", "--data-dir", str(tmp_path)]
    env = {**os.environ, **warehouse}
    done = subprocess.run(command, env=env, cwd=shop.ROOM.parent, capture_output=True, timeout=120, check=False)
    assert done.returncode == 1
    assert b"version 99" in done.stderr
    assert b"--data-dir" in done.stderr
    assert b"Traceback" not in done.stderr


def test_standin_without_a_warehouse_says_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "powerbi.standin", "--data-dir", str(tmp_path)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("WAREHOUSE_")}
    done = subprocess.run(command, env=env, cwd=shop.ROOM.parent, capture_output=True, timeout=120, check=False)
    assert done.returncode == 2
    assert b"WAREHOUSE_PROJECT is not set" in done.stderr


def test_model_reads_every_mart_by_the_names_of_its_m_queries() -> None:
    from powerbi.m import parameters_of, source_of

    model: Model = shop.model()
    found = {t.name: source_of(t.partitions[0].source, parameters_of(model.expressions)) for t in model.tables}
    assert {name: source.table for name, source in found.items() if source is not None} == shop.MARTS
