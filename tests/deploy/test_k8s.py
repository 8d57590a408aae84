"""The Kubernetes files are restricted as the containers are, and say the same as deploy/dagster.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.run_coordinator.base import RunCoordinator
from dagster._serdes import ConfigurableClassData

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "k8s"
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "dagster-values.yaml").read_text(encoding="utf-8"))
INSTANCE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text(encoding="utf-8"))
RESOURCES: list[dict[str, Any]] = [
    resource
    for name in yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    for resource in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))
]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for resource in RESOURCES:
        spec = resource.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield f"{resource['kind']}/{resource['metadata']['name']}", spec["template"]["spec"]


PODS = dict(pods())


@pytest.mark.parametrize("name", PODS)
def test_a_pod_meets_the_restricted_standard_that_its_namespace_enforces(name: str) -> None:
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container["securityContext"]
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", PODS)
def test_what_is_mounted_is_declared_and_the_other_way_round(name: str) -> None:
    pod = PODS[name]
    declared = {volume["name"] for volume in pod["volumes"]}
    mounted = {
        mount["name"] for each in [*pod["containers"], *pod.get("initContainers", [])] for mount in each["volumeMounts"]
    }
    assert declared == mounted


@pytest.mark.parametrize("name", PODS)
def test_no_password_stands_in_an_environment(name: str) -> None:
    for container in PODS[name]["containers"]:
        for variable in container.get("env", []):
            if re.search("PASSWORD|SECRET", variable["name"]):
                assert variable["value"].startswith("/")
            if str(variable.get("value", "")).startswith("postgresql://"):
                assert "passfile=" in variable["value"]
                assert "sslmode=verify-full" in variable["value"]


def test_never_more_consumers_than_topic_partitions() -> None:
    contract = (ROOT / "streaming" / "contracts" / "retail.invoices.yaml").read_text(encoding="utf-8")
    (partitions,) = re.findall(r"property: topicPartitions\s+value: \"?(\d+)", contract)
    (scaler,) = [resource for resource in RESOURCES if resource["kind"] == "ScaledObject"]
    assert scaler["spec"]["maxReplicaCount"] == int(partitions)
    assert scaler["spec"]["minReplicaCount"] >= 1


def test_a_consumer_keeps_its_name_so_that_it_keeps_its_topic_partitions() -> None:
    (consumer,) = [resource for resource in RESOURCES if resource["kind"] == "StatefulSet"]
    (container,) = consumer["spec"]["template"]["spec"]["containers"]
    names = {variable["name"]: variable for variable in container["env"]}
    assert names["STREAMING_INSTANCE_ID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_dagster_decides_the_same_in_containers_and_in_kubernetes() -> None:
    daemon = VALUES["dagsterDaemon"]

    def snake(given: dict[str, Any]) -> dict[str, Any]:
        return {re.sub("([A-Z])", r"_\1", key).lower(): value for key, value in given.items()}

    assert snake(daemon["runMonitoring"]) == INSTANCE["run_monitoring"]
    assert snake(daemon["runRetries"]) == INSTANCE["run_retries"]
    queue, given = INSTANCE["run_coordinator"], daemon["runCoordinator"]["config"]["customRunCoordinator"]
    assert (given["module"], given["class"]) == (queue["module"], queue["class"])
    assert queue["config"].items() <= given["config"].items(), "as where a code server that is away is waited for"
    coordinator = ConfigurableClassData(given["module"], given["class"], yaml.safe_dump(given["config"]))
    assert isinstance(coordinator.rehydrate(as_type=RunCoordinator), QueuedRunCoordinator), "Dagster takes the config"
    retention = {key: snake(value) for key, value in VALUES["retention"].items() if key != "enabled"}
    assert retention == INSTANCE["retention"]
    assert daemon["sensors"]["useThreads"] is INSTANCE["sensors"]["use_threads"]
    assert VALUES["runLauncher"]["type"] == "K8sRunLauncher"


def test_kubernetes_accepts_the_files() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: not validated")
    for resource in RESOURCES:
        if resource["apiVersion"].partition("/")[0] in {"keda.sh", "kustomize.config.k8s.io"}:
            continue  # definitions of KEDA's own
        validator.validate(resource, "1.32", strict=True)
