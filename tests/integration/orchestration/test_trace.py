"""One event's way through the rooms, and from a number back to its events; on a real lake and the emulator."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from orchestration.trace import main
from tests.integration.orchestration.landing import HandLanding, event

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.integration


def trace(*arguments: str) -> Any:
    ran = CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.output)


def test_event_is_followed_to_its_mart_rows_and_a_mart_row_back_to_its_events(
    landing: HandLanding, load_days: Callable[..., Any], warehouse: Any
) -> None:
    twice = event(line_no=2, event_id=str(uuid.uuid4()), country="France")
    landing.land([event(), {**event(), "unit_price": "no number"}, twice])
    landing.land([twice, event(line_no=4, country="France", stock_code="22423")], topic_partition=2)
    assert load_days("2010-12-01").success

    first = trace("event", "retail.invoices/0/2")
    assert (first["event"]["state"], first["event"]["event_day"], first["event"]["batch"]) == (
        "landed",
        "2010-12-01",
        1,
    )
    assert json.loads(first["event"]["payload"])["event_id"] == twice["event_id"]
    [table] = first["warehouse"]
    assert [load["version"] for load in table["loads"]] == [1]
    assert table["core"]["rows"][0]["event_id"] == twice["event_id"]
    marts = {each["table"]: each for each in table["marts"]}
    assert marts["mart.invoice_lines"]["rows"][0]["topic_offset"] == 2
    [by_country] = marts["mart.daily_sales_by_country"]["rows"]
    assert (by_country["country"], by_country["lines"]) == ("France", 2)
    assert {"Total Amount", "Net Sales", "Invoice Lines"} <= set(table["measures"])

    repeat = trace("event", "retail.invoices/2/0")
    marts = {each["table"]: each for each in repeat["warehouse"][0]["marts"]}
    assert "first delivery, retail.invoices/0/2" in marts["mart.invoice_lines"]["note"]

    assert trace("event", "retail.invoices/0/1")["event"]["state"] == "dead letter"
    assert trace("event", "retail.invoices/0/3")["event"]["state"] == "not landed yet"
    assert trace("event", "retail.invoices/7/0")["event"]["state"] == "unknown"

    back = trace("mart", "mart.daily_sales_by_country", "invoice_date=2010-12-01", "country=France")
    assert back["row"]["lines"] == back["events"] == 2
    assert back["ranges"] == [["retail.invoices", 0, 2, 2, 1], ["retail.invoices", 2, 1, 1, 1]]
    assert back["paths"] == [["mart.daily_sales_by_country", "mart.invoice_lines"]]
    shown = CliRunner().invoke(main, ["event", "retail.invoices/0/2"])
    assert "measures" in shown.output
    refused = CliRunner().invoke(main, ["mart", "mart.daily_sales_by_country", "country=France"])
    assert (refused.exit_code, "missing invoice_date" in refused.output) == (1, True)
    assert CliRunner().invoke(main, ["event", "nonsense"]).exit_code == 1


def test_a_lake_that_was_never_migrated_is_told(line_env: dict[str, str]) -> None:
    ran = CliRunner().invoke(main, ["event", "retail.invoices/0/2"], env=line_env)
    assert (ran.exit_code, type(ran.exception)) == (1, SystemExit)
    assert "`streaming migrate`" in ran.output


def test_a_topic_partition_that_kafka_cannot_have_is_told_as_that_and_not_as_a_lake_that_is_down() -> None:
    name = "retail.invoices/2147483648/0"
    ran = CliRunner().invoke(main, ["event", name], env={"LAKE_DSN": "host=nowhere.invalid"})
    assert (ran.exit_code, f"TraceError: tracing {name!r}: Kafka has no topic" in ran.output) == (1, True)
    assert "PostgreSQL" not in ran.output
