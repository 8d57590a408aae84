"""Brings the lake's schema to this version: numbered SQL files, forward only, and a table and view for each contract.

Not here: what the statements say (migrations/*.sql, stream_tables.py).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import errors as pg

from streaming import stream_tables
from streaming.contract import is_month_of
from streaming.database import hide_password, is_outage, transaction
from streaming.errors import ContractChangedError, MigrationError
from streaming.gained_fields import refuse_unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

    from streaming.contract import Contract

FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
Registered = tuple[str, list[dict[str, Any]], str]  # a row of control.stream: stream, fields, time zone
LOCK = 7_203_155_001  # any number, the same for all migrations of this room
LANDING_LOCK = 7_203_155_002  # shared by landing transactions: while they write, the contracts stay as they are
LOCK_TIMEOUT_S = 10.0  # for tables and views; every reader who comes later waits behind us meanwhile

BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS control;
CREATE TABLE IF NOT EXISTS control.migration (
    number      integer PRIMARY KEY,
    name        text NOT NULL,
    sha256      text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Fingerprint, so that a file changed after its use is noticed."""
        return hashlib.sha256(self.sql.encode("utf-8")).hexdigest()


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a migration did: names of files, topics created, topics changed."""

    files: list[str]
    created: list[str]
    changed: list[str]


def read_migrations() -> list[Migration]:
    """All files, in order; numbers without holes."""
    found = []
    for path in resources.files("streaming.migrations").iterdir():
        match = FILE_NAME.fullmatch(path.name)
        if match:
            found.append(Migration(int(match[1]), path.name, path.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"reading streaming/migrations: numbers have holes: {[m.name for m in found]}")
    return found


def migrate(conn: Connection, contracts: Iterable[Contract]) -> Migrated:
    """Apply what is missing, all in one transaction. Safe to run again, and from several places at once."""
    done = Migrated([], [], [])
    try:
        with transaction(conn) as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_TIMEOUT_S * 1000:.0f}ms",))
            cursor.execute(BOOTSTRAP)
            _apply_files(cursor, done)
            known = [(contract, _registered(cursor, contract.topic)) for contract in contracts]
            landed = {contract.topic: _next_batches(cursor, contract.topic) for contract, _ in known}
            for contract, row in known:  # before anything is locked: looking at all that landed may take long
                if row is not None:
                    check_evolution(contract, row)
                    refuse_unreadable(cursor, contract, row[1])
            changed = [(contract, row[1]) for contract, row in known if row is not None and _differs(contract, row)]
            if changed:  # what lands from here on is checked by the new contract, and what did meanwhile is looked at
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LANDING_LOCK,))
                for contract, fields in changed:
                    refuse_unreadable(cursor, contract, fields, since=landed[contract.topic])
            for contract, row in known:
                _refuse_other_table(cursor, contract)
                _apply_contract(cursor, contract, row, done)
    except psycopg2.Error as error:
        raise MigrationError(
            f"migrating the lake: {hide_password(str(error)).strip()}. Nothing was changed. {_remedy(error)}"
        ) from error
    return done


def _remedy(error: psycopg2.Error) -> str:
    """What to do about it; the rights of the user are to blame for what PostgreSQL says so of alone."""
    if isinstance(error, pg.InsufficientPrivilege):
        return (
            "The user of LAKE_DSN needs to own the schemas control, landing and lake, and all in them (CREATE on the "
            "database)."
        )
    if isinstance(error, pg.LockNotAvailable):
        return (
            f"Somebody's transaction has held a table or a view of the lake for {LOCK_TIMEOUT_S:.0f} s (SELECT pid, "
            f"xact_start, query FROM pg_stat_activity ORDER BY 2). Let it end, or end it, and run this again."
        )
    if isinstance(error, pg.QueryCanceled):
        return "If it was statement_timeout: ALTER ROLE ... SET statement_timeout = 0 for the user of LAKE_DSN."
    if isinstance(error, pg.ReadOnlySqlTransaction):
        return "LAKE_DSN needs to name a server that is no standby, and a user and database that may write."
    return "Run it again." if is_outage(error) else "Mend what PostgreSQL says, and run it again."


def _apply_files(cursor: Any, done: Migrated) -> None:
    cursor.execute("SELECT number, sha256 FROM control.migration ORDER BY number")
    applied = dict(cursor.fetchall())
    migrations = read_migrations()
    if applied and max(applied) > len(migrations):
        raise MigrationError(
            f"migrating the lake: it is at migration {max(applied)}, this version knows {len(migrations)}. "
            f"Nothing was changed. Run the newer version of streaming."
        )
    for migration in migrations:
        if migration.number not in applied:
            cursor.execute(migration.sql)
            cursor.execute(
                "INSERT INTO control.migration (number, name, sha256) VALUES (%s, %s, %s)",
                (migration.number, migration.name, migration.sha256),
            )
            done.files.append(migration.name)
        elif applied[migration.number] != migration.sha256:
            raise MigrationError(
                f"migrating the lake: {migration.name} was changed after it had been applied. Nothing was changed. "
                f"Restore the file, and put the change into a new one."
            )


def _registered(cursor: Any, topic: str) -> Registered | None:
    cursor.execute("SELECT stream, fields, time_zone FROM control.stream WHERE topic = %s", (topic,))
    row: Registered | None = cursor.fetchone()
    return row


def _differs(contract: Contract, row: Registered) -> bool:
    return row[1] != stream_tables.describe_fields(contract)


def _next_batches(cursor: Any, topic: str) -> dict[int, int]:
    """Number of the next batch of each topic partition."""
    cursor.execute("SELECT topic_partition, next_batch FROM control.offset WHERE topic = %s", (topic,))
    return dict(cursor.fetchall())


def _refuse_other_table(cursor: Any, contract: Contract) -> None:
    """Refuse to land into what is not the stream's own table, and names by which two streams' tables would mix."""
    cursor.execute(
        "SELECT relkind = 'p' AND NOT relispartition FROM pg_class WHERE oid = to_regclass(%s)",
        (stream_tables.landing_table(contract),),
    )
    found: tuple[bool] | None = cursor.fetchone()
    if found == (False,):
        raise MigrationError(
            f"migrating topic {contract.topic}: {stream_tables.landing_table(contract)} exists, and is not the table "
            f"of a stream but a part of one. Nothing was changed. Give the schema of {contract.path} another name."
        )
    cursor.execute("SELECT topic, stream FROM control.stream WHERE topic <> %s", (contract.topic,))
    for topic, stream in cursor.fetchall():
        if stream == contract.stream:
            raise MigrationError(
                f"migrating topic {contract.topic}: landing.{stream} is the table of topic {topic}, and offsets of two "
                f"topics cannot be told apart in one. Nothing was changed. Give the schema of {contract.path} another "
                f"name, also where the topic was renamed: what landed stays in the old table."
            )
        if is_month_of(contract.stream, stream) or is_month_of(stream, contract.stream):
            raise MigrationError(
                f"migrating topic {contract.topic}: its stream {contract.stream} and the stream {stream} of topic "
                f"{topic} are called as a table and a month of it are. Nothing was changed. Give the schema of "
                f"{contract.path} another name."
            )


def _apply_contract(cursor: Any, contract: Contract, row: Registered | None, done: Migrated) -> None:
    if row is None:
        done.created.append(contract.topic)
        cursor.execute(stream_tables.create_landing_table(contract))
        cursor.execute(stream_tables.create_view(contract))
    else:
        if _differs(contract, row):
            done.changed.append(contract.topic)
            cursor.execute(stream_tables.create_landing_table(contract))
        _replace_view(cursor, contract)
    _register(cursor, contract)


def _replace_view(cursor: Any, contract: Contract) -> None:
    """Only if it would be another view, since readers wait meanwhile; rights on it and views of it stay."""
    cursor.execute("SELECT view_sha256 FROM control.stream WHERE topic = %s", (contract.topic,))
    if cursor.fetchone() == (stream_tables.view_fingerprint(contract),):
        return
    cursor.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 ORDER BY attnum",
        (f"lake.{contract.stream}",),
    )
    columns = [name for (name,) in cursor.fetchall()]
    cursor.execute(stream_tables.replace_view(stream_tables.in_view_order(contract, columns)))


def check_evolution(contract: Contract, row: Registered) -> None:
    """Refuse a contract that breaks what has landed."""
    stream, fields, time_zone = row
    problems = stream_tables.breaking_changes(fields, contract, time_zone)
    if stream != contract.stream:
        problems.append(f"schema.name was {stream}, is {contract.stream}: the landing table has the old name")
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise MigrationError(
            f"comparing contract {contract.path or contract.topic} {contract.version} with what has landed: it breaks "
            f"{len(problems)} promise(s). Nothing was changed. Add fields as optional ones, or begin a new topic:\n"
            f"{listed}"
        )


def check_registered(conn: Connection, contract: Contract) -> None:
    """Refuse to land with a contract that is not the migrated one."""
    try:
        with transaction(conn) as cursor:
            row = _registered(cursor, contract.topic)
    except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName) as error:
        raise MigrationError("reading control.stream: the lake is empty. Run `streaming migrate` first.") from error
    if row is not None:
        check_evolution(contract, row)
    if row is None or _differs(contract, row):
        raise MigrationError(
            f"comparing contract {contract.topic} {contract.version} with the lake: it is new or changed there. "
            f"Nothing was landed. Run `streaming migrate` first."
        )


def hold_contracts(cursor: Any, contracts: Iterable[Contract]) -> None:
    """Keep contracts as they are until a landing transaction ends; refuse to land by one that the lake has no more.

    A key that the old contract does not know would land with any value, and where the new one gives it a type, one such
    event makes the whole typed view unreadable.
    Source: docs/decisions/0040-a-landing-holds-its-contract.md
    """
    held = {contract.topic: contract for contract in contracts}
    cursor.execute(  # one way to the server and back; the second statement sees what the first has waited for
        "SELECT pg_advisory_xact_lock_shared(%s); SELECT topic, fields FROM control.stream WHERE topic = ANY(%s)",
        (LANDING_LOCK, list(held)),
    )
    registered = dict(cursor.fetchall())
    for topic, contract in held.items():
        if registered.get(topic) != stream_tables.describe_fields(contract):
            raise ContractChangedError(
                f"landing events of {topic} by version {contract.version} of its contract: the lake was migrated to "
                f"another one meanwhile. Nothing of them was written or lost. Start this again with the contract that "
                f"the lake has now."
            )


def _register(cursor: Any, contract: Contract) -> None:
    cursor.execute(
        """
        INSERT INTO control.stream (topic, stream, contract_version, fields, time_zone, view_sha256)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (topic) DO UPDATE
        SET contract_version = excluded.contract_version, fields = excluded.fields,
            view_sha256 = excluded.view_sha256, updated_at = now()
        WHERE stream.contract_version <> excluded.contract_version OR stream.fields <> excluded.fields
            OR stream.view_sha256 IS DISTINCT FROM excluded.view_sha256
        """,
        (
            contract.topic,
            contract.stream,
            contract.version,
            stream_tables.fields_document(contract),
            contract.time_zone,
            stream_tables.view_fingerprint(contract),
        ),
    )
