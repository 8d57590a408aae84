"""The page about the warehouse, and the lineage that it shows."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dbt_like_sql.__main__ import main
from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.docs import Measure, graph_svg, page
from dbt_like_sql.lineage import column_ancestors, column_readers, column_sources
from tests.unit.dbt_like_sql.models import column, write_table

CATALOG = load_catalog()
MEASURE = Measure("Net <Sales>", "SUM ( Sales[net_sales_gbp] )", "Net.", (("mart.invoice_lines", "net_sales_gbp"),))


class Anchors(HTMLParser):
    """Collects ids, links, and whatever would be fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            elif name == "href" and (value or "").startswith("#"):
                self.links.add((value or "")[1:])
            elif name in {"src", "href"}:
                self.fetched.append(f"{tag} {value}")


def test_column_is_made_of_exactly_the_columns_of_its_query() -> None:
    assert column_sources(CATALOG, "mart.invoice_lines", "returns_gbp") == (
        ("core.invoice_lines", "amount_gbp"),
        ("core.invoice_lines", "invoice_kind"),
        ("core.invoice_lines", "line_kind"),
    )
    assert column_sources(CATALOG, "core.invoice_lines", "amount_gbp") == ()
    assert ("core.invoice_lines", "country") in column_ancestors(CATALOG, "mart.countries", "country")
    assert ("mart.daily_sales_by_country", "net_sales_gbp") in column_readers(
        CATALOG, "core.invoice_lines", "amount_gbp"
    )


@pytest.mark.parametrize(
    ("query", "n"),
    [
        ("(SELECT s.a, s.a AS n FROM core.s AS s)", "a"),
        ("(SELECT a, a AS n FROM core.s) ORDER BY a LIMIT 1", "a"),
        ("((SELECT a, a AS n FROM core.s) UNION ALL (SELECT a, a FROM core.s))", "a"),
        ("SELECT a, EXISTS(SELECT 1 FROM s.tags AS tag WHERE tag = 'x') AS n FROM core.s AS s", "tags"),
        ("SELECT a, EXISTS(SELECT 1 FROM S.tags WHERE tags = 'x') AS n FROM core.s", "tags"),
        ("SELECT a, (SELECT COUNT(*) FROM UNNEST(s.tags)) AS n FROM core.s", "tags"),
        ("SELECT s.a, t AS n FROM core.s AS s CROSS JOIN s.tags AS t", "tags"),
    ],
)
def test_brackets_and_arrays_hide_no_column_from_the_lineage(tmp_path: Path, query: str, n: str) -> None:
    array = column("a", "STRING") + column("tags", "ARRAY<STRING>")
    write_table(tmp_path, "core.s", materialization="loaded", columns=array)
    write_table(tmp_path, "mart.m", query=query, columns=column("a", "STRING") + column("n", "STRING"))
    catalog = load_catalog(tmp_path)
    assert catalog["mart.m"].depends_on == ("core.s",)
    assert column_sources(catalog, "mart.m", "n") == (("core.s", n),)
    assert column_sources(catalog, "mart.m", "a") == (("core.s", "a"),)


def test_every_column_of_a_model_has_lineage_or_is_made_of_nothing_on_purpose() -> None:
    counted = {("mart.daily_sales_by_country", "lines"), ("mart.daily_sales_by_product", "lines")}
    without = {
        (table.name, column)
        for table in map(CATALOG.__getitem__, CATALOG.downstream("core.invoice_lines"))
        for column in table.column_names
        if not column_sources(CATALOG, table.name, column)
    }
    assert without == counted


def test_page_names_every_table_column_check_and_measure_and_no_link_leads_nowhere() -> None:
    html = page(CATALOG, [MEASURE])
    found = Anchors()
    found.feed(html)
    assert found.links <= found.ids
    assert found.fetched == [], "the page must work without a network"
    for table in CATALOG:
        assert table.name in found.ids
        assert {f"{table.name}.{column}" for column in table.column_names} <= found.ids
    assert "Net &lt;Sales&gt;" in html
    assert "<Sales>" not in html
    amount = re.search(r'<tr id="core.invoice_lines.amount_gbp">.*?</tr>', html)
    assert amount is not None
    assert "measures: Net &lt;Sales&gt;" in amount[0]


def test_picture_draws_an_arrow_for_each_table_that_is_read() -> None:
    reads = sum(len(table.depends_on) for table in CATALOG)
    assert graph_svg(CATALOG).count("<path") == reads
    assert graph_svg(CATALOG, [MEASURE]).count("<path") == reads + 1


def test_a_name_that_is_longer_than_its_box_is_cut_in_the_picture_and_told_whole_under_the_mouse(
    tmp_path: Path,
) -> None:
    name = "mart.a_table_with_a_name_longer_than_its_box"
    write_table(tmp_path, name, query="SELECT 'x' AS a")
    svg = graph_svg(load_catalog(tmp_path))
    assert re.findall(r">([^<>]+)</text>", svg) == ["mart.a_table_with_a_name_…"]
    assert f"<title>{name}</title>" in svg


def test_command_writes_the_page_with_the_reports_measures(tmp_path: Path) -> None:
    measures: list[dict[str, Any]] = [{**MEASURE.__dict__}]
    (tmp_path / "measures.json").write_text(json.dumps(measures), encoding="utf-8")
    target = tmp_path / "new" / "docs.html"
    ran = CliRunner().invoke(main, ["docs", str(target), "--measures", str(tmp_path / "measures.json")])
    assert (ran.exit_code, "1 measures" in ran.output) == (0, True)
    assert "Net &lt;Sales&gt;" in target.read_text(encoding="utf-8")
