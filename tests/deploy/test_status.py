"""The line's state in words and numbers: what is told, how bad it is said to be, and that the alerts say the same."""

from __future__ import annotations

import io
import json
import socket
from contextlib import closing
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from email.message import Message
from types import SimpleNamespace
from urllib.error import HTTPError

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, TIMESTAMP_NOT_AVAILABLE
from prometheus_client.parser import text_string_to_metric_families

from dbt_like_sql.reconcile import DayTotals, Reconciliation, record
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import open_warehouse
from deploy.status import ask as asking
from deploy.status.exposition import NAMES, expose
from deploy.status.facts import PARTS, Facts, Level, Limits, describe, judge, span
from streaming import lake, migrate
from streaming.contract import load_contracts

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
WELL = Facts(
    asked_at=NOW, unlanded=0, landed_rows=1_000, dead_letters=0, lost_offsets=0, newly_lost_offsets=0, unaccounted=0,
    newest_landed_at=NOW, pending_days=0, is_daemon_alive=True, is_code_loaded=True, failed_runs=0, runs_at_work=1,
    days=3, uncompared_days=0, mart_rows=1_000, mart_as_of=NOW, report_as_of=NOW, refreshed_at=NOW,
    is_refresh_failed=False, is_lake_restored=False,
)  # fmt: skip
AN_HOUR_AGO = NOW - timedelta(hours=1)


def test_a_loss_of_long_ago_is_counted_but_no_finding_any_more() -> None:
    facts = replace(WELL, lost_offsets=490)
    assert judge(facts) == []
    assert "490 lost" in describe(facts, [])


def test_a_line_without_findings_is_well() -> None:
    assert judge(WELL) == []
    assert describe(WELL, []).startswith("The line is WELL ")


@pytest.mark.parametrize(
    ("change", "level", "part", "word"),
    [
        ({"unlanded": 10_001}, Level.LATE, "kafka", "10,001 events wait"),
        (
            {"unlanded": 3, "waiting_since": AN_HOUR_AGO},
            Level.LATE,
            "kafka",
            "3 events wait to be landed, the first for 1 h",
        ),
        ({"lost_offsets": 9, "newly_lost_offsets": 1}, Level.BROKEN, "lake", "deleted from Kafka"),
        ({"unaccounted": -1}, Level.BROKEN, "lake", "neither landed"),
        ({"is_lake_restored": True}, Level.BROKEN, "lake", "streaming lake restored"),
        ({"dead_letters": 2}, Level.LOOK, "lake", "2 dead letters"),
        ({"is_daemon_alive": False}, Level.BROKEN, "dagster", "silent"),
        ({"is_code_loaded": False}, Level.BROKEN, "dagster", "does not load"),
        ({"pending_days": 2, "oldest_pending_at": AN_HOUR_AGO}, Level.LATE, "dagster", "1 h 0 min"),
        ({"failed_runs": 5}, Level.LOOK, "dagster", "5 runs failed"),
        ({"differing_days": ("2010-12-01",)}, Level.BROKEN, "warehouse", "2010-12-01"),
        ({"uncompared_since": AN_HOUR_AGO}, Level.LOOK, "warehouse", "loaded 1 h 0 min ago and not compared since"),
        ({"mart_as_of": AN_HOUR_AGO}, Level.LATE, "warehouse", "1 h 0 min behind"),
        ({"is_refresh_failed": True}, Level.LATE, "report", "refresh failed"),
        ({"report_as_of": NOW - timedelta(hours=2)}, Level.LATE, "report", "2 h 0 min behind"),
        ({"troubles": {"kafka": "refused"}}, Level.BROKEN, "kafka", "refused"),
    ],
)
def test_each_trouble_is_told_once_with_its_part_and_weight(
    change: dict[str, object], level: Level, part: str, word: str
) -> None:
    (finding,) = judge(replace(WELL, **change))  # type: ignore[arg-type]
    assert (finding.level, finding.part) == (level, part)
    assert word in str(finding)


@pytest.mark.parametrize(
    "change",
    [
        {"unlanded": 10_000},
        {"unlanded": 3, "waiting_since": NOW - timedelta(seconds=120)},
        {"pending_days": 1, "oldest_pending_at": NOW - timedelta(seconds=900)},
        {"uncompared_days": 1, "uncompared_since": NOW - timedelta(seconds=900)},
        {"mart_as_of": NOW - timedelta(seconds=900)},
        {"report_as_of": NOW - timedelta(seconds=3_600)},
        {"failed_runs": 4},
        {"mart_as_of": None, "report_as_of": None, "refreshed_at": None, "newest_landed_at": None},
    ],
)
def test_nothing_is_told_at_a_limit_or_before_the_first_event(change: dict[str, object]) -> None:
    assert judge(replace(WELL, **change)) == []  # type: ignore[arg-type]


def test_the_worst_comes_first_and_names_the_line() -> None:
    facts = replace(WELL, dead_letters=1, differing_days=("2010-12-01",), is_refresh_failed=True)
    findings = judge(facts)
    assert [finding.level for finding in findings] == [Level.BROKEN, Level.LATE, Level.LOOK]
    assert describe(facts, findings).startswith("The line is BROKEN")


def test_rows_of_the_last_comparison_are_not_told_as_the_marts_of_now() -> None:
    facts = replace(WELL, days=2, uncompared_days=1, mart_rows=299, landed_rows=53_481)
    [line] = [each for each in describe(facts, []).splitlines() if "warehouse" in each]
    assert "2 days, 0 differ, 1 not compared yet (299 rows compared); marts as of" in line


def test_the_status_stays_about_ten_lines_however_bad_it_is() -> None:
    facts = replace(
        WELL,
        troubles=dict.fromkeys(PARTS, "no"),
        dead_letters=1,
        newly_lost_offsets=1,
        failed_runs=9,
        is_refresh_failed=True,
    )
    assert len(describe(facts, judge(facts)).splitlines()) <= 12


def test_what_is_not_known_is_neither_zero_nor_well() -> None:
    facts = Facts(asked_at=NOW, troubles={"lake": "refused"})
    assert "? events landed" not in describe(facts, judge(facts))  # the trouble stands in its place
    page = {family.name: family for family in text_string_to_metric_families(expose(facts).decode())}
    assert "line_dead_letters_open" not in page
    assert "line_oldest_pending_seconds" not in page
    assert {sample.labels["part"]: sample.value for sample in page["line_part_up"].samples}["lake"] == 0.0


def test_every_name_is_exposed_when_everything_is_known() -> None:
    page = {family.name: family for family in text_string_to_metric_families(expose(WELL).decode())}
    assert set(page) == {f"line_{name}" for name in NAMES} | {"line_part_up"}
    assert page["line_report_behind_seconds"].samples[0].value == 0.0


def test_every_limit_is_looked_at() -> None:
    """A limit of zero in any field must tell of a line that is a little off; else the field is dead."""
    a_little = replace(
        WELL, unlanded=1, waiting_since=NOW - timedelta(seconds=1), pending_days=1,
        oldest_pending_at=NOW - timedelta(seconds=1), failed_runs=1,
        mart_as_of=NOW - timedelta(seconds=1), report_as_of=NOW - timedelta(seconds=1),
    )  # fmt: skip
    assert judge(a_little) == []
    for field in fields(Limits):
        strict = Limits(**{field.name: 1 if field.name == "failed_runs" else 0})  # type: ignore[arg-type]
        assert len(judge(a_little, strict)) == 1, field.name


def test_a_part_that_does_not_answer_costs_its_own_facts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> dict[str, object]:
        raise ConnectionError("refused\n  by the host")

    questions = dict.fromkeys(PARTS, refuse) | {"lake": lambda _: {"landed_rows": 7, "dead_letters": 0}}
    monkeypatch.setattr(asking, "QUESTIONS", questions)
    facts = asking.ask({})
    assert facts.landed_rows == 7
    assert set(facts.troubles) == set(PARTS) - {"lake"}
    assert facts.troubles["kafka"] == "ConnectionError: refused by the host"


@pytest.mark.parametrize(
    ("beats_s_ago", "is_alive"), [((5.0, 20.0), True), ((130.0, 150.0), False), ((20.0, 1_700.0), True), ((), False)]
)
def test_a_daemon_that_has_not_beaten_for_two_minutes_is_silent_though_dagster_still_calls_it_healthy(
    monkeypatch: pytest.MonkeyPatch, beats_s_ago: tuple[float, ...], *, is_alive: bool
) -> None:
    at = datetime.now(UTC).timestamp()
    daemons = [{"required": True, "healthy": True, "lastHeartbeatTime": at - each} for each in beats_s_ago]
    unused = {"required": False, "healthy": None, "lastHeartbeatTime": None}
    data = {
        "instance": {"daemonHealth": {"allDaemonStatuses": [*daemons, unused]}},
        "workspaceOrError": {}, "failed": {}, "work": {},
    }  # fmt: skip
    answer = json.dumps({"data": data}).encode()
    monkeypatch.setattr(asking.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(answer))
    assert asking.ask_dagster({"DAGSTER_URL": "http://dagster"})["is_daemon_alive"] is is_alive


@pytest.mark.parametrize(("codes", "is_told"), [((500,), False), ((500, 500), True), ((502,), True)])
def test_a_webserver_that_met_a_connection_from_before_a_restart_is_asked_once_more(
    monkeypatch: pytest.MonkeyPatch, codes: tuple[int, ...], *, is_told: bool
) -> None:
    data = {
        "instance": {"daemonHealth": {"allDaemonStatuses": []}},
        "workspaceOrError": {}, "failed": {"results": []}, "work": {},
    }  # fmt: skip
    answers = [*codes, 200]

    def answer(*_: object, **__: object) -> io.BytesIO:
        code = answers.pop(0)
        if code != 200:
            raise HTTPError("http://dagster/graphql", code, "it says why", Message(), None)
        return io.BytesIO(json.dumps({"data": data}).encode())

    monkeypatch.setattr(asking.urllib.request, "urlopen", answer)
    monkeypatch.setattr(asking, "QUESTIONS", {"dagster": asking.ask_dagster})
    facts = asking.ask({"DAGSTER_URL": "http://dagster"})
    assert facts.troubles == ({"dagster": f"HTTPError: HTTP Error {codes[-1]}: it says why"} if is_told else {})


@pytest.mark.parametrize(
    ("stamp", "since"),
    [
        ((TIMESTAMP_LOG_APPEND_TIME, 1_500), datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)),
        ((TIMESTAMP_NOT_AVAILABLE, -1), None),
        ((TIMESTAMP_CREATE_TIME, 1_796_000_000_000_000), None),  # microseconds for milliseconds
    ],
)
def test_a_waiting_message_that_does_not_say_when_it_was_produced_is_no_trouble_of_kafka_s(
    stamp: tuple[int, int], since: datetime | None
) -> None:
    message = SimpleNamespace(error=lambda: None, timestamp=lambda: stamp)
    consumer = SimpleNamespace(assign=lambda _: None, poll=lambda _: message)
    assert asking._produced_at(consumer, None) == since


def test_a_loss_is_new_for_seven_days_and_counted_for_ever(lake_dsn: str) -> None:
    topic = "retail.invoices"
    with closing(lake.connect(lake_dsn, application_name="test")) as conn:
        migrate.migrate(conn, load_contracts().values())
        with conn, conn.cursor() as cursor:
            cursor.execute(
                "INSERT INTO control.gap (topic, topic_partition, first_offset, last_offset, kind, detail, found_at) "
                "VALUES (%(t)s, 0, 0, 6, 'below_log_start', '', now() - interval '8 days'),"
                " (%(t)s, 0, 7, 9, 'below_log_start', '', now() - interval '6 days'),"
                " (%(t)s, 0, 10, 29, 'tombstone', '', now())",
                {"t": topic},
            )
            cursor.execute(
                "INSERT INTO control.offset (topic, topic_partition, first_offset, next_offset) VALUES (%s, 0, 0, 30)",
                (topic,),
            )
    found = asking.ask_lake({"LAKE_DSN": lake_dsn})
    assert (found["newly_lost_offsets"], found["lost_offsets"]) == (3, 10)


def test_a_day_waits_since_its_first_batch_that_was_not_read_however_many_follow(lake_dsn: str) -> None:
    with closing(lake.connect(lake_dsn, application_name="test")) as conn:
        migrate.migrate(conn, load_contracts().values())
        with conn, conn.cursor() as cursor:
            for batch, minutes in ((1, 90), (2, 60), (3, 0)):
                cursor.execute(
                    "INSERT INTO control.batch (topic, topic_partition, batch, first_offset, last_offset, rows, "
                    "dead_letters, gap_offsets, payload_bytes, landed_at) "
                    "VALUES ('t', 0, %s, %s, %s, 1, 0, 0, 1, now() - %s * interval '1 minute')",
                    (batch, batch, batch, minutes),
                )
                cursor.execute(
                    "INSERT INTO control.batch_day (topic, topic_partition, batch, event_day, rows, first_offset, "
                    "last_offset) VALUES ('t', 0, %s, '2010-12-01', 1, %s, %s)",
                    (batch, batch, batch),
                )
            cursor.execute(
                "INSERT INTO control.landed_day (topic, event_day, topic_partition, rows, payload_bytes, first_offset, "
                "last_offset, last_batch) VALUES ('t', '2010-12-01', 0, 3, 3, 1, 3, 3)"
            )

        def waits_for_minutes(read: int | None) -> tuple[int, int]:
            with conn, conn.cursor() as cursor:
                cursor.execute("DELETE FROM control.reader_day")
                if read is not None:
                    cursor.execute(
                        "INSERT INTO control.reader_day (topic, reader, event_day, topic_partition, batch, updated_at) "
                        "VALUES ('t', %s, '2010-12-01', 0, %s, now() - interval '5 minutes')",
                        (asking.READER, read),
                    )
            found = asking.ask_lake({"LAKE_DSN": lake_dsn})
            oldest = found["oldest_pending_at"]
            age = 0 if oldest is None else round((datetime.now(UTC) - oldest).total_seconds() / 60)
            return found["pending_days"], age

        assert [waits_for_minutes(read) for read in (None, 1, 2, 3)] == [(1, 90), (1, 60), (1, 0), (0, 0)]
        assert waits_for_minutes(0) == (1, 5), "its mark was taken back five minutes ago, what landed is no news"


def test_a_day_differs_by_its_comparison_s_word_whatever_the_counts_say(migrated_env: dict[str, str]) -> None:
    """Days of equal counts: an amount or another mart may differ. A day loaded since, or never compared, does not."""
    warehouse = open_warehouse(WarehouseSettings.from_env(migrated_env))
    agrees, differs, loaded_since, never = (date(2010, 12, number) for number in (1, 2, 3, 4))
    shop, web = ("core.invoice_lines", "retail.invoices"), ("core.visits", "web.visits")
    days = ", ".join(
        f"('{table}', '{topic}', DATE '{day}', {version}, 'run', '1', TIMESTAMP '{at.isoformat()}')"
        for (table, topic), day, version, at in (
            (shop, agrees, 1, NOW - timedelta(days=2)),
            (shop, differs, 1, NOW),
            (shop, loaded_since, 2, AN_HOUR_AGO),
            (shop, never, 1, NOW),
            (web, agrees, 1, NOW),
            (web, loaded_since, 1, NOW),
        )
    )
    columns = "table_name, topic, event_day, version, run_id, code_version, changed_at"
    warehouse.run(f"INSERT INTO `{warehouse.table_id('control.day')}` ({columns}) VALUES {days}")
    same = [
        Reconciliation(
            topic, table, day, landed_rows=5, landed_checksum=9, dead_letter_rows=0, is_reconciled=is_reconciled,
            core=DayTotals(day, rows=5, checksum=9, version=1), mart=DayTotals(day, rows=5),
        )
        for (table, topic), day, is_reconciled in (
            (shop, agrees, True), (shop, differs, False), (shop, loaded_since, True),
            (web, agrees, False), (web, loaded_since, True),
        )
    ]  # fmt: skip
    record(warehouse, same, run_id="run")
    found = asking.ask_warehouse(migrated_env)
    assert (found["days"], found["differing_days"], found["uncompared_days"]) == (
        4,
        ("2010-12-01 of web.visits", "2010-12-02 of retail.invoices"),
        2,
    )
    assert found["uncompared_since"] == AN_HOUR_AGO, "what another stream has loaded since makes it no younger"
    findings = judge(replace(WELL, **{**found, "is_lake_restored": False, "mart_as_of": NOW}))
    assert [(each.level, each.what) for each in findings] == [
        (Level.BROKEN, "does not reconcile: 2010-12-01 of web.visits, 2010-12-02 of retail.invoices"),
        (Level.LOOK, "a day was loaded 1 h 0 min ago and not compared since: do its marts show it?"),
    ]


def test_a_part_that_hangs_is_called_silent_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts and never says a word

        def hang(_: object) -> dict[str, object]:
            with socket.create_connection(server.getsockname()) as peer:
                peer.recv(1)
            return {}

        monkeypatch.setattr(asking, "QUESTIONS", {"kafka": hang})
        facts = asking.ask({}, timeout_s=0.2)
    assert facts.troubles == {"kafka": "silent for 0 s"}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (3_599, "59 min"), (3_600, "1 h 0 min"), (180_000, "2 day(s) 2 h")],
)
def test_spans_read_as_people_say_them(seconds: float, words: str) -> None:
    assert span(seconds) == words
