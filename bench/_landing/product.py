"""The product as it is run: `streaming consume` in processes of its own, everything on, timed from outside.

Not here: the limits it is held against (limits.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _landing.ground import TOPIC, Ground, Sent, verify
from streaming import lake

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.01
TIMEOUT_S = 600.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class ConsumerProcess:
    """A running `streaming consume`: what it logs, and when it got its topic partitions."""

    process: subprocess.Popen[str]
    assigned_at: list[float] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    cpu_at_start_s: float = 0.0

    def cpu_s(self) -> float:
        """Processor time, user and system."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(text[11]) + int(text[12])) / CLOCK_TICKS

    def rss_bytes(self) -> int:
        """Resident memory now."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()
        return int(text[1]) * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the product over the whole topic."""

    rows_s: float
    seconds: float
    with_start_s: float
    cpu_us_a_row: float
    transactions: int


@contextmanager
def consumers(ground: Ground, dsn: str, count: int, **settings: str) -> Iterator[list[ConsumerProcess]]:
    """So many consumers of one group; ended by SIGTERM."""
    started = [_start(ground.env(dsn) | settings) for _ in range(count)]
    try:
        yield started
    finally:
        for each in started:
            each.process.send_signal(signal.SIGTERM)
        for each in started:
            try:
                each.process.wait(15)
            except subprocess.TimeoutExpired:
                each.process.kill()
                each.process.wait()


def _start(env: Mapping[str, str]) -> ConsumerProcess:
    process = subprocess.Popen(
        [sys.executable, "-m", "streaming", "consume", "--topic", TOPIC],
        env=dict(env), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    found = ConsumerProcess(process)
    threading.Thread(target=_read_log, args=(found,), daemon=True).start()
    return found


def _read_log(consumer: ConsumerProcess) -> None:
    for line in consumer.process.stderr or ():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"event": line.rstrip()}
        consumer.log.append(entry)
        if entry.get("event") == "assigned":
            consumer.cpu_at_start_s = consumer.cpu_at_start_s or consumer.cpu_s()
            consumer.assigned_at.append(datetime.fromisoformat(entry["timestamp"]).timestamp())


def land_all(ground: Ground, sent: Sent, *, processes: int, **settings: str) -> Run:
    """Land the topic; timed from the moment the topic partitions are assigned until all of it is seen committed."""
    with ground.lake() as dsn:
        started = time.time()
        with consumers(ground, dsn, processes, **settings) as running:
            ended = wait_committed(dsn, sent.events, running)
            cpu_s = sum(each.cpu_s() - each.cpu_at_start_s for each in running)
            assigned = min(at for each in running for at in each.assigned_at)
        with closing(lake.connect(dsn, application_name="bench")) as conn, conn.cursor() as cursor:
            cursor.execute("SELECT count(DISTINCT written_by) FROM control.batch")
            transactions = int(cursor.fetchone()[0])
            counts = lake.topic_counts(conn, TOPIC)
        verify(dsn, sent)
    if not all(each.is_closed for each in counts) or sum(each.landed for each in counts) != sent.events:
        raise SystemExit(f"WRONG: the ledger does not close: {counts}")
    seconds = ended - assigned
    return Run(
        rows_s=sent.events / seconds,
        seconds=round(seconds, 3),
        with_start_s=round(ended - started, 3),
        cpu_us_a_row=round(cpu_s / sent.events * 1e6, 2),
        transactions=transactions,
    )


def wait_committed(dsn: str, events: int, running: list[ConsumerProcess]) -> float:
    """When the ledger says that so many events are landed, as another session sees it."""
    deadline = time.monotonic() + TIMEOUT_S
    with closing(lake.connect(dsn, application_name="bench watch")) as conn, conn.cursor() as cursor:
        conn.autocommit = True
        while time.monotonic() < deadline:
            cursor.execute("SELECT coalesce(sum(next_offset - first_offset), 0) FROM control.offset")
            if int(cursor.fetchone()[0]) >= events:
                return time.time()
            for each in running:
                if each.process.poll() is not None:
                    raise SystemExit(f"the consumer ended with {each.process.returncode}: {each.log[-3:]}")
            time.sleep(POLL_S)
    raise SystemExit(f"not landed within {TIMEOUT_S:.0f} s")
