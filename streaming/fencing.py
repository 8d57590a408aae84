"""What a consumer does that is fenced: by the ledger, since another one claimed its topic partition, or by the broker.

A fence that comes once is a rebalance that went on elsewhere: join again. One that comes again and again has a cause
that a person has to mend: a second group on the topic, or a twin, that is a process with the same stable name.
Not here: the fence itself (ledger.py, and the broker's group.instance.id).
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, NoReturn

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streaming import database, ledger
from streaming.database import transaction
from streaming.errors import TopicError
from streaming.kafka_trouble import is_fenced
from streaming.rejoining import RejoinError

if TYPE_CHECKING:
    from streaming.ledger import Claim
    from streaming.membership import InstanceSlot
    from streaming.settings import LandingSettings

FENCE_LIMIT = 5  # so often in FENCE_WINDOW_S; a second consumer group on the same topic would fence for ever
FENCE_WINDOW_S = 600.0


class FenceCount:
    """Fences within the last FENCE_WINDOW_S."""

    def __init__(self) -> None:
        self._at: deque[float] = deque()

    def is_too_often(self) -> bool:
        """Note a fence at this moment; whether there were FENCE_LIMIT of them within FENCE_WINDOW_S."""
        now = time.monotonic()
        self._at.append(now)
        while now - self._at[0] > FENCE_WINDOW_S:
            self._at.popleft()
        return len(self._at) >= FENCE_LIMIT

    def clear(self) -> None:
        """Forget them."""
        self._at.clear()


class Fencing:
    """Whether to join again or to stop after a fence; it counts over all sessions of the process.

    `slot` is the consumer's name in its group, None until it has one.
    """

    def __init__(self, settings: LandingSettings) -> None:
        self.settings = settings
        self.slot: InstanceSlot | None = None
        self.by_ledger = FenceCount()
        self.by_own_name = FenceCount()

    @property
    def name(self) -> str:
        """The consumer's stable name in its group; empty for a plain member."""
        return self.slot.name if self.slot is not None else ""

    @property
    def owner(self) -> str:
        """Who lands, as the ledger says."""
        return f"{self.name or self.settings.group_id}, pid {os.getpid()}"

    def raise_fenced(self, claim: Claim, consumer: Consumer | None) -> NoReturn:
        """Raise what follows from the ledger's fence of a claim.

        Args:
            claim: the fenced one.
            consumer: the session's client, None if it has left.

        Raises:
            TopicError: a twin took it. To join again would only throw the twin out.
            FencedError: it happened too often; the message names who took it.
            RejoinError: else.
        """
        self._raise_twin(claim, consumer)
        self._raise_too_often(claim)
        raise RejoinError(f"fenced: another consumer took {claim.topic}[{claim.topic_partition}]")

    def fatal(self, error: KafkaError) -> Exception:
        """What follows when librdkafka cannot go on: join anew if we were fenced by ourselves, else stop."""
        if is_fenced(error) and self.slot is not None and self.slot.is_held and not self.by_own_name.is_too_often():
            # A broker that was frozen answers a join that we gave up long ago, and takes the next one for a twin's.
            # A name that is fenced again and again has a twin after all (two machines of one host name).
            return RejoinError("the broker fenced this consumer's own name, which no other process holds")
        return TopicError(
            f"reading from {self.settings.kafka.bootstrap_servers}: {error.str()}. The consumer cannot go on; nothing "
            f"is lost. If it was fenced: another process with the same STREAMING_INSTANCE_ID took its place; give each "
            f"a name of its own, or none."
        )

    def _raise_twin(self, claim: Claim, consumer: Consumer | None) -> None:
        """Ask the broker, by a commit, whether the group has given our name to another process."""
        if consumer is None or not self.name:
            return
        at = TopicPartition(claim.topic, claim.topic_partition, claim.next_offset)
        try:
            consumer.commit(offsets=[at], asynchronous=False)
        except KafkaException as error:
            if error.args[0].fatal() or is_fenced(error.args[0]):
                raise self.fatal(error.args[0]) from error

    def _raise_too_often(self, claim: Claim) -> None:
        if not self.by_ledger.is_too_often():
            return
        conn = database.connect(self.settings.lake.dsn, application_name="streaming consume")
        try:
            with transaction(conn) as cursor:
                raise ledger.fenced(cursor, claim.topic, claim.topic_partition, claim.next_offset)
        finally:
            conn.close()
