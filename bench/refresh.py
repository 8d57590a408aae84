"""How soon a refresh shows, read from the BigQuery emulator as in the demo: --rows, --rest, --json FILE.

The stand-in is a process of its own and reads a made-up shop's marts (bench/report.py) from the emulator: everything,
then the month of one day, each until the report's first page shows it. --rest reads by REST instead of the Storage API.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import requests

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench.report import LAST, MadeUpMarts  # noqa: E402 - the checkout comes first
from deploy.embedded.services import BigQuery, start_bigquery  # noqa: E402
from powerbi.refresh import refresh_model  # noqa: E402
from powerbi.settings import PowerBiSettings  # noqa: E402

TABLES = ("invoice_lines", "dates", "products", "customers", "countries", "data_trust")


def main() -> int:
    """Measure, print a table, and write the figures as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rest", action="store_true", help="by REST, as without BIGQUERY_EMULATOR_GRPC")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-refresh-") as folder,
        start_bigquery(Path(folder) / "bigquery", project="bench") as emulator,
    ):
        _load(emulator, MadeUpMarts(arguments.rows))
        figures = {"rows": arguments.rows, "by": "REST" if arguments.rest else "Storage API"}
        figures |= _measured(emulator, Path(folder), is_rest=arguments.rest)
    print(f"{figures['rows']:,} fact rows, by {figures['by']}\n")
    print("| refresh of | ended s | page shows it s |\n|---|---|---|")
    for name, what in (("all", "everything"), ("day", "the month of one day")):
        print(f"| {what} | {figures[f'{name}_s']:.2f} | {figures[f'{name}_to_page_s']:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _load(emulator: BigQuery, marts: MadeUpMarts) -> None:
    from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415 - a second to import
    from google.cloud import bigquery  # noqa: PLC0415

    client = bigquery.Client(
        project="bench",
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": emulator.url},
    )
    client.create_dataset("mart")
    for name in TABLES:
        file = io.BytesIO()
        pq.write_table(marts.db.execute(f"FROM {name}").to_arrow_table(), file)
        file.seek(0)
        config = bigquery.LoadJobConfig(source_format="PARQUET")
        client.load_table_from_file(file, f"bench.mart.{name}", job_config=config).result()


def _measured(emulator: BigQuery, folder: Path, *, is_rest: bool) -> dict[str, Any]:
    env = {
        **os.environ,
        "WAREHOUSE_PROJECT": "bench",
        "BIGQUERY_EMULATOR_HOST": emulator.url,
        "BIGQUERY_EMULATOR_GRPC": "" if is_rest else f"127.0.0.1:{emulator.grpc_port}",
    }
    port = _free_port()
    command = [sys.executable, "-m", "powerbi.standin", "--port", str(port), "--data-dir", str(folder / "report")]
    standin = subprocess.Popen(command, env=env, cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url)
        settings = PowerBiSettings.from_env({"POWERBI_API_URL": url})
        found: dict[str, Any] = {}
        for name, days in (("all", None), ("day", [LAST])):
            began = time.perf_counter()
            refresh_model(settings, days=days)
            found[f"{name}_s"] = time.perf_counter() - began
            requests.get(f"{url}/report/overview", timeout=300).raise_for_status()
            found[f"{name}_to_page_s"] = time.perf_counter() - began
        status = requests.get(f"{url}/status", timeout=60).json()
        return {**found, "shown_rows": status["rows"], "amount": status["amount"]}
    finally:
        standin.terminate()
        standin.wait(timeout=30)


def _free_port() -> int:
    import socket  # noqa: PLC0415 - only here

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _wait_for(url: str) -> None:
    for _ in range(600):
        try:
            requests.get(url + "/healthz", timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"the stand-in does not answer at {url}")


if __name__ == "__main__":
    sys.exit(main())
