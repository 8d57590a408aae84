"""What an analyst writes becomes what BigQuery runs: full names, literal days, nothing else."""

from __future__ import annotations

from datetime import date

import pytest

from dbt_like_sql.errors import ContractError
from dbt_like_sql.graph import references, table_nodes, tree
from dbt_like_sql.render import day_sql, is_by_days, quote, render
from dbt_like_sql.settings import WarehouseSettings

SETTINGS = WarehouseSettings(project="shop-1", dataset_prefix="dev")
D1, D2, D3, D5 = (date(2010, 12, day) for day in (1, 2, 3, 5))


def _render(sql: str, days: list[date] | None = None) -> str:
    return " ".join(render(sql, table_id=SETTINGS.table_id, days=days).split())


def test_references_become_full_names_and_keep_their_alias() -> None:
    assert _render("SELECT products.a, c.b FROM mart.products JOIN core.c AS c ON c.a = products.a") == (
        "SELECT products.a, c.b FROM `shop-1`.`dev_mart`.`products` AS products "
        "JOIN `shop-1`.`dev_core`.`c` AS c ON c.a = products.a"
    )


def test_no_prefix_leaves_the_layer_as_dataset() -> None:
    settings = WarehouseSettings(project="shop-1")
    assert settings.table_id("mart.products") == "shop-1.mart.products"
    assert "`shop-1`.`mart`.`products`" in render("SELECT a FROM mart.products", table_id=settings.table_id)


@pytest.mark.parametrize(
    ("days", "predicate"),
    [
        ([D1], "d = CAST('2010-12-01' AS DATE)"),
        ([D2, D1, D3, D2], "d BETWEEN CAST('2010-12-01' AS DATE) AND CAST('2010-12-03' AS DATE)"),
        ([D5, D1], "d IN (CAST('2010-12-01' AS DATE), CAST('2010-12-05' AS DATE))"),
        ([], "FALSE"),
        (None, "TRUE"),
    ],
)
def test_days_become_literals_so_that_partitions_are_pruned(days: list[date] | None, predicate: str) -> None:
    assert _render("SELECT a FROM core.x WHERE d IN UNNEST(@days)", days).endswith(f"WHERE {predicate}")


def test_days_become_literals_in_subqueries_and_beside_other_conditions() -> None:
    sql = "SELECT a FROM (SELECT a FROM core.x AS x WHERE x.d IN UNNEST(@days) AND a > 1) WHERE NOT e IN UNNEST(@days)"
    rendered = _render(sql, [D1])
    assert "@days" not in rendered
    assert "WHERE x.d = CAST('2010-12-01' AS DATE) AND a > 1" in rendered
    assert "NOT e = CAST('2010-12-01' AS DATE)" in rendered


@pytest.mark.parametrize(
    ("sql", "days", "rendered"),
    [
        (
            "d IN UNNEST(ARRAY(SELECT DATE_SUB(e, INTERVAL 1 DAY) FROM UNNEST(@days) AS e))",
            [D2],
            "SELECT DATE_SUB(e, INTERVAL '1' DAY) FROM UNNEST(ARRAY<DATE>[CAST('2010-12-02' AS DATE)]) AS e",
        ),
        (
            "d IN UNNEST(ARRAY_CONCAT(@days, [DATE '2010-01-01']))",
            [D2, D1],
            "ARRAY_CONCAT(ARRAY<DATE>[CAST('2010-12-01' AS DATE), CAST('2010-12-02' AS DATE)], [CAST('2010-01-01'",
        ),
        ("EXISTS(SELECT 1 FROM UNNEST(@days) AS e WHERE e = d)", [], "FROM UNNEST(ARRAY<DATE>[]) AS e"),
        ("d IN UNNEST((@days))", [D1], "WHERE d = CAST('2010-12-01' AS DATE)"),
    ],
)
def test_days_that_are_computed_with_stay_an_array_of_them(sql: str, days: list[date], rendered: str) -> None:
    found = _render(f"SELECT a FROM core.x WHERE {sql}", days)
    assert rendered in found.replace("( ", "(").replace(" )", ")")
    assert "@days" not in found


def test_days_that_are_computed_with_cannot_be_all_days() -> None:
    sql = "SELECT a\nFROM core.x\nWHERE d IN UNNEST(ARRAY_CONCAT(@days, [e]))"
    with pytest.raises(ContractError, match=r"q\.sql:3: @days stands for all days") as caught:
        render(sql, table_id=SETTINGS.table_id, path="q.sql")
    assert caught.value.line == 3


def test_relation_is_of_the_days_only_where_its_condition_is_on_the_days_themselves() -> None:
    for sql, is_by_day in (("@days", True), ("ARRAY_CONCAT(@days, [DATE '2010-01-01'])", False)):
        [(_name, node)] = table_nodes(tree(f"SELECT a FROM core.x WHERE d IN UNNEST({sql})"))
        assert is_by_days(node) is is_by_day


def test_other_parameters_and_arrays_stay() -> None:
    assert "a IN UNNEST(@keys) AND b = @today" in _render(
        "SELECT a FROM core.x WHERE a IN UNNEST(@keys) AND b = @today"
    )


def test_rendering_does_not_change_the_shared_tree() -> None:
    sql = "SELECT a FROM core.x WHERE d IN UNNEST(@days)"
    render(sql, table_id=SETTINGS.table_id, days=[D1])
    assert references(tree(sql)) == ("core.x",)
    assert "2010-12-02" in render(sql, table_id=SETTINGS.table_id, days=[D2])


def test_day_predicates_of_our_own_statements() -> None:
    assert day_sql("d", [D1]) == "d = DATE '2010-12-01'"
    assert day_sql("d", [D2, D1]) == "d BETWEEN DATE '2010-12-01' AND DATE '2010-12-02'"
    assert day_sql("d", [D1, D5]) == "d IN (DATE '2010-12-01', DATE '2010-12-05')"
    assert day_sql("d", []) == "FALSE"


def test_quoted_text_cannot_end_its_literal() -> None:
    assert quote("it's \\ a\nline") == r"'it\'s \\ a\nline'"
