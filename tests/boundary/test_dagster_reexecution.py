"""A run of a backfill that is executed again: what Dagster leaves of it, and that it still rebuilds."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy
from dagster._core.storage.tags import BACKFILL_ID_TAG
from dagster._core.test_utils import in_process_test_workspace, instance_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from orchestration.definitions import defs
from orchestration.defs.partitions import range_tags
from orchestration.defs.runs import BACKFILL_TAG
from orchestration.defs.transform.assets import is_of_backfill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Again = Callable[[dg.DagsterRun], dg.DagsterRun]

CONFIG = {"ops": {"retail_invoices": {"config": {"variables": {"mode": "rebuild"}}}}}
DAY = date(2010, 12, 1)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with instance_for_test() as found:  # an ephemeral one has no workspace
        yield found


@pytest.fixture
def execute_again(instance: dg.DagsterInstance) -> Iterator[Again]:
    """What Dagster's button *Re-execute all* makes of a run."""
    origin = LoadableTargetOrigin(module_name="orchestration.definitions")
    with in_process_test_workspace(instance, origin) as workspace:
        [location] = workspace.code_locations
        [repository] = location.get_repositories().values()

        def again(run: dg.DagsterRun) -> dg.DagsterRun:
            return instance.create_reexecuted_run(
                request_context=workspace,
                parent_run=run,
                code_location=location,
                remote_job=repository.get_full_job(run.job_name),
                strategy=ReexecutionStrategy.ALL_STEPS,
                use_parent_run_tags=True,
            )

        yield again


def failed_run(instance: dg.DagsterInstance, **tags: str) -> dg.DagsterRun:
    return instance.create_run_for_job(
        job_def=defs.resolve_job_def("load_days"),
        run_config=CONFIG,
        tags={**range_tags(DAY, DAY), **tags},
        status=dg.DagsterRunStatus.FAILURE,
    )


def test_a_run_of_a_backfill_that_has_ended_rebuilds_as_often_as_it_is_executed_again(
    instance: dg.DagsterInstance, execute_again: Again
) -> None:
    first = failed_run(instance, **{BACKFILL_ID_TAG: "ended"})
    second = execute_again(first)
    assert BACKFILL_ID_TAG not in second.tags, "what this is about: Dagster leaves it out"
    assert is_of_backfill(instance, second), "though the first one failed before it could tell"
    third = execute_again(instance.get_run_by_id(second.run_id) or second)
    instance.delete_run(first.run_id)  # as old runs are
    instance.delete_run(second.run_id)
    assert BACKFILL_TAG in third.tags
    assert is_of_backfill(instance, third)


def test_a_run_that_no_backfill_launched_only_loads_however_often(
    instance: dg.DagsterInstance, execute_again: Again
) -> None:
    first = failed_run(instance)
    assert not is_of_backfill(instance, first)
    assert not is_of_backfill(instance, execute_again(first))


def test_a_rebuild_that_the_launchpad_asked_for_is_asked_for_again(
    instance: dg.DagsterInstance, execute_again: Again
) -> None:
    assert execute_again(failed_run(instance)).run_config == CONFIG
