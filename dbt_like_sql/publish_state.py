"""What the ledgers say before a publication: versions, what each day was published from, what was loaded since.

Belongs here: one query, and which days can grow instead of being built anew. Not here: the script (publish_sql.py).

What is read here stands in the publication's script as literals. The script's fence refuses a publication whose state
has been overtaken by another one; loads that commit in between are in neither the claimed source version nor in the
rows of a growing day, so the day stays behind its sources and is published again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dbt_like_sql.catalog import fence_name
from dbt_like_sql.difference import Growth
from dbt_like_sql.render import day_sql, quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date
    from decimal import Decimal

    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.settings import WarehouseSettings

# Smaller days are built whole: that costs less than the longer script of a difference (docs/figures/warehouse.md).
DIFFERENCE_FROM_ROWS = 200_000
# A growing day pays for each of its ranges of offsets in the text of its query; beyond, it is built anew.
MAX_RANGES = 200


@dataclass(frozen=True)
class OffsetRange:
    """Offsets that one load brought to a day; both ends inclusive."""

    topic: str
    topic_partition: int
    first_offset: int
    last_offset: int
    rows: int


@dataclass(frozen=True)
class LoadSeen:
    """One load of a day."""

    version: int
    is_rebuild: bool
    ranges: tuple[OffsetRange, ...]


@dataclass(frozen=True)
class DayPublished:
    """How a day of a table was published last. Sums are None for publications that did not record them."""

    source_version: int
    model_version: str
    row_count: int | None
    measures: Mapping[str, Decimal] | None


@dataclass(frozen=True)
class State:
    """The ledgers as they stood before the publication."""

    publishers: Mapping[str, int]
    published: Mapping[tuple[str, date], DayPublished] = field(default_factory=dict)
    loaded: Mapping[tuple[str, date], Mapping[str, int]] = field(default_factory=dict)  # topic -> version
    loads: Mapping[tuple[str, date], tuple[LoadSeen, ...]] = field(default_factory=dict)
    days: frozenset[date] = frozenset()  # that were asked for

    def covers(self, tables: Sequence[Table], days: Sequence[date]) -> bool:
        """Whether it tells of these tables and days."""
        return self.days >= set(days) and all(table.name in self.publishers for table in tables)


@dataclass
class Memory:
    """What a process knows of the ledgers after its own publications and loads, so that it need not ask again.

    It may be out of date: the fences of loads and publications tell, and whoever is refused forgets and asks.
    """

    state: State | None = None

    def forget(self) -> None:
        """The next publication reads the ledgers."""
        self.state = None

    def published(self, tables: Sequence[Table], days: Mapping[tuple[str, date], DayPublished]) -> None:
        """These tables were published once more, these days of them as told."""
        if self.state is not None:
            versions = {table.name: self.state.publishers[table.name] + 1 for table in tables}
            self.state = replace(
                self.state,
                publishers={**self.state.publishers, **versions},
                published={**self.state.published, **days},
            )

    def loaded(self, table: str, day: date, topic: str, *, version: int, load: LoadSeen | None) -> None:
        """A day is at this version, by this load or by none of ours; anything but one step on is somebody else's."""
        known = self.state.loaded.get((table, day), {}) if self.state is not None else {}
        if self.state is None or (load is None and version == known.get(topic)):
            return
        if load is None or version != known.get(topic, 0) + 1:
            self.forget()
            return
        since = min((d.source_version for (_, at), d in self.state.published.items() if at == day), default=0)
        loads = [each for each in self.state.loads.get((table, day), ()) if each.version > since]
        self.state = replace(
            self.state,
            loaded={**self.state.loaded, (table, day): {**known, topic: version}},
            loads={**self.state.loads, (table, day): (*loads, load)},
        )


def state_sql(settings: WarehouseSettings, catalog: Catalog, tables: Sequence[Table], days: Sequence[date]) -> str:
    """One row with all of it. Of publications and loads only what concerns these days; whole tables need neither."""
    fences = [f"SELECT table_name, version FROM `{settings.table_id(fence_name(table.name))}`" for table in tables]
    publisher = f"""
  ARRAY(
    SELECT AS STRUCT f.table_name, f.version FROM ({" UNION ALL ".join(fences)}) AS f
  ) AS publishers"""
    if not days:
        return f"SELECT{publisher}"
    daily = [table for table in tables if table.partition_column]
    known = sorted(
        {table.name for table in daily} | {name for table in daily for name in _built_parents(catalog, table)}
    )
    sources = sorted({name for table in daily for name in loaded_sources(catalog, table)})
    where = day_sql("event_day", days)
    publications = f"""
    SELECT table_name, event_day, version, source_version, model_version, row_count, measures
    FROM `{settings.table_id("control.publication")}`
    WHERE table_name IN ({", ".join(map(quote, known))}) AND {where}
    QUALIFY ROW_NUMBER() OVER (PARTITION BY table_name, event_day ORDER BY version DESC) = 1"""
    listed = ", ".join(map(quote, sources)) or "''"
    return f"""
WITH latest AS ({publications}
),
since AS (
  SELECT event_day, MIN(source_version) AS version FROM latest GROUP BY event_day
)
SELECT{publisher},
  ARRAY(
    SELECT AS STRUCT table_name, event_day, source_version, model_version, row_count, measures FROM latest
  ) AS published,
  ARRAY(
    SELECT AS STRUCT table_name, topic, event_day, version
    FROM `{settings.table_id("control.day")}` WHERE table_name IN ({listed}) AND {where}
  ) AS loaded,
  ARRAY(
    SELECT AS STRUCT l.table_name, l.topic, l.event_day, l.version, l.is_rebuild, l.offsets
    FROM `{settings.table_id("control.load")}` AS l
    JOIN since AS s ON s.event_day = l.event_day
    WHERE l.table_name IN ({listed}) AND l.version > s.version
  ) AS loads"""


def read_state(row: Mapping[str, Any]) -> State:
    """The query's one row as values."""
    loads: dict[tuple[str, date], list[LoadSeen]] = {}
    for each in row.get("loads") or ():
        ranges = tuple(
            OffsetRange(each["topic"], o["topic_partition"], o["first_offset"], o["last_offset"], o["row_count"])
            for o in each["offsets"] or ()
        )
        seen = LoadSeen(each["version"], bool(each["is_rebuild"]), ranges)
        loads.setdefault((each["table_name"], each["event_day"]), []).append(seen)
    loaded: dict[tuple[str, date], dict[str, int]] = {}
    for each in row.get("loaded") or ():
        loaded.setdefault((each["table_name"], each["event_day"]), {})[each["topic"]] = each["version"]
    return State(
        publishers={each["table_name"]: each["version"] for each in row["publishers"]},
        published={(each["table_name"], each["event_day"]): _published(each) for each in row.get("published") or ()},
        loaded=loaded,
        loads={key: tuple(sorted(found, key=lambda load: load.version)) for key, found in loads.items()},
    )


def _published(row: Mapping[str, Any]) -> DayPublished:
    has_sums = row["row_count"] is not None
    sums = {each["name"]: each["value"] for each in row["measures"] or ()} if has_sums else None
    return DayPublished(row["source_version"], row["model_version"], row["row_count"], sums)


def loaded_sources(catalog: Catalog, table: Table) -> list[str]:
    """Loaded tables that a table is made of in the end; ledgers are none."""
    return [
        name
        for name in catalog.upstream(table.name)
        if catalog[name].materialization == "loaded" and catalog[name].layer != "control"
    ]


def _built_parents(catalog: Catalog, table: Table) -> list[str]:
    return [name for name in catalog.sources(table.name) if catalog[name].materialization == "table"]


def source_versions(
    catalog: Catalog, tables: Sequence[Table], days: Sequence[date], state: State
) -> dict[tuple[str, date], int]:
    """Version of each day's sources, for tables in build order: what is built here counts as built."""
    found: dict[tuple[str, date], int] = {}
    for table in tables:
        if not table.partition_column:
            continue
        for day in days:
            total = 0
            for name in catalog.sources(table.name):
                if catalog[name].materialization == "loaded":
                    total += sum(state.loaded.get((name, day), {}).values())
                elif catalog[name].materialization == "table":
                    known = state.published.get((name, day))
                    total += found.get((name, day), known.source_version if known else 0)
            found[table.name, day] = total
    return found


def rule_version(catalog: Catalog, table: Table) -> str:
    """Hash of what a table is built by: its query, its columns, and the rules of the marts and views it reads."""
    text = [table.query or "", *(f"{column.name} {column.type}" for column in table.columns)]
    built = [catalog[name] for name in table.depends_on if catalog[name].materialization in {"table", "view"}]
    text += [rule_version(catalog, parent) for parent in built]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:12]


def growing_days(table: Table, days: Sequence[date], state: State, rule: str) -> dict[date, tuple[OffsetRange, ...]]:
    """Days that can be published by what was loaded since, with it; the others are built anew.

    A day grows if its table declares by which key (`incrementalBy`), it was published by the same rule, its one topic
    has been loaded since, and none of those loads was a rebuild. A day with nothing new is built anew: whoever asks
    for it wants it mended.
    """
    if not table.incremental_by:
        return {}
    [source] = table.depends_on
    found = {}
    for day in days:
        now = sum(state.loaded.get((source, day), {}).values())
        ranges = _new_ranges(table, day, state, source=source, rule=rule, now=now)
        if ranges:
            found[day] = ranges
    return found


def are_large(table: Table, days: Sequence[date], state: State) -> bool:
    """Whether days held so many rows, when they were published last, that a longer script pays."""
    known = [state.published[table.name, day] for day in days if (table.name, day) in state.published]
    return bool(known) and sum(each.row_count or 0 for each in known) >= DIFFERENCE_FROM_ROWS


def growths(
    catalog: Catalog,
    tables: Sequence[Table],
    days: Sequence[date],
    state: State,
    growing: Mapping[str, Mapping[date, Any]],
) -> list[Growth]:
    """Tables of sums (`additiveBy`) with their days that can be published by difference; the others are built whole.

    A day does so if the table it sums up has grown since by what was loaded, and not been built anew, here or by
    another rule, and if it is large enough to be worth it.
    """
    here = {table.name for table in tables}
    versions = source_versions(catalog, tables, days, state)
    found = []
    for table in tables:
        if not table.additive_by:
            continue
        parent = catalog[table.depends_on[0]]
        [source] = parent.depends_on
        grown = {}
        for day in days:
            known = state.published.get((parent.name, day))
            is_grown = parent.name not in here or day in (growing.get(parent.name) or {})
            if known is None or not is_grown or (known.row_count or 0) < DIFFERENCE_FROM_ROWS:
                continue
            rule = rule_version(catalog, table)
            ranges = _new_ranges(table, day, state, source=source, rule=rule, now=versions[table.name, day])
            if ranges and known.model_version == rule_version(catalog, parent):
                grown[day] = ranges
        if grown:
            found.append(Growth(table, parent, grown))
    return found


def _new_ranges(table: Table, day: date, state: State, *, source: str, rule: str, now: int) -> tuple[OffsetRange, ...]:
    """What was loaded between the last publication of a day and version `now` of its one topic; nothing in doubt."""
    published, topics = state.published.get((table.name, day)), state.loaded.get((source, day), {})
    if published is None or published.model_version != rule or len(topics) != 1 or published.row_count is None:
        return ()
    new = [load for load in state.loads.get((source, day), ()) if published.source_version < load.version <= now]
    is_whole = [load.version for load in new] == list(range(published.source_version + 1, now + 1))
    if not new or not is_whole or any(load.is_rebuild for load in new):
        return ()
    ranges = merged(each for load in new for each in load.ranges)
    return ranges if len(ranges) <= MAX_RANGES else ()


def causes(catalog: Catalog, table: Table, day: date, state: State, upto: int) -> tuple[OffsetRange, ...]:
    """What was loaded between the last publication of a day and this one."""
    published = state.published.get((table.name, day))
    sources = loaded_sources(catalog, table)
    if published is None or len(sources) != 1 or len(state.loaded.get((sources[0], day), {})) != 1:
        return ()
    new = state.loads.get((sources[0], day), ())
    ranges = [each for load in new if published.source_version < load.version <= upto for each in load.ranges]
    return tuple(ranges) if len(ranges) <= MAX_RANGES else merged(ranges, gaps=True)


def merged(ranges: Any, *, gaps: bool = False) -> tuple[OffsetRange, ...]:
    """Neighbouring ranges as one; with `gaps`, one range a topic partition, whatever lies between."""
    found: list[OffsetRange] = []
    for each in sorted(ranges, key=lambda r: (r.topic, r.topic_partition, r.first_offset)):
        last = found[-1] if found else None
        if (
            last
            and (last.topic, last.topic_partition) == (each.topic, each.topic_partition)
            and (gaps or each.first_offset <= last.last_offset + 1)
        ):
            end = max(last.last_offset, each.last_offset)
            found[-1] = OffsetRange(last.topic, last.topic_partition, last.first_offset, end, last.rows + each.rows)
        else:
            found.append(each)
    return tuple(found)
