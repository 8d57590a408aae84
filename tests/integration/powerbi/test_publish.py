"""Publishing: a plan tells what differs, applying removes it, again does nothing. And what was recorded replays."""

from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from powerbi.deployment import Environment, read_environment
from powerbi.errors import OperationError, ProjectError
from powerbi.lint.check import project_files
from powerbi.model import model_of
from powerbi.publish import Publisher
from powerbi.rest import Client, StandInCredential
from powerbi.settings import PowerBiSettings
from powerbi.storage import with_storage
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.powerbi.running import Running

pytestmark = pytest.mark.integration

USERS = [
    {"identifier": "boss@example.com", "type": "User", "right": "Admin"},
    {"identifier": "sales@example.com", "type": "Group", "right": "Viewer"},
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for suffix in ("SemanticModel", "Report"):
        shutil.copytree(shop.ROOM / f"Retail.{suffix}", tmp_path / f"Retail.{suffix}")
    return tmp_path


def environment(tmp_path: Path, **changes: Any) -> Environment:
    body = {
        "storage": "import",
        "parameters": {"WarehouseProject": "memory", "MartDataset": "mart"},
        "workspace": {"exclusive": False, "users": USERS},
        "dataset": {"users": [{"identifier": "sales@example.com", "type": "Group", "right": "Read"}]},
    }
    path = tmp_path / "deployment.yaml"
    path.write_text(yaml.safe_dump({"environments": {"test": body | changes}}), encoding="utf-8")
    return read_environment(path, "test")


def publisher(standin: Running, project: Path, **changes: Any) -> Publisher:
    return Publisher(standin.client(), project, environment(project, **changes))


def test_plan_then_apply_then_nothing_is_left(standin: Running, project: Path) -> None:
    first = publisher(standin, project)
    changes = first.plan()
    assert any("boss@example.com on the workspace: none -> Admin" in change.what for change in changes)
    assert any(
        change.what.startswith("update Report") for change in changes
    )  # by path on disk, by connection in the service
    first.apply(changes)
    assert [change.what for change in publisher(standin, project).plan()] == []


def test_changed_measure_is_one_change_and_is_published(standin: Running, project: Path) -> None:
    publisher(standin, project).apply(publisher(standin, project).plan())
    sales = project / "Retail.SemanticModel/definition/tables/Sales.tmdl"
    sales.write_text(
        sales.read_text(encoding="utf-8").replace("COUNTROWS ( Sales )", "COUNTROWS ( Sales ) + 7"), encoding="utf-8"
    )
    changes = publisher(standin, project).plan()
    assert [change.what for change in changes] == ["update SemanticModel Retail: definition/tables/Sales.tmdl"]
    publisher(standin, project).apply(changes)
    measure = standin.service.model.measure("Invoice Lines")
    assert measure is not None
    assert measure.expression.endswith("+ 7")


def test_definition_that_the_service_refuses_is_told_and_changes_nothing(standin: Running, project: Path) -> None:
    sales = project / "Retail.SemanticModel/definition/tables/Sales.tmdl"
    sales.write_text("table Sales\n    column x\n", encoding="utf-8")
    with pytest.raises(OperationError, match="spaces"):
        publisher(standin, project).apply(publisher(standin, project).plan())
    assert standin.service.model.measure("Net Sales") is not None


def test_right_that_changed_is_updated_and_who_is_not_declared_is_removed_only_if_exclusive(
    standin: Running, project: Path
) -> None:
    publisher(standin, project).apply(publisher(standin, project).plan())
    fewer = {"users": [USERS[1] | {"right": "Member"}]}
    assert [c.what for c in publisher(standin, project, workspace=fewer).plan()] == [
        "sales@example.com on the workspace: Viewer -> Member"
    ]
    exclusive = publisher(standin, project, workspace={"exclusive": True, **fewer})
    assert [c.what for c in exclusive.plan()][-1:] == ["remove boss@example.com from the workspace"]
    exclusive.apply(exclusive.plan())
    assert exclusive.plan() == []


def test_parameters_of_the_environment_are_set(standin: Running, project: Path) -> None:
    changed = publisher(standin, project, parameters={"MartDataset": "other_mart"})
    changes = [c for c in changed.plan() if "parameters" in c.what]
    assert [c.what for c in changes] == ["set parameters MartDataset: 'mart' -> 'other_mart'"]
    changed.apply(changes)
    assert standin.service.project().parameters["MartDataset"] == "other_mart"


@pytest.mark.parametrize(
    "changes",
    [
        {"storage": "fast"},
        {"colour": "red"},
        {"workspace": {"users": [{"identifier": "x", "type": "User", "right": "Owner"}]}},
        {"dataset": {"users": [{"identifier": "", "type": "User", "right": "Read"}]}},
    ],
)
def test_declaration_that_is_not_understood_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ProjectError):
        environment(tmp_path, **changes)


def test_the_projects_own_environments_can_be_read() -> None:
    for name in ("dev", "test", "prod"):
        assert read_environment(shop.ROOM / "deployment.yaml", name).storage == "import"


def test_direct_query_asks_facts_live_and_drops_the_policy() -> None:
    files = project_files(shop.ROOM, "SemanticModel")[1]
    model = model_of(with_storage(files, "directQuery"))
    sales, dates = model.table("Sales"), model.table("Date")
    assert sales is not None
    assert dates is not None
    assert sales.refresh_policy is None
    assert {one.mode for one in sales.partitions} == {"directQuery"}
    assert {one.mode for one in dates.partitions} == {"dual"}
    assert len(sales.measures) == len(shop.model().tables[0].measures)


def test_hybrid_marks_the_policy() -> None:
    text = with_storage(project_files(shop.ROOM, "SemanticModel")[1], "hybrid")["definition/tables/Sales.tmdl"]
    assert "\trefreshPolicy\n\t\tmode: hybrid\n" in text
    assert model_of({"definition/tables/Sales.tmdl": text}).tables[0].refresh_policy is not None


# ---------------------------------------------------------------------- recorded


@pytest.fixture
def recorded(repository: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers as the real one did when a publish was recorded."""
    path = repository.parent / "shared/powerbi/recorded/semanticmodel_report.json"
    if not path.exists():
        pytest.skip(f"no recorded exchanges at {path}")
    exchanges = json.loads(path.read_text(encoding="utf-8"))
    left = list(exchanges)
    asked: list[dict[str, Any]] = []

    class Replay(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            asked.append({"method": self.command, "path": self.path, "body": body})
            match = next((one for one in left if self._fits(one["request"], body)), None)
            if match is None:
                self.send_error(404)
                return
            left.remove(match)
            response = match["response"]
            payload = json.dumps(response["body"]).encode() if response["body"] is not None else b""
            self.send_response(response["status_code"])
            for name in ("Location", "Retry-After", "x-ms-operation-id"):
                if name in response["headers"]:
                    self.send_header(name, response["headers"][name])
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def _fits(self, request: dict[str, Any], body: dict[str, Any] | None) -> bool:
            same = request["method"] == self.command and urlsplit(request["url"]).path == self.path
            return same and (body is None or body.get("type") == request["body"].get("type"))

        do_GET = do_POST = answer  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Replay)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_recorded_creation_is_followed_through_its_operation(
    recorded: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    url, asked = recorded
    workspace = "e6c4cab8-f8ec-4b12-9340-8388b4ded9a0"
    settings = PowerBiSettings.from_env({"POWERBI_API_URL": url, "POWERBI_WORKSPACE_ID": workspace})
    waits: list[float] = []
    client = Client(settings, StandInCredential(), sleep=waits.append)
    publisher_ = Publisher(client, shop.ROOM, environment(tmp_path))
    response = client.send(
        "POST",
        f"{url}/v1/workspaces/{workspace}/items",
        {"displayName": "ABC", "type": "Report", "definition": {"parts": []}},
    )
    assert publisher_._long(response) == {}
    assert [one["path"] for one in asked] == [
        f"/v1/workspaces/{workspace}/items",
        "/v1/operations/0bb5b1a1-a30b-4cce-86fa-33170aacda03",
    ]
    # The semantic model's operation was recorded while it ran: each poll waits as long as the service says.
    response = client.send(
        "POST",
        f"{url}/v1/workspaces/{workspace}/items",
        {"displayName": "ABC", "type": "SemanticModel", "definition": {"parts": []}},
    )
    with pytest.raises(Exception, match="404"):
        publisher_._long(response)
    assert waits == [20.0] * 4
