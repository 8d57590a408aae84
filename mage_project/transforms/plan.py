"""The note that travels with a frame: which landed batches of which days it was read from.

Belongs here: the plan itself and how a frame carries it. Not here: reading or writing anything.
The note is kept in the Arrow schema's metadata, so it survives Mage's own storage between blocks as well as
the in-memory chain, and the exporter can move the ledger exactly as far as the loader has read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Literal

from mage_project.transforms.errors import PlanError

if TYPE_CHECKING:
    import pyarrow as pa

Mode = Literal["incremental", "rebuild", "compare"]

_KEY = b"read_plan"
_BY_PARTITION = ("after", "upto", "landed_us", "reached")


@dataclass(frozen=True, kw_only=True)
class DayPlan:
    """What a frame holds of one day: its rows in batches after < batch <= upto, by topic partition.

    `incarnation`, `version` and `after` are the table's ledger as the loader saw it, less what a restored lake has
    lost. A rebuild reads from the first batch on and keeps `after` only as what the ledger said; what is only compared
    is read from the first batch to `after`, the events that the table holds. `landed_us`: when the batches of `upto`
    landed, microseconds since 1970, UTC. `rows_left`: of the day, in later batches than those of the frame. Of a
    rebuild that is read in slices `upto` is the whole day's, and `reached` is how far this slice has come.
    """

    day: date
    incarnation: str
    version: int
    after: dict[int, int]
    upto: dict[int, int]
    rows_read: int
    landed_us: dict[int, int] = field(default_factory=dict)
    rows_left: int = 0
    reached: dict[int, int] = field(default_factory=dict)

    @property
    def is_slice(self) -> bool:
        """Whether the day is only written once the rows that follow these have been read as well."""
        return bool(self.reached and self.rows_left)

    @property
    def has_landed_more(self) -> bool:
        """Whether the lake has batches that the table had not."""
        return any(batch > self.after.get(part, 0) for part, batch in self.upto.items())

    @property
    def after_landed_us(self) -> dict[int, int]:
        """When the batches of `after` landed, of those that are still the last ones."""
        return {part: at for part, at in self.landed_us.items() if self.after.get(part) == self.upto.get(part)}


@dataclass(frozen=True, kw_only=True)
class ReadPlan:
    """What one frame was read from: some days of one topic, for one table."""

    topic: str
    table: str
    mode: Mode
    days: tuple[DayPlan, ...]

    @property
    def rows_read(self) -> int:
        """Rows of all days: what every block must still hold."""
        return sum(each.rows_read for each in self.days)

    @property
    def is_rebuild(self) -> bool:
        """Whether the days are written whole."""
        return self.mode == "rebuild"

    @property
    def is_comparison(self) -> bool:
        """Whether the days are not written at all: their rows are laid beside what the table holds."""
        return self.mode == "compare"

    @property
    def work(self) -> tuple[DayPlan, ...]:
        """The days for which there is something to write."""
        if self.is_comparison:
            return ()
        return tuple(each for each in self.days if self.is_rebuild or each.has_landed_more)


def attach_plan(table: pa.Table, plan: ReadPlan) -> pa.Table:
    """The same rows, carrying `plan`."""
    note = json.dumps(asdict(plan), sort_keys=True, default=date.isoformat).encode()
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: note})


def plan_of(table: pa.Table) -> ReadPlan:
    """The plan that `table` carries.

    Raises:
        PlanError: the frame carries none: a block before this one built a new frame and did not hand it on; or it is
            a frame of pandas or polars, which cannot carry one.
    """
    import pyarrow as pa  # noqa: PLC0415

    if not isinstance(table, pa.Table):
        raise PlanError(
            f"reading the plan of a frame: it is a {type(table).__module__.partition('.')[0]} {type(table).__name__}, "
            "and only an Arrow table carries one. Nothing was written. The block that made it must return "
            "carry_plan(source, pyarrow.Table.from_pandas(frame, preserve_index=False)); of polars, frame.to_arrow()."
        )
    note = (table.schema.metadata or {}).get(_KEY)
    if note is None:
        raise PlanError(
            "reading the plan of a frame: its schema carries no 'read_plan'. Nothing was written. "
            "A block that builds a new frame must return carry_plan(source, frame)."
        )
    fields = json.loads(note)
    days = tuple(
        DayPlan(
            **{
                **day,
                "day": date.fromisoformat(day["day"]),
                **{name: {int(part): value for part, value in day[name].items()} for name in _BY_PARTITION},
            }
        )
        for day in fields.pop("days")
    )
    return ReadPlan(**fields, days=days)


def carry_plan(source: pa.Table, table: pa.Table) -> pa.Table:
    """`table`, carrying the plan of the frame it was made from."""
    return attach_plan(table, plan_of(source))
