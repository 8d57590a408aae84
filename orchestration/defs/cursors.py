"""A sensor's cursor as its own text, read so that a spoilt one stops nothing.

Belongs here: reading. Not here: what stands in a cursor (each sensor's own).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    import dagster as dg

T = TypeVar("T")


def read_cursor(context: dg.SensorEvaluationContext, parse: Callable[[dict[str, Any]], T]) -> T:
    """What `parse` makes of the cursor; of a new one where there is none, or one that it cannot read.

    A hand may edit a cursor in Dagster's UI. A tick that fails by it keeps it: no tick would ever pass again.
    """
    try:
        return parse(dict(json.loads(context.cursor or "{}")))
    except (ValueError, TypeError, KeyError, AttributeError):
        context.log.warning(
            "the cursor %.200r is none that this sensor has written; it begins with a new one", context.cursor
        )
        return parse({})
