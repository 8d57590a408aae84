"""A second stream, added as docs/adding.md says, is loaded, published and reconciled beside the first."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.schedule import whole_schedule_only

pytestmark = [pytest.mark.integration, whole_schedule_only("a minute")]

ROOMS = ("streaming", "mage_project", "dbt_like_sql", "powerbi", "orchestration")
SAMPLE = [
    {"visit_id": "1", "at": "2010-12-01T10:00:00Z", "page": "/a", "seconds": "1.25"},
    {"visit_id": "2", "at": "2010-12-01T10:00:01Z", "page": "/b", "seconds": "60"},
]


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """The rooms with the files of a second stream in their places."""
    root = tmp_path / "checkout"
    for room in ROOMS:
        shutil.copytree(repository / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    added = Path(__file__).parent / "second_stream"
    for room in ("dbt_like_sql", "mage_project"):
        shutil.copytree(added / room, root / room, dirs_exist_ok=True)
    return root


def run(checkout: Path, repository: Path, env: dict[str, str], *command: str) -> str:
    surroundings = {**os.environ, **env, "PYTHONPATH": f"{checkout}{os.pathsep}{repository}"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=checkout,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_second_stream_is_loaded_published_and_reconciled_beside_the_first(
    checkout: Path, repository: Path, line_env: dict[str, str], tmp_path: Path
) -> None:
    sample = tmp_path / "visits.ndjson"
    sample.write_text("".join(json.dumps(each) + "\n" for each in SAMPLE))
    run(checkout, repository, line_env, "-m", "streaming", "new-stream", "web.visits", "--from-sample", str(sample))
    run(checkout, repository, line_env, "-m", "dbt_like_sql", "migrate")
    script = Path(__file__).parent / "second_stream" / "run.py"
    found: dict[str, Any] = json.loads(run(checkout, repository, line_env, str(script)).splitlines()[-1])

    for each in ("first", "second"):
        assert found[each]["success"], found[each]["checks"]
        checks = found[each]["checks"]
        assert {name for name, (passed, _told) in checks.items() if not passed} == set()
        assert {
            "core/visits landed_equals_core",
            "core/visits every_offset_is_accounted_for",
            "mart/visits core_equals_mart",
            "mart/invoice_lines core_equals_mart",
        } <= set(checks)

    assert sorted(each["page"] for each in found["visits"]) == ["/a", "/a", "/b", "/c"]
    daily = {each["page"]: (each["deliveries"], each["long_ones"], each["seconds"]) for each in found["daily"]}
    assert {page: (count, long) for page, (count, long, _) in daily.items()} == {
        "/a": (3, 2),
        "/b": (1, 1),
        "/c": (1, 0),
    }
    latest = max(found["reconciled"], key=lambda each: each["recorded_at"])
    assert (latest["landed_rows"], latest["core_rows"], latest["core_repeat_rows"], latest["mart_rows"]) == (5, 5, 1, 4)
    assert latest["is_reconciled"] is True
    assert latest["core_amount_gbp"] is None
    shop_heading, shop, heading, web = found["days"].splitlines()
    assert (shop_heading, heading) == ("core.invoice_lines of retail.invoices:", "core.visits of web.visits:")
    assert web == "2010-12-01 reconciled       landed 5 dead 0 core 5 repeats 1 mart 4"
    assert shop.startswith("2010-12-01 reconciled       landed 2 dead 0 core 2 repeats 0 mart 2 amount ")
    [shown] = found["trust"]
    assert (shown["core_rows"], shown["mart_rows"], shown["is_reconciled"]) == (2, 2, True), "the shop's own numbers"

    compared = {core: dict(planned) for core, planned in found["compared"]}
    assert compared["core.visits"] == {"core.visits": 0, "mart.visits": 0, "mart.daily_visits": 0}
    assert compared["core.invoice_lines"]["mart.invoice_lines"] == 0

    broken = found["broken"]["checks"]
    assert broken["mart/invoice_lines core_equals_mart"][0] is True
    passed, told = broken["mart/visits core_equals_mart"]
    assert not passed
    assert "mart.daily_visits.seconds: core 184.75, mart 185.75 (+1)" in told
