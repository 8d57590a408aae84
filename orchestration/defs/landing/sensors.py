"""The trigger: waits for landed batches, reports them, and asks for a run of every day that the marts lag behind.

Belongs here: asking the ledger and Dagster's instance. Not here: choosing the days (orchestration/triggers.py).
"""

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from dagster._core.storage.tags import PRIORITY_TAG

from orchestration.defs import keep_up
from orchestration.defs.cursors import read_cursor
from orchestration.defs.jobs import load_days
from orchestration.defs.partitions import FIRST_DAY, last_day, range_tags, today
from orchestration.defs.resources import LakeResource
from orchestration.defs.runs import busy_days, failures_by_day, is_one_queued, runs_at_work
from orchestration.defs.topics import MARTS_READER, Feed, feeds
from orchestration.settings import OrchestrationSettings
from orchestration.triggers import DayRange, Pending, choose_ranges, landed_key

# Below the 60 s after which Dagster gives a tick up; the daemon then asks again within 5 s, its constant loop.
WAIT_S = 25.0
# While days are pending but at work, ask again this often, whatever lands: a steady flow wakes five times a second, and
# each asking is half a dozen queries of the lake and of Dagster's storage.
BUSY_POLL_S = 1.0
RANGE_TAG = "retail/range_key"


@dg.sensor(
    job=load_days,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Waits in its tick for a landed batch, reports it on the landing asset, and requests a run for every day on "
        "which more has landed than the marts show: late days too, many days as one ranged run."
    ),
)
def landed_batches(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult | dg.SkipReason:
    """Return as soon as there is a day to load or a batch to report, at the latest after WAIT_S."""
    deadline = time.monotonic() + WAIT_S
    cursors = read_cursor(context, _horizons)
    with lake.connect("orchestration.landed_batches") as conn, lake.connect("orchestration.wait_landed") as waiting:
        _listen(waiting)
        while True:
            pending = _pending(conn)
            ranges = _choose(context.instance, pending) if pending else []
            left = deadline - time.monotonic()
            if ranges or left <= 0:
                break
            if pending:
                time.sleep(min(left, BUSY_POLL_S))
            else:
                _wait(waiting, left)
        events, moved = _report(conn, cursors)
    if not ranges and not events:
        return dg.SkipReason(f"{len(pending)} day(s) at work or waiting; nothing new" if pending else "nothing landed")
    return dg.SensorResult(
        run_requests=[_request(each, _keep_up_s()) for each in ranges],
        asset_events=events,
        cursor=json.dumps(moved, sort_keys=True),
    )


def _horizons(cursor: Mapping[str, Any]) -> dict[str, str]:
    """Topic -> the transaction up to which its batches are reported (`lake.batches_after`)."""
    return {topic: str(int(horizon)) for topic, horizon in cursor.items()}


def _request(days: DayRange, keep_up_s: float) -> dg.RunRequest:
    """Without a run key: Dagster would drop a repeated key for ever, and it is the ledger that says what is needed.

    A run of one day goes on while its day's batches land; a run of many days brings what was late or missed, and ends.
    Today's goes before other days that wait in the queue: it is what the report is looked at for.
    """
    tags = {**range_tags(days.first, days.last), RANGE_TAG: days.key}
    if days.first <= today(datetime.now(tz=UTC)) <= days.last:
        tags[PRIORITY_TAG] = "1"
    if days.first == days.last and keep_up_s:
        tags[keep_up.TAG] = f"{keep_up_s:g}"
    return dg.RunRequest(tags=tags)


def _keep_up_s() -> float:
    return OrchestrationSettings.from_env(os.environ).keep_up_s


def _pending(conn: Any) -> list[Pending]:
    from streaming import lake

    found: dict[date, list[str]] = {}
    for feed in feeds():
        for each in lake.pending_days(conn, feed.topic, MARTS_READER):
            found.setdefault(each.event_day, []).append(f"{feed.topic}@{landed_key(each.landed)}")
    return [Pending(day=day, landed="|".join(parts)) for day, parts in sorted(found.items())]


def _listen(waiting: Any) -> None:
    """Before the first look: what lands after it is told, so nothing is waited for that is there already."""
    from streaming import lake

    lake.listen(waiting)


def _wait(waiting: Any, seconds: float) -> None:
    from streaming import lake

    lake.wait_landed(waiting, seconds)


def _choose(instance: dg.DagsterInstance, pending: list[Pending]) -> list[DayRange]:
    now, at_work = datetime.now(tz=UTC), runs_at_work(instance)
    is_queued = is_one_queued(at_work, load_days.name)
    return choose_ranges(
        pending,
        busy=busy_days(at_work, now.timestamp()),
        failures=failures_by_day(instance, load_days.name),
        first_day=FIRST_DAY,
        last_day=today(now) if is_queued else last_day(now),  # behind a queued run only the last day is asked for
        now=now.timestamp(),
        is_one_queued=is_queued,
    )


def _report(conn: Any, cursors: Mapping[str, str]) -> tuple[list[dg.AssetMaterialization], dict[str, str]]:
    """One materialization a topic for all batches since the last tick."""
    from streaming import lake

    events, moved = [], dict(cursors)
    for feed in feeds():
        batches, moved[feed.topic] = lake.batches_after(conn, feed.topic, cursors.get(feed.topic))
        if batches:
            events.append(_materialization(feed, batches))
    return events, moved


def _materialization(feed: Feed, batches: list[Any]) -> dg.AssetMaterialization:
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for batch in batches:
        part = str(batch.topic_partition)
        first[part] = min(first.get(part, batch.first_offset), batch.first_offset)
        last[part] = max(last.get(part, batch.last_offset), batch.last_offset)
    rows = sum(batch.rows for batch in batches)
    return dg.AssetMaterialization(
        asset_key=feed.landing_key,
        description=f"{rows} events of {feed.topic} landed in {len(batches)} batch(es)",
        metadata={
            "rows": rows,
            "dead_letters": sum(batch.dead_letters for batch in batches),
            "batches": len(batches),
            "first_offsets": dg.MetadataValue.json(first),
            "last_offsets": dg.MetadataValue.json(last),
            "newest_landed_at": dg.MetadataValue.timestamp(max(batch.landed_at for batch in batches)),
        },
    )
