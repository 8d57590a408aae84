"""The imported copy: the model's tables in DuckDB, as of the last refresh of each partition.

Here: replacing partitions in one transaction, and what the copy is like now. Not here: when a refresh runs
(refreshes.py), where rows come from (marts.py). Readers keep seeing the old state until a refresh commits; a killed
process leaves the old state behind.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from powerbi.dax.context import quote

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence
    from pathlib import Path

    from powerbi.model import Column, Model, Table
    from powerbi.partitions import RefreshPartition

_TYPES = {
    "int64": "BIGINT",
    "double": "DOUBLE",
    "decimal": "DECIMAL(38,9)",
    "string": "VARCHAR",
    "dateTime": "TIMESTAMP",
    "boolean": "BOOLEAN",
}


_MEMORY = "384MB"  # of DuckDB; what needs more goes to files beside the copy. A container of 1 GB holds all of it


@dataclass(frozen=True)
class Filled:
    """Rows of a whole table, or of refresh partitions that follow on one another, cut by a date column."""

    table: str
    rows: Any
    partitions: tuple[RefreshPartition, ...] = ()
    column: str = ""


class Copy:
    """The copy in a file; open it once a process."""

    def __init__(self, path: Path) -> None:
        self._connection = duckdb.connect(str(path))
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute(f"SET memory_limit = '{_MEMORY}'")
        self._connection.execute("SET allocator_background_threads = true")  # freed pages go back to the system
        self._connection.execute("CREATE SCHEMA IF NOT EXISTS model")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS filled (table_name VARCHAR, partition_name VARCHAR, start_date DATE,"
            " end_date DATE, filled_at TIMESTAMP, PRIMARY KEY (table_name, partition_name))"
        )
        self._connection.execute("CREATE TABLE IF NOT EXISTS blank_member (table_name VARCHAR PRIMARY KEY)")
        self._write = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def reader(self) -> duckdb.DuckDBPyConnection:
        """A cursor of its own for one reader: it sees the last committed state."""
        cursor: duckdb.DuckDBPyConnection = self._connection.cursor()
        cursor.execute("SET TimeZone = 'UTC'")
        return cursor

    def prepare(self, model: Model) -> bool:
        """Create each table; one whose columns differ from the model's is made anew and is empty until refreshed.

        Returns: whether any table was made.
        """
        is_made = False
        with self._write:
            for table in model.tables:
                wanted = [(column.name, column_type(column)) for column in table.columns]
                have = self._connection.execute(
                    "SELECT column_name, data_type FROM information_schema.columns"
                    " WHERE table_schema = 'model' AND table_name = ? ORDER BY ordinal_position",
                    [table.name],
                ).fetchall()
                if have == wanted:
                    continue
                is_made = True
                columns = ", ".join(f"{quote(name)} {kind}" for name, kind in wanted)
                self._connection.execute(f"CREATE OR REPLACE TABLE model.{quote(table.name)} ({columns})")
                self._connection.execute("DELETE FROM filled WHERE table_name = ?", [table.name])
        return is_made

    def partitions(self, table: str) -> set[str]:
        """Names of a table's partitions that have been filled."""
        with self._write:
            rows = self._connection.execute(
                "SELECT partition_name FROM filled WHERE table_name = ?", [table]
            ).fetchall()
        return {name for (name,) in rows}

    def replace(self, model: Model, parts: Sequence[Filled], *, at: dt.datetime) -> int:
        """Replace these partitions in one transaction; returns the rows written."""
        with self._write:
            cursor = self._connection.cursor()
            cursor.execute("BEGIN")
            try:
                written = sum(self._replace_one(cursor, model, part, at) for part in parts)
                self._find_blank_members(cursor, model)
                cursor.execute("COMMIT")
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            finally:
                cursor.close()
        return written

    def _replace_one(self, cursor: duckdb.DuckDBPyConnection, model: Model, part: Filled, at: dt.datetime) -> int:
        table = model.table(part.table)
        if table is None:
            raise KeyError(part.table)
        name = quote(table.name)
        where, values = "", []
        if part.partitions:
            where = f" WHERE {quote(part.column)} >= ? AND {quote(part.column)} < ?"
            values = [part.partitions[0].start, part.partitions[-1].end]
        cursor.execute(f"DELETE FROM model.{name}{where}", values)
        cursor.register("incoming", part.rows)
        columns = ", ".join(quote(column.name) for column in table.columns)
        cast = ", ".join(f"CAST({quote(column.name)} AS {column_type(column)})" for column in table.columns)
        cursor.execute(f"INSERT INTO model.{name} ({columns}) SELECT {cast} FROM incoming")
        cursor.unregister("incoming")
        moment = at.replace(tzinfo=None)
        entries = [[part.table, one.name, one.start, one.end, moment] for one in part.partitions]
        entries = entries or [[part.table, part.table, None, None, moment]]
        places = ", ".join(["(?, ?, ?, ?, ?)"] * len(entries))  # one statement: executemany takes a second for 240
        cursor.execute(
            f"INSERT OR REPLACE INTO filled VALUES {places}", [value for entry in entries for value in entry]
        )
        return int(part.rows.num_rows)

    def _find_blank_members(self, cursor: duckdb.DuckDBPyConnection, model: Model) -> None:
        cursor.execute("DELETE FROM blank_member")
        for one in model.relationships:
            if not one.is_active:
                continue
            many, few = f"model.{quote(one.from_table)}", f"model.{quote(one.to_table)}"
            found = cursor.execute(
                f"SELECT 1 FROM {many} AS m ANTI JOIN {few} AS o"
                f" ON m.{quote(one.from_column)} = o.{quote(one.to_column)} LIMIT 1"
            ).fetchone()
            if found is not None:
                cursor.execute("INSERT OR IGNORE INTO blank_member VALUES (?)", [one.to_table])

    def blank_members(self) -> frozenset[str]:
        """Tables that lack rows for some facts; those facts show as (Blank)."""
        with self._write:
            rows = self._connection.execute("SELECT table_name FROM blank_member").fetchall()
        return frozenset(name for (name,) in rows)


def column_type(column: Column) -> str:
    """DuckDB's type for a model's column; a date without time is a DATE."""
    if column.is_date:
        return "DATE"
    return _TYPES[column.data_type]


def sources(table: Table) -> dict[str, str]:
    """The mart's column for each column of a table."""
    return {column.name: column.source_column for column in table.columns}
