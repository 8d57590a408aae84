"""A broker that demands log-ins and certificates, with its own authority and token server; made for the run."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from deploy.embedded.services import start_kafka
from deploy.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, SCRAM_PASSWORD = "lander", "scram-horse-battery"
CLIENT_ID, CLIENT_SECRET = "lander-app", "oauth-horse-battery"
KEY_PASSWORD = "key-horse-battery"  # noqa: S105 of keys that live as long as the test
AUDIENCE = "kafka"


@dataclass
class Authority:
    """A certificate authority in a folder."""

    folder: Path
    name: str
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65_537, 2048))

    def __post_init__(self) -> None:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        self.certificate = self._sign(subject, self.key.public_key(), subject, is_authority=True)
        self.ca_file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def ca_file(self) -> Path:
        return self.folder / f"{self.name}.ca.pem"

    def _sign(self, subject: x509.Name, key: Any, issuer: x509.Name, *, is_authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self.key, hashes.SHA256())
        )  # fmt: skip

    def issue(self, name: str, *, password: str = "") -> tuple[Path, Path]:
        """Files of a certificate and its key."""
        key = rsa.generate_private_key(65_537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signed = self._sign(subject, key.public_key(), self.certificate.subject, is_authority=False)
        lock = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        certificate, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key.pem"
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
        )  # fmt: skip
        return certificate, key_file


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Tokens(ThreadingHTTPServer):
    """An OAuth token endpoint over TLS: client credentials in, signed tokens out.

    While `is_away` it hangs up on everybody. Tokens end after `lifetime_s`.
    """

    daemon_threads = True

    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.key = rsa.generate_private_key(65_537, 2048)
        self.issued = 0
        self.is_away = False
        self.lifetime_s = 3_600

    def verify_request(self, *_: Any) -> bool:
        """Whether whoever has connected is served."""
        return not self.is_away

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_port}/token"

    def jwks(self) -> str:
        numbers = self.key.public_key().public_numbers()
        n, e = (_b64(value.to_bytes((value.bit_length() + 7) // 8, "big")) for value in (numbers.n, numbers.e))
        return json.dumps({"keys": [{"kty": "RSA", "kid": "k1", "use": "sig", "alg": "RS256", "n": n, "e": e}]})

    def token(self) -> str:
        self.issued += 1
        now = int(time.time())
        claims = {"sub": CLIENT_ID, "aud": AUDIENCE, "iat": now, "exp": now + self.lifetime_s, "scope": "landing"}
        signed = ".".join(_b64(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "k1"}, claims))
        return f"{signed}.{_b64(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def handle_error(self, *_: Any) -> None:
        """Clients that do not trust us hang up."""


class _TokenHandler(BaseHTTPRequestHandler):
    server: Tokens

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        expected = "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        is_known = self.headers.get("Authorization") == expected and form["grant_type"] == ["client_credentials"]
        document = (
            {"access_token": self.server.token(), "token_type": "Bearer", "expires_in": self.server.lifetime_s}
            if is_known
            else {"error": "invalid_client"}
        )
        body = json.dumps(document).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass
class SecureKafka:
    """Where it listens, and what it knows."""

    plain: str
    scram: str
    oauth: str
    mtls: str
    authority: Authority
    stranger: Authority
    tokens: Tokens
    client: tuple[Path, Path]
    locked_client: tuple[Path, Path]
    foreign_client: tuple[Path, Path]

    def env(self, way: str) -> dict[str, str]:
        """Settings for a way of logging in: scram-256, scram-512, oauth, mtls, mtls-locked."""
        ca = {"KAFKA_SSL_CA_FILE": str(self.authority.ca_file)}
        if way.startswith("scram"):
            return ca | {
                "KAFKA_BOOTSTRAP_SERVERS": self.scram, "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "KAFKA_SASL_MECHANISM": f"SCRAM-SHA-{way[-3:]}", "KAFKA_SASL_USERNAME": USER,
                "KAFKA_SASL_PASSWORD": SCRAM_PASSWORD,
            }  # fmt: skip
        if way == "oauth":
            return ca | {
                "KAFKA_BOOTSTRAP_SERVERS": self.oauth, "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "KAFKA_SASL_MECHANISM": "OAUTHBEARER", "KAFKA_OAUTH_TOKEN_URL": self.tokens.url,
                "KAFKA_OAUTH_CLIENT_ID": CLIENT_ID, "KAFKA_OAUTH_CLIENT_SECRET": CLIENT_SECRET,
                "KAFKA_OAUTH_SCOPE": "landing", "KAFKA_OAUTH_CA_FILE": str(self.authority.ca_file),
            }  # fmt: skip
        certificate, key = self.locked_client if way == "mtls-locked" else self.client
        password = {"KAFKA_SSL_KEY_PASSWORD": KEY_PASSWORD} if way == "mtls-locked" else {}
        return ca | password | {
            "KAFKA_BOOTSTRAP_SERVERS": self.mtls, "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CERTIFICATE_FILE": str(certificate), "KAFKA_SSL_KEY_FILE": str(key),
        }  # fmt: skip


@contextmanager
def _serving(tokens: Tokens) -> Iterator[None]:
    thread = threading.Thread(target=tokens.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        tokens.shutdown()
        tokens.server_close()
        thread.join()


def _settings(folder: Path, ports: dict[str, int], authority: Authority) -> dict[str, str]:
    certificate, key = authority.issue("broker")
    store = folder / "broker.store.pem"
    store.write_bytes(key.read_bytes() + certificate.read_bytes() + authority.ca_file.read_bytes())
    module = "org.apache.kafka.common.security"
    return {
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
        "advertised.listeners": ",".join(
            f"{name}://127.0.0.1:{port}" for name, port in ports.items() if name != "CONTROLLER"
        ),
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,OAUTH:SASL_SSL,MTLS:SSL"
        ),
        "ssl.keystore.type": "PEM", "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM", "ssl.truststore.location": str(authority.ca_file),
        "listener.name.mtls.ssl.client.auth": "required",
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.scram.scram-sha-256.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.oauth.oauthbearer.sasl.jaas.config": f"{module}.oauthbearer.OAuthBearerLoginModule required;",
        "listener.name.oauth.oauthbearer.sasl.server.callback.handler.class":
            f"{module}.oauthbearer.OAuthBearerValidatorCallbackHandler",
        "listener.name.oauth.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": (folder / "jwks.json").as_uri(),
        "listener.name.oauth.oauthbearer.sasl.oauthbearer.expected.audience": AUDIENCE,
        # a connection ends with its token, unless it is given the next one: as brokers that many share are set up
        "listener.name.oauth.oauthbearer.connections.max.reauth.ms": "3600000",
        "listener.name.oauth.oauthbearer.sasl.oauthbearer.clock.skew.seconds": "0",
    }  # fmt: skip


@pytest.fixture(scope="module")
def secure_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """The broker, for one test file."""
    from confluent_kafka.admin import (
        AdminClient,
        ScramCredentialInfo,
        ScramMechanism,
        UserScramCredentialUpsertion,
    )

    folder = tmp_path_factory.mktemp("secure")
    authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
    tokens = Tokens(*authority.issue("tokens"))
    jwks = folder / "jwks.json"
    jwks.write_text(tokens.jwks())
    ports = {name: free_port() for name in ("PLAINTEXT", "CONTROLLER", "SCRAM", "OAUTH", "MTLS")}
    with _serving(tokens), start_kafka(
        folder / "kafka", port=ports["PLAINTEXT"], controller_port=ports["CONTROLLER"],
        settings=_settings(folder, ports, authority),
        java_options=[f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={jwks.as_uri()}"],
    ) as broker:  # fmt: skip
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        users = [
            UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), SCRAM_PASSWORD.encode())
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        ]
        for user in users:
            for future in admin.alter_user_scram_credentials([user]).values():
                future.result(20)
        yield SecureKafka(
            broker.bootstrap, *(f"127.0.0.1:{ports[name]}" for name in ("SCRAM", "OAUTH", "MTLS")),
            authority, stranger, tokens, authority.issue("client"),
            authority.issue("locked", password=KEY_PASSWORD), stranger.issue("foreign"),
        )  # fmt: skip
