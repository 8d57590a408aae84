"""The exporter's retries, against a warehouse that refuses as the fence does."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pytest

import dbt_like_sql.load
import dbt_like_sql.warehouse
from dbt_like_sql.errors import FencedError, StaleRowsError
from dbt_like_sql.load import Loaded, LoadedDay
from dbt_like_sql.rows import PartitionOffsets
from mage_project.transforms.errors import ExportError, PlanError
from mage_project.transforms.plan import DayPlan, ReadPlan, attach_plan
from mage_project.writing import MAX_ATTEMPTS, export_lines

DAY = date(2010, 12, 1)
TABLE = "core.invoice_lines"
ENV = {"WAREHOUSE_PROJECT": "local"}
VARIABLES = {"configuration": {"table": TABLE}, "run_id": "run-1", "code_version": "abc"}


def landed(part: int, batch: int) -> int:
    """When a batch landed."""
    return 1_000 * part + batch


class RefusingWarehouse:
    """Refuses the first loads; between two of them another run moves the ledger on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, refusals: list[Exception]) -> None:
        self.refusals, self.loads = list(refusals), []
        self.ledger = LoadedDay(version=1, batches={0: 2})
        monkeypatch.setattr(dbt_like_sql.load, "load_days", self.load)
        monkeypatch.setattr(dbt_like_sql.load, "loaded_days", lambda *_args: {DAY: self.ledger})
        monkeypatch.setattr(dbt_like_sql.warehouse, "open_warehouse", lambda _settings: self)

    def load(self, _warehouse: Any, table: str, rows: pa.Table, **arguments: Any) -> Loaded:
        self.loads.append({"table": table, "rows": rows.num_rows, **arguments})
        if self.refusals:
            self.ledger = LoadedDay(
                version=self.ledger.version + 1, batches={0: 2, 1: 9}, landed_us={0: landed(0, 2), 1: landed(1, 9)}
            )
            raise self.refusals.pop(0)
        version = arguments["loads"][0].seen.version + 1
        return Loaded(
            rows_staged=rows.num_rows,
            rows_inserted=1,
            versions={DAY: version},
            bytes_billed=0,
            seconds=0.1,
            job_id="j",
            offsets={DAY: (PartitionOffsets(0, 7, 8, 2),)},
        )


def lines(mode: Any = "incremental", upto: dict[int, int] | None = None, rows: int = 2) -> pa.Table:
    reached = upto or {0: 5, 1: 3}
    day = DayPlan(
        day=DAY, incarnation="i", version=1, after={0: 2}, upto=reached, rows_read=rows,
        landed_us={part: landed(part, batch) for part, batch in reached.items()},
    )  # fmt: skip
    return attach_plan(
        pa.table({"a": list(range(rows))}), ReadPlan(topic="retail.invoices", table=TABLE, mode=mode, days=(day,))
    )


def test_the_ledger_moves_as_far_as_the_loader_read(monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = RefusingWarehouse(monkeypatch, refusals=[])
    report = export_lines(lines(), VARIABLES, ENV)
    [load] = warehouse.loads
    assert (load["table"], load["rows"], load["run_id"], load["code_version"]) == (TABLE, 2, "run-1", "abc")
    assert load["loads"][0].seen == LoadedDay(version=1, batches={0: 2}, incarnation="i")
    assert report["partitions"]["2010-12-01"] == {
        "rows_read": 2,
        "incarnation": "i",
        "batches": {"0": 5, "1": 3},
        "landed_us": {"0": landed(0, 5), "1": landed(1, 3)},
        "version": 2,
        "offsets": [[0, 7, 8, 2]],
    }


def test_a_refused_load_is_tried_again_on_the_ledger_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = RefusingWarehouse(monkeypatch, refusals=[FencedError("a"), FencedError("b")])
    report = export_lines(lines(), VARIABLES, ENV)
    assert [load["loads"][0].seen.version for load in warehouse.loads] == [1, 2, 3]
    assert report["partitions"]["2010-12-01"]["batches"] == {"0": 5, "1": 9}
    assert report["partitions"]["2010-12-01"]["landed_us"] == {"0": landed(0, 5), "1": landed(1, 9)}


def test_a_rebuild_claims_no_more_than_it_read(monkeypatch: pytest.MonkeyPatch) -> None:
    RefusingWarehouse(monkeypatch, refusals=[FencedError("a")])
    report = export_lines(lines("rebuild"), VARIABLES, ENV)
    assert report["partitions"]["2010-12-01"]["batches"] == {"0": 5, "1": 3}
    assert report["partitions"]["2010-12-01"]["landed_us"] == {"0": landed(0, 5), "1": landed(1, 3)}


def test_rows_that_are_out_of_date_are_not_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = RefusingWarehouse(monkeypatch, refusals=[StaleRowsError("read again")])
    with pytest.raises(StaleRowsError):
        export_lines(lines("rebuild"), VARIABLES, ENV)
    assert len(warehouse.loads) == 1


def test_a_fence_that_never_opens_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = RefusingWarehouse(monkeypatch, refusals=[FencedError("no")] * 100)
    with pytest.raises(ExportError, match=r"Nothing of this run was written") as failure:
        export_lines(lines(), VARIABLES, ENV)
    assert len(warehouse.loads) == MAX_ATTEMPTS
    assert failure.value.is_retryable


def test_nothing_new_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = RefusingWarehouse(monkeypatch, refusals=[])
    report = export_lines(lines(upto={0: 2}, rows=0), VARIABLES, ENV)
    assert warehouse.loads == []
    assert (report["rows_inserted"], report["partitions"]["2010-12-01"]["version"]) == (0, 1)
    assert report["partitions"]["2010-12-01"]["landed_us"] == {"0": landed(0, 2)}, "the next cycle asks the lake for it"


def test_a_rebuild_of_an_empty_day_still_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = RefusingWarehouse(monkeypatch, refusals=[])
    export_lines(lines("rebuild", upto={0: 2}, rows=0), VARIABLES, ENV)
    assert len(warehouse.loads) == 1


def test_a_frame_read_for_another_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = RefusingWarehouse(monkeypatch, refusals=[])
    with pytest.raises(PlanError, match=r"core\.other"):
        export_lines(lines(), {"configuration": {"table": "core.other"}}, ENV)
    assert warehouse.loads == []
