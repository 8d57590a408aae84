"""The text of a contract file: is it YAML, and does the standard know each of its keys. Pure.

Not here: what the keys mean to us (contract.py).
"""

from __future__ import annotations

import difflib
import types
import typing
from typing import Any

import pydantic
import yaml
from open_data_contract_standard.model import SchemaProperty

from streaming.errors import ContractError


def problems_text(path: str, problems: list[str]) -> str:
    """All problems of a file as one message."""
    listed = "\n".join(f"  - {problem}" for problem in problems)
    return f"reading contract {path}: {len(problems)} problem(s). Nothing was started. Mend the file:\n{listed}"


def compose(text: str, path: str) -> yaml.Node:
    """The file's tree, with lines. Raises ContractError if it is no YAML mapping."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ContractError(f"reading contract {path}: it is not YAML: {error}. Nothing was started.") from error
    if not isinstance(node, yaml.MappingNode):
        raise ContractError(f"reading contract {path}: found no mapping of keys at the top. Nothing was started.")
    return node


class _Values(yaml.SafeLoader):
    """Makes values of a tree; one that is none is told with its line, as what is no YAML is."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 PyYAML's own
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error


def require_values(node: yaml.Node, path: str) -> None:
    """Raises ContractError if a part of the tree stands for no value: `2026-02-30`, `{{ zone }}`, `!secret zone`.

    After `unknown_keys`, since mappings that are merged into others are put there.
    """
    try:
        _Values("").construct_document(node)
    except yaml.YAMLError as error:
        raise ContractError(
            f"reading contract {path}: a value cannot be read: {error}. Nothing was started. Write the value itself; "
            f"quote a text that YAML takes for something else."
        ) from error


def _models(annotation: Any) -> list[type[pydantic.BaseModel]]:
    """The pydantic models that an annotation may stand for."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, list):
        return [model for part in typing.get_args(annotation) for model in _models(part)]
    if isinstance(annotation, typing.ForwardRef):
        return [SchemaProperty]
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return []


def unknown_keys(node: yaml.Node, annotation: Any, where: str, path: str) -> typing.Iterator[str]:
    """One line a key that no model of the standard knows, and a key given twice."""
    models = _models(annotation)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from unknown_keys(item, annotation, f"{where}[{index}]", path)
        return
    if not isinstance(node, yaml.MappingNode) or not models:
        return
    known = {(field.alias or name): field.annotation for model in models for name, field in model.model_fields.items()}
    seen = set[str]()
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        inner = f"{where}.{key}" if where else key
        if key in seen:
            yield f"line {line}: {inner} is given twice; keep one"
        seen.add(key)
        if key in known:
            yield from unknown_keys(value_node, known[key], inner, path)
            continue
        close = difflib.get_close_matches(key, known, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "put your own settings into customProperties"
        yield f"line {line}: unknown key {inner!r}; {remedy}"


def property_lines(node: yaml.Node) -> list[int]:
    """Lines on which the properties of the first schema begin; none where they are merged in from elsewhere."""
    schema = _value_of(node, "schema")
    first = schema.value[0] if isinstance(schema, yaml.SequenceNode) and schema.value else None
    properties = _value_of(first, "properties")
    if not isinstance(properties, yaml.SequenceNode):
        return []
    return [item.start_mark.line + 1 for item in properties.value]


def _value_of(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)
