"""Every measure of the model in every context, against an independent DAX engine: the two must agree cell by cell.

The engine (pinned, in the embedded environment, tests only) reads the same copy and the same DAX; whatever it reports
as an error, as unsupported or as timed out fails the test, since to it a fault is a BLANK. Where it is wrong itself
a comment says so, and which SQL shows it.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.compute as pc
import pytest

from powerbi.dax.context import ColumnKey
from powerbi.dax.queries import security_of
from powerbi.dax.query import Selection, VisualQuery
from powerbi.dax.translate import translate
from powerbi.standin.copied import Copy
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from powerbi.model import Model

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / "deploy/embedded/.venv/bin/python"
MONTH, DATE = ColumnKey("Date", "year_month"), ColumnKey("Date", "date")
QUARTER, WEEKDAY = ColumnKey("Date", "quarter"), ColumnKey("Date", "weekday_name")
COUNTRY, PRODUCT = ColumnKey("Country", "country"), ColumnKey("Product", "product")
KIND, GUEST = ColumnKey("Sales", "line_kind"), ColumnKey("Customer", "is_guest")
HALF = Selection(DATE, None, "2024-01-15", "2024-06-20")
TWO = Selection(COUNTRY, ("France", "Côte d'Ivoire"))


ROLES = {"United Kingdom": "country = 'United Kingdom'", "Outside United Kingdom": "country <> 'United Kingdom'"}


@dataclass(frozen=True)
class Asked:
    """A visual: groups under selections, read in a role."""

    groups: tuple[ColumnKey, ...] = ()
    selections: tuple[Selection, ...] = ()
    role: str = ""
    measures: tuple[str, ...] = field(default=())


CONTEXTS = {
    "in total": Asked(),
    "by month": Asked((MONTH,)),
    "by day": Asked((DATE,), (Selection(DATE, None, "2024-02-20", "2024-03-12"),)),
    "by quarter": Asked((QUARTER,)),
    "by weekday": Asked((WEEKDAY,)),
    "by country": Asked((COUNTRY,)),
    "by product": Asked((PRODUCT,)),
    "by kind of line": Asked((KIND,)),
    "by guest or not": Asked((GUEST,)),
    "by month and country": Asked((MONTH, COUNTRY), (HALF,)),
    "by country and month of one slicer": Asked((COUNTRY, MONTH), (TWO, HALF)),
    "under both slicers": Asked((), (HALF, TWO)),
    "by month under both slicers": Asked((MONTH,), (HALF, TWO)),
    "by country under a slicer of countries": Asked((COUNTRY,), (TWO,)),
    "by product under both slicers": Asked((PRODUCT,), (HALF, TWO)),
    "in a country that nobody bought from": Asked((), (Selection(COUNTRY, ("Atlantis",)),)),
    "in a month without sales": Asked((), (Selection(MONTH, ("2024-07",)),)),
    "on a closed Sunday": Asked((), (Selection(DATE, None, "2024-03-10", "2024-03-10"),)),
    "before the first invoice": Asked((), (Selection(DATE, None, "2023-01-01", "2023-10-31"),)),
    "by month in a role": Asked((MONTH,), (), "United Kingdom"),
    "by country in a role": Asked((COUNTRY,), (HALF,), "Outside United Kingdom"),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return shop.model()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy on disk; one product is missing from its dimension, so its facts belong to the blank member."""
    path = tmp_path_factory.mktemp("oracle") / "imported.duckdb"
    tables = shop.marts(shop.invoice_lines(invoices_a_day=2))
    products = tables["products"]
    tables["products"] = products.filter(pc.not_equal(products.column("stock_code"), "20004"))
    copy = Copy(path)
    shop.fill(copy, tables)
    assert copy.blank_members() == {"Product"}
    copy.close()
    return path


@dataclass(frozen=True)
class Compared:
    """The rows of a visual, and each row's measures by both."""

    members: list[tuple[Any, ...]]
    ours: dict[tuple[Any, ...], dict[str, Any]]
    theirs: list[dict[str, Any]]


@pytest.fixture(scope="module")
def compared(model: Model, data: Path) -> dict[str, Compared]:
    """Every context by both, the oracle asked once for each role."""
    if subprocess.run([str(PYTHON), "-c", "import pbix_mcp.dax"], capture_output=True, check=False).returncode:
        pytest.skip(f"the oracle is not installed: uv sync --project deploy/embedded ({PYTHON})")
    names = [m.name for table in model.tables for m in table.measures]
    found = {}
    for role in sorted({asked.role for asked in CONTEXTS.values()}):
        chosen = {name: asked for name, asked in CONTEXTS.items() if asked.role == role}
        with duckdb.connect(str(data), read_only=True) as connection:
            filters = {name: _filters(asked.selections, connection) for name, asked in chosen.items()}
            members = {name: _members(asked, filters[name], connection) for name, asked in chosen.items()}
            ours = {name: _ours(asked, model, connection, names) for name, asked in chosen.items()}
        contexts = [
            {
                "groups": [_name(key) for key in asked.groups],
                "filters": filters[name],
                "members": [[_sent(value) for value in member] for member in members[name]],
            }
            for name, asked in chosen.items()
        ]
        answers = _oracle(_question(model, data, role) | {"contexts": contexts})
        for name, cells in zip(chosen, answers, strict=True):
            found[name] = Compared(members[name], ours[name], cells)
    return found


def _name(key: ColumnKey) -> str:
    return f"{key.table}.{key.column}"


def _filters(selections: tuple[Selection, ...], connection: Any) -> dict[str, list[Any]]:
    """Selections as lists of values, as a slicer would send them."""
    found = {}
    for one in selections:
        if one.values is not None:
            found[_name(one.column)] = list(one.values)
        else:
            rows = connection.execute(
                f'SELECT DISTINCT {one.column.sql} FROM model."{one.column.table}" '
                f"WHERE {one.column.sql} BETWEEN DATE '{one.low}' AND DATE '{one.high}' ORDER BY 1"
            ).fetchall()
            found[_name(one.column)] = [str(value) for (value,) in rows]
    return found


def _members(asked: Asked, filters: dict[str, list[Any]], connection: Any) -> list[tuple[Any, ...]]:
    """The rows of the visual: what the slicers leave of each group column, and the blank member of products."""
    members: list[tuple[Any, ...]] = [()]
    for key in asked.groups:
        tests = [
            f'CAST("{name.partition(".")[2]}" AS VARCHAR) IN (SELECT unnest(?))'
            for name in filters
            if name.partition(".")[0] == key.table
        ]
        values = [filters[name] for name in filters if name.partition(".")[0] == key.table]
        tests += [ROLES[asked.role]] if asked.role and key.table == "Country" else []
        rows = connection.execute(
            f'SELECT DISTINCT {key.sql} FROM model."{key.table}" WHERE {" AND ".join(tests) or "TRUE"} ORDER BY 1',
            values,
        ).fetchall()
        values = [value for (value,) in rows] + ([None] if key == PRODUCT else [])
        members = [(*member, value) for member in members for value in values]
    return members


def _ours(asked: Asked, model: Model, connection: Any, names: list[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    security = security_of(model, [asked.role] if asked.role else [])
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name in names:
        query = VisualQuery(asked.groups, ((name, f"[{name}]"),), asked.selections)
        statement = translate(model, query, security=security, blank_members=frozenset({"Product"}))
        for row in connection.execute(statement.sql).fetchall():
            found.setdefault(tuple(row[: len(asked.groups)]), {})[name] = row[len(asked.groups)]
    return found


def _question(model: Model, data: Path, role: str) -> dict[str, Any]:
    tables = {table.name: "TRUE" for table in model.tables}
    if role:  # the engine knows no roles: what a role hides is not there
        tables |= {"Sales": ROLES[role], "Country": ROLES[role], "Data Trust": "FALSE"}
    columns = [column for table in model.tables for column in table.columns]
    date = model.date_table
    assert date is not None
    return {
        "data": str(data),
        "tables": tables,
        # The engine does not know a function by its name when a space follows (SAMEPERIODLASTYEAR (...) is then no
        # filter at all): the names touch their parentheses here. tests/unit/powerbi/test_measures.py has the SQL.
        "measures": {m.name: re.sub(r"\b([A-Z]+) \(", r"\1(", m.expression) for t in model.tables for m in t.measures},
        "measure_tables": {m.name: table.name for table in model.tables for m in table.measures},
        "decimals": {
            table.name: [c.name for c in table.columns if c.data_type == "decimal"] for table in model.tables
        },
        "dates": [f"{c.table}.{c.name}" for c in columns if c.data_type == "dateTime"],
        "date_tables": {date.name: next(c.name for c in date.columns if c.is_key)},
        "relationships": [
            {
                "FromTable": r.from_table, "FromColumn": r.from_column, "ToTable": r.to_table, "ToColumn": r.to_column,
                "IsActive": 1 if r.is_active else 0,
            }
            for r in model.relationships
        ],
    }  # fmt: skip


def _sent(value: Any) -> Any:
    return value if isinstance(value, str | int | bool) or value is None else str(value)


def _oracle(question: dict[str, Any]) -> list[list[dict[str, Any]]]:
    done = subprocess.run(
        [str(PYTHON), str(Path(__file__).with_name("oracle_process.py"))],
        input=json.dumps(question), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout)
    assert answer["told"] == {"eval_errors": {}, "unsupported_functions": [], "timed_out": []}
    found: list[list[dict[str, Any]]] = answer["answers"]
    return found


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()[:19].removesuffix("T00:00:00")
    return value


def _same(ours: Any, theirs: Any) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    if isinstance(theirs, str):
        return bool(_plain(ours) == theirs[:19].removesuffix("T00:00:00"))
    return math.isclose(float(ours), float(theirs), rel_tol=1e-9, abs_tol=1e-6)


@pytest.mark.parametrize("context", CONTEXTS)
def test_engine_and_translator_agree_in_every_cell(compared: dict[str, Compared], context: str) -> None:
    found = compared[context]
    wrong = {
        f"{name} {member}": (found.ours.get(member, {}).get(name), value)
        for member, cell in zip(found.members, found.theirs, strict=True)
        for name, value in cell.items()
        if not _same(found.ours.get(member, {}).get(name), value)
    }
    assert not wrong, f"{len(wrong)} cells of {len(found.members)} rows differ: {dict(list(wrong.items())[:12])}"
    assert set(found.ours) <= set(found.members), "the translator shows rows that the visual does not have"
