"""Lands dead letters again, once the contract, the code or the event is mended; each under its own offset.

A replay is a batch of the ledger like any other, so readers see it and counts close to zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg2

from streaming import landing
from streaming.batch import Batch, prepare_batch
from streaming.database import is_outage, raise_landing_error, told_error, transaction
from streaming.dead_letter import DeadLetter
from streaming.errors import LakeUnavailableError, ReplayError
from streaming.formats.translate import Translated
from streaming.ledger import notify
from streaming.migrate import check_registered, hold_contracts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

    from streaming.batch import Message
    from streaming.decode import Decoder
    from streaming.headers import Headers


REFUSED_SHOWN = 20  # a letter may have a megabyte, and there may be millions


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did; refused letters stay where they are. The first of them with today's reason."""

    landed: int
    refused: int
    first_refused: list[tuple[DeadLetter, str]]
    already: int = 0  # landed by a replay before, or by one at the same time


@dataclass(frozen=True, slots=True)
class _StoredMessage:
    """A dead letter as the message it was, perhaps with an edited value."""

    letter: DeadLetter
    edited: bytes | None

    def value(self) -> bytes | None:
        return self.letter.value if self.edited is None else self.edited

    def key(self) -> bytes | None:
        return self.letter.key

    def offset(self) -> int:
        return self.letter.topic_offset

    def timestamp(self) -> tuple[int, int]:
        stamp = self.letter.produced_at
        return (0, -1) if stamp is None else (1, round(stamp.timestamp() * 1000))

    def headers(self) -> Headers | None:
        return self.letter.headers


def replay(
    conn: Connection,
    decoder: Decoder,
    letters: Iterable[DeadLetter],
    *,
    edited: bytes | None = None,
    owner: str = "replay",
) -> Replayed:
    """Land dead letters again under their own offsets, each as a batch of its own; one transaction a letter.

    Args:
        conn: the lake.
        decoder: today's contract.
        letters: dead letters of the decoder's topic.
        edited: the value to land instead; for a single letter.
        owner: who replays, for the ledger.
    """
    if edited is None:
        return replay_edited(conn, decoder, ((letter, None) for letter in letters), owner=owner)
    chosen = list(letters)
    if len(chosen) != 1:
        raise ReplayError(f"replaying {len(chosen)} letters with one edited value: name one letter by its offset.")
    return replay_edited(conn, decoder, [(chosen[0], edited)], owner=owner)


def replay_edited(
    conn: Connection, decoder: Decoder, letters: Iterable[tuple[DeadLetter, bytes | None]], *, owner: str = "replay"
) -> Replayed:
    """`replay`, each letter with the value to land instead of its own, or None for its own.

    Raises MigrationError for a contract that is not the lake's, as the consumer does: one value that the lake's typed
    view cannot read makes all of the view unreadable.
    """
    check_registered(conn, decoder.contract)
    landed, already, refused, first_refused = 0, 0, 0, list[tuple[DeadLetter, str]]()
    for letter, edited in letters:
        if letter.replayed_at is not None:
            already += 1
            continue
        message = _as_event(decoder, _StoredMessage(letter, edited))
        batch = prepare_batch(
            decoder,
            letter.topic_partition,
            [message],
            expected_offset=letter.topic_offset,
            now=datetime.now(UTC),
        )
        if not batch.rows:
            refused += 1
            first_refused += [(letter, _why(batch))] if refused <= REFUSED_SHOWN else []
        elif _replay_one(conn, decoder, batch, edited=edited, owner=owner):
            landed += 1
        else:
            already += 1
    return Replayed(landed, refused, first_refused, already)


def _as_event(decoder: Decoder, message: _StoredMessage) -> Message:
    """A mended value may be the event's JSON, also where the topic has another format: nobody edits Avro by hand."""
    if decoder.reader is None or message.edited is None or message.edited[:1] != b"{":
        return message
    if decoder.contract.payload_format == "json" and b'"op"' in message.edited:
        return message  # an envelope of plain JSON, mended as the envelope that it is
    return Translated(message, message.edited)


def _why(batch: Batch) -> str:
    if not batch.rejected:
        return "empty: there is no event in it"
    refusal = batch.rejected[0].refusal
    return f"{refusal.reason}: {refusal.detail}"


REPLAY_LEDGER = """
WITH numbered AS (
    UPDATE control.offset SET next_batch = next_batch + 1, updated_at = now()
    WHERE topic = %(topic)s AND topic_partition = %(partition)s AND next_offset > %(offset)s
    RETURNING next_batch - 1 AS batch
), batches AS (
    INSERT INTO control.batch (topic, topic_partition, batch, kind, first_offset, last_offset, rows, dead_letters,
        gap_offsets, payload_bytes, first_event_at, last_event_at, newest_produced_at, landed_by)
    SELECT %(topic)s, %(partition)s, batch, 'replay', %(offset)s, %(offset)s, 1, 0, 0, %(bytes)s, %(event_at)s,
        %(event_at)s, %(produced_at)s, %(owner)s FROM numbered
), batch_days AS (
    INSERT INTO control.batch_day (topic, topic_partition, batch, event_day, kind, rows, first_offset, last_offset)
    SELECT %(topic)s, %(partition)s, batch, %(day)s, 'replay', 1, %(offset)s, %(offset)s FROM numbered
), landed_days AS (
    INSERT INTO control.landed_day AS l
        (topic, event_day, topic_partition, rows, payload_bytes, first_offset, last_offset, last_batch)
    SELECT %(topic)s, %(day)s, %(partition)s, 1, %(bytes)s, %(offset)s, %(offset)s, batch FROM numbered
    ON CONFLICT (topic, event_day, topic_partition) DO UPDATE
    SET rows = l.rows + 1, payload_bytes = l.payload_bytes + excluded.payload_bytes,
        first_offset = least(l.first_offset, excluded.first_offset),
        last_offset = greatest(l.last_offset, excluded.last_offset), last_batch = excluded.last_batch, landed_at = now()
)
SELECT batch FROM numbered
"""


def _replay_one(conn: Connection, decoder: Decoder, batch: Batch, *, edited: bytes | None, owner: str) -> bool:
    """Land one letter; False if somebody else has replayed it meanwhile."""
    where = f"{batch.topic}[{batch.topic_partition}] offset {batch.first_offset}"
    landing.ensure_months(conn, decoder.contract.stream, batch, set())
    day = batch.days[0].event_day
    values = {
        "topic": batch.topic,
        "partition": batch.topic_partition,
        "offset": batch.first_offset,
        "bytes": batch.payload_bytes,
        "event_at": batch.first_event_at,
        "produced_at": batch.newest_produced_at,
        "day": day,
        "owner": owner,
        "edited": None if edited is None else psycopg2.Binary(edited),
    }
    try:
        with transaction(conn) as cursor:
            hold_contracts(cursor, [decoder.contract])
            cursor.execute(REPLAY_LEDGER, values)
            row = cursor.fetchone()
            if row is None:
                raise ReplayError(f"replaying {where}: the ledger has no such offset. Nothing was written.")
            values["batch"] = row[0]
            cursor.execute(
                "UPDATE control.dead_letter SET replayed_at = now(), replay_batch = %(batch)s, "
                "replay_value = %(edited)s WHERE topic = %(topic)s AND topic_partition = %(partition)s "
                "AND topic_offset = %(offset)s AND replayed_at IS NULL",
                values,
            )
            if cursor.rowcount != 1:
                conn.rollback()
                return False
            landing.copy_rows(cursor, decoder.contract.stream, [batch])
            notify(cursor, {batch.topic})
    except psycopg2.DataError as error:
        raise ReplayError(f"replaying {where}: Postgres refuses it: {error}. It stays a dead letter.") from error
    except psycopg2.Error as error:
        if is_outage(error):
            raise LakeUnavailableError(
                f"replaying {where}: {told_error(error)}. Letters before it were replayed. Run it again: what has "
                f"landed is left out."
            ) from error
        raise_landing_error(error, f"replaying {where}")
    return True
