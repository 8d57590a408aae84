"""Whether messages came from the topic that was claimed, and not from one that was created again under its name.

librdkafka follows a name: when a topic is deleted and created again while it is read, it goes on at the old offset in
the new topic, without a word (measured with 2.16). Kafka's ids of topics never return, so one question after the
messages were polled settles it: if the id is still the claim's, every message before came from that topic.
Not here: what is done about it (writer.py), ids at the time of a claim (ledger.py).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException, TopicCollection

from streaming import kafka
from streaming.errors import BrokerUnavailableError, TopicError, TopicRecreatedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka.admin import AdminClient

    from streaming.ledger import Claim
    from streaming.settings import KafkaSettings

ASK_TIMEOUT_S = 5.0  # an answer takes 0.6 ms; a broker that is starting takes seconds


class TopicWatch:
    """Asks a broker for the ids of topics; the answer is awaited elsewhere, so that asking costs the loop nothing."""

    def __init__(self, settings: KafkaSettings, admin: AdminClient | None = None) -> None:
        self.settings = settings
        self.admin = admin or kafka.admin_client(settings)

    def ask(self, topics: Iterable[str]) -> Proof:
        """Send the question."""
        return Proof(self, sorted(set(topics)))

    def renew(self, silent: AdminClient) -> None:
        """Ask by another client from now on, if it is still this one that got no answer.

        After a broker that was frozen for a minute a client for administration waits for the controller for ever
        (measured with librdkafka 2.16), while a new one, and the consumer itself, are answered at once.
        """
        if self.admin is silent:
            with suppress(BrokerUnavailableError):  # a certificate that is being replaced: the next try makes one
                self.admin = kafka.admin_client(self.settings)


class Proof:
    """One question and its answer: which topics stood behind the names at an instant after the messages were polled."""

    def __init__(self, watch: TopicWatch, topics: list[str]) -> None:
        self._watch = watch
        self._topics = topics
        self._admin = watch.admin
        self._futures: dict[str, Any] = self._admin.describe_topics(
            TopicCollection(topics), request_timeout=ASK_TIMEOUT_S
        )

    def again(self) -> Proof:
        """The same question after one that got no answer, asked now and by a new client."""
        self._watch.renew(self._admin)
        return Proof(self._watch, self._topics)

    def check(self, claims: Iterable[Claim]) -> None:
        """Wait for the answer and compare it with the claims.

        Raises:
            TopicRecreatedError: a topic was deleted and created again since it was claimed.
            TopicError: a topic is gone.
            BrokerUnavailableError: nobody answered; ask again.
        """
        found: dict[str, str | None] = {}
        for claim in claims:
            if claim.topic_id is None:
                continue  # brokers before 2.8 give topics no ids
            if claim.topic not in found:
                found[claim.topic] = self._find_id(claim.topic)
            if found[claim.topic] != claim.topic_id:
                raise TopicRecreatedError(
                    f"landing {claim.topic}[{claim.topic_partition}]: the topic was deleted and created again while it "
                    f"was read; its id was {claim.topic_id}, is {found[claim.topic]}. What was read since is not "
                    f"landed, so that old and new events are never mixed. Produce to a new topic name with a contract "
                    f"of its own; or, if the old events may go, remove this topic's rows from the control tables and "
                    f"its landing table, and start again."
                )

    def _find_id(self, topic: str) -> str | None:
        try:
            described = self._futures[topic].result()
        except KafkaException as error:
            if kafka.is_unknown_topic(error):
                raise TopicError(
                    f"landing {topic}: the topic is gone. What was landed stays; what was read since the last batch is "
                    f"not landed, since it may come from another topic of that name. If it was deleted on purpose, "
                    f"remove its contract from this consumer."
                ) from error
            raise kafka.unavailable(self._watch.settings, f"asking for the id of topic {topic}", error) from error
        return kafka.topic_id(described)
