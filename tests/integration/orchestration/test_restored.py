"""A lake that came back from a backup, with a warehouse that has seen more: nothing is lost, nothing counted twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from click.testing import CliRunner

from dbt_like_sql.reconcile import totals
from streaming import lake
from streaming.errors import LandingError
from streaming.lake_commands import lake_group
from streaming.restored import LAST_BATCH, number_anew
from tests.integration.orchestration.landing import HandLanding, event

if TYPE_CHECKING:
    from collections.abc import Callable

    import dagster as dg

    Run = Callable[..., dg.ExecuteInProcessResult]

pytestmark = pytest.mark.integration
DAY = "2010-12-01"


def _administrate(dsn: str, *statements: str) -> None:
    conn = psycopg2.connect(dsn.rpartition("/")[0] + "/postgres")
    conn.autocommit = True
    with conn.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    conn.close()


@pytest.mark.parametrize("is_told", [True, False])
def test_what_lands_again_after_a_restore_reaches_the_marts_once(
    line_env: dict[str, str],
    load_days: Run,
    warehouse: Any,
    monkeypatch: pytest.MonkeyPatch,
    is_told: bool,  # noqa: FBT001 a parameter of the test
) -> None:
    dsn = line_env["LAKE_DSN"]
    name = dsn.rpartition("/")[2]
    first, second, third = event(), event(line_no=2), event(line_no=3)
    hand = HandLanding(dsn)
    hand.land([first])
    hand.close()
    _administrate(dsn, f"CREATE DATABASE {name}_backup TEMPLATE {name}")
    hand = HandLanding(dsn)
    hand.next_offset[0] = 1
    hand.land([second])
    hand.close()
    assert load_days(DAY).success
    restored = f"{dsn.rpartition('/')[0]}/{name}_backup"
    monkeypatch.setenv("LAKE_DSN", restored)
    if is_told:
        told = CliRunner().invoke(lake_group, ["restored"])
        assert "retail.invoices/0: the next batch is 1,000,002" in told.output
    hand = HandLanding(restored)
    hand.next_offset[0] = 1
    hand.land([second, third])  # the consumer goes on from the offsets of the backup
    assert load_days(DAY).success
    hand.close()
    found = totals(warehouse)
    rows = 3 if is_told else 2  # without it, the batch's number stands for one that was read: why it is a command
    assert (found["core"]["rows"], found["mart"]["rows"]) == (rows, rows)
    _administrate(dsn, f"DROP DATABASE {name}_backup WITH (FORCE)")


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
