"""Where the BigQuery emulator differs from BigQuery, and what of BigQuery we rely on.

`test_emulator_*` pin the emulator's lies: when one of them fails, a new version has mended it, and the code that goes
around it can go. `test_bigquery_*` is what both must do. Set TEST_BIGQUERY_PROJECT to run the latter on a real project
(Application Default Credentials; datasets of their own, dropped afterwards).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from google.cloud import bigquery

from dbt_like_sql.errors import JobError
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]
REAL_PROJECT = os.environ.get("TEST_BIGQUERY_PROJECT")
emulator_only = pytest.mark.skipif(bool(REAL_PROJECT), reason="about the emulator; TEST_BIGQUERY_PROJECT is set")


@pytest.fixture(scope="module")
def warehouse(real_project: str | None, request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    prefix = f"boundary{uuid.uuid4().hex[:8]}"
    if real_project:
        location = os.environ.get("WAREHOUSE_LOCATION", "EU")
        settings = WarehouseSettings(real_project, location, prefix)
    else:
        host = request.getfixturevalue("bigquery_host")
        settings = WarehouseSettings("local", dataset_prefix=prefix, emulator_host=host)
    opened = open_warehouse(settings)
    opened.client.create_dataset(f"{settings.project}.{settings.dataset_id('x')}")
    yield opened
    opened.client.delete_dataset(f"{settings.project}.{settings.dataset_id('x')}", delete_contents=True)


@pytest.fixture
def table(warehouse: Warehouse) -> Iterator[Callable[[str], str]]:
    """Create a table from DDL in which `T` stands for its id; dropped after the test."""
    made: list[str] = []

    def create(ddl: str) -> str:
        table_id = warehouse.table_id(f"x.t{uuid.uuid4().hex[:8]}")
        warehouse.run(ddl.replace(" T ", f" `{table_id}` "))
        made.append(table_id)
        return f"`{table_id}`"

    yield create
    for table_id in made:
        warehouse.drop_table(table_id)


PARTITIONED = "CREATE TABLE T (d DATE, k INT64) PARTITION BY d OPTIONS (require_partition_filter=TRUE)"


def _rows(warehouse: Warehouse, sql: str) -> list[dict[str, object]]:
    return warehouse.run(sql).rows


# What we rely on


def test_bigquery_requires_the_partition_filter(warehouse: Warehouse, table: Callable[[str], str]) -> None:
    name = table(PARTITIONED)
    with pytest.raises(JobError, match=r"(?i)filter"):
        warehouse.run(f"SELECT k FROM {name}")
    assert _rows(warehouse, f"SELECT k FROM {name} WHERE d = DATE '2010-12-01'") == []


def test_bigquery_rolls_a_transaction_back_when_an_assertion_fails(
    warehouse: Warehouse, table: Callable[[str], str]
) -> None:
    name = table("CREATE TABLE T (k INT64)")
    with pytest.raises(JobError) as caught:
        warehouse.run(
            f"BEGIN TRANSACTION;\nINSERT INTO {name} (k) VALUES (1);\n"
            f"UPDATE {name} SET k = 2 WHERE k = 7;\nASSERT @@row_count = 1 AS 'fenced: lost';\nCOMMIT TRANSACTION;"
        )
    assert "fenced: lost" in caught.value.detail
    assert _rows(warehouse, f"SELECT COUNT(*) AS n FROM {name}") == [{"n": 0}]


def test_bigquery_carries_the_message_of_a_raise_and_rolls_back(
    warehouse: Warehouse, table: Callable[[str], str]
) -> None:
    name = table("CREATE TABLE T (k INT64)")
    with pytest.raises(JobError) as caught:
        warehouse.run(
            f"BEGIN TRANSACTION;\nINSERT INTO {name} (k) VALUES (1);\n"
            "RAISE USING MESSAGE = CONCAT('checks failed: ', TO_JSON_STRING([STRUCT(1 AS a)]));\nCOMMIT TRANSACTION;"
        )
    assert 'checks failed: [{"a":1}]' in caught.value.detail
    assert _rows(warehouse, f"SELECT COUNT(*) AS n FROM {name}") == [{"n": 0}]


def test_bigquery_keeps_a_job_id_and_its_result(warehouse: Warehouse, table: Callable[[str], str]) -> None:
    name = table("CREATE TABLE T (k INT64)")
    key = uuid.uuid4().hex
    first = warehouse.run(f"INSERT INTO {name} (k) VALUES (1)", job_key=key)
    again = warehouse.run(f"INSERT INTO {name} (k) VALUES (1)", job_key=key)
    assert (first.is_attached, again.is_attached) == (False, True)
    assert again.job_id == first.job_id
    assert _rows(warehouse, f"SELECT COUNT(*) AS n FROM {name}") == [{"n": 1}]


def test_bigquery_lets_one_of_two_transactions_that_update_one_row_commit(
    warehouse: Warehouse, table: Callable[[str], str]
) -> None:
    """The fence rests on this. Without an UPDATE both would commit: see the emulator's and Google's inserts below."""
    fence, rows = table("CREATE TABLE T (version INT64)"), table("CREATE TABLE T (k INT64)")
    warehouse.run(f"INSERT INTO {fence} (version) VALUES (1)")

    def race(_: int) -> bool:
        try:
            warehouse.run(
                f"BEGIN TRANSACTION;\nUPDATE {fence} SET version = 2 WHERE version = 1;\n"
                f"ASSERT @@row_count = 1 AS 'fenced';\n"
                f"INSERT INTO {rows} (k) SELECT n FROM UNNEST(GENERATE_ARRAY(1, 100)) AS n\n"
                f"WHERE NOT EXISTS (SELECT 1 FROM {rows} AS t WHERE t.k = n);\nCOMMIT TRANSACTION;"
            )
        except JobError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(race, range(2))) == [False, True]
    assert _rows(warehouse, f"SELECT COUNT(*) AS n FROM {rows}") == [{"n": 100}]


def test_bigquery_sums_numeric_exactly(warehouse: Warehouse) -> None:
    big = "99999999999999999999.999999999"
    (row,) = _rows(warehouse, f"SELECT SUM(v) AS s FROM UNNEST([NUMERIC '{big}', NUMERIC '-0.000000001']) AS v")
    assert row["s"] == Decimal("99999999999999999999.999999998")


def test_bigquery_refuses_null_in_a_required_column(warehouse: Warehouse, table: Callable[[str], str]) -> None:
    name = table("CREATE TABLE T (k INT64 NOT NULL)")
    with pytest.raises(JobError):
        warehouse.run(f"INSERT INTO {name} (k) SELECT CAST(NULL AS INT64)")


# Where the emulator lies


def test_bigquery_widens_a_column_by_ddl_and_keeps_what_else_it_is(
    warehouse: Warehouse, table: Callable[[str], str]
) -> None:
    name = table("CREATE TABLE T (k INT64 NOT NULL OPTIONS (description='the k'))")
    warehouse.run(f"INSERT INTO {name} (k) VALUES (7)")
    warehouse.run(f"ALTER TABLE {name} ALTER COLUMN k SET DATA TYPE NUMERIC")
    warehouse.run(f"INSERT INTO {name} (k) VALUES (NUMERIC '0.25')")
    assert _rows(warehouse, f"SELECT SUM(k) AS k FROM {name}") == [{"k": Decimal("7.25")}]
    [field] = warehouse.client.get_table(name.strip("`")).schema
    assert (field.field_type, field.mode, field.description) == ("NUMERIC", "REQUIRED", "the k")


@emulator_only
def test_emulator_refuses_merge_inside_a_transaction(warehouse: Warehouse, table: Callable[[str], str]) -> None:
    """Real BigQuery allows it; so loads and publications use DELETE and INSERT."""
    name = table("CREATE TABLE T (k INT64)")
    merge = f"MERGE {name} AS t USING (SELECT 1 AS k) AS s ON t.k = s.k WHEN NOT MATCHED THEN INSERT (k) VALUES (s.k)"
    warehouse.run(merge)
    with pytest.raises(JobError):
        warehouse.run(f"BEGIN TRANSACTION;\n{merge};\nCOMMIT TRANSACTION;")


@emulator_only
def test_emulator_refuses_merge_where_a_partition_filter_is_required(
    warehouse: Warehouse, table: Callable[[str], str]
) -> None:
    name = table(PARTITIONED)
    with pytest.raises(JobError):
        warehouse.run(
            f"MERGE {name} AS t USING (SELECT DATE '2010-12-01' AS d, 1 AS k) AS s\n"
            "ON t.d = DATE '2010-12-01' AND t.k = s.k\nWHEN NOT MATCHED THEN INSERT (d, k) VALUES (s.d, s.k)"
        )


@emulator_only
def test_emulator_rolls_variables_back_with_the_transaction(warehouse: Warehouse, table: Callable[[str], str]) -> None:
    """BigQuery's variables are no rows; so failed checks travel in the text of an error."""
    name = table("CREATE TABLE T (k INT64)")
    assert _rows(
        warehouse,
        f"DECLARE n INT64 DEFAULT 0;\nBEGIN TRANSACTION;\nINSERT INTO {name} (k) VALUES (1);\n"
        f"SET n = (SELECT COUNT(*) FROM {name});\nROLLBACK TRANSACTION;\nSELECT n;",
    ) == [{"n": 0}]


@emulator_only
def test_emulator_shows_no_rows_of_a_select_before_the_commit(
    warehouse: Warehouse, table: Callable[[str], str]
) -> None:
    """BigQuery returns the last SELECT of a script wherever it stands; so ours end with it."""
    name = table("CREATE TABLE T (k INT64)")
    assert (
        _rows(warehouse, f"BEGIN TRANSACTION;\nINSERT INTO {name} (k) VALUES (1);\nSELECT 1 AS a;\nCOMMIT TRANSACTION;")
        == []
    )


@emulator_only
def test_emulator_doubles_rows_of_inserts_without_a_fence(warehouse: Warehouse, table: Callable[[str], str]) -> None:
    """Not a lie, a warning: inserts conflict nowhere. Seen in most tries, so one of ten must show it."""
    name = table("CREATE TABLE T (k INT64)")

    def insert(_: int) -> None:
        warehouse.run(
            f"BEGIN TRANSACTION;\nINSERT INTO {name} (k) SELECT n FROM UNNEST(GENERATE_ARRAY(1, 500)) AS n\n"
            f"WHERE NOT EXISTS (SELECT 1 FROM {name} AS t WHERE t.k = n);\nCOMMIT TRANSACTION;"
        )

    for _ in range(10):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(insert, range(2)))
        if _rows(warehouse, f"SELECT COUNT(*) AS n FROM {name}") != [{"n": 500}]:
            return
        warehouse.run(f"DELETE FROM {name} WHERE TRUE")
    pytest.fail("ten races without a fence doubled nothing: is the fence still needed on this emulator?")


@emulator_only
def test_emulator_does_not_round_products(warehouse: Warehouse) -> None:
    """BigQuery rounds NUMERIC products to nine places; so no model multiplies, Mage's blocks do."""
    (row,) = _rows(warehouse, "SELECT NUMERIC '0.000000001' * NUMERIC '0.5' AS p")
    assert row["p"] != Decimal("0.000000001")


@emulator_only
def test_emulator_refuses_to_round_products_itself(warehouse: Warehouse) -> None:
    try:
        (row,) = _rows(warehouse, "SELECT ROUND(a * b, 9) AS p FROM (SELECT NUMERIC '2.55' AS a, NUMERIC '6' AS b)")
    except JobError:
        return
    assert row["p"] == Decimal("15.3")


@emulator_only
def test_emulator_takes_a_partition_decorator_for_a_name(warehouse: Warehouse, table: Callable[[str], str]) -> None:
    """`table$20101201` is a table partition on BigQuery, a table of its own here; so we never use decorators."""
    name = table(PARTITIONED).strip("`")
    assert not warehouse.table_exists(f"{name}$20101201")


@emulator_only
def test_emulator_bills_nothing_and_ignores_the_limit(warehouse: Warehouse) -> None:
    """So cost is tested on a real project only; the limit is not even sent to an emulator."""
    done = warehouse.run("SELECT 1 AS a")
    assert (done.bytes_billed, done.bytes_processed) == (0, 0)


@emulator_only
def test_emulator_cannot_pack_a_star_into_a_struct(warehouse: Warehouse) -> None:
    """BigQuery can; so audits name their columns."""
    with pytest.raises(JobError):
        warehouse.run("SELECT ARRAY(SELECT AS STRUCT c.* FROM (SELECT 1 AS a) AS c) AS x")


@emulator_only
def test_emulator_takes_another_type_by_its_api_and_goes_on_with_the_old_one(
    warehouse: Warehouse, table: Callable[[str], str]
) -> None:
    name = table("CREATE TABLE T (k INT64)").strip("`")
    there = warehouse.client.get_table(name)
    there.schema = [bigquery.SchemaField("k", "NUMERIC")]
    warehouse.client.update_table(there, ["schema"])
    assert [field.field_type for field in warehouse.client.get_table(name).schema] == ["INTEGER"]
