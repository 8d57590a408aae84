"""Landing: rows/s of the product against its limits and its best peer, delay at a steady flow, memory, the lake's size.

Real Apache Kafka, real PostgreSQL with fsync on, all of one run: make bench-landing ARGS="--rows 1000000 --json FILE".
Every arm is verified: as many rows as events, none twice, the same bytes (a sum of CRC-32s that PostgreSQL computes).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from _landing import limits, many, peer, product, steady  # noqa: E402 the checkout's root has to be on the path
from _landing.ground import TOPIC, Ground, Sent, ground  # noqa: E402

COPY_ROWS = 20_000  # a transaction of the COPY limit; as many as the product's STREAMING_BATCH_EVENTS
STEADY_EVENTS_S = 5_000
GOALS = (  # ratio, what it divides, goal
    ("one_writer_to_copy_limit", "one writer / COPY only", 0.8),
    ("two_writers_to_copy_limit", "two writers / COPY only", 1.0),
    ("product_to_peer", "product / Kafka Connect", 3.0),
)


def main() -> int:
    """Measure, print, write."""
    options = _options()
    figures: dict[str, Any] = {
        "rows": options.rows,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }
    with ground() as base:
        base.create_topic()
        sent = base.fill(options.rows)
        figures["payload_bytes_an_event"] = round(sent.payload_bytes / sent.events, 1)
        figures |= measure_rates(base, sent, options.repeat)
        figures |= measure_peer(base, sent, figures) if options.peer else {"peer_skipped": "asked for by --no-peer"}
    if options.steady_seconds:
        with ground() as base:
            base.create_topic()
            figures |= steady.measure_delay(base, topic=TOPIC, events_s=STEADY_EVENTS_S, seconds=options.steady_seconds)
    if options.memory_rows:
        with ground() as base:
            base.create_topic()
            figures |= many.land_many(base, base.fill(options.memory_rows))
    _print(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="events in the topic")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each arm, taking turns; the median counts")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="measure Kafka Connect too")
    parser.add_argument("--steady-seconds", type=float, default=30.0, help="of 5,000 events/s; 0: not measured")
    parser.add_argument("--memory-rows", type=int, default=0, help="events of the memory run, e.g. 10000000")
    options = parser.parse_args()
    if options.rows < 1 or options.repeat < 1:
        parser.error("--rows and --repeat are at least 1")
    return options


def measure_rates(base: Ground, sent: Sent, repeat: int) -> dict[str, Any]:
    """Limits and product, taking turns, so that what else the machine does meets all of them alike."""
    documents = limits.encode_all(base, limits.read_all(base, sent, keep=True)[1], batch_rows=COPY_ROWS)
    consume, copy_1, copy_2 = list[float](), list[float](), list[float]()
    one, processes, threads = list[product.Run](), list[product.Run](), list[product.Run]()
    for number in range(repeat):
        print(f"round {number + 1} of {repeat}, {sent.events:,} events", file=sys.stderr, flush=True)
        consume.append(limits.read_all(base, sent, keep=False)[0])
        copy_1.append(limits.copy_all(base, documents, sent, connections=1))
        one.append(product.land_all(base, sent, processes=1))
        copy_2.append(limits.copy_all(base, documents, sent, connections=2))
        processes.append(product.land_all(base, sent, processes=2))
        threads.append(product.land_all(base, sent, processes=1, STREAMING_WRITERS="2"))
    two = max((processes, threads), key=lambda runs: statistics.median(run.rows_s for run in runs))
    figures: dict[str, Any] = {
        "consume_limit_rows_s": round(statistics.median(consume)),
        "copy_limit_rows_s": round(statistics.median(copy_1)),
        "copy_limit_two_connections_rows_s": round(statistics.median(copy_2)),
        "one_writer_rows_s": _rate(one),
        "two_writers_rows_s": _rate(two),
        "two_writers_are": "two consumers" if two is processes else "one consumer, two writer threads",
        "two_consumers_rows_s": _rate(processes),
        "two_writer_threads_rows_s": _rate(threads),
        "one_writer_cpu_us_a_row": round(statistics.median(run.cpu_us_a_row for run in one), 2),
        "one_writer_rows_s_with_start": round(sent.events / statistics.median(run.with_start_s for run in one)),
        "one_writer_transactions": one[-1].transactions,
        "each_run": {
            "consume_limit": [round(rate) for rate in consume], "copy_limit": [round(rate) for rate in copy_1],
            "copy_limit_two_connections": [round(rate) for rate in copy_2],
            "one_writer": [round(run.rows_s) for run in one], "two_consumers": [round(run.rows_s) for run in processes],
            "two_writer_threads": [round(run.rows_s) for run in threads],
        },
        "verified": "counts, identities, bytes and CRC-32 sums of every run",
    }  # fmt: skip
    # of the same round: what else the machine does differs more between rounds than within one
    figures["one_writer_to_copy_limit"] = _ratio([run.rows_s for run in one], copy_1)
    figures["two_writers_to_copy_limit"] = _ratio([run.rows_s for run in two], copy_1)
    return figures


def _rate(runs: list[product.Run]) -> int:
    return round(statistics.median(run.rows_s for run in runs))


def _ratio(above: list[float], below: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 3)


def measure_peer(base: Ground, sent: Sent, figures: dict[str, Any]) -> dict[str, Any]:
    """Kafka Connect in each of its settings; the best one counts."""
    rates: dict[str, int] = {}
    failed: dict[str, str] = {}
    for name, setting in peer.SETTINGS.items():
        print(f"Kafka Connect, {name}", file=sys.stderr, flush=True)
        try:
            rates[name] = round(peer.land_all(base, sent, setting))
        except peer.PeerMissingError as error:
            failed[name] = str(error)
    if not rates:
        return {"peer_skipped": "; ".join(f"{name}: {why}" for name, why in failed.items())}
    best = max(rates, key=lambda name: rates[name])
    product_s = max(figures["one_writer_rows_s"], figures["two_writers_rows_s"])
    return {
        "peer": f"Kafka Connect 4.3.1, Debezium JDBC sink 3.5.0, {best}",
        "peer_rows_s": rates[best],
        "peer_settings_rows_s": rates,
        "peer_settings_failed": failed,
        "product_to_peer": round(product_s / rates[best], 2),
    }


def _print(figures: dict[str, Any]) -> None:
    rows = [
        ("limit: consume, fields read", figures["consume_limit_rows_s"]),
        ("limit: COPY only, 1 connection", figures["copy_limit_rows_s"]),
        ("limit: COPY only, 2 connections", figures["copy_limit_two_connections_rows_s"]),
        ("product: one writer", figures["one_writer_rows_s"]),
        ("product: two consumers", figures["two_consumers_rows_s"]),
        ("product: one consumer, two writer threads", figures["two_writer_threads_rows_s"]),
        *((f"peer: {name}", rate) for name, rate in figures.get("peer_settings_rows_s", {}).items()),
    ]
    print(f"\n| {figures['rows']:,} events of {figures['payload_bytes_an_event']} bytes | rows/s |\n|---|---:|")
    for name, rate in rows:
        print(f"| {name} | {rate:,} |")
    print("\n| ratio of one run | measured | goal | |\n|---|---:|---:|---|")
    for name, words, goal in GOALS:
        if name in figures:
            is_met = figures[name] >= goal if name != "two_writers_to_copy_limit" else figures[name] > goal
            print(f"| {words} | {figures[name]:.2f} | {goal} | {'met' if is_met else 'NOT met'} |")
    if "peer_skipped" in figures:
        print(f"| product / Kafka Connect | skipped | 3.0 | {figures['peer_skipped']} |")
    if "steady_p99_s" in figures:
        print(
            f"\nsteady {figures['steady_events_s']:,} events/s, produced -> seen committed: p50 "
            f"{figures['steady_p50_s']:.3f} s, p99 {figures['steady_p99_s']:.3f} s (goal 1 s), "
            f"longest {figures['steady_max_s']:.3f} s"
        )
    if "memory_events" in figures:
        print(
            f"memory over {figures['memory_events']:,} events: peak {figures['memory_rss_peak_mb']} MB, last third / "
            f"middle third {figures['memory_growth']}; ledger {figures['ledger_bytes_a_million_events']:,} bytes a "
            f"million events"
        )


if __name__ == "__main__":
    sys.exit(main())
