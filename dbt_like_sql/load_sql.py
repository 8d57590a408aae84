"""The one transaction of a load, as text, and the key by which it is known.

Belongs here: pure SQL from values. Does not: running it (load.py). Why this shape: docs/decisions/0005.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbt_like_sql.render import day_sql, quote
from dbt_like_sql.rows import PartitionOffsets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from dbt_like_sql.catalog import Table
    from dbt_like_sql.rows import Offsets
    from dbt_like_sql.settings import WarehouseSettings

STAGING = "staging"
_BATCHES = "ARRAY<STRUCT<topic_partition INT64, batch INT64>>"
_BATCH_TIMES = "ARRAY<STRUCT<topic_partition INT64, batch INT64, landed_us INT64>>"
_OFFSETS = "ARRAY<STRUCT<topic_partition INT64, first_offset INT64, last_offset INT64, row_count INT64>>"


@dataclass(frozen=True)
class LoadedDay:
    """How far a day of a table has got.

    Attributes:
        version: loads so far.
        batches: topic partition -> last landing batch that is contained.
        incarnation: of the tables.
        landed_us: topic partition -> when that batch landed, microseconds since 1970, UTC: tells it from another batch
            that was given its number after the lake had come back from a backup. Absent where the load did not know.
    """

    version: int = 0
    batches: dict[int, int] = field(default_factory=dict)
    incarnation: str = ""
    landed_us: dict[int, int] = field(default_factory=dict)

    @property
    def read(self) -> dict[int, tuple[int, int | None]]:
        """Topic partition -> last batch that is contained and when it landed, None where that is not known."""
        return {part: (batch, self.landed_us.get(part)) for part, batch in self.batches.items()}

    def is_same_load(self, other: LoadedDay) -> bool:
        """Whether nothing was loaded between the two: each load makes a version of its own."""
        return (self.version, self.incarnation) == (other.version, other.incarnation)


@dataclass(frozen=True)
class DayLoad:
    """One day of a load: what was seen in the ledger, up to which batches the rows reach, and when these landed.

    What of `seen` does not count any more (its batches were lost with the lake) is left out of it.
    """

    day: date
    seen: LoadedDay
    upto: Mapping[int, int]
    landed_us: Mapping[int, int] = field(default_factory=dict)

    def batches(self, *, rebuild: bool) -> dict[int, int]:
        """Batches contained after the load. A rebuilt day holds what was read for it, no more."""
        seen = {} if rebuild else self.seen.batches
        return {part: max(seen.get(part, 0), self.upto.get(part, 0)) for part in sorted({*seen, *self.upto})}

    def times(self, *, rebuild: bool) -> dict[int, int]:
        """When these batches landed, of those of which it is known; microseconds since 1970, UTC."""
        found = {}
        for part, batch in self.batches(rebuild=rebuild).items():
            known = self.landed_us if self.upto.get(part) == batch else self.seen.landed_us
            if part in known:
                found[part] = known[part]
        return found


@dataclass(frozen=True)
class StagedSlice:
    """Rows of one day of a rebuild that lie in a staging table of their own until the day is replaced.

    Attributes:
        table_id: full id of that table.
        content: hash of the rows.
        offsets: what they are, by topic partition.
    """

    table_id: str
    content: str
    offsets: Offsets

    @property
    def rows(self) -> int:
        """How many."""
        return sum(each.rows for each in self.offsets)

    def as_json(self) -> dict[str, Any]:
        """As JSON has it."""
        offsets = [[each.topic_partition, each.first_offset, each.last_offset, each.rows] for each in self.offsets]
        return {"table_id": self.table_id, "content": self.content, "offsets": offsets}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> StagedSlice:
        """What `as_json` gave."""
        return cls(told["table_id"], told["content"], tuple(PartitionOffsets(*each) for each in told["offsets"]))


@dataclass(frozen=True)
class Work:
    """One load as a value: what it is, and the key by which its jobs are known."""

    target: Table
    topic: str
    loads: tuple[DayLoad, ...]
    rebuild: bool
    run_id: str
    code_version: str
    content: str  # hash of the rows: other rows are other work, even by the same code
    slices: tuple[StagedSlice, ...] = ()  # rows of the day that were staged before these

    @property
    def days(self) -> list[date]:
        """Its days, ascending."""
        return [load.day for load in self.loads]

    @property
    def days_label(self) -> str:
        """Its days as a job label."""
        first, last = self.days[0].isoformat(), self.days[-1].isoformat()
        return first if first == last else f"{first}_{last}"

    def key(self, settings: WarehouseSettings) -> str:
        """Names this work for ever: tables, their incarnation, days, what was seen, what is brought, by which code."""
        parts = [settings.table_id(self.target.name), self.topic, str(self.rebuild), self.code_version, self.content]
        parts += [each.content for each in self.slices]
        for load in self.loads:
            upto = sorted(load.upto.items())
            parts += [load.seen.incarnation, load.day.isoformat(), str(load.seen.version), str(upto)]
        return "|".join(parts)

    def staging_id(self, settings: WarehouseSettings) -> str:
        """Full id of the staging table that is this work's own."""
        digest = hashlib.sha256(self.key(settings).encode()).hexdigest()[:16]
        return staging_id(settings, self.target.name, digest)


def staging_id(settings: WarehouseSettings, table: str, key: str) -> str:
    """Full id of a staging table for rows of a table; it expires by itself."""
    return f"{settings.project}.{settings.dataset_id(STAGING)}.{table.replace('.', '_')}_{key}"


def load_script(settings: WarehouseSettings, work: Work, offsets: Mapping[date, Offsets], *, is_staged: bool) -> str:
    """The transaction of a load. Its first statement is the fence: a lost race ends in an error, not in rows."""
    known = [load for load in work.loads if load.seen.version > 0]
    new = [load for load in work.loads if load.seen.version == 0]
    parts = ["DECLARE rows_inserted INT64 DEFAULT 0;", "BEGIN TRANSACTION;"]
    if known:
        parts.append(_fence(settings, work, known))
    if new:
        parts.append(_fence_new(settings, work, new))
    if work.rebuild:
        where = day_sql(work.target.partition_column or "", work.days)
        parts.append(f"DELETE FROM `{settings.table_id(work.target.name)}` WHERE {where};")
    sources = [each.table_id for each in work.slices] + [work.staging_id(settings)] * is_staged
    if sources:
        parts.append(_insert(settings, work, sources))
    parts += [_ledger(settings, work, offsets), "COMMIT TRANSACTION;", "SELECT rows_inserted;"]
    return "\n".join(parts)


def _fence(settings: WarehouseSettings, work: Work, known: Sequence[DayLoad]) -> str:
    seen = " OR ".join(f"(event_day = DATE '{load.day}' AND version = {load.seen.version})" for load in known)
    batches = "\n    ".join(f"WHEN DATE '{load.day}' THEN {_batches_sql(work, load)}" for load in known)
    times = "\n    ".join(f"WHEN DATE '{load.day}' THEN {_times_sql(work, load)}" for load in known)
    return f"""
UPDATE `{settings.table_id("control.day")}` SET
  version = version + 1,
  batches = CASE event_day
    {batches}
  END,
  batch_times = CASE event_day
    {times}
  END,
  run_id = {quote(work.run_id)},
  code_version = {quote(work.code_version)},
  changed_at = CURRENT_TIMESTAMP()
WHERE table_name = {quote(work.target.name)} AND topic = {quote(work.topic)} AND ({seen});
ASSERT @@row_count = {len(known)} AS 'fenced: another load was faster';"""


def _fence_new(settings: WarehouseSettings, work: Work, new: Sequence[DayLoad]) -> str:
    """A day's first load makes its row. Inserts do not conflict, so the one row of control.incarnation is the fence."""
    day_table = settings.table_id("control.day")
    table_name, topic = quote(work.target.name), quote(work.topic)
    rows = ",\n  ".join(
        f"STRUCT(DATE '{load.day}' AS event_day, {_batches_sql(work, load)} AS batches, "
        f"{_times_sql(work, load)} AS batch_times)"
        for load in new
    )
    return f"""
UPDATE `{settings.table_id("control.incarnation")}` SET rows_created = rows_created + {len(new)}
WHERE incarnation = {quote(new[0].seen.incarnation)};
ASSERT @@row_count = 1 AS 'fenced: these tables have been made anew';
INSERT INTO `{day_table}` (
  table_name, topic, event_day, version, batches, batch_times, run_id, code_version, changed_at
)
SELECT
  {table_name}, {topic}, n.event_day, 1, n.batches, n.batch_times,
  {quote(work.run_id)}, {quote(work.code_version)}, CURRENT_TIMESTAMP()
FROM UNNEST([
  {rows}
]) AS n
WHERE NOT EXISTS (
  SELECT 1 FROM `{day_table}` AS d
  WHERE d.table_name = {table_name} AND d.topic = {topic} AND d.event_day = n.event_day
);
ASSERT @@row_count = {len(new)} AS 'fenced: another load was faster';"""


def _insert(settings: WarehouseSettings, work: Work, sources: Sequence[str]) -> str:
    table_id = settings.table_id(work.target.name)
    columns = ", ".join(work.target.column_names)
    # A rebuild has just emptied the days, and its rows are of these days alone, each identity once: none is there.
    is_new = "" if work.rebuild else f"\nWHERE {_is_absent(work, table_id)}"
    union = " UNION ALL ".join(f"SELECT {columns} FROM `{source}`" for source in sources)
    rows = f"({union})" if len(sources) > 1 else f"`{sources[0]}`"
    return f"""
INSERT INTO `{table_id}` ({columns})
SELECT {columns}
FROM {rows} AS s{is_new};
SET rows_inserted = @@row_count;"""


def _is_absent(work: Work, table_id: str) -> str:
    same = " AND ".join(f"t.{name} = s.{name}" for name in work.target.identity)
    where = day_sql(f"t.{work.target.partition_column}", work.days)
    return f"NOT EXISTS (SELECT 1 FROM `{table_id}` AS t WHERE {where} AND {same})"


def _ledger(settings: WarehouseSettings, work: Work, offsets: Mapping[date, Offsets]) -> str:
    rows = "\nUNION ALL\n".join(_ledger_row(work, load, offsets.get(load.day, ())) for load in work.loads)
    return f"""
INSERT INTO `{settings.table_id("control.load")}` (
  table_name, topic, event_day, version, is_rebuild, staged_rows, offsets, batches, run_id, code_version, loaded_at
)
{rows};"""


def _ledger_row(work: Work, load: DayLoad, brought: Offsets) -> str:
    listed = ", ".join(
        f"STRUCT({part.topic_partition} AS topic_partition, {part.first_offset} AS first_offset, "
        f"{part.last_offset} AS last_offset, {part.rows} AS row_count)"
        for part in brought
    )
    values = [
        quote(work.target.name),
        quote(work.topic),
        f"DATE '{load.day}'",
        str(load.seen.version + 1),
        str(work.rebuild).upper(),
        str(sum(part.rows for part in brought)),
        f"{_OFFSETS}[{listed}]",
        _batches_sql(work, load),
        quote(work.run_id),
        quote(work.code_version),
        "CURRENT_TIMESTAMP()",
    ]
    return f"SELECT {', '.join(values)}"


def _batches_sql(work: Work, load: DayLoad) -> str:
    batches = load.batches(rebuild=work.rebuild)
    listed = ", ".join(f"STRUCT({part} AS topic_partition, {batch} AS batch)" for part, batch in batches.items())
    return f"{_BATCHES}[{listed}]"


def _times_sql(work: Work, load: DayLoad) -> str:
    batches = load.batches(rebuild=work.rebuild)
    listed = ", ".join(
        f"STRUCT({part} AS topic_partition, {batches[part]} AS batch, {landed_us} AS landed_us)"
        for part, landed_us in load.times(rebuild=work.rebuild).items()
    )
    return f"{_BATCH_TIMES}[{listed}]"
