"""Whether a table of sums may grow by difference, and the statements that make it grow.

Belongs here: the proof on the syntax tree, and SQL from values. Not here: which days grow so (publish_state.py), the
publication around it (publish_sql.py).

A contract says `additiveBy: invoice_no`: every measure is a sum over groups of rows that share an invoice_no. Let T be
the rows of all invoices with a new line. Then what was published, less the query's result over T without the new rows,
plus its result over T, is what the query gives over the whole day: exactly, since sums are integers and NUMERICs, and
a distinct count of invoices counts each invoice inside or outside of T. Only T is aggregated.

That holds if no row that was counted has gone since. A row of the parent comes from one source row, and gives way only
to a newer row of its key (`row_for_row_problem` proves both), so counting is enough: the day's rows less the new ones
must be as many as the published table has counted. The script asserts it (DISPLACED); where a repeat has displaced a
row, the day is built whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from dbt_like_sql.errors import ContractError
from dbt_like_sql.graph import DIALECT, put_in_place, table_nodes, tree
from dbt_like_sql.render import day_sql, is_in_days, render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date

    from dbt_like_sql.catalog import Table
    from dbt_like_sql.publish_state import OffsetRange

DISPLACED = "displaced: a row that was counted has given way to another"
COORDINATES = ("topic_partition", "topic_offset")
EXACT = ("INT64", "NUMERIC")
# What makes an expression of a row another one the next time: a value that only a run gives, the clock, chance.
UNSTEADY = (
    exp.Parameter, exp.CurrentDate, exp.CurrentDatetime, exp.CurrentTime, exp.CurrentTimestamp, exp.Rand, exp.Uuid,
    exp.SessionUser,
)  # fmt: skip
# What makes a SELECT more than sums of groups of rows.
_MORE = ("having", "qualify", "distinct", "limit", "order", "laterals", "windows", "offset")


@dataclass(frozen=True)
class Growth:
    """A table of sums, what it sums up, and for each day that grows the offsets that are new."""

    table: Table
    parent: Table
    days: Mapping[date, tuple[OffsetRange, ...]]

    @property
    def measures(self) -> list[str]:
        """Columns that are sums: all but the key."""
        return [column.name for column in self.table.columns if not column.is_key]


@dataclass(frozen=True)
class Kept:
    """Which of a day's source rows a table keeps: of those that are alike in `keys` the first one; without keys, all.

    `order` says which is the first, as columns of the source, each with whether it descends.
    """

    keys: tuple[str, ...] = ()
    order: tuple[tuple[str, bool], ...] = ()


def check_additive(table: Table, tables: Mapping[str, Table]) -> None:
    """Refuse an `additiveBy` that is not true.

    Raises:
        ContractError: the query is more than sums over groups, or its source gives rows up.
    """
    problem = _problem(table, tables, table.additive_by or "")
    if problem:
        raise ContractError(table.contract_path, None, f"additiveBy is {table.additive_by!r}, but {problem}")


def counting_column(table: Table) -> str:
    """The column that counts the rows of each group."""
    return next(name for select in _grouped(tree(table.query or "")) for name in _counts(select))


def touched_sql(growths: Sequence[Growth], table_id: Callable[[str], str]) -> str:
    """T as a temporary table: every row of the growing days whose key has a new row; with `is_new`."""
    first = growths[0]
    key, day, parent = first.table.additive_by, first.parent.partition_column, table_id(first.parent.name)
    used = {
        column.name
        for each in growths
        for column in tree(each.table.query or "").find_all(exp.Column)
        if column.name in first.parent.column_names
    }
    columns = ", ".join(name for name in first.parent.column_names if name in used)
    is_new = new_rows_sql(day or "", first.days)
    where = day_sql(day or "", first.days)
    return f"""
CREATE TEMP TABLE {touched_name(first)} AS
SELECT {columns}, {is_new} AS is_new
FROM `{parent}`
WHERE {where} AND {key} IN (SELECT {key} FROM `{parent}` WHERE {is_new});"""


def new_rows_sql(day_column: str, days: Mapping[date, tuple[OffsetRange, ...]]) -> str:
    """The condition that a row is among those that were loaded since.

    The bounds over all ranges say nothing new, but blocks are skipped by them: a warehouse does not look into an OR.
    """
    found, offsets = [], [each for ranges in days.values() for each in ranges]
    for day, ranges in days.items():
        listed = " OR ".join(
            f"topic_partition = {each.topic_partition} "
            f"AND topic_offset BETWEEN {each.first_offset} AND {each.last_offset}"
            for each in ranges
        )
        found.append(f"({day_column} = DATE '{day}' AND ({listed or 'FALSE'}))")
    if not offsets:
        return f"({' OR '.join(found)})"
    first, last = min(each.first_offset for each in offsets), max(each.last_offset for each in offsets)
    return f"(topic_offset BETWEEN {first} AND {last} AND ({' OR '.join(found)}))"


def touched_name(growth: Growth) -> str:
    """Name of T: tables with the same parent, key and new rows share it."""
    told = repr((growth.table.additive_by, sorted(growth.days.items())))
    return f"touched_{growth.parent.name.replace('.', '_')}_{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def grow_sql(growth: Growth, table_id: Callable[[str], str]) -> str:
    """What was published, less T without its new rows, plus T; in place of what was published."""
    table, name = growth.table, table_id(growth.table.name)
    keys = [column.name for column in table.columns if column.is_key]
    day = table.partition_column or ""
    where = day_sql(day, growth.days)
    listed = ", ".join([*keys, *growth.measures])
    less = ", ".join([*keys, *(f"-{measure} AS {measure}" for measure in growth.measures)])
    sums = ", ".join([*keys, *(f"SUM({measure}) AS {measure}" for measure in growth.measures)])
    grown = f"grown_{table.name.replace('.', '_')}"
    return f"""
CREATE TEMP TABLE {grown} AS
SELECT {sums}
FROM (
SELECT {listed} FROM `{name}` WHERE {where}
UNION ALL
SELECT {listed} FROM (
{_over(growth, "")}
) AS whole
UNION ALL
SELECT {less} FROM (
{_over(growth, " WHERE NOT is_new")}
) AS kept
) AS parts
GROUP BY {", ".join(keys)};
DELETE FROM `{name}` WHERE {where};
INSERT INTO `{name}` ({listed}) SELECT {listed} FROM {grown};"""


def counts_rows_sql(growth: Growth, table_id: Callable[[str], str]) -> str:
    """The condition that the table counts as many rows as its parent has: none that was counted has gone since."""
    table, parent = growth.table, growth.parent
    where = day_sql(table.partition_column or "", growth.days)
    parent_where = day_sql(parent.partition_column or "", growth.days)
    return (
        f"(SELECT SUM({counting_column(table)}) FROM `{table_id(table.name)}` WHERE {where}) = "
        f"(SELECT COUNT(*) FROM `{table_id(parent.name)}` WHERE {parent_where})"
    )


def _over(growth: Growth, where: str) -> str:
    """The table's own query, over T instead of the whole parent."""
    query = tree(growth.table.query or "", growth.table.query_path).copy()
    for name, node in table_nodes(query):
        put_in_place(tree(f"SELECT * FROM {touched_name(growth)}{where}").copy(), name, node)
    return render(str(query.sql(dialect=DIALECT, comments=False)), table_id=lambda name: name, days=sorted(growth.days))


def _problem(table: Table, tables: Mapping[str, Table], key: str) -> str | None:
    if table.query is None or not table.partition_column or table.materialization != "table":
        return "only a table that is built from a query and partitioned by day can grow"
    if len(table.depends_on) != 1 or tables[table.depends_on[0]].materialization != "table":
        return "its query must read one table that is built from a query, and nothing else"
    parent = tables[table.depends_on[0]]
    if table.partition_column != parent.partition_column:
        return f"it is partitioned by {table.partition_column}, and {parent.name} by {parent.partition_column}"
    if key not in parent.column_names or not parent.column(key).is_required:
        return f"{parent.name} has no such column, or it may be NULL"
    return (
        _columns_problem(table)
        or _query_problem(tree(table.query, table.query_path), table, parent, key)
        or row_for_row_problem(parent, tables)
    )


def _columns_problem(table: Table) -> str | None:
    if not any(column.is_key for column in table.columns):
        return "it has no key"
    for column in table.columns:
        if not column.is_required:
            return f"its column {column.name} may be NULL"
        if not column.is_key and not column.type.startswith(EXACT):
            return f"its column {column.name} is {column.type}, which does not add up exactly"
    return None


def _query_problem(query: Any, table: Table, parent: Table, key: str) -> str | None:
    if query.find(exp.SetOperation, exp.Window):
        return "its query has a set operation or a window"
    groups = {column.name for column in table.columns if column.is_key}
    selects = _grouped(query)
    reading = [node.find_ancestor(exp.Select) for _name, node in table_nodes(query)]
    if any(map(is_part, _read(query))):
        return "its query reads a part of its source, or an older state"
    if sorted(map(id, reading)) != sorted(map(id, selects)):
        return "each SELECT that reads its source must group it, once"
    for select in selects:
        problem = _select_problem(select, groups, parent, key)
        if problem:
            return problem
    if not any(_counts(select) for select in selects):
        return "its query has no COUNT(*)"
    return None if query in selects else _join_problem(query, selects, groups)


def _select_problem(select: Any, groups: set[str], parent: Table, key: str) -> str | None:
    if any(select.args.get(each) for each in _MORE) or select.args.get("joins"):
        return "a SELECT of its query does more than group rows"
    where = select.args.get("where")
    if where is None or not is_in_days(where.this) or where.this.this.name != parent.partition_column:
        return f"a SELECT of its query filters rows by more, or less, than {parent.partition_column} IN UNNEST(@days)"
    named = {each.alias_or_name: each.unalias() for each in select.expressions}
    grouped = {each.name for each in select.args["group"].expressions if isinstance(each, exp.Column)}
    if grouped != groups or len(select.args["group"].expressions) != len(groups):
        return "a SELECT of its query does not group by the table's key"
    for name, expression in named.items():
        if name in groups:
            if not isinstance(expression, exp.Column) or expression.name != name:
                return f"its query does not hand {name} on as it is"
        elif not _adds_up(expression, key):
            return f"{name} is neither COUNT(*), SUM(...) of rows alone nor COUNT(DISTINCT {key})"
    return None


def _adds_up(expression: Any, key: str) -> bool:
    inner = expression.this
    if isinstance(expression, exp.Count):
        if isinstance(inner, exp.Distinct):
            [*counted] = inner.expressions
            return len(counted) == 1 and isinstance(counted[0], exp.Column) and counted[0].name == key
        return isinstance(inner, exp.Star)
    plain = isinstance(expression, exp.Sum) and not isinstance(inner, exp.Distinct)
    return plain and inner.find(exp.AggFunc, exp.Select, exp.Subquery) is None and is_of_its_row(inner)


def is_of_its_row(expression: exp.Expr) -> bool:
    """Whether an expression is the same whenever it is asked for its row, and does not choose among rows (HAVING MAX).

    What is compared or taken off later would else not be what was published.
    """
    return expression.find(*UNSTEADY, exp.HavingMax) is None


def is_part(node: exp.Table) -> bool:
    """Whether a table is read by chance (TABLESAMPLE), or as of another time."""
    return bool(node.args.get("sample") or node.args.get("version"))


def _join_problem(query: Any, selects: Sequence[Any], groups: set[str]) -> str | None:
    """Grouped SELECTs beside each other: the same groups in each, so an inner join on all of them loses none."""
    named = {cte.alias: cte.this for cte in query.ctes}
    if not isinstance(query, exp.Select) or sorted(map(id, named.values())) != sorted(map(id, selects)):
        return "its query is neither one grouped SELECT nor a join of such"
    if any(query.args.get(each) for each in (*_MORE, "where", "group")):
        return "its query does more than join what was grouped"
    if any(not isinstance(each.unalias(), exp.Column) for each in query.expressions):
        return "its query computes something after grouping"
    for join in query.args.get("joins") or ():
        on = join.args.get("on")
        equal = {(each.left.name, each.right.name) for each in on.find_all(exp.EQ)} if on is not None else set()
        plain = on is not None and not on.find(exp.Or, exp.Not) and not join.args.get("side")
        if not plain or equal != {(name, name) for name in groups}:
            return "its query does not join what was grouped on all of the table's key"
    return None


def sums_of_rows_problem(table: Table, source: Table) -> str | None:
    """Why a table is not made of sums over groups of one source's rows of a day, each row once; or None."""
    query = tree(table.query or "", table.query_path)
    if not isinstance(query, exp.Select) or not query.args.get("group"):
        return f"{table.name} does not group rows"
    is_more = query.find(exp.Window, exp.Subquery, exp.CTE) is not None or any(map(is_part, _read(query)))
    if table.depends_on != (source.name,) or is_more:
        return f"{table.name} reads more than the rows of {source.name}"
    where, selected = query.args.get("where"), {each.alias_or_name: each.unalias() for each in query.selects}
    day = selected.get(table.partition_column or "")
    problem = None
    subtotals = query.args["group"].find(exp.Rollup, exp.Cube, exp.GroupingSets) is not None
    if any(query.args.get(each) for each in _MORE) or query.args.get("joins") or subtotals:
        problem = f"{table.name} does more than group rows"
    elif where is None or not is_in_days(where.this) or where.this.this.name != source.partition_column:
        problem = f"{table.name} filters its source's rows"
    elif not isinstance(day, exp.Column) or day.name != source.partition_column:
        problem = f"{table.name} has other days than {source.name}"
    return problem


def row_for_row_problem(parent: Table, tables: Mapping[str, Table]) -> str | None:
    """Why a table's rows are not each made of one source row of its days, giving way only to a newer one; or None."""
    if not parent.incremental_by:
        return f"{parent.name} does not grow by key (incrementalBy)"
    return single_rows_problem(parent, tables[parent.depends_on[0]])


def single_rows_problem(parent: Table, source: Table) -> str | None:
    """The same of the one table that it reads, in whatever way its days grow."""
    query = tree(parent.query or "", parent.query_path)
    selected = {each.alias_or_name: each.unalias() for each in query.selects}
    kept = [name for name in COORDINATES if isinstance(selected.get(name), exp.Column) and selected[name].name == name]
    where, qualify = query.args.get("where"), query.args.get("qualify")
    problem = None
    is_more = len(_read(query)) != 1 or any(map(is_part, _read(query))) or query.args.get("joins")
    if is_more or query.find(exp.SetOperation, exp.Distinct, exp.Limit):
        problem = f"{parent.name} does more than take rows of {source.name}"
    elif not set(COORDINATES) <= set(source.identity) or kept != list(COORDINATES):
        problem = f"rows of {parent.name} are not known by the {' and '.join(COORDINATES)} of {source.name}"
    elif not isinstance(query, exp.Select) or query.args.get("group") or query.ctes:
        problem = f"rows of {parent.name} are made of several source rows"
    elif any(each.find(exp.Window, exp.AggFunc) for each in query.expressions):
        problem = f"columns of {parent.name} are made of several source rows"
    elif where is None or not is_in_days(where.this) or any(node.parent_select is not query for node in _read(query)):
        problem = f"{parent.name} filters its source's rows"
    elif not _is_day(where.this.this, source) or not _is_day(selected.get(parent.partition_column or ""), source):
        problem = f"{parent.name} has other days than {source.name}"
    elif qualify is not None and not _is_first(qualify.this, set(source.identity)):
        problem = f"{parent.name} keeps other rows of a key than the first"
    return problem


def kept_rows(table: Table, tables: Mapping[str, Table]) -> Kept | None:
    """Which source rows a table that is `row_for_row` keeps; None if it tells rows apart by more than columns."""
    qualify = tree(table.query or "", table.query_path).args.get("qualify")
    if qualify is None:
        return Kept()
    window, day = qualify.this.this, tables[table.depends_on[0]].partition_column
    columns = window.args.get("partition_by") or []
    if not all(isinstance(each, exp.Column) for each in columns):
        return None
    order = tuple((each.this.name, bool(each.args.get("desc"))) for each in window.args["order"].expressions)
    return Kept(tuple(each.name for each in columns if each.name != day), order)


def _read(query: Any) -> list[Any]:
    return [node for _name, node in table_nodes(query)]


def _is_day(node: Any, source: Table) -> bool:
    return isinstance(node, exp.Column) and node.name == source.partition_column


def _is_first(condition: Any, identity: set[str]) -> bool:
    """ROW_NUMBER() OVER (PARTITION BY ... ORDER BY ...) = 1, in an order that is total."""
    if not isinstance(condition, exp.EQ) or condition.expression.name != "1":
        return False
    window = condition.this
    if not isinstance(window, exp.Window) or not isinstance(window.this, exp.RowNumber):
        return False
    order = window.args.get("order")
    columns = [each.this for each in order.expressions] if order else []
    if not window.args.get("partition_by"):
        return False
    return all(isinstance(each, exp.Column) for each in columns) and identity <= {each.name for each in columns}


def _grouped(query: Any) -> list[Any]:
    return [select for select in query.find_all(exp.Select) if select.args.get("group")]


def _counts(select: Any) -> list[str]:
    return [
        str(each.alias_or_name)
        for each in select.expressions
        if isinstance(each.unalias(), exp.Count) and isinstance(each.unalias().this, exp.Star)
    ]
