"""Messages of one topic partition -> what one transaction will write: COPY rows, dead letters, gaps, sums by day.

Pure: no client, no driver; the clock is passed in. Not here: writing (landing.py, ledger.py, dead_letter.py).
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import repeat
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from streaming.decode import DAY_US, EPOCH_2000_DAYS, DoubtError, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streaming.decode import Decoder

Headers = list[tuple[str, bytes | None]]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_2000_US = EPOCH_2000_DAYS * DAY_US
NOT_DELIVERED = "the broker did not deliver these: control records, aborted or compacted records"
NO_TIMESTAMP = 0  # confluent_kafka.TIMESTAMP_NOT_AVAILABLE
COPY_COLUMNS = (
    "topic_partition", "topic_offset", "event_day", "event_at", "produced_at", "key", "headers", "payload",
)  # fmt: skip
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
COPY_TRAILER = struct.pack(">h", -1)
# number of columns, then each column's length and value; the key's length comes last, its bytes follow
PREFIX = struct.Struct(">hiiiqiiiqiqi")
PREFIX_NO_STAMP = struct.Struct(">hiiiqiiiqii")
TAIL = struct.Struct(">ii")  # headers are null (-1), then the payload's length


class Message(Protocol):
    """What the landing needs of a Kafka message; confluent_kafka.Message is one."""

    def value(self) -> bytes | None:
        """The payload."""

    def key(self) -> bytes | None:
        """The key."""

    def offset(self) -> int:
        """The offset."""

    def timestamp(self) -> tuple[int, int]:
        """Kind and milliseconds since 1970."""

    def headers(self) -> Headers | None:
        """Names and values, in order."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event kept aside, whole."""

    topic_offset: int
    value: bytes | None
    key: bytes | None
    headers: Headers
    produced_at: datetime | None
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets that hold no event for us."""

    first_offset: int
    last_offset: int
    kind: str
    detail: str

    @property
    def offsets(self) -> int:
        """How many offsets are missing."""
        return self.last_offset - self.first_offset + 1


@dataclass(frozen=True, slots=True)
class DayRows:
    """What a batch has of one event day."""

    event_day: date
    rows: int
    payload_bytes: int
    first_offset: int
    last_offset: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive offsets of one topic partition, ready to be written in one transaction."""

    topic: str
    topic_partition: int
    first_offset: int
    next_offset: int
    rows: int = 0
    payload_bytes: int = 0
    copy_rows: bytes = b""
    days: tuple[DayRows, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    gaps: tuple[Gap, ...] = ()
    first_event_at: datetime | None = None
    last_event_at: datetime | None = None
    newest_produced_at: datetime | None = None
    messages: Sequence[Message] = field(default=(), repr=False)

    @property
    def last_offset(self) -> int:
        """The last offset that the batch covers, inclusive."""
        return self.next_offset - 1

    @property
    def gap_offsets(self) -> int:
        """How many offsets hold no event."""
        return sum(gap.offsets for gap in self.gaps)


def prepare_batch(
    decoder: Decoder,
    topic_partition: int,
    messages: Sequence[Message],
    *,
    expected_offset: int,
    now: datetime,
    refused: dict[int, Refusal] | None = None,
) -> Batch:
    """Decode, check and encode consecutive messages of one topic partition.

    Args:
        decoder: the contract, compiled.
        topic_partition: whose messages these are.
        messages: offsets ascending, at least one.
        expected_offset: the offset that follows what came before; holes become gaps.
        now: the clock, for events from the future.
        refused: offsets that are already known to be refused (by Postgres), with the reason.
    """
    contract = decoder.contract
    offsets = [message.offset() for message in messages]
    gaps = _find_gaps(offsets, expected_offset)
    rejected: list[Rejected] = []
    accepted: Sequence[Message] = messages
    times_us = None if refused or contract.keep_headers else _check_all(decoder, messages, now)
    if times_us is None:
        accepted, rejected, times_us = _judge_all(decoder, messages, now=now, refused=refused or {})
    batch_columns = _encode(decoder, topic_partition, accepted, times_us)
    return Batch(
        topic=contract.topic,
        topic_partition=topic_partition,
        first_offset=min(expected_offset, offsets[0]),
        next_offset=offsets[-1] + 1,
        rejected=tuple(rejected),
        gaps=tuple(gaps),
        messages=messages,
        **batch_columns,
    )


def _check_all(decoder: Decoder, messages: Sequence[Message], now: datetime) -> NDArray[np.int64] | None:
    """Event times if the whole batch keeps the contract; None if its events have to be judged one by one."""
    stamps = _stamps_us(messages) if decoder.uses_message_time else ()
    try:
        return decoder.decode_all([message.value() for message in messages], now=now, stamps_us=stamps)[1]
    except DoubtError:
        return None


def _stamps_us(messages: Sequence[Message]) -> list[int | None]:
    return [_stamp_us(message) for message in messages]


def _stamp_us(message: Message) -> int | None:
    kind, milliseconds = message.timestamp()
    return None if kind == NO_TIMESTAMP else milliseconds * 1000


def extend_to_end(batch: Batch, end: int) -> Batch:
    """The batch up to the end of the topic partition, as the broker tells it; what lies between holds no event."""
    if end <= batch.next_offset:
        return batch
    gap = Gap(batch.next_offset, end - 1, "not_delivered", NOT_DELIVERED)
    return replace(batch, next_offset=end, gaps=(*batch.gaps, gap))


def _find_gaps(offsets: list[int], expected_offset: int) -> list[Gap]:
    if offsets[0] == expected_offset and offsets[-1] - offsets[0] + 1 == len(offsets):
        return []
    gaps = []
    for offset in offsets:
        if offset > expected_offset:
            gaps.append(Gap(expected_offset, offset - 1, "not_delivered", NOT_DELIVERED))
        expected_offset = offset + 1
    return gaps


def _judge_all(
    decoder: Decoder, messages: Sequence[Message], *, now: datetime, refused: dict[int, Refusal]
) -> tuple[list[Message], list[Rejected], NDArray[np.int64]]:
    accepted, events, rejected = [], [], []
    for message in messages:
        judged = refused.get(message.offset()) or _judge_one(decoder, message, now)
        if isinstance(judged, Refusal):
            rejected.append(reject(message, judged))
        else:
            accepted.append(message)
            events.append(judged)
    stamps = _stamps_us(accepted) if decoder.uses_message_time else ()
    return accepted, rejected, decoder.event_times(events, stamps)


def _judge_one(decoder: Decoder, message: Message, now: datetime) -> Any:
    if decoder.contract.keep_headers:
        problem = _undecodable(message.headers() or [])
        if problem:
            return Refusal("headers_undecodable", problem)
    return decoder.judge(message.value(), now=now, stamp_us=_stamp_us(message))


def _undecodable(headers: Headers) -> str | None:
    for name, value in headers:
        try:
            text = (value or b"").decode("utf-8")
        except UnicodeDecodeError as error:
            return f"header {name}: {error}"
        if "\0" in name + text:
            return f"header {name}: holds U+0000"
    return None


def reject(message: Message, refusal: Refusal) -> Rejected:
    """A dead letter of a message."""
    return Rejected(
        topic_offset=message.offset(),
        value=message.value(),
        key=message.key(),
        headers=list(message.headers() or []),
        produced_at=_stamp(message.timestamp()),
        refusal=refusal,
    )


def headers_json(headers: Headers) -> str:
    """Headers as they are kept with a dead letter: order, repeats and bytes survive."""
    return json.dumps([_header_entry(name, value) for name, value in headers])


def _header_entry(name: str, value: bytes | None) -> list[str | None]:
    if value is None:
        return [name, None, "utf8"]
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return [name, base64.b64encode(value).decode("ascii"), "base64"]
    return [name, text, "utf8"]


def headers_from_json(entries: list[list[str | None]]) -> Headers:
    """The inverse of `headers_json`, from the decoded document."""
    headers: Headers = []
    for name, value, encoding in entries:
        raw = None if value is None else base64.b64decode(value) if encoding == "base64" else value.encode("utf-8")
        headers.append((name or "", raw))
    return headers


def _stamp(timestamp: tuple[int, int]) -> datetime | None:
    kind, milliseconds = timestamp
    return None if kind == NO_TIMESTAMP else EPOCH + timedelta(milliseconds=milliseconds)


def _encode(
    decoder: Decoder, topic_partition: int, messages: Sequence[Message], times_us: NDArray[np.int64]
) -> dict[str, Any]:
    """COPY BINARY rows and the sums over them."""
    if not messages:
        return {}
    values: list[bytes] = [message.value() or b"" for message in messages]
    keys = [message.key() for message in messages]
    offsets = [message.offset() for message in messages]
    stamps = [message.timestamp() for message in messages]
    days = decoder.day_clock.days(times_us)
    lengths = [*map(len, values)]
    pieces: list[bytes] = [b""] * (4 * len(values))
    pieces[0::4] = _prefixes(topic_partition, offsets, (days, times_us), stamps, keys)
    pieces[1::4] = [key or b"" for key in keys]
    pieces[2::4] = (
        [_header_tail(message, length) for message, length in zip(messages, lengths, strict=True)]
        if decoder.contract.keep_headers
        else [*map(TAIL.pack, repeat(-1), lengths)]
    )
    pieces[3::4] = values
    newest = max((milliseconds for kind, milliseconds in stamps if kind != NO_TIMESTAMP), default=None)
    return {
        "rows": len(values),
        "payload_bytes": sum(lengths),
        "copy_rows": b"".join(pieces),
        "days": _sum_days(days, np.array(offsets, dtype=np.int64), np.array(lengths, dtype=np.int64)),
        "first_event_at": EPOCH + timedelta(microseconds=int(times_us.min())),
        "last_event_at": EPOCH + timedelta(microseconds=int(times_us.max())),
        "newest_produced_at": None if newest is None else EPOCH + timedelta(milliseconds=newest),
    }


def _prefixes(
    topic_partition: int,
    offsets: list[int],
    days_and_times: tuple[NDArray[np.int64], NDArray[np.int64]],
    stamps: list[tuple[int, int]],
    keys: list[bytes | None],
) -> list[bytes]:
    key_lengths = [-1 if key is None else len(key) for key in keys]
    days, times_us = days_and_times
    pg_days = (days - EPOCH_2000_DAYS).tolist()
    pg_times = (times_us - EPOCH_2000_US).tolist()
    columns = len(COPY_COLUMNS)
    if all(kind != NO_TIMESTAMP for kind, _ in stamps):
        pg_stamps = [milliseconds * 1000 - EPOCH_2000_US for _, milliseconds in stamps]
        fixed = (repeat(columns), repeat(4), repeat(topic_partition), repeat(8), offsets, repeat(4), pg_days)
        return [*map(PREFIX.pack, *fixed, repeat(8), pg_times, repeat(8), pg_stamps, key_lengths)]
    rows = zip(offsets, pg_days, pg_times, stamps, key_lengths, strict=True)
    return [
        PREFIX_NO_STAMP.pack(columns, 4, topic_partition, 8, offset, 4, day, 8, at, -1, key_length)
        if stamp[0] == NO_TIMESTAMP
        else PREFIX.pack(
            columns, 4, topic_partition, 8, offset, 4, day, 8, at, 8, stamp[1] * 1000 - EPOCH_2000_US, key_length
        )
        for offset, day, at, stamp, key_length in rows
    ]


def _header_tail(message: Message, payload_length: int) -> bytes:
    headers = message.headers()
    if not headers:
        return TAIL.pack(-1, payload_length)
    text = headers_json(headers).encode("utf-8")
    return struct.pack(">i", len(text)) + text + struct.pack(">i", payload_length)


def _sum_days(days: NDArray[np.int64], offsets: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[DayRows, ...]:
    sums = []
    for day in np.unique(days):
        of_day = days == day
        at = offsets[of_day]
        sums.append(
            DayRows(
                event_day=date(1970, 1, 1) + timedelta(days=int(day)),
                rows=int(at.size),
                payload_bytes=int(lengths[of_day].sum()),
                first_offset=int(at.min()),
                last_offset=int(at.max()),
            )
        )
    return tuple(sums)
