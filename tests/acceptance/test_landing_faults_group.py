"""Several consumers that join, leave and die while they share a topic: the lake equals that of an undisturbed run."""

from __future__ import annotations

import random
import time

import pytest

from tests.acceptance.faults.proxy import LakeProxy, Moment
from tests.acceptance.faults.rig import (
    TOPIC_PARTITIONS,
    Consumer,
    FaultRig,
    chance,
    tell,
    wait_until,
    whole_or_ci,
)  # fmt: skip

pytestmark = [pytest.mark.acceptance, pytest.mark.integration, pytest.mark.timeout(900)]

STEPS = whole_or_ci(20, 5)
LONG_SESSION_S = 60
PACE_S = 0.08  # a transaction; the landing has to outlast the rebalances, each of which takes seconds
JOINING_PACE_S = 0.5  # so that what is landed until every member is at work leaves enough for the steps


def live(consumers: list[Consumer]) -> list[Consumer]:
    return [consumer for consumer in consumers if consumer.is_running()]


def landed_by(faulty: FaultRig) -> int:
    """How many members have landed something."""
    ((members,),) = faulty.rig.query("SELECT count(DISTINCT landed_by) FROM control.batch")
    return int(members)


def disturb(faulty: FaultRig, proxy: LakeProxy, draw: random.Random, *, most: int, instance_id: str) -> list[Consumer]:
    """Members join, leave and die; returns who is left."""
    consumers = [faulty.start(STREAMING_INSTANCE_ID=instance_id) for _ in range(most)]
    if instance_id:  # each has a name of its own; a step may end a member that would only have joined so far
        proxy.pace_s = JOINING_PACE_S
        wait_until(lambda: landed_by(faulty) >= most, "every member to be at work")
        proxy.pace_s = PACE_S
    for step in range(STEPS):
        faulty.wait_landed(faulty.landed() + 1)
        time.sleep(draw.random())
        alive = live(consumers)
        if len(alive) < most and (len(alive) < 2 or draw.random() < 0.5):
            consumers.append(faulty.start(STREAMING_INSTANCE_ID=instance_id))
            what = "join"
        else:
            victim = draw.choice(alive)
            what = ("leave", "kill", "kill in COPY")[step % 3]
            if what == "leave":
                assert victim.stop() == 0
            elif what == "kill":
                victim.kill()
            else:
                proxy.trap(draw.choice([Moment.COPY, Moment.LEDGER]), lambda _, victim=victim: victim.kill())
                time.sleep(0.5)
                proxy.clear()
                victim.kill()
        tell((what, faulty.landed()))
    return live(consumers)


@pytest.mark.parametrize(
    ("most", "instance_id"), [(2, ""), (3, "dynamic")], ids=["two with stable names", "three without"]
)
def test_members_that_join_leave_and_die_neither_lose_nor_double_an_event(
    faulty: FaultRig, most: int, instance_id: str
) -> None:
    draw = chance(f"{most} members")
    with LakeProxy(faulty.rig.dsn, pace_s=PACE_S) as proxy:
        faulty.env["LAKE_DSN"] = proxy.dsn
        consumers = disturb(faulty, proxy, draw, most=most, instance_id=instance_id)
        assert faulty.landed() < faulty.all_offsets, "the rebalances happened during the landing"
        proxy.pace_s = 0.0
        consumers.append(faulty.start(batch_events=20_000, STREAMING_INSTANCE_ID=instance_id))
        faulty.wait_landed()
        assert {consumer.stop() for consumer in live(consumers)} == {0}
    assert landed_by(faulty) >= most, "the work went from hand to hand"
    faulty.assert_undisturbed()


def owned(consumer: Consumer) -> set[str]:
    """The topic partitions that it was assigned last, by name."""
    assigned = consumer.events("assigned")
    return {text.partition("@")[0] for text in assigned[-1]["topic_partitions"]} if assigned else set()


def test_a_plain_member_that_leaves_frees_its_place_at_once(faulty: FaultRig) -> None:
    """Without a stable name nobody waits for the session timeout: it is set far beyond what a busy machine takes."""
    first, second = (
        faulty.start(STREAMING_INSTANCE_ID="dynamic", STREAMING_SESSION_TIMEOUT_S=LONG_SESSION_S) for _ in range(2)
    )
    wait_until(lambda: owned(first) and owned(second) and owned(first).isdisjoint(owned(second)), "both to be at work")
    first.signal(15)
    left_at = time.monotonic()
    assert first.wait() == 0
    wait_until(
        lambda: len(owned(second)) == TOPIC_PARTITIONS, "all topic partitions for who stayed", 2 * LONG_SESSION_S
    )
    assert time.monotonic() - left_at < LONG_SESSION_S / 2
    faulty.wait_landed()
    assert second.stop() == 0
    faulty.assert_undisturbed()


def test_two_processes_with_one_name_stop_the_older_one_with_the_cause(faulty: FaultRig) -> None:
    """Kafka fences the older one; what it had at work is landed by the newer one."""
    older = faulty.start(STREAMING_INSTANCE_ID="twin", batch_events=50)
    wait_until(lambda: faulty.landed() > 0, "the first batch")
    newer = faulty.start(STREAMING_INSTANCE_ID="twin")
    assert older.wait() == 1
    assert "another process with the same STREAMING_INSTANCE_ID" in older.errors()
    faulty.wait_landed()
    assert newer.stop() == 0
    faulty.assert_undisturbed()
