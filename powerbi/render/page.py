"""A page of the report -> one SVG (and so PNG), or an HTML page with slicers that work.

Here: evaluating each visual, placing its picture, the slicers' forms, tabs and filter chips. Not here: how a visual is
drawn (picture.py), HTTP (standin/). The HTML needs no network: no script, font or style is fetched.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from powerbi.dax.context import ColumnKey
from powerbi.dax.query import Selection
from powerbi.errors import DaxError
from powerbi.evaluate import Answer, Connection, Heading, Scope, answer, answer_cards
from powerbi.render import picture as pictures
from powerbi.render.picture import Drawing, Picture
from powerbi.render.style import LIVE_SCRIPT, SCRIPT, style_sheet
from powerbi.render.theme import Theme, theme_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from powerbi.model import Model
    from powerbi.pbir import Page, Report, Visual

_BLANK = "(Blank)"
Parameters = list[tuple[str, str]]


@dataclass(frozen=True)
class Reader:
    """What a page is drawn from."""

    model: Model
    report: Report
    connection: Connection
    scope: Scope = field(default_factory=Scope)
    as_of: str = ""
    base: str = "/report"
    kept: tuple[tuple[str, str], ...] = ()  # of an address, beside the filters: the roles
    is_live: bool = True  # a server answers: slicers and clicks lead somewhere

    @property
    def theme(self) -> Theme:
        """The report's theme."""
        return theme_of(self.report.theme)


def selections_of(parameters: Parameters, model: Model) -> tuple[Selection, ...]:
    """Slicers and cross-filters from an address: `Table.column=value`, `Table.column.from=`, `Table.column.to=`.

    Names that are no column of the model are left out: an address from an older report still opens.
    """
    values: dict[ColumnKey, list[object]] = {}
    edges: dict[ColumnKey, dict[str, str]] = {}
    for name, value in parameters:
        table, _, rest = name.partition(".")
        column, _, edge = rest.partition(".")
        found = model.table(table)
        if found is None or found.column(column) is None or not value:
            continue
        key = ColumnKey(table, column)
        if edge in ("from", "to"):
            edges.setdefault(key, {})[edge] = value
        else:
            values.setdefault(key, []).append(None if value == _BLANK else value)
    listed = [Selection(key, tuple(found)) for key, found in values.items()]
    ranges = [Selection(key, None, ends.get("from"), ends.get("to")) for key, ends in edges.items()]
    return tuple(listed + ranges)


def parameters_of(selections: tuple[Selection, ...]) -> Parameters:
    """The reverse of `selections_of`."""
    found: Parameters = []
    for one in selections:
        name = f"{one.column.table}.{one.column.column}"
        found += [(name, _BLANK if value is None else str(value)) for value in one.values or ()]
        found += [(f"{name}.{edge}", value) for edge, value in (("from", one.low), ("to", one.high)) if value]
    return found


def page_svg(page: Page, reader: Reader) -> str:
    """The whole page as one SVG document."""
    theme = reader.theme
    cards = _cards(page, reader)
    parts = [
        f'<g transform="translate({one.x:g},{one.y:g})">{_drawn(one, f"v{index}", page, reader, cards).svg}</g>'
        for index, one in enumerate(page.visuals)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{page.width:g}"'
        f' height="{page.height:g}" viewBox="0 0 {page.width:g} {page.height:g}" font-family="{escape(theme.fonts)}">'
        f'<rect width="100%" height="100%" fill="{theme.page}"/>{"".join(parts)}'
        f'<text x="{page.width - 20:g}" y="{page.height - 4:g}" font-size="10" fill="{theme.muted}" text-anchor="end">'
        f"{escape(reader.as_of)}</text></svg>"
    )


def page_png(page: Page, reader: Reader, *, scale: float = 1.0) -> bytes:
    """The whole page as a PNG."""
    import vl_convert  # noqa: PLC0415 - imported only by who needs it

    png: bytes = vl_convert.svg_to_png(page_svg(page, reader), scale=scale)
    return png


def page_html(page: Page, reader: Reader) -> str:
    """The page as HTML with tabs, slicers, cross-filters and the state it shows."""
    return _document(page, reader, reader.theme, visuals_html(page, reader))


def visuals_html(page: Page, reader: Reader, *, prefix: str = "") -> str:
    """Every visual of a page at its place; `prefix` keeps ids apart where several pages are in one document."""
    parts, cards = [], _cards(page, reader)
    for index, one in enumerate(page.visuals):
        drawn = _drawn(one, f"{prefix}v{index}", page, reader, cards, is_html=True)
        style = f"left:{one.x:g}px;top:{one.y:g}px;width:{one.width:g}px;height:{one.height:g}px;z-index:{int(one.z)}"
        inner = drawn.html if drawn.html is not None else _inline(one, drawn)
        kind = "visual html" if drawn.html is not None else "visual"
        parts.append(f'<div class="{kind}" id="{escape(prefix + one.name)}" style="{style}">{inner}</div>')
    return "".join(parts)


def _inline(visual: Visual, drawn: Picture) -> str:
    return f'<svg width="{visual.width:g}" height="{visual.height:g}" xmlns:xlink="http://www.w3.org/1999/xlink">{drawn.svg}</svg>'


def _cards(page: Page, reader: Reader) -> dict[str, Answer]:
    return answer_cards(page.visuals, reader.model, reader.connection, reader.scope, page_filters=page.filters)


def _drawn(
    visual: Visual, prefix: str, page: Page, reader: Reader, cards: dict[str, Answer], *, is_html: bool = False
) -> Picture:
    theme = reader.theme
    try:
        if visual.type == "textbox":
            return pictures.textbox(visual, theme)
        if visual.type == "slicer":
            return _slicer(visual, page, reader, is_html=is_html and reader.is_live)
        if visual.type not in pictures.DRAWN:
            return pictures.refusal(
                visual, f"A visual of type {visual.type} is not drawn here; Power BI shows it.", theme
            )
        if not visual.fields:
            return pictures.refusal(visual, "The visual has no fields.", theme)
        found = cards.get(visual.name) or answer(
            visual, reader.model, reader.connection, reader.scope, page_filters=page.filters
        )
        link = _linker(page, reader) if is_html and reader.is_live else None
        return pictures.picture(visual, found, Drawing(theme, link, prefix))
    except DaxError as error:
        return pictures.refusal(visual, str(error), theme)


def _linker(page: Page, reader: Reader) -> Callable[[Heading, object], str]:
    """Clicking a category selects it alone; clicking it again takes the selection back."""

    def link(heading: Heading, value: object) -> str:
        name = f"{heading.field.table}.{heading.field.name}"
        text = _BLANK if value is None else str(value)
        current = parameters_of(reader.scope.selections)
        others = [pair for pair in current if pair[0] != name]
        chosen = [] if (name, text) in current else [(name, text)]
        return _address(reader, page.name, others + chosen)

    return link


def _address(reader: Reader, page: str, parameters: Parameters) -> str:
    query = urlencode([*parameters, *reader.kept])
    return f"{reader.base}/{page}" + (f"?{query}" if query else "")


# ---------------------------------------------------------------------- slicers


def _slicer(visual: Visual, page: Page, reader: Reader, *, is_html: bool) -> Picture:
    one = visual.fields[0]
    key = ColumnKey(one.table, one.name)
    chosen = next((s for s in reader.scope.selections if s.column == key), None)
    is_range = visual.setting("data", "mode") == "Between"
    if not is_html:
        return pictures.slicer(visual, _shown(chosen, is_range=is_range), reader.theme)
    head = escape(pictures.title(visual) or one.label)
    body = _range_form(key, chosen, reader) if is_range else _list_form(key, chosen, reader)
    others = [
        pair for pair in parameters_of(reader.scope.selections) if not pair[0].startswith(f"{one.table}.{one.name}")
    ]
    hidden = "".join(f'<input type=hidden name="{escape(n)}" value="{escape(v)}">' for n, v in (*others, *reader.kept))
    action = escape(f"{reader.base}/{page.name}")
    return Picture(
        "",
        f'<form class=slicer action="{action}" method=get>{hidden}<label>{head}</label>{body}'
        "<noscript><button>Apply</button></noscript></form>",
    )


def _shown(chosen: Selection | None, *, is_range: bool) -> str:
    if chosen is None:
        return "All"
    if is_range:
        return f"{chosen.low or '…'} – {chosen.high or '…'}"  # noqa: RUF001 - typography
    return ", ".join(_BLANK if value is None else str(value) for value in chosen.values or ())


def _range_form(key: ColumnKey, chosen: Selection | None, reader: Reader) -> str:
    name = f"{key.table}.{key.column}"
    bounds = data_bounds(reader, key)
    low = (chosen.low if chosen else None) or bounds[0]
    high = (chosen.high if chosen else None) or bounds[1]
    return (
        f'<span class=range><input type=date name="{escape(name)}.from" value="{escape(low)}">'
        f'<input type=date name="{escape(name)}.to" value="{escape(high)}"></span>'
    )


def data_bounds(reader: Reader, key: ColumnKey) -> tuple[str, str]:
    """First and last value for which facts exist: a calendar of whole years says little about the data."""
    related = [one for one in reader.model.relationships if one.to_table == key.table and one.to_column == key.column]
    tables = [(one.from_table, one.from_column) for one in related] or [(key.table, key.column)]
    source = ColumnKey(*tables[0])
    row = reader.connection.execute(
        f'SELECT MIN({source.sql}), MAX({source.sql}) FROM model."{source.table}"'
    ).fetchall()[0]
    return tuple(value.isoformat() if isinstance(value, dt.date) else "" for value in row)  # type: ignore[return-value]


def _list_form(key: ColumnKey, chosen: Selection | None, reader: Reader) -> str:
    name = f"{key.table}.{key.column}"
    rows = reader.connection.execute(f'SELECT DISTINCT {key.sql} FROM model."{key.table}" ORDER BY 1').fetchall()
    marked = {str(value) for value in (chosen.values if chosen and chosen.values else ())}
    boxes = "".join(
        f'<label><input type=checkbox name="{escape(name)}" value="{escape(str(value))}"'
        f"{' checked' if str(value) in marked else ''}>"
        f"{escape(str(value))}</label>"
        for (value,) in rows
        if value is not None
    )
    return (
        f"<details><summary>{escape(_shown(chosen, is_range=False))}</summary><div class=list>{boxes}</div></details>"
    )


# ---------------------------------------------------------------------- the document


def _document(page: Page, reader: Reader, theme: Theme, visuals: str) -> str:
    parameters = parameters_of(reader.scope.selections)
    tabs = "".join(
        f'<a href="{escape(_address(reader, one.name, _synced(parameters, one)))}"'
        f"{' class=here' if one.name == page.name else ''}>{escape(one.title)}</a>"
        for one in reader.report.pages
    )
    chips = "".join(_chip(pair, parameters, page, reader) for pair in parameters)
    reset = f'<a class=reset href="{escape(_address(reader, page.name, []))}">Clear all filters</a>' if chips else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,"><title>{escape(page.title)}</title><style>{style_sheet(theme)}</style></head>
<body><header><nav>{tabs}</nav><div class=state>{chips}{reset}<span>{escape(reader.as_of)}</span></div></header>
<main style="width:{page.width:g}px;height:{page.height:g}px">{visuals}</main>
<script>{SCRIPT}{LIVE_SCRIPT}</script></body></html>"""


def _synced(parameters: Parameters, page: Page) -> Parameters:
    """What another page takes over: selections for which it has a slicer, as synced slicers do."""
    names = {f"{one.table}.{one.name}" for visual in page.visuals if visual.type == "slicer" for one in visual.fields}
    return [pair for pair in parameters if ".".join(pair[0].split(".")[:2]) in names]


def _chip(pair: tuple[str, str], parameters: Parameters, page: Page, reader: Reader) -> str:
    name, value = pair
    label = name.split(".", 1)[1].replace(".from", " from").replace(".to", " to").replace("_", " ")
    address = _address(reader, page.name, [one for one in parameters if one != pair])
    return f'<a class=chip href="{escape(address)}" title="Remove this filter">{escape(label)}: {escape(value)} ×</a>'  # noqa: RUF001 - typography
