"""Blocking reconciliation of core tables with what landed.

Belongs here: landed(day) = core(day). Not here: the blocks' own @tests (they come with the Mage assets), marts.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from orchestration.defs.check_results import comparison_result
from orchestration.defs.partitions import days_of_run
from orchestration.defs.resources import LakeResource, WarehouseResource
from orchestration.defs.topics import MARTS_READER, Feed, feeds
from orchestration.errors import ReconcileError
from orchestration.reconcile import DayComparison, DayTotals

# Started from the UI without days, a check looks at the newest landed ones.
DAYS_WITHOUT_PARTITION = 60
# Each try reads the ledger, the table and the ledger again; under a steady flow another load may come between.
LEDGER_TRIES = 5


def _landed_equals_core(feed: Feed) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=feed.table_key,
        name="landed_equals_core",
        blocking=True,
        description=(
            "Each day's landed events are exactly the rows of the table, by count and by a checksum of their "
            "(topic partition, offset), up to the batch that the table's ledger names."
        ),
    )
    def landed_equals_core(
        context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
    ) -> dg.AssetCheckResult:
        with lake.connect("orchestration.reconcile") as conn:
            days = days_to_look_at(context, conn)
            compared = compare_landed_with_core(conn, warehouse.open(), feed, days, run_id=context.run.run_id)
        return comparison_result(compared, "landed", "core")

    return landed_equals_core


def compare_landed_with_core(
    conn: Any, warehouse: Any, feed: Feed, days: Sequence[date], *, run_id: str
) -> list[DayComparison]:
    """Each day in both layers, both as of one version of the table's ledger.

    A day that differs is recorded as not reconciled: nothing downstream runs that would record it, and it is what the
    alert, the trust page and the report's refresh look at.
    """
    from dbt_like_sql import reconcile

    compared = {}
    found = core_as_of_ledger(warehouse, feed, days)
    landed = landed_totals(conn, warehouse, feed, found)
    for day, (core, _ledger) in found.items():
        rows, checksum = landed[day]
        compared[day] = DayComparison(
            day, DayTotals(rows=rows, checksum=checksum), DayTotals(rows=core.rows, checksum=core.checksum)
        )
    wrong = [day for day, each in compared.items() if not each.agrees]
    marts = reconcile.mart_days(warehouse, wrong, fact=fact_of_feed(feed)) if wrong else {}
    reconcile.record(
        warehouse,
        [
            reconcile.Reconciliation(
                topic=feed.topic,
                table=feed.table,
                day=day,
                landed_rows=landed[day][0],
                landed_checksum=landed[day][1],
                dead_letter_rows=None,
                core=found[day][0],
                mart=marts.get(day),
                is_reconciled=False,
            )
            for day in wrong
        ],
        run_id=run_id,
    )
    return [compared[day] for day in days]


def landed_totals(
    conn: Any, warehouse: Any, feed: Feed, found: Mapping[date, tuple[Any, Any]]
) -> dict[date, tuple[int, int]]:
    """Rows and checksum of what landed of each day in the batches that core holds of it.

    Landed rows never change, so a day that was reconciled before is counted from there on: the cost follows what is
    new. A day without such a record, or whose latest load was a rebuild, is counted whole; and so is one that would
    differ from core, or whose batches the lake has lost: in a lake that came back from a backup, what was counted then
    has landed again since, or has not.

    Args:
        conn: to the lake.
        warehouse: for the records.
        feed: topic and table.
        found: what `core_as_of_ledger` gives.

    Raises:
        RestoredError: the lake came back from a backup, lacks what core was loaded from, and was not told of it.
    """
    from dbt_like_sql import reconcile
    from streaming import lake

    holds = lake.confirm_read(conn, feed.topic, {day: ledger.read for day, (_core, ledger) in found.items()})
    before = reconcile.counted_before(warehouse, feed.table, found, feed.topic)
    totals = {}
    for day, (core, ledger) in found.items():
        batches = ledger.batches
        known = before.get(day) if holds[day] == batches else None
        if known is not None and all(batches.get(part, 0) >= batch for part, batch in known.batches.items()):
            rows, checksum = lake.day_checksum(conn, feed.topic, day, after=known.batches, upto=batches)
            totals[day] = (known.landed_rows + rows, known.landed_checksum + checksum)
            if totals[day] == (core.rows, core.checksum):
                continue
        totals[day] = lake.day_checksum(conn, feed.topic, day, upto=batches)
    return totals


def core_as_of_ledger(
    warehouse: Any, feed: Feed, days: Sequence[date], measures: Sequence[Any] = ()
) -> dict[date, tuple[Any, Any]]:
    """Each day's totals in the table, with what its ledger said of it at that moment (`LoadedDay`).

    `amount` and `measures` are of all rows, repeats are not looked for. Ledger and table are two queries; a load that
    commits between them shows as another version, and those days are asked for again.
    """
    from dbt_like_sql import reconcile
    from dbt_like_sql.load import loaded_days

    found: dict[date, tuple[Any, Any]] = {}
    left = list(days)
    for _try in range(LEDGER_TRIES):
        ledger = loaded_days(warehouse, feed.table, left, feed.topic) if left else {}
        fact = fact_of_feed(feed)
        totals = reconcile.scanned_days(warehouse, fact.core, left, fact=fact, topic=feed.topic, measures=measures)
        found |= {day: (totals[day], ledger[day]) for day in left}
        left = [day for day in left if totals[day].rows and totals[day].version != ledger[day].version]
    if left:
        raise ReconcileError(
            f"reconciling {feed.table} with what landed: the ledger of {left[0]} moved during each of {LEDGER_TRIES} "
            "tries. Nothing downstream was published. Run it again when fewer runs of that day are at work."
        )
    return found


def fact_of_feed(feed: Feed) -> Any:
    """What is counted of the table that a topic is loaded into (`reconcile.Fact`)."""
    from dbt_like_sql.catalog import load_catalog
    from dbt_like_sql.reconcile import fact_of

    return fact_of(load_catalog(), feed.table)


def days_to_look_at(context: dg.AssetCheckExecutionContext, conn: Any) -> list[date]:
    """The run's days, or the newest landed ones where the run has none."""
    return list(days_of_run(context)) or newest_days(conn)


def newest_days(conn: Any) -> list[date]:
    """The newest days of any topic, oldest first; without those that wait for a run, which compares them itself."""
    from streaming import lake

    days = {each.event_day for feed in feeds() for each in lake.landed_days(conn, feed.topic)}
    days -= {each.event_day for feed in feeds() for each in lake.pending_days(conn, feed.topic, MARTS_READER)}
    return sorted(days)[-DAYS_WITHOUT_PARTITION:]


def _every_offset_is_accounted_for(feed: Feed) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=feed.table_key,
        name="every_offset_is_accounted_for",
        blocking=True,
        description=(
            "Each offset of the topic that the landing has passed is a landed row, an open dead letter or a recorded "
            "gap: next - first = landed + dead + gaps, for each topic partition."
        ),
    )
    def every_offset_is_accounted_for(lake: LakeResource) -> dg.AssetCheckResult:
        from streaming import lake as door

        with lake.connect("orchestration.reconcile") as conn:
            return offsets_result(feed.topic, door.topic_counts(conn, feed.topic))

    return every_offset_is_accounted_for


def offsets_result(topic: str, counts: Sequence[Any]) -> dg.AssetCheckResult:
    """Passed if every topic partition adds up; with its numbers, and what is missing where one does not."""
    records, wrong = [], []
    for each in counts:
        passed = each.next_offset - each.first_offset
        unaccounted = passed - each.landed - each.dead_letters - each.gap_offsets
        records.append(
            {
                "topic partition": each.topic_partition,
                "offsets passed": passed,
                "landed": each.landed,
                "dead letters": each.dead_letters,
                "gaps": each.gap_offsets,
                "of these lost": each.lost_offsets,
                "unaccounted": unaccounted,
            }
        )
        if unaccounted:
            wrong.append(f"{topic}/{each.topic_partition}: {unaccounted:+d} of {passed}")
    description = f"every offset of {topic} is landed, a dead letter or a gap, on {len(counts)} topic partition(s)"
    if wrong:
        description = (
            f"offsets that are nowhere (+) or counted twice (-): {'; '.join(wrong)}. Nothing downstream was published. "
            "Find out with `streaming lake status`, and see docs/runbooks/does-not-reconcile.md."
        )
    return dg.AssetCheckResult(
        passed=not wrong,
        description=description,
        metadata={
            "offsets_passed": sum(each["offsets passed"] for each in records),
            "unaccounted": sum(abs(each["unaccounted"]) for each in records),
            "topic_partitions": dg.MetadataValue.table(
                [dg.TableRecord(record) for record in records],
                schema=dg.TableSchema(columns=[dg.TableColumn(name) for name in (records[0] if records else {})]),
            ),
        },
    )


def _landing_has_what_it_counts(feed: Feed) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=feed.table_key,
        name="landing_has_what_it_counts",
        blocking=False,
        description=(
            "The lake has as many landed rows of each day as its ledger counts. Rows that somebody took out by hand "
            "are in the warehouse still; a rebuild of their day is refused. Looked for every night, on the newest days."
        ),
    )
    def landing_has_what_it_counts(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
        """Look at the run's days, or at the newest ones where the run has none."""
        from streaming import lake as door

        with lake.connect("orchestration.reconcile") as conn:
            days = days_to_look_at(context, conn)
            return _counted_result(feed.topic, door.miscounted_days(conn, feed.topic, days=days), len(days))

    return landing_has_what_it_counts


def _counted_result(topic: str, found: Mapping[date, tuple[int, int]], looked: int) -> dg.AssetCheckResult:
    records: list[dict[str, str | int]] = [
        {"day": str(day), "counted": counted, "there": there} for day, (counted, there) in found.items()
    ]
    description = f"the lake has the rows of {topic} that its ledger counts, on {looked} day(s)"
    if records:
        first = records[0]
        description = (
            f"the lake has other rows of {topic} than its ledger counts on {len(records)} of {looked} day(s). First: "
            f"{first['day']}: {first['counted']} counted, {first['there']} there. Landed rows never change, so "
            "somebody has changed the table by hand. What was loaded stays right, and rebuilding such a day is "
            "refused: restore its rows from a backup (docs/runbooks/backup-and-restore.md)."
        )
    return dg.AssetCheckResult(
        passed=not records,
        description=description,
        metadata={
            "days_checked": looked,
            "days_that_differ": len(records),
            "days": dg.MetadataValue.table(
                [dg.TableRecord(record) for record in records],
                schema=dg.TableSchema(columns=[dg.TableColumn(name) for name in ("day", "counted", "there")]),
            ),
        },
    )


core_checks = [check(feed) for feed in feeds() for check in (_landed_equals_core, _every_offset_is_accounted_for)]
nightly_core_checks = [_landing_has_what_it_counts(feed) for feed in feeds()]
