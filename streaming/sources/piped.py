"""Lines of a pipe, whose other end may be silent for hours. Not here: what a line holds (ndjson.py)."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOK_S = 0.2  # a stop is noticed after it
CHUNK_BYTES = 1 << 16  # what a pipe holds


def read_lines(descriptor: int, is_stopped: Callable[[], bool]) -> Iterator[bytes]:
    """Lines as they come, to the pipe's end or a stop; of a line that a stop has cut nothing is given.

    Python goes on with a read that a signal broke, so that a stop would wait for the next line.
    """
    pieces = list[bytes]()  # of a line whose end has not come yet
    while not is_stopped():
        if not select.select([descriptor], [], [], LOOK_S)[0]:
            continue
        chunk = os.read(descriptor, CHUNK_BYTES)
        if not chunk:
            if pieces:
                yield b"".join(pieces)
            return
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield b"".join([*pieces, end, b"\n"])
            pieces.clear()
        pieces.append(rest)
