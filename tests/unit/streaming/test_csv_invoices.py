from __future__ import annotations

import io
import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.contract import load_contract
from streaming.decode import Decoder, Refusal
from streaming.errors import SourceError
from streaming.sources.csv_invoices import (
    copies,
    left_out,
    open_csv_source,
    overlaps,
    read_csv_events,
    read_customer,
    read_price,
    read_quantity,
    read_time,
)

from .events import NOW

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
DECODER = Decoder(load_contract("retail.invoices"))


def write(folder: Path, rows: str, *, header: str = HEADER, name: str = "a.csv", encoding: str = "utf-8") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(f"{header}\n{rows}".encode(encoding))
    return folder


def events_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(event.value or b"") for event in read_csv_events(open_csv_source(path))]


def refusals(path: Path) -> list[str | None]:
    judged = [DECODER.judge(event.value, now=NOW) for event in read_csv_events(open_csv_source(path))]
    return [found.reason if isinstance(found, Refusal) else None for found in judged]


def test_a_row_becomes_an_event_of_the_contract(tmp_path: Path) -> None:
    path = write(
        tmp_path, "536365,85123A,WHITE HANGING HEART T-LIGHT HOLDER,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"
    )
    (event,) = events_of(path)
    event.pop("event_id")
    assert event == {
        "invoice_no": "536365", "line_no": 1, "stock_code": "85123A", "quantity": 6, "unit_price": "2.55",
        "description": "WHITE HANGING HEART T-LIGHT HOLDER", "invoiced_at": "2010-12-01T08:26:00Z",
        "customer_id": "17850", "country": "United Kingdom",
    }  # fmt: skip
    assert refusals(path) == [None]


def test_the_columns_of_the_second_edition_are_read_too(tmp_path: Path) -> None:
    header = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country"
    path = write(tmp_path, "489434,85048,LIGHTS,12,12/1/2009 7:45,6.95,13085,United Kingdom\n", header=header)
    (event,) = events_of(path)
    assert (event["invoice_no"], event["unit_price"], event["customer_id"]) == ("489434", "6.95", "13085")
    assert event["invoiced_at"] == "2009-12-01T07:45:00Z"


def test_equal_lines_of_an_invoice_are_different_events_also_across_files(tmp_path: Path) -> None:
    row = "1,A,B,1,2010-12-01 08:00:00,1,,UK\n"
    write(tmp_path, row + row, name="a.csv")
    write(tmp_path, row, name="b.csv")
    events = events_of(tmp_path)
    assert [event["line_no"] for event in events] == [1, 2, 3]
    assert len({event["event_id"] for event in events}) == 3


def test_event_ids_are_the_same_at_every_reading(tmp_path: Path) -> None:
    path = write(tmp_path, "1,A,B,1,2010-12-01 08:00:00,1,,UK\n")
    first, second = (next(read_csv_events(open_csv_source(path))) for _ in range(2))
    assert first == second
    assert dict(first.headers()) == {"event-id": first.event_id.encode(), "event-time": b"2010-12-01T08:00:00Z"}
    assert first.key == b"1"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_text_is_read_in_any_of_the_three_encodings(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, "1,A,CAFÉ £5 “DÉCO”,1,2010-12-01 08:00:00,1,,Österreich\n", encoding=encoding)
    (event,) = events_of(path)
    assert (event["description"], event["country"]) == ("CAFÉ £5 “DÉCO”", "Österreich")


def test_bytes_that_no_code_page_has_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    (path / "a.csv").write_bytes(HEADER.encode() + b"\n1,A,\x81 \xe9,1,2010-12-01 08:00:00,1,,UK\n")
    assert events_of(path)[0]["description"] == "\x81 é"


def test_quotes_and_newlines_inside_a_description_survive(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '1,A,"7"" FRAME, TWO\r\nLINES\x85AND \u2028 MORE",1,2010-12-01 08:00:00,1,,UK\r\n'
        "2,A,B,1,2010-12-01 08:00:00,1,,UK\r\n",
    )
    first, second = events_of(path)
    assert first["description"] == '7" FRAME, TWO\r\nLINES\x85AND \u2028 MORE'
    assert second["invoice_no"] == "2"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), min_size=1, max_size=20))
def test_any_unicode_survives(tmp_path_factory: pytest.TempPathFactory, descriptions: list[str]) -> None:
    path = tmp_path_factory.mktemp("csv")
    rows = "".join(
        f'{number},A,"{text.replace(chr(34), chr(34) * 2)}",1,2010-12-01 08:00:00,1,,UK\n'
        for number, text in enumerate(descriptions, 1)
    )
    write(path, rows)
    events = events_of(path)
    assert [event["description"] for event in events] == [text or None for text in descriptions]


def test_empty_values_are_guests_and_no_descriptions(tmp_path: Path) -> None:
    path = write(tmp_path, "1,,,1,2010-12-01 08:00:00,0,,\n")
    (event,) = events_of(path)
    assert (event["stock_code"], event["description"], event["customer_id"], event["country"]) == ("", None, None, "")
    assert refusals(path) == [None]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,A,B,six,2010-12-01 08:00:00,1,,UK", "wrong_type"),
        ("1,A,B,1.5,2010-12-01 08:00:00,1,,UK", "wrong_type"),
        ("1,A,B,,2010-12-01 08:00:00,1,,UK", "wrong_type"),
        ("1,A,B,99999999999,2010-12-01 08:00:00,1,,UK", "out_of_range"),
        ("1,A,B,1,2010-13-01 08:00:00,1,,UK", "wrong_type"),
        ("1,A,B,1,31/13/2010 08:00,1,,UK", "wrong_type"),
        ("1,A,B,1,,1,,UK", "wrong_type"),
        ('1,A,B,1,2010-12-01 08:00:00,"2,55",,UK', "wrong_type"),
        ("1,A,B,1,2010-12-01 08:00:00,,,UK", "wrong_type"),
        ("1,A,B,1,2010-12-01 08:00:00,1.0000000001,,UK", "too_precise"),
        (",A,B,1,2010-12-01 08:00:00,1,,UK", "out_of_range"),
        ("1,A,B,1,2010-12-01 08:00:00,1,", "missing_field"),
        ("1,A,B,MORE,1,2010-12-01 08:00:00,1,,UK", "wrong_type"),
        ("1,A,nul \0 here,1,2010-12-01 08:00:00,1,,UK", "nul_character"),
        ("1,A,B,1,1901-12-01 08:00:00,1,,UK", "event_time_too_early"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_sent_and_refused_by_the_landing(tmp_path: Path, row: str, reason: str) -> None:
    path = write(tmp_path, f"{row}\n2,A,B,1,2010-12-01 08:00:00,1,,UK\n")
    assert refusals(path) == [reason, None]


def test_a_row_with_too_many_values_keeps_them_all(tmp_path: Path) -> None:
    path = write(tmp_path, "1,A,B,MORE,1,2010-12-01 08:00:00,1,,UK\n")
    assert events_of(path)[0]["unreadable_row"] == ["1", "A", "B", "MORE", "1", "2010-12-01 08:00:00", "1", "", "UK"]


A = "9,A,SPOT,6,12/25/2010 8:26,2.55,17850,UK"
B = "9,B,GOOD,6,12/25/2010 8:26,3.39,17850,UK"
C = '9,C,"BLUE SPOT",6,12/25/2010 8:26,3.39,17850,UK'
OPEN = A.replace("SPOT", '"SPOT')


@pytest.mark.parametrize(
    ("rows", "lost"),
    [
        ([OPEN, B, C, B], [0]),
        ([OPEN, B, B, B], [0]),  # nobody closes it: csv would take all to the end of the file
        (
            [OPEN, B, B.replace("GOOD", 'GOOD"'), B],
            [0],
        ),  # somebody else's quote closes it: without strict rules no error
        ([OPEN, B.replace("GOOD", 'GOOD"'), B], [0]),
        ([OPEN.replace("2.55", "cheap"), B.replace("GOOD", 'GOOD"'), B], [0]),
        ([A.replace("UK", '"UK'), B, B.replace("GOOD", 'GOOD"'), B], [0]),
        ([C.replace('SPOT"', 'SPOT" LARGE'), B], [0]),
        ([B, OPEN, OPEN, B], [1, 2]),
    ],
)
def test_an_open_quote_costs_its_own_row_and_no_other(tmp_path: Path, rows: list[str], lost: list[int]) -> None:
    write(tmp_path, "\n".join(rows) + "\n")
    events = events_of(tmp_path)
    assert [event["line_no"] for event in events] == list(range(1, len(rows) + 1))
    assert [number for number, event in enumerate(events) if "problem" in event] == lost
    assert [events[number]["unreadable_row"] for number in lost] == [[rows[number]] for number in lost]
    assert [event["stock_code"] for event in events if "problem" not in event] == [
        row.split(",")[1] for number, row in enumerate(rows) if number not in lost
    ]
    assert [number for number, reason in enumerate(refusals(tmp_path)) if reason == "wrong_type"] == lost


def test_an_unreadable_row_says_where_it_stands(tmp_path: Path) -> None:
    write(tmp_path, f'1,A,"TWO\nLINES",6,12/25/2010 8:26,2.55,17850,UK\n{OPEN}\n{B}\n')
    first, second, third = read_csv_events(open_csv_source(tmp_path))
    assert dict(second.headers())["source"] == f"{tmp_path}/a.csv:4".encode()
    assert "source" not in dict(first.headers()) | dict(third.headers())
    assert third.where == f"{tmp_path}/a.csv:5"


@pytest.mark.parametrize(
    "note", ["two\nlines", "12/25/2010 8:26\n1,2,3,4", 'a "quoted"\n\nword', "\n" + A.rpartition(",")[0]]
)
def test_a_value_of_several_lines_may_stand_in_any_column(tmp_path: Path, note: str) -> None:
    quoted = note.replace('"', '""')
    write(tmp_path, f'9,A,"{quoted}",6,12/25/2010 8:26,2.55,,UK,"{quoted}"\n', header=f"{HEADER},Note")
    assert [event["description"] for event in events_of(tmp_path)] == [note]
    assert refusals(tmp_path) == [None]


def test_lines_that_end_with_carriage_returns_alone_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(f"{HEADER}\r{A}\r".encode())
    with pytest.raises(SourceError, match="lines end with CR alone"):
        open_csv_source(tmp_path)


@pytest.mark.parametrize(
    ("start", "form"),
    [
        (b"PK\x03\x04\x14\x00\r\x00", "an Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\r\x00", "an Excel workbook"),
        (b"\x1f\x8b\x08\x00\r", "a gzip file"),
        (f"{HEADER}\r\n{A}".encode("utf-16"), "UTF-16 text"),
        (f"{HEADER}\r\n{A}".encode("utf-16-be"), "UTF-16 text, or no text at all"),
        (bytes(4096), "UTF-16 text, or no text at all"),
    ],
)
def test_a_file_that_is_csv_by_its_name_alone_is_told_as_what_it_is(tmp_path: Path, start: bytes, form: str) -> None:
    (tmp_path / "a.csv").write_bytes(start)
    with pytest.raises(SourceError, match=f"a.csv: the file is {form}.*Nothing was sent. Save or unpack it as CSV"):
        open_csv_source(tmp_path)


def test_a_trailing_comma_does_no_harm(tmp_path: Path) -> None:
    assert refusals(write(tmp_path, "1,A,B,1,2010-12-01 08:00:00,1,,UK,\n")) == [None]


@pytest.mark.parametrize("row", [",,,,,,,", ",,,,,,,,,", " , ,", '"","",,,,,,'])
def test_rows_without_any_value_are_no_events(tmp_path: Path, row: str) -> None:
    write(tmp_path, f"{row}\n{A}\n{row}\n{row}\n{B}\n{row}\n")
    events = list(read_csv_events(open_csv_source(tmp_path)))
    assert [event.where for event in events] == [f"{tmp_path}/a.csv:3", f"{tmp_path}/a.csv:6"]


@pytest.mark.parametrize(
    ("text", "read"),
    [("6", 6), ("6.0", 6), ("-6.00", -6), (" 6 ", 6), ("+6", 6), ("6.5", "6.5"), ("", ""), ("1e3", "1e3"), ("٣", "٣"),
     ("9" * 5_000, "9" * 5_000), ("6." + "0" * 98, 6)],
)  # fmt: skip
def test_quantities(text: str, read: object) -> None:
    assert read_quantity(text) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [("2.55", "2.55"), ("-11062.06", "-11062.06"), (".5", "0.5"), ("5.", "5"), ("1e-3", "0.001"), ("+2.5", "2.5"),
     ("0.123456789", "0.123456789"), ("2.550", "2.550"), ("2,55", "2,55"), ("£2", "£2"), ("", ""), (" 1 ", "1")],
)  # fmt: skip
def test_prices_keep_every_digit(text: str, read: str) -> None:
    assert read_price(text) == read


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9))
def test_prices_are_never_changed(price: Decimal) -> None:
    assert Decimal(read_price(format(price, "f"))) == price
    assert Decimal(read_price(str(price))) == price


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2011-07-01 10:00:00", "2011-07-01T09:00:00Z"),
        ("7/1/2011 10:00", "2011-07-01T09:00:00Z"),
        ("7/1/11 10:00", "2011-07-01T09:00:00Z"),
        ("2011-10-30 01:30:00", "2011-10-30T00:30:00Z"),
        ("2011-03-27 01:30:00", "2011-03-27T01:30:00Z"),
        ("2010-12-01T08:26:00Z", "2010-12-01T08:26:00Z"),
        ("2010-12-01T08:26:00+02:00", "2010-12-01T06:26:00Z"),
        ("12/1/2010", "2010-12-01T00:00:00Z"),
        ("13/1/2010 8:00", "13/1/2010 8:00"),
        ("never", "never"),
    ],
)
def test_times_of_the_till_become_utc(text: str, read: str) -> None:
    assert read_time(text) == read


@pytest.mark.parametrize(("text", "read"), [("17850.0", "17850"), ("17850", "17850"), ("", None), ("TEST", "TEST")])
def test_customers(text: str, read: str | None) -> None:
    assert read_customer(text) == read


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_recognised(tmp_path: Path, delimiter: str) -> None:
    row = "1,A,B,1,2010-12-01 08:00:00,1,,UK\n".replace(",", delimiter)
    assert refusals(write(tmp_path, row, header=HEADER.replace(",", delimiter))) == [None]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("price", ["2,55", "1,234", "1.234,56"])
def test_a_decimal_comma_is_never_read_as_another_number(tmp_path: Path, delimiter: str, price: str) -> None:
    row = delimiter.join(("1", "A", "B", "1", "2010-12-01 08:00:00", f'"{price}"', "", "UK"))
    path = write(tmp_path, row, header=HEADER.replace(",", delimiter), encoding="utf-8-sig")
    assert events_of(path)[0]["unit_price"] == price
    assert refusals(path) == ["wrong_type"]


@pytest.mark.parametrize("price", ["2,55", "+2,5", "1.234,50", "1.234,505", "0,125", "2,5500"])
def test_a_point_may_part_thousands_where_other_prices_have_decimal_commas(tmp_path: Path, price: str) -> None:
    rows = ["1;A;B;1.000;2010-12-01 08:00:00;3;;ES", "1;A;B;1;2010-12-01 08:00:00;1.234;;ES"]
    clear = ["1;A;B;1000;2010-12-01 08:00:00;2.55;;ES", "1;A;B;2;2010-12-01 08:00:00;4;;ES"]
    other = f"2;A;B;6;2010-12-01 08:00:00;{price};;ES"
    path = write(tmp_path, "\n".join([*rows, *clear, other]), header=HEADER.replace(",", ";"))
    assert refusals(path) == ["wrong_type", "wrong_type", None, None, "wrong_type"]
    (tmp_path / "alone").mkdir()
    alone = write(tmp_path / "alone", "\n".join([*rows, *clear]), header=HEADER.replace(",", ";"))
    assert refusals(alone) == [None] * 4, "a point is a point where nothing says otherwise"


def test_missing_columns_are_told_before_anything_is_sent(tmp_path: Path) -> None:
    write(tmp_path, "1,A,B,1,2010-12-01 08:00:00,1,,UK\n", name="a.csv")
    write(tmp_path, "1,A\n", header="InvoiceNo,StockCode", name="b.csv")
    with pytest.raises(
        SourceError, match=r"b.csv: column\(s\) Description, Quantity, .* missing; found InvoiceNo, Stock"
    ):
        open_csv_source(tmp_path)


@pytest.mark.parametrize(
    ("above", "line"),
    [
        ("sep=;\n", 2),
        ('"sep=,"\r\n', 2),
        ("Invoices of December,,,,,,,\nInvoiceNo,of,a,shop\n\n", 4),
    ],
)
def test_lines_above_the_header_are_told_as_what_they_are(tmp_path: Path, above: str, line: int) -> None:
    write(tmp_path, "1,A,B,1,2010-12-01 08:00:00,1,,UK\n", header=above + HEADER)
    begins = re.escape(repr(above.splitlines()[0]))
    with pytest.raises(SourceError, match=rf"columns stand in line {line}, the file begins with {begins}.*Remove what"):
        open_csv_source(tmp_path)


@pytest.mark.parametrize(
    ("column", "named"),
    [("Price", "'UnitPrice' and 'Price'"), ("Invoice", "'InvoiceNo' and 'Invoice'"), ("QUANTITY", "'Quantity' and")],
)
def test_two_columns_for_one_field_are_refused_before_anything_is_sent(tmp_path: Path, column: str, named: str) -> None:
    write(tmp_path, f"{A},9.99\n", header=f"{HEADER},{column}")
    with pytest.raises(SourceError, match=f"a.csv: columns {named}.* are names of one thing. Nothing was sent"):
        open_csv_source(tmp_path)


def dated(*dates: str) -> str:
    return "".join(f"1,A,B,1,{date},1,,UK\n" for date in dates)


@pytest.mark.parametrize(
    ("dates", "found"),
    [
        (["01/02/2011 10:00", "13/02/2011", *["14/02/2011"] * 9], "13/02/2011 in line 3; M/D/Y is expected"),
        (
            ["12/25/10", "1/2/2011", *["25/12/10 8:00"] * 10],
            "25/12/10 8:00 in line 4, beside M/D/Y, as 12/25/10 in line 2;",
        ),
    ],
)
def test_a_file_with_days_before_months_is_refused_before_anything_is_sent(
    tmp_path: Path, dates: list[str], found: str
) -> None:
    write(tmp_path, dated("2010-12-01", "12/25/2010"), name="a.csv")
    write(tmp_path, dated(*dates), name="b.csv")
    with pytest.raises(SourceError, match=f"b.csv: 10 of 1. are D/M/Y, as {found}"):
        open_csv_source(tmp_path)


@pytest.mark.parametrize("dates", [["1/2/2011", "12/31/2010"], ["1/2/2011", "13/13/2011"], ["1/2/2011"], ["never", ""]])
def test_dates_that_say_nothing_else_are_read_with_the_month_first(tmp_path: Path, dates: list[str]) -> None:
    events = events_of(write(tmp_path, dated(*dates)))
    assert dates[0] != "1/2/2011" or events[0]["invoiced_at"] == "2011-01-02T00:00:00Z"
    assert len(events) == len(dates)


@pytest.mark.parametrize("others", [9, 100])
def test_a_few_dates_with_the_day_first_are_mistakes_of_their_own_rows(tmp_path: Path, others: int) -> None:
    wrong = ["25/12/2010"] * (others // 10 or 9)
    path = write(tmp_path, dated(*["12/1/2010"] * others, *wrong))
    assert refusals(path) == [None] * others + ["wrong_type"] * len(wrong)


@pytest.mark.parametrize(
    ("value", "wrong", "told"),
    [
        ("2.55", "2,55", "UnitPrice in 10 of 20 rows, as '2,55' in line 12; expected is a number with a decimal point"),
        ("12/25/2010 8:26", "1.12.2010 08:26", "InvoiceDate in 10 of 20 rows, as '1.12.2010 08:26' in line 12;"),
        ("12/25/2010 8:26", "12/25/2010 8:26 AM", "InvoiceDate in 10 of 20 rows, as '12/25/2010 8:26 AM' in line 12;"),
        (";6;", ";6 pcs;", "Quantity in 10 of 20 rows, as '6 pcs' in line 12; expected is a whole number"),
    ],
)
def test_a_column_that_most_rows_write_otherwise_is_refused_before_anything_is_sent(
    tmp_path: Path, value: str, wrong: str, told: str
) -> None:
    header, row = HEADER.replace(",", ";"), A.replace(",", ";")
    other = row.replace(value, wrong)
    few = [row] * 11 + [other] * 9
    assert len(events_of(write(tmp_path, "\n".join(few), header=header))) == len(few)
    write(tmp_path, "\n".join([row] * 10 + [other] * 10), header=header)
    with pytest.raises(SourceError, match=re.escape(f"a.csv: what cannot be read is {told}")):
        open_csv_source(tmp_path)


def test_small_files_that_write_days_before_months_are_refused_together(tmp_path: Path) -> None:
    for day in range(1, 32):
        row = f"{day},A,B,1,{day:02}/12/2010 8:26,1.00,,France\n"
        write(tmp_path, row, name=f"{day:02}.csv")
    with pytest.raises(
        SourceError, match=r"(?s)31 small files .* 19 of 31 are D/M/Y, as 13/12/2010 8:26 in line 2 of 13.csv"
    ):
        open_csv_source(tmp_path)


def test_small_files_with_decimal_commas_are_refused_together(tmp_path: Path) -> None:
    for day in range(1, 11):
        write(
            tmp_path,
            f"{day};A;B;1;2010-12-01 08:26;1,00;;France\n",
            header=HEADER.replace(",", ";"),
            name=f"{day:02}.csv",
        )
    with pytest.raises(
        SourceError, match=r"10 small files .*UnitPrice in 10 of 10 rows, as '1,00' in line 2 of 01.csv"
    ):
        open_csv_source(tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        "5.36365E+11,A,B,1,2010-12-01 08:00,1.00,,UK\n",
        "1,5.01234E+12,B,1,2010-12-01 08:00,1.00,,UK\n",
        "1,A,B,1,2010-12-01 08:00,1.00,1e+15,UK\n",
    ],
)
def test_a_number_that_a_spreadsheet_has_rounded_is_refused(tmp_path: Path, row: str) -> None:
    """It would be one invoice, article or customer in place of many."""
    assert refusals(write(tmp_path, row)) == ["wrong_type"]
    assert "a number that a spreadsheet has rounded" in events_of(tmp_path)[0]["problem"]
    write(tmp_path, row * 10)
    with pytest.raises(SourceError, match=r"in 10 of 10 rows.*expected is all of its digits.*Nothing was sent"):
        open_csv_source(tmp_path)


@pytest.mark.parametrize("code", ["1E05", "85123E", "1E+5", "E+12"])
def test_a_code_that_is_no_rounded_number_is_read(tmp_path: Path, code: str) -> None:
    assert refusals(write(tmp_path, f"1,{code},B,1,2010-12-01 08:00,1.00,,UK\n" * 10)) == [None] * 10


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(SourceError, match="found nothing: the file is empty"):
        open_csv_source(tmp_path)


def test_what_else_lies_in_the_folder_is_named(tmp_path: Path) -> None:
    for name in ("a.csv", "B.CSV", "more.csv.gz", "x.xlsx", "old.txt", ".DS_Store"):
        write(tmp_path, A, name=name)
    write(tmp_path / "sub.csv", A)
    assert [file.path.name for file in open_csv_source(tmp_path)] == ["B.CSV", "a.csv"]
    assert left_out(tmp_path) == ["more.csv.gz", "old.txt", "sub.csv/", "x.xlsx"]
    assert left_out(tmp_path / "a.csv") == []


def test_hidden_files_of_a_folder_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, A)
    write(tmp_path, A, name=".b.csv")
    (tmp_path / "._a.csv").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    assert [file.path.name for file in open_csv_source(tmp_path)] == ["a.csv"]
    assert [file.path.name for file in open_csv_source(tmp_path / ".b.csv")] == [".b.csv"]


def test_files_that_hold_the_same_bytes_are_named(tmp_path: Path) -> None:
    for name in ("a.csv", "a (1).csv", "c.csv"):
        write(tmp_path, A, name=name)
    write(tmp_path, A.replace("7", "8", 1), name="b.csv")
    assert copies(open_csv_source(tmp_path)) == ["a.csv = a (1).csv", "c.csv = a (1).csv"]
    assert copies(open_csv_source(tmp_path / "a.csv")) == []


def test_files_with_whole_invoices_in_common_are_named(tmp_path: Path) -> None:
    """Exports of months that overlap: the rows of an invoice in both count twice, and nothing else shows it."""
    row = "{},A,B,{},2010-12-01 08:26,1.00,,France\n".format
    write(tmp_path, row(1, 1) + row(2, 1) + row(2, 5) + row(3, 1) + row("", 1), name="a.csv")
    write(tmp_path, row(2, 5) + row(2, 1) + row(3, 2) + row(4, 1) + row("", 1), name="b.csv")
    write(tmp_path, row(5, 1), name="c.csv")
    assert overlaps(open_csv_source(tmp_path)) == ["b.csv and a.csv (1, as 2)"]


def test_a_folder_without_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no .csv files \(0 other entries\)"):
        open_csv_source(tmp_path)


def test_a_folder_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_csv_source(tmp_path / "nowhere")


def test_a_file_that_cannot_be_read_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    write(tmp_path, A, name="a.csv")
    (tmp_path / "b.csv").symlink_to("/proc/self/mem")  # opens, and its first byte cannot be read, as on a broken disk
    with pytest.raises(SourceError, match=r"b.csv: Input/output error\. Nothing was sent"):
        open_csv_source(tmp_path)


def test_a_file_that_goes_away_while_others_are_sent_is_told(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write(tmp_path, f"{A}\n", name=name)
    events = read_csv_events(open_csv_source(tmp_path))
    (tmp_path / "b.csv").unlink()
    assert next(events).where == f"{tmp_path}/a.csv:2"
    with pytest.raises(SourceError, match=r"b.csv: No such file or directory\. What was read before is sent"):
        next(events)


def test_the_real_month_has_its_known_sum(retail_dir: Path) -> None:
    total, rows = Decimal(0), 0
    for event in read_csv_events(open_csv_source(retail_dir)):
        body = json.loads(event.value or b"")
        total += body["quantity"] * Decimal(body["unit_price"])
        rows += 1
    assert (rows, total) == (42_481, Decimal("748957.02"))


def test_whoever_watches_is_given_each_file_that_is_looked_through(tmp_path: Path) -> None:
    """A large file is looked through for minutes, which the terminal shows."""
    read = dict[str, int]()

    class Watched(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            chunk = super().read(size)
            read[str(self.name)] = read.get(str(self.name), 0) + len(chunk)
            return chunk

    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for number, path in enumerate(paths):
        path.write_text(f"{HEADER}\n53636{number},85123A,A,6,2010-12-01 08:26,2.55,17850,France\n", encoding="utf-8")
    open_csv_source(tmp_path, lambda raw, _path: Watched(raw.detach()))  # type: ignore[attr-defined]
    assert read == {str(path): path.stat().st_size for path in paths}
