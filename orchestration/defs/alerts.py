"""Alerts: failed runs, checks that begin to fail, assets that are not fresh any more, told once each.

Belongs here: finding them in Dagster's instance. Not here: words and delivery (orchestration/alerts.py).
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import dagster as dg
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.tags import BACKFILL_ID_TAG, WILL_RETRY_TAG

from orchestration import alerts
from orchestration.alerts import Alert
from orchestration.defs.cursors import read_cursor
from orchestration.defs.partitions import days_in_tags
from orchestration.defs.runs import BACKFILL_TAG
from orchestration.defs.transform.assets import REBUILD

# A check that only warns may fail now and then (the mart moves on while the report is asked); three times in a row is
# no coincidence.
WARNINGS_IN_A_ROW = 3
EVENTS_A_TICK = 1000
INTERRUPTED = dg.DagsterExecutionInterruptedError.__name__
NO_REASON = "This run has been marked as failed from outside the execution context."  # Dagster's, of a run it gave up
RUNS_A_TICK = alerts.MAX_WAITING  # as many as a tick can keep, whatever the receiver does; the next tick goes on


@dg.sensor(
    name="alert_failed_runs",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="Tells each failed run with its reason and the next step: in the log, and to ALERT_WEBHOOK_URL.",
)
def alert_failed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One alert a failed run.

    Dagster's own kind of sensor for this has no place for alerts that are not delivered yet.
    """
    told = read_cursor(context, _told)
    return _tell(context, told, _failed_runs(context, told))


def _told(cursor: Mapping[str, Any]) -> dict[str, Any]:
    """What both sensors' cursors hold: the newest event that was looked at, and the alerts that wait (`Kept`)."""
    # Dagster's own kind of sensor, which `alert_failed_runs` was before, calls its event so.
    event = cursor.get("event", cursor.get("record_id"))
    waiting = [alerts.kept_from(each) for each in cursor.get("waiting", [])]
    return {"event": None if event is None else int(event), "waiting": waiting}


def _told_of_checks(cursor: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with how often in a row each check has failed, and the checks and assets that were told."""
    failed = {str(name): int(times) for name, times in cursor.get("checks", {}).items()}
    names = {each: [str(name) for name in cursor.get(each, [])] for each in ("told", "stale")}
    return {**_told(cursor), "checks": failed, **names}


def _failed_runs(context: dg.SensorEvaluationContext, told: dict[str, Any]) -> Iterable[Alert]:
    """Runs of this code location that have failed since the event that `told` names; of the past, none."""
    if told["event"] is None:
        newest = context.instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
        told["event"] = newest[0].storage_id if newest else 0
        return
    wanted = dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_FAILURE, after_storage_id=told["event"])
    for record in context.instance.fetch_run_status_changes(wanted, limit=RUNS_A_TICK, ascending=True).records:
        told["event"] = record.storage_id
        run, event = context.instance.get_run_by_id(record.run_id), record.event_log_entry.dagster_event
        if run is None or event is None or not _is_of_here(run, context):
            continue
        failed = _events(context.instance, run.run_id, {dg.DagsterEventType.STEP_FAILURE})
        if not failed and event.message == NO_REASON:
            failed = _why_given_up(context.instance, run.run_id)
        yield run_alert(run, event, failed)


def _events(instance: dg.DagsterInstance, run_id: str, of_type: set[dg.DagsterEventType]) -> list[dg.DagsterEvent]:
    """What a run's log has of these types, oldest first."""
    records = instance.get_records_for_run(run_id, of_type=of_type).records
    return [each.event_log_entry.get_dagster_event() for each in records]


def _why_given_up(instance: dg.DagsterInstance, run_id: str) -> list[dg.DagsterEvent]:
    """The last error that Dagster itself met with a run before its failure, which does not repeat it.

    That the code server is away, or that a run's process cannot load the code, stands there alone.
    """
    events = _events(instance, run_id, {dg.DagsterEventType.ENGINE_EVENT, dg.DagsterEventType.RUN_FAILURE})
    before = takewhile(lambda each: each.event_type is not dg.DagsterEventType.RUN_FAILURE, events)
    return [each for each in before if getattr(each.event_specific_data, "error", None)][-1:]


def _is_of_here(run: dg.DagsterRun, context: dg.SensorEvaluationContext) -> bool:
    """Whether the run is of this code location: another one tells its own."""
    of, here = run.remote_job_origin, context.code_location_origin
    return (of.location_name if of else None) == (here.location_name if here else None)


def _tell(context: dg.SensorEvaluationContext, told: dict[str, Any], found: Iterable[Alert]) -> dg.SkipReason:
    """Tell what was found and what still waits; the cursor keeps what was not taken."""
    new = list(found)
    kept = alerts.tell(new, told["waiting"], webhook(), now=datetime.now(UTC))
    context.update_cursor(json.dumps({**told, "waiting": [asdict(each) for each in kept]}, sort_keys=True))
    return dg.SkipReason(f"{len(new)} alert(s)" + (f"; {len(kept)} wait for the receiver" if kept else ""))


def run_alert(run: dg.DagsterRun, failure: dg.DagsterEvent, steps: Sequence[dg.DagsterEvent]) -> Alert:
    """A failed run in words: the first error of ours in the step that failed, else the innermost, else the run's own.

    An error of ours says what was tried and what to do; what caused it stands in its message.
    """
    chain = [each for step in steps[:1] for each in causes(getattr(step.event_specific_data, "error", None))]
    telling = [each for each in chain if each.cls_name != INTERRUPTED]  # that one says no more than its name
    ours = [each for each in telling if each.cls_name in alerts.NEXT_STEPS]
    reason = (ours or telling[-1:])[0].message.strip() if telling else (failure.message or "no reason was recorded")
    names = [str(each.cls_name) for each in ours or reversed(chain)]
    next_step = alerts.next_step(names, reason)
    if _is_lost_rebuild(run) and next_step != alerts.NEXT_STEPS["Failure"]:  # what was refused is started anew
        next_step += alerts.REBUILD
    return Alert(
        kind="run_failed",
        subject=run.job_name,
        reason=reason,
        next_step=next_step,
        run_id=run.run_id,
        days=[day.isoformat() for day in days_in_tags(run.tags)],
    )


def _is_lost_rebuild(run: dg.DagsterRun) -> bool:
    """Whether nobody rebuilds what this run was to: Dagster itself runs again what has crashed."""
    is_rebuild = bool({BACKFILL_ID_TAG, BACKFILL_TAG} & set(run.tags)) or REBUILD in _modes(run.run_config)
    return is_rebuild and run.tags.get(WILL_RETRY_TAG) != "true"


def _modes(run_config: Mapping[str, Any]) -> list[Any]:
    """The variable `mode` of each asset that a person has given variables in the launchpad."""
    configs = [(op or {}).get("config") or {} for op in (run_config.get("ops") or {}).values()]
    return [(config.get("variables") or {}).get("mode") for config in configs]


def causes(error: Any) -> list[Any]:
    """An error and what caused it, outermost first."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.cause
    return chain


@dg.sensor(
    name="alert_checks_and_freshness",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description=(
        "Tells once when an asset check begins to fail (warnings: at the third time in a row) and when an asset is not "
        "as fresh as its policy says."
    ),
)
def alert_checks_and_freshness(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Compare with what was told before; the cursor holds that."""
    told = read_cursor(context, _told_of_checks)
    return _tell(context, told, [*_checks(context.instance, told), *_freshness(context, told)])


def webhook() -> str:
    """Where alerts go, read when there is one to tell."""
    return os.environ.get("ALERT_WEBHOOK_URL", "").strip()


def _checks(instance: dg.DagsterInstance, told: dict[str, Any]) -> Iterable[Alert]:
    """Checks that have begun to fail since the event that `told` names; the first look only notes the newest."""
    if told["event"] is None:
        newest = _evaluations(instance, limit=1, ascending=False)
        told["event"] = newest[0].storage_id if newest else 0
        return
    for record in _evaluations(instance, after=told["event"], limit=EVENTS_A_TICK, ascending=True):
        told["event"] = record.storage_id
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        evaluation = event.asset_check_evaluation_data
        name = f"{evaluation.asset_key.to_user_string()}: {evaluation.check_name}"
        before = told["checks"].pop(name, 0)
        if evaluation.passed:
            told["told"] = [each for each in told["told"] if each != name]
            continue
        told["checks"][name] = before + 1
        limit = 1 if evaluation.severity is dg.AssetCheckSeverity.ERROR else WARNINGS_IN_A_ROW
        if before + 1 >= limit and name not in told["told"]:
            told["told"].append(name)
            yield _check_alert(name, evaluation, record.run_id)


def _evaluations(
    instance: dg.DagsterInstance, *, after: int | None = None, limit: int, ascending: bool
) -> Sequence[dg.EventLogRecord]:
    """What checks have said, by the order in which it was stored.

    Dagster's default storage has a file a run, and refuses a cursor over all of them; but it keeps what checks say in
    its index as well, which is what the class that it is derived from asks.
    """
    storage = instance.event_log_storage
    wanted = dg.EventRecordsFilter(event_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION, after_cursor=after)
    if isinstance(storage, SqliteEventLogStorage):
        return SqlEventLogStorage.get_event_records(storage, wanted, limit=limit, ascending=ascending)
    return storage.get_event_records(wanted, limit=limit, ascending=ascending)


def _check_alert(name: str, evaluation: Any, run_id: str) -> Alert:
    numbers = {key: value.value for key, value in evaluation.metadata.items() if isinstance(value.value, (int, str))}
    return Alert(
        kind="check_failed",
        subject=name,
        reason=f"{evaluation.description or 'the check did not pass'} {json.dumps(numbers, default=str)}",
        next_step=alerts.NEXT_STEPS["ReconcileError"],
        run_id=run_id,
    )


def _freshness(context: dg.SensorEvaluationContext, told: dict[str, Any]) -> Iterable[Alert]:
    """Assets that were told as fresh, or not at all, and are not fresh now."""
    repository = context.repository_def
    keys = [] if repository is None else [
        key for key in repository.asset_graph.get_all_asset_keys()
        if repository.asset_graph.get(key).freshness_policy is not None
    ]  # fmt: skip
    records = context.instance.get_freshness_state_records(keys) if keys else {}
    stale = {
        key.to_user_string(): record.freshness_state
        for key, record in records.items()
        if record.freshness_state in {FreshnessState.WARN, FreshnessState.FAIL}
    }
    for name, state in sorted(stale.items()):
        if f"{name} {state.value}" not in told["stale"]:
            yield Alert(
                kind="not_fresh",
                subject=name,
                reason=f"{name} was not materialized within its freshness policy: {state.value}.",
                next_step="Has the source fallen silent, or the line? `make status`, docs/runbooks/days-pending.md.",
            )
    told["stale"] = sorted(f"{name} {state.value}" for name, state in stale.items())
