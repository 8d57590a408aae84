"""Memory that a batch frees is there for the next one."""

from __future__ import annotations

import subprocess
import sys

import pytest

ROUNDS = """
import resource, sys
if sys.argv[1] == "kept":
    from streaming.allocator import keep_freed_memory
    if not keep_freed_memory():
        sys.exit(77)
def land():
    return [b"x" * 2_000_000 for _ in range(4)]
land()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    land()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 20 * 4 * 2_000_000 // 4096


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", ROUNDS, how], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this C library has no mallopt")
    assert not done.returncode, done.stderr
    return int(done.stdout)


def test_the_pages_of_a_batch_are_taken_from_the_kernel_once() -> None:
    assert page_faults("kept") < PAGES / 10


def test_without_it_the_kernel_gives_them_anew_each_time() -> None:
    assert page_faults("by default") > PAGES / 2
