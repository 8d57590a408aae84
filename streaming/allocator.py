"""How the process' memory is given back: the allocator, and Python's cyclic garbage collector.

Not here: how much memory a batch takes (settings.py, consumer_config.py).
"""

from __future__ import annotations

import ctypes
import gc

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEEP_FREE_BYTES = 64 << 20  # about four batches of 20,000 events
LARGEST_REUSED_BYTES = 32 << 20  # the most that glibc takes
GC_OBJECTS = 100_000  # five transactions' messages; 10,000 still costs a twentieth, without a bound a cycle would stay


def keep_freed_memory() -> bool:
    """Keep what a batch frees for the next one; whether the allocator can.

    By default glibc gives a batch's buffers back to the kernel and gets them anew, page by page, whenever they happen
    to lie at the end of its heap: about 0.1 us an event, 0.3 at worst. What is free there
    above 64 MB is still given back.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library: nothing to set, nothing lost but speed
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_REUSED_BYTES) and mallopt(M_TRIM_THRESHOLD, KEEP_FREE_BYTES))


def spare_garbage_collector() -> None:
    """Let Python's cyclic collector look at a process that lands a hundred times less often.

    Messages are plain objects without cycles; by default they set it off every 700 of them, which costs a fifth of the
    processor time of an event (measured: 1.0 of 5.3 us). Cycles of anything else are still found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 100)
