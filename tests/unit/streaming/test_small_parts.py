"""Settings, pace, the dead-letter limit, JSON lines: the small pure parts."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import psycopg2
import psycopg2.errors
import pytest
import structlog

from streaming import stream_tables
from streaming.__main__ import _configure_logs, _tell_landing
from streaming.batch import Batch, prepare_batch
from streaming.database import connect, hide_password, is_outage, raise_landing_error
from streaming.dead_letter import DeadLetter, show_value
from streaming.dead_letter_file import Given, read_given
from streaming.decode import Decoder
from streaming.errors import DeadLetterLimitError, LakeUnavailableError, ReplayError, SettingsError
from streaming.produce import Outgoing, Pace
from streaming.refusal_window import RefusalWindow
from streaming.settings import KafkaSettings, LakeSettings, LandingSettings
from streaming.sources.ndjson import read_ndjson_events
from streaming.sources.piped import read_lines
from streaming.writer import Counts

from .events import NOW, FakeMessage, order_bytes, orders_contract

GOOD = {"KAFKA_BOOTSTRAP_SERVERS": "k:9092", "LAKE_DSN": "postgresql://u:p@h/lake"}


def test_settings_are_read_with_their_defaults() -> None:
    settings = LandingSettings.from_env(GOOD)
    assert (settings.group_id, settings.writers, settings.metrics_port) == ("landing", 1, None)
    assert settings.kafka.client_config() == {"bootstrap.servers": "k:9092", "security.protocol": "PLAINTEXT"}
    assert LandingSettings.from_env(GOOD | {"METRICS_PORT": "0"}).metrics_port == 0


def test_every_wrong_setting_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        LandingSettings.from_env(
            {
                "METRICS_PORT": "70000",
                "STREAMING_LINGER_S": "soon",
                "KAFKA_SECURITY_PROTOCOL": "TLS",
                "LAKE_DSN": "mysql://x",
            }
        )
    text = str(caught.value)
    assert "5 problem(s)" in text
    for name in (
        "METRICS_PORT",
        "STREAMING_LINGER_S",
        "KAFKA_SECURITY_PROTOCOL",
        "LAKE_DSN",
        "KAFKA_BOOTSTRAP_SERVERS",
    ):
        assert name in text


@pytest.mark.parametrize(
    ("protocol", "unused"),
    [
        ("PLAINTEXT", "KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD, KAFKA_SSL_CA_FILE are set"),
        ("SSL", "KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD are set"),
        ("SASL_PLAINTEXT", "KAFKA_SSL_CA_FILE is set"),
    ],
)
def test_what_the_protocol_would_leave_aside_is_told(tmp_path: Path, protocol: str, unused: str) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("-")
    given = {"KAFKA_SASL_USERNAME": "u", "KAFKA_SASL_PASSWORD": "p", "KAFKA_SSL_CA_FILE": str(authority)}
    with pytest.raises(SettingsError) as caught:
        KafkaSettings.from_env(GOOD | given | {"KAFKA_SECURITY_PROTOCOL": protocol})
    assert f"{unused}, but KAFKA_SECURITY_PROTOCOL={protocol} would not use" in str(caught.value)


def test_secrets_come_from_files_and_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2\n")
    env = GOOD | {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512", "KAFKA_SASL_USERNAME": "u",
        "KAFKA_SASL_PASSWORD_FILE": str(file),
    }  # fmt: skip
    settings = KafkaSettings.from_env(env)
    assert settings.client_config()["sasl.password"] == "hunter2"
    assert "hunter2" not in repr(settings)
    file.write_bytes(b"\xef\xbb\xbfhunter2\r\n")  # as Windows' editors write it
    assert KafkaSettings.from_env(env).client_config()["sasl.password"] == "hunter2"
    assert "p@h" not in repr(LakeSettings.from_env(GOOD))
    with pytest.raises(SettingsError, match="both set"):
        KafkaSettings.from_env(env | {"KAFKA_SASL_PASSWORD": "x"})
    with pytest.raises(SettingsError, match="cannot be read"):
        KafkaSettings.from_env(env | {"KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "none")})
    file.write_bytes(b"hunter\xff")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        KafkaSettings.from_env(env)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql://u:p%40ss@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("host=h password=hunter2 user=u", "host=h password=*** user=u"),
        ("host=h password='hunter 2' user=u", "host=h password=*** user=u"),
        ("postgresql://u:S3cr etPw@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:S3cr@et/Pw@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d?password=S3cr etPw&sslmode=disable", "postgresql://h/d?password=***&sslmode=disable"),
        ("postgresql://h:1/d?password=S3cr@etPw", "postgresql://h:1/d?password=***"),
        ("postgresql://h/d?sslpassword=S3cr&etPw", "postgresql://h/d?sslpassword=***"),
    ],
)
def test_passwords_are_hidden_in_messages(text: str, hidden: str) -> None:
    assert hide_password(text) == hidden


@pytest.mark.parametrize(
    ("dsn", "told", "shown"),
    [
        ("postgresql://u:S3cr etPw@h/d", 'connection to server at "h" failed', 'connection to server at "h" failed'),
        ("postgresql://u:S3cr%etPw@h/d", None, 'invalid percent-encoded token: "***"'),
        ("postgresql://u:S3cr@etPw@h/d", 'could not translate host name "etPw@h"', 'host name "***@h"'),
        ("postgresql://u:S3cr/etPw@h/d", 'invalid integer value "S3cr"', 'invalid integer value "***"'),
        ("postgresql://h/d?password=S3cr&etPw", None, 'in URI query parameter: "***"'),
    ],
)
def test_a_password_that_is_not_percent_encoded_is_not_told_in_parts_either(
    monkeypatch: pytest.MonkeyPatch, dsn: str, told: str | None, shown: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise psycopg2.OperationalError(told)

    if told:
        monkeypatch.setattr(psycopg2, "connect", refuse)  # what libpq says after it has looked for a host
    with pytest.raises(LakeUnavailableError) as caught:
        connect(dsn, application_name="test")
    text = "".join(traceback.format_exception(caught.value))
    assert shown in str(caught.value)
    assert "Percent-encode the password" in str(caught.value)
    assert "S3cr" not in text
    assert "etPw" not in text


def test_a_password_is_hidden_decoded_too() -> None:
    assert hide_password('wrong: "S3cr et/Pw"', "postgresql://u:S3cr%20et%2FPw@h/d") == 'wrong: "***"'


def test_what_the_lake_s_address_says_openly_stays_in_messages() -> None:
    dsn = "postgresql://lander:lander@h/lake"
    assert hide_password('FATAL: no role "lander"', dsn) == 'FATAL: no role "lander"'
    assert hide_password(f"reading {dsn}", dsn) == "reading postgresql://lander:***@h/lake"


def test_a_pace_spreads_events_evenly() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(10.0, clock=lambda: now[0], sleep=sleep)
    for _ in range(11):
        pace.wait()
    assert now[0] == pytest.approx(1.0)
    now[0] += 5.0
    before = len(slept)
    for _ in range(20):
        pace.wait()
    assert len(slept) == before, "who is late does not wait"


def batch(good: int, bad: int, *, start: int = 0) -> Batch:
    values = [order_bytes()] * good + [order_bytes(items="x")] * bad
    messages = [FakeMessage(start + number, value) for number, value in enumerate(values)]
    return prepare_batch(Decoder(orders_contract()), 0, messages, expected_offset=start, now=NOW)


def test_the_dead_letter_limit_looks_at_the_last_events_only() -> None:
    window = RefusalWindow("shop.orders", events=100, limit=0.2)
    window.add(batch(0, 50))
    window.add(batch(0, 0 + 10))
    with pytest.raises(DeadLetterLimitError, match=r"60 of the last 110 events.*wrong_type in items \(10 times\)"):
        window.add(batch(50, 0))
    window = RefusalWindow("shop.orders", events=100, limit=0.2)
    for _ in range(20):
        window.add(batch(80, 20))
    assert window.total == 100
    with pytest.raises(DeadLetterLimitError):
        window.add(batch(79, 21))


def test_few_events_are_not_judged() -> None:
    RefusalWindow("shop.orders", events=100, limit=0.0).add(batch(0, 99))


def test_no_limit_never_stops() -> None:
    RefusalWindow("shop.orders", events=10, limit=1.0).add(batch(0, 99))


def test_json_lines_take_key_and_id_from_the_contract() -> None:
    lines = [order_bytes(order_id="a") + b"\n", b"\n", b"not json\r\n", b'["list"]\n', order_bytes(order_id=7)]
    events = list(read_ndjson_events(lines, orders_contract(), name="x"))
    assert [event.key for event in events] == [b"a", None, None, b"7"]
    assert [event.where for event in events] == ["x:1", "x:3", "x:4", "x:5"]
    assert events[0].event_id == "a"
    assert events[0].event_time == "2026-11-24T11:00:00Z"
    assert events[1] == next(read_ndjson_events([b"not json"], orders_contract(), name="x")).__class__(
        None, b"not json", events[1].event_id, "", None, "x:3"
    )
    assert isinstance(events[1], Outgoing)


def test_a_byte_order_mark_is_no_part_of_the_first_event() -> None:
    lines = [b"\xef\xbb\xbf" + order_bytes(order_id="a") + b"\n", b"\xef\xbb\xbf" + order_bytes(order_id="b")]
    first, second = read_ndjson_events(lines, orders_contract(), name="x")
    assert first.value == order_bytes(order_id="a")
    assert second.value == lines[1], "within a file it is a fault, which the landing tells"


@pytest.mark.parametrize("cut", [3, 70_000, 1_000_000])
def test_lines_of_a_pipe_come_as_they_were_written(cut: int) -> None:
    written = b"a\n\n\r\nlong " + b"x" * 200_000 + b"\nlast"
    reader, writer = os.pipe()

    def write() -> None:
        for at in range(0, len(written), cut):
            os.write(writer, written[at : at + cut])
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    found = list(read_lines(reader, lambda: False))
    thread.join()
    os.close(reader)
    assert found == written.splitlines(keepends=True)


def test_half_a_character_in_an_event_is_sent_for_the_landing_to_refuse() -> None:
    lines = [order_bytes(order_id="half", ordered_at="half").replace(b"half", b"\\ud800")]
    (event,) = read_ndjson_events(lines, orders_contract(), name="x")
    assert event.value == lines[0]
    assert dict(event.headers()) == {"event-id": b"?", "event-time": b"?"}


def test_a_key_of_absurd_length_does_not_become_the_id_which_is_a_header() -> None:
    (event,) = read_ndjson_events([order_bytes(order_id="o" * 20_000)], orders_contract())
    assert len(event.event_id) == 36


def test_json_lines_of_a_topic_without_a_contract_have_ids_too() -> None:
    first, second = (next(read_ndjson_events([b'{"a":1}'], None)).event_id for _ in range(2))
    assert first == second


def test_breaking_changes_are_told_apart_from_additions() -> None:
    before = stream_tables.describe_fields(orders_contract())
    assert stream_tables.breaking_changes(before, orders_contract(), "Europe/London") == []
    wider = orders_contract(
        **{"name: order_id, logicalType: string, required: true,": "name: order_id, logicalType: string,"}
    )
    assert stream_tables.breaking_changes(before, wider, "Europe/London") == []
    assert len(stream_tables.breaking_changes(before, orders_contract(), "UTC")) == 1


def test_ddl_quotes_what_people_write() -> None:
    contract = orders_contract(
        **{"name: note, logicalType: string,": "name: note, logicalType: string, description: it's 100%,"}
    )
    assert "'it''s 100%'" in stream_tables.create_view(contract)


@pytest.mark.parametrize(
    ("error", "is_away"),
    [
        (psycopg2.OperationalError("the disk is full"), True),
        (psycopg2.InterfaceError("connection already closed"), True),
        (psycopg2.errors.AdminShutdown("terminating connection"), True),
        (psycopg2.errors.ReadOnlySqlTransaction("a standby"), True),
        (psycopg2.DatabaseError("server closed the connection unexpectedly"), True),  # while COMMIT is answered
        (psycopg2.errors.UndefinedTable("no such relation"), False),
        (psycopg2.errors.UniqueViolation("duplicate key"), False),
        (psycopg2.ProgrammingError("can't adapt type"), False),
        (psycopg2.InternalError("a fault of the server's"), False),
    ],
)
def test_a_lost_connection_is_an_outage_by_whatever_class_it_is_told(error: psycopg2.Error, *, is_away: bool) -> None:
    assert is_outage(error) is is_away


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (psycopg2.errors.QueryCanceled("canceling statement due to statement timeout"), "SET statement_timeout = 0"),
        (psycopg2.errors.ReadOnlySqlTransaction("cannot execute INSERT"), "leads to a standby"),
    ],
)
def test_an_outage_that_lasts_until_somebody_changes_a_setting_is_told_with_the_setting(
    error: psycopg2.Error, told: str
) -> None:
    with pytest.raises(LakeUnavailableError, match=f"landing: {error}. .*{told}.* it is tried again"):
        raise_landing_error(error, "landing")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "(no value)"),
        (b'{"n":12345678901234567890.123456789}', '{\n  "n": 12345678901234567890.123456789\n}'),
        (b'{"a":1,"a":"\\u00e4"}', '{\n  "a": 1,\n  "a": "\\u00e4"\n}'),
        (b"[" * 5_000, "[" * 5_000),
        (b"{'a': \xff}", "{'a': \\xff}"),
    ],
)
def test_a_dead_letter_is_shown_digit_for_digit(value: bytes | None, shown: str) -> None:
    letter = DeadLetter("t", 0, 0, "wrong_type", None, "", value, None, [], None, NOW, None, None)
    assert show_value(letter) == shown


LETTERS = 'topic,topic_partition,topic_offset,value\nt,3,18411,"{""a"": ""1,5;\t2""}"\n'


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_letters_come_back_from_a_spreadsheet(separator: str, mark: str) -> None:
    head, _, values = LETTERS.partition("\n")
    saved = (
        head.replace(",", separator) + "\r\n" + values.replace("t,3,18411,", separator.join(("t", "3", "18411", "")))
    )
    (letter,) = read_given(io.StringIO(mark + saved, newline=""), "csv", name="x")
    assert letter == Given("x line 2", "t", 3, 18411, b'{"a": "1,5;\t2"}', None)


def test_a_mark_before_letters_as_json_lines_does_no_harm() -> None:
    line = '\ufeff{"topic": "t", "topic_partition": 3, "topic_offset": 7}\n'
    (letter,) = read_given(io.StringIO(line), "ndjson", name="x")
    assert (letter.where, letter.topic_offset) == ("x line 1", 7)


def test_letters_without_their_columns_are_refused_with_what_was_found() -> None:
    with pytest.raises(ReplayError, match=r"topic_offset, topic_partition; found 'topic\|a', expected .* semicolons"):
        list(read_given(io.StringIO("topic|a\n"), "csv", name="x"))


class SmallDisk(io.StringIO):
    """A log whose disk is full for a while."""

    trouble: OSError | None = OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        if self.trouble is not None:
            self.truncate(0)
            self.seek(0)
            raise self.trouble


def test_a_full_disk_under_the_log_ends_nothing_and_is_told_with_the_next_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, disk = structlog.get_config(), SmallDisk()
    monkeypatch.setattr(sys, "stderr", disk)
    try:
        _configure_logs(is_json=True)
        log = structlog.get_logger()
        log.warning("lake_unavailable")
        log.warning("lake_unavailable")
        disk.trouble = None
        log.info("landed")
        log.info("landed")
        held_up = [json.loads(line).get("log_lines_held_up") for line in disk.getvalue().splitlines()]
        assert held_up == [2, None]
        disk.trouble = BrokenPipeError()
        with pytest.raises(BrokenPipeError):
            log.info("nobody reads it")
    finally:
        structlog.configure(**before)


class Teller:
    """A consumer that is asked for its numbers; `stop` is set once it was asked so often."""

    def __init__(self, stop: threading.Event, times: int) -> None:
        self.stop, self.asked, self.times = stop, 0, times

    def counts(self) -> Counts:
        self.asked += 1
        if self.asked == self.times:
            self.stop.set()
        return Counts(rows=self.asked)

    def state(self) -> dict[str, bool]:
        return {"ready": True}


@pytest.mark.parametrize(("problem", "printed"), [(errno.ENOSPC, [1, 3]), (errno.EPIPE, [1])])
def test_lines_that_stdout_does_not_take_end_neither_the_telling_nor_in_a_traceback(
    monkeypatch: pytest.MonkeyPatch, problem: int, printed: list[int]
) -> None:
    def echo(text: str) -> None:
        rows = json.loads(text)["rows"]
        if rows == 2:
            raise OSError(problem, os.strerror(problem))
        found.append(rows)

    found, stop = list[int](), threading.Event()
    monkeypatch.setattr("streaming.__main__.TELL_EVERY_S", 0.0)
    monkeypatch.setattr("streaming.__main__.click.echo", echo)
    _tell_landing(Teller(stop, 3), stop, is_json=True)
    assert found == printed


def test_a_process_that_is_stopped_leaves_in_time_though_nobody_takes_its_last_line() -> None:
    code = (
        "import os, signal, time\n"
        "from streaming.stopping import stopping\n"
        "with stopping(leaves_within_s=0.1):\n"
        "    print('held up', end='')\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(3)\n"
        "raise SystemExit('it stayed')\n"
    )
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONUNBUFFERED": ""}, stdout=full, stderr=subprocess.PIPE, check=False, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
