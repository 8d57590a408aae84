"""What passes as verified: every measure of every day, to the last digit; a day that moved on may differ, no other."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, cast

import pytest

from powerbi.errors import AuthorizationError, ServiceError
from powerbi.rest import Client
from powerbi.verify import KEY_MEASURES, data_as_of, verify

FIRST, SECOND = dt.date(2026, 3, 1), dt.date(2026, 3, 2)
CLIENT = cast("Client", None)


def numbers(amount: str) -> dict[str, Any]:
    return dict.fromkeys(KEY_MEASURES, Decimal(1)) | {"Total Amount": Decimal(amount)}


def shown(monkeypatch: pytest.MonkeyPatch, days: dict[dt.date, dict[str, Any]]) -> None:
    rows = [
        {"Date[date]": f"{day}T00:00:00", **{f"[{name}]": value for name, value in found.items()}}
        for day, found in days.items()
    ]
    blank = {"Date[date]": None, **{f"[{name}]": None for name in KEY_MEASURES}}
    monkeypatch.setattr("powerbi.verify.query_rows", lambda *_: [*rows, blank])


def refused(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def raising(*_: object) -> Any:
        raise error

    monkeypatch.setattr("powerbi.verify.query_rows", raising)
    monkeypatch.setattr("powerbi.verify.query_row", raising)


def test_equal_numbers_pass_and_one_penny_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, {FIRST: numbers("10.10"), SECOND: numbers("0.30")})
    assert verify(CLIENT, {FIRST: numbers("10.1"), SECOND: numbers("0.3")}).passed
    found = verify(CLIENT, {FIRST: numbers("10.1"), SECOND: numbers("0.31")})
    assert not found.passed
    assert found.differences == ((SECOND, "Total Amount", Decimal("0.30"), Decimal("0.31")),)


def test_day_that_only_one_side_has_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, {FIRST: numbers("1")})
    assert not verify(CLIENT, {}).passed
    assert not verify(CLIENT, {FIRST: numbers("1"), SECOND: numbers("2")}).passed


def test_only_days_published_since_are_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, {FIRST: numbers("1"), SECOND: numbers("2")})
    expected = {FIRST: numbers("1"), SECOND: numbers("3")}
    found = verify(CLIENT, expected, moved=lambda: {SECOND})
    assert (found.passed, found.compared, found.moved) == (True, 1, 1)
    assert not verify(CLIENT, expected, moved=lambda: {FIRST}).passed
    assert not verify(CLIENT, {FIRST: numbers("9"), SECOND: numbers("9")}, moved=lambda: {FIRST, SECOND}).passed


def test_nothing_compared_has_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, {})
    assert not verify(CLIENT, {}).passed


@pytest.mark.parametrize(
    "error",
    [
        AuthorizationError("401 PowerBINotAuthorizedException", status=401),
        ServiceError("400 service principals are not supported for models with RLS", status=400),
    ],
)
def test_refusal_of_this_identity_is_skipped_and_has_not_passed(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    refused(monkeypatch, error)
    found = verify(CLIENT, {FIRST: numbers("1")})
    assert found.skipped
    assert not found.passed
    assert data_as_of(CLIENT) is None


def test_other_error_is_raised_and_not_taken_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    refused(monkeypatch, ServiceError("400 column [Nope] does not exist", status=400))
    with pytest.raises(ServiceError, match="Nope"):
        verify(CLIENT, {FIRST: numbers("1")})
