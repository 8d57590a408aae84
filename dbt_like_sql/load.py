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
from dbt_like_sql.load_sql import DayLoad, LoadedDay, StagedSlice, Work, load_script, staging_id
from dbt_like_sql.render import day_sql
from dbt_like_sql.rows import check_rows, joined_offsets, offsets_by_day
from dbt_like_sql.warehouse import parquet_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    import pyarrow as pa

    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.rows import Offsets
    from dbt_like_sql.warehouse import Done, Warehouse

__all__ = [
    "DayLoad",
    "Loaded",
    "LoadedDay",
    "StagedSlice",
    "load_days",
    "load_rows",
    "loaded_day",
    "loaded_days",
    "newest_loads",
    "stage",
    "stage_slice",
]

# Words by which a lost race is told: ours, the emulator's, Google's.
_LOST_RACE = ("fenced", "failed to commit", "transaction conflict", "concurrent update", "aborted due to")


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
    offsets: Mapping[date, Offsets] = field(default_factory=dict)

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
SELECT i.incarnation, d.event_day, d.version, d.batches, d.batch_times
FROM `{warehouse.table_id("control.incarnation")}` AS i
LEFT JOIN `{warehouse.table_id("control.day")}` AS d
  ON d.table_name = @table_name AND d.topic = @topic AND {day_sql("d.event_day", wanted)}
"""
    rows = warehouse.run(sql, params={"table_name": table, "topic": topic}, kind="ledger").rows
    incarnation = rows[0]["incarnation"]
    found = {row["event_day"]: _loaded(row, incarnation) for row in rows if row["event_day"] is not None}
    return {day: found.get(day, LoadedDay(incarnation=incarnation)) for day in wanted}


def newest_loads(warehouse: Warehouse, count: int) -> list[tuple[str, str, date, LoadedDay]]:
    """How far the days have got that were loaded last: table, topic, day; the newest first, so many at most."""
    sql = f"""
SELECT i.incarnation, d.table_name, d.topic, d.event_day, d.version, d.batches, d.batch_times
FROM `{warehouse.table_id("control.day")}` AS d
CROSS JOIN `{warehouse.table_id("control.incarnation")}` AS i
ORDER BY d.changed_at DESC LIMIT {count}
"""
    rows = warehouse.run(sql, kind="ledger").rows
    return [(row["table_name"], row["topic"], row["event_day"], _loaded(row, row["incarnation"])) for row in rows]


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
    slices: Sequence[StagedSlice] = (),
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
        slices: for a rebuild of one day: what `stage_slice` has staged of it before, none of which is among the rows.

    Raises:
        FencedError: another load moved one of the days since `seen`. Nothing was written. Read the ledger again.
        StaleRowsError: a rebuild reaches less far than what the day holds. Nothing was written. Read the day again.
        LoadError: the rows do not fit the contract. Nothing was written.
        JobError: BigQuery failed. Nothing was written, unless the commit's answer was lost: repeating is safe.
    """
    target = _loaded_table(table, catalog)
    if slices and not (rebuild and len(loads) == 1):
        raise LoadError(f"loading {table}: only a rebuild of one day is staged in slices. Nothing was written.")
    if rebuild:
        _refuse_stale(target, loads)
    rows = check_rows(target, rows, days={load.day for load in loads}, topic=topic)
    payload = parquet_bytes(rows) if rows.num_rows else b""
    work = Work(
        target=target,
        topic=topic,
        loads=tuple(sorted(loads, key=lambda load: load.day)),
        rebuild=rebuild,
        run_id=run_id,
        code_version=code_version,
        content=hashlib.sha256(payload).hexdigest(),
        slices=tuple(slices),
    )
    offsets = offsets_by_day(target, rows)
    if slices:
        [day] = work.days
        offsets = {day: joined_offsets([*(each.offsets for each in slices), offsets.get(day, ())])}
    staged, done = _stage_and_commit(warehouse, work, payload, offsets)
    return Loaded(
        rows_staged=rows.num_rows + sum(each.rows for each in slices),
        rows_inserted=done.rows[0]["rows_inserted"],
        versions={load.day: load.seen.version + 1 for load in work.loads},
        bytes_billed=done.bytes_billed,
        seconds=done.seconds + (staged.seconds if staged else 0),
        job_id=done.job_id,
        is_attached=done.is_attached,
        offsets=offsets,
    )


def stage_slice(
    warehouse: Warehouse, table: str, rows: pa.Table, *, day: date, topic: str, name: str, run_id: str
) -> StagedSlice:
    """Stage some rows of a day that is to be rebuilt; `load_days` replaces the day by them and all others at once.

    Of a day that is larger than memory: until then the table is as it was. What is never used expires by itself.

    Args:
        warehouse: an open, migrated warehouse.
        table: as for `load_days`.
        rows: as for `load_days`, of one day.
        day: theirs.
        topic: where they came from.
        name: of this slice; no other one ever has it, so that nobody else drops its staging table.
        run_id: for the job's labels.

    Raises:
        LoadError: the rows do not fit the contract. Nothing was written.
        JobError: BigQuery failed. Nothing was written.
    """
    target = _loaded_table(table, None)
    rows = check_rows(target, rows, days={day}, topic=topic)
    into = staging_id(warehouse.settings, table, name)
    labels = {"table": table, "run_id": run_id, "day": day.isoformat()}
    content = stage(warehouse, target, rows, into=into, labels=labels)
    return StagedSlice(into, content, offsets_by_day(target, rows).get(day, ()))


def stage(
    warehouse: Warehouse,
    target: Table,
    rows: pa.Table,
    *,
    into: str,
    labels: Mapping[str, str],
    append: bool = False,
) -> str:
    """Lay rows, checked before, into a staging table that is named by its full id; returns a hash of them.

    An answer that is lost changes nothing: the job is known by the table and the hash.
    """
    payload = parquet_bytes(rows)
    content = hashlib.sha256(payload).hexdigest()
    schema = bigquery_schema(target.columns)
    warehouse.load_parquet(payload, into, schema=schema, labels=labels, job_key=f"{into}|{content}", append=append)
    return content


def _loaded_table(table: str, catalog: Catalog | None) -> Table:
    target = (catalog or load_catalog())[table]
    if target.materialization != "loaded" or not target.identity or not target.partition_column:
        raise LoadError(
            f"loading {table}: its contract does not say loaded, identity and partition. Nothing was written."
        )
    return target


def _stage_and_commit(
    warehouse: Warehouse, work: Work, payload: bytes, offsets: Mapping[date, Offsets]
) -> tuple[Done | None, Done]:
    settings = warehouse.settings
    labels = {"table": work.target.name, "run_id": work.run_id, "day": work.days_label}
    key, staging, staged = work.key(settings), work.staging_id(settings), None
    if payload:
        schema = bigquery_schema(work.target.columns)
        staged = warehouse.load_parquet(payload, staging, schema=schema, labels=labels, job_key=key)
    sql = load_script(settings, work, offsets, is_staged=staged is not None)
    try:
        done = warehouse.run(sql, labels=labels, job_key=key, kind="core")
    except JobError as error:
        judged = _judged(warehouse, work, error)
        if staged and isinstance(judged, FencedError):
            warehouse.drop_table(staging)  # work that was fenced off can never commit
        raise judged from error
    for table_id in [each.table_id for each in work.slices] + [staging] * (staged is not None):
        warehouse.drop_table(table_id)
    return staged, done


def _refuse_stale(target: Table, loads: Sequence[DayLoad]) -> None:
    """A rebuild must not take a day back: an incremental load that read behind it would leave a hole."""
    for load in loads:
        behind = [part for part, batch in sorted(load.seen.batches.items()) if load.upto.get(part, 0) < batch]
        if behind:
            part = behind[0]
            raise StaleRowsError(
                f"rebuilding {load.day} of {target.name}: the rows reach batch {load.upto.get(part, 0)} of topic "
                f"partition {part}, the day holds {load.seen.batches[part]} already. Nothing was written. "
                "Read the whole day again."
            )


def _loaded(row: Mapping[str, Any], incarnation: str) -> LoadedDay:
    """A row of control.day. A time counts for the batch it was written for: a program of before moved batches alone."""
    batches = {int(each["topic_partition"]): int(each["batch"]) for each in row["batches"] or ()}
    times = {
        int(each["topic_partition"]): int(each["landed_us"])
        for each in row["batch_times"] or ()
        if batches.get(int(each["topic_partition"])) == int(each["batch"])
    }
    return LoadedDay(row["version"], batches, incarnation, times)


def _judged(warehouse: Warehouse, work: Work, error: JobError) -> Exception:
    """Tell a lost race from a failure: by the words of the error, or by a ledger that has moved on."""
    lost = any(word in str(error).lower() for word in _LOST_RACE)
    if not lost:
        now = loaded_days(warehouse, work.target.name, work.days, work.topic)
        lost = not all(now[load.day].is_same_load(load.seen) for load in work.loads)
    if not lost:
        return error
    seen = ", ".join(f"{load.day} version {load.seen.version}" for load in work.loads[:3])
    return FencedError(
        f"loading {work.target.name} from {work.topic}, {len(work.loads)} day(s) from {seen}: another load was faster "
        f"({error}). Nothing was written. Read the ledger again and load what is still missing."
    )
