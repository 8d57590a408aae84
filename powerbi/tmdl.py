"""TMDL text -> a tree of nodes that remember their file and line.

Here: the syntax only (indentation, names, properties, expressions, descriptions). Not here: what a table or a
measure is (model.py), whether it makes sense (lint.py), and nothing writes TMDL: the files are edited by hand or
in Desktop.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from powerbi.errors import TmdlError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = r"'(?:[^']|'')*'|[^\s=:']+"
_REF = re.compile(rf"^ref\s+(?P<kind>\w+)\s+(?P<name>{_NAME})$")
_PROPERTY = re.compile(r"^(?P<name>\w+)\s*:(?:\s+(?P<value>.*))?$")
_EXPRESSION = re.compile(r"^(?P<name>\w+)\s*=\s*(?P<value>.*)$")
_OBJECT = re.compile(rf"^(?P<kind>\w+)\s+(?P<name>{_NAME})\s*(?:=\s*(?P<value>.*))?$")
_FLAG = re.compile(r"^(?P<name>\w+)$")
_FENCE = "```"


@dataclass
class Node:
    """One declaration: an object (`column date`), a property (`dataType: int64`), a flag or a reference.

    `value` is what follows `:` or `=`; `value_line` is the line on which it begins.
    """

    kind: str
    name: str
    file: str
    line: int
    value: str | None = None
    value_line: int = 0
    is_property: bool = False
    is_reference: bool = False
    description: str = ""
    children: list[Node] = field(default_factory=list)

    def all(self, kind: str) -> Iterator[Node]:
        """Yield child objects of a kind, in the file's order."""
        return (child for child in self.children if child.kind == kind and not child.is_property)

    def text(self, name: str) -> str | None:
        """The value of a property, None where it is absent."""
        for child in self.children:
            if child.is_property and child.name == name:
                return child.value
        return None

    def flag(self, name: str) -> bool:
        """Whether a flag is set (`isHidden`, or `isHidden: true`)."""
        for child in self.children:
            if child.name == name and (child.is_property or child.kind == name):
                return child.value in (None, "true")
        return False


@dataclass(frozen=True)
class _Line:
    number: int
    depth: int
    text: str


def parse(text: str, file: str) -> list[Node]:
    """Read one TMDL file.

    Raises:
        TmdlError: with file and line; indentation is by tabs and grows by one level at a time.
    """
    return _Parser(text, file).nodes()


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.raw = text.splitlines()
        self.at = 0

    def nodes(self) -> list[Node]:
        roots: list[Node] = []
        open_nodes: list[Node] = []
        description: list[str] = []
        while (line := self._next()) is not None:
            if line.text.startswith("///"):
                description.append(line.text[3:].strip())
                continue
            if line.depth > len(open_nodes):
                raise self._error(line, f"indented by {line.depth} tabs where at most {len(open_nodes)} belong")
            del open_nodes[line.depth :]
            node = self._declaration(line)
            node.description = "\n".join(description)
            description.clear()
            (open_nodes[-1].children if open_nodes else roots).append(node)
            open_nodes.append(node)
        if description:
            raise TmdlError(self.file, len(self.raw), "a description (///) that touches no object")
        return roots

    def _next(self) -> _Line | None:
        while self.at < len(self.raw):
            raw = self.raw[self.at]
            self.at += 1
            if raw.strip():
                return self._line(raw, self.at)
        return None

    def _line(self, raw: str, number: int) -> _Line:
        body = raw.lstrip("\t")
        if body.startswith(" "):
            raise TmdlError(self.file, number, "indented by spaces; TMDL is indented by tabs")
        return _Line(number, len(raw) - len(body), body.rstrip())

    def _declaration(self, line: _Line) -> Node:
        if match := _REF.match(line.text):
            return Node(match["kind"], _unquote(match["name"]), self.file, line.number, is_reference=True)
        if match := _PROPERTY.match(line.text):
            return self._property(line, match["name"], match["value"] or "")
        if match := _EXPRESSION.match(line.text):
            node = self._property(line, match["name"], "")
            node.value, node.value_line = self._expression(line, match["value"])
            return node
        if match := _OBJECT.match(line.text):
            node = Node(match["kind"], _unquote(match["name"]), self.file, line.number)
            if match["value"] is not None:
                node.value, node.value_line = self._expression(line, match["value"])
            return node
        if match := _FLAG.match(line.text):
            return Node(match["name"], match["name"], self.file, line.number)
        raise self._error(line, f"neither an object nor a property: {line.text!r}")

    def _property(self, line: _Line, name: str, value: str) -> Node:
        return Node("property", name, self.file, line.number, value=value, value_line=line.number, is_property=True)

    def _expression(self, line: _Line, first: str) -> tuple[str, int]:
        if first == _FENCE or (not first and self._peek_is_fence()):
            return self._fenced(line, opened=first == _FENCE)
        if first:
            return first, line.number
        return self._block(line)

    def _peek_is_fence(self) -> bool:
        return self.at < len(self.raw) and self.raw[self.at].strip() == _FENCE

    def _fenced(self, line: _Line, *, opened: bool) -> tuple[str, int]:
        start = self.at if opened else self.at + 1
        for end in range(start, len(self.raw)):
            if self.raw[end].strip() == _FENCE:
                self.at = end + 1
                return _dedent(self.raw[start:end]), start + 1
        raise self._error(line, "an expression opened by ``` is never closed")

    def _block(self, line: _Line) -> tuple[str, int]:
        start = self.at
        while self.at < len(self.raw):
            raw = self.raw[self.at]
            if raw.strip() and len(raw) - len(raw.lstrip("\t")) < line.depth + 2:
                break
            self.at += 1
        while self.at > start and not self.raw[self.at - 1].strip():
            self.at -= 1
        if self.at == start:
            raise self._error(line, "nothing follows the =; an expression is indented two tabs deeper than its object")
        return _dedent(self.raw[start : self.at]), start + 1

    def _error(self, line: _Line, what: str) -> TmdlError:
        return TmdlError(self.file, line.number, what)


def _unquote(name: str) -> str:
    return name[1:-1].replace("''", "'") if name.startswith("'") else name


def _dedent(lines: list[str]) -> str:
    depths = [len(line) - len(line.lstrip("\t")) for line in lines if line.strip()]
    depth = min(depths, default=0)
    return "\n".join(line[depth:].rstrip() for line in lines)
