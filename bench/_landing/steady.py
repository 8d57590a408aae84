"""A steady flow: how long an event takes from its production to being seen committed.

Seen by a session that listens for the landing's wake-up, as a reader does, and then asks the ledger how far it is.
Not here: the highest rate (product.py).
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from contextlib import closing

from confluent_kafka import Producer

from _landing.ground import TOPIC_PARTITIONS, Ground, make_events
from _landing.product import consumers
from streaming import lake

WARM_S = 3.0  # left out: the consumer's first batches
STEADY_TOPIC_EVENTS = 20_000


def measure_delay(ground: Ground, *, topic: str, events_s: int, seconds: float) -> dict[str, float]:
    """Percentiles of the delay in seconds, over all events of the flow."""
    stamps: list[list[float]] = [[] for _ in range(TOPIC_PARTITIONS)]
    with ground.lake() as dsn, consumers(ground, dsn, 1) as running:
        deadline = time.monotonic() + 60
        while not running[0].assigned_at:
            if time.monotonic() > deadline or running[0].process.poll() is not None:
                raise SystemExit(f"the consumer got no topic partitions: {running[0].log[-3:]}")
            time.sleep(0.05)
        stop, seen = threading.Event(), list[tuple[float, list[int]]]()
        watcher = threading.Thread(target=_watch, args=(dsn, stop, seen), daemon=True)
        watcher.start()
        _produce(ground, topic, stamps, events_s=events_s, seconds=seconds)
        deadline = time.monotonic() + 30
        wanted = sum(map(len, stamps))
        while time.monotonic() < deadline and not (seen and sum(seen[-1][1]) >= wanted):
            time.sleep(0.02)
        stop.set()
        watcher.join(5)
    if not seen or sum(seen[-1][1]) != wanted:
        raise SystemExit(f"WRONG: {sum(seen[-1][1]) if seen else 0} of {wanted} events landed")
    delays = sorted(_delays(stamps, seen))
    started = min(times[0] for times in stamps)
    offered_s = wanted / (max(times[-1] for times in stamps) - started)
    return {
        "steady_events_s": round(offered_s),
        "steady_events": wanted,
        **{f"steady_p{share}_s": round(delays[int(len(delays) * share / 100)], 3) for share in (50, 95, 99)},
        "steady_max_s": round(delays[-1], 3),
    }


def _produce(ground: Ground, topic: str, stamps: list[list[float]], *, events_s: int, seconds: float) -> None:
    """Events at an even pace, each noted with the instant it was given to the producer."""
    producer = Producer({"bootstrap.servers": ground.kafka.bootstrap, "compression.type": "lz4", "linger.ms": 5})
    values = list(make_events(STEADY_TOPIC_EVENTS))
    begun, total = time.time(), int(events_s * seconds)
    for number in range(total):
        due = begun + number / events_s
        while (ahead := due - time.time()) > 0:
            producer.poll(min(ahead, 0.01))
        key, value = values[number % len(values)]
        stamps[number % TOPIC_PARTITIONS].append(time.time())
        producer.produce(topic, value, key=key, partition=number % TOPIC_PARTITIONS)
    if producer.flush(30):
        raise SystemExit("the broker did not acknowledge the steady flow")


def _watch(dsn: str, stop: threading.Event, seen: list[tuple[float, list[int]]]) -> None:
    with closing(lake.connect(dsn, application_name="bench watch")) as conn:
        lake.listen(conn)
        while not stop.is_set():
            lake.wait_landed(conn, 0.5)
            with conn.cursor() as cursor:
                cursor.execute("SELECT topic_partition, next_offset FROM control.offset")
                found = dict(cursor.fetchall())
            seen.append((time.time(), [found.get(number, 0) for number in range(TOPIC_PARTITIONS)]))


def _delays(stamps: list[list[float]], seen: list[tuple[float, list[int]]]) -> list[float]:
    begun = min(times[0] for times in stamps)
    delays = []
    for number, times in enumerate(stamps):
        reached = [offsets[number] for _, offsets in seen]
        for offset, produced in enumerate(times):
            if produced - begun >= WARM_S or times[-1] - begun < 2 * WARM_S:
                delays.append(seen[bisect_left(reached, offset + 1)][0] - produced)
    return delays
