"""Protobuf with a schema registry -> JSON, by confluent-kafka's deserializer, without generated classes.

The message's class is made of the schema that the registry holds. JSON is not Protobuf's own mapping: 64-bit numbers
are numbers, field names are the schema's, decimals and instants are exact. Not here: the registry's
errors (registry.py).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from confluent_kafka.schema_registry import dual_schema_id_deserializer, topic_subject_name_strategy
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.schema_registry.serde import SchemaId
from confluent_kafka.serialization import MessageField, SerializationContext, SerializationError
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from streaming.formats.exact_json import exact_decimal, shortest_float, to_json
from streaming.formats.proto_schema import FILE, message_descriptor, read_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message as ProtoMessage

    from streaming.decode import Refusal
    from streaming.formats.registry import Registry
    from streaming.headers import Headers

UNDECODABLE = (
    SerializationError,
    DecodeError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RecursionError,
)
WRAPPERS = frozenset(f"google.protobuf.{kind}Value" for kind in (
    "Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes",
))  # fmt: skip


class _Deserializer(ProtobufDeserializer):
    """Confluent's, with the pool that was made already: its own lacks a part of google.type."""

    def __init__(self, pool: DescriptorPool, indexes: Sequence[int], client: SchemaRegistryClient) -> None:
        kind: Any = message_factory.GetMessageClass(message_descriptor(pool, indexes))
        conf = {"use.deprecated.format": False, "subject.name.strategy": topic_subject_name_strategy}
        super().__init__(kind, conf, client)
        self.pool = pool

    def _get_parsed_schema(self, _: Schema) -> tuple[descriptor_pb2.FileDescriptorProto, DescriptorPool]:
        return descriptor_pb2.FileDescriptorProto(name=FILE), self.pool


class ProtobufReader:
    """Values of one topic."""

    def __init__(self, topic: str, registry: Registry) -> None:
        self.topic = topic
        self.registry = registry
        self.pools: dict[str, Any] = {}
        self.deserializers: dict[tuple[str, tuple[int, ...]], ProtobufDeserializer] = {}

    def __call__(self, value: bytes, headers: Headers) -> bytes | Refusal:
        """JSON of a value, or why there is none."""
        context = SerializationContext(self.topic, MessageField.VALUE, [*headers])

        def decode(name: str, schema: Schema) -> bytes:
            message: Any = self._deserializer(value, context, name, schema)(value, context)
            return to_json(_fields(message))

        return self.registry.read(value, headers, decode, undecodable=UNDECODABLE)

    def _deserializer(
        self, value: bytes, context: SerializationContext, name: str, schema: Schema
    ) -> ProtobufDeserializer:
        """The deserializer of the message that the value's indexes name."""
        named = SchemaId("PROTOBUF")
        dual_schema_id_deserializer(value, context, named)
        indexes = tuple(named.message_indexes or [0])
        found = self.deserializers.get((name, indexes))
        if found is None:
            if name not in self.pools:
                self.pools[name] = read_pool(self.registry.client, schema)
            found = _Deserializer(self.pools[name], indexes, self.registry.client)
            self.deserializers[name, indexes] = found
        return found


def _fields(message: ProtoMessage) -> dict[str, Any]:
    """A message as a dict. A field without presence that is not set has its default: that is what proto3 means."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            found[field.name] = _repeated(getattr(message, field.name), field)
        elif not field.has_presence or message.HasField(field.name):
            found[field.name] = _single(getattr(message, field.name), field)
    if message.DESCRIPTOR.is_extendable:
        found |= _extensions(message)
    return found


def _extensions(message: ProtoMessage) -> dict[str, Any]:
    """What proto2's extensions of a message add to it, named as in Protobuf's own JSON: [package.name]."""
    return {
        f"[{field.full_name}]": (_repeated if field.is_repeated else _single)(value, field)
        for field, value in message.ListFields() if field.is_extension
    }  # fmt: skip


def _repeated(values: Any, field: Any) -> Any:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        value_field = entry.fields_by_name["value"]
        key_field = entry.fields_by_name["key"]
        return {_key(key, key_field): _single(values[key], value_field) for key in sorted(values)}
    return [_single(value, field) for value in values]


def _key(key: Any, field: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(_single(key, field))


def _single(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        name = field.message_type.full_name
        if name in WRAPPERS:
            return _single(value.value, field.message_type.fields_by_name["value"])
        known = WELL_KNOWN.get(name)
        return known(value) if known is not None else _fields(value)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return value if named is None else named.name
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return shortest_float(value)
    return _text_or_bytes(value, field) if isinstance(value, bytes) else value


def _text_or_bytes(value: bytes, field: Any) -> str:
    """Bytes as base64. Those of a string are no UTF-8: proto2 lets them pass."""
    if field.type == FieldDescriptor.TYPE_STRING:
        raise ValueError(f"{field.full_name} is a string, and not UTF-8: it begins with {value[:20]!r}")
    return base64.b64encode(value).decode("ascii")


def _confluent_decimal(value: Any) -> Decimal:
    unscaled = int.from_bytes(value.value, "big", signed=True)
    return exact_decimal(unscaled, value.scale)


def _date(value: Any) -> Any:
    is_whole = value.year and value.month and value.day
    return f"{value.year:04d}-{value.month:02d}-{value.day:02d}" if is_whole else _fields(value)


def _any(value: Any) -> dict[str, str]:
    return {"@type": value.type_url, "value": base64.b64encode(value.value).decode("ascii")}


def _document(value: Any) -> Any:
    """A Value, Struct or ListValue as what it holds. Protobuf's own JSON refuses NaN and infinities in them."""
    kind = value.DESCRIPTOR.name
    if kind == "Struct":
        return {name: _document(value.fields[name]) for name in value.fields}
    if kind == "ListValue":
        return [_document(inner) for inner in value.values]
    held = value.WhichOneof("kind")
    if held is None or held == "null_value":
        return None
    found = getattr(value, held)
    return _document(found) if held in {"struct_value", "list_value"} else found


WELL_KNOWN: dict[str, Callable[[Any], Any]] = {
    "google.protobuf.Timestamp": lambda value: value.ToJsonString(),
    "google.protobuf.Duration": lambda value: value.ToJsonString(),
    "google.protobuf.FieldMask": lambda value: ",".join(value.paths),  # as they came: the event's keys are too
    "google.protobuf.Any": _any,
    "google.protobuf.Struct": _document,
    "google.protobuf.Value": _document,
    "google.protobuf.ListValue": _document,
    "google.type.Date": _date,
    "google.type.Decimal": lambda value: value.value,
    "confluent.type.Decimal": _confluent_decimal,
}
