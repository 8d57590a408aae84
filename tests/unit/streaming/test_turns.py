"""Threads of one process take turns; what is made in parts is what is made at once."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming import turns
from streaming.turns import GIVE_WAY_S, ITEMS_A_TURN, counted, freed, give_way_soon, listed

sizes = st.sampled_from([0, 1, ITEMS_A_TURN - 1, ITEMS_A_TURN, ITEMS_A_TURN + 1, 2 * ITEMS_A_TURN, 5_432])


@given(sizes)
def test_parts_make_the_whole_once_and_in_order(size: int) -> None:
    numbers = range(7, 7 + size)
    assert listed(iter(numbers)) == list(numbers)
    assert counted(iter(numbers), size).tolist() == list(numbers)


@given(sizes)
def test_a_list_is_emptied(size: int) -> None:
    items: list[object] = [object() for _ in range(size)]
    freed(items)
    assert items == []


def test_an_error_in_a_later_part_is_told() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        listed(map(int, ["1"] * (ITEMS_A_TURN + 5) + ["x"]))
    with pytest.raises(ValueError, match="too short"):
        counted(range(ITEMS_A_TURN + 5), ITEMS_A_TURN + 6)


def test_a_waiting_thread_is_let_in_soon() -> None:
    before = sys.getswitchinterval()
    try:
        give_way_soon()
        assert sys.getswitchinterval() == pytest.approx(GIVE_WAY_S)
        assert before > 10 * turns.GIVE_WAY_S
    finally:
        sys.setswitchinterval(before)
