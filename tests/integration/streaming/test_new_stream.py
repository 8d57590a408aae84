"""A contract proposed from a sample lands that sample without an edit, whatever the events are; no topic is special."""

from __future__ import annotations

import json
import random
import re
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from streaming import lake
from streaming.__main__ import main
from streaming.consumer import LandingConsumer
from tests.fix_kafka import NewTopic

from .rig import ROOT, Rig, make_rig

pytestmark = pytest.mark.integration

SAMPLES: dict[str, list[Any]] = {
    "nested": [
        {"orderId": 1, "at": "2026-11-01T10:00:00Z", "address": {"city": "Köln", "at": [50.9]}, "tags": ["a", 1]},
        {"orderId": 2, "at": "2026-11-01T10:00:00.123456+05:30", "address": None, "tags": []},
    ],
    "numbers": [
        {"n": 1, "price": 2, "big": 2**63, "long": 10**37, "longer": 10**40, "money": "12.50", "e": 1e-7},
        {"n": -(2**63), "price": 2.55, "big": 1, "long": 0, "longer": 1, "money": "-0.001", "e": 2.5e10},
        b'{"n":0,"price":2.0000000000000000001,"big":0,"long":0,"longer":0.5,"money":"0","e":0}',
    ],
    "times": [
        {"ts": 1795521600123, "local": "2026-11-01T10:00:00", "day": "2026-11-01", "due": "2099-01-01T00:00:00Z"},
        {"ts": 1795521600124, "local": "2026-11-01T10:00:00Z", "day": "2026-02-28", "due": "2099-01-01T00:00:00Z"},
    ],
    "seconds": [{"createdAt": 1795521600, "updated_at": 1795521600123456}, {"createdAt": 1795521601}],
    "no_time": [{"x": 1}, {"x": 2, "y": True}, {"y": None}],
    "missing": [{"id": "a", "at": "2026-11-01T10:00:00Z", "f": 1}, {"id": 2, "at": None}, {"id": 3}],
    "unicode": [
        {"名前": "山田", "Größe": 1, "": 2, "a" * 80: 3, "a" * 81: "x", "key": "k", "or by": "'; --", "no": "\u2028"},
        {"名前": "", "Größe": 2, "": 3, "a" * 80: 4, "a" * 81: "y", "key": "", "or by": "%s", "no": "\x7f\x1f"},
    ],
    "mixed": [{"v": 1, "b": True}, {"v": "x", "b": False}, {"v": {"a": [1]}}, {"v": None}, {"v": [1]}, {"v": False}],
    "old": [{"at": "1955-11-05T06:15:00-08:00", "what": "DeLorean"}],
}  # fmt: skip


def propose(rig: Rig, topic: str, sample: Path) -> None:
    result = CliRunner().invoke(main, ["new-stream", topic, "--from-sample", str(sample)], env=rig.env)
    assert result.exit_code == 0, result.output


@pytest.fixture
def empty_rig(kafka_bootstrap: str, new_topic: NewTopic, lake_dsn: str, tmp_path: Path) -> Rig:
    rig = make_rig(new_topic(partitions=1), kafka_bootstrap, lake_dsn, tmp_path)
    (tmp_path / f"{rig.topic}.yaml").unlink()
    return rig


def test_any_sample_lands_by_its_proposal_without_an_edit(empty_rig: Rig, new_topic: NewTopic, tmp_path: Path) -> None:
    rig = empty_rig
    topics: dict[str, tuple[str, list[bytes]]] = {}
    for name, events in SAMPLES.items():
        lines = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
        rig.topic = new_topic(name, partitions=1)
        sample = tmp_path / f"{name}.ndjson"
        sample.write_bytes(b"\n".join(lines) + b"\n")
        propose(rig, rig.topic, sample)
        result = CliRunner().invoke(main, ["produce", "--topic", rig.topic, "--ndjson", str(sample)], env=rig.env)
        assert result.exit_code == 0, result.output
        topics[name] = (rig.topic, lines)
    rig.migrate()
    contracts = rig.contracts
    consumer = LandingConsumer(rig.settings(), contracts)
    summary = consumer.run(threading.Event(), until_idle_s=0.6)
    assert (summary.rows, summary.dead_letters) == (sum(len(lines) for _, lines in topics.values()), 0)
    for name, (topic, lines) in topics.items():
        contract = contracts[topic]
        landed = rig.query(f"SELECT payload::text FROM landing.{contract.stream} ORDER BY topic_offset")
        assert [row[0].encode() for row in landed] == lines, name
        view = rig.query(f"SELECT to_json(whole) FROM lake.{contract.stream} AS whole ORDER BY topic_offset")
        decoded = read_all(rig, topic)
        for row, (shown,), line in zip(decoded, view, lines, strict=True):
            event = json.loads(line, parse_float=Decimal)
            for field in contract.fields:
                is_null = event.get(field.event_key) is None
                assert (row[field.name] is None) == (shown[field.name] is None) == is_null, (name, field.name)
                if field.logical_type in ("string", "boolean", "integer") and not is_null:
                    assert row[field.name] == shown[field.name] == event[field.event_key]
                if field.logical_type == "number" and not is_null:
                    assert row[field.name] == Decimal(event[field.event_key]), (name, field.name)


def test_events_beyond_kafka_s_own_limit_land_whole_by_the_proposal(
    empty_rig: Rig, topic_prefix: str, tmp_path: Path
) -> None:
    rig, sample = empty_rig, tmp_path / "large.ndjson"
    rig.topic = f"{topic_prefix}large"
    lines = [json.dumps({"id": size, "page": random.Random(size).randbytes(size).hex()}) for size in (10, 1_500_000)]
    sample.write_text("\n".join(lines))
    propose(rig, rig.topic, sample)
    rig.migrate()
    for command in (["topic", "create", rig.topic], ["produce", "--topic", rig.topic, "--ndjson", str(sample)]):
        result = CliRunner().invoke(main, command, env=rig.env)
        assert result.exit_code == 0, result.output
    rig.land()
    landed = rig.query(f"SELECT payload::text FROM landing.{rig.contract.stream} ORDER BY length(payload::text)")
    assert [text for (text,) in landed] == lines
    rig.assert_exact(2)


def read_all(rig: Rig, topic: str) -> list[dict[str, Any]]:
    """All rows of a topic through the door, in the order of their offsets."""
    contract = rig.contracts[topic]
    rows: list[dict[str, Any]] = []
    with rig.connect() as conn:
        for day in lake.landed_days(conn, topic):
            events = lake.read_events(conn, topic, day=day.event_day)
            rows += lake.decode_events(contract, events).to_pylist()
    return sorted(rows, key=lambda row: row["topic_offset"])


def test_view_and_door_agree_on_times_in_any_session_time_zone(empty_rig: Rig, tmp_path: Path) -> None:
    rig = empty_rig
    sample = tmp_path / "times.ndjson"
    sample.write_text("".join(json.dumps(event) + "\n" for event in SAMPLES["times"]))
    propose(rig, rig.topic, sample)
    rig.migrate()
    rig.send(line.encode() for line in sample.read_text().splitlines())
    rig.land()
    decoded = read_all(rig, rig.topic)
    stream = rig.contract.stream
    for zone in ("UTC", "Asia/Kolkata", "America/St_Johns"):
        with rig.connect() as conn, conn.cursor() as cursor:
            cursor.execute("SELECT set_config('TimeZone', %s, false)", (zone,))
            cursor.execute(f'SELECT ts, "local", day, event_at FROM lake.{stream} ORDER BY topic_offset')
            shown = cursor.fetchall()
        assert [row[:3] for row in shown] == [(row["ts"], row["local"], row["day"]) for row in decoded], zone
        assert [row[3] for row in shown] == [row["ts"] for row in decoded]


def test_the_code_of_the_landing_knows_no_topic() -> None:
    """Retail stands in its contract and in the producers of the demonstration, nowhere else."""
    words = re.compile(r"retail|invoice|stock_code|unit_price|customer|country", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {text.strip()}"
        for path in sorted((ROOT / "streaming").rglob("*"))
        if path.suffix in (".py", ".sql")
        and "sources" not in path.parts
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if words.search(text)
    ]  # fmt: skip
    assert not found, "\n".join(found)
