"""Asking for a topic's id: a client that gets no answer is replaced. Answers of a broker: tests/acceptance."""

from __future__ import annotations

from streaming.settings import KafkaSettings
from streaming.topic_identity import TopicWatch


def test_a_question_without_an_answer_is_asked_again_by_a_new_client_made_once_for_all_who_wait() -> None:
    watch = TopicWatch(KafkaSettings("127.0.0.1:1"))
    first, another = watch.ask(["shop.orders"]), watch.ask(["shop.orders"])
    silent = watch.admin
    first.again()
    renewed = watch.admin
    another.again()
    assert renewed is not silent
    assert watch.admin is renewed
