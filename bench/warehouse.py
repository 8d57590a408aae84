"""The warehouse's day: rebuilt from 1,000,000 landed events, and grown by 10,000, each step against the bare thing."""

# ruff: noqa: TID251  the bench runs what orchestration runs
from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import logging
import statistics
import sys
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._warehouse.rig import DAILY, PIPELINE, TABLE, TOPIC, Rig, rig
from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.column_types import bigquery_schema
from dbt_like_sql.migrate import create_sql
from dbt_like_sql.publish import publish_all
from dbt_like_sql.warehouse import parquet_bytes
from orchestration.defs.topics import feeds, project
from orchestration.defs.transform.checks import compare_landed_with_core
from orchestration.defs.warehouse.checks import reconcile_marts
from orchestration.mage import Part, PipelineRun, run_pipeline
from orchestration.mage_slices import READ_ON, run_slices

if TYPE_CHECKING:
    from collections.abc import Iterator

REBUILD_GOAL, GROWTH_GOAL = 0.5, 1.2
REBUILD_DAY, WARM_DAY = date(2010, 12, 1), date(2010, 11, 1)


@dataclass
class Run:
    """One run's seconds, by step; steps that contain others are not added up."""

    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    seconds: float = 0.0
    peak_mib: int = 0
    rows_left: int = 0

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.parts[name] += time.perf_counter() - started


def run_day(found: Rig, day: date, *, mode: str, keep: Any = None) -> Run:
    """What a Dagster run of one day does, without Dagster: blocks, blocking check, publication, then reconciliation."""
    run, spec = Run(), project().pipeline(PIPELINE)
    jobs = found.watch()
    started = time.perf_counter()
    variables = {"day": day.isoformat(), "mode": mode, "run_id": "bench"}
    if keep is None:
        done = run_slices(project(), spec, {**variables, READ_ON: {}}, Part())
    else:  # frames are looked at, so the day is read whole
        done = run_pipeline(project(), spec, variables, keep=keep)
    if done.failed:
        raise SystemExit(f"a test of block {done.failed.block} failed: {done.failed.message}")
    run.peak_mib, run.rows_left = max(each.peak_mib for each in done.blocks), _rows_left(done, day)
    run.parts |= {f"block {each.block}": each.seconds for each in done.blocks}
    run.parts["blocks' own tests"] = time.perf_counter() - started - sum(each.seconds for each in done.blocks)
    with run.step("check landed = core"):
        [compared] = compare_landed_with_core(found.conn, found.warehouse, feeds()[0], [day], run_id="bench")
    if not compared.agrees:
        raise SystemExit(f"landed and core differ: {compared}")
    with run.step("publish the daily marts"):
        publish_all(found.warehouse, load_catalog(), DAILY, days=[day], run_id="bench")
    run.seconds = time.perf_counter() - started
    with run.step("afterwards: check core = mart, record"):
        if not reconcile_marts(found.conn, found.warehouse, [day], "bench").passed:
            raise SystemExit("core and mart differ")
    run.parts |= {f"  job {kind}": sum(s for k, s in jobs if k == kind) for kind in dict.fromkeys(k for k, _ in jobs)}
    return run


def _rows_left(done: PipelineRun, day: date) -> int:
    [report] = done.outputs.values()
    return int(report["partitions"][day.isoformat()].get("rows_left", 0))


def load_day(found: Rig, day: date) -> None:
    """Bring a day that nobody has loaded up, in as many runs as its parts."""
    while run_day(found, day, mode="incremental").rows_left:
        pass


def bare(found: Rig, rows: Any) -> Run:
    """The same rows the shortest way: one Parquet load job, one INSERT SELECT into a table like core's."""
    run, warehouse, table = Run(), found.warehouse, load_catalog()[TABLE]
    there, staging = warehouse.table_id("core.bare"), warehouse.table_id("staging.bare")
    warehouse.run(create_sql(table, there), kind="bare")
    started = time.perf_counter()
    with run.step("Parquet"):
        payload = parquet_bytes(rows)
    with run.step("load job"):
        warehouse.load_parquet(payload, staging, schema=bigquery_schema(table.columns))
    with run.step("INSERT SELECT"):
        columns = ", ".join(table.column_names)
        warehouse.run(f"INSERT INTO `{there}` ({columns}) SELECT {columns} FROM `{staging}`", kind="bare")
    run.seconds = time.perf_counter() - started
    warehouse.drop_table(there)
    warehouse.drop_table(staging)
    return run


def measure_rebuild(found: Rig, rows: int, repeats: int) -> dict[str, Any]:
    """Rebuild and bare load in turns; the ratio is of the medians."""
    kept: dict[str, Any] = {}
    found.land(REBUILD_DAY, rows)
    load_day(found, REBUILD_DAY)  # the day is there: it is rebuilt
    run_day(found, REBUILD_DAY, mode="rebuild", keep=kept.__setitem__)
    final = kept.pop("price_lines")
    kept.clear()
    runs, bares = [], []
    for _ in range(repeats):
        gc.collect()
        bares.append(bare(found, final))
        gc.collect()
        runs.append(run_day(found, REBUILD_DAY, mode="rebuild"))
    middle, middle_bare = _median(runs), _median(bares)
    _verify(found, REBUILD_DAY, rows)
    return {
        "rows": rows,
        "rebuild_ratio": round(middle_bare.seconds / middle.seconds, 3),
        "rebuild_s": _rounded([each.seconds for each in runs]),
        "bare_s": _rounded([each.seconds for each in bares]),
        "rows_per_s": round(rows / middle.seconds),
        "parts_s": _parts(middle),
        "bare_parts_s": _parts(middle_bare),
    }


def measure_memory(found: Rig, rows: int) -> dict[str, Any]:
    """Peak memory of the process that rebuilds a day, as each block's metadata tell it; 0.4 GB are its libraries."""
    found.land(REBUILD_DAY, rows)
    load_day(found, REBUILD_DAY)
    run = run_day(found, REBUILD_DAY, mode="rebuild")
    _verify(found, REBUILD_DAY, rows)
    return {"rows": rows, "peak_mib": run.peak_mib, "seconds": round(run.seconds, 3), "parts_s": _parts(run)}


def measure_growth(found: Rig, sizes: list[int], new: int, repeats: int) -> dict[str, Any]:
    """Days of several sizes grow by the same number of events, in turns; the ratio is the largest to the smallest."""
    days = {size: date(2011, 1, 1 + at) for at, size in enumerate(sizes)}
    for size, day in days.items():
        found.land(day, size)
        load_day(found, day)
    runs: dict[int, list[Run]] = {size: [] for size in sizes}
    landed = dict.fromkeys(sizes, 0)
    for _ in range(repeats):
        for size, day in days.items():
            found.land(day, new)
            landed[size] += new
            gc.collect()
            runs[size].append(run_day(found, day, mode="incremental"))
    for size, day in days.items():
        _verify(found, day, size + landed[size])
    middle = {size: _median(each) for size, each in runs.items()}
    slowest, smallest = max(each.seconds for each in middle.values()), middle[min(sizes)].seconds
    return {
        "new_rows": new,
        "incremental_growth_ratio": round(slowest / smallest, 3),
        "incremental_s": {str(size): _rounded([each.seconds for each in runs[size]]) for size in sizes},
        "parts_s": {str(size): _parts(each) for size, each in middle.items()},
    }


def _verify(found: Rig, day: date, rows: int) -> None:
    """Counts and amounts of the lake, core and marts are the same, by SQL of their own."""
    warehouse = found.warehouse
    with found.conn.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), sum((payload::jsonb->>'quantity')::numeric * (payload::jsonb->>'unit_price')::numeric) "
            "FROM landing.retail_invoices WHERE event_day = %s",
            (day,),
        )
        landed = tuple(cursor.fetchone())
    found.conn.rollback()
    seen = {"landed": landed}
    where = f"WHERE invoice_date = DATE '{day}'"
    for name, counted in (
        (TABLE, "COUNT(*)"),
        (DAILY[0], "COUNT(*)"),
        (DAILY[1], "SUM(lines)"),
        (DAILY[2], "SUM(lines)"),
    ):
        sql = f"SELECT {counted} AS n, SUM(amount_gbp) AS amount FROM `{warehouse.table_id(name)}` {where}"
        [row] = warehouse.run(sql).rows
        seen[name] = (row["n"], row["amount"])
    if len(set(seen.values())) != 1 or landed[0] != rows:
        raise SystemExit(f"{day}: expected {rows} rows of one amount in every layer, found {seen}")


def _median(runs: list[Run]) -> Run:
    return sorted(runs, key=lambda each: each.seconds)[(len(runs) - 1) // 2]


def _parts(run: Run) -> dict[str, float]:
    return {name: round(seconds, 3) for name, seconds in run.parts.items()}


def _rounded(seconds: list[float]) -> list[float]:
    return [round(each, 3) for each in seconds]


def _print(title: str, parts: dict[str, dict[str, float]]) -> None:
    names = list(dict.fromkeys(name for each in parts.values() for name in each))
    print(f"\n| {title}, s | " + " | ".join(parts) + " |")
    print("|---" * (len(parts) + 1) + "|")
    for name in names:
        print(f"| {name} | " + " | ".join(f"{each.get(name, 0):.3f}" for each in parts.values()) + " |")


def _tell_rebuild(found: dict[str, Any]) -> None:
    _print(f"rebuild of {found['rows']} rows", {"rebuild": found["parts_s"], "bare": found["bare_parts_s"]})
    rebuilt, bare_s = statistics.median(found["rebuild_s"]), statistics.median(found["bare_s"])
    print(f"\nrebuild_ratio {found['rebuild_ratio']} (goal {REBUILD_GOAL}): rebuilt in {rebuilt} s, bare {bare_s} s")


def _tell_growth(found: dict[str, Any]) -> None:
    _print(f"{found['new_rows']} new rows on a day of", found["parts_s"])
    print(f"\nincremental_growth_ratio {found['incremental_growth_ratio']} (goal {GROWTH_GOAL})")
    print("each run, s:", found["incremental_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="events of the day that is rebuilt")
    parser.add_argument("--sizes", default="100000,1000000,3000000", help="rows of the days that grow")
    parser.add_argument("--new", type=int, default=10_000, help="events by which each of them grows")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("rebuild", "growth", "memory"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("mage_ai.data_preparation.models.pipeline")
        result: dict[str, Any] = {"topic": TOPIC}
        with rig() as found:
            found.land(WARM_DAY, 2_000)
            run_day(found, WARM_DAY, mode="incremental")
            if options.only == "memory":
                result["memory"] = memory = measure_memory(found, options.rows)
                print(f"{memory['rows']} rows rebuilt in {memory['seconds']} s, {memory['peak_mib']} MiB at the peak")
            if options.only in (None, "rebuild"):
                rebuild = measure_rebuild(found, options.rows, options.repeats)
                result |= {"rebuild_ratio": rebuild["rebuild_ratio"], "rebuild": rebuild}
                _tell_rebuild(rebuild)
            if options.only in (None, "growth"):
                sizes = [int(size) for size in options.sizes.split(",")]
                growth = measure_growth(found, sizes, options.new, options.repeats)
                result |= {"incremental_growth_ratio": growth["incremental_growth_ratio"], "incremental": growth}
                _tell_growth(growth)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
