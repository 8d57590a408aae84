"""One visual -> a picture: always SVG, and HTML as well where a reader scrolls or chooses (tables, slicers).

Here: cards, tables, slicers, text boxes and the frame around every visual. Not here: charts (chart.py), the page.
A visual that cannot be evaluated or drawn says so on its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING

from powerbi.formats import format_short, format_value
from powerbi.render.chart import CHARTS, Frame, draw

if TYPE_CHECKING:
    from collections.abc import Callable

    from powerbi.evaluate import Answer, Heading
    from powerbi.pbir import Visual
    from powerbi.render.theme import Theme

TABLES = {"tableEx", "pivotTable"}
CARDS = {"card"}
DRAWN = frozenset({*CHARTS, *TABLES, *CARDS, "slicer", "textbox"})
_TITLE_HEIGHT = 30
_ROW_HEIGHT = 24
_GLYPH = 0.54  # mean width of a letter against its size, Open Sans; used only to cut texts that are too long
_BOLD_GLYPH = 0.64  # of a bold digit and its separators in DejaVu Sans, the widest of the theme's fonts


@dataclass(frozen=True)
class Picture:
    """A drawn visual: SVG in its own coordinates, and HTML where that is better on a page."""

    svg: str
    html: str | None = None


@dataclass(frozen=True)
class Drawing:
    """What is needed to draw any visual of a page."""

    theme: Theme
    link: Callable[[Heading, object], str] | None = None
    prefix: str = "v"


def picture(visual: Visual, answer: Answer, drawing: Drawing) -> Picture:
    """Draw a visual."""
    if visual.type in CARDS:
        return _card(visual, answer, drawing.theme)
    if visual.type in TABLES:
        return _table(visual, answer, drawing)
    return _chart(visual, answer, drawing)


def refusal(visual: Visual, what: str, theme: Theme) -> Picture:
    """A visual that cannot be shown, with the reason on its place."""
    lines = _wrapped(what, int((visual.width - 24) / (11 * _GLYPH)))
    texts = "".join(
        _text(12, 46 + index * 15, line, size=11, fill=theme.bad)
        for index, line in enumerate(lines[: int(visual.height / 15)])
    )
    heading = _text(12, 24, title(visual) or visual.name, size=13, fill=theme.foreground, weight=600)
    return Picture(_frame(visual, theme) + heading + texts)


def title(visual: Visual) -> str:
    """The visual's title; unless it says otherwise, its measures by its groups."""
    shown = visual.setting("title", "show")
    text = visual.setting("title", "text")
    if shown is False:
        return ""
    if isinstance(text, str):
        return text
    measures = [one.label for one in visual.fields if one.kind == "Measure"]
    groups = [one.label for one in visual.fields if one.kind == "Column"]
    return " and ".join(measures) + (f" by {' and '.join(groups)}" if groups else "")


def textbox(visual: Visual, theme: Theme) -> Picture:
    """A text box: its paragraphs, one below the other."""
    parts, y = [], 4.0
    for entry in visual.objects.get("general", []):
        for paragraph in entry.get("properties", {}).get("paragraphs", []):
            for run in paragraph.get("textRuns", []):
                style = run.get("textStyle", {})
                size = float(str(style.get("fontSize", "12pt")).removesuffix("pt")) * 4 / 3
                weight = 600 if style.get("fontWeight") == "bold" else 400
                y += size * 1.15
                parts.append(
                    _text(
                        8, y, run.get("value", ""), size=size, fill=style.get("color", theme.foreground), weight=weight
                    )
                )
                y += size * 0.25
    return Picture("".join(parts))


def slicer(visual: Visual, shown: str, theme: Theme) -> Picture:
    """A slicer as a picture: what it is set to."""
    label = visual.fields[0].label if visual.fields else visual.name
    head = _text(12, 18, title(visual) or label, size=11, fill=theme.muted)
    box = f'<rect x="12" y="24" width="{visual.width - 24:g}" height="26" rx="4" fill="none" stroke="{theme.grid}"/>'
    value = _text(20, 41, _cut(shown, visual.width - 40, 12), size=12, fill=theme.foreground)
    return Picture(_frame(visual, theme) + head + box + value)


def _frame(visual: Visual, theme: Theme) -> str:
    return (
        f'<rect x="0.5" y="0.5" width="{visual.width - 1:g}" height="{visual.height - 1:g}" rx="8" fill="{theme.card}"'
        f' stroke="{theme.grid}"/>'
    )


def _card(visual: Visual, answer: Answer, theme: Theme) -> Picture:
    heading = answer.measures[0]
    value = answer.rows[0][0] if answer.rows else None
    is_exact = visual.setting("labels", "labelDisplayUnits") == 1.0
    text = (format_value if is_exact else format_short)(value, heading.format_string) or "(Blank)"
    size = min(28.0, (visual.width - 24) / (max(1, len(text)) * _BOLD_GLYPH))
    colour = visual.setting("labels", "color")
    fill = colour if isinstance(colour, str) and colour.startswith("#") else theme.foreground
    if "+" in heading.format_string and isinstance(value, int | float | Decimal) and value != 0:
        fill = theme.good if value > 0 else theme.bad
    label = title(visual) or heading.field.label
    return Picture(
        _frame(visual, theme)
        + _text(14, 24, _cut(label, visual.width - 28, 12), size=12, fill=theme.muted)
        + _text(14, visual.height - (visual.height - 34) / 2 + size * 0.35, text, size=size, fill=fill, weight=600)
        + f"<title>{escape(format_value(value, heading.format_string))}</title>"
    )


def _chart(visual: Visual, answer: Answer, drawing: Drawing) -> Picture:
    theme = drawing.theme
    head = title(visual)
    top = _TITLE_HEIGHT if head else 6
    base = _frame(visual, theme) + (
        _text(14, 22, _cut(head, visual.width - 28, 13), size=13, fill=theme.foreground, weight=600) if head else ""
    )
    if not answer.rows:
        return Picture(
            base
            + _text(
                visual.width / 2,
                visual.height / 2,
                "Nothing in this selection",
                size=12,
                fill=theme.muted,
                anchor="middle",
            )
        )
    link = drawing.link
    frame = Frame(
        visual.width - 16,
        visual.height - top - 8,
        theme,
        (lambda value: link(answer.groups[0], value)) if link is not None and answer.groups else None,
    )
    svg = draw(visual.type, answer, frame, drawing.prefix)
    return Picture(f'{base}<g transform="translate(8,{top})">{svg}</g>')


def _table(visual: Visual, answer: Answer, drawing: Drawing) -> Picture:
    theme = drawing.theme
    head = title(visual)
    top = _TITLE_HEIGHT if head else 6
    cells = [
        [format_value(value, h.format_string) for value, h in zip(row, answer.headings, strict=True)]
        for row in answer.rows
    ]
    totals = _totals(answer)
    return Picture(
        _table_svg(visual, answer, cells, totals, (theme, head, top)), _table_html(answer, cells, totals, drawing, head)
    )


def _totals(answer: Answer) -> list[str]:
    if not answer.totals:
        return []
    blanks = [""] * max(0, len(answer.groups) - 1)
    values = [format_value(value, h.format_string) for value, h in zip(answer.totals, answer.measures, strict=True)]
    return (["Total"] if answer.groups else []) + blanks + values


def _widths(answer: Answer, cells: list[list[str]], width: float) -> list[float]:
    longest = [max([len(h.field.label), *(len(row[i]) for row in cells)]) + 2 for i, h in enumerate(answer.headings)]
    total = sum(longest) or 1
    return [width * one / total for one in longest]


def _table_svg(
    visual: Visual, answer: Answer, cells: list[list[str]], totals: list[str], style: tuple[Theme, str, int]
) -> str:
    theme, head, top = style
    widths = _widths(answer, [*cells[:60], totals] if totals else cells[:60], visual.width - 24)
    fitting = max(0, int((visual.height - top - 8) / _ROW_HEIGHT) - 1 - bool(totals))
    parts = [_frame(visual, theme)]
    if head:
        parts.append(_text(14, 22, head, size=13, fill=theme.foreground, weight=600))
    y = top + 16.0
    parts.append(_line_of_cells([h.field.label for h in answer.headings], answer, widths, (y, theme.muted, 600)))
    parts.append(f'<path d="M12 {y + 7:g}H{visual.width - 12:g}" stroke="{theme.accent}"/>')
    for row in cells[:fitting]:
        y += _ROW_HEIGHT
        parts.append(_line_of_cells(row, answer, widths, (y, theme.foreground, 400)))
    if totals:
        y = visual.height - 12
        parts.append(f'<path d="M12 {y - 17:g}H{visual.width - 12:g}" stroke="{theme.grid}"/>')
        parts.append(_line_of_cells(totals, answer, widths, (y, theme.foreground, 600)))
    return "".join(parts)


def _line_of_cells(texts: list[str], answer: Answer, widths: list[float], style: tuple[float, str, int]) -> str:
    y, fill, weight = style
    x, parts = 14.0, []
    for text, heading, width in zip(texts, answer.headings, widths, strict=True):
        shown = _cut(text, width - 8, 12)
        if heading.is_number:
            parts.append(_text(x + width - 8, y, shown, size=12, fill=fill, weight=weight, anchor="end"))
        else:
            parts.append(_text(x, y, shown, size=12, fill=fill, weight=weight))
        x += width
    return "".join(parts)


def _table_html(answer: Answer, cells: list[list[str]], totals: list[str], drawing: Drawing, head: str) -> str:
    def row(texts: list[str], tag: str, first: str = "") -> str:
        found = []
        for index, (text, heading) in enumerate(zip(texts, answer.headings, strict=True)):
            inner = escape(text)
            if index == 0 and first:
                inner = f'<a href="{escape(first)}">{inner}</a>'
            found.append(f"<{tag}{' class=n' if heading.is_number else ''}>{inner}</{tag}>")
        return f"<tr>{''.join(found)}</tr>"

    link = drawing.link
    body = "".join(
        row(texts, "td", link(answer.groups[0], raw[0]) if link is not None and answer.groups else "")
        for texts, raw in zip(cells, answer.rows, strict=True)
    )
    foot = f"<tfoot>{row(totals, 'td')}</tfoot>" if totals else ""
    caption = f"<h3>{escape(head)}</h3>" if head else ""
    labels = [h.field.label for h in answer.headings]
    return (
        f"{caption}<div class=scroll><table><thead>{row(labels, 'th')}</thead><tbody>{body}</tbody>{foot}</table></div>"
    )


def _text(x: float, y: float, text: str, *, size: float, fill: str, weight: int = 400, anchor: str = "start") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{escape(fill)}" font-weight="{weight}"'
        f' text-anchor="{anchor}">{escape(text)}</text>'
    )


def _cut(text: str, width: float, size: float) -> str:
    most = max(1, int(width / (size * _GLYPH)))
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"


def _wrapped(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return [*lines, line]
