"""Model and report as assets: what a refresh records, what compares its numbers, and what ends with a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.publish import publish_all
from orchestration.definitions import defs
from orchestration.defs.serving import sensors as serving_sensors
from orchestration.defs.serving.changes import REPORT, SEMANTIC_MODEL, changed_since_refresh
from orchestration.defs.serving.sensors import published_days
from orchestration.triggers import Failures
from powerbi.refresh import history
from powerbi.standin.marts import Marts, MartsSettings
from tests.integration.orchestration.landing import event
from tests.integration.powerbi.running import Running, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.orchestration.landing import HandLanding

    Run = Callable[..., dg.ExecuteInProcessResult]

pytestmark = [
    pytest.mark.integration,
    # Google's client of BigQuery calls what Google's client of the Storage API is about to move elsewhere.
    pytest.mark.filterwarnings("ignore:Retrieving Arrow record batches:PendingDeprecationWarning"),
]


@pytest.fixture
def service(
    line_env: dict[str, str], bigquery_grpc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    """A stand-in that reads this test's marts, and the environment that points at it."""
    marts = Marts(MartsSettings.from_env({**line_env, "BIGQUERY_EMULATOR_GRPC": bigquery_grpc}))
    with running(tmp_path / "report", {}, marts=marts) as found:
        monkeypatch.setenv("POWERBI_API_URL", found.url)
        yield found


@pytest.fixture
def served(
    service: Running,
    landing: HandLanding,
    load_days: Run,
    instance: dg.DagsterInstance,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., dg.ExecuteInProcessResult]:
    """`served()` runs the job that serves reports; two days have been loaded before.

    Five pages are drawn for those tests alone that say so in their name: they take most of a run's time.
    """
    if "picture" not in request.node.name:
        monkeypatch.setattr("powerbi.pictures.export_report", lambda _settings: {"overview.png": b"\x89PNG"})
    # One machine, one clock: a quick one refreshes twice within the margin, and the days would be left out.
    monkeypatch.setattr("orchestration.defs.serving.numbers.CLOCK_MARGIN", timedelta(0))
    landing.land([event(), event(line_no=2, invoiced_at="2010-12-02T09:00:00Z")])
    assert load_days("2010-12-01", "2010-12-02").success

    def run(config: dict[str, Any] | None = None, **tags: str) -> dg.ExecuteInProcessResult:
        return defs.resolve_job_def("serve_reports").execute_in_process(
            instance=instance,
            tags=tags,
            run_config={"ops": {"powerbi__semantic_model": {"config": config or {}}}},
            raise_on_error=False,
        )

    return run


def metadata(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    found = [each for each in result.get_asset_materialization_events() if each.asset_key == key]
    return {name: value.value for name, value in found[-1].step_materialization_data.materialization.metadata.items()}


def check(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    return next(each for each in result.get_asset_check_evaluations() if each.check_name == name)


def test_model_and_report_say_what_they_show_and_keep_a_picture_of_it(
    served: Run, service: Running, instance: dg.DagsterInstance
) -> None:
    result = served()
    assert result.success
    model, report = metadata(result, SEMANTIC_MODEL), metadata(result, REPORT)
    assert model["days"] == "all", "no refresh is known yet"
    assert model["url"].startswith(service.url)
    assert model["seconds"] > 0
    assert model["published_to_shown_s"] > 0
    assert model["partitions"] == "all"  # the first refresh fills the empty model
    assert report["url"] == f"{service.url}/report"
    assert (Decimal(report["amount_gbp"]), Decimal(report["mart_amount_gbp"])) == (Decimal("30.6"), Decimal("30.6"))
    assert report["as_of"] <= report["refreshed_at"]
    assert report["page"].startswith("![overview.png](data:image/png;base64,")
    assert [Path(path).name for path in report["pages"]] == [f"{p.name}.png" for p in service.service.report.pages]
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in report["pages"])
    assert "<html" in Path(report["html"]).read_text(encoding="utf-8")
    compared = check(result, "report_equals_mart")
    assert compared.passed, compared.description
    assert compared.metadata["days_compared"].value == 2
    assert check(result, "report_is_fresh").passed
    assert changed_since_refresh(instance) is None


def test_pictures_are_taken_when_a_person_asks_and_else_now_and_then(served: Run, service: Running) -> None:
    first = metadata(served(), REPORT)
    asked_by_sensor = metadata(served(**{"dagster/sensor_name": "published_days"}), REPORT)
    assert asked_by_sensor["pictures_taken_at"] == first["pictures_taken_at"]
    assert asked_by_sensor["page"] == first["page"]
    service.fault(kind="status", status=403, path="ExportTo")
    refused = served()
    assert refused.success
    assert "403" in metadata(refused, REPORT)["pictures"]


def test_number_that_the_report_shows_wrongly_is_named(served: Run, service: Running) -> None:
    assert served().success
    replace = service.service.copy.replace

    def losing(*arguments: Any, **named: Any) -> int:
        written = replace(*arguments, **named)
        cursor = service.service.copy.reader()
        cursor.execute("UPDATE model.Sales SET gross_sales_gbp = gross_sales_gbp + 0.01 WHERE line_no = 2")
        cursor.close()
        return written

    service.service.copy.replace = losing  # type: ignore[method-assign]
    result = served({"whole": True})
    assert result.success, [each.event_specific_data for each in result.get_step_failure_events()]
    compared = check(result, "report_equals_mart")
    assert not compared.passed
    assert compared.severity is dg.AssetCheckSeverity.ERROR
    assert "2010-12-02, [Gross Sales]: the report shows 15.31, the warehouse 15.3" in (compared.description or "")


def test_comparison_that_row_level_security_forbids_is_never_shown_as_passed(served: Run, service: Running) -> None:
    service.fault(kind="status", status=401, code="PowerBINotAuthorizedException", path="executeQueries", count=9)
    result = served()
    assert result.success
    compared = check(result, "report_equals_mart")
    assert not compared.passed
    assert compared.severity is dg.AssetCheckSeverity.WARN
    assert "Not verified" in (compared.description or "")


def test_day_that_does_not_reconcile_blocks_the_refresh(served: Run, service: Running, warehouse: Any) -> None:
    warehouse.run(
        f"UPDATE `{warehouse.table_id('control.reconciliation')}` SET is_reconciled = FALSE"
        " WHERE event_day = DATE '2010-12-02'"
    )
    result = served()
    assert not result.success
    assert "2010-12-02" in str(result.get_step_failure_events()[0].event_specific_data)
    assert history(service.client()) == []


def date_publications_back(warehouse: Any) -> None:
    """Long before the refresh, whatever the clocks say."""
    ledger = warehouse.table_id("control.publication")
    warehouse.run(f"UPDATE `{ledger}` SET published_at = TIMESTAMP '2010-12-24 00:00:00+00' WHERE TRUE")


def test_refresh_of_days_that_a_person_names_comes_with_what_has_changed(
    served: Run, service: Running, landing: HandLanding, load_days: Run, warehouse: Any
) -> None:
    assert served().success
    date_publications_back(warehouse)
    landing.land([event(line_no=3, invoiced_at="2011-01-05T09:00:00Z")])
    assert load_days("2011-01-05").success
    model = metadata(served({"days": ["2010-12-01"]}), SEMANTIC_MODEL)
    assert model["days"] == "2010-12-01, 2011-01-05"
    assert [each for each in model["refreshed"] if each[0] == "Sales"] == [["Sales", "2010Q412"], ["Sales", "2011Q101"]]
    assert metadata(served(), SEMANTIC_MODEL)["days"] == "all"


def refresh_by_hand(instance: dg.DagsterInstance, *keys: dg.AssetKey) -> dg.ExecuteInProcessResult:
    """What materializing the model, or model and report, does from the UI: dimensions are not published before."""
    return defs.resolve_job_def("serve_reports").execute_in_process(
        instance=instance, asset_selection=[SEMANTIC_MODEL, *keys], raise_on_error=False
    )


def test_customer_that_no_dimension_knows_yet_counts_in_the_report_and_beside_it(
    served: Run, landing: HandLanding, load_days: Run, instance: dg.DagsterInstance
) -> None:
    assert served().success
    landing.land([event(line_no=3, invoice_no="536400", customer_id="99999")])
    assert load_days("2010-12-01").success
    result = refresh_by_hand(instance, REPORT)
    assert result.success
    compared = check(result, "report_equals_mart")
    assert compared.passed, compared.description


def test_refresh_by_hand_leaves_what_its_dimensions_do_not_know_to_the_next_one(
    served: Run, landing: HandLanding, load_days: Run, instance: dg.DagsterInstance, warehouse: Any
) -> None:
    assert served().success
    assert changed_since_refresh(instance) is None
    landing.land([event(line_no=3, invoice_no="536400", customer_id="99999")])
    assert load_days("2010-12-01").success
    assert refresh_by_hand(instance).success
    changed = changed_since_refresh(instance)
    assert changed is not None, "the new customer is in no dimension yet"
    assert {str(day) for day in changed.days or ()} == {"2010-12-01"}
    assert served().success
    assert changed_since_refresh(instance) is None
    customers = warehouse.run(f"SELECT customer_id FROM `{warehouse.table_id('mart.customers')}`").rows
    assert "99999" in {row["customer_id"] for row in customers}


def test_days_published_by_the_command_line_are_shown_by_the_next_refresh(
    served: Run, landing: HandLanding, load_days: Run, warehouse: Any
) -> None:
    assert served().success
    date_publications_back(warehouse)
    publish_all(warehouse, load_catalog(), ["mart.daily_sales_by_country"], days=[date(2010, 12, 2)], run_id="by-hand")
    landing.land([event(line_no=3, invoiced_at="2011-01-05T09:00:00Z")])
    assert load_days("2011-01-05").success
    assert metadata(served(), SEMANTIC_MODEL)["days"] == "2010-12-02, 2011-01-05"


def test_spent_budget_lets_the_change_wait_and_the_next_day_shows_it(
    served: Run, service: Running, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_sensors, "WAIT_S", 0.0)
    monkeypatch.setattr(serving_sensors, "SETTLED_S", 0.0)
    monkeypatch.setenv("SERVE_EVERY_S", "0")
    monkeypatch.setenv("POWERBI_REFRESH_MODE", "basic")
    service.service.refreshes.is_shared = True

    def ticked() -> Any:
        return published_days(dg.build_sensor_context(instance=instance, definitions=defs))

    assert isinstance(ticked(), dg.RunRequest)
    for _ in range(8):
        service.service.refreshes.accept({"notifyOption": "NoNotification"})
        while history(service.client(), top=1)[0]["status"] == "Unknown":
            time.sleep(0.02)
    waiting = ticked()
    assert isinstance(waiting, dg.SkipReason)
    assert "allows the next refresh at" in (waiting.skip_message or "")
    assert not served().success
    assert changed_since_refresh(instance) is not None
    for one in service.service.state.all("refresh"):  # the next day
        service.service.state.put("refresh", one["requestId"], {**one, "startTime": "2026-01-01T10:00:00.000Z"})
    monkeypatch.setattr(serving_sensors, "failures_in_a_row", lambda *_: Failures(0, 0.0))
    assert isinstance(ticked(), dg.RunRequest)
    model = metadata(served(), SEMANTIC_MODEL)
    assert model["refreshes_left_today"] == 7
    assert changed_since_refresh(instance) is None


def test_run_that_is_ended_cancels_its_refresh(served: Run, service: Running, tmp_path: Path) -> None:
    del served
    service.fault(kind="slow_refresh", seconds=120)
    home = tmp_path / "dagster"
    home.mkdir()
    command = [
        sys.executable, "-W", "ignore", "-m", "dagster", "asset", "materialize", "-m", "orchestration.definitions",
        "--select", "powerbi/semantic_model",
    ]  # fmt: skip
    env = {**os.environ, "DAGSTER_HOME": str(home)}
    with (tmp_path / "run.log").open("wb") as log:
        run = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        assert _within(120, lambda: bool(history(service.client()))), (tmp_path / "run.log").read_text()
        run.send_signal(signal.SIGINT)  # what terminating a run from the UI sends to its process
        assert _within(60, lambda: history(service.client())[0]["status"] == "Cancelled")
    finally:
        run.kill()
        run.wait(timeout=30)


def _within(seconds: float, what: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.1)
    return False
