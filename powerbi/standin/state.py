"""What the stand-in remembers beside the data: workspaces, items, definitions, users, refreshes, operations.

Here: documents by kind and id in SQLite, each write durable before it returns, so that kill -9 loses nothing that was
answered; and which version of this code wrote the folder. Not here: what the documents mean.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import structlog

from powerbi.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger()
Document = dict[str, Any]
VERSION = 2
"""Of the folder's content: raise it whenever documents or the copy's tables are read in another way than before."""


class State:
    """Documents by kind and id."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS document"
            " (kind TEXT, id TEXT, sequence INTEGER, body TEXT, PRIMARY KEY (kind, id))"
        )
        self._connection.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def put(self, kind: str, key: str, body: Document) -> None:
        """Write a document; a new one comes after all others of its kind."""
        with self._lock:
            self._connection.execute(
                "INSERT INTO document VALUES (?, ?, (SELECT COALESCE(MAX(sequence), 0) + 1 FROM document), ?)"
                " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                (kind, key, json.dumps(body)),
            )

    def get(self, kind: str, key: str) -> Document | None:
        """Read a document."""
        with self._lock:
            row = self._connection.execute(
                "SELECT body FROM document WHERE kind = ? AND id = ?", (kind, key)
            ).fetchone()
        return json.loads(row[0]) if row else None

    def delete(self, kind: str, key: str) -> bool:
        """Delete a document; whether there was one."""
        with self._lock:
            return self._connection.execute("DELETE FROM document WHERE kind = ? AND id = ?", (kind, key)).rowcount > 0

    def all(self, kind: str) -> list[Document]:
        """Every document of a kind, oldest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT body FROM document WHERE kind = ? ORDER BY sequence", (kind,)
            ).fetchall()
        return [json.loads(row[0]) for row in rows]

    def trim(self, kind: str, keep: int) -> None:
        """Forget all but the newest documents of a kind, so that a stand-in that runs for months stays small."""
        with self._lock:
            self._connection.execute(
                "DELETE FROM document WHERE kind = ? AND sequence <= (SELECT sequence FROM document WHERE kind = ?"
                " ORDER BY sequence DESC LIMIT 1 OFFSET ?)",
                (kind, kind, keep),
            )


def prepare_folder(folder: Path) -> bool:
    """Make the folder one that this version reads; whether an older version's content was set aside.

    What an older version kept is a copy of the warehouse and can be had again: it is deleted and read anew.

    Raises:
        StateError: the folder was written by a newer version, or is not a stand-in's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "service.sqlite"
    copies = sorted(folder.glob("*.duckdb"))
    if not file.exists() and not copies:
        return False
    found = _version(file)
    if found == VERSION:
        return False
    if found > VERSION:
        raise StateError(
            f"{folder} was written by version {found} of the stand-in; this one reads version {VERSION}. Nothing was"
            " changed. Start the newer version, or another --data-dir; deleting the folder costs one refresh."
        )
    log.warning("state of an older version is read anew", folder=str(folder), found=found, expected=VERSION)
    for path in [*folder.glob("service.sqlite*"), *folder.glob("*.duckdb*")]:
        path.unlink()
    return True


def _version(file: Path) -> int:
    if not file.exists():
        return 0
    connection = sqlite3.connect(file)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise StateError(
            f"{file} is not a database ({error}). Nothing was changed. Give another --data-dir, or delete the folder:"
            " it costs one refresh."
        ) from error
    finally:
        connection.close()
