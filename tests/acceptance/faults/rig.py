"""What the fault schedule shares: a dataset with an undisturbed run of it, processes, and the judgement of a lake.

A fault test lands the dataset's topic again, into a lake of its own, and the two lakes must be equal: every column of
every row, dead letter and gap. Not here: where a fault strikes (proxy.py) and which (the test files).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.integration.streaming.rig import ROOT, Rig, line, make_rig
from tests.schedule import IS_WHOLE

SEED = int(os.environ.get("FAULTS_SEED", "20261124"))
EVENTS = 40_000 if IS_WHOLE else 9_000
TOPIC_PARTITIONS = 4
POISON_EVERY = 100
SESSION_TIMEOUT_S = 6.0  # the least that a broker allows

POISONS: list[bytes | None] = [
    b"{",
    b"",
    None,
    b"\xff\xfe\x00",
    b'{"event_id": "a\\u0000b"}',
    b"[1, 2, 3]",
    json.dumps(line(1, quantity="many")).encode(),
    json.dumps(line(1, unit_price="1e999")).encode(),
    json.dumps({"event_id": "without the rest"}).encode(),
    json.dumps(line(1, invoiced_at="1970-01-01T00:00:00Z")).encode(),
    json.dumps(line(1, description="\ud800 alone")).encode(),
    b"x" * 3_000,
]


def whole_or_ci(full: int, ci: int) -> int:
    """A count of the whole schedule, or of CI's part of it."""
    return full if IS_WHOLE else ci


def tell(text: object) -> None:
    """For the reader of a failure: pytest shows it then."""
    print(text)  # noqa: T201


def chance(name: str) -> random.Random:
    """Random choices of one test; the seed is printed, and set again by FAULTS_SEED."""
    tell(f"{name}: FAULTS_SEED={SEED}")
    return random.Random(f"{SEED} {name}")


# -- processes ---------------------------------------------------------------------------------------------------------


@dataclass
class Consumer:
    """A `streaming consume` process."""

    pid: int
    log: Path

    def signal(self, number: int) -> None:
        if self.is_running():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it by kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def is_running(self) -> bool:
        return not self._code_file.exists()

    def wait(self, timeout_s: float = 30.0) -> int:
        """Its exit code."""
        wait_until(lambda: self._code_file.exists() and self._code_file.read_text() != "", "its end", timeout_s)
        return int(self._code_file.read_text())

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def errors(self) -> str:
        """What it said on stderr."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of one event."""
        lines = [text for text in self.errors().splitlines() if text.startswith("{")]
        return [entry for entry in map(json.loads, lines) if entry.get("event") == name]

    @property
    def _code_file(self) -> Path:
        return Path(f"{self.log}.code")


class Starter:
    """Starts processes through the zygote, which is the parent of all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started = 0
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.faults.zygote"],
            cwd=ROOT,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, argv: list[str], env: dict[str, str]) -> Consumer:
        self.started += 1
        log = self.folder / f"{self.started}.log"
        self._zygote.stdin.write(json.dumps({"argv": argv, "env": env, "log": str(log)}) + "\n")
        self._zygote.stdin.flush()
        return Consumer(int(self._zygote.stdout.readline()), log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zygote.stdin.close()
        self._zygote.wait(20)
        self._zygote.stdout.close()


def wait_until(is_true: Any, what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_s:.0f} s"
        time.sleep(0.02)


# -- datasets ----------------------------------------------------------------------------------------------------------


@dataclass
class Dataset:
    """A topic, its contract, and what a lake holds that landed it undisturbed."""

    rig: Rig
    state: dict[str, Any]
    ends: dict[int, int]


def create_topic(bootstrap: str, topic: str, *, partitions: int = TOPIC_PARTITIONS, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=config)
    deadline = time.monotonic() + 20
    while True:
        creations = admin.create_topics([wanted], operation_timeout=15)
        try:
            creations[topic].result(20)
        except Exception:
            if time.monotonic() > deadline:  # a topic of this name may still be on its way out
                raise
            time.sleep(0.1)
        else:
            return


def delete_topic(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    deletions = admin.delete_topics([topic], operation_timeout=15)
    deletions[topic].result(20)


def make_dataset(bootstrap: str, dsn: str, folder: Path, *, events: int = EVENTS) -> Dataset:
    """Produce everything that may stand in a topic, and land it undisturbed."""
    topic = f"faults.{uuid.uuid4().hex[:8]}"
    create_topic(bootstrap, topic)
    produce_everything(bootstrap, topic, events)
    rig = make_rig(topic, bootstrap, dsn, folder)
    rig.migrate()
    rig.land()
    state = lake_state(rig)
    check_ledger(rig)
    assert state["rows"]
    assert state["dead_letters"]
    assert state["gaps"], "aborted transactions and control records leave gaps"
    return Dataset(rig, state, {at["topic_partition"]: at["next_offset"] for at in state["offsets"]})


def produce_everything(bootstrap: str, topic: str, events: int, *, first: int = 0) -> None:
    """Good events, a poison event in every 100th place, committed and aborted transactions."""
    plain = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    transactional = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "transactional.id": f"{topic}-{first}"})
    transactional.init_transactions()
    block = 450
    for start in range(first, first + events, block):
        is_transaction = (start // block) % 3 == 1
        producer = transactional if is_transaction else plain
        if is_transaction:
            transactional.begin_transaction()
            for number in range(40):
                transactional.produce(topic, b"aborted", key=b"a", partition=number % TOPIC_PARTITIONS)
            transactional.flush()
            transactional.abort_transaction()
            transactional.begin_transaction()
        for number in range(start, min(start + block, first + events)):
            produce_one(producer, topic, number)
        assert producer.flush(60) == 0
        if is_transaction:
            transactional.commit_transaction()


def produce_one(producer: Producer, topic: str, number: int) -> None:
    is_poison = number % POISON_EVERY == POISON_EVERY - 1
    value = (
        POISONS[number // POISON_EVERY % len(POISONS)]
        if is_poison
        else json.dumps(line(number, description=f"{number} \u2615 \U0001f381 \u4e2d {'x' * (number % 150)}")).encode()
    )
    producer.produce(
        topic,
        value,
        key=None if number % 17 == 0 else f"k{number % 50}".encode(),
        headers=[("trace", bytes([number % 256, 0, 255])), ("n", str(number).encode()), ("none", None)],
        partition=(number * 7) % TOPIC_PARTITIONS if number % 3 else 0,
    )
    producer.poll(0)


# -- judgement ---------------------------------------------------------------------------------------------------------


def lake_state(rig: Rig) -> dict[str, Any]:
    """All that has to be equal in two lakes that landed the same topic, however it was cut into batches."""
    table, topic = f"landing.{rig.contract.stream}", rig.topic
    rows = rig.query(
        "SELECT topic_partition, count(*), count(DISTINCT topic_offset), md5(string_agg(md5(concat_ws('|', "
        "topic_offset, event_at, event_day, coalesce(produced_at::text, '-'), coalesce(encode(key, 'hex'), '-'), "
        "coalesce(headers::text, '-'), payload)), '' ORDER BY topic_offset)) "
        f"FROM {table} GROUP BY 1 ORDER BY 1"
    )
    letters = rig.query(
        "SELECT topic_partition, topic_offset, reason, field, detail, md5(value), md5(key), headers::text, "
        "produced_at::text FROM control.dead_letter WHERE topic = %s ORDER BY 1, 2",
        topic,
    )
    days = rig.query(
        "SELECT event_day::text, topic_partition, rows, payload_bytes, first_offset, last_offset "
        "FROM control.landed_day WHERE topic = %s ORDER BY 1, 2",
        topic,
    )
    offsets = rig.query(
        "SELECT topic_partition, first_offset, next_offset FROM control.offset WHERE topic = %s ORDER BY 1", topic
    )
    return {
        "rows": rows,
        "dead_letters": letters,
        "gaps": merged_gaps(rig),
        "days": days,
        "offsets": [
            {"topic_partition": number, "first_offset": first, "next_offset": at} for number, first, at in offsets
        ],
    }


def merged_gaps(rig: Rig) -> list[tuple[int, str, int, int]]:
    """Gaps with neighbours joined: where one batch ends and the next begins is not part of the truth."""
    merged: list[tuple[int, str, int, int]] = []
    for number, kind, first, last in rig.query(
        "SELECT topic_partition, kind, first_offset, last_offset FROM control.gap WHERE topic = %s ORDER BY 1, 3",
        rig.topic,
    ):
        if merged and merged[-1][:2] == (number, kind) and merged[-1][3] + 1 == first:
            merged[-1] = (number, kind, merged[-1][2], last)
        else:
            merged.append((number, kind, first, last))
    return merged


def check_ledger(rig: Rig) -> None:
    """What holds in every lake at every instant: each offset once, sums that agree, batches without holes."""
    table, topic = f"landing.{rig.contract.stream}", rig.topic
    offsets = dict.fromkeys((number for (number,) in rig.query(
        "SELECT topic_partition FROM control.offset WHERE topic = %s", topic)), None)  # fmt: skip
    for number in offsets:
        check_topic_partition(rig, table, number)
    assert rig.query(
        f"SELECT topic_partition, topic_offset FROM {table} GROUP BY 1, 2 HAVING count(*) > 1"
    ) == [], "an offset landed twice"  # fmt: skip
    differing = rig.query(
        "SELECT * FROM (SELECT event_day, topic_partition, sum(rows) AS rows FROM control.batch_day WHERE topic = %s "
        "GROUP BY 1, 2) AS l FULL JOIN (SELECT event_day, topic_partition, rows FROM control.landed_day "
        "WHERE topic = %s) AS d USING (event_day, topic_partition) FULL JOIN (SELECT event_day, topic_partition, "
        f"count(*) AS rows FROM {table} GROUP BY 1, 2) AS t USING (event_day, topic_partition) "
        "WHERE l.rows IS DISTINCT FROM d.rows OR d.rows IS DISTINCT FROM t.rows",
        topic,
        topic,
    )
    assert differing == [], "batch_day, landed_day and the landing table count the same rows"


def check_topic_partition(rig: Rig, table: str, number: int) -> None:
    ((first, following, next_batch),) = rig.query(
        "SELECT first_offset, next_offset, next_batch FROM control.offset WHERE topic = %s AND topic_partition = %s",
        rig.topic, number,
    )  # fmt: skip
    batches = rig.query(
        "SELECT batch, kind, first_offset, last_offset, rows, dead_letters, gap_offsets FROM control.batch "
        "WHERE topic = %s AND topic_partition = %s ORDER BY batch",
        rig.topic, number,
    )  # fmt: skip
    assert [batch[0] for batch in batches] == list(range(1, next_batch)), "batches are numbered without holes"
    lost = rig.query(
        "SELECT first_offset, last_offset FROM control.gap WHERE topic = %s AND topic_partition = %s "
        "AND kind = 'below_log_start'",
        rig.topic, number,
    )  # fmt: skip
    landed = {row[0] for row in rig.query(f"SELECT topic_offset FROM {table} WHERE topic_partition = %s", number)}
    dead = {
        row[0]
        for row in rig.query(
            "SELECT topic_offset FROM control.dead_letter WHERE topic = %s AND topic_partition = %s "
            "AND replayed_at IS NULL",
            rig.topic, number,
        )
    }  # fmt: skip
    missing = set[int]()
    for begin, end in rig.query(
        "SELECT first_offset, last_offset FROM control.gap WHERE topic = %s AND topic_partition = %s",
        rig.topic, number,
    ):  # fmt: skip
        between = set(range(begin, end + 1))
        assert not between & missing, "a gap is recorded once"
        missing |= between
    assert not landed & dead
    assert not landed & missing
    assert not dead & missing
    assert landed | dead | missing == set(range(first, following)), "each offset is landed, dead or a gap"
    check_batches(batches, first, following, dict(lost))
    assert sum(batch[4] for batch in batches) == len(landed)


def check_batches(batches: list[Any], first: int, following: int, lost: dict[int, int]) -> None:
    at = first
    for _, kind, begin, end, rows, dead, gaps in batches:
        assert rows + dead + gaps == end - begin + 1
        if kind == "replay":
            continue
        while at in lost:
            at = lost[at] + 1
        assert begin == at, "a batch begins where the one before ended"
        at = end + 1
    while at in lost:
        at = lost[at] + 1
    assert at == following


# -- a lake under faults -----------------------------------------------------------------------------------------------


@dataclass
class FaultRig:
    """The dataset's topic, a lake of its own, processes."""

    dataset: Dataset
    rig: Rig
    starter: Starter
    env: dict[str, str] = field(default_factory=dict)

    def start(self, *, batch_events: int = 100, **env: Any) -> Consumer:
        """`streaming consume` as a process."""
        wanted = {
            "STREAMING_BATCH_EVENTS": str(batch_events),
            "STREAMING_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
            "LOG_FORMAT": "json",
            **{name: str(value) for name, value in env.items()},
        }
        return self.starter.start(
            ["consume", "--topic", self.rig.topic, "--json"], {**self.rig.env, **self.env, **wanted}
        )

    def landed(self) -> int:
        """Offsets that the ledger has passed."""
        ((passed,),) = self.rig.query(
            "SELECT coalesce(sum(next_offset - first_offset), 0) FROM control.offset WHERE topic = %s", self.rig.topic
        )
        return int(passed)

    @property
    def all_offsets(self) -> int:
        return sum(at["next_offset"] - at["first_offset"] for at in self.dataset.state["offsets"])

    def wait_landed(self, offsets: int | None = None, *, timeout_s: float = 90.0) -> None:
        wanted = self.all_offsets if offsets is None else offsets
        wait_until(lambda: self.landed() >= wanted, f"landing of {wanted} offsets", timeout_s)

    def assert_undisturbed(self) -> None:
        """Counts and checksums equal the undisturbed run, and the ledger is closed."""
        check_ledger(self.rig)
        assert lake_state(self.rig) == self.dataset.state


def make_fault_rig(dataset: Dataset, dsn: str, starter: Starter, *, through: str | None = None) -> FaultRig:
    """A migrated lake at `dsn`; processes reach it by `through`, if given."""
    rig = replace(dataset.rig, dsn=dsn, group=f"g-{uuid.uuid4().hex[:8]}")
    rig.migrate()
    return FaultRig(dataset, rig, starter, {} if through is None else {"LAKE_DSN": through})


def make_topic_rig(bootstrap: str, dsn: str, folder: Path, starter: Starter, **config: Any) -> FaultRig:
    """A topic of one test alone, empty, with a contract and a lake."""
    topic = f"faults.{uuid.uuid4().hex[:8]}"
    create_topic(bootstrap, topic, **config)
    rig = make_rig(topic, bootstrap, dsn, folder)
    rig.migrate()
    return FaultRig(Dataset(rig, {}, {}), rig, starter)
