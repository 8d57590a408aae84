"""The tables' promises: every folder models/<layer>/<table>/ as one `Table`. This is a door of the room.

Belongs here: what a table is, who owns it, what it depends on. Does not: BigQuery, running anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dbt_like_sql.checks import Check, contract_checks, read_checks
from dbt_like_sql.contract import Column, Contract, read_contract, read_text
from dbt_like_sql.difference import check_additive
from dbt_like_sql.errors import ContractError
from dbt_like_sql.graph import LAYERS, line_of, order, references, table_nodes, tree, unlayered
from dbt_like_sql.incremental import check_incremental
from dbt_like_sql.render import DAYS, computes_with_days, days_columns, given_column, parameters, uses_days

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlglot import exp

Materialization = Literal["table", "view", "loaded", "once", "fence"]
MODELS_DIR = Path(__file__).parent / "models"
FENCE = "control.publisher"
MAX_CLUSTERING = 4  # BigQuery's own limit
_PROPERTIES = {"materialization", "clustering", "requirePartitionFilter", "identity", "incrementalBy", "additiveBy"}
_FILES = {"contract.yaml", "query.sql", "checks.sql"}


@dataclass(frozen=True)
class Table:
    """One table of the warehouse and its promise.

    Attributes:
        name: layer and table, `mart.products`.
        materialization: `table` (published from its query), `view`, `loaded` (written by `load`, or a ledger),
            `once` (created with the rows of its query, then a ledger), `fence` (stands once for each published table).
        partition_column: DATE column that partitions it by day, if any.
        clustering: columns by which rows lie together.
        identity: columns that name one event; loaded tables keep one row for each.
        incremental_by: column by which a day can be published for some of its rows: each row of the query is made of
            source rows with the same value of it (see incremental.py, which checks that).
        additive_by: column of its source by which its measures add up: a large day can be published by difference
            (see difference.py, which checks that).
        columns: in order.
        grain: what one row is.
        depends_on: tables its query reads.
        checks: from checks.sql and from the contract.
    """

    name: str
    materialization: Materialization
    columns: tuple[Column, ...]
    grain: str
    owner: str
    purpose: str
    known_limits: str
    version: str
    contract_path: Path
    partition_column: str | None = None
    clustering: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    requires_partition_filter: bool = False
    incremental_by: str | None = None
    additive_by: str | None = None
    depends_on: tuple[str, ...] = ()
    query_path: Path | None = None
    checks: tuple[Check, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def layer(self) -> str:
        """First part of the name."""
        return self.name.partition(".")[0]

    @property
    def query(self) -> str | None:
        """Its SELECT, as it stands in query.sql."""
        return read_text(self.query_path) if self.query_path else None

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of its columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def description(self) -> str:
        """What readers see in BigQuery: purpose, grain, limits, owner."""
        return f"{self.purpose} Grain: {self.grain} Known limits: {self.known_limits} Owner: {self.owner}."

    def column(self, name: str) -> Column:
        """One column by name.

        Raises:
            KeyError: the table has no such column.
        """
        for column in self.columns:
            if column.name == name:
                return column
        message = f"{self.name} has no column {name}"
        raise KeyError(message)


@dataclass(frozen=True)
class Catalog:
    """All tables, in an order in which each stands behind those it reads."""

    tables: dict[str, Table] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Table:
        """A table by its name, with a helpful error."""
        try:
            return self.tables[name]
        except KeyError:
            known = ", ".join(self.tables)
            raise KeyError(f"no table {name!r} in the catalog; there are: {known}") from None

    def __iter__(self) -> Iterator[Table]:
        return iter(self.tables.values())

    def __contains__(self, name: object) -> bool:
        return name in self.tables

    def physical(self) -> list[Table]:
        """The tables that BigQuery holds, in order: a fence stands once for each published table."""
        published = [table.name for table in self if table.materialization == "table"]
        return [
            each
            for table in self
            for each in (
                [replace(table, name=fence_name(name)) for name in published]
                if table.materialization == "fence"
                else [table]
            )
        ]

    def layer(self, layer: str) -> list[Table]:
        """Tables of one layer, in order."""
        return [table for table in self if table.layer == layer]

    def upstream(self, name: str) -> list[str]:
        """Every table that this one reads, directly or through others, in order."""
        found: set[str] = set()
        todo = [name]
        while todo:
            for parent in self[todo.pop()].depends_on:
                if parent not in found:
                    found.add(parent)
                    todo.append(parent)
        return [table for table in self.tables if table in found]

    def sources(self, name: str) -> list[str]:
        """Tables whose rows a table is made of: those it reads; a view has no rows, so those that it reads instead."""
        found: set[str] = set()
        for parent in self[name].depends_on:
            found.update(self.sources(parent) if self[parent].materialization == "view" else [parent])
        return sorted(found)

    def downstream(self, name: str) -> list[str]:
        """Every table that reads this one, directly or through others, in order."""
        return [table for table in self.tables if name in self.upstream(table)]


def fence_name(name: str) -> str:
    """The table whose one row two publications of a table both change: `control.publisher_mart_products`."""
    return f"{FENCE}_{name.replace('.', '_')}"


def load_catalog(models_dir: Path | None = None) -> Catalog:
    """Read every folder under models/; read once a process and folder.

    Raises:
        ContractError: a file is wrong, a reference names no table, tables read each other in a circle.
    """
    return _load(models_dir or MODELS_DIR)


@cache
def _load(models_dir: Path) -> Catalog:
    tables = {table.name: table for table in _tables(models_dir)}
    for table in tables.values():
        _check_reads(table, tables, models_dir)
        _check_days(table, tables)
        if table.incremental_by:
            check_incremental(table, tables)
        if table.additive_by:
            check_additive(table, tables)
    try:
        names = order({name: table.depends_on for name, table in tables.items()})
    except ValueError as error:
        raise ContractError(models_dir, None, str(error)) from error
    return Catalog({name: tables[name] for name in names})


def _tables(models_dir: Path) -> Iterable[Table]:
    for folder in _folders(models_dir):
        if folder.name not in LAYERS:
            raise ContractError(folder, None, f"no layer; its tables would not be read. Layers: {', '.join(LAYERS)}")
    for layer in LAYERS:
        for folder in _folders(models_dir / layer):
            yield read_table(folder, f"{layer}.{folder.name}")


def _folders(path: Path) -> list[Path]:
    return sorted(each for each in path.glob("*") if each.is_dir() and not each.name.startswith(("_", ".")))


def read_table(folder: Path, name: str) -> Table:
    """Read one table's folder.

    Raises:
        ContractError: see `load_catalog`.
    """
    path = folder / "contract.yaml"
    if not path.exists():
        raise ContractError(path, None, f"{name} has no contract.yaml")
    stray = sorted(item.name for item in folder.iterdir() if item.name not in _FILES and not item.name.startswith("."))
    if stray:
        raise ContractError(folder, None, f"unexpected {', '.join(stray)}; a table has {', '.join(sorted(_FILES))}")
    contract = read_contract(path)
    _check_properties(contract, name)
    query_path = folder / "query.sql"
    found = query_path if query_path.exists() else None
    partition = next((column.name for column in contract.columns if column.is_partition), None)
    checks_path = folder / "checks.sql"
    own = read_checks(checks_path) if checks_path.exists() else ()
    materialization = _materialization(contract, has_query=found is not None)
    promised = contract_checks(name, contract.columns, partition, is_view=materialization == "view")
    return Table(
        name=name,
        materialization=materialization,
        columns=contract.columns,
        grain=contract.grain,
        owner=contract.owner,
        purpose=contract.purpose,
        known_limits=contract.known_limits,
        version=contract.version,
        contract_path=path,
        partition_column=partition,
        clustering=_clustering(contract),
        identity=_named_columns(contract, "identity"),
        requires_partition_filter=bool(contract.properties.get("requirePartitionFilter", False)),
        incremental_by=contract.properties.get("incrementalBy"),
        additive_by=contract.properties.get("additiveBy"),
        depends_on=references(tree(read_text(found), found)) if found else (),
        query_path=found,
        checks=promised + own,
        tags=contract.tags,
    )


def _check_properties(contract: Contract, name: str) -> None:
    if contract.name != name:
        raise ContractError(contract.path, None, f"id is {contract.name!r}; the folder says {name!r}")
    unknown = sorted(set(contract.properties) - _PROPERTIES)
    if unknown:
        known = ", ".join(sorted(_PROPERTIES))
        raise ContractError(contract.path, None, f"unknown table property {unknown[0]!r}; known: {known}")
    arrays = [column for column in contract.columns if column.type.startswith("ARRAY")]
    if contract.properties.get("identity") and arrays:
        problem = (
            f"column {arrays[0].name} is an {arrays[0].type}, which a table with an identity cannot be loaded with"
        )
        raise ContractError(contract.path, None, f"{problem}: give each of its values a row, or join them to a STRING")
    partitions = [column for column in contract.columns if column.is_partition]
    if len(partitions) > 1 or any(column.type != "DATE" for column in partitions):
        raise ContractError(contract.path, None, "a table is partitioned by one DATE column at most")
    if contract.properties.get("requirePartitionFilter") and not partitions:
        problem = "requirePartitionFilter is true, but no column is marked partitioned: nobody could read the table"
        raise ContractError(contract.path, None, problem)


def _check_reads(table: Table, tables: Mapping[str, Table], models_dir: Path) -> None:
    """Whatever its query or a check reads must be there; else BigQuery would say so, in a publication."""
    if table.query_path is not None:
        query = tree(table.query or "", table.query_path)
        is_view = table.materialization == "view"
        problem = (
            _name_problem(table, query, tables, models_dir)
            or _value_problem(query, is_view=is_view)
            or _column_problem(table, query)
        )
        if problem:
            raise ContractError(table.query_path, problem[1], problem[0])
    for check in table.checks:
        query = tree(check.sql)
        problem = _name_problem(table, query, tables, models_dir) or _value_problem(query)
        if problem:
            path = table.contract_path.with_name("checks.sql")
            raise ContractError(path, check.line, f"#{check.severity} {check.name}: {problem[0]}")


def _name_problem(
    table: Table, query: exp.Query, tables: Mapping[str, Table], models_dir: Path
) -> tuple[str, int | None] | None:
    for name, node in table_nodes(query):
        if name not in tables:
            return f"{table.name} reads {name}, which is not in {models_dir}", line_of(node)
    for node in unlayered(query):
        such = ", ".join(name for name in tables if name.partition(".")[2] == node.name)
        problem = f"{table.name} reads {node.name} without its layer; write it as layer.table"
        return f"{problem}, such as {such}" if such else problem, line_of(node)
    return None


def _value_problem(query: exp.Query, *, is_view: bool = False) -> tuple[str, int | None] | None:
    for name, node in parameters(query):
        if name is None:
            return "it asks for a value by its position; a query is given @days and @today", line_of(node)
        if name not in {DAYS, "today"}:
            return f"it asks for @{name}; a query is given @days and @today", line_of(node)
        if is_view and (name != DAYS or computes_with_days(query)):
            return f"it asks for @{name}, and a view is given nothing when it is read", line_of(node)
    return None


def _column_problem(table: Table, query: exp.Query) -> tuple[str, int | None] | None:
    """What its columns' names alone tell; types, and the columns of a star, are for the analyser and BigQuery."""
    if query.is_star or query.args.get("kind"):
        return None
    promised = {name.lower(): name for name in table.column_names}
    given: set[str] = set()
    for node in query.selects:
        name = node.alias_or_name
        if not name:
            return "it gives a column without a name; write AS and its name", line_of(node)
        if name.lower() in given:
            return f"it gives column {name} twice (case does not count)", line_of(node)
        given.add(name.lower())
    missing = ", ".join(promised[name] for name in promised if name not in given)
    if missing:
        listed = ", ".join(query.named_selects)
        problem = f"it gives no column {missing}, which {table.name} promises; it gives {listed}"
        return problem, line_of(query.selects[0])
    extra = next((node for node in query.selects if node.alias_or_name.lower() not in promised), None)
    if extra is not None:
        return f"it gives a column {extra.alias_or_name}, which {table.name} does not promise", line_of(extra)
    return None


def _check_days(table: Table, tables: Mapping[str, Table]) -> None:
    """A publication takes out the rows of its days: a query that gives others would add them each time.

    Which days those are is said by what has been loaded into the tables that it reads, by their own days: rows taken by
    another column of theirs would be missing on every day that has not been loaded, in silence. Rows that it gives
    another one of their days would be refused by each publication.
    """
    if table.materialization != "table" or not table.partition_column:
        return
    query = tree(table.query or "", table.query_path)
    if not uses_days(query):
        line = next((line_of(node) for _name, node in table_nodes(query)), 1)
        problem = (
            f"{table.name} is partitioned by {table.partition_column}, but its query does not say which days to build: "
            "it needs a condition such as invoice_date IN UNNEST(@days)"
        )
        raise ContractError(table.query_path, line, problem)
    for name, node in table_nodes(query):
        columns, day = days_columns(node), tables[name].partition_column
        if day and columns and day not in columns:
            problem = (
                f"{table.name} takes the days of {name} by {', '.join(sorted(columns))}, but its days are its {day}: "
                f"rows of days on which nothing was loaded would be missing. Take them by {day} IN UNNEST(@days), or "
                f"make {table.name} a table without a partition, which is built whole"
            )
            raise ContractError(table.query_path, line_of(node), problem)
        given = given_column(node, table.partition_column)
        if day and columns and given is not None and given.name != day:
            problem = (
                f"{table.name} takes the days of {name} by {day}, but gives its rows {given.name} as their "
                f"{table.partition_column}: a publication refuses rows of other days than it builds. Give them {day}, "
                f"or make {table.name} a table without a partition, which is built whole"
            )
            raise ContractError(table.query_path, line_of(given), problem)


def _materialization(contract: Contract, *, has_query: bool) -> Materialization:
    value = contract.properties.get("materialization")
    match value, has_query:
        case ("table", True):
            return "table"
        case ("view", True):
            return "view"
        case ("once", True):
            return "once"
        case ("loaded", False):
            return "loaded"
        case ("fence", False):
            return "fence"
    problem = f"materialization is {value!r} and query.sql is {'there' if has_query else 'missing'}"
    raise ContractError(
        contract.path, None, f"{problem}; expected table, view or once with a query, loaded or fence without"
    )


def _clustering(contract: Contract) -> tuple[str, ...]:
    """Columns by which rows lie together, such as BigQuery takes; an emulator takes any."""
    names = _named_columns(contract, "clustering")
    types = {column.name: column.type for column in contract.columns}
    array = next((name for name in names if types[name].startswith("ARRAY")), None)
    problem = None
    if array is not None:
        problem = f"column {array} is an {types[array]}, by which rows cannot lie together"
    elif len(names) > MAX_CLUSTERING or len(set(names)) < len(names):
        problem = f"BigQuery takes {MAX_CLUSTERING} columns at most, each once"
    if problem:
        raise ContractError(contract.path, None, f"clustering is {', '.join(names)}: {problem}")
    return names


def _named_columns(contract: Contract, key: str) -> tuple[str, ...]:
    names = tuple(contract.properties.get(key) or ())
    known = {column.name for column in contract.columns}
    for name in names:
        if name not in known:
            raise ContractError(contract.path, None, f"{key} names {name!r}, which is not a column")
    return names
