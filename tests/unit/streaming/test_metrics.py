"""The list of metrics is what is exported, and what the docs tell."""

from __future__ import annotations

import json
import re
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streaming.consumer import LandingConsumer
from streaming.contract import load_contracts
from streaming.decode import REASONS
from streaming.ledger import Claim
from streaming.metrics import METRICS, LandingMetrics, metrics_table
from streaming.settings import KafkaSettings, LakeSettings, LandingSettings
from streaming.writer import Counts

if TYPE_CHECKING:
    from pathlib import Path


def test_every_metric_of_the_list_is_exported_and_nothing_else() -> None:
    exported = list(text_string_to_metric_families(generate_latest(LandingMetrics().registry).decode()))
    found = {family.name: (family.type, family.documentation) for family in exported}
    assert found == {f"landing_{m.name}": (m.kind, m.meaning) for m in METRICS}


def test_each_metric_has_its_labels_unit_and_meaning() -> None:
    metrics = LandingMetrics()
    for metric in METRICS:
        assert metric.unit
        assert metric.meaning.endswith(".")
        assert getattr(metrics, metric.name)._labelnames == metric.labels
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_docs_tell_every_metric(repository: Path) -> None:
    assert metrics_table() in (repository / "docs" / "rooms" / "streaming.md").read_text(encoding="utf-8")


def test_alerts_and_dashboard_ask_for_metrics_that_exist(repository: Path) -> None:
    asked = set[str]()
    for name in ("alerts.yaml", "make_dashboard.py"):
        text = (repository / "deploy" / "monitoring" / name).read_text(encoding="utf-8")
        asked |= set(re.findall(r"\blanding_[a-z_]+", text))
    known = {f"landing_{m.name}" for m in METRICS}
    assert {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in asked} <= known
    assert asked


def test_every_counter_is_there_before_it_counts_so_that_its_first_event_is_a_rise() -> None:
    settings = LandingSettings(
        kafka=KafkaSettings("localhost:1"), lake=LakeSettings("postgresql://nobody@localhost:1/x")
    )
    consumer = LandingConsumer(settings, load_contracts())
    page = generate_latest(consumer.metrics.registry).decode()
    shown = {sample.name: sample.value for family in text_string_to_metric_families(page) for sample in family.samples}
    for metric in METRICS:
        if metric.kind == "counter":
            assert shown[f"landing_{metric.name}_total"] == 0.0
    assert shown["landing_delay_seconds_count"] == 0.0


def test_the_reasons_kinds_and_services_that_begin_at_zero_are_all_there_are(repository: Path) -> None:
    counted = {metric.name: set(metric.known) for metric in METRICS}
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((repository / "streaming").glob("*.py")))
    for name in ("rebalances", "outages"):
        assert set(re.findall(rf'metrics\.{name}\.labels\("(\w+)"\)', code)) == counted[name]
    newest = (repository / "streaming" / "migrations" / "0002_allow_tombstone_gaps.sql").read_text(encoding="utf-8")
    (kinds,) = re.findall(r"CHECK \(kind IN \(([^)]*)\)\)", newest)
    assert set(re.findall(r"\w+", kinds)) == counted["gap_offsets"]
    assert counted["dead_letters"] == set(REASONS)


def test_lag_is_told_in_events_and_seconds_and_is_none_once_all_has_landed() -> None:
    settings = LandingSettings(
        kafka=KafkaSettings("localhost:1"), lake=LakeSettings("postgresql://nobody@localhost:1/x")
    )
    consumer = LandingConsumer(settings, {})
    consumer.ownership.claims["orders", 0] = Claim("orders", 0, next_offset=5, epoch=1)
    writer = SimpleNamespace(
        writing_s=0.0,
        committed={("orders", 0): 8},
        newest_produced={("orders", 0): time.time() - 30},
        counts=Counts(rows=100),
    )
    consumer.pool.writers = [writer]  # type: ignore[list-item]
    labels = {"topic": "orders", "topic_partition": "0"}

    def told(end: int) -> tuple[float | None, float | None]:
        consumer.progress.on_statistics(json.dumps({"topics": {"orders": {"partitions": {"0": {"hi_offset": end}}}}}))
        registry = consumer.metrics.registry
        return tuple(registry.get_sample_value(f"landing_lag_{unit}", labels) for unit in ("events", "seconds"))  # type: ignore[return-value]

    events, seconds = told(10)
    assert events == 2
    assert seconds == pytest.approx(30, abs=5)
    assert (consumer.metrics.registry.get_sample_value("landing_rows_per_second") or 0) > 0
    assert told(8) == (0, 0)
