"""Bring PostgreSQL, Kafka and the warehouse to what this version of the code expects; every `up` runs it.

    python -m deploy.docker.prepare lake        roles, databases, migrations, grants, Dagster's own tables
    python -m deploy.docker.prepare schema      migrations and grants alone (the server is somebody else's)
    python -m deploy.docker.prepare dagster     Dagster's own tables alone
    python -m deploy.docker.prepare topics      a topic for every contract
    python -m deploy.docker.prepare warehouse   datasets and tables

Each step may be run again at any time and does only what is missing. Not here: what the migrations, contracts and
models say (their rooms), passwords (make_secrets.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deploy.docker.make_secrets import ROLES, role_name
from deploy.docker.probe import is_listening

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HERE = Path(__file__).resolve().parent
CONNECT_S = 120.0  # PostgreSQL may still be recovering from a kill
EMULATOR_S = 20.0
DATABASES = {"lake": "lake_owner", "dagster": "dagster"}


def prepare_lake(env: Mapping[str, str]) -> None:
    """Roles with the passwords of their files, a database each for lake and Dagster, migrations, grants."""
    import psycopg2  # noqa: PLC0415

    with closing(_connect(psycopg2, env["ADMIN_DSN"])) as admin:
        admin.autocommit = True
        with admin.cursor() as cursor:
            for folder in ROLES:
                _make_role(cursor, role_name(folder), _password(Path(env["SECRETS_DIR"]) / folder / "pgpass"))
            for database, owner in DATABASES.items():
                _make_database(cursor, database, owner)
            cursor.execute('GRANT CONNECT ON DATABASE "lake" TO lander, reader')
    prepare_schema(env)
    prepare_dagster(env)


def prepare_dagster(_env: Mapping[str, str]) -> None:
    """Dagster's own tables, all or none; made by Dagster itself, a kill at its first start leaves some out for ever."""
    _run([sys.executable, "-m", "orchestration.instance_tables"])


def prepare_schema(_env: Mapping[str, str]) -> None:
    """Migrations and grants alone, where somebody else owns the server and has made roles and databases."""
    _run([sys.executable, "-m", "streaming", "migrate", "--grant"])
    print("the lake is ready: schema and grants are those of this version")


def _connect(psycopg2: Any, dsn: str) -> Any:
    from streaming.database import hide_password  # noqa: PLC0415

    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            return psycopg2.connect(dsn, application_name="prepare")
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error) or time.monotonic() > deadline:
                raise SystemExit(
                    f"preparing the lake: PostgreSQL does not let us in: {hide_password(str(error), dsn).strip()}\n"
                    "Nothing was changed. If the password is refused, the secrets are newer than the data: "
                    "docs/runbooks/change-a-password.md"
                ) from None
            time.sleep(1.0)


def _make_role(cursor: Any, role: str, password: str) -> None:
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
    if not cursor.fetchone():
        cursor.execute(f'CREATE ROLE "{role}" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE')
        print(f"made role {role}")
    cursor.execute(f'ALTER ROLE "{role}" PASSWORD %s', (password,))


def _make_database(cursor: Any, database: str, owner: str) -> None:
    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
    if not cursor.fetchone():
        cursor.execute(f'CREATE DATABASE "{database}" OWNER "{owner}"')
        print(f"made database {database}")
    cursor.execute(f'ALTER DATABASE "{database}" OWNER TO "{owner}"')
    cursor.execute(f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC')


def _password(pgpass: Path) -> str:
    return pgpass.read_text().strip().split(":", 4)[4]


def prepare_topics(env: Mapping[str, str]) -> None:
    """A topic for every contract, with its topic partitions; one that exists is left as it is."""
    folder = Path(env.get("STREAMING_CONTRACTS_DIR") or HERE.parents[1] / "streaming" / "contracts")
    for contract in sorted(folder.glob("*.yaml")):
        _run([sys.executable, "-m", "streaming", "topic", "create", contract.stem])


def prepare_warehouse(env: Mapping[str, str]) -> None:
    """Datasets and tables; without a warehouse, say what is missing and leave the rest of the line to run."""
    host = env.get("BIGQUERY_EMULATOR_HOST", "").strip()
    if host and not _answers(host):
        print(
            f"no warehouse: nothing answers at BIGQUERY_EMULATOR_HOST={host}. Events land in the lake and wait there.\n"
            f"  on this machine alone:  docker compose --profile local up -d\n"
            f"  Google BigQuery:        in .env set WAREHOUSE_PROJECT and BIGQUERY_EMULATOR_HOST= (empty), then "
            f"docker compose up -d"
        )
        return
    _run([sys.executable, "-m", "dbt_like_sql", "migrate"])


def _answers(url: str) -> bool:
    address = urlsplit(url)
    deadline = time.monotonic() + EMULATOR_S
    while not is_listening(address.hostname or "", address.port or 80):
        if time.monotonic() > deadline:
            return False
        time.sleep(1.0)
    return True


def _run(command: list[str]) -> None:
    code = subprocess.run(command, check=False).returncode
    if code:
        raise SystemExit(f"`{' '.join(command[1:])}` ended with exit code {code}; what it said stands above")


STEPS: dict[str, Callable[[Mapping[str, str]], None]] = {
    "lake": prepare_lake,
    "schema": prepare_schema,
    "dagster": prepare_dagster,
    "topics": prepare_topics,
    "warehouse": prepare_warehouse,
}


def main() -> int:
    """Run the steps named."""
    names = sys.argv[1:]
    if not names or set(names) - set(STEPS):
        print(f"usage: python -m deploy.docker.prepare {{{'|'.join(STEPS)}}}...", file=sys.stderr)
        return 2
    for name in names:
        STEPS[name](os.environ)
    return 0


if __name__ == "__main__":
    sys.exit(main())
