"""Contracts: what a topic promises, read from an Open Data Contract Standard 3.1 file.

Here: reading, refusing and describing contracts. Not here: decoding of events (decode.py), tables (stream_tables.py).
Pure but for reading the file. Every key that the standard does not know is refused with its line, since a misspelt
`requried: true` would otherwise silently promise nothing.
"""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import pydantic
from open_data_contract_standard.model import OpenDataContractStandard, SchemaObject, SchemaProperty

from streaming.contract_limits import contradictions, read_limit
from streaming.contract_yaml import compose, problems_text, property_lines, require_values, unknown_keys
from streaming.errors import ContractError, TopicError
from streaming.event_type import event_struct, struct_fields

CONTRACTS_DIR = Path(__file__).parent / "contracts"
API_VERSIONS = ("v3.1.0", "v3.2.0")
LOGICAL_TYPES = ("string", "integer", "number", "boolean", "timestamp", "date", "object", "array")
ANY_JSON = "json"  # a property without a logicalType and with physicalType json: any JSON value, as it came
TYPE_OPTIONS = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "timestamp": {"minimum", "maximum", "format", "timezone", "defaultTimezone"},
    "date": {"format"},
    "boolean": set[str](),
    "object": set[str](),
    "array": set[str](),
    ANY_JSON: set[str](),
}
ENCODINGS = {"timestamp": ("iso", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns"), "date": ("iso", "epoch_days")}
PAYLOAD_FORMATS = ("json", "avro", "protobuf", "json_schema")
ENVELOPES = ("none", "debezium")
TOMBSTONES = ("refuse", "skip")
MESSAGE_TIME = "produced_at"  # as the event time field: the timestamp of the Kafka message
DEFAULT_MAXIMUM_AHEAD_S = 86_400  # a day: clocks of tills are wrong by hours, not by days
DEFAULT_ZONE = "UTC"
DEFAULT_MAXIMUM_PAYLOAD_BYTES = 1_000_000  # Kafka's own default limit of a message
DEFAULT_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_POSSIBLE = datetime(1900, 1, 1, tzinfo=UTC)  # a month is a table partition: no bound, no end of partitions
MOST_RETENTION_MONTHS = 1_200  # a century; events may be from 1900 on, and months are counted back from today
MOST_FIELDS = 1_595  # PostgreSQL's 1,600 columns, less the five that a view has of its own
NUMERIC = re.compile(r"(?:numeric|decimal)\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)", re.IGNORECASE)
FIELD_NAME = re.compile(r"[a-z_][a-z0-9_]{0,58}")
EVENT_KEY = re.compile(r'[^"\\\x00-\x1f]*')
MONTH_NAME = re.compile(r"(.+)_\d{4}_\d{2}")  # of a month's table: the stream's and YYYY_MM
OTHER_ENDING = re.compile(r"\.(?!yaml\Z)(?i:ya?ml)\Z")
TOPIC_NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}")
TOPIC_RULE = "Kafka takes 1 to 249 letters, digits, . _ and -, and neither . nor .. alone"
RESERVED_PREFIX = "__"  # of a class's own parts, and of names that it changes
RESERVED_FIELDS = frozenset({"topic", "topic_partition", "topic_offset", "event_day", "event_at", "produced_at", "key"})


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event, with everything that the landing checks.

    Source is its key in the event, where that is not the name. Encoding is how a time is written: `iso` (with a zone),
    `iso_utc` (a zone may be missing: then it is UTC), or a count since 1970 (`epoch_s`, `epoch_ms`, `epoch_us`,
    `epoch_ns`, `epoch_days`).
    """

    name: str
    logical_type: str
    nullable: bool
    description: str = ""
    source: str | None = None
    encoding: str = "iso"
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

    @property
    def event_key(self) -> str:
        """The key under which an event has it."""
        return self.name if self.source is None else self.source

    def without_limits(self) -> Field:
        """The field with its type only."""
        return replace(
            self, minimum=None, maximum=None, exclusive_minimum=None, exclusive_maximum=None, minimum_length=None,
            maximum_length=None, pattern=None, multiple_of=None, allowed=(),
        )  # fmt: skip


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
    payload_format: str = "json"
    envelope: str = "none"
    tombstones: str = "refuse"
    path: str = ""

    @property
    def is_plain_json(self) -> bool:
        """Whether the message's value is the event itself, so that it lands as it came."""
        return self.payload_format == "json" and self.envelope == "none"

    @property
    def needs_registry(self) -> bool:
        """Whether events can only be read with a schema registry."""
        return self.payload_format in ("avro", "protobuf")

    def without_limits(self) -> Contract:
        """The contract for reading what has landed: a limit that was narrowed since must not make it unreadable."""
        return replace(self, fields=tuple(field.without_limits() for field in self.fields))

    def field(self, name: str) -> Field:
        """The field of that name; KeyError if the contract has none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)


def require_topic_name(topic: str) -> None:
    """Raises TopicError for a name that no topic can have."""
    if not TOPIC_NAME.fullmatch(topic):
        shown = f"{topic[:40]!r}{'...' if len(topic) > 40 else ''} of {len(topic)} characters"  # noqa: PLR2004 to know it by
        raise TopicError(
            f"naming topic {shown}: it is not a topic's name: {TOPIC_RULE}. Nothing was done. Mend the name."
        )


def is_zone(name: str) -> bool:
    """Whether it is a time zone of the IANA database."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def load_contract(topic: str, contracts_dir: Path | str | None = None) -> Contract:
    """The contract of a topic, from `<contracts_dir>/<topic>.yaml`."""
    require_topic_name(topic)
    folder = Path(contracts_dir) if contracts_dir else CONTRACTS_DIR
    path = folder / f"{topic}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise ContractError(
            f"reading the contract of topic {topic}: {path} does not exist; contracts found there: {known}. "
            f"Nothing was started. Add the file, or name another folder in STREAMING_CONTRACTS_DIR."
        )
    contract = read_contract(_read_text(path), path=str(path))
    if contract.topic != topic:
        raise ContractError(
            f"reading {path}: its schema's physicalName is {contract.topic!r}, the file's name says {topic!r}. "
            f"Give both the topic's name."
        )
    return contract


def find_contract(topic: str, contracts_dir: Path | str | None = None) -> Contract | None:
    """The contract of a topic, None if it has none."""
    require_topic_name(topic)
    has_one = (Path(contracts_dir or CONTRACTS_DIR) / f"{topic}.yaml").is_file()
    return load_contract(topic, contracts_dir) if has_one else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ContractError(f"reading contract {path}: {error.strerror}. Nothing was started.") from error
    except UnicodeDecodeError as error:
        raise ContractError(
            f"reading contract {path}: it is no UTF-8 text, by its byte {error.start + 1}. Nothing was started. Save "
            f"it as UTF-8; an editor may call what it has ANSI, Latin-1 or UTF-16."
        ) from error


def load_contracts(contracts_dir: Path | str | None = None, *, without: str | None = None) -> dict[str, Contract]:
    """All contracts of a folder by topic; refuses two topics that would share a landing table.

    `without` is a topic whose file is not read, as one that is about to be replaced.
    """
    folder = Path(contracts_dir) if contracts_dir else CONTRACTS_DIR
    if others := sorted(path.name for path in folder.glob("*") if OTHER_ENDING.search(path.name)):
        raise ContractError(
            f"reading {folder}: {', '.join(others)} would be left out, since contracts are files whose names end in "
            f".yaml. Nothing was started. Rename it."
        )
    if others := sorted(path.name for path in folder.glob("*.yaml") if not TOPIC_NAME.fullmatch(path.stem)):
        raise ContractError(
            f"reading {folder}: {', '.join(others)} can be no contract, since its file is named as the topic is, and "
            f"{TOPIC_RULE}. Nothing was started. Rename it, or take it out if it is an editor's copy."
        )
    topics = sorted({path.stem for path in folder.glob("*.yaml")} - {without})
    contracts = {topic: load_contract(topic, folder) for topic in topics}
    streams: dict[str, str] = {}
    for contract in contracts.values():
        other = streams.setdefault(contract.stream, contract.topic)
        if other != contract.topic:
            raise ContractError(
                f"reading {folder}: topics {other} and {contract.topic} both call their stream {contract.stream}, "
                f"so they would share landing.{contract.stream}. Give one schema another name."
            )
    for contract in contracts.values():
        owner = next((topic for stream, topic in streams.items() if is_month_of(contract.stream, stream)), None)
        if owner is not None:
            raise ContractError(
                f"reading {folder}: topic {contract.topic} calls its stream {contract.stream}, as a month of topic "
                f"{owner} is called in landing: the one's events would be shown as the other's. Give one schema "
                f"another name."
            )
    return contracts


def is_month_of(stream: str, other: str) -> bool:
    """Whether a stream is called as a month's table of the other one is."""
    match = MONTH_NAME.fullmatch(stream)
    return match is not None and match[1] == other


def read_contract(text: str, *, path: str = "<contract>") -> Contract:
    """A contract from YAML text. Raises ContractError with every problem found."""
    node = compose(text, path)
    unknown = list(unknown_keys(node, OpenDataContractStandard, "", path))
    if unknown:
        raise ContractError(problems_text(path, unknown))
    lines = property_lines(node)
    require_values(node, path)
    try:
        document = OpenDataContractStandard.from_string(text)
    except pydantic.ValidationError as error:
        problems = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise ContractError(problems_text(path, problems)) from error
    return _Reader(document, path, lines).contract()


class _Reader:
    """Turns a standard document into a Contract, collecting problems on the way."""

    def __init__(self, document: OpenDataContractStandard, path: str, lines: list[int]) -> None:
        self.document = document
        self.path = path
        self.lines = lines  # of the properties
        self.problems: list[str] = []
        self.properties: dict[str, Any] = {}

    def contract(self) -> Contract:
        schema = self._schema()
        self._read_custom()
        topic = schema.physicalName or schema.name or ""
        stream = schema.name or ""
        if not TOPIC_NAME.fullmatch(topic):
            self.problems.append(f"schema.physicalName {topic!r} is not a topic's name: {TOPIC_RULE}")
        if not FIELD_NAME.fullmatch(stream) or len(stream) > 50:  # noqa: PLR2004 a month's suffix has to fit in 63
            self.problems.append(f"schema.name {stream!r} is not a table's name (a-z, 0-9, _; at most 50)")
        places = [self._place(at, prop) for at, prop in enumerate(schema.properties or [])]
        fields = tuple(self._field(prop, where) for prop, where in zip(schema.properties or [], places, strict=True))
        if len(fields) > MOST_FIELDS:
            self.problems.append(
                f"schema has {len(fields)} properties, a table of PostgreSQL takes {MOST_FIELDS}; leave some out, they "
                f"stay in the payload"
            )
        for what, given in (("properties", [f.name for f in fields]), ("physicalNames", [f.event_key for f in fields])):
            repeated = sorted({name for name in given if given.count(name) > 1})
            if repeated:
                self.problems.append(f"{what} given twice: {', '.join(repeated)}")
        event_time = self._event_time(fields)
        self._check_limits(fields, places, event_time)
        contract = Contract(
            topic=topic,
            stream=stream,
            version=self.document.version or "0",
            description=schema.description or "",
            limitations=(self.document.description.limitations or "") if self.document.description else "",
            owner=self._owner(),
            fields=fields,
            event_time_field=event_time.name if event_time else MESSAGE_TIME,
            time_zone=self._time_zone(),
            earliest_event_at=self._earliest(event_time),
            maximum_ahead_s=self._whole("maximumAheadSeconds", DEFAULT_MAXIMUM_AHEAD_S, least=0),
            maximum_payload_bytes=self._whole("maximumPayloadBytes", DEFAULT_MAXIMUM_PAYLOAD_BYTES, least=1),
            message_key=self._message_key(fields),
            keep_headers=self._flag("keepHeaders"),
            topic_partitions=self._whole("topicPartitions", 4, least=1),
            retention_months=self._whole("retentionMonths", 0, least=0, most=MOST_RETENTION_MONTHS) or None,
            payload_format=self._choice("payloadFormat", PAYLOAD_FORMATS, "json"),
            envelope=(envelope := self._choice("envelope", ENVELOPES, "none")),
            tombstones=self._choice("tombstones", TOMBSTONES, "skip" if envelope == "debezium" else "refuse"),
            path=self.path,
        )
        self.problems.extend(f"customProperties: unknown property {name!r}" for name in self.properties)
        if not self.problems:
            self._compile(fields)
        if self.problems:
            raise ContractError(problems_text(self.path, self.problems))
        return contract

    def _place(self, at: int, prop: SchemaProperty) -> str:
        line = f"line {self.lines[at]}: " if at < len(self.lines) else ""
        return f"{line}property {prop.name or ''!r}"

    def _compile(self, fields: tuple[Field, ...]) -> None:
        """What no check above has thought of is told here, not by the first command that reads an event."""
        try:
            msgspec.json.Decoder(event_struct("Event", *struct_fields(fields), fields))
        except (TypeError, ValueError, ArithmeticError, RuntimeError, AssertionError) as error:
            self.problems.append(f"no event could be read by its properties, mend one of them: {error}")

    def _schema(self) -> SchemaObject:
        document = self.document
        if document.kind != "DataContract":
            self.problems.append(f"kind is {document.kind!r}, expected 'DataContract'")
        if document.apiVersion not in API_VERSIONS:
            self.problems.append(f"apiVersion is {document.apiVersion!r}, expected one of {', '.join(API_VERSIONS)}")
        schemas = document.schema_ or []
        if len(schemas) != 1:
            problem = f"schema has {len(schemas)} objects, expected exactly one: a topic has one kind of event"
            raise ContractError(problems_text(self.path, [*self.problems, problem]))
        return schemas[0]

    def _read_custom(self) -> None:
        for entry in self.document.customProperties or []:
            if entry.property is None or entry.property in self.properties:
                self.problems.append(f"customProperties: {entry.property!r} has no name or is given twice")
                continue
            self.properties[entry.property] = entry.value

    def _whole(self, name: str, default: int, *, least: int, most: int | None = None) -> int:
        value = self.properties.pop(name, default)
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or value < least or (most is not None and value > most):
            expected = f"a whole number from {least}" + ("" if most is None else f" to {most}, or leave it out")
            self.problems.append(f"customProperties: {name} is {value!r}, expected {expected}")
            return default
        return int(value)

    def _choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value = self.properties.pop(name, default)
        if value not in choices:
            self.problems.append(f"customProperties: {name} is {value!r}, expected one of {', '.join(choices)}")
            return default
        return str(value)

    def _flag(self, name: str) -> bool:
        value = self.properties.pop(name, False)
        if not isinstance(value, bool):
            self.problems.append(f"customProperties: {name} is {value!r}, expected true or false")
        return bool(value)

    def _time_zone(self) -> str:
        name = str(self.properties.pop("timeZone", DEFAULT_ZONE))
        if not is_zone(name):
            self.problems.append(f"customProperties: timeZone {name!r} is not a zone of the IANA database")
        return name

    def _event_time(self, fields: tuple[Field, ...]) -> Field | None:
        name = self.properties.pop("eventTimeField", None)
        if name == MESSAGE_TIME:
            return None
        found = next((field for field in fields if field.name == name), None)
        if found is None or found.logical_type != "timestamp" or found.nullable:
            self.problems.append(
                f"customProperties: eventTimeField is {name!r}, expected the name of a property with "
                f"logicalType timestamp and required true, or {MESSAGE_TIME} for the timestamp of the message"
            )
            return None
        return found

    def _check_limits(self, fields: tuple[Field, ...], places: list[str], event_time: Field | None) -> None:
        """Refuse limits that the landing would not check: a promise that nobody keeps is worse than none."""
        for field, where in zip(fields, places, strict=True):
            if field.logical_type == "timestamp" and field is not event_time and (field.minimum or field.maximum):
                self.problems.append(f"{where}: only the event time may have a minimum or maximum")
            self.problems.extend(f"{where}: {problem}" for problem in contradictions(field))

    def _message_key(self, fields: tuple[Field, ...]) -> str | None:
        name: str | None = self.properties.pop("messageKey", None)
        if name is not None and name not in [field.name for field in fields]:
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

    def _field(self, prop: SchemaProperty, where: str) -> Field:
        name = prop.name or ""
        if not FIELD_NAME.fullmatch(name):
            self.problems.append(f"{where}: the name is no column's name (a-z, 0-9, _)")
        if name.startswith(RESERVED_PREFIX):
            self.problems.append(
                f"{where}: names that begin with {RESERVED_PREFIX} are Python's own; choose another name, and give the "
                f"event's key as physicalName"
            )
        if prop.physicalName is not None and not EVENT_KEY.fullmatch(prop.physicalName):
            self.problems.append(
                f"{where}: physicalName {prop.physicalName!r} has a quote, a backslash or a control character, which "
                f"the reader of events does not take; leave the field out, it stays in the payload"
            )
        if name in RESERVED_FIELDS:
            self.problems.append(f"{where}: the name is taken by the landing itself; choose another")
        logical_type = prop.logicalType or ""
        if prop.logicalType is None and (prop.physicalType or "").lower() == "json":
            logical_type = ANY_JSON
        elif logical_type not in LOGICAL_TYPES:
            self.problems.append(
                f"{where}: logicalType {logical_type!r}, expected one of {', '.join(LOGICAL_TYPES)}, or physicalType "
                f"json and no logicalType for any JSON value"
            )
            return Field(name, "string", nullable=True)
        given, known = prop.logicalTypeOptions or {}, TYPE_OPTIONS[logical_type]
        self.problems.extend(
            f"{where}: logicalTypeOptions.{option} is not known for {logical_type}"
            for option in sorted(set(given) - known)
        )
        options = {option: value for option, value in given.items() if option in known}
        precision, scale = self._numeric(prop, where)
        return Field(
            name=name,
            logical_type=logical_type,
            nullable=not prop.required,
            description=prop.description or "",
            source=prop.physicalName,
            encoding=self._encoding(options, logical_type, where),
            precision=precision,
            scale=scale,
            minimum=self._limit(options, "minimum", logical_type, where),
            maximum=self._limit(options, "maximum", logical_type, where),
            exclusive_minimum=self._limit(options, "exclusiveMinimum", logical_type, where),
            exclusive_maximum=self._limit(options, "exclusiveMaximum", logical_type, where),
            minimum_length=self._limit(options, "minLength", logical_type, where),
            maximum_length=self._limit(options, "maxLength", logical_type, where),
            pattern=self._pattern(options.get("pattern"), where),
            multiple_of=self._limit(options, "multipleOf", logical_type, where),
            allowed=tuple(entry.value for entry in prop.enum or ()),
            is_key=bool(prop.primaryKey),
        )

    def _encoding(self, options: dict[str, Any], logical_type: str, where: str) -> str:
        known = ENCODINGS.get(logical_type)
        if known is None:
            return "iso"
        form = options.get("format", "iso")
        if form not in known:
            self.problems.append(f"{where}: format {form!r}, expected one of {', '.join(known)}")
        if options.get("defaultTimezone", "UTC") not in ("UTC", "Etc/UTC", "Z"):
            self.problems.append(
                f"{where}: defaultTimezone is {options['defaultTimezone']!r}, only UTC is read: in a zone with summer "
                f"time one hour a year is ambiguous. Have the producer write the zone"
            )
        has_zone = options.get("timezone", True)
        if not isinstance(has_zone, bool):
            self.problems.append(f"{where}: timezone is {has_zone!r}, expected true or false")
        return "iso_utc" if form == "iso" and has_zone is False else str(form)

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

    def _limit(self, options: dict[str, Any], name: str, logical_type: str, where: str) -> Any:
        value = options.get(name)
        if value is None:
            return None
        try:
            return read_limit(name, value, logical_type)
        except ValueError as error:
            self.problems.append(f"{where}: {name} is {value!r}, {error}")
            return None
