"""Core tables: the pipelines of mage_project as assets, a partition a day.

Belongs here: what ours add to what Mage's files say. Not here: how blocks become assets (orchestration/mage_assets.py).
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
from dagster._core.storage.tags import BACKFILL_ID_TAG, PARENT_RUN_ID_TAG, ROOT_RUN_ID_TAG

from dbt_like_sql.catalog import load_catalog
from orchestration.defs.keep_up import await_turn, seconds_of
from orchestration.defs.marks import take_back_marks
from orchestration.defs.pacing import pace_run
from orchestration.defs.partitions import DAYS, TIME_ZONE, days_of_run, require_days
from orchestration.defs.resources import LakeResource
from orchestration.defs.runs import BACKFILL_TAG
from orchestration.defs.tables import table_metadata
from orchestration.defs.topics import CORE, Feed, feeds, project
from orchestration.errors import ZoneError
from orchestration.mage_assets import AssetOptions, RunOptions, build_mage_assets
from orchestration.mage_slices import READ_ON
from orchestration.mage_spec import BlockSpec, PipelineSpec
from orchestration.settings import OrchestrationSettings
from orchestration.triggers import cut_passes

REBUILD, COMPARE = "rebuild", "compare"
BYTES_A_ROW = 1_000  # of a value: one of 50 kB takes as much memory as 50 rows
LONG_WAIT_S = 0.5  # shorter ones are nothing to tell


def _options(pipeline: PipelineSpec, block: BlockSpec) -> AssetOptions:
    table = load_catalog()[block.table or ""]
    return AssetOptions(
        deps=[feed.landing_key for feed in feeds() if (feed.pipeline, feed.table) == (pipeline.uuid, block.table)],
        partitions_def=DAYS,
        group_name=CORE,
        owners=[f"team:{table.owner}"],
        kinds=frozenset({"mage", "bigquery"}),
        description=table.description,
        metadata=table_metadata(table),
    )


def _variables(context: dg.AssetExecutionContext) -> Mapping[str, Any]:
    """A backfill from the UI rebuilds its days whole, also executed again; any other run loads what they lack.

    Both begin when no other run keeps one of their days up: a rebuild could never overtake it. But one that will keep
    its day up itself begins beside the run that does, and takes the day over once its marts stand (keep_up.py): so no
    event waits while it begins.
    """
    pace_run(context.log)
    days, is_rebuild = require_days(context), is_of_backfill(context.instance, context.run)
    if is_rebuild or not seconds_of(context, days):
        waited_s = await_turn(LakeResource(), days)
        if waited_s > LONG_WAIT_S:
            context.log.info("waited %.1f s for a run that kept one of these days up", waited_s)
    return {"mode": REBUILD if is_rebuild else "incremental", READ_ON: {}}


def is_of_backfill(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the run, or one that it executes again, was launched by a backfill.

    Dagster leaves the backfill's tags out of a run that is executed again once the backfill has ended. So the run is
    given a tag of ours, which Dagster copies from one such run to the next; one that failed before it had any is found
    by its id.
    """
    ids = {run.tags[name] for name in (PARENT_RUN_ID_TAG, ROOT_RUN_ID_TAG) if name in run.tags}
    runs = (run, *(instance.get_run_by_id(each) for each in ids))
    if not any({BACKFILL_ID_TAG, BACKFILL_TAG} & set(each.tags) for each in runs if each is not None):
        return False
    if BACKFILL_TAG not in run.tags:
        instance.add_run_tags(run.run_id, {BACKFILL_TAG: "true"})
    return True


@contextlib.contextmanager
def _marts_follow(context: dg.AssetExecutionContext, variables: Mapping[str, Any]) -> Iterator[None]:
    """After a rebuild the days' marts are behind though nothing has landed, so that only this makes the sensor ask.

    Before it as well: a run that is killed leaves its days waiting. No day is asked for while this run is at work, and
    where the run publishes the marts itself, it marks them again.
    """
    if variables.get("mode") == COMPARE:
        raise dg.Failure("mode compare writes nothing, and this run would be shown as if it had. Use `compare-rules`.")
    _refuse_unknown(context.op_execution_context.op_config["variables"])
    if variables.get("mode") != REBUILD:
        yield
        return
    take_back_marks(LakeResource(), days_of_run(context))
    try:
        yield
    finally:  # whoever published meanwhile has marked them
        take_back_marks(LakeResource(), days_of_run(context))


def _refuse_unknown(given: Mapping[str, object]) -> None:
    """Before anything is read: `moed: rebuild` in the launchpad would load what days lack, and look like a rebuild."""
    pipelines = project().pipelines
    ours = {name for each in pipelines for name in (each.partition_variable, each.last_partition_variable) if name}
    known = sorted({"mode", *ours, *(name for each in pipelines for name in each.variables)})
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise dg.Failure(
            f"the run's variables name {', '.join(unknown)}, which no pipeline declares; known: {', '.join(known)}. "
            "Nothing was loaded. Mend the name in the launchpad, or declare it under `variables` in the pipeline's "
            "metadata.yaml."
        )


def _refuse_other_zone(feed: Feed, zone: str | None) -> None:
    """Before anything is loaded: a partition of one name would be another span of time in each table."""
    if zone not in (None, TIME_ZONE):
        raise ZoneError(
            f"loading {feed.table} from {feed.topic}: its days in the lake end at midnight in {zone} (timeZone of its "
            f"contract), Dagster's partitions at midnight in {TIME_ZONE}. Nothing of it was loaded. Begin a new topic "
            f"with timeZone {TIME_ZONE}, or take the pipeline {feed.pipeline} out."
        )


def _passes(pipeline: PipelineSpec, days: Sequence[str]) -> list[list[str]]:
    """As many days in one pass as memory holds: one ledger query and one transaction for all of them."""
    from streaming import lake

    settings = OrchestrationSettings.from_env(os.environ)
    rows: dict[str, int] = {}
    with contextlib.closing(lake.connect(settings.lake_dsn, application_name="orchestration.passes")) as conn:
        for feed in feeds():
            if feed.pipeline == pipeline.uuid:
                _refuse_other_zone(feed, lake.time_zone(conn, feed.topic))
                for landed in lake.landed_days(conn, feed.topic, days=[date.fromisoformat(day) for day in days]):
                    day = landed.event_day.isoformat()
                    rows[day] = rows.get(day, 0) + max(landed.rows, landed.payload_bytes // BYTES_A_ROW)
    return cut_passes(days, rows)


core_tables = build_mage_assets(
    project(), options=_options, runs=RunOptions(variables=_variables, passes=_passes, around=_marts_follow)
)
