"""The landing's loop: reads Kafka, hands batches to the writers, and obeys rebalances, outages and signals.

Progress lives in Postgres: on assignment the consumer claims the topic partition there and seeks to its offset; what is
committed to the broker is only a hint for lag monitors.

Here: sessions, each from joining the group to leaving it, and the loop within one. Not here: which topic partitions are
owned (ownership.py), what becomes of the messages (intake.py), what the client tells of trouble (client_errors.py),
fences (fencing.py), pauses between sessions (rejoining.py), checks (batch.py), writing (writer.py).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import structlog
from confluent_kafka import Consumer, KafkaError

from streaming import database, kafka, migrate
from streaming.client_errors import ClientErrors
from streaming.consumer_config import consumer_config
from streaming.decode import Decoder
from streaming.errors import (
    BrokerRefusedError,
    BrokerUnavailableError,
    ContractChangedError,
    ContractError,
    LakeRefusedError,
    LakeUnavailableError,
    TopicError,
)
from streaming.fencing import Fencing
from streaming.formats.open_reader import open_reader
from streaming.intake import Intake
from streaming.membership import InstanceSlot
from streaming.metrics import LandingMetrics
from streaming.ownership import Ownership
from streaming.portions import Portions, weigh
from streaming.progress import Progress
from streaming.rejoining import RejoinError, Rejoins
from streaming.silence import limited
from streaming.writer_pool import WriterPool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streaming.contract import Contract
    from streaming.polled import PolledMessage
    from streaming.settings import LandingSettings
    from streaming.writer import Counts

STOP_S = 3.0  # to write what is queued; the process ends within 5 s of SIGTERM
CUT_S = 0.7  # for what waited for a silent lake until then, and is cut
CLOSE_S = 0.8
UNHEALTHY_AFTER_S = 120.0
NEW_BROKER_S = 2.0  # a broker that has just started may deny a topic for a moment
FIRST_BATCH_EVENTS = 2_500
REST_S = 0.01  # for what is left of a backlog: the client fetches on while a batch is checked, so it is there already

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Summary:
    """What a consumer did since it started."""

    rows: int
    dead_letters: int
    gap_offsets: int
    transactions: int
    seconds: float


class LandingConsumer:
    """One landing process. `run` returns after a stop or when idle, and raises what a person has to decide."""

    def __init__(
        self,
        settings: LandingSettings,
        contracts: Mapping[str, Contract],
        *,
        metrics: LandingMetrics | None = None,
        reread: Callable[[], Mapping[str, Contract]] | None = None,
    ) -> None:
        self.settings = settings
        self.contracts = contracts
        self.reread = reread  # the contracts of the same topics as they are now, after the lake was migrated
        self.metrics = metrics or LandingMetrics()
        self.metrics.begin_at_zero(contracts)
        self.decoders = self._decoders()  # one dictionary for all parts, so that a new contract is everybody's
        self.pool = WriterPool(settings, self.decoders, self.metrics)
        self.fencing = Fencing(settings)
        self.errors = ClientErrors(settings, self.metrics, self.fencing)
        self.ownership = Ownership(settings, self.metrics, pool=self.pool, fencing=self.fencing, errors=self.errors)
        self.progress = Progress(self.metrics, ownership=self.ownership, pool=self.pool, errors=self.errors)
        self.intake = Intake(
            settings, self.decoders, self.metrics, ownership=self.ownership, pool=self.pool, errors=self.errors,
            check=self._raise_failure, turn=self._tick,
        )  # fmt: skip
        self.started_at = time.monotonic()
        self.ticked_at = self.started_at
        self._away: str | None = None  # lake or broker, while it is waited for at the start
        self._was_whole = False  # the last batch was as large as batches are
        self._most_events = FIRST_BATCH_EVENTS  # of the next batch, as long as a session is young
        self._portions = Portions()
        self._session_number = 0  # a consumer that closes slowly still calls back while the next one works

    # -- sessions -----------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event, *, until_idle_s: float | None = None) -> Summary:
        """Land until stopped, or until nothing has come for so long and everything is landed."""
        self._try_until_done(self._check_start, stop)
        slot = self.fencing.slot = InstanceSlot(self.settings.group_id, self.settings.instance_id, self.contracts)
        try:
            self._try_until_done(lambda: self._land_session(stop, until_idle_s), stop)
        finally:
            slot.release()
        return self.summary()

    def _try_until_done(self, attempt: Callable[[], None], stop: threading.Event) -> None:
        """Again while it meets trouble that may pass, with pauses and a limit, until it is done or stopped."""
        rejoins = Rejoins(self.settings.outage_limit_s)
        while not stop.is_set():
            self._tick()
            try:
                attempt()
            except RejoinError as error:
                delay_s = rejoins.next_delay_s(
                    error,
                    assigned_at=self.ownership.take_assigned_at(),
                    transactions=self.counts().transactions,
                    now=time.monotonic(),
                )
                because = {"because": str(error.__cause__)} if error.__cause__ is not None else {}
                log.warning("rejoins", reason=str(error), **because, delay_s=delay_s)
                stop.wait(delay_s)
            except ContractChangedError as error:
                self._take_new_contracts(error)
            else:
                return

    def _decoders(self) -> dict[str, Decoder]:
        return {
            topic: Decoder(contract, reader=open_reader(contract, self.settings.registry))
            for topic, contract in self.contracts.items()
        }

    def _take_new_contracts(self, changed: ContractChangedError) -> None:
        """Go on by the contracts as their files are now; raise what has changed if those are the same as before.

        A lake that was migrated by yet another version refuses the next batch as well.
        """
        try:
            contracts = self.contracts if self.reread is None else self.reread()
        except ContractError as error:
            raise ContractError(f"{changed} There is none that can be read: {error}") from error
        if contracts == self.contracts:
            raise changed
        self.contracts = contracts
        self.decoders.update(self._decoders())
        versions = {topic: contract.version for topic, contract in contracts.items()}
        log.warning("goes on by new contracts", because=str(changed), versions=versions)

    def _check_start(self) -> None:
        """Refuse contracts that the lake does not have, and topics that the broker does not have.

        Raises:
            RejoinError: the lake or the broker is away; whoever starts a whole system starts them in any order.
            StreamingError: it is there, and a person has to decide.
        """
        try:
            self._compare_with_lake()
            self._compare_with_broker()
        except (LakeRefusedError, BrokerRefusedError):
            raise
        except LakeUnavailableError as error:
            self._note_away("lake")
            raise RejoinError("the lake is away at the start") from error
        except BrokerUnavailableError as error:
            self._note_away("broker")
            raise RejoinError("the broker is away at the start") from error
        self._away = None

    def _note_away(self, service: str) -> None:
        if self._away != service:
            self._away = service
            self.metrics.outages.labels(service).inc()

    def _compare_with_lake(self) -> None:
        with (
            database.connected(self.settings.lake.dsn, command="consume") as conn,
            limited(conn, self.settings.lake_answer_s, "comparing the contracts with the lake's"),
        ):
            for contract in self.contracts.values():
                migrate.check_registered(conn, contract)

    def _compare_with_broker(self) -> None:
        missing = self._missing_topics()
        deadline = time.monotonic() + NEW_BROKER_S
        while missing and time.monotonic() < deadline:
            time.sleep(0.2)
            missing = self._missing_topics()
        if missing:
            raise TopicError(
                f"subscribing to {', '.join(missing)}: no such topic at {self.settings.kafka.bootstrap_servers}. "
                f"Nothing was landed. Create it with `streaming topic create {missing[0]}`; to land the others "
                f"meanwhile, name each by --topic."
            )

    def _missing_topics(self) -> list[str]:
        return sorted(set(self.contracts) - set(kafka.describe_topics(self.settings.kafka, list(self.contracts))))

    def _land_session(self, stop: threading.Event, until_idle_s: float | None) -> None:
        """From joining the group to leaving it."""
        self.errors.begin()
        self._most_events = FIRST_BATCH_EVENTS
        self.pool.start(self.fencing.owner)
        consumer = self._open_consumer()
        self.intake.watch.ask(self.contracts)  # its client connects while the group is joined; nobody needs this answer
        self.ownership.join(consumer, list(self.contracts), stop)
        try:
            self._loop(consumer, stop, until_idle_s)
        finally:
            self._leave(consumer)

    def _open_consumer(self) -> Consumer:
        self._session_number += 1
        number = self._session_number

        def on_error(error: KafkaError) -> None:
            if number == self._session_number:
                self.errors.on_error(error)

        return Consumer(
            consumer_config(
                self.settings,
                instance_name=self.fencing.name,
                on_statistics=self.progress.on_statistics,
                on_error=on_error,
            )
        )

    def _leave(self, consumer: Consumer) -> None:
        """Write what is queued, then leave the group; bounded in time."""
        self.pool.finish(STOP_S, cut_s=CUT_S)
        self.progress.hint(consumer, is_last=True)
        self.ownership.leave()
        closing = threading.Thread(target=consumer.close, name="close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        self.pool.forget()

    # -- the loop -----------------------------------------------------------------------------------------------

    def _loop(self, consumer: Consumer, stop: threading.Event, until_idle_s: float | None) -> None:
        busy_at = time.monotonic()
        while not stop.is_set():
            self._tick()
            messages = self._poll(consumer)
            self._raise_failure()
            if messages:
                busy_at = busy_at if all(message.error() for message in messages) else time.monotonic()
                self.intake.take(consumer, messages, stop)
            del messages
            self.pool.free()
            self.progress.hint(consumer)
            if until_idle_s is not None and time.monotonic() - busy_at > until_idle_s and self._is_done():
                return

    def _tick(self) -> None:
        """The loop turns: /healthz asks when it did last."""
        self.ticked_at = time.monotonic()

    def _poll(self, consumer: Consumer) -> list[PolledMessage]:
        """A batch's messages, or what has come within the linger; fetched in parts, so that writers get their turns.

        The linger makes few batches of a steady flow. What follows a whole batch is the rest of a backlog, and does not
        wait for more to come. Should a rebalance fall between two parts, the first one's messages are old ones: the
        intake knows those.

        A session begins with small batches, twice as large each time: PostgreSQL is at work while a large one is read.
        One of large events ends before it has too many bytes.
        """
        wanted, linger_s = min(self._most_events, self.settings.batch_events), self.settings.linger_s
        deadline = time.monotonic() + (min(REST_S, linger_s) if self._was_whole else linger_s)
        messages: list[PolledMessage] = []
        portions = self._portions
        portions.begin()
        while True:
            size = portions.size(wanted - len(messages))
            part = cast("list[PolledMessage]", consumer.consume(size, max(deadline - time.monotonic(), 0.0)))
            messages += part
            portions.add(len(part), weigh(part))
            has_all = len(messages) >= wanted
            if len(part) < size or has_all or portions.is_full:
                self._was_whole = has_all or portions.is_full
                if has_all:
                    self._most_events = 2 * wanted
                return messages

    def _raise_failure(self) -> None:
        """Raise what callbacks and writers have met, and what has lasted too long."""
        self.errors.raise_kept()
        self.pool.raise_failure()
        if (claim := self.ownership.fenced()) is not None:
            self.fencing.raise_fenced(claim, self.ownership.consumer)
        self.errors.raise_outage()

    def _is_done(self) -> bool:
        """Whether everything that the topics hold is landed."""
        return self.pool.is_idle and self.ownership.is_at_end

    # -- numbers ------------------------------------------------------------------------------------------------

    def counts(self) -> Counts:
        """What was written since the process started."""
        return self.pool.counts()

    def summary(self) -> Summary:
        """Counts and seconds."""
        counts = self.counts()
        return Summary(
            counts.rows, counts.dead_letters, counts.gap_offsets, counts.transactions,
            round(time.monotonic() - self.started_at, 3),
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """For /healthz and /readyz."""
        claims, is_lake_down = self.ownership.claims, self.pool.is_lake_down or self._away == "lake"
        is_broker_down = self.errors.broker_down_since is not None or self._away == "broker"
        ticked_s = time.monotonic() - self.ticked_at
        return {
            "healthy": ticked_s < UNHEALTHY_AFTER_S,
            "ready": bool(claims) and not is_lake_down and not is_broker_down,
            "topic_partitions": sorted(f"{topic}[{number}]" for topic, number in claims),
            "lake_down": is_lake_down,
            "broker_down": is_broker_down,
            "seconds_since_last_turn": round(ticked_s, 1),
        }
