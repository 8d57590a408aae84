"""What the exporter block calls: a frame into its warehouse table, once, whatever runs beside it.

Belongs here: the retry that the fence asks for, and telling what was written; or, to compare, the frame beside its
table. Not here: SQL (dbt_like_sql.load, dbt_like_sql.compare).
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from mage_project import slices
from mage_project.transforms.errors import ExportError, PlanError
from mage_project.transforms.plan import ReadPlan, plan_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

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
    if plan.is_comparison:
        return _stage(lines, plan, str(variables.get("compare_into") or ""), env)
    if not plan.work:
        return _report(plan, None, {})
    warehouse = open_warehouse(WarehouseSettings.from_env(env))
    before = slices.read_on(variables, plan.days[0].day.isoformat()) if plan.is_rebuild else None
    if plan.days[0].is_slice:
        return _stage_slice(warehouse, lines, plan, before or slices.first_slice(plan.days[0]), variables)
    return _report(plan, *_load(warehouse, lines, plan, variables, before), rows_before=before.rows if before else 0)


def _stage(lines: pa.Table, plan: ReadPlan, into: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Lay the rows beside the table, for `compare-rules`; the table stays as it is."""
    from dbt_like_sql.compare import stage_rows  # noqa: PLC0415
    from dbt_like_sql.settings import WarehouseSettings  # noqa: PLC0415
    from dbt_like_sql.warehouse import open_warehouse  # noqa: PLC0415

    if not into:
        raise PlanError(
            f"exporting to {plan.table}: mode is compare, and the variable compare_into names no staging table. "
            "Nothing was written. `compare-rules` sets both."
        )
    warehouse = open_warehouse(WarehouseSettings.from_env(env))
    days = {each.day for each in plan.days}
    stage_rows(warehouse, plan.table, lines, days=days, topic=plan.topic, into=into)
    return {**_report(plan, None, {}), "rows_staged": lines.num_rows}


def _stage_slice(
    warehouse: Any, lines: pa.Table, plan: ReadPlan, before: slices.ReadOn, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Lay a slice of a day that is rebuilt aside; the table stays as it is until the last one has been read."""
    from dbt_like_sql.load import stage_slice  # noqa: PLC0415

    [of_day] = plan.days
    staged = stage_slice(
        warehouse, plan.table, lines, day=of_day.day, topic=plan.topic, name=before.next_name, run_id=_run_id(variables)
    )
    told = {**_report(plan, None, {}, rows_before=before.rows), "rows_staged": before.rows + staged.rows}
    return {**told, slices.READ_ON: slices.note(before, of_day, staged)}


def _run_id(variables: Mapping[str, Any]) -> str:
    return str(variables.get("run_id") or f"mage-{uuid.uuid4()}")


def _report(plan: ReadPlan, loaded: Any, loads: Mapping[date, Any], *, rows_before: int = 0) -> dict[str, Any]:
    """What was read and written, in all and for each day; JSON, so that Mage's UI shows it too.

    `rows_before`: rows of the day that were read in slices before these.
    """
    batches = {each.day: each.after for each in plan.days}
    landed_us = {each.day: each.after_landed_us for each in plan.days}
    batches |= {day: load.batches(rebuild=plan.is_rebuild) for day, load in loads.items()}
    landed_us |= {day: load.times(rebuild=plan.is_rebuild) for day, load in loads.items()}
    return {
        "mode": plan.mode,
        "days": len(plan.days),
        "rows_read": rows_before + plan.rows_read,
        "rows_staged": loaded.rows_staged if loaded else 0,
        "rows_inserted": loaded.rows_inserted if loaded else 0,
        "bytes_billed": loaded.bytes_billed if loaded else 0,
        "load_seconds": round(loaded.seconds, 3) if loaded else 0.0,
        "partitions": {
            each.day.isoformat(): {
                "rows_read": rows_before + each.rows_read,
                **({"rows_left": each.rows_left} if each.rows_left else {}),
                "incarnation": each.incarnation,
                "batches": {str(part): batch for part, batch in batches[each.day].items()},
                "landed_us": {str(part): at for part, at in landed_us[each.day].items()},
                "version": loaded.versions.get(each.day, each.version) if loaded else each.version,
                **({"offsets": _offsets(loaded, each.day)} if loaded and each.day in loaded.versions else {}),
            }
            for each in plan.days
        },
    }


def _offsets(loaded: Any, day: date) -> list[list[int]]:
    """Topic partition, first and last offset, rows of what was brought to a day."""
    brought = loaded.offsets.get(day, ())
    return [[each.topic_partition, each.first_offset, each.last_offset, each.rows] for each in brought]


def _load(
    warehouse: Any, lines: pa.Table, plan: ReadPlan, variables: Mapping[str, Any], before: slices.ReadOn | None = None
) -> tuple[Any, dict[date, Any]]:
    """Try until the fence lets us through, reading the ledger again after each refusal.

    Rows are inserted by identity, so after a refusal the same rows are offered again and those that the other run
    wrote are left out. An incremental load moves the ledger to whichever of the two went further. A rebuild replaces
    the day, so its ledger is what it read itself: anything newer is read again by the next run.

    Returns: what was loaded, and each day's `DayLoad` that did it.
    """
    from dbt_like_sql.errors import FencedError, StaleRowsError  # noqa: PLC0415
    from dbt_like_sql.load import DayLoad, LoadedDay, load_days, loaded_days  # noqa: PLC0415

    days = [each.day for each in plan.work]
    work = {each.day: each for each in plan.work}
    seen = {each.day: LoadedDay(each.version, dict(each.after), each.incarnation) for each in plan.work}
    refusal: Exception | None = None
    for _attempt in range(MAX_ATTEMPTS):
        loads = [DayLoad(day, seen[day], work[day].upto, work[day].landed_us) for day in days]
        try:
            loaded = load_days(
                warehouse,
                plan.table,
                lines,
                loads=loads,
                topic=plan.topic,
                rebuild=plan.is_rebuild,
                run_id=_run_id(variables),
                code_version=str(variables.get("code_version") or "unversioned"),
                slices=before.slices if before else (),
            )
        except StaleRowsError:
            raise  # these rows are out of date: whoever runs the pipeline has to begin with the loader
        except FencedError as error:
            refusal = error
            seen = loaded_days(warehouse, plan.table, days, plan.topic)
        else:
            return loaded, {each.day: each for each in loads}
    raise ExportError(
        f"exporting {lines.num_rows} rows of {days[0]} to {days[-1]} to {plan.table}: the fence refused {MAX_ATTEMPTS} "
        f"attempts. Nothing of this run was written. Run the days again when fewer runs of them are at work."
    ) from refusal
