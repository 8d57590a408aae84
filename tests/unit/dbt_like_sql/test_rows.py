"""Rows on their way into a loaded table: one identity twice is refused, and what has no equal value in its column."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.errors import LoadError
from dbt_like_sql.rows import check_rows
from tests.unit.dbt_like_sql.lines import TOPIC, line, lines

DAY = date(2010, 12, 1)
CORE = load_catalog()["core.invoice_lines"]


@pytest.mark.parametrize(
    "places",
    [
        [(0, 1), (0, 2), (0, 2), (1, 0)],  # in order, side by side
        [(0, 1), (0, 2), (1, 0), (1, 0)],  # at the end
        [(0, 1), (1, 2), (0, 1)],  # out of order
    ],
)
def test_one_identity_twice_is_refused(places: list[tuple[int, int]]) -> None:
    rows = lines([line(DAY, part, offset) for part, offset in places])
    with pytest.raises(LoadError, match=f"{len(places)} rows have {len(places) - 1} different"):
        check_rows(CORE, rows, days={DAY}, topic=TOPIC)


@pytest.mark.parametrize("places", [[(0, 5)], [(0, 5), (1, 0), (1, 1)], [(1, 0), (0, 5), (1, 1)]])
def test_different_identities_pass_in_any_order(places: list[tuple[int, int]]) -> None:
    rows = lines([line(DAY, part, offset) for part, offset in places])
    assert check_rows(CORE, rows, days={DAY}, topic=TOPIC).num_rows == len(places)


NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("unit_price_gbp", 0.1 + 0.2, "does not convert exactly to NUMERIC"),
        ("unit_price_gbp", float("nan"), "does not convert exactly to NUMERIC"),
        ("is_guest", 5, "5 would be True"),
        ("is_guest", 0.5, "0.5 would be True"),
        ("invoiced_at", 1_291_197_960, "seconds, milliseconds or days"),
        ("invoiced_at", datetime(2010, 12, 1, 10), "it has no time zone"),  # noqa: DTZ001 - that is what is tried
        ("invoiced_at", DAY, "it has no time zone"),
        ("invoice_date", datetime(2010, 12, 1, 23, 30, tzinfo=NEW_YORK), "23:30:00-05:00 would be 2010-12-01"),
        ("quantity", datetime(2010, 12, 1, tzinfo=UTC), "of whatever unit the frame keeps"),
        ("quantity", timedelta(seconds=5), "of whatever unit the frame keeps"),
    ],
)
def test_a_value_that_has_no_equal_one_in_its_column_is_refused(column: str, value: Any, says: str) -> None:
    rows = _with(column, value)
    with pytest.raises(LoadError, match="Nothing was written") as caught:
        check_rows(CORE, rows, days={DAY}, topic=TOPIC)
    assert f"column {column} is {rows[column].type}" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "kept"),
    [
        ("unit_price_gbp", 19.99, Decimal("19.990000000")),
        ("unit_price_gbp", 123_456_789_012.345, Decimal("123456789012.345000000")),
        ("unit_price_gbp", 7, Decimal(7)),
        ("is_guest", 1.0, True),
        ("invoiced_at", datetime(2010, 12, 1, 5, tzinfo=NEW_YORK), datetime(2010, 12, 1, 10, tzinfo=UTC)),
        ("invoiced_at", "2010-12-01T05:00:00-05:00", datetime(2010, 12, 1, 10, tzinfo=UTC)),
        ("invoice_date", datetime(2010, 12, 1), DAY),  # noqa: DTZ001 - a day, as pandas keeps it
        ("invoice_date", datetime(2010, 12, 1, tzinfo=NEW_YORK), DAY),
        ("quantity", 2.0, 2),
        ("customer_id", None, None),
    ],
)
def test_a_value_that_has_an_equal_one_in_its_column_is_kept(column: str, value: Any, kept: Any) -> None:
    assert check_rows(CORE, _with(column, value), days={DAY}, topic=TOPIC)[column].to_pylist() == [kept]


def _with(column: str, value: Any) -> pa.Table:
    """One line in which a column is of the value's own type."""
    rows = lines([line(DAY, 0, 5)])
    return rows.set_column(rows.column_names.index(column), column, pa.array([value]))
