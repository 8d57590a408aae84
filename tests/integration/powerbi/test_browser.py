"""The report in a real browser: pages draw without a complaint and without the network; slicers and clicks narrow them.

Numbers on cards are compared with SQL on the copy's tables. Chromium is found by PATH; without it this skips.
"""

from __future__ import annotations

import shutil
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from powerbi.formats import format_short, format_value
from powerbi.refresh import refresh_model
from powerbi.render.files import render_report
from tests.integration.powerbi.running import Running, running
from tests.unit.powerbi import shop

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

PAGES = [page.name for page in shop.report().pages]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MONEY = "£#,##0.00"
NET = "SUM(gross_sales_gbp) - SUM(returns_gbp)"


class Watched:
    """A browser's page that remembers what went wrong and which other hosts were asked."""

    def __init__(self, page: Any, base: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda one: self.complaints.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda one: self.complaints.append(str(one)))
        page.on("requestfailed", lambda one: self.complaints.append(f"failed: {one.url}"))
        page.on("request", lambda one: None if one.url.startswith((base, "data:")) else self.complaints.append(one.url))

    def open(self, address: str) -> None:
        self.page.goto(address, wait_until="load")

    def card(self, name: str) -> str:
        """The large text of a card."""
        return str(self.page.locator(f"#{name} svg text").nth(1).text_content())

    def settled(self) -> None:
        """Wait until what a click led to is there."""
        self.page.wait_for_load_state("load")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no chromium on PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def tab(browser: Any, filled: Running) -> Iterator[Watched]:
    """A tab of its own for each test; nothing in it may have complained."""
    context = browser.new_context(viewport={"width": 1300, "height": 800}, locale="en-GB")
    watched = Watched(context.new_page(), filled.url)
    yield watched
    context.close()
    assert watched.complaints == []


def sql(filled: Running, what: str, where: str = "TRUE") -> Any:
    reader = filled.service.copy.reader()
    row = reader.execute(f'SELECT {what} FROM model."Sales" WHERE {where}').fetchone()
    reader.close()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("name", PAGES)
def test_page_draws_every_visual_and_says_as_of_when(tab: Watched, filled: Running, name: str) -> None:
    tab.open(f"{filled.url}/report/{name}")
    found = shop.report().page(name)
    assert found is not None
    for visual in found.visuals:
        place = tab.page.locator(f"#{visual.name}")
        box = place.bounding_box()
        assert box is not None, visual.name
        assert box["width"] == pytest.approx(visual.width * zoom(tab), abs=2), visual.name
        assert place.locator("svg, table, form").count() >= 1, visual.name
        assert place.inner_text().strip(), visual.name
    text = tab.page.locator("body").inner_text()
    assert not [word for word in ("NaN", "undefined", "Infinity", "not drawn", "does not exist") if word in text]
    assert "Data as of 2025-02-21 06:29:59 UTC · refreshed 20" in text


def zoom(tab: Watched) -> float:
    return float(tab.page.evaluate("parseFloat(document.querySelector('main').style.zoom || 1)"))


@pytest.mark.parametrize("name", PAGES)
def test_charts_do_not_leave_their_visuals(tab: Watched, filled: Running, name: str) -> None:
    tab.open(f"{filled.url}/report/{name}")
    outside = tab.page.evaluate(
        """() => [...document.querySelectorAll('.visual:not(.html)')].flatMap(v => {
          const a = v.getBoundingClientRect();
          return [...v.querySelectorAll('text, path, rect')].filter(e => {
            const b = e.getBoundingClientRect();
            const isOver = b.left < a.left - 2 || b.right > a.right + 2 || b.top < a.top - 2 || b.bottom > a.bottom + 2;
            return b.width && isOver;
          }).map(e => v.id + ': ' + e.outerHTML.slice(0, 90));
        })"""
    )
    assert outside == []


def test_country_slicer_changes_the_numbers_to_what_sql_says(tab: Watched, filled: Running) -> None:
    tab.open(f"{filled.url}/report/overview")
    everything = format_short(sql(filled, NET), MONEY)
    assert tab.card("card_net_sales") == everything
    tab.page.locator("#slicer_country summary").click()
    tab.page.get_by_role("checkbox", name="France").check()
    tab.page.get_by_role("checkbox", name="Germany").check()
    with tab.page.expect_navigation():
        tab.page.locator("header").click()
    where = "country IN ('France', 'Germany')"
    assert tab.card("card_net_sales") == format_short(sql(filled, NET, where), MONEY) != everything
    orders = sql(filled, "COUNT(DISTINCT invoice_no)", f"{where} AND invoice_kind = 'sale'")
    assert tab.card("card_orders") == format_short(orders, "#,##0")
    assert tab.page.locator("#sales_by_country svg").first.text_content().count("K") >= 1
    assert "United Kingdom" not in tab.page.locator("#sales_by_country").inner_text()


def test_date_range_changes_the_numbers_to_what_sql_says(tab: Watched, filled: Running) -> None:
    tab.open(f"{filled.url}/report/overview")
    dates = tab.page.locator("#slicer_date input")
    with tab.page.expect_navigation():
        dates.nth(0).fill("2024-02-01")
        dates.nth(0).dispatch_event("change")
    with tab.page.expect_navigation():
        tab.page.locator("#slicer_date input").nth(1).fill("2024-02-29")
        tab.page.locator("#slicer_date input").nth(1).dispatch_event("change")
    where = "invoice_date BETWEEN DATE '2024-02-01' AND DATE '2024-02-29'"
    assert tab.card("card_net_sales") == format_short(sql(filled, NET, where), MONEY)
    customers = sql(filled, "COUNT(DISTINCT customer_id)", f"{where} AND customer_id <> 'guest'")
    assert tab.card("card_customers") == format_short(customers, "#,##0")
    total = tab.page.locator("#sales_by_month tfoot td").nth(1).inner_text()
    assert total == format_value(sql(filled, NET, where), MONEY)


def test_clicking_a_bar_narrows_the_page_and_clicking_again_takes_it_back(tab: Watched, filled: Running) -> None:
    tab.open(f"{filled.url}/report/overview?Date.date.from=2024-01-01")
    before = tab.card("card_net_sales")
    bar = tab.page.locator("#sales_by_country a[*|href*='country=France'] path").first
    with tab.page.expect_navigation():
        bar.click()
    where = "country = 'France' AND invoice_date >= DATE '2024-01-01'"
    assert tab.card("card_net_sales") == format_short(sql(filled, NET, where), MONEY) != before
    assert "country: France" in tab.page.locator(".state").inner_text()
    with tab.page.expect_navigation():
        tab.page.locator("#sales_by_country a path").first.click()
    assert tab.card("card_net_sales") == before


def test_selection_goes_along_to_the_other_pages_that_have_its_slicer(tab: Watched, filled: Running) -> None:
    tab.open(f"{filled.url}/report/overview?Country.country=France")
    with tab.page.expect_navigation():
        tab.page.get_by_role("link", name="Products").click()
    gross = sql(filled, "SUM(gross_sales_gbp)", "country = 'France'")
    assert tab.card("card_gross_sales") == format_short(gross, MONEY)
    with tab.page.expect_navigation():
        tab.page.get_by_role("link", name="Data trust").click()
    assert tab.card("card_amount") == format_value(sql(filled, "SUM(amount_gbp)"), MONEY)
    assert tab.card("card_difference") == "£0.00"


def test_a_reader_in_a_role_stays_in_it_whatever_is_clicked(tab: Watched, filled: Running) -> None:
    tab.open(f"{filled.url}/report/overview?role=United%20Kingdom")
    own = format_short(sql(filled, NET, "country = 'United Kingdom'"), MONEY)
    assert tab.card("card_net_sales") == own
    with tab.page.expect_navigation():
        tab.page.locator("#sales_by_country a path").first.click()
    with tab.page.expect_navigation():
        tab.page.get_by_text("Clear all filters").click()
    assert tab.card("card_net_sales") == own
    with tab.page.expect_navigation():
        tab.page.get_by_role("link", name="Data trust").click()
    assert tab.card("card_difference") == "(Blank)", "the amounts of all countries are not for this reader"


def test_hovering_a_bar_tells_its_exact_number(tab: Watched, filled: Running) -> None:
    tab.open(f"{filled.url}/report/overview")
    tab.page.locator("#sales_by_country a[*|href*='country=France'] path").first.hover()
    exact = format_value(sql(filled, NET, "country = 'France'"), MONEY)
    assert exact in tab.page.locator(".tip").inner_text()


def test_open_page_shows_a_refresh_by_itself(browser: Any, tmp_path: Path, mart_tables: dict[str, Any]) -> None:
    with running(tmp_path / "standin", mart_tables) as found:
        refresh_model(found.settings(), client=found.client())
        page = browser.new_page()
        page.goto(f"{found.url}/report/overview")
        card = page.locator("#card_net_sales svg text").nth(1)
        before = card.text_content()
        found.marts.tables["invoice_lines"] = found.marts.tables["invoice_lines"].slice(0, 50)
        page.wait_for_timeout(4500)  # it has asked once what it shows
        refresh_model(found.settings(), client=found.client())
        expected = format_short(sql(found, NET), MONEY)
        page.wait_for_function(
            "wanted => document.querySelectorAll('#card_net_sales svg text')[1]?.textContent === wanted",
            arg=expected,
            timeout=15_000,
        )
        assert expected != before
        page.close()


def test_rendered_report_is_one_file_that_needs_nothing(browser: Any, tmp_path: Path, filled: Running) -> None:
    filled.service.copy.reader().execute("CHECKPOINT")
    data = shutil.copy(next(filled.service.settings.data_dir.rglob("imported.duckdb")), tmp_path / "imported.duckdb")
    files = list(render_report(shop.ROOM, Path(data), tmp_path / "out", formats=("html", "png")))
    assert {path.name for path in files} == {"report.html", *(f"{name}.png" for name in PAGES)}
    context = browser.new_context(viewport={"width": 1300, "height": 800}, offline=True)
    watched = Watched(context.new_page(), "file:")
    watched.open(files[0].as_uri())
    for name, title in ((page.name, page.title) for page in shop.report().pages):
        watched.page.get_by_role("link", name=title).click()
        shown = watched.page.locator("main:visible")
        assert shown.count() == 1
        assert shown.get_attribute("data-page") == name
    watched.page.goto(files[0].as_uri())
    assert watched.card("overview-card_net_sales") == format_short(sql(filled, NET), MONEY)
    assert "Data as of 2025-02-21 06:29:59 UTC" in watched.page.locator(".state").inner_text()
    assert watched.page.locator("form, main a").count() == 0
    assert watched.complaints == []
    context.close()


def test_money_on_cards_is_exact_to_the_penny_when_asked(
    tab: Watched, filled: Running, lines: list[dict[str, Any]]
) -> None:
    tab.open(f"{filled.url}/report/data_trust")
    assert tab.card("card_amount") == format_value(sum((row["amount_gbp"] for row in lines), Decimal(0)), MONEY)
