"""Key measures as the service shows them, by day: what a warehouse's own sums are compared with after a refresh.

Here: asking in DAX, and the comparison. Not here: the warehouse's side (whoever calls).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from powerbi.errors import AuthorizationError, ServiceError
from powerbi.refresh import query_row, query_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from powerbi.rest import Client

KEY_MEASURES = ("Total Amount", "Gross Sales", "Returns", "Net Sales", "Invoice Lines", "Orders", "Customers")
"""Money that must agree to the last digit, and counts."""

# What the service calls the reasons for which it refuses a service principal on a model with row-level security.
_REFUSALS = ("row-level", " rls", "effectiveidentity", "effective identity", "service principal", "notauthorized")

Numbers = dict[str, Decimal]


@dataclass(frozen=True)
class Verified:
    """How the service's numbers compare with the warehouse's.

    Attributes:
        compared: days on which every measure was compared.
        moved: days that differ and that the warehouse has published again since the refresh; not compared.
        differences: (day, measure, shown, expected).
        skipped: why nothing was compared, else empty.
        amount: the total that the service shows; None where it does not answer.
    """

    compared: int = 0
    moved: int = 0
    differences: tuple[tuple[dt.date, str, Decimal, Decimal], ...] = ()
    skipped: str = ""
    amount: Decimal | None = None

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it agrees: what was skipped has not passed."""
        return not self.skipped and not self.differences and self.compared > 0


def key_measures(client: Client) -> dict[dt.date, Numbers]:
    """Every key measure by day, as the service shows them."""
    asked = ", ".join(f'"{name}", [{name}]' for name in KEY_MEASURES)
    rows = query_rows(client, f"EVALUATE SUMMARIZECOLUMNS('Date'[date], {asked})")
    found = {}
    for row in rows:
        day = row.get("Date[date]")
        if day is not None:
            found[dt.date.fromisoformat(str(day)[:10])] = {
                name: Decimal(str(row.get(f"[{name}]") or 0)) for name in KEY_MEASURES
            }
    return found


def verify(
    client: Client,
    expected: Mapping[dt.date, Mapping[str, Any]],
    *,
    moved: Callable[[], Collection[dt.date]] = tuple,
) -> Verified:
    """Compare the service's key measures with the warehouse's.

    Args:
        client: of the service.
        expected: the warehouse's numbers by day; a day without rows is left out.
        moved: days published since the refresh began, asked for only if a day differs: the service need not show them.
    """
    try:
        shown = key_measures(client)
    except ServiceError as error:
        if not _is_refusal(error):
            raise
        return Verified(skipped=f"the service does not answer this identity's queries: {error}")
    days = sorted({*shown, *expected})
    nothing: dict[str, Any] = {}
    differences = [
        (day, name, have, want)
        for day in days
        for name in KEY_MEASURES
        if (have := shown.get(day, nothing).get(name, Decimal(0)))
        != (want := Decimal(str(expected.get(day, nothing).get(name) or 0)))
    ]
    excused = set(moved()) & {day for day, *_ in differences} if differences else set()
    return Verified(
        compared=len(days) - len(excused),
        moved=len(excused),
        differences=tuple(one for one in differences if one[0] not in excused),
        amount=sum((numbers["Total Amount"] for numbers in shown.values()), Decimal(0)),
    )


def data_as_of(client: Client) -> dt.datetime | None:
    """Event time up to which the report shows everything; None where it shows nothing or does not answer us."""
    try:
        found = query_row(client, 'EVALUATE ROW("as_of", [Data As Of])').get("as_of")
    except ServiceError as error:
        if not _is_refusal(error):
            raise
        return None
    if found is None:
        return None
    moment = dt.datetime.fromisoformat(str(found))
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _is_refusal(error: ServiceError) -> bool:
    if isinstance(error, AuthorizationError):
        return True
    text = f"{error.code} {error}".lower()
    return error.status == 400 and any(word in text for word in _REFUSALS)  # noqa: PLR2004 - the number says itself
