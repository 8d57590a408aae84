"""Months that the contract keeps no longer leave landing, and nothing that is counted changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from streaming import lake, retention
from streaming.__main__ import main
from streaming.errors import MigrationError, RetiredError

from .rig import ROOT, line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .rig import Rig

NOW = datetime(2011, 3, 15, tzinfo=UTC)  # two months kept: January, February, March stay
OLD, YOUNG = date(2010, 12, 1), date(2011, 1, 1)
READER = "test"


def at(number: int, day: date) -> dict[str, object]:
    return line(number, invoiced_at=f"{day.isoformat()}T12:00:00Z")


def read_all(rig: Rig, reader: str = READER) -> None:
    with rig.connect() as conn:
        for day in lake.pending_days(conn, rig.topic, reader):
            lake.mark_read(conn, rig.topic, reader, day=day.event_day, batches=day.landed)


def retire(rig: Rig, **choices: bool) -> list[retention.Retired]:
    with rig.connect() as conn:
        return retention.retire(conn, replace(rig.contract, retention_months=2), now=NOW, **choices)


@contextmanager
def read_during_retention(rig: Rig, monkeypatch: pytest.MonkeyPatch, *questions: Callable[..., Any]) -> Iterator[Any]:
    """Ask about the old day when a retention holds the table already; gives the answers, which wait for its end."""
    remember, asked = retention._remember, list[Future[Any]]()
    waiting = (
        f"SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'landing.{rig.contract.stream}'::regclass"
    )

    with ThreadPoolExecutor() as threads, ExitStack() as stack:
        conns = [stack.enter_context(rig.connect()) for _ in questions]

        def remember_while_they_wait(*month: Any) -> None:
            for conn, question in zip(conns, questions, strict=True):
                asked.append(threads.submit(question, conn, rig.topic, day=OLD))
            rig.wait(lambda: rig.query(waiting) == [(len(questions),)], what="the readers to wait")
            remember(*month)

        with monkeypatch.context() as patched:
            patched.setattr(retention, "_remember", remember_while_they_wait)
            yield asked


def test_old_months_go_and_counts_checksums_and_pending_days_stay(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.send([at(n, OLD) for n in range(40)] + [at(n, YOUNG) for n in range(40, 50)])
    rig.land()
    read_all(rig)
    with rig.connect() as conn:
        before = lake.day_checksum(conn, rig.topic, OLD), lake.landed_days(conn, rig.topic)
    assert retire(rig, is_trial=True) == [retention.Retired(rig.topic, OLD, 40)]
    with read_during_retention(rig, monkeypatch, lake.read_events, lake.day_checksum) as asked:
        assert retire(rig) == [retention.Retired(rig.topic, OLD, 40)]
        read, counted = asked
        with pytest.raises(RetiredError, match="40 of its rows"):
            read.result()
        assert counted.result() == before[0]
    assert rig.query(f"SELECT event_day, count(*) FROM landing.{rig.contract.stream} GROUP BY 1") == [(YOUNG, 10)]
    with rig.connect() as conn:
        assert (lake.day_checksum(conn, rig.topic, OLD), lake.landed_days(conn, rig.topic)) == before
        assert lake.pending_days(conn, rig.topic, READER) == []
        counts = lake.topic_counts(conn, rig.topic)
        assert sum(c.landed for c in counts) == 50
        assert all(c.is_closed for c in counts)
        with pytest.raises(RetiredError, match="40 of its rows"):
            lake.read_events(conn, rig.topic, day=OLD)
        assert lake.read_events(conn, rig.topic, day=YOUNG).num_rows == 10
    assert retire(rig) == []


def test_a_late_event_of_a_retired_month_lands_is_pending_and_is_read_alone(rig: Rig) -> None:
    rig.send([at(n, OLD) for n in range(40)])
    rig.land()
    read_all(rig)
    with rig.connect() as conn:
        read = lake.landed_days(conn, rig.topic)[0].batches
        checksum = lake.day_checksum(conn, rig.topic, OLD)
    with rig.landing() as consumer:  # its writer knows the month; it is dropped under it
        rig.wait(lambda: len(consumer.state()["topic_partitions"]) == 4, what="assignment")
        retire(rig)
        rig.send([at(99, OLD)])
        rig.wait(lambda: rig.accounted() == 41, what="landing")
    with rig.connect() as conn:
        (pending,) = lake.pending_days(conn, rig.topic, READER)
        assert pending.rows_landed == 41
        assert lake.read_events(conn, rig.topic, day=OLD, after=read, upto=pending.landed).num_rows == 1
        rows, both = lake.day_checksum(conn, rig.topic, OLD)
        assert rows == 41
        with pytest.raises(RetiredError):
            lake.read_events(conn, rig.topic, day=OLD, upto=pending.landed)
    read_all(rig)
    assert retire(rig) == [retention.Retired(rig.topic, OLD, 1)]
    with rig.connect() as conn:
        assert lake.day_checksum(conn, rig.topic, OLD) == (41, both)
        assert both > checksum[1]


def test_a_month_that_a_reader_has_not_read_stays(rig: Rig) -> None:
    rig.send([at(n, OLD) for n in range(8)])
    rig.land()
    read_all(rig)
    rig.send([at(n, OLD) for n in range(8, 9)])
    rig.land()
    (kept,) = retire(rig)
    assert kept.kept_because == f"{READER} has not read {OLD}"
    assert rig.query(f"SELECT count(*) FROM landing.{rig.contract.stream}") == [(9,)]


def test_a_month_that_nobody_has_read_stays_for_the_first_reader(rig: Rig) -> None:
    """A backfill of old days may land, and retention run, before the warehouse loads the topic for the first time."""
    rig.send([at(n, OLD) for n in range(8)])
    rig.land()
    (kept,) = retire(rig)
    assert kept == retention.Retired(rig.topic, OLD, 8, "nobody has read the topic yet")
    with rig.connect() as conn:
        (pending,) = lake.pending_days(conn, rig.topic, READER)
        assert lake.read_events(conn, rig.topic, day=OLD, upto=pending.landed).num_rows == 8
    assert retire(rig, is_read_by_nobody=True, is_trial=True) == [retention.Retired(rig.topic, OLD, 8)]
    assert retire(rig, is_read_by_nobody=True) == [retention.Retired(rig.topic, OLD, 8)]
    assert retire(rig) == []


def test_letting_go_what_nobody_reads_keeps_what_a_reader_has_not_read(rig: Rig) -> None:
    rig.send([at(n, OLD) for n in range(8)])
    rig.land()
    read_all(rig)
    rig.send([at(8, OLD)])
    rig.land()
    (kept,) = retire(rig, is_read_by_nobody=True)
    assert kept.kept_because == f"{READER} has not read {OLD}"


@pytest.mark.parametrize("change", [{"topic": "renamed"}, {"stream": "renamed"}])
def test_months_of_a_table_that_is_another_topic_s_stay(rig: Rig, change: dict[str, str]) -> None:
    """A topic that was renamed in its contract has no readers yet, and would seem to have been read by everybody."""
    rig.send([at(1, OLD)])
    rig.land()
    contract = replace(rig.contract, retention_months=2, **change)
    with rig.connect() as conn, pytest.raises(MigrationError, match="Nothing was retired"):
        retention.retire(conn, contract, now=NOW)
    rig.assert_exact(1)


def test_without_retention_nothing_goes(rig: Rig) -> None:
    rig.send([at(n, OLD) for n in range(4)])
    rig.land()
    with rig.connect() as conn:
        assert retention.retire(conn, rig.contract, now=NOW) == []


@pytest.mark.parametrize(
    ("now", "months", "oldest"),
    [
        (datetime(2026, 1, 31, 23, 30, tzinfo=UTC), 1, date(2025, 12, 1)),
        (datetime(2026, 3, 31, 23, 30, tzinfo=UTC), 1, date(2026, 3, 1)),  # April already in London
        (datetime(2026, 1, 1, tzinfo=UTC), 13, date(2024, 12, 1)),
    ],
)
def test_the_oldest_month_that_is_kept_is_counted_in_the_contract_s_zone(
    now: datetime, months: int, oldest: date
) -> None:
    assert retention.oldest_kept_month(now, "Europe/London", months) == oldest


def run(rig: Rig, *arguments: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "streaming", *arguments], env={**os.environ, **rig.env, **env}, cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_status_tells_sizes_days_lag_dead_letters_and_gaps(rig: Rig) -> None:
    rig.send([at(n, OLD) for n in range(40)] + [b"{broken"] + [at(n, YOUNG) for n in range(10)])
    rig.land()
    rig.send([at(n, YOUNG) for n in range(7)])
    found = json.loads(run(rig, "lake", "status", "--json"))[rig.topic]
    assert (found["rows"], found["dead_letters"], found["gap_offsets"], found["lag_events"]) == (50, 1, 0, 7)
    assert (found["oldest_day"], found["newest_day"], found["months"]) == ("2010-12-01", "2011-01-01", 2)
    assert 0 < found["lag_s"] < 600
    assert found["table_bytes"] > 8_192
    assert found["index_bytes"] > 8_192
    assert found["batches"] == len(rig.query("SELECT FROM control.batch"))
    assert found["is_closed"]
    assert sum(each["landed"] for each in found["topic_partitions"]) == 50
    without = json.loads(run(rig, "lake", "status", "--json", KAFKA_BOOTSTRAP_SERVERS=""))[rig.topic]
    assert (without["rows"], without["lag_events"], without["lag_s"]) == (50, None, None)
    assert "7 events" in run(rig, "lake", "status")


def test_the_command_retires_by_the_contract_and_tells_what_it_would_do(rig: Rig) -> None:
    path = rig.contracts_dir / f"{rig.topic}.yaml"
    text = path.read_text() + "  - property: retentionMonths\n    value: 3\n"
    path.write_text(text)
    rig.send([at(n, OLD) for n in range(12)])
    rig.land()
    kept = f"kept {rig.topic} 2010-12: nobody has read the topic yet\n"
    assert run(rig, "lake", "retire", "--dry-run") == run(rig, "lake", "retire") == kept
    assert run(rig, "lake", "retire", "--unread", "--dry-run") == f"would retire {rig.topic} 2010-12: 12 rows\n"
    assert run(rig, "lake", "retire", "--unread") == f"retired {rig.topic} 2010-12: 12 rows\n"
    assert run(rig, "lake", "retire") == "nothing is older than its contract keeps\n"
    status = json.loads(run(rig, "lake", "status", "--json"))[rig.topic]
    assert (status["rows"], status["retired_rows"], status["months"]) == (12, 12, 0)


def test_a_topic_that_cannot_be_retired_keeps_no_other_one_s_months(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LOCK_TIMEOUT_S", 0.2)
    path = rig.contracts_dir / f"{rig.topic}.yaml"
    path.write_text(path.read_text() + "  - property: retentionMonths\n    value: 3\n")
    first = path.read_text().replace(rig.topic, "a.first").replace(f"name: {rig.contract.stream}", "name: a_first")
    (rig.contracts_dir / "a.first.yaml").write_text(first)
    rig.migrate()
    for stream in ("a_first", rig.contract.stream):
        rig.execute("SELECT control.ensure_landing_partition(%s, '2010-12-01')", stream)
    with rig.connect() as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM landing.a_first")
        found = CliRunner().invoke(main, ["lake", "retire", "--unread"], env=rig.env)
    assert found.exit_code == 1, found.output
    assert "retiring months before" in found.output
    assert f"retired {rig.topic} 2010-12: 0 rows" in found.output


def test_a_topic_of_which_nothing_has_landed_is_not_told_as_well(rig: Rig) -> None:
    rig.send(line(number) for number in range(7))
    said = run(rig, "lake", "status")
    assert "7 events, none has landed yet" in said
    assert "nothing has landed" in said
    assert json.loads(run(rig, "lake", "status", "--json"))[rig.topic]["lag_s"] is None
    rig.land()
    assert "nothing has landed" not in run(rig, "lake", "status")
