"""Contracts: what a topic promises, read from an Open Data Contract Standard 3.1 file.

Here: reading, refusing and describing contracts. Not here: decoding of events (decode.py), tables (stream_tables.py).
Pure but for reading the file. Every key that the standard does not know is refused with its line, since a misspelt
`requried: true` would otherwise silently promise nothing.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pydantic
import yaml
from open_data_contract_standard.model import OpenDataContractStandard, SchemaObject, SchemaProperty

from streaming.errors import ContractError

CONTRACTS_DIR = Path(__file__).parent / "contracts"
API_VERSIONS = ("v3.1.0", "v3.2.0")
LOGICAL_TYPES = ("string", "integer", "number", "boolean", "timestamp", "date", "object", "array")
TYPE_OPTIONS = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "timestamp": {"minimum", "maximum"},
    "date": set[str](),
    "boolean": set[str](),
    "object": set[str](),
    "array": set[str](),
}
DEFAULT_MAXIMUM_AHEAD_S = 86_400  # a day: clocks of tills are wrong by hours, not by days
DEFAULT_MAXIMUM_PAYLOAD_BYTES = 1_000_000  # Kafka's own default limit of a message
DEFAULT_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_POSSIBLE = datetime(1900, 1, 1, tzinfo=UTC)  # a month is a table partition: no bound, no end of partitions
INT64 = 2**63
NUMERIC = re.compile(r"(?:numeric|decimal)\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)", re.IGNORECASE)
FIELD_NAME = re.compile(r"[a-z_][a-z0-9_]{0,58}")
TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
RESERVED_FIELDS = frozenset({"topic", "topic_partition", "topic_offset", "event_day", "event_at", "produced_at", "key"})


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event, with everything that the landing checks."""

    name: str
    logical_type: str
    nullable: bool
    description: str = ""
    precision: int = 38
    scale: int = 9
    minimum: Any = None
    maximum: Any = None
    exclusive_minimum: Any = None
    exclusive_maximum: Any = None
    minimum_length: int | None = None
    maximum_length: int | None = None
    pattern: str | None = None
    multiple_of: int | None = None
    allowed: tuple[Any, ...] = ()
    is_key: bool = False


@dataclass(frozen=True, slots=True)
class Contract:
    """What one topic promises. Built by `load_contract` or `read_contract`."""

    topic: str
    stream: str
    version: str
    description: str
    limitations: str
    owner: str
    fields: tuple[Field, ...]
    event_time_field: str
    time_zone: str
    earliest_event_at: datetime
    maximum_ahead_s: int
    maximum_payload_bytes: int
    message_key: str | None
    keep_headers: bool
    topic_partitions: int
    retention_months: int | None
    path: str = ""

    def field(self, name: str) -> Field:
        """The field of that name; KeyError if the contract has none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)


def load_contract(topic: str, contracts_dir: Path | str | None = None) -> Contract:
    """The contract of a topic, from `<contracts_dir>/<topic>.yaml`."""
    folder = Path(contracts_dir) if contracts_dir else CONTRACTS_DIR
    path = folder / f"{topic}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise ContractError(
            f"reading the contract of topic {topic}: {path} does not exist; contracts found there: {known}. "
            f"Nothing was started. Add the file, or name another folder in STREAMING_CONTRACTS_DIR."
        )
    contract = read_contract(path.read_text(encoding="utf-8"), path=str(path))
    if contract.topic != topic:
        raise ContractError(
            f"reading {path}: its schema's physicalName is {contract.topic!r}, the file's name says {topic!r}. "
            f"Give both the topic's name."
        )
    return contract


def load_contracts(contracts_dir: Path | str | None = None) -> dict[str, Contract]:
    """All contracts of a folder by topic; refuses two topics that would share a landing table."""
    folder = Path(contracts_dir) if contracts_dir else CONTRACTS_DIR
    contracts = {path.stem: load_contract(path.stem, folder) for path in sorted(folder.glob("*.yaml"))}
    streams: dict[str, str] = {}
    for contract in contracts.values():
        other = streams.setdefault(contract.stream, contract.topic)
        if other != contract.topic:
            raise ContractError(
                f"reading {folder}: topics {other} and {contract.topic} both call their stream {contract.stream}, "
                f"so they would share landing.{contract.stream}. Give one schema another name."
            )
    return contracts


def read_contract(text: str, *, path: str = "<contract>") -> Contract:
    """A contract from YAML text. Raises ContractError with every problem found."""
    node = _compose(text, path)
    unknown = list(_unknown_keys(node, OpenDataContractStandard, "", path))
    if unknown:
        raise ContractError(_problems(path, unknown))
    try:
        document = OpenDataContractStandard.from_string(text)
    except pydantic.ValidationError as error:
        problems = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise ContractError(_problems(path, problems)) from error
    return _Reader(document, path).contract()


def _problems(path: str, problems: list[str]) -> str:
    listed = "\n".join(f"  - {problem}" for problem in problems)
    return f"reading contract {path}: {len(problems)} problem(s). Nothing was started. Mend the file:\n{listed}"


def _compose(text: str, path: str) -> yaml.Node:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ContractError(f"reading contract {path}: it is not YAML: {error}. Nothing was started.") from error
    if not isinstance(node, yaml.MappingNode):
        raise ContractError(f"reading contract {path}: found no mapping of keys at the top. Nothing was started.")
    return node


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


def _unknown_keys(node: yaml.Node, annotation: Any, where: str, path: str) -> typing.Iterator[str]:
    """One line a key that no model of the standard knows, and a key given twice."""
    models = _models(annotation)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _unknown_keys(item, annotation, f"{where}[{index}]", path)
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
            yield from _unknown_keys(value_node, known[key], inner, path)
            continue
        close = difflib.get_close_matches(key, known, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "put your own settings into customProperties"
        yield f"line {line}: unknown key {inner!r}; {remedy}"


class _Reader:
    """Turns a standard document into a Contract, collecting problems on the way."""

    def __init__(self, document: OpenDataContractStandard, path: str) -> None:
        self.document = document
        self.path = path
        self.problems: list[str] = []
        self.properties: dict[str, Any] = {}

    def contract(self) -> Contract:
        schema = self._schema()
        self._read_custom()
        topic = schema.physicalName or schema.name or ""
        stream = schema.name or ""
        if not TOPIC_NAME.fullmatch(topic):
            self.problems.append(f"schema.physicalName {topic!r} is not a topic's name (letters, digits, . _ -)")
        if not FIELD_NAME.fullmatch(stream) or len(stream) > 50:  # noqa: PLR2004 a month's suffix has to fit in 63
            self.problems.append(f"schema.name {stream!r} is not a table's name (a-z, 0-9, _; at most 50)")
        fields = tuple(self._field(prop) for prop in schema.properties or [])
        repeated = sorted({f.name for f in fields if [g.name for g in fields].count(f.name) > 1})
        if repeated:
            self.problems.append(f"properties given twice: {', '.join(repeated)}")
        event_time = self._event_time(fields)
        self._check_limits(fields, event_time)
        contract = Contract(
            topic=topic,
            stream=stream,
            version=self.document.version or "0",
            description=schema.description or "",
            limitations=(self.document.description.limitations or "") if self.document.description else "",
            owner=self._owner(),
            fields=fields,
            event_time_field=event_time.name if event_time else "",
            time_zone=self._time_zone(),
            earliest_event_at=self._earliest(event_time),
            maximum_ahead_s=self._whole("maximumAheadSeconds", DEFAULT_MAXIMUM_AHEAD_S, least=0),
            maximum_payload_bytes=self._whole("maximumPayloadBytes", DEFAULT_MAXIMUM_PAYLOAD_BYTES, least=1),
            message_key=self._message_key(fields),
            keep_headers=self._flag("keepHeaders"),
            topic_partitions=self._whole("topicPartitions", 4, least=1),
            retention_months=self._whole("retentionMonths", 0, least=0) or None,
            path=self.path,
        )
        self.problems.extend(f"customProperties: unknown property {name!r}" for name in self.properties)
        if self.problems:
            raise ContractError(_problems(self.path, self.problems))
        return contract

    def _schema(self) -> SchemaObject:
        document = self.document
        if document.kind != "DataContract":
            self.problems.append(f"kind is {document.kind!r}, expected 'DataContract'")
        if document.apiVersion not in API_VERSIONS:
            self.problems.append(f"apiVersion is {document.apiVersion!r}, expected one of {', '.join(API_VERSIONS)}")
        schemas = document.schema_ or []
        if len(schemas) != 1:
            problem = f"schema has {len(schemas)} objects, expected exactly one: a topic has one kind of event"
            raise ContractError(_problems(self.path, [*self.problems, problem]))
        return schemas[0]

    def _read_custom(self) -> None:
        for entry in self.document.customProperties or []:
            if entry.property is None or entry.property in self.properties:
                self.problems.append(f"customProperties: {entry.property!r} has no name or is given twice")
                continue
            self.properties[entry.property] = entry.value

    def _whole(self, name: str, default: int, *, least: int) -> int:
        value = self.properties.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.problems.append(f"customProperties: {name} is {value!r}, expected a whole number from {least}")
            return default
        return value

    def _flag(self, name: str) -> bool:
        value = self.properties.pop(name, False)
        if not isinstance(value, bool):
            self.problems.append(f"customProperties: {name} is {value!r}, expected true or false")
        return bool(value)

    def _time_zone(self) -> str:
        name = str(self.properties.pop("timeZone", "UTC"))
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.problems.append(f"customProperties: timeZone {name!r} is not a zone of the IANA database")
        return name

    def _event_time(self, fields: tuple[Field, ...]) -> Field | None:
        name = self.properties.pop("eventTimeField", None)
        found = next((field for field in fields if field.name == name), None)
        if found is None or found.logical_type != "timestamp" or found.nullable:
            self.problems.append(
                f"customProperties: eventTimeField is {name!r}, expected the name of a property with "
                f"logicalType timestamp and required true"
            )
            return None
        return found

    def _check_limits(self, fields: tuple[Field, ...], event_time: Field | None) -> None:
        """Refuse limits that the landing would not check: a promise that nobody keeps is worse than none."""
        for field in fields:
            if field.logical_type == "timestamp" and field is not event_time and (field.minimum or field.maximum):
                self.problems.append(f"property {field.name!r}: only the event time may have a minimum or maximum")
            if field.allowed and field.logical_type not in ("string", "integer"):
                self.problems.append(f"property {field.name!r}: enum is known for string and integer only")

    def _message_key(self, fields: tuple[Field, ...]) -> str | None:
        name: str | None = self.properties.pop("messageKey", None)
        if name is not None and name not in {field.name for field in fields}:
            self.problems.append(f"customProperties: messageKey {name!r} is not one of the properties")
        return name

    def _earliest(self, event_time: Field | None) -> datetime:
        earliest = event_time.minimum if event_time and event_time.minimum is not None else DEFAULT_EARLIEST
        if earliest < EARLIEST_POSSIBLE:
            self.problems.append(f"the event time's minimum {earliest} is before {EARLIEST_POSSIBLE:%Y-%m-%d}")
        return typing.cast("datetime", earliest)

    def _owner(self) -> str:
        team = self.document.team
        return (team.name or "") if team is not None and not isinstance(team, list) else ""

    def _field(self, prop: SchemaProperty) -> Field:
        name = prop.name or ""
        where = f"property {name!r}"
        if not FIELD_NAME.fullmatch(name):
            self.problems.append(f"{where}: the name is no column's name (a-z, 0-9, _)")
        if name in RESERVED_FIELDS:
            self.problems.append(f"{where}: the name is taken by the landing itself; choose another")
        logical_type = prop.logicalType or ""
        if logical_type not in LOGICAL_TYPES:
            self.problems.append(f"{where}: logicalType {logical_type!r}, expected one of {', '.join(LOGICAL_TYPES)}")
            return Field(name, "string", nullable=True)
        options = dict(prop.logicalTypeOptions or {})
        self.problems.extend(
            f"{where}: logicalTypeOptions.{option} is not known for {logical_type}"
            for option in sorted(set(options) - TYPE_OPTIONS[logical_type])
        )
        precision, scale = self._numeric(prop, where)
        return Field(
            name=name,
            logical_type=logical_type,
            nullable=not prop.required,
            description=prop.description or "",
            precision=precision,
            scale=scale,
            minimum=self._limit(options.get("minimum"), logical_type, where),
            maximum=self._limit(options.get("maximum"), logical_type, where),
            exclusive_minimum=self._limit(options.get("exclusiveMinimum"), logical_type, where),
            exclusive_maximum=self._limit(options.get("exclusiveMaximum"), logical_type, where),
            minimum_length=options.get("minLength"),
            maximum_length=options.get("maxLength"),
            pattern=self._pattern(options.get("pattern"), where),
            multiple_of=options.get("multipleOf"),
            allowed=tuple(entry.value for entry in prop.enum or ()),
            is_key=bool(prop.primaryKey),
        )

    def _pattern(self, pattern: Any, where: str) -> str | None:
        if pattern is None:
            return None
        try:
            re.compile(str(pattern))
        except re.error as error:
            self.problems.append(f"{where}: pattern {pattern!r} is no regular expression: {error}")
            return None
        return str(pattern)

    def _numeric(self, prop: SchemaProperty, where: str) -> tuple[int, int]:
        if prop.logicalType != "number":
            return 38, 9
        match = NUMERIC.fullmatch((prop.physicalType or "").strip())
        precision, scale = (int(match[1]), int(match[2])) if match else (0, 0)
        if not match or not 1 <= precision <= 38 or scale > precision:  # noqa: PLR2004 decimal128
            self.problems.append(
                f"{where}: physicalType {prop.physicalType!r}, expected NUMERIC(precision, scale) with at most 38 "
                f"digits: a number without a scale cannot be exact in every layer"
            )
        return precision or 38, scale

    def _limit(self, value: Any, logical_type: str, where: str) -> Any:
        if value is None:
            return None
        try:
            if logical_type == "number":
                return Decimal(str(value))
            if logical_type == "integer":
                return int(value)
            if logical_type == "timestamp":
                instant = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
                return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        except (ArithmeticError, ValueError) as error:
            self.problems.append(f"{where}: limit {value!r} is no {logical_type}: {error}")
            return None
        return value
