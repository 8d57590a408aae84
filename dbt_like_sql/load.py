"""Write rows of one or more days into a loaded table, each event once, whatever runs at the same time.

This is a door of the room, used by Mage's exporters. Belongs here: staging, the fence, the one transaction, its ledger.
Does not: what the rows mean, where they came from. Why it is exactly once: docs/decisions/0005-fence-first-load.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.column_types import bigquery_schema
from dbt_like_sql.errors import FencedError, JobError, LoadError, StaleRowsError
from dbt_like_sql.migrate import STAGING, quote
from dbt_like_sql.render import day_sql
from dbt_like_sql.rows import check_rows, offsets_by_day

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    import pyarrow as pa

    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.rows import Offsets
    from dbt_like_sql.warehouse import Warehouse

# Words by which a lost race is told: ours, the emulator's, Google's.
_LOST_RACE = ("fenced", "failed to commit", "transaction conflict", "concurrent update", "aborted due to")


@dataclass(frozen=True)
class LoadedDay:
    """How far a day of a table has got. `batches`: topic partition -> last landing batch that is contained."""

    version: int = 0
    batches: dict[int, int] = field(default_factory=dict)
    incarnation: str = ""


@dataclass(frozen=True)
class DayLoad:
    """One day of a load: what was seen in the ledger, and up to which batches the rows reach."""

    day: date
    seen: LoadedDay
    upto: Mapping[int, int]

    def batches(self, *, rebuild: bool) -> dict[int, int]:
        """Batches contained after the load. A rebuilt day holds what was read for it, no more."""
        seen = {} if rebuild else self.seen.batches
        return {part: max(seen.get(part, 0), self.upto.get(part, 0)) for part in sorted({*seen, *self.upto})}


@dataclass(frozen=True)
class Loaded:
    """What a load did. `rows_inserted` is below `rows_staged` where events were there already."""

    rows_staged: int
    rows_inserted: int
    versions: dict[date, int]
    bytes_billed: int
    seconds: float
    job_id: str
    is_attached: bool = False

    @property
    def version(self) -> int:
        """Version of the day; of the latest day, where there are several."""
        return self.versions[max(self.versions)]


def loaded_day(warehouse: Warehouse, table: str, day: date, topic: str) -> LoadedDay:
    """How far one day has got; version 0 and no batches where nothing was loaded yet."""
    return loaded_days(warehouse, table, [day], topic)[day]


def loaded_days(warehouse: Warehouse, table: str, days: Iterable[date], topic: str) -> dict[date, LoadedDay]:
    """The same for several days in one query."""
    wanted = sorted(set(days))
    sql = f"""
SELECT i.incarnation, d.event_day, d.version, d.batches
FROM `{warehouse.table_id("control.incarnation")}` AS i
LEFT JOIN `{warehouse.table_id("control.day")}` AS d
  ON d.table_name = @table_name AND d.topic = @topic AND {day_sql("d.event_day", wanted)}
"""
    rows = warehouse.run(sql, params={"table_name": table, "topic": topic}, kind="ledger").rows
    incarnation = rows[0]["incarnation"]
    found = {
        row["event_day"]: LoadedDay(row["version"], _batches(row["batches"]), incarnation)
        for row in rows
        if row["event_day"] is not None
    }
    return {day: found.get(day, LoadedDay(incarnation=incarnation)) for day in wanted}


def load_rows(
    warehouse: Warehouse,
    table: str,
    rows: pa.Table,
    *,
    day: date,
    topic: str,
    seen: LoadedDay,
    upto: Mapping[int, int],
    rebuild: bool,
    run_id: str,
    code_version: str,
) -> Loaded:
    """Load the rows of one day; see `load_days`."""
    loads = [DayLoad(day, seen, upto)]
    return load_days(
        warehouse, table, rows, loads=loads, topic=topic, rebuild=rebuild, run_id=run_id, code_version=code_version
    )


def load_days(
    warehouse: Warehouse,
    table: str,
    rows: pa.Table,
    *,
    loads: Sequence[DayLoad],
    topic: str,
    rebuild: bool,
    run_id: str,
    code_version: str,
    catalog: Catalog | None = None,
) -> Loaded:
    """Load the rows of one or more days in one transaction: fence, rows, ledger; all of it or nothing.

    Args:
        warehouse: an open, migrated warehouse.
        table: a loaded table of the catalog, `core.invoice_lines`.
        rows: columns of its contract; every row's partition column is one of the days, identities are unique.
        loads: the days, each with what `loaded_days` said before the rows were read, and the batches they reach.
        topic: where the rows came from; part of every row's identity.
        rebuild: the days are emptied first; the rows must then be all rows of the days.
        run_id: for the ledger and the jobs' labels.
        code_version: of the code that made the rows.
        catalog: tests pass their own.

    Raises:
        FencedError: another load moved one of the days since `seen`. Nothing was written. Read the ledger again.
        StaleRowsError: a rebuild reaches less far than what the day holds. Nothing was written. Read the day again.
        LoadError: the rows do not fit the contract. Nothing was written.
        JobError: BigQuery failed. Nothing was written, unless the commit's answer was lost: repeating is safe.
    """
    target = (catalog or load_catalog())[table]
    if target.materialization != "loaded" or not target.identity or not target.partition_column:
        raise LoadError(
            f"loading {table}: its contract does not say loaded, identity and partition. Nothing was written."
        )
    if rebuild:
        _refuse_stale(target, loads)
    rows = check_rows(target, rows, days={load.day for load in loads}, topic=topic)
    work = _Work(target, topic, tuple(sorted(loads, key=lambda load: load.day)), rebuild, run_id, code_version)
    labels = {"table": table, "run_id": run_id, "day": work.days_label}
    staging = f"{warehouse.settings.project}.{warehouse.settings.dataset_id(STAGING)}.{work.staging_name(warehouse)}"
    staged = None
    if rows.num_rows:
        staged = warehouse.load_parquet(
            rows, staging, schema=bigquery_schema(target.columns), labels=labels, job_key=work.key(warehouse)
        )
        staging_key = staged.job_id
    else:
        staging_key = "empty"
    sql = load_script(warehouse, work, offsets_by_day(target, rows), staging if staged else None)
    try:
        done = warehouse.run(sql, labels=labels, job_key=f"{work.key(warehouse)}|{staging_key}", kind="core")
    except JobError as error:
        raise _judged(warehouse, work, error) from error
    if staged:
        warehouse.drop_table(staging)
    return Loaded(
        rows_staged=rows.num_rows,
        rows_inserted=done.rows[0]["rows_inserted"],
        versions={load.day: load.seen.version + 1 for load in work.loads},
        bytes_billed=done.bytes_billed,
        seconds=done.seconds + (staged.seconds if staged else 0),
        job_id=done.job_id,
        is_attached=done.is_attached,
    )


def _refuse_stale(target: Table, loads: Sequence[DayLoad]) -> None:
    """A rebuild must not take a day back: an incremental load that read behind it would leave a hole."""
    for load in loads:
        behind = [part for part, batch in sorted(load.seen.batches.items()) if load.upto.get(part, 0) < batch]
        if behind:
            part = behind[0]
            raise StaleRowsError(
                f"rebuilding {load.day} of {target.name}: the rows reach batch {load.upto.get(part, 0)} of topic partition "
                f"{part}, the day holds {load.seen.batches[part]} already. Nothing was written. Read the whole day again."
            )


@dataclass(frozen=True)
class _Work:
    """One load as a value: what it is, and the key by which its jobs are known."""

    target: Table
    topic: str
    loads: tuple[DayLoad, ...]
    rebuild: bool
    run_id: str
    code_version: str

    @property
    def days(self) -> list[date]:
        return [load.day for load in self.loads]

    @property
    def days_label(self) -> str:
        first, last = self.days[0].isoformat(), self.days[-1].isoformat()
        return first if first == last else f"{first}_{last}"

    def key(self, warehouse: Warehouse) -> str:
        """Names this work for ever: tables, their incarnation, days, what was seen, what is brought, by which code."""
        parts = [warehouse.table_id(self.target.name), self.topic, str(self.rebuild), self.code_version]
        for load in self.loads:
            upto = sorted(load.upto.items())
            parts += [load.seen.incarnation, load.day.isoformat(), str(load.seen.version), str(upto)]
        return "|".join(parts)

    def staging_name(self, warehouse: Warehouse) -> str:
        digest = hashlib.sha256(self.key(warehouse).encode()).hexdigest()[:16]
        return f"{self.target.name.replace('.', '_')}_{digest}"


def load_script(warehouse: Warehouse, work: _Work, offsets: Mapping[date, Offsets], staging: str | None) -> str:
    """The one transaction of a load. Its first statement is the fence; a lost race ends in an error, not in rows."""
    table_id = warehouse.table_id(work.target.name)
    where = day_sql(work.target.partition_column or "", work.days)
    parts = ["DECLARE rows_inserted INT64 DEFAULT 0;", "BEGIN TRANSACTION;", *_fence(warehouse, work)]
    if work.rebuild:
        parts.append(f"DELETE FROM `{table_id}` WHERE {where};")
    if staging:
        parts += [_insert(work, table_id, staging), "SET rows_inserted = @@row_count;"]
    parts += [_ledger(warehouse, work, offsets), "COMMIT TRANSACTION;", "SELECT rows_inserted;"]
    return "\n".join(parts)


def _fence(warehouse: Warehouse, work: _Work) -> list[str]:
    day_table = warehouse.table_id("control.day")
    who = f"table_name = {quote(work.target.name)} AND topic = {quote(work.topic)}"
    known = [load for load in work.loads if load.seen.version > 0]
    new = [load for load in work.loads if load.seen.version == 0]
    statements = []
    if known:
        seen = " OR ".join(f"(event_day = DATE '{load.day}' AND version = {load.seen.version})" for load in known)
        batches = "\n    ".join(
            f"WHEN DATE '{load.day}' THEN {_batches_sql(load.batches(rebuild=work.rebuild))}" for load in known
        )
        statements.append(
            f"UPDATE `{day_table}`\nSET version = version + 1,\n  batches = CASE event_day\n    {batches}\n  END,\n"
            f"  run_id = {quote(work.run_id)}, code_version = {quote(work.code_version)}, changed_at = CURRENT_TIMESTAMP()\n"
            f"WHERE {who} AND ({seen});\n"
            f"ASSERT @@row_count = {len(known)} AS 'fenced: another load was faster';"
        )
    if new:
        statements += _fence_new(warehouse, work, new, who)
    return statements


def _fence_new(warehouse: Warehouse, work: _Work, new: Sequence[DayLoad], who: str) -> list[str]:
    """A day's first load creates its row. Inserts do not conflict, so the one row of control.incarnation is the fence."""
    day_table, incarnation = warehouse.table_id("control.day"), warehouse.table_id("control.incarnation")
    rows = ",\n  ".join(
        f"STRUCT(DATE '{load.day}' AS event_day, {_batches_sql(load.batches(rebuild=work.rebuild))} AS batches)"
        for load in new
    )
    return [
        f"UPDATE `{incarnation}` SET rows_created = rows_created + {len(new)} "
        f"WHERE incarnation = {quote(new[0].seen.incarnation)};\n"
        "ASSERT @@row_count = 1 AS 'fenced: these tables have been made anew';",
        f"INSERT INTO `{day_table}`\n"
        "  (table_name, topic, event_day, version, batches, run_id, code_version, changed_at)\n"
        f"SELECT {quote(work.target.name)}, {quote(work.topic)}, n.event_day, 1, n.batches, {quote(work.run_id)},\n"
        f"  {quote(work.code_version)}, CURRENT_TIMESTAMP()\n"
        f"FROM UNNEST([\n  {rows}\n]) AS n\n"
        f"WHERE NOT EXISTS (SELECT 1 FROM `{day_table}` AS d WHERE d.{who.replace(' AND ', ' AND d.')} "
        "AND d.event_day = n.event_day);\n"
        f"ASSERT @@row_count = {len(new)} AS 'fenced: another load was faster';",
    ]


def _insert(work: _Work, table_id: str, staging: str) -> str:
    columns = ", ".join(work.target.column_names)
    same = " AND ".join(f"t.{name} = s.{name}" for name in work.target.identity)
    where = day_sql(f"t.{work.target.partition_column}", work.days)
    return (
        f"INSERT INTO `{table_id}` ({columns})\nSELECT {columns}\nFROM `{staging}` AS s\n"
        f"WHERE NOT EXISTS (SELECT 1 FROM `{table_id}` AS t WHERE {where} AND {same});"
    )


def _ledger(warehouse: Warehouse, work: _Work, offsets: Mapping[date, Offsets]) -> str:
    rows = []
    for load in work.loads:
        brought = offsets.get(load.day, ())
        listed = ", ".join(
            f"STRUCT({part.topic_partition} AS topic_partition, {part.first_offset} AS first_offset, "
            f"{part.last_offset} AS last_offset, {part.rows} AS row_count)"
            for part in brought
        )
        kind = "ARRAY<STRUCT<topic_partition INT64, first_offset INT64, last_offset INT64, row_count INT64>>"
        rows.append(
            f"SELECT {quote(work.target.name)}, {quote(work.topic)}, DATE '{load.day}', {load.seen.version + 1}, "
            f"{str(work.rebuild).upper()}, {sum(part.rows for part in brought)}, {kind}[{listed}], "
            f"{_batches_sql(load.batches(rebuild=work.rebuild))}, {quote(work.run_id)}, {quote(work.code_version)}, "
            "CURRENT_TIMESTAMP()"
        )
    return (
        f"INSERT INTO `{warehouse.table_id('control.load')}`\n"
        "  (table_name, topic, event_day, version, is_rebuild, staged_rows, offsets, batches, run_id, code_version, loaded_at)\n"
        + "\nUNION ALL\n".join(rows)
        + ";"
    )


def _batches_sql(batches: Mapping[int, int]) -> str:
    listed = ", ".join(
        f"STRUCT({part} AS topic_partition, {batch} AS batch)" for part, batch in sorted(batches.items())
    )
    return f"ARRAY<STRUCT<topic_partition INT64, batch INT64>>[{listed}]"


def _batches(value: Iterable[Mapping[str, Any]] | None) -> dict[int, int]:
    return {int(item["topic_partition"]): int(item["batch"]) for item in value or ()}


def _judged(warehouse: Warehouse, work: _Work, error: JobError) -> Exception:
    """Tell a lost race from a failure: by the words of the error, or by a ledger that has moved on."""
    lost = any(word in str(error).lower() for word in _LOST_RACE)
    if not lost:
        now = loaded_days(warehouse, work.target.name, work.days, work.topic)
        lost = any(now[load.day] != load.seen for load in work.loads)
    if not lost:
        return error
    seen = ", ".join(f"{load.day} version {load.seen.version}" for load in work.loads[:3])
    return FencedError(
        f"loading {work.target.name} from {work.topic}, {len(work.loads)} day(s) from {seen}: another load was faster "
        f"({error}). Nothing was written. Read the ledger again and load what is still missing."
    )
