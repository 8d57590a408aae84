"""What the stand-in remembers beside the data: refreshes, definitions, parameters, users, operations.

Here: documents by kind and id in SQLite, each write durable before it returns, so that kill -9 loses nothing that was
answered. Not here: what the documents mean.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Document = dict[str, Any]


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
