"""Line: event produced -> number in the mart at a steady 500 events/s, hop by hop, warm launcher against defaults.

The embedded line whole (Kafka, PostgreSQL, BigQuery emulator, landing, Dagster, Power BI's stand-in), once for each
launcher: make bench-line ARGS="--json FILE". Times are those of the line's own ledgers, for every single event.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._line.rig import YAML, Flow, measure


def main() -> int:
    """Measure, print, write; 1 if a mart does not hold what has landed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launcher", choices=[*YAML, "both"], default="both")
    parser.add_argument("--rate", type=float, default=500.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="of steady flow that count")
    parser.add_argument("--warm-up-s", type=float, default=25.0, help="of flow before")
    parser.add_argument("--keep-up-s", type=float, help="span of a run that keeps its day up, so that some hand over")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    flow = Flow(rate=options.rate, warm_up_s=options.warm_up_s, seconds=options.seconds, keep_up_s=options.keep_up_s)
    arms = list(YAML) if options.launcher == "both" else [options.launcher]
    found: dict[str, Any] = {}
    for arm in arms:
        found[arm] = measure(
            arm, flow, tell=lambda text, arm=arm: print(f"[{arm}] {text}", file=sys.stderr, flush=True)
        )  # type: ignore[misc]
        print(table(found[arm]), flush=True)
        if options.json:  # after each arm: whoever is cut off in the second one has the first
            first = found[arms[0]]  # the recommended setting
            figures = {"event_to_mart_s": first["event_to_mart_s"], "hops": first["hops"], "arms": found}
            options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0 if all(each["is_whole"] for each in found.values()) else 1


def table(found: dict[str, Any]) -> str:
    """One arm as a Markdown table."""
    head = (
        f"\n{found['launcher']}: {found['events']} events at {found['rate_events_per_s']}/s, {found['loads']} loads, "
        f"{found['publications']} publications, mart = landed: {found['is_whole']}, load {found['load_average'][0]}"
    )
    lines = [
        head,
        f"runs: {found['runs']}",
        "| seconds | p50 | p95 | p99 | max |",
        "|---|---|---|---|---|",
    ]
    rows = {"event produced -> mart": found["event_to_mart_s"], **found["hops"]}
    lines += [f"| {name} | {' | '.join(f'{value:.2f}' for value in row.values())} |" for name, row in rows.items()]
    lines.append(f"cores: {found['cores']}")
    lines += [f"{kind} jobs: {each}" for kind, each in found["bigquery_jobs"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
