"""How long the report's next refresh waits after one that took so long."""

from __future__ import annotations

import pytest

from orchestration.defs.serving.sensors import SHARED_PAUSE_MOST_S, pause_after


@pytest.mark.parametrize(
    ("took_s", "every_s", "share", "pause_s"),
    [
        (3.0, 15.0, 0.15, 20.0),  # its share of the time
        (1.0, 15.0, 0.15, 15.0),  # never more often than the least time between two
        (60.0, 15.0, 0.15, SHARED_PAUSE_MOST_S),  # a report that falls behind all day is the worse evil
        (500.0, 15.0, 0.15, 500.0),  # half of the time is the line's in any case
        (500.0, 300.0, 1.0, 300.0),  # no limit
        (10.0, 3600.0, 0.15, 3600.0),
    ],
)
def test_the_pause_grows_with_the_refresh_up_to_a_length(
    took_s: float, every_s: float, share: float, pause_s: float
) -> None:
    assert pause_after(took_s, every_s, share) == pytest.approx(pause_s)
