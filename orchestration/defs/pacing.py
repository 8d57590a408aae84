"""Runs wait while BigQuery's daily budget is not earned yet; what lands meanwhile is loaded with them.

Belongs here: the wait of a run, and the budget in the UI. Not here: counting and limits (dbt_like_sql.quotas).
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from orchestration.defs.resources import WarehouseResource


def pace_run(log: Any) -> float:
    """Wait, before anything is read, until the budget allows a run; seconds waited. 0 where nothing is limited.

    Raises:
        BudgetError: the budget of the day is used up. Nothing was written; the day stays pending.
    """
    from dbt_like_sql.catalog import load_catalog
    from dbt_like_sql.quotas import pace

    waited_s = pace(WarehouseResource().open(), load_catalog())
    if waited_s:
        log.info("waited %.0f s, so that BigQuery's daily budget of modifications lasts until it is renewed", waited_s)
    return waited_s


def budget_metadata(warehouse: Any, table: str) -> dict[str, Any]:
    """How much of its daily limit a table has used, where runs are paced; nothing on an emulator without a limit."""
    from dbt_like_sql.catalog import load_catalog
    from dbt_like_sql.quotas import as_records, used_today

    if not warehouse.settings.is_paced:
        return {}
    records = {each["table"]: each for each in as_records(used_today(warehouse, load_catalog()))}
    found = records.get(table)
    if found is None:
        return {}
    return {
        "quota/partition_modifications_today": found["partition modifications today"],
        "quota/partition_modifications_limit": found["limit"],
        "quota/all_tables": dg.MetadataValue.table([dg.TableRecord(each) for each in records.values()]),
    }
