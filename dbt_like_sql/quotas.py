"""How much of BigQuery's daily limits is used, and how long to wait so that a day's budget lasts until it is renewed.

Belongs here: counting in our own ledgers, and pacing. Does not: deciding what a run does while it waits.

Every load and every publication is in a ledger, so nothing has to be asked of Google. Limits (documentation, 2026-11):
30,000 modifications a day of the partitions of one column-partitioned table, 1,500 load jobs a day into one table,
100,000 in a project; days begin at midnight Pacific time. A load job goes into a staging table of its own, so the limit
of a table is never near; what a flood of small runs can use up is the modifications: one for each table partition and
statement that changes it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from dbt_like_sql.errors import BudgetError
from dbt_like_sql.render import quote
from dbt_like_sql.settings import DEFAULT_DAILY_PARTITION_MODIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbt_like_sql.catalog import Catalog
    from dbt_like_sql.warehouse import Warehouse

LOAD_JOBS_A_TABLE, LOAD_JOBS_A_PROJECT = 1_500, 100_000
RESETS_IN = ZoneInfo("America/Los_Angeles")
# Part of the budget that may be used at any time of the day; the rest is earned second by second. A day that begins
# with a backfill of a year (365 days, 3 modifications each) must not wait.
AT_ONCE = 0.25
# Kept for backfills and repairs by hand, which do not wait: the flow never takes the last of it.
KEPT_BACK = 0.1
# What one run takes of its busiest table: a day emptied and filled.
A_RUN = 2


@dataclass(frozen=True)
class TableUse:
    """One table's use since the limits were renewed."""

    table: str
    modifications: int
    limit: int
    load_jobs: int = 0

    @property
    def share(self) -> float:
        """Part of the limit that is used."""
        return self.modifications / self.limit


@dataclass(frozen=True)
class Use:
    """Use of all tables since `since`; `load_jobs` is of the project's warehouse as a whole."""

    since: datetime
    tables: tuple[TableUse, ...]
    load_jobs: int

    @property
    def busiest(self) -> TableUse | None:
        """The table that is nearest to its limit."""
        return max(self.tables, key=lambda each: each.share, default=None)


def used_today(warehouse: Warehouse, catalog: Catalog, *, now: datetime | None = None) -> Use:
    """Count the ledgers since the limits were renewed; one query."""
    since = renewed_at(now or datetime.now(tz=UTC))
    limit = warehouse.settings.daily_partition_modifications or DEFAULT_DAILY_PARTITION_MODIFICATIONS
    tables = [table for table in catalog if table.partition_column and table.materialization in {"loaded", "table"}]
    loaded = ", ".join(quote(table.name) for table in tables if table.materialization == "loaded") or "''"
    published = ", ".join(quote(table.name) for table in tables if table.materialization == "table") or "''"
    sql = f"""
SELECT table_name, SUM(IF(is_rebuild, 2, 1)) AS modifications, COUNTIF(staged_rows > 0) AS load_jobs
FROM `{warehouse.table_id("control.load")}`
WHERE table_name IN ({loaded}) AND loaded_at >= @since
GROUP BY table_name
UNION ALL
SELECT table_name, 2 * COUNT(*) AS modifications, 0 AS load_jobs
FROM `{warehouse.table_id("control.publication")}`
WHERE table_name IN ({published}) AND published_at >= @since
GROUP BY table_name
"""
    rows = {row["table_name"]: row for row in warehouse.run(sql, params={"since": since}, kind="ledger").rows}
    nothing = {"modifications": 0, "load_jobs": 0}
    uses = tuple(
        TableUse(table.name, row["modifications"], limit, row["load_jobs"])
        for table in tables
        for row in [rows.get(table.name, nothing)]
    )
    return Use(since, uses, sum(each.load_jobs for each in uses))


def renewed_at(now: datetime) -> datetime:
    """When the limits were renewed last: midnight Pacific time."""
    local = now.astimezone(RESETS_IN)
    return local.replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)


def wait_s(use: Use, now: datetime, *, modifications: int = A_RUN) -> float:
    """How long to wait before another run, so that the busiest table's budget lasts; 0: go on.

    AT_ONCE of the budget is there at midnight, the rest is earned evenly over the day; KEPT_BACK of it is for repairs.

    Raises:
        BudgetError: the day's budget is used up; the limits are renewed at the time in its message.
    """
    busiest = use.busiest
    if busiest is None:
        return 0.0
    renewed = renewed_at(use.since + timedelta(hours=36))
    day_s = (renewed - use.since).total_seconds()
    budget = busiest.limit * (1 - KEPT_BACK)
    wanted = busiest.modifications + modifications
    if wanted > budget:
        raise BudgetError(
            f"changing {busiest.table}: {busiest.modifications} of BigQuery's {busiest.limit} modifications of table "
            f"partitions a day are used, and {KEPT_BACK:.0%} are kept for repairs. Nothing was written. What has "
            f"landed stays pending, and is loaded together after {renewed:%Y-%m-%d %H:%M} UTC, when the limits are "
            "renewed.",
            renewed_at=renewed,
        )
    earned_at_s = max(0.0, (wanted / budget - AT_ONCE) / (1 - AT_ONCE)) * day_s
    return max(0.0, earned_at_s - (now - use.since).total_seconds())


def pace(
    warehouse: Warehouse,
    catalog: Catalog,
    *,
    sleep: Callable[[float], Any] = time.sleep,
    now: Callable[[], datetime] = lambda: datetime.now(tz=UTC),
) -> float:
    """Wait until the budget allows another run; seconds waited. What lands meanwhile is loaded with it: runs coalesce.

    On an emulator there is no limit, and nothing is asked unless WAREHOUSE_DAILY_PARTITION_MODIFICATIONS sets one.

    Raises:
        BudgetError: see `wait_s`.
    """
    if not warehouse.settings.is_paced:
        return 0.0
    seconds = wait_s(used_today(warehouse, catalog, now=now()), now())
    if seconds > 0:
        sleep(seconds)
    return seconds


def as_records(use: Use) -> list[dict[str, Any]]:
    """Rows of a table for people: the busiest first."""
    ordered: Sequence[TableUse] = sorted(use.tables, key=lambda each: -each.share)
    return [
        {
            "table": each.table,
            "partition modifications today": each.modifications,
            "limit": each.limit,
            "used": f"{each.share:.1%}",
            "load jobs today": each.load_jobs,
        }
        for each in ordered
    ]
