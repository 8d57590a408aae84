"""The landing's own numbers: one list of names, each with unit and meaning, and the pages that show them.

Not here: counting (writer.py, progress.py and their neighbours call these).
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from typing import TYPE_CHECKING, Any, Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from streaming.decode import REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

BATCH_ROWS = (1, 10, 100, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000)
BATCH_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
DELAY_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 60.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a landing process; exported as landing_<name>, a counter with _total behind it."""

    name: str
    kind: str
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    known: tuple[str, ...] = ()  # every value that the label beside the topic can have


METRICS = (
    Metric("rows", "counter", "events", "Events landed.", ("topic",)),
    Metric("rows_per_second", "gauge", "events/s", "Events landed a second, over the last five seconds."),
    Metric("payload_bytes", "counter", "bytes", "Bytes of the events landed.", ("topic",)),
    Metric("dead_letters", "counter", "events", "Events refused and kept aside.", ("topic", "reason"),
           known=tuple(REASONS)),
    Metric("gap_offsets", "counter", "offsets", "Offsets without an event; kind below_log_start is loss.",
           ("topic", "kind"), known=("below_log_start", "not_delivered", "tombstone")),
    Metric("fences", "counter", "batches", "Batches given up: another consumer owns the topic partition.", ("topic",)),
    Metric("rebalances", "counter", "times", "Topic partitions assigned, revoked or lost.", ("kind",),
           known=("assigned", "revoked", "lost")),
    Metric("outages", "counter", "times", "Times that the lake or the broker could not be reached.", ("service",),
           known=("lake", "broker")),
    Metric("silences", "counter", "times", "Connections to the lake given up after STREAMING_LAKE_ANSWER_S."),
    Metric("batch_rows", "histogram", "events", "Events in a transaction.", (), BATCH_ROWS),
    Metric("batch_seconds", "histogram", "seconds", "Seconds a transaction takes, commit included.", (), BATCH_SECONDS),
    Metric("delay_seconds", "histogram", "seconds",
           "Seconds from the production of a batch's newest event to its commit.", ("topic",), DELAY_SECONDS),
    Metric("next_offset", "gauge", "offset", "Next offset to land, as committed.", ("topic", "topic_partition")),
    Metric("lag_events", "gauge", "offsets", "Offsets that have not landed yet.", ("topic", "topic_partition")),
    Metric("lag_seconds", "gauge", "seconds", "Age of the newest message that has landed while others wait, else 0.",
           ("topic", "topic_partition")),
    Metric("writing_seconds", "gauge", "seconds", "How long the transaction at work has taken so far, else 0."),
    Metric("queued_batches", "gauge", "transactions", "Transactions waiting for a writer; full means back-pressure."),
)  # fmt: skip


class LandingMetrics:
    """All metrics of a landing process, in a registry of its own; METRICS is the list."""

    rows: Counter
    rows_per_second: Gauge
    payload_bytes: Counter
    dead_letters: Counter
    gap_offsets: Counter
    fences: Counter
    rebalances: Counter
    outages: Counter
    silences: Counter
    batch_rows: Histogram
    batch_seconds: Histogram
    delay_seconds: Histogram
    next_offset: Gauge
    lag_events: Gauge
    lag_seconds: Gauge
    writing_seconds: Gauge
    queued_batches: Gauge

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series a counter, which nobody asks for
        self.registry = CollectorRegistry()
        kinds: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        for metric in METRICS:
            more = {"buckets": metric.buckets} if metric.buckets else {}
            made = kinds[metric.kind](
                metric.name, metric.meaning, metric.labels, namespace="landing", registry=self.registry, **more
            )
            setattr(self, metric.name, made)

    def begin_at_zero(self, topics: Collection[str]) -> None:
        """Show each counter of these topics as 0 before it counts.

        Prometheus sees no rise of a series that begins at 1: without it the first refused event, outage or fence would
        be on no graph and in no alert.
        """
        for metric in METRICS:
            if metric.kind == "gauge" or not metric.labels:
                continue
            values = [topics if label == "topic" else metric.known for label in metric.labels]
            for labels in product(*values):
                getattr(self, metric.name).labels(*labels)


def metrics_table() -> str:
    """The list as Markdown, for the docs."""
    suffix = {"counter": "_total", "gauge": "", "histogram": "_bucket, _sum, _count"}
    rows = [
        f"| `landing_{m.name}{suffix[m.kind]}` | {m.kind} | {m.unit} | {', '.join(m.labels) or 'none'} | {m.meaning} |"
        for m in METRICS
    ]
    return "\n".join(["| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|", *rows])


class MetricsServer:
    """Serves /metrics, /healthz (the process lives) and /readyz (it lands) on a port."""

    def __init__(self, metrics: LandingMetrics, port: int, *, state: Callable[[], dict[str, Any]]) -> None:
        registry = metrics.registry

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif path in ("/healthz", "/readyz"):
                    found = state()
                    is_good = found["healthy"] if path == "/healthz" else found["ready"]
                    self._answer(200 if is_good else 503, "application/json", json.dumps(found).encode())
                else:
                    self._answer(404, "text/plain", b"/metrics /healthz /readyz\n")

            def _answer(self, code: int, content_type: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the name is http.server's
                """Requests are not logged: a probe every second would fill the log."""

        self.server = ThreadingHTTPServer(("0.0.0.0", port), Handler)  # noqa: S104 probes and Prometheus come from outside
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
