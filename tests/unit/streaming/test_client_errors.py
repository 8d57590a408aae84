"""What follows from what librdkafka tells: a wrong log-in ends the consumer at once, an outage only after a limit."""

from __future__ import annotations

import re
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from streaming.client_errors import ClientErrors
from streaming.errors import BrokerRefusedError, BrokerUnavailableError, TopicError
from streaming.fencing import Fencing
from streaming.kafka import create_topic, unavailable
from streaming.metrics import LandingMetrics
from streaming.settings import KafkaSettings, LakeSettings, LandingSettings

REFUSED = KafkaError(KafkaError._AUTHENTICATION, 'SASL authentication error: {"status":"invalid_token"}')
NO_TOKEN = KafkaError(KafkaError._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: Connection refused")
NO_BROKER = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")


@pytest.fixture
def errors() -> ClientErrors:
    kafka = KafkaSettings("127.0.0.1:1", security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER")
    settings = LandingSettings(kafka=kafka, lake=LakeSettings("postgresql://x", Path()), outage_limit_s=100.0)
    return ClientErrors(settings, LandingMetrics(), Fencing(settings))


def outages(errors: ClientErrors) -> float | None:
    return errors.metrics.registry.get_sample_value("landing_outages_total", {"service": "broker"})


def pass_time(errors: ClientErrors, seconds: float) -> None:
    assert errors.broker_down_since is not None
    errors.broker_down_since -= seconds


def test_a_broker_that_refuses_the_log_in_ends_the_consumer_with_what_to_check(errors: ClientErrors) -> None:
    errors.on_error(REFUSED)
    with pytest.raises(TopicError, match=r"invalid_token.*KAFKA_OAUTH_CLIENT_SECRET"):
        errors.raise_kept()
    errors.raise_kept()  # it is raised once


def test_a_broker_that_refuses_an_old_token_while_the_next_cannot_be_had_is_an_outage(errors: ClientErrors) -> None:
    errors.on_error(NO_TOKEN)
    errors.raise_kept()
    errors.raise_outage()
    assert errors.broker_down_since is None, "the token at hand may hold for long"
    errors.on_error(REFUSED)
    errors.on_error(REFUSED)
    errors.raise_kept()
    errors.raise_outage()
    assert outages(errors) == 1
    pass_time(errors, 101)
    with pytest.raises(BrokerUnavailableError, match=r"STREAMING_OUTAGE_LIMIT_S.*Failed to acquire.*KAFKA_OAUTH_TOKEN"):
        errors.raise_outage()


def test_without_a_first_token_nothing_is_told_but_by_the_statistics_and_that_is_an_outage(
    errors: ClientErrors,
) -> None:
    errors.note_brokers(is_any_up=False)
    assert errors.broker_down_since is None, "it only has not connected yet"
    errors.on_error(NO_TOKEN)
    errors.note_brokers(is_any_up=False)
    errors.note_brokers(is_any_up=False)
    assert outages(errors) == 1
    pass_time(errors, 101)
    errors.note_brokers(is_any_up=True)
    errors.raise_outage()
    assert errors.broker_down_since is None


@pytest.mark.parametrize("code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED])
def test_a_right_that_the_broker_denies_is_no_outage_and_names_what_is_needed(errors: ClientErrors, code: int) -> None:
    told = unavailable(errors.settings.kafka, "describing topic a.b", KafkaException(KafkaError(code)))
    assert isinstance(told, BrokerRefusedError), "waiting does not help"
    assert re.match(r"describing topic a.b at 127.0.0.1:1: .*uthorization failed\. .*DESCRIBE and READ", str(told))
    assert "Check that Kafka is up" not in str(told)


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            "It was not created. .* lacks an ACL .* CREATE on it or on the cluster",
        ),
        (
            KafkaError.CLUSTER_AUTHORIZATION_FAILED,
            "It was not created. .* lacks an ACL .* CREATE on it or on the cluster",
        ),
        (KafkaError.UNKNOWN, "It was not created. .* log tells more.* CREATE on it or on the cluster"),
        (KafkaError.INVALID_REPLICATION_FACTOR, "It was not created. Change what the broker names"),
        (KafkaError._TIMED_OUT, "It may have been created: run it again"),
    ],
)
def test_a_topic_that_the_broker_does_not_create_is_told_with_the_right_that_may_be_missing(
    errors: ClientErrors, monkeypatch: pytest.MonkeyPatch, code: int, needed: str
) -> None:
    creation = Future[None]()
    creation.set_exception(KafkaException(KafkaError(code)))
    admin = SimpleNamespace(describe_topics=lambda *_, **__: {}, create_topics=lambda *_, **__: {"a.b": creation})
    monkeypatch.setattr("streaming.kafka.admin_client", lambda _: admin)
    with pytest.raises(TopicError, match=rf"creating topic a\.b at 127.0.0.1:1: .*{needed}"):
        create_topic(errors.settings.kafka, "a.b", topic_partitions=1)


def test_a_topic_whose_reading_is_denied_later_ends_the_consumer_with_what_is_needed(errors: ClientErrors) -> None:
    denied = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    message = SimpleNamespace(error=lambda: denied, topic=lambda: "a.b", partition=lambda: 3)
    with pytest.raises(TopicError, match=r"reading a.b\[3\]: .*Nothing was skipped; .* READ on the topic"):
        errors.on_message_error(message)  # type: ignore[arg-type]
    denied = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    message = SimpleNamespace(error=lambda: denied, topic=lambda: None, partition=lambda: 0)
    with pytest.raises(TopicError, match=r"reading as group landing: .* READ on the group"):
        errors.on_message_error(message)  # type: ignore[arg-type]


OLD_TOKEN = KafkaError(KafkaError._AUTHENTICATION, "FindCoordinator response error: Local: Authentication failure")


@pytest.mark.parametrize("told_before", [None, NO_TOKEN])
def test_a_group_that_is_refused_for_an_old_token_is_an_outage(
    errors: ClientErrors, told_before: KafkaError | None
) -> None:
    """It comes in the place of a message, and on a busy machine before anything else is told of the token."""
    if told_before is not None:
        errors.on_error(told_before)
    message = SimpleNamespace(error=lambda: OLD_TOKEN, topic=lambda: None, partition=lambda: 0)
    errors.on_message_error(message)  # type: ignore[arg-type]
    assert outages(errors) == 1
    pass_time(errors, 101)
    with pytest.raises(BrokerUnavailableError, match="STREAMING_OUTAGE_LIMIT_S"):
        errors.raise_outage()


def test_a_group_whose_password_is_refused_ends_the_consumer_with_what_to_check() -> None:
    kafka = KafkaSettings("127.0.0.1:1", security_protocol="SASL_SSL", sasl_mechanism="PLAIN")
    settings = LandingSettings(kafka=kafka, lake=LakeSettings("postgresql://x", Path()))
    message = SimpleNamespace(error=lambda: OLD_TOKEN, topic=lambda: None, partition=lambda: 0)
    with pytest.raises(TopicError, match=r"as group landing.*KAFKA_SASL_PASSWORD"):
        ClientErrors(settings, LandingMetrics(), Fencing(settings)).on_message_error(message)  # type: ignore[arg-type]


def test_what_the_session_before_has_met_is_forgotten(errors: ClientErrors) -> None:
    for error in (NO_TOKEN, NO_BROKER):
        errors.on_error(error)
    errors.begin()
    assert errors.broker_down_since is None
    errors.on_error(REFUSED)
    with pytest.raises(TopicError, match="invalid_token"):
        errors.raise_kept()


def test_an_outage_of_the_broker_is_counted_once_and_has_a_limit(errors: ClientErrors) -> None:
    errors.settings = replace(errors.settings, outage_limit_s=5.0)
    errors.on_error(NO_BROKER)
    errors.on_error(NO_BROKER)
    assert outages(errors) == 1
    pass_time(errors, 4)
    errors.raise_outage()
    pass_time(errors, 2)
    with pytest.raises(BrokerUnavailableError, match="no broker for 6 s"):
        errors.raise_outage()
