"""Run where a second stream was added: lands events of both, loads the day, breaks a mart; prints what it saw."""

from __future__ import annotations

import json
import logging
import os
import uuid
import warnings
from typing import Any

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

import dagster as dg  # noqa: E402
from click.testing import CliRunner  # noqa: E402

from dbt_like_sql.__main__ import main as main_of_warehouse  # noqa: E402
from dbt_like_sql.settings import WarehouseSettings  # noqa: E402
from dbt_like_sql.warehouse import open_warehouse  # noqa: E402
from orchestration.compare import compare_rules  # noqa: E402
from orchestration.definitions import defs  # noqa: E402
from orchestration.defs.partitions import DAYS, range_tags  # noqa: E402
from tests.integration.orchestration.landing import HandLanding, event  # noqa: E402

DAY = "2010-12-01"


def visit(page: str, seconds: str, **changes: Any) -> dict[str, Any]:
    return {"visit_id": str(uuid.uuid4()), "at": f"{DAY}T10:00:00Z", "page": page, "seconds": seconds, **changes}


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    return {
        "success": result.success,
        "checks": {
            f"{each.asset_key.to_user_string()} {each.check_name}": [each.passed, each.description]
            for each in result.get_asset_check_evaluations()
        },
    }


def main() -> None:
    warehouse = open_warehouse(WarehouseSettings.from_env(os.environ))
    shop, web = HandLanding(os.environ["LAKE_DSN"]), HandLanding(os.environ["LAKE_DSN"], "web.visits", key="visit_id")
    shop.land([event(line_no=1), event(line_no=2)])
    twice = visit("/a", "61.5")
    web.land([visit("/a", "1.25"), twice, visit("/b", "60"), twice])
    found: dict[str, Any] = {}

    def rows(table: str, where: str = "TRUE") -> list[dict[str, Any]]:
        return [dict(row) for row in warehouse.run(f"SELECT * FROM `{warehouse.table_id(table)}` WHERE {where}").rows]

    with dg.DagsterInstance.ephemeral() as instance:

        def run(job: str, **options: Any) -> dict[str, Any]:
            ran = defs.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False, **options)
            return told(ran)

        tags = range_tags(*[DAYS.time_window_for_partition_key(DAY).start.date()] * 2)
        found["first"] = run("load_days", tags=tags)
        web.land([visit("/c", "0.5")])
        found["second"] = run("load_days", tags=tags)
        found["days"] = CliRunner().invoke(main_of_warehouse, ["days"], catch_exceptions=False).output
        found["trust"] = rows("mart.data_trust")
        found["reconciled"] = rows("control.reconciliation", "topic = 'web.visits'")
        found["visits"] = rows("mart.visits", f"visit_date = DATE '{DAY}'")
        found["daily"] = rows("mart.daily_visits", f"day = DATE '{DAY}'")
        found["compared"] = [
            [
                feed.table,
                [[each.table, None if each.differences is None else len(each.differences)] for each in planned],
            ]
            for feed, planned in compare_rules(os.environ)
        ]
        table = warehouse.table_id("mart.daily_visits")
        warehouse.run(f"UPDATE `{table}` SET seconds = seconds + 1 WHERE day = DATE '{DAY}' AND page = '/b'")
        found["broken"] = run("compare_days")
    print(json.dumps(found, default=str))  # noqa: T201


main()
