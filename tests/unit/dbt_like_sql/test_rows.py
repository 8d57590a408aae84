"""Rows on their way into a loaded table: one identity twice is refused, in whatever order the rows come."""

from __future__ import annotations

from datetime import date

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
