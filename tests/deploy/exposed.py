"""The two pages that Prometheus scrapes, as the processes write them, and what dashboard and alerts ask of them.

Not here: what the numbers mean (streaming/metrics.py, deploy/status/exposition.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from prometheus_client import generate_latest

from deploy.monitoring import make_dashboard
from deploy.status.exposition import expose
from streaming.consumer import LandingConsumer
from streaming.contract import load_contracts
from streaming.settings import KafkaSettings, LakeSettings, LandingSettings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]


def shown_expressions() -> list[str]:
    """What the dashboard's panels ask, each once."""
    panels = make_dashboard.dashboard()["panels"]
    return sorted({target["expr"] for panel in panels for target in panel["targets"]})


def consumer() -> LandingConsumer:
    """A consumer of this project's contracts that has nothing landed yet; it reaches no broker until it runs."""
    settings = LandingSettings(
        kafka=KafkaSettings("localhost:1"), lake=LakeSettings("postgresql://nobody@localhost:1/x")
    )
    return LandingConsumer(settings, load_contracts())


def consumer_page(landing: LandingConsumer, topic_partitions: int = 2) -> bytes:
    """Its /metrics once it has been assigned topic partitions and has told their lag."""
    for topic in landing.contracts:
        for number in range(topic_partitions):
            landing.metrics.next_offset.labels(topic, number).set(0)
            landing.metrics.lag_events.labels(topic, number).set(0)
            landing.metrics.lag_seconds.labels(topic, number).set(0)
    return generate_latest(landing.metrics.registry)


def monitor_page() -> bytes:
    """The monitor's /metrics of a line that is well."""
    from tests.deploy.test_status import WELL

    return expose(WELL)
