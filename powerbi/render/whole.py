"""The whole report as one HTML file that needs no server and no network: every page, shown one at a time.

Here: the document around the pages. Not here: a page's visuals (page.py). Slicers show what they are set to and cannot
be changed: whoever wants to choose asks a server.
"""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

from powerbi.render.page import visuals_html
from powerbi.render.style import SCRIPT, style_sheet

if TYPE_CHECKING:
    from powerbi.pbir import Page
    from powerbi.render.page import Reader

_TABS = """
const show=()=>{const all=[...document.querySelectorAll('main')],want=location.hash.slice(1);
const here=all.find(m=>m.dataset.page===want)||all[0];for(const m of all)m.hidden=m!==here;
for(const a of document.querySelectorAll('nav a'))a.classList.toggle('here',a.hash==='#'+here.dataset.page);
document.title=here.dataset.title;fit();};addEventListener('hashchange',show);show();
"""


def report_html(reader: Reader) -> str:
    """Every page of the report in one document."""
    still = replace(reader, is_live=False)
    pages = "".join(_section(page, still) for page in reader.report.pages)
    tabs = "".join(f'<a href="#{escape(page.name)}">{escape(page.title)}</a>' for page in reader.report.pages)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,"><title>Report</title>
<style>{style_sheet(reader.theme)}main[hidden]{{display:none}}</style></head>
<body><header><nav>{tabs}</nav><div class=state><span>{escape(reader.as_of)}</span></div></header>
{pages}
<script>{SCRIPT}{_TABS}</script></body></html>"""


def _section(page: Page, reader: Reader) -> str:
    size = f"width:{page.width:g}px;height:{page.height:g}px"
    visuals = visuals_html(page, reader, prefix=f"{page.name}-")
    return f'<main data-page="{escape(page.name)}" data-title="{escape(page.title)}" style="{size}">{visuals}</main>'
