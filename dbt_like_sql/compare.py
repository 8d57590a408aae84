"""What queries, or rows made by changed rules, give now against what stands: day by day, in rows and sums.

Belongs here: the comparison, and the staging of rows that are only compared. Does not: which days to build (plan.py);
nothing that a reader sees is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.graph import DIALECT, put_in_place, table_nodes, tree
from dbt_like_sql.load import stage
from dbt_like_sql.load_sql import staging_id
from dbt_like_sql.publish import parameters
from dbt_like_sql.render import Slice, day_sql, render, with_days
from dbt_like_sql.restate_sql import measures
from dbt_like_sql.rows import check_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import date

    import pyarrow as pa

    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.warehouse import Warehouse


@dataclass(frozen=True)
class Difference:
    """One day that would change. Measures are those that differ: name, published, would be.

    `rows_gone` stand there now and would no more, `rows_new` the other way; a row of which one column changes is both.
    """

    day: date | None
    rows_published: int
    rows_planned: int
    rows_gone: int
    rows_new: int
    measures: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)


def staged_name(warehouse: Warehouse, table: str, key: str) -> str:
    """Full id of a staging table for rows that are only compared."""
    return staging_id(warehouse.settings, table, key)


def stage_rows(
    warehouse: Warehouse, table: str, rows: pa.Table, *, days: Collection[date], topic: str, into: str
) -> None:
    """Append rows, which must be such as `load_days` would take, to a staging table.

    Args:
        warehouse: an open, migrated warehouse.
        table: the loaded table that they would go to.
        rows: columns of its contract.
        days: of the rows.
        topic: where they came from.
        into: full id of the staging table, see `staged_name`; created where it is not there.

    Raises:
        LoadError: the rows do not fit the contract.
        JobError: BigQuery failed.
    """
    target = load_catalog()[table]
    rows = check_rows(target, rows, days=days, topic=topic)
    stage(warehouse, target, rows, into=into, labels={"table": table}, append=True)


def planned_sql(catalog: Catalog, table: Table, inlined: Collection[str], every: Sequence[date]) -> str:
    """A table's query in which other tables stand as their own queries, as if they were published before it.

    What whole tables among them are made of is built of `every` day; for the others `@days` stays. A loaded table's
    query is its rows. A view has none of its own: it stands as its query whether it is among them or not.
    """
    if table.materialization == "loaded":
        return f"SELECT * FROM {table.name} WHERE {table.partition_column} IN UNNEST(@days)"
    query = tree(table.query or "", table.query_path).copy()
    for name, node in table_nodes(query):
        parent = catalog[name]
        if parent.materialization != "view" and (name not in inlined or parent.materialization != "table"):
            continue
        inner = tree(planned_sql(catalog, parent, inlined, every)).copy()
        if parent.partition_column is None:
            inner = with_days(inner, Slice(every), parent.query_path)
        put_in_place(inner, name, node)
    return str(query.sql(dialect=DIALECT))


def compare(
    warehouse: Warehouse, table: Table, planned: str, days: Sequence[date], *, instead: Mapping[str, str] | None = None
) -> list[Difference]:
    """Days on which a query gives other rows than the table has: every column counts.

    Args:
        warehouse: an open, migrated warehouse.
        table: what stands.
        planned: the query, with references as `layer.table`, see `planned_sql`.
        days: that are compared.
        instead: full ids of the tables that the query reads in place of loaded ones.
    """
    names, other = measures(table), instead or {}
    query = render(
        planned, table_id=lambda name: other.get(name) or warehouse.table_id(name), days=days, path=table.query_path
    )
    where = f"\nWHERE {day_sql(table.partition_column, days)}" if table.partition_column else ""
    there = _lines(table, names, f"`{warehouse.table_id(table.name)}` AS t{where}", is_planned="FALSE")
    would_be = _lines(table, names, f"(\n{query}\n) AS t", is_planned="TRUE")
    in_all = "".join(f", SUM(p_{at}) AS p_{at}, SUM(q_{at}) AS q_{at}" for at in range(len(names)))
    by_line = "".join(
        f", CAST(SUM(IF(is_planned, 0, m_{at})) AS NUMERIC) AS p_{at}, "
        f"CAST(SUM(IF(is_planned, m_{at}, 0)) AS NUMERIC) AS q_{at}"
        for at in range(len(names))
    )
    sql = f"""
SELECT day, SUM(p) AS p_rows, SUM(q) AS q_rows, SUM(GREATEST(p - q, 0)) AS gone, SUM(GREATEST(q - p, 0)) AS new{in_all}
FROM (
SELECT day, COUNTIF(NOT is_planned) AS p, COUNTIF(is_planned) AS q{by_line}
FROM (
{there}
UNION ALL
{would_be}
) AS lines
GROUP BY day, line
) AS counted
GROUP BY day
HAVING SUM(ABS(p - q)) > 0
ORDER BY day
"""
    rows = warehouse.run(sql, params=parameters(warehouse, sql), kind="plan").rows
    return [_difference(names, row) for row in rows]


def _lines(table: Table, names: Sequence[str], source: str, *, is_planned: str) -> str:
    """Each row as text that is equal where all of its columns are."""
    day = f"t.{table.partition_column}" if table.partition_column else "CAST(NULL AS DATE)"
    columns = ", ".join(f"{_typed(column)} AS {column.name}" for column in table.columns)
    sums = "".join(f", t.{name} AS m_{at}" for at, name in enumerate(names))
    line = f"TO_JSON_STRING(STRUCT({columns})) AS line"
    return f"SELECT {day} AS day, {is_planned} AS is_planned, {line}{sums} FROM {source}"


def _typed(column: Any) -> str:
    """The column in its contract's type: an expression may have another one that converts to it."""
    is_nested = column.type.startswith(("ARRAY", "STRUCT", "JSON"))
    return f"t.{column.name}" if is_nested else f"CAST(t.{column.name} AS {column.type})"


def _difference(names: Sequence[str], row: dict[str, Any]) -> Difference:
    nothing = Decimal(0)
    sums = {name: (row[f"p_{at}"] or nothing, row[f"q_{at}"] or nothing) for at, name in enumerate(names)}
    return Difference(
        day=row["day"],
        rows_published=row["p_rows"],
        rows_planned=row["q_rows"],
        rows_gone=row["gone"],
        rows_new=row["new"],
        measures={name: pair for name, pair in sums.items() if pair[0] != pair[1]},
    )
