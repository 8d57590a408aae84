"""Each retail rule alone, on values that the real books hold (2009-2011) and on some that they might."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mage_project.transforms import retail


@pytest.mark.parametrize("number", ["536365", "0", "200912010826001", "X12"])
def test_plain_invoice_numbers_are_sales(number: str) -> None:
    assert retail.invoice_kind(number) == "sale"


@pytest.mark.parametrize("number", ["C536379", "C200912010826001"])
def test_invoice_numbers_with_c_are_cancellations(number: str) -> None:
    assert retail.invoice_kind(number) == "cancellation"


def test_invoice_numbers_with_a_are_adjustments() -> None:
    assert retail.invoice_kind("A563185") == "adjustment"


@pytest.mark.parametrize("number", ["c536379", " C536379 ", "\tc536379"])
def test_cancellations_are_known_however_they_are_typed(number: str) -> None:
    assert retail.invoice_kind(retail.clean_code(number)) == "cancellation"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("POST", "postage"),
        ("DOT", "postage"),
        ("C2", "postage"),
        ("C3", "postage"),
        ("BANK CHARGES", "fee"),
        ("AMAZONFEE", "fee"),
        ("CRUK", "fee"),
        ("D", "discount"),
        ("S", "sample"),
        ("M", "manual"),
        ("TEST001", "test"),
        ("TEST002", "test"),
        ("TEST", "test"),
        ("GIFT", "voucher"),
        ("GIFT_0001_50", "voucher"),
        ("GIFT_0001", "voucher"),
        ("B", "adjustment"),
        ("ADJUST", "adjustment"),
        ("ADJUST2", "adjustment"),
    ],
)
def test_codes_that_are_no_goods_are_told_apart(code: str, kind: str) -> None:
    assert retail.line_kind(code) == kind


@pytest.mark.parametrize("code", ["m", " m", "post ", "bank  charges", "gift_0001_50", "test001"])
def test_codes_are_known_in_any_case_and_spacing(code: str) -> None:
    assert retail.line_kind(retail.clean_code(code)) != "product"


@pytest.mark.parametrize("code", ["85123A", "22423", "15056BL", "PADS", "DCGS0003", "DCGSSGIRL", "SP1002", "CAFÉ1"])
def test_goods_are_products(code: str) -> None:
    assert retail.line_kind(code) == "product"


@pytest.mark.parametrize("code", ["POSTER", "DOTS", "MM", "C22", "TESTING", "GIFTS", "MANUAL", "CRUKX", "BANK"])
def test_goods_whose_code_begins_like_another_are_products(code: str) -> None:
    assert retail.line_kind(code) == "product"


@pytest.mark.parametrize("code", ["", "?", "---"])
def test_codes_that_name_nothing_are_unknown(code: str) -> None:
    assert retail.line_kind(code) == "unknown"


@pytest.mark.parametrize(
    ("price", "kind"),
    [
        ("2.55", "priced"),
        ("0.000000001", "priced"),
        ("0", "free"),
        ("0.000", "free"),
        ("-11062.06", "negative"),
        ("-0.000000001", "negative"),
    ],
)
def test_prices_of_zero_or_below_are_classified(price: str, kind: str) -> None:
    assert retail.price_kind(Decimal(price)) == kind


@pytest.mark.parametrize("code", ["85123a", " 85123A", "85123A ", "85123A\u00a0", "\t85123a\n"])
def test_one_stock_code_has_one_spelling(code: str) -> None:
    assert retail.clean_code(code) == "85123A"


def test_decomposed_letters_are_composed() -> None:
    assert retail.clean_text("CAFE\u0301") == "CAF\u00c9"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("United Kingdom", "United Kingdom"),
        (" united  kingdom ", "United Kingdom"),
        ("UNITED KINGDOM", "United Kingdom"),
        ("UK", "United Kingdom"),
        ("EIRE", "Ireland"),
        ("Eire", "Ireland"),
        ("RSA", "South Africa"),
        ("USA", "United States"),
        ("Korea", "South Korea"),
        ("Unspecified", "Unspecified"),
        ("", "Unspecified"),
        ("  ", "Unspecified"),
        ("European Community", "European Community"),
        ("Channel Islands", "Channel Islands"),
        ("West Indies", "West Indies"),
        ("isle of man", "Isle of Man"),
        ("the gambia", "The Gambia"),
        ("Trinidad And Tobago", "Trinidad and Tobago"),
        ("côte d'ivoire", "Côte d'ivoire".replace("d'i", "D'i")),
        ("日本", "日本"),
    ],
)
def test_countries_have_one_name(written: str, name: str) -> None:
    assert retail.clean_country(written) == name


@given(st.text())
def test_cleaning_a_country_twice_changes_nothing_more(written: str) -> None:
    once = retail.clean_country(written)
    assert retail.clean_country(once) == once


@given(st.text())
def test_every_code_and_number_gets_a_kind(text: str) -> None:
    code = retail.clean_code(text)
    assert retail.line_kind(code) in retail.LINE_KINDS
    assert retail.invoice_kind(code) in retail.INVOICE_KINDS


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_every_price_gets_a_kind(price: Decimal) -> None:
    assert retail.price_kind(price) in retail.PRICE_KINDS


@pytest.mark.parametrize("customer", ["", " ", "\u00a0"])
def test_customers_without_a_number_are_guests(customer: str) -> None:
    assert retail.clean_customer(customer) is None


def test_customers_keep_their_number() -> None:
    assert retail.clean_customer(" 17850 ") == "17850"


def test_descriptions_of_spaces_are_none() -> None:
    assert retail.clean_description("  ") is None
    assert retail.clean_description('RECORD FRAME 7" SINGLE SIZE ') == 'RECORD FRAME 7" SINGLE SIZE'
