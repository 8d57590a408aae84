"""A folder is a table; what the folders say is checked as they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.errors import ContractError, SelectionError
from dbt_like_sql.selection import select
from tests.unit.dbt_like_sql.models import column, write_table

CATALOG = load_catalog()


def test_every_table_of_the_project_is_described_to_the_last_column() -> None:
    for table in CATALOG:
        assert table.owner
        assert table.known_limits
        assert table.grain.startswith(("One row", "Exactly"))
        assert all(len(column.description) > 3 for column in table.columns)


def test_money_is_numeric_everywhere() -> None:
    money = [(table.name, column) for table in CATALOG for column in table.columns if column.name.endswith("_gbp")]
    assert len(money) > 10
    assert {column.type for _, column in money} == {"NUMERIC"}


def test_no_column_is_a_float() -> None:
    assert not [column for table in CATALOG for column in table.columns if "FLOAT" in column.type]


def test_order_follows_what_tables_read() -> None:
    names = list(CATALOG.tables)
    for table in CATALOG:
        for parent in table.depends_on:
            assert names.index(parent) < names.index(table.name)
    assert CATALOG.upstream("mart.daily_sales_by_country") == ["core.invoice_lines", "mart.invoice_lines"]
    assert "mart.products" in CATALOG.downstream("core.invoice_lines")


def test_sources_of_a_table_are_found_behind_views_of_views(tmp_path: Path) -> None:
    write_table(tmp_path, "core.lines", materialization="loaded")
    write_table(tmp_path, "mart.sums", query="SELECT a FROM core.lines")
    write_table(
        tmp_path, "mart.near", query="SELECT a FROM mart.sums JOIN core.lines USING (a)", materialization="view"
    )
    write_table(tmp_path, "mart.far", query="SELECT a FROM mart.near", materialization="view")
    write_table(tmp_path, "mart.reader", query="SELECT a FROM mart.far JOIN mart.sums USING (a)")
    catalog = load_catalog(tmp_path)
    assert catalog.sources("mart.reader") == ["core.lines", "mart.sums"]
    behind = {table.name: CATALOG.sources(table.name) for table in CATALOG}
    differ = [table.name for table in CATALOG if behind[table.name] != list(table.depends_on)]
    assert differ == ["mart.data_trust"], "the one table of ours that reads a view"
    assert behind["mart.data_trust"] == ["control.day", "control.publication", "control.reconciliation"]


def test_partitioned_marts_read_only_the_days_they_build() -> None:
    for table in CATALOG:
        if table.materialization == "table" and table.partition_column:
            assert "IN UNNEST(@days)" in (table.query or "")


def test_unknown_table_is_told_with_those_that_exist() -> None:
    with pytest.raises(KeyError, match=r"mart\.products"):
        CATALOG["mart.product"]
    with pytest.raises(KeyError, match="no column"):
        CATALOG["mart.products"].column("nope")


@pytest.mark.parametrize(
    ("selectors", "names"),
    [
        (["mart.products"], ["mart.products"]),
        (["+mart.daily_sales_by_country"], ["core.invoice_lines", "mart.invoice_lines", "mart.daily_sales_by_country"]),
        (["mart.daily_sales_*"], ["mart.daily_sales_by_country", "mart.daily_sales_by_product"]),
        (["tag:fact", "mart.dates"], ["mart.invoice_lines", "mart.dates"]),
        (["*"], list(CATALOG.tables)),
        (["core.invoice_lines+"], ["core.invoice_lines", *CATALOG.downstream("core.invoice_lines")]),
    ],
)
def test_selectors_mean_tables_in_order(selectors: list[str], names: list[str]) -> None:
    assert select(CATALOG, selectors) == names


def test_selector_that_means_nothing_is_refused() -> None:
    with pytest.raises(SelectionError, match=r"mart\.nope"):
        select(CATALOG, ["mart.products", "+mart.nope"])


def test_folder_with_a_query_becomes_a_table(tmp_path: Path) -> None:
    write_table(tmp_path, "core.lines", materialization="loaded")
    write_table(tmp_path, "mart.sums", query="SELECT a FROM core.lines", checks="#warn x\nSELECT a FROM mart.sums;")
    table = load_catalog(tmp_path)["mart.sums"]
    assert (table.depends_on, table.materialization) == (("core.lines",), "table")
    assert [check.name for check in table.checks] == ["x"]


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"query": "SELECT a FROM core.nowhere"}, "core.nowhere, which is not in"),
        ({"query": "SELECT a FROM mart.t"}, "circle"),
        ({"materialization": "table"}, "query.sql is missing"),
        ({"materialization": "loaded", "query": "SELECT 1 AS a"}, "query.sql is there"),
        ({"materialization": "cube", "query": "SELECT 1 AS a"}, "'cube'"),
        ({"query": "SELECT 1 AS a", "extra": "      - property: clustered\n        value: [a]\n"}, "'clustered'"),
        ({"query": "SELECT 1 AS a", "extra": "      - property: clustering\n        value: [b]\n"}, "'b'"),
        ({"query": "SELECT 1 AS a", "contract_id": "mart.other"}, "the folder says 'mart.t'"),
        ({"query": "SELEKT 1"}, "query.sql"),
        (
            {"query": "SELECT 1 AS a", "extra": "      - property: requirePartitionFilter\n        value: true\n"},
            "requirePartitionFilter is true, but no column is marked partitioned",
        ),
    ],
)
def test_wrong_folder_is_refused(tmp_path: Path, kwargs: dict[str, str], says: str) -> None:
    write_table(tmp_path, "mart.t", **kwargs)
    with pytest.raises(ContractError, match="mart") as caught:
        load_catalog(tmp_path)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("clustering", "says"),
    [("tags", "tags is an ARRAY<STRING>"), ("a, a", "4 columns at most, each once"), ("a, b, c, d, e", "4 columns")],
)
def test_clustering_that_google_refuses_is_refused_here(tmp_path: Path, clustering: str, says: str) -> None:
    columns = "".join(column(name, "STRING") for name in "abcde") + column("tags", "ARRAY<STRING>")
    extra = f"      - property: clustering\n        value: [{clustering}]\n"
    write_table(tmp_path, "core.lines", materialization="loaded", columns=columns, extra=extra)
    with pytest.raises(ContractError, match=f"clustering is {clustering}: .*{says}"):
        load_catalog(tmp_path)


def test_table_of_days_that_builds_no_days_is_refused_where_its_condition_is_missing(tmp_path: Path) -> None:
    partitioned = column("day", "DATE", more="        partitioned: true\n        partitionKeyPosition: 1\n")
    write_table(tmp_path, "core.lines", materialization="loaded", columns=partitioned)
    write_table(tmp_path, "mart.t", query="SELECT\n  day\nFROM core.lines", columns=partitioned)
    with pytest.raises(ContractError, match=r"partitioned by day, but its query .* IN UNNEST\(@days\)") as caught:
        load_catalog(tmp_path)
    assert (Path(caught.value.path).name, caught.value.line) == ("query.sql", 3)


def require_days_refused(root: Path, line: int | None, match: str) -> None:
    """The query of mart.t is refused at this line; None: it is taken."""
    if line is None:
        assert load_catalog(root)["mart.t"].partition_column == "day"
        return
    with pytest.raises(ContractError, match=match) as caught:
        load_catalog(root)
    assert (Path(caught.value.path).name, caught.value.line) == ("query.sql", line)


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("SELECT due AS day\nFROM core.lines\nWHERE due IN UNNEST(@days)", 2),
        (
            "SELECT l.due AS day\nFROM mart.w AS w\nJOIN core.lines AS l USING (day)\nWHERE l.due IN UNNEST(@days)",
            3,
        ),
        ("SELECT day FROM (\nSELECT due AS day FROM core.lines\nWHERE lines.due IN UNNEST(@days))", 2),
        ("SELECT day FROM core.lines\nWHERE day IN UNNEST(@days) AND due IN UNNEST(@days)", None),
        ("SELECT w.day FROM mart.w AS w JOIN core.lines AS l ON w.day = l.due\nWHERE w.day IN UNNEST(@days)", None),
    ],
)
def test_days_taken_by_another_column_than_those_that_were_loaded_are_refused(
    tmp_path: Path, query: str, line: int | None
) -> None:
    partitioned = column("day", "DATE", more="        partitioned: true\n        partitionKeyPosition: 1\n")
    columns = partitioned + column("due", "DATE")
    write_table(tmp_path, "core.lines", materialization="loaded", columns=columns)
    write_table(tmp_path, "mart.w", query="SELECT day FROM core.lines", columns=column("day", "DATE"))
    write_table(tmp_path, "mart.t", query=query, columns=partitioned)
    require_days_refused(tmp_path, line, r"takes the days of core.lines by due, but its days are its day")


BY_DAY = "SELECT day FROM core.lines WHERE day IN UNNEST(@days)"


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("SELECT\n  due AS day\nFROM core.lines WHERE day IN UNNEST(@days)", 2),
        ("SELECT\n  l.due AS day\nFROM core.lines AS l JOIN mart.w AS w USING (due) WHERE l.day IN UNNEST(@days)", 2),
        (f"{BY_DAY}\nUNION ALL\n{BY_DAY.replace('SELECT day', 'SELECT due AS day')}", 3),
        ("SELECT due AS day FROM core.lines WHERE day IN UNNEST(@days) AND due = day", None),
        ("SELECT w.due AS day FROM core.lines AS l JOIN mart.w AS w USING (due) WHERE l.day IN UNNEST(@days)", None),
        ("SELECT DATE(due) AS day FROM core.lines WHERE day IN UNNEST(@days)", None),
    ],
)
def test_rows_that_are_given_another_day_than_the_one_they_are_taken_by_are_refused(
    tmp_path: Path, query: str, line: int | None
) -> None:
    partitioned = column("day", "DATE", more="        partitioned: true\n        partitionKeyPosition: 1\n")
    write_table(tmp_path, "core.lines", materialization="loaded", columns=partitioned + column("due", "DATE"))
    write_table(tmp_path, "mart.w", query="SELECT due FROM core.lines", columns=column("due", "DATE"))
    write_table(tmp_path, "mart.t", query=query, columns=partitioned)
    require_days_refused(tmp_path, line, r"core.lines by day, but gives its rows due as their day")


@pytest.mark.parametrize(
    ("query", "checks", "place", "says"),
    [
        ("SELECT a\nFROM core.lines\nJOIN core.nope USING (a)", "", "query.sql:3", "core.nope, which is not in"),
        ("SELECT a\nFROM lines", "", "query.sql:2", "lines without its layer; .* such as core.lines"),
        ("SELECT a\nFROM Core.lines", "", "query.sql:2", "Core.lines, which is not in"),
        ("SELECT 1 AS a", "\n#fail x\nSELECT a FROM mart.nope;", "checks.sql:2", "#fail x: mart.t reads mart.nope"),
        ("SELECT 1 AS a", "#warn x\nSELECT a FROM t;", "checks.sql:1", "t without its layer; .*such as mart.t"),
    ],
)
def test_table_that_is_read_and_does_not_exist_is_refused_with_its_line(
    tmp_path: Path, query: str, checks: str, place: str, says: str
) -> None:
    write_table(tmp_path, "core.lines", materialization="loaded")
    write_table(tmp_path, "mart.t", query=query, checks=checks)
    with pytest.raises(ContractError, match=rf"/mart/t/{place}: .*{says}"):
        load_catalog(tmp_path)


def require_refused_query(models_dir: Path, line: int, says: str) -> None:
    with pytest.raises(ContractError, match=r"query\.sql") as caught:
        load_catalog(models_dir)
    assert says in caught.value.problem
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("query", "materialization", "line", "says"),
    [
        (
            "SELECT a\nFROM core.lines\nWHERE a = @dayz",
            "table",
            3,
            "it asks for @dayz; a query is given @days and @today",
        ),
        ("SELECT a FROM core.lines\nWHERE a = ?", "table", 2, "it asks for a value by its position"),
        ("SELECT a FROM core.lines\nWHERE a = CAST(@today AS STRING)", "view", 2, "it asks for @today, and a view is"),
        ("SELECT CAST(d AS STRING) AS a FROM\nUNNEST(@days) AS d", "view", 2, "it asks for @days, and a view is"),
    ],
)
def test_value_that_no_run_gives_a_query_is_refused_with_its_line(
    tmp_path: Path, query: str, materialization: str, line: int, says: str
) -> None:
    write_table(tmp_path, "core.lines", materialization="loaded")
    write_table(tmp_path, "mart.t", query=query, materialization=materialization)
    require_refused_query(tmp_path, line, says)


@pytest.mark.parametrize(
    ("query", "line", "says"),
    [
        ("SELECT\n  b AS c\nFROM core.lines", 2, "it gives no column a, b, which mart.t promises; it gives c"),
        ("SELECT\n  a,\n  UPPER(b) AS B,\n  b AS extra\nFROM core.lines", 4, "a column extra, which mart.t does not"),
        ("SELECT\n  a,\n  b,\n  UPPER(a) AS A\nFROM core.lines", 4, "it gives column A twice (case does not count)"),
        ("SELECT\n  a,\n  UPPER(b)\nFROM core.lines", 3, "it gives a column without a name; write AS and its name"),
    ],
)
def test_query_whose_columns_are_not_those_of_its_contract_is_refused_with_its_line(
    tmp_path: Path, query: str, line: int, says: str
) -> None:
    columns = column("a", "STRING") + column("b", "STRING")
    write_table(tmp_path, "core.lines", materialization="loaded", columns=columns)
    write_table(tmp_path, "mart.t", query=query, columns=columns)
    require_refused_query(tmp_path, line, says)


@pytest.mark.parametrize(
    "query", ["SELECT * FROM core.lines", "SELECT B, A FROM core.lines", "SELECT l.* FROM core.lines AS l"]
)
def test_columns_in_another_order_or_case_and_a_star_are_left_to_bigquery(tmp_path: Path, query: str) -> None:
    columns = column("a", "STRING") + column("b", "STRING")
    write_table(tmp_path, "core.lines", materialization="loaded", columns=columns)
    write_table(tmp_path, "mart.t", query=query, columns=columns)
    assert load_catalog(tmp_path)["mart.t"].depends_on == ("core.lines",)


def test_names_that_a_query_gives_itself_need_no_layer(tmp_path: Path) -> None:
    write_table(tmp_path, "core.lines", materialization="loaded", columns=column("tags", "ARRAY<STRING>"))
    query = (
        "WITH Lines AS (WITH inner_lines AS (SELECT tags FROM core.lines) SELECT tags FROM inner_lines)\n"
        "SELECT tag AS a FROM lines AS l, l.tags AS tag, UNNEST(l.tags) AS other"
    )
    write_table(tmp_path, "mart.t", query=query)
    assert load_catalog(tmp_path)["mart.t"].depends_on == ("core.lines",)


@pytest.mark.parametrize(("name", "comment"), [("contract.yaml", b"# "), ("query.sql", b"-- "), ("checks.sql", b"-- ")])
def test_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path: Path, name: str, comment: bytes) -> None:
    folder = write_table(tmp_path, "mart.t", query="SELECT 'x' AS a\n", checks="#warn x\nSELECT a FROM mart.t;\n")
    text = folder.joinpath(name).read_bytes()
    folder.joinpath(name).write_bytes(text + comment + "caf\u00e9\n".encode("latin-1"))
    with pytest.raises(ContractError, match=rf"{name}:\d+: not UTF-8: byte 0xe9") as caught:
        load_catalog(tmp_path)
    assert caught.value.line == text.count(b"\n") + 1


def test_byte_order_mark_that_an_editor_puts_before_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    folder = write_table(tmp_path, "mart.t", query="SELECT 'x' AS a\n", checks="#warn x\nSELECT a FROM mart.t;\n")
    for file in folder.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert [check.name for check in load_catalog(tmp_path)["mart.t"].checks] == ["x"]


def test_stray_file_is_refused(tmp_path: Path) -> None:
    folder = write_table(tmp_path, "mart.t", query="SELECT 1 AS a")
    (folder / "query2.sql").write_text("SELECT 1")
    with pytest.raises(ContractError, match=r"query2\.sql"):
        load_catalog(tmp_path)


def test_folder_that_is_no_layer_is_refused_and_not_left_unread(tmp_path: Path) -> None:
    write_table(tmp_path, "marts.t", query="SELECT 1 AS a")
    with pytest.raises(ContractError, match=r"/marts: no layer; .* control, core, mart"):
        load_catalog(tmp_path)


def test_folder_without_contract_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mart" / "t").mkdir(parents=True)
    with pytest.raises(ContractError, match="no contract"):
        load_catalog(tmp_path)


def test_array_in_a_table_that_is_loaded_by_identity_is_refused_before_its_first_load(tmp_path: Path) -> None:
    identity = "      - property: identity\n        value: [topic_offset]\n"
    columns = column("topic_offset", "INT64") + column("tags", "ARRAY<STRING>")
    write_table(tmp_path, "core.visits", materialization="loaded", columns=columns, extra=identity)
    with pytest.raises(
        ContractError, match="column tags is an ARRAY<STRING>, which a table with an identity cannot be"
    ):
        load_catalog(tmp_path)
