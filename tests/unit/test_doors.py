"""Rooms import each other at their doors only, and each setting that is read is explained in .env.example."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOMS = ("streaming", "mage_project", "dbt_like_sql", "powerbi", "orchestration")
# What a room may import of another; orchestration wires all of them, through the same doors.
DOORS = {
    "streaming": {"lake", "settings", "errors"},
    "dbt_like_sql": {
        "load", "catalog", "publish", "migrate", "reconcile", "warehouse", "settings", "errors",
        "contract",  # a table's promise, as the catalog hands it out
        "checks",  # results of published checks
        "trace",  # which rows hold an event, which events a row is made of
        "quotas",  # how much of a day's budget is used
        "compare", "plan",  # what would differ, before it is published
    },
    "powerbi": {
        "refresh", "publish", "settings", "errors",
        "rest",  # the client that refresh and publish are given
        "verify", "pictures",
        "lineage",  # which measures show which columns
    },
    "mage_project": {"settings", "reading", "writing"},
}  # fmt: skip
PURE = {
    "streaming/contract.py", "streaming/decode.py", "dbt_like_sql/catalog.py", "dbt_like_sql/graph.py",
    "dbt_like_sql/render.py", "powerbi/tmdl.py",
}  # fmt: skip
CLIENTS = {"psycopg2", "confluent_kafka", "google", "requests", "dagster", "mage_ai", "azure", "socket"}
SETTING = re.compile(
    r"""["']((?:KAFKA|STREAMING|LAKE|WAREHOUSE|BIGQUERY|POWERBI|METRICS|SERVE|ALERT|LOG)_[A-Z_]+)["']"""
)


def sources(root: Path, room: str) -> list[Path]:
    return sorted(path for path in (root / room).rglob("*.py") if "__pycache__" not in path.parts)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_others_at_their_doors_only(room: str, repository: Path) -> None:
    wrong = []
    for path in sources(repository, room):
        for name in imported(ast.parse(path.read_text())):
            other, *inside = name.split(".")
            if other in ROOMS and other != room and inside and inside[0] not in DOORS.get(other, set()):
                wrong.append(f"{path.relative_to(repository)} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_module_imports_no_client(module: str, repository: Path) -> None:
    names = {name.split(".")[0] for name in imported(ast.parse((repository / module).read_text()))}
    assert not names & CLIENTS


def test_only_orchestration_knows_dagster_and_only_its_mage_module_knows_mage(repository: Path) -> None:
    wrong = []
    for room in ROOMS:
        for path in sources(repository, room):
            names = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
            if "dagster" in names and room != "orchestration":
                wrong.append(f"{path} imports dagster")
            shell = path.parent.name in {"data_loaders", "transformers", "data_exporters"}
            if "mage_ai" in names and not shell and path != repository / "orchestration" / "mage.py":
                wrong.append(f"{path} imports mage_ai")
    assert not wrong, "\n".join(wrong)


def test_every_setting_that_is_read_is_in_the_example(repository: Path) -> None:
    explained = set(re.findall(r"^([A-Z_]+)=", (repository / ".env.example").read_text(), re.MULTILINE))
    read = {name for room in ROOMS for path in sources(repository, room) for name in SETTING.findall(path.read_text())}
    assert read, "the pattern finds no settings"
    assert not read - explained


def test_packages_have_empty_init_files(repository: Path) -> None:
    full = [
        path for room in ROOMS for path in sources(repository, room) if path.name == "__init__.py" and path.read_text()
    ]
    assert full == []
