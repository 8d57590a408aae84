"""What the loader takes for the ledger: what the run's last load reported, or else what the warehouse says."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import dbt_like_sql.load
import dbt_like_sql.warehouse
import streaming.lake
from dbt_like_sql.load import LoadedDay
from mage_project.reading import distinct_events, read_landed
from mage_project.transforms.plan import plan_of

DAY = date(2010, 12, 1)
ENV = {"LAKE_DSN": "none", "WAREHOUSE_PROJECT": "local"}
VARIABLES = {"configuration": {"topic": "retail.invoices", "table": "core.invoice_lines"}, "day": "2010-12-01"}
SEEN = {"2010-12-01": {"version": 7, "incarnation": "i", "batches": {"0": 5}, "landed_us": {"0": 55}}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who was asked; the lake has batch 6, the warehouse says version 3."""
    questions: list[str] = []

    def ledger(*_args: Any) -> dict[date, LoadedDay]:
        questions.append("ledger")
        return {DAY: LoadedDay(3, {0: 4}, "w", {0: 44})}

    def confirm(_conn: Any, _topic: str, read: dict[date, dict[int, tuple[int, int]]]) -> dict[date, dict[int, int]]:
        questions.append(f"has read {read[DAY]}")
        return {day: {part: batch for part, (batch, _) in parts.items()} for day, parts in read.items()}

    def read(*_args: Any, after: dict[int, int], **_kwargs: Any) -> Any:
        questions.append(f"events after {after}")
        return streaming.lake.EVENTS_SCHEMA.empty_table()

    monkeypatch.setattr(dbt_like_sql.load, "loaded_days", ledger)
    monkeypatch.setattr(dbt_like_sql.warehouse, "open_warehouse", lambda _settings: None)
    monkeypatch.setattr(streaming.lake, "connect", lambda *_args, **_kwargs: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(streaming.lake, "confirm_read", confirm)
    landed = streaming.lake.LandedDay(DAY, 9, 900, {0: 6}, {0: 66})
    monkeypatch.setattr(streaming.lake, "landed_days", lambda *_args, **_kwargs: [landed])
    monkeypatch.setattr(streaming.lake, "read_events", read)
    return questions


def test_loader_asks_the_warehouse_how_far_its_days_are(asked: list[str]) -> None:
    [day] = plan_of(read_landed(VARIABLES, ENV)).days
    assert (day.version, day.incarnation, day.landed_us) == (3, "w", {0: 66})
    assert asked == ["ledger", "has read {0: (4, 44)}", "events after {0: 4}"]


def test_loader_goes_on_where_the_last_load_of_its_run_ended(asked: list[str]) -> None:
    [day] = plan_of(read_landed({**VARIABLES, "seen": SEEN}, ENV)).days
    assert (day.version, day.incarnation, day.after) == (7, "i", {0: 5})
    assert asked == ["has read {0: (5, 55)}", "events after {0: 5}"]


def test_what_the_lake_has_lost_is_read_again_and_does_not_hold_a_rebuild_up(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming.lake, "confirm_read", lambda *_args: {DAY: {}})
    [day] = plan_of(read_landed(VARIABLES, ENV)).days
    assert (day.version, day.after, day.has_landed_more, asked) == (3, {}, True, ["ledger", "events after {}"])
    [day] = plan_of(read_landed({**VARIABLES, "mode": "rebuild"}, ENV)).days
    assert (day.version, day.after) == (3, {})


@pytest.mark.parametrize("change", [{"mode": "rebuild"}, {"last_day": "2010-12-02"}])
def test_rebuild_and_days_that_were_not_told_ask_the_warehouse(asked: list[str], change: dict[str, str]) -> None:
    read_landed({**VARIABLES, "seen": SEEN, **change}, ENV)
    assert asked[0] == "ledger"


@pytest.mark.parametrize(
    ("places", "distinct"),
    [
        ([], 0),
        ([(0, 5), (0, 6), (1, 0)], 3),
        ([(0, 5), (0, 5), (1, 0)], 2),
        ([(0, 5), (1, 0), (1, 0)], 2),
        ([(1, 0), (0, 5), (1, 0), (0, 6)], 3),
    ],
)
def test_distinct_events_are_counted_in_order_and_out_of_order(places: list[tuple[int, int]], distinct: int) -> None:
    columns = zip(*places, strict=True) if places else ((), ())
    events = pa.table([pa.array(each, pa.int64()) for each in columns], names=["topic_partition", "topic_offset"])
    assert distinct_events(events) == distinct
