"""Publications of one table take turns: the slow one too, in the order of asking."""

from __future__ import annotations

import threading
import time
from datetime import date

import dagster as dg
import pytest

from orchestration.definitions import defs
from orchestration.defs.partitions import range_tags
from orchestration.defs.publish_turn import LOCK_SPACE, publish_turn
from orchestration.defs.resources import LakeResource
from tests.integration.orchestration.landing import HandLanding, event

pytestmark = pytest.mark.integration


def test_a_slow_publication_gets_its_turn_beside_one_that_publishes_all_the_time(line_env: dict[str, str]) -> None:
    lake, stop, turns = LakeResource(), threading.Event(), list[str]()

    def publish_often() -> None:
        while not stop.is_set():
            with publish_turn(lake, ["mart.fact"]) as is_ours:
                assert is_ours
                turns.append("often")
                time.sleep(0.05)

    often = threading.Thread(target=publish_often)
    often.start()
    try:
        for number in range(5):
            while turns.count("often") < 3 * (number + 1):
                time.sleep(0.01)
            before = turns.count("often")
            with publish_turn(lake, ["mart.sums", "mart.fact"]) as is_ours:
                assert is_ours
                assert turns.count("often") <= before + 2, "it waits for the turn at work, not for silence"
                held = turns.count("often")
                time.sleep(0.3)
                assert turns.count("often") == held, "nobody else meanwhile"
    finally:
        stop.set()
        often.join()


def test_other_tables_do_not_wait_and_nobody_waits_for_ever(line_env: dict[str, str]) -> None:
    lake = LakeResource()
    with publish_turn(lake, ["mart.fact"]):
        began = time.monotonic()
        with publish_turn(lake, ["mart.sums"]) as is_ours:
            assert is_ours
        assert time.monotonic() - began < 2
        with publish_turn(lake, ["mart.fact"], patience_s=0.4) as is_ours:
            assert not is_ours, "the fence decides then"
        assert 0.3 < time.monotonic() - began < 5
    with publish_turn(lake, ["mart.fact"]) as is_ours:
        assert is_ours


def test_two_who_ask_for_the_same_tables_in_other_orders_do_not_wait_for_each_other(line_env: dict[str, str]) -> None:
    lake, done = LakeResource(), list[bool]()

    def publish(*tables: str) -> None:
        for _ in range(20):
            with publish_turn(lake, tables, patience_s=20) as is_ours:
                done.append(is_ours)

    threads = [threading.Thread(target=publish, args=each) for each in (("a", "b", "c"), ("c", "b", "a"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [True] * 60


def test_a_run_waits_for_the_turn_of_its_marts(
    landing: HandLanding, instance: dg.DagsterInstance, line_env: dict[str, str]
) -> None:
    landing.land([event()])
    day, ended = date(2010, 12, 1), list[bool]()

    def run() -> None:
        job = defs.resolve_job_def("load_days")
        ended.append(job.execute_in_process(instance=instance, tags=range_tags(day, day), raise_on_error=False).success)

    def waiting() -> int:
        with landing.conn.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = %s AND NOT granted",
                (LOCK_SPACE,),
            )
            found = int(cursor.fetchone()[0])
        landing.conn.rollback()
        return found

    thread = threading.Thread(target=run)
    with publish_turn(LakeResource(), ["mart.invoice_lines"]):
        thread.start()
        while not waiting():
            assert thread.is_alive(), "it published without its turn"
            time.sleep(0.05)
    thread.join()
    assert ended == [True]
