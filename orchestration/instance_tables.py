"""Dagster's own tables in PostgreSQL, all of them or none: made, or made whole, before a process of Dagster starts.

    python -m orchestration.instance_tables        of DAGSTER_POSTGRES_URL; may be run again at any time

Dagster makes them itself at its first start, one statement after the other, each committed at once, and later looks for
one table only to know that they are there. A first start that is killed halfway (a power cut, `docker kill`, Ctrl-C)
therefore leaves a database in which every sensor fails for ever ('relation "asset_keys" does not exist'). Here they are
made in one transaction, and what such a start left out is added. Nothing is dropped or changed.

Not here: the tables of another version of Dagster, which `dagster instance migrate` brings up; the database itself and
its owner (deploy.docker.prepare).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

LOCK = 0x6461677374657254  # one at a time: `up` on two machines, a Job beside another


def complete(url: str) -> list[str]:
    """Make what is missing of Dagster's tables and indexes, in one transaction.

    Args:
        url: of Dagster's database, as `storage.postgres.postgres_url` of dagster.yaml has it.

    Returns:
        The names of the tables and indexes that were made, in the order of their making; of another version of
        Dagster's tables nothing is touched and nothing returned.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached, or the role may not make tables there.
        DagsterPostgresException: others have made tables at each of many tries.
    """
    from dagster_postgres.utils import retry_pg_creation_fn

    # beside a process of Dagster that makes its tables at this moment: what it has made is seen by the next look
    made = retry_pg_creation_fn(lambda: _complete_once(url), retry_limit=20, retry_wait=0.5)
    if made is None:
        return []
    _mark_as_built(url)
    return made


def _complete_once(url: str) -> list[str] | None:
    """As `complete`; None: the tables are another version's."""
    import sqlalchemy
    from dagster._core.storage.sql import check_alembic_revision, stamp_alembic_rev
    from dagster_postgres import run_storage
    from dagster_postgres.utils import pg_alembic_config

    alembic = pg_alembic_config(run_storage.__file__)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    with engine.begin() as conn:
        conn.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(LOCK)))
        revision, head = check_alembic_revision(alembic, conn)
        if revision not in (None, head):
            return None
        made = [name for metadata in _all_metadata() for name in _make_missing(conn, metadata)]
        if revision is None:
            stamp_alembic_rev(alembic, conn)
    return made


def _all_metadata() -> list[MetaData]:
    """Of the three storages that share the database."""
    from dagster._core.storage.event_log import SqlEventLogStorageMetadata
    from dagster._core.storage.runs import RunStorageSqlMetadata
    from dagster._core.storage.schedules import ScheduleStorageSqlMetadata

    return [RunStorageSqlMetadata, SqlEventLogStorageMetadata, ScheduleStorageSqlMetadata]


def _make_missing(conn: Connection, metadata: MetaData) -> list[str]:
    import sqlalchemy

    inspector: Any = sqlalchemy.inspect(conn)
    there = set(inspector.get_table_names())
    indexes = {str(each["name"]) for found in inspector.get_multi_indexes().values() for each in found}
    made = []
    for table in metadata.sorted_tables:
        if table.name not in there:
            table.create(conn)  # with its indexes
            made.append(table.name)
            continue
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            if str(index.name) not in indexes:  # a table is committed before its indexes
                index.create(conn)
                made.append(str(index.name))
    return made


def _mark_as_built(url: str) -> None:
    """Dagster's data migrations, which on new tables only note that there is nothing to migrate.

    They come after the tables and each is committed by itself, so a killed start may have left some out; Dagster reads
    the old, slow way then, for ever. What is noted already is left out.
    """
    from dagster_postgres import DagsterPostgresStorage

    storage: Any = DagsterPostgresStorage(url)
    storage.run_storage.migrate()
    storage.run_storage.optimize()
    storage.event_log_storage.reindex_events()
    storage.event_log_storage.reindex_assets()
    storage.schedule_storage.migrate()
    storage.schedule_storage.optimize()


def main() -> None:
    """Complete the tables of DAGSTER_POSTGRES_URL and say what was made."""
    from dagster_postgres.utils import DagsterPostgresException
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    url = os.environ.get("DAGSTER_POSTGRES_URL", "").strip()
    if not url:
        sys.exit("SettingsError: DAGSTER_POSTGRES_URL is not set: Dagster's own database, as dagster.yaml names it.")
    try:
        made = complete(url)
    except (SQLAlchemyError, DagsterPostgresException) as error:
        problem = str(error.orig if isinstance(error, DBAPIError) else error).strip()
        sys.exit(f"Dagster's tables could not be made; nothing was changed. PostgreSQL says: {problem}")
    told = f"{len(made)} tables and indexes were made" if made else "nothing was missing"
    click.echo(f"Dagster's tables are ready: {told}")


if __name__ == "__main__":
    main()
