"""Gives the lander and the readers what they need in the lake, and no more.

Not here: what that is (migrations/grants.sql).
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from streaming.database import transaction
from streaming.errors import MigrationError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name


def grants_sql() -> str:
    """The statements, with the roles as psql variables."""
    return resources.files("streaming.migrations").joinpath("grants.sql").read_text(encoding="utf-8")


def grant(conn: Connection, *, lander: str, reader: str) -> None:
    """Apply the grants; the roles exist already. All or nothing, and again at will."""
    text = grants_sql()
    for variable, role in (("lander", lander), ("reader", reader)):
        text = text.replace(f':"{variable}"', sql.Identifier(role).as_string(conn))
    try:
        with transaction(conn) as cursor:
            cursor.execute(text)
    except psycopg2.Error as error:
        raise MigrationError(
            f"granting {lander} and {reader} their rights in the lake: {str(error).strip()}. No right was changed. "
            f"Create the roles first (CREATE ROLE ... LOGIN), and let LAKE_DSN be the owner of the schemas."
        ) from error
