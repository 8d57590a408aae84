"""What is told of a block's frames."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from orchestration.mage import rows_of

TABLE = pa.table({"n": [1, 2, 3]})


class OfUnknownLength:
    """As frames are that are not computed yet."""

    shape = (None, 3)


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        (TABLE, 3),
        ([TABLE, {"note": 1}], 3),
        ([TABLE, [TABLE, TABLE.slice(0, 0)]], 6),
        (TABLE.slice(0, 0), 0),
        ([{"n": 1}, {"n": 2}], None),
        ([], None),
        ({"n": [1, 2]}, None),
        (OfUnknownLength(), None),
    ],
)
def test_rows_are_those_of_frames_and_others_are_not_known(value: Any, rows: int | None) -> None:
    assert rows_of(value) == rows
