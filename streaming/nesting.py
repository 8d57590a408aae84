"""How deep JSON nests objects and arrays, told from its bytes: one value, or a whole batch at once. Pure.

Every reader of an event goes down its levels by recursion, each with a limit of its own: Python's counts the caller's
frames too, PostgreSQL's is the server's stack. A limit of ours far below all of them lets whatever landed be read by
whoever asks. Not here: which values are refused (decode.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streaming.turns import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOST_LEVELS = 200  # Python gives up at 1,000 less its callers' frames, BigQuery at 500
SHORTEST_DEEP = 2 * (MOST_LEVELS + 1)  # bytes: each level opens and closes
CHUNK_BYTES = 1 << 18  # at a time: what is compared stays in the processor's cache
QUOTE = ord('"')
NO_MARKS = bytes(set(range(256)) - set(b'"[{]}'))
STEPS = np.zeros(256, dtype=np.int8)
STEPS[[*b"[{"]], STEPS[[*b"]}"]] = 1, -1


def is_too_deep(value: bytes) -> bool:
    """Whether a JSON value nests deeper than MOST_LEVELS; of bytes that are no JSON, nothing is told."""
    if len(value) < SHORTEST_DEEP or value.count(b"[") + value.count(b"{") <= MOST_LEVELS:
        return False
    return _levels(value) > MOST_LEVELS


def is_one_too_deep(values: Sequence[bytes], joined: bytes, longest: int) -> bool:
    """`is_too_deep` for any of many values, given also as one, and with the length of the longest.

    Costs nothing where none is long enough for so many levels, else 0.25 us for 1 kB; and 3 us for 1 kB of a value
    that has so many brackets (an array of 200 objects), of which texts have to be told from what is around them.
    """
    if longest < SHORTEST_DEEP:
        return False
    opened = _opened(joined)
    # a value that deep has more than MOST_LEVELS of them within its own length
    if len(opened) <= MOST_LEVELS or (opened[MOST_LEVELS:] - opened[:-MOST_LEVELS]).min() >= longest:
        return False
    ends = np.cumsum(counted(map(len, values), len(values)))
    counts = np.diff(np.searchsorted(opened, ends), prepend=0)
    return any(_levels(values[at]) > MOST_LEVELS for at in np.flatnonzero(counts > MOST_LEVELS))


def _opened(text: bytes) -> NDArray[np.int64]:
    """Where a [ or { stands, in texts too; one bit makes the difference of the two."""
    codes, starts = np.frombuffer(text, np.uint8), range(0, len(text), CHUNK_BYTES)
    return np.concatenate([np.flatnonzero(codes[at : at + CHUNK_BYTES] & 0xDF == ord("[")) + at for at in starts])


def _levels(text: bytes) -> int:
    """Most levels open at once, by the brackets outside of texts."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # each quote that is left begins or ends a text
    marks = np.frombuffer(text.translate(None, delete=NO_MARKS), np.uint8)
    is_outside = np.cumsum(marks == QUOTE, dtype=np.int32) & 1 == 0
    return int(np.cumsum(STEPS[marks] * is_outside, dtype=np.int32).max(initial=0))
