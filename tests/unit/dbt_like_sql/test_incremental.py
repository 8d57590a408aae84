"""Which tables may be published for some of their rows, and which days are."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from dbt_like_sql.catalog import Table, load_catalog
from dbt_like_sql.errors import ContractError
from dbt_like_sql.incremental import check_incremental
from dbt_like_sql.publish_state import DayPublished, LoadSeen, OffsetRange, State, growing_days, merged
from dbt_like_sql.render import Slice

FACT, CORE, DAY = "mart.invoice_lines", "core.invoice_lines", date(2010, 12, 1)
TABLES = dict(load_catalog().tables)


def fact(tmp_path: Path, query: str, *, checks: bool = False) -> Table:
    path = tmp_path / "query.sql"
    path.write_text(query, encoding="utf-8")
    return replace(TABLES[FACT], query_path=path, checks=TABLES[FACT].checks if checks else ())


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT event_id, ROW_NUMBER() OVER (PARTITION BY country ORDER BY 1) FROM core.invoice_lines", "a window"),
        ("SELECT event_id, ROW_NUMBER() OVER (ORDER BY event_id) FROM core.invoice_lines", "a window"),
        ("SELECT event_id FROM core.invoice_lines QUALIFY COUNT(*) OVER () = 1", "a window"),
        ("SELECT MAX(event_id) AS event_id FROM core.invoice_lines", "aggregates"),
        ("SELECT country AS event_id, SUM(quantity) FROM core.invoice_lines GROUP BY country", "aggregates"),
        ("SELECT DISTINCT event_id FROM core.invoice_lines", "DISTINCT"),
        ("SELECT event_id FROM core.invoice_lines LIMIT 5", "LIMIT"),
        (
            "SELECT a.event_id FROM core.invoice_lines AS a JOIN core.invoice_lines AS b ON a.country = b.country",
            "once",
        ),
        ("SELECT UPPER(event_id) AS event_id FROM core.invoice_lines", "as it is"),
        (
            "SELECT event_id, DATE_DIFF(@today, invoice_date, DAY) AS age_days FROM core.invoice_lines",
            "@today, the clock",
        ),
        ("SELECT event_id FROM core.invoice_lines WHERE invoice_date < CURRENT_DATE()", "@today, the clock"),
        ("SELECT event_id FROM core.invoice_lines TABLESAMPLE SYSTEM (10 PERCENT)", "a part of its source"),
        ("SELECT event_id FROM core.invoice_lines WHERE invoice_date IN UNNEST(ARRAY_CONCAT(@days, []))", "@days"),
        (
            "SELECT event_id FROM core.invoice_lines WHERE quantity > (SELECT AVG(quantity) FROM core.invoice_lines)",
            "once",
        ),
    ],
)
def test_query_that_puts_rows_of_several_keys_together_is_refused(tmp_path: Path, query: str, problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        check_incremental(fact(tmp_path, query), TABLES)


def test_query_that_keeps_to_one_key_may_be_published_by_what_is_new(tmp_path: Path) -> None:
    check_incremental(TABLES[FACT], TABLES)
    grouped = (
        "SELECT event_id, SUM(quantity) FROM core.invoice_lines WHERE invoice_date IN UNNEST(@days) GROUP BY event_id"
    )
    check_incremental(fact(tmp_path, grouped, checks=True), TABLES)


def load(version: int, *, is_rebuild: bool = False, first: int = 0, topic: str = "t") -> LoadSeen:
    return LoadSeen(version, is_rebuild, (OffsetRange(topic, 0, first, first + 9, 10),))


def state(
    *loads: LoadSeen, published: int = 1, now: int = 2, model: str = "m", rows: int | None = 5, topics: int = 1
) -> State:
    sums: dict[str, Decimal] | None = None if rows is None else {}
    return State(
        publishers={},
        published={(FACT, DAY): DayPublished(published, model, rows, sums)},
        loaded={(CORE, DAY): {f"t{at}": now for at in range(topics)}},
        loads={(CORE, DAY): loads},
    )


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (state(load(2, is_rebuild=True)), "a rebuild may have taken rows away"),
        (state(load(2), model="other"), "another model built it"),
        (state(load(2), rows=None), "published before sums were recorded"),
        (state(), "nothing new: who asks wants it mended"),
        (state(load(3), now=3), "a load in between is not known"),
        (state(load(2), topics=2), "versions of two topics add up to one number"),
        (State(publishers={}, loaded={(CORE, DAY): {"t": 1}}), "never published"),
    ],
)
def test_day_is_built_anew_where_what_is_new_is_not_certain(seen: State, why: str) -> None:
    assert growing_days(TABLES[FACT], [DAY], seen, "m") == {}, why


def test_day_grows_by_all_loads_since_its_publication() -> None:
    seen = state(load(2, first=10), load(3, first=20), load(4, first=50), now=4)
    assert growing_days(TABLES[FACT], [DAY], seen, "m") == {
        DAY: (OffsetRange("t", 0, 10, 29, 20), OffsetRange("t", 0, 50, 59, 10))
    }


def test_load_that_came_after_the_ledger_was_read_is_left_for_the_next_time() -> None:
    seen = state(load(2, first=10), load(3, first=20), now=2)
    assert growing_days(TABLES[FACT], [DAY], seen, "m") == {DAY: (OffsetRange("t", 0, 10, 19, 10),)}


def test_neighbouring_ranges_become_one_and_others_only_when_asked() -> None:
    ranges = [OffsetRange("t", 0, 5, 6, 2), OffsetRange("t", 0, 0, 4, 5), OffsetRange("t", 0, 9, 9, 1)]
    assert merged(ranges) == (OffsetRange("t", 0, 0, 6, 7), OffsetRange("t", 0, 9, 9, 1))
    assert merged(ranges, gaps=True) == (OffsetRange("t", 0, 0, 9, 8),)


def test_slice_names_growing_days_by_their_keys_and_others_whole() -> None:
    other = date(2010, 12, 5)
    part = Slice([other], [DAY], "event_id", "SELECT event_id FROM new")
    assert part.sql("l.d", "l") == (
        "(l.d = DATE '2010-12-05') OR (l.d = DATE '2010-12-01' AND l.event_id IN (SELECT event_id FROM new))"
    )
    assert Slice([], [DAY], "event_id", "SELECT 1").sql("d") == "d = DATE '2010-12-01' AND event_id IN (SELECT 1)"
    assert Slice([]).sql("d") == "FALSE"
