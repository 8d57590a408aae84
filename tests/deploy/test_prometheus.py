"""What the dashboard and the alerts ask is answered by the pages that the processes expose.

The names and labels are compared with the pages' text everywhere; where Prometheus is installed it runs with its files
as they are (but for addresses and waiting times), is asked every expression, and has an alert fire and resolve.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.monitoring import make_dashboard
from tests.deploy import exposed
from tests.deploy.exposed import FOLDER, RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GROUPED = re.compile(r"by \(([\w, ]+)\) \((?:rate|increase)\((\w+)\[")
TARGETS = [
    (panel["title"], target)
    for panel in make_dashboard.dashboard()["panels"]
    for target in panel["targets"]
    if "{{" in target["legendFormat"] or " by " in target["expr"]
]


@pytest.fixture(scope="module")
def labels_of() -> dict[str, set[str]]:
    """Every series of the two pages with its labels, as Prometheus reads them."""
    text = (exposed.consumer_page(exposed.consumer()) + exposed.monitor_page()).decode()
    return {
        sample.name: set(sample.labels) for family in text_string_to_metric_families(text) for sample in family.samples
    }


@pytest.mark.parametrize("expression", [*exposed.shown_expressions(), *(rule["expr"] for rule in RULES)])
def test_what_is_asked_stands_on_the_pages_before_anything_has_happened(
    expression: str, labels_of: dict[str, set[str]]
) -> None:
    asked = set(re.findall(r"\b(?:line|landing)_\w+", expression))
    assert asked or "up{" in expression
    assert asked - set(labels_of) == set()


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=lambda each: each if isinstance(each, str) else "")
def test_labels_that_group_or_name_a_line_are_the_series_own(
    title: str, target: dict[str, str], labels_of: dict[str, set[str]]
) -> None:
    grouped = {name: set(re.findall(r"\w+", labels)) for labels, name in GROUPED.findall(target["expr"])}
    for name, labels in grouped.items():
        assert labels <= labels_of[name], title
    left = set.union(*grouped.values()) if grouped else labels_of.get(target["expr"], set())
    assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= left, title


class Prometheus:
    """A Prometheus with this project's files, which scrapes two pages here every half second."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.landing = exposed.consumer()
        self.pages = {
            "consumer": _serve(lambda: exposed.consumer_page(self.landing)),
            "line": _serve(exposed.monitor_page),
        }
        ports = {job: server.server_address[1] for job, server in self.pages.items()}
        (folder / "alerts.yaml").write_text(_hurried((FOLDER / "alerts.yaml").read_text(encoding="utf-8")))
        config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        config["rule_files"] = [str(folder / "alerts.yaml")]
        for job in config["scrape_configs"]:
            job["scrape_interval"] = "500ms"
            job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        command = [binary, f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
                   "--web.listen-address=127.0.0.1:0", "--log.format=json"]  # fmt: skip
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.url = self._address()

    def _address(self) -> str:
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if (found := re.search(r'"address":"(127\.0\.0\.1:[1-9]\d*)"', line)) is not None:
                self.reader = threading.Thread(target=self.process.stderr.read, daemon=True)
                self.reader.start()  # a full pipe would hold it up
                return f"http://{found[1]}/api/v1"
        raise AssertionError("".join(said))

    def get(self, path: str, **parameters: str) -> Any:
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        with urllib.request.urlopen(f"{self.url}/{path}{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def is_ready(self) -> bool:
        """Whether it answers yet: it listens before it does."""
        try:
            return bool(self.get("status/runtimeinfo"))
        except OSError:
            return False

    def ask(self, expression: str) -> list[Any]:
        found: list[Any] = self.get("query", query=expression)["result"]
        return found

    def alert(self, name: str) -> str:
        """The state of an alert: inactive, pending or firing."""
        rules = {rule["name"]: rule for group in self.get("rules")["groups"] for rule in group["rules"]}
        assert rules[name]["health"] in {"ok", "unknown"}, rules[name]
        return str(rules[name]["state"])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.reader.join(10)
        if self.process.stderr is not None:
            self.process.stderr.close()
        for server in self.pages.values():
            server.shutdown()
            server.server_close()


def _serve(page: Callable[[], bytes], port: int = 0) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Scrapes are not logged."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _hurried(rules: str) -> str:
    """The rules as they are, but nobody waits minutes for them."""
    return re.sub(r"^(\s+for:) \d+m$", r"\1 1s", rules, flags=re.MULTILINE)


def _wait(until: Callable[[], bool], what: str, limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not until():
        assert time.monotonic() < deadline, what
        time.sleep(0.25)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not installed: names and labels were compared with the pages' text only")
    running = Prometheus(binary, tmp_path_factory.mktemp("prometheus"))
    try:
        _wait(running.is_ready, "Prometheus answers")
        _wait(lambda: len(running.ask("count_over_time(up[1m]) > 4")) == 2, "two targets, five scrapes each")
        yield running
    finally:
        running.stop()


def test_every_target_is_up(prometheus: Prometheus) -> None:
    targets = prometheus.get("targets")["activeTargets"]
    assert {target["labels"]["job"]: (target["health"], target["lastError"]) for target in targets} == {
        "consumer": ("up", ""), "line": ("up", ""),
    }  # fmt: skip


@pytest.mark.parametrize("expression", exposed.shown_expressions())
def test_every_panel_has_data_once_events_have_landed(prometheus: Prometheus, expression: str) -> None:
    metrics = prometheus.landing.metrics
    if metrics.registry.get_sample_value("landing_batch_rows_count") == 0:
        for topic in prometheus.landing.contracts:
            metrics.rows.labels(topic).inc(20)
            metrics.payload_bytes.labels(topic).inc(2_000)
            metrics.delay_seconds.labels(topic).observe(0.2)
        metrics.batch_rows.observe(20)
        metrics.batch_seconds.observe(0.03)
    _wait(lambda: any(float(sample["value"][1]) >= 0 for sample in prometheus.ask(expression)), expression)


def test_the_first_outage_and_the_first_refused_event_are_a_rise(prometheus: Prometheus) -> None:
    metrics = prometheus.landing.metrics
    (topic, *_) = prometheus.landing.contracts
    metrics.outages.labels("lake").inc()
    metrics.dead_letters.labels(topic, "not_json").inc()
    for expression in ('increase(landing_outages_total{service="lake"}[5m])',
                       'increase(landing_dead_letters_total{reason="not_json"}[5m])'):  # fmt: skip
        _wait(lambda asked=f"sum({expression}) > 0": bool(prometheus.ask(asked)), expression)  # type: ignore[misc]


def test_a_consumer_that_is_gone_is_an_alert_until_it_is_back(prometheus: Prometheus) -> None:
    assert prometheus.alert("ConsumerDown") == "inactive"
    gone = prometheus.pages["consumer"]
    port = gone.server_address[1]
    gone.shutdown()
    gone.server_close()
    _wait(lambda: prometheus.alert("ConsumerDown") == "firing", "ConsumerDown fires")
    prometheus.pages["consumer"] = _serve(lambda: exposed.consumer_page(prometheus.landing), int(port))
    _wait(lambda: prometheus.alert("ConsumerDown") == "inactive", "ConsumerDown resolves")
