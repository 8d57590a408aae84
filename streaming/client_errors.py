"""What librdkafka tells of trouble, and what follows: nothing, an outage, joining again, or the end of the consumer.

Errors come by a callback, or in the place of a message. An exception in a callback would be swallowed, so it is kept
for the loop. Not here: fences (fencing.py), why Kafka cannot be reached (kafka_trouble.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaError

from streaming import kafka
from streaming.errors import BrokerUnavailableError, TopicError
from streaming.kafka_trouble import advice, is_denied, is_refusal, is_token_away
from streaming.rejoining import RejoinError
from streaming.settings import OAUTH

if TYPE_CHECKING:
    from streaming.fencing import Fencing
    from streaming.metrics import LandingMetrics
    from streaming.polled import PolledMessage
    from streaming.settings import LandingSettings

OFFSET_GONE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001 public constants, odd names
TOPIC_GONE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}  # noqa: SLF001
PASSING = {
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._MAX_POLL_EXCEEDED,  # noqa: SLF001 librdkafka leaves the group and joins again by itself
}

log = structlog.get_logger()


class ClientErrors:
    """The trouble of one session: what a callback has met, and since when no broker answers."""

    def __init__(self, settings: LandingSettings, metrics: LandingMetrics, fencing: Fencing) -> None:
        self.settings = settings
        self.metrics = metrics
        self.fencing = fencing
        self.broker_down_since: float | None = None
        self._kept: Exception | None = None
        self._token_error: KafkaError | None = None

    def begin(self) -> None:
        """A new session knows nothing of the one before."""
        self._kept = None
        self._token_error = None
        self.broker_down_since = None

    def keep(self, error: Exception) -> None:
        """Keep what a callback has met: librdkafka would swallow it."""
        self._kept = error

    def raise_kept(self) -> None:
        """Raise what a callback has met."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            raise kept

    def raise_outage(self) -> None:
        """Raise BrokerUnavailableError once no broker has answered for longer than the limit."""
        if self.broker_down_since is None:
            return
        down_s = time.monotonic() - self.broker_down_since
        if down_s > self.settings.outage_limit_s:
            why = "" if self._token_error is None else (
                f" {self._token_error.str()}. {advice(self.settings.kafka, self._token_error)}"
            )  # fmt: skip
            raise BrokerUnavailableError(
                f"reading from {self.settings.kafka.bootstrap_servers}: no broker for {down_s:.0f} s "
                f"(STREAMING_OUTAGE_LIMIT_S).{why} Nothing is lost: start `streaming consume` again once Kafka is back."
            )

    def note_brokers(self, *, is_any_up: bool) -> None:
        """Whether a connection to any broker stands, as the statistics say."""
        if is_any_up:
            if self.broker_down_since is not None:
                log.info("broker_available_again", seconds=round(time.monotonic() - self.broker_down_since, 1))
            self.broker_down_since = None
        elif self._token_error is not None:
            self._begin_outage(self._token_error)  # without a token librdkafka waits, and tells nothing more

    def _begin_outage(self, error: KafkaError) -> None:
        if self.broker_down_since is None:
            self.broker_down_since = time.monotonic()
            self.metrics.outages.labels("broker").inc()
            log.warning("broker_unavailable", error=error.str(), gives_up_after_s=self.settings.outage_limit_s)

    def on_error(self, error: KafkaError) -> None:
        """Librdkafka's callback for errors without a message."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001
            self._begin_outage(error)
        elif error.fatal():
            self.keep(self.fencing.fatal(error))
        elif is_token_away(error):
            self._token_error = error  # told once for each cause; that it is over is never told
            log.warning("token_unavailable", error=error.str(), note="the broker is asked again with the next token")
        elif error.code() == KafkaError._AUTHENTICATION and self._token_error is not None:  # noqa: SLF001
            self._begin_outage(error)  # refused for the old token, which has ended meanwhile: no wrong log-in
        elif error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001
            self.keep(
                TopicError(
                    f"logging in to {self.settings.kafka.bootstrap_servers}: {error.str()}. The consumer stopped; "
                    f"nothing is lost. {advice(self.settings.kafka, error)}"
                )
            )

    def on_message_error(self, message: PolledMessage) -> None:
        """An error that came in the place of a message.

        Raises:
            RejoinError: the offset that is due is gone, or the broker did not know a topic for a moment.
            TopicError: a person has to decide.
        """
        error = message.error()
        if error is None:
            return
        code, topic = error.code(), message.topic()  # None where the group is what the error is of
        where = f"{topic}[{message.partition()}]" if topic else f"as group {self.settings.group_id}"
        if error.fatal() or code == KafkaError._FATAL:  # noqa: SLF001
            raise self.fencing.fatal(error)
        if code in OFFSET_GONE:
            raise RejoinError(f"{where}: the offset that is due does not exist any more ({error.str()})")
        if self._is_without_token(error):
            self._begin_outage(error)
            return
        if code in PASSING or error.retriable():
            log.debug("passing_error", where=where, error=error.str())
            return
        if code in TOPIC_GONE:
            if self._is_known(message.topic()):
                raise RejoinError(f"{where}: {error.str()}, but the broker knows it")
            raise TopicError(
                f"reading {where}: the topic is gone ({error.str()}). What was landed stays; nothing more was landed. "
                f"If it was deleted on purpose, remove its contract from this consumer; to land the others "
                f"meanwhile, name each by --topic."
            )
        remedy = f" {advice(self.settings.kafka, error)}" if is_denied(error) or is_refusal(error) else ""
        raise TopicError(
            f"reading {where}: {error.str()} ({error.name()}). Nothing was skipped; the consumer stopped.{remedy}"
        )

    def _is_without_token(self, error: KafkaError) -> bool:
        """Whether a broker has refused the group for a token that has ended, the next one not being there yet.

        A token that is refused for what it says is told by the callback, which ends the consumer.
        """
        is_by_token = self._token_error is not None or self.settings.kafka.sasl_mechanism == OAUTH
        return is_by_token and error.code() == KafkaError._AUTHENTICATION  # noqa: SLF001

    def _is_known(self, topic: str) -> bool:
        """Whether the broker knows the topic; one that has just started may deny it for a moment."""
        try:
            return topic in kafka.describe_topics(self.settings.kafka, [topic])
        except BrokerUnavailableError:
            return True
