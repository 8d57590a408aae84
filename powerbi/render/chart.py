"""Charts: a visual's answer -> a Vega-Lite specification -> SVG, in this process, without a browser.

Here: one specification per visual type. Not here: where an axis has its ticks (axis.py), cards, tables and slicers
(picture.py), the page (page.py).
Vega-Lite was chosen by a spike: docs/decisions/0009-drawing-library.md.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from powerbi.formats import format_short, format_value
from powerbi.render.axis import number_axis, short_names, time_ticks, utc

if TYPE_CHECKING:
    from collections.abc import Callable

    from powerbi.evaluate import Answer, Heading
    from powerbi.render.theme import Theme

Spec = dict[str, Any]
_VEGA_LITE = "5.20"
_TIP = {"field": "tip", "type": "nominal"}  # becomes aria-label, which the page shows on hovering
_HERE = "https://this.report"  # Vega makes addresses absolute; this one is taken off again
_MOST_POINTS = 62  # with more days than this, points only blur a line, and rounded corners take longer than all else
_HALF_A_DAY_MS = 12 * 3_600_000
_THICKEST = 64  # pixels of a bar
_MOST_LABELS = 16  # with more points than this, labels on a chart touch each other


@dataclass(frozen=True)
class Frame:
    """A chart's size in pixels, its theme, and the address that selects a category."""

    width: float
    height: float
    theme: Theme
    link: Callable[[object], str] | None = None


def draw(kind: str, answer: Answer, frame: Frame, prefix: str) -> str:
    """Draw a chart as an <svg> element; `prefix` keeps its ids apart from other charts' on the page."""
    svg = _svg(json.dumps(specification(kind, answer, frame), default=str))
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    return svg[svg.index("<svg") :].replace(_HERE, "")


@lru_cache(maxsize=256)
def _svg(spec: str) -> str:
    """Vega-Lite to SVG; the same data gives the same picture, so a page that is looked at again costs nothing."""
    import vl_convert  # noqa: PLC0415 - half a second, and only who draws needs it

    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE)
    return svg


def specification(kind: str, answer: Answer, frame: Frame) -> Spec:
    """The Vega-Lite specification of a chart."""
    inner = CHARTS[kind](answer, frame)
    theme = frame.theme
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": frame.width,
        "height": frame.height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 4,
        "background": None,
        "config": {
            "font": theme.fonts,
            "aria": False,
            "range": {"category": list(theme.colours)},
            "view": {"stroke": None},
            "axis": {
                "labelColor": theme.muted,
                "labelFontSize": 11,
                "title": None,
                "domain": False,
                "ticks": False,
                "gridColor": theme.grid,
                "gridDash": [1, 3],
                "labelPadding": 6,
                "labelLimit": 0,  # cut before (short_names): measuring glyph by glyph takes longer than the chart
            },
            "legend": {
                "labelColor": theme.muted,
                "labelFontSize": 11,
                "title": None,
                "symbolType": "circle",
                "symbolSize": 70,
            },
            "text": {"color": theme.muted, "fontSize": 11},
            "bar": {"cornerRadiusEnd": 2 if len(inner["data"]["values"]) <= _MOST_POINTS else 0},
            "line": {"strokeWidth": 2.5, "strokeJoin": "round"},
        },
        **inner,
    }


def _records(answer: Answer, frame: Frame) -> list[Spec]:
    """One record a cell and measure: category, series, value, label."""
    found = []
    has_series = len(answer.groups) > 1
    names = _names(answer)
    for row in answer.rows:
        groups, values = row[: len(answer.groups)], row[len(answer.groups) :]
        category = groups[0] if groups else ""
        for heading, value in zip(answer.measures, values, strict=True):
            if value is None:
                continue
            series = str(groups[1]) if has_series else heading.field.label
            found.append({"category": names[category]} | _record(category, series, value, heading, frame))
    return found


def _names(answer: Answer) -> dict[object, str]:
    """What each category is called on its axis."""
    categories = dict.fromkeys(row[0] for row in answer.rows) if answer.groups else {"": None}
    if _is_date(answer):  # with its zone: Vega reads a moment without one in the zone of the machine
        return {one: _moment(one) for one in categories}
    short = short_names([_name(one) for one in categories])
    return {one: short[_name(one)] for one in categories}


def _name(category: object) -> str:
    return "(Blank)" if category is None else str(category)


def _moment(category: object) -> str:
    return utc(category).isoformat() if isinstance(category, dt.datetime) else _name(category)


def _record(category: object, series: str, value: Any, heading: Heading, frame: Frame) -> Spec:
    name = _name(category)
    record = {
        "series": series,
        "value": float(value) if isinstance(value, int | float | Decimal) else value,
        "label": format_short(value, heading.format_string),
        "tip": f"{name}\n{series}: {format_value(value, heading.format_string)}",
    }
    if frame.link is not None:
        record["href"] = _HERE + frame.link(category)
    return record


def _is_date(answer: Answer) -> bool:
    return bool(answer.groups) and answer.groups[0].format_string.startswith("yyyy-mm-dd")


def _category(answer: Answer, records: list[Spec], length: float, *, is_upright: bool = False) -> Spec:
    if _is_date(answer):
        moments = [row[0] for row in answer.rows if isinstance(row[0], dt.date)]
        ticks = time_ticks(moments, length, is_upright=is_upright)
        axis = {"values": list(ticks.values), "format": ticks.format, "grid": False, "labelOverlap": True}
        return {"field": "category", "type": "temporal", "scale": {"type": "utc"}, "axis": axis}
    order = list(dict.fromkeys(record["category"] for record in records))
    return {"field": "category", "type": "nominal", "sort": order, "axis": {"grid": False, "labelOverlap": True}}


def _upright(category: Spec, width: float) -> Spec:
    """Labels below columns: level where they fit side by side, else slanted."""
    if category["type"] != "nominal" or not category["sort"]:
        return category
    longest = max(len(name) for name in category["sort"]) * 6.2  # pixels a letter at 11
    fits = longest < (width - 48) / len(category["sort"])
    return category | {"axis": category["axis"] | {"labelAngle": 0 if fits else -35}}


def _day_bands(answer: Answer, length: float, *, is_grouped: bool) -> Spec:
    """Bars of days: a time axis with few labels, each below its bar; only groups of bars need a band for each day."""
    if not _is_date(answer):
        return {}
    days = {utc(row[0]).date() for row in answer.rows if isinstance(row[0], dt.date)}
    axis: Spec = {"grid": False, "labelOverlap": True, "labelAngle": 0}
    if is_grouped:
        axis["format"] = "%-d %b %Y" if len({day.year for day in days}) > 1 else "%-d %b"
        return {"timeUnit": "utcyearmonthdate", "type": "ordinal", "axis": axis}
    ticks = time_ticks(days, length)
    axis |= {"values": [value + _HALF_A_DAY_MS for value in ticks.values], "format": ticks.format}
    return {"timeUnit": "utcyearmonthdate", "type": "temporal", "axis": axis}


def _quantity(heading: Heading) -> Spec:
    return {"field": "value", "type": "quantitative", "axis": number_axis(heading.format_string)}


def _colour(records: list[Spec], theme: Theme) -> Spec:
    series = list(dict.fromkeys(record["series"] for record in records))
    if len(series) < 2:  # noqa: PLR2004 - the number says itself
        return {"value": theme.colours[0]}
    return {
        "field": "series",
        "type": "nominal",
        "sort": series,
        "legend": {"orient": "top", "direction": "horizontal"},
    }


def _columns(answer: Answer, frame: Frame, *, stack: bool) -> Spec:
    records = _records(answer, frame)
    is_grouped = not stack and len({record["series"] for record in records}) > 1
    encoding = {
        "x": _upright(_category(answer, records, frame.width), frame.width)
        | _day_bands(answer, frame.width, is_grouped=is_grouped),
        "y": _quantity(answer.measures[0]),
        "color": _colour(records, frame.theme),
        "description": _TIP,
        **_href(frame),
    }
    if is_grouped:
        encoding["xOffset"] = {"field": "series", "sort": list(dict.fromkeys(r["series"] for r in records))}
    mark: Spec = {"type": "bar", "aria": True}
    if not is_grouped and encoding["x"]["type"] == "nominal":
        mark |= _thickness(records, frame.width)
    layers: list[Spec] = [{"mark": mark, "encoding": encoding}]
    if len(records) <= _MOST_LABELS and not stack and "xOffset" not in encoding:
        middle = encoding["x"] | {"bandPosition": 0.5}
        text = {"x": middle, "y": encoding["y"], "text": {"field": "label"}}
        layers.append({"mark": {"type": "text", "dy": -7}, "encoding": text})
    return {"data": {"values": records}, "layer": layers}


def _thickness(records: list[Spec], length: float) -> Spec:
    """A few bars are not made to fill the chart."""
    count = len({record["category"] for record in records})
    return {"size": _THICKEST} if count and length / count * 0.9 > _THICKEST else {}


def _with_room(records: list[Spec], width: float) -> list[float]:
    """A domain that leaves room for the label behind the longest bar."""
    values = [record["value"] for record in records]
    low, high = min(0.0, *values), max(0.0, *values)
    plot = width - max(len(record["category"]) for record in records) * 6.2 - 16  # pixels a letter at 11
    label = max(len(record["label"]) for record in records) * 7 + 8
    return [low, high + (high - low) * label / max(label, plot - label)]


def _bars(answer: Answer, frame: Frame, *, stack: bool) -> Spec:
    records = _records(answer, frame)
    category = _category(answer, records, frame.height, is_upright=True)
    encoding = {
        "y": category,
        "x": _quantity(answer.measures[0]) | {"axis": None},
        "color": _colour(records, frame.theme),
        "description": _TIP,
        **_href(frame),
    }
    mark: Spec = {"type": "bar", "aria": True} | _thickness(records, frame.height)
    layers: list[Spec] = [{"mark": mark, "encoding": encoding}]
    if not stack and records:
        encoding["x"] |= {"scale": {"domain": _with_room(records, frame.width), "nice": False}}
        text = {"y": category, "x": encoding["x"], "text": {"field": "label"}}
        layers.append({"mark": {"type": "text", "align": "left", "dx": 5}, "encoding": text})
    return {"data": {"values": records}, "layer": layers}


def _lines(answer: Answer, frame: Frame, *, area: bool = False) -> Spec:
    records = _records(answer, frame)
    encoding = {
        "x": _category(answer, records, frame.width),
        "y": _quantity(answer.measures[0]),
        "color": _colour(records, frame.theme),
    }
    mark: Spec = {"type": "area", "opacity": 0.25, "line": True} if area else {"type": "line"}
    points = {**encoding, "description": _TIP, **_href(frame)}
    layers: list[Spec] = [{"mark": mark, "encoding": encoding}]
    if len(records) <= _MOST_POINTS * max(1, len(answer.measures)):
        layers.append({"mark": {"type": "point", "filled": True, "size": 28, "aria": True}, "encoding": points})
    return {"data": {"values": records}, "layer": layers}


def _combination(answer: Answer, frame: Frame) -> Spec:
    """Columns for the first measure, lines for the others, on one axis."""
    records = _records(answer, frame)
    names = list(dict.fromkeys(one.field.label for one in answer.measures))
    category = _category(answer, records, frame.width)
    colour = _colour(records, frame.theme)
    y = _quantity(answer.measures[0])
    bars = {"x": category, "y": y, "color": colour, "description": _TIP, **_href(frame)}
    line = {"x": category, "y": y, "color": colour}
    width = max(2.0, min(26.0, frame.width * 0.6 / max(1, len({r["category"] for r in records}))))
    if category["type"] == "temporal":
        category["scale"] = category["scale"] | {"padding": width / 2 + 4}  # else the first bar lies on the axis
    return {
        "data": {"values": records},
        "layer": [
            {
                "mark": {"type": "bar", "width": width, "aria": True},
                "encoding": bars,
                "transform": [{"filter": {"field": "series", "equal": names[0]}}],
            },
            {
                "mark": {"type": "line"},
                "encoding": line,
                "transform": [{"filter": {"field": "series", "oneOf": names[1:]}}],
            },
        ],
    }


def _donut(answer: Answer, frame: Frame) -> Spec:
    records = _records(answer, frame)
    if len(answer.groups) == 0:
        for record in records:
            record["category"] = record["series"]
    order = list(dict.fromkeys(record["category"] for record in records))
    radius = min(frame.width, frame.height) / 2 - 12
    return {
        "data": {"values": [record | {"at": index} for index, record in enumerate(records)]},
        "mark": {"type": "arc", "aria": True, "innerRadius": radius * 0.62, "outerRadius": radius},
        "encoding": {
            "theta": {"field": "value", "type": "quantitative", "stack": True},
            "order": {"field": "at"},
            "color": {
                "field": "category",
                "type": "nominal",
                "sort": order,
                "legend": {"orient": "right", "labelLimit": 120},
            },
            "description": _TIP,
            **_href(frame),
        },
    }


def _href(frame: Frame) -> Spec:
    return {"href": {"field": "href", "type": "nominal"}} if frame.link is not None else {}


CHARTS: dict[str, Callable[[Answer, Frame], Spec]] = {
    "clusteredColumnChart": lambda answer, frame: _columns(answer, frame, stack=False),
    "columnChart": lambda answer, frame: _columns(answer, frame, stack=True),
    "clusteredBarChart": lambda answer, frame: _bars(answer, frame, stack=False),
    "barChart": lambda answer, frame: _bars(answer, frame, stack=True),
    "lineChart": _lines,
    "areaChart": lambda answer, frame: _lines(answer, frame, area=True),
    "lineClusteredColumnComboChart": _combination,
    "donutChart": _donut,
}
