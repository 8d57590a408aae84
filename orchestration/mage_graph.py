"""A pipeline's blocks drawn as a small SVG, for an asset's description.

Belongs here: the drawing. Not here: what it is made of (mage_spec.py) or where it is shown (mage.py).
"""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestration.mage_spec import BlockSpec, PipelineSpec

COLOURS = {"data_loader": "#4877ff", "transformer": "#7d55ec", "data_exporter": "#ffcc19", "custom": "#8c98a4"}
NAME_LENGTH = 25  # characters that a box holds
BOX_W, BOX_H, GAP_X, GAP_Y, MARGIN = 176, 40, 36, 16, 8


def picture(pipeline: PipelineSpec) -> str:
    """The block graph as a Markdown image whose address holds the SVG itself."""
    encoded = base64.b64encode(svg(pipeline).encode()).decode()
    return f"![blocks of {pipeline.uuid}](data:image/svg+xml;base64,{encoded})"


def svg(pipeline: PipelineSpec) -> str:
    """Blocks from left to right, each in the column after the last thing it reads."""
    places = _places(pipeline)
    width = max(x for x, _ in places.values()) + BOX_W + MARGIN
    height = max(y for _, y in places.values()) + BOX_H + MARGIN
    edges = [_edge(places[upstream], places[block.uuid]) for block in pipeline.blocks for upstream in block.upstream]
    boxes = [_box(block, places[block.uuid]) for block in pipeline.blocks]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif">{"".join(edges)}{"".join(boxes)}</svg>'
    )


def _places(pipeline: PipelineSpec) -> Mapping[str, tuple[int, int]]:
    column: dict[str, int] = {}
    filled: dict[int, int] = {}
    places = {}
    for block in pipeline.blocks:
        column[block.uuid] = at = max((column[upstream] + 1 for upstream in block.upstream), default=0)
        row = filled.get(at, 0)
        filled[at] = row + 1
        places[block.uuid] = (MARGIN + at * (BOX_W + GAP_X), MARGIN + row * (BOX_H + GAP_Y))
    return places


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1 = start[0] + BOX_W, start[1] + BOX_H // 2
    x2, y2 = end[0], end[1] + BOX_H // 2
    middle = (x1 + x2) // 2
    return (
        f'<path d="M{x1} {y1} C{middle} {y1} {middle} {y2} {x2 - 6} {y2}" fill="none" stroke="#8c98a4" '
        f'stroke-width="1.5"/><path d="M{x2 - 7} {y2 - 4} L{x2} {y2} L{x2 - 7} {y2 + 4} Z" fill="#8c98a4"/>'
    )


def _box(block: BlockSpec, place: tuple[int, int]) -> str:
    x, y = place
    colour = COLOURS.get(block.type, "#8c98a4")
    return (
        f"<g><title>{escape(block.uuid)}</title>"
        f'<rect x="{x}" y="{y}" width="{BOX_W}" height="{BOX_H}" rx="6" fill="#ffffff" stroke="{colour}" '
        f'stroke-width="2"/>'
        f'<text x="{x + 8}" y="{y + 17}" font-size="12" fill="#1b1e24">{escape(_shown(block.uuid))}</text>'
        f'<text x="{x + 8}" y="{y + 32}" font-size="10" fill="#6b7480">{escape(block.type.replace("_", " "))}, '
        f"{escape(block.language)}</text></g>"
    )


def _shown(name: str) -> str:
    """As much of a name as fits into its box, and its end, in which long names differ."""
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 9]}…{name[-8:]}"
