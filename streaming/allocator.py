"""How the process' memory allocator treats what a batch frees. Not here: how much a batch takes (consumer.py)."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEEP_FREE_BYTES = 64 << 20  # about four batches of 20,000 events
LARGEST_REUSED_BYTES = 32 << 20  # the most that glibc takes


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
