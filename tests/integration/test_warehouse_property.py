"""However a day got there, it is the same day: loads in any order, repeated, at once, killed, late, against a rebuild.

Each example is a day of its own. What a run does is done by the product's exporter and publisher; the lake is a list of
batches, numbered in commit order as the landing numbers them. Longer: PROPERTY_EXAMPLES=200.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dbt_like_sql.catalog import load_catalog
from dbt_like_sql.load import loaded_day
from dbt_like_sql.publish import publish_all, stale_days
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse
from mage_project.transforms.plan import DayPlan, ReadPlan, attach_plan
from mage_project.writing import export_lines
from tests.unit.dbt_like_sql.lines import TOPIC, line, lines

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]
CATALOG = load_catalog()
CORE, FACT = "core.invoice_lines", "mart.invoice_lines"
DAILY = [FACT, "mart.daily_sales_by_country", "mart.daily_sales_by_product"]
EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "3"))
_days = itertools.count()


@dataclass
class Lake:
    """One day's batches: topic partition -> rows of batch 1, 2, 3..."""

    day: date
    batches: dict[int, list[list[dict[str, Any]]]] = field(default_factory=dict)

    def land(self, part: int, rows: list[dict[str, Any]]) -> None:
        self.batches.setdefault(part, []).append(rows)

    def run(self, env: dict[str, str], *, mode: str = "incremental") -> dict[str, Any]:
        """What a run of the pipeline does between its loader and its exporter's return."""
        seen = loaded_day(open_warehouse(WarehouseSettings.from_env(env)), CORE, self.day, TOPIC)
        upto = {part: len(batches) for part, batches in self.batches.items()}
        after = {} if mode == "rebuild" else seen.batches
        rows = [
            row
            for part, batches in self.batches.items()
            for number, batch in enumerate(batches, start=1)
            if number > after.get(part, 0)
            for row in batch
        ]
        plan = DayPlan(
            day=self.day, incarnation=seen.incarnation, version=seen.version, after=dict(seen.batches), upto=upto,
            rows_read=len(rows),
        )  # fmt: skip
        frame = attach_plan(lines(rows), ReadPlan(topic=TOPIC, table=CORE, mode=mode, days=(plan,)))  # type: ignore[arg-type]
        return export_lines(frame, {"configuration": {"table": CORE}, "run_id": f"r{mode}"}, env)


@pytest.fixture(autouse=True)
def small_days_grow_by_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """In production days of sums are built whole below this size."""
    monkeypatch.setattr("dbt_like_sql.publish_state.DIFFERENCE_FROM_ROWS", 0)


@pytest.fixture(scope="module")
def env(module_migrated_env: dict[str, str]) -> dict[str, str]:
    return module_migrated_env


def content(warehouse: Warehouse, day: date) -> dict[str, list[dict[str, Any]]]:
    """Every column of every row of the day, in key order."""
    found = {}
    for name in [CORE, *DAILY]:
        key = ", ".join(column.name for column in CATALOG[name].columns if column.is_key)
        sql = f"SELECT * FROM `{warehouse.table_id(name)}` WHERE invoice_date = DATE '{day}' ORDER BY {key}"
        found[name] = warehouse.run(sql).rows
    return found


def publish(env: dict[str, str], day: date) -> Any:
    return publish_all(open_warehouse(WarehouseSettings.from_env(env)), CATALOG, DAILY, days=[day], run_id="p")


# A batch: topic partition, and rows as (event number, is a replay of an earlier offset). Few events: many repeats.
_row = st.tuples(st.integers(0, 9), st.booleans())
_step = st.one_of(
    st.tuples(st.just("land"), st.integers(0, 2), st.lists(_row, min_size=1, max_size=4)),
    st.tuples(st.just("run"), st.sampled_from([1, 1, 2, 5]), st.none()),
    st.tuples(st.just("publish"), st.sampled_from([1, 1, 2]), st.none()),
    st.tuples(st.just("rebuild"), st.just(1), st.none()),
)


@pytest.mark.timeout(max(600, 60 * EXAMPLES))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 50,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate] if EXAMPLES < 50 else list(Phase),
    database=None,
)
@given(steps=st.lists(_step, min_size=5, max_size=9))
def test_day_grown_step_by_step_equals_the_day_rebuilt(env: dict[str, str], steps: Sequence[Any]) -> None:
    lake = Lake(date(2012, 1, 1) + timedelta(days=next(_days)))
    warehouse = open_warehouse(WarehouseSettings.from_env(env))
    offsets = {part: itertools.count(100, 2) for part in range(3)}  # odd offsets are free for replays
    replays = {part: itertools.count(101, 2) for part in range(3)}
    for what, number, rows in [("land", 0, [(0, False)]), *steps, ("run", 1, None), ("publish", 1, None)]:
        if what == "land":
            made = [
                line(
                    lake.day, number, next(replays[number] if replay else offsets[number]), event_id=f"{lake.day}/{at}"
                )
                for at, replay in rows
            ]
            lake.land(number, made)
        elif what == "publish":
            with ThreadPoolExecutor(number) as pool:
                list(pool.map(lambda _: publish(env, lake.day), range(number)))
        else:
            mode = "rebuild" if what == "rebuild" else "incremental"
            with ThreadPoolExecutor(number) as pool:
                list(pool.map(lambda _, mode=mode: lake.run(env, mode=mode), range(number)))
    grown = content(warehouse, lake.day)
    landed = {(row["topic_partition"], row["topic_offset"]) for b in lake.batches.values() for rs in b for row in rs}
    assert {(row["topic_partition"], row["topic_offset"]) for row in grown[CORE]} == landed
    assert len(grown[CORE]) == len(landed)
    assert {row["event_id"] for row in grown[FACT]} == {row["event_id"] for row in grown[CORE]}
    lake.run(env, mode="rebuild")
    assert publish(env, lake.day)[FACT].grown_days == ()
    assert content(warehouse, lake.day) == grown
    assert lake.day not in stale_days(warehouse, CATALOG, FACT)


def _run_and_publish(lake: Lake, env: dict[str, str]) -> None:
    lake.run(env)
    publish(env, lake.day)


@pytest.mark.timeout(max(300, 10 * EXAMPLES))
def test_run_killed_at_any_step_is_completed_by_the_next_without_a_new_event(env: dict[str, str]) -> None:
    """The source has fallen silent: nothing lands after the kill, and the next run still completes the day."""
    dice = random.Random(11)
    lake = Lake(date(2013, 1, 1))
    warehouse = open_warehouse(WarehouseSettings.from_env(env))
    fork = multiprocessing.get_context("fork")
    killed = 0
    for attempt in range(max(4, EXAMPLES // 4)):
        lake.land(attempt % 3, [line(lake.day, attempt % 3, 1000 * attempt + at) for at in range(40)])
        run = fork.Process(target=_run_and_publish, args=(lake, env))
        run.start()
        time.sleep(dice.uniform(0.05, 1.2))
        killed += run.is_alive()
        run.kill()
        run.join()
    assert killed, "every run was done before it was killed: draw earlier moments"
    _run_and_publish(lake, env)
    grown = content(warehouse, lake.day)
    assert (
        len(grown[CORE])
        == len({row["topic_offset"] for row in grown[CORE]})
        == sum(len(rows) for batches in lake.batches.values() for rows in batches)
    )
    lake.run(env, mode="rebuild")
    publish(env, lake.day)
    assert content(warehouse, lake.day) == grown
