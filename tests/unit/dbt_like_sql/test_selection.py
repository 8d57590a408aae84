"""Tables that differ from a git revision can be selected."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.errors import SelectionError
from dbt_like_sql.selection import select
from tests.unit.dbt_like_sql.models import write_table


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "project" / "models"
    write_table(folder, "core.lines", materialization="loaded")
    write_table(folder, "mart.sums", query="SELECT a FROM core.lines")
    write_table(folder, "mart.tops", query="SELECT a FROM mart.sums")
    _git(tmp_path, "init", "-q", "project")
    _git(folder, "add", ".")
    _git(folder, "commit", "-qm", "first")
    return folder


def test_changed_uncommitted_and_new_tables_are_selected_with_what_reads_them(models: Path) -> None:
    assert select(load_catalog(models), ["changed:HEAD"]) == []
    write_table(models, "mart.sums", query="SELECT UPPER(a) AS a FROM core.lines")
    write_table(models, "mart.fresh", query="SELECT a FROM core.lines")
    load_catalog.__globals__["_load"].cache_clear()
    catalog = load_catalog(models)
    assert select(catalog, ["changed:HEAD"]) == ["mart.fresh", "mart.sums"]
    assert select(catalog, ["changed:HEAD+"]) == ["mart.fresh", "mart.sums", "mart.tops"]
    _git(models, "add", ".")
    _git(models, "commit", "-qm", "second")
    assert select(catalog, ["changed:HEAD"]) == []
    assert select(catalog, ["changed:HEAD~1"]) == ["mart.fresh", "mart.sums"]


def test_table_whose_checks_moved_to_another_one_has_changed_too(models: Path) -> None:
    write_table(models, "mart.sums", query="SELECT a FROM core.lines", checks="#fail it has rows\nSELECT 1 AS a\n")
    _git(models, "add", ".")
    _git(models, "commit", "-qm", "checks")
    _git(models, "config", "diff.renames", "true")
    _git(models, "mv", "mart/sums/checks.sql", "mart/tops/checks.sql")
    load_catalog.__globals__["_load"].cache_clear()
    assert select(load_catalog(models), ["changed:HEAD"]) == ["mart.sums", "mart.tops"]


def test_project_in_a_folder_whose_name_git_would_quote_is_looked_at_all_the_same(tmp_path: Path) -> None:
    models = tmp_path / "Málaga" / "models"
    write_table(models, "mart.sums", query="SELECT 'x' AS a")
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "first")
    _git(tmp_path, "config", "diff.relative", "true")
    write_table(models, "mart.sums", query="SELECT 'y' AS a")
    write_table(models, "mart.fresh", query="SELECT 'x' AS a")
    assert select(load_catalog(models), ["changed:HEAD"]) == ["mart.fresh", "mart.sums"]


def test_revision_is_never_an_option_of_git(models: Path) -> None:
    with pytest.raises(SelectionError, match="changed:--cached: an option of git is no revision"):
        select(load_catalog(models), ["changed:--cached"])


def test_unknown_revision_is_told_in_git_s_own_words(models: Path) -> None:
    with pytest.raises(SelectionError, match="no-such-branch"):
        select(load_catalog(models), ["changed:no-such-branch"])
