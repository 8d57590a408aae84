"""docker-compose.yml and the Dockerfiles keep their promises, read as files: no engine is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.docker.make_secrets import wanted

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
TEXT = FILE.read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {"secrets", "lake", "topics", "warehouse"}
"""Run to their end at every `up`."""
LASTING = SERVICES.keys() - ONCE
DOCKERFILES = sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))

# Which folder of passwords a service is given; every other one is closed to it.
SECRETS = {
    "secrets": {"admin", "owner", "lander", "reader", "dagster", "mage", "grafana"},
    "lake": {"admin", "owner", "lander", "reader", "dagster"},
    "postgresql": {"admin"},
    "consumer": {"lander"},
    "retention": {"owner"},
    "mage": {"reader", "mage"},
    "dagster-code": {"reader", "dagster"},
    "dagster-daemon": {"reader", "dagster"},
    "dagster-webserver": {"dagster"},
    "monitor": {"reader"},
    "grafana": {"grafana"},
}


def test_the_services_that_people_look_for_are_there_by_these_names() -> None:
    wanted_names = {
        "kafka", "postgresql", "producer", "consumer", "mage", "dagster-webserver", "dagster-daemon", "dagster-code",
        "bigquery", "powerbi", "monitor", "prometheus", "grafana", "retention",
    }  # fmt: skip
    assert wanted_names | ONCE == SERVICES.keys()
    for name in ("kafka", "postgresql"):  # `docker logs -f kafka`
        assert SERVICES[name]["container_name"] == name


def test_postgresql_has_the_embedded_servers_write_ahead_buffers() -> None:
    embedded = (ROOT / "deploy" / "embedded" / "services.py").read_text(encoding="utf-8")
    (size,) = re.findall(r'"wal_buffers": "(\w+)"', embedded)
    assert f"wal_buffers={size}" in SERVICES["postgresql"]["command"]


def test_it_comes_up_without_any_setting() -> None:
    without_default = re.findall(r"\$\{(\w+)\}", TEXT) + re.findall(r"\$\{(\w+):?\?", TEXT)
    assert without_default == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_restricted(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert not service.get("privileged")
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")


def test_our_services_write_json() -> None:
    for name in SERVICES.keys() - ONCE:
        service = SERVICES[name]
        if "dagster" in service.get("command", [""])[0]:
            at = service["command"].index("--log-format")
            assert service["command"][at + 1] == "json"
    assert SERVICES["mage"]["environment"]["SERVER_LOGGING_FORMAT"] == "json"
    assert COMPOSE["x-lake-settings"]["LOG_FORMAT"] == "json"
    assert SERVICES["producer"]["environment"]["LOG_FORMAT"] == "json"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_does_not_run_as_root(name: str) -> None:
    service = SERVICES[name]
    if service["image"].startswith("power-bi-project/"):
        return  # its Dockerfile says so, below
    assert service["user"].partition(":")[0] not in {"0", "root", ""}


@pytest.mark.parametrize("name", [name for name in SERVICES if SERVICES[name]["image"].startswith("power-bi-project/")])
def test_our_own_programs_cannot_change_their_image(name: str) -> None:
    assert SERVICES[name]["read_only"] is True


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+_PORT:-\d+\}:\d+", port), port


def test_no_two_services_publish_one_port() -> None:
    published = re.findall(r'"127\.0\.0\.1:\$\{(\w+):-(\d+)\}', TEXT)
    assert len({number for _, number in published}) == len(published)


@pytest.mark.parametrize("name", sorted(LASTING))
def test_a_lasting_service_says_whether_it_is_well(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"  # no shell that an image may lack
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()
    if check["test"][1] == "python" and check["test"][2].endswith(".py"):
        assert (ROOT / check["test"][2]).is_file()


@pytest.mark.parametrize("name", sorted(LASTING))
def test_the_healthcheck_asks_the_port_that_is_published(name: str) -> None:
    inside = {port.rpartition(":")[2] for port in SERVICES[name].get("ports", [])}
    asked = set(re.findall(r"127\.0\.0\.1[:/](\d+)", " ".join(SERVICES[name]["healthcheck"]["test"])))
    if asked and name != "kafka":  # who is asked at its inner listener
        assert asked <= inside


def test_dependencies_wait_for_health_or_for_the_end() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert how["condition"] == expected, f"{name} -> {other}"


def test_a_service_of_the_default_set_does_not_need_one_of_a_profile() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if set(SERVICES[other].get("profiles", [])) - set(service.get("profiles", [])):
                assert how.get("required") is False, f"{name} -> {other}"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_given_its_own_passwords_only(name: str) -> None:
    volumes = [volume for volume in SERVICES[name].get("volumes", []) if str(volume).startswith("secrets-")]
    assert {volume.split(":")[0].removeprefix("secrets-") for volume in volumes} == SECRETS.get(name, set())
    if name != "secrets":
        assert all(volume.endswith(":ro") for volume in volumes)


def test_every_password_that_is_made_has_a_volume_and_an_owner_in_the_image() -> None:
    folders = {path.parent.name for path in wanted(Path("/secrets"))}
    assert folders == SECRETS["secrets"]
    assert {f"secrets-{folder}" for folder in folders} <= COMPOSE["volumes"].keys()
    dockerfile = (ROOT / "deploy" / "docker" / "app.Dockerfile").read_text(encoding="utf-8")
    for folder in folders:
        assert re.search(rf"/secrets/{folder}[ \\\n]", dockerfile), folder


def test_no_password_stands_in_an_environment() -> None:
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|_KEY", key):
                assert key.endswith(("_FILE", "__FILE", "SECRETS_DIR", "_TOKEN_URL")), f"{name}: {key}"
            if str(value).startswith("postgresql://"):
                assert ":" not in str(value).partition("://")[2].partition("@")[0], f"{name}: {key}"


def test_every_named_volume_is_used_and_every_used_one_is_named() -> None:
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if not volume.startswith(".")
    }
    assert used == COMPOSE["volumes"].keys()


def test_mounted_files_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).exists(), volume


def test_the_version_is_the_project_s() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert set(re.findall(r"\$\{VERSION:-([^}]+)\}", TEXT)) == {version}
    for dockerfile in DOCKERFILES:
        assert set(re.findall(r"ARG VERSION=(\S+)", dockerfile.read_text(encoding="utf-8"))) <= {version}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_builds_anywhere_and_does_not_run_as_root(dockerfile: Path) -> None:
    text = dockerfile.read_text(encoding="utf-8")
    assert "# syntax=" not in text
    stages = {name.lower() for name in re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE)}
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert base.lower() in stages or re.fullmatch(r"\$\{\w+\}", base)
    for argument in re.findall(r"^FROM \$\{(\w+)\}", text, re.MULTILINE):
        assert re.search(rf"^ARG {argument}=\S+", text, re.MULTILINE)
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    assert users
    assert int(users[-1].partition(":")[0]) >= 1000


def test_the_build_takes_in_nothing_but_what_is_named() -> None:
    lines = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
    ]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in allowed)
    assert allowed.isdisjoint({".env", ".git", ".demo", "tests"})


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed: Compose itself was not asked")
@pytest.mark.parametrize("profile", ["", "local", "monitoring", "*"])
def test_compose_itself_accepts_the_file(profile: str) -> None:
    version = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True, check=False)
    if version.returncode:
        pytest.skip("docker has no Compose: it was not asked")
    command = ["docker", "compose", "--env-file", "/dev/null", "-f", str(FILE)]
    command += ["--profile", profile] if profile else []
    done = subprocess.run([*command, "config", "-q"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_setting_of_the_rooms_reaches_a_container() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    rooms = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))
    ours = {"DAGSTER_HOME", "STREAMING_CONTRACTS_DIR"}  # part of the image
    by_file = {name.removesuffix("_FILE") for name in rooms if name.endswith("_FILE")} | {"LAKE_DSN_FILE"}
    given = {key for service in SERVICES.values() for key in service.get("environment", {})}
    assert rooms - ours - by_file - given == set()


def test_the_example_of_settings_names_settings_that_the_file_takes() -> None:
    example = (ROOT / "deploy" / "docker" / "compose.env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE)) - {"COMPOSE_PROFILES"}
    assert named <= set(re.findall(r"\$\{(\w+)[:-]", TEXT))
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
    (chosen,) = re.findall(r"^COMPOSE_PROFILES=(\w+)", example, re.MULTILINE)
    assert chosen in profiles
