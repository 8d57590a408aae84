"""Contract -> DDL of one stream: its landing table and its typed view. Pure: text only; migrate.py runs it.

The landing table keeps each event as it came (`json` keeps the text byte for byte; `jsonb` would reorder keys and costs
40 % of the rate), its identity and its times. It is partitioned by month of the event day, months are made on demand.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streaming.contract import Contract, Field

SQL_TYPES = {
    "string": "text",
    "integer": "bigint",
    "boolean": "boolean",
    "timestamp": "timestamptz",
    "date": "date",
    "object": "json",
    "array": "json",
}


def landing_table(contract: Contract) -> str:
    """Name of the landing table; the contract has checked that it is an identifier."""
    return f"landing.{contract.stream}"


def sql_type(field: Field) -> str:
    """Postgres type of a field in the typed view."""
    if field.logical_type == "number":
        return f"numeric({field.precision},{field.scale})"
    return SQL_TYPES[field.logical_type]


def create_landing_table(contract: Contract) -> str:
    """DDL of the landing table. Wide columns first, so that a row wastes no bytes on alignment."""
    table = landing_table(contract)
    return f"""
CREATE TABLE IF NOT EXISTS {table} (
    topic_offset     bigint NOT NULL,
    event_at         timestamptz NOT NULL,
    produced_at      timestamptz,
    topic_partition  integer NOT NULL,
    event_day        date NOT NULL,
    key              bytea,
    headers          json,
    payload          json NOT NULL,
    PRIMARY KEY (event_day, topic_partition, topic_offset)
) PARTITION BY RANGE (event_day);
COMMENT ON TABLE {table} IS {quote(f"Topic {contract.topic} as it came. {contract.description}")};
COMMENT ON COLUMN {table}.event_day IS {quote(f"Date of {contract.event_time_field} in {contract.time_zone}.")};
COMMENT ON COLUMN {table}.produced_at IS 'Timestamp of the Kafka message.';
"""


def create_view(contract: Contract) -> str:
    """DDL of the typed view; the payload is parsed once a row."""
    view = f"lake.{contract.stream}"
    typed = ", ".join(f'"{field.name}" {sql_type(field)}' for field in contract.fields)
    names = ", ".join(f'f."{field.name}"' for field in contract.fields)
    comments = "\n".join(
        f'COMMENT ON COLUMN {view}."{field.name}" IS {quote(field.description)};'
        for field in contract.fields
        if field.description
    )
    return f"""
DROP VIEW IF EXISTS {view};
CREATE VIEW {view} AS
SELECT e.topic_partition, e.topic_offset, e.event_day, e.event_at, e.produced_at, {names}
FROM {landing_table(contract)} AS e
CROSS JOIN LATERAL json_to_record(e.payload) AS f({typed});
COMMENT ON VIEW {view} IS {quote(f"{contract.topic} {contract.version}: {contract.description}")};
{comments}
"""


def quote(text: str) -> str:
    """A standard SQL string literal (standard_conforming_strings is on)."""
    return "'" + text.replace("'", "''") + "'"


def describe_fields(contract: Contract) -> list[dict[str, Any]]:
    """The part of a contract against which a later version is judged."""
    return [
        {
            "name": field.name,
            "type": sql_type(field),
            "nullable": field.nullable,
        }
        for field in contract.fields
    ]


def breaking_changes(before: list[dict[str, Any]], contract: Contract, time_zone: str) -> list[str]:
    """What a new version of a contract would break for what has landed already; empty if nothing."""
    now = {field["name"]: field for field in describe_fields(contract)}
    problems = []
    for old in before:
        new = now.pop(old["name"], None)
        if new is None:
            problems.append(f"field {old['name']} is gone: the view and its readers lose it")
        elif new["type"] != old["type"]:
            problems.append(f"field {old['name']} was {old['type']}, is {new['type']}: landed events may not be read")
        elif old["nullable"] and not new["nullable"]:
            problems.append(
                f"field {old['name']} was optional, is required: landed events without it break the promise"
            )
    problems.extend(
        f"field {name} is new and required: landed events do not have it; make it optional"
        for name, field in now.items()
        if not field["nullable"]
    )
    if time_zone != contract.time_zone:
        problems.append(f"timeZone was {time_zone}, is {contract.time_zone}: landed events have other event days")
    return problems


def fields_document(contract: Contract) -> str:
    """`describe_fields` as JSON text for control.stream."""
    return json.dumps(describe_fields(contract))
