"""The schema registry: a client with our settings, and what its errors mean.

Not here: what a schema is used for (avro.py, protobuf.py).
"""

from __future__ import annotations

import json
import time
import weakref
from typing import TYPE_CHECKING

import httpx2
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from streaming.decode import Refusal
from streaming.errors import RegistryError, RegistryUnavailableError, SettingsError
from streaming.formats.framing import schema_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from streaming.headers import Headers
    from streaming.settings import RegistrySettings

NOT_FOUND = 404
UNAUTHORIZED = (401, 403)
TOO_MANY = 429
SERVER_ERROR = 500
UNKNOWN_FOR_S = 30.0  # a schema that the registry does not know is asked for again after it, not for every event
TIMEOUT_S = 2  # twice that and a stop takes more than its 5 s; a slow registry is asked again by the consumer
RETRIES = 1  # within a call; beyond it the consumer waits, within its outage limit


class Registry:
    """A registry and its schemas, which never change and are kept."""

    def __init__(self, settings: RegistrySettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not settings.url:
            raise SettingsError(
                "reading the settings of streaming (schema registry): SCHEMA_REGISTRY_URL is not set, but a contract's "
                "payloadFormat needs it; for example SCHEMA_REGISTRY_URL=http://registry:8081. Nothing was started."
            )
        self.url = settings.url
        self.client = _client(settings)
        weakref.finalize(self, self.client.__exit__, None, None, None)  # its connections end with its last user
        self.clock = clock
        self.unknown: dict[str, tuple[Refusal, float]] = {}

    def known_unknown(self, schema: str) -> Refusal | None:
        """The refusal of a schema that was not found a moment ago."""
        refusal, until = self.unknown.get(schema, (None, 0.0))
        return refusal if self.clock() < until else None

    def read(
        self,
        value: bytes,
        headers: Headers,
        decode: Callable[[str], bytes],
        *,
        undecodable: tuple[type[BaseException], ...],
    ) -> bytes | Refusal:
        """JSON of a value by the schema that it names, or why there is none.

        Args:
            value: framed, with its schema's id (or the headers have it).
            headers: of the message.
            decode: the value's JSON, given the schema's name.
            undecodable: what `decode` raises for bytes that are not of their schema.
        """
        schema = schema_named(value, headers)
        if isinstance(schema, Refusal):
            return schema
        if refusal := self.known_unknown(schema):
            return refusal
        try:
            return decode(schema)
        except REGISTRY_ERRORS as error:
            return self.judge_error(error, schema)
        except undecodable as error:
            return Refusal("undecodable", f"by schema {schema}: {type(error).__name__}: {error}"[:500])

    def judge_error(self, error: Exception, schema: str) -> Refusal:
        """The refusal of an event whose schema does not exist. Raises for errors that are not the event's fault."""
        if not isinstance(error, SchemaRegistryError):
            raise RegistryUnavailableError(self._tried(schema, str(error) or type(error).__name__)) from error
        status = error.http_status_code
        if status == NOT_FOUND:
            refusal = Refusal("unknown_schema", f"the registry has no schema {schema}: {error.error_message}")
            self.unknown[schema] = (refusal, self.clock() + UNKNOWN_FOR_S)
            return refusal
        if status in UNAUTHORIZED:
            raise RegistryError(
                f"asking the schema registry {self.url} for schema {schema}: it refuses our log-in (HTTP {status}: "
                f"{error.error_message}). Nothing was skipped; the consumer stopped. Check SCHEMA_REGISTRY_USERNAME "
                f"and SCHEMA_REGISTRY_PASSWORD."
            ) from error
        if status in (TOO_MANY, SchemaRegistryError.UNKNOWN) or status >= SERVER_ERROR:
            raise RegistryUnavailableError(self._tried(schema, f"HTTP {status}: {error.error_message}")) from error
        raise RegistryError(
            f"asking the schema registry {self.url} for schema {schema}: HTTP {error.http_status_code}: "
            f"{error.error_message}. Nothing was skipped; the consumer stopped. Check SCHEMA_REGISTRY_URL."
        ) from error

    def _tried(self, schema: str, found: str) -> str:
        return (
            f"asking the schema registry {self.url} for schema {schema}: {found}. Nothing was skipped; it is tried "
            f"again until the outage limit. Check that it is up, SCHEMA_REGISTRY_URL and SCHEMA_REGISTRY_CA_FILE."
        )


# what the client may raise when the registry cannot be asked; JSONDecodeError: a proxy's page instead of an answer
REGISTRY_ERRORS = (SchemaRegistryError, httpx2.HTTPError, httpx2.InvalidURL, OSError, json.JSONDecodeError)


def _client(settings: RegistrySettings) -> SchemaRegistryClient:
    config: dict[str, object] = {
        "url": settings.url,
        "timeout": TIMEOUT_S,
        "max.retries": RETRIES,
        "retries.wait.ms": 200,
        "retries.max.wait.ms": 1000,
    }
    if settings.username:
        config["basic.auth.user.info"] = f"{settings.username}:{settings.password}"
    if settings.ca_file:
        config["ssl.ca.location"] = settings.ca_file
    if settings.certificate_file:
        config |= {"ssl.certificate.location": settings.certificate_file, "ssl.key.location": settings.key_file}
        if settings.key_password:
            config["ssl.key.password"] = settings.key_password
    return SchemaRegistryClient(config)
