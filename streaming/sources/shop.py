"""A simulated shop: realistic invoice lines, the same ones for the same seed and start instant.

First a history as fast as it can be sent, then real time: an event is due at its own instant. Numbers and ids contain
the start instant, so a shop that is started again on the same topic makes other events. The till's coding habits (POST,
DOT, M, C2, BANK CHARGES, gift vouchers, test articles, write-offs at price 0) are those of UCI's Online Retail.
Pure but for what the caller does with `due_at`. Not here: retail rules (mage_project), sending (produce.py).
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import random
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from streaming.produce import Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACE = uuid.UUID("2f3fd1b0-6a51-4c0e-a1a5-7d0c7d3b8e55")
TILL_ZONE = ZoneInfo("Europe/London")
DEFAULT_RATE = 5.0  # lines a second on average
UNPACED_RATE = (
    50_000.0  # lines a simulated second at --rate max, so that a million lines span 20 s and none lies days ahead
)
LINES_PER_INVOICE = 9.0
EPOCH_2020_S = 1_577_836_800

# orders by hour in London: a wholesaler's day, with a little on-line trade at night
HOURS = (
    .15, .1, .1, .1, .1, .15, .3, .6, 1.0, 1.4, 1.7, 1.9, 2.1, 2.0, 1.8, 1.7, 1.4, 1.0, .8, .6, .5, .4, .3, .2,
)  # fmt: skip
WEEKDAYS = (1.0, 1.1, 1.1, 1.25, 0.95, 0.35, 0.75)
MONTHS = (0.75, 0.75, 0.85, 0.85, 0.9, 0.9, 0.9, 0.95, 1.15, 1.3, 1.7, 1.2)

COUNTRIES = (
    ("United Kingdom", 880), ("Germany", 22), ("France", 20), ("EIRE", 18), ("Spain", 7), ("Netherlands", 6),
    ("Belgium", 5), ("Switzerland", 5), ("Portugal", 4), ("Australia", 4), ("Norway", 3), ("Italy", 3),
    ("Channel Islands", 3), ("Finland", 2), ("Cyprus", 2), ("Sweden", 2), ("Unspecified", 2), ("Austria", 2),
    ("Denmark", 2), ("Japan", 1), ("Poland", 1), ("USA", 1), ("Israel", 1), ("Singapore", 1), ("Iceland", 1),
    ("Canada", 1), ("Greece", 1), ("Malta", 1), ("RSA", 1), ("European Community", 1),
)  # fmt: skip
COLOURS = ("RED", "BLUE", "PINK", "IVORY", "SILVER", "GREEN", "CREAM", "BLACK", "GOLD", "PANTRY", "VINTAGE", "RETRO")
STYLES = ("SPOTTY", "STRIPED", "HEART", "STAR", "FLORAL", "POLKADOT", "CHRISTMAS", "REGENCY", "WOODLAND", "PAISLEY")
THINGS = (
    "T-LIGHT HOLDER", "MUG", "LUNCH BAG", "CAKE TIN", "BUNTING", "CUSHION COVER", "PHOTO FRAME", "DOORMAT", "TEA TOWEL",
    "JAM JAR", "HOT WATER BOTTLE", "PAPER CHAIN KIT", "NAPKINS", "ALARM CLOCK", "UMBRELLA", "COFFEE CUP AND SAUCER",
    "WALL HOOK", "GIFT WRAP", "STORAGE BOX", "GARDEN KNEELER", "CANDLE", "LANTERN", 'RECORD FRAME 7"', "DÉCOUPAGE BOX",
)  # fmt: skip
PACKS = ("", "", "", "", "SET OF 3 ", "SET/6 ", "PACK OF 12 ", "LARGE ", "SMALL ")
WRITE_OFFS = ("damaged", "lost", "?", "check", "wet/rusty", "thrown away", None, None, "found", "sold as set")


@dataclass(frozen=True, slots=True)
class ShopPlan:
    """What to simulate."""

    seed: int
    start: datetime
    history_days: int = 0
    lines_per_day: int = 1_500
    rate: float = DEFAULT_RATE
    late: float = 0.0
    duplicate: float = 0.0
    broken: float = 0.0
    is_live: bool = True


@dataclass(frozen=True, slots=True)
class Article:
    """Something that the shop sells."""

    stock_code: str
    description: str
    price: Decimal
    weight: float


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody who comes again."""

    customer_id: str
    country: str
    weight: float


@dataclass(frozen=True, slots=True)
class Line:
    """One line before it has an invoice."""

    stock_code: str
    description: str | None
    quantity: int
    price: Decimal


@dataclass(slots=True)
class Invoice:
    """An invoice and who it is for."""

    invoice_no: str
    at: datetime
    customer_id: str | None
    country: str
    lines: list[Line] = field(default_factory=list)


class Shop:
    """The shop's state: articles, customers, earlier sales, and a source of chance."""

    def __init__(self, plan: ShopPlan) -> None:
        self.plan = plan
        self.chance = random.Random(f"{plan.seed}/{plan.start.isoformat()}")  # noqa: S311 nothing secret
        catalogue = random.Random(plan.seed)  # noqa: S311 the same articles at every start of a seed
        self.articles = _articles(catalogue)
        self.article_weights = [*itertools.accumulate(article.weight for article in self.articles)]
        self.customers = _customers(catalogue)
        self.customer_weights = [*itertools.accumulate(customer.weight for customer in self.customers)]
        self.sales: list[Invoice] = []
        self.numbers = itertools.count(1)
        self.base = f"{int(plan.start.timestamp()) - EPOCH_2020_S:09d}"

    def number(self, prefix: str = "") -> str:
        """The next invoice number. The start's second comes first, so numbers of two starts differ."""
        return f"{prefix}{self.base}{next(self.numbers):06d}"

    def invoices_at(self, at: datetime) -> list[Invoice]:
        """What happens at an instant: a sale, or once in a while something else."""
        dice = self.chance.random()
        if dice < 0.035 and self.sales:  # noqa: PLR2004 shares as in UCI's data
            return [self._cancellation(at)]
        if dice < 0.05:  # noqa: PLR2004
            return [self._odd(at)]
        invoice = self._sale(at)
        self.sales.append(invoice)
        if len(self.sales) > 2_000:  # noqa: PLR2004 bounds the memory; older sales are not returned
            del self.sales[:1_000]
        return [invoice]

    def _sale(self, at: datetime) -> Invoice:
        customer = self._customer()
        invoice = Invoice(self.number(), at, customer.customer_id if customer else None, self._country(customer))
        is_guest = customer is None
        mean = LINES_PER_INVOICE * (1.6 if is_guest else 0.85)
        for _ in range(min(1 + int(self.chance.expovariate(1.0 / mean)), 400)):
            invoice.lines.append(self._basket_line(is_guest=is_guest))
        if self.chance.random() < 0.02:  # noqa: PLR2004 the same article typed twice
            invoice.lines.append(invoice.lines[-1])
        self._add_carriage(invoice, is_guest=is_guest)
        return invoice

    def _customer(self) -> Customer | None:
        if self.chance.random() < 0.13:  # noqa: PLR2004 guests: an eighth of the invoices, a quarter of the lines
            return None
        return self.chance.choices(self.customers, cum_weights=self.customer_weights)[0]

    def _country(self, customer: Customer | None) -> str:
        return (
            customer.country
            if customer
            else self.chance.choices(("United Kingdom", "EIRE", "Unspecified"), (97, 2, 1))[0]
        )

    def _basket_line(self, *, is_guest: bool) -> Line:
        article = self.chance.choices(self.articles, cum_weights=self.article_weights)[0]
        if is_guest:
            return Line(article.stock_code, article.description, 1 + int(self.chance.expovariate(0.6)),
                        (article.price * Decimal("1.95")).quantize(Decimal("0.01")))  # fmt: skip
        quantity = self.chance.choice((1, 1, 2, 2, 3, 4, 6, 6, 8, 10, 12, 12, 24, 25, 48))
        if self.chance.random() < 0.01:  # noqa: PLR2004 a wholesaler's order
            quantity *= self.chance.choice((6, 12, 20, 50))
        price = article.price * (Decimal("0.85") if quantity >= 48 else 1)  # noqa: PLR2004 price break
        return Line(article.stock_code, article.description, quantity, price.quantize(Decimal("0.01")))

    def _add_carriage(self, invoice: Invoice, *, is_guest: bool) -> None:
        dice = self.chance.random()
        if invoice.country not in ("United Kingdom", "Unspecified") and dice < 0.6:  # noqa: PLR2004
            code = ("C2", "CARRIAGE") if invoice.country in ("EIRE", "Channel Islands") else ("POST", "POSTAGE")
            price = Decimal(50) if code[0] == "C2" else Decimal(self.chance.choice((18, 28, 15, 40)))
            invoice.lines.append(Line(*code, self.chance.choice((1, 1, 1, 2, 3)), price))
        elif is_guest and dice < 0.25:  # noqa: PLR2004
            total = sum((line.price * line.quantity for line in invoice.lines), Decimal(0))
            postage = (total * Decimal(self.chance.randint(20, 90)) / 1000).quantize(Decimal("0.01"))
            invoice.lines.append(Line("DOT", "DOTCOM POSTAGE", 1, postage))
        if dice < 0.01:  # noqa: PLR2004
            invoice.lines.append(Line("D", "Discount", -1, Decimal(self.chance.randint(500, 15_000)) / 100))
        elif dice > 0.985:  # noqa: PLR2004
            invoice.lines.append(Line("M", "Manual", 1, Decimal(self.chance.randint(10, 40_000)) / 100))
        elif dice > 0.98:  # noqa: PLR2004
            pounds = self.chance.choice((10, 20, 30, 40, 50))
            price = Decimal(pounds) / Decimal("1.2")
            invoice.lines.append(Line(f"gift_0001_{pounds}", f"Dotcomgiftshop Gift Voucher £{pounds}.00", 1, price))

    def _cancellation(self, at: datetime) -> Invoice:
        """Some lines of an earlier sale come back, wholly or in part."""
        sale = self.chance.choice(self.sales)
        invoice = Invoice(self.number("C"), at, sale.customer_id, sale.country)
        goods = [line for line in sale.lines if line.quantity > 0]
        for line in self.chance.sample(goods, min(len(goods), 1 + int(self.chance.expovariate(0.7)))):
            back = line.quantity if self.chance.random() < 0.7 else self.chance.randint(1, line.quantity)  # noqa: PLR2004
            invoice.lines.append(Line(line.stock_code, line.description, -back, line.price))
        return invoice

    def _odd(self, at: datetime) -> Invoice:
        """What is no sale: fees, commissions, samples, tests, write-offs, bad debt."""
        kind = self.chance.choices(
            ("write_off", "fee", "amazon", "charity", "sample", "pads", "test", "adjustment", "free"),
            (50, 6, 8, 6, 8, 4, 5, 2, 11),
        )[0]
        pounds = Decimal(self.chance.randint(100, 120_000)) / 100
        article = self.chance.choice(self.articles)
        code = article.stock_code
        prefix, line = {
            "write_off": ("", Line(code, self.chance.choice(WRITE_OFFS), -self.chance.randint(1, 300), Decimal(0))),
            "fee": ("C", Line("BANK CHARGES", "Bank Charges", -1, pounds)),
            "amazon": ("C", Line("AMAZONFEE", "AMAZON FEE", -1, pounds * 10)),
            "charity": ("C", Line("CRUK", "CRUK Commission", -1, pounds)),
            "sample": ("C", Line("S", "SAMPLES", -1, pounds / 10)),
            "pads": ("", Line("PADS", "PADS TO MATCH ALL CUSHIONS", 1, Decimal("0.001"))),
            "test": ("", Line(f"TEST00{self.chance.randint(1, 2)}", "This is a test product.", 1, Decimal("4.50"))),
            "adjustment": ("A", Line("B", "Adjust bad debt", 1, self.chance.choice((-1, 1)) * pounds * 10)),
            "free": ("", Line(code, article.description, self.chance.randint(1, 12), Decimal(0))),
        }[kind]  # fmt: skip
        customer = self._customer() if kind in ("sample", "free", "charity", "pads") else None
        return Invoice(
            self.number(prefix), at, customer.customer_id if customer else None, self._country(customer), [line]
        )


def _articles(chance: random.Random) -> list[Article]:
    names = [
        f"{pack}{colour} {style} {thing}"
        for pack in PACKS
        for colour in COLOURS
        for style in STYLES
        for thing in THINGS
    ]
    articles = []
    for rank, name in enumerate(chance.sample(names, 600), start=1):
        code = f"{chance.randint(20_000, 24_999)}" if chance.random() < 0.75 else f"{chance.randint(35_000, 90_214)}"  # noqa: PLR2004
        suffix = chance.choice("ABCDEFGHSL") if code and chance.random() < 0.2 else ""  # noqa: PLR2004
        suffix = suffix.lower() if chance.random() < 0.05 else suffix  # noqa: PLR2004 tills type small letters too
        price = (
            Decimal(
                chance.choice((29, 42, 55, 65, 85, 95, 125, 145, 165, 195, 210, 255, 295, 375, 425, 495, 795, 1275))
            )
            / 100
        )
        articles.append(Article(code + suffix, name + chance.choice(("", "", "", " ")), price, 1.0 / rank**0.7))
    return articles


def _customers(chance: random.Random) -> list[Customer]:
    names, weights = zip(*COUNTRIES, strict=True)
    numbers = chance.sample(range(12_346, 18_288), 1_500)
    return [Customer(str(number), chance.choices(names, weights)[0], chance.paretovariate(1.2)) for number in numbers]


def season(at: datetime) -> float:
    """How busy the shop is at an instant; about 1 on average."""
    local = at.astimezone(TILL_ZONE)
    return HOURS[local.hour] * WEEKDAYS[local.weekday()] * MONTHS[local.month - 1]


def run_shop(plan: ShopPlan) -> Iterator[Outgoing]:
    """The history, then real time without an end, if that is wanted."""
    shop = Shop(plan)
    sending = itertools.chain(_history(shop), _live(shop) if plan.is_live else ())
    return _disturb(shop, sending)


def _history(shop: Shop) -> Iterator[Outgoing]:
    plan = shop.plan
    first = plan.start - timedelta(days=plan.history_days)
    per_hour = plan.lines_per_day / 24 / LINES_PER_INVOICE
    hour = first
    while hour < plan.start:
        span_s = min(3600.0, (plan.start - hour).total_seconds())
        count = _poisson(shop.chance, per_hour * season(hour) * span_s / 3600)
        for second in sorted(shop.chance.random() * span_s for _ in range(count)):
            at = (hour + timedelta(seconds=second)).replace(microsecond=0)
            for invoice in shop.invoices_at(at):
                yield from _events(shop, invoice, due_at=None)
        hour += timedelta(hours=1)


def _live(shop: Shop) -> Iterator[Outgoing]:
    plan = shop.plan
    is_paced = math.isfinite(plan.rate)
    rate = (plan.rate if is_paced else UNPACED_RATE) / LINES_PER_INVOICE
    elapsed_s = 0.0
    while True:
        # the rate is what was asked for on average; the season moves it between a half and one and a half
        busy = 0.5 + min(season(plan.start + timedelta(seconds=elapsed_s)), 2.0) / 2 if is_paced else 1.0
        elapsed_s += shop.chance.expovariate(rate * busy)
        at = plan.start + timedelta(seconds=elapsed_s)
        for invoice in shop.invoices_at(at.replace(microsecond=0)):
            yield from _events(shop, invoice, due_at=at.timestamp() if is_paced else None)


def _poisson(chance: random.Random, mean: float) -> int:
    """Knuth's method, in parts so that exp() does not vanish."""
    count = 0
    while mean > 0:
        part = min(mean, 500.0)
        mean -= part
        limit, product = math.exp(-part), chance.random()
        while product > limit:
            count += 1
            product *= chance.random()
    return count


def _events(shop: Shop, invoice: Invoice, *, due_at: float | None) -> Iterator[Outgoing]:
    for line_no, line in enumerate(invoice.lines, start=1):
        event_id = str(uuid.uuid5(NAMESPACE, f"{shop.plan.seed}/{shop.base}/{invoice.invoice_no}/{line_no}"))
        event = {
            "event_id": event_id,
            "invoice_no": invoice.invoice_no,
            "line_no": line_no,
            "stock_code": line.stock_code,
            "description": line.description,
            "quantity": line.quantity,
            "unit_price": format(line.price.quantize(Decimal("0.000000001")).normalize(), "f"),
            "invoiced_at": _iso(invoice.at),
            "customer_id": invoice.customer_id,
            "country": invoice.country,
        }
        yield _outgoing(event, due_at)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _outgoing(event: dict[str, Any], due_at: float | None) -> Outgoing:
    value = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return Outgoing(
        event["invoice_no"].encode(), value, event["event_id"], event["invoiced_at"], due_at, event["event_id"]
    )


def _disturb(shop: Shop, events: Iterator[Outgoing]) -> Iterator[Outgoing]:
    """Make some events late, twice delivered or broken, as asked."""
    plan, chance = shop.plan, random.Random(f"disturb/{shop.plan.seed}/{shop.base}")  # noqa: S311
    if not (plan.late or plan.duplicate or plan.broken):
        yield from events
        return
    again: list[tuple[int, int, Outgoing]] = []
    for number, original in enumerate(events):
        event = _late(chance, original) if chance.random() < plan.late else original
        is_broken = chance.random() < plan.broken
        yield _broken(chance, event) if is_broken else event
        if not is_broken and chance.random() < plan.duplicate:
            heapq.heappush(again, (number + chance.randint(1, 200), number, event))
        while again and again[0][0] <= number:
            yield heapq.heappop(again)[2]


def _late(chance: random.Random, event: Outgoing) -> Outgoing:
    """The event tells of something that happened up to ten days ago."""
    body = json.loads(event.value or b"{}")
    at = datetime.fromisoformat(body["invoiced_at"]) - timedelta(seconds=chance.randint(3_600, 10 * 86_400))
    return _outgoing(body | {"invoiced_at": _iso(at)}, event.due_at)


def _broken(chance: random.Random, event: Outgoing) -> Outgoing:
    """One of the ways in which real events are broken."""
    body = json.loads(event.value or b"{}")
    breaks: list[dict[str, Any] | bytes | None] = [
        (event.value or b"")[:-20],
        b"\xff\xfe not text",
        None,
        {key: value for key, value in body.items() if key != "country"},
        body | {"quantity": "six"},
        body | {"unit_price": "2.5500000000001"},
        body | {"unit_price": "n/a"},
        body | {"description": "NUL \0 inside"},
        body | {"invoiced_at": "1899-12-31T00:00:00Z"},
        body | {"invoiced_at": "2999-01-01T00:00:00Z"},
        body | {"invoiced_at": body["invoiced_at"].replace("Z", "")},
    ]
    broken = chance.choice(breaks)
    value = json.dumps(broken, ensure_ascii=False).encode("utf-8") if isinstance(broken, dict) else broken
    return Outgoing(event.key, value, event.event_id, event.event_time, event.due_at, event.where)
