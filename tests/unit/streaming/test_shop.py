from __future__ import annotations

import functools
import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from streaming.contract import load_contract
from streaming.decode import Decoder, Refusal
from streaming.sources.shop import ShopPlan, run_shop

if TYPE_CHECKING:
    from streaming.produce import Outgoing

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
PLAN = ShopPlan(seed=7, start=START, history_days=14, lines_per_day=400)
DECODER = Decoder(load_contract("retail.invoices"))


def take(plan: ShopPlan, count: int) -> list[Outgoing]:
    return list(itertools.islice(run_shop(plan), count))


@functools.cache
def history(plan: ShopPlan = PLAN) -> list[dict[str, Any]]:
    events = itertools.takewhile(lambda event: event.due_at is None, run_shop(plan))
    return [json.loads(event.value or b"") for event in events]


def test_the_same_seed_and_start_give_the_same_events() -> None:
    assert take(PLAN, 1000) == take(PLAN, 1000)


def test_a_later_start_shares_no_invoice_and_no_event_id() -> None:
    first, second = take(PLAN, 3000), take(replace(PLAN, start=START + timedelta(seconds=1)), 3000)
    assert not {event.event_id for event in first} & {event.event_id for event in second}
    assert not {event.key for event in first} & {event.key for event in second}


def test_event_ids_are_unique_and_lines_are_numbered() -> None:
    events = history()
    assert len({event["event_id"] for event in events}) == len(events)
    for _, group in itertools.groupby(events, key=lambda event: event["invoice_no"]):
        numbers = [line["line_no"] for line in group]
        assert numbers == list(range(1, len(numbers) + 1))


def test_every_event_keeps_the_contract() -> None:
    for event in take(PLAN, 5_000):
        assert not isinstance(DECODER.judge(event.value, now=START + timedelta(days=1)), Refusal), event.value


def test_a_history_has_the_size_and_the_coding_habits_of_a_wholesaler() -> None:
    events = history(replace(PLAN, history_days=28, lines_per_day=1_200))
    assert 22_000 < len(events) < 51_000
    codes = Counter(event["stock_code"] for event in events)
    for code in ("POST", "C2", "DOT", "M", "D", "S", "BANK CHARGES", "AMAZONFEE", "CRUK", "PADS", "B", "TEST001"):
        assert codes[code] > 0, code
    assert any(code.startswith("gift_0001_") for code in codes)
    kinds = Counter(event["invoice_no"][0] for event in events)
    assert kinds["C"] > 0
    assert kinds["A"] > 0
    guests = sum(event["customer_id"] is None for event in events) / len(events)
    assert 0.1 < guests < 0.4
    assert 0.8 < sum(event["country"] == "United Kingdom" for event in events) / len(events) < 0.97
    assert any(Decimal(event["unit_price"]) == 0 and event["quantity"] < 0 for event in events)
    assert any(event["description"] is None for event in events)


def test_cancellations_refer_to_earlier_sales() -> None:
    sold: set[tuple[str, str, str | None]] = set()
    cancelled = 0
    for event in history():
        line = (event["stock_code"], event["unit_price"], event["customer_id"])
        if event["quantity"] > 0:
            sold.add(line)
        elif event["invoice_no"].startswith("C") and event["stock_code"][:1].isdigit():
            cancelled += 1
            assert line in sold
    assert cancelled > 5


def test_the_week_and_the_day_have_a_rhythm() -> None:
    times = [datetime.fromisoformat(event["invoiced_at"]) for event in history(replace(PLAN, history_days=56))]
    by_day, by_hour = Counter(at.weekday() for at in times), Counter(at.hour for at in times)
    assert by_day[5] < by_day[3] / 2
    assert by_hour[12] > 5 * by_hour[3]


def test_real_time_events_are_due_at_their_own_instant_and_at_the_rate_asked_for() -> None:
    events = take(replace(PLAN, history_days=0, rate=50.0), 10_000)
    for event in events:
        assert event.due_at is not None
        assert 0 <= event.due_at - datetime.fromisoformat(event.event_time).timestamp() < 1
    span = (events[-1].due_at or 0) - START.timestamp()
    assert 10_000 / span > 20
    assert 10_000 / span < 100


def test_without_a_pace_events_do_not_run_into_the_future() -> None:
    events = take(replace(PLAN, history_days=0, rate=math.inf), 20_000)
    assert all(event.due_at is None for event in events)
    assert max(event.event_time for event in events) < (START + timedelta(seconds=10)).isoformat()


def test_late_duplicate_and_broken_events_come_as_often_as_asked() -> None:
    plan = replace(PLAN, late=0.05, duplicate=0.05, broken=0.05)
    events = take(plan, 10_000)
    judged = [DECODER.judge(event.value, now=START + timedelta(days=1)) for event in events]
    reasons = Counter(found.reason for found in judged if isinstance(found, Refusal))
    assert 0.04 < reasons.total() / 10_000 < 0.06
    assert {"empty", "not_json", "not_utf8", "missing_field", "wrong_type", "too_precise", "nul_character"} <= set(
        reasons
    )
    repeats = 10_000 - len({event.event_id for event in events})
    assert 0.035 < repeats / 10_000 < 0.06
    assert events[:3_000] == take(plan, 3_000)
