"""What every additive measure of the marts is in terms of the loaded table, so that both sides can be summed up.

Belongs here: pure derivation from contracts and queries. Does not: asking BigQuery (reconcile.py), what must agree.

A contract marks a column `additive`. The models' own queries say what one source row adds to it: a column of a table
that has one row for each source row is an expression of that row, a column of a table of sums is SUM or COUNT(*) of
such. Nothing is kept by hand: a measure that is new in a contract is compared from then on. Where the syntax tree does
not prove it (`difference.py` has the proof), the measure is told as not derivable, never left out in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp

from dbt_like_sql.difference import EXACT, Kept, is_of_its_row, kept_rows, single_rows_problem, sums_of_rows_problem
from dbt_like_sql.graph import DIALECT, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dbt_like_sql.catalog import Catalog, Table

    OfRow = Callable[[Table, str], exp.Expr | None]

# Types whose text is one and the same wherever the value stands.
LABELS = ("STRING", "INT64", "BOOL", "DATE", "TIMESTAMP")
# No column has a name with blanks.
HASH = "hash of its labels"


@dataclass(frozen=True)
class Measure:
    """One additive column of a table with days; `source_sql` is what a row of the source adds, None: not derivable.

    `counts_repeats`: every row adds it; else an event that was delivered again adds it once, as the fact table has it.
    `table_sql` is what a row of the table adds where that is no column.
    """

    table: str
    column: str
    source_sql: str | None
    counts_repeats: bool = False
    table_sql: str | None = None

    @property
    def name(self) -> str:
        """Its full name, `mart.daily_sales_by_country.items`."""
        return f"{self.table}.{self.column}"


def additive_measures(catalog: Catalog, source: str) -> tuple[Measure, ...]:
    """Every additive column of every table with days that is built from `source`, directly or through others."""
    return tuple(
        Measure(
            name,
            column.name,
            _source_sql(catalog, name, column.name, source),
            counts_repeats=_counts_repeats(catalog, name, source),
        )
        for name in _daily(catalog, source)
        for column in catalog[name].columns
        if column.is_additive
    )


def label_hashes(catalog: Catalog, source: str) -> tuple[Measure, ...]:
    """For each table with days a sum that is another one where a label of a row is: sums of a day do not show that.

    A label is a column that is no measure and that the source's row gives: of a table of sums one that it groups by.
    Each row adds the hash of its labels; a row of a table of sums as often as it has counted rows. A table of which
    that is not known, such as one that counts none, has no such sum.
    """
    found = [(name, _label_hash(catalog, name, source)) for name in _daily(catalog, source)]
    return tuple(
        Measure(name, HASH, pair[1], counts_repeats=_counts_repeats(catalog, name, source), table_sql=pair[0])
        for name, pair in found
        if pair is not None
    )


def _label_hash(catalog: Catalog, name: str, source: str) -> tuple[str, str] | None:
    """What a row of the table adds, and what a row of the source does."""
    table = catalog[name]
    labels = {}
    for column in table.columns:
        if column.type in LABELS and not column.is_additive:
            found = _added_by_source(catalog, table, column.name, source, of_row=_grouped_by)
            if found is not None and is_of_its_row(found):
                labels[column.name] = f"CAST({found.sql(dialect=DIALECT, comments=False)} AS {column.type})"
    is_of_sums = _of_rows(catalog, name) is not table or _is_of_all_rows(catalog, name, source)
    counts = [
        column.name
        for column in table.columns
        if column.is_additive and _source_sql(catalog, name, column.name, source) in {"1", "(1)"}
    ]
    if not labels or (is_of_sums and not counts):
        return None
    weight = f" * {counts[0]}" if is_of_sums else ""
    return _hash_sql(labels) + weight, _hash_sql(labels.values())


def _hash_sql(labels: Iterable[str]) -> str:
    # 28 bits: the sum over a day of a billion rows is an INT64 still. The emulator takes ten times as long for
    # FARM_FINGERPRINT (160 s for a million rows).
    listed = ", ".join(f"CAST({each} AS STRING)" for each in labels)
    return f"CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(TO_JSON_STRING([{listed}]))), 1, 7)) AS INT64)"


def _daily(catalog: Catalog, source: str) -> list[str]:
    tables = [catalog[name] for name in catalog.downstream(source)]
    return [table.name for table in tables if table.materialization == "table" and table.partition_column]


def _counts_repeats(catalog: Catalog, name: str, source: str) -> bool:
    return _is_of_all_rows(catalog, name, source) or _kept(catalog, name, source) == Kept()


def fact_table(catalog: Catalog, source: str) -> tuple[Table, Kept] | None:
    """The daily table that keeps each event of a loaded one, and which of its rows that are.

    Of several the first that tells repeats from other rows; one that keeps every row is as good where none does.
    """
    tables = [catalog[name] for name in catalog.downstream(source)]
    found = [(table, kept) for table in tables if (kept := _kept(catalog, table.name, source)) is not None]
    return next((each for each in found if each[1].keys), found[0] if found else None)


def _kept(catalog: Catalog, name: str, source: str) -> Kept | None:
    """Which rows of the source a table keeps, or those that it sums up; None if it is not made of rows one by one."""
    table = _of_rows(catalog, name)
    is_daily = table.materialization == "table" and table.partition_column
    if not is_daily or table.depends_on != (source,) or single_rows_problem(table, catalog[source]):
        return None
    return kept_rows(table, catalog.tables)


def _of_rows(catalog: Catalog, name: str) -> Table:
    """The table itself, or the one whose rows it sums up."""
    table = catalog[name]
    parents = [catalog[each] for each in table.depends_on]
    is_sums = len(parents) == 1 and parents[0].query is not None and sums_of_rows_problem(table, parents[0]) is None
    return parents[0] if table.additive_by or is_sums else table


def _source_sql(catalog: Catalog, name: str, column: str, source: str) -> str | None:
    table = catalog[name]
    if not table.column(column).type.startswith(EXACT):
        return None  # sums of floats depend on the order of the rows
    found = _added_by_source(catalog, table, column, source)
    if found is None or not is_of_its_row(found):
        return None  # it would be another sum when it is compared, or is asked for @today, which no comparison has
    return str(found.sql(dialect=DIALECT, comments=False))


def _added_by_source(
    catalog: Catalog, table: Table, column: str, source: str, *, of_row: OfRow | None = None
) -> exp.Expr | None:
    """A column in terms of a row of the source; `of_row` says what it is of one row that a table of sums sums up."""
    name, of_row = table.name, of_row or _added_by_row
    if _is_of_all_rows(catalog, name, source):
        added = of_row(table, column)
        return None if added is None else _unqualified(added)
    fact = fact_table(catalog, source)
    if fact is None or _kept(catalog, name, source) not in {Kept(), fact[1]}:
        return None  # its repeats are others than those that are looked for
    parent = _of_rows(catalog, name)
    if parent is not table:
        added = of_row(table, column)
        rows = _row_expressions(catalog, parent.name, source)
    else:
        added, rows = exp.column(column), _row_expressions(catalog, name, source)
    if added is None or rows is None:
        return None
    return _replaced(added, rows)


def _is_of_all_rows(catalog: Catalog, name: str, source: str) -> bool:
    """Whether a table sums up the source's own rows, repeats and all."""
    table = catalog[name]
    return table.depends_on == (source,) and sums_of_rows_problem(table, catalog[source]) is None


def _row_expressions(catalog: Catalog, name: str, source: str) -> Mapping[str, exp.Expr] | None:
    """Each column of a table that has one row for each row of the source, as an expression of that row."""
    table = catalog[name]
    if table.query is None or table.depends_on != (source,) or single_rows_problem(table, catalog[source]):
        return None
    return {each.alias_or_name: each.unalias() for each in tree(table.query, table.query_path).selects}


def _added_by_row(table: Table, column: str) -> exp.Expr | None:
    """What one row of its parent adds to a measure of a table of sums, or None."""
    sums = (found for found in _selected(table, column) if isinstance(found, exp.Sum | exp.Count | exp.CountIf))
    found = next(sums, None)
    return None if found is None else _added(found)


def _grouped_by(table: Table, column: str) -> exp.Expr | None:
    """The column of its parent that a table of sums groups by under this name, or None."""
    return next((found for found in _selected(table, column) if isinstance(found, exp.Column)), None)


def _selected(table: Table, column: str) -> Iterator[exp.Expr]:
    """What a table of sums selects under this name, wherever its query groups."""
    for select in tree(table.query or "", table.query_path).find_all(exp.Select):
        if select.args.get("group"):
            yield from (each.unalias() for each in select.expressions if each.alias_or_name == column)


def _added(aggregate: exp.Sum | exp.Count | exp.CountIf) -> exp.Expr | None:
    inner: exp.Expr = aggregate.this
    if isinstance(aggregate, exp.Count):
        return exp.Literal.number(1) if isinstance(inner, exp.Star) else None
    if inner.find(exp.AggFunc, exp.Select, exp.Distinct):
        return None
    if isinstance(aggregate, exp.CountIf):
        return exp.If(this=inner.copy(), true=exp.Literal.number(1), false=exp.Literal.number(0))
    return inner


def _replaced(expression: exp.Expr, rows: Mapping[str, exp.Expr]) -> exp.Expr | None:
    """The expression with each column replaced by what it is of the source's row, under the source's own names."""
    if any(column.name not in rows for column in expression.find_all(exp.Column)):
        return None

    def of_source(node: exp.Expr) -> exp.Expr:
        return _unqualified(rows[node.name]) if isinstance(node, exp.Column) else node

    return expression.copy().transform(of_source)


def _unqualified(expression: exp.Expr) -> exp.Expr:
    if isinstance(expression, exp.Column):
        return exp.column(expression.name)
    bare = expression.copy().transform(
        lambda node: exp.column(node.name) if isinstance(node, exp.Column) and node.table else node
    )
    return exp.paren(bare)
