"""The lander and the readers on a real PostgreSQL: each can do its whole work, and nothing else."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
from click.testing import CliRunner

from streaming import lake
from streaming.__main__ import main
from streaming.errors import LakeUnavailableError, MigrationError

from .rig import Rig, line

pytestmark = pytest.mark.integration


@pytest.fixture
def roles(rig: Rig) -> Iterator[dict[str, str]]:
    """Connection URLs of a lander and a reader, granted by the command."""
    owner = rig.dsn
    names = {role: f"{role}-{uuid.uuid4().hex[:8]}" for role in ("lander", "reader")}
    for name in names.values():
        rig.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'role-horse'")
    try:
        for _ in range(2):  # again changes nothing
            run(rig, "migrate", "--grant", "--lander-role", names["lander"], "--reader-role", names["reader"])
        url = urlsplit(rig.dsn)
        yield {
            role: f"postgresql://{name}:role-horse@{url.hostname}:{url.port}{url.path}" for role, name in names.items()
        }
    finally:
        rig.dsn = owner
        for name in names.values():
            rig.execute(f'DROP OWNED BY "{name}"')
            rig.execute(f'DROP ROLE "{name}"')


def run(rig: Rig, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments), env=rig.env)
    assert result.exit_code == code, result.output
    return result.output


def is_allowed(dsn: str, statement: str) -> bool:
    with closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cursor:
        try:
            cursor.execute(statement)
        except psycopg2.errors.InsufficientPrivilege:
            return False
        finally:
            conn.rollback()
    return True


def test_the_lander_lands_replays_and_records_with_its_own_rights_only(rig: Rig, roles: dict[str, str]) -> None:
    owner = rig.dsn
    rig.dsn = roles["lander"]
    rig.send([*(line(number) for number in range(50)), json.dumps(line(1, quantity="six")).encode()], partition=0)
    rig.send([line(1)], partition=1, **{"transactional.id": f"{rig.topic}-1"})
    assert rig.land(dead_letter_limit=1.0).dead_letters == 1
    mended = rig.contracts_dir / "mended.json"
    mended.write_text(json.dumps(line(1)))
    assert "landed 1" in run(rig, "dead-letters", "replay", "0:50", "--value", str(mended))
    assert rig.topic in run(rig, "lake", "status", "--json")
    rig.dsn = owner
    rig.assert_exact(52, gaps=1)


def test_the_reader_reads_and_marks_with_its_own_rights_only(rig: Rig, roles: dict[str, str]) -> None:
    rig.send([line(number) for number in range(50)])
    rig.land()
    rig.dsn = roles["reader"]
    with rig.connect() as conn:
        pending = lake.pending_days(conn, rig.topic, "test")
        for day in pending:
            assert lake.read_events(conn, rig.topic, day=day.event_day).num_rows
            lake.mark_read(conn, rig.topic, "test", day=day.event_day, batches=day.landed)
        assert lake.pending_days(conn, rig.topic, "test") == []
    assert rig.query(f"SELECT count(*) FROM lake.{rig.contract.stream}") == [(50,)]
    rig.wait(lambda: "dead letters of" in run(rig, "dead-letters", "list"), what="the list")


def test_whatever_else_they_try_is_refused(rig: Rig, roles: dict[str, str]) -> None:
    """Every statement on every table, really tried; what is not in this list is refused."""
    rig.send([line(1)])
    rig.land()
    allowed = {
        "lander": {
            **{f"control.{t}": {"SELECT"} for t in ("migration", "stream", "reader_day", "retired_day")},
            **{t: {"SELECT", "INSERT"} for t in ("control.batch", "control.batch_day", "control.gap")},
            "control.dead_letter": {"SELECT", "INSERT"},
            **{t: {"SELECT", "INSERT", "UPDATE"} for t in ("control.offset", "control.landed_day")},
            f"landing.{rig.contract.stream}": {"INSERT"},
        },
        "reader": {"control.reader_day": {"SELECT", "INSERT", "UPDATE", "DELETE"}},
    }  # fmt: skip
    tables = rig.query(
        "SELECT table_schema || '.' || table_name, min(column_name) FROM information_schema.columns "
        "WHERE table_schema IN ('control', 'landing', 'lake') GROUP BY 1 ORDER BY 1"
    )
    assert len(tables) > 10
    wrong = []
    for table, column in tables:
        statements = {
            "SELECT": f'SELECT "{column}" FROM {table} LIMIT 0',
            "INSERT": f"INSERT INTO {table} SELECT FROM (SELECT 1) AS nothing WHERE false",
            "UPDATE": f'UPDATE {table} SET "{column}" = NULL WHERE false',
            "DELETE": f"DELETE FROM {table} WHERE false",
            "TRUNCATE": f"TRUNCATE {table}",
        }  # fmt: skip
        is_view = table.startswith("lake.")
        for role, dsn in roles.items():
            may = allowed[role].get(table, {"SELECT"} if role == "reader" else set())
            for verb, statement in statements.items():
                if is_view and verb != "SELECT":
                    continue  # not even its owner can: the view has a join
                if is_allowed(dsn, statement) != (verb in may):
                    wrong.append(f"{role} {verb} {table}: expected {'yes' if verb in may else 'no'}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE control.dead_letter SET value = NULL",
        "UPDATE control.dead_letter SET reason = 'x'",
        "CREATE TABLE landing.mine (x int)",
        "CREATE TABLE public.mine (x int)",
        "CREATE SCHEMA mine",
        "ALTER TABLE control.gap ADD COLUMN x int",
        "DROP TABLE control.batch",
        "DROP SCHEMA landing CASCADE",
        "CREATE ROLE mine",
        "COPY control.gap TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/passwd')",
        "SET ROLE postgres",
    ],
)
@pytest.mark.parametrize("role", ["lander", "reader"])
def test_neither_may_change_the_lake_or_leave_it(roles: dict[str, str], role: str, statement: str) -> None:
    assert not is_allowed(roles[role], statement)


def test_only_the_lander_makes_months_and_only_of_streams(rig: Rig, roles: dict[str, str]) -> None:
    stream = rig.contract.stream
    assert is_allowed(roles["lander"], f"SELECT control.ensure_landing_partition('{stream}', '2031-01-01')")
    assert not is_allowed(roles["reader"], f"SELECT control.ensure_landing_partition('{stream}', '2031-01-01')")
    for odd in ("pg_class", 'x"; DROP TABLE control.gap; --'):
        with (
            closing(psycopg2.connect(roles["lander"])) as conn,
            conn.cursor() as cursor,
            pytest.raises(psycopg2.errors.RaiseException, match="is not registered"),
        ):
            cursor.execute("SELECT control.ensure_landing_partition(%s, '2031-01-01')", (odd,))


def test_granting_to_a_role_that_does_not_exist_says_what_to_do(rig: Rig) -> None:
    output = run(rig, "migrate", "--grant", "--lander-role", 'no"body', "--reader-role", "none", code=1)
    assert "Create the roles first" in output
    assert "Traceback" not in output


def test_a_consumer_without_the_lander_s_rights_ends_at_once_and_says_what_to_do(
    rig: Rig, roles: dict[str, str]
) -> None:
    """The reader sees the contracts, so that the first thing that it lacks is the right to claim."""
    rig.dsn = roles["reader"]
    with pytest.raises(MigrationError, match=r"claiming .*\[\d\]: permission denied .*migrate --grant"):
        rig.land(outage_limit_s=5.0)


def test_a_lake_that_is_read_only_is_told_with_the_cause(rig: Rig, roles: dict[str, str]) -> None:
    rig.execute(f'ALTER ROLE "{urlsplit(roles["lander"]).username}" SET default_transaction_read_only = on')
    rig.dsn = roles["lander"]
    with pytest.raises(LakeUnavailableError, match=r"claiming .*read-only.*default_transaction_read_only = on"):
        rig.land(outage_limit_s=0.0)


def test_a_new_stream_needs_the_grant_again_and_says_so(rig: Rig, roles: dict[str, str]) -> None:
    """A table made by a later migration is nobody's until `--grant` ran: the lander is told, nothing is lost."""
    text = (rig.contracts_dir / f"{rig.topic}.yaml").read_text()
    later = replace(rig, dsn=roles["lander"])
    (rig.contracts_dir / f"{rig.topic}.yaml").write_text(text.replace("name: t_", "name: u_"))
    rig.execute("DELETE FROM control.stream")
    rig.migrate()
    rig.send([line(1)])
    failure: Any = None
    try:
        later.land()
    except Exception as error:  # noqa: BLE001 looked at below
        failure = error
    assert failure is not None
    assert "permission denied" in str(failure)
    assert "streaming migrate --grant" in str(failure)
    rig.assert_exact(0)
