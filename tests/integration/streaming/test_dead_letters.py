"""Dead letters: each kind kept whole with its reason, mended by file, landed once."""

from __future__ import annotations

import base64
import csv
import dataclasses
import json
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from streaming import database, dead_letter, lake, replay
from streaming.__main__ import main
from streaming.decode import Decoder
from streaming.errors import DeadLetterLimitError, LakeUnavailableError, MigrationError

from .rig import Rig, line

pytestmark = pytest.mark.integration

HEADERS: list[tuple[str, bytes | None]] = [
    ("event-id", b"e"), ("twice", b"1"), ("twice", b"2"), ("none", None), ("empty", b""), ("raw", b"\xff\x00\x01"),
]  # fmt: skip
JUST_JSON = json.dumps(line(1)).encode()
KINDS: dict[str, tuple[bytes | None, str, str | None]] = {
    "no value": (None, "empty", None),
    "no bytes": (b"", "not_json", None),
    "not JSON": (b"{'a': 1}", "not_json", None),
    "cut JSON": (JUST_JSON[:-20], "not_json", None),
    "two documents": (JUST_JSON + JUST_JSON, "not_json", None),
    "not an object": (b"[1, 2]", "wrong_type", None),
    "NaN": (JUST_JSON.replace(b'"2.55"', b"NaN"), "not_json", None),
    "not UTF-8": (JUST_JSON.replace(b"WHITE", b"\xff\xfe"), "not_utf8", None),
    "NUL escaped": (JUST_JSON.replace(b"WHITE", b"\\u0000"), "nul_character", "description"),
    "NUL bare": (JUST_JSON.replace(b"WHITE", b"\0"), "not_json", None),
    "NUL in an unknown field": (JUST_JSON[:-1] + b', "x": {"y": ["\\u0000"]}}', "nul_character", "x"),
    "wrong type": (json.dumps(line(1, quantity="six")).encode(), "wrong_type", "quantity"),
    "fraction for a whole number": (json.dumps(line(1, quantity=1.5)).encode(), "wrong_type", "quantity"),
    "true for a number": (json.dumps(line(1, unit_price=True)).encode(), "wrong_type", "unit_price"),
    "null for a required field": (json.dumps(line(1, country=None)).encode(), "wrong_type", "country"),
    "missing field": (JUST_JSON.replace(b'"country"', b'"county"'), "missing_field", "country"),
    "out of range": (json.dumps(line(1, line_no=0)).encode(), "out_of_range", "line_no"),
    "too long": (json.dumps(line(1, customer_id="x" * 65)).encode(), "out_of_range", "customer_id"),
    "too many decimals": (json.dumps(line(1, unit_price="0.0000000001")).encode(), "too_precise", "unit_price"),
    "unknown enum value": (json.dumps(line(1, channel="fax")).encode(), "not_allowed", "channel"),
    "event time missing": (
        json.dumps({k: v for k, v in line(1).items() if k != "invoiced_at"}).encode(), "missing_field", "invoiced_at",
    ),
    "event time no time": (json.dumps(line(1, invoiced_at="yesterday")).encode(), "wrong_type", "invoiced_at"),
    "event time without a zone": (
        json.dumps(line(1, invoiced_at="2010-12-01T08:26:00")).encode(), "wrong_type", "invoiced_at",
    ),
    "event time of the middle ages": (
        json.dumps(line(1, invoiced_at="1066-10-14T09:00:00Z")).encode(), "event_time_too_early", "invoiced_at",
    ),
    "event time of the far future": (
        json.dumps(line(1, invoiced_at="9999-12-31T23:59:59Z")).encode(), "event_time_too_late", "invoiced_at",
    ),
    "oversized": (json.dumps(line(1, description="x" * 1_000_000)).encode(), "too_large", None),
    "nested too deep": (JUST_JSON[:-1] + b', "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "not_json", None),
}  # fmt: skip
DEEP = "[" * 5_000 + "]" * 5_000
ENUM = "      - {name: channel, logicalType: string, enum: [{value: web}, {value: till}]}\n"


@pytest.fixture
def letters_rig(rig: Rig) -> Rig:
    """The rig's contract, with an enumeration, and no limit to refusals."""
    path = rig.contracts_dir / f"{rig.topic}.yaml"
    text = path.read_text().replace("      - name: country\n", ENUM + "      - name: country\n")
    path.write_text(text.replace("value: 1000000", "value: 900000"))
    rig.migrate()
    return rig


def send(rig: Rig, values: list[bytes | None], *, partition: int = 2, headers: Any = HEADERS, **config: Any) -> None:
    producer = Producer({"bootstrap.servers": rig.bootstrap, "message.max.bytes": 2_000_000, **config})
    for number, value in enumerate(values):
        producer.produce(rig.topic, value, key=b"\xffkey\x00%d" % number, headers=headers, partition=partition)
    assert producer.flush(30) == 0


def run(rig: Rig, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["dead-letters", *arguments], env=rig.env)
    assert result.exit_code == code, result.output
    return result.output


def letters_of(rig: Rig, **more: Any) -> list[dead_letter.DeadLetter]:
    with rig.connect() as conn:
        return dead_letter.read_dead_letters(conn, rig.topic, **more)


def test_every_kind_is_kept_whole_with_its_reason(letters_rig: Rig, tmp_path: Path) -> None:
    """And comes out of both kinds of file as it went in."""
    rig, values = letters_rig, [value for value, _, _ in KINDS.values()]
    send(rig, values)
    assert rig.land(dead_letter_limit=1.0).rows == 0
    rig.assert_exact(0, dead=len(KINDS))
    letters = letters_of(rig)
    for number, (letter, (name, (value, reason, field))) in enumerate(zip(letters, KINDS.items(), strict=True)):
        assert (letter.topic, letter.topic_partition, letter.topic_offset) == (rig.topic, 2, number), name
        assert (letter.value, letter.key, letter.headers) == (value, b"\xffkey\x00%d" % number, HEADERS), name
        assert (letter.reason, letter.field) == (reason, field), (name, letter.detail)
        assert letter.detail, name
        assert letter.produced_at is not None
    exported(rig, tmp_path, letters)


def exported(rig: Rig, tmp_path: Path, letters: list[dead_letter.DeadLetter]) -> None:
    nd, table = tmp_path / "letters.ndjson", tmp_path / "letters.csv"
    assert f"wrote {len(letters)} letters" in run(rig, "export", str(nd))
    run(rig, "export", str(table))
    assert nd.stat().st_mode & 0o077 == 0, "events may hold what is personal"
    records = [json.loads(text) for text in nd.read_text().splitlines()]
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for letter, record, cells in zip(letters, records, rows, strict=True):
        for encoded in (record["value_base64"], None if cells["value_base64"] == "\\N" else cells["value_base64"]):
            assert (None if encoded is None else base64.b64decode(encoded)) == letter.value
        assert base64.b64decode(record["key_base64"]) == letter.key
        assert record["headers"] == json.loads(cells["headers"])
        assert [record[name] for name in ("topic", "topic_offset", "reason", "field", "detail")] == [
            letter.topic, letter.topic_offset, letter.reason, letter.field, letter.detail,
        ]  # fmt: skip
    for path in (nd, table):
        output = run(rig, "replay", "--from", str(path), code=2)
        assert f"landed 0, still refused {len(letters)}" in output, "given back as they are, they are as bad as before"


def test_headers_that_are_no_text_refuse_the_event_only_where_they_are_to_be_kept(letters_rig: Rig) -> None:
    rig = letters_rig
    send(rig, [JUST_JSON])
    assert rig.land().rows == 1
    path = rig.contracts_dir / f"{rig.topic}.yaml"
    path.write_text(path.read_text() + "  - property: keepHeaders\n    value: true\n")
    send(rig, [JUST_JSON])
    send(rig, [JUST_JSON], headers=HEADERS[:-1])
    assert rig.land(dead_letter_limit=1.0).rows == 1
    (letter,) = letters_of(rig)
    assert (letter.reason, letter.headers) == ("headers_undecodable", HEADERS)
    assert "header raw" in letter.detail
    kept = rig.query(f"SELECT headers FROM landing.{rig.contract.stream} WHERE topic_offset = 2")[0][0]
    assert kept == [["event-id", "e", "utf8"], ["twice", "1", "utf8"], ["twice", "2", "utf8"], ["none", None, "utf8"],
                    ["empty", "", "utf8"]]  # fmt: skip


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_a_file_is_mended_and_given_back_as_often_as_one_likes(letters_rig: Rig, tmp_path: Path, form: str) -> None:
    rig, path = letters_rig, tmp_path / f"letters.{form}"
    send(rig, [json.dumps(line(n, quantity="six", description='Ä, "x"\r\n\ty')).encode() for n in range(4)])
    send(rig, [JUST_JSON])
    rig.land(dead_letter_limit=1.0)
    run(rig, "export", str(path))
    mend(path, form)
    output = run(rig, "replay", "--from", str(path), code=2)
    assert "landed 3, still refused 1, landed before 0, of 4" in output
    assert "2:3 wrong_type" in output
    output = run(rig, "replay", "--from", str(path), code=2)
    assert "landed 0, still refused 1, landed before 3, of 4" in output
    rig.assert_exact(4, dead=1)
    landed = rig.query(
        f"SELECT topic_offset, payload->>'quantity', payload->>'description' FROM landing.{rig.contract.stream} "
        f"ORDER BY 1"
    )
    assert landed[:3] == [(n, "6", 'Ä, "x"\r\n\ty') for n in range(3)]
    original = rig.query("SELECT value, replay_value FROM control.dead_letter WHERE topic_offset = 0")[0]
    assert (b"six" in bytes(original[0]), b"six" in bytes(original[1])) == (True, False)


def test_what_is_given_back_on_stdin_lands_byte_for_byte(letters_rig: Rig, tmp_path: Path) -> None:
    """Lines that end as on Windows are within the value: they are the event's, not the file's."""
    rig, path = letters_rig, tmp_path / "letters.csv"
    value = json.dumps(line(1, quantity="six"), indent=1).replace("\n", "\r\n").encode()
    send(rig, [value])
    rig.land(dead_letter_limit=1.0)
    run(rig, "export", str(path))
    given = path.read_bytes().replace(b'""six""', b"6")
    given = given.replace(base64.b64encode(value), b"\\N")
    command = ["dead-letters", "replay", "--from", "-", "--format", "csv"]
    result = CliRunner().invoke(main, command, env=rig.env, input=given)
    assert (result.exit_code, "landed 1" in result.output) == (0, True), result.output
    landed = rig.query(f"SELECT payload::text FROM landing.{rig.contract.stream}")
    assert [text.encode() for (text,) in landed] == [value.replace(b'"six"', b"6")]


def mend(path: Path, form: str) -> None:
    """By text, by base64, and as an object; the last one is left as it was."""
    if form == "ndjson":
        records = [json.loads(text) for text in path.read_text().splitlines()]
        records[0]["value"] = records[0]["value"].replace('"six"', "6")
        raw = base64.b64decode(records[1]["value_base64"]).replace(b'"six"', b"6")
        records[1] |= {"value_base64": base64.b64encode(raw).decode()}
        records[2] = {
            "topic": records[2]["topic"], "topic_partition": 2, "topic_offset": 2,
            "value": json.loads(records[2]["value"]) | {"quantity": 6},
        }  # fmt: skip
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows[:3]:
        row["value"] = row["value"].replace('"six"', "6")
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r | {"topic_offset": 99}, "there is no dead letter"),
        (lambda r: r | {"topic": "other"}, "it is a letter of other"),
        (lambda r: {k: v for k, v in r.items() if k != "topic_offset"}, "topic_offset is missing"),
        (lambda r: r | {"topic_offset": 0.9}, "0.9 is no whole number"),
        (lambda r: r | {"topic_partition": True}, "True is no whole number"),
        (lambda r: r | {"value": 7}, "value is neither a text nor a JSON object"),
        (lambda r: r | {"value_base64": "?"}, "value_base64 cannot be read"),
        (lambda r: r | {"value": "a", "value_base64": "Yg=="}, "were both edited, and differ"),
        (lambda _: "{", "it is no JSON object"),
        (
            lambda r: json.dumps(r | {"value": 0})[:-1] + f', "value": {{"a": {DEEP}}}}}',
            "(letter 2:0): its JSON nests too deep",
        ),
        (lambda r: json.dumps(r | {"value": 0})[:-1] + f', "value": {DEEP}}}', "(letter 2:0): its JSON nests too deep"),
        (lambda _: f'{{"value": {DEEP}}}', "line 2: its JSON nests too deep"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_with_its_line(
    letters_rig: Rig, tmp_path: Path, change: Callable[[dict[str, Any]], Any], problem: str
) -> None:
    rig, path = letters_rig, tmp_path / "letters.ndjson"
    send(rig, [b"{"])
    rig.land(dead_letter_limit=1.0)
    run(rig, "export", str(path))
    changed = change(json.loads(path.read_text()))
    path.write_text("\n" + (changed if isinstance(changed, str) else json.dumps(changed)) + "\n")
    output = run(rig, "replay", "--from", str(path), code=1)
    assert problem in output
    if "no dead letter" not in problem:
        assert "letters.ndjson line 2" in output
    rig.assert_exact(0, dead=1)


def test_a_changed_contract_lets_letters_land(letters_rig: Rig) -> None:
    rig = letters_rig
    send(rig, [json.dumps(line(n, channel="fax")).encode() for n in range(3)])
    rig.land(dead_letter_limit=1.0)
    path = rig.contracts_dir / f"{rig.topic}.yaml"
    path.write_text(path.read_text().replace("{value: till}", "{value: till}, {value: fax}"))
    assert "landed 3, still refused 0" in run(rig, "replay", "--all", "--reason", "not_allowed")
    rig.assert_exact(3)
    with rig.connect() as conn:
        (counts,) = [c for c in lake.topic_counts(conn, rig.topic) if c.topic_partition == 2]
    assert (counts.landed, counts.dead_letters, counts.dead_letters_replayed, counts.is_closed) == (3, 0, 3, True)
    assert rig.query(f"SELECT topic_offset FROM landing.{rig.contract.stream} ORDER BY 1") == [(0,), (1,), (2,)]


LIMITS = "{minimum: -1000000000, maximum: 1000000000}"  # of the quantity


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (f"integer\n        physicalType: bigint\n        required: true\n        logicalTypeOptions: {LIMITS}",
         "string\n        required: true", "field quantity was bigint, is text"),
        ("      - name: country", "      - {name: qty, logicalType: string}\n      - name: country",
         "Run `streaming migrate` first"),
    ],
    ids=["breaking", "not migrated yet"],
)  # fmt: skip
def test_a_contract_that_the_lake_does_not_have_replays_nothing(
    letters_rig: Rig, old: str, new: str, problem: str
) -> None:
    """The typed view would read no event any more."""
    rig = letters_rig
    send(rig, [json.dumps(line(1, quantity="six")).encode(), JUST_JSON])
    rig.land(dead_letter_limit=1.0)
    path = rig.contracts_dir / f"{rig.topic}.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert problem in run(rig, "replay", "--all", code=1)
    rig.assert_exact(1, dead=1)
    assert len(rig.query(f"SELECT * FROM lake.{rig.contract.stream}")) == 1


def test_a_replay_ends_where_the_lake_gets_another_contract(letters_rig: Rig) -> None:
    rig = letters_rig
    send(rig, [json.dumps(line(n, quantity="six")).encode() for n in range(2)])
    rig.land(dead_letter_limit=1.0)
    decoder, (first, second) = Decoder(rig.contract), letters_of(rig)
    path = rig.contracts_dir / f"{rig.topic}.yaml"

    def letters() -> Iterator[tuple[dead_letter.DeadLetter, bytes]]:
        yield first, JUST_JSON
        path.write_text(
            path.read_text().replace(ENUM, ENUM + "      - {name: qty, logicalType: integer, required: false}\n")
        )
        rig.migrate()
        yield second, json.dumps(line(1, qty="many")).encode()

    with rig.connect() as conn, pytest.raises(MigrationError, match="migrated to another one meanwhile"):
        replay.replay_edited(conn, decoder, letters())
    rig.assert_exact(1, dead=1)
    assert len(rig.query(f"SELECT * FROM lake.{rig.contract.stream}")) == 1


def test_letters_that_are_still_wrong_do_not_fill_the_memory(letters_rig: Rig) -> None:
    rig = letters_rig
    send(rig, [b"{"])
    rig.land(dead_letter_limit=1.0)
    (letter,) = letters_of(rig)
    large = (dataclasses.replace(letter, value=b"x" * 1_000_000 + b"%d" % number) for number in range(100))
    tracemalloc.start()
    with rig.connect() as conn:
        done = replay.replay(conn, Decoder(rig.contract), large)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (done.landed, done.refused, len(done.first_refused)) == (0, 100, replay.REFUSED_SHOWN)
    assert peak_bytes < 50_000_000, "not the 100 MB that were read"


def test_replays_at_once_double_nothing_while_the_consumer_lands(letters_rig: Rig) -> None:
    rig = letters_rig
    send(rig, [json.dumps(line(n, quantity="six")).encode() for n in range(60)])
    rig.land(dead_letter_limit=1.0)
    path = rig.contracts_dir / f"{rig.topic}.yaml"
    mended = [json.dumps(line(n)).encode() for n in range(60)]
    assert path.exists()
    letters = letters_of(rig)
    done: list[replay.Replayed] = []

    def run_replay() -> None:
        with rig.connect() as conn:
            pairs = list(zip(letters, mended, strict=True))
            done.append(replay.replay_edited(conn, Decoder(rig.contract), pairs))

    threads = [threading.Thread(target=run_replay) for _ in range(4)]
    with rig.landing():
        for thread in threads:
            thread.start()
        send(rig, [JUST_JSON] * 200)
        for thread in threads:
            thread.join()
        rig.wait(lambda: rig.accounted() == 260, what="landing")
    assert sum(one.landed for one in done) == 60
    assert sum(one.already for one in done) == 180
    rig.assert_exact(260)


def test_a_replay_that_loses_the_lake_says_that_it_has_to_be_run_again(letters_rig: Rig) -> None:
    rig = letters_rig
    send(rig, [json.dumps(line(n, channel="fax")).encode() for n in range(3)])
    rig.land(dead_letter_limit=1.0)
    first, *others = letters_of(rig)
    mended = json.dumps(line(1)).encode()

    def letters() -> Iterator[tuple[dead_letter.DeadLetter, bytes]]:
        yield first, mended
        rig.execute(
            "CREATE FUNCTION control.die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
            "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'; "
            "CREATE TRIGGER die BEFORE UPDATE ON control.dead_letter FOR EACH ROW EXECUTE FUNCTION control.die()"
        )
        yield from ((letter, mended) for letter in others)

    with rig.connect() as conn, pytest.raises(LakeUnavailableError, match=r"(?s)offset 1: .* Run it again") as caught:
        replay.replay_edited(conn, Decoder(rig.contract), letters())
    assert "it is tried again" not in str(caught.value)
    rig.assert_exact(1, dead=2)


def test_a_replay_into_a_lake_that_is_read_only_says_what_to_change(letters_rig: Rig) -> None:
    rig = letters_rig
    send(rig, [b"{", JUST_JSON])  # the month's table is there already
    rig.land(dead_letter_limit=1.0)
    mended = json.dumps(line(1)).encode()
    with rig.connect() as conn:
        conn.set_session(readonly=True)
        with pytest.raises(LakeUnavailableError, match=r"read-only.*LAKE_DSN leads to a standby .* Run it again"):
            replay.replay(conn, Decoder(rig.contract), letters_of(rig), edited=mended)
    rig.assert_exact(1, dead=1)


def test_what_waits_for_another_sees_what_it_wrote_whatever_isolation_the_lake_has(letters_rig: Rig) -> None:
    rig = letters_rig
    ((name,),) = rig.query("SELECT current_database()")
    rig.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'repeatable read'")
    assert rig.query("SHOW transaction_isolation") == [("read committed",)]


def test_the_limit_names_the_likely_cause_and_loses_nothing(letters_rig: Rig) -> None:
    rig = letters_rig
    send(rig, [JUST_JSON] * 50 + [json.dumps(line(n, channel="fax")).encode() for n in range(150)])
    with pytest.raises(DeadLetterLimitError) as caught:
        rig.land(dead_letter_window=100, dead_letter_limit=0.1)
    text = str(caught.value)
    for expected in ("not_allowed in channel", "fax", "limit is 10%", f"{rig.topic}[2]", "nothing is lost"):
        assert expected in text, text
    assert rig.land(dead_letter_limit=1.0).dead_letters == 150
    rig.assert_exact(50, dead=150)


def test_commands_want_a_topic_only_where_there_are_several(letters_rig: Rig) -> None:
    rig = letters_rig
    send(rig, [b"{"])
    rig.land(dead_letter_limit=1.0)
    assert "not_json" in run(rig, "list")
    assert "not_json" in run(rig, "show", "2:0")
    text = (rig.contracts_dir / f"{rig.topic}.yaml").read_text()
    (rig.contracts_dir / "second.yaml").write_text(text.replace(rig.topic, "second"))
    assert "name the topic by --topic; there are 2 contracts" in run(rig, "list", code=2)
    assert "not_json" in run(rig, "list", "--topic", rig.topic)


@pytest.mark.parametrize("command", ["list", "export -", "replay --all"])
def test_a_reason_that_there_is_not_is_refused_with_those_that_there_are(letters_rig: Rig, command: str) -> None:
    """Those that an older version wrote too."""
    rig = letters_rig
    send(rig, [b"{"])
    rig.land(dead_letter_limit=1.0)
    rig.execute("UPDATE control.dead_letter SET reason = 'of_an_older_version'")
    output = run(rig, *command.split(), "--reason", "not_jsn", code=1)
    assert "there is no reason 'not_jsn'" in output
    assert all(reason in output for reason in ("missing_field", "not_json", "of_an_older_version"))
    run(rig, *command.split(), "--reason", "of_an_older_version", code=2 if "replay" in command else 0)
    run(rig, *command.split(), "--reason", "not_json")  # one of today's, of which there is no letter


def test_what_an_event_holds_is_listed_as_it_is(letters_rig: Rig) -> None:
    """Square brackets are the markup of what prints the tables."""
    rig = letters_rig
    send(rig, [json.dumps(line(1, quantity="a[/b]")).encode(), json.dumps(line(1, quantity="[red]c")).encode()])
    send(rig, [JUST_JSON[:-1] + b', "[/x]": "\\u0000"}'])
    rig.land(dead_letter_limit=1.0)
    rig.execute("UPDATE control.offset SET owner = '[/o]'")
    output = run(rig, "list")
    for expected in ("a[/b]", "[red]c", "[/x]"):
        assert expected in output
    result = CliRunner().invoke(main, ["lake", "status", "--topic", rig.topic], env=rig.env)
    assert result.exit_code == 0, result.output
    assert "[/o]" in result.output


@pytest.mark.parametrize(
    "command", ["dead-letters list", "dead-letters show 0:0", "dead-letters export -", "lake status"]
)
def test_a_topic_that_nobody_knows_is_refused_with_those_that_there_are(rig: Rig, command: str) -> None:
    """A table of zeros would say that all is well."""
    result = CliRunner().invoke(main, [*command.split(), "--topic", "retail.invoces"], env=rig.env)
    assert result.exit_code == 2, result.output
    assert "there is no topic 'retail.invoces'" in result.output
    assert rig.topic in result.output


def test_a_topic_whose_contract_is_gone_is_still_shown(rig: Rig) -> None:
    rig.contracts_dir.joinpath(f"{rig.topic}.yaml").unlink()
    for command in (["lake", "status"], ["dead-letters", "list"]):
        result = CliRunner().invoke(main, [*command, "--topic", rig.topic], env=rig.env)
        assert result.exit_code == 0, result.output
        assert rig.topic in result.output


@pytest.mark.parametrize(
    "command",
    ["dead-letters list", "dead-letters show 0:0", "dead-letters export -", "dead-letters replay --all", "lake status",
     "lake restored"],
)  # fmt: skip
def test_a_lake_that_was_never_migrated_is_told_by_every_command(lake_dsn: str, command: str) -> None:
    result = CliRunner().invoke(main, command.split(), env={"LAKE_DSN": lake_dsn})
    assert result.exit_code == 1, result.output
    assert "MigrationError: " in result.output
    assert "Run `streaming migrate`" in result.output


def test_a_lake_that_goes_away_during_a_command_is_told(lake_dsn: str) -> None:
    with (
        pytest.raises(LakeUnavailableError, match="What was done before stays; run it again"),
        database.connected(lake_dsn, command="lake status") as conn,
        conn.cursor() as cursor,
    ):
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_an_export_replaces_a_file_only_by_force(letters_rig: Rig, tmp_path: Path) -> None:
    rig, path, link = letters_rig, tmp_path / "letters.ndjson", tmp_path / "link"
    send(rig, [b"{"])
    rig.land(dead_letter_limit=1.0)
    path.write_text("edited")
    link.symlink_to(path)
    for name in (path, link):
        assert "it exists. Nothing was exported" in run(rig, "export", str(name), code=1)
    assert path.read_text() == "edited"
    run(rig, "export", str(link), "--force")
    assert link.is_symlink()
    assert json.loads(path.read_text())["value"] == "{"
    assert "Is a directory" in run(rig, "export", str(tmp_path), code=1)


def test_an_export_goes_into_a_pipe_that_is_there(letters_rig: Rig, tmp_path: Path) -> None:
    rig, path = letters_rig, tmp_path / "pipe"
    send(rig, [b"{"])
    rig.land(dead_letter_limit=1.0)
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    run(rig, "export", str(path))
    assert path.is_fifo()
    assert json.loads(os.read(reader, 65_536))["value"] == "{"
    os.close(reader)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("list", "--limit", "-1"), "--limit"),
        (("list", "--limit", "99999999999999999999"), "--limit"),
        (("replay", "0:30", "--value", "."), "is a directory"),
        (("replay", "0:30", "--reason", "not_json"), "--reason is for --all"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments: tuple[str, ...], problem: str) -> None:
    result = CliRunner().invoke(main, ["dead-letters", *arguments], env={"LAKE_DSN": "postgresql://127.0.0.1:1/x"})
    assert result.exit_code == 2
    assert problem in result.output


def test_a_replay_tells_all_that_is_wrong_with_its_settings_at_once() -> None:
    env = {"LAKE_DSN": "lake", "SCHEMA_REGISTRY_URL": "registry:8081", "SCHEMA_REGISTRY_USERNAME": "lander"}
    result = CliRunner().invoke(main, ["dead-letters", "replay", "--all"], env=env)
    assert result.exit_code == 1
    for name in ("LAKE_DSN does not begin", "SCHEMA_REGISTRY_URL does not begin", "SCHEMA_REGISTRY_PASSWORD"):
        assert name in result.output
