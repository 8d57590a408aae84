"""How far the marts have got, as the lake is told: the landing's sensor asks for a day again while it is behind.

Belongs here: setting these marks and taking them back. Not here: asking for days (landing/sensors.py), what a mark is
set with (warehouse/assets.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.defs.topics import MARTS_READER, feeds

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import date

    from orchestration.defs.resources import LakeResource


def mark_published(lake: LakeResource, ledger: Mapping[tuple[str, date], Mapping[int, int]]) -> None:
    """Tell the lake how far the marts have got, by topic and day."""
    from streaming import lake as door

    with lake.connect("orchestration.mark") as conn:
        for (topic, day), batches in ledger.items():
            if batches:
                door.mark_read(conn, topic, MARTS_READER, day=day, batches=batches)


def take_back_marks(lake: LakeResource, days: Collection[date]) -> None:
    """Make these days wait for their marts again although nothing new has landed: what they are made of has changed.

    A mark of batch 0 rather than none: its time says since when the day waits.
    """
    from streaming import lake as door

    with lake.connect("orchestration.take_back_marks") as conn:
        for feed in feeds():
            for landed in door.landed_days(conn, feed.topic, days=list(days)) if days else ():
                none = dict.fromkeys(landed.batches, 0)
                door.mark_read(conn, feed.topic, MARTS_READER, day=landed.event_day, batches=none, reset=True)
