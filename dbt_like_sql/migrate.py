"""Bring BigQuery's datasets and tables to what the contracts say; run it as often as you like.

Belongs here: creating, altering, refusing. Does not: moving data.
What BigQuery cannot change in place, or what would break a reader, is refused with the list of what reads it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbt_like_sql.catalog import FENCE, Catalog, fence_name
from dbt_like_sql.column_types import bigquery_schema, type_sql
from dbt_like_sql.contract import Column
from dbt_like_sql.errors import JobError, MigrateError
from dbt_like_sql.lineage import column_readers
from dbt_like_sql.load_sql import STAGING
from dbt_like_sql.render import quote, render
from dbt_like_sql.warehouse import clean_label

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from dbt_like_sql.catalog import Table
    from dbt_like_sql.warehouse import Warehouse

# What the report reads, written by its own room's door: `python -m orchestration.trace readers`.
READERS = Path(__file__).parent / "models" / "readers.json"
_NAMES_SHOWN = 12
STAGING_LIFE_MS = 24 * 3600 * 1000  # a killed run leaves its staging table; below an hour a slow retry would miss it
_WIDENINGS = {("INT64", "NUMERIC")}  # the only type change of ours that BigQuery makes in place


@dataclass(frozen=True)
class Change:
    """One thing that was done, or that `plan` would do."""

    table: str
    what: str


@dataclass(frozen=True)
class Reader:
    """A measure or a visual of the report, its columns as `table.column`; `table.*` is the table's rows."""

    kind: str
    name: str
    columns: frozenset[str]


@dataclass(frozen=True)
class Breaking:
    """What a contract asks for that BigQuery cannot follow in place; without a column it is about the whole table."""

    problem: str
    column: str | None = None


def read_readers(path: Path = READERS) -> list[Reader]:
    """What reads the tables outside the warehouse; nothing where the file is not there."""
    if not path.exists():
        return []
    listed = json.loads(path.read_text(encoding="utf-8"))
    return [Reader(each["kind"], each["name"], frozenset(each["columns"])) for each in listed]


def migrate(
    warehouse: Warehouse, catalog: Catalog, *, dry_run: bool = False, readers: Sequence[Reader] | None = None
) -> list[Change]:
    """Create or alter datasets, tables and views so that they are what the contracts say.

    Args:
        warehouse: where.
        catalog: what.
        dry_run: only say what would be done.
        readers: measures and visuals, to be named where a change would break them; None: those of `readers.json`.

    Returns: what was done, in order; empty when all is as it should be.

    Raises:
        MigrateError: a contract asks for a breaking change, and nothing has been changed; or a table is not as it was
            asked to be after it was altered.
    """
    tables = catalog.physical()
    there = {table.name: _existing(warehouse, table) for table in tables}
    known = read_readers() if readers is None else readers
    refused = [problem for table in tables for problem in _breaking(table, there[table.name], catalog, known)]
    if refused:
        listed = "\n".join(f"  - {problem}" for problem in refused)
        message = (
            f"migrating {warehouse.settings.project}: {len(refused)} breaking change(s). Nothing was changed.\n"
            f"{listed}\nGive the table a new name, or drop it and rebuild it (`publish` or a backfill) on purpose."
        )
        raise MigrateError(message)
    changes = [] if dry_run else _datasets(warehouse, catalog)
    statements: list[str] = []
    for table in tables:
        is_back = there[table.name] is None and there.get(fence_name(table.name)) is not None
        more = f"; it was there before and is empty now, until `dbt-like-sql publish {table.name}`" if is_back else ""
        changes += [
            Change(each.table, each.what + more)
            for each in _bring(warehouse, table, there[table.name], statements, dry_run=dry_run)
        ]
    if (
        statements and not dry_run
    ):  # one job: each costs a round trip and, on Google, counts against metadata quotas alone
        warehouse.run(";\n".join(statements) + ";", kind="migrate")
    made = {name for name, found in there.items() if found is not None} if dry_run else set(there)
    return changes + _publishers(warehouse, catalog, made, dry_run=dry_run)


def create_sql(table: Table, table_id: str, *, as_query: str | None = None) -> str:
    """DDL of a table from its contract. Explicit throughout: LIKE and COPY lose the partitioning on the emulator."""
    columns = ",\n  ".join(_column_sql(column) for column in table.columns)
    parts = [f"CREATE TABLE IF NOT EXISTS `{table_id}` (\n  {columns}\n)"]
    if table.partition_column:
        parts.append(f"PARTITION BY {table.partition_column}")
    if table.clustering:
        parts.append(f"CLUSTER BY {', '.join(table.clustering)}")
    options = [f"description={quote(table.description)}", f"labels={_labels_sql(table)}"]
    if table.requires_partition_filter:
        options.append("require_partition_filter=TRUE")
    parts.append(f"OPTIONS ({', '.join(options)})")
    if as_query:
        parts.append(f"AS\n{as_query}")
    return "\n".join(parts)


def view_sql(table: Table, table_id: str, query: str) -> str:
    """DDL of a view from its contract and rendered query."""
    columns = ",\n  ".join(
        f"{column.name} OPTIONS (description={quote(column.description)})" for column in table.columns
    )
    options = f"OPTIONS (description={quote(table.description)}, labels={_labels_sql(table)})"
    names = ", ".join(table.column_names)
    return f"CREATE OR REPLACE VIEW `{table_id}` (\n  {columns}\n)\n{options}\nAS SELECT {names} FROM (\n{query}\n)"


def labels(table: Table) -> dict[str, str]:
    """Labels of a table: layer, owner, contract version."""
    return {
        "layer": table.layer,
        "owner": clean_label(table.owner),
        "contract_version": clean_label(table.version),
    }


def _labels_sql(table: Table) -> str:
    return "[" + ", ".join(f"({quote(key)}, {quote(value)})" for key, value in labels(table).items()) + "]"


def _column_sql(column: Column) -> str:
    required = " NOT NULL" if column.is_required else ""
    return f"{column.name} {column.type}{required} OPTIONS (description={quote(column.description)})"


def _existing(warehouse: Warehouse, table: Table) -> Any:
    return _existing_id(warehouse, warehouse.table_id(table.name))


def _existing_id(warehouse: Warehouse, table_id: str) -> Any:
    from google.api_core.exceptions import NotFound  # noqa: PLC0415

    try:
        return warehouse.client.get_table(table_id)
    except NotFound:
        return None


def made_tables(warehouse: Warehouse, layers: Iterable[str]) -> dict[str, datetime]:
    """Every table and view that these layers' datasets hold, by its name here, with the time at which it was made."""
    from google.api_core.exceptions import NotFound  # noqa: PLC0415

    found = {}
    for layer in layers:
        dataset = warehouse.table_id(f"{layer}.any").rpartition(".")[0]
        with contextlib.suppress(NotFound):
            found.update({f"{layer}.{each.table_id}": each.created for each in warehouse.client.list_tables(dataset)})
    return found


def unnamed_tables(warehouse: Warehouse, catalog: Catalog) -> list[str]:
    """Tables and views of the layers' datasets that no contract names: a renamed or removed one stays, with its fence.

    The one fence of a warehouse from before each table had its own is none of them: migrate drops it.
    """
    layers = dict.fromkeys(table.layer for table in catalog)
    named = {table.name for table in catalog.physical()} | {FENCE}
    return sorted(name for name in made_tables(warehouse, layers) if name not in named)


def _datasets(warehouse: Warehouse, catalog: Catalog) -> list[Change]:
    from google.api_core.exceptions import Conflict, NotFound  # noqa: PLC0415
    from google.cloud import bigquery  # noqa: PLC0415

    changes = []
    for layer in [*dict.fromkeys(table.layer for table in catalog), STAGING]:
        name = warehouse.settings.dataset_id(layer)
        reference = bigquery.DatasetReference(warehouse.settings.project, name)
        try:
            warehouse.client.get_dataset(reference)
            continue
        except NotFound:
            pass
        dataset = bigquery.Dataset(reference)
        dataset.location = warehouse.settings.location
        dataset.labels = {"layer": layer}
        if layer == STAGING:
            dataset.default_table_expiration_ms = STAGING_LIFE_MS
        try:
            warehouse.client.create_dataset(dataset)
        except Conflict:  # another migrate was faster
            continue
        changes.append(Change(name, "created the dataset"))
    return changes


def _breaking(table: Table, there: Any, catalog: Catalog, readers: Sequence[Reader]) -> list[str]:
    if there is None:
        return []
    tables = catalog.downstream(table.name)
    read_by = f" (read by {', '.join(tables)})" if tables else ""
    return [
        f"{table.name}{read_by}: {each.problem}{_breaks(table, each.column, catalog, readers)}"
        for each in breaking_changes(table, there)
    ]


def _breaks(table: Table, column: str | None, catalog: Catalog, readers: Sequence[Reader]) -> str:
    """The measures and visuals that read the column, or what other tables make of it."""
    if column is None:
        names = {table.name, *catalog.downstream(table.name)}
        touched = [each for each in readers if any(one.rpartition(".")[0] in names for one in each.columns)]
    else:
        columns = {f"{table.name}.{column}"}
        made = column_readers(_still_with(catalog, table, column), table.name, column)
        columns |= {f"{reader}.{each}" for reader, each in made}
        touched = [each for each in readers if columns & each.columns]
    found = [
        f"\n      breaks {kind}s: {_named([each.name for each in touched if each.kind == kind])}"
        for kind in dict.fromkeys(each.kind for each in touched)
    ]
    return "".join(found)


def _still_with(catalog: Catalog, table: Table, column: str) -> Catalog:
    """The catalog as the queries still see it: lineage cannot follow a column that its table has not."""
    if column in table.column_names:
        return catalog
    old = replace(table, columns=(*table.columns, Column(column, "STRING", "")))
    return Catalog({**catalog.tables, table.name: old})


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def breaking_changes(table: Table, there: Any) -> list[Breaking]:
    """What of a contract BigQuery cannot follow in place on the table that is there."""
    is_view = there.table_type == "VIEW"
    if is_view != (table.materialization == "view"):
        kinds = ("view", "table") if is_view else ("table", "view")
        return [Breaking("it is a {}; the contract says it is a {}".format(*kinds))]
    if is_view:
        return []  # it is replaced, whatever its columns are
    problems = [*_column_problems(table, there)]
    partition = there.time_partitioning.field if there.time_partitioning else None
    if partition != table.partition_column:
        problems.append(Breaking(f"it is partitioned by {partition}; the contract says {table.partition_column}"))
    return problems


def _column_problems(table: Table, there: Any) -> Iterable[Breaking]:
    found = {field.name.lower(): field for field in there.schema}
    wanted = {field.name.lower(): field for field in bigquery_schema(table.columns)}
    for name in found:
        if name not in wanted:
            yield Breaking(f"column {name} is not in the contract any more", name)
    for name, field in wanted.items():
        old = found.get(name)
        if old is None:
            if field.mode == "REQUIRED":
                yield Breaking(f"column {name} is new and required; rows that are there have no value for it", name)
            continue
        if old.name != field.name:  # BigQuery takes either for either, goes on with the old one, and refuses a rename
            problem = f"column {old.name} is spelt {field.name} in the contract; its case cannot change in place"
            yield Breaking(problem, old.name)
        if type_sql(old) != type_sql(field) and (type_sql(old), type_sql(field)) not in _WIDENINGS:
            yield Breaking(f"column {name} is {type_sql(old)}; the contract says {type_sql(field)}", name)
        if old.mode == "NULLABLE" and field.mode == "REQUIRED":
            yield Breaking(f"column {name} may be NULL; the contract says it is required", name)


def _bring(warehouse: Warehouse, table: Table, there: Any, statements: list[str], *, dry_run: bool) -> list[Change]:
    """Alter a table that is there, or add the statement that creates it."""
    table_id = warehouse.table_id(table.name)
    if table.materialization == "view":
        sql = view_sql(table, table_id, render(table.query or "", table_id=warehouse.table_id, path=table.query_path))
        if there is not None and _same_view(there, sql.partition("\nAS SELECT")[2], table):
            return []
        statements.append(sql)
        return [Change(table.name, "replaced the view" if there else "created the view")]
    if there is not None:
        return _alter(warehouse, table, there, dry_run=dry_run)
    query = table.query if table.materialization == "once" else None
    rendered = render(query, table_id=warehouse.table_id, path=table.query_path) if query else None
    statements.append(create_sql(table, table_id, as_query=rendered))
    return [Change(table.name, f"created it ({table.materialization})")]


def _same_view(there: Any, query: str, table: Table) -> bool:
    described = [there.description or "", *(field.description or "" for field in there.schema)]
    if described != [table.description, *(column.description for column in table.columns)]:
        return False
    if {**there.labels, **labels(table)} != dict(there.labels):
        return False
    return "".join((there.view_query or "").split()) == "".join(f"SELECT{query}".split())


def _alter(warehouse: Warehouse, table: Table, there: Any, *, dry_run: bool) -> list[Change]:
    """Follow the contract in what may change: new nullable columns, wider types, texts, labels, clustering, the filter.

    Types by DDL, which Google documents for it; the emulator's API takes another type and goes on with the old one.
    """
    asked = _asked(table, there)
    if asked and not dry_run:
        name = warehouse.table_id(table.name)
        if widened := _widened(table, there):
            alter = [f"ALTER TABLE `{name}` ALTER COLUMN {each.name} SET DATA TYPE {each.type};" for each in widened]
            warehouse.run("\n".join(alter), kind="migrate")
            there = warehouse.client.get_table(name)  # the API refuses what was read before another change
        _update(warehouse, there, _asked(table, there))
        _require_altered(table, warehouse.client.get_table(name))
    return [Change(table.name, f"altered {', '.join(asked)}")] if asked else []


def _widened(table: Table, there: Any) -> list[Column]:
    types = {field.name.lower(): type_sql(field) for field in there.schema}
    return [column for column in table.columns if (types.get(column.name.lower()), column.type) in _WIDENINGS]


def _asked(table: Table, there: Any) -> dict[str, Any]:
    """What a table that is there should become, by the API's names; empty if it is as the contract says."""
    asked: dict[str, Any] = {}
    schema = _merged_schema(there.schema, bigquery_schema(table.columns))
    if [field.to_api_repr() for field in schema] != [field.to_api_repr() for field in there.schema]:
        asked["schema"] = schema
    if (there.description or "") != table.description:
        asked["description"] = table.description
    if {**there.labels, **labels(table)} != dict(there.labels):
        asked["labels"] = {**there.labels, **labels(table)}
    if tuple(there.clustering_fields or ()) != table.clustering:
        asked["clustering_fields"] = list(table.clustering) or None
    if bool(there.require_partition_filter) != table.requires_partition_filter:
        asked["require_partition_filter"] = table.requires_partition_filter
    return asked


def _update(warehouse: Warehouse, there: Any, asked: Mapping[str, Any]) -> None:
    if asked:
        for name, value in asked.items():
            setattr(there, name, value)
        warehouse.client.update_table(there, list(asked))


def _require_altered(table: Table, there: Any) -> None:
    """Raise if a column is not as asked: publications would be cast to what it is."""
    wanted = {field.name.lower(): field for field in bigquery_schema(table.columns)}
    found = {field.name.lower(): field for field in there.schema}
    problems = [
        f"column {name} is {_spelt(found.get(name))}, the contract says {_spelt(field)}"
        for name, field in wanted.items()
        if _spelt(found.get(name)) != _spelt(field)
    ]
    if problems:
        message = (
            f"altering {table.name}: the warehouse refused nothing, but {'; '.join(problems)}. Other tables may be"
            " altered; no rows were changed. Alter the column by hand, or drop the table and rebuild it on purpose, and"
            " run migrate again."
        )
        raise MigrateError(message)


def _spelt(field: Any) -> str:
    return f"{type_sql(field)} {field.mode}" if field is not None else "missing"


def _merged_schema(there: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
    """Columns in the order in which they stand, new ones behind: BigQuery cannot insert one in between."""
    by_name = {field.name.lower(): field for field in wanted}
    old = [by_name[field.name.lower()] for field in there]
    names = {field.name.lower() for field in there}
    return old + [field for field in wanted if field.name.lower() not in names]


def _publishers(warehouse: Warehouse, catalog: Catalog, made: Collection[str], *, dry_run: bool) -> list[Change]:
    """Give each published table's fence its one row, once even if two migrate at a time.

    A warehouse from before each table had a fence of its own has the rows of all in one table. They go on from there,
    and that table is dropped: a program of that version that still runs can publish nothing any more.

    Args:
        warehouse: where.
        catalog: what.
        made: tables that are there; the others hold no rows.
        dry_run: only say what would be done.
    """
    names = [table.name for table in catalog if table.materialization == "table"]
    fences = {name: warehouse.table_id(fence_name(name)) for name in names}
    incarnation, shared = warehouse.table_id("control.incarnation"), warehouse.table_id(FENCE)
    is_shared = _existing_id(warehouse, shared) is not None
    asked = " UNION ALL ".join(
        f"SELECT table_name FROM `{fence}`" for name, fence in fences.items() if fence_name(name) in made
    )
    known = {row["table_name"] for row in warehouse.run(asked).rows} if asked else set()
    missing = {name: fences[name] for name in names if name not in known}
    changes = [Change(FENCE, f"{len(missing)} fence rows added")] if missing else []
    if is_shared:
        changes.append(Change(FENCE, "dropped it: each published table has a fence of its own now"))
    if dry_run:
        return changes
    try:
        if missing:
            old = warehouse.run(f"SELECT * FROM `{shared}`").rows if is_shared else []
            versions = _published_versions(warehouse, missing) | {row["table_name"]: row["version"] for row in old}
            warehouse.run(_fence_rows(incarnation, missing, versions), kind="migrate")
        if is_shared:
            warehouse.run(f"DROP TABLE IF EXISTS `{shared}`", kind="migrate")
    except JobError as error:
        message = f"migrating {FENCE}: {error}. Tables are there; run migrate again."
        raise JobError(message, job_id=error.job_id, is_retryable=True) from error
    return changes


def _published_versions(warehouse: Warehouse, names: Iterable[str]) -> dict[str, int]:
    """How far the ledger knows each table: a fence that was lost goes on from there.

    From 0 on, each publication would look older in the ledger than those before, and the next be compared with these.
    """
    sql = f"""
SELECT table_name, MAX(version) AS version
FROM `{warehouse.table_id("control.publication")}`
WHERE table_name IN ({", ".join(map(quote, names))}) GROUP BY table_name
"""
    return {row["table_name"]: row["version"] for row in warehouse.run(sql, kind="migrate").rows}


def _fence_rows(incarnation: str, fences: Mapping[str, str], versions: Mapping[str, int]) -> str:
    inserts = "".join(
        f"""
INSERT INTO `{fence}` (table_name, version, run_id, published_at)
SELECT {quote(name)}, {versions.get(name, 0)}, 'migrate', CURRENT_TIMESTAMP()
WHERE NOT EXISTS (SELECT 1 FROM `{fence}` AS there);"""
        for name, fence in fences.items()
    )
    return f"""
BEGIN TRANSACTION;
UPDATE `{incarnation}` SET rows_created = rows_created + {len(fences)} WHERE TRUE;{inserts}
COMMIT TRANSACTION;
"""
