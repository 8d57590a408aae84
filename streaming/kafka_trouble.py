"""Why Kafka cannot be reached, in words: librdkafka's calls time out, and tell the reason only to a callback.

Not here: what is asked of Kafka (kafka.py).
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

if TYPE_CHECKING:
    from streaming.settings import KafkaSettings

LOOK_S = 3.0  # within it a wrong log-in is told twice; longer only delays the message of a broker that is down
NO_TOKEN = "OAUTHBEARER token"  # noqa: S105 words of librdkafka's about the token's server, which may be away for a while
# What an OAuth server answers (RFC 6749, 5.2), but for the two errors that pass by themselves.
REFUSED_TOKEN = re.compile(r'"error"\s*:\s*"(?!temporarily_unavailable|server_error)|certificate')
REFUSED_CERTIFICATE = "alert certificate"  # told as a connection that broke
DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
RIGHTS = (
    "to land, its user needs DESCRIBE and READ on the topic, and READ on the group (STREAMING_GROUP_ID); to produce, "
    "DESCRIBE and WRITE on the topic; to create a topic, CREATE on it or on the cluster, and DESCRIBE on it"
)
LOG_IN = {
    "OAUTHBEARER": "KAFKA_OAUTH_TOKEN_URL, KAFKA_OAUTH_CLIENT_ID, KAFKA_OAUTH_CLIENT_SECRET and KAFKA_OAUTH_SCOPE",
    "": "KAFKA_SECURITY_PROTOCOL: the broker wants another one",
}


class Reason(NamedTuple):
    """Why Kafka cannot be reached; the text is empty where nothing was met in time."""

    text: str
    remedy: str
    is_refusal: bool  # no wait will help


def look_for_reason(settings: KafkaSettings, *, look_s: float = LOOK_S) -> Reason:
    """What a connection meets, and what to do about it."""
    told: list[KafkaError] = []
    try:
        client = Producer({**settings.client_config(), "log_level": 0, "error_cb": told.append})
    except KafkaException as error:
        return Reason(error.args[0].str(), advice(settings, error.args[0]), is_refusal=True)
    deadline = time.monotonic() + look_s
    while time.monotonic() < deadline and not any(map(_is_telling, told)):
        client.poll(0.1)
    telling = [error for error in told if _is_telling(error)] or told
    if not telling:
        return Reason("", advice(settings, None), is_refusal=False)
    return Reason(telling[0].str(), advice(settings, telling[0]), is_refusal=is_refusal(telling[0]))


def _is_telling(error: KafkaError) -> bool:
    return error.code() in {KafkaError._AUTHENTICATION, KafkaError._SSL}  # noqa: SLF001 public constants, odd names


def is_token_away(error: KafkaError) -> bool:
    """Whether it is the token's server that does not answer: an outage, and no wrong log-in."""
    return error.code() == KafkaError._AUTHENTICATION and NO_TOKEN in error.str()  # noqa: SLF001


def is_refusal(error: KafkaError) -> bool:
    """Whether somebody has answered and refuses us: to wait does not help, other settings do."""
    if is_token_away(error):
        return REFUSED_TOKEN.search(error.str()) is not None
    return _is_telling(error) or REFUSED_CERTIFICATE in error.str()


def is_denied(error: KafkaError) -> bool:
    """Whether the broker knows us and does not let us do this: an ACL is missing."""
    return error.code() in DENIED


def advice(settings: KafkaSettings, error: KafkaError | None) -> str:
    """What to check."""
    code: Any = None if error is None else error.code()
    text = "" if error is None else error.str().lower()
    if error is not None and is_denied(error):
        return f"The broker takes our log-in and lacks an ACL for it: {RIGHTS}."
    if code == KafkaError._AUTHENTICATION:  # noqa: SLF001
        mechanism = settings.sasl_mechanism
        return (
            "Check " + LOG_IN.get(mechanism, "KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD") + "."
        )
    if "certificate required" in text or "handshake failure" in text or "alert" in text:
        return "The broker refuses our certificate, or demands one: check KAFKA_SSL_CERTIFICATE_FILE and _KEY_FILE."
    if "ssl.key" in text or "ssl.certificate" in text or "private key" in text:
        return "Check KAFKA_SSL_CERTIFICATE_FILE, KAFKA_SSL_KEY_FILE and KAFKA_SSL_KEY_PASSWORD."
    if code == KafkaError._SSL or "ssl" in text:  # noqa: SLF001
        return (
            "Check KAFKA_SSL_CA_FILE (whose authority signed the brokers' certificates), that the brokers' names in "
            "KAFKA_BOOTSTRAP_SERVERS are those of the certificates, and KAFKA_SECURITY_PROTOCOL."
        )
    return (
        "Check that Kafka is up and KAFKA_BOOTSTRAP_SERVERS, KAFKA_SECURITY_PROTOCOL, certificates (KAFKA_SSL_*) and "
        "credentials are right."
    )


def is_fenced(error: KafkaError) -> bool:
    """Whether the group has given this consumer's stable name to another member."""
    is_fatal = error.code() == KafkaError._FATAL  # noqa: SLF001 of a message, it names its reason in words only
    return error.code() == KafkaError.FENCED_INSTANCE_ID or (is_fatal and "fenced by other consumer" in error.str())
