"""Messages of other formats: whatever their bytes make a reader raise, only the registry's own trouble gets out."""

from __future__ import annotations

from typing import Any

import pytest

from streaming.decode import Decoder, Refusal
from streaming.errors import RegistryError, RegistryUnavailableError
from streaming.formats.framing import schema_named, strip_frame
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


def test_a_schema_header_without_a_value_names_none_and_the_frame_counts() -> None:
    """As Confluent's own readers see it: the first header of the name, unless it has no value."""
    framed, header = b"\0\0\0\0\x07{}", ("__value_schema_id", b"\0\0\0\0\x08")
    for headers in ([("__value_schema_id", None)], [("__value_schema_id", None), header], []):
        assert (schema_named(framed, headers), strip_frame(framed, headers)) == ("7", b"{}")
    assert (schema_named(b"{}", [header]), strip_frame(b"{}", [header])) == ("8", b"{}")
