"""Backfill: a year of the simulated shop, landed to marts that reconcile: one run against a run a month and a day.

Real PostgreSQL and the BigQuery emulator; each arm rebuilds the same landed days in a warehouse of its own, as Dagster
does it (load_days, in one process, Mage imported): make bench-backfill ARGS="--days 365 --json FILE".
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
warnings.filterwarnings("ignore")

from deploy.embedded.services import start_bigquery, start_postgres  # noqa: E402 - after the path above

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TOPIC = "retail.invoices"
LAND_ROWS = 20_000


def main() -> int:
    """Land the year, backfill it in each way, print, write; 1 if a layer differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--lines-per-day", type=int, default=1500)
    parser.add_argument(
        "--day-runs", type=int, default=12, help="runs of a single day that are measured; the rest follows"
    )
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    with _services() as (lake_dsn, bigquery):
        first, last, rows = land_year(lake_dsn, options.days, options.lines_per_day)
        arms = {
            "one run": ("y", [(first, last)]),
            "a run a month": ("m", cut(first, last, 31)),
            "a run a day": ("d", cut(first, last, 1)[: options.day_runs]),
        }
        backfill(_environment(lake_dsn, bigquery, "w"), cut(first, last, 1)[:1])  # what only the first run takes
        found = {}
        for name, (prefix, spans) in arms.items():
            found[name] = backfill(_environment(lake_dsn, bigquery, prefix), spans)
            print(name, found[name], flush=True)
    figures = {"days": options.days, "rows": rows, "load_average": os.getloadavg(), "arms": found}
    figures["single_run_ratio"] = round(found["one run"]["rows_per_s"] / found["a run a day"]["rows_per_s"], 2)
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    is_whole = found["one run"]["mart_rows"] == rows == found["a run a month"]["mart_rows"]
    return 0 if is_whole and all(each["reconciled"] for each in found.values()) else 1


@contextlib.contextmanager
def _services() -> Iterator[tuple[str, str]]:
    root = Path(tempfile.mkdtemp(prefix="bench-backfill-"))
    root.chmod(0o755)
    os.environ["MAGE_DATA_DIR"] = str(root / "mage")
    try:
        with (
            start_postgres(root / "postgres") as server,
            start_bigquery(root / "bigquery", project="local") as emulator,
        ):
            yield server.create_database("lake"), emulator.url
    finally:
        shutil.rmtree(root, ignore_errors=True)


def land_year(dsn: str, days: int, lines_per_day: int) -> tuple[date, date, int]:
    """The shop's history through the landing's own code, without Kafka."""
    from streaming.sources.shop import ShopPlan, run_shop  # noqa: PLC0415
    from tests.integration.orchestration.landing import HandLanding  # noqa: PLC0415

    plan = ShopPlan(
        seed=1, start=datetime.now(UTC).replace(microsecond=0) - timedelta(days=1), history_days=days,
        lines_per_day=lines_per_day, is_live=False,
    )  # fmt: skip
    hand = HandLanding(dsn)
    began, events = time.monotonic(), list[dict[str, Any]]()
    for outgoing in run_shop(plan):
        events.append(json.loads(outgoing.value or b"{}"))
        if len(events) == LAND_ROWS:
            hand.land(events)
            events = []
    if events:
        hand.land(events)
    with hand.conn.cursor() as cursor:
        cursor.execute("SELECT min(event_day), max(event_day), sum(rows) FROM control.landed_day")
        first, last, rows = cursor.fetchone()
    hand.conn.rollback()
    hand.close()
    print(f"landed {rows} events of {(last - first).days + 1} days in {time.monotonic() - began:.0f} s", flush=True)
    return first, last, int(rows)


def cut(first: date, last: date, days: int) -> list[tuple[date, date]]:
    """Spans of so many days from first to last."""
    starts = [first + timedelta(days=at) for at in range(0, (last - first).days + 1, days)]
    return [(start, min(start + timedelta(days=days - 1), last)) for start in starts]


def _environment(lake_dsn: str, bigquery: str, prefix: str) -> dict[str, str]:
    return {
        "LAKE_DSN": lake_dsn,
        "WAREHOUSE_PROJECT": "local",
        "WAREHOUSE_LOCATION": "EU",
        "WAREHOUSE_DATASET_PREFIX": prefix,
        "BIGQUERY_EMULATOR_HOST": bigquery,
    }


def backfill(env: Mapping[str, str], spans: Sequence[tuple[date, date]]) -> dict[str, Any]:
    """Run the job for each span, one after the other, as rebuilds; what it took in all."""
    import dagster as dg  # noqa: PLC0415, TID251

    from dbt_like_sql.catalog import load_catalog  # noqa: PLC0415
    from dbt_like_sql.migrate import migrate  # noqa: PLC0415
    from dbt_like_sql.reconcile import totals  # noqa: PLC0415
    from dbt_like_sql.settings import WarehouseSettings  # noqa: PLC0415
    from dbt_like_sql.warehouse import open_warehouse  # noqa: PLC0415
    from orchestration.definitions import defs  # noqa: PLC0415, TID251
    from orchestration.defs.partitions import range_tags  # noqa: PLC0415, TID251

    os.environ.update(env)
    importlib.import_module("mage_ai.data_preparation.models.pipeline")  # the warm pool has it, too
    warehouse = open_warehouse(WarehouseSettings.from_env(env))
    migrate(warehouse, load_catalog())
    job = defs.resolve_job_def("load_days")
    config = {"ops": {"retail_invoices": {"config": {"variables": {"mode": "rebuild"}}}}}
    began, checks, steps = time.monotonic(), [], dict[str, float]()
    with dg.DagsterInstance.ephemeral() as instance:
        for first, last in spans:
            done = job.execute_in_process(instance=instance, tags=range_tags(first, last), run_config=config)
            checks += [each.passed for each in done.get_asset_check_evaluations()]
            for stats in instance.get_run_step_stats(done.run_id):
                steps[stats.step_key] = steps.get(stats.step_key, 0.0) + (stats.end_time or 0) - (stats.start_time or 0)
    seconds = time.monotonic() - began
    found = totals(warehouse, is_measured=False)["core.invoice_lines"]
    return {
        "runs": len(spans),
        "seconds": round(seconds, 1),
        "rows": found["core"]["rows"],
        "mart_rows": found["mart"]["rows"],
        "rows_per_s": round(found["core"]["rows"] / seconds, 1),
        "seconds_a_run": round(seconds / len(spans), 2),
        "reconciled": all(checks) and found["core"]["rows"] - found["core"]["repeats"] == found["mart"]["rows"],
        "steps_s": {name: round(value, 1) for name, value in steps.items()},
    }


def table(figures: dict[str, Any]) -> str:
    """All arms as a Markdown table."""
    lines = [
        f"\n{figures['days']} days, {figures['rows']} events; one run: {figures['single_run_ratio']} x a run a day",
        "| | runs | seconds | rows | rows/s | seconds a run | reconciled |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {arm['runs']} | {arm['seconds']} | {arm['rows']} | {arm['rows_per_s']} | {arm['seconds_a_run']} | "
        f"{arm['reconciled']} |"
        for name, arm in figures["arms"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
