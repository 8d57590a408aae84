"""The emulator's answers about its tables, remembered for a state of the catalog, are those that it gives when asked.

In a process of the embedded environment's own Python: the three functions are compared side by side after each change.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.schedule import whole_schedule_only

from .emulator_process import require_the_same

pytestmark = [pytest.mark.integration, whole_schedule_only("a minute")]

COMPARE = """
import pathlib, sys, threading
from local_bigquery.settings import settings
settings.data_dir, settings.default_project_id = pathlib.Path(sys.argv[1]), "p"
sys.path.insert(0, sys.argv[2])
import bigquery_emulator
from local_bigquery.catalog import tables
from local_bigquery.engine import database
from local_bigquery.jobs import runner, store
from local_bigquery.models import JobConfiguration

asked, listed, described = database.fetch, database.objects, tables.columns
known = bigquery_emulator.KnownCatalog()
known.install()
bigquery_emulator.QuickJobs().install()
assert (database.fetch, database.objects, tables.columns) == (known.fetch, known.objects, known.columns)
COLUMNS = ("SELECT column_name, is_nullable FROM duckdb_columns() "
           "WHERE database_name = ? AND schema_name = ? AND table_name = ?")
count = 0

def run(sql):
    global count
    count += 1
    job = f"j{count}"
    runner.submit("p", job, JobConfiguration.model_validate({"query": {"query": sql, "useLegacySql": False}}))
    done = runner.wait("p", job, 60000)
    assert done.status.errorResult is None, done.status.errorResult
    return job

def columns_by(function, *place):
    try:
        return function(*place)
    except Exception as error:
        return str(error)

def same(what):
    for dataset in ("d", "e", "nowhere"):
        found = database.objects("p", dataset)
        assert found == sorted(listed("p", dataset)), (what, found, listed("p", dataset))
        for name in ("t", "v", "u", "gone"):
            assert database.objects("p", dataset, name) == listed("p", dataset, name), (what, dataset, name)
            place = ["p", dataset, name]
            assert database.fetch(COLUMNS, place) == asked(COLUMNS, place), (what, dataset, name)
            required, named = bigquery_emulator.REQUIRED_SQL, bigquery_emulator.NAMED_SQL
            assert database.fetch(required, place) == asked(required, place), (what, dataset, name)
            for column in ("n", "nothing"):
                assert database.fetch(named, [*place, column]) == asked(named, [*place, column]), (what, column)
            assert columns_by(tables.columns, *place) == columns_by(described, *place), (what, dataset, name)
    assert database.objects("q", "d") == listed("q", "d") == [], what

same("nothing is there")
for sql in (
    "CREATE SCHEMA d", "CREATE SCHEMA e", "CREATE TABLE d.t (n INT64 NOT NULL, day DATE) PARTITION BY day",
    "CREATE TABLE e.t (other STRING)", "INSERT INTO d.t VALUES (1, DATE '2010-12-01'), (2, DATE '2010-12-02')",
    "CREATE VIEW d.v AS SELECT n FROM d.t", "CREATE OR REPLACE VIEW d.v AS SELECT day FROM d.t",
    "CREATE TABLE d.gone AS SELECT 1 AS one", "DROP TABLE d.gone", "ALTER TABLE d.t ADD COLUMN more STRING",
    "ALTER TABLE d.t ALTER COLUMN n DROP NOT NULL", "DELETE FROM d.t WHERE n = 1", "DROP VIEW d.v",
    "CREATE TABLE d.v (n INT64)", "ALTER TABLE d.v RENAME TO u", "TRUNCATE TABLE d.t",
    "BEGIN TRANSACTION; INSERT INTO d.t (n) VALUES (6); ROLLBACK TRANSACTION;",
    "BEGIN TRANSACTION; INSERT INTO d.t (n) VALUES (7); COMMIT TRANSACTION;",
    "CREATE OR REPLACE TABLE d.t (n STRING)",
):
    run(sql)
    same(sql)
    if count % 4 == 0:  # what was remembered just now; it takes as long as the first time
        same(sql + ", a second time")
assert database.objects("p", "d", "t")[0][1] == "TABLE"

# results of queries are tables of another kind, and new ones all the time
job = run("SELECT 1 AS one")
place = tables.physical("p", tables.RESULTS, job)
assert database.objects(*place) == listed(*place) == [(place[2], "TABLE", 1)]
assert columns_by(tables.columns, "p", tables.RESULTS, job) == columns_by(described, "p", tables.RESULTS, job)
assert asked("SELECT column_name FROM duckdb_columns() WHERE database_name = ? AND schema_name = ? AND table_name = ? "
             "AND NOT is_nullable", list(place)) == []
gone = tables.physical("p", tables.RESULTS, "never")
assert database.objects(*gone) == listed(*gone) == []

# a script's statements are jobs of their own, and its temporary tables its own
script = run("CREATE TEMP TABLE mine AS SELECT 1 AS one; SELECT one FROM mine; SELECT one + 1 FROM mine;")
assert sorted(each.jobReference.jobId for each in store.list_("p", parent_job_id=script)) == [
    f"script_job_{script}_{at}" for at in range(3)]
assert store.load("p", script).status.state == "DONE"
assert run("SELECT 1 AS one") and runner.wait("p", f"j{count}", 60000).status.state == "DONE"

# what one thread has made, another one finds at once
def make(number):
    for at in range(8):
        run_of = f"x{number}_{at}"
        with database.cursor() as cursor:
            for attempt in range(20):
                try:
                    cursor.execute(f'CREATE TABLE "p"."e"."{run_of}" (n BIGINT)')
                    break
                except Exception:
                    if attempt == 19:
                        raise
        if not database.objects("p", "e", run_of):
            missed.append(run_of)

missed = []
threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
[each.start() for each in threads]
[each.join() for each in threads]
assert not missed, missed
assert len(database.objects("p", "e")) == 33
same("threads")
print("the same")
"""


def test_what_is_remembered_is_what_would_be_found(tmp_path: Path) -> None:
    require_the_same(COMPARE, tmp_path / "data", timeout_s=120)
