"""A schema registry for the run: a small server held to the published REST API of Confluent's, or Apicurio's real one.

Apicurio Registry (Apache 2.0, Confluent-compatible at /apis/ccompat/v7) runs where TEST_APICURIO names the folder of
its unpacked `io.apicurio:apicurio-registry-app:...:all` archive: 160 MB that a test run should not have to fetch.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from deploy.embedded.parts import parts

if TYPE_CHECKING:
    from collections.abc import Iterator

APICURIO = "TEST_APICURIO"
CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"


@dataclass
class StandIn:
    """Schemas by id and by subject, and how the server misbehaves."""

    url: str = ""
    user: str = ""
    fails_with: int = 0
    fails_after: int | None = None  # questions answered before it fails with 503
    page: bytes = b""  # sent instead of JSON, as a proxy would
    drip_s: float = 0.0  # between one byte of an answer and the next
    asked: int = 0
    schemas: list[dict[str, Any]] = field(default_factory=list)
    subjects: dict[str, list[int]] = field(default_factory=dict)

    def register(self, subject: str, schema: dict[str, Any]) -> dict[str, Any]:
        known = {name: schema[name] for name in ("schema", "schemaType", "references") if schema.get(name)}
        ids = [number for number, old in enumerate(self.schemas, start=1) if {**old, "guid": 0} == {**known, "guid": 0}]
        if not ids:
            self.schemas.append({**known, "guid": str(uuid.uuid4())})
        number = ids[0] if ids else len(self.schemas)
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return self.found(number, subject, versions.index(number) + 1)

    def found(self, number: int, subject: str, version: int) -> dict[str, Any]:
        return {"id": number, "subject": subject, "version": version, **self.schemas[number - 1]}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, state: StandIn) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = state


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def state(self) -> StandIn:
        return self.server.state  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, document: Any, status: int = 200) -> None:
        body = self.state.page or json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # whoever asked may be tired of a slow answer
            for part in [body[at : at + 1] for at in range(len(body))] if self.state.drip_s else [body]:
                self.wfile.write(part)
                time.sleep(self.state.drip_s)

    def refuse(self, code: int, message: str) -> None:
        self.answer({"error_code": code, "message": message}, int(str(code)[:3]))

    def is_refused(self) -> bool:
        self.state.asked += 1
        if self.state.fails_after is not None:
            self.state.fails_after -= 1
            if self.state.fails_after < 0:
                self.refuse(503, "the stand-in was told to fail")
                return True
        if self.state.fails_with:
            self.refuse(self.state.fails_with, "the stand-in was told to fail")
            return True
        expected = "Basic " + base64.b64encode(self.state.user.encode()).decode()
        if self.state.user and self.headers.get("Authorization") != expected:
            self.refuse(401, "Unauthorized")
            return True
        return False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.is_refused():
            return
        if match := re.fullmatch(r"/subjects/([^/]+)(/versions)?", urlsplit(self.path).path):
            self.answer(self.state.register(unquote(match[1]), body))
        else:
            self.refuse(404, "HTTP 404 Not Found")

    def do_GET(self) -> None:
        if self.is_refused():
            return
        parts = urlsplit(self.path)
        if match := re.fullmatch(r"/schemas/ids/(\d+)", parts.path):
            self.schema([int(match[1])])
        elif match := re.fullmatch(r"/schemas/guids/([0-9a-f-]+)", parts.path):
            self.schema([n for n, schema in enumerate(self.state.schemas, start=1) if schema["guid"] == match[1]])
        elif match := re.fullmatch(r"/subjects/([^/]+)/versions/(\d+)", parts.path):
            subject, version = unquote(match[1]), int(match[2])
            versions = self.state.subjects.get(subject, [])
            if version > len(versions):
                self.refuse(40402, f"Version {version} not found.")
            else:
                self.answer(self.state.found(versions[version - 1], subject, version))
        else:
            self.refuse(40401, f"Subject not found. {parse_qs(parts.query)}")

    def schema(self, ids: list[int]) -> None:
        if not ids or not 0 < ids[0] <= len(self.state.schemas):
            self.refuse(40403, "Schema not found")
        else:
            self.answer(self.state.schemas[ids[0] - 1])


@contextmanager
def start_stand_in() -> Iterator[StandIn]:
    """A registry that answers until the end."""
    state = StandIn()
    server = Server(state)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def start_apicurio(folder: Path, log: Path) -> Iterator[str]:
    """The real one, with its data in memory; its Confluent-compatible address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(parts().java), "-Xmx512m", "-XX:+UseSerialGC", f"-Dquarkus.http.port={port}",
        "-Dquarkus.http.host=127.0.0.1", "-Dquarkus.management.host=127.0.0.1", "-Dquarkus.management.port=0",
        "-jar", "quarkus-run.jar",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
        try:
            _wait(url, process, log)
            yield url
        finally:
            process.kill()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, "the registry did not start"
        try:
            with urllib.request.urlopen(f"{url}/subjects", timeout=5):
                return
        except OSError:
            time.sleep(0.2)


@pytest.fixture
def registry() -> Iterator[StandIn]:
    """The stand-in, for tests that need it to misbehave."""
    with start_stand_in() as state:
        yield state


@pytest.fixture(scope="module", params=["stand-in", "apicurio"])
def registry_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Each registry there is."""
    if request.param == "stand-in":
        with start_stand_in() as state:
            yield state.url
        return
    if APICURIO not in os.environ:
        pytest.skip(f"{APICURIO} names no folder with Apicurio Registry's app: the real registry is not asked")
    folder = Path(os.environ[APICURIO])
    with start_apicurio(folder, tmp_path_factory.mktemp("apicurio") / "log") as url:
        yield url
