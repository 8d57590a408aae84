"""A broker that demands log-ins and certificates; what is said when they are wrong; secrets are never told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.fix_registry import start_stand_in
from tests.fix_secure_kafka import CLIENT_SECRET, KEY_PASSWORD, SCRAM_PASSWORD, SecureKafka, Tokens
from tests.schedule import IS_WHOLE, whole_schedule_only

from .rig import ROOT, Rig, line, make_rig, stop_process

pytestmark = pytest.mark.integration

WAYS = ("scram-256", "scram-512", "oauth", "mtls", "mtls-locked")
SECRETS = {"KAFKA_SASL_PASSWORD", "KAFKA_OAUTH_CLIENT_SECRET", "KAFKA_SSL_KEY_PASSWORD", "SCHEMA_REGISTRY_PASSWORD"}


@pytest.fixture
def secure_rig(secure_kafka: SecureKafka, lake_dsn: str, tmp_path: Path) -> Rig:
    """A topic of the secure broker, and a lake."""
    topic = f"t{time.monotonic_ns()}"
    admin = AdminClient({"bootstrap.servers": secure_kafka.plain})
    creations = admin.create_topics([NewTopic(topic, 2, 1)])
    creations[topic].result(20)
    contracts = tmp_path / "contracts"
    contracts.mkdir()
    rig = make_rig(topic, secure_kafka.plain, lake_dsn, contracts)
    rig.migrate()
    return rig


def streaming(rig: Rig, env: dict[str, str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A command as a process of its own, with the given settings for Kafka and nothing of ours."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "LAKE_", "SCHEMA_"))}
    return subprocess.run(
        [sys.executable, "-m", "streaming", *arguments], env={**bare, **rig.env, **env}, cwd=ROOT, input=stdin,
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def events(count: int) -> str:
    import json

    return "".join(json.dumps(line(number)) + "\n" for number in range(count))


@pytest.mark.parametrize("way", WAYS)
def test_events_are_produced_and_landed_by_each_way_to_log_in(
    secure_rig: Rig, secure_kafka: SecureKafka, way: str
) -> None:
    rig, env = secure_rig, secure_kafka.env(way)
    produced = streaming(rig, env, "produce", "--topic", rig.topic, "--ndjson", "-", stdin=events(50))
    assert produced.returncode == 0, produced.stderr
    landed = streaming(rig, env, "consume", "--until-idle", "0.6")
    assert landed.returncode == 0, landed.stderr
    rig.assert_exact(50)


WRONG_LOG_INS = [
    ("scram-512", {"KAFKA_SASL_PASSWORD": "wrong"}, ("uthentication failed", "KAFKA_SASL_PASSWORD")),
    ("scram-512", {"KAFKA_SASL_MECHANISM": "PLAIN"}, ("echanism", "KAFKA_SASL_MECHANISM")),
    ("scram-256", {"KAFKA_SSL_CA_FILE": "STRANGER"}, ("certificate verify failed", "KAFKA_SSL_CA_FILE")),
    ("scram-256", {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", "KAFKA_SASL_MECHANISM": ""}, ("SECURITY_PROTOCOL",)),
    ("oauth", {"KAFKA_OAUTH_CLIENT_SECRET": "wrong"}, ("token", "KAFKA_OAUTH_CLIENT_SECRET")),
    ("oauth", {"KAFKA_OAUTH_CA_FILE": "STRANGER"}, ("token", "KAFKA_OAUTH_TOKEN_URL")),
    ("mtls", {"KAFKA_SSL_CERTIFICATE_FILE": "", "KAFKA_SSL_KEY_FILE": ""}, ("KAFKA_SSL_CERTIFICATE_FILE",)),
    (
        "mtls",
        {"KAFKA_SSL_CERTIFICATE_FILE": "FOREIGN", "KAFKA_SSL_KEY_FILE": "FOREIGN"},
        ("KAFKA_SSL_CERTIFICATE_FILE",),
    ),
    ("mtls-locked", {"KAFKA_SSL_KEY_PASSWORD": "wrong"}, ("KAFKA_SSL_KEY_PASSWORD",)),
]
NAMES = ["password", "mechanism", "untrusted broker", "no TLS", "client secret", "untrusted token server",
         "no certificate", "foreign certificate", "key password"]  # fmt: skip
STEP = 1 if IS_WHOLE else 2  # each waits for ten seconds: every second one in CI


@pytest.mark.parametrize(("way", "changes", "expected"), WRONG_LOG_INS[::STEP], ids=NAMES[::STEP])
def test_what_is_wrong_with_a_log_in_is_said_in_bounded_time(
    secure_rig: Rig, secure_kafka: SecureKafka, way: str, changes: dict[str, str], expected: tuple[str, ...]
) -> None:
    files = {
        ("KAFKA_SSL_CERTIFICATE_FILE", "FOREIGN"): str(secure_kafka.foreign_client[0]),
        ("KAFKA_SSL_KEY_FILE", "FOREIGN"): str(secure_kafka.foreign_client[1]),
    }
    stranger = str(secure_kafka.stranger.ca_file)
    env = secure_kafka.env(way) | {
        name: files.get((name, value), stranger if value == "STRANGER" else value) for name, value in changes.items()
    }
    if "SECURITY_PROTOCOL" in expected:  # the broker only hangs up, as one does that is starting
        env |= {"STREAMING_OUTAGE_LIMIT_S": "2"}
    started = time.monotonic()
    result = streaming(secure_rig, env, "consume", "--until-idle", "1")
    seconds = time.monotonic() - started
    assert result.returncode == 1, result.stdout
    for text in expected:
        assert text in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert seconds < 45
    assert not leaked(result, env)


TOKEN_S = 12  # librdkafka asks for the next token after four fifths of it, and again every 10 s


@pytest.fixture
def tokens(secure_kafka: SecureKafka) -> Iterator[Tokens]:
    """The token server, of short tokens, to be taken away; afterwards it is as before."""
    server = secure_kafka.tokens
    server.lifetime_s = TOKEN_S
    yield server
    server.is_away, server.lifetime_s = False, 3_600


def test_a_token_server_that_is_away_until_the_token_has_ended_is_told_and_waited_for(
    secure_rig: Rig, secure_kafka: SecureKafka, tokens: Tokens, tmp_path: Path
) -> None:
    rig, log = secure_rig, tmp_path / "log"
    with rig.started(log, **secure_kafka.env("oauth"), STREAMING_SESSION_TIMEOUT_S="6") as process:

        def wait_told(event: str) -> None:
            rig.wait(lambda: event in log.read_text() or process.poll() is not None, what=event)
            assert process.poll() is None, log.read_text()

        rig.send(line(number) for number in range(100))
        rig.wait(lambda: rig.accounted() == 100, what="landing")
        tokens.is_away = True
        away_at = time.monotonic()
        wait_told("token_unavailable")
        wait_told("broker_unavailable")
        # each connection ends with the token that it was opened with: told is the first of them, this is the last
        time.sleep(max(away_at + TOKEN_S + 1 - time.monotonic(), 0.0))
        rig.send(line(number) for number in range(100, 300))
        time.sleep(2)
        assert rig.accounted() == 100, "the broker gives nothing without a token that holds"
        tokens.is_away = False
        rig.wait(lambda: rig.accounted() == 300, what="landing with the next token")
        assert stop_process(process) == 0
    rig.assert_exact(300)
    assert "Traceback" not in log.read_text()


@whole_schedule_only("waits for 40 s")
def test_a_token_server_that_stays_away_ends_the_consumer_at_the_limit_with_the_cause(
    secure_rig: Rig, secure_kafka: SecureKafka, tokens: Tokens, tmp_path: Path
) -> None:
    """So does one that is started meanwhile; once the server is back, a start lands what has waited."""
    rig, env, log = secure_rig, secure_kafka.env("oauth") | {"STREAMING_OUTAGE_LIMIT_S": "3"}, tmp_path / "log"
    with rig.started(log, **env) as process:
        rig.send(line(number) for number in range(100))
        rig.wait(lambda: rig.accounted() == 100, what="landing")
        tokens.is_away = True
        assert process.wait(60) == 1
    rig.send(line(number) for number in range(100, 200))
    started = time.monotonic()
    again = streaming(rig, env, "consume", "--until-idle", "0.6")
    assert time.monotonic() - started < 45
    assert again.returncode == 1
    assert "STREAMING_OUTAGE_LIMIT_S" in log.read_text()
    for said in (log.read_text(), again.stderr):
        assert "Failed to acquire SASL OAUTHBEARER token" in said
        assert "KAFKA_OAUTH_TOKEN_URL" in said
        assert "Traceback" not in said
        assert CLIENT_SECRET not in said
    assert rig.accounted() == 100
    tokens.is_away = False
    landed = streaming(rig, env, "consume", "--until-idle", "0.6")
    assert landed.returncode == 0, landed.stderr
    rig.assert_exact(200)


def leaked(result: subprocess.CompletedProcess[str], env: dict[str, str]) -> list[str]:
    said = result.stdout + result.stderr
    return [name for name, value in env.items() if name in SECRETS and value and value != "wrong" and value in said]


def test_settings_that_cannot_work_are_told_at_once(secure_rig: Rig, tmp_path: Path) -> None:
    env = {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "KAFKA_SSL_CA_FILE": str(tmp_path / "none.pem"), "KAFKA_SSL_KEY_FILE": str(tmp_path),
        "KAFKA_OAUTH_CLIENT_SECRET_FILE": str(tmp_path / "none"), "SCHEMA_REGISTRY_URL": "ftp://x",
        "SCHEMA_REGISTRY_PASSWORD": "registry-horse",
    }  # fmt: skip
    result = streaming(secure_rig, env, "consume")
    assert result.returncode == 1
    for expected in (
        "9 problem(s)", "KAFKA_SSL_CA_FILE=", "none.pem cannot be read: No such file", "KAFKA_SSL_KEY_FILE=",
        "Is a directory", "KAFKA_OAUTH_CLIENT_SECRET_FILE=", "KAFKA_OAUTH_TOKEN_URL is not set",
        "KAFKA_OAUTH_CLIENT_ID is not set", "KAFKA_SSL_CERTIFICATE_FILE is not set",
        "SCHEMA_REGISTRY_URL does not begin", "SCHEMA_REGISTRY_USERNAME is not set",
    ):  # fmt: skip
        assert expected in result.stderr, (expected, result.stderr)
    assert "registry-horse" not in result.stderr


def as_files(env: dict[str, str], folder: Path) -> dict[str, str]:
    """The same settings, with each secret in a file."""
    moved = {}
    for name, value in env.items():
        if name in SECRETS or name == "LAKE_DSN":
            path = folder / name
            path.write_text(value + "\n")
            moved |= {f"{name}_FILE": str(path), name: ""}
        else:
            moved[name] = value
    return moved


@pytest.mark.parametrize(("way", "is_in_files"), [("scram-512", False), ("oauth", True), ("mtls-locked", True)])
def test_no_command_ever_shows_a_secret(
    secure_rig: Rig, secure_kafka: SecureKafka, tmp_path: Path, way: str, *, is_in_files: bool
) -> None:
    """Right and wrong log-ins, at the broker, at Postgres and at the registry, with every log line there is."""
    rig = secure_rig
    password = rig.dsn.split(":")[2].split("@")[0]
    secrets = {SCRAM_PASSWORD, CLIENT_SECRET, KEY_PASSWORD, password, "registry-horse", "guessed-horse", "%23odd-horse"}
    good = secure_kafka.env(way)
    with start_stand_in() as registry:
        registry.user = "lander:other"
        good |= {"SCHEMA_REGISTRY_URL": registry.url, "SCHEMA_REGISTRY_USERNAME": "lander",
                 "SCHEMA_REGISTRY_PASSWORD": "registry-horse", "LAKE_DSN": rig.dsn}  # fmt: skip
        wrong_lake = good | {"LAKE_DSN": rig.dsn.replace(password, "guessed-horse")}
        odd_lake = good | {"LAKE_DSN": rig.dsn.replace(password, "%23odd-horse").replace("127.0.0.1", "no.such.host")}
        broken_lake = good | {
            "LAKE_DSN": f"postgresql://postgres:guessed-horse@127.0.0.1:no-port/x?password={password}"
        }
        runs: list[tuple[dict[str, str], tuple[str, ...], str]] = [
            (good, ("produce", "--topic", rig.topic, "--ndjson", "-"), events(5) + "{bad\n"),
            (good, ("consume", "--until-idle", "0.6", "--json"), ""),
            (good, ("lake", "status"), ""),
            (good, ("dead-letters", "list"), ""),
            (good, ("dead-letters", "replay", "--all"), ""),
            (wrong_lake, ("consume",), ""),
            (wrong_lake, ("lake", "status"), ""),
            (odd_lake, ("dead-letters", "list"), ""),
            (broken_lake, ("migrate",), ""),
        ]
        if way != "scram-512":
            runs = [runs[0], runs[1], runs[6]]  # what differs by the way to log in: Kafka's own
        said = ""
        for env, arguments, stdin in runs:
            whole = {"STREAMING_DEAD_LETTER_LIMIT": "1", **env}
            result = streaming(rig, as_files(whole, tmp_path) if is_in_files else whole, *arguments, stdin=stdin)
            said += f"\n$ {arguments}\n{result.stdout}{result.stderr}"
        said += avro_said(rig, good)
    assert '"event": "consumed"' in said
    assert "password authentication failed" in said
    assert "refuses our log-in" in said
    assert "Traceback" not in said
    for secret in secrets | {secret.replace("%23", "#") for secret in secrets}:
        assert secret not in said, said


def avro_said(rig: Rig, env: dict[str, str]) -> str:
    """A contract that needs the registry, whose password is wrong."""
    path = rig.contracts_dir / f"{rig.topic}.yaml"
    path.write_text(path.read_text() + "  - property: payloadFormat\n    value: avro\n")
    rig.migrate()
    sent = streaming(rig, env, "produce", "--topic", rig.topic, "--ndjson", "-", stdin="\0\0\0\0\x01x\n")
    result = streaming(rig, env, "consume", "--until-idle", "0.6")
    return sent.stderr + result.stdout + result.stderr


def test_settings_show_no_secret_when_printed(secure_rig: Rig, secure_kafka: SecureKafka) -> None:
    env: dict[str, str] = {"SCHEMA_REGISTRY_URL": "http://r", "SCHEMA_REGISTRY_USERNAME": "u",
                           "SCHEMA_REGISTRY_PASSWORD": "registry-horse"}  # fmt: skip
    from streaming.settings import LandingSettings

    shown: Any = ""
    for way in WAYS:
        shown += repr(LandingSettings.from_env({**secure_rig.env, **secure_kafka.env(way), **env}))
    assert "horse" not in shown
    assert secure_rig.dsn.split(":")[2].split("@")[0] not in shown
