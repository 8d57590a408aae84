"""What the loader and parser blocks call: landed events of one day, from the lake, with the plan of what was read.

Belongs here: choosing the batches to read, and reading them. Not here: SQL of the lake (streaming.lake), rules.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, cast

from mage_project.settings import MageSettings
from mage_project.transforms.errors import VariableError
from mage_project.transforms.plan import Mode, ReadPlan, attach_plan, carry_plan, plan_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

_MODES = ("incremental", "rebuild")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a run asks for: which day of which topic, for which table, and how."""

    topic: str
    table: str
    day: date
    mode: Mode

    @classmethod
    def from_variables(cls, variables: Mapping[str, Any]) -> Request:
        """Read the block's configuration (topic, table) and the run's variables (day, mode).

        Raises:
            VariableError: all that is missing or wrong, at once.
        """
        configuration = variables.get("configuration") or {}
        problems = [
            f"configuration.{name} is not set in the pipeline's metadata.yaml"
            for name in ("topic", "table")
            if not configuration.get(name)
        ]
        mode = str(variables.get("mode") or "incremental")
        if mode not in _MODES:
            problems.append(f"mode is {mode!r}, expected one of {', '.join(_MODES)}")
        day = _day(variables.get("day"), problems)
        if problems or day is None:
            raise VariableError("reading a run's variables: " + "; ".join(problems) + ". Nothing was read.")
        return cls(topic=configuration["topic"], table=configuration["table"], day=day, mode=cast("Mode", mode))


def read_landed(variables: Mapping[str, Any], env: Mapping[str, str]) -> pa.Table:
    """The day's events that the table does not hold yet (or all of them, for a rebuild), still raw.

    The warehouse's ledger says what is loaded, the lake's what has landed; the batches between are read.
    """
    from dbt_like_sql.load import loaded_day  # noqa: PLC0415  (the Google client costs seconds at import)

    from dbt_like_sql.settings import WarehouseSettings  # noqa: PLC0415
    from dbt_like_sql.warehouse import open_warehouse  # noqa: PLC0415
    from streaming import lake  # noqa: PLC0415

    request = Request.from_variables(variables)
    settings = MageSettings.from_env(env)
    warehouse = open_warehouse(WarehouseSettings.from_env(env))
    seen = loaded_day(warehouse, request.table, request.day, request.topic)
    with contextlib.closing(lake.connect(settings.lake_dsn, application_name="mage_project.load")) as conn:
        landed = lake.landed_days(conn, request.topic, days=[request.day])
        upto = dict(landed[0].batches) if landed else {}
        after = {} if request.mode == "rebuild" else seen.batches
        events = lake.read_events(conn, request.topic, day=request.day, after=after, upto=upto)
    plan = ReadPlan(
        topic=request.topic,
        table=request.table,
        day=request.day,
        mode=request.mode,
        incarnation=seen.incarnation,
        version=seen.version,
        after=dict(seen.batches),
        upto=upto,
        rows_read=events.num_rows,
    )
    return attach_plan(events, plan)


def parse_events(events: pa.Table, env: Mapping[str, str]) -> pa.Table:
    """The same events with the contract's typed columns, by the decoder that the landing validates with."""
    from streaming import lake  # noqa: PLC0415

    contract = lake.load_contract(plan_of(events).topic, MageSettings.from_env(env).contracts_dir)
    return carry_plan(events, lake.decode_events(contract, events))


def _day(value: object, problems: list[str]) -> date | None:
    try:
        return date.fromisoformat(str(value or ""))
    except ValueError:
        problems.append(f"day is {value!r}, expected a date such as 2010-12-01")
        return None
