"""Read one contract.yaml: Open Data Contract Standard 3.1, unknown keys refused with file and line.

Belongs here: YAML to a checked `Contract`. Does not: what a layer means, SQL, BigQuery.
"""

from __future__ import annotations

import re
import types
import typing
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml
from sqlglot.dialects.bigquery import BigQuery

from dbt_like_sql.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

API_VERSION = "v3.1.0"
# Names are written without quotes, here and by analysts. The emulator takes most reserved words so, Google takes none.
RESERVED = frozenset(BigQuery.Generator.RESERVED_KEYWORDS)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LOGICAL_TYPES = {
    "STRING": "string", "INT64": "integer", "NUMERIC": "number", "BOOL": "boolean",
    "DATE": "date", "TIMESTAMP": "timestamp", "ARRAY": "array",
}  # fmt: skip
# YAML reads NO as false and 007 as 7: a value of another kind than its column's matches no row.
_ENUMS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "STRING": (str, "a text, in quotes where YAML takes it for something else"),
    "INT64": (int, "a whole number"),
    "NUMERIC": ((int, float), "a number"),
    "DATE": (date, "a date, without quotes"),
}
_PLAIN = "|".join(kind for kind in LOGICAL_TYPES if kind != "ARRAY")
_FIELD = rf"[A-Za-z_][A-Za-z0-9_]* (?:{_PLAIN})"
_TYPE = re.compile(rf"{_PLAIN}|ARRAY<(?:{_PLAIN}|STRUCT<{_FIELD}(?:, ?{_FIELD})*>)>")
COLUMN_PROPERTIES = ("unit", "additive", "asOf")
_KINDS: dict[str, type] = {
    "materialization": str, "clustering": list, "identity": list, "requirePartitionFilter": bool,
    "incrementalBy": str, "additiveBy": str, "unit": str, "additive": bool, "asOf": bool,
}  # fmt: skip
_CALLED: dict[type, str] = {str: "a text", list: "a list", bool: "true or false, without quotes"}


@dataclass(frozen=True)
class Column:
    """One column and its promise. `type` is GoogleSQL's name; an additive one may be summed.

    `is_as_of`: its newest value says as of when the table is.
    """

    name: str
    type: str
    description: str
    is_required: bool = False
    is_key: bool = False
    is_partition: bool = False
    allowed: tuple[str, ...] = ()
    unit: str | None = None
    is_additive: bool = False
    is_as_of: bool = False


@dataclass(frozen=True)
class Contract:
    """What contract.yaml says, checked."""

    path: Path
    name: str
    version: str
    owner: str
    purpose: str
    known_limits: str
    grain: str
    columns: tuple[Column, ...]
    properties: dict[str, Any]
    tags: tuple[str, ...]


def read_text(path: Path) -> str:
    """A file under models/ as text.

    Raises:
        ContractError: it is not UTF-8; names file and line.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # editors on Windows put a mark before the text
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ContractError(
            path, line, f"not UTF-8: byte {error.object[error.start]:#04x}; save it as UTF-8"
        ) from error


class _Loader(yaml.SafeLoader):
    """YAML's plain values; what only looks like one, such as the date 2010-02-30, is an error with its line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  # YAML's own
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            problem = f"{node.value!r}: {error}; put it in quotes if it is a text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def read_yaml(path: Path) -> Any:
    """What a YAML file under models/ or tests/sql/ says.

    Raises:
        ContractError: it is not YAML of plain values; names file and line.
    """
    text = read_text(path)
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # it is the safe loader with clearer errors
    except yaml.YAMLError as error:
        raise _not_yaml(path, text, error) from error


def _not_yaml(path: Path, text: str, error: yaml.YAMLError) -> ContractError:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return ContractError(path, line, f"not YAML: control character {text[error.position]!r}")
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
    return ContractError(path, mark.line + 1 if mark else None, f"not YAML: {problem}")


def read_contract(path: Path) -> Contract:
    """Read a contract.

    Raises:
        ContractError: not YAML, not ODCS 3.1, an unknown key, a missing promise; names file and line.
    """
    from open_data_contract_standard.model import OpenDataContractStandard  # noqa: PLC0415

    node = _compose(path)
    _refuse_unknown(path, node, OpenDataContractStandard)
    raw = read_yaml(path)
    try:
        contract = OpenDataContractStandard(**raw)
    except ValueError as error:
        raise ContractError(path, None, f"not a valid data contract: {error}") from error
    return _checked(path, node, contract)


def _compose(path: Path) -> yaml.Node:
    text = read_text(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _not_yaml(path, text, error) from error
    if not isinstance(node, yaml.MappingNode):
        raise ContractError(path, 1, "expected a mapping with apiVersion, kind, id, schema")
    return node


def _refuse_unknown(path: Path, node: yaml.Node, model: type[Any]) -> None:
    """Walk the YAML beside the standard's classes; the library itself only refuses unknown keys at the top."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_unknown(path, item, model)
        return
    if not isinstance(node, yaml.MappingNode):
        return
    known = _fields(model)  # type: ignore[arg-type]  # a class is hashable
    seen: set[str] = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ContractError(path, line, f"a list or a mapping as a key in {model.__name__}; expected a name")
        if key.value not in known:
            near = ", ".join(sorted(known))
            raise ContractError(path, line, f"unknown key {key.value!r} in {model.__name__}; known here: {near}")
        if key.value in seen:
            raise ContractError(path, line, f"key {key.value!r} stands twice")
        seen.add(key.value)
        nested = known[key.value]
        if nested is not None:
            _refuse_unknown(path, value, nested)


@cache
def _fields(model: Any) -> dict[str, type[Any] | None]:
    return {field.alias or name: _nested(field.annotation) for name, field in model.model_fields.items()}


def _nested(annotation: Any) -> type[Any] | None:
    """The standard's class inside an annotation such as `list[SchemaProperty] | None`."""
    import pydantic  # noqa: PLC0415

    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, pydantic.BaseModel) else None
    return next((found for arg in typing.get_args(annotation) if (found := _nested(arg)) is not None), None)


def _checked(path: Path, node: yaml.Node, contract: Any) -> Contract:
    def need(condition: object, problem: str, *at: str | int) -> None:
        if not condition:
            raise ContractError(path, _line(node, at), problem)

    need(
        contract.apiVersion == API_VERSION,
        f"apiVersion is {contract.apiVersion!r}; expected {API_VERSION}",
        "apiVersion",
    )
    need(contract.kind == "DataContract", f"kind is {contract.kind!r}; expected DataContract", "kind")
    need(contract.id and contract.version, "id and version are needed")
    need(contract.description and contract.description.purpose, "description.purpose is needed", "description")
    need(contract.description.limitations, "description.limitations (the known limits) is needed", "description")
    need(contract.schema_ and len(contract.schema_) == 1, "schema must hold exactly one table", "schema")
    team = contract.team
    owner = str(getattr(team, "name", None) or "")
    need(owner, "team.name (the owner) is needed", "team")
    table = contract.schema_[0]
    need(table.dataGranularityDescription, "dataGranularityDescription (the grain) is needed", "schema", 0)
    need(table.properties, "the table has no columns", "schema", 0)
    columns = tuple(_column(path, node, at, found) for at, found in enumerate(table.properties))
    names = [column.name.lower() for column in columns]
    need(sum(column.is_as_of for column in columns) <= 1, "several columns are marked asOf; one can be", "schema", 0)
    for at, name in enumerate(names):
        need(
            names.index(name) == at, f"column {name} stands twice (case does not count)", "schema", 0, "properties", at
        )
    return Contract(
        path=path,
        name=contract.id,
        version=contract.version,
        owner=owner,
        purpose=_text(contract.description.purpose),
        known_limits=_text(contract.description.limitations),
        grain=_text(table.dataGranularityDescription),
        columns=columns,
        properties=_properties(path, node, ("schema", 0), table.customProperties),
        tags=tuple(contract.tags or ()),
    )


def _properties(
    path: Path,
    node: yaml.Node,
    place: tuple[str | int, ...],
    found: Sequence[Any] | None,
    *,
    of: str = "",
    known: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The customProperties at a place, each once and of its kind: a quoted "false" would be true, `abc` three names."""
    properties: dict[str, Any] = {}
    for at, item in enumerate(found or []):
        name, value = item.property, item.value
        kind = _KINDS.get(name)
        problem = None
        if known is not None and name not in known:
            problem = f"unknown property {name}; known: {', '.join(known)}"
        elif name in properties:
            problem = f"property {name} stands twice"
        elif kind is not None and not isinstance(value, kind):
            problem = f"{name} is {value!r}; expected {_CALLED[kind]}"
        elif kind is list and not all(isinstance(each, str) for each in value):
            problem = f"{name} is {value!r}; expected a list of texts"
        if problem:
            raise ContractError(path, _line(node, (*place, "customProperties", at)), of + problem)
        properties[name] = value
    return properties


def _column(path: Path, node: yaml.Node, at: int, found: Any) -> Column:
    def need(condition: object, problem: str) -> None:
        if not condition:
            raise ContractError(path, _line(node, ("schema", 0, "properties", at)), problem)

    need(found.name, f"column {at + 1} has no name")
    need(
        NAME.fullmatch(found.name) and found.name.lower() not in RESERVED,
        f"column {found.name!r}: not a name that SQL takes without quotes, which is Latin letters, digits and _, not "
        "beginning with a digit, and no reserved word of GoogleSQL; choose another one",
    )
    need(found.physicalType, f"column {found.name} has no physicalType (GoogleSQL's name of its type)")
    need(found.description, f"column {found.name} has no description")
    base = found.physicalType.split("<")[0].split("(")[0]
    need(
        base in LOGICAL_TYPES,
        f"column {found.name}: physicalType {found.physicalType} is not one of {', '.join(LOGICAL_TYPES)}",
    )
    need(
        "(" not in found.physicalType,
        f"column {found.name}: physicalType {found.physicalType} has a length or a scale, which nothing here keeps; "
        "write the plain type, and a check where the limit matters",
    )
    need(
        _TYPE.fullmatch(found.physicalType),
        f"column {found.name}: physicalType {found.physicalType} is no type that a table here can have; an array is "
        "one of plain values, ARRAY<STRING>, or of rows of them, ARRAY<STRUCT<name STRING, value NUMERIC>>",
    )
    # BigQuery's arrays are never NULL, only empty, so it refuses NOT NULL; and it groups by none of them.
    need(
        base != "ARRAY" or not (found.required or found.primaryKey),
        f"column {found.name}: an {found.physicalType} is neither required nor part of the key",
    )
    expected = LOGICAL_TYPES[base]
    need(
        found.logicalType == expected, f"column {found.name}: logicalType is {found.logicalType}; {base} is {expected}"
    )
    need(not found.enum or base in _ENUMS, f"column {found.name}: an enum is for {', '.join(_ENUMS)}, not for {base}")
    for item in found.enum or ():
        kind, called = _ENUMS[base]
        is_of_kind = isinstance(item.value, kind) and not isinstance(item.value, bool)
        need(is_of_kind, f"column {found.name}: its enum has {item.value!r}; expected {called}, as its type is {base}")
    place = ("schema", 0, "properties", at)
    custom = _properties(
        path, node, place, found.customProperties, of=f"column {found.name}: ", known=COLUMN_PROPERTIES
    )
    problem = f"column {found.name}: additive is for INT64 and NUMERIC, not for {found.physicalType}: it has no sum"
    need(not custom.get("additive") or base in {"INT64", "NUMERIC"}, problem)
    need(not custom.get("asOf") or base == "TIMESTAMP", f"column {found.name}: asOf is for a TIMESTAMP, not a {base}")
    return Column(
        name=found.name,
        type=found.physicalType,
        description=_text(found.description),
        is_required=bool(found.required),
        is_key=bool(found.primaryKey),
        is_partition=bool(found.partitioned),
        allowed=tuple(str(item.value) for item in found.enum or ()),
        unit=custom.get("unit"),
        is_additive=bool(custom.get("additive", False)),
        is_as_of=bool(custom.get("asOf", False)),
    )


def _text(value: str) -> str:
    return " ".join(value.split())


def _line(node: yaml.Node, at: tuple[str | int, ...]) -> int:
    """Line of a place in the file, or of the nearest place above it that exists."""
    line = node.start_mark.line + 1
    for step in at:
        found = None
        if isinstance(node, yaml.MappingNode):
            found = next((value for key, value in node.value if key.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            found = node.value[step]
        if found is None:
            break
        node, line = found, found.start_mark.line + 1
    return line
