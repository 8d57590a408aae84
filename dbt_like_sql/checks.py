"""Checks of a table: those of checks.sql, and those that follow from its contract.

Belongs here: finding checks and writing them as SELECTs of offending rows. Does not: running them (publish.py).

A checks.sql is plain GoogleSQL; `#` starts a comment there. Each check is one SELECT under a line that names it:

    #fail net sales are gross sales less returns
    SELECT * FROM mart.daily_sales_by_country WHERE invoice_date IN UNNEST(@days) AND ...;

It passes when it returns no row. `#fail` blocks publishing, `#warn` only tells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dbt_like_sql.contract import read_text
from dbt_like_sql.errors import ContractError
from dbt_like_sql.graph import tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dbt_like_sql.contract import Column

Severity = Literal["fail", "warn"]
_HEAD = re.compile(r"^#\s*(fail|warn)\b[:\s]*(.*)$")


@dataclass(frozen=True)
class Check:
    """One check: a SELECT that returns the rows which break a promise."""

    name: str
    severity: Severity
    sql: str
    line: int | None = None


def read_checks(path: Path) -> tuple[Check, ...]:
    """Read a checks.sql.

    Raises:
        ContractError: SQL before the first #fail or #warn, a check without name or SQL, two of one name, or SQL that is
            not one SELECT of our tables.
    """
    checks: list[Check] = []
    head: tuple[int, Severity, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        found = _HEAD.match(line)
        if found:
            _close(path, checks, head, lines)
            head, lines = (number, "fail" if found[1] == "fail" else "warn", found[2].strip()), []
        elif head is None and line.strip() and not line.lstrip().startswith(("#", "--")):
            raise ContractError(path, number, "SQL before the first #fail or #warn line")
        else:
            lines.append(line)
    _close(path, checks, head, lines)
    return tuple(checks)


def _close(path: Path, checks: list[Check], head: tuple[int, Severity, str] | None, lines: Sequence[str]) -> None:
    if head is None:
        return
    number, severity, name = head
    sql = "\n".join(lines).strip().rstrip(";").strip()
    if not name:
        raise ContractError(path, number, f"#{severity} without a name; write what is true when it passes")
    if not sql:
        raise ContractError(path, number, f"#{severity} {name}: no SQL follows")
    if name in {check.name for check in checks}:
        raise ContractError(path, number, f"#{severity} {name}: stands twice")
    try:
        tree(sql, path)
    except ContractError as error:
        above = number + next(at for at, line in enumerate(lines) if line.strip())
        line = above + error.line if error.line else number
        raise ContractError(path, line, f"#{severity} {name}: {error.problem}") from error
    checks.append(Check(name, severity, sql, number))


def contract_checks(
    table: str, columns: Sequence[Column], partition_column: str | None, *, is_view: bool = False
) -> tuple[Check, ...]:
    """Checks that follow from a contract: the key is unique within a day, values are among the allowed ones.

    Within a day, since a day is what is published: whether a day may be shown must not depend on which others are
    published with it.

    NOT NULL needs no check in a table: BigQuery itself refuses a NULL in a REQUIRED column. In a view it refuses none.
    """
    where = f"WHERE {partition_column} IN UNNEST(@days)" if partition_column else "WHERE TRUE"
    keys = [column.name for column in columns if column.is_key]
    checks = []
    if keys:
        listed = ", ".join(keys)
        within = ", ".join(([partition_column] if partition_column and partition_column not in keys else []) + keys)
        checks.append(
            Check(
                f"one row for each {listed}",
                "fail",
                f"SELECT {within}, COUNT(*) AS row_count FROM {table} {where} GROUP BY {within} HAVING COUNT(*) > 1",
            )
        )
    required = [column.name for column in columns if column.is_required]
    if is_view and required:
        is_null = " OR ".join(f"{name} IS NULL" for name in required)
        sql = f"SELECT {', '.join(required)} FROM {table} {where} AND ({is_null})"
        checks.append(Check("required columns have a value", "fail", sql))
    for column in columns:
        if column.allowed:
            values = ", ".join(_literal(column, value) for value in column.allowed)
            checks.append(
                Check(
                    f"{column.name} is one of its contract's values",
                    "fail",
                    f"SELECT {column.name} FROM {table} {where} AND {column.name} NOT IN ({values})",
                )
            )
    return tuple(checks)


def _literal(column: Column, value: str) -> str:
    if column.type == "INT64":
        return value
    text = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return text if column.type == "STRING" else f"{column.type} {text}"
