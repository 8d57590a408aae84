"""What `compare-rules` tells of days that moved while they were compared."""

from __future__ import annotations

from datetime import date

import pytest
from click.testing import CliRunner

from dbt_like_sql.compare import Difference
from dbt_like_sql.plan import Planned
from orchestration.compare import leave_out, main
from orchestration.defs.topics import Feed

D1, D2 = date(2010, 12, 1), date(2010, 12, 2)
WHOLE = Difference(day=None, rows_published=1, rows_planned=2, rows_gone=0, rows_new=1)


def daily(*days: date) -> Planned:
    differences = tuple(Difference(day=day, rows_published=2, rows_planned=1, rows_gone=1, rows_new=0) for day in days)
    return Planned("core.a", ("by these rules",), (D1, D2), differences=differences)


def test_days_that_moved_are_left_out_and_tables_made_of_all_days_are_not_compared() -> None:
    whole, view = Planned("mart.b", (), None, differences=(WHOLE,)), Planned("mart.c", ("a view",), None)
    core, left, seen = leave_out([daily(D1, D2), whole, view], [D1])
    assert core == daily(D2)
    assert (left.differences, seen.differences) == (None, None)


def test_a_comparison_of_days_that_stood_still_is_told_whole() -> None:
    planned = [daily(D1, D2), Planned("mart.b", (), None, differences=(WHOLE,))]
    assert leave_out(planned, []) == planned


@pytest.mark.parametrize(
    ("differences", "mart", "last"),
    [
        ((), "up to date", "Nothing was written."),
        ((WHOLE,), "up to date by its ledger, but would differ", "Nothing was "),
    ],
)
def test_days_to_backfill_are_told_only_where_something_would_differ(
    monkeypatch: pytest.MonkeyPatch, differences: tuple[Difference, ...], mart: str, last: str
) -> None:
    feed, planned = Feed("a.b", "core.a", "a"), [Planned("mart.b", (), None, differences=differences)]
    monkeypatch.setattr("orchestration.compare.compare_rules", lambda _env, **_options: [(feed, planned)])
    first, *_, end = CliRunner().invoke(main, [], catch_exceptions=False).output.splitlines()
    assert first == f"mart.b: {mart}"
    assert end.startswith(last)
    assert ("backfill these days of core/a" in end) is bool(differences)
