"""Poison: events that nobody can read, among good ones, one in every 100th place of the dataset."""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka
import pytest

from streaming.dead_letter import read_dead_letters
from tests.acceptance.faults.rig import POISONS, Dataset, FaultRig, Starter, check_ledger, make_topic_rig
from tests.integration.streaming.rig import line

pytestmark = [pytest.mark.acceptance, pytest.mark.integration, pytest.mark.timeout(300)]

TOPIC, VALUE, MSGFLAGS, HEADERS, END, COPY_FLAG = 1, 4, 7, 10, 0, 2  # rd_kafka_vtype_t, RD_KAFKA_MSG_F_COPY


def test_a_poison_event_in_every_100th_place_is_kept_aside_and_nothing_else(dataset: Dataset) -> None:
    with dataset.rig.connect() as conn:
        letters = read_dead_letters(conn, dataset.rig.topic, limit=None)
    sent = sum(count for _, count, _, _ in dataset.state["rows"]) + len(letters)
    assert len(letters) == sent // 100
    assert {letter.value for letter in letters} == set(POISONS)
    assert {letter.reason for letter in letters} == {
        "not_json", "empty", "not_utf8", "nul_character", "wrong_type", "too_precise", "missing_field",
        "event_time_too_early",
    }  # fmt: skip
    traces = {dict(letter.headers)["trace"][1:] for letter in letters}
    assert traces == {b"\0\xff"}, "headers are whole"


class RawProducer:
    """Sends headers whose names are any bytes, as a client in another language can; confluent-kafka takes only text."""

    def __init__(self, bootstrap: str) -> None:
        folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
        found = [*folder.glob("librdkafka*")]
        if not found:
            pytest.skip(f"NOT TESTED: header names that are no text; no librdkafka in {folder}")
        self.lib = ctypes.CDLL(str(found[0]))
        for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
            getattr(self.lib, name).restype = ctypes.c_void_p
        conf, error = ctypes.c_void_p(self.lib.rd_kafka_conf_new()), ctypes.create_string_buffer(512)
        assert self.lib.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), error, 512) == 0
        self.handle = ctypes.c_void_p(self.lib.rd_kafka_new(0, conf, error, 512))

    def send(self, topic: str, value: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        made = ctypes.c_void_p(self.lib.rd_kafka_headers_new(4))
        for name, content in headers:
            sizes = ctypes.c_ssize_t(len(name)), ctypes.c_ssize_t(len(content))
            assert self.lib.rd_kafka_header_add(made, name, sizes[0], content, sizes[1]) == 0
        arguments = [
            ctypes.c_int(TOPIC), topic.encode(), ctypes.c_int(VALUE), value, ctypes.c_size_t(len(value)),
            ctypes.c_int(MSGFLAGS), ctypes.c_int(COPY_FLAG), ctypes.c_int(HEADERS), made, ctypes.c_int(END),
        ]  # fmt: skip
        assert self.lib.rd_kafka_producev(self.handle, *arguments) == 0

    def close(self) -> None:
        assert self.lib.rd_kafka_flush(self.handle, 20_000) == 0
        self.lib.rd_kafka_destroy(self.handle)


@pytest.mark.parametrize("keeps_headers", [False, True], ids=["headers dropped", "headers kept"])
def test_a_header_name_that_is_no_text_stops_nothing(
    kafka_bootstrap: str, lake_dsn: str, tmp_path: Path, starter: Starter, *, keeps_headers: bool
) -> None:
    faulty: FaultRig = make_topic_rig(kafka_bootstrap, lake_dsn, tmp_path, starter, partitions=1)
    if keeps_headers:
        (contract,) = tmp_path.glob("*.yaml")
        contract.write_text(contract.read_text() + "  - property: keepHeaders\n    value: true\n")
        faulty.rig.migrate()
    producer = RawProducer(kafka_bootstrap)
    import json

    good = json.dumps(line(1)).encode()
    for value in (good, b"{", good):
        for name in (b"bad\xff\xfename", b"", "name \u00fc".encode()):
            producer.send(faulty.rig.topic, value, [(name, b"\xff\0")])
    producer.close()
    faulty.rig.land()
    dead = 7 if keeps_headers else 3  # kept headers have to be text as well
    faulty.rig.assert_exact(9 - dead, dead=dead) if not keeps_headers else None
    check_ledger(faulty.rig)
    with faulty.rig.connect() as conn:
        letters = {letter.topic_offset: letter for letter in read_dead_letters(conn, faulty.rig.topic)}
    assert "a name in them is not UTF-8" in letters[3].detail
    assert letters[3].value == b"{"
    assert letters[5].headers == [("name \u00fc", b"\xff\0")]
    assert faulty.landed() == 9
