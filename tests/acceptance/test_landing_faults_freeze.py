"""A consumer that is frozen (SIGSTOP, a suspended machine) past its session timeout, and wakes up as a zombie.

Another consumer takes over without waiting for it, even where the frozen one holds locks in the middle of COPY; what
the zombie does when it wakes up changes nothing.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from tests.acceptance.faults.proxy import LakeProxy, Moment, Session
from tests.acceptance.faults.rig import SESSION_TIMEOUT_S, FaultRig, chance, tell, wait_until, whole_or_ci
from tests.schedule import IS_WHOLE

pytestmark = [pytest.mark.acceptance, pytest.mark.integration, pytest.mark.timeout(900)]

# Kafka notices at the session timeout; then the new owner waits CLAIM_LOCK_S (3 s) for the lock, at most once for each
# topic partition that is locked, and ends the frozen session. The rest is a busy machine.
TAKEOVER_S = SESSION_TIMEOUT_S + 4 * 3.0 + 10.0
ROUNDS = whole_or_ci(12, 1)
MOMENTS = list(Moment) if IS_WHOLE else [Moment.LEDGER]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.name)
def test_a_consumer_frozen_in_a_transaction_is_taken_over_and_writes_nothing_when_it_wakes_up(
    faulty: FaultRig, moment: Moment
) -> None:
    with LakeProxy(faulty.rig.dsn) as proxy:
        zombie = faulty.start(LAKE_DSN=proxy.dsn)
        held: list[Session] = []

        def freeze(session: Session) -> None:
            zombie.signal(signal.SIGSTOP)
            held.append(session)
            session.pause()

        trap = proxy.trap(moment, freeze, nth=5)
        wait_until(lambda: held, "the freezing")
        frozen_at, landed_before = time.monotonic(), faulty.landed()
        heir = faulty.start()
        wait_until(lambda: faulty.landed() > landed_before + 500, "the take-over", TAKEOVER_S)
        tell(f"taken over {time.monotonic() - frozen_at:.1f} s after freezing at {moment.name}")
        faulty.wait_landed()
        held[0].release()
        zombie.signal(signal.SIGCONT)
        trap.wait()
        wait_until(lambda: len(zombie.events("assigned")) > 1, "the zombie to join again")
        assert zombie.is_running()
        faulty.assert_undisturbed()
        assert (zombie.stop(), heir.stop()) == (0, 0)
    faulty.assert_undisturbed()


def freeze_and_wake(faulty: FaultRig, pause: Callable[[], None]) -> int:
    """One zombie among two; returns what the others landed meanwhile."""
    zombie = faulty.start()
    wait_until(lambda: zombie.events("assigned"), "the first assignment")
    pause()
    zombie.signal(signal.SIGSTOP)
    before = faulty.landed()
    heir = faulty.start()
    wait_until(lambda: heir.events("assigned") and "[" in str(heir.events("assigned")), "the take-over", TAKEOVER_S)
    pause()
    zombie.signal(signal.SIGCONT)
    pause()
    after = faulty.landed()
    zombie.kill()
    heir.kill()
    return after - before


def test_zombies_at_random_moments_neither_lose_nor_double_an_event(faulty: FaultRig) -> None:
    draw = chance("zombies")
    with LakeProxy(faulty.rig.dsn, pace_s=0.1) as proxy:
        faulty.env["LAKE_DSN"] = proxy.dsn
        landed = list[int]()
        while len(landed) < ROUNDS or not any(landed):
            landed.append(freeze_and_wake(faulty, lambda: time.sleep(draw.random() * 1.0)))
            tell(landed)
            assert len(landed) < ROUNDS + 5, "nobody lands while another one is frozen"
        proxy.pace_s = 0.0
        last = faulty.start(batch_events=20_000)
        faulty.wait_landed()
        assert last.stop() == 0
    faulty.assert_undisturbed()
