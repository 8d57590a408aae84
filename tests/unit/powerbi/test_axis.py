"""Axes of charts: what stands at two ticks is never the same, on the axis as drawn and for any input of its rules."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerbi.evaluate import Answer, Heading
from powerbi.pbir import Field
from powerbi.render.axis import short_names, time_ticks, utc
from powerbi.render.chart import CHARTS, Frame, draw
from powerbi.render.theme import Theme

if TYPE_CHECKING:
    from collections.abc import Iterable

DATE, MOMENT = "yyyy-mm-dd", "yyyy-mm-dd hh:nn:ss"
FIRST = dt.date(2010, 12, 1)
NINE_DAYS = [FIRST + dt.timedelta(days) for days in (0, 1, 2, 4, 5, 6, 7, 8)]  # the shop is shut on the fourth
AROUND_NEW_YEAR = [dt.date(2010, 12, 28) + dt.timedelta(days) for days in range(9)]
TIMED = [kind for kind in CHARTS if kind != "donutChart"]
UPRIGHT = {"clusteredBarChart", "barChart"}
MOMENTS = st.datetimes(min_value=dt.datetime(1970, 1, 2), max_value=dt.datetime(2100, 1, 1))  # noqa: DTZ001 - as DuckDB


def labels(
    kind: str,
    categories: list[Any],
    values: Iterable[Any],
    *,
    of: str = "",
    measure: str = "#,##0.00",
    measures: int = 1,
) -> tuple[list[str], list[str]]:
    """What stands on the axis of the categories and on that of the numbers."""
    answer = Answer(
        (_heading("category", of),),
        tuple(_heading(f"measure {at}", measure) for at in range(measures)),
        tuple((category, *[value] * measures) for category, value in zip(categories, values, strict=True)),
        (),
    )
    svg = draw(kind, answer, Frame(680, 200, Theme()), "v")
    axes = [re.findall(r"<text[^>]*>([^<]*)</text>", part) for part in re.findall(r"role-axis-label.*?</g>", svg)]
    return axes[0], axes[1] if len(axes) > 1 else []


def _heading(name: str, format_string: str) -> Heading:
    return Heading(Field("measure", "t", name, name, name), format_string, is_number=True)


@pytest.mark.parametrize("measures", [1, 2])
@pytest.mark.parametrize("kind", TIMED)
def test_an_axis_of_few_days_names_each_day_once(kind: str, measures: int) -> None:
    every_day = [f"{day} Dec" for day in range(1, 10)]
    found, _ = labels(kind, NINE_DAYS, [57_000.5] * 8, of=DATE, measures=measures)
    is_grouped = kind == "clusteredColumnChart" and measures > 1  # a band for each day that there is
    assert found == ([day for day in every_day if day != "4 Dec"] if is_grouped else every_day)
    assert labels(kind, NINE_DAYS[:1], [57_000.5], of=DATE, measures=measures)[0] == ["1 Dec"]


@pytest.mark.parametrize("kind", TIMED)
def test_days_of_two_years_are_told_apart(kind: str) -> None:
    found, _ = labels(kind, AROUND_NEW_YEAR, range(9), of=DATE)
    assert len(found) == len(set(found)) > 3
    assert found[0] == "28 Dec 2010"


def test_hours_are_told_apart_and_read_as_utc() -> None:
    hours = [dt.datetime(2010, 12, 1, 8) + dt.timedelta(hours=at) for at in range(30)]  # noqa: DTZ001 - as DuckDB
    found, _ = labels("lineChart", hours, range(30), of=MOMENT)
    assert found == ["1 Dec 12:00", "1 Dec 18:00", "2 Dec 00:00", "2 Dec 06:00", "2 Dec 12:00"]
    assert labels("lineChart", hours[:2], range(2), of=MOMENT)[0] == [
        *(f"08:{minutes:02}" for minutes in range(0, 60, 5)),
        "09:00",
    ]
    assert labels("columnChart", hours, range(30), of=MOMENT)[0] == ["1 Dec", "2 Dec"]


@pytest.mark.parametrize(
    ("measure", "values", "expected"),
    [
        ("0.0%", [0.001, 0.004], ["0%", "0.1%", "0.2%", "0.3%", "0.4%"]),
        ("0.0%", [-0.004, 0.004], ["-0.4%", "-0.2%", "0%", "0.2%", "0.4%"]),
        ("£#,##0.00", [0.1, 0.9], ["£0", "£0.2", "£0.4", "£0.6", "£0.8"]),
        ("£#,##0.00", [-1500.0, 0.0], ["-£1.5K", "-£1K", "-£500", "£0"]),
        ("£#,##0.00", [0, 2.1e9], ["£0", "£500M", "£1bn", "£1.5bn", "£2bn"]),
        ("#,##0", [1, 2], ["0", "1", "2"]),
        ("#,##0", [0, 0], ["0"]),
    ],
)
def test_numbers_are_written_with_the_digits_that_tell_them_apart(
    measure: str, values: list[Any], expected: list[str]
) -> None:
    for kind in ("lineChart", "clusteredColumnChart"):
        assert labels(kind, ["a", "b"], values, measure=measure)[1] == expected, kind


def test_two_long_names_that_begin_alike_are_two_bars() -> None:
    names = [f"PACK OF 60 PINK PAISLEY CAKE CASES {letter}" for letter in "AB"]
    found, _ = labels("clusteredBarChart", names, [1, 2])
    assert found == ["PACK OF 60 PINK P…CAKE CASES A", "PACK OF 60 PINK P…CAKE CASES B"]


@given(
    moments=st.lists(MOMENTS, min_size=1, max_size=20),
    length=st.floats(10, 2000),
    is_of_days=st.booleans(),
    is_upright=st.booleans(),
)
def test_no_label_of_a_time_axis_stands_twice(
    *, moments: list[dt.datetime], length: float, is_of_days: bool, is_upright: bool
) -> None:
    shown: list[dt.date] = [moment.date() for moment in moments] if is_of_days else list(moments)
    ticks = time_ticks(shown, length, is_upright=is_upright)
    at = [dt.datetime.fromtimestamp(value / 1000, dt.UTC) for value in ticks.values]
    written = [moment.strftime(ticks.format) for moment in at]
    assert len(written) == len(set(written)) > 0
    assert at == sorted(at)
    if len(at) > 1:
        assert min(map(utc, shown)) <= at[0]
        assert at[-1] <= max(map(utc, shown))
        assert len(at) * (18 if is_upright else 6.2 * len(written[0]) * 0.6) <= length
    if is_of_days:
        assert all(moment.time() == dt.time() for moment in at)


@given(st.lists(st.text("ab", max_size=50), unique=True, max_size=12))
def test_no_name_cut_short_stands_for_two(names: list[str]) -> None:
    short = short_names(names)
    assert list(short) == names
    assert len(set(short.values())) == len(names)
    assert all(text == name for name, text in short.items() if len(name) <= 30)


def test_a_day_and_its_value_stand_in_the_middle_of_the_bar() -> None:
    answer = Answer((_heading("day", DATE),), (_heading("orders", "#,##0"),), ((FIRST, 3), (NINE_DAYS[1], 2)), ())
    svg = draw("clusteredColumnChart", answer, Frame(680, 200, Theme()), "v")
    texts = [(text, float(x)) for x, text in re.findall(r"<text[^>]*translate\(([\d.]+),[^>]*>([^<]*)</text>", svg)]
    (width,) = {float(width) for width in re.findall(r'rect mark" d="M0,[\d.]+h([\d.]+)', svg)}
    day, value = (at for text, at in texts if text in {"1 Dec", "3"})
    assert day == value == pytest.approx(width / 2, abs=1)
