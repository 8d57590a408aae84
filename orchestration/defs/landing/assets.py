"""Landed topics: written by the landing consumers, reported here by the sensor.

Belongs here: what a landed topic is. Not here: reporting (sensors.py), reading (mage_project).
"""

from __future__ import annotations

import dagster as dg

from orchestration.defs.topics import LANDING, feeds

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
    )
    for feed in feeds()
]
