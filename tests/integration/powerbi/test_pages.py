"""The report's pages: every visual drawn from its file; slicers and clicks narrow it; what cannot be drawn says so."""

from __future__ import annotations

import html
import re
import shutil
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests

from powerbi.evaluate import Scope, answer
from powerbi.formats import format_short, format_value
from powerbi.pbir import Field
from powerbi.render.files import render_report
from powerbi.render.picture import Drawing, picture
from powerbi.render.theme import theme_of
from tests.integration.powerbi.running import Running
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

PAGES = ("overview", "products", "customers_returns", "data_trust")


def page(standin: Running, path: str) -> str:
    response = requests.get(f"{standin.url}/report/{path}", timeout=30)
    assert response.status_code == 200, response.text
    return response.text


def net(lines: list[dict[str, Any]]) -> str:
    return format_short(sum((row["net_sales_gbp"] for row in lines), Decimal(0)), "£#,##0.00")


def card(text: str, name: str) -> str:
    found = re.search(rf'id="{name}".*?</svg>', text, re.DOTALL)
    assert found is not None
    return html.unescape(found.group())


@pytest.mark.parametrize("name", PAGES)
def test_every_visual_of_the_page_is_drawn_at_its_place(filled: Running, name: str) -> None:
    text = page(filled, name)
    found = shop.report().page(name)
    assert found is not None
    for visual in found.visuals:
        assert f'id="{visual.name}" style="left:{visual.x:g}px;top:{visual.y:g}px;width:{visual.width:g}px' in text
    assert "does not exist" not in text
    assert "outside the subset" not in text
    assert "is not drawn here" not in text


def test_card_shows_the_measure_in_its_format(filled: Running, lines: list[dict[str, Any]]) -> None:
    assert f">{net(lines)}<" in card(page(filled, "overview"), "card_net_sales")


def test_country_slicer_narrows_every_visual(filled: Running, lines: list[dict[str, Any]]) -> None:
    text = page(filled, "overview?Country.country=France")
    assert f">{net([row for row in lines if row['country'] == 'France'])}<" in card(text, "card_net_sales")
    assert 'value="France" checked' in text


def test_several_countries_and_a_date_range_are_taken_together(filled: Running, lines: list[dict[str, Any]]) -> None:
    query = "Country.country=France&Country.country=C%C3%B4te%20d%27Ivoire"
    query += "&Date.date.from=2024-02-01&Date.date.to=2024-05-31"
    chosen = [
        row
        for row in lines
        if row["country"] in ("France", "Côte d'Ivoire") and "2024-02-01" <= str(row["invoice_date"]) <= "2024-05-31"
    ]
    assert f">{net(chosen)}<" in card(page(filled, f"overview?{query}"), "card_net_sales")


def test_clicking_a_bar_selects_its_country_and_clicking_again_takes_it_back(filled: Running) -> None:
    text = html.unescape(page(filled, "overview"))
    assert 'href="/report/overview?Country.country=France"' in text
    chosen = html.unescape(page(filled, "overview?Country.country=France"))
    bars = re.search(r'id="sales_by_country".*?</svg>', chosen, re.DOTALL)
    assert bars is not None
    assert 'href="/report/overview"' in bars.group()


def test_address_with_names_of_another_report_still_opens(filled: Running, lines: list[dict[str, Any]]) -> None:
    assert f">{net(lines)}<" in card(page(filled, "overview?Region.name=North&x=1"), "card_net_sales")


@pytest.mark.parametrize("value", ['\'; DROP TABLE model."Sales"; --', "<script>alert(1)</script>"])
def test_hostile_selection_is_only_a_value(filled: Running, value: str) -> None:
    text = requests.get(f"{filled.url}/report/overview", params={"Country.country": value}, timeout=30).text
    assert "<script>alert(1)" not in text
    assert requests.get(filled.url + "/status", timeout=10).json()["rows"] > 0


def test_selection_that_is_no_date_is_refused_and_not_run(filled: Running) -> None:
    response = requests.get(f"{filled.url}/report/overview", params={"Date.date.from": "yesterday"}, timeout=30)
    assert response.status_code == 400


def test_table_shows_its_totals_and_exact_money(filled: Running, lines: list[dict[str, Any]]) -> None:
    text = page(filled, "data_trust")
    total = format_value(sum((row["amount_gbp"] for row in lines), Decimal(0)), "£#,##0.00")
    assert f"<td class=n>{total}</td>" in text


def test_page_needs_no_network(filled: Running) -> None:
    for name in PAGES:
        assert not re.search(r'(?:src|href)="https?://(?!www\.w3\.org)', page(filled, name))


def test_page_is_a_png_and_an_svg_too(filled: Running) -> None:
    png = requests.get(f"{filled.url}/report/overview.png", timeout=60).content
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    svg = requests.get(f"{filled.url}/report/overview.svg", timeout=60).text
    assert svg.startswith("<svg")
    assert "Data as of 2025-02-21 06:29:59 UTC" in svg


def test_unknown_page_is_not_found(filled: Running) -> None:
    assert requests.get(f"{filled.url}/report/nothing", timeout=10).status_code == 404


def test_role_lets_through_only_its_rows(filled: Running, lines: list[dict[str, Any]]) -> None:
    text = page(filled, "overview?role=United%20Kingdom")
    assert f">{net([row for row in lines if row['country'] == 'United Kingdom'])}<" in card(text, "card_net_sales")
    both = page(filled, "overview?role=United%20Kingdom&role=Outside%20United%20Kingdom")
    assert f">{net(lines)}<" in card(both, "card_net_sales")


def test_no_filter_can_clear_what_a_role_hides(filled: Running, lines: list[dict[str, Any]]) -> None:
    rows = filled.service.query(
        'EVALUATE ROW("all", CALCULATE([Net Sales], ALL(Country), ALL(Sales)))', roles=["United Kingdom"]
    )
    assert rows[0]["[all]"] == sum(row["net_sales_gbp"] for row in lines if row["country"] == "United Kingdom")


def test_matrix_puts_members_side_by_side_with_totals(filled: Running, lines: list[dict[str, Any]]) -> None:
    visual = next(v for p in shop.report().pages for v in p.visuals if v.name == "sales_by_month")
    country, month = (
        Field("Column", table, name, name, f"{table}.{name}")
        for table, name in (("Country", "country"), ("Date", "quarter"))
    )
    net = Field("Measure", "Sales", "Net Sales", "Net Sales", "Sales.Net Sales")
    roles = {"Columns": (month,), "Rows": (country,), "Values": (net,)}
    matrix = replace(visual, type="pivotTable", roles=roles, filters=(), sort=((net, True),))
    reader = filled.service.copy.reader()
    found = answer(matrix, filled.service.model, reader, Scope())
    reader.close()
    quarters = sorted({f"{row['invoice_date'].year} Q{(row['invoice_date'].month + 2) // 3}" for row in lines})
    assert [one.field.label for one in found.headings] == ["country", *quarters, "Total"]

    def worth(country: str = "", quarter: str = "") -> Decimal | None:
        chosen = [
            row["net_sales_gbp"]
            for row in lines
            if country in ("", row["country"])
            and quarter in ("", f"{row['invoice_date'].year} Q{(row['invoice_date'].month + 2) // 3}")
        ]
        return sum(chosen, Decimal(0)) if chosen else None

    for name, *values in found.rows:
        assert values == [worth(str(name), quarter) for quarter in [*quarters, ""]]
    assert list(found.totals) == [worth("", quarter) for quarter in [*quarters, ""]]
    order = [row[-1] for row in found.rows]
    assert order == sorted(order, reverse=True)
    drawn = picture(matrix, found, Drawing(theme_of({})))
    assert drawn.html is not None
    assert all(f"<th class=n>{quarter}</th>" in drawn.html for quarter in quarters)


def test_visual_that_cannot_be_drawn_says_so_on_its_place(tmp_path: Path, filled: Running) -> None:
    for suffix in ("SemanticModel", "Report"):
        shutil.copytree(shop.ROOM / f"Retail.{suffix}", tmp_path / f"Retail.{suffix}")
    visual = tmp_path / "Retail.Report/definition/pages/overview/visuals/sales_by_country/visual.json"
    visual.write_text(visual.read_text(encoding="utf-8").replace("clusteredBarChart", "treemap"), encoding="utf-8")
    card_file = tmp_path / "Retail.Report/definition/pages/overview/visuals/card_orders/visual.json"
    card_file.write_text(card_file.read_text(encoding="utf-8").replace('"Orders"', '"Order"'), encoding="utf-8")
    filled.service.copy.reader().execute("CHECKPOINT")
    data = tmp_path / "imported.duckdb"
    shutil.copy(filled.service.settings.data_dir / "imported.duckdb", data)
    written = {path.name: path for path in render_report(tmp_path, data, tmp_path / "out", formats=("html", "png"))}
    text = written["report.html"].read_text(encoding="utf-8")
    words = html.unescape(re.sub(r"<[^>]+>", " ", text))
    words = re.sub(r"\s+", " ", words)
    assert "type treemap is not drawn here" in words
    assert "measure [Order] does not exist" in words
    assert f">{'Net sales'}<" in text
    assert written["overview.png"].stat().st_size > 10_000
