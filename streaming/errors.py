"""Every error of this room, one tree. No logic here, and no error of another room.

StreamingError
├── SettingsError            a setting is missing or wrong; all problems are listed at once
├── ContractError            a contract file cannot be used; says file, line and remedy
├── MigrationError           the lake's schema cannot be brought to this version
│   └── ContractChangedError the lake has another version of the contract by now; read the contract anew
├── LandingError             a batch was not written; safe to retry
│   └── LakeUnavailableError Postgres cannot be reached; safe to retry, until the outage limit
│       ├── LakeRefusedError Postgres answers and refuses the log-in; a person has to decide
│       └── SilentLakeError  Postgres took a connection and does not answer on it; the connection was given up
├── RetiredError             the events asked for are gone by the contract's retention
├── LostRowsError            landing has not the rows that its ledger counts; a person has to restore them
├── RestoredError            the lake came back from a backup and lacks what a reader has read; a person has to tell it
├── FencedError              another consumer owns the topic partition; do not retry
├── TopicError               the topic cannot be read as it is; a person has to decide
│   ├── TopicRecreatedError  the topic is not the one that the ledger knows
│   └── BrokerUnavailableError  Kafka cannot be reached; safe to retry, until the outage limit
│       └── BrokerRefusedError  Kafka, or the token's server, refuses the log-in; a person has to decide
├── RegistryError            the schema registry refuses us; a person has to decide
├── RegistryUnavailableError the schema registry does not answer; safe to retry, until the outage limit
├── DeadLetterLimitError     too many events are refused; the consumer stops before it drains a topic into dead letters
├── ReplayError              a dead letter cannot be replayed
├── SourceError              a producer's input cannot be read
└── ProduceError             events could not be handed to Kafka
"""

from __future__ import annotations


class StreamingError(Exception):
    """Root of the room's errors: what was tried, what was found, what state things are in, what to do."""


class SettingsError(StreamingError):
    """A setting is missing or wrong."""


class ContractError(StreamingError):
    """A contract file cannot be used."""


class MigrationError(StreamingError):
    """The lake's schema cannot be brought to this version."""


class ContractChangedError(MigrationError):
    """The lake was migrated to another version of a contract while this landed by its own."""


class LandingError(StreamingError):
    """A batch was not written. Safe to retry."""


class LakeUnavailableError(LandingError):
    """Postgres cannot be reached. Safe to retry."""


class LakeRefusedError(LakeUnavailableError):
    """Postgres answers and refuses the log-in."""


class SilentLakeError(LakeUnavailableError):
    """Postgres took a connection and does not answer on it. Safe to retry."""


class RetiredError(StreamingError):
    """The events asked for are gone by the contract's retention."""

    is_of_rows = True  # whoever reads days together may read each without the others


class LostRowsError(StreamingError):
    """Landing has not the rows that its ledger counts. The message has the one next step."""

    says_next_step = True
    is_of_rows = True


class RestoredError(StreamingError):
    """The lake came back from a backup and lacks what a reader has read. The message has the one next step."""

    says_next_step = True


class FencedError(StreamingError):
    """Another consumer owns the topic partition. Do not retry."""

    def __init__(self, message: str, *, topic: str, topic_partition: int) -> None:
        """Keep the topic partition as attributes, so that nobody parses text."""
        super().__init__(message)
        self.topic = topic
        self.topic_partition = topic_partition


class TopicError(StreamingError):
    """The topic cannot be read as it is."""


class TopicRecreatedError(TopicError):
    """The topic is not the one that the ledger knows."""


class BrokerUnavailableError(TopicError):
    """Kafka cannot be reached."""


class BrokerRefusedError(BrokerUnavailableError):
    """Kafka, or the token's server, refuses the log-in."""


class RegistryError(StreamingError):
    """The schema registry refuses us."""


class RegistryUnavailableError(StreamingError):
    """The schema registry does not answer. Safe to retry."""


class DeadLetterLimitError(StreamingError):
    """Too many events are refused."""


class ReplayError(StreamingError):
    """A dead letter cannot be replayed."""


class SourceError(StreamingError):
    """A producer's input cannot be read."""


class ProduceError(StreamingError):
    """Events could not be handed to Kafka."""
