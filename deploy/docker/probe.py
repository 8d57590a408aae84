"""Is this service well? The healthchecks of docker-compose.yml, quick enough to be asked every few seconds.

    python deploy/docker/probe.py http URL             answers 200
    python deploy/docker/probe.py tcp HOST PORT        accepts a connection
    python deploy/docker/probe.py grpc PORT            says SERVING (Dagster's code server)
    python deploy/docker/probe.py daemon               Dagster's daemon has given a sign of life (DAGSTER_POSTGRES_URL)

Run as a file, not as a module: nothing but what the question needs is imported. Not here: whether the line as a whole
is well (deploy/status/).
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 5.0
DAEMON_SILENT_S = 120.0  # it beats every 30 s


def is_http_ok(url: str) -> bool:
    """Whether a web server says 200."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - our own services
            return bool(response.status == 200)  # noqa: PLR2004
    except (OSError, urllib.error.URLError):
        return False


def is_listening(host: str, port: int) -> bool:
    """Whether a port accepts a connection."""
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT_S):
            return True
    except OSError:
        return False


def is_serving(port: int) -> bool:
    """Whether a gRPC server says that it serves."""
    import grpc  # noqa: PLC0415
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            asked = health_pb2.HealthCheckRequest(service="DagsterApi")
            answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=TIMEOUT_S)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    except grpc.RpcError:
        return False


def is_daemon_alive(dsn: str) -> bool:
    """Whether Dagster's daemon has written its heartbeat lately."""
    import psycopg2  # noqa: PLC0415

    try:
        connection = psycopg2.connect(dsn, connect_timeout=int(TIMEOUT_S), application_name="probe")
    except psycopg2.OperationalError:
        return False
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT max(timestamp) > now() AT TIME ZONE 'UTC' - make_interval(secs => %s) FROM daemon_heartbeats",
                (DAEMON_SILENT_S,),
            )
            return bool((cursor.fetchone() or [False])[0])
    except psycopg2.Error:  # the daemon has not made its tables yet
        return False
    finally:
        connection.close()


def main(arguments: list[str]) -> bool:
    """Ask what the arguments say."""
    match arguments:
        case ["http", url]:
            return is_http_ok(url)
        case ["tcp", host, port]:
            return is_listening(host, int(port))
        case ["grpc", port]:
            return is_serving(int(port))
        case ["daemon"]:
            return is_daemon_alive(os.environ["DAGSTER_POSTGRES_URL"])
    raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
