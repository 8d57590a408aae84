"""What a producer says and does when an event cannot be sent, or the source cannot be read on: without a broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streaming.contract import load_contract
from streaming.decode import Decoder
from streaming.errors import ProduceError, SourceError
from streaming.produce import EventProducer, Outgoing, produce
from streaming.settings import KafkaSettings

from .events import NOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class SlowClient:
    """Acknowledges nothing before it is flushed; refuses keys that are error codes."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[Any, Any], None]] = []

    def produce(self, _topic: str, *, key: bytes, on_delivery: Callable[[Any, Any], None], **_: Any) -> None:
        if key:
            raise KafkaException(KafkaError(int(key)))
        self.waiting.append(on_delivery)

    def poll(self, _timeout_s: float) -> int:
        return 0

    def flush(self, _timeout_s: float) -> int:
        while self.waiting:
            self.waiting.pop()(None, None)
        return 0


@pytest.fixture
def producer() -> EventProducer:
    made = EventProducer(KafkaSettings.from_env({"KAFKA_BOOTSTRAP_SERVERS": "localhost:1"}), "t")
    made._producer = SlowClient()
    return made


def events(last: Outgoing | None = None) -> Iterator[Outgoing]:
    for number in range(3):
        yield Outgoing(b"", b"{}", str(number), "")
    if last is None:
        raise SourceError("the disk is gone")
    yield last


@pytest.mark.parametrize("code", [KafkaError._MSG_TIMED_OUT, KafkaError.MSG_SIZE_TOO_LARGE])
def test_what_was_sent_before_an_error_is_counted(producer: EventProducer, code: int) -> None:
    with pytest.raises(ProduceError, match="3 events were sent"):
        produce(producer, events(Outgoing(str(code).encode(), b"{}", "x", "")))


def test_what_was_read_before_the_source_failed_is_sent(producer: EventProducer) -> None:
    with pytest.raises(SourceError):
        produce(producer, events())
    assert producer.counts.sent == 3


def test_a_cut_event_keeps_its_id_and_says_what_it_was_and_where() -> None:
    whole = Outgoing(
        b"k" * 20_000, json.dumps({"text": "é" * 600_000}, ensure_ascii=False).encode(), "1", "2", where="a.csv:3"
    )
    cut = whole.cut_down()
    assert cut.value is not None
    assert len(cut.value) < 11_000
    assert cut.value.decode().startswith("too large for the broker: 1,200,012 bytes, SHA-256 ")
    assert dict(cut.headers()) == {"event-id": b"1", "event-time": b"2", "source": b"a.csv:3"}
    assert Decoder(load_contract("retail.invoices")).judge(cut.value, now=NOW).reason == "not_json"
