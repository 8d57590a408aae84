"""The benches whose figures the docs give, each once with few rows: that they run, verify what they did, and tell it.

What they measure at this size means nothing; a bench that no longer starts is found here and not by its next reader.
The landing, and those that start the whole line, take minutes: only in the whole schedule.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.schedule import whole_schedule_only

pytestmark = [pytest.mark.acceptance, pytest.mark.integration, pytest.mark.timeout(600)]
takes_minutes = whole_schedule_only("a minute or two")


def run(repository: Path, tmp_path: Path, name: str, *arguments: str) -> dict[str, Any]:
    out = tmp_path / f"{name}.json"
    command = [sys.executable, "-W", "ignore", f"bench/{name}.py", *arguments, "--json", str(out)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, f"{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@takes_minutes
def test_the_landing_and_its_limits(repository: Path, tmp_path: Path) -> None:
    arguments = ("--rows", "6000", "--repeat", "1", "--no-peer", "--steady-seconds", "0")
    found = run(repository, tmp_path, "landing", *arguments)
    asked = ("one_writer_rows_s", "two_writers_rows_s", "copy_limit_rows_s", "consume_limit_rows_s")
    assert all(found[name] > 0 for name in asked)
    assert found["verified"]


@takes_minutes
def test_the_landing_at_a_steady_rate_and_over_many_events(repository: Path, tmp_path: Path) -> None:
    arguments = ("--rows", "1", "--repeat", "1", "--no-peer", "--steady-seconds", "2", "--memory-rows", "6000")
    found = run(repository, tmp_path, "landing", *arguments)
    assert 0 < found["steady_p50_s"] <= found["steady_p99_s"]
    assert found["memory_events"] == 6_000


@takes_minutes
def test_a_day_rebuilt_and_a_day_that_grows(repository: Path, tmp_path: Path) -> None:
    arguments = ("--rows", "3000", "--sizes", "500,1000", "--new", "100", "--repeats", "1")
    found = run(repository, tmp_path, "warehouse", *arguments)
    assert found["rebuild_ratio"] > 0
    assert found["incremental_growth_ratio"] > 0
    assert found["rebuild"]["parts_s"]["publish the daily marts"] > 0
    assert set(found["incremental"]["parts_s"]) == {"500", "1000"}


@takes_minutes
def test_the_line_hop_by_hop(repository: Path, tmp_path: Path) -> None:
    arguments = ("--launcher", "warm", "--rate", "50", "--warm-up-s", "5", "--seconds", "10")
    found = run(repository, tmp_path, "line", *arguments)
    assert 0 < found["event_to_mart_s"]["p50"] <= found["event_to_mart_s"]["p95"] <= found["event_to_mart_s"]["p99"]
    assert found["hops"]
    assert found["arms"]["warm"]["is_whole"]


def test_the_chain_of_blocks_beside_plain_calls(repository: Path, tmp_path: Path) -> None:
    found = run(repository, tmp_path, "mage", "--sizes", "500", "--repeats", "1", "--no-server")
    [size] = found["sizes"]
    assert size["rows"] == 500
    assert all(seconds > 0 for seconds in size["seconds"].values())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("staging", ("--sizes", "50", "--repeats", "1")),
        pytest.param("emulator", ("--rounds", "2", "--warm", "1"), marks=takes_minutes),
        pytest.param("backfill", ("--days", "3", "--lines-per-day", "20"), marks=takes_minutes),
        ("refresh", ("--rows", "500")),
        ("report", ("--rows", "500", "--rounds", "1")),
    ],
)
def test_the_others(repository: Path, tmp_path: Path, name: str, arguments: tuple[str, ...]) -> None:
    assert run(repository, tmp_path, name, *arguments)
