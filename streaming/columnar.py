"""Landed JSON as typed columns by Arrow's own reader: without a Python object for each event.

Belongs here: the quick way, and when it may be taken, which counting bytes tells. Does not: what a contract means
(decode.py, which decodes all that this refuses). It is for landed events only: they have been checked, so a doubt is
never an error, only slower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from streaming import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streaming.contract import Contract, Field

# What Arrow's reader takes exactly as the decoder does: text as it is, numbers by their digits, never through a float.
_TAKEN = frozenset({"string", "integer", "number", "boolean", "timestamp"})
BLOCK_BYTES = 8 << 20
PART_BYTES = 64 << 20  # of text at a time, which is copied to get its newlines
COUNTED_BYTES = 1 << 20  # at a time: what is compared stays in the processor's cache
NEWLINE = 0x0A


def quick_columns(contract: Contract, payloads: pa.ChunkedArray) -> list[pa.Array] | None:
    """One column for each of the contract's fields, in its order; None where the decoder has to look at each event."""
    keys = [field.event_key for field in contract.fields]
    if not keys or len(set(keys)) < len(keys) or not all(map(_is_taken, contract.fields)):
        return None
    if not len(payloads) or payloads.null_count:
        return None
    read: list[list[pa.Array]] = [[] for _ in contract.fields]
    for text in _parts(payloads):
        columns = _read(contract.fields, text)
        if columns is None:
            return None
        for parts, column in zip(read, columns, strict=True):
            parts.extend(column.chunks)
    return [pa.chunked_array(read.pop(0)).combine_chunks() for _ in contract.fields]  # one column is held twice


def _parts(payloads: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """Neighbours of about PART_BYTES together."""
    many = max(1, len(payloads) * PART_BYTES // max(payloads.nbytes, 1))
    for start in range(0, len(payloads), many):
        yield payloads.slice(start, many)


def _read(fields: Sequence[Field], payloads: pa.ChunkedArray) -> list[pa.ChunkedArray] | None:
    lines = pc.binary_join_element_wise(_put_together(payloads), *map(_large, ("", "\n")))
    buffer = _values(lines)
    schema = pa.schema([(field.event_key, decode.arrow_type(field)) for field in fields])
    try:
        table = pyarrow.json.read_json(
            pa.BufferReader(buffer),
            read_options=pyarrow.json.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=schema,
                unexpected_field_behavior="ignore",
                newlines_in_values=count_byte(buffer, NEWLINE) > len(payloads),  # an event over several lines
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None  # an exponent, more digits than the scale, a time that only the decoder reads: it knows them all
    columns = [table[field.event_key] for field in fields]
    if table.num_rows != len(payloads) or any(
        column.null_count and not field.nullable for column, field in zip(columns, fields, strict=True)
    ):
        return None
    return columns


def _put_together(payloads: pa.ChunkedArray) -> pa.Array:
    """One array of texts, which may be longer than 2 GB."""
    text = payloads.cast(pa.large_string())
    return text.chunk(0) if text.num_chunks == 1 else text.combine_chunks()


def _is_taken(field: Field) -> bool:
    return field.logical_type in _TAKEN and (field.logical_type != "timestamp" or field.encoding == "iso")


def _large(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())


def _values(lines: pa.Array) -> pa.Buffer:
    """The bytes of an array that was made just now, and so begins at offset 0."""
    offsets, values = lines.buffers()[1:]
    end = int.from_bytes(offsets.slice(len(lines) * 8, 8).to_pybytes(), "little")
    return values.slice(0, end)


def count_byte(buffer: pa.Buffer | memoryview, byte: int) -> int:
    """How often a byte stands in a buffer; ten times as quick as looking into each text of an array."""
    found = np.frombuffer(buffer, np.uint8)
    starts = range(0, len(found), COUNTED_BYTES)
    return sum(int(np.count_nonzero(found[start : start + COUNTED_BYTES] == byte)) for start in starts)
