"""Frames: nothing disappears, amounts are exact, the shape is core's."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbt_like_sql.catalog import load_catalog
from mage_project.transforms import retail
from mage_project.transforms.errors import PlanError, TransformError
from mage_project.transforms.lines import CORE_SCHEMA, MONEY, classify_lines, first_wrong_amount, price_lines
from mage_project.transforms.plan import DayPlan, ReadPlan, attach_plan, carry_plan, plan_of

DAY = date(2010, 12, 1)
DECODED = pa.schema(
    [
        ("topic", pa.string()),
        ("topic_partition", pa.int64()),
        ("topic_offset", pa.int64()),
        ("produced_at", pa.timestamp("us", tz="UTC")),
        ("event_day", pa.date32()),
        ("event_id", pa.string()),
        ("invoice_no", pa.string()),
        ("line_no", pa.int64()),
        ("stock_code", pa.string()),
        ("description", pa.string()),
        ("quantity", pa.int64()),
        ("unit_price", MONEY),
        ("invoiced_at", pa.timestamp("us", tz="UTC")),
        ("customer_id", pa.string()),
        ("country", pa.string()),
    ]
)


def line(offset: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "topic": "retail.invoices",
        "topic_partition": 3,
        "topic_offset": offset,
        "produced_at": datetime(2010, 12, 1, 9, tzinfo=UTC),
        "event_day": DAY,
        "event_id": f"id-{offset}",
        "invoice_no": "536365",
        "line_no": 1,
        "stock_code": "85123a",
        "description": "HEART ",
        "quantity": 6,
        "unit_price": Decimal("2.55"),
        "invoiced_at": datetime(2010, 12, 1, 8, 26, tzinfo=UTC),
        "customer_id": "17850",
        "country": "EIRE",
        **changes,
    }


def plan(rows: int) -> ReadPlan:
    day = DayPlan(day=DAY, incarnation="i", version=2, after={0: 1}, upto={0: 4, 3: 1}, rows_read=rows)
    return ReadPlan(topic="retail.invoices", table="core.invoice_lines", mode="incremental", days=(day,))


def frame(*lines: dict[str, Any]) -> pa.Table:
    return attach_plan(pa.Table.from_pylist(list(lines), schema=DECODED), plan(len(lines)))


def priced(*lines: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = price_lines(classify_lines(frame(*lines))).to_pylist()
    return rows


def test_a_line_becomes_a_row_of_core() -> None:
    assert priced(line()) == [
        {
            "topic": "retail.invoices",
            "topic_partition": 3,
            "topic_offset": 0,
            "event_id": "id-0",
            "invoice_date": DAY,
            "invoiced_at": datetime(2010, 12, 1, 8, 26, tzinfo=UTC),
            "invoice_no": "536365",
            "line_no": 1,
            "invoice_kind": "sale",
            "line_kind": "product",
            "price_kind": "priced",
            "stock_code": "85123A",
            "description": "HEART",
            "quantity": 6,
            "unit_price_gbp": Decimal("2.550000000"),
            "amount_gbp": Decimal("15.300000000"),
            "customer_id": "17850",
            "is_guest": False,
            "country": "Ireland",
            "produced_at": datetime(2010, 12, 1, 9, tzinfo=UTC),
        }
    ]


def test_guests_are_kept() -> None:
    rows = priced(line(0, customer_id=None), line(1, customer_id=" "), line(2))
    assert [row["is_guest"] for row in rows] == [True, True, False]
    assert [row["customer_id"] for row in rows] == [None, None, "17850"]


def test_equal_lines_of_an_invoice_are_both_kept() -> None:
    rows = priced(line(0, line_no=1), line(1, line_no=2))
    assert [row["line_no"] for row in rows] == [1, 2]


def test_a_repeated_event_is_kept_as_it_was_delivered() -> None:
    rows = priced(line(0, event_id="same"), line(7, event_id="same"))
    assert [(row["event_id"], row["topic_offset"]) for row in rows] == [("same", 0), ("same", 7)]


def test_free_and_negative_lines_are_kept_and_classified() -> None:
    rows = priced(line(0, unit_price=Decimal(0), quantity=-30), line(1, unit_price=Decimal("-11062.06"), quantity=1))
    assert [(row["price_kind"], row["amount_gbp"]) for row in rows] == [
        ("free", Decimal(0)),
        ("negative", Decimal("-11062.06")),
    ]


def test_no_rows_stay_no_rows_in_cores_shape() -> None:
    table = price_lines(classify_lines(frame()))
    assert table.num_rows == 0
    assert table.schema.equals(CORE_SCHEMA, check_metadata=False)


@pytest.mark.parametrize(
    ("quantity", "price", "amount"),
    [
        (10**9, "999999999999.999999999", "999999999999999999999.000000000"),
        (-(10**9), "-999999999999.999999999", "999999999999999999999.000000000"),
        (3, "0.333333333", "0.999999999"),
        (-80995, "2.08", "-168469.600000000"),
        (0, "5", "0"),
    ],
)
def test_amounts_are_exact_up_to_the_contracts_limits(quantity: int, price: str, amount: str) -> None:
    [row] = priced(line(quantity=quantity, unit_price=Decimal(price)))
    assert row["amount_gbp"] == Decimal(amount)


MONEYS = st.decimals(min_value=-(10**12) + 1, max_value=10**12 - 1, places=9)


@given(st.lists(st.tuples(st.integers(-(10**9), 10**9), MONEYS), max_size=20))
def test_every_amount_is_quantity_times_price(pairs: list[tuple[int, Decimal]]) -> None:
    lines = [line(at, quantity=quantity, unit_price=price) for at, (quantity, price) in enumerate(pairs)]
    rows = priced(*lines)
    with localcontext(prec=60):
        assert [row["amount_gbp"] for row in rows] == [quantity * price for quantity, price in pairs]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "invoice_no": st.text(min_size=1),
                "stock_code": st.text(),
                "country": st.text(),
                "customer_id": st.none() | st.text(),
                "description": st.none() | st.text(),
            }
        ),
        max_size=20,
    )
)
def test_no_text_makes_a_line_disappear(texts: list[dict[str, Any]]) -> None:
    rows = priced(*(line(at, **changes) for at, changes in enumerate(texts)))
    assert [row["topic_offset"] for row in rows] == list(range(len(texts)))
    assert {row["line_kind"] for row in rows} <= set(retail.LINE_KINDS)


@pytest.mark.parametrize(
    ("column", "value"),
    [("quantity", 10**10), ("quantity", -(10**10)), ("unit_price", Decimal(10**12)), ("unit_price", -Decimal(10**12))],
)
def test_a_value_beyond_the_contract_is_an_error_that_names_its_row(column: str, value: Any) -> None:
    lines = classify_lines(frame(line(18200), line(18411, **{column: value}), line(18412)))
    with pytest.raises(TransformError) as failure:
        price_lines(lines)
    assert (failure.value.topic_partition, failure.value.topic_offset) == (3, 18411)
    assert failure.value.column == column
    assert "retail.invoices[3] offset 18411" in str(failure.value)


def test_a_wrong_amount_is_found() -> None:
    table = price_lines(classify_lines(frame(line(0), line(1, quantity=5))))
    assert first_wrong_amount(table) is None
    at = table.schema.get_field_index("amount_gbp")
    spoilt = table.set_column(at, "amount_gbp", pa.array([Decimal("15.3"), Decimal("12.74")], MONEY))
    assert first_wrong_amount(spoilt) == {
        "quantity": 5,
        "unit_price_gbp": Decimal("2.55"),
        "amount_gbp": Decimal("12.74"),
    }


def test_the_frame_has_the_columns_that_cores_contract_promises() -> None:
    assert tuple(CORE_SCHEMA.names) == load_catalog()["core.invoice_lines"].column_names


def test_the_kinds_are_those_of_cores_contract() -> None:
    table = load_catalog()["core.invoice_lines"]
    assert set(table.column("line_kind").allowed) == set(retail.LINE_KINDS)
    assert set(table.column("invoice_kind").allowed) == set(retail.INVOICE_KINDS)
    assert set(table.column("price_kind").allowed) == set(retail.PRICE_KINDS)


def test_the_plan_stays_with_the_frame_through_every_block() -> None:
    table = frame(line())
    assert plan_of(price_lines(classify_lines(table))) == plan_of(table) == plan(1)


def test_a_frame_without_a_plan_is_refused() -> None:
    with pytest.raises(PlanError, match="carry_plan"):
        plan_of(pa.table({"a": [1]}))


@pytest.mark.parametrize("of", ["pandas", "polars"])
def test_a_frame_that_is_no_arrow_table_is_told_what_to_return(of: str) -> None:
    frame = pytest.importorskip(of).DataFrame({"a": [1]})
    with pytest.raises(PlanError, match=f"it is a {of} DataFrame, .*Nothing was written.*carry_plan"):
        plan_of(frame)


def test_a_new_frame_can_carry_the_plan_on() -> None:
    assert plan_of(carry_plan(frame(line()), pa.table({"a": [1]}))) == plan(1)


def test_only_days_with_news_are_work_unless_they_are_rebuilt() -> None:
    day = plan(0).days[0]
    read = DayPlan(**{**vars(day), "after": {0: 4, 3: 1}})
    assert day.has_landed_more
    assert not read.has_landed_more
    fields = {"topic": "t", "table": "c.t", "days": (read,)}
    assert ReadPlan(**fields, mode="incremental").work == ()
    assert ReadPlan(**fields, mode="rebuild").work == (read,)


def test_blocks_are_shells() -> None:
    """A block's own function stays within 15 lines; the work is in transforms/, reading.py and writing.py."""
    folder = Path(retail.__file__).parents[1]
    for path in folder.glob("*/[a-z]*.py"):
        if path.parent.name in {"data_loaders", "transformers", "data_exporters"}:
            body = path.read_text(encoding="utf-8").split("@test")[0].split("def ")[1]
            assert len(body.strip().splitlines()) <= 15, path
