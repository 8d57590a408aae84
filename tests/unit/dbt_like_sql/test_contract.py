"""Contracts are ODCS 3.1, and what is wrong in one is named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt_like_sql.contract import read_contract
from dbt_like_sql.errors import ContractError

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: mart.things
version: 1.0.0
status: active
description:
  purpose: Things.
  limitations: None known.
team:
  name: shop
schema:
  - name: things
    dataGranularityDescription: One row a thing.
    customProperties:
      - property: materialization
        value: table
    properties:
      - name: thing
        logicalType: string
        physicalType: STRING
        required: true
        primaryKey: true
        description: The thing's name.
      - name: price_gbp
        logicalType: number
        physicalType: NUMERIC
        description: Its price.
        customProperties:
          - property: unit
            value: GBP
"""


def _read(tmp_path: Path, text: str):
    path = tmp_path / "contract.yaml"
    path.write_text(text, encoding="utf-8")
    return read_contract(path)


def _require_refused(tmp_path: Path, text: str, line: int, says: str) -> None:
    with pytest.raises(ContractError) as caught:
        _read(tmp_path, text)
    assert says in caught.value.problem
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("clustering", "thing", "clustering is 'thing'; expected a list"),
        ("clustering", "[3]", "clustering is [3]; expected a list of texts"),
        ("requirePartitionFilter", '"false"', "requirePartitionFilter is 'false'; expected true or false"),
        ("additiveBy", "[thing]", "additiveBy is ['thing']; expected a text"),
        ("materialization", "view", "property materialization stands twice"),
    ],
)
def test_property_of_a_table_that_is_not_of_its_kind_or_stands_twice_is_refused_with_its_line(
    tmp_path: Path, name: str, value: str, says: str
) -> None:
    more = f"        value: table\n      - property: {name}\n        value: {value}\n"
    _require_refused(tmp_path, CONTRACT.replace("        value: table\n", more), 17, says)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("additive", '"false"', "column price_gbp: additive is 'false'; expected true or false"),
        ("unit", "EUR", "column price_gbp: property unit stands twice"),
        ("unti", "EUR", "column price_gbp: unknown property unti; known: unit, additive, asOf"),
    ],
)
def test_property_of_a_column_is_held_to_the_same(tmp_path: Path, name: str, value: str, says: str) -> None:
    _require_refused(tmp_path, f"{CONTRACT}          - property: {name}\n            value: {value}\n", 31, says)


@pytest.mark.parametrize("kind", ["string/STRING", "boolean/BOOL", "timestamp/TIMESTAMP", "array/ARRAY<INT64>"])
def test_column_without_a_sum_is_not_additive(tmp_path: Path, kind: str) -> None:
    """Its publication would fail, of every table that is published with it."""
    logical, physical = kind.split("/")
    other = CONTRACT.replace("logicalType: number", f"logicalType: {logical}")
    other = other.replace("physicalType: NUMERIC", f"physicalType: {physical}")
    more = "          - property: additive\n            value: true\n"
    _require_refused(tmp_path, other + more, 24, f"additive is for INT64 and NUMERIC, not for {physical}")
    assert _read(tmp_path, CONTRACT + more).columns[-1].is_additive


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        ("string/STRING", "NO", "its enum has False; expected a text, in quotes"),
        ("string/STRING", "007", "its enum has 7; expected a text, in quotes"),
        ("integer/INT64", "one", "its enum has 'one'; expected a whole number"),
        ("boolean/BOOL", "true", "an enum is for STRING, INT64, NUMERIC, DATE, not for BOOL"),
    ],
)
def test_value_of_an_enum_that_no_row_could_have_is_refused_with_its_line(
    tmp_path: Path, kind: str, value: str, says: str
) -> None:
    logical, physical = kind.split("/")
    typed = CONTRACT.replace("logicalType: number", f"logicalType: {logical}").replace("NUMERIC", physical)
    _require_refused(tmp_path, f"{typed}        enum:\n          - value: {value}\n", 24, f"column price_gbp: {says}")


@pytest.mark.parametrize("name", ["order", "END", "net sales", "2nd", "año", "a-b"])
def test_column_whose_name_sql_takes_with_quotes_only_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ContractError, match=f"column '{name}': not a name that SQL takes") as caught:
        _read(tmp_path, CONTRACT.replace("name: price_gbp", f"name: {name}"))
    assert caught.value.line == 24


def test_contract_says_who_owns_what_and_what_its_columns_are(tmp_path: Path) -> None:
    contract = _read(tmp_path, CONTRACT)
    assert (contract.name, contract.owner, contract.grain) == ("mart.things", "shop", "One row a thing.")
    assert contract.known_limits == "None known."
    thing, price = contract.columns
    assert (thing.type, thing.is_required, thing.is_key) == ("STRING", True, True)
    assert (price.type, price.is_required, price.unit) == ("NUMERIC", False, "GBP")


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("    properties:\n", "    propertys:\n", 17, "unknown key 'propertys'"),
        ("        required: true\n", "        reqired: true\n", 21, "unknown key 'reqired'"),
        ("status: active\n", "statis: active\n", 5, "unknown key 'statis'"),
        ("status: active\n", "status: active\nstatus: draft\n", 6, "stands twice"),
        ("apiVersion: v3.1.0", "apiVersion: v2.2.2", 1, "expected v3.1.0"),
        ("  limitations: None known.\n", "", 7, "known limits"),
        ("  name: shop\n", "  description: x\n", 10, "owner"),
        ("    dataGranularityDescription: One row a thing.\n", "", 12, "grain"),
        ("        description: Its price.\n", "", 24, "price_gbp has no description"),
        ("physicalType: NUMERIC", "physicalType: MONEY", 24, "MONEY is not one of"),
        ("physicalType: NUMERIC", "physicalType: NUMERIC(10,2)", 24, "NUMERIC(10,2) has a length or a scale"),
        ("physicalType: NUMERIC", "physicalType: ARRAY<FOO>", 24, "ARRAY<FOO> is no type that a table here can have"),
        ("physicalType: NUMERIC", "physicalType: ARRAY<NUMERIC", 24, "ARRAY<NUMERIC is no type"),
        ("physicalType: NUMERIC", "physicalType: ARRAY<ARRAY<NUMERIC>>", 24, "is no type"),
        ("physicalType: NUMERIC", "physicalType: NUMERIC<INT64>", 24, "NUMERIC<INT64> is no type"),
        (
            "logicalType: string\n        physicalType: STRING",
            "logicalType: array\n        physicalType: ARRAY<STRING>",
            18,
            "an ARRAY<STRING> is neither required nor part of the key",
        ),
        ("logicalType: number", "logicalType: string", 24, "NUMERIC is number"),
        ("- name: price_gbp", "- name: THING", 24, "stands twice (case does not count)"),
        ("kind: DataContract", "kind: [", 4, "not YAML"),
        ("version: 1.0.0", "version: 2024-02-30", 4, "'2024-02-30': day is out of range for month; put it in quotes"),
        ("version: 1.0.0", "version: !env VERSION", 4, "could not determine a constructor for the tag '!env'"),
        ("version: 1.0.0", "? [version]\n: 1.0.0", 4, "a list or a mapping as a key"),
        ("            value: GBP", "            value: {[a]: GBP}", 30, "found unhashable key"),
        ("  name: shop\n", "  name: shop\a\n", 10, "control character"),
        ("        required: true\n", "        required: perhaps\n", None, "not a valid data contract"),
    ],
)
def test_wrong_contract_is_refused_where_it_is_wrong(
    tmp_path: Path, old: str, new: str, line: int | None, says: str
) -> None:
    assert CONTRACT.count(old) == 1
    with pytest.raises(ContractError, match=r"contract\.yaml") as caught:
        _read(tmp_path, CONTRACT.replace(old, new))
    assert says in caught.value.problem
    assert caught.value.line == line
