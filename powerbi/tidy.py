"""`powerbi tidy`: gives every object its lineageTag, derived from its name; running it again changes nothing.

Only missing tags are written: an object that was renamed keeps the tag by which Power BI knows it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from powerbi import tmdl
from powerbi.ids import id_of
from powerbi.texts import read_text, text_paths

if TYPE_CHECKING:
    from pathlib import Path

_TAGGED = {"table", "column", "measure", "expression", "hierarchy", "level"}


def tidy_text(text: str, file: str) -> str:
    """The text with a lineageTag for every object that lacks one."""
    lines = text.splitlines()
    for node, path in reversed(list(_objects(tmdl.parse(text, file), ()))):
        if node.text("lineageTag") is None:
            lines.insert(_after(node, lines), "\t" * _depth(lines[node.line - 1]) + f"\tlineageTag: {id_of(*path)}")
    return "\n".join(lines) + "\n"


def tidy_folder(folder: Path) -> list[Path]:
    """Tidy every TMDL file below a folder; returns the files that changed."""
    changed = []
    for path in text_paths(folder, frozenset({".tmdl"})):
        text = read_text(path)
        tidied = tidy_text(text, path.name)
        if tidied != text:
            path.write_text(tidied, encoding="utf-8")
            changed.append(path)
    return changed


def _objects(nodes: list[tmdl.Node], path: tuple[str, ...]) -> list[tuple[tmdl.Node, tuple[str, ...]]]:
    found = []
    for node in nodes:
        if node.kind in _TAGGED and not node.is_reference:
            found.append((node, (*path, node.kind, node.name)))
            found += _objects(node.children, (*path, node.kind, node.name))
    return found


def _after(node: tmdl.Node, lines: list[str]) -> int:
    """Where the tag belongs: behind the object's last own property before any child object, else its expression."""
    at = node.line
    depth = _depth(lines[node.line - 1])
    if node.value is not None and node.value_line > node.line:
        while at < len(lines) and (
            not lines[at].strip() or _depth(lines[at]) >= depth + 2 or lines[at].strip() == "```"
        ):
            at += 1
        while at > node.line and not lines[at - 1].strip():
            at -= 1
    while at < len(lines) and _depth(lines[at]) == depth + 1 and re.match(r"\t*(isHidden|isKey|\w+:)", lines[at]):
        at += 1
    return at


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip("\t"))
