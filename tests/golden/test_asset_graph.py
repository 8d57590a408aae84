"""The asset graph as a file: keys, dependencies, partitions, checks, jobs, sensors; `make golden` rewrites it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from orchestration.definitions import defs

GOLDEN = Path(__file__).with_name("asset_graph.json")


def graph() -> dict[str, Any]:
    repository = defs.get_repository_def()
    assets = repository.asset_graph
    nodes = {key.to_user_string(): assets.get(key) for key in assets.get_all_asset_keys()}
    blocking = {
        check.key: check.blocking
        for definition in repository.asset_checks_defs_by_key.values()
        for check in definition.check_specs
    } | {
        check.key: check.blocking
        for definition in repository.assets_defs_by_key.values()
        for check in definition.check_specs
    }
    return {
        "assets": {
            name: {
                "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
                "group": node.group_name,
                "kinds": sorted(node.kinds),
                "owners": sorted(node.owners),
                "partitions": "daily" if node.partitions_def else None,
                "backfill": f"{node.backfill_policy.max_partitions_per_run} a run" if node.backfill_policy else None,
                "checks": {check.name: "blocks" if blocking[check] else "tells" for check in sorted(node.check_keys)},
            }
            for name, node in sorted(nodes.items())
        },
        "jobs": {
            job.name: sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
            for job in repository.get_all_jobs()
            if not job.name.startswith("__")
        },
        "sensors": {sensor.name: sensor.job_name if sensor.targets else None for sensor in repository.sensor_defs},
    }


def test_the_asset_graph_is_the_one_that_was_agreed() -> None:
    found = json.dumps(graph(), indent=2, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")
