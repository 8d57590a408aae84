"""Fields that a contract gains, held against what has landed: a key that it did not know was landed with any value.

Not here: what a contract may change at all (stream_tables.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streaming import stream_tables
from streaming.contract import MESSAGE_TIME
from streaming.decode import Decoder, Refusal
from streaming.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streaming.contract import Contract

FETCHED_ROWS = 100  # at a time: of events of 1 MB, Kafka's own limit, 100 MB; of small ones 2 us a row


def refuse_unreadable(
    cursor: Any, contract: Contract, before: list[dict[str, Any]], *, since: Mapping[int, int] | None = None
) -> None:
    """Raises MigrationError if a landed event has something else under the key of a field that is new.

    All of them are looked at, or those of the batches from a number on (`since`, by topic partition). Read like all
    that has landed, without limits. PostgreSQL picks the rows that may be wrong, 3 us a row and field.
    """
    known = {field["name"] for field in before}
    gained = [field for field in contract.fields if field.name not in known and field.logical_type != "json"]
    if not gained:
        return
    alone = replace(contract, fields=tuple(gained), event_time_field=MESSAGE_TIME)
    decoder = Decoder(alone.without_limits())
    with cursor.connection.cursor(name="landed") as rows:
        rows.itersize = FETCHED_ROWS
        rows.execute(stream_tables.select_gained(contract, gained, since=since))
        for topic_partition, topic_offset, payload in rows:
            judged = decoder.judge_fields(payload.encode("utf-8"))
            if isinstance(judged, Refusal):
                raise MigrationError(
                    f"comparing contract {contract.path or contract.topic} {contract.version} with what has landed: "
                    f"field {judged.field} is new, but the event at {contract.topic}[{topic_partition}] offset "
                    f"{topic_offset} has its key already, with a value that the field does not take: {judged.detail}. "
                    f"Nothing was changed; with the field no landed event could be read. Take another name for field "
                    f"and key, `physicalType: json` without a logicalType, or a type that takes the value."
                )
