"""What a reader can trust: every offset, every day, every restatement, with numbers; what blocks if it is not so."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from dbt_like_sql.reconcile import DayTotals, Reconciliation, compared_days, record
from orchestration.defs.serving.assets import refuse_unreconciled
from orchestration.errors import ReconcileError
from streaming import lake
from tests.integration.orchestration.landing import TOPIC, HandLanding, event
from tests.integration.orchestration.test_load_days import checks, metadata

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.integration
DAY, LINES = date(2010, 12, 1), f"core.invoice_lines of {TOPIC}"


def execute(landing: HandLanding, statement: str) -> None:
    with landing.conn.cursor() as cursor:
        cursor.execute(statement)
    landing.conn.commit()


def test_late_events_restate_their_day_visibly_and_offsets_that_vanish_block(
    landing: HandLanding, load_days: Callable[..., Any], warehouse: Any
) -> None:
    landing.land([event(), {**event(), "quantity": "many"}, event(line_no=2)])
    first = load_days("2010-12-01")
    assert first.success
    assert checks(first)["every_offset_is_accounted_for"] is True
    assert "restated_days" not in metadata(first, "mart/invoice_lines", "2010-12-01")

    today = datetime.now(tz=ZoneInfo("Europe/London")).date()
    assert lake.dead_letters_by_day(landing.conn, TOPIC, days=[DAY, today]) == {DAY: 0, today: 1}
    [shown] = compared_days(warehouse)[LINES]
    assert (shown["landed_rows"], shown["dead_letter_rows"], shown["mart_rows"], shown["is_reconciled"]) == (
        2,
        0,
        2,
        True,
    )

    landing.land([event(line_no=3, unit_price="1.11", quantity=1)], topic_partition=2)
    late = load_days("2010-12-01")
    shown = metadata(late, "mart/invoice_lines", "2010-12-01")
    assert (shown["restated_days"], shown["days_grown"]) == (1, 1)
    [record] = [each.data for each in shown["restatements"].records]
    assert (record["rows before"], record["rows now"], record["caused by"]) == (2, 3, "retail.invoices/2/0-0")
    assert "amount_gbp 30.6 -> 31.71" in record["changed"]
    refuse_unreconciled(warehouse)

    execute(landing, "UPDATE control.landed_day SET rows = rows - 1 WHERE topic_partition = 2")
    landing.land([event(line_no=4)])
    blocked = load_days("2010-12-01")
    assert not blocked.success
    assert checks(blocked)["every_offset_is_accounted_for"] is False
    [found] = [
        each for each in blocked.get_asset_check_evaluations() if each.check_name == "every_offset_is_accounted_for"
    ]
    assert "retail.invoices/2: +1 of 1" in (found.description or "")
    assert compared_days(warehouse)[LINES][0]["mart_rows"] == 3, "readers keep what was right"


def test_report_is_not_refreshed_while_the_newest_comparison_of_a_day_differs(
    landing: HandLanding, load_days: Callable[..., Any], warehouse: Any
) -> None:
    landing.land([event(), event(line_no=2)])
    assert load_days("2010-12-01").success
    refuse_unreconciled(warehouse)
    table = warehouse.table_id("control.reconciliation")
    copy = "topic, event_day, core_version, landed_rows, core_rows, is_reconciled, run_id, recorded_at"
    wrong = f"SELECT topic, event_day, core_version, 9, core_rows, FALSE, 'wrong', CURRENT_TIMESTAMP() FROM `{table}`"
    warehouse.run(f"INSERT INTO `{table}` ({copy}) {wrong}")
    with pytest.raises(ReconcileError, match=r"1 day\(s\) do not reconcile, the first is 2010-12-01"):
        refuse_unreconciled(warehouse)
    assert load_days("2010-12-01", mode="rebuild").success
    refuse_unreconciled(warehouse)


def test_a_comparison_of_another_table_of_the_topic_does_not_hide_that_a_day_differs(
    landing: HandLanding, load_days: Callable[..., Any], warehouse: Any
) -> None:
    landing.land([event(), event(line_no=2)])
    other = Reconciliation(
        topic=TOPIC,
        table="core.other",
        day=DAY,
        landed_rows=9,
        landed_checksum=0,
        dead_letter_rows=0,
        core=DayTotals(DAY),
        mart=None,
        is_reconciled=False,
    )
    record(warehouse, [other], run_id="other")
    assert load_days("2010-12-01").success
    [shown] = compared_days(warehouse)[LINES]
    assert shown["is_reconciled"] is True
    with pytest.raises(ReconcileError, match=r"1 day\(s\) do not reconcile, the first is 2010-12-01"):
        refuse_unreconciled(warehouse)
    record(warehouse, [replace(other, is_reconciled=True)], run_id="other")
    refuse_unreconciled(warehouse)
