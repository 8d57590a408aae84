"""kill -9 of the consumer, anywhere: the lake equals the one of an undisturbed run."""

from __future__ import annotations

import time

import pytest

from tests.acceptance.faults.proxy import LakeProxy, Moment
from tests.acceptance.faults.rig import FaultRig, chance, tell, whole_or_ci

pytestmark = [pytest.mark.acceptance, pytest.mark.integration, pytest.mark.timeout(900)]

KILLS = whole_or_ci(50, 9)
ANYWHERE = None  # by the clock: while it starts, joins, fetches, checks


def test_kill_9_at_random_moments_neither_loses_nor_doubles_an_event(faulty: FaultRig) -> None:
    """Moments are drawn from the clock and from every step of the landing transaction."""
    draw = chance("kill -9")
    moments = [ANYWHERE, *Moment]
    struck = []
    with LakeProxy(faulty.rig.dsn, pace_s=0.01) as proxy:
        faulty.env["LAKE_DSN"] = proxy.dsn
        for number in range(KILLS):
            moment = moments[number % len(moments)] if number < len(moments) else draw.choice(moments)
            consumer = faulty.start()
            if moment is ANYWHERE:
                time.sleep(draw.random() * 0.7)
            else:
                trap = proxy.trap(moment, lambda _, consumer=consumer: consumer.kill(), nth=draw.randint(1, 4))
                trap.wait()
            consumer.kill()
            proxy.clear()
            struck.append((moment.name if moment else "ANYWHERE", faulty.landed()))
        tell(struck)
        assert struck[0][1] < struck[-1][1] < faulty.all_offsets, "the kills were spread over the landing"
        consumer = faulty.start(batch_events=20_000)
        faulty.wait_landed()
        assert consumer.stop() == 0
    faulty.assert_undisturbed()
