"""`make status`: is the line well, where does it lag, what to do. Exit code 0 well or worth a look, 1 late, 2 broken.

    python -m deploy.status                 the running demo, or what the environment says, or the containers here
    python -m deploy.status --serve 9109    /metrics for Prometheus, /status in words, /healthz; the service `monitor`

Not here: questions (ask.py), judgement (facts.py), names of metrics (exposition.py).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.status.ask import ask
from deploy.status.exposition import expose
from deploy.status.facts import Level, describe, judge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.status.facts import Facts

ROOT = Path(__file__).resolve().parents[2]
EVERY_S, EVERY_GOOGLE_S = 30.0, 300.0  # each asking is a query; on Google's BigQuery it costs about 0.1 cent


def demo_environment(root: Path) -> dict[str, str] | None:
    """The settings of the demo that runs in this checkout, if one does."""
    running, exported = root / "running.json", root / "env.sh"
    if not (running.exists() and exported.exists()):
        return None
    words = (shlex.split(line)[1] for line in exported.read_text().splitlines() if line.startswith("export "))
    found = dict(word.split("=", 1) for word in words)
    return found | {"DAGSTER_URL": json.loads(running.read_text())["urls"]["Dagster"]}


def _ask_containers() -> int | None:
    """Let the service `monitor` of this folder's containers answer, if it runs."""
    command = ["docker", "compose", "--profile", "*"]
    try:
        there = subprocess.run([*command, "ps", "-q", "monitor"], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    if there.returncode or not there.stdout.strip():
        return None
    return subprocess.run(
        [*command, "exec", "-T", "monitor", "python", "-m", "deploy.status"], cwd=ROOT, check=False
    ).returncode


def show(env: Mapping[str, str]) -> int:
    """Ask, print, and say by the exit code how bad it is."""
    facts = ask(env)
    findings = judge(facts)
    print(describe(facts, findings))
    worst = max((finding.level for finding in findings), default=Level.WELL)
    return {Level.LATE: 1, Level.BROKEN: 2}.get(worst, 0)


class Monitor:
    """Asks again and again in a thread of its own; what it serves is the newest answer."""

    def __init__(self, env: Mapping[str, str], every_s: float) -> None:
        self.env = env
        self.every_s = every_s
        self.facts: Facts | None = None
        self.asked = time.monotonic()

    def run(self) -> None:
        """For ever."""
        while True:
            self.facts = ask(self.env)
            self.asked = time.monotonic()
            time.sleep(self.every_s)

    def page(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a page."""
        if path == "/healthz":  # the exporter's own health: a broken line is what it is there to tell
            is_asking = time.monotonic() - self.asked < self.every_s + 120.0
            return (200 if is_asking else 503), "text/plain", b"asking\n" if is_asking else b"stuck\n"
        if self.facts is None:
            return 503, "text/plain", b"the parts are being asked for the first time\n"
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", expose(self.facts)
        if path in {"/", "/status"}:
            return 200, "text/plain; charset=utf-8", (describe(self.facts, judge(self.facts)) + "\n").encode()
        return 404, "text/plain", b"/metrics /status /healthz\n"


def serve(env: Mapping[str, str], port: int, every_s: float) -> None:
    """Serve until stopped."""
    monitor = Monitor(env, every_s)
    threading.Thread(target=monitor.run, daemon=True).start()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, kind, body = monitor.page(self.path)
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """A probe every few seconds would fill the log."""

    ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()  # noqa: S104 - Prometheus comes from outside


def main() -> int:
    """Show or serve."""
    parser = argparse.ArgumentParser(prog="make status", description="Is the line well, where does it lag, what to do.")
    parser.add_argument(
        "--serve", type=int, metavar="PORT", help="serve /metrics, /status, /healthz instead of printing once"
    )
    parser.add_argument("--every", type=float, help="with --serve: seconds between two askings")
    options = parser.parse_args()
    env: Mapping[str, str] = os.environ
    if not any(os.environ.get(name) for name in ("LAKE_DSN", "LAKE_DSN_FILE")):
        demo = demo_environment(ROOT / ".demo")
        if demo is None:
            code = _ask_containers()
            if code is None:
                print(
                    "Nothing runs here: no demo (make demo), no containers (make up), and LAKE_DSN is not set.",
                    file=sys.stderr,
                )
                return 2
            return code
        env = os.environ | demo
    if options.serve is None:
        return show(env)
    is_google = not env.get("BIGQUERY_EMULATOR_HOST", "").strip()
    serve(env, options.serve, options.every or (EVERY_GOOGLE_S if is_google else EVERY_S))
    return 0


if __name__ == "__main__":
    sys.exit(main())
