"""The code location as Dagster starts it: in a process of its own, with no environment and no network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.errors import SettingsError
from orchestration.settings import SERVE_EVERY_EMULATED_S, SERVE_EVERY_S, SERVE_SHARE_EMULATED, OrchestrationSettings

ROOT = Path(__file__).resolve().parents[3]

LOAD = """
import socket, sys, warnings
def refused(*args, **kwargs):
    raise AssertionError("the code location used the network while it was loaded")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refused
warnings.simplefilter("ignore")
from orchestration.definitions import defs
repository = defs.get_repository_def()
slow = {"pandas", "polars", "pyarrow", "mage_ai", "dagster_gcp", "google.cloud.bigquery", "psycopg2"} & set(sys.modules)
assert not slow, f"imported while it was loaded: {slow}"
print(len(list(repository.asset_graph.get_all_asset_keys())))
"""


def test_definitions_load_without_environment_network_or_slow_imports(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10


def test_the_workspace_names_the_definitions() -> None:
    text = (ROOT / "workspace.yaml").read_text(encoding="utf-8")
    assert "module_name: orchestration.definitions" in text


def test_reports_are_served_often_on_the_emulator_and_seldom_where_it_costs() -> None:
    env = {"LAKE_DSN": "postgresql://lake"}
    assert OrchestrationSettings.from_env(env).serve_every_s == SERVE_EVERY_S
    emulated = OrchestrationSettings.from_env({**env, "BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:1"})
    assert emulated.serve_every_s == SERVE_EVERY_EMULATED_S
    assert OrchestrationSettings.from_env({**env, "SERVE_EVERY_S": "60"}).serve_every_s == 60
    assert (OrchestrationSettings.from_env(env).serve_share, emulated.serve_share) == (1.0, SERVE_SHARE_EMULATED)
    with pytest.raises(SettingsError, match="SERVE_SHARE: '0'"):
        OrchestrationSettings.from_env({**env, "SERVE_SHARE": "0"})


def test_every_problem_of_the_settings_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as failure:
        OrchestrationSettings.from_env({"SERVE_EVERY_S": "soon"})
    assert "LAKE_DSN" in str(failure.value)
    assert "SERVE_EVERY_S" in str(failure.value)
