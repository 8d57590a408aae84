"""Contracts proposed from samples: what is inferred, and what is said about it."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.__main__ import main
from streaming.contract import Contract, load_contract, read_contract
from streaming.decode import Decoder, Refusal
from streaming.errors import SourceError
from streaming.propose import propose_contract, stream_name
from streaming.sample import read_sample

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def propose(*events: Any) -> tuple[str, Contract]:
    lines = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    return propose_contract("any.topic", read_sample(lines, name="x.ndjson"), now=NOW)


def types(*events: Any) -> dict[str, str]:
    return {field.name: field.logical_type for field in propose(*events)[1].fields}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], "integer"),
        ([1, 2.5], "number"),
        ([1.0], "number"),
        ([2**63 - 1, -(2**63) + 1], "integer"),
        ([2**63], "number"),
        ([10**37], "number"),
        ([10**40], "json"),
        (["1.50", "-0.25"], "number"),
        (["1.50", 3], "number"),
        (["01.50"], "string"),
        (["007", "12"], "string"),
        (["1.5", ""], "string"),
        ([True, False], "boolean"),
        ([True, 1], "json"),
        (["a", 1], "json"),
        ([None, None], "json"),
        ([None, 1], "integer"),
        ([{"a": 1}], "object"),
        ([[1]], "array"),
        ([[1], {"a": 1}], "json"),
        (["2026-01-01T00:00:00Z"], "timestamp"),
        (["2026-01-01T00:00:00"], "timestamp"),
        (["2026-01-01T00:00:00Z", ""], "string"),
        (["2026-01-01"], "date"),
        (["2026-02-30"], "string"),
        (["2026-01-01", "2026-01-01T00:00:00Z"], "string"),
        (["2026-01-01T00:00Z"], "string"),
    ],
)
def test_types_are_inferred_from_every_value(values: list[Any], expected: str) -> None:
    assert types(*({"x": value} for value in values)) == {"x": expected}


@pytest.mark.parametrize(
    ("number", "numeric"),
    [
        ("1.5", (38, 9)),
        ("0.123456789012", (38, 12)),
        ("1e-20", (38, 20)),
        ("9" * 30, (38, 0)),
        ("9" * 30 + ".25", (38, 2)),
        ("1E+30", (38, 0)),
    ],
)
def test_numbers_get_the_scale_that_their_sample_needs(number: str, numeric: tuple[int, int]) -> None:
    (field,) = propose(b'{"x": ' + number.encode() + b"}")[1].fields
    assert (field.logical_type, field.precision, field.scale) == ("number", *numeric)


def test_a_number_too_long_for_any_type_is_kept_as_json() -> None:
    assert types(b'{"x": 0.' + b"1" * 50 + b"}") == {"x": "json"}


@pytest.mark.parametrize("number", ["1e-99999999999999999999", "0e99999999999999999999"])
def test_an_exponent_that_python_cannot_hold_is_kept_as_json(number: str) -> None:
    line = f'{{"x": {number}, "y": {{"z": {number}}}}}'.encode()
    assert types(line, {"x": 1.5, "y": {}}) == {"x": "json", "y": "object"}


def test_absent_and_null_fields_are_optional_the_others_required() -> None:
    _, contract = propose({"a": 1, "b": 1, "c": None}, {"a": 2, "c": 3})
    assert {field.name: field.nullable for field in contract.fields} == {"a": False, "b": True, "c": True}


def test_whole_numbers_are_times_only_where_the_name_says_so() -> None:
    ms, s = 1_795_521_600_123, 1_795_521_600
    text, contract = propose({"created_at": ms, "amount": ms, "ts": s, "updatedAt": ms * 1000, "on": ms * 10**6})
    assert [(field.name, field.logical_type, field.encoding) for field in contract.fields] == [
        ("created_at", "timestamp", "epoch_ms"),
        ("amount", "integer", "iso"),
        ("ts", "timestamp", "epoch_s"),
        ("updated_at", "timestamp", "epoch_us"),
        ("on", "timestamp", "epoch_ns"),
    ]
    assert "whole numbers that are times as epoch_ms" in text


def test_the_event_time_is_chosen_with_its_reason_and_the_others_are_named() -> None:
    text, contract = propose(
        {"created_at": "2026-11-01T00:00:00Z", "event_time": "2026-11-02T00:00:00Z", "due": "2027-11-01T00:00:00Z"},
        {"created_at": "2026-11-01T00:00:00Z", "event_time": "2026-11-02T00:00:00Z", "due": "2027-11-01T00:00:00Z",
         "sent_at": "2026-11-02T00:00:00Z"},
    )  # fmt: skip
    assert contract.event_time_field == "event_time"
    for expected in (
        "created_at: in every event", "due: 2027-11-01T00:00:00Z", "ahead of the clock", "sent_at: not in every event",
        "chosen: event_time, for its name and place; decide",
    ):  # fmt: skip
        assert expected in text


def test_times_with_zones_are_told_in_utc_and_one_that_utc_cannot_hold_is_a_text() -> None:
    text, contract = propose(
        {"at": "2026-11-01T01:30:00+02:00", "ends": "0001-01-01T00:00:00+01:00"},
        {"at": "2026-11-01T20:00:00-05:00", "ends": "0001-01-01T00:00:00+01:00"},
    )
    assert "at: in every event, 2026-10-31T23:30:00Z to 2026-11-02T01:00:00Z" in text
    assert {field.name: field.logical_type for field in contract.fields} == {"at": "timestamp", "ends": "string"}


@pytest.mark.parametrize("has_schemas", [False, True])
def test_debezium_s_envelopes_are_told_as_such(*, has_schemas: bool) -> None:
    change = {"before": None, "after": {"id": 1}, "source": {"ts_ms": 1}, "op": "c", "ts_ms": 1_795_521_600_123}
    text, contract = propose({"schema": {}, "payload": change} if has_schemas else change)
    assert contract.envelope == "none", "the sample lands by it as it is"
    offered = "  # - property: envelope\n  #   value: debezium\n"
    assert offered in text
    assert read_contract(text.replace(offered, offered.replace("# ", ""))).envelope == "debezium"
    assert "debezium" not in propose({"op": "c", "after": 1})[0] + propose({"schema": 1, "payload": 2})[0]


def test_without_a_time_the_message_s_own_timestamp_is_the_event_time() -> None:
    text, contract = propose({"x": 1})
    assert contract.event_time_field == "produced_at"
    assert "no field is a time that every event has" in text


def test_history_before_1970_gets_a_minimum() -> None:
    _, contract = propose({"at": "1955-11-05T06:00:00Z"})
    assert contract.earliest_event_at.year == 1900


def test_the_key_is_the_unique_field_with_a_key_s_name() -> None:
    _, contract = propose({"name": "a", "order_id": 1}, {"name": "b", "order_id": 2})
    assert [field.name for field in contract.fields if field.is_key] == ["order_id"]
    _, contract = propose({"id": 1}, {"id": None}, {"id": 2})
    assert not any(field.is_key for field in contract.fields), "what may be absent tells nothing apart"
    text, contract = propose({"name": "a"}, {"name": "b"})
    assert not any(field.is_key for field in contract.fields)
    assert "unique in the sample, but not named like a key: name" in text


def test_few_values_are_offered_as_an_enumeration_and_not_imposed() -> None:
    text, contract = propose(*({"x": "web" if n % 2 else "till"} for n in range(20)))
    assert 'enum: [{value: "till"}, {value: "web"}]' in text
    assert contract.fields[0].allowed == ()


def test_keys_become_columns_names_whatever_they_are() -> None:
    keys = [
        "orderId",
        "HTTPStatus",
        "Zähler-Nr.",
        "名前",
        "",
        "1st",
        "key",
        "no",
        "order_id",
        "a" * 90,
        "quo'te",
        "\u2028#",
    ]
    _, contract = propose(dict.fromkeys(keys, 1))
    assert [field.event_key for field in contract.fields] == keys
    assert [field.name for field in contract.fields] == [
        "order_id", "http_status", "zahler_nr", "field_4", "field_5", "f_1st", "event_key", "no", "order_id_2",
        "a" * 59, "quo_te", "field_12",
    ]  # fmt: skip


def test_a_key_that_no_field_can_have_is_left_out_and_said() -> None:
    text, contract = propose({'quo"te': 1, "a": 1})
    assert [field.name for field in contract.fields] == ["a"]
    assert "is left out" in text
    with pytest.raises(SourceError, match="no key of its events can be a field"):
        propose({"back\\slash": 1})


def test_keys_that_are_python_s_own_names_become_others_and_land() -> None:
    keys = ["__dict__", "__op", "op", "_id", "___", "__init__", "__post_init__", "__slots__"]
    _, contract = propose(dict.fromkeys(keys, 1))
    assert [field.event_key for field in contract.fields] == keys
    assert [field.name for field in contract.fields] == [
        "_dict__", "_op", "op", "_id", "_", "_init__", "_post_init__", "_slots__",
    ]  # fmt: skip


def test_more_keys_than_a_table_has_columns_are_refused() -> None:
    assert len(propose({f"k{n}": n for n in range(1595)})[1].fields) == 1595
    with pytest.raises(SourceError, match="its events have 1596 keys, a table of PostgreSQL takes 1595"):
        propose({f"k{n}": n for n in range(1596)})


def test_topics_become_tables_names() -> None:
    assert stream_name("Shop.Orders-v2") == "shop_orders_v2"
    assert stream_name("2nd") == "s_2nd"
    assert len(stream_name("x" * 200)) == 50
    assert stream_name("evo.a.2024.05") == "evo_a_2024_05_events"
    assert stream_name("x" * 42 + ".2024.05") == "x" * 42 + "__events"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "it has no events"),
        ([b"", b"  \n"], "it has no events"),
        ([b"{}", b"{}"], "its events are empty objects"),
        ([b'{"a":1}', b'{"a":'], r"line 2: it is not JSON"),
        ([b'{"a":NaN}'], "line 1: it is not JSON"),
        ([b"", b"[1]"], "line 2: it is an array, not a JSON object"),
        ([b'"x"'], "it is a text"),
        ([b"1"], "it is a number"),
        ([b"null"], "it is null"),
        ([b'{"a":"\xff"}'], "it is not UTF-8"),
        ([b'{"a":{"b":"\\u0000"}}'], r"a holds the character U\+0000"),
        ([b'{"a":' + b"[" * 190 + b'"\\u0000"' + b"]" * 190 + b"}"], r"a holds the character U\+0000"),
        ([b'{"a":' + b"[" * 600 + b'"\\u0000"' + b"]" * 600 + b"}"], "it nests more than 200 levels deep"),
        ([b'{"a":"\\ud800"}'], "line 1: it is not JSON"),
        ([b"{}", b"\xef\xbb\xbf{}"], "line 2: it is not JSON"),
        ([b"[" * 100_000], "line 1: it is not JSON"),
        ([gzip.compress(b'{"a":1}')], "it begins as a gzip file, .* zcat"),
        ('{"a":1}\n{"a":2}'.encode("utf-16").splitlines(), "it begins as UTF-16 text, .* iconv"),
        ('{"a":1}'.encode("utf-16-be").splitlines(), "it begins as UTF-16 text"),
        ([b"{\n", b'  "a": 1\n', b"}\n"], "it begins as one JSON text over several lines, .* jq -c"),
        ([b'[{"a":1},\n', b'{"a":2}]\n'], "it begins as one JSON text over several lines"),
        ([b'[{"a":1}, {"a":2}]\n'], "it begins as a JSON array, .* jq -c"),
    ],
)
def test_what_is_no_sample_is_told_with_its_line(lines: list[bytes], problem: str) -> None:
    with pytest.raises(SourceError, match=problem):
        read_sample(lines, name="x.ndjson")


def run(*arguments: str, folder: Path, stdin: bytes | None = None) -> Any:
    return CliRunner().invoke(
        main, ["new-stream", *arguments], env={"STREAMING_CONTRACTS_DIR": str(folder)}, input=stdin
    )


def test_a_stream_of_which_another_one_is_called_like_a_month_is_not_written(tmp_path: Path) -> None:
    sample = tmp_path / "sample.ndjson"
    sample.write_text('{"a": 1}\n')
    assert run("evo.a", "--from-sample", str(sample), folder=tmp_path).exit_code == 0
    text = (tmp_path / "evo.a.yaml").read_text()
    (tmp_path / "evo.a.yaml").unlink()
    (tmp_path / "b.yaml").write_text(text.replace("evo.a", "b").replace("name: evo_a", "name: evo_a_2024_05"))
    refused = run("evo.a", "--from-sample", str(sample), folder=tmp_path)
    assert "topic b has the table landing.evo_a_2024_05, as a month of landing.evo_a would be called" in refused.output
    assert not (tmp_path / "evo.a.yaml").exists()


def test_the_command_writes_the_file_once(tmp_path: Path) -> None:
    sample = tmp_path / "sample.ndjson"
    sample.write_text('{"a": 1}\n')
    assert run("any.topic", "--from-sample", str(sample), folder=tmp_path).exit_code == 0
    first = (tmp_path / "any.topic.yaml").read_text()
    again = run("any.topic", "--from-sample", str(sample), folder=tmp_path)
    assert again.exit_code == 1
    assert "exists. Nothing was written. Replace it by --force" in again.output
    assert run("any.topic", "--from-sample", "-", "--force", folder=tmp_path, stdin=b'{"b": 1}\n').exit_code == 0
    assert (tmp_path / "any.topic.yaml").read_text() != first
    shown = run("any.topic", "--from-sample", str(sample), "--stdout", folder=tmp_path)
    assert shown.output == first


def test_a_contract_that_cannot_be_read_is_replaced_if_told(tmp_path: Path) -> None:
    """As one that is not whole since the disk was full: the message of that says to take --force."""
    (tmp_path / "any.topic.yaml").write_text("apiVersion: v3.1.0\n")
    again = run("any.topic", "--from-sample", "-", "--force", folder=tmp_path, stdin=b'{"a": 1}\n')
    assert again.exit_code == 0, again.output
    assert load_contract("any.topic", tmp_path).fields
    (tmp_path / "other.topic.yaml").write_text("apiVersion: v3.1.0\n")
    other = run("any.topic", "--from-sample", "-", "--force", folder=tmp_path, stdin=b'{"a": 1}\n')
    assert "other.topic.yaml" in other.output


def test_days_end_at_the_midnight_of_the_other_contracts(tmp_path: Path) -> None:
    def zone_of(topic: str, *options: str) -> tuple[str, str]:
        result = run(topic, "--from-sample", "-", *options, folder=tmp_path, stdin=b'{"b": 1}\n')
        assert result.exit_code == 0, result.output
        return load_contract(topic, tmp_path).time_zone, (tmp_path / f"{topic}.yaml").read_text()

    assert zone_of("first")[0] == "UTC"
    (tmp_path / "first.yaml").unlink()
    assert zone_of("first", "--zone", "Europe/London")[0] == "Europe/London"
    zone, text = zone_of("second")
    assert zone == "Europe/London"
    assert "# as that of first, so that one day is the same span in all" in text
    assert zone_of("third", "--zone", "Asia/Tokyo")[0] == "Asia/Tokyo"
    for options, problem in (
        ((), "several time zones (Asia/Tokyo of third, Europe/London of first). Nothing was written. Say by --zone"),
        (("--zone", "Mars"), "--zone 'Mars' is not a zone"),
    ):
        refused = run("fourth", "--from-sample", "-", *options, folder=tmp_path, stdin=b'{"b": 1}\n')
        assert refused.exit_code == 1
        assert problem in refused.output
        assert not (tmp_path / "fourth.yaml").exists()


def test_a_folder_that_takes_no_file_is_told() -> None:
    """Nobody may write there, whatever his rights elsewhere."""
    refused = run("any.topic", "--from-sample", "-", folder=Path("/proc"), stdin=b'{"b": 1}\n')
    assert refused.exit_code == 1
    assert "ContractError: writing the contract /proc/any.topic.yaml: " in refused.output
    assert "STREAMING_CONTRACTS_DIR" in refused.output


def test_the_longest_name_is_taken(tmp_path: Path) -> None:
    assert run("a" * 249, "--from-sample", "-", folder=tmp_path, stdin=b'{"b": 1}\n').exit_code == 0


def test_the_command_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    for arguments, problem in (
        (("t", "--from-sample", str(tmp_path / "none")), "No such file"),
        *(((name, "--from-sample", "-"), "is not a topic's name") for name in ("a b", "a/../b", "ä", "..", "a" * 250)),
    ):
        result = run(*arguments, folder=tmp_path, stdin=b'{"b": 1}\n')
        assert result.exit_code == 1
        assert problem in result.output
        assert "Traceback" not in result.output
    assert run("any-topic", "--from-sample", "-", folder=tmp_path, stdin=b'{"b": 1}\n').exit_code == 0
    shared = run("any.topic", "--from-sample", "-", folder=tmp_path, stdin=b'{"b": 1}\n')
    assert "topic any-topic has the landing table landing.any_topic already" in shared.output


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
    | st.datetimes().map(str) | st.datetimes().map(lambda at: at.isoformat() + "Z") | st.dates().map(str)
    | st.decimals(allow_nan=False, allow_infinity=False).map(str)
)  # fmt: skip
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=2), scalars, max_size=2)
keys = st.sampled_from(["id", "ts", "created_at", "no", "key", "Größe", "orderId"]) | st.text(max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(keys, values, min_size=1, max_size=4), min_size=1, max_size=4))
def test_whatever_the_sample_it_lands_by_its_own_proposal(events: list[dict[str, Any]]) -> None:
    lines = [json.dumps(event).encode() for event in events]
    try:
        sample = read_sample(lines, name="x")
        _, contract = propose_contract("any.topic", sample, now=NOW)
    except SourceError:
        return
    decoder = Decoder(contract)
    assert not any(isinstance(decoder.judge(line, now=NOW, stamp_us=0), Refusal) for line in lines)


def test_a_byte_order_mark_before_a_sample_is_left_out() -> None:
    sample = read_sample([b'\xef\xbb\xbf{"a": 1}\r\n', b'{"a": 2}'], name="x")
    assert sample.lines == [b'{"a": 1}', b'{"a": 2}']
