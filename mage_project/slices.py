"""A day that is rebuilt in slices: how far it has been read and staged, from one pass of the pipeline to the next.

A rebuild replaces its day in one transaction. Of a day that is larger than memory the pipeline reads, transforms and
stages a slice at a time, and the transaction takes all of them together. So the exporter of a slice returns `read_on`;
whoever runs the pipeline runs it again with that as the variable `read_on`, until no exporter returns one. Who does not
give the variable (Mage's own runs) reads the day whole.
Belongs here: that note. Not here: reading (reading.py), writing (writing.py), the tables (dbt_like_sql.load).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mage_project.transforms.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbt_like_sql.load import StagedSlice
    from mage_project.transforms.plan import DayPlan

READ_ON = "read_on"


@dataclass(frozen=True, kw_only=True)
class ReadOn:
    """Where a rebuild of a day stands.

    Attributes:
        name: of this rebuild; no other one has it.
        day: as YYYY-MM-DD.
        after: topic partition -> last batch that is staged.
        upto: topic partition -> last batch of the day, as it was at the first slice.
        landed_us: when these landed, microseconds since 1970, UTC.
        slices: what is staged.
    """

    name: str
    day: str
    after: dict[int, int]
    upto: dict[int, int]
    landed_us: dict[int, int]
    slices: tuple[StagedSlice, ...]

    @property
    def rows(self) -> int:
        """Rows that are staged."""
        return sum(each.rows for each in self.slices)

    @property
    def next_name(self) -> str:
        """Of the next slice's staging table; one that is staged again after a lost answer replaces itself."""
        return f"{self.name}_{len(self.slices)}"


def may_read_on(variables: Mapping[str, Any]) -> bool:
    """Whether whoever runs the pipeline runs it again until all is read."""
    return variables.get(READ_ON) is not None


def read_on(variables: Mapping[str, Any], day: str) -> ReadOn | None:
    """What the pass before has left, None in the first one.

    Raises:
        PlanError: it is of another day.
    """
    from dbt_like_sql.load import StagedSlice  # noqa: PLC0415  (the Google client costs seconds at import)

    left = variables.get(READ_ON)
    if not left:
        return None
    if left["day"] != day:
        raise PlanError(f"reading {day} on: `{READ_ON}` is of {left['day']}. Nothing was written. Begin with no slice.")
    return ReadOn(
        name=left["name"],
        day=day,
        **{
            name: {int(part): int(value) for part, value in left[name].items()}
            for name in ("after", "upto", "landed_us")
        },
        slices=tuple(map(StagedSlice.from_json, left["slices"])),
    )


def first_slice(plan: DayPlan) -> ReadOn:
    """Before anything is staged of a day."""
    name = uuid.uuid4().hex[:16]
    return ReadOn(name=name, day=plan.day.isoformat(), after={}, upto=plan.upto, landed_us=plan.landed_us, slices=())


def note(before: ReadOn, plan: DayPlan, staged: StagedSlice) -> dict[str, Any]:
    """What the next pass is given, as JSON has it."""
    return {
        "name": before.name,
        "day": before.day,
        **{
            name: {str(part): value for part, value in values.items()}
            for name, values in (("after", plan.reached), ("upto", before.upto), ("landed_us", before.landed_us))
        },
        "slices": [each.as_json() for each in (*before.slices, staged)],
    }
