"""What the loader and parser blocks call: landed events of some days, from the lake, with the plan of what was read.

Belongs here: choosing the batches to read, and reading them. Not here: SQL of the lake (streaming.lake), rules.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, cast, get_args

from mage_project.settings import MageSettings
from mage_project.slices import may_read_on, read_on
from mage_project.transforms.errors import VariableError
from mage_project.transforms.plan import DayPlan, Mode, ReadPlan, attach_plan, carry_plan, plan_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from dbt_like_sql.load import LoadedDay
    from mage_project.slices import ReadOn
    from streaming.lake import DayPart

# What a load reads of a day at once: about 0.8 KB a row through all blocks, beside the libraries. Less makes more loads
# of a day that has waited for hours, more does not fit beside another run into a container of 3 GB.
MOST_ROWS, MOST_BYTES = 1_000_000, 256 << 20
_MODES = get_args(Mode)
_MEND = "Mend the run's variables (Dagster's launchpad, `mage run`) or the pipeline's metadata.yaml, and run again."


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a run asks for: which days of which topic, for which table, and how."""

    topic: str
    table: str
    days: tuple[date, ...]
    mode: Mode

    @classmethod
    def from_variables(cls, variables: Mapping[str, Any]) -> Request:
        """Read the block's configuration (topic, table) and the run's variables (day, last_day, mode).

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
        first = _day("day", variables.get("day"), problems)
        last = _day("last_day", variables.get("last_day") or variables.get("day"), problems)
        if first and last and last < first:
            problems.append(f"last_day is {last}, which is before day {first}")
        if problems or first is None or last is None:
            raise VariableError(f"reading a run's variables: {'; '.join(problems)}. Nothing was read. {_MEND}")
        days = tuple(first + timedelta(days=offset) for offset in range((last - first).days + 1))
        return cls(topic=configuration["topic"], table=configuration["table"], days=days, mode=cast("Mode", mode))


def read_landed(variables: Mapping[str, Any], env: Mapping[str, str]) -> pa.Table:
    """The days' events that the table does not hold yet, still raw; for a rebuild all, to compare those that it holds.

    The warehouse's ledger says what is loaded, the lake's what has landed; the batches between are read. Of a day with
    more of them than memory holds the first ones are: it still differs afterwards, so that the next load reads on. A
    rebuild replaces the day at once: such a day is read in slices (slices.py), or whole where nobody reads on.

    Raises:
        RestoredError: the lake came back from a backup: it has not what the table holds, and was not told of it.
    """
    import pyarrow as pa  # noqa: PLC0415

    from dbt_like_sql.load import loaded_days  # noqa: PLC0415  (the Google client costs seconds at import)
    from dbt_like_sql.settings import WarehouseSettings  # noqa: PLC0415
    from dbt_like_sql.warehouse import open_warehouse  # noqa: PLC0415
    from streaming import lake  # noqa: PLC0415

    request = Request.from_variables(variables)
    settings = MageSettings.from_env(env)
    ledger = _seen(request, variables.get("seen") or {})
    if ledger is None:
        opened = open_warehouse(WarehouseSettings.from_env(env))
        ledger = loaded_days(opened, request.table, request.days, request.topic)
    with contextlib.closing(lake.connect(settings.lake_dsn, application_name="mage_project.load")) as conn:
        holds = lake.confirm_read(conn, request.topic, {day: seen.read for day, seen in ledger.items()})
        landed = {each.event_day: each for each in lake.landed_days(conn, request.topic, days=request.days)}
        frames, plans = [], []
        for day, seen in ledger.items():
            part = _part(conn, request, landed.get(day), seen, holds[day])
            upto = dict(holds[day]) if request.mode == "compare" else part.batches
            after, reached = dict(holds[day]) if request.mode == "incremental" else {}, dict[int, int]()
            if request.mode == "rebuild" and len(request.days) == 1 and may_read_on(variables):
                before = read_on(variables, day.isoformat())
                if before or _is_large(landed.get(day)):
                    part, after, reached = _slice(conn, request.topic, day, part, before)
                    upto = part.batches
            frames.append(lake.read_events(conn, request.topic, day=day, after=after, upto=reached or upto))
            plans.append(
                DayPlan(
                    day=day,
                    incarnation=seen.incarnation,
                    version=seen.version,
                    after=holds[day],
                    upto=upto,
                    rows_read=frames[-1].num_rows,
                    rows_left=part.rows_left,
                    landed_us=part.landed_us,
                    reached=reached,
                )
            )
    plan = ReadPlan(topic=request.topic, table=request.table, mode=request.mode, days=tuple(plans))
    return attach_plan(pa.concat_tables(frames), plan)


def _part(conn: Any, request: Request, landed: Any, seen: LoadedDay, holds: Mapping[int, int]) -> DayPart:
    """The batches of a day to read: up to the last one, or as many of those that come next as a load holds."""
    from streaming import lake  # noqa: PLC0415

    if landed is None:
        return lake.DayPart({}, {}, 0)
    if request.mode != "incremental" or not _is_large(landed):
        return lake.DayPart(dict(landed.batches), dict(landed.landed_us), 0)
    part = lake.next_part(
        conn, request.topic, day=landed.event_day, after=holds, upto=landed.batches,
        most_rows=MOST_ROWS, most_bytes=MOST_BYTES,
    )  # fmt: skip
    # where nothing is read, the ledger keeps the batch that it has, and when that landed
    known = {number: at for number, at in seen.landed_us.items() if seen.batches.get(number) == holds.get(number)}
    return lake.DayPart({**holds, **part.batches}, {**known, **part.landed_us}, part.rows_left)


def _is_large(landed: Any) -> bool:
    return landed is not None and bool(landed.rows > MOST_ROWS or landed.payload_bytes > MOST_BYTES)


def _slice(
    conn: Any, topic: str, day: date, whole: DayPart, before: ReadOn | None
) -> tuple[DayPart, dict[int, int], dict[int, int]]:
    """The next slice of a day: the whole of it as it was at the first one, and the batches that it is after and upto.

    What lands meanwhile is left to the next load, as it is by a rebuild that reads the day at once.
    """
    from streaming import lake  # noqa: PLC0415

    upto, landed_us = (before.upto, before.landed_us) if before else (whole.batches, whole.landed_us)
    after = before.after if before else {}
    part = lake.next_part(
        conn, topic, day=day, after=after, upto=upto, most_rows=MOST_ROWS, most_bytes=MOST_BYTES
    )  # fmt: skip
    return lake.DayPart(upto, landed_us, part.rows_left), after, {**after, **part.batches}


def _seen(request: Request, seen: Mapping[str, Mapping[str, Any]]) -> dict[date, Any] | None:
    """The ledger as the run's last load has left it (the variable `seen`: day -> what the exporter reported of it).

    It may have moved on since: then the fence refuses the load, and the exporter asks and tries again.
    """
    from dbt_like_sql.load import LoadedDay  # noqa: PLC0415

    if request.mode != "incremental" or any(day.isoformat() not in seen for day in request.days):
        return None
    told = {day: seen[day.isoformat()] for day in request.days}
    return {
        day: LoadedDay(
            each["version"],
            {int(part): int(batch) for part, batch in each["batches"].items()},
            each["incarnation"],
            {int(part): int(at) for part, at in each["landed_us"].items()},
        )
        for day, each in told.items()
    }


def distinct_events(events: pa.Table) -> int:
    """How many different (topic partition, offset) the rows have.

    A day is read in their order, so each row is compared with the one before; only rows in another order are grouped,
    which costs thirty times as much.
    """
    names = ["topic_partition", "topic_offset"]
    part, offset = (events[name].to_numpy() for name in names)
    is_after = (part[1:] > part[:-1]) | ((part[1:] == part[:-1]) & (offset[1:] > offset[:-1]))
    return events.num_rows if is_after.all() else int(events.group_by(names).aggregate([]).num_rows)


def parse_events(events: pa.Table, env: Mapping[str, str]) -> pa.Table:
    """The same events with the contract's typed columns, by the decoder that the landing validates with."""
    from streaming import lake  # noqa: PLC0415

    contract = lake.load_contract(plan_of(events).topic, MageSettings.from_env(env).contracts_dir)
    return carry_plan(events, lake.decode_events(contract, events))


def _day(name: str, value: object, problems: list[str]) -> date | None:
    try:
        return date.fromisoformat(str(value or ""))
    except ValueError:
        problems.append(f"{name} is {value!r}, expected a date such as 2010-12-01")
        return None
