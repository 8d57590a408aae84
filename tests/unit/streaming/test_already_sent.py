"""What is sent again, what is not, and what is told, when a source is read a second time."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from streaming import already_sent
from streaming.already_sent import AlreadySent, Sent, read_already_sent
from streaming.produce import Outgoing
from streaming.settings import KafkaSettings

SAME, CHANGED, NOT = Sent.SAME, Sent.CHANGED, Sent.NOT


def event(number: int, value: str, *, document: str | None = "536365") -> Outgoing:
    return Outgoing(None, value.encode(), f"{document}/{number}", "", document=document)


def judged(sent: str, now: str, *, document: str | None = "536365") -> list[Sent]:
    """Each letter is a row of the document."""
    known = AlreadySent()
    for number, value in enumerate(sent):
        known.add(f"{document}/{number}".encode(), value.encode())
    return [known.judge(event(number, value, document=document)) for number, value in enumerate(now)]


@pytest.mark.parametrize(
    ("sent", "now", "found"),
    [
        ("abc", "abc", [SAME, SAME, SAME]),
        ("ab", "abcd", [SAME, SAME, NOT, NOT]),  # a producer was killed, or the invoice has grown
        ("abc", "aXc", [SAME, CHANGED, SAME]),
        ("abc", "aXbc", [SAME, CHANGED, CHANGED, CHANGED]),  # c is sent already, under the number before
        ("abc", "bc", [CHANGED, CHANGED]),
        ("aab", "aaab", [SAME, SAME, CHANGED, CHANGED]),
        ("aaa", "aaaa", [SAME, SAME, SAME, NOT]),
        ("", "ab", [NOT, NOT]),
    ],
)
def test_rows_of_a_document_are_compared_by_their_number(sent: str, now: str, found: list[Sent]) -> None:
    assert judged(sent, now) == found


def test_ids_that_do_not_count_rows_stand_for_themselves() -> None:
    assert judged("ab", "XbC", document=None) == [CHANGED, SAME, NOT]


def test_a_changed_document_leaves_others_alone() -> None:
    known = AlreadySent()
    known.add(b"1/0", b"a")
    assert known.judge(event(0, "X", document="1")) is CHANGED
    assert known.judge(event(0, "a", document="2")) is NOT


def test_what_is_there_twice_is_not_sent_twice_more() -> None:
    known = AlreadySent()
    for value in (b"a", b"a"):
        known.add(b"None/1", value)
    assert [known.judge(event(1, "a", document=None)) for _ in range(3)] == [SAME, SAME, NOT]


def test_equal_values_under_two_ids_are_not_mistaken() -> None:
    assert judged("ab", "ba", document=None) == [CHANGED, CHANGED]


class BusyTopic:
    """Stands in for a consumer of one topic partition that a producer fills as fast as it is read: no end is ever told.

    The first events are kept no more, and three are there when the scan begins.
    """

    def __init__(self, _settings: dict[str, Any]) -> None:
        self.offsets = itertools.count(7)

    def list_topics(self, topic: str, **_limits: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions={0: None})})

    def get_watermark_offsets(self, _partition: Any, **_limits: float) -> tuple[int, int]:
        return 7, 10

    def assign(self, _partitions: Any) -> None: ...

    def consume(self, _count: int, _timeout: float) -> list[Any]:
        at = next(self.offsets)
        assert at < 100, "the scan goes on behind the end that there was"
        headers = [("event-id", b"%d" % at)]
        return [
            SimpleNamespace(
                error=lambda: None, offset=lambda: at, partition=lambda: 0, headers=lambda: headers, value=lambda: b"{}"
            )
        ]

    def close(self) -> None: ...


def test_a_scan_ends_where_the_topic_ended_when_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(already_sent, "Consumer", BusyTopic)
    found = read_already_sent(KafkaSettings("127.0.0.1:1"), "shop.orders")
    assert sorted(found.ids) == [b"7", b"8", b"9"]
