from __future__ import annotations

import re
from decimal import Decimal

import pytest
from click.testing import CliRunner

from streaming.__main__ import main
from streaming.contract import CONTRACTS_DIR, load_contract, load_contracts, read_contract
from streaming.errors import ContractError

from .events import ORDERS, orders_contract


def test_every_contract_of_the_package_reads() -> None:
    contracts = load_contracts()
    assert "retail.invoices" in contracts
    price = contracts["retail.invoices"].field("unit_price")
    assert (price.precision, price.scale) == (38, 9)
    assert price.exclusive_maximum == Decimal(10) ** 12
    assert contracts["retail.invoices"].time_zone == "Europe/London"


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_name() -> None:
    text = ORDERS.replace("status: active", "status: active\nstauts: draft")
    with pytest.raises(ContractError, match=r"line 7: unknown key 'stauts'; did you mean 'status'\?"):
        read_contract(text, path="orders.yaml")


def test_an_unknown_key_deep_inside_is_refused() -> None:
    text = ORDERS.replace("{name: due_on, logicalType: date}", "{name: due_on, logicalType: date, requried: true}")
    with pytest.raises(ContractError, match=r"schema\[0\].properties\[6\].requried'; did you mean 'required'"):
        read_contract(text)


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(ContractError, match="version is given twice"):
        read_contract(ORDERS.replace("status: active", "version: 2.2.0\nstatus: active"))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("logicalType: boolean", "logicalType: bool", "logicalType 'bool', expected one of"),
        ('physicalType: "NUMERIC(12,4)", required', "physicalType: money, required", r"expected NUMERIC\(precision"),
        ('"NUMERIC(12,4)", required', '"NUMERIC(39,4)", required', "at most 38"),
        ("Europe/London", "Europe/Lndon", "'Europe/Lndon' is not a zone"),
        ("value: ordered_at", "value: due_on", "eventTimeField is 'due_on', expected"),
        ("{property: messageKey, value: order_id}", "{property: messageKey, value: id}", "messageKey 'id' is not one"),
        ("{property: messageKey, value: order_id}", "{property: messageKey, value: [order_id]}", "is not one of the"),
        ("maximumPayloadBytes, value: 2000", "maximumPayloadBytes, value: many", "expected a whole number from 1"),
        ("property: timeZone", "property: timezone", "unknown property 'timezone'"),
        ("kind: DataContract", "kind: Contract", "expected 'DataContract'"),
        ("apiVersion: v3.1.0", "apiVersion: v2.2.2", "expected one of v3.1.0"),
        ("name: tags,", "name: note,", "given twice: note"),
        ("name: tags,", "name: event_day,", "taken by the landing itself"),
        ("name: tags,", "name: Tags-List,", "is no column's name"),
        ("maxLength: 20", "maximumLength: 20", "logicalTypeOptions.maximumLength is not known for string"),
        ('"^[^#]*$"', '"(["', "no regular expression"),
        ("2009-01-01T00:00:00Z", "1066-10-14T00:00:00Z", "before 1900"),
        ("2009-01-01T00:00:00Z", "soon", "minimum is 'soon', expected a timestamp"),
        ("physicalName: shop.orders", "physicalName: shop orders", "not a topic's name"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_refused(old: str, new: str, problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        orders_contract(**{old: new})


@pytest.mark.parametrize(
    ("kind", "promise", "problem"),
    [
        ("string", "enum: [{value: no}]", "enum value False is not a text; quote it"),
        ("string", "enum: [{value: a}, {value: 1.0}]", "enum value 1.0 is not a text; quote it"),
        ("string", "enum: [{value: 2026-01-01}]", r"enum value datetime.date\(.*\) is not a text; quote it"),
        ("string", "enum: [{label: a}]", "enum value None is not a text; quote it"),
        ("integer", 'enum: [{value: "A"}]', "enum value 'A' is not a whole number of 64 bits; write it without quotes"),
        ("integer", "enum: [{value: 5.0}]", "enum value 5.0 is not a whole number"),
        ("integer", "enum: [{value: yes}]", "enum value True is not a whole number"),
        ("integer", "enum: [{value: 9223372036854775808}]", "enum value 9223372036854775808 is not a whole number"),
        ("integer", "enum: [{value: 5}], logicalTypeOptions: {maximum: 4}", "enum value 5 breaks the field's own"),
        ("string", "enum: [{value: ab}], logicalTypeOptions: {maxLength: 1}", "enum value 'ab' breaks the field's own"),
        ("string", "enum: [{value: ab}], logicalTypeOptions: {pattern: ^b}", "enum value 'ab' breaks the field's own"),
        ("boolean", "enum: [{value: true}]", "enum is known for string and integer only"),
        ("string", 'logicalTypeOptions: {minLength: "5"}', "minLength is '5', expected a whole number from 0"),
        ("string", "logicalTypeOptions: {minLength: -5}", "minLength is -5, expected a whole number from 0"),
        ("string", "logicalTypeOptions: {maxLength: 2.0}", "maxLength is 2.0, expected a whole number from 0"),
        ("string", "logicalTypeOptions: {minLength: 3, maxLength: 2}", "no value lies between its limits 3 and 2"),
        ("string", "logicalTypeOptions: {minimum: a, maximum: 5}", "maximum is not known for string"),
        ("integer", "enum: [{value: 1}], logicalTypeOptions: {pattern: x}", "pattern is not known for integer"),
        ("integer", "logicalTypeOptions: {multipleOf: x}", "multipleOf is 'x', expected a whole number from 1"),
        ("integer", "logicalTypeOptions: {multipleOf: 0}", "multipleOf is 0, expected a whole number from 1"),
        ("integer", "logicalTypeOptions: {minimum: 99999999999999999999999}", "minimum is 9{23}, expected a whole"),
        ("integer", "logicalTypeOptions: {minimum: 1.5}", "minimum is 1.5, expected a whole number"),
        ("integer", "logicalTypeOptions: {maximum: true}", "maximum is True, expected a whole number"),
        ("integer", "logicalTypeOptions: {minimum: [1]}", r"minimum is \[1\], expected a whole number"),
        ("integer", "logicalTypeOptions: {minimum: 6, maximum: 5}", "no value lies between its limits 6 and 5"),
        ("integer", "logicalTypeOptions: {exclusiveMinimum: 5, exclusiveMaximum: 6}", "between its limits 6 and 5"),
        ("integer", "logicalTypeOptions: {exclusiveMinimum: 9223372036854775807}", "no value lies between its limits"),
        ("number", "logicalTypeOptions: {minimum: .nan}", "minimum is nan, expected a number; leave it out"),
        ("number", "logicalTypeOptions: {maximum: .inf}", "maximum is inf, expected a number"),
        ("number", "logicalTypeOptions: {maximum: much}", "maximum is 'much', expected a number"),
        ("number", "logicalTypeOptions: {minimum: 1, exclusiveMaximum: 1.0}", r"lies between its limits 1 and 1\.0"),
    ],
)  # fmt: skip
def test_values_and_limits_that_nothing_could_keep_are_refused(kind: str, promise: str, problem: str) -> None:
    field = f'{{name: due_on, logicalType: {kind}, physicalType: "NUMERIC(9,2)", {promise}}}'
    with pytest.raises(ContractError, match=rf"line 21: property 'due_on': .*{problem}"):
        orders_contract(**{"{name: due_on, logicalType: date}": field})


@pytest.mark.parametrize("name", ["__dict__", "__init__", "__slots__", "__post_init__", "__op"])
def test_a_field_with_a_name_of_python_s_own_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match=f"line 21: property '{name}': names that begin with __.*as physicalName"):
        orders_contract(**{"name: due_on": f"name: {name}"})
    assert orders_contract(**{"name: due_on": f"name: due_on, physicalName: {name}"}).field("due_on").event_key == name


def test_values_and_limits_that_can_be_kept_are_read() -> None:
    found = orders_contract(
        **{"{name: due_on, logicalType: date}": "{name: due_on, logicalType: integer, enum: [{value: 4}, {value: -1}], "
           "logicalTypeOptions: {minimum: -9223372036854775808, exclusiveMaximum: 5, multipleOf: 1}}",
           "{value: web}, {value: till}": '{value: "no"}, {value: "5"}, {value: ""}'}
    )  # fmt: skip
    assert (found.field("due_on").allowed, found.field("channel").allowed) == ((4, -1), ("no", "5", ""))


@pytest.mark.parametrize("months", ["1201", "99999", "-1", "1.5"])
def test_a_retention_that_begins_before_any_event_is_refused(months: str) -> None:
    entry = "customProperties:\n  - {property: retentionMonths, value: %s}"
    assert orders_contract(**{"customProperties:": entry % 1200}).retention_months == 1200
    with pytest.raises(ContractError, match="expected a whole number from 0 to 1200, or leave it out"):
        orders_contract(**{"customProperties:": entry % months})


def test_more_fields_than_a_table_has_columns_are_refused() -> None:
    many = "\n".join(f"      - {{name: f{n}, logicalType: boolean}}" for n in range(1585))
    place = "      - {name: due_on, logicalType: date}"
    assert len(orders_contract(**{place: many}).fields) == 1595
    with pytest.raises(
        ContractError, match="schema has 1596 properties, a table of PostgreSQL takes 1595; leave some out"
    ):
        orders_contract(**{place: f"{many}\n{place}"})


def test_what_no_check_has_thought_of_is_told_when_the_contract_is_read(monkeypatch) -> None:
    monkeypatch.setattr("streaming.contract.RESERVED_PREFIX", "?")
    with pytest.raises(ContractError, match=r"no event could be read by its properties.*__dict__"):
        orders_contract(**{"name: due_on": "name: __dict__, physicalName: due_on"})


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ContractError) as caught:
        orders_contract(**{"logicalType: boolean": "logicalType: bool", "Europe/London": "Nowhere"})
    assert "2 problem(s)" in str(caught.value)


def test_a_file_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(ContractError, match="it is not YAML"):
        read_contract("a: [")
    with pytest.raises(ContractError, match="no mapping"):
        read_contract("- a")


@pytest.mark.parametrize(
    ("version", "problem"),
    [("2026-02-30", "day is out of range"), ("{{ version }}", "unhashable key"), ("!secret version", "tag '!secret'")],
)
def test_what_stands_for_no_value_is_told_with_its_line(version: str, problem: str) -> None:
    told = rf"(?s)x.yaml: a value cannot be read: .*{problem}.* line 5, .*Nothing was started"
    with pytest.raises(ContractError, match=told):
        read_contract(ORDERS.replace("2.1.0", version), path="x.yaml")


def test_a_topic_without_a_contract_names_those_there_are(tmp_path) -> None:
    (tmp_path / "shop.orders.yaml").write_text(ORDERS)
    with pytest.raises(ContractError, match=r"contracts found there: shop\.orders"):
        load_contract("shop.returns", tmp_path)


def test_a_file_named_for_another_topic_is_refused(tmp_path) -> None:
    (tmp_path / "shop.returns.yaml").write_text(ORDERS)
    with pytest.raises(ContractError, match=r"physicalName is 'shop\.orders', the file's name says 'shop\.returns'"):
        load_contract("shop.returns", tmp_path)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_that_is_no_utf_8_is_refused(tmp_path, encoding: str) -> None:
    (tmp_path / "shop.orders.yaml").write_text(f"# £\n{ORDERS}", encoding=encoding)
    with pytest.raises(ContractError, match=r"shop\.orders\.yaml: it is no UTF-8 text, by its byte [13]\. .* Save it"):
        load_contracts(tmp_path)


def test_a_byte_order_mark_is_no_part_of_a_contract(tmp_path) -> None:
    (tmp_path / "shop.orders.yaml").write_text(ORDERS, encoding="utf-8-sig")
    assert list(load_contracts(tmp_path)) == ["shop.orders"]


@pytest.mark.parametrize("ending", ["yml", "YAML", "Yml"])
def test_a_contract_whose_name_ends_in_another_way_is_not_left_out_silently(tmp_path, ending: str) -> None:
    (tmp_path / f"shop.orders.{ending}").write_text(ORDERS)
    with pytest.raises(ContractError, match=rf"shop\.orders\.{ending} would be left out"):
        load_contracts(tmp_path)


@pytest.mark.parametrize("name", [".#shop.orders.yaml", "shop.orders (copy).yaml"])
def test_a_file_whose_name_no_topic_can_have_is_told_by_its_name(tmp_path, name: str) -> None:
    (tmp_path / "shop.orders.yaml").write_text(ORDERS)
    (tmp_path / name).symlink_to("nobody@host.1")  # as Emacs marks a file that is edited
    with pytest.raises(ContractError, match=rf"reading {tmp_path}: {re.escape(name)} can be no contract"):
        load_contracts(tmp_path)


def test_a_folder_without_contracts_gives_nothing_to_land(tmp_path) -> None:
    env = {"KAFKA_BOOTSTRAP_SERVERS": "x:1", "LAKE_DSN": "postgresql://x/x", "STREAMING_CONTRACTS_DIR": str(tmp_path)}
    result = CliRunner().invoke(main, ["consume"], env=env)
    assert result.exit_code == 1
    assert "there is no contract (*.yaml) in it" in result.output


def test_two_topics_never_share_a_landing_table(tmp_path) -> None:
    (tmp_path / "shop.orders.yaml").write_text(ORDERS)
    (tmp_path / "shop-orders.yaml").write_text(ORDERS.replace("physicalName: shop.orders", "physicalName: shop-orders"))
    with pytest.raises(ContractError, match=r"share landing\.shop_orders"):
        load_contracts(tmp_path)


def test_no_stream_is_called_like_a_month_of_another(tmp_path) -> None:
    text = ORDERS.replace("shop.orders", "shop.orders.2024.05").replace(
        "name: shop_orders", "name: shop_orders_2024_05"
    )
    (tmp_path / "shop.orders.2024.05.yaml").write_text(text)
    assert load_contracts(tmp_path)["shop.orders.2024.05"].stream == "shop_orders_2024_05"
    (tmp_path / "shop.orders.yaml").write_text(ORDERS)
    with pytest.raises(
        ContractError, match=r"topic shop\.orders\.2024\.05 .* as a month of topic shop\.orders is called"
    ):
        load_contracts(tmp_path)


def test_the_contracts_are_part_of_the_package() -> None:
    assert (CONTRACTS_DIR / "retail.invoices.yaml").is_file()


@pytest.mark.parametrize("name", ["a b", "a/b", "ä", ".", "..", "", "a" * 250, "a" * 9_000])
@pytest.mark.parametrize("command", ["topic create", "topic create --partitions 1", "consume --topic"])
def test_a_name_that_kafka_does_not_take_is_told_before_anything_is_asked(command: str, name: str) -> None:
    env = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "LAKE_DSN": "postgresql://127.0.0.1:1/x"}
    result = CliRunner().invoke(main, [*command.split(), name], env=env)
    assert result.exit_code == 1
    assert re.search(r"^TopicError: .*not a topic's name: Kafka takes 1 to 249 letters", result.output), result.output
    assert len(result.output) < 300
