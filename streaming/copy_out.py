"""A day's landed rows out of PostgreSQL and into columns: COPY, then Arrow's reader of CSV.

Not here: which rows (lake.py), what their JSON means (columnar.py, decode.py).
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv

from streaming import columnar
from streaming.database import transaction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

Condition = tuple[str, list[Any]]  # SQL on a landing row, and its values

CSV_BLOCK_BYTES = 8 << 20
CSV_SCHEMA = pa.schema(
    [("partition", pa.int64()), ("offset", pa.int64()), ("produced", pa.int64()), ("payload", pa.string())]
)
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


def copy_out(conn: Connection, topic: str, day: date, relation: str, conditions: Sequence[Condition]) -> pa.Table:
    """COPY out as CSV, read by columns. Times travel as microseconds: exact, and quick to read.

    What one COPY has brought is read by columns while PostgreSQL works on the next one, and not all is held as CSV. The
    conditions are of ascending topic partitions, and no row meets two of them.
    """
    with ThreadPoolExecutor(1, "read csv") as reader, transaction(conn) as cursor:
        parts = [reader.submit(_read_csv, _copy_csv(cursor, day, relation, each)) for each in conditions]
        tables = [part.result() for part in parts]
    table = pa.concat_tables([CSV_SCHEMA.empty_table(), *tables])
    rows = table.num_rows
    columns = [
        pa.repeat(topic, rows),
        table["partition"],
        table["offset"],
        table["produced"].cast(pa.timestamp("us", tz="UTC")),
        pa.repeat(pa.scalar(day, pa.date32()), rows),
        table["payload"],
    ]
    return pa.Table.from_arrays(columns, schema=EVENTS_SCHEMA).combine_chunks()


def _copy_csv(cursor: Any, day: date, relation: str, condition: Condition) -> io.BytesIO:
    """Delimiter and quote are U+0002 and U+0001, which valid JSON cannot hold: only what has lines is quoted."""
    out = io.BytesIO()
    query = cursor.mogrify(
        f"SELECT topic_partition, topic_offset, (extract(epoch FROM produced_at) * 1000000)::bigint, payload "
        f"FROM {relation} WHERE event_day = %s AND ({condition[0]}) ORDER BY topic_partition, topic_offset",
        [day, *condition[1]],
    ).decode("utf-8")
    cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv, DELIMITER E'\\x02', QUOTE E'\\x01')", out)
    return out


def _read_csv(source: io.BytesIO) -> pa.Table:
    """The rows of one COPY. Where no event is written over several lines, Arrow need not look for quotes."""
    if not source.tell():
        return CSV_SCHEMA.empty_table()
    is_quoted = columnar.count_byte(source.getbuffer(), 1) > 0
    return pyarrow.csv.read_csv(
        pa.py_buffer(source.getbuffer()),
        read_options=pyarrow.csv.ReadOptions(column_names=CSV_SCHEMA.names, block_size=CSV_BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter="\x02",
            quote_char="\x01" if is_quoted else False,
            double_quote=False,
            newlines_in_values=is_quoted,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=CSV_SCHEMA, strings_can_be_null=False, null_values=[""]
        ),
    )
