"""Landed topics: written by the landing consumers, reported here by the sensor.

Belongs here: what a landed topic is. Not here: reporting (sensors.py), reading (mage_project).
"""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from orchestration.defs.topics import LANDING, feeds

# A shop sells every day but may close for a weekend; `alert_checks_and_freshness` tells when it has been longer.
SILENCE = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=74))

landed_topics = [
    dg.AssetSpec(
        key=feed.landing_key,
        group_name=LANDING,
        kinds={"kafka", "postgres"},
        owners=["team:data-platform"],
        description=(
            f"Events of Kafka topic `{feed.topic}` in the lake, exactly once, payload as it came.\n\n"
            "Written by `streaming consume`, outside Dagster; sensor `landed_batches` reports each batch here with its "
            f"offsets, dead letters and lag. Promise: `streaming/contracts/{feed.topic}.yaml`."
        ),
        metadata={"topic": feed.topic},
        freshness_policy=SILENCE,
    )
    for feed in feeds()
]
