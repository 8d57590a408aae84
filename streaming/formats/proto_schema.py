"""Protobuf schemas of the registry -> descriptors, with everything that they refer to.

Not here: reading messages by them (protobuf.py).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from confluent_kafka.schema_registry.protobuf import _init_pool
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.type import decimal_pb2, interval_pb2, localized_text_pb2, phone_number_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

FILE = (
    "//message.proto"  # protoc refuses two slashes in a row in an import: no file that a schema refers to has the name
)
BUILT_IN = ("google/protobuf/", "google/type/", "confluent/")  # every pool has them, and no registry is asked for them


def read_pool(client: SchemaRegistryClient, schema: Schema) -> DescriptorPool:
    """A pool with the schema's file (as FILE) and those it imports."""
    pool = DescriptorPool()
    _init_pool(pool)  # the well-known types, as the deserializer itself has them
    for module in (decimal_pb2, interval_pb2, localized_text_pb2, phone_number_pb2):  # which it leaves out
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    _add(client, pool, schema, FILE, set())
    return pool


def _add(client: SchemaRegistryClient, pool: DescriptorPool, schema: Any, name: str, seen: set[str]) -> None:
    for reference in schema.references or ():
        if reference.name in seen or reference.name.startswith(BUILT_IN):
            continue
        seen.add(reference.name)
        referred = client.get_version(reference.subject, reference.version, True, "serialized")  # noqa: FBT003 deleted ones too
        _add(client, pool, referred.schema, reference.name, seen)
    file = descriptor_pb2.FileDescriptorProto()
    file.ParseFromString(base64.b64decode(schema.schema_str, validate=True))
    file.name = name
    pool.Add(file)


def message_descriptor(pool: DescriptorPool, indexes: Sequence[int]) -> Any:
    """The message that a value's indexes name: the n-th of the file, the n-th within that, and so on."""
    file = pool.FindFileByName(FILE)
    messages = [*file.message_types_by_name.values()]
    descriptor = None
    for index in indexes:
        descriptor = messages[index]
        messages = [*descriptor.nested_types]
    return descriptor
