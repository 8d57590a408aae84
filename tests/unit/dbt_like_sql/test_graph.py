"""References are found on the syntax tree, not by searching the text."""

from __future__ import annotations

import pytest

from dbt_like_sql.errors import ContractError
from dbt_like_sql.graph import DIALECT, order, put_in_place, references, table_nodes, tree


def test_references_are_found_wherever_a_table_can_stand() -> None:
    sql = """
    WITH mine AS (SELECT * FROM core.a), other AS (SELECT 'core.in_text' AS x /* core.in_comment */)
    SELECT (SELECT MAX(v) FROM core.b) AS v
    FROM mine JOIN mart.c AS c ON TRUE
    WHERE EXISTS (SELECT 1 FROM core.d WHERE d.id = c.id) AND c.x IN (SELECT y FROM core.a)
    UNION ALL SELECT 1 FROM UNNEST([1, 2]) AS n, core.e, other
    """
    assert references(tree(sql)) == ("core.a", "core.b", "core.d", "core.e", "mart.c")


def test_name_of_a_cte_is_no_reference() -> None:
    assert references(tree("WITH things AS (SELECT 1 AS a) SELECT a FROM things")) == ()


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("SELECT EXISTS(SELECT 1 FROM s.tags) AS b FROM core.t AS s", ("core.t",)),
        ("SELECT ARRAY(SELECT g.x FROM s.a.b AS g) AS b FROM core.t AS s", ("core.t",)),
        ("WITH core AS (SELECT 1 AS x) SELECT EXISTS(SELECT 1 FROM core.u) AS b FROM core", ("core.u",)),
        ("SELECT 1 AS b FROM core.t AS s JOIN (SELECT 1 FROM s.tags) AS u ON TRUE", ("core.t", "s.tags")),
        ("SELECT 1 AS b FROM core.t AS s JOIN core.u AS u ON EXISTS(SELECT 1 FROM u.tags)", ("core.t", "core.u")),
    ],
)
def test_array_of_a_table_around_a_subquery_is_no_reference(sql: str, reads: tuple[str, ...]) -> None:
    assert references(tree(sql)) == reads


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT FROM WHERE", "not GoogleSQL"),
        ("SELECT 1; SELECT 2", "found 2 statements"),
        ("SELECT a FROM `prod-erp.core.a`", "prod-erp.*core.* is not named as layer.table"),
        ("SELECT a FROM core.INFORMATION_SCHEMA.TABLES", "INFORMATION_SCHEMA.TABLES.* is not named as layer.table"),
        ("SELECT 1 FROM (SELECT a FROM a.b.c.d)", "is not named as layer.table"),
        ("", "found 0 statements"),
        ("DELETE FROM core.a WHERE TRUE", "found DELETE"),
        ("SELECT 'open", "not GoogleSQL"),
    ],
)
def test_what_is_not_one_select_is_refused_with_its_file(sql: str, says: str) -> None:
    with pytest.raises(ContractError, match=says) as caught:
        tree(sql, "models/mart/x/query.sql")
    assert caught.value.path == "models/mart/x/query.sql"


@pytest.mark.parametrize(
    "sql",
    ["SELECT a\nFROM core.a;\nSELECT b", "SELECT a\nFROM core.a AS a,\n`prod-erp.core.b` AS b", "DROP\n\nTABLE x"],
)
def test_what_is_refused_is_found_by_its_line(sql: str) -> None:
    with pytest.raises(ContractError) as caught:
        tree(sql)
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT a\nFROM core.a\nWHERE b = 'open\n  AND c = 1\n", "no ' ends what begins here"),
        ('SELECT a\nFROM core.a\nWHERE b = "open\n', 'no " ends what begins here'),
        ("SELECT a\n FROM core.a\nWHERE b = '''open\n\nx", "no ''' ends what begins here"),
        ("SELECT a\nFROM\n`core.a", "no ` ends what begins here"),
        ("SELECT a /* b */\nFROM core.a\n/* open\n\n", "no */ ends the comment that begins here"),
    ],
)
def test_what_does_not_end_is_found_by_the_line_where_it_begins(sql: str, says: str) -> None:
    with pytest.raises(ContractError, match="not GoogleSQL") as caught:
        tree(sql)
    assert says in caught.value.problem
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT a\nFROM {{ ref('lines') }}", "a template, which nothing here renders; name tables as layer.table"),
        ("{% if full %}SELECT a{% endif %}\nFROM core.a", "a template, which nothing here renders"),
        ("SELECT a\nFROM core.a\nWHERE n = 12abc", "Invalid expression / Unexpected token, at 'abc'"),
    ],
)
def test_what_cannot_be_read_is_told_in_plain_text(sql: str, says: str) -> None:
    with pytest.raises(ContractError, match="not GoogleSQL") as caught:
        tree(sql)
    assert says in caught.value.problem
    assert "\x1b" not in caught.value.problem


def test_comment_behind_the_last_semicolon_is_no_statement() -> None:
    assert references(tree("SELECT a FROM core.a;\n-- the end\n")) == ("core.a",)


@pytest.mark.parametrize(
    ("read", "put"),
    [
        ("core.a", "(SELECT 1 AS n) AS a"),
        ("core.a AS x", "(SELECT 1 AS n) AS x"),
        (
            "core.a PIVOT(SUM(n) FOR b IN ('c')) AS p",
            "(SELECT 1 AS n) AS a PIVOT(SUM(n) FOR b IN ('c')) AS p",
        ),
        ("(core.a JOIN core.b ON TRUE)", "((SELECT 1 AS n) AS a JOIN (SELECT 1 AS n) AS b ON TRUE)"),
    ],
)
def test_query_in_place_of_a_table_keeps_what_the_table_was_read_with(read: str, put: str) -> None:
    query = tree(f"SELECT * FROM {read}").copy()
    for name, node in table_nodes(query):
        put_in_place(tree("SELECT 1 AS n").copy(), name, node)
    assert query.sql(dialect=DIALECT) == f"SELECT * FROM {put}"


def test_order_puts_each_table_behind_what_it_reads() -> None:
    names = order({"d": ["b", "c"], "b": ["a"], "c": ["a"], "a": []})
    assert names.index("a") < names.index("b") < names.index("d")
    assert names.index("c") < names.index("d")
    assert names == order({"a": [], "c": ["a"], "b": ["a"], "d": ["c", "b"]})


def test_circle_is_named() -> None:
    with pytest.raises(ValueError, match=r"circle: .*a.*b|circle: .*b.*a"):
        order({"a": ["b"], "b": ["a"]})
