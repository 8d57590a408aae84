from __future__ import annotations

from decimal import Decimal

import pytest

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
        ("2009-01-01T00:00:00Z", "soon", "limit 'soon' is no timestamp"),
        ("physicalName: shop.orders", "physicalName: shop orders", "not a topic's name"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_refused(old: str, new: str, problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        orders_contract(**{old: new})


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ContractError) as caught:
        orders_contract(**{"logicalType: boolean": "logicalType: bool", "Europe/London": "Nowhere"})
    assert "2 problem(s)" in str(caught.value)


def test_a_file_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(ContractError, match="it is not YAML"):
        read_contract("a: [")
    with pytest.raises(ContractError, match="no mapping"):
        read_contract("- a")


def test_a_topic_without_a_contract_names_those_there_are(tmp_path) -> None:
    (tmp_path / "shop.orders.yaml").write_text(ORDERS)
    with pytest.raises(ContractError, match=r"contracts found there: shop\.orders"):
        load_contract("shop.returns", tmp_path)


def test_a_file_named_for_another_topic_is_refused(tmp_path) -> None:
    (tmp_path / "shop.returns.yaml").write_text(ORDERS)
    with pytest.raises(ContractError, match=r"physicalName is 'shop\.orders', the file's name says 'shop\.returns'"):
        load_contract("shop.returns", tmp_path)


def test_two_topics_never_share_a_landing_table(tmp_path) -> None:
    (tmp_path / "shop.orders.yaml").write_text(ORDERS)
    (tmp_path / "shop-orders.yaml").write_text(ORDERS.replace("physicalName: shop.orders", "physicalName: shop-orders"))
    with pytest.raises(ContractError, match=r"share landing\.shop_orders"):
        load_contracts(tmp_path)


def test_the_contracts_are_part_of_the_package() -> None:
    assert (CONTRACTS_DIR / "retail.invoices.yaml").is_file()
