"""The landing's own numbers: one list of names, each with unit and meaning, and the pages that show them.

Not here: counting (consumer.py, writer.py call these).
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH_ROWS = (1, 10, 100, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000)
BATCH_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
DELAY_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 60.0, 3600.0)


class LandingMetrics:
    """All metrics of a landing process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rows = self._counter("rows", "Events landed.", "topic")
        self.payload_bytes = self._counter("payload_bytes", "Bytes of the events landed.", "topic")
        self.dead_letters = self._counter("dead_letters", "Events refused and kept aside.", "topic", "reason")
        self.gap_offsets = self._counter(
            "gap_offsets", "Offsets without an event; kind below_log_start is loss.", "topic", "kind"
        )
        self.fences = self._counter("fences", "Batches given up: another consumer owns the topic partition.", "topic")
        self.rebalances = self._counter("rebalances", "Topic partitions assigned, revoked or lost.", "kind")
        self.outages = self._counter("outages", "Times that the lake or the broker could not be reached.", "service")
        self.batch_rows = self._histogram("batch_rows", "Events in a transaction.", BATCH_ROWS)
        self.batch_seconds = self._histogram(
            "batch_seconds", "Seconds a transaction takes, commit included.", BATCH_SECONDS
        )
        self.delay_seconds = self._histogram(
            "delay_seconds",
            "Seconds from the production of a batch's newest event to its commit.",
            DELAY_SECONDS,
            "topic",
        )
        self.next_offset = self._gauge("next_offset", "Next offset to land, as committed.", "topic", "topic_partition")
        self.lag_events = self._gauge("lag_events", "Offsets that have not landed yet.", "topic", "topic_partition")
        self.queued_batches = self._gauge(
            "queued_batches", "Transactions waiting for a writer; full means back-pressure."
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, namespace="landing", registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, namespace="landing", registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, namespace="landing", registry=self.registry, buckets=buckets)


class MetricsServer:
    """Serves /metrics, /healthz (the process lives) and /readyz (it lands) on a port."""

    def __init__(self, metrics: LandingMetrics, port: int, *, state: Callable[[], dict[str, Any]]) -> None:
        registry = metrics.registry

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif self.path in ("/healthz", "/readyz"):
                    found = state()
                    is_good = found["healthy"] if self.path == "/healthz" else found["ready"]
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
