"""Every answer of the stand-in against Microsoft's own description of the REST, and the list of where it deviates.

The description is not part of the project; without it these tests are skipped.
"""

from __future__ import annotations

import base64
import json
import re
import time
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import requests

from powerbi.ids import STANDIN_DATASET, STANDIN_REPORT, STANDIN_WORKSPACE
from powerbi.lint.check import project_files
from powerbi.pictures import export_report
from powerbi.rest import StandInCredential
from powerbi.standin.app import create_app
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.powerbi.running import Running

pytestmark = pytest.mark.integration

# Where the documentation, or recorded traffic, says otherwise than the description: (definition, property) -> why.
DEVIATIONS: dict[tuple[str, str], str] = {
    ("DatasetRefreshDetail", "status"): "documented: also Cancelled; the description lists four states",
    ("DatasetRefreshDetail", "objects"): "the description lists status values in another spelling",
}
# Requests the description refuses and the documentation shows.
REQUEST_DEVIATIONS: dict[str, str] = {
    "timeout": "documented for enhanced refresh, absent from the description",
    "notifyOption": "required by the description; the text beside it says it must be left out of an enhanced refresh",
}
_NAMES = {
    "group": "groupId", "dataset": "datasetId", "refresh": "refreshId", "user": "user", "gateway": "gatewayId",
    "source": "datasourceId", "report": "reportId", "export": "exportId",
}  # fmt: skip
_GROUP, _SET = STANDIN_WORKSPACE, STANDIN_DATASET


@pytest.fixture(scope="module")
def described(repository: Path) -> dict[str, Any]:
    path = repository.parent / "shared/powerbi/powerbi-rest-swagger.json"
    if not path.exists():
        pytest.skip(f"no description of Power BI's REST at {path}")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def fabric(repository: Path) -> dict[str, Any]:
    folder = repository.parent / "shared/powerbi/fabric-rest"
    if not folder.is_dir():
        pytest.skip(f"no description of Fabric's REST at {folder}")
    found: dict[str, Any] = {}
    for part in ("platform", "semanticModel", "report"):
        found |= json.loads((folder / part / "swagger.json").read_text(encoding="utf-8"))["paths"]
    return found


def call(standin: Running, method: str, path: str, body: Any = None) -> requests.Response:
    token = StandInCredential().get_token("x").token
    return requests.request(
        method, standin.url + path, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=60
    )


def test_every_route_of_the_service_is_described(
    described: dict[str, Any], fabric: dict[str, Any], filled: Running
) -> None:
    fabric_paths = {re.sub(r"\{\w+\}", "{}", path): operations for path, operations in fabric.items()}
    missing = []
    for route in create_app(filled.service).routes:
        path = getattr(route, "path", "")
        methods = {one.lower() for one in getattr(route, "methods", None) or ()} - {"head"}
        if path.startswith("/v1.0/"):
            wanted = re.sub(r"\{(\w+)\}", lambda match: "{" + _NAMES[match[1]] + "}", path)
            operations = described["paths"].get(wanted, {})
        elif path.startswith("/v1/"):
            paths = (
                [path]
                if "{kind:str}" not in path
                else [path.replace("{kind:str}", kind) for kind in ("semanticModels", "reports")]
            )
            for one in paths:
                operations = fabric_paths.get(re.sub(r"\{\w+\}", "{}", one.removeprefix("/v1")), {})
                missing += [f"{method} {one}" for method in methods if method not in operations]
            continue
        else:
            continue
        missing += [f"{method} {path}" for method in methods if method not in operations]
    assert missing == []


@pytest.mark.parametrize(
    ("method", "path", "template", "body"),
    [
        ("GET", "/v1.0/myorg/groups", "/v1.0/myorg/groups", None),
        ("GET", f"/v1.0/myorg/groups/{_GROUP}/datasets", "/v1.0/myorg/groups/{groupId}/datasets", None),
        (
            "GET",
            f"/v1.0/myorg/groups/{_GROUP}/datasets/{_SET}",
            "/v1.0/myorg/groups/{groupId}/datasets/{datasetId}",
            None,
        ),
        (
            "GET",
            f"/v1.0/myorg/groups/{_GROUP}/datasets/{_SET}/refreshes",
            "/v1.0/myorg/groups/{groupId}/datasets/{datasetId}/refreshes",
            None,
        ),
        (
            "GET",
            f"/v1.0/myorg/groups/{_GROUP}/datasets/{_SET}/parameters",
            "/v1.0/myorg/groups/{groupId}/datasets/{datasetId}/parameters",
            None,
        ),
        (
            "GET",
            f"/v1.0/myorg/groups/{_GROUP}/datasets/{_SET}/datasources",
            "/v1.0/myorg/groups/{groupId}/datasets/{datasetId}/datasources",
            None,
        ),
        (
            "GET",
            f"/v1.0/myorg/groups/{_GROUP}/datasets/{_SET}/users",
            "/v1.0/myorg/groups/{groupId}/datasets/{datasetId}/users",
            None,
        ),
        ("GET", f"/v1.0/myorg/groups/{_GROUP}/users", "/v1.0/myorg/groups/{groupId}/users", None),
        ("GET", f"/v1.0/myorg/groups/{_GROUP}/reports", "/v1.0/myorg/groups/{groupId}/reports", None),
        (
            "POST",
            f"/v1.0/myorg/groups/{_GROUP}/datasets/{_SET}/executeQueries",
            "/v1.0/myorg/groups/{groupId}/datasets/{datasetId}/executeQueries",
            {"queries": [{"query": 'EVALUATE ROW("a", [Total Amount])'}]},
        ),
    ],
)
def test_answer_has_the_described_shape(
    described: dict[str, Any], filled: Running, method: str, path: str, template: str, body: Any
) -> None:
    put = {"identifier": "a@example.com", "principalType": "User"}
    call(filled, "POST", f"/v1.0/myorg/groups/{_GROUP}/users", put | {"groupUserAccessRight": "Viewer"})
    call(filled, "POST", f"/v1.0/myorg/groups/{_GROUP}/datasets/{_SET}/users", put | {"datasetUserAccessRight": "Read"})
    response = call(filled, method, path, body)
    assert response.status_code == 200
    schema = described["paths"][template][method.lower()]["responses"]["200"]["schema"]
    assert _faults(described, schema, response.json()) == []
    assert response.json().get("value") != []


def test_refresh_has_the_described_shape_in_each_of_its_states(described: dict[str, Any], filled: Running) -> None:
    base = f"/v1.0/myorg/groups/{_GROUP}/datasets/{_SET}/refreshes"
    template = "/v1.0/myorg/groups/{groupId}/datasets/{datasetId}/refreshes"
    bodies = ({"type": "Full", "objects": [{"table": "Country"}]}, {"type": "Full", "commitMode": "Transactional"})
    for body, fault, end in zip(
        bodies,
        ({"kind": "slow_refresh", "seconds": 0.2}, {"kind": "fail_refresh"}),
        ("Completed", "Failed"),
        strict=True,
    ):
        filled.service.faults.add(fault)
        accepted = call(filled, "POST", base, body)
        assert str(accepted.status_code) in described["paths"][template]["post"]["responses"]
        seen = set()
        while True:
            response = call(filled, "GET", f"{base}/{accepted.headers['x-ms-request-id']}")
            schema = described["paths"][template + "/{refreshId}"]["get"]["responses"][str(response.status_code)][
                "schema"
            ]
            assert _faults(described, schema, response.json()) == []
            seen.add(response.json()["extendedStatus"])
            if response.status_code == 200:
                break
            time.sleep(0.02)
        assert end in seen


def test_export_of_the_report_has_the_described_shape_in_each_of_its_states(
    described: dict[str, Any], filled: Running
) -> None:
    base = f"/v1.0/myorg/groups/{_GROUP}/reports/{STANDIN_REPORT}"
    template = "/v1.0/myorg/groups/{groupId}/reports/{reportId}"
    accepted = call(filled, "POST", f"{base}/ExportTo", {"format": "PNG"})
    schema = described["paths"][f"{template}/ExportTo"]["post"]["responses"][str(accepted.status_code)]["schema"]
    assert _faults(described, schema, accepted.json()) == []
    states = described["paths"][template + "/exports/{exportId}"]["get"]["responses"]
    for _ in range(600):
        state = call(filled, "GET", f"{base}/exports/{accepted.json()['id']}")
        assert _faults(described, states[str(state.status_code)]["schema"], state.json()) == []
        if state.status_code == 200:
            break
        time.sleep(0.05)
    assert state.json()["status"] == "Succeeded"
    files = export_report(filled.settings(), client=filled.client())
    assert set(files) == {*(f"{page.name}.png" for page in filled.service.report.pages), "report.html"}


def test_source_with_credentials_has_the_described_shape(described: dict[str, Any], filled: Running) -> None:
    source = call(filled, "GET", f"/v1.0/myorg/groups/{_GROUP}/datasets/{_SET}/datasources").json()["value"][0]
    address = f"/v1.0/myorg/gateways/{source['gatewayId']}/datasources/{source['datasourceId']}"
    template = "/v1.0/myorg/gateways/{gatewayId}/datasources/{datasourceId}"
    found = call(filled, "GET", address)
    schema = described["paths"][template]["get"]["responses"]["200"]["schema"]
    assert _faults(described, schema, found.json()) == []


@pytest.mark.parametrize(
    ("definition", "body"),
    [
        (
            "UpdateDatasourceRequest",
            {
                "credentialDetails": {
                    "credentialType": "Basic", "credentials": "{}", "encryptedConnection": "Encrypted",
                    "encryptionAlgorithm": "None", "privacyLevel": "Organizational",
                    "useEndUserOAuth2Credentials": False,
                }
            },
        ),
        ("BindToGatewayRequest", {"gatewayObjectId": _GROUP, "datasourceObjectIds": [_SET]}),
        ("UpdateMashupParametersRequest", {"updateDetails": [{"name": "MartDataset", "newValue": "mart"}]}),
        ("GroupUser", {"identifier": "a@b.com", "principalType": "User", "groupUserAccessRight": "Viewer"}),
        ("PostDatasetUserAccess", {"identifier": "a@b", "principalType": "User", "datasetUserAccessRight": "Read"}),
        ("DatasetUserAccess", {"identifier": "a@b", "principalType": "User", "datasetUserAccessRight": "None"}),
        ("ExportReportRequest", {"format": "PNG"}),
    ],
)  # fmt: skip
def test_what_publishing_sends_is_described(described: dict[str, Any], definition: str, body: dict[str, Any]) -> None:
    known = _properties(described, definition)
    assert set(body) <= set(known), f"{definition} has {sorted(known)}"
    assert _faults(described, {"$ref": f"#/definitions/{definition}"}, body) == []


def _properties(described: dict[str, Any], definition: str) -> set[str]:
    found = described["definitions"][definition]
    names = set(found.get("properties", {}))
    for parent in found.get("allOf", []):
        names |= _properties(described, parent["$ref"].rsplit("/", 1)[-1]) if "$ref" in parent else set()
    return names


@pytest.mark.parametrize(
    ("path", "definition"),
    [
        ("/v1/workspaces", "Workspace"),
        (f"/v1/workspaces/{_GROUP}", "WorkspaceInfo"),
        (f"/v1/workspaces/{_GROUP}/items", ""),
    ],
)
def test_fabrics_lists_have_the_described_properties(
    repository: Path, filled: Running, path: str, definition: str
) -> None:
    file = repository.parent / "shared/powerbi/fabric-rest/platform/definitions/platform.json"
    if not file.exists():
        pytest.skip(f"no description of Fabric's REST at {file}")
    definitions = json.loads(file.read_text(encoding="utf-8"))["definitions"]
    body = call(filled, "GET", path).json()
    one = body["value"][0] if "value" in body else body
    if not definition:
        common = json.loads((file.parents[2] / "common/definitions.json").read_text(encoding="utf-8"))["definitions"]
        known = set(common["Item"]["properties"])
    else:
        known = {name for part in ("Workspace", definition) for name in definitions[part]["properties"]}
    assert set(one) <= known
    assert {"id", "displayName"} <= set(one)


def test_request_of_the_client_is_a_described_one(described: dict[str, Any]) -> None:
    from powerbi.refresh import _REQUEST

    body = {**_REQUEST, "applyRefreshPolicy": False, "objects": [{"table": "Sales", "partition": "2010Q412"}]}
    known = described["definitions"]["DatasetRefreshRequest"]["properties"]
    assert set(body) - set(known) <= set(REQUEST_DEVIATIONS)
    faults = _faults(described, {"$ref": "#/definitions/DatasetRefreshRequest"}, body)
    assert faults == ["[]: 'notifyOption' is a required property"]


def test_operation_of_an_upload_has_the_described_shape(
    fabric: dict[str, Any], filled: Running, repository: Path
) -> None:
    operations = json.loads(
        (repository.parent / "shared/powerbi/fabric-rest/platform/definitions/platform.json").read_text(
            encoding="utf-8"
        )
    )
    files = project_files(shop.ROOM, "SemanticModel")[1]
    parts = [
        {"path": p, "payload": base64.b64encode(t.encode()).decode(), "payloadType": "InlineBase64"}
        for p, t in files.items()
    ]
    response = call(
        filled,
        "POST",
        f"/v1/workspaces/{_GROUP}/semanticModels/{_SET}/updateDefinition",
        {"definition": {"parts": parts}},
    )
    path = "/workspaces/{workspaceId}/semanticModels/{semanticModelId}/updateDefinition"
    assert str(response.status_code) in fabric[path]["post"]["responses"]
    operation = call(filled, "GET", response.headers["Location"].removeprefix(filled.url)).json()
    properties = operations["definitions"]["OperationState"]["properties"]
    assert set(operation) <= set(properties)
    assert operation["status"] in ("NotStarted", "Running", "Succeeded", "Failed")
    assert STANDIN_REPORT != STANDIN_DATASET


def _faults(described: dict[str, Any], schema: dict[str, Any], body: Any) -> list[str]:
    """What the description says against an answer, deviations apart."""
    root = {"definitions": described["definitions"], **schema}
    validator = jsonschema.Draft4Validator(root, format_checker=jsonschema.FormatChecker())
    allowed = {name for _, name in DEVIATIONS}
    return [
        f"{list(error.path)}: {error.message}"
        for error in validator.iter_errors(body)
        if not allowed & {str(part) for part in error.path}
    ]
