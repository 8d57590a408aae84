"""How long the report's next refresh waits after one that took so long."""

import threading

import dagster as dg
import pytest

from orchestration.defs.serving import sensors
from orchestration.defs.serving.changes import SEMANTIC_MODEL
from orchestration.defs.serving.sensors import NEVER_TOLD, SHARED_PAUSE_MOST_S, pause_after, published_days


@pytest.mark.parametrize(
    ("took_s", "every_s", "share", "pause_s"),
    [
        (3.0, 15.0, 0.15, 20.0),  # its share of the time
        (1.0, 15.0, 0.15, 15.0),  # never more often than the least time between two
        (60.0, 15.0, 0.15, SHARED_PAUSE_MOST_S),  # a report that falls behind all day is the worse evil
        (500.0, 15.0, 0.15, 500.0),  # half of the time is the line's in any case
        (500.0, 300.0, 1.0, 300.0),  # no limit
        (10.0, 3600.0, 0.15, 3600.0),
    ],
)
def test_the_pause_grows_with_the_refresh_up_to_a_length(
    took_s: float, every_s: float, share: float, pause_s: float
) -> None:
    assert pause_after(took_s, every_s, share) == pytest.approx(pause_s)


def test_a_refresh_that_ends_while_the_sensor_looks_is_followed_by_its_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, may_end = threading.Event(), threading.Event()

    @dg.op(out=dg.Out(dg.Nothing))
    def refresh(context: dg.OpExecutionContext) -> None:
        context.log_event(dg.AssetMaterialization(SEMANTIC_MODEL))
        shown.set()
        may_end.wait(60)

    @dg.job(executor_def=dg.in_process_executor)
    def serve_reports() -> None:
        refresh()

    def changed_since_refresh(_: dg.DagsterInstance) -> object:
        may_end.set()
        run.join()
        return NEVER_TOLD

    monkeypatch.setattr(sensors, "changed_since_refresh", changed_since_refresh)
    monkeypatch.setattr(sensors, "_is_history_lost", lambda _: False)
    monkeypatch.setattr(sensors, "WAIT_S", 0.0)
    monkeypatch.setenv("LAKE_DSN", "postgresql://lake")
    monkeypatch.setenv("SERVE_EVERY_S", "0")
    monkeypatch.setenv("SERVE_SHARE", "0.01")
    with dg.instance_for_test() as instance:
        run = threading.Thread(target=serve_reports.execute_in_process, kwargs={"instance": instance})
        run.start()
        assert shown.wait(60)
        for reason in ("a refresh is at work", "the last refresh took long"):
            told = published_days(dg.build_sensor_context(instance=instance))
            assert isinstance(told, dg.SkipReason)
            assert reason in (told.skip_message or "")
