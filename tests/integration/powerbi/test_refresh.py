"""The refresh client against the stand-in: only what changed, followed to its end, through every trouble on the way."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from powerbi.errors import (
    AuthorizationError,
    BudgetSpentError,
    RefreshError,
    ServiceError,
    SettingsError,
    ThrottledError,
)
from powerbi.refresh import Refresher, Wish, budget_left, history, query_row, refresh_model
from powerbi.rest import StandInCredential
from powerbi.settings import PowerBiSettings
from tests.integration.powerbi.running import Running, running
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

MARCH = dt.date(2024, 3, 5)


def refresh(standin: Running, **arguments: Any) -> Any:
    return refresh_model(standin.settings(), client=standin.client(), **arguments)


def test_first_refresh_fills_the_empty_model_with_one_reading(standin: Running, lines: list[dict[str, Any]]) -> None:
    done = refresh(standin, days=[MARCH])
    assert done.mode == "enhanced"
    assert requests.get(standin.url + "/status", timeout=10).json()["rows"] == len(lines)
    assert [name for name, _ in standin.marts.queries].count("invoice_lines") == 1


def test_later_refresh_reads_only_the_months_of_the_touched_days(standin: Running) -> None:
    refresh(standin)
    standin.marts.queries.clear()
    done = refresh(standin, days=[MARCH, dt.date(2024, 3, 9), dt.date(2025, 1, 1)])
    assert [one for one in done.objects if one[0] == "Sales"] == [("Sales", "2024Q103"), ("Sales", "2025Q101")]
    cuts = [str(cut[1]) for name, cut in standin.marts.queries if name == "invoice_lines"]
    assert cuts == ["2024-03-01", "2025-01-01"]


def test_a_day_of_a_month_to_come_is_shown_at_once_and_by_every_refresh_after_it(
    standin: Running, lines: list[dict[str, Any]]
) -> None:
    def rows() -> Any:
        return requests.get(standin.url + "/status", timeout=10).json()["rows"]

    refresh(standin)
    ahead = (dt.datetime.now(dt.UTC).date().replace(day=28) + dt.timedelta(days=4)).replace(day=1)
    one = {**lines[-1], "invoice_date": ahead}
    standin.marts.tables = shop.marts([*lines, one])
    refresh(standin, days=[ahead])
    assert rows() == len(lines) + 1
    standin.marts.tables = shop.marts([*lines, one, one])
    refresh(standin, days=[ahead])
    assert rows() == len(lines) + 2
    standin.marts.tables = shop.marts([*lines, one, one, one])
    refresh(standin)
    assert rows() == len(lines) + 3


def test_refresh_of_everything_reads_old_months_again(standin: Running, lines: list[dict[str, Any]]) -> None:
    refresh(standin)
    standin.marts.tables = shop.marts(lines[:100])
    refresh(standin)
    assert requests.get(standin.url + "/status", timeout=10).json()["rows"] == 100


def test_refresh_waits_for_another_that_runs_and_then_starts_its_own(standin: Running) -> None:
    refresh(standin)
    standin.fault(kind="slow_refresh", seconds=0.6)
    other = threading.Thread(target=lambda: refresh(standin, days=[MARCH]))
    other.start()
    while history(standin.client(), top=1)[0]["status"] != "Unknown":
        time.sleep(0.01)
    running_id = history(standin.client(), top=1)[0]["requestId"]
    done = refresh(standin, days=[MARCH])
    other.join()
    assert done.request_id != running_id
    entries = {one["requestId"]: one for one in history(standin.client())}
    assert entries[running_id]["endTime"] <= entries[done.request_id]["startTime"]


def test_data_of_the_future_is_refused_before_anything_starts(standin: Running) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
    with pytest.raises(RefreshError, match="still to come"):
        refresh(standin, not_before=later)
    assert history(standin.client()) == []


def test_failed_refresh_raises_with_the_services_reason(standin: Running) -> None:
    standin.fault(kind="fail_refresh", code="ModelRefreshFailed_CredentialsNotSpecified", message="no credentials")
    with pytest.raises(RefreshError, match="no credentials") as caught:
        refresh(standin)
    assert caught.value.code == "ModelRefreshFailed_CredentialsNotSpecified"
    assert caught.value.request_id is not None


def test_interrupted_caller_cancels_its_refresh(standin: Running) -> None:
    standin.fault(kind="slow_refresh", seconds=30)
    client = standin.client()
    polls = iter(range(3))

    def interrupting(_: float) -> None:
        if next(polls, None) is None:
            raise KeyboardInterrupt
        time.sleep(0.02)

    client.sleep = interrupting
    refresher = Refresher(client, shop.model(), sleep=interrupting)
    with pytest.raises(KeyboardInterrupt):
        refresher.run(Wish())
    for _ in range(200):
        if history(standin.client(), top=1)[0]["status"] == "Cancelled":
            break
        time.sleep(0.02)
    assert history(standin.client(), top=1)[0]["status"] == "Cancelled"


def test_refresh_stuck_beyond_the_time_limit_is_cancelled(standin: Running) -> None:
    standin.fault(kind="slow_refresh", seconds=60)
    refresher = Refresher(standin.client(), shop.model(), timeout_s=0.3, sleep=lambda s: time.sleep(min(s, 0.05)))
    with pytest.raises(RefreshError, match="no end after"):
        refresher.run(Wish())
    time.sleep(0.2)
    assert history(standin.client(), top=1)[0]["status"] == "Cancelled"


def test_throttling_is_waited_out_as_long_as_the_service_says(standin: Running) -> None:
    waits: list[float] = []
    standin.fault(kind="throttle", retry_after=7, count=3, path="refreshes")
    client = standin.client()
    client.sleep = waits.append
    refresh_model(standin.settings(), client=client)
    assert waits[:3] == [7.0, 7.0, 7.0]


def test_throttling_longer_than_anybody_waits_tells_how_long_was_asked_for(standin: Running) -> None:
    standin.fault(kind="throttle", retry_after=3600, path="refreshes")
    with pytest.raises(ThrottledError, match="asked to wait for 3600 s"):
        refresh(standin)


@pytest.mark.parametrize("path", ["GET", "POST"])
def test_a_redirect_is_no_success(standin: Running, path: str) -> None:
    standin.fault(kind="status", status=302, path=path)
    with pytest.raises(ServiceError, match="a proxy in between") as told:
        refresh(standin)
    assert told.value.status == 302


def test_expired_token_is_renewed_once(standin: Running) -> None:
    standin.fault(kind="expire_tokens")
    assert history(standin.client()) == []
    standin.fault(kind="expire_tokens", count=2)
    with pytest.raises(AuthorizationError):
        history(standin.client())


def test_token_that_expires_while_a_refresh_is_followed_is_renewed(standin: Running) -> None:
    standin.fault(kind="slow_refresh", seconds=0.2)
    standin.fault(kind="expire_tokens", path="GET " + standin.client().dataset("/refreshes/").removeprefix(standin.url))
    assert refresh(standin).mode == "enhanced"
    assert len(history(standin.client())) == 1


def test_server_error_while_a_refresh_is_followed_does_not_start_another(standin: Running) -> None:
    standin.fault(kind="slow_refresh", seconds=0.2)
    followed = "GET " + standin.client().dataset("/refreshes/").removeprefix(standin.url)
    standin.fault(kind="status", status=503, count=3, path=followed)
    standin.fault(kind="drop", path=followed)
    assert refresh(standin).mode == "enhanced"
    assert len(history(standin.client())) == 1


def test_refresh_whose_acceptance_is_lost_is_found_and_followed(standin: Running) -> None:
    refresh(standin)
    standin.fault(kind="drop", path="POST")
    done = refresh(standin, days=[MARCH])
    assert history(standin.client())[0]["requestId"] == done.request_id
    assert len(history(standin.client())) == 2


def test_somebody_elses_refresh_of_other_objects_is_not_taken_for_ours(standin: Running) -> None:
    refresh(standin)
    others = {"type": "Full", "applyRefreshPolicy": False, "objects": [{"table": "Country"}]}
    refresher = Refresher(standin.client(), shop.model())
    before = {one["requestId"] for one in history(standin.client())}
    theirs = standin.service.refreshes.accept(others)["requestId"]
    ours = {"objects": [{"table": "Sales", "partition": "2024Q103"}, {"table": "Country"}]}
    assert refresher._started_since(before, ours) is None
    assert refresher._started_since(before, others) == theirs


def test_server_errors_at_the_start_are_tried_again_and_then_told(standin: Running) -> None:
    standin.fault(kind="status", status=503, count=2, path="GET")
    assert history(standin.client()) == []
    standin.fault(kind="status", status=500, count=2, path="POST")
    assert refresh(standin).mode == "enhanced"
    standin.fault(kind="status", status=500, count=3, path="POST")
    with pytest.raises(ServiceError) as caught:
        refresh(standin)
    assert caught.value.status == 500
    assert len(history(standin.client())) == 1


def test_caller_interrupted_before_the_answer_leaves_no_refresh_behind(standin: Running) -> None:
    standin.fault(kind="slow_refresh", seconds=30)
    client = standin.client()
    send = client.session.request

    def interrupted(method: str, url: str, **arguments: Any) -> Any:
        answer = send(method, url, **arguments)
        if method == "POST":
            raise KeyboardInterrupt
        return answer

    client.session.request = interrupted  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        Refresher(client, shop.model()).run(Wish())
    assert _ends_as(standin, "Cancelled")


def _ends_as(standin: Running, status: str) -> bool:
    for _ in range(300):
        if history(standin.client(), top=1)[0]["status"] == status:
            return True
        time.sleep(0.02)
    return False


def test_service_is_told_to_stop_by_itself_at_the_same_limit(standin: Running) -> None:
    refresh(standin, timeout_s=5400)
    assert standin.service.refreshes.history()[0]["body"]["timeout"] == "01:30:00"


def test_change_of_a_closed_month_is_read_though_the_policy_would_leave_it(
    standin: Running, lines: list[dict[str, Any]]
) -> None:
    refresh(standin)
    kept = [row for row in lines if row["invoice_date"] != lines[0]["invoice_date"]]
    standin.marts.tables = shop.marts(kept)
    refresh(standin, days=[lines[0]["invoice_date"]])
    assert requests.get(standin.url + "/status", timeout=10).json()["rows"] == len(kept) != len(lines)


def test_budget_of_a_shared_capacity_is_counted_and_kept(tmp_path: Path, mart_tables: dict[str, Any]) -> None:
    with running(tmp_path, mart_tables, is_shared=True) as standin:
        client = standin.client(POWERBI_REFRESH_MODE="basic")
        left = []
        for _ in range(8):
            done = refresh_model(client.settings, client=client, days=[MARCH])
            left.append(done.budget_left)
        assert left == [7, 6, 5, 4, 3, 2, 1, 0]
        with pytest.raises(BudgetSpentError, match="stays pending"):
            refresh_model(client.settings, client=client)
        assert len(history(client)) == 8
        tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
        assert budget_left(client, now=tomorrow) == 8


@pytest.mark.parametrize(
    "fault", [{"kind": "drop"}, {"kind": "status", "status": 503}, {"kind": "throttle", "retry_after": 1}]
)
def test_plain_refresh_is_spent_once_though_its_answer_is_lost(
    tmp_path: Path, mart_tables: dict[str, Any], fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("powerbi.refresh._APPEARS_S", 0.2)
    with running(tmp_path, mart_tables, is_shared=True) as standin:
        client = standin.client(POWERBI_REFRESH_MODE="basic")
        standin.fault(path="POST", **fault)
        refresher = Refresher(client, shop.model(), sleep=client.sleep)
        assert refresher.run(Wish()).budget_left == 7
        assert len(history(client)) == 1


def test_refresh_that_a_person_starts_after_we_looked_counts_as_ours(
    tmp_path: Path, mart_tables: dict[str, Any]
) -> None:
    with running(tmp_path, mart_tables, is_shared=True) as standin:
        client = standin.client(POWERBI_REFRESH_MODE="basic")
        send, started = client.send, []

        def racing(method: str, url: str, *arguments: Any, **named: Any) -> Any:
            if method == "POST" and not started:
                started.append(standin.service.refreshes.accept({"notifyOption": "NoNotification"})["requestId"])
            return send(method, url, *arguments, **named)

        client.send = racing  # type: ignore[method-assign]
        standin.fault(kind="slow_refresh", seconds=0.3)
        assert Refresher(client, shop.model(), sleep=client.sleep).run(Wish()).request_id == started[0]
        assert len(history(client)) == 1


def test_service_that_counts_more_refreshes_than_its_history_is_believed(
    tmp_path: Path, mart_tables: dict[str, Any]
) -> None:
    with running(tmp_path, mart_tables, is_shared=True) as standin:
        client = standin.client(POWERBI_REFRESH_MODE="basic")
        standin.fault(
            kind="status", status=400, code="RefreshLimitReached", message="refresh limit reached", path="POST"
        )
        with pytest.raises(BudgetSpentError):
            refresh_model(client.settings, client=client)


def test_plain_refresh_that_ran_before_does_not_count(tmp_path: Path, mart_tables: dict[str, Any]) -> None:
    with running(tmp_path, mart_tables, is_shared=True) as standin:
        client = standin.client(POWERBI_REFRESH_MODE="basic")
        standin.fault(kind="slow_refresh", seconds=0.4)
        earlier = standin.service.refreshes.accept({"notifyOption": "NoNotification"})
        done = refresh_model(client.settings, client=client)
        assert done.request_id != earlier["requestId"]


def test_measure_read_back_from_the_service_is_exact(filled: Running, lines: list[dict[str, Any]]) -> None:
    row = query_row(filled.client(), 'EVALUATE ROW("amount", [Total Amount])')
    assert row["amount"] == sum(line["amount_gbp"] for line in lines)


def test_settings_tell_every_problem_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        PowerBiSettings.from_env(
            {"POWERBI_API_URL": "http://example.com", "POWERBI_DATASET_ID": "x", "POWERBI_REFRESH_MODE": "fast"}
        )
    assert len(caught.value.problems) == 4


def test_secret_is_not_shown_by_the_settings() -> None:
    env = {
        "POWERBI_API_URL": "http://127.0.0.1:1",
        "POWERBI_TENANT_ID": "t",
        "POWERBI_CLIENT_ID": "c",
        "POWERBI_CLIENT_SECRET": "hush",
    }
    assert "hush" not in repr(PowerBiSettings.from_env(env))


def test_standin_token_is_renewed_for_each_request() -> None:
    now = iter([0.0, 10_000.0])
    credential = StandInCredential(clock=lambda: next(now))
    assert credential.get_token("x").token != credential.get_token("x").token


@pytest.mark.parametrize("path", ["GET", "POST"])
@pytest.mark.parametrize("mode", ["enhanced", "basic"])
def test_success_with_another_body_is_told_as_such(standin: Running, path: str, mode: str) -> None:
    standin.fault(kind="status", status=200, count=100, path=path)
    client = standin.client(POWERBI_REFRESH_MODE=mode)
    client.sleep = lambda _: None
    now = itertools.count(0.0, 5.0)
    refresher = Refresher(client, shop.model(), sleep=lambda _: None, clock=lambda: next(now))
    with pytest.raises(ServiceError, match="a proxy in between"):
        refresher.run(Wish())
    standin.service.faults.clear()
    assert history(standin.client()) == []


def test_another_body_while_a_refresh_is_followed_cancels_it(standin: Running) -> None:
    standin.fault(kind="slow_refresh", seconds=30)
    followed = "GET " + standin.client().dataset("/refreshes/").removeprefix(standin.url)
    standin.fault(kind="status", status=200, path=followed)
    with pytest.raises(ServiceError, match="expected a JSON object with status"):
        refresh(standin)
    assert _ends_as(standin, "Cancelled")


def test_query_that_fails_within_a_success_is_an_error(filled: Running) -> None:
    client = filled.client()
    for body in (
        {"results": [{"error": {"code": "DAXFailed", "message": "no memory"}}]},
        {"results": [{"tables": [{"rows": [{"[a]": 1}], "error": {"code": "TooMany", "message": "no memory"}}]}]},
    ):
        response = requests.Response()
        response.status_code, response._content = 200, json.dumps(body).encode()
        client.session.request = lambda *_, answered=response, **__: answered  # type: ignore[method-assign,assignment]
        with pytest.raises(ServiceError, match="no memory"):
            query_row(client, 'EVALUATE ROW("a", 1)')
