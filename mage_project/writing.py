"""What the exporter block calls: a frame into its warehouse table, once, whatever runs beside it.

Belongs here: the retry that the fence asks for, and telling what was written. Not here: SQL (dbt_like_sql.load).
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from mage_project.transforms.errors import ExportError, PlanError
from mage_project.transforms.plan import ReadPlan, plan_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

# Each refusal means that another run of the same day has committed in the meantime; with five runs at once the
# last one is refused four times. More says that something else is wrong, and an endless loop would hide it.
MAX_ATTEMPTS = 8


def export_lines(lines: pa.Table, variables: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    """Write the frame to the table of the block's configuration; return what was written.

    Raises:
        PlanError: the frame was read for another table than this block writes.
        ExportError: the fence refused every attempt; nothing was written.
    """
    from dbt_like_sql.settings import WarehouseSettings  # noqa: PLC0415
    from dbt_like_sql.warehouse import open_warehouse  # noqa: PLC0415

    plan = plan_of(lines)
    table = (variables.get("configuration") or {}).get("table")
    if table != plan.table:
        raise PlanError(
            f"exporting to {table}: the frame was read for {plan.table}, whose ledger says what to read. "
            "Nothing was written. Give the loader and the exporter the same table in the pipeline's metadata.yaml."
        )
    report = {"day": plan.day.isoformat(), "mode": plan.mode, "rows_read": plan.rows_read}
    if not plan.has_news:
        return {**report, "batches": plan.after, "version": plan.version, "rows_staged": 0, "rows_inserted": 0}
    warehouse = open_warehouse(WarehouseSettings.from_env(env))
    loaded, batches = _load(warehouse, lines, plan, variables)
    return {
        **report,
        "batches": batches,
        "version": loaded.version,
        "rows_staged": loaded.rows_staged,
        "rows_inserted": loaded.rows_inserted,
        "bytes_billed": loaded.bytes_billed,
        "load_seconds": loaded.seconds,
    }


def _load(warehouse: Any, lines: pa.Table, plan: ReadPlan, variables: Mapping[str, Any]) -> tuple[Any, dict[int, int]]:
    """Try until the fence lets us through, reading the ledger again after each refusal.

    Rows are inserted by identity, so after a refusal the same rows are offered again and those that the other run
    wrote are left out. An incremental load moves the ledger to whichever of the two went further. A rebuild replaces
    the day, so its ledger is what it read itself: anything newer is read again by the next run.
    """
    from dbt_like_sql.load import LoadedDay, load_rows, loaded_day  # noqa: PLC0415

    from dbt_like_sql.errors import FencedError  # noqa: PLC0415

    seen = LoadedDay(version=plan.version, batches=dict(plan.after), incarnation=plan.incarnation)
    run_id = str(variables.get("run_id") or f"mage-{uuid.uuid4()}")
    refusal: Exception | None = None
    for _attempt in range(MAX_ATTEMPTS):
        try:
            loaded = load_rows(
                warehouse,
                plan.table,
                lines,
                day=plan.day,
                topic=plan.topic,
                seen=seen,
                upto=plan.upto,
                rebuild=plan.is_rebuild,
                run_id=run_id,
                code_version=str(variables.get("code_version") or "unversioned"),
            )
        except FencedError as error:
            refusal = error
            seen = loaded_day(warehouse, plan.table, plan.day, plan.topic)
        else:
            return loaded, plan.upto if plan.is_rebuild else furthest(seen.batches, plan.upto)
    raise ExportError(
        f"exporting {lines.num_rows} rows of {plan.day} to {plan.table}: the fence refused {MAX_ATTEMPTS} attempts, "
        f"the last one at ledger version {seen.version}. Nothing of this run was written. Run the day again when fewer "
        "runs of it are at work."
    ) from refusal


def furthest(left: Mapping[int, int], right: Mapping[int, int]) -> dict[int, int]:
    """For each topic partition, the later of the two batches."""
    return {part: max(left.get(part, 0), right.get(part, 0)) for part in sorted({*left, *right})}
