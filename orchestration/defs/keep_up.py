"""A run that goes on while batches of its day land: core and marts again, without a new run for each batch.

Started by the sensor's tag on a run of one day. The run does its ordinary steps first, each with its blocking checks;
then this loop loads and publishes what has landed since, cycle after cycle, until nothing lands for IDLE_S or the span
is over, and the run's last check compares core with the marts. A cycle publishes what the report reads; the marts made
of it follow beside the loop. What is exactly once is so by the fences of core and marts; the lock only keeps two runs
of one day from working against each other (docs/decisions/0011).

Belongs here: the loop, its lock, one cycle, the marts that follow, how it looks in Dagster. Not here: which runs keep
up (landing/sensors.py), how a cycle's parts work (mage_project, dbt_like_sql).
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg

from orchestration import mage
from orchestration.defs.pacing import pace_run
from orchestration.defs.resources import LakeResource
from orchestration.defs.topics import feeds, project
from orchestration.errors import ReconcileError
from orchestration.mage_assets import partition_variables
from orchestration.mage_spec import edited_pipelines
from orchestration.provenance import forget_version, provenance_tags
from orchestration.settings import OrchestrationSettings

Batches = Mapping[int, int]
"""Topic partition -> last batch that is contained."""

TAG = "retail/keep_up_s"
# Silence after which the run ends: the next batch then waits for the sensor, 0 to 5 s and a fork, instead of a cycle.
# Landing commits a batch every 0.2 to 1 s while events flow.
IDLE_S = 2.0
# How long a run waits for the one that keeps its day up to end its cycle; that takes a second or a few.
PATIENCE_S = 30.0
# The sensor asks for the next run so long before the span ends: its own loop takes up to 5 s, the queue 1, a fork 0.5,
# and its ordinary steps, which it does beside the run at work, some 10 to 15.
HANDOVER_S = 25.0
# The marts that follow are published so often at most: their publication takes from the cycles what it takes. At 10 s
# they took as much of the emulator as the cycles themselves.
FOLLOW_S = 30.0
# Layers are compared so often within the loop: the next cycle waits for it, for as long as one or two cycles take.
COMPARE_S = 240.0
LOCK_SPACE = 0x6D617274  # "mart": our advisory locks, so that nobody else's numbers meet them


@dataclass(frozen=True)
class Cycle:
    """What one turn of the loop did."""

    rows_inserted: int
    published: Mapping[str, Any]
    seconds: float


def keep_up(
    *,
    is_behind: Callable[[], bool],
    wait: Callable[[float], object],
    turn: Callable[[], Cycle],
    is_wanted: Callable[[], bool],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Cycle]:
    """Turn while something has landed; wait for it, but not longer than IDLE_S, nor beyond the span.

    Args:
        is_behind: whether more has landed than the marts show.
        wait: returns when something lands, at the latest after so many seconds.
        turn: loads and publishes what has landed.
        is_wanted: whether another run waits for this day (its successor, or a rebuild), runs are told to end, or their
            code was edited.
        seconds: no turn begins after them.
        clock: tests have their own.
    """
    end = clock() + seconds
    silent_since = clock()
    while clock() < end and not is_wanted():
        if is_behind():
            yield turn()
            silent_since = clock()
            continue
        left = min(silent_since + IDLE_S, end) - clock()
        if left <= 0:
            return
        wait(left)


def handover_s(seconds: float) -> float:
    """How long before the end of a span of so many seconds the next run is asked for."""
    return min(HANDOVER_S, seconds / 2)


def seconds_of(context: dg.AssetExecutionContext, days: Sequence[date]) -> float:
    """How long this run is to keep up: what its tag says, for a run of one day; 0 for every other run."""
    return seconds_in_tags(context.run.tags) if len(days) == 1 else 0.0


def seconds_in_tags(tags: Mapping[str, str]) -> float:
    """How long a run with these tags is to keep up; 0 for one that is not, and where a hand has mistyped it."""
    try:
        return float(tags.get(TAG, "0"))
    except ValueError:
        return 0.0


@dataclass(frozen=True)
class Followed:
    """Topic -> the batches that the first marts showed, and the other marts as published from them."""

    batches: Mapping[str, Batches]
    published: Mapping[str, Any]


@dataclass(frozen=True)
class Marts:
    """What the loop asks of the marts of its day.

    Attributes:
        publish_first: publishes those that read core, and is quick: what the report reads. Once a cycle.
        publish_rest: publishes the other daily marts, which are made of those. Called from a thread of its own.
        note: told of each load of a cycle (topic, day, the exporter's report of the day), so that the next publication
            need not read the ledgers.
        compare: compares landed, core and marts of the day on a connection to the lake, records the outcome, and
            returns what differs, None if nothing does. Called while nobody else moves the day.
        mark: tells the lake that all of them show these batches of each topic.
        shown: topic -> the batches that all of them showed when the loop began.
    """

    publish_first: Callable[[], Mapping[str, Any]]
    publish_rest: Callable[[], Mapping[str, Any]]
    note: Callable[[str, date, Mapping[str, Any]], None]
    compare: Callable[[Any], str | None]
    mark: Callable[[Mapping[tuple[str, date], Batches]], None]
    shown: Mapping[str, Batches]


@dataclass
class Followers:
    """The marts that are made of the first ones, published beside the loop, at most every FOLLOW_S.

    Attributes:
        publish: `Marts.publish_rest`.
        shown: what they show already: `Marts.shown`.
        clock: tests have their own.
    """

    publish: Callable[[], Mapping[str, Any]]
    shown: Mapping[str, Batches] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="marts"))
    _at_work: Future[Mapping[str, Any]] | None = None
    _next_at: float = float("-inf")

    def look(self, shown: Mapping[str, Batches]) -> Followed | None:
        """What was published since the last look, None if nothing; begins the next publication if it is time for it.

        Args:
            shown: what the first marts show now.

        Raises:
            WarehouseError: as `publish` does.
        """
        done = None
        if self._at_work is not None and self._at_work.done():
            at_work, self._at_work = self._at_work, None
            done = Followed(self.shown, at_work.result())
        if self._at_work is None and self.clock() >= self._next_at and shown != self.shown:
            self._next_at = self.clock() + FOLLOW_S
            self.shown = {topic: dict(batches) for topic, batches in shown.items()}
            self._at_work = self._pool.submit(self.publish)
        return done

    def end(self) -> Followed | None:
        """Wait for the publication that is at work. One that fails is as none: the caller publishes once more."""
        self._pool.shutdown(wait=True)
        at_work, self._at_work = self._at_work, None
        if at_work is None or at_work.exception() is not None:
            return None
        return Followed(self.shown, at_work.result())


def follow_landing(context: dg.AssetExecutionContext, lake: LakeResource, day: date, marts: Marts) -> None:
    """The loop for one day, each cycle's materializations logged as it is done.

    The day stays pending in the lake until every mart shows it: a run that is killed in the loop leaves marts that have
    not followed the first ones, and the sensor asks for the day again. What has not followed in the end is left to
    whoever has waited for the day; if nobody has, it is published now.

    A run that keeps the day up already ends its loop for this one, which has done its ordinary steps beside it.
    """
    shown = {topic: dict(batches) for topic, batches in marts.shown.items()}
    followers = Followers(marts.publish_rest, marts.shown)
    all_show, is_handed_over, ended = marts.shown, False, None
    try:
        with locked(lake, day, patience_s=PATIENCE_S) as is_ours:
            if is_ours:
                all_show, is_handed_over = _follow(context, lake, day, marts, shown=shown, followers=followers)
            else:
                context.log.info("another run keeps %s up: nothing left to do here", day)
    finally:
        ended = followers.end()
    if ended is not None:
        _show_followed(context, day, marts, ended)
        all_show = ended.batches
    if is_handed_over:
        context.log.info("%s is handed over to a run that has waited for it", day)
    elif all_show != shown:
        _show_followed(context, day, marts, Followed(shown, marts.publish_rest()))


def _follow(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    day: date,
    marts: Marts,
    *,
    shown: dict[str, dict[int, int]],
    followers: Followers,
) -> tuple[Mapping[str, Batches], bool]:
    """The loop with the lock held; moves `shown` on.

    Returns what all marts are known to show, and whether another run waits for the day.

    Layers are compared every COMPARE_S, between two cycles and with the lock held: whoever waits for the day moves it
    as soon as it is given back, so that under a steady flow the run's last step would not find it at rest.

    An edit of the Mage project ends it: a cycle would run edited blocks beside helpers imported before the edit, and
    its rows would be in the ledger as made by the code from before.

    Raises:
        ReconcileError: layers differ. What was published stays; the outcome is recorded.
    """
    from streaming import lake as door

    seen: dict[str, Mapping[str, Any]] = {}
    all_show = marts.shown
    settings = OrchestrationSettings.from_env(os.environ)
    with (
        lake.connect("orchestration.keep_up") as conn,
        lake.connect("orchestration.keep_up_wait") as waiting,
    ):
        door.listen(waiting)
        cycles = keep_up(
            is_behind=lambda: _is_behind(conn, day, shown),
            wait=lambda seconds: door.wait_landed(waiting, seconds),
            turn=lambda: _turn(context, day, marts, shown, seen),
            is_wanted=lambda: settings.is_stopping or _is_wanted(conn, day) or bool(edited_pipelines(project())),
            seconds=seconds_of(context, [day]),
        )
        count = rows = 0
        compared_at = time.monotonic()  # by the run before, or by its own last step if it is the first
        for cycle in cycles:
            count, rows = count + 1, rows + cycle.rows_inserted
            _log(context, _materializations(cycle, day))
            followed = followers.look(shown)
            if followed is not None:
                _show_followed(context, day, marts, followed)
                all_show = followed.batches
            if time.monotonic() - compared_at > COMPARE_S:
                _compare(marts, conn, day)
                compared_at = time.monotonic()
        is_handed_over = _is_wanted(conn, day)
        edited = edited_pipelines(project())
        if edited:
            text = "files of Mage pipeline(s) %s were edited: what lands of %s from now on is left to the next run"
            context.log.info(text, ", ".join(edited), day)
    context.log.info("kept %s up: %s events in %s cycle(s) after the first publication", day, rows, count)
    return all_show, is_handed_over


def _show_followed(context: dg.AssetExecutionContext, day: date, marts: Marts, followed: Followed) -> None:
    _log(context, _published(followed.published, day))
    marts.mark({(topic, day): batches for topic, batches in followed.batches.items()})


def _compare(marts: Marts, conn: Any, day: date) -> None:
    differs = marts.compare(conn)
    if differs is not None:
        raise ReconcileError(f"keeping {day} up: {differs}")


def _log(context: dg.AssetExecutionContext, events: Iterable[dg.AssetMaterialization]) -> None:
    """Log them in the order of the graph, each with the tags of the code and the inputs that it is made of."""
    for event in events:
        forget_version(context, event.asset_key)
        context.log_event(
            dg.AssetMaterialization(
                event.asset_key,
                partition=event.partition,
                metadata=event.metadata,
                tags=provenance_tags(context, event.asset_key),
            )
        )


@contextlib.contextmanager
def locked(lake: LakeResource, day: date, *, patience_s: float = 0.0) -> Iterator[bool]:
    """PostgreSQL's advisory lock of a day: gone with the connection, so never left behind by a killed run.

    Whoever holds it sees that somebody waits, and ends its loop. Gives whether it is ours, at the latest after the
    patience.
    """
    with lock_connection(lake) as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCK_SPACE, day.toordinal()))
        yield bool(cursor.fetchone()[0]) or (patience_s > 0 and _lock(cursor, day.toordinal(), patience_s))


def _lock(cursor: Any, ordinal: int, patience_s: float) -> bool:
    import psycopg2.errors

    cursor.execute("SELECT set_config('lock_timeout', %s, false)", (f"{max(1, int(patience_s * 1000))}ms",))
    try:
        cursor.execute("SELECT pg_advisory_lock(%s, %s)", (LOCK_SPACE, ordinal))
    except psycopg2.errors.LockNotAvailable:
        return False
    return True


def await_turn(lake: LakeResource, days: Sequence[date], *, patience_s: float = PATIENCE_S) -> float:
    """Before a run touches its days: let runs that keep one of them up finish their cycle. Returns the seconds waited.

    They see that somebody waits and end. Beyond the patience the run goes on all the same: the fence is what protects.
    """
    began = time.monotonic()
    with lock_connection(lake) as cursor:
        for ordinal in sorted({day.toordinal() for day in days} & _kept_up(cursor)):
            if _lock(cursor, ordinal, patience_s - (time.monotonic() - began)):
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", (LOCK_SPACE, ordinal))
    return time.monotonic() - began


def kept_up_days(lake: LakeResource) -> set[date]:
    """Days that a run keeps up at this moment."""
    with lock_connection(lake) as cursor:
        return {date.fromordinal(ordinal) for ordinal in _kept_up(cursor)}


def _kept_up(cursor: Any) -> set[int]:
    cursor.execute(f"SELECT objid::bigint FROM ({_LOCKS}) AS held WHERE granted", (LOCK_SPACE,))
    return {row[0] for row in cursor.fetchall()}


_LOCKS = """
SELECT objid, granted FROM pg_locks
WHERE locktype = 'advisory' AND classid::bigint = %s AND objsubid = 2
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@contextlib.contextmanager
def lock_connection(lake: LakeResource) -> Iterator[Any]:
    """A cursor outside of any transaction: what it locks is held until the block is left, or the process ends."""
    with lake.connect("orchestration.day_lock") as conn:
        conn.rollback()
        conn.autocommit = True
        with conn.cursor() as cursor:
            yield cursor


def _is_wanted(conn: Any, day: date) -> bool:
    with conn.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM ({_LOCKS}) AS held WHERE NOT granted AND objid::bigint = %s",
            (LOCK_SPACE, day.toordinal()),
        )
        found = cursor.fetchone()[0]
    conn.rollback()
    return bool(found)


def _is_behind(conn: Any, day: date, shown: Mapping[str, Batches]) -> bool:
    from streaming import lake as door

    return any(
        batch > shown.get(feed.topic, {}).get(part, 0)
        for feed in feeds()
        for landed in door.landed_days(conn, feed.topic, days=[day])
        for part, batch in landed.batches.items()
    )


def _turn(
    context: dg.AssetExecutionContext,
    day: date,
    marts: Marts,
    shown: dict[str, dict[int, int]],
    seen: dict[str, Mapping[str, Any]],
) -> Cycle:
    """Load, then publish what reads core; `shown` and `seen` move on to what was loaded and what pipelines reported."""
    pace_run(context.log)
    began = time.monotonic()
    rows = 0
    for pipeline in sorted({feed.pipeline for feed in feeds()}):
        reports = _load(context, pipeline, day, seen.pop(pipeline, {}))
        if len(reports) == 1:  # several exporters have ledgers of their own
            seen[pipeline] = reports[0].get("partitions", {})
        for report in reports:
            rows += int(report.get("rows_inserted", 0))
            told = report.get("partitions", {}).get(day.isoformat(), {})
            for topic in {feed.topic for feed in feeds() if feed.pipeline == pipeline}:
                shown.setdefault(topic, {}).update({int(p): int(batch) for p, batch in told.get("batches", {}).items()})
                marts.note(topic, day, told)
    return Cycle(rows_inserted=rows, published=marts.publish_first(), seconds=time.monotonic() - began)


def _load(context: dg.AssetExecutionContext, uuid: str, day: date, seen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pipeline's blocks once more, on what is new, and what its exporters say that they wrote.

    Every test of the blocks must pass, as in the run's own step.
    """
    spec = project().pipeline(uuid)
    cycle = mage.Part(name=f"this cycle of {day}", before=("what the marts show of it",))
    variables = {
        "run_id": context.run.run_id,
        "code_version": spec.code_version,
        "mode": "incremental",
        "seen": seen,
        **partition_variables(spec, [day.isoformat()]),
    }
    done = mage.run_pipeline(project(), spec, variables, part=cycle)
    if done.failed is not None:
        raise mage.failed_test(spec, done, cycle)
    for each in done.warnings:
        context.log.warning(
            "%s: test %s of Mage block %s/%s failed and only warns: %s", day, each.name, uuid, each.block, each.message
        )
    return [dict(each) for each in done.outputs.values() if isinstance(each, dict)]


def _materializations(cycle: Cycle, day: date) -> Iterator[dg.AssetMaterialization]:
    for feed in feeds():
        yield _event(feed.table, day, {"rows_inserted": cycle.rows_inserted, "cycle_seconds": round(cycle.seconds, 3)})
    yield from _published(cycle.published, day)


def _published(published: Mapping[str, Any], day: date) -> Iterator[dg.AssetMaterialization]:
    for table, done in published.items():
        yield _event(table, day, {"dagster/partition_row_count": done.rows, "publish_seconds": round(done.seconds, 3)})


def _event(table: str, day: date, metadata: Mapping[str, Any]) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset_key=dg.AssetKey(table.split(".")), partition=day.isoformat(), metadata=dict(metadata)
    )
