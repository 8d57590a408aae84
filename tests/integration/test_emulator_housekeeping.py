"""The emulator's housekeeping: what it forgets is what nobody asks for any more, and no row is lost by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from google.api_core.exceptions import NotFound
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

from dbt_like_sql.errors import JobError
from dbt_like_sql.settings import WarehouseSettings
from dbt_like_sql.warehouse import Warehouse, open_warehouse
from deploy.embedded.services import BigQuery, start_bigquery

from .emulator_process import require_the_same

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]
EVERY_S = 0.5
EAGER = ("--tidy-every-s", str(EVERY_S), "--small-kept-s", "2", "--jobs-kept-s", "6", "--snapshots-kept-s", "1")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQuery]:
    options = (*EAGER, "--merge-from-files", "5")
    with start_bigquery(tmp_path_factory.mktemp("emulator"), project="tidy", housekeeping=options) as found:
        yield found


@pytest.fixture(scope="module")
def warehouse(emulator: BigQuery) -> Warehouse:
    opened = open_warehouse(WarehouseSettings("tidy", dataset_prefix="t", emulator_host=emulator.url))
    for dataset in ("x", "y"):
        opened.client.create_dataset(f"tidy.{opened.settings.dataset_id(dataset)}")
    return opened


def until(condition: Callable[[], bool], what: str, *, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.2)


def test_a_result_can_be_read_for_a_while_and_is_gone_later_and_then_its_job(warehouse: Warehouse) -> None:
    job = warehouse.client.query("SELECT 1 AS one")
    assert [row["one"] for row in job.result()] == [1]
    assert [row["one"] for row in warehouse.client.get_job(job.job_id).result()] == [1], "read a second time"

    def is_gone(ask: Callable[[], object]) -> bool:
        try:
            ask()
        except NotFound:
            return True
        return False

    until(lambda: is_gone(lambda: list(warehouse.client.get_job(job.job_id).result())), "the result is dropped")
    until(lambda: is_gone(lambda: warehouse.client.get_job(job.job_id)), "the job is forgotten")


def test_a_large_result_is_kept_for_those_who_read_it_page_by_page(warehouse: Warehouse) -> None:
    job = warehouse.client.query("SELECT number FROM UNNEST(GENERATE_ARRAY(1, 20000)) AS number ORDER BY number")
    pages = iter(job.result(page_size=8_000).pages)
    read = len(list(next(pages)))
    time.sleep(4.0)  # twice as long as a small one is kept
    assert read + sum(len(list(page)) for page in pages) == 20_000


def files_of(emulator: BigQuery, table: str) -> int:
    return len(list(Path(emulator.log.parent, "data").rglob(f"{table}/**/*.parquet")))


def delete(warehouse: Warehouse, sql: str) -> None:
    """As loads and publications do: one whose files are merged in the same instant is refused, and tried again."""
    for left in reversed(range(5)):
        try:
            warehouse.run(sql)
        except JobError as error:
            if not left or "failed to commit" not in str(error).lower():
                raise
            time.sleep(EVERY_S)
        else:
            return


@pytest.mark.parametrize("partitioned", [True, False])
def test_small_files_become_few_and_every_row_stays_while_rows_come_in(
    emulator: BigQuery, warehouse: Warehouse, *, partitioned: bool
) -> None:
    table = "many" if partitioned else "plain"
    ids = [warehouse.table_id(f"{dataset}.{table}") for dataset in ("x", "y")]  # one name in two datasets
    clause = "PARTITION BY day" if partitioned else ""
    for each in ids:
        warehouse.run(f"CREATE TABLE `{each}` (day DATE, number INT64, amount NUMERIC) {clause}")
    for number in range(30):
        for times, each in enumerate(ids, start=1):
            day = f"DATE '2010-12-0{1 + number % 2}'"
            warehouse.run(f"INSERT INTO `{each}` VALUES ({day}, {number}, NUMERIC '0.000000001' * {times})")
    for times, each in enumerate(ids, start=1):
        sql = f"SELECT COUNT(*) AS n, COUNT(DISTINCT number) AS numbers, SUM(amount) AS amount FROM `{each}`"
        [row] = warehouse.run(sql).rows
        assert (row["n"], row["numbers"], row["amount"]) == (30, 30, Decimal(30 * times).scaleb(-9))
        delete(warehouse, f"DELETE FROM `{each}` WHERE number < 3")
    until(lambda: files_of(emulator, table) <= 2 * 2 * 6, "what was 60 files is few", within_s=60)
    for each in ids:
        [row] = warehouse.run(f"SELECT COUNT(*) AS n, MIN(number) AS least FROM `{each}`").rows
        assert (row["n"], row["least"]) == (27, 3)


def test_a_fence_that_moves_all_the_time_is_never_held_up_by_it(warehouse: Warehouse) -> None:
    fence, rows = warehouse.table_id("x.fence"), warehouse.table_id("x.rows")
    warehouse.run(f"CREATE TABLE `{fence}` (version INT64)")
    warehouse.run(f"INSERT INTO `{fence}` VALUES (0)")
    warehouse.run(f"CREATE TABLE `{rows}` (version INT64)")
    stop, failed = threading.Event(), list[BaseException]()

    def publish() -> None:
        version = 0
        while not stop.is_set() and version < 40:
            script = f"""
BEGIN TRANSACTION;
UPDATE `{fence}` SET version = version + 1 WHERE version = {version};
ASSERT @@row_count = 1 AS 'fenced';
INSERT INTO `{rows}` VALUES ({version + 1});
COMMIT TRANSACTION;"""
            try:
                warehouse.run(script)
            except BaseException as error:  # noqa: BLE001 - told by the test
                failed.append(error)
                return
            version += 1

    thread = threading.Thread(target=publish)
    thread.start()
    thread.join(120)
    stop.set()
    assert not failed, failed
    [row] = warehouse.run(f"SELECT COUNT(*) AS n, MAX(version) AS last FROM `{rows}`").rows
    assert (row["n"], row["last"]) == (40, 40)
    assert warehouse.run(f"SELECT version FROM `{fence}`").rows == [{"version": 40}]


def test_a_long_transaction_reads_what_was_there_when_it_began_whatever_others_replace(warehouse: Warehouse) -> None:
    """Snapshots are kept for a second here, and the transaction takes several."""
    table, other = warehouse.table_id("x.replaced"), warehouse.table_id("x.kept")
    for each in (table, other):
        warehouse.run(f"CREATE TABLE `{each}` (number INT64)")
        warehouse.run(f"INSERT INTO `{each}` SELECT * FROM UNNEST(GENERATE_ARRAY(1, 1000))")
    slow = f"""
BEGIN TRANSACTION;
SELECT COUNT(*) AS n FROM `{other}`;
SELECT COUNT(DISTINCT a * b) AS n FROM UNNEST(GENERATE_ARRAY(1, 9000)) AS a, UNNEST(GENERATE_ARRAY(1, 5000)) AS b;
INSERT INTO `{other}` SELECT number FROM `{table}`;
COMMIT TRANSACTION;
SELECT COUNT(*) AS n FROM `{other}`;"""
    found, began = list[int](), time.monotonic()

    def read_slowly() -> None:
        found.append(warehouse.run(slow).rows[0]["n"])

    reader = threading.Thread(target=read_slowly)
    reader.start()
    replaced = 0
    while reader.is_alive():
        warehouse.run(f"UPDATE `{table}` SET number = number + 1 WHERE TRUE")
        replaced += 1
    reader.join()
    assert time.monotonic() - began > 1 + 3 * EVERY_S, "too quick to show anything"
    assert replaced > 1
    assert found == [2000]


def test_each_of_its_tasks_is_known_to_this_version_of_the_engine(emulator: BigQuery, warehouse: Warehouse) -> None:
    warehouse.run("SELECT 1 AS one")
    time.sleep(3 * EVERY_S)
    told = [line for line in emulator.log.read_text().splitlines() if line.startswith("housekeeping: ")]
    for task in ("drop_results", "forget_jobs", "bound_memory", "return_memory"):  # a merge may meet a commit
        assert not [line for line in told if line.startswith(f"housekeeping: {task}")], told
    assert "Exception in thread" not in emulator.log.read_text()


def test_a_table_is_read_in_messages_of_some_megabytes(emulator: BigQuery, warehouse: Warehouse) -> None:
    """Of a million rows a message, the emulator and whoever reads held several copies at once: 700 MB."""
    name = warehouse.table_id("y.read")
    warehouse.client.query(f"CREATE TABLE `{name}` AS SELECT n FROM UNNEST(GENERATE_ARRAY(1, 50000)) AS n").result()
    channel = grpc.insecure_channel(f"127.0.0.1:{emulator.grpc_port}")
    client = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
    project, dataset, table = name.split(".")
    wanted = types.ReadSession(
        table=f"projects/{project}/datasets/{dataset}/tables/{table}", data_format=types.DataFormat.ARROW
    )
    session = client.create_read_session(parent="projects/tidy", read_session=wanted, max_stream_count=1)
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    batches = [
        pa.ipc.read_record_batch(pa.py_buffer(message.arrow_record_batch.serialized_record_batch), schema)
        for message in client.read_rows(session.streams[0].name)
    ]
    channel.close()
    assert [batch.num_rows for batch in batches] == [20_000, 20_000, 10_000]
    assert sorted(pa.Table.from_batches(batches).column(0).to_pylist()) == list(range(1, 50_001))


TWINS = """
import pathlib, sys
from local_bigquery.settings import settings
settings.data_dir, settings.default_project_id = pathlib.Path(sys.argv[1]), "p"
sys.path.insert(0, sys.argv[2])
import bigquery_emulator
from local_bigquery.errors import BigQueryError
from local_bigquery.jobs import runner, store
from local_bigquery.models import JobConfiguration

bigquery_emulator.QuickJobs().install()

def submit(job):
    runner.submit("p", job, JobConfiguration.model_validate({"query": {"query": "SELECT 1", "useLegacySql": False}}))
    return runner.wait("p", job, 60000).status.state

assert submit("first") == "DONE"
look, early = store.load, [None]  # the second one has looked before the first was written down
store.load = lambda *of: early.pop() if early else look(*of)
try:
    submit("first")
except BigQueryError as error:
    assert error.code == 409, error  # a client then waits for the first
else:
    raise AssertionError("it ran twice")
store.load = look
assert submit("next") == "DONE"
assert runner.get("p", "first").status.state == "DONE", "whoever is told of it waits for ever"
print("the same")
"""


def test_of_two_jobs_of_one_id_in_the_same_instant_one_runs_and_its_end_stands(tmp_path: Path) -> None:
    require_the_same(TWINS, tmp_path, timeout_s=120)
