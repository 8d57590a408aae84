"""Unit tests of SQL as YAML, run without creating a table.

Belongs here: reading a case, putting its rows in place of the tables, comparing. Does not: pytest, BigQuery clients.

A case is a folder tests/sql/<table>/<case>/ with a `<layer.table>.yaml` for each table that the query reads (a list of
rows; columns left out are NULL), `expect.yaml` (a list of rows, in any order; or `contains:` some of them and
`row_count:`), and `params.yaml` with `days:` and `today:` where the query uses them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from sqlglot import parse_one

from dbt_like_sql.contract import read_yaml
from dbt_like_sql.errors import ContractError
from dbt_like_sql.graph import DIALECT, put_in_place, table_nodes, tree
from dbt_like_sql.render import quote, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.contract import Column

_NOT_TABLES = {"expect", "params"}


@dataclass(frozen=True)
class Case:
    """One case: what the query reads, with which parameters, and what must come out."""

    folder: Path
    table: str
    inputs: dict[str, list[dict[str, Any]]]
    expected: list[dict[str, Any]]
    row_count: int | None = None
    days: list[date] | None = None
    params: dict[str, Any] = field(default_factory=dict)


def read_cases(root: Path) -> list[Case]:
    """Every case below a folder.

    Raises:
        ContractError: a file is missing or is not what it should be.
    """
    return [_read_case(folder) for folder in sorted({path.parent for path in root.glob("*/*/*.yaml")})]


def case_sql(catalog: Catalog, case: Case) -> str:
    """The table's query over the case's rows instead of its tables."""
    table = _table(catalog, case)
    missing = sorted(set(table.depends_on) - set(case.inputs))
    unused = sorted(set(case.inputs) - set(table.depends_on))
    if missing or unused:
        problem = f"the query reads {', '.join(table.depends_on)}; missing {missing}, not read {unused}"
        raise ContractError(case.folder, None, problem)
    query = tree(table.query or "", table.query_path).copy()
    for name, node in table_nodes(query):
        rows = parse_one(_rows_sql(catalog[name], case.inputs[name], case.folder), dialect=DIALECT)
        put_in_place(rows, name, node)
    return render(str(query.sql(dialect=DIALECT)), table_id=lambda name: f"case.{name}", days=case.days)


def differences(catalog: Catalog, case: Case, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What came out beside what was expected; empty when they agree."""
    table = _table(catalog, case)
    names = list(case.expected[0]) if case.expected else list(table.column_names)
    _refuse_unknown(table, names, case.folder / "expect.yaml")
    got = [{name: row[name] for name in names} for row in rows]
    want = [{name: _value(table.column(name), row[name], case.folder) for name in names} for row in case.expected]
    problems = [f"missing {row}" for row in want if got.count(row) < want.count(row)]
    if case.row_count is None:
        problems += [f"not expected {row}" for row in got if got.count(row) > want.count(row)]
    elif case.row_count != len(got):
        problems.append(f"{len(got)} rows; expected {case.row_count}")
    return problems


def _table(catalog: Catalog, case: Case) -> Table:
    if case.table not in catalog:
        raise ContractError(
            case.folder, None, f"no contract names {case.table}, after which the case's folder is named"
        )
    return catalog[case.table]


def _refuse_unknown(table: Table, names: Iterable[str], path: Path) -> None:
    unknown = sorted(map(str, set(names) - set(table.column_names)))
    if unknown:
        raise ContractError(path, None, f"{table.name} has no column {', '.join(unknown)}")


def _read_case(folder: Path) -> Case:
    path = folder / "expect.yaml"
    if not path.exists():
        raise ContractError(folder, None, "a case without expect.yaml, the rows that must come out")
    expect = read_yaml(path)
    is_part = isinstance(expect, dict)
    if is_part and set(expect) != {"contains", "row_count"}:
        raise ContractError(
            path, None, f"it has {', '.join(map(str, expect))}; expected a list of rows, or contains and row_count"
        )
    if is_part and type(expect["row_count"]) is not int:
        raise ContractError(path, None, f"row_count is {expect['row_count']!r}; expected a whole number")
    rows = _rows(path, expect["contains"] if is_part else expect)
    if any(set(row) != set(rows[0]) for row in rows):
        raise ContractError(path, None, "every expected row must name the same columns")
    params = (read_yaml(folder / "params.yaml") or {}) if (folder / "params.yaml").exists() else {}
    if not isinstance(params, dict):
        raise ContractError(folder / "params.yaml", None, "expected parameters by name")
    days = params.pop("days", None)
    if days is not None and not (isinstance(days, list) and all(type(day) is date for day in days)):
        problem = f"days is {days!r}; expected a list of dates, without quotes, such as [2010-12-01]"
        raise ContractError(folder / "params.yaml", None, problem)
    return Case(
        folder=folder,
        table=folder.parent.name,
        inputs={
            each.stem: _rows(each, read_yaml(each)) for each in folder.glob("*.yaml") if each.stem not in _NOT_TABLES
        },
        expected=rows,
        row_count=expect["row_count"] if is_part else None,
        days=days,
        params=params,
    )


def _rows(path: Path, found: Any) -> list[dict[str, Any]]:
    rows = [] if found is None else found
    if not isinstance(rows, list) or any(not isinstance(row, dict) for row in rows):
        raise ContractError(path, None, "expected a list of rows, each with its columns by name; [] for no row")
    return rows


def _rows_sql(table: Table, rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    _refuse_unknown(table, {name for row in rows for name in row}, folder / f"{table.name}.yaml")
    selects = [
        "SELECT "
        + ", ".join(f"{_literal(column, row.get(column.name), folder)} AS {column.name}" for column in table.columns)
        for row in rows or [{}]
    ]
    return "\nUNION ALL\n".join(selects) if rows else f"SELECT * FROM ({selects[0]}) AS nothing WHERE FALSE"


def _literal(column: Column, value: Any, folder: Path) -> str:
    found = _value(column, value, folder)
    if found is not None and column.type.startswith("ARRAY"):
        problem = f"{column.name}: a case cannot give values of an {column.type}; leave the column out, it is NULL then"
        raise ContractError(folder, None, problem)
    if found is None:
        return f"CAST(NULL AS {column.type})"
    text = found.isoformat() if isinstance(found, (date, datetime)) else str(found)
    return f"CAST({quote(text)} AS {column.type})"


def _value(column: Column, value: Any, folder: Path) -> Any:
    """A YAML value as BigQuery's client returns it."""
    if value is None:
        return None
    if isinstance(value, float):
        raise ContractError(folder, None, f"{column.name}: {value} is a float in YAML; quote it to keep it exact")
    try:
        return _READ.get(column.type, lambda given: given)(value)
    except (TypeError, ValueError, InvalidOperation, KeyError) as error:
        raise ContractError(folder, None, f"{column.name}: {value!r} is not a {column.type}") from error


def _utc(value: Any) -> datetime:
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _text(value: Any) -> str:
    """A text, or a number that stands for one; YAML reads NO as false, which would be another text in both files."""
    if isinstance(value, bool):
        raise TypeError(value)
    return str(value)


_READ: dict[str, Callable[[Any], Any]] = {
    "NUMERIC": lambda value: Decimal(str(value)),
    "INT64": lambda value: int(str(value)),  # not of true and false, which int() takes
    "BOOL": lambda value: {"true": True, "false": False}[str(value).lower()],
    "TIMESTAMP": _utc,
    "DATE": lambda value: value if type(value) is date else date.fromisoformat(str(value)),
    "STRING": _text,
}
