"""Events land whatever the producer packed them with."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .rig import Rig, line, make_rig

if TYPE_CHECKING:
    from tests.fix_kafka import NewTopic

pytestmark = pytest.mark.integration


def test_gzip_snappy_lz4_and_zstd_are_unpacked(rig: Rig) -> None:
    events = []
    for number, codec in enumerate(("gzip", "snappy", "lz4", "zstd")):
        batch = [line(number * 1000 + n, description=codec * 20) for n in range(200)]
        rig.send(batch, partition=number, **{"compression.type": codec, "linger.ms": 200})
        events += batch
    rig.land()
    rig.assert_exact(800)
    payloads = {row[0] for row in rig.query(f"SELECT payload::text FROM landing.{rig.contract.stream}")}
    assert payloads == {json.dumps(event) for event in events}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of another process's memory is read from /proc")
def test_a_packed_backlog_in_many_topic_partitions_fits_into_a_container_s_memory(
    kafka_bootstrap: str, new_topic: NewTopic, lake_dsn: str, tmp_path: Path
) -> None:
    """One fetch of 50 MB, the client's default, unpacked to more than the 512 MB that a consumer has."""
    rig = make_rig(new_topic(partitions=60), kafka_bootstrap, lake_dsn, tmp_path)
    rig.migrate()
    words = [f"{random.Random(seed).random()} of word {seed}, " * 2 for seed in range(2000)]
    chosen = random.Random(1)
    events = 60_000
    packed = {"compression.type": "zstd", "linger.ms": 200, "queue.buffering.max.kbytes": 1_000_000}
    texts = ("".join(chosen.sample(words, 80)) for _ in range(events))
    rig.send((line(n, invoice_no=str(n), description=text) for n, text in enumerate(texts)), **packed)
    with rig.started(tmp_path / "log") as consumer:
        rig.wait(lambda: rig.accounted() == events, what="the landing of the backlog")
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{consumer.pid}/status").read_text())
    assert peak is not None
    assert int(peak[1]) / 1024 < 480
    rig.assert_exact(events)
