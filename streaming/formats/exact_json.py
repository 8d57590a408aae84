"""Python values of other formats -> JSON that loses nothing: decimals as text, instants in UTC, bytes as base64. Pure.

Not here: how the values come about (avro.py, protobuf.py).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np


def to_json(value: Any) -> bytes:
    """JSON of a value. Numbers that JSON has no word for (NaN, infinities) become text, never null."""
    return msgspec.json.encode(_plain(value))


def exact_decimal(unscaled: int, scale: int) -> Decimal:
    """Unscaled / 10^scale, of any length; arithmetic would round it to the context's 28 digits."""
    return Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale))


def shortest_float(value: float) -> float:
    """A float32 as the shortest number that reads as it: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(value)))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    return value
