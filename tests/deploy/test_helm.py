"""Dagster's Helm chart takes deploy/k8s/dagster-values.yaml, and makes of it what we mean.

With `helm` on the PATH and TEST_DAGSTER_CHART (a folder: `helm pull dagster/dagster --version 1.13.27 --untar`) the
values are rendered; elsewhere that part is skipped and only the names are compared. Not here: our own manifests
(test_k8s.py).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "k8s" / "dagster-values.yaml"
VALUES: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
INSTANCE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text(encoding="utf-8"))
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}

# Names that the chart takes where ours stand, from github.com/dagster-io/dagster: helm/dagster/values.yaml at 437f92d9
# and helm/dagster/schema/schema/charts/**/subschema/{daemon,run_launcher,webserver,user_deployments}.py, most of which
# refuse others.
POD = """image env envConfigMaps envSecrets labels annotations nodeSelector affinity tolerations podSecurityContext
    securityContext resources volumes volumeMounts livenessProbe readinessProbe startupProbe schedulerName"""
SYSTEM = f"""{POD} deploymentLabels extraContainers extraPrependedInitContainers initContainerResources logFormat
    checkDbReadyInitContainer"""
ACCEPTED = {
    "": """global nameOverride fullnameOverride rbacEnabled imagePullSecrets dagsterWebserver computeLogManager
        pythonLogs dagster-user-deployments scheduler runLauncher postgresql generatePostgresqlPasswordSecret
        generateCeleryConfigSecret rabbitmq redis flower ingress dagsterDaemon busybox extraManifests migrate telemetry
        serviceAccount retention
        concurrency additionalInstanceConfig pipelineRun""",
    "global": "postgresqlSecretName dagsterHome serviceAccountName celeryConfigSecretName dagsterInstanceConfigMap",
    "postgresql": """enabled image postgresqlHost postgresqlUsername postgresqlPassword postgresqlDatabase
        postgresqlParams postgresqlScheme service""",
    "serviceAccount": "create name annotations",
    "dagsterWebserver": f"""{SYSTEM} replicaCount nameOverride pathPrefix service workspace enableReadOnly
        dbStatementTimeout dbPoolRecycle dbPoolMaxOverflow logLevel""",
    "dagsterDaemon": f"""{SYSTEM} enabled heartbeatTolerance runCoordinator runMonitoring runRetries sensors schedules
        backfills""",
    "dagsterDaemon.runCoordinator": "enabled type config",
    "dagsterDaemon.runCoordinator.config": "queuedRunCoordinator customRunCoordinator",
    "dagsterDaemon.runCoordinator.config.customRunCoordinator": "module class config",
    "dagsterDaemon.runMonitoring": """enabled startTimeoutSeconds cancelTimeoutSeconds maxRuntimeSeconds
        pollIntervalSeconds maxResumeRunAttempts freeSlotsAfterRunEndSeconds""",
    "dagsterDaemon.runRetries": "enabled maxRetries retryOnAssetOrOpFailure",
    "dagsterDaemon.sensors": "useThreads numWorkers numSubmitWorkers",
    "dagsterDaemon.schedules": "useThreads numWorkers numSubmitWorkers",
    "dagsterDaemon.backfills": "useThreads numWorkers numSubmitWorkers",
    "runLauncher": "type config",
    "runLauncher.config": "k8sRunLauncher celeryK8sRunLauncher customRunLauncher",
    "runLauncher.config.k8sRunLauncher": """image imagePullPolicy jobNamespace loadInclusterConfig kubeconfigFile
        envConfigMaps envSecrets envVars volumes volumeMounts labels failPodOnRunFailure resources schedulerName
        securityContext runK8sConfig""",
    "runLauncher.config.k8sRunLauncher.runK8sConfig": """containerConfig podSpecConfig podTemplateSpecMetadata
        jobSpecConfig jobMetadata""",
    "computeLogManager": "type config",
    "computeLogManager.config.gcsComputeLogManager": """bucket localDir prefix jsonCredentialsEnvvar uploadInterval
        showUrlOnly""",
    "telemetry": "enabled",
    "retention": "enabled schedule sensor autoMaterialize",
    "dagster-user-deployments": "enabled enableSubchart imagePullSecrets deployments",
    "dagster-user-deployments.deployments.0": f"""{POD} name dagsterApiGrpcArgs codeServerArgs port initContainers
        includeConfigInLaunchedRuns sidecarContainers deploymentStrategy service""",
}


def at(path: str, values: dict[str, Any]) -> dict[str, Any]:
    """What stands at a dotted path of values."""
    found: Any = values
    for name in filter(None, path.split(".")):
        found = found[int(name)] if name.isdigit() else found[name]
    return dict(found)


@pytest.mark.parametrize("path", ACCEPTED)
def test_the_chart_takes_each_of_our_names(path: str) -> None:
    assert set(at(path, VALUES)) <= set(ACCEPTED[path].split())


def test_chart_and_images_are_the_locked_dagster_s() -> None:
    lock = (ROOT / "uv.lock").read_text(encoding="utf-8")
    (version,) = re.findall(r'^name = "dagster"\nversion = "([^"]+)"', lock, re.MULTILINE)
    assert VALUES["dagsterWebserver"]["image"]["tag"] == VALUES["dagsterDaemon"]["image"]["tag"] == version
    for text in (FILE.read_text(encoding="utf-8"), (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")):
        assert f"--version {version} -n line" in text


def test_limits_of_kubernetes_keep_room_for_the_report() -> None:
    coordinator = at("dagsterDaemon.runCoordinator.config.customRunCoordinator.config", VALUES)
    limits = {each.get("value"): each["limit"] for each in coordinator["tag_concurrency_limits"]}
    ours = {each.get("value"): each["limit"] for each in INSTANCE["concurrency"]["runs"]["tag_concurrency_limits"]}
    assert limits["serving"] == ours["serving"]
    assert limits[None] == ours[None], "backfills"
    assert ours["core"] <= limits["core"] < coordinator["max_concurrent_runs"]


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    """What `helm template` makes of our values."""
    helm, chart = shutil.which("helm"), os.environ.get("TEST_DAGSTER_CHART")
    if helm is None or not chart:
        pytest.skip("helm or TEST_DAGSTER_CHART is missing: only the values' names were compared, nothing was rendered")
    command = [helm, "template", "dagster", chart, "-n", "line", "-f", str(FILE)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    return [each for each in yaml.safe_load_all(made.stdout) if each]


def instance(rendered: list[dict[str, Any]]) -> dict[str, Any]:
    """The dagster.yaml that is rendered."""
    (found,) = [each for each in rendered if each["kind"] == "ConfigMap" and "dagster.yaml" in (each["data"] or {})]
    return dict(yaml.safe_load(found["data"]["dagster.yaml"]))


def containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from pod["containers"]
    yield from pod.get("initContainers", [])


def test_kubernetes_accepts_what_is_rendered(rendered: list[dict[str, Any]]) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: not validated")
    for each in rendered:
        validator.validate(each, "1.32", strict=True)


def test_rendered_pods_meet_the_restricted_standard(rendered: list[dict[str, Any]]) -> None:
    deployments = {each["metadata"]["name"]: each for each in rendered if each["kind"] == "Deployment"}
    assert len(deployments) == 3, sorted(deployments)  # webserver, daemon, code server
    for deployment in deployments.values():
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"] == RESTRICTED
            assert container["resources"]["limits"]["memory"]
            assert all(port["containerPort"] >= 1024 for port in container.get("ports", []))


def test_rendered_instance_decides_as_ours(rendered: list[dict[str, Any]]) -> None:
    theirs = instance(rendered)
    assert theirs["run_monitoring"].items() >= INSTANCE["run_monitoring"].items()
    assert theirs["run_retries"] == INSTANCE["run_retries"]
    for name in ("sensor", "schedule"):
        kept = INSTANCE["retention"][name]["purge_after_days"].items()
        assert theirs["retention"][name]["purge_after_days"].items() >= kept
    for name in ("sensors", "schedules", "backfills"):
        assert theirs[name].items() >= INSTANCE[name].items()
    assert theirs["telemetry"] == {"enabled": False}
    coordinator = theirs["run_coordinator"]["config"]
    assert coordinator["max_concurrent_runs"] == 10
    assert {each.get("value") for each in coordinator["tag_concurrency_limits"]} == {"core", "serving", None}


def test_dagster_takes_the_rendered_instance(rendered: list[dict[str, Any]], tmp_path: Path) -> None:
    given = instance(rendered)
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    config, _ = dagster_instance_config(str(tmp_path))
    assert config == given


def test_a_run_gets_the_launcher_s_settings_only(rendered: list[dict[str, Any]]) -> None:
    launcher = instance(rendered)["run_launcher"]
    assert (launcher["module"], launcher["class"]) == ("dagster_k8s", "K8sRunLauncher")
    config = launcher["config"]
    assert config["postgres_password_secret"] == "dagster-postgresql"  # noqa: S105
    assert config["resources"]["limits"]["memory"] == "2Gi"
    assert {each.partition("=")[0] for each in config["env_vars"]} == {
        "LAKE_DSN", "POWERBI_CLIENT_SECRET_FILE", "MAGE_DATA_DIR"}  # fmt: skip
    assert config["run_k8s_config"]["container_config"]["securityContext"] == RESTRICTED
    text = yaml.safe_dump(rendered)
    assert "CONTAINER_CONTEXT" not in text  # the code server's memory limit would replace the launcher's
    assert "DAGSTER_CURRENT_IMAGE" in text


def test_helm_makes_no_account_or_secret_that_is_ours(rendered: list[dict[str, Any]]) -> None:
    assert not {each["kind"] for each in rendered} & {"ServiceAccount", "Secret"}


def test_our_monitor_finds_the_webserver(rendered: list[dict[str, Any]]) -> None:
    monitor = (ROOT / "deploy" / "k8s" / "monitor.yaml").read_text(encoding="utf-8")
    services = {
        f"http://{each['metadata']['name']}:{port['port']}"
        for each in rendered
        if each["kind"] == "Service"
        for port in each["spec"]["ports"]
    }
    assert re.findall(r'name: DAGSTER_URL, value: "([^"]+)"', monitor)[0] in services
