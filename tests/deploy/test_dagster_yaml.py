"""deploy/dagster.yaml is a configuration that Dagster takes; containers give it what it asks the environment for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.config import ConcurrencyConfig, dagster_instance_config
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.tags import BACKFILL_ID_TAG

from deploy.demo.line import DAGSTER_YAML

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "dagster.yaml"
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


def test_dagster_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dagster.yaml").write_text(FILE.read_text(encoding="utf-8"))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql://dagster@postgresql/dagster")
    config, _ = dagster_instance_config(str(tmp_path))
    assert config == yaml.safe_load(FILE.read_text(encoding="utf-8"))


def test_a_queued_run_outlives_a_code_server_that_is_replaced() -> None:
    """Dagster's default fails it at once; a new image takes half a minute to serve."""
    config = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    coordinator = QueuedRunCoordinator.from_config_value(None, config["run_coordinator"]["config"])
    limits = ConcurrencyConfig.from_concurrency_settings(config["concurrency"], coordinator.get_run_queue_config())
    queue = limits.run_queue_config
    assert queue is not None
    assert queue.max_user_code_failure_retries * queue.user_code_failure_retry_delay >= 120
    assert queue.max_concurrent_runs == config["concurrency"]["runs"]["max_concurrent_runs"]


@pytest.mark.parametrize("text", [FILE.read_text(encoding="utf-8"), DAGSTER_YAML], ids=["containers", "demo"])
def test_two_backfills_leave_today_and_the_report_a_place_each(text: str) -> None:
    runs = yaml.safe_load(text)["concurrency"]["runs"]
    limits = {(each["key"], each.get("value")): each["limit"] for each in runs["tag_concurrency_limits"]}
    of_backfills = limits.get((BACKFILL_ID_TAG, None), runs["max_concurrent_runs"])
    assert of_backfills + limits["stage", "serving"] < runs["max_concurrent_runs"]


def test_the_demo_does_not_repeat_a_run_that_failed_by_its_settings_or_data() -> None:
    """Three runs of each typing error in the launchpad hold the queue's places up, and today waits for them."""
    deployed = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    assert yaml.safe_load(DAGSTER_YAML)["run_retries"] == deployed["run_retries"]


@pytest.mark.parametrize("name", ["dagster-code", "dagster-daemon", "dagster-webserver"])
def test_each_of_dagster_s_services_gets_its_storage_and_shared_logs(name: str) -> None:
    service = SERVICES[name]
    assert "passfile=/secrets/dagster/pgpass" in service["environment"]["DAGSTER_POSTGRES_URL"]
    assert "dagster-data:/var/lib/dagster" in service["volumes"]


def test_the_workspace_names_the_code_server_as_it_is_started() -> None:
    workspace = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text(encoding="utf-8"))
    (entry,) = workspace["load_from"]
    server, command = entry["grpc_server"], SERVICES["dagster-code"]["command"]
    assert server["host"] == "dagster-code"
    assert str(server["port"]) == command[command.index("--port") + 1]
    assert server["location_name"] == command[command.index("--location-name") + 1]
    root = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))
    (local,) = root["load_from"]
    assert local["python_module"]["location_name"] == server["location_name"]
    assert local["python_module"]["module_name"] == command[command.index("-m") + 1]
