"""The two limits: how fast this machine can read the topic, and how fast PostgreSQL takes the same rows by COPY.

Not here: the product (product.py).
"""

from __future__ import annotations

import io
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, TopicPartition

from _landing.ground import STREAM, TOPIC, TOPIC_PARTITIONS, Ground, Sent, verify
from streaming import lake
from streaming.batch import COPY_COLUMNS, COPY_HEADER, COPY_TRAILER, prepare_batch
from streaming.decode import Decoder

if TYPE_CHECKING:
    from confluent_kafka import Message

COPY_CHUNK_BYTES = 1 << 20


def read_all(ground: Ground, sent: Sent, *, keep: bool) -> tuple[float, list[list[Message]]]:
    """Read the whole topic from its start, each message's fields too; rows/s, and the messages if they are kept."""
    consumer = Consumer({
        "bootstrap.servers": ground.kafka.bootstrap, "group.id": "bench-limit", "auto.offset.reset": "error",
        "enable.auto.commit": False, "fetch.queue.backoff.ms": 10, "queued.max.messages.kbytes": 65_536,
    })  # fmt: skip
    consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(TOPIC_PARTITIONS)])
    batches: list[list[Message]] = []
    count, started = 0, 0.0
    while count < sent.events:
        messages = consumer.consume(10_000, 10.0)
        if not messages:
            raise SystemExit(f"the topic gave {count} of {sent.events} events")
        started = started or time.monotonic()  # the first answer's way is the connection's, not the rate's
        for message in messages:
            if message.error() is not None:
                raise SystemExit(f"reading the topic: {message.error()}")
            message.value(), message.key(), message.offset(), message.partition(), message.timestamp()
        count += len(messages)
        if keep:
            batches.append(messages)
    seconds = time.monotonic() - started
    consumer.close()
    return count / seconds, batches


def encode_all(ground: Ground, batches: list[list[Message]], *, batch_rows: int) -> list[bytes]:
    """The topic as COPY documents of about `batch_rows` rows, byte for byte what the product writes."""
    decoder, now = Decoder(ground.contract), datetime.now(UTC)
    documents: list[bytes] = []
    rows: list[bytes] = []
    count = 0
    for messages in batches:
        for number in range(TOPIC_PARTITIONS):
            mine = [message for message in messages if message.partition() == number]
            if mine:
                batch = prepare_batch(decoder, number, mine, expected_offset=mine[0].offset(), now=now)
                rows.append(batch.copy_rows)
                count += batch.rows
        if count >= batch_rows:
            documents.append(b"".join((COPY_HEADER, *rows, COPY_TRAILER)))
            rows, count = [], 0
    if rows:
        documents.append(b"".join((COPY_HEADER, *rows, COPY_TRAILER)))
    return documents


def copy_all(ground: Ground, documents: list[bytes], sent: Sent, *, connections: int) -> float:
    """COPY the documents, one a transaction, over so many connections; rows/s."""
    with ground.lake() as dsn:
        shares = [documents[number::connections] for number in range(connections)]
        barrier = threading.Barrier(connections + 1)
        threads = [threading.Thread(target=_copy_share, args=(dsn, share, barrier)) for share in shares]
        for thread in threads:
            thread.start()
        barrier.wait()
        started = time.monotonic()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - started
        verify(dsn, sent)
    return sent.events / seconds


def _copy_share(dsn: str, documents: list[bytes], barrier: threading.Barrier) -> None:
    statement = f"COPY landing.{STREAM} ({', '.join(COPY_COLUMNS)}) FROM STDIN (FORMAT binary)"
    with closing(lake.connect(dsn, application_name="bench copy")) as conn, conn.cursor() as cursor:
        barrier.wait()
        for document in documents:
            cursor.copy_expert(statement, io.BytesIO(document), COPY_CHUNK_BYTES)
            conn.commit()
