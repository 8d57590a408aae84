"""A day's landed rows out of PostgreSQL and into columns: COPY's binary form, whose fields stand at fixed places.

Not here: which rows (lake.py), what their JSON means (columnar.py, decode.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

Condition = tuple[str, list[Any]]  # SQL on a landing row, and its values

EVENTS_SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("topic_partition", pa.int64()),
        ("topic_offset", pa.int64()),
        ("produced_at", pa.timestamp("us", tz="UTC")),
        ("event_day", pa.date32()),
        ("payload", pa.string()),
    ]
)

# https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format": a row is its number of fields, then each
# field's length and bytes; the payload is the last one, so that all before it stands at the same place in every row.
FILE_HEADER_BYTES = len(b"PGCOPY\n\xff\r\n\0") + 4 + 4
TRAILER = b"\xff\xff"
ROW_HEADER = np.dtype(
    [
        ("fields", ">i2"),
        ("partition_bytes", ">i4"),
        ("partition", ">i4"),
        ("offset_bytes", ">i4"),
        ("offset", ">i8"),
        ("produced_bytes", ">i4"),
        ("produced", ">i8"),
        ("payload_bytes", ">i4"),
    ]
)
FIXED = {"fields": 4, "partition_bytes": 4, "offset_bytes": 8, "produced_bytes": 8}
POSTGRES_EPOCH_US = 946_684_800_000_000  # its instants count from 2000-01-01 UTC
NO_INSTANT = np.iinfo(np.int64).min  # -infinity, which no message's timestamp is: a null would move what follows it
# So much becomes columns at a time, while what PostgreSQL sends meanwhile waits in the socket's buffers. In a thread of
# its own it would be slower: psycopg2 lets go of the interpreter for each row, and would have to wait to get it back.
PART_ROWS, PART_BYTES = 4_096, 64 << 20
COLUMNS_SCHEMA = pa.schema([EVENTS_SCHEMA.field(at) for at in (1, 2, 3, 5)])


def copy_out(cursor: Any, topic: str, day: date, relation: str, conditions: Sequence[Condition]) -> pa.Table:
    """The rows that meet a condition, as EVENTS_SCHEMA: exact, and without text in between.

    The payloads are many chunks: to put them together would hold them twice.

    The conditions are of ascending topic partitions, and no row meets two of them.
    """
    rows = _Rows()
    for sql, values in conditions:
        query = cursor.mogrify(
            f"SELECT topic_partition, topic_offset, coalesce(produced_at, '-infinity'), payload FROM {relation} "
            f"WHERE event_day = %s AND ({sql}) ORDER BY topic_partition, topic_offset",
            [day, *values],
        ).decode("utf-8")
        rows.expect_header()
        cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT binary)", rows)
    table = rows.table()
    columns = [
        pa.repeat(topic, len(table)),
        *table.drop_columns(["payload"]).combine_chunks().columns,
        pa.repeat(pa.scalar(day, pa.date32()), len(table)),
        table["payload"],
    ]
    return pa.Table.from_arrays(columns, schema=EVENTS_SCHEMA)


class _Rows:
    """What psycopg2 writes a COPY to: PostgreSQL sends a message for each row, and each comes as one call."""

    def __init__(self) -> None:
        self._header_bytes = 0  # of what comes next
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._parts: list[pa.Table] = []

    def expect_header(self) -> None:
        """A COPY begins: its first message begins with the file's header, whether or not a row follows."""
        self._header_bytes = FILE_HEADER_BYTES

    def write(self, message: bytes) -> None:
        if self._header_bytes:
            message, self._header_bytes = message[self._header_bytes :], 0
        if message and message != TRAILER:
            self._waiting.append(message)
            self._waiting_bytes += len(message)
            if len(self._waiting) >= PART_ROWS or self._waiting_bytes >= PART_BYTES:
                self._convert()

    def table(self) -> pa.Table:
        self._convert()
        return pa.concat_tables(self._parts or [COLUMNS_SCHEMA.empty_table()])

    def _convert(self) -> None:
        if self._waiting:
            self._parts.append(read_rows(self._waiting))
        self._waiting, self._waiting_bytes = [], 0


def read_rows(rows: list[bytes]) -> pa.Table:
    """Rows in the binary form, as COLUMNS_SCHEMA.

    Raises:
        ValueError: they are of another form.
    """
    size = ROW_HEADER.itemsize
    found = np.frombuffer(b"".join([row[:size] for row in rows]), ROW_HEADER)
    payloads = b"".join([row[size:] for row in rows])
    if any((found[name] != expected).any() for name, expected in FIXED.items()) or (
        int(found["payload_bytes"].sum(dtype=np.int64)) != len(payloads)
    ):
        raise ValueError(f"reading {len(rows)} landed rows: COPY's answer is not in PostgreSQL's binary form of rows")
    ends = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(found["payload_bytes"], out=ends[1:])
    produced = found["produced"].astype(np.int64)
    is_unknown = produced == NO_INSTANT
    columns = [
        pa.array(found["partition"].astype(np.int64)),
        pa.array(found["offset"].astype(np.int64)),
        pa.array(produced + POSTGRES_EPOCH_US, mask=is_unknown).cast(pa.timestamp("us", tz="UTC")),
        pa.StringArray.from_buffers(len(rows), pa.py_buffer(ends), pa.py_buffer(payloads)),
    ]
    return pa.Table.from_arrays(columns, schema=COLUMNS_SCHEMA)
