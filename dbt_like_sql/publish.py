"""Publish tables: write, audit, publish, in one transaction that readers see whole or not at all.

Belongs here: the publishing script, its fence and its ledger. Does not: what a check says (checks.py), SQL of models.

The rows are written and audited inside the transaction: until it commits, readers see what they saw before, and a
failed blocking check rolls it back. An audit table of its own would cost a second copy and a second read of every row.
Several tables and several days go in one script, so twenty late days cost little more than one.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from dbt_like_sql.audit_sql import audit_sql, ordered_checks
from dbt_like_sql.difference import DISPLACED
from dbt_like_sql.errors import ChecksFailedError, JobError, PublishError
from dbt_like_sql.publish_sql import CHECKS_FAILED, Publication, publish_script, stale_sql
from dbt_like_sql.publish_state import (
    DayPublished,
    LoadSeen,
    Memory,
    OffsetRange,
    causes,
    growing_days,
    growths,
    read_state,
    rule_version,
    source_versions,
    state_sql,
)
from dbt_like_sql.render import Slice
from dbt_like_sql.restate_sql import measures

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import date

    from dbt_like_sql.catalog import Catalog, Table
    from dbt_like_sql.warehouse import Done, Warehouse

__all__ = [
    "CheckResult",
    "Memory",
    "Published",
    "check_tables",
    "loaded_event_days",
    "note_load",
    "parameters",
    "publish",
    "publish_all",
    "stale_days",
    "stale_tables",
]

# Two publications of one table at a time: one is rolled back and tried again. Each try takes about a second.
TRIES = 6
_LOST_RACE = ("fenced", "failed to commit", "conflict", "concurrent update", "aborted due to", "aborted")
# BigQuery: 4,000 table partitions a job may be modified; three partitioned tables in one script stay below it.
MAX_DAYS_A_SCRIPT = 1000


@dataclass(frozen=True)
class CheckResult:
    """What one check found: how many `rows` broke the promise, and one of them as JSON. None: it passed."""

    table: str
    name: str
    severity: str
    rows: int
    example: str | None = None

    @property
    def passed(self) -> bool:
        """Whether no row broke the promise."""
        return self.rows == 0


@dataclass(frozen=True)
class Published:
    """What a publication did. `rows` are what the days, or the table, hold now; bytes and seconds are of the script.

    `day_rows` are the rows of each day, for tables that have days.
    `grown_days` were published by what was loaded since; the other days were built anew. `restated` are the rows that
    the publication wrote to control.restatement, as far as readers are told of them.
    """

    table: str
    days: tuple[date, ...] | None
    rows: int
    source_version: int
    bytes_billed: int
    seconds: float
    checks: list[CheckResult] = field(default_factory=list)
    job_id: str = ""
    grown_days: tuple[date, ...] = ()
    restated: tuple[dict[str, Any], ...] = ()
    day_rows: Mapping[date, int] = field(default_factory=dict)


def publish(
    warehouse: Warehouse, catalog: Catalog, name: str, *, days: Sequence[date] | None, run_id: str
) -> Published:
    """Publish one table; see `publish_all`."""
    return publish_all(warehouse, catalog, [name], days=days, run_id=run_id)[name]


def publish_all(
    warehouse: Warehouse,
    catalog: Catalog,
    names: Sequence[str],
    *,
    days: Sequence[date] | None,
    run_id: str,
    memory: Memory | None = None,
) -> dict[str, Published]:
    """Publish tables together: all of them, or none if a blocking check of any finds a row.

    Args:
        warehouse: an open, migrated warehouse.
        catalog: where the names are found; tables are built in its order.
        names: tables and views; a view has nothing to publish: it is counted, and its checks are run, once the tables
            are published.
        days: table partitions to build, for tables that have any; None for every day that was ever loaded. Tables
            without day partitions are built whole.
        run_id: for the ledger and the jobs' labels.
        memory: for a process that publishes the same days again and again, and tells it what it loads: the ledgers are
            read once. Publish all tables with it that you will publish with it, the first time.

    Raises:
        ChecksFailedError: `checks` holds those that found rows. Nothing was published, but where they are a view's:
            then `published` holds everything, since a view has nothing to hold back.
        PublishError: nothing was published; `is_retryable` says whether another try can help.
    """
    wanted = [table for table in catalog if table.name in set(names)]
    unknown = sorted(set(names) - {table.name for table in wanted})
    refused = [table.name for table in wanted if table.materialization not in {"table", "view"}]
    if unknown or refused:
        raise PublishError(f"publishing {', '.join(unknown + refused)}: not in the catalog, or not built from a query.")
    tables = [table for table in wanted if table.materialization == "table"]
    built: dict[str, Published] = {}
    for chunk in _chunks(warehouse, tables, days):
        _merge(built, _publish_chunk(warehouse, catalog, tables, chunk, run_id=run_id, memory=memory or Memory()))
    views = [table for table in wanted if table.materialization == "view"]
    built.update((view.name, _look_at_view(warehouse, view, days)) for view in views)
    published = {table.name: built[table.name] for table in wanted if table.name in built}
    failed = [check for view in views for check in published[view.name].checks if check.rows]
    if any(check.severity == "fail" for check in failed):
        raise _views_failed(failed, published)
    return published


def note_load(
    memory: Memory, table: str, day: date, *, topic: str, version: int, offsets: Sequence[Sequence[int]] | None
) -> None:
    """Tell a memory of a load of this process, so that the next publication need not read the ledgers.

    Args:
        memory: see `publish_all`.
        table: the loaded table.
        day: the loaded day.
        topic: where the rows came from.
        version: of the day, after the load.
        offsets: topic partition, first and last offset, rows of what was brought; None if nothing was to be loaded.
    """
    ranges = tuple(OffsetRange(topic, *part) for part in offsets or ())
    load = LoadSeen(version, is_rebuild=False, ranges=ranges) if offsets is not None else None
    memory.loaded(table, day, topic, version=version, load=load)


def stale_days(warehouse: Warehouse, catalog: Catalog, name: str) -> list[date]:
    """Days on which a table's sources are newer than what was published from them; the level trigger for marts.

    For a table without day partitions, the list holds the days since its last publication.
    """
    return sorted(_stale(warehouse, catalog, [catalog[name]]).get(name, []))


def stale_tables(warehouse: Warehouse, catalog: Catalog) -> dict[str, list[date]]:
    """The same for every published table, in one query; tables that are up to date are left out."""
    tables = [table for table in catalog if table.materialization == "table"]
    return {name: sorted(days) for name, days in _stale(warehouse, catalog, tables).items() if days}


def loaded_event_days(warehouse: Warehouse) -> list[date]:
    """Every day that was ever loaded into any table."""
    rows = warehouse.run(f"SELECT DISTINCT event_day FROM `{warehouse.table_id('control.day')}`", kind="ledger").rows
    return sorted(row["event_day"] for row in rows)


def _chunks(warehouse: Warehouse, tables: Sequence[Table], days: Sequence[date] | None) -> list[tuple[date, ...]]:
    if not tables:
        return []
    if not any(table.partition_column for table in tables):
        return [()]
    wanted = sorted(set(days)) if days is not None else loaded_event_days(warehouse)
    if not wanted:
        return [()] if any(not table.partition_column for table in tables) else []
    return [tuple(wanted[at : at + MAX_DAYS_A_SCRIPT]) for at in range(0, len(wanted), MAX_DAYS_A_SCRIPT)]


def _merge(built: dict[str, Published], more: Mapping[str, Published]) -> None:
    for name, new in more.items():
        old = built.get(name)
        built[name] = (
            new
            if old is None
            else Published(
                table=name,
                days=(old.days or ()) + (new.days or ()),
                rows=old.rows + new.rows if new.days else new.rows,
                source_version=new.source_version,
                bytes_billed=old.bytes_billed + new.bytes_billed,
                seconds=old.seconds + new.seconds,
                checks=old.checks + new.checks,
                job_id=new.job_id,
                grown_days=old.grown_days + new.grown_days,
                restated=old.restated + new.restated,
                day_rows={**old.day_rows, **new.day_rows},
            )
        )


def _publish_chunk(
    warehouse: Warehouse,
    catalog: Catalog,
    tables: Sequence[Table],
    days: tuple[date, ...],
    *,
    run_id: str,
    memory: Memory,
) -> dict[str, Published]:
    tables = [table for table in tables if days or not table.partition_column]
    labels = {"table": tables[0].name if len(tables) == 1 else f"{len(tables)}_tables", "run_id": run_id}
    if days:
        labels["day"] = f"{days[0]}_{days[-1]}" if len(days) > 1 else str(days[0])
    what = f"{', '.join(table.name for table in tables)}{_span(days)}"
    work, done = _run(warehouse, catalog, tables, days, run_id=run_id, labels=labels, what=what, memory=memory)
    row = done.rows[0]
    checks = _check_results(tables, row["checks"])
    now = _now(work, row["sums"])
    memory.published(tables, {key: found for key, found in now.items() if key[1] is not None})  # type: ignore[misc]
    return {
        table.name: Published(
            table=table.name,
            days=days if table.partition_column else None,
            rows=sum(found.row_count or 0 for (name, _day), found in now.items() if name == table.name),
            source_version=max((found.source_version for (name, _day), found in now.items() if name == table.name)),
            bytes_billed=done.bytes_billed,
            seconds=done.seconds,
            checks=[check for check in checks if check.table == table.name],
            job_id=done.job_id,
            grown_days=work.grown_days(table),
            restated=tuple(_restated(work, table, now)),
            day_rows={day: found.row_count or 0 for (name, day), found in now.items() if day and name == table.name},
        )
        for table in tables
    }


def _now(work: Publication, sums: Sequence[Mapping[str, Any]]) -> dict[tuple[str, date | None], DayPublished]:
    """What the publication has made of each day, or of a whole table, as its ledger has it."""
    versions = source_versions(work.catalog, work.tables, work.days, work.state)
    found = {(each["table_name"], each["event_day"]): each for each in sums}
    now: dict[tuple[str, date | None], DayPublished] = {}
    for table in work.tables:
        days: Sequence[date | None] = work.days if table.partition_column else [None]
        for day in days:
            row = found.get((table.name, day), {"row_count": 0})
            kept = {name: row.get(f"m_{at}") or Decimal(0) for at, name in enumerate(measures(table))}
            version = versions[table.name, day] if day is not None else 0
            now[table.name, day] = DayPublished(version, rule_version(work.catalog, table), row["row_count"], kept)
    return now


def _restated(
    work: Publication, table: Table, now: Mapping[tuple[str, date | None], DayPublished]
) -> Iterator[dict[str, Any]]:
    """What the publication recorded of days of the past, from the same numbers as its script (restate_sql.py)."""
    for day in work.days if table.partition_column else ():
        before, after = work.state.published.get((table.name, day)), now[table.name, day]
        if day >= work.today or before is None or before.row_count is None:
            continue
        old, new = before.measures or {}, after.measures or {}
        pairs = [(name, old.get(name) or Decimal(0), new.get(name) or Decimal(0)) for name in measures(table)]
        if before.row_count == after.row_count and all(was == now for _name, was, now in pairs):
            continue
        caused = causes(work.catalog, table, day, work.state, after.source_version)
        yield {
            "table_name": table.name,
            "event_day": day,
            "rows_before": before.row_count,
            "rows_after": after.row_count,
            "measures": [{"name": name, "before": was, "after": is_now} for name, was, is_now in pairs],
            "caused_by": [
                {
                    "topic": each.topic,
                    "topic_partition": each.topic_partition,
                    "first_offset": each.first_offset,
                    "last_offset": each.last_offset,
                    "row_count": each.rows,
                }
                for each in caused
            ],
        }


def _run(
    warehouse: Warehouse,
    catalog: Catalog,
    tables: Sequence[Table],
    days: tuple[date, ...],
    *,
    run_id: str,
    labels: Mapping[str, str],
    what: str,
    memory: Memory,
) -> tuple[Publication, Done]:
    """Run a publication; one that lost a race is tried again, and reads the ledgers and its sources anew."""
    # Publications are idempotent and must read what is there now: each try is a job of its own.
    by_difference, explain = True, False
    for left in reversed(range(TRIES)):
        work = _prepare(warehouse, catalog, tables, days, run_id, memory=memory, by_difference=by_difference)
        work = replace(work, explain=explain)
        sql = publish_script(warehouse.settings, work)
        try:
            return work, warehouse.run(sql, params=parameters(warehouse, sql), labels=labels, kind="publish")
        except JobError as error:
            memory.forget()
            text = str(error).lower()
            if work.explain and CHECKS_FAILED in error.detail:
                raise _checks_failed(_failed_checks(tables, error.detail), what) from None
            # Once more, with the days built whole, which mends sums that somebody has changed by hand; if the checks
            # find rows again, then with examples of them.
            if left and (CHECKS_FAILED in error.detail or DISPLACED in text):
                explain = explain or CHECKS_FAILED in error.detail
                by_difference = False
                continue
            lost = any(word in text for word in _LOST_RACE)
            if not lost or not left:
                message = f"publishing {what}: {error}. Nothing was published; readers see what they saw before."
                raise PublishError(message, is_retryable=lost or error.is_retryable) from error
            time.sleep(random.uniform(0.1, 0.6))  # noqa: S311  spreading two racers, nothing secret
    raise AssertionError


def _prepare(
    warehouse: Warehouse,
    catalog: Catalog,
    tables: Sequence[Table],
    days: tuple[date, ...],
    run_id: str,
    *,
    memory: Memory,
    by_difference: bool,
) -> Publication:
    """Read the ledgers, unless they are remembered, and say which days grow."""
    state = memory.state
    if state is None or not state.covers(tables, days):
        state = read_state(warehouse.run(state_sql(warehouse.settings, catalog, tables, days), kind="ledger").rows[0])
        state = replace(state, days=frozenset(days))
        memory.state = state
    missing = [table.name for table in tables if table.name not in state.publishers]
    if missing:
        raise PublishError(f"publishing {', '.join(missing)}: no fence row (control.publisher_...). Run migrate first.")
    growing = {table.name: growing_days(table, days, state, rule_version(catalog, table)) for table in tables}
    return Publication(
        catalog=catalog,
        tables=tables,
        days=days,
        today=warehouse.settings.today(),
        run_id=run_id,
        state=state,
        growing=growing,
        growths=growths(catalog, tables, days, state, growing) if by_difference else (),
    )


def parameters(warehouse: Warehouse, sql: str) -> dict[str, Any]:
    """Values of the parameters that models may use beside @days."""
    return {"today": warehouse.settings.today()} if "@today" in sql else {}


def _check_results(tables: Sequence[Table], found: Sequence[Mapping[str, Any]]) -> list[CheckResult]:
    return [
        CheckResult(table.name, check.name, check.severity, each["failed_rows"], each["example"])
        for (table, check), each in zip(ordered_checks(tables), found, strict=True)
    ]


def _failed_checks(tables: Sequence[Table], detail: str) -> list[CheckResult]:
    """The results that the script's own error carries."""
    checks = ordered_checks(tables)
    failed = json.JSONDecoder().raw_decode(detail.partition(CHECKS_FAILED)[2])[0]
    return [
        CheckResult(
            checks[each["number"]][0].name,
            checks[each["number"]][1].name,
            checks[each["number"]][1].severity,
            each["failed_rows"],
            each["example"],
        )
        for each in failed
    ]


def _checks_failed(failed: Sequence[CheckResult], what: str) -> ChecksFailedError:
    count, listed = _blocking(failed)
    message = (
        f"publishing {what}: {count} blocking check(s) found rows. Nothing was published; readers see what "
        f"they saw before.\n{listed}\nMend the source or the rule, then publish again."
    )
    return ChecksFailedError(message, failed)


def _views_failed(failed: Sequence[CheckResult], published: Mapping[str, Published]) -> ChecksFailedError:
    count, listed = _blocking(failed)
    message = (
        f"checking views: {count} blocking check(s) found rows, which readers of the view see, since it has nothing to "
        f"hold back. Tables beside it were published.\n{listed}\nMend the view's query, or what it reads."
    )
    return ChecksFailedError(message, failed, published)


def _blocking(failed: Sequence[CheckResult]) -> tuple[int, str]:
    blocking = [check for check in failed if check.severity == "fail"]
    return len(blocking), "\n".join(f"  - {c.table}: {c.name}: {c.rows} row(s), such as {c.example}" for c in blocking)


def _span(days: Sequence[date]) -> str:
    if not days:
        return ""
    return f" for {days[0]}" if len(days) == 1 else f" for {len(days)} days from {days[0]} to {days[-1]}"


def _look_at_view(warehouse: Warehouse, view: Table, days: Sequence[date] | None) -> Published:
    """Its rows, and what its checks find, in one query."""
    of_days = any("@days" in check.sql for check in view.checks)
    wanted = (sorted(set(days)) if days is not None else loaded_event_days(warehouse)) if of_days else []
    sql = f"SELECT (SELECT COUNT(*) FROM `{warehouse.table_id(view.name)}`) AS row_count"
    if view.checks:
        sql += f", {audit_sql([view], warehouse.settings.table_id, lambda _view: Slice(wanted))} AS checks"
    done = warehouse.run(sql, params=parameters(warehouse, sql), kind="count")
    [row] = done.rows
    checks = _check_results([view], row["checks"]) if view.checks else []
    return Published(view.name, None, row["row_count"], 0, done.bytes_billed, done.seconds, checks, done.job_id)


def check_tables(
    warehouse: Warehouse, catalog: Catalog, names: Sequence[str], *, days: Sequence[date] | None
) -> list[CheckResult]:
    """Run the checks of tables as they stand now, in one query; nothing is written.

    Args:
        warehouse: an open, migrated warehouse.
        catalog: where the names are found.
        names: tables of any materialization; fences have one row each and nothing to check.
        days: table partitions to look at; None for every day that was ever loaded.
    """
    wanted = sorted(set(days)) if days is not None else loaded_event_days(warehouse)
    chosen = [catalog[name] for name in catalog.tables if name in set(names)]
    tables = [table for table in chosen if table.materialization != "fence"]
    if not any(table.checks for table in tables):
        return []
    sql = f"SELECT {audit_sql(tables, warehouse.settings.table_id, lambda _table: Slice(wanted))} AS checks"
    [row] = warehouse.run(sql, params=parameters(warehouse, sql), kind="check").rows
    return _check_results(tables, row["checks"])


def _stale(warehouse: Warehouse, catalog: Catalog, tables: Sequence[Table]) -> dict[str, list[date]]:
    stale: dict[str, list[date]] = {}
    if tables:
        for row in warehouse.run(stale_sql(warehouse.settings, catalog, tables), kind="ledger").rows:
            stale.setdefault(row["table_name"], []).append(row["event_day"])
    return stale
