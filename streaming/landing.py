"""Writes batches to the lake: rows, dead letters, gaps, ledger and offset in one transaction, the fence last.

Not here: where batches come from (intake.py), what an event is (decode.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import psycopg2

from streaming import dead_letter, ledger
from streaming.batch import COPY_HEADER, COPY_TRAILER, Batch, extend_to_end, prepare_batch
from streaming.database import raise_landing_error, transaction
from streaming.decode import Refusal
from streaming.errors import LakeUnavailableError, LandingError
from streaming.migrate import hold_contracts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

    from streaming.decode import Decoder
    from streaming.ledger import Claim

Months = set[tuple[str, "date"]]  # stream and first day of the month

COPY_CHUNK_BYTES = 4 << 20  # the most that psycopg2 sends at a time; 8 KiB, its default, costs a fifth of the rate


@dataclass(frozen=True, slots=True)
class Landed:
    """What one transaction wrote."""

    batches: list[Batch]
    fenced: list[Claim]
    rows: int
    dead_letters: int
    gap_offsets: int
    payload_bytes: int


def land_batches(
    conn: Connection,
    decoders: Mapping[str, Decoder],
    claimed: Sequence[tuple[Batch, Claim]],
    *,
    owner: str,
    months: Months,
) -> Landed:
    """Write batches of different topic partitions in a single transaction.

    Exactly-once rests on this: offsets move only from where the consumer believes them to be, and only under its claim,
    so one that has lost its topic partition writes nothing. What is fenced is left out; the rest is written.

    Args:
        conn: the lake, no transaction open.
        decoders: contracts by topic.
        claimed: batches with the claims under which they were read; one a topic partition.
        owner: who writes, for the ledger.
        months: partitions known to exist; kept by the caller, emptied when one turns out to be gone.

    Raises:
        LakeUnavailableError: nothing was written, or the answer to the commit was lost; ask the ledger, then retry.
        LandingError: nothing was written.
        ContractChangedError: nothing was written; the lake has another version of a contract by now.
    Source: docs/decisions/0003-offsets-live-in-postgres.md
    """
    tried = "landing " + ", ".join(
        f"{b.topic}[{b.topic_partition}] offsets {b.first_offset}-{b.last_offset}" for b, _ in claimed
    )
    try:
        for batch, _ in claimed:
            ensure_months(conn, decoders[batch.topic].contract.stream, batch, months)
        with transaction(conn) as cursor:
            fenced = ledger.lock(cursor, claimed)
            kept = [(batch, claim) for batch, claim in claimed if claim not in fenced]
            if kept:
                hold_contracts(cursor, [decoders[batch.topic].contract for batch, _ in kept])
                _write(cursor, decoders, kept, owner)
    except psycopg2.IntegrityError as error:
        if isinstance(error, psycopg2.errors.CheckViolation) and not error.diag.constraint_name:  # no such month
            months.clear()
            raise LakeUnavailableError(
                f"{tried}: {str(error).strip()}. Nothing was written; it is tried again."
            ) from error
        raise LandingError(f"{tried}: {str(error).strip()}. Nothing was written. {_remedy(error)}") from error
    except psycopg2.DataError:
        raise
    except psycopg2.Error as error:
        raise_landing_error(error, tried)
    return Landed(
        batches=[batch for batch, _ in kept],
        fenced=fenced,
        rows=sum(batch.rows for batch, _ in kept),
        dead_letters=sum(len(batch.rejected) for batch, _ in kept),
        gap_offsets=sum(batch.gap_offsets for batch, _ in kept),
        payload_bytes=sum(batch.payload_bytes for batch, _ in kept),
    )


def _remedy(error: psycopg2.IntegrityError) -> str:
    """What to do about a row that a table does not take: ours have a primary key, and no rule else."""
    table, rule = f"{error.diag.schema_name}.{error.diag.table_name}", error.diag.constraint_name
    if isinstance(error, psycopg2.errors.UniqueViolation) and (rule or "").endswith("_pkey"):
        return (
            "The landing table holds offsets that the ledger does not know: was the control schema restored from an "
            "older backup than landing?"
        )
    what = f"column {error.diag.column_name}" if rule is None else rule
    return (
        f"{table} has a rule that the landing did not make ({what}): was it added by hand? Take it away, or give a "
        f"column that was added a default, and start again; a rule for events belongs into their contract."
    )


def _write(cursor: Any, decoders: Mapping[str, Decoder], claimed: Sequence[tuple[Batch, Claim]], owner: str) -> None:
    for topic, of_topic in groupby(sorted(claimed, key=lambda pair: pair[0].topic), key=lambda pair: pair[0].topic):
        copy_rows(cursor, decoders[topic].contract.stream, [batch for batch, _ in of_topic])
    for batch, _ in claimed:
        dead_letter.insert_dead_letters(cursor, batch)
        ledger.insert_gaps(cursor, batch.topic, batch.topic_partition, batch.gaps)
    ledger.advance(cursor, claimed, owner=owner)


def copy_rows(cursor: Any, stream: str, batches: Sequence[Batch]) -> None:
    """COPY BINARY of encoded rows into the landing table."""
    filled = [batch for batch in batches if batch.rows]
    if filled:
        source = _Pieces([COPY_HEADER, *(batch.copy_rows for batch in filled), COPY_TRAILER])
        columns = ", ".join(filled[0].copy_columns)
        cursor.copy_expert(f"COPY landing.{stream} ({columns}) FROM STDIN (FORMAT binary)", source, COPY_CHUNK_BYTES)


class _Pieces:
    """What COPY reads, a batch at a time as it is: joining all and cutting that anew costs 0.1 us an event more.

    Each read waits for the thread that checks the next batch, so that few of them also keep Postgres busier.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = iter(pieces)

    def read(self, _size: int = -1, /) -> bytes:
        """The next piece, whatever size was asked for: psycopg2 sends a longer one in parts. Nothing at the end."""
        return next(self._pieces, b"")


def ensure_months(conn: Connection, stream: str, batch: Batch, known: Months) -> None:
    """Make the landing table's partitions of the batch's months, each in a short transaction of its own."""
    for month in sorted({day.event_day.replace(day=1) for day in batch.days}):
        if (stream, month) not in known:
            _ensure_month(conn, stream, month)
            known.add((stream, month))


def _ensure_month(conn: Connection, stream: str, month: date) -> None:
    try:
        with transaction(conn) as cursor:
            cursor.execute("SELECT control.ensure_landing_partition(%s, %s)", (stream, month))
    except psycopg2.errors.InvalidObjectDefinition as error:  # what is in its place may have its very name
        table = f"{stream}_{month:%Y_%m}"
        raise LandingError(
            f"making landing.{table}: {error.diag.message_primary}. Nothing was written. The month's events have a "
            f"place already, elsewhere or under another name (`\\d+ landing.{stream}` in psql shows it). Move it back "
            f"(ALTER TABLE ... SET SCHEMA landing); one that was made by hand has to be called {table}, and hold this "
            f"month alone."
        ) from error


def refuse_by_postgres(conn: Connection, decoder: Decoder, batch: Batch, *, now: datetime) -> Batch:
    """The batch without the events that Postgres does not take as json; they become dead letters.

    The checks before let such an event pass only if it is malformed in a field that the contract does not know.
    """
    refused: dict[int, Refusal] = {}
    texts: list[tuple[int, str]] = []
    for message in batch.messages:
        try:
            texts.append((message.offset(), (message.value() or b"").decode("utf-8")))
        except UnicodeDecodeError as error:
            refused[message.offset()] = Refusal("not_utf8", str(error))
    texts = [(offset, text) for offset, text in texts if "\0" not in text]
    with transaction(conn) as cursor:
        cursor.execute(
            "SELECT topic_offset, (pg_input_error_info(payload, 'json')).message "
            "FROM unnest(%s::bigint[], %s::text[]) AS t(topic_offset, payload) "
            "WHERE NOT pg_input_is_valid(payload, 'json')",
            ([offset for offset, _ in texts], [text for _, text in texts]),
        )
        for offset, message_text in cursor.fetchall():
            refused[offset] = Refusal("refused_by_postgres", message_text)
    sifted = prepare_batch(
        decoder,
        batch.topic_partition,
        batch.messages,
        expected_offset=batch.first_offset,
        now=now,
        refused=refused,
    )
    return extend_to_end(sifted, batch.next_offset)  # what follows the last event was closed with it
