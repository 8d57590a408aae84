"""Is a query valid GoogleSQL, and are its columns those of its contract? Judged offline by Google's own analyser.

Belongs here: the analyser (PyPI zetasql, a development dependency) behind one class. Does not: BigQuery, rendering.
Each table's contract is what the next query sees, so a model is judged against promises, not against its neighbours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from dbt_like_sql.graph import DIALECT, table_nodes, tree

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbt_like_sql.catalog import Catalog, Table

PARAMETERS = {"days": "ARRAY<DATE>", "today": "DATE"}
_ARRAY = re.compile(r"^ARRAY<(.+)>$")
_STRUCT = re.compile(r"^STRUCT<(.+)>$")


@dataclass(frozen=True)
class Verdict:
    """A problem with one query; no verdicts means that all is well."""

    table: str
    what: str
    problem: str


class Judge:
    """The analyser with a catalog's tables. Building the first one compiles 28 MB of WebAssembly: 17-31 s.

    The compiled code is cached below the user's cache folder; from then on it takes about a second.
    """

    def __init__(self, catalog: Catalog) -> None:
        _cache_compiled_code()
        from zetasql import types  # noqa: PLC0415
        from zetasql.api import Analyzer, CatalogBuilder  # noqa: PLC0415

        language = types.LanguageOptions.maximum_features()
        language.reserved_keywords.append("QUALIFY")
        options = types.AnalyzerOptions(
            language_options=language,
            default_timezone="UTC",
            query_parameters=[
                types.AnalyzerOptions.QueryParameter(name=name, type=_type(kind)) for name, kind in PARAMETERS.items()
            ],
        )
        builder = CatalogBuilder("warehouse")
        for table in catalog:
            builder.add_table(_table(table))
        builtin = types.ZetaSQLBuiltinFunctionOptions(language_options=language)
        self._analyzer = Analyzer(options, builder.with_builtin_functions(builtin).build())
        self._catalog = catalog

    def columns(self, sql: str) -> list[tuple[str, str]]:
        """Names and GoogleSQL types of a query's output.

        Raises:
            ValueError: the analyser refuses the query; the message is its own.
        """
        from zetasql.core.exceptions import ZetaSQLError  # noqa: PLC0415

        try:
            statement = self._analyzer.analyze_statement(one_name_tables(sql))
        except ZetaSQLError as error:
            raise ValueError(str(error)) from error
        return [(column.name, _type_name(column.column.type)) for column in statement.output_column_list]

    def verdicts(self, tables: Iterable[Table] | None = None) -> list[Verdict]:
        """Every problem of every query and check."""
        found = []
        for table in tables or self._catalog:
            if table.query:
                found += self._judge_query(table, table.query)
            for check in table.checks:
                found += self._judge(table, f"check {check.name!r}", check.sql)
        return found

    def _judge_query(self, table: Table, query: str) -> list[Verdict]:
        try:
            columns = self.columns(query)
        except ValueError as error:
            return [Verdict(table.name, "query.sql", str(error))]
        return [Verdict(table.name, "query.sql", problem) for problem in differences(table, columns)]

    def _judge(self, table: Table, what: str, sql: str) -> list[Verdict]:
        try:
            self.columns(sql)
        except ValueError as error:
            return [Verdict(table.name, what, str(error))]
        return []


def differences(table: Table, columns: list[tuple[str, str]]) -> list[str]:
    """Where a query's output is not what its contract promises."""
    promised = [(column.name, column.type.replace(" ", "")) for column in table.columns]
    built = [(name, kind.replace(" ", "")) for name, kind in columns]
    if promised == built:
        return []
    problems = [f"column {name} is missing from the query" for name, _ in promised if name not in dict(built)]
    problems += [f"column {name} is not in the contract" for name, _ in built if name not in dict(promised)]
    problems += [
        f"column {name} is {dict(built)[name]}; the contract says {kind}"
        for name, kind in promised
        if name in dict(built) and dict(built)[name] != kind
    ]
    return problems or ["its columns stand in another order than in the contract"]


def one_name_tables(sql: str) -> str:
    """`layer.table` as one quoted name: the analyser's catalog is flat."""
    query = tree(sql).copy()
    for name, node in table_nodes(query):
        alias = node.alias or name.partition(".")[2]
        node.set("db", None)
        node.set("this", exp.to_identifier(name, quoted=True))
        node.set("alias", exp.TableAlias(this=exp.to_identifier(alias)))
    return str(query.sql(dialect=DIALECT))


def _table(table: Table) -> Any:
    from zetasql.api import TableBuilder  # noqa: PLC0415

    builder = TableBuilder(table.name)
    for column in table.columns:
        builder.add_column(column.name, _type(column.type))
    return builder.build()


def _type(kind: str) -> Any:
    from zetasql.api import TypeFactory  # noqa: PLC0415
    from zetasql.types import TypeKind  # noqa: PLC0415

    array, struct = _ARRAY.match(kind), _STRUCT.match(kind)
    if array:
        return TypeFactory.create_array_type(_type(array[1]))
    if struct:
        pairs = [part.strip().split(" ", 1) for part in struct[1].split(",")]
        return TypeFactory.create_struct_type([(name, _type(inner)) for name, inner in pairs])
    return TypeFactory.create_simple_type(getattr(TypeKind, f"TYPE_{kind}"))


def _type_name(kind: Any) -> str:
    from zetasql.types import TypeKind  # noqa: PLC0415

    if kind.array_type is not None:
        return f"ARRAY<{_type_name(kind.array_type.element_type)}>"
    if kind.struct_type is not None:
        fields = ", ".join(f"{part.field_name} {_type_name(part.field_type)}" for part in kind.struct_type.field)
        return f"STRUCT<{fields}>"
    return str(TypeKind(kind.type_kind).name).removeprefix("TYPE_")


def _cache_compiled_code() -> None:
    """Have wasmtime keep its compiled code; zetasql leaves the cache off."""
    from zetasql.core import wasm_client  # noqa: PLC0415

    if getattr(wasm_client.Config, "caches_compiled_code", False):
        return

    class CachingConfig(wasm_client.Config):  # type: ignore[misc]
        caches_compiled_code = True

        def __init__(self) -> None:
            super().__init__()
            self.cache = True

    wasm_client.Config = CachingConfig
