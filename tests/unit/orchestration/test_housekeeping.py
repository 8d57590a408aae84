"""Old runs go; what the UI shows as built stays built. On a real instance with its own SQLite files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from orchestration.errors import SettingsError
from orchestration.housekeeping import purge_runs
from orchestration.settings import OrchestrationSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

DAYS = dg.StaticPartitionsDefinition(["mon", "tue"])


@dg.asset(partitions_def=DAYS)
def daily() -> None:
    """An asset with partitions."""


@dg.asset
def whole() -> None:
    """An asset without."""


@dg.asset
def broken() -> None:
    raise ValueError


@pytest.fixture
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as found:
        yield found


def _run(instance: dg.DagsterInstance, asset: dg.AssetsDefinition, partition: str | None = None) -> str:
    return dg.materialize([asset], instance=instance, partition_key=partition, raise_on_error=False).run_id


def _later() -> datetime:
    return datetime.now(tz=UTC) + timedelta(seconds=1)


def test_only_the_newest_run_of_each_partition_survives_its_age(instance: dg.DagsterInstance) -> None:
    runs = {name: [_run(instance, daily, name) for _ in range(2)] for name in ("mon", "tue")}
    wholes = [_run(instance, whole) for _ in range(3)]
    failed = _run(instance, broken)

    done = purge_runs(instance, before=_later())

    assert {run.run_id for run in instance.get_runs()} == {runs["mon"][1], runs["tue"][1], wholes[2]}
    assert (done.deleted, done.kept, done.is_finished) == (5, 3, True)
    assert not instance.has_run(failed)
    assert instance.get_materialized_partitions(daily.key) == {"mon", "tue"}
    assert instance.get_latest_materialization_event(whole.key) is not None


def test_a_run_that_is_not_old_stays(instance: dg.DagsterInstance) -> None:
    _run(instance, broken)
    assert purge_runs(instance, before=datetime.now(tz=UTC) - timedelta(days=1)).deleted == 0
    assert len(instance.get_runs()) == 1


def test_a_run_at_work_stays_however_old(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(
        dg.define_asset_job("j", [whole]).resolve(asset_graph=dg.Definitions([whole]).resolve_asset_graph())
    )
    purge_runs(instance, before=_later())
    assert instance.has_run(run.run_id)


def test_a_pass_ends_at_its_limit_with_the_oldest_gone_first(instance: dg.DagsterInstance) -> None:
    runs = [_run(instance, whole) for _ in range(4)]
    done = purge_runs(instance, before=_later(), most=2)
    assert (done.deleted, done.is_finished) == (2, False)
    assert {run.run_id for run in instance.get_runs()} == set(runs[2:])
    assert purge_runs(instance, before=_later(), most=2).is_finished


def test_the_job_reads_its_age_from_the_settings(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestration.defs.housekeeping import purge_old_runs

    monkeypatch.setenv("LAKE_DSN", "postgresql://localhost/lake")
    monkeypatch.setenv("DAGSTER_RUNS_KEPT_DAYS", "7")
    _run(instance, whole)
    assert purge_old_runs.execute_in_process(instance=instance).success
    assert len(instance.get_runs()) == 2


@pytest.mark.parametrize("text", ["0", "-1", "a week", "1.5"])
def test_an_age_that_is_no_number_of_days_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="DAGSTER_RUNS_KEPT_DAYS"):
        OrchestrationSettings.from_env({"LAKE_DSN": "postgresql://localhost/lake", "DAGSTER_RUNS_KEPT_DAYS": text})
