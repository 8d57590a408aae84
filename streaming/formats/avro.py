"""Avro with a schema registry -> JSON, by confluent-kafka's deserializer. Decimals and instants stay exact.

Not here: what the registry's errors mean (registry.py), how a schema is marked (avro_schema.py), how much a
value may become (avro_depth.py).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import fastavro.schema
from confluent_kafka.schema_registry import topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext, SerializationError

from streaming.formats.avro_depth import Names, check_value, names_to_follow
from streaming.formats.avro_schema import mark, register_readers
from streaming.formats.exact_json import to_json
from streaming.formats.framing import strip_frame

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

    from streaming.decode import Refusal
    from streaming.formats.registry import Registry
    from streaming.headers import Headers

# what decoding bytes by a schema that is not theirs may raise
UNDECODABLE = (
    SerializationError, ValueError, TypeError, EOFError, LookupError, ArithmeticError, struct.error, RecursionError,
    MemoryError, fastavro.schema.SchemaParseException, fastavro.schema.UnknownType,
)  # fmt: skip


class _Deserializer(AvroDeserializer):
    """Confluent's, with schemas that are marked for an exact reading."""

    def __init__(self, client: SchemaRegistryClient, *, is_connect: bool) -> None:
        super().__init__(client, conf={"subject.name.strategy": topic_subject_name_strategy})
        self.is_connect = is_connect

    def _get_parsed_schema(self, schema: Schema) -> Any:
        found = self._parsed_schemas.get_parsed_schema(schema)
        if found is None:
            found = mark(super()._get_parsed_schema(schema), is_connect=self.is_connect)
            self._parsed_schemas.set(schema, found)
        return found

    def parsed(self, schema: Schema) -> Any:
        """A schema with those it refers to; kept."""
        return self._get_parsed_schema(schema)


class AvroReader:
    """Values of one topic."""

    def __init__(self, topic: str, registry: Registry, *, is_connect: bool) -> None:
        """A topic's reader; `is_connect` says that Kafka Connect's names for values are heeded."""
        self.topic = topic
        self.registry = registry
        register_readers()
        self.deserialize = _Deserializer(registry.client, is_connect=is_connect)
        self.followed: dict[str, Names | None] = {}

    def __call__(self, value: bytes, headers: Headers) -> bytes | Refusal:
        """JSON of a value, or why there is none."""
        context = SerializationContext(self.topic, MessageField.VALUE, [*headers])

        def decode(name: str, schema: Schema) -> bytes:
            names = self._names_to_follow(name, schema)
            if names is not None and isinstance(inner := strip_frame(value, headers), bytes):
                check_value(self.deserialize.parsed(schema), names, inner)
            return to_json(self.deserialize(value, context))

        return self.registry.read(value, headers, decode, undecodable=UNDECODABLE)

    def _names_to_follow(self, name: str, schema: Schema) -> Names | None:
        if name not in self.followed:
            self.followed[name] = names_to_follow(self.deserialize.parsed(schema))
        return self.followed[name]
