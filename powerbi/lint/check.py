"""`powerbi check`: every check over a project folder. Here: which checks run, on what. Not here: the checks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from powerbi.errors import ProjectError
from powerbi.lint.contracts import check_contracts
from powerbi.lint.finding import Finding
from powerbi.lint.model_checks import check_model
from powerbi.lint.report_checks import check_report
from powerbi.lint.rules import check_rules
from powerbi.model import Model, model_of
from powerbi.pbir import report_of
from powerbi.storage import STORAGES, with_storage
from powerbi.texts import read_texts

if TYPE_CHECKING:
    from pathlib import Path


def project_files(folder: Path, suffix: str) -> tuple[str, dict[str, str]]:
    """Name and text files of the project's `*.<suffix>` folder.

    Raises:
        ProjectError: there is none, or a file of it is no text.
    """
    found = next(iter(sorted(folder.glob(f"*.{suffix}"))), None)
    if found is None:
        raise ProjectError(str(folder), 0, f"no *.{suffix} folder; is this a Power BI project?")
    return found.name, read_texts(found)


def check_project(folder: Path, *, catalog: Any = None) -> list[Finding]:
    """Check a project folder.

    Args:
        folder: holds `*.SemanticModel` and `*.Report`.
        catalog: the marts' promises, `dbt_like_sql.catalog.load_catalog()`; None leaves the contracts out.
    """
    model_name, model_files = project_files(folder, "SemanticModel")
    report_name, report_files = project_files(folder, "Report")
    findings, model = _model_findings(model_name, model_files, catalog)
    if model is not None and not [one for one in findings if one.severity == "error"]:
        findings += _storage_findings(model_name, model_files)
    findings += _json_findings(report_name, report_files)
    if model is not None and not findings_in(findings, "json"):
        findings += _report_findings(report_name, report_files, model)
    return sorted(set(findings))


def findings_in(findings: list[Finding], rule: str) -> list[Finding]:
    """Those of one rule."""
    return [one for one in findings if one.rule == rule]


def _model_findings(name: str, files: dict[str, str], catalog: Any) -> tuple[list[Finding], Model | None]:
    try:
        model = model_of(files)
    except ProjectError as error:
        return [_located(name, Finding(error.file, error.line, "tmdl", error.what, "Correct the file."))], None
    found = [*check_model(model), *check_rules(model)]
    if catalog is not None:
        found += check_contracts(model, catalog)
    return [_located(name, one) for one in found], model


def _storage_findings(name: str, files: dict[str, str]) -> list[Finding]:
    """What is wrong only with the files that an environment of another storage mode gets."""
    found = []
    for storage in STORAGES[1:]:
        try:
            model = model_of(with_storage(files, storage))
        except ProjectError as error:
            one = Finding(error.file, error.line, "tmdl", f"as {storage}: {error.what}", "Correct the file.")
            found.append(_located(name, one))
            continue
        found += [
            _located(name, replace(one, what=f"as {storage}: {one.what}"))
            for one in check_model(model)
            if one.severity == "error"
        ]
    return found


def _report_findings(name: str, files: dict[str, str], model: Model) -> list[Finding]:
    try:
        report = report_of(files)
    except ProjectError as error:
        return [_located(name, Finding(error.file, error.line, "pbir", error.what, "Correct the file."))]
    return [_located(name, one) for one in check_report(report, model, files)]


def _json_findings(name: str, files: dict[str, str]) -> list[Finding]:
    found = []
    for path, text in files.items():
        if path.endswith(".tmdl"):
            continue
        try:
            loaded = json.loads(text)
        except json.JSONDecodeError as error:
            found.append(
                _located(name, Finding(path, error.lineno, "json", f"not JSON: {error.msg}", "Correct the file."))
            )
            continue
        if path.startswith(("definition/", "definition.")) and "$schema" not in loaded:
            found.append(
                _located(
                    name, Finding(path, 1, "schema", "the file names no $schema", "Copy the line from a neighbour.")
                )
            )
    return found


def _located(folder: str, one: Finding) -> Finding:
    return Finding(f"{folder}/{one.file}", one.line, one.rule, one.what, one.remedy, one.severity)
