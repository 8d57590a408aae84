"""Every JSON file of the project against Microsoft's published schema for it, and the TMDL files as text.

The schemas lie beside the checkout (they are Microsoft's, used by tests only); without them this skips.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from powerbi import tmdl
from powerbi.storage import with_storage
from tests.unit.powerbi import shop

pytestmark = pytest.mark.integration

SCHEMAS = Path(__file__).parents[4] / "shared/powerbi/json-schemas"
BASE = "https://developer.microsoft.com/json-schemas/"
FILES = sorted(
    path
    for path in [*shop.ROOM.glob("*.pbip"), *shop.ROOM.glob("Retail.*/**/*")]
    if path.suffix in (".pbip", ".json", ".pbir", ".pbism") or path.name == ".platform"
)
JSON = [path for path in FILES if "StaticResources" not in path.parts]  # themes have no published schema
TMDL = sorted(shop.ROOM.glob("Retail.SemanticModel/**/*.tmdl"))


def _shown(path: Path) -> str:
    return path.relative_to(shop.ROOM).as_posix()


@pytest.fixture(scope="module")
def registry() -> Any:
    if not SCHEMAS.is_dir():
        pytest.skip(f"Microsoft's schemas are not at {SCHEMAS}")
    resources = [
        (
            BASE + path.relative_to(SCHEMAS).as_posix(),
            Resource(json.loads(path.read_text(encoding="utf-8-sig")), DRAFT7),
        )
        for path in SCHEMAS.rglob("*.json")
    ]
    return Registry().with_resources(resources)


def problems(document: dict[str, Any], registry: Any) -> list[str]:
    """What a schema says against a document; one that names no known schema is a problem too."""
    name = document.get("$schema", "")
    if name not in registry:
        return [f"$schema {name!r} is none of Microsoft's"]
    # the address is relative to the file's own folder, which `$id` names wrongly in some of them
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": name}
    found = Draft7Validator(schema, registry=registry).iter_errors(document)
    return [f"{'/'.join(map(str, one.absolute_path))}: {one.message[:300]}" for one in found]


@pytest.mark.parametrize("path", JSON, ids=_shown)
def test_file_follows_its_schema(path: Path, registry: Any) -> None:
    assert problems(json.loads(path.read_text(encoding="utf-8")), registry) == []


def test_the_project_has_all_of_its_files() -> None:
    names = {_shown(path) for path in FILES}
    for name in ("Retail.pbip", "Retail.Report/definition.pbir", "Retail.SemanticModel/definition.pbism"):
        assert name in names
    assert {"Retail.Report/.platform", "Retail.SemanticModel/.platform"} <= names
    assert len([name for name in names if name.endswith("visual.json")]) > 40


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("position", "x"), "left"),
        (("visual", "visualType"), 7),
        (("visual", "query", "queryState"), []),
        (("name",), None),
        (("nmae",), "x"),
        (("$schema",), BASE + "fabric/item/report/definition/visualContainer/99.0.0/schema.json"),
    ],
)
def test_a_broken_visual_is_refused(registry: Any, where: tuple[str, ...], value: Any) -> None:
    path = shop.ROOM / "Retail.Report/definition/pages/overview/visuals/card_orders/visual.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    assert problems(document, registry) == []
    broken = copy.deepcopy(document)
    inner = broken
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    assert problems(broken, registry)


def test_every_resource_that_the_report_names_is_there() -> None:
    folder = shop.ROOM / "Retail.Report"
    report = json.loads((folder / "definition/report.json").read_text(encoding="utf-8"))
    packages = {
        one["name"]: {item["name"]: item["path"] for item in one["items"]} for one in report["resourcePackages"]
    }
    for theme in report["themeCollection"].values():
        path = folder / "StaticResources" / theme["type"] / packages[theme["type"]][theme["name"]]
        assert json.loads(path.read_text(encoding="utf-8"))["name"]


@pytest.mark.parametrize("path", TMDL, ids=_shown)
def test_tmdl_is_tabs_line_feeds_and_no_byte_order_mark(path: Path) -> None:
    raw = path.read_bytes()
    assert not raw.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in raw
    assert raw.endswith(b"\n")
    assert tmdl.parse(raw.decode("utf-8"), path.name)


@pytest.mark.parametrize("storage", ["import", "directQuery", "hybrid"])
def test_every_storage_mode_gives_files_that_parse(storage: str) -> None:
    files = {
        path.relative_to(shop.ROOM / "Retail.SemanticModel").as_posix(): path.read_text(encoding="utf-8")
        for path in TMDL
    }
    for path, text in with_storage(files, storage).items():
        assert tmdl.parse(text, path)
