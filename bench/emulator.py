"""What the emulator's remembered translations save: a load and a publication of a few rows, with them and without.

The same statements run by turns in two emulators: one as it is run everywhere here, one that translates each statement
anew (`--translations own`). Rounds in which templates are made (the first --warm) are left out of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._warehouse.rig import DAILY, TABLE, TOPIC, made_up_lines
from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.load import load_rows, loaded_day
from dbt_like_sql.migrate import migrate
from dbt_like_sql.publish import publish_all
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse
from deploy.embedded.services import start_bigquery
from mage_project.transforms import lines as rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

WAYS = ("known", "own")
DAY = date(2010, 12, 1)  # of made_up_lines
CATALOG = load_catalog()


def main() -> int:
    """Measure, print a table, and write the figures as JSON if asked."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--warm", type=int, default=4)
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    every = made_up_lines(arguments.rounds * arguments.rows)
    lines = rules.price_lines(rules.classify_lines(every)).replace_schema_metadata(None)
    taken: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="bench-emulator-") as folder:
        emulators = {way: start_bigquery(Path(folder) / way, housekeeping=("--translations", way)) for way in WAYS}
        try:
            warehouses = {way: _open(emulator.url) for way, emulator in emulators.items()}
            for number in range(arguments.rounds):
                print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
                for way in WAYS if number % 2 else reversed(WAYS):
                    taken[way].append(
                        _round(warehouses[way], number, lines.slice(number * arguments.rows, arguments.rows))
                    )
        finally:
            for emulator in emulators.values():
                emulator.stop()
    figures = {
        f"{step}_{way}_s": statistics.median(each[step] for each in taken[way][arguments.warm :])
        for way in WAYS
        for step in ("load", "publish")
    }
    figures |= {f"{step}_ratio": figures[f"{step}_known_s"] / figures[f"{step}_own_s"] for step in ("load", "publish")}
    figures["slowest_warming_publish_s"] = max(each["publish"] for each in taken["known"][: arguments.warm])
    _show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _open(url: str) -> Warehouse:
    warehouse = open_warehouse(WarehouseSettings("local", emulator_host=url))
    migrate(warehouse, CATALOG)
    return warehouse


def _round(warehouse: Warehouse, number: int, lines: pa.Table) -> dict[str, float]:
    """Load some rows of a day and publish it; seconds of both."""
    seen = loaded_day(warehouse, TABLE, DAY, TOPIC)
    began = time.monotonic()
    load_rows(
        warehouse, TABLE, lines, day=DAY, topic=TOPIC, seen=seen, upto={0: seen.version + 1}, rebuild=False,
        run_id=f"round-{number}", code_version="bench",
    )  # fmt: skip
    loaded = time.monotonic()
    publish_all(warehouse, CATALOG, list(DAILY), days=[DAY], run_id=f"round-{number}")
    return {"load": loaded - began, "publish": time.monotonic() - loaded}


def _show(figures: Mapping[str, float]) -> None:
    print("| step | remembered s | translated anew s | ratio |\n|---|---|---|---|")
    for step in ("load", "publish"):
        known, own, ratio = (figures[f"{step}_{each}"] for each in ("known_s", "own_s", "ratio"))
        print(f"| {step} | {known:.2f} | {own:.2f} | {ratio:.2f} |")
    print(f"\nslowest publication while templates are made: {figures['slowest_warming_publish_s']:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
