"""What of the tests runs when: `make test` runs what CI has time for, `make test-all` everything (TESTS=all).

A test goes to the whole schedule only where a quicker one of `make test` covers what it is about.
"""

from __future__ import annotations

import os

import pytest

IS_WHOLE = os.environ.get("TESTS") == "all"


def whole_schedule_only(reason: str) -> pytest.MarkDecorator:
    """Skip but in the whole schedule. reason: what it costs, or what covers the same in `make test`."""
    return pytest.mark.skipif(not IS_WHOLE, reason=f"{reason}: in the whole schedule only (make test-all)")
