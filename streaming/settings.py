"""Settings of this room, read from the environment when asked, all problems reported at once.

Nothing here is read at import. Not here: contracts, which are files (contract.py).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from streaming.contract import CONTRACTS_DIR
from streaming.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")
SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
OAUTH = "OAUTHBEARER"
MAX_PORT = 65_535


class _Environment:
    """Reads variables and collects what is wrong with them."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.problems: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        return self.env.get(name, "").strip() or default

    def required(self, name: str, example: str) -> str:
        value = self.text(name)
        if not value:
            self.problems.append(f"{name} is not set; for example {name}={example}")
        return value

    def secret(self, name: str) -> str:
        """The variable, or the contents of the file that <name>_FILE names."""
        path = self.text(f"{name}_FILE")
        if not path:
            return self.text(name)
        if self.text(name):
            self.problems.append(f"{name} and {name}_FILE are both set; keep one")
        try:
            return Path(path).read_text(encoding="utf-8-sig").strip()
        except OSError as error:
            self.problems.append(f"{name}_FILE={path} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self.problems.append(f"{name}_FILE={path} is not UTF-8 text")
        return ""

    def file(self, name: str) -> str:
        """The path of a file that has to be readable."""
        path = self.text(name)
        if path:
            try:
                with Path(path).open("rb"):
                    pass
            except OSError as error:
                self.problems.append(f"{name}={path} cannot be read: {error.strerror}")
        return path

    def together(self, names: dict[str, str], why: str) -> None:
        """Each of these has to be set."""
        self.problems.extend(f"{name} is not set, but {why}" for name, value in names.items() if not value)

    def choice(self, name: str, choices: tuple[str, ...], default: str = "") -> str:
        value = self.text(name, default)
        if value and value not in choices:
            self.problems.append(f"{name}={value} is not one of {', '.join(choices)}")
        return value

    def number(self, name: str, convert: Callable[[str], T], default: T, *, least: float, most: float) -> T:
        value = self.text(name)
        if not value:
            return default
        try:
            number = convert(value)
            is_within = least <= float(str(number)) <= most
        except ValueError:
            is_within, number = False, default
        if not is_within:
            self.problems.append(f"{name}={value} is not a number from {least:g} to {most:g}")
        return number

    def raise_problems(self, what: str) -> None:
        if self.problems:
            listed = "\n".join(f"  - {problem}" for problem in self.problems)
            raise SettingsError(
                f"reading the settings of {what}: {len(self.problems)} problem(s). Nothing was started. "
                f"Set them in the environment or .env (see .env.example):\n{listed}"
            )


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach Kafka."""

    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    ssl_ca_file: str = ""
    ssl_certificate_file: str = ""  # of ours: the broker may demand one (mTLS)
    ssl_key_file: str = ""
    ssl_key_password: str = field(default="", repr=False)
    oauth_token_url: str = ""
    oauth_client_id: str = ""
    oauth_client_secret: str = field(default="", repr=False)
    oauth_scope: str = ""
    oauth_extensions: str = ""
    oauth_ca_file: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> KafkaSettings:
        """Read and check; raises SettingsError with every problem."""
        reader = _Environment(env)
        settings = cls.read(reader)
        reader.raise_problems("streaming (Kafka)")
        return settings

    @classmethod
    def read(cls, reader: _Environment) -> KafkaSettings:
        """Read, and leave the problems with the reader."""
        protocol = reader.choice("KAFKA_SECURITY_PROTOCOL", SECURITY_PROTOCOLS, "PLAINTEXT")
        settings = cls(
            bootstrap_servers=reader.required("KAFKA_BOOTSTRAP_SERVERS", "kafka-1:9092,kafka-2:9092"),
            security_protocol=protocol,
            sasl_mechanism=reader.choice("KAFKA_SASL_MECHANISM", SASL_MECHANISMS),
            sasl_username=reader.text("KAFKA_SASL_USERNAME"),
            sasl_password=reader.secret("KAFKA_SASL_PASSWORD"),
            ssl_ca_file=reader.file("KAFKA_SSL_CA_FILE"),
            ssl_certificate_file=reader.file("KAFKA_SSL_CERTIFICATE_FILE"),
            ssl_key_file=reader.file("KAFKA_SSL_KEY_FILE"),
            ssl_key_password=reader.secret("KAFKA_SSL_KEY_PASSWORD"),
            oauth_token_url=reader.text("KAFKA_OAUTH_TOKEN_URL"),
            oauth_client_id=reader.text("KAFKA_OAUTH_CLIENT_ID"),
            oauth_client_secret=reader.secret("KAFKA_OAUTH_CLIENT_SECRET"),
            oauth_scope=reader.text("KAFKA_OAUTH_SCOPE"),
            oauth_extensions=reader.text("KAFKA_OAUTH_EXTENSIONS"),
            oauth_ca_file=reader.file("KAFKA_OAUTH_CA_FILE"),
        )
        settings._check_together(reader)
        return settings

    def _check_together(self, reader: _Environment) -> None:
        """Settings that make sense with others only."""
        protocol = self.security_protocol
        if protocol.startswith("SASL"):
            needed = {"KAFKA_SASL_MECHANISM": self.sasl_mechanism}
            if self.sasl_mechanism == OAUTH:
                needed |= {
                    "KAFKA_OAUTH_TOKEN_URL": self.oauth_token_url,
                    "KAFKA_OAUTH_CLIENT_ID": self.oauth_client_id,
                    "KAFKA_OAUTH_CLIENT_SECRET or KAFKA_OAUTH_CLIENT_SECRET_FILE": self.oauth_client_secret,
                }
            else:
                needed |= {
                    "KAFKA_SASL_USERNAME": self.sasl_username,
                    "KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE": self.sasl_password,
                }
            reader.together(needed, f"KAFKA_SECURITY_PROTOCOL={protocol}")
        if self.ssl_certificate_file or self.ssl_key_file:
            pair = {"KAFKA_SSL_CERTIFICATE_FILE": self.ssl_certificate_file, "KAFKA_SSL_KEY_FILE": self.ssl_key_file}
            reader.together(pair, "the other of the two is")
        unused = [name for name, value in self._unused() if value]
        if unused:
            are = f"{', '.join(unused)} {'is' if len(unused) == 1 else 'are'} set"
            reader.problems.append(
                f"{are}, but KAFKA_SECURITY_PROTOCOL={protocol} would not use it; set SASL_SSL or SSL"
            )

    def _unused(self) -> Iterator[tuple[str, str]]:
        """What the protocol leaves aside: whoever has set it believes that we log in, or that nobody can listen."""
        if not self.security_protocol.startswith("SASL"):
            yield "KAFKA_SASL_MECHANISM", self.sasl_mechanism
            yield "KAFKA_SASL_USERNAME", self.sasl_username
            yield "KAFKA_SASL_PASSWORD", self.sasl_password
            yield "KAFKA_OAUTH_TOKEN_URL", self.oauth_token_url
            yield "KAFKA_OAUTH_CLIENT_ID", self.oauth_client_id
            yield "KAFKA_OAUTH_CLIENT_SECRET", self.oauth_client_secret
        if not self.security_protocol.endswith("SSL"):
            yield "KAFKA_SSL_CA_FILE", self.ssl_ca_file
            yield "KAFKA_SSL_CERTIFICATE_FILE", self.ssl_certificate_file
            yield "KAFKA_SSL_KEY_FILE", self.ssl_key_file
            yield "KAFKA_SSL_KEY_PASSWORD", self.ssl_key_password

    def client_config(self) -> dict[str, str]:
        """What every librdkafka client of ours is given."""
        config = {"bootstrap.servers": self.bootstrap_servers, "security.protocol": self.security_protocol}
        if self.sasl_mechanism == OAUTH:
            config |= {
                "sasl.mechanism": OAUTH,
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": self.oauth_token_url,
                "sasl.oauthbearer.client.id": self.oauth_client_id,
                "sasl.oauthbearer.client.secret": self.oauth_client_secret,
                "sasl.oauthbearer.scope": self.oauth_scope,
                "sasl.oauthbearer.extensions": self.oauth_extensions,
                "https.ca.location": self.oauth_ca_file,
            }
        elif self.sasl_mechanism:
            config |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.username": self.sasl_username,
                "sasl.password": self.sasl_password,
            }
        config |= {
            "ssl.ca.location": self.ssl_ca_file,
            "ssl.certificate.location": self.ssl_certificate_file,
            "ssl.key.location": self.ssl_key_file,
            "ssl.key.password": self.ssl_key_password,
        }
        return {name: value for name, value in config.items() if value}

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        found = (self.sasl_password, self.ssl_key_password, self.oauth_client_secret)
        return tuple(secret for secret in found if secret)


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """How to reach the schema registry; needed only by contracts whose payloadFormat is avro or protobuf."""

    url: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    key_password: str = field(default="", repr=False)

    @classmethod
    def read(cls, reader: _Environment) -> RegistrySettings:
        """Read, and leave the problems with the reader."""
        settings = cls(
            url=reader.text("SCHEMA_REGISTRY_URL"),
            username=reader.text("SCHEMA_REGISTRY_USERNAME"),
            password=reader.secret("SCHEMA_REGISTRY_PASSWORD"),
            ca_file=reader.file("SCHEMA_REGISTRY_CA_FILE"),
            certificate_file=reader.file("SCHEMA_REGISTRY_CERTIFICATE_FILE"),
            key_file=reader.file("SCHEMA_REGISTRY_KEY_FILE"),
            key_password=reader.secret("SCHEMA_REGISTRY_KEY_PASSWORD"),
        )
        if settings.url and not settings.url.startswith(("http://", "https://")):
            reader.problems.append("SCHEMA_REGISTRY_URL does not begin with http:// or https://")
        if "@" in settings.url:
            reader.problems.append(
                "SCHEMA_REGISTRY_URL holds a user; set SCHEMA_REGISTRY_USERNAME and _PASSWORD instead"
            )
        if settings.username or settings.password:
            pair = {
                "SCHEMA_REGISTRY_USERNAME": settings.username,
                "SCHEMA_REGISTRY_PASSWORD or SCHEMA_REGISTRY_PASSWORD_FILE": settings.password,
            }
            reader.together(pair, "the other of the two is")
        if settings.certificate_file or settings.key_file:
            pair = {
                "SCHEMA_REGISTRY_CERTIFICATE_FILE": settings.certificate_file,
                "SCHEMA_REGISTRY_KEY_FILE": settings.key_file,
            }
            reader.together(pair, "the other of the two is")
        return settings


@dataclass(frozen=True, slots=True)
class LakeSettings:
    """How to reach the lake, and where the contracts are."""

    dsn: str = field(repr=False)
    contracts_dir: Path = CONTRACTS_DIR

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> LakeSettings:
        """Read and check; raises SettingsError with every problem."""
        reader = _Environment(env)
        settings = cls.read(reader)
        reader.raise_problems("streaming (lake)")
        return settings

    @classmethod
    def read(cls, reader: _Environment) -> LakeSettings:
        """Read, and leave the problems with the reader."""
        dsn = reader.secret("LAKE_DSN")
        if not dsn:
            reader.problems.append("LAKE_DSN is not set; for example LAKE_DSN=postgresql://lander@lake:5432/lake")
        elif not dsn.startswith(("postgresql://", "postgres://")):
            reader.problems.append("LAKE_DSN does not begin with postgresql://")
        contracts_dir = Path(reader.text("STREAMING_CONTRACTS_DIR") or CONTRACTS_DIR)
        if not contracts_dir.is_dir():
            reader.problems.append(f"STREAMING_CONTRACTS_DIR={contracts_dir} is not a folder")
        return cls(dsn=dsn, contracts_dir=contracts_dir)


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """What a replay needs: the lake, and the registry that a letter's schema may be in."""

    lake: LakeSettings
    registry: RegistrySettings

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ReplaySettings:
        """Read and check; raises SettingsError with every problem."""
        reader = _Environment(env)
        settings = cls(lake=LakeSettings.read(reader), registry=RegistrySettings.read(reader))
        reader.raise_problems("streaming (replay)")
        return settings


@dataclass(frozen=True, slots=True)
class LandingSettings:
    """How the landing works. Each number says what goes wrong at both ends."""

    kafka: KafkaSettings
    lake: LakeSettings
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    group_id: str = "landing"
    instance_id: str = ""  # empty: host name and the first free slot, so that a restart keeps its place; dynamic: none
    metrics_port: int | None = None  # none: no metrics; 0: any free port, told in the log
    writers: int = 1  # connections; above 1 helps where several topic partitions are busy and cores are free
    batch_events: int = (
        20_000  # a transaction; 2,000 reach a third of the rate (a commit costs 4-8 ms), 100,000 only cost memory
    )
    linger_s: float = 0.2  # waits so long for a fuller batch; 0.02 writes ten times the ledger rows, 2 is seen as delay
    outage_limit_s: float = (
        900.0  # gives up on a lost database or broker; shorter stops on a fail-over, longer hides it
    )
    lake_answer_s: float = (
        60.0  # a transaction; below 15 s a busy server is taken for a dead one, above 300 s a dead one for a busy one
    )
    revoke_flush_s: float = 10.0  # out of max.poll.interval 300 s; below 2 s a slow disk aborts every rebalance
    session_timeout_s: float = 30.0  # a dead member is noticed after it; below 10 s a busy machine loses its place
    dead_letter_limit: float = (
        0.5  # share of a window that may be refused; 0.01 stops for one bad producer, 1 never stops
    )
    dead_letter_window: int = 2_000  # events looked at; 100 stops for a burst, 100,000 notices too late

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> LandingSettings:
        """Read and check; raises SettingsError with every problem."""
        reader = _Environment(env)
        port = reader.number("METRICS_PORT", int, -1, least=0, most=MAX_PORT)
        settings = cls(
            kafka=KafkaSettings.read(reader),
            lake=LakeSettings.read(reader),
            registry=RegistrySettings.read(reader),
            group_id=reader.text("STREAMING_GROUP_ID", "landing"),
            instance_id=reader.text("STREAMING_INSTANCE_ID"),
            metrics_port=None if port < 0 else port,
            writers=reader.number("STREAMING_WRITERS", int, 1, least=1, most=16),
            batch_events=reader.number("STREAMING_BATCH_EVENTS", int, 20_000, least=1, most=100_000),
            linger_s=reader.number("STREAMING_LINGER_S", float, 0.2, least=0.0, most=60.0),
            outage_limit_s=reader.number("STREAMING_OUTAGE_LIMIT_S", float, 900.0, least=1.0, most=86_400.0),
            lake_answer_s=reader.number("STREAMING_LAKE_ANSWER_S", float, 60.0, least=5.0, most=3_600.0),
            session_timeout_s=reader.number("STREAMING_SESSION_TIMEOUT_S", float, 30.0, least=6.0, most=300.0),
            dead_letter_limit=reader.number("STREAMING_DEAD_LETTER_LIMIT", float, 0.5, least=0.0, most=1.0),
            dead_letter_window=reader.number("STREAMING_DEAD_LETTER_WINDOW", int, 2_000, least=1, most=10_000_000),
        )
        reader.raise_problems("streaming (landing)")
        return settings

    @property
    def owner(self) -> str:
        """Who writes, as it stands in the ledger."""
        return f"{self.group_id}/{self.instance_id or socket.gethostname()}"
