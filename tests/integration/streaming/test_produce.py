"""Producers against a real broker: nothing twice, nothing lost, clear errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from streaming import lake
from streaming.already_sent import read_already_sent
from streaming.settings import KafkaSettings

from .rig import ROOT, Rig, line

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"


def start(rig: Rig, *arguments: object, stdin: int | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "streaming", "produce", "--topic", rig.topic, *map(str, arguments)],
        env={**os.environ, **rig.env}, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(rig: Rig, *arguments: object, stdin: bytes | None = None) -> tuple[int, str, str]:
    process = start(rig, *arguments, stdin=subprocess.PIPE if stdin is not None else None)
    out, errors = process.communicate(stdin, timeout=100)
    return process.returncode, out.decode(), errors.decode()


def ids(rig: Rig) -> Counter[bytes]:
    return read_already_sent(KafkaSettings.from_env(rig.env), rig.topic).ids


def write_csv(folder: Path, rows: int) -> Path:
    folder.mkdir(exist_ok=True)
    lines = (f"{n // 7},A{n},B,1,2010-12-01 08:00:00,2.5,,UK\n" for n in range(rows))
    (folder / "a.csv").write_text(HEADER + "".join(lines))
    return folder


def test_a_killed_producer_started_again_with_resume_sends_each_event_once(rig: Rig, tmp_path: Path) -> None:
    # more than a slow machine has sent by the third kill: with 3,000 there was nothing left to wait for
    folder = write_csv(tmp_path / "csv", 12_000)
    for _ in range(3):
        sent = ids(rig).total()
        process = start(rig, "--csv", folder, "--resume", "--rate", "700")
        rig.wait(lambda sent=sent: ids(rig).total() > sent + 100, what="sending")  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = ids(rig)
    assert 0 < before.total() < 12_000
    code, out, _ = run(rig, "--csv", folder, "--resume", "--json")
    assert code == 0
    done = json.loads(out.splitlines()[-1])
    assert done["skipped"] == before.total()
    after = ids(rig)
    assert (len(after), after.total()) == (12_000, 12_000)


def test_a_changed_folder_is_told_and_no_row_is_sent_under_the_number_of_another(rig: Rig, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "csv", 21) / "a.csv"
    assert run(rig, "--csv", file)[0] == 0
    before = ids(rig)
    rows = file.read_text().splitlines()
    rows[3] = rows[3].replace("2.5", "99")  # of invoice 0
    rows.insert(9, "1,NEW,B,1,2010-12-01 08:00:00,1000,,UK")  # before the second of invoice 1: all behind it move
    rows.append("2,LAST,B,1,2010-12-01 08:00:00,2.5,,UK")  # only appended: invoice 2 grows
    file.write_text("\n".join(rows))
    code, out, errors = run(rig, "--csv", file, "--resume", "--json")
    assert code == 1
    done = json.loads(out.splitlines()[-1])
    assert (done["sent"], done["skipped"], done["changed"]) == (1, 14, 8)
    assert done["changed_at"] == [f"{file}:{number}" for number in (4, 10, 11, 12, 13)]
    assert f"{file}:4, {file}:10" in errors
    assert "were not sent, all others are" in " ".join(errors.split())
    after = ids(rig)
    assert (before - after, (after - before).total()) == (Counter(), 1)
    rig.land()
    newest = rig.query(f"SELECT stock_code FROM lake.{rig.contract.stream} ORDER BY unit_price DESC, stock_code DESC")
    assert (len(newest), newest[0]) == (22, ("LAST",))


def test_a_row_that_no_broker_takes_is_a_dead_letter_and_stops_nobody(rig: Rig, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "csv", 20) / "a.csv"
    text = file.read_text()
    huge = [
        f"8,A,{'x' * 1_100_000},1,2010-12-01 08:00:00,2.5,,UK\n",
        f"8,A,B,{'9' * 5_000},2010-12-01 08:00:00,2.5,,UK\n",
        f"{'8' * 1_100_000},A,B,1,2010-12-01 08:00:00,2.5,,UK\n",
        f"8,A,B,1,{'2' * 1_100_000},2.5,,UK\n",
    ]
    file.write_text(text + "".join(huge) + "9,A,B,1,2010-12-01 08:00:00,2.5,,UK\n")
    code, out, _ = run(rig, "--csv", file, "--json")
    assert (code, json.loads(out.splitlines()[-1])["sent"]) == (0, 25)
    code, out, _ = run(rig, "--csv", file, "--json", "--resume")
    done = json.loads(out.splitlines()[-1])
    assert (code, done["sent"], done["changed"]) == (0, 0, 0)
    rig.land()
    rig.assert_exact(21, dead=4)
    letters = rig.query("SELECT reason, value, headers ->> 2 FROM control.dead_letter WHERE reason = 'not_json'")
    assert len(letters) == 3
    for number, (_, value, headers) in zip((22, 24, 25), sorted(letters, key=lambda letter: letter[2]), strict=True):
        assert value.tobytes().startswith(b"too large for the broker: 1,100,")
        assert f"{file}:{number}" in headers


def test_what_is_left_out_of_the_folder_is_told(rig: Rig, tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "csv", 3)
    assert "left out" not in run(rig, "--csv", folder)[2]
    (folder / "more.csv.gz").touch()
    (folder / "copy.csv").write_bytes(next(folder.glob("*.csv")).read_bytes())
    code, out, errors = run(rig, "--csv", folder, "--json")
    assert code == 0
    assert "hold the same bytes: " in errors
    assert f"left out of {folder}, since only its .csv files are read: more.csv.gz." in errors
    done = json.loads(out.splitlines()[-1])
    assert (done["files"], done["left_out"], len(done["copies"]), done["overlaps"]) == (2, ["more.csv.gz"], 1, [])
    with (folder / "copy.csv").open("a") as copy:
        copy.write("999,A,B,1,2010-12-01 08:00,1.00,,France\n")
    assert "have whole invoices in common: " in run(rig, "--csv", folder, "--json")[2]


def test_without_resume_a_second_run_sends_repeats_with_the_same_ids(rig: Rig, tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "csv", 100)
    run(rig, "--csv", folder)
    run(rig, "--csv", folder)
    assert set(ids(rig).values()) == {2}


def test_a_terminated_producer_has_what_it_sent_acknowledged(rig: Rig) -> None:
    process = start(rig, "--shop", "--rate", "200", "--json")
    rig.wait(lambda: ids(rig).total() > 100, what="sending")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    sent = json.loads(out.splitlines()[-1])["sent"]
    assert sent > 100
    assert ids(rig).total() == sent


@pytest.mark.parametrize("arguments", [("--ndjson", "-"), ("--ndjson", "-", "--rate", "0.01")])
def test_a_producer_leaves_at_once_while_nothing_comes_or_is_due(rig: Rig, arguments: tuple[str, ...]) -> None:
    process = start(rig, *arguments, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(line(1)).encode() + b"\n" + json.dumps(line(2)).encode() + b"\nhalf a line")
    process.stdin.flush()
    try:
        rig.wait(lambda: ids(rig).total() >= 1, what="sending")
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.communicate()
    assert set(ids(rig)) <= {b"e1", b"e2"}, "of what a stop cut off nothing is sent"


def test_the_pace_is_kept(rig: Rig, tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "csv", 400)
    started = time.monotonic()
    assert run(rig, "--csv", folder, "--rate", "100")[0] == 0
    assert 3.9 < time.monotonic() - started < 12


def test_a_shop_with_broken_events_ends_in_rows_and_dead_letters_and_nothing_else(rig: Rig) -> None:
    code, out, _ = run(rig, "--shop", "--history-days", "3", "--events", "3000", "--broken", "0.05", "--late", "0.05",
                       "--duplicate", "0.05", "--json")  # fmt: skip
    assert code == 0
    assert json.loads(out.splitlines()[-1])["sent"] == 3_000
    summary = rig.land()
    assert summary.rows + summary.dead_letters == 3_000
    assert 90 < summary.dead_letters < 220
    rig.assert_exact(summary.rows, dead=summary.dead_letters)


def test_json_lines_travel_byte_for_byte_also_from_stdin(rig: Rig, tmp_path: Path) -> None:
    values = [json.dumps(line(n), indent=None).encode() for n in range(50)]
    values.insert(7, b"  not json \xff")
    assert run(rig, "--ndjson", "-", stdin=b"\r\n".join(values) + b"\n\n")[0] == 0
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(values))
    assert run(rig, "--ndjson", file, "--resume")[0] == 0
    assert set(ids(rig).values()) == {1}
    rig.land()
    rig.assert_exact(50, dead=1)
    assert rig.query("SELECT value FROM control.dead_letter")[0][0].tobytes() == b"  not json \xff"
    keys = rig.query(f"SELECT DISTINCT key FROM landing.{rig.contract.stream}")
    assert {row[0].tobytes() for row in keys} == {b"0", b"1", b"2", b"3", b"4"}, "the contract's message key"


def test_the_real_month_lands_to_the_penny(rig: Rig, retail_dir: Path) -> None:
    assert run(rig, "--csv", retail_dir)[0] == 0
    assert rig.land().rows == 42_481
    total, first = Decimal(0), None
    with rig.connect() as conn:
        for day in lake.landed_days(conn, rig.topic):
            events = lake.read_events(conn, rig.topic, day=day.event_day, upto=day.batches)
            assert events.num_rows == day.rows
            decoded = lake.decode_events(rig.contract, events)
            pairs = zip(decoded["quantity"].to_pylist(), decoded["unit_price"].to_pylist(), strict=True)
            total += sum(quantity * price for quantity, price in pairs)
            first = first or day.event_day
    assert total == Decimal("748957.02")
    assert str(first) == "2010-12-01"
    assert rig.query(f"SELECT sum(quantity * unit_price) FROM lake.{rig.contract.stream}") == [(Decimal("748957.02"),)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--csv", "/nowhere"), "does not exist"),
        (("--ndjson", "/nowhere"), "No such file"),
        (("--csv", ".", "--shop"), "choose one of"),
        (("--rate", "0"), "above 0, or max"),
    ],
)
def test_wrong_arguments_are_told(rig: Rig, arguments: tuple[str, ...], message: str) -> None:
    code, _, errors = run(rig, *arguments)
    assert code != 0
    assert message in errors
    assert "Traceback" not in errors


def test_a_topic_that_does_not_exist_is_told(rig: Rig, tmp_path: Path) -> None:
    rig.topic += "x"
    code, _, errors = run(rig, "--csv", write_csv(tmp_path / "csv", 1))
    assert code == 1
    assert "no such topic" in errors
    assert "streaming topic create" in errors


def test_missing_settings_are_all_told_at_once(rig: Rig) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "streaming", "consume"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "STREAMING_WRITERS": "many", "KAFKA_SECURITY_PROTOCOL": "SASL_SSL"},
    )  # fmt: skip
    assert process.returncode == 1
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "LAKE_DSN", "STREAMING_WRITERS=many", "KAFKA_SASL_MECHANISM"):
        assert name in process.stderr
    assert "Traceback" not in process.stderr
