"""Events land whatever the producer packed them with."""

from __future__ import annotations

import json

import pytest

from .rig import Rig, line

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
