"""The stand-in answers as the service does: states, quotas, refusals, tokens; a restart keeps what it said."""

from __future__ import annotations

import base64
import json
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests

from powerbi.ids import STANDIN_DATASET, STANDIN_REPORT, STANDIN_WORKSPACE
from powerbi.lint.check import project_files
from powerbi.rest import StandInCredential
from tests.integration.powerbi.running import Running, running
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

DATASET = f"/v1.0/myorg/groups/{STANDIN_WORKSPACE}/datasets/{STANDIN_DATASET}"
FULL = {"type": "Full", "applyRefreshPolicy": True}


def call(standin: Running, method: str, path: str, body: Any = None, *, token: str | None = None) -> requests.Response:
    token = token or StandInCredential().get_token("x").token
    return requests.request(
        method, standin.url + path, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=30
    )


def ended(standin: Running, location: str) -> dict[str, Any]:
    for _ in range(600):
        response = requests.get(
            location, headers={"Authorization": f"Bearer {StandInCredential().get_token('x').token}"}, timeout=30
        )
        if response.status_code == 200:
            return dict(response.json())
        assert response.status_code == 202
        time.sleep(0.01)
    raise AssertionError("the refresh did not end")


def refreshed(standin: Running, body: dict[str, Any]) -> dict[str, Any]:
    response = call(standin, "POST", DATASET + "/refreshes", body)
    assert response.status_code == 202, response.text
    return ended(standin, response.headers["Location"])


def test_refresh_is_accepted_then_runs_then_is_completed(standin: Running) -> None:
    standin.fault(kind="slow_refresh", seconds=0.3)
    response = call(standin, "POST", DATASET + "/refreshes", FULL)
    assert response.status_code == 202
    assert response.headers["Location"].endswith(response.headers["x-ms-request-id"])
    running_ = call(standin, "GET", f"{DATASET}/refreshes/{response.headers['x-ms-request-id']}")
    assert running_.status_code == 202
    assert running_.json()["status"] == "Unknown"
    assert running_.json()["extendedStatus"] in ("NotStarted", "InProgress")
    assert "endTime" not in running_.json()
    assert ended(standin, response.headers["Location"])["extendedStatus"] == "Completed"
    entry = call(standin, "GET", DATASET + "/refreshes?$top=1").json()["value"][0]
    assert entry["status"] == "Completed"
    assert entry["refreshType"] == "ViaEnhancedApi"


def test_second_refresh_is_refused_while_one_runs(standin: Running) -> None:
    standin.fault(kind="slow_refresh", seconds=0.5)
    first = call(standin, "POST", DATASET + "/refreshes", FULL)
    second = call(standin, "POST", DATASET + "/refreshes", FULL)
    assert second.status_code == 400
    assert "already executing" in second.json()["error"]["message"]
    ended(standin, first.headers["Location"])


def test_cancelled_refresh_changes_nothing(standin: Running) -> None:
    standin.fault(kind="slow_refresh", seconds=30)
    response = call(standin, "POST", DATASET + "/refreshes", FULL)
    time.sleep(0.05)
    assert call(standin, "DELETE", f"{DATASET}/refreshes/{response.headers['x-ms-request-id']}").status_code == 200
    assert ended(standin, response.headers["Location"])["extendedStatus"] == "Cancelled"
    assert requests.get(standin.url + "/status", timeout=10).json()["rows"] == 0


def test_refresh_beyond_its_timeout_is_timed_out(standin: Running) -> None:
    standin.fault(kind="slow_refresh", seconds=30)
    assert refreshed(standin, {**FULL, "timeout": "00:00:00"})["extendedStatus"] == "TimedOut"


def test_failed_refresh_tells_why_and_keeps_the_old_rows(standin: Running) -> None:
    refreshed(standin, FULL)
    before = requests.get(standin.url + "/status", timeout=10).json()
    standin.marts.is_down = True
    failed = refreshed(standin, {"type": "Full", "objects": [{"table": "Country"}, {"table": "Date"}]})
    assert failed["extendedStatus"] == "Failed"
    assert "warehouse is down" in failed["messages"][0]["message"]
    after = requests.get(standin.url + "/status", timeout=10).json()
    assert (after["rows"], after["amount"]) == (before["rows"], before["amount"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"type": "Full", "notifyOption": "NoNotification"}, "notifyOption"),
        ({"type": "Everything"}, "type"),
        ({"commitMode": "PartialBatch", "applyRefreshPolicy": True}, "applyRefreshPolicy"),
        ({"objects": [{"table": "Nothing"}]}, "does not exist"),
        ({"objects": [{"table": "Sales", "partition": "2024Q101"}]}, "applyRefreshPolicy"),
        ({"objects": [{"table": "Sales", "partition": "1999Q101"}], "applyRefreshPolicy": False}, "partition"),
    ],
)
def test_request_the_service_refuses_is_refused(filled: Running, body: dict[str, Any], message: str) -> None:
    response = call(filled, "POST", DATASET + "/refreshes", body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_named_partition_reads_only_its_month(standin: Running, lines: list[dict[str, Any]]) -> None:
    refreshed(standin, FULL)
    standin.marts.queries.clear()
    kept = [row for row in lines if not (row["invoice_date"].year == 2024 and row["invoice_date"].month == 3)]
    standin.marts.tables = shop.marts(kept)
    refreshed(
        standin, {"type": "Full", "applyRefreshPolicy": False, "objects": [{"table": "Sales", "partition": "2024Q103"}]}
    )
    assert [(name, str(cut[1]), str(cut[2])) for name, cut in standin.marts.queries] == [
        ("invoice_lines", "2024-03-01", "2024-04-01")
    ]
    assert requests.get(standin.url + "/status", timeout=10).json()["rows"] == len(kept)


def test_report_shows_the_last_refresh_and_not_the_warehouse(standin: Running, lines: list[dict[str, Any]]) -> None:
    refreshed(standin, FULL)
    standin.marts.tables = shop.marts(lines[:50])
    assert requests.get(standin.url + "/status", timeout=10).json()["rows"] == len(lines)


def test_status_tells_the_exact_amount_and_as_of_when(filled: Running, lines: list[dict[str, Any]]) -> None:
    status = requests.get(filled.url + "/status", timeout=10).json()
    assert Decimal(status["amount"]) == sum((row["amount_gbp"] for row in lines), Decimal(0))
    assert status["as_of"] == "2025-02-21T06:29:59+00:00"
    assert status["rows"] == len(lines)


def test_shared_capacity_takes_eight_plain_refreshes_a_day(tmp_path: Path, mart_tables: dict[str, Any]) -> None:
    with running(tmp_path, mart_tables, is_shared=True) as standin:
        refused = call(standin, "POST", DATASET + "/refreshes", FULL)
        assert (refused.status_code, "notifyOption" in refused.text) == (400, True)
        for _ in range(8):
            response = call(standin, "POST", DATASET + "/refreshes", {"notifyOption": "NoNotification"})
            assert response.status_code == 202
            assert "x-ms-request-id" not in response.headers
            while call(standin, "GET", DATASET + "/refreshes?$top=1").json()["value"][0]["status"] == "Unknown":
                time.sleep(0.01)
        ninth = call(standin, "POST", DATASET + "/refreshes", {"notifyOption": "NoNotification"})
        assert ninth.status_code == 400
        assert "8 refreshes a day" in ninth.json()["error"]["message"]


def test_call_without_a_token_is_not_answered(filled: Running) -> None:
    assert requests.get(filled.url + DATASET, timeout=10).status_code == 401
    assert call(filled, "GET", DATASET, token="not-a-token").status_code == 401  # noqa: S106 - no password


def test_call_with_an_expired_token_is_told_so(filled: Running) -> None:
    old = StandInCredential(clock=lambda: 0.0).get_token("x").token
    response = call(filled, "GET", DATASET, token=old)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "TokenExpired")


def test_unknown_workspace_and_dataset_are_not_found(filled: Running) -> None:
    assert call(filled, "GET", DATASET.replace(STANDIN_WORKSPACE, STANDIN_DATASET)).status_code == 404
    assert call(filled, "GET", DATASET.replace(STANDIN_DATASET, STANDIN_REPORT)).status_code == 404


def test_execute_queries_answers_with_every_digit(filled: Running, lines: list[dict[str, Any]]) -> None:
    body = {"queries": [{"query": 'EVALUATE ROW("amount", [Total Amount])'}]}
    response = call(filled, "POST", DATASET + "/executeQueries", body)
    rows = json.loads(response.text, parse_float=Decimal)["results"][0]["tables"][0]["rows"]
    assert rows == [{"[amount]": sum((row["amount_gbp"] for row in lines), Decimal(0))}]


def test_execute_queries_groups_by_columns(filled: Running, lines: list[dict[str, Any]]) -> None:
    body = {"queries": [{"query": 'EVALUATE SUMMARIZECOLUMNS(Country[country], "lines", [Invoice Lines])'}]}
    rows = call(filled, "POST", DATASET + "/executeQueries", body).json()["results"][0]["tables"][0]["rows"]
    expected = {
        country: sum(row["country"] == country for row in lines) for country in {row["country"] for row in lines}
    }
    assert {row["Country[country]"]: row["[lines]"] for row in rows} == expected


def test_execute_queries_refuses_what_it_does_not_know_by_name_and_position(filled: Running) -> None:
    body = {"queries": [{"query": 'EVALUATE ROW("x", PERCENTILE.INC(Sales[amount_gbp], 0.5))'}]}
    response = call(filled, "POST", DATASET + "/executeQueries", body)
    assert response.status_code == 400
    assert "character 19" in response.json()["error"]["message"]
    assert "PERCENTILE.INC" in response.json()["error"]["message"]


def _upload(standin: Running, item: str, kind: str, files: dict[str, str]) -> dict[str, Any]:
    parts = [
        {"path": p, "payload": base64.b64encode(t.encode()).decode(), "payloadType": "InlineBase64"}
        for p, t in files.items()
    ]
    path = f"/v1/workspaces/{STANDIN_WORKSPACE}/{kind}/{item}/updateDefinition"
    response = call(standin, "POST", path, {"definition": {"parts": parts}})
    assert response.status_code == 202
    operation = response.headers["Location"].removeprefix(standin.url)
    while (found := call(standin, "GET", operation).json())["status"] == "Running":
        time.sleep(0.05)
    return dict(found)


def test_uploaded_model_is_the_one_that_is_evaluated(standin: Running) -> None:
    files = project_files(shop.ROOM, "SemanticModel")[1]
    refreshed(standin, FULL)
    sales = "definition/tables/Sales.tmdl"
    files[sales] = files[sales].replace("COUNTROWS ( Sales )", "COUNTROWS ( Sales ) * 0 + 42")
    assert _upload(standin, STANDIN_DATASET, "semanticModels", files)["status"] == "Succeeded"
    assert requests.get(standin.url + "/status", timeout=10).json()["rows"] == 42


def test_broken_definition_fails_its_operation_and_is_not_taken(standin: Running) -> None:
    files = project_files(shop.ROOM, "SemanticModel")[1]
    files["definition/tables/Sales.tmdl"] = "table Sales\n    column x\n"
    found = _upload(standin, STANDIN_DATASET, "semanticModels", files)
    assert found["status"] == "Failed"
    assert "spaces" in found["error"]["message"]
    assert requests.get(standin.url + "/status", timeout=10).status_code == 200


def test_report_that_refers_to_its_model_by_path_is_refused(standin: Running) -> None:
    found = _upload(standin, STANDIN_REPORT, "reports", project_files(shop.ROOM, "Report")[1])
    assert found["status"] == "Failed"
    assert "byConnection" in found["error"]["message"]


def test_restart_keeps_rows_history_and_fails_what_was_running(tmp_path: Path, mart_tables: dict[str, Any]) -> None:
    with running(tmp_path, mart_tables) as standin:
        refreshed(standin, FULL)
        before = requests.get(standin.url + "/status", timeout=10).json()
        document = standin.service.state.all("refresh")[0] | {
            "requestId": "interrupted",
            "extendedStatus": "InProgress",
            "status": "Unknown",
        }
        standin.service.state.put("refresh", "interrupted", document)
    with running(tmp_path, mart_tables) as standin:
        after = requests.get(standin.url + "/status", timeout=10).json()
        assert (after["amount"], after["rows"], after["as_of"]) == (before["amount"], before["rows"], before["as_of"])
        history = call(standin, "GET", DATASET + "/refreshes").json()["value"]
        assert [one["status"] for one in history] == ["Failed", "Completed"]
        assert "restarted" in history[0]["serviceExceptionJson"]
