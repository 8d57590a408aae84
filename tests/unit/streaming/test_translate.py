"""Messages of other formats: whatever their bytes make a reader raise, only the registry's own trouble gets out."""

from __future__ import annotations

from typing import Any

import pytest

from streaming.decode import Decoder, Refusal
from streaming.errors import RegistryError, RegistryUnavailableError
from streaming.formats.translate import Translated, translate

from .events import FakeMessage, orders_contract


def reader_that_raises(error: BaseException) -> Any:
    def read(value: bytes, _: Any) -> bytes:
        if value == b"bad":
            raise error
        return value

    return read


@pytest.mark.parametrize("error", [AttributeError("'NoneType' has no 'copy'"), RecursionError("deep"), KeyError("x")])
def test_what_a_reader_did_not_foresee_is_a_dead_letter_that_names_it(error: Exception) -> None:
    decoder = Decoder(orders_contract(), reader=reader_that_raises(error))
    found = translate(decoder, [FakeMessage(0, b"{}"), FakeMessage(1, b"bad"), FakeMessage(2, b"{}")])
    assert all(isinstance(one, Translated) for one in found)
    assert [one.value() for one in found] == [b"{}", None, b"{}"]
    (refusal,) = [one.refusal for one in found if isinstance(one, Translated) and one.refusal]
    assert refusal == Refusal("undecodable", f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("error", [RegistryUnavailableError("away"), RegistryError("log-in"), KeyboardInterrupt()])
def test_the_registry_s_trouble_is_no_event_s_fault(error: BaseException) -> None:
    decoder = Decoder(orders_contract(), reader=reader_that_raises(error))
    with pytest.raises(type(error)):
        translate(decoder, [FakeMessage(0, b"bad")])
