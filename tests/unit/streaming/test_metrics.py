"""The list of metrics is what is exported, and what the docs tell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streaming.metrics import METRICS, LandingMetrics, metrics_table

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
