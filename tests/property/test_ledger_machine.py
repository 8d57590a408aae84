"""Any interleaving of consumers against the real ledger: each offset is landed, dead or a gap exactly once, always.

The machine has a log (good events, poison, holes, and a start that retention moves) and three consumers that do what
`ownership.py`, `intake.py` and `writer.py` do, in any order, and fail where they may: before the commit, after it
without knowing, after losing the topic partition. Landing goes through the writer itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import psycopg2
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streaming import landing, ledger, replay
from streaming.batch import Batch, extend_to_end, prepare_batch
from streaming.dead_letter import read_dead_letters
from streaming.errors import LakeUnavailableError
from streaming.ledger import Claim
from streaming.writer import Writer
from tests.acceptance.faults.rig import check_batches
from tests.unit.streaming.events import NOW, FakeMessage, order_bytes, orders_contract

from .lake import PropertyLake

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

TOPIC, TABLE = "shop.orders", "landing.shop_orders"
PARTITIONS = 2
consumers = st.integers(0, 2)
places = st.integers(0, PARTITIONS - 1)
fates = st.sampled_from(["well", "cut before commit", "answer lost", "killed"])


class CutError(LakeUnavailableError):
    """The connection of the machine's making was cut."""


@dataclass
class Actor:
    """One consumer: what it believes to own, and the batches it has read and not yet written."""

    writer: Writer
    claims: dict[int, Claim] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    queued: list[tuple[Batch, Claim]] = field(default_factory=list)


@pytest.fixture(scope="module")
def orders_lake(fresh_database: Callable[[], AbstractContextManager[str]]) -> Iterator[PropertyLake]:
    with fresh_database() as dsn:
        made = PropertyLake(dsn, [orders_contract()])
        yield made
        made.close()


class LedgerMachine(RuleBasedStateMachine):
    """See the module."""

    lake: PropertyLake

    @initialize()
    def begin(self) -> None:
        self.lake.empty()
        self.actors = [Actor(self.lake.writer(f"writer-{number}")) for number in range(3)]
        self.logs: list[dict[int, bytes]] = [{} for _ in range(PARTITIONS)]
        self.ends = [0] * PARTITIONS
        self.lows = [0] * PARTITIONS
        self.lost: list[set[int]] = [set() for _ in range(PARTITIONS)]
        for place in range(PARTITIONS):
            self.produce(place, ["good", "poison", "good", "hole", "good", "good", "poison", "good", "hole", "good"])
            for number in range(2):
                self.claim(number, place)  # the second takes it from the first, who does not know

    def teardown(self) -> None:
        for actor in getattr(self, "actors", []):
            actor.writer._disconnect()

    # -- the broker -----------------------------------------------------------------------------------------------

    @rule(place=places, kinds=st.lists(st.sampled_from(["good", "good", "good", "poison", "hole"]), max_size=8))
    def produce(self, place: int, kinds: list[str]) -> None:
        for kind in kinds:
            at = self.ends[place]
            if kind != "hole":
                self.logs[place][at] = order_bytes(order_id=f"{place}-{at}") if kind == "good" else b"{" * (at % 3)
            self.ends[place] += 1

    @rule(place=places, share=st.floats(0, 1))
    def delete_old(self, place: int, share: float) -> None:
        """Retention."""
        self.lows[place] += int((self.ends[place] - self.lows[place]) * share)
        self.logs[place] = {at: value for at, value in self.logs[place].items() if at >= self.lows[place]}

    # -- consumers ------------------------------------------------------------------------------------------------

    @rule(number=consumers, place=places)
    def claim(self, number: int, place: int) -> None:
        """An assignment; whoever had the topic partition need not know."""
        actor = self.actors[number]
        before = actor.claims.get(place)
        if before is not None:
            before.is_live = False
        claim = self.lake.claim(TOPIC, place, low=self.lows[place], high=self.ends[place], owner=f"actor {number}")
        actor.claims[place], actor.positions[place] = claim, claim.next_offset

    @rule(number=consumers, place=places, most=st.integers(1, 3), fates=st.lists(fates, min_size=1, max_size=3))
    def work(self, number: int, place: int, most: int, fates: list[str]) -> None:
        """What consumers mostly do: read and write, again and again; claim first, if they own nothing."""
        for fate in fates:
            if place not in self.actors[number].claims:
                self.claim(number, place)
            self.read(number, place, most, is_at_end=True)
            self.write(number, fate)

    @rule(place=places, most=st.integers(1, 3), fate=fates, first=consumers, second=consumers)
    def collide(self, place: int, most: int, fate: str, first: int, second: int) -> None:
        """One reads, another takes over and lands, then the first wakes up and writes what it has."""
        if place not in self.actors[first].claims:
            self.claim(first, place)
        self.read(first, place, most, is_at_end=False)
        if first != second:
            self.claim(second, place)
            self.read(second, place, most, is_at_end=False)
            self.write(second, fate)
        before = self.lake.query("SELECT next_offset FROM control.offset WHERE topic_partition = %s", place)
        self.write(first, "well", places=(place,))
        after = self.lake.query("SELECT next_offset FROM control.offset WHERE topic_partition = %s", place)
        assert first == second or before == after, "who lost the topic partition moves nothing, even if nobody else did"

    @rule(number=consumers, place=places, most=st.integers(1, 6), is_at_end=st.booleans())
    def read(self, number: int, place: int, most: int, *, is_at_end: bool) -> None:
        """Fetch and check; an offset that retention has taken is told by the broker, and nothing is read."""
        actor = self.actors[number]
        claim = actor.claims.get(place)
        if claim is None or not claim.is_live or actor.positions[place] < self.lows[place]:
            return
        position = actor.positions[place]
        found = sorted(at for at in self.logs[place] if at >= position)[:most]
        batch = Batch(TOPIC, place, position, position)
        if found:
            messages = [FakeMessage(at, self.logs[place][at]) for at in found]
            batch = prepare_batch(self.lake.decoders[TOPIC], place, messages, expected_offset=position, now=NOW)
        if is_at_end and not any(at >= batch.next_offset for at in self.logs[place]):
            batch = extend_to_end(batch, self.ends[place])
        if batch.next_offset > position:
            actor.positions[place] = batch.next_offset
            actor.queued.append((batch, claim))

    @rule(number=consumers, fate=fates)
    def write(self, number: int, fate: str, places: tuple[int, ...] = (0, 1)) -> None:
        """What a writer does with the next transaction: one batch a topic partition, in order."""
        actor = self.actors[number]
        work: list[tuple[Batch, Claim]] = []
        for batch, claim in list(actor.queued):
            if batch.topic_partition in places and batch.topic_partition not in {
                done.topic_partition for done, _ in work
            }:
                work.append((batch, claim))
                actor.queued.remove((batch, claim))
        live = [(batch, claim) for batch, claim in work if claim.is_live]
        if not live:
            return
        try:
            with pytest.MonkeyPatch.context() as patch:
                break_at(patch, fate)
                actor.writer._write_once(live)
        except LakeUnavailableError:
            actor.writer._disconnect()
            if fate == "killed":
                self.forget(actor)
                return
            actor.writer.down_since = 1.0
            actor.writer._write_once([(batch, claim) for batch, claim in live if claim.is_live])
        if any(claim.is_fenced for claim in actor.claims.values()):
            self.forget(actor)  # joins again, with claims of its own

    @rule(number=consumers, place=places)
    def lose(self, number: int, place: int) -> None:
        """A rebalance takes it away; what is queued is dropped."""
        claim = self.actors[number].claims.pop(place, None)
        if claim is not None:
            claim.is_live = False

    @rule(number=consumers)
    def kill(self, number: int) -> None:
        self.forget(self.actors[number])

    def forget(self, actor: Actor) -> None:
        for claim in actor.claims.values():
            claim.is_live = False
        actor.claims, actor.positions, actor.queued = {}, {}, []

    @precondition(lambda self: hasattr(self, "actors"))
    @rule(is_edited=st.booleans())
    def replay_letters(self, *, is_edited: bool) -> None:
        letters = read_dead_letters(self.lake.conn, TOPIC)
        decoder = self.lake.decoders[TOPIC]
        if is_edited and letters:
            assert (
                replay.replay(self.lake.conn, decoder, letters[:1], edited=order_bytes(order_id="mended")).landed == 1
            )
            return
        assert replay.replay(self.lake.conn, decoder, letters).landed == 0, "what was refused is refused today too"

    # -- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def each_offset_is_accounted_for_once(self) -> None:
        if not hasattr(self, "actors"):
            return
        for place, first, following, next_batch in self.lake.query(
            "SELECT topic_partition, first_offset, next_offset, next_batch FROM control.offset"
        ):
            self.check_place(place, first, following, next_batch)

    def check_place(self, place: int, first: int, following: int, next_batch: int) -> None:
        query = self.lake.query
        rows = [at for (at,) in query(f"SELECT topic_offset FROM {TABLE} WHERE topic_partition = %s", place)]
        dead = [at for (at,) in query(
            "SELECT topic_offset FROM control.dead_letter WHERE topic_partition = %s AND replayed_at IS NULL", place
        )]  # fmt: skip
        gaps = query("SELECT first_offset, last_offset, kind FROM control.gap WHERE topic_partition = %s", place)
        missing = [at for begin, end, _ in gaps for at in range(begin, end + 1)]
        assert sorted(rows + dead + missing) == list(range(first, following)), "each once, none else"
        batches = query(
            "SELECT batch, kind, first_offset, last_offset, rows, dead_letters, gap_offsets FROM control.batch "
            "WHERE topic_partition = %s ORDER BY batch", place,
        )  # fmt: skip
        assert [batch[0] for batch in batches] == list(range(1, next_batch))
        check_batches(batches, first, following, {b: e for b, e, kind in gaps if kind == "below_log_start"})
        assert sum(batch[4] for batch in batches) == len(rows)
        ((by_day,),) = query("SELECT coalesce(sum(rows), 0) FROM control.batch_day WHERE topic_partition = %s", place)
        assert by_day == len(rows)
        held = {at for begin, end, kind in gaps if kind == "not_delivered" for at in range(begin, end + 1)}
        assert not held & self.logs[place].keys(), "an event that exists is never taken for a hole"


def break_at(patch: pytest.MonkeyPatch, fate: str) -> None:
    """Let the connection fail once, before or after the commit."""
    if fate in ("cut before commit", "killed"):
        advance = ledger.advance

        def advance_and_fail(cursor, claimed, **options):
            advance(cursor, claimed, **options)
            raise psycopg2.OperationalError("server closed the connection unexpectedly")

        patch.setattr(ledger, "advance", advance_and_fail)
    elif fate == "answer lost":
        land = landing.land_batches

        def land_and_fail(conn, *given, **options):
            land(conn, *given, **options)
            raise CutError("the answer to COMMIT was lost")

        patch.setattr(landing, "land_batches", land_and_fail)


def test_any_interleaving_of_consumers_lands_each_offset_once(orders_lake: PropertyLake) -> None:
    LedgerMachine.lake = orders_lake
    run_state_machine_as_test(LedgerMachine, settings=settings(stateful_step_count=40))
