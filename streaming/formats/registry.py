"""The schema registry: a client with our settings, and what its errors mean.

Whatever goes wrong while it is asked is the registry's, whatever goes wrong with its answer is the message's.
Not here: what a schema is used for (avro.py, protobuf.py).
"""

from __future__ import annotations

import re
import ssl
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import httpx2
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from streaming.decode import Refusal
from streaming.errors import RegistryError, RegistryUnavailableError, SettingsError
from streaming.formats.framing import schema_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from confluent_kafka.schema_registry import RegisteredSchema, Schema

    from streaming.headers import Headers
    from streaming.settings import RegistrySettings

NOT_FOUND = 404
UNKNOWN = (40401, 40402, 40403)  # no such subject, version, schema; any other 404 is not about the schema,
UNKNOWN_TEXT = re.compile(r"No (?:content|artifact|version) .*\bfound\b")  # but for Apicurio 2.0: it has no such codes
TIMED_OUT = 408
UNAUTHORIZED = (401, 403)
TOO_MANY = 429
REDIRECTED = range(300, 400)
SERVER_ERROR = 500
FORM_OF = {"PROTOBUF": "serialized"}  # descriptors instead of .proto text, which would need a compiler
UNKNOWN_FOR_S = 30.0  # a schema that the registry does not know is asked for again after it, not for every event
TIMEOUT_S = 2  # twice that and a stop takes more than its 5 s; a slow registry is asked again by the consumer
WHOLE_S = 4.0  # for an answer to its last byte; less, and a large schema on a slow link would never come
UNTIL = "landing.until"  # among a request's extensions: when its answer has to be whole
MOST_WORDS = 300  # of an error that the registry sends
RETRIES = 1  # within a call; beyond it the consumer waits, within its outage limit


class AskingError(Exception):
    """The registry was asked and gave no schema; the cause says why."""


class AskingClient(SchemaRegistryClient):
    """Confluent's client. What it raises is told apart from what its caller, a deserializer, raises by itself."""

    def get_schema(self, *args: Any, **named: Any) -> Schema:
        """The schema of an id. Raises AskingError."""
        with self._asking():
            return self._whole(super().get_schema(*args, **named))

    def get_schema_by_guid(self, *args: Any, **named: Any) -> Schema:
        """The schema of a GUID. Raises AskingError."""
        with self._asking():
            return self._whole(super().get_schema_by_guid(*args, **named))

    def get_version(self, *args: Any, **named: Any) -> RegisteredSchema:
        """The schema of a subject's version, which another one refers to. Raises AskingError."""
        with self._asking():
            found = super().get_version(*args, **named)
            self._whole(found.schema)
            return found

    def _whole(self, schema: Schema) -> Schema:
        if not isinstance(schema.schema_str, str):
            self.clear_caches()  # type: ignore[no-untyped-call]  # it would be kept for ever
            raise TypeError("an answer without a schema")
        return schema

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except REGISTRY_ERRORS as error:
            raise AskingError from error


class Registry:
    """A registry and its schemas, which never change and are kept, as one topic needs them."""

    def __init__(
        self, settings: RegistrySettings, *, topic: str, kind: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """The topic's registry; `kind` is what the registry calls the contract's schemas (AVRO, PROTOBUF)."""
        if not settings.url:
            raise SettingsError(
                "reading the settings of streaming (schema registry): SCHEMA_REGISTRY_URL is not set, but a contract's "
                "payloadFormat needs it; for example SCHEMA_REGISTRY_URL=http://registry:8081. Nothing was started."
            )
        self.url = settings.url
        self.kind = kind
        self.subject = f"{topic}-value"  # as the deserializers ask, so that each schema is asked for once
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
        decode: Callable[[str, Schema], bytes],
        *,
        undecodable: tuple[type[BaseException], ...],
    ) -> bytes | Refusal:
        """JSON of a value by the schema that it names, or why there is none.

        Args:
            value: framed, with its schema's id (or the headers have it).
            headers: of the message.
            decode: the value's JSON, given the schema's name and the schema.
            undecodable: what `decode` raises for bytes that are not of their schema.
        """
        schema = schema_named(value, headers)
        if isinstance(schema, Refusal):
            return schema
        if refusal := self.known_unknown(schema):
            return refusal
        try:
            found = self._ask(schema)
            if found.schema_type != self.kind:
                detail = f"schema {schema} is {found.schema_type}, the contract says {self.kind.lower()}"
                return Refusal("undecodable", detail)
            return decode(schema, found)
        except AskingError as error:
            return self.judge_error(error.__cause__, schema)
        except undecodable as error:
            return Refusal("undecodable", f"by schema {schema}: {type(error).__name__}: {error}"[:500])

    def _ask(self, schema: str) -> Schema:
        """The schema of an id or a GUID; the client keeps it."""
        form = FORM_OF.get(self.kind)
        if schema.isdecimal():
            return self.client.get_schema(int(schema), self.subject, form)
        return self.client.get_schema_by_guid(schema, fmt=form)

    def judge_error(self, error: BaseException | None, schema: str) -> Refusal:
        """The refusal of an event whose schema does not exist. Raises for errors that are not the event's fault."""
        if isinstance(error, NO_ANSWER):
            found = f"what came is no registry's answer ({type(error).__name__}: {error})"
            raise RegistryUnavailableError(self._tried(schema, found)) from error
        if not isinstance(error, SchemaRegistryError):
            raise RegistryUnavailableError(self._tried(schema, str(error) or type(error).__name__)) from error
        status = error.http_status_code
        if status == NOT_FOUND and _says_unknown(error):
            refusal = Refusal("unknown_schema", f"the registry has no schema {schema}: {_words(error)}")
            self.unknown[schema] = (refusal, self.clock() + UNKNOWN_FOR_S)
            return refusal
        if status in UNAUTHORIZED:
            raise RegistryError(
                f"asking the schema registry {self.url} for schema {schema}: it refuses our log-in (HTTP {status}: "
                f"{_words(error)}). Nothing was skipped; the consumer stopped. Check SCHEMA_REGISTRY_USERNAME "
                f"and SCHEMA_REGISTRY_PASSWORD."
            ) from error
        if status in REDIRECTED:
            raise RegistryError(
                f"asking the schema registry {self.url} for schema {schema}: it sends us elsewhere (HTTP {status}), "
                f"and redirects are not followed. Nothing was skipped; the consumer stopped. Set SCHEMA_REGISTRY_URL "
                f"to where it leads (`curl -I` shows it): https:// instead of http://, another host or path, or past "
                f"a log-in page."
            ) from error
        if status == NOT_FOUND:
            raise RegistryUnavailableError(
                f"asking the schema registry {self.url} for schema {schema}: HTTP 404, and not since there "
                f"is no such schema: {_words(error)}. Nothing was skipped; it is tried again until the outage "
                f"limit. Check the path of SCHEMA_REGISTRY_URL, and what stands before the registry."
            ) from error
        if status in (TIMED_OUT, TOO_MANY, SchemaRegistryError.UNKNOWN) or status >= SERVER_ERROR:
            raise RegistryUnavailableError(self._tried(schema, f"HTTP {status}: {_words(error)}")) from error
        raise RegistryError(
            f"asking the schema registry {self.url} for schema {schema}: HTTP {error.http_status_code}: "
            f"{_words(error)}. Nothing was skipped; the consumer stopped. Check SCHEMA_REGISTRY_URL."
        ) from error

    def _tried(self, schema: str, found: str) -> str:
        return (
            f"asking the schema registry {self.url} for schema {schema}: {found}. Nothing was skipped; it is tried "
            f"again until the outage limit. Check that it is up, SCHEMA_REGISTRY_URL and SCHEMA_REGISTRY_CA_FILE."
        )


def _words(error: SchemaRegistryError) -> str:
    """What the registry says, or the beginning of the page that came in its place: some have pictures in them."""
    text = str(error.error_message)
    return text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS]}... ({len(text)} characters)"


def _says_unknown(error: SchemaRegistryError) -> bool:
    return error.error_code in UNKNOWN or bool(UNKNOWN_TEXT.match(str(error.error_message)))


# what the client may raise while it asks
NO_ANSWER = (AttributeError, LookupError, TypeError, ValueError)  # by HTTP 200 with a proxy's page, or `null`
REGISTRY_ERRORS = (SchemaRegistryError, httpx2.HTTPError, httpx2.InvalidURL, OSError, *NO_ANSWER)


class _Bounded(httpx2.SyncByteStream):
    """The body of an answer, until a moment: the client's own limit begins anew with each byte that comes."""

    def __init__(self, stream: httpx2.SyncByteStream, request: httpx2.Request) -> None:
        self.stream = stream
        self.request = request
        self.until = request.extensions[UNTIL]

    def __iter__(self) -> Iterator[bytes]:
        """The body, in parts."""
        for part in self.stream:
            if time.monotonic() > self.until:
                raise httpx2.ReadTimeout(f"its answer was not whole within {WHOLE_S} s", request=self.request)
            yield part

    def close(self) -> None:
        """Give the connection back, or end it if not all was read."""
        self.stream.close()


def _begin(request: httpx2.Request) -> None:
    request.extensions = {**request.extensions, UNTIL: time.monotonic() + WHOLE_S}


def _bound(response: httpx2.Response) -> None:
    response.stream = _Bounded(cast("httpx2.SyncByteStream", response.stream), response.request)


def _check_files(settings: RegistrySettings) -> None:
    """Raise SettingsError for certificates and keys that cannot be used; the client would end with a traceback.

    A key with a password that is not set would have it asked for at the terminal.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tried = f"SCHEMA_REGISTRY_CA_FILE={settings.ca_file} has no certificates in PEM"
    try:
        if settings.ca_file:
            context.load_verify_locations(settings.ca_file)
        tried = (
            f"SCHEMA_REGISTRY_CERTIFICATE_FILE={settings.certificate_file} and SCHEMA_REGISTRY_KEY_FILE="
            f"{settings.key_file} are no certificate and its key in PEM, or SCHEMA_REGISTRY_KEY_PASSWORD is not its"
        )
        if settings.certificate_file:
            context.load_cert_chain(settings.certificate_file, settings.key_file, lambda: settings.key_password)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"reading the settings of streaming (schema registry): {tried} ({error}). Nothing was started."
        ) from error


def _client(settings: RegistrySettings) -> AskingClient:
    _check_files(settings)
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
    client = AskingClient(config)
    session = client._rest_client.session  # noqa: SLF001 there is no other way to its requests
    session.event_hooks = {"request": [_begin], "response": [_bound]}
    return client
