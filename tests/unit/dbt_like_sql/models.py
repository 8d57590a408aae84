"""Small model folders for tests."""

from __future__ import annotations

from pathlib import Path


def write_table(
    models: Path,
    name: str,
    *,
    query: str | None = None,
    checks: str | None = None,
    materialization: str | None = None,
    columns: str | None = None,
    extra: str = "",
    contract_id: str | None = None,
) -> Path:
    """Write models/<layer>/<table>/ with one STRING column `a`, or the given columns."""
    layer, _, short = name.partition(".")
    folder = models / layer / short
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("contract.yaml").write_text(
        f"apiVersion: v3.1.0\nkind: DataContract\nid: {contract_id or name}\nversion: 1.0.0\nstatus: active\n"
        "description:\n  purpose: P.\n  limitations: L.\nteam:\n  name: t\n"
        f"schema:\n  - name: {short}\n    dataGranularityDescription: One row.\n    customProperties:\n"
        f"      - property: materialization\n        value: {materialization or 'table'}\n{extra}    properties:\n"
        + (columns or column("a", "STRING")),
        encoding="utf-8",
    )
    if query is not None:
        folder.joinpath("query.sql").write_text(query, encoding="utf-8")
    if checks is not None:
        folder.joinpath("checks.sql").write_text(checks, encoding="utf-8")
    return folder


def column(name: str, kind: str, *, more: str = "") -> str:
    """One column of a contract; `more` are further keys, each line indented by eight blanks."""
    logical = {
        "STRING": "string", "INT64": "integer", "NUMERIC": "number", "DATE": "date", "TIMESTAMP": "timestamp",
        "ARRAY": "array",
    }  # fmt: skip
    return (
        f"      - name: {name}\n        logicalType: {logical[kind.partition('<')[0]]}\n        physicalType: {kind}\n"
        f"        description: The {name}.\n{more}"
    )
