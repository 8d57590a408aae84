"""Publishing: a plan tells what differs, applying removes it, again does nothing. And what was recorded replays."""

from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from click.testing import CliRunner

from powerbi.__main__ import main
from powerbi.definitions import changed_parts, model_files, report_files
from powerbi.deployment import Environment, read_environment
from powerbi.errors import ProjectError, PublishError, RefreshError, ServiceError, SettingsError
from powerbi.fabric import Fabric
from powerbi.ids import STANDIN_CALLER
from powerbi.lint.check import project_files
from powerbi.model import model_of
from powerbi.publish import Change, Plan, Publisher, Target, members_script
from powerbi.refresh import query_row, refresh_model
from powerbi.rest import Client, StandInCredential, credential_of
from powerbi.settings import PowerBiSettings
from powerbi.source import read_key
from powerbi.storage import with_storage
from tests.integration.powerbi.running import Running, running
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

USERS = [
    {"identifier": "boss@example.com", "type": "User", "right": "Admin"},
    {"identifier": "sales@example.com", "type": "Group", "right": "Viewer"},
]
KEY = json.dumps(
    {"type": "service_account", "client_email": "bi@example.iam.gserviceaccount.com", "private_key": "hush\nhush"},
    indent=2,
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for suffix in ("SemanticModel", "Report"):
        shutil.copytree(shop.ROOM / f"Retail.{suffix}", tmp_path / f"Retail.{suffix}")
    return tmp_path


def environment(tmp_path: Path, **changes: Any) -> Environment:
    body = {
        "workspace": {"name": "Retail", "exclusive": False, "users": USERS},
        "storage": "import",
        "parameters": {"WarehouseProject": "memory", "MartDataset": "mart"},
        "dataset": {"users": [{"identifier": "analysts@example.com", "type": "Group", "right": "Read"}]},
    }
    path = tmp_path / "deployment.yaml"
    path.write_text(yaml.safe_dump({"environments": {"test": body | changes}}, sort_keys=False), encoding="utf-8")
    return read_environment(path, "test")


def publisher(standin: Running, project: Path, **changes: Any) -> Publisher:
    return Publisher(standin.client(), project, environment(project, **changes), read_key(KEY, "key"))


def applied(standin: Running, project: Path, **changes: Any) -> Target:
    made = publisher(standin, project, **changes)
    target = made.apply(made.plan())
    assert made.plan().lines == []
    return target


NEW = {
    "workspace": {"name": "Retail test", "users": USERS, "capacity": "0f084df7-c13d-451b-af5f-ed0c466403b2"},
    "source": {"access": "service_account"},
    "roles": {"United Kingdom": [{"identifier": "uk@example.com", "type": "Group"}]},
}


def test_empty_tenant_gets_everything_by_one_apply_and_the_plan_says_it_before(
    standin: Running, project: Path, lines: list[dict[str, Any]]
) -> None:
    first = publisher(standin, project, **NEW)
    plan = first.plan()
    assert plan.lines == [
        "create workspace Retail test on capacity 0f084df7-c13d-451b-af5f-ed0c466403b2",
        "boss@example.com on the workspace: none -> Admin",
        "sales@example.com on the workspace: none -> Viewer",
        "create SemanticModel Retail (WarehouseProject 'memory', MartDataset 'mart', 1 role members)",
        "set BigQuery's credentials: service account bi@example.iam.gserviceaccount.com",
        "create Report Retail",
        "analysts@example.com on the semantic model: none -> Read",
    ]
    target = first.apply(plan)
    assert first.plan().lines == []
    # What was created is one whole: the new report shows the new model, which reads the marts with its credentials.
    assert target.model not in (None, standin.service.settings.dataset_id)
    assert standin.service.model_of_report(str(target.report)) == target.model
    env = {"POWERBI_WORKSPACE_ID": str(target.workspace), "POWERBI_DATASET_ID": str(target.model)}
    client = standin.client(**env)
    refresh_model(client.settings, client=client)
    assert query_row(client, 'EVALUATE ROW("rows", [Invoice Lines])') == {"rows": len(lines)}
    assert requests.get(f"{standin.url}/reports/{target.report}", timeout=60).status_code == 200
    assert requests.get(standin.url + "/status", timeout=10).json()["rows"] == 0


def test_model_without_credentials_cannot_be_refreshed_and_says_so(standin: Running, project: Path) -> None:
    target = applied(standin, project, **NEW | {"source": {"access": "by_hand"}})
    env = {"POWERBI_WORKSPACE_ID": str(target.workspace), "POWERBI_DATASET_ID": str(target.model)}
    client = standin.client(**env)
    with pytest.raises(RefreshError, match="no credentials"):
        refresh_model(client.settings, client=client)


@pytest.mark.parametrize("number", range(1, 8))
def test_apply_that_fails_at_any_change_goes_on_from_there(standin: Running, project: Path, number: int) -> None:
    first = publisher(standin, project, **NEW)
    plan = first.plan()

    def broken(_: Target) -> None:
        raise ServiceError("503", status=503)

    changes = list(plan.changes)
    changes[number - 1] = Change(changes[number - 1].what, broken)
    with pytest.raises(PublishError, match=f"change {number} of 7") as caught:
        first.apply(Plan(tuple(changes), (), plan.target))
    assert f"{number - 1} before" in str(caught.value)
    again = publisher(standin, project, **NEW)
    left = again.plan()
    assert left.lines == plan.lines[number - 1 :]
    again.apply(left)
    assert again.plan().lines == []
    assert len(standin.service.workspaces()) == 2
    assert len(standin.service.items()) == 4


def test_creation_whose_answer_is_lost_is_found_by_the_next_apply(standin: Running, project: Path) -> None:
    first = publisher(standin, project, **NEW)
    standin.fault(kind="drop", path="POST /v1/workspaces")
    with pytest.raises(PublishError, match="unknown"):
        first.apply(first.plan())
    applied(standin, project, **NEW)
    assert [one["name"] for one in standin.service.workspaces()] == ["Retail", "Retail test"]


def test_operation_that_fails_is_told_with_the_services_reason(standin: Running, project: Path) -> None:
    standin.fault(kind="fail_operation", code="CorruptedPayload", message="cannot be read", path="items")
    first = publisher(standin, project, **NEW)
    with pytest.raises(PublishError, match="cannot be read") as caught:
        first.apply(first.plan())
    assert caught.value.code == "CorruptedPayload"
    applied(standin, project, **NEW)


def test_throttled_apply_waits_and_ends(standin: Running, project: Path) -> None:
    for path in ("POST /v1/workspaces", "/items", "getDefinition", "/users", "/v1/operations"):
        standin.fault(kind="throttle", retry_after=1, count=2, path=path)
    applied(standin, project, **NEW)


def test_long_lists_are_read_page_by_page(tmp_path: Path, mart_tables: dict[str, Any], project: Path) -> None:
    with running(tmp_path / "state", mart_tables, page_size=1) as standin:
        applied(standin, project, **NEW)
        applied(standin, project)


def test_plan_then_apply_then_nothing_is_left(standin: Running, project: Path) -> None:
    first = publisher(standin, project)
    plan = first.plan()
    assert plan.lines == [
        "boss@example.com on the workspace: none -> Admin",
        "sales@example.com on the workspace: none -> Viewer",
        "analysts@example.com on the semantic model: none -> Read",
    ]
    first.apply(plan)
    assert publisher(standin, project).plan().lines == []


def test_changed_measure_is_one_change_and_is_published(standin: Running, project: Path) -> None:
    applied(standin, project)
    sales = project / "Retail.SemanticModel/definition/tables/Sales.tmdl"
    sales.write_text(
        sales.read_text(encoding="utf-8").replace("COUNTROWS ( Sales )", "COUNTROWS ( Sales ) + 7"), encoding="utf-8"
    )
    assert publisher(standin, project).plan().lines == ["update SemanticModel Retail: definition/tables/Sales.tmdl"]
    applied(standin, project)
    measure = standin.service.model.measure("Invoice Lines")
    assert measure is not None
    assert measure.expression.endswith("+ 7")


def test_definition_that_means_the_same_is_no_change() -> None:
    here = project_files(shop.ROOM, "SemanticModel")[1]
    sales = "definition/tables/Sales.tmdl"
    lines = here[sales].splitlines()
    kept = [line for line in lines if line.strip()]  # without blank lines, and with the service's own note
    there = {**here, sales: "\n".join([kept[0], kept[1], "\tannotation PBI_ResultType = Table", *kept[2:]]) + "\r\n"}
    assert changed_parts(there, here) == []
    assert changed_parts({**here, sales: here[sales].replace("isHidden", "", 1)}, here) == [sales]
    report = report_files(shop.ROOM, "aaaaaaaa-0000-0000-0000-000000000001")
    wordy = json.loads(report["definition.pbir"])
    wordy["datasetReference"]["byConnection"] = {
        "connectionString": 'Data Source="powerbi://x";semanticmodelid=AAAAAAAA-0000-0000-0000-000000000001;a=b'
    }
    assert changed_parts({**report, "definition.pbir": json.dumps(wordy)}, report) == []
    other = report_files(shop.ROOM, "aaaaaaaa-0000-0000-0000-000000000002")
    assert changed_parts(other, report) == ["definition.pbir"]


def test_definition_that_the_service_refuses_is_told_and_changes_nothing(standin: Running, project: Path) -> None:
    sales = project / "Retail.SemanticModel/definition/tables/Sales.tmdl"
    sales.write_text("table Sales\n    column x\n", encoding="utf-8")
    broken = publisher(standin, project)
    with pytest.raises(PublishError, match="spaces"):
        broken.apply(broken.plan())
    assert standin.service.model.measure("Net Sales") is not None


def test_right_that_changed_is_updated_and_who_is_not_declared_is_removed_only_if_exclusive(
    standin: Running, project: Path
) -> None:
    applied(standin, project)
    fewer = {"name": "Retail", "users": [USERS[1] | {"right": "Member"}]}
    assert publisher(standin, project, workspace=fewer).plan().lines == [
        "sales@example.com on the workspace: Viewer -> Member"
    ]
    exclusive = publisher(standin, project, workspace={"exclusive": True, **fewer})
    plan = exclusive.plan()
    assert plan.lines[-1:] == ["remove boss@example.com from the workspace"]
    assert any("it is who applies this" in note for note in plan.notes)
    exclusive.apply(plan)
    assert exclusive.plan().lines == []
    left = {one["identifier"] for one in standin.service.state.all("group_user")}
    assert left == {STANDIN_CALLER, "sales@example.com"}


def test_right_on_the_model_that_the_workspace_gives_anyway_is_no_change(standin: Running, project: Path) -> None:
    users = [{"identifier": "Boss@example.com", "type": "User", "right": "ReadReshare"}]
    assert applied(standin, project, dataset={"users": users})
    lower = [{"identifier": "analysts@example.com", "type": "Group", "right": "ReadReshareExplore"}]
    assert publisher(standin, project, dataset={"users": lower}).plan().lines == [
        "analysts@example.com on the semantic model: none -> ReadReshareExplore"
    ]
    applied(standin, project, dataset={"users": lower})
    applied(standin, project, dataset={"users": [lower[0] | {"right": "Read"}]})
    assert publisher(standin, project, dataset={"exclusive": True}).plan().lines == [
        "remove analysts@example.com from the semantic model"
    ]
    applied(standin, project, dataset={"exclusive": True})


def test_service_principals_right_that_the_api_cannot_change_is_a_note(standin: Running, project: Path) -> None:
    app = {"identifier": "0f084df7-c13d-451b-af5f-ed0c46640001", "type": "App", "right": "Read"}
    applied(standin, project, dataset={"users": [app]})
    plan = publisher(standin, project, dataset={"users": [app | {"right": "ReadReshare"}]}).plan()
    assert plan.lines == []
    assert "does not change a service principal's right" in plan.notes[0]


def test_parameters_of_the_environment_are_set_without_uploading_the_model(standin: Running, project: Path) -> None:
    applied(standin, project)
    changes = {"parameters": {"WarehouseProject": "memory", "MartDataset": "other_mart"}}
    assert publisher(standin, project, **changes).plan().lines == ["set parameters MartDataset: 'mart' -> 'other_mart'"]
    applied(standin, project, **changes)
    assert standin.service.default.parameters()["MartDataset"] == "other_mart"


def test_unknown_parameter_or_role_is_refused_before_anything_is_sent(standin: Running, project: Path) -> None:
    with pytest.raises(ProjectError, match="MartDatset"):
        publisher(standin, project, parameters={"MartDatset": "x"}).plan()
    with pytest.raises(ProjectError, match="no role 'Wales'"):
        publisher(standin, project, roles={"Wales": []}).plan()


def test_members_of_a_role_are_part_of_the_definition_and_of_the_script_for_xmla(
    standin: Running, project: Path
) -> None:
    members = {"United Kingdom": [{"identifier": "uk@example.com", "type": "Group"}]}
    assert publisher(standin, project, roles=members).plan().lines[2:3] == [
        "update SemanticModel Retail: definition/roles/United Kingdom.tmdl"
    ]
    applied(standin, project, roles=members)
    text = standin.service.default.files["definition/roles/United Kingdom.tmdl"]
    assert "\tmember 'uk@example.com'\n\t\tmemberType: group\n" in text
    declared = environment(project, roles=members)
    script = members_script(declared, model_files(project, declared), "Retail")
    role = script["sequence"]["operations"][0]["createOrReplace"]["role"]
    assert role["members"] == [{"memberName": "uk@example.com", "identityProvider": "AzureAD"}]
    assert role["tablePermissions"][0]["name"] == "Country"  # left out, the role would lose its filter


# ---------------------------------------------------------------------- the source


def test_credentials_are_sent_once_and_again_only_when_asked(standin: Running, project: Path) -> None:
    account = {"source": {"access": "service_account"}}
    applied(standin, project, **account)
    assert publisher(standin, project, **account).plan().lines == []
    renewing = publisher(standin, project, **account)
    renewing.renew = renewing.access.renew = True
    assert renewing.plan().lines == ["set BigQuery's credentials: service account bi@example.iam.gserviceaccount.com"]
    assert "hush" not in repr(renewing)
    assert "hush" not in (standin.service.settings.data_dir / "service.sqlite").read_bytes().decode("latin-1")


def test_without_a_key_the_plan_says_what_a_person_must_do(standin: Running, project: Path) -> None:
    declared = environment(project, source={"access": "service_account"})
    plan = Publisher(standin.client(), project, declared).plan()
    assert not any("credentials" in line for line in plan.lines)
    assert "POWERBI_BIGQUERY_KEY_FILE" in plan.notes[0]


@pytest.mark.parametrize(
    "source",
    [
        {"access": "connection", "connection": "0f084df7-c13d-451b-af5f-ed0c46640002"},
        {
            "access": "gateway",
            "gateway": "0f084df7-c13d-451b-af5f-ed0c46640003",
            "gateway_sources": ["0f084df7-c13d-451b-af5f-ed0c46640004"],
        },
    ],
)
def test_model_is_bound_to_a_connection_or_a_gateway(standin: Running, project: Path, source: dict[str, Any]) -> None:
    assert [line for line in publisher(standin, project, source=source).plan().lines if "bind" in line] == [
        f"bind BigQuery to {source['access']} {source[source['access']]}"
    ]
    applied(standin, project, source=source)


def test_model_of_another_owner_is_taken_over(standin: Running, project: Path) -> None:
    standin.fault(kind="status", status=403, code="DatasetNotOwned", path="PATCH")
    applied(standin, project, source={"access": "service_account"})


def test_source_that_does_not_show_its_credentials_is_believed_after_a_completed_refresh(
    standin: Running, project: Path
) -> None:
    account = {"source": {"access": "service_account"}}
    applied(standin, project, **account)
    standin.fault(kind="status", status=403, path="/gateways/")
    assert publisher(standin, project, **account).plan().lines != []
    refresh_model(standin.settings(), client=standin.client())
    standin.fault(kind="status", status=403, path="/gateways/")
    assert publisher(standin, project, **account).plan().lines == []


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"type": "authorized_user", "client_email": "a", "private_key": "b"}']
)
def test_file_that_is_no_service_accounts_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ProjectError, match="not a service account's key") as caught:
        read_key(text, "key.json")
    assert "authorized_user" not in str(caught.value)


# ---------------------------------------------------------------------- who applies


def test_way_to_sign_in_is_a_setting() -> None:
    named = {"POWERBI_TENANT_ID": "t" * 8, "POWERBI_CLIENT_ID": "c" * 8}
    expected = {
        "managed_identity": "ManagedIdentityCredential", "device_code": "DeviceCodeCredential",
        "cli": "AzureCliCredential", "service_principal": "ClientSecretCredential", "": "ClientSecretCredential",
    }  # fmt: skip
    for auth, name in expected.items():
        secret = {"POWERBI_CLIENT_SECRET": "s"} if name == "ClientSecretCredential" else {}
        settings = PowerBiSettings.from_env({"POWERBI_AUTH": auth, **named, **secret}, needs_ids=False)
        assert type(credential_of(settings)).__name__ == name
    bare = PowerBiSettings.from_env({}, needs_ids=False)
    assert type(credential_of(bare)).__name__ == "DefaultAzureCredential"
    with pytest.raises(SettingsError, match="POWERBI_AUTH is service_principal; it needs"):
        PowerBiSettings.from_env({"POWERBI_AUTH": "service_principal"}, needs_ids=False)
    with pytest.raises(SettingsError, match="expected one of"):
        PowerBiSettings.from_env({"POWERBI_AUTH": "magic"}, needs_ids=False)


def test_managed_identitys_token_is_the_one_that_is_sent(standin: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    token = StandInCredential().get_token("x").token

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            payload = json.dumps({"access_token": token, "expires_on": "4102444800", "token_type": "Bearer"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_port}/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    try:
        settings = standin.settings(POWERBI_AUTH="managed_identity")
        client = Client(settings, credential_of(settings))
        assert client.send("GET", client.group("/users")).status_code == 200
    finally:
        server.shutdown()
        server.server_close()
    assert "resource=https" in asked[0]


def test_command_line_plans_applies_and_names_the_ids(
    standin: Running, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(project, **NEW)
    (project / "key.json").write_text(KEY, encoding="utf-8")
    monkeypatch.setenv("POWERBI_API_URL", standin.url)
    monkeypatch.setenv("POWERBI_BIGQUERY_KEY_FILE", str(project / "key.json"))
    runner, arguments = CliRunner(), ["test", "--project", str(project)]
    planned = runner.invoke(main, ["plan", *arguments])
    assert planned.output.splitlines()[-1] == "7 changes", planned.output
    done = runner.invoke(main, ["apply", *arguments, "--yes"])
    assert done.exit_code == 0, done.output
    assert "7 changes applied, 0 left" in done.output
    assert f"POWERBI_DATASET_ID={publisher(standin, project, **NEW).find().model}" in done.output
    assert runner.invoke(main, ["plan", *arguments]).output == "0 changes\n"
    assert '"uk@example.com"' in runner.invoke(main, ["role-members", *arguments]).output


@pytest.mark.parametrize(
    "changes",
    [
        {"storage": "fast"},
        {"colour": "red"},
        {"source": {"access": "magic"}},
        {"source": {"access": "connection"}},
        {"roles": {"United Kingdom": [{"identifier": "a'b", "type": "User"}]}},
        {"workspace": {"users": [], "colour": "red"}},
        {"workspace": {"users": [{"identifier": "x", "type": "User", "right": "Owner"}]}},
        {"dataset": {"users": [{"identifier": "", "type": "User", "right": "Read"}]}},
    ],
)
def test_declaration_that_is_not_understood_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ProjectError):
        environment(tmp_path, **changes)


def test_the_projects_own_environments_can_be_read() -> None:
    for name in ("dev", "test", "prod"):
        found = read_environment(shop.ROOM / "deployment.yaml", name)
        assert found.storage == "import"
        assert model_of(model_files(shop.ROOM, found)).tables


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
    recorded: tuple[str, list[dict[str, Any]]],
) -> None:
    url, asked = recorded
    workspace = "e6c4cab8-f8ec-4b12-9340-8388b4ded9a0"
    settings = PowerBiSettings.from_env({"POWERBI_API_URL": url, "POWERBI_WORKSPACE_ID": workspace})
    waits: list[float] = []
    client = Client(settings, StandInCredential(), sleep=waits.append)
    fabric = Fabric(client)
    response = client.send(
        "POST",
        f"{url}/v1/workspaces/{workspace}/items",
        {"displayName": "ABC", "type": "Report", "definition": {"parts": []}},
    )
    # It had succeeded when first asked; its result lies under another id, which was not recorded.
    with pytest.raises(ServiceError, match="31156112-d968-46c2-9b21-e1c35125899c/result"):
        fabric.follow(response, wants_result=True)
    assert [one["path"] for one in asked] == [
        f"/v1/workspaces/{workspace}/items",
        "/v1/operations/0bb5b1a1-a30b-4cce-86fa-33170aacda03",
        "/v1/operations/31156112-d968-46c2-9b21-e1c35125899c/result",
    ]
    assert waits == [20.0]
    # The semantic model's operation was recorded while it ran: each poll waits as long as the service says.
    response = client.send(
        "POST",
        f"{url}/v1/workspaces/{workspace}/items",
        {"displayName": "ABC", "type": "SemanticModel", "definition": {"parts": []}},
    )
    with pytest.raises(ServiceError, match="404"):
        fabric.follow(response)
    assert waits == [20.0] * 6
