"""The landing's own numbers: one list of names, each with unit and meaning, and the pages that show them.

Not here: counting (consumer.py, writer.py call these).
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

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
        of_topic = {"labelnames": ("topic",), "registry": self.registry, "namespace": "landing"}
        of_partition = of_topic | {"labelnames": ("topic", "topic_partition")}
        self.rows = Counter("rows", "Events landed.", **of_topic)
        self.payload_bytes = Counter("payload_bytes", "Bytes of the events landed.", **of_topic)
        self.dead_letters = Counter(
            "dead_letters", "Events refused and kept aside, by reason.", **(of_topic | {"labelnames": ("topic", "reason")})
        )
        self.gap_offsets = Counter("gap_offsets", "Offsets without an event, by kind; below_log_start is loss.",
                                   **(of_topic | {"labelnames": ("topic", "kind")}))  # fmt: skip
        self.fences = Counter("fences", "Batches given up since another consumer owns the topic partition.", **of_topic)
        self.batch_rows = Histogram("batch_rows", "Events in a transaction.", buckets=BATCH_ROWS,
                                    registry=self.registry, namespace="landing")  # fmt: skip
        self.batch_seconds = Histogram("batch_seconds", "Seconds a transaction takes, commit included.",
                                       buckets=BATCH_SECONDS, registry=self.registry, namespace="landing")  # fmt: skip
        self.delay_seconds = Histogram("delay_seconds", "Seconds from the production of a batch's newest event to its commit.",
                                       buckets=DELAY_SECONDS, **of_topic)  # fmt: skip
        self.next_offset = Gauge("next_offset", "Next offset to land, as committed.", **of_partition)
        self.lag_events = Gauge("lag_events", "Offsets in the topic partition that have not landed.", **of_partition)
        self.rebalances = Counter("rebalances", "Assignments, revocations and losses of topic partitions.",
                                  labelnames=("kind",), registry=self.registry, namespace="landing")  # fmt: skip
        self.outages = Counter("outages", "Times that the lake or the broker could not be reached.",
                               labelnames=("service",), registry=self.registry, namespace="landing")  # fmt: skip
        self.queued_batches = Gauge("queued_batches", "Batches waiting for the writer; full means back-pressure.",
                                    registry=self.registry, namespace="landing")  # fmt: skip


class MetricsServer:
    """Serves /metrics, /healthz (the process lives) and /readyz (it lands) on a port."""

    def __init__(self, metrics: LandingMetrics, port: int, *, state: Callable[[], dict[str, Any]]) -> None:
        registry = metrics.registry

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802 the name is http.server's
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

    def __enter__(self) -> MetricsServer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
