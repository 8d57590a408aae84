"""A thread and a connection that write batches, so that Kafka and Postgres work at the same time.

Here: the bounded queue, retries, what to do about a lost connection. Not here: the statements (landing.py, ledger.py).
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg2
import structlog

from streaming import database, landing, ledger
from streaming.database import transaction
from streaming.errors import BrokerUnavailableError, LakeUnavailableError, LandingError, SilentLakeError
from streaming.silence import limited

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

    from streaming.batch import Batch
    from streaming.decode import Decoder
    from streaming.ledger import Claim
    from streaming.metrics import LandingMetrics
    from streaming.settings import LandingSettings
    from streaming.silence import Cutter
    from streaming.topic_identity import Proof

Claimed = list[tuple["Batch", "Claim"]]
Work = tuple[Claimed, "Proof"]

QUEUED_TRANSACTIONS = 2  # one hides the other's commit; more only cost memory (measured: no gain)
FIRST_RETRY_S = 0.2
LONGEST_RETRY_S = 5.0
TELL_EVERY_S = 30.0
SILENT_AFTER_S = 10.0  # a transaction that takes longer is told as "not ready"; a good one takes under 1 s
LAST_TRY_S = 0.5  # what a stop waits for a lake that is away already

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Counts:
    """What a writer has written since it started."""

    rows: int = 0
    dead_letters: int = 0
    gap_offsets: int = 0
    transactions: int = 0


class Writer(threading.Thread):
    """Writes what is put into its queue, in order. Stops at the first error that a retry cannot help."""

    def __init__(
        self,
        settings: LandingSettings,
        decoders: Mapping[str, Decoder],
        metrics: LandingMetrics,
        *,
        name: str,
        owner: str,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.settings = settings
        self.decoders = decoders
        self.metrics = metrics
        self.owner = owner
        self.queue: queue.Queue[Work | None] = queue.Queue(maxsize=QUEUED_TRANSACTIONS)
        self.written: deque[Claimed] = deque()  # done with; the loop's thread frees it, Postgres would wait for us
        self.failure: Exception | None = None
        self.counts = Counts()
        self.committed: dict[tuple[str, int], int] = {}
        self.newest_produced: dict[tuple[str, int], float] = {}
        self.down_since: float | None = None
        self.hurry = threading.Event()
        self._silences = 0
        self._writing: tuple[float, Cutter] | None = None
        self._months: landing.Months = set()
        self._conn: Connection | None = None

    @property
    def is_idle(self) -> bool:
        """Whether everything that was put has been written (or given up)."""
        return self.queue.unfinished_tasks == 0

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until the queue is written; False at the timeout or after a failure."""
        deadline = time.monotonic() + timeout_s
        while not self.is_idle:
            if self.failure is not None or time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    @property
    def writing_s(self) -> float:
        """How long the transaction at work has taken so far; 0 without one."""
        writing = self._writing
        return 0.0 if writing is None else time.monotonic() - writing[0]

    @property
    def is_lake_down(self) -> bool:
        """Whether the lake is away, or silent."""
        return self.down_since is not None or self.writing_s > SILENT_AFTER_S

    def finish(self, timeout_s: float) -> bool:
        """Write what is queued; False if that took too long, in which case nothing is half written. Then `join` it."""
        is_written = self.wait_idle(min(timeout_s, LAST_TRY_S) if self.is_lake_down else timeout_s)
        self.hurry.set()
        if not is_written:
            self._drop_queued()
            if (writing := self._writing) is not None:
                writing[1].cut()  # it waits for a server that may be silent for ever
        self.queue.put(None)
        return is_written

    def _drop_queued(self) -> None:
        """Make the end of the queue come next; whoever would put more has stopped."""
        while True:
            try:
                work = self.queue.get_nowait()
            except queue.Empty:
                return
            if work is not None:
                _give_up(work[0])
            self.queue.task_done()

    def run(self) -> None:
        """The thread's body."""
        self._prepare()
        while (work := self.queue.get()) is not None:
            try:
                if self.failure is None and self._is_confirmed(*work):
                    self._write(work[0])
            except Exception as error:  # noqa: BLE001 outermost loop of the thread: the consumer raises it
                self.failure = error
            finally:
                self.written.append(work[0])
                self.queue.task_done()
        self._disconnect()

    def _prepare(self) -> None:
        """Connect while the group is joined: the first batch finds a connection, or makes its own."""
        try:
            self._connect()
        except LakeUnavailableError as error:
            log.debug("connects_later", error=str(error))

    def _is_confirmed(self, claimed: Claimed, proof: Proof) -> bool:
        """Whether the batches came from the topics that were claimed; False if nobody needs to know any more."""
        started = time.monotonic()
        delay = FIRST_RETRY_S
        while live := [claim for _, claim in claimed if claim.is_live]:
            try:
                proof.check(live)
            except BrokerUnavailableError as error:
                if time.monotonic() - started > self.settings.outage_limit_s:
                    raise
                log.warning("topics_unconfirmed", error=str(error), note="the batch waits for the broker")
                if self.hurry.wait(delay):
                    _give_up(claimed)
                    return False
                delay = min(delay * 2, LONGEST_RETRY_S)
                proof = proof.again()
            else:
                return True
        return False

    def _write(self, claimed: Claimed) -> None:
        started = time.monotonic()
        delay = FIRST_RETRY_S
        while live := [(batch, claim) for batch, claim in claimed if claim.is_live]:
            try:
                self._write_once(live)
            except LakeUnavailableError as error:
                self._disconnect()
                if isinstance(error, SilentLakeError):
                    self._silences += 1
                    self.metrics.silences.inc()
                self._tell_down(error, started)
                if self.hurry.wait(delay):
                    _give_up(live)
                    return
                delay = min(delay * 2, LONGEST_RETRY_S)
            else:
                return

    def _write_once(self, claimed: Claimed) -> None:
        conn = self._connect()
        # twice as long each time: a transaction that is only slow gets through at last
        limit_s = min(self.settings.lake_answer_s * 2**self._silences, self.settings.outage_limit_s)
        with limited(conn, limit_s, f"landing {_names(claimed)}") as cutter:
            self._writing = time.monotonic(), cutter
            try:
                if self.down_since is not None:
                    claimed = self._without_committed(conn, claimed)
                if claimed:
                    self._land(conn, claimed)
            finally:
                self._writing = None
        self._silences = 0
        self._tell_up()  # a server that answers but cannot write (a full disk) is still an outage

    def _connect(self) -> Connection:
        if self._conn is None or self._conn.closed:
            self._conn = database.connect(self.settings.lake.dsn, application_name=f"{ledger.WRITER_NAME} {self.name}")
        return self._conn

    def _disconnect(self) -> None:
        if self._conn is not None:
            try:
                self._conn.close()
            except psycopg2.Error:
                log.debug("close_failed")
            self._conn = None

    def _tell_down(self, error: Exception, started: float) -> None:
        now = time.monotonic()
        if self.down_since is None:
            self.down_since = now
            self._told_at = now
            self.metrics.outages.labels("lake").inc()
            log.warning("lake_unavailable", error=str(error), gives_up_after_s=self.settings.outage_limit_s)
        elif now - self._told_at > TELL_EVERY_S:
            self._told_at = now
            log.warning("lake_still_unavailable", error=str(error), seconds=round(now - self.down_since))
        if now - started > self.settings.outage_limit_s:
            raise LakeUnavailableError(
                f"{error} Given up after {now - started:.0f} s (STREAMING_OUTAGE_LIMIT_S). Nothing is lost: "
                f"start `streaming consume` again once the lake is back."
            ) from error

    def _tell_up(self) -> None:
        if self.down_since is not None:
            log.info("lake_available_again", seconds=round(time.monotonic() - self.down_since, 1))
            self.down_since = None

    def _without_committed(self, conn: Connection, claimed: Claimed) -> Claimed:
        """Leave out what was committed although the answer was lost with the connection."""
        try:
            with transaction(conn) as cursor:
                ledger.end_stuck_writers(cursor)  # ours from before a cut, if the server has not noticed yet
                left = []
                for batch, claim in claimed:
                    cursor.execute(
                        "SELECT next_offset, epoch FROM control.offset WHERE topic = %s AND topic_partition = %s",
                        (batch.topic, batch.topic_partition),
                    )
                    if cursor.fetchone() == (batch.next_offset, claim.epoch):
                        self._count([batch], 0.0)
                    else:
                        left.append((batch, claim))
        except psycopg2.Error as error:
            database.raise_landing_error(error, "asking the ledger what was committed")
        return left

    def _land(self, conn: Connection, claimed: Claimed) -> None:
        started = time.monotonic()
        try:
            landed = landing.land_batches(conn, self.decoders, claimed, owner=self.owner, months=self._months)
        except psycopg2.DataError as error:
            self._land(conn, self._refuse(conn, claimed, error))
            return
        self._count(landed.batches, time.monotonic() - started)
        for claim in landed.fenced:
            claim.is_live, claim.is_fenced = False, True
            self.metrics.fences.labels(claim.topic).inc()
            log.warning("fenced", topic=claim.topic, topic_partition=claim.topic_partition)

    def _refuse(self, conn: Connection, claimed: Claimed, error: Exception) -> Claimed:
        now = datetime.now(UTC)
        try:
            mended = [
                (landing.refuse_by_postgres(conn, self.decoders[batch.topic], batch, now=now), claim)
                for batch, claim in claimed
            ]
        except psycopg2.Error as failure:
            database.raise_landing_error(failure, "asking Postgres which events it refuses")
        if sum(len(b.rejected) for b, _ in mended) <= sum(len(b.rejected) for b, _ in claimed):
            batch = claimed[0][0]
            raise LandingError(
                f"landing {batch.topic}[{batch.topic_partition}] from offset {batch.first_offset}: Postgres refuses "
                f"the batch ({str(error).strip()}), but none of its events. Nothing was written."
            ) from error
        return mended

    def _count(self, batches: Sequence[Batch], seconds: float) -> None:
        metrics, now = self.metrics, time.time()
        rows = dead = gaps = 0
        for batch in batches:
            self.committed[batch.topic, batch.topic_partition] = batch.next_offset
            metrics.rows.labels(batch.topic).inc(batch.rows)
            metrics.payload_bytes.labels(batch.topic).inc(batch.payload_bytes)
            metrics.next_offset.labels(batch.topic, batch.topic_partition).set(batch.next_offset)
            for letter in batch.rejected:
                metrics.dead_letters.labels(batch.topic, letter.refusal.reason).inc()
            for gap in batch.gaps:
                metrics.gap_offsets.labels(batch.topic, gap.kind).inc(gap.offsets)
            if batch.newest_produced_at is not None:
                self.newest_produced[batch.topic, batch.topic_partition] = batch.newest_produced_at.timestamp()
                metrics.delay_seconds.labels(batch.topic).observe(max(now - batch.newest_produced_at.timestamp(), 0.0))
            rows, dead, gaps = rows + batch.rows, dead + len(batch.rejected), gaps + batch.gap_offsets
        metrics.batch_rows.observe(rows)
        metrics.batch_seconds.observe(seconds)
        before = self.counts
        self.counts = Counts(
            before.rows + rows, before.dead_letters + dead, before.gap_offsets + gaps, before.transactions + 1
        )


def _names(claimed: Claimed) -> str:
    return ", ".join(f"{b.topic}[{b.topic_partition}] offsets {b.first_offset}-{b.last_offset}" for b, _ in claimed)


def _give_up(claimed: Claimed) -> None:
    """The process ends: what is not committed is read again by the next one, and nothing after it may be written."""
    for _, claim in claimed:
        claim.is_live = False
