"""The retail rules, one value at a time: what kind of invoice, line and price it is, and how names are spelt.

Belongs here: what a retailer could read and correct. Not here: frames, columns, I/O (see lines.py).
A rule never drops anything: each returns a word or a cleaned value for whatever it is given.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decimal import Decimal

INVOICE_KINDS = ("sale", "cancellation", "adjustment")
LINE_KINDS = (
    "product",
    "postage",
    "fee",
    "discount",
    "sample",
    "manual",
    "test",
    "voucher",
    "adjustment",
    "unknown",
)
PRICE_KINDS = ("priced", "free", "negative")

UNSPECIFIED_COUNTRY = "Unspecified"

# Stock codes that are not goods, as the shop's books spell them (2009-2011). PADS ("pads to match all cushions")
# and the DCGS and SP codes are goods and stay products.
_LINE_KIND_OF_CODE = {
    "POST": "postage",
    "DOT": "postage",  # postage charged by the web shop
    "C2": "postage",  # carriage
    "C3": "postage",  # carriage, next day
    "BANK CHARGES": "fee",
    "AMAZONFEE": "fee",
    "CRUK": "fee",  # commission of a charity's shop
    "D": "discount",
    "S": "sample",
    "M": "manual",
    "B": "adjustment",  # bad debt
    "ADJUST": "adjustment",
    "ADJUST2": "adjustment",
    "GIFT": "voucher",
}
_LINE_KIND_OF_PATTERN = (
    (re.compile(r"TEST\d*"), "test"),
    (re.compile(r"GIFT_\d+(_\d+)?"), "voucher"),  # gift_0001_50: a voucher of 50 pounds
)

# Spellings of the source, and the one name that reports use. "European Community", "Channel Islands" and
# "West Indies" are not countries, but the source says no more, so they stay as they are.
_COUNTRY_OF_SPELLING = {
    "": UNSPECIFIED_COUNTRY,
    "unknown": UNSPECIFIED_COUNTRY,
    "eire": "Ireland",
    "republic of ireland": "Ireland",
    "rsa": "South Africa",
    "usa": "United States",
    "u.s.a.": "United States",
    "us": "United States",
    "united states of america": "United States",
    "uk": "United Kingdom",
    "u.k.": "United Kingdom",
    "great britain": "United Kingdom",
    "uae": "United Arab Emirates",
    "korea": "South Korea",
    "republic of korea": "South Korea",
}
_SMALL_WORDS = frozenset({"and", "of", "the"})
_WORD = re.compile(r"[^\W\d_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W\d_]+)*")


def clean_text(text: str) -> str:
    """Composed Unicode, no space at the ends, one space between words."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def clean_code(code: str) -> str:
    """A stock code or invoice number in its one spelling: '85123a ' and '85123A' are the same thing."""
    return clean_text(clean_text(code).upper())  # some capitals are two letters that compose anew


def clean_country(country: str) -> str:
    """The country's one name: trimmed, known aliases resolved, otherwise each word with a capital."""
    name = clean_text(country)
    known = _COUNTRY_OF_SPELLING.get(name.casefold())
    return known if known is not None else clean_text(_WORD.sub(_capitalised, name))


def clean_customer(customer_id: str) -> str | None:
    """The customer's number, or None for a guest: an empty number is no number."""
    return clean_text(customer_id) or None


def clean_description(description: str) -> str | None:
    """The description, or None where the source wrote only spaces."""
    return clean_text(description) or None


def invoice_kind(invoice_no: str) -> str:
    """C536379 takes back a sale, A563185 adjusts the books, 536365 is a sale. Takes a cleaned number."""
    if invoice_no.startswith("C"):
        return "cancellation"
    return "adjustment" if invoice_no.startswith("A") else "sale"


def line_kind(stock_code: str) -> str:
    """What the line is for, by its cleaned stock code; a code that names nothing at all is unknown."""
    known = _LINE_KIND_OF_CODE.get(stock_code)
    if known is not None:
        return known
    for pattern, kind in _LINE_KIND_OF_PATTERN:
        if pattern.fullmatch(stock_code):
            return kind
    return "product" if any(character.isalnum() for character in stock_code) else "unknown"


def price_kind(unit_price: Decimal) -> str:
    """Free and negative lines are kept and told apart: write-offs, gifts, bad debt."""
    if unit_price == 0:
        return "free"
    return "priced" if unit_price > 0 else "negative"


def _capitalised(word: re.Match[str]) -> str:
    text = word.group().lower()
    if text in _SMALL_WORDS and word.start() > 0:
        return text
    first = text[:1].title()  # may be two letters: of a ligature only the first one is a capital
    return first[:1] + first[1:].lower() + text[1:]
