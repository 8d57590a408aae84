"""Blocking reconciliation of marts with core.

Belongs here: core(day) = mart(day), by rows and by every additive measure of every daily mart. Not here: checks of a
single table (its checks.sql).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any, Self

import dagster as dg

from orchestration.defs import keep_up
from orchestration.defs.check_results import comparison_result
from orchestration.defs.marks import take_back_marks
from orchestration.defs.partitions import days_in_tags, days_of_run
from orchestration.defs.resources import LakeResource, WarehouseResource
from orchestration.defs.runs import runs_at_work
from orchestration.defs.topics import MARTS_READER, Feed, feeds
from orchestration.defs.transform.checks import core_as_of_ledger, days_to_look_at, fact_of_feed, landed_totals
from orchestration.reconcile import DayComparison, DayTotals, differences

# A day that differs is compared again, until no other run moves it meanwhile.
STILL_TRIES = 4
# A sentence with more of them is not read; the metadata has them all.
_DAYS_NAMED = 5


def _first_daily_mart(feed: Feed) -> dg.AssetKey | None:
    """Where the comparison of a topic's layers is shown: its fact table, else the first daily mart behind core."""
    from dbt_like_sql.catalog import load_catalog

    catalog, fact = load_catalog(), fact_of_feed(feed)
    if fact.table is not None:
        return dg.AssetKey(fact.table.name.split("."))
    for name in catalog.downstream(feed.table):
        if catalog[name].materialization == "table" and catalog[name].partition_column:
            return dg.AssetKey(name.split("."))
    return None


def shown_at(of: Iterable[Feed]) -> dict[dg.AssetKey, list[Feed]]:
    """Where each comparison is shown: streams without a fact table may have a daily mart of both as their first one."""
    found: dict[dg.AssetKey, list[Feed]] = {}
    for feed in of:
        asset = _first_daily_mart(feed)
        if asset is not None:
            found.setdefault(asset, []).append(feed)
    return found


def core_equals_mart_check(of: Sequence[Feed], asset: dg.AssetKey) -> dg.AssetChecksDefinition:
    """The comparison of these streams' layers, as a check of one mart."""

    @dg.asset_check(
        asset=asset,
        name="core_equals_mart",
        blocking=True,
        description=(
            f"Each day's rows of {', '.join(feed.table for feed in of)}, less repeated deliveries, are the mart's "
            "rows, and the exact sum of every additive measure of every daily mart is what core's rows add up to; and "
            "the rows of core are still exactly what has landed, as its ledger says. At night labels are compared too."
        ),
    )
    def core_equals_mart(
        context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
    ) -> dg.AssetCheckResult:
        """Compare the run's days, or the newest landed ones where the run has none, and keep the outcome.

        A day that this run has handed over is its successor's to compare: it does so in its loop, with the lock held.
        Here it would be found moving, again and again, while events wait for the warehouse.
        """
        opened = warehouse.open()
        with lake.connect("orchestration.reconcile") as conn:
            days = days_to_look_at(context, conn)
            if keep_up.TAG in context.run.tags:
                moving = keep_up.kept_up_days(lake)
                days = [day for day in days if day not in moving]
                if not days:
                    return dg.AssetCheckResult(
                        passed=True,
                        description="handed over: the run that keeps the day up compares it within its loop",
                        metadata={"days_checked": 0},
                    )
            is_night = not days_of_run(context)  # labels are many columns: a run that has days does not wait for them
            result = reconcile_marts(conn, opened, days, context.run.run_id, of=of, labels=is_night)
            left = left_days(context, conn, opened, days_of_run(context))
        take_back_marks(lake, left)
        return with_left_days(result, left)

    return core_equals_mart


def left_days(
    context: dg.AssetCheckExecutionContext, conn: Any, warehouse: Any, days: Collection[date]
) -> Collection[date]:
    """Days on which core is newer than the daily marts and that nobody is going to publish.

    No other run is at work on them, and the lake takes them for published: a rebuild outside Dagster, or one whose mark
    another run has set again. Looked at twice: what a run has published between the questions is none.

    Args:
        context: its own run does not count as one at work.
        conn: to the lake.
        warehouse: for its ledgers.
        days: to look at; empty for every day that was ever loaded.
    """
    from streaming import lake

    found = _behind_core(warehouse, days)
    if found:
        found -= {each.event_day for feed in feeds() for each in lake.pending_days(conn, feed.topic, MARTS_READER)}
        others = [each.dagster_run for each in runs_at_work(context.instance)]
        found -= {day for run in others if run.run_id != context.run.run_id for day in days_in_tags(run.tags)}
    return sorted(found & _behind_core(warehouse, days)) if found else []


def _behind_core(warehouse: Any, days: Collection[date]) -> set[date]:
    from dbt_like_sql.catalog import load_catalog
    from dbt_like_sql.publish import stale_tables

    catalog = load_catalog()
    stale = stale_tables(warehouse, catalog)
    found = {day for name in stale if catalog[name].partition_column for day in stale[name]}
    return found & set(days) if days else found


def with_left_days(result: dg.AssetCheckResult, left: Collection[date]) -> dg.AssetCheckResult:
    """The comparison's result with these days named: a warning where nothing else is wrong, as the sensor asks now."""
    if not left:
        return result
    named = ", ".join(map(str, list(left)[:_DAYS_NAMED])) + (" ..." if len(left) > _DAYS_NAMED else "")
    told = f"{len(left)} day(s) of core are newer than their marts, and no run was at work on them: {named}. They are "
    return result._replace(
        passed=False,
        severity=result.severity if not result.passed else dg.AssetCheckSeverity.WARN,
        description=f"{told}asked for again now. {result.description}",
        metadata={**result.metadata, "days_left": dg.MetadataValue.json([str(day) for day in left])},
    )


def _no_event_stands_on_two_days(feed: Feed, asset: dg.AssetKey) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="no_event_stands_on_two_days",
        blocking=False,
        description=(
            f"No {', '.join(fact_of_feed(feed).event_key)} stands on more than one day. One that does was sent again "
            "with another time: each day counts it, since a repeat is the same event on its own day. Looked for every "
            "night, on the newest days."
        ),
    )
    def no_event_stands_on_two_days(
        context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
    ) -> dg.AssetCheckResult:
        """Look at the run's days, or at the newest ones where the run has none."""
        from dbt_like_sql.reconcile import events_on_several_days

        with lake.connect("orchestration.reconcile") as conn:
            days = days_to_look_at(context, conn)
        return _two_days_result(events_on_several_days(warehouse.open(), days, fact=fact_of_feed(feed)), days)

    return no_event_stands_on_two_days


def _two_days_result(found: Sequence[Mapping[str, Any]], days: Sequence[date]) -> dg.AssetCheckResult:
    first = f"First: {found[0]['event_id']} on {found[0]['days']}. " if found else ""
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"{len(found)} event(s) stand on more than one of {len(days)} day(s), and each day counts them. {first}"
            "The producer gives an old name to a new event, or sends an event again with another time: have it mended, "
            "and take the wrong one out by an event that reverses it."
            if found
            else f"no event stands on more than one of {len(days)} day(s)"
        ),
        metadata={
            "days_checked": len(days),
            "events": len(found),
            "found": dg.MetadataValue.table(
                [dg.TableRecord(each) for each in found],
                schema=dg.TableSchema(columns=[dg.TableColumn("event_id"), dg.TableColumn("days")]),
            ),
        },
    )


def _published_tables() -> dict[str, dg.AssetKey]:
    from dbt_like_sql.catalog import load_catalog

    tables = [table for table in load_catalog().layer("mart") if table.materialization == "table"]
    return {table.name: dg.AssetKey(table.name.split(".")) for table in tables}


@dg.multi_asset_check(
    name="rows_are_as_published",
    specs=[
        dg.AssetCheckSpec(
            name="rows_are_as_published",
            asset=key,
            blocking=False,
            description=(
                "The table has as many rows as its latest publication left, whole or on each of the newest days: rows "
                "that somebody took out or put in by hand since are told. Looked for every night."
            ),
        )
        for key in _published_tables().values()
    ],
    can_subset=True,  # a person may materialize one of the tables, and its checks come along
)
def rows_are_as_published(
    context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
) -> Iterable[dg.AssetCheckResult]:
    """Look at whole tables, and at the run's days of the others, or at the newest ones where the run has none."""
    from dbt_like_sql.catalog import load_catalog
    from dbt_like_sql.reconcile import rows_not_as_published

    with lake.connect("orchestration.reconcile") as conn:
        days = days_to_look_at(context, conn)
    found = rows_not_as_published(warehouse.open(), load_catalog(), days)
    wanted = {each.asset_key for each in context.selected_asset_check_keys}
    for name, key in _published_tables().items():
        if key in wanted:
            yield _published_result(name, key, found.get(name, []))


def _published_result(
    name: str, key: dg.AssetKey, found: Sequence[tuple[date | None, int, int]]
) -> dg.AssetCheckResult:
    description = f"{name} has the rows that its latest publication left"
    if found:
        day, published, there = found[0]
        first = f" on {len(found)} day(s). First: {day}" if day else ""
        again = f"dbt-like-sql publish {name}" + "".join(f" --day {each}" for each, _, _ in found[:_DAYS_NAMED] if each)
        description = (
            f"{name} has other rows than its latest publication left{first}: {published} published, {there} there. "
            f"Somebody has changed it by hand; the report shows it with its next refresh. Publish it again: `{again}`"
            f"{' and the other days' if len(found) > _DAYS_NAMED else ''}."
        )
    return dg.AssetCheckResult(
        asset_key=key,
        passed=not found,
        description=description,
        metadata={
            "differences": len(found),
            "rows_published": sum(published for _, published, _ in found),
            "rows_there": sum(there for _, _, there in found),
        },
    )


def reconcile_marts(
    conn: Any,
    warehouse: Any,
    days: Sequence[date],
    run_id: str,
    *,
    of: Sequence[Feed] | None = None,
    labels: bool = False,
) -> dg.AssetCheckResult:
    """Compare core with the marts, record landed, core and mart of each day, and say what differs.

    Args:
        conn: to the lake.
        warehouse: with core, marts and ledgers.
        days: which days.
        run_id: for the record.
        of: which topics; all of them by default.
        labels: also compare labels, by a sum of their hashes.
    """
    from dbt_like_sql import reconcile
    from dbt_like_sql.catalog import load_catalog

    found: list[Compared] = []
    told: dict[str, list[str]] = {
        "measures": [], "measures_not_derivable": [], "days_left_out": [], "days_of_another_rule": []
    }  # fmt: skip
    for feed in feeds() if of is None else of:
        measures = reconcile.core_measures(load_catalog(), feed.table)
        hashes = reconcile.core_labels(load_catalog(), feed.table) if labels else ()
        of_feed = _still(conn, warehouse, feed, days, (*measures, *hashes))
        other = reconcile.days_of_another_rule(warehouse, load_catalog(), [each.table for each in hashes], days)
        of_feed = [each.without_hashes(hashes, other) for each in of_feed]
        of_feed, old = _without_old_sums(warehouse, of_feed)
        told["days_of_another_rule"] += old
        found += of_feed
        told["measures"] += [each.name for each in measures if each.source_sql]
        told["measures_not_derivable"] += [each.name for each in measures if each.source_sql is None]
        told["days_left_out"] += [str(day) for day in days if day not in {each.day for each in of_feed}]
    reconcile.record(warehouse, [each.as_record() for each in found], run_id=run_id)
    landing = [each.landing for each in found]
    if differences(landing):  # a run that keeps its day up has loaded more since `landed_equals_core`
        return comparison_result(landing, "landed", "core")
    return comparison_result([each.marts for each in found], "core", "mart", more=told)


def _still(conn: Any, warehouse: Any, feed: Feed, days: Sequence[date], measures: Sequence[Any]) -> list["Compared"]:
    """Each day of a topic, of one moment.

    Core and marts are several queries; another run that loads or publishes between two of them makes layers differ
    that do not. So a day that differs is compared again, until nothing has moved meanwhile. A day that moves on and on,
    or on which a load has committed since its marts were published, is left out: that load's own run publishes and
    compares it, and where there is none, `left_days` tells.
    """
    from dbt_like_sql import reconcile
    from dbt_like_sql.catalog import load_catalog
    from dbt_like_sql.publish import stale_tables

    fact = fact_of_feed(feed)
    found = _compare(conn, warehouse, feed, days, measures)
    differ = sorted({each.day for each in found if not each.agrees})
    if differ:  # marts that wait for their publication differ, and nothing is wrong
        stale = stale_tables(warehouse, load_catalog())
        found = [each.without_stale(stale) for each in found]
        differ = sorted({each.day for each in found if not each.agrees})
        found = [each for each in found if each.day not in differ]
    for _try in range(STILL_TRIES):
        if not differ:
            break
        before = reconcile.moves(warehouse, differ)
        again = _compare(conn, warehouse, feed, differ, measures)
        after = reconcile.moves(warehouse, differ)
        still = [day for day in differ if before.get(day) == after.get(day)]
        stale = stale_tables(warehouse, load_catalog())
        waiting = stale.get(fact.table.name, ()) if fact.table is not None else ()
        found += [each.without_stale(stale) for each in again if each.day in still and each.day not in waiting]
        differ = [day for day in differ if day not in still]
    return sorted(found, key=lambda each: days.index(each.day))


def _without_old_sums(warehouse: Any, found: Sequence["Compared"]) -> tuple[list["Compared"], list[str]]:
    """The days, and which of them hold in which table what an older rule gave, so that they differ by that alone."""
    from dbt_like_sql import reconcile
    from dbt_like_sql.catalog import load_catalog

    differ = {each.day: each.marts.measures_that_differ for each in found if each.marts.measures_that_differ}
    tables = sorted({name.rpartition(".")[0] for names in differ.values() for name in names})
    other = reconcile.days_of_another_rule(warehouse, load_catalog(), tables, differ)
    kept = [each.without_old_sums(other) for each in found]
    old = [
        f"{before.day} {table}"
        for before, after in zip(found, kept, strict=True)
        for table in sorted({name.rpartition(".")[0] for name in before.marts.left.sums.keys() - after.marts.left.sums})
    ]
    return kept, old


@dataclass(frozen=True)
class Compared:
    """One day of one topic through all layers: landed with core, core with the marts, and what is recorded of it."""

    landing: DayComparison
    marts: DayComparison
    record: Any

    @property
    def day(self) -> date:
        """Which day."""
        return self.marts.day

    @property
    def agrees(self) -> bool:
        """Whether core is what the marts hold; landed and core, compared as of one ledger, need no second look."""
        return self.marts.agrees

    def without_stale(self, stale: Mapping[str, Sequence[date]]) -> Self:
        """Without measures of tables that wait for their publication on this day: it brings what is new."""
        return replace(self, marts=without_stale(self.marts, stale))

    def without_hashes(self, hashes: Sequence[Any], other: Mapping[str, Collection[date]]) -> Self:
        """Without labels of tables whose rule has changed since this day was published: they are not wrong, but old."""
        return self._without({each.name for each in hashes if self.day in other.get(each.table, ())})

    def without_old_sums(self, other: Mapping[str, Mapping[date, Mapping[str, Decimal]]]) -> Self:
        """Without sums that are still as published by a rule that has changed since: not wrong, but old.

        A measure that the contract has gained since was nothing then.
        """
        was = {name: published[self.day] for name, published in other.items() if self.day in published}
        old = set()
        for name in self.marts.measures_that_differ:
            table, _, column = name.rpartition(".")
            if table in was and was[table].get(column, Decimal(0)) == self.marts.right.sums[name]:
                old.add(name)
        return self._without(old)

    def _without(self, names: Collection[str]) -> Self:
        return replace(self, marts=without_sums(self.marts, names))

    def as_record(self) -> Any:
        """For control.reconciliation."""
        return replace(self.record, is_reconciled=self.marts.agrees and self.landing.agrees)


def _compare(conn: Any, warehouse: Any, feed: Feed, days: Sequence[date], measures: Sequence[Any]) -> list[Compared]:
    """Each day of a topic, as it stands while this reads."""
    from dbt_like_sql import reconcile
    from streaming import lake

    fact = fact_of_feed(feed)
    marts = reconcile.mart_days(warehouse, days, fact=fact)
    published = reconcile.measured_days(warehouse, days, measures)
    found = core_as_of_ledger(warehouse, feed, days, measures)
    cores = first_deliveries(warehouse, {day: core for day, (core, _) in found.items()}, marts, measures, fact=fact)
    landed = landed_totals(conn, warehouse, feed, found)
    dead_letters = lake.dead_letters_by_day(conn, feed.topic, days=days)
    open_dead_letters = sum(each.dead_letters for each in lake.topic_counts(conn, feed.topic))
    compared = []
    for day, core in cores.items():
        landed_rows, landed_checksum = landed[day]
        mart = marts.get(day)  # without a fact table only sums are compared
        rows = core.rows - core.repeats
        compared.append(
            Compared(
                landing=DayComparison(
                    day,
                    DayTotals(rows=landed_rows, checksum=landed_checksum),
                    DayTotals(rows=core.rows, checksum=core.checksum),
                ),
                marts=DayComparison(
                    day,
                    DayTotals(rows=rows, amount=core.amount, sums=core.sums),
                    DayTotals(
                        rows=mart.rows if mart else rows, amount=mart.amount if mart else None, sums=published[day]
                    ),
                ),
                record=reconcile.Reconciliation(
                    topic=feed.topic,
                    table=feed.table,
                    day=day,
                    landed_rows=landed_rows,
                    landed_checksum=landed_checksum,
                    dead_letter_rows=dead_letters[day],
                    open_dead_letter_rows=open_dead_letters,
                    core=core,
                    mart=mart,
                    is_reconciled=False,
                ),
            )
        )
    return compared


def without_stale(comparison: DayComparison, stale: Mapping[str, Sequence[date]]) -> DayComparison:
    """The comparison without measures of tables that wait for their publication on this day: it brings what is new."""
    waiting = tuple(f"{name}." for name, days in stale.items() if comparison.day in days)
    return without_sums(comparison, [name for name in comparison.left.sums if name.startswith(waiting)])


def without_sums(comparison: DayComparison, names: Collection[str]) -> DayComparison:
    """The comparison without some sums: they are not compared."""
    sums = {name: total for name, total in comparison.left.sums.items() if name not in names}
    return replace(comparison, left=replace(comparison.left, sums=sums))


def first_deliveries(
    warehouse: Any, cores: Mapping[date, Any], marts: Mapping[date, Any], measures: Sequence[Any], *, fact: Any
) -> dict[date, Any]:
    """Core's totals less repeated deliveries; these are looked for only on days where all rows are not the mart's.

    If rows and exact amount of all deliveries are those of the mart, in which no event is twice, nothing is repeated.
    """
    from dbt_like_sql import reconcile

    differ = [
        day
        for day, core in cores.items()
        if day in marts and (core.rows, core.amount) != (marts[day].rows, marts[day].amount)
    ]
    looked = reconcile.core_days(warehouse, differ, measures, fact=fact)
    return {day: looked.get(day, core) for day, core in cores.items()}


_SHOWN_AT = shown_at(feeds())
layer_checks = [core_equals_mart_check(of, asset) for asset, of in _SHOWN_AT.items()]
nightly_checks = [
    _no_event_stands_on_two_days(feed, asset)
    for asset, of in _SHOWN_AT.items()
    for feed in of
    if fact_of_feed(feed).event_key
] + [rows_are_as_published]
