"""One page about the warehouse: tables, contracts, a picture of what reads what, lineage of each column, a search.

Belongs here: turning the catalog into one HTML file that needs no network. Does not: BigQuery, what measures mean:
whoever knows the report hands its measures in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from dbt_like_sql.lineage import column_ancestors, column_readers, column_sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt_like_sql.catalog import Catalog, Table

BOX_W, BOX_H, GAP_X, GAP_Y, MARGIN = 190, 34, 70, 14, 10
BOX_LETTERS = 26  # of 12 px that a box holds; the whole name is told under the mouse
COLOURS = {"control": "#6b7280", "core": "#1d4ed8", "mart": "#0f766e", "report": "#b45309"}


@dataclass(frozen=True)
class Measure:
    """A number of the report and the columns that it reads, as (table, column); "*" is the table's rows."""

    name: str
    expression: str
    description: str
    columns: tuple[tuple[str, str], ...]


def page(catalog: Catalog, measures: Sequence[Measure] = ()) -> str:
    """The page as HTML."""
    ordered = sorted(catalog, key=lambda table: table.layer == "control")  # the ledgers come last
    tables = [_table(catalog, table, measures) for table in ordered]
    found = "".join(_section(each) for each in tables)
    listed = "".join(
        f'<li data-search="{escape(each["search"], quote=True)}"><a href="#{each["name"]}">{each["name"]}</a> '
        f"<small>{escape(each['materialization'])}</small></li>"
        for each in tables
    )
    shown = "".join(_measure(each) for each in measures)
    heading = f"<h2 id='measures'>Measures of the report</h2>{shown}" if measures else ""
    return _PAGE.format(
        graph=graph_svg(catalog, measures), index=listed, tables=found, measures=heading, style=_STYLE, script=_SCRIPT
    )


def graph_svg(catalog: Catalog, measures: Sequence[Measure] = ()) -> str:
    """What reads what, from left to right; the report stands at the end if its measures are known."""
    reads = {table.name: list(table.depends_on) for table in catalog if table.layer != "control" or table.depends_on}
    for parents in list(reads.values()):
        reads |= {parent: [] for parent in parents if parent not in reads}
    if measures:
        reads["report"] = sorted({table for each in measures for table, _ in each.columns if table in reads})
    places = _places(reads)
    width = max(x for x, _ in places.values()) + BOX_W + MARGIN
    height = max(y for _, y in places.values()) + BOX_H + MARGIN
    edges = "".join(_edge(places[parent], places[name]) for name, parents in reads.items() for parent in parents)
    boxes = "".join(_box(name, place, len(measures)) for name, place in places.items())
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{edges}{boxes}</svg>'


def _places(reads: dict[str, list[str]]) -> dict[str, tuple[int, int]]:
    depth: dict[str, int] = {}

    def deep(name: str) -> int:
        if name not in depth:
            depth[name] = max((deep(parent) + 1 for parent in reads[name]), default=0)
        return depth[name]

    rows: dict[int, int] = {}
    places = {}
    for name in sorted(reads, key=lambda each: (deep(each), each)):
        row = rows.get(depth[name], 0)
        rows[depth[name]] = row + 1
        places[name] = (MARGIN + depth[name] * (BOX_W + GAP_X), MARGIN + row * (BOX_H + GAP_Y))
    return places


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1, x2, y2 = start[0] + BOX_W, start[1] + BOX_H // 2, end[0], end[1] + BOX_H // 2
    middle = (x1 + x2) // 2
    return f'<path d="M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}" fill="none" stroke="#9ca3af"/>'


def _box(name: str, place: tuple[int, int], measures: int) -> str:
    x, y = place
    layer = name.partition(".")[0]
    text = f"report: {measures} measures" if name == "report" else name
    target = "measures" if name == "report" else name
    shown = text if len(text) <= BOX_LETTERS else f"{text[: BOX_LETTERS - 1]}…"
    return (
        f'<a href="#{target}"><title>{escape(text)}</title>'
        f'<rect x="{x}" y="{y}" width="{BOX_W}" height="{BOX_H}" rx="5" '
        f'fill="{COLOURS.get(layer, "#374151")}"/><text x="{x + BOX_W // 2}" y="{y + BOX_H // 2 + 4}" fill="#fff" '
        f'font-size="12" text-anchor="middle">{escape(shown)}</text></a>'
    )


def _table(catalog: Catalog, table: Table, measures: Sequence[Measure]) -> dict[str, Any]:
    columns = []
    for column in table.columns:
        own = (table.name, column.name)
        readers = column_readers(catalog, *own)
        below = {own, *readers}
        columns.append(
            {
                "column": column,
                "made_of": column_sources(catalog, *own),
                "origin": [each for each in column_ancestors(catalog, *own) if not catalog[each[0]].query],
                "goes_into": readers,
                "measures": [each.name for each in measures if below & set(each.columns)],
            }
        )
    words = [table.name, table.purpose, table.grain, *(f"{c.name} {c.description}" for c in table.columns)]
    return {
        "name": table.name,
        "table": table,
        "materialization": table.materialization,
        "columns": columns,
        "readers": [each.name for each in catalog if table.name in each.depends_on],
        "measures": sorted({each.name for each in measures if any(name == table.name for name, _ in each.columns)}),
        "search": " ".join(words).lower(),
    }


def _section(found: dict[str, Any]) -> str:
    table: Table = found["table"]
    facts = {
        "Grain": escape(table.grain),
        "Known limits": escape(table.known_limits),
        "Owner": escape(table.owner),
        "Contract": escape(table.version),
        "Built": f"{table.materialization}, by day of {table.partition_column}"
        if table.partition_column
        else table.materialization,
        "Clustered by": ", ".join(table.clustering) or "nothing",
        "Reads": _links(table.depends_on) or "nothing",
        "Read by": _links(found["readers"]) or "nothing",
    }
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    rows = "".join(_column(table, each) for each in found["columns"])
    checks = "".join(f"<li><b>{check.severity}</b> {escape(check.name)}</li>" for check in table.checks)
    query = f"<details><summary>Query</summary><pre>{escape(table.query)}</pre></details>" if table.query else ""
    return (
        f'<section id="{table.name}" data-search="{escape(found["search"], quote=True)}"><h2>{table.name}</h2>'
        f"<p>{escape(table.purpose)}</p><dl>{listed}</dl><table><tr><th>Column</th><th>Type</th><th>Description</th>"
        f"<th>Made of</th><th>Goes into</th></tr>{rows}</table><h3>Checks</h3><ul>{checks or '<li>none</li>'}</ul>"
        f"{query}</section>"
    )


def _column(table: Table, found: dict[str, Any]) -> str:
    column = found["column"]
    marks = "".join(
        f" <abbr>{mark}</abbr>" for mark, is_so in (("key", column.is_key), ("required", column.is_required)) if is_so
    )
    unit = f" ({escape(column.unit)})" if column.unit else ""
    origin = f"<br><small>in the end: {_columns(found['origin'])}</small>" if found["origin"] else ""
    measures = f"<br><small>measures: {', '.join(map(escape, found['measures']))}</small>" if found["measures"] else ""
    return (
        f'<tr id="{table.name}.{column.name}"><td><code>{column.name}</code>{marks}</td><td>{escape(column.type)}</td>'
        f"<td>{escape(column.description)}{unit}</td><td>{_columns(found['made_of'])}{origin}</td>"
        f"<td>{_columns(found['goes_into'])}{measures}</td></tr>"
    )


def _measure(measure: Measure) -> str:
    search = escape(f"{measure.name} {measure.description}".lower(), quote=True)
    return (
        f'<section class="measure" data-search="{search}"><h3>{escape(measure.name)}</h3>'
        f"<p>{escape(measure.description)}</p><pre>{escape(measure.expression)}</pre>"
        f"<p>Made of {_columns(measure.columns)}</p></section>"
    )


def _columns(columns: Sequence[tuple[str, str]]) -> str:
    return ", ".join(
        f'<a href="#{table if name == "*" else f"{table}.{name}"}">{table}.{name}</a>' for table, name in columns
    )


def _links(names: Sequence[str]) -> str:
    return ", ".join(f'<a href="#{name}">{name}</a>' for name in names)


def read_measures(text: str) -> list[Measure]:
    """Measures as JSON, as the report's room writes them: a list of name, expression, description, columns."""
    return [
        Measure(each["name"], each["expression"], each["description"], tuple((t, c) for t, c in each["columns"]))
        for each in json.loads(text)
    ]


_STYLE = """
body{font:14px/1.5 system-ui,sans-serif;margin:0;color:#111827;display:grid;grid-template-columns:260px 1fr}
nav{position:sticky;top:0;height:100vh;overflow:auto;padding:16px;background:#f3f4f6;box-sizing:border-box}
nav ul{list-style:none;padding:0}nav small{color:#6b7280}main{padding:16px 32px;min-width:0}
input{width:100%;padding:6px;box-sizing:border-box}.graph{overflow:auto;border:1px solid #e5e7eb;padding:8px}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #e5e7eb;text-align:left;padding:4px 8px;
vertical-align:top}dl{display:grid;grid-template-columns:120px 1fr}
a,code,h2,td:nth-child(3){overflow-wrap:anywhere}dt{color:#6b7280}dd{margin:0}
abbr{background:#e5e7eb;border-radius:3px;padding:0 4px;font-size:11px}pre{background:#f9fafb;padding:8px;overflow:auto}
section{border-top:2px solid #e5e7eb;margin-top:24px}a{color:#1d4ed8}tr:target{background:#fef3c7}.hidden{display:none}
@media(max-width:800px){body{display:block}nav{position:static;height:auto;max-height:40vh}main{padding:8px 16px}}
"""
_SCRIPT = """
const box=document.querySelector('input'),count=document.querySelector('#count');
function find(){const words=box.value.toLowerCase().split(/\\s+/).filter(Boolean);let n=0;
document.querySelectorAll('[data-search]').forEach(e=>{const hit=words.every(w=>e.dataset.search.includes(w));
e.classList.toggle('hidden',!hit);if(hit&&e.tagName==='SECTION')n++});count.textContent=words.length?n+' found':''}
box.addEventListener('input',find);
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The warehouse</title><style>{style}</style></head><body>
<nav><h1>The warehouse</h1><input type="search" placeholder="search tables, columns, measures" aria-label="search">
<p id="count"></p><ul>{index}</ul></nav>
<main><h2>What reads what</h2><div class="graph">{graph}</div>{tables}{measures}</main>
<script>{script}</script></body></html>
"""
