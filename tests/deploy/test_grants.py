"""Each role in the lake may do its own work and no other: first by reading grants.sql, then on a real PostgreSQL."""

from __future__ import annotations

import os
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg2
import pytest

from deploy.docker.make_secrets import make, role_name
from deploy.docker.prepare import prepare_lake
from streaming.grants import grants_sql

if TYPE_CHECKING:
    from deploy.embedded.services import Postgres

ROOT = Path(__file__).resolve().parents[2]
GRANTS = grants_sql().replace(':"lander"', "lander").replace(':"reader"', "reader")
MIGRATIONS = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "streaming" / "migrations").glob("0*.sql"))
)
STATEMENTS = re.sub(r"--.*", "", GRANTS)


def test_every_control_table_and_function_of_the_migrations_is_granted_to_the_lander_or_said_not_to_be() -> None:
    made = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(control\.\w+)", MIGRATIONS)) | {"control.migration"}
    dropped = set(re.findall(r"DROP TABLE (?:IF EXISTS )?(control\.\w+)", MIGRATIONS))
    named = set(re.findall(r"control\.\w+", STATEMENTS))
    functions = set(re.findall(r"CREATE (?:OR REPLACE )?FUNCTION (control\.\w+)", MIGRATIONS))
    assert (made - dropped) | functions == named


def test_the_lander_is_never_given_what_would_let_it_rewrite_history() -> None:
    for what, whom in re.findall(r"GRANT ([^;]+?) TO (\w+);", STATEMENTS):
        if whom == "lander":
            assert not re.search(r"\b(DELETE|TRUNCATE|REFERENCES|TRIGGER|ALL)\b(?! TABLES)", what), what
            if re.search(r"control\.(batch|batch_day|gap)\b", what):
                assert "UPDATE" not in what


class Lake:
    """A server prepared as the containers' is."""

    def __init__(self, dsn: str, secrets: Path) -> None:
        self.secrets = secrets
        url = urlsplit(dsn)
        self.at = f"{url.hostname}:{url.port}"

    def dsn(self, folder: str, database: str = "lake") -> str:
        return f"postgresql://{role_name(folder)}@{self.at}/{database}?passfile={self.secrets / folder / 'pgpass'}"

    def run(self, folder: str, statement: str) -> object:
        with closing(psycopg2.connect(self.dsn(folder))) as conn, conn, conn.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone() if cursor.description else None


@pytest.fixture
def lake(own_postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    make(tmp_path)
    found = Lake(own_postgres.dsn(), tmp_path)
    env = {"ADMIN_DSN": own_postgres.dsn(), "SECRETS_DIR": str(tmp_path), "LAKE_DSN": found.dsn("owner")}
    monkeypatch.setenv("LAKE_DSN", env["LAKE_DSN"])  # the steps are processes of their own
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", found.dsn("dagster", "dagster"))
    monkeypatch.delenv("LAKE_DSN_FILE", raising=False)
    prepare_lake(os.environ | env)
    prepare_lake(os.environ | env)  # a second `up` changes nothing and does not fail
    return found


@pytest.mark.integration
def test_roles_can_do_their_own_work_and_no_other(lake: Lake) -> None:
    landing = (
        "INSERT INTO landing.retail_invoices (topic_offset, event_at, topic_partition, event_day, payload) "
        "VALUES (0, '2010-12-01T08:00Z', 0, '2010-12-01', '{}')"
    )
    lake.run("lander", "SELECT control.ensure_landing_partition('retail_invoices', '2010-12-01')")
    lake.run("lander", landing)
    assert lake.run("reader", "SELECT count(*) FROM landing.retail_invoices") == (1,)
    lake.run("reader", "DELETE FROM control.reader_day")
    refused = {
        "lander": (
            "DELETE FROM landing.retail_invoices",
            "UPDATE landing.retail_invoices SET payload = '[]'",
            "SELECT payload FROM landing.retail_invoices",
            "DELETE FROM control.batch",
            "UPDATE control.batch SET rows = 0",
            "DELETE FROM control.dead_letter",
            "UPDATE control.dead_letter SET value = NULL",
            "DROP TABLE control.gap",
            "CREATE TABLE landing.mine (x int)",
        ),
        "reader": (
            landing,
            "UPDATE control.offset SET next_offset = 0",
            "DELETE FROM control.dead_letter",
            "SELECT control.ensure_landing_partition('retail_invoices', '2011-01-01')",
            "CREATE TABLE lake.mine (x int)",
        ),
    }
    for folder, statements in refused.items():
        for statement in statements:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                lake.run(folder, statement)


@pytest.mark.integration
def test_a_role_reaches_its_own_database_only(lake: Lake) -> None:
    with closing(psycopg2.connect(lake.dsn("dagster", "dagster"))) as conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE another (x int)")
    for folder, database in (("dagster", "lake"), ("lander", "dagster"), ("reader", "dagster")):
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            psycopg2.connect(lake.dsn(folder, database))


@pytest.mark.integration
def test_a_wrong_password_is_refused(lake: Lake) -> None:
    path = lake.secrets / "reader" / "pgpass"
    path.chmod(0o600)
    path.write_text("*:*:*:reader:guessed\n")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        lake.run("reader", "SELECT 1")
