"""Pauses between sessions grow while trouble lasts, and an outage has a limit."""

from __future__ import annotations

import pytest

from streaming.errors import BrokerUnavailableError, LakeUnavailableError, RegistryUnavailableError, StreamingError
from streaming.rejoining import RejoinError, Rejoins

LIMIT_S = 100.0


def because_of(cause: StreamingError | None) -> RejoinError:
    error = RejoinError("trouble")
    error.__cause__ = cause
    return error


def test_pauses_double_up_to_ten_seconds_and_begin_anew_after_a_calm_minute() -> None:
    rejoins = Rejoins(LIMIT_S)
    fence = because_of(None)
    found = [rejoins.next_delay_s(fence, assigned_at=None, transactions=0, now=float(n)) for n in range(6)]
    assert found == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert rejoins.next_delay_s(fence, assigned_at=100.0, transactions=0, now=101.0) == 10.0
    assert rejoins.next_delay_s(fence, assigned_at=200.0, transactions=0, now=261.0) == 0.5


@pytest.mark.parametrize("cause", [LakeUnavailableError, BrokerUnavailableError, RegistryUnavailableError])
def test_an_outage_that_outlasts_the_limit_is_raised_as_itself(cause: type[StreamingError]) -> None:
    rejoins = Rejoins(LIMIT_S)
    outage = because_of(cause("away"))
    for now in (0.0, LIMIT_S):
        rejoins.next_delay_s(outage, assigned_at=None, transactions=0, now=now)
    with pytest.raises(cause, match="away"):
        rejoins.next_delay_s(outage, assigned_at=None, transactions=0, now=LIMIT_S + 1)


def test_a_fence_is_no_outage_however_often_it_comes() -> None:
    rejoins = Rejoins(LIMIT_S)
    for now in range(0, 1_000, 60):
        rejoins.next_delay_s(because_of(None), assigned_at=None, transactions=0, now=float(now))


def test_an_assignment_ends_an_outage_of_lake_and_broker_but_not_one_of_the_registry() -> None:
    """To be assigned takes lake and broker; whether the registry is back shows only in what is written."""
    rejoins = Rejoins(LIMIT_S)
    lake, registry = because_of(LakeUnavailableError("lake")), because_of(RegistryUnavailableError("registry"))
    rejoins.next_delay_s(lake, assigned_at=None, transactions=0, now=0.0)
    rejoins.next_delay_s(lake, assigned_at=90.0, transactions=0, now=LIMIT_S + 1)
    rejoins.next_delay_s(registry, assigned_at=None, transactions=0, now=LIMIT_S + 2)
    rejoins.next_delay_s(registry, assigned_at=190.0, transactions=1, now=2 * LIMIT_S)  # it was back: some was written
    rejoins.next_delay_s(registry, assigned_at=290.0, transactions=1, now=3 * LIMIT_S)
    with pytest.raises(RegistryUnavailableError):
        rejoins.next_delay_s(registry, assigned_at=301.0, transactions=1, now=3 * LIMIT_S + 2)
