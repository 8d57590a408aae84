"""A lake that came back from a backup, with a warehouse that has seen more: nothing is lost, nothing counted twice.

The backup is the lake after one event; the warehouse has loaded two. What lands in the restored lake gets batch numbers
that were given before, as many as a test wants: a number that is missing, one that stands for other events, or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import dagster as dg
import psycopg2
import pytest
from click.testing import CliRunner

from dbt_like_sql.load import loaded_day
from dbt_like_sql.reconcile import totals
from deploy.status import ask as asking
from mage_project.reading import read_landed
from mage_project.transforms.plan import plan_of
from orchestration.compare import main as compare_rules
from orchestration.definitions import defs
from orchestration.defs.alerts import run_alert
from orchestration.defs.partitions import range_tags
from orchestration.defs.serving.changes import DAILY_MARTS
from orchestration.defs.topics import MARTS_READER
from streaming import lake
from streaming.errors import LandingError, RestoredError
from streaming.lake_commands import lake_group
from streaming.restored import LAST_BATCH, number_anew
from tests.integration.orchestration.landing import TOPIC, HandLanding, event
from tests.schedule import IS_WHOLE

Run = Callable[..., dg.ExecuteInProcessResult]

pytestmark = pytest.mark.integration
DAY = "2010-12-01"
CORE = "core.invoice_lines"
EVENTS = [event(line_no=number) for number in range(1, 6)]


def _administrate(dsn: str, *statements: str) -> None:
    conn = psycopg2.connect(dsn.rpartition("/")[0] + "/postgres")
    conn.autocommit = True
    with conn.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    conn.close()


@dataclass
class Restored:
    """The lake as it came back, and the warehouse that has loaded two events of the lost one."""

    dsn: str
    env: dict[str, str]
    warehouse: Any
    load_days: Run
    hand: HandLanding = field(init=False)

    def __post_init__(self) -> None:
        self.hand = HandLanding(self.dsn)
        self.hand.next_offset[0] = 1  # the consumer goes on from the offsets of the backup

    def rows(self) -> tuple[int, int]:
        found = totals(self.warehouse)["core.invoice_lines"]
        return found["core"]["rows"], found["mart"]["rows"]

    def written(self) -> list[Any]:
        """Everything that a load or a publication would move, and the marks in the lake."""
        tables = ("control.day", "control.load", "control.publication")
        counts = [
            self.warehouse.run(f"SELECT COUNT(*) AS n, MAX(version) AS v FROM `{self.warehouse.table_id(name)}`").rows
            for name in tables
        ]
        pending = lake.pending_days(self.hand.conn, TOPIC, MARTS_READER)
        # a rebuild takes its days' marks back to batch 0 whatever becomes of it, which is no mark
        marks = [(day, {part: batch for part, batch in day.read.items() if batch}) for day in pending]
        return [*counts, self.rows(), [replace(day, read=read) for day, read in marks]]

    def tell(self) -> None:
        told = CliRunner().invoke(lake_group, ["restored"])
        assert "retail.invoices/0: the next batch is 1,000,00" in told.output

    def refused(self, result: dg.ExecuteInProcessResult) -> str:
        assert not result.success
        failures = [each for each in result.all_events if each.is_step_failure]
        error = failures[0].step_failure_data.error
        assert error is not None
        return error.to_string()


@pytest.fixture
def restored(
    line_env: dict[str, str], load_days: Run, warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Restored]:
    dsn = line_env["LAKE_DSN"]
    name = dsn.rpartition("/")[2]
    hand = HandLanding(dsn)
    hand.land(EVENTS[:1])
    hand.close()
    _administrate(dsn, f"CREATE DATABASE {name}_backup TEMPLATE {name}")
    hand = HandLanding(dsn)
    hand.next_offset[0] = 1
    hand.land(EVENTS[1:2])
    hand.close()
    assert load_days(DAY).success
    back = f"{dsn.rpartition('/')[0]}/{name}_backup"
    monkeypatch.setenv("LAKE_DSN", back)
    found = Restored(back, {**line_env, "LAKE_DSN": back}, warehouse, load_days)
    yield found
    found.hand.close()
    _administrate(dsn, f"DROP DATABASE {name}_backup WITH (FORCE)")


def test_what_lands_again_after_a_restore_that_was_told_reaches_the_marts_once(restored: Restored) -> None:
    restored.tell()
    restored.hand.land(EVENTS[1:3])
    assert restored.load_days(DAY).success
    assert restored.rows() == (3, 3)
    assert loaded_day(restored.warehouse, CORE, date.fromisoformat(DAY), TOPIC).batches == {0: 1_000_002}


BATCHES = {
    "nothing has landed": [],
    "the number stands for other events": [EVENTS[1:3]],
    "its own event again, the number the same": [EVENTS[1:2]],
    "more numbers were given than were lost": [EVENTS[1:3], EVENTS[3:4], EVENTS[4:5]],
}
# Half a minute each: in CI the one with the most steps.
IN_CI = BATCHES if IS_WHOLE else {name: BATCHES[name] for name in [*BATCHES][-1:]}


@pytest.mark.parametrize("batches", IN_CI.values(), ids=IN_CI)
def test_a_restore_that_was_not_told_stops_every_run_and_once_told_all_is_there_once(
    restored: Restored, batches: list[list[dict[str, Any]]]
) -> None:
    for batch in batches:
        restored.hand.land(batch)
    before = restored.written()
    for mode in ("incremental", "rebuild") if len(batches) > 1 else ("incremental",):
        result = restored.load_days(DAY, mode=mode)
        text = restored.refused(result)
        assert "RestoredError: reading retail.invoices" in text
        assert f"of {DAY}, topic partition 0, batch 2 that landed " in text
        assert "the next one to land is 2" in text if not batches else "and in the lake that one landed" in text
        assert "run `streaming lake restored`" in text
        assert "Mend the block" not in text
        failures = result.get_step_failure_events()
        assert "streaming lake restored" in run_alert(result.dagster_run, failures[0], failures).next_step
    assert restored.written() == before
    restored.tell()
    landed = 1 + sum(map(len, batches))
    first = restored.load_days(DAY)
    if batches:
        assert first.success, [each.event_specific_data for each in first.get_step_failure_events()]
        assert restored.rows() == (landed, landed)
    else:
        assert not first.success, "the lake lacks an event that core has, until it has landed again"
    left = EVENTS[landed:]
    if left:
        restored.hand.land(left)
    result = restored.load_days(DAY)
    assert result.success, [each.event_specific_data for each in result.get_step_failure_events()]
    assert restored.rows() == (5, 5)
    assert lake.pending_days(restored.hand.conn, TOPIC, MARTS_READER) == []
    restored.hand.land([event(line_no=6)])
    assert restored.load_days(DAY).success
    assert restored.rows() == (6, 6)


def test_a_cycle_that_goes_on_from_its_own_last_load_is_stopped_too(restored: Restored) -> None:
    loaded = loaded_day(restored.warehouse, CORE, date.fromisoformat(DAY), TOPIC)
    told = {"version": loaded.version, "incarnation": loaded.incarnation, "batches": {"0": 2}}
    variables = {"configuration": {"topic": TOPIC, "table": CORE}, "day": DAY}
    restored.hand.land(EVENTS[1:3])
    restored.hand.land(EVENTS[3:4])
    with pytest.raises(RestoredError):
        read_landed({**variables, "seen": {DAY: {**told, "landed_us": {"0": loaded.landed_us[0]}}}}, restored.env)
    now = lake.landed_days(restored.hand.conn, TOPIC)[0].landed_us[0]
    seen = {DAY: {**told, "batches": {"0": 3}, "landed_us": {"0": now}}}
    [day] = plan_of(read_landed({**variables, "seen": seen}, restored.env)).days
    assert (day.after, day.upto, day.landed_us) == ({0: 3}, {0: 3}, {0: now})


def test_marts_alone_neither_publish_nor_mark_what_the_restored_lake_lacks(
    restored: Restored, instance: dg.DagsterInstance
) -> None:
    restored.hand.land(EVENTS[1:3])

    def publish() -> dg.ExecuteInProcessResult:
        return defs.resolve_job_def("load_days").execute_in_process(
            instance=instance,
            tags=range_tags(date.fromisoformat(DAY), date.fromisoformat(DAY)),
            asset_selection=list(DAILY_MARTS),
            raise_on_error=False,
        )

    before = restored.written()
    assert "RestoredError" in restored.refused(publish())
    assert restored.written() == before
    restored.tell()
    publish()
    [day] = lake.pending_days(restored.hand.conn, TOPIC, MARTS_READER)
    assert (day.landed, day.read) == ({0: 2}, {})


def test_rules_are_not_compared_on_a_day_whose_batches_the_restored_lake_lacks(restored: Restored) -> None:
    """None of its events would be read, and the rules be said to drop all that the table has."""
    restored.hand.land(EVENTS[1:3])
    restored.tell()
    ran = CliRunner().invoke(compare_rules, ["--day", DAY])
    assert ran.exit_code == 1
    assert f"CompareError: comparing {DAY} of {CORE}: the lake came back from a backup" in ran.output
    ran = CliRunner().invoke(compare_rules, [])
    assert "1 day(s) are left out: the restored lake has to load them again." in ran.output
    assert (ran.exit_code, "would" in ran.output) == (0, False)


def test_the_nightly_comparison_finds_a_restore_after_which_nothing_lands(
    restored: Restored, instance: dg.DagsterInstance
) -> None:
    def compare() -> dg.ExecuteInProcessResult:
        return defs.resolve_job_def("compare_days").execute_in_process(instance=instance, raise_on_error=False)

    conn = restored.hand.conn
    lake.mark_read(conn, TOPIC, MARTS_READER, day=date.fromisoformat(DAY), batches={0: 1})  # it was, before the backup
    assert "RestoredError" in restored.refused(compare())
    restored.tell()
    differs = [each for each in compare().get_asset_check_evaluations() if not each.passed]
    assert "landed_equals_core" in {each.check_name for each in differs}


def test_the_status_tells_of_a_restore_until_it_was_told(
    restored: Restored, line_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_restored(dsn: str) -> bool | None:
        found: bool | None = asking.ask_warehouse({**restored.env, "LAKE_DSN": dsn})["is_lake_restored"]
        return found

    monkeypatch.setenv("LAKE_DSN", restored.dsn)
    assert is_restored(line_env["LAKE_DSN"]) is False, "the lake that was not restored"
    assert is_restored(restored.dsn) is True
    restored.hand.land(EVENTS[1:3])
    assert is_restored(restored.dsn) is True
    assert is_restored(f"{restored.dsn}_that_is_not_there") is None
    restored.tell()
    assert is_restored(restored.dsn) is False


def test_numbers_that_are_used_up_are_refused_and_nothing_is_changed(landing: HandLanding) -> None:
    landing.land([event()])
    landing.land([event()], topic_partition=1)
    with landing.conn.cursor() as cursor:
        cursor.execute("UPDATE control.offset SET next_batch = %s WHERE topic_partition = 1", [LAST_BATCH])
    landing.conn.commit()
    with pytest.raises(LandingError, match=r"retail\.invoices/1 .* Nothing was changed"):
        number_anew(landing.conn)
    assert [part.batches for day in lake.landed_days(landing.conn, "retail.invoices") for part in [day]] == [
        {0: 1, 1: 1}
    ]
    with landing.conn.cursor() as cursor:
        cursor.execute("SELECT next_batch FROM control.offset WHERE topic_partition = 0")
        assert cursor.fetchone() == (2,)
