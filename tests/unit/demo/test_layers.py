"""Comparing the layers is pure: what agrees, what does not, and by how much."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from deploy.demo.layers import Layer, Layers, Watch, plain, reconcile

AMOUNT = Decimal("748957.020000001")
AGREED = Layers(
    produced=Layer(rows=12),
    landed=Layer(rows=9, dead_letters=2, gaps=1, amount=AMOUNT),
    core=Layer(rows=9, repeats=1, repeats_amount=Decimal("2.50"), amount=AMOUNT),
    mart=Layer(rows=8, amount=AMOUNT - Decimal("2.5")),
    report=Layer(rows=8, amount=AMOUNT - Decimal("2.50"), as_of="2026-01-01T00:00:00+00:00"),
)


def test_layers_that_agree_have_no_difference() -> None:
    assert reconcile(AGREED) == []


def test_empty_line_agrees() -> None:
    nothing = Layer()
    assert reconcile(Layers(nothing, nothing, nothing, nothing, nothing)) == []


@pytest.mark.parametrize(
    ("layer", "changed", "words"),
    [
        (
            "landed",
            {"rows": 8, "amount": AMOUNT},
            "landed has rows + dead letters + gaps 11, produced has 12: differs by -1",
        ),
        ("core", {"amount": AMOUNT + Decimal("1e-9")}, "differs by +0.000000001"),
        ("mart", {"rows": 9}, "mart has rows 9, core has 8: differs by +1"),
        ("report", {"amount": None}, "report has amount 0, mart has 748954.520000001: differs by -748954.520000001"),
    ],
)
def test_difference_says_which_layer_and_by_how_much(layer: str, changed: dict[str, object], words: str) -> None:
    layers = replace(AGREED, **{layer: replace(getattr(AGREED, layer), **changed)})
    found = [str(difference) for difference in reconcile(layers)]
    assert any(words in each for each in found), found


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Decimal("748957.020000000"), "748957.02"),
        (Decimal("1E+3"), "1000"),
        (Decimal("-0.000000001"), "-0.000000001"),
        (Decimal("0.00"), "0"),
        (Decimal(100), "100"),
        (None, None),
    ],
)
def test_amounts_are_written_without_exponent_and_trailing_zeros(amount: Decimal | None, text: str | None) -> None:
    assert plain(amount) == text


def test_events_beside_the_way_count_as_arrived() -> None:
    watch = Watch(readers={})
    watch.layers = {"produced": AGREED.produced, "landed": AGREED.landed, "core": AGREED.core, "mart": AGREED.mart}
    assert [watch.rows(name) for name in ("produced", "landed", "core", "mart")] == [12, 12, 12, 12]
    assert watch.rows("report") == 4  # nothing read yet: only what never gets there
