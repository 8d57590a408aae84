"""The BigQuery emulator as a program that can run for days: `local-bigquery serve`, and housekeeping beside it.

The emulator keeps the result of every query as a table, every job with its text, and a file for every INSERT, for ever.
BigQuery drops results after a day and merges small files by itself. Without housekeeping a line at 500 events/s needs
twice as long a cycle after a quarter of an hour (docs/figures/soak.md).

For each table that a statement names it also lists all tables, views and columns that there are, several times: most of
a publication's time; for the result of each query as well. Here they are listed once for each state of the catalog, and
for a result not at all (KnownCatalog). What a new connection cannot have is not looked for, and a job is written down
once, with the jobs of its statements (QuickJobs). And it sends a table in
messages of a million rows, which both sides hold several times over; here they are small (SmallMessages).

Run by the embedded environment's own Python, with the arguments of `local-bigquery`. Not here: starting it as a service
(services.py). It reaches into the emulator's modules, whose version is pinned in pyproject.toml beside it.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import json
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from local_bigquery import cli
from local_bigquery.catalog import tables
from local_bigquery.engine import database
from local_bigquery.errors import already_exists
from local_bigquery.grpc import read
from local_bigquery.jobs import query, store
from sqlglot import exp

sys.path.append(str(Path(__file__).parent))  # it is run by its path, with -P: last, so that it hides no library
from translations import Catalog, KnownTranslations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVERY_S = 20.0
RESULTS = ("emulator", "_results")  # where the results of queries are
# BigQuery keeps results for a day. A small one is a single page, which is asked for right after its job; of a large one
# page follows page.
SMALL_ROWS = 10_000
SMALL_KEPT_S = 30.0
RESULTS_KEPT_S = 300.0
ANSWERS_KEPT = 500  # about columns of tables, of all forms that they had; some 30 kB each
JOBS_KEPT_S = 600.0  # 500 a minute at full speed, 8 kB each
# States of tables that nobody reads any more; with each the catalog of its time stays in memory.
SNAPSHOTS_KEPT_S = 180.0
LONGEST_JOB_S = 6 * 3600.0  # BigQuery's own limit; what "runs" for longer was killed with the emulator
MESSAGE_ROWS = 20_000  # of the Storage API: some MB, as BigQuery's own messages
MERGE_FROM_FILES = 60  # new files of a table; merging 250 takes 0.3 s

TEMPORARY_SQL = "SELECT table_name FROM duckdb_tables() WHERE temporary"
RESULTS_SQL = """
SELECT found.table_name
FROM duckdb_tables() AS found
LEFT JOIN emulator.jobs AS job ON found.table_name = job.project_id || ':' || job.job_id
WHERE found.database_name = 'emulator' AND found.schema_name = '_results' AND (
  job.job_id IS NULL
  OR (
    job.state = 'DONE'
    AND CAST(json_extract_string(job.resource, '$.statistics.endTime') AS BIGINT)
      < CASE WHEN found.estimated_size <= ? THEN ? ELSE ? END
  )
)
"""
AT_WORK_SQL = "SELECT MIN(creation_time) FROM emulator.jobs WHERE state != 'DONE' AND creation_time > ?"
JOBS_SQL = """
DELETE FROM emulator.jobs
WHERE state = 'DONE' AND CAST(json_extract_string(resource, '$.statistics.endTime') AS BIGINT) < ?
"""
# Both only ever grow; the two maxima take a third of the time of the newest row by ORDER BY and LIMIT.
STATE_SQL = "SELECT MAX(snapshot_id), MAX(schema_version) FROM {metadata}.ducklake_snapshot"
# Of each table a number that is new with each change of its columns; of each view with each change of any table.
FORMS_SQL = """
SELECT t.table_name, 'TABLE', t.table_id, MAX(c.begin_snapshot), COUNT(*)
FROM {metadata}.ducklake_table AS t
JOIN {metadata}.ducklake_schema AS s ON s.schema_id = t.schema_id AND s.end_snapshot IS NULL
JOIN {metadata}.ducklake_column AS c ON c.table_id = t.table_id AND c.end_snapshot IS NULL
WHERE t.end_snapshot IS NULL AND s.schema_name = $1
GROUP BY t.table_name, t.table_id
UNION ALL
SELECT v.view_name, 'VIEW', v.view_id, $2, 0
FROM {metadata}.ducklake_view AS v
JOIN {metadata}.ducklake_schema AS s ON s.schema_id = v.schema_id AND s.end_snapshot IS NULL
WHERE v.end_snapshot IS NULL AND s.schema_name = $1
"""
OBJECTS_SQL = """
SELECT schema_name, table_name, 'TABLE', estimated_size FROM duckdb_tables() WHERE database_name = $1
UNION ALL
SELECT schema_name, view_name, 'VIEW', 0 FROM duckdb_views() WHERE database_name = $1 AND NOT internal
ORDER BY 2
"""
# The emulator's two questions about a table's columns, for which DuckDB lists all columns of all tables; and our own.
OF_A_TABLE = "FROM duckdb_columns() WHERE database_name = ? AND schema_name = ? AND table_name = ? AND "
REQUIRED_SQL = f"SELECT column_name {OF_A_TABLE}NOT is_nullable"
NAMED_SQL = f"SELECT 1 {OF_A_TABLE}column_name = ?"
COLUMNS_SQL = """
SELECT column_name, nulls_allowed FROM {metadata}.ducklake_column
WHERE table_id = ? AND end_snapshot IS NULL AND parent_column IS NULL ORDER BY column_order
"""
ROWS_SQL = "SELECT record_count FROM {metadata}.ducklake_table_stats WHERE table_id = ?"
FILES_SQL = """
SELECT there.schema_name, info.table_name, info.table_id, info.file_count
FROM ducklake_table_info(?) AS info
JOIN {metadata}.ducklake_schema AS there ON there.schema_id = info.schema_id AND there.end_snapshot IS NULL
"""


Form = tuple[str, int, int, int]  # TABLE or VIEW, and three numbers that change with its columns


class KnownCatalog:
    """What a project has, remembered for as long as nothing has been committed to it.

    Asking for the number of the last commit takes 0.4 ms, listing all tables 8 ms. Both see what is committed, as the
    functions in whose place these stand: they, too, ask in a connection of their own. The state is asked first, so what
    is remembered under it can only be newer, and is asked again at the next state; columns only of tables that have
    changed themselves. A query's result is looked up by its name, four times a query: listing all that there is took 5
    to 10 ms each time.
    """

    def __init__(self) -> None:
        self._fetch, self._objects = database.fetch, database.objects
        self._listed: dict[str, tuple[int, list[tuple[Any, ...]]]] = {}
        self._forms: dict[tuple[str, str], tuple[int, dict[str, Form]]] = {}
        self._columns: dict[tuple[Any, ...], list[Any]] = {}
        self._columns_of = tables.columns

    def install(self) -> None:
        """Take the place of the emulator's own three functions."""
        database.fetch, database.objects, tables.columns = self.fetch, self.objects, self.columns

    def objects(self, project_id: str, dataset_id: str, table_id: str | None = None) -> list[tuple[str, str, int]]:
        """Name, kind and estimated rows of a dataset's tables and views, or of one of them."""
        if (project_id, dataset_id) == RESULTS and table_id is not None:
            return _result(table_id)
        state = self.state(project_id)
        if state is None:
            return self._objects(project_id, dataset_id, table_id)
        if table_id is not None:
            [form] = self.forms([(project_id, dataset_id, table_id)])
            return [] if form is None else [(table_id, form[0], self._rows(project_id, form))]
        known = self._listed.get(project_id)
        if known is None or known[0] != state[0]:
            known = self._listed[project_id] = (state[0], self._fetch(OBJECTS_SQL, [project_id]))
        return [row[1:] for row in known[1] if row[0] == dataset_id]

    def _rows(self, project_id: str, form: Form) -> int:
        """Rows of a table, deleted ones included, as they are listed."""
        rows = [] if form[0] == "VIEW" else self._fetch(ROWS_SQL.format(metadata=_metadata(project_id)), [form[1]])
        return int(rows[0][0] or 0) if rows else 0

    def fetch(self, sql: str, params: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Rows of a query; those about columns of a project's tables are remembered."""
        if params and sql.endswith("AND NOT is_nullable") and tuple(params[:2]) == RESULTS:
            return []  # made by CREATE TABLE AS, whose columns may all be NULL
        if not params or "duckdb_columns()" not in sql or len(params) < 3:  # noqa: PLR2004 - project, dataset, table
            return self._fetch(sql, params)
        if sql in (REQUIRED_SQL, NAMED_SQL):
            [form] = self.forms([tuple(params[:3])])
            if form is not None and form[0] == "TABLE":
                columns = self._remembered(lambda: self._columns_in(params[0], form), *params[:3], COLUMNS_SQL)
                if sql == NAMED_SQL:
                    return [(1,) for name, _ in columns if name == params[3]]
                return [(name,) for name, may_be_null in columns if not may_be_null]
        return self._remembered(lambda: self._fetch(sql, params), *params[:3], sql, *params[3:])

    def _columns_in(self, project_id: str, form: Form) -> list[tuple[str, bool]]:
        return self._fetch(COLUMNS_SQL.format(metadata=_metadata(project_id)), [form[1]])

    def columns(self, project_id: str, dataset_id: str, table_id: str) -> list[Any]:
        """Columns of a table or view with their types; each statement asks for those of all its tables."""
        if dataset_id == RESULTS[1]:
            return self._columns_of(project_id, dataset_id, table_id)
        ask = lambda: self._columns_of(project_id, dataset_id, table_id)  # noqa: E731
        return list(self._remembered(ask, project_id, dataset_id, table_id, ""))

    def _remembered(
        self, ask: Callable[[], list[Any]], project: str, dataset: str, table: str, *rest: Any
    ) -> list[Any]:
        """What a question about a table's columns was answered while the table had its present form."""
        [form] = self.forms([(project, dataset, table)])
        if form is None:
            return ask()
        key = (project, dataset, table, form, *rest)
        if key not in self._columns:
            if len(self._columns) >= ANSWERS_KEPT:
                self._columns.clear()
            self._columns[key] = ask()
        return self._columns[key]

    def forms(self, named: list[tuple[str, str, str]]) -> list[Form | None]:
        """Of each table or view what changes with every change of its columns; None: there is none that is known."""
        states = {project: self.state(project) for project in {project for project, _, _ in named}}
        of = {place: self._forms_of(*place, states[place[0]]) for place in {each[:2] for each in named}}
        return [of[project, dataset].get(table) for project, dataset, table in named]

    def _forms_of(self, project_id: str, dataset_id: str, state: tuple[int, int] | None) -> dict[str, Form]:
        if state is None:
            return {}
        known = self._forms.get((project_id, dataset_id))
        if known is None or known[0] != state[1]:
            rows = self._fetch(FORMS_SQL.format(metadata=_metadata(project_id)), [dataset_id, state[1]])
            known = self._forms[project_id, dataset_id] = (state[1], {row[0]: row[1:] for row in rows})
        return known[1]

    def state(self, project_id: str) -> tuple[int, int] | None:
        """Numbers of the last commit and of the last change of any table's form; None: not a project."""
        if project_id == "emulator":
            return None
        try:
            [state] = self._fetch(STATE_SQL.format(metadata=_metadata(project_id)))
        except duckdb.Error:
            return None
        return state


def _result(table_id: str) -> list[tuple[str, str, int]]:
    """A query's result as `objects` tells it: name, kind, rows; empty where it is none any more."""
    with database.cursor() as cur:
        try:
            [(rows,)] = cur.execute(f"SELECT count(*) FROM {database.quote(*RESULTS, table_id)}").fetchall()
        except duckdb.CatalogException:
            return []
    return [(table_id, "TABLE", rows)]


class QuickJobs:
    """What every job pays for beside its work, made less.

    Before a query all tables of all databases were listed for temporary ones: a third of a small query's time, and a
    connection that was opened for it has none. A job was committed to disk three times and once more for each statement
    of a script, at 4 ms; now when it is taken on and, with its statements, when it is done.
    """

    def __init__(self) -> None:
        self._execute, self._evaluator = query.execute, query._evaluator  # noqa: SLF001
        self._of_thread = threading.local()
        self._taking_on = threading.Lock()

    def install(self) -> None:
        """Take the place of the emulator's own functions."""
        query.execute, store.save, query._evaluator = self.execute, self.save, self.evaluator  # noqa: SLF001

    def evaluator(self, cursor: Any) -> Callable[[exp.Expression], Any]:
        """What gives an option's value: each column's description was a query, a quarter of the time of a migration."""
        evaluate = self._evaluator(cursor)

        def value(node: exp.Expression) -> Any:
            is_plain = isinstance(node, exp.Literal) and node.is_string and node.this.isprintable()
            return node.this if is_plain and "\\" not in node.this else evaluate(node)

        return value

    def execute(self, cur: Any, *arguments: Any, session: Any = None, **options: Any) -> Any:
        """Run a query job; only a session's connection can have temporary tables from before."""
        return self._execute(cur if session else _NewConnection(cur), *arguments, session=session, **options)

    def save(self, job: Any) -> Any:
        """Write a job down. One that runs stays PENDING there: not done, to whoever asks.

        Statements of a script come right before their script's own end, in the thread that ran it. A job that is taken
        on replaces none: of two of one id, submitted in the same instant, the second would run beside the first, and
        what it wrote would stand over the first's end. It is told that the job exists, as it would be a moment later:
        by that a client knows to wait for the first. Nor is one kept that could not be written: the thread's next job
        would write it then, and whoever waits for the first would wait for ever.
        """
        waiting: list[Any] = self._of_thread.__dict__.setdefault("waiting", [])
        if job.status.state == "RUNNING":
            return job
        waiting.append(job)
        if job.statistics.parentJobId is None:
            rows = [_row(each) for each in waiting]
            waiting.clear()
            if job.status.state == "PENDING":
                self._take_on(job, rows)
            else:
                _write_jobs("INSERT OR REPLACE", rows)
        return job

    def _take_on(self, job: Any, rows: list[list[Any]]) -> None:
        with self._taking_on:  # one at a time: who is told that a job exists can look at it at once
            try:
                _write_jobs("INSERT", rows)
            except duckdb.Error:
                project, job_id = job.jobReference.projectId, job.jobReference.jobId
                if not store.load(project, job_id):
                    raise
                raise already_exists("Job", f"{project}:{job_id}") from None


def _write_jobs(insert: str, rows: list[list[Any]]) -> None:
    with database.cursor() as cur:
        cur.execute("BEGIN TRANSACTION")
        cur.executemany(f"{insert} INTO emulator.jobs VALUES (?, ?, ?, ?, ?, ?)", rows)
        cur.execute("COMMIT")


def _row(job: Any) -> list[Any]:
    at, statistics = job.jobReference, job.statistics
    created = int(statistics.creationTime)
    return [at.projectId, at.jobId, statistics.parentJobId, job.status.state, created, json.dumps(job.dump())]


class _NewConnection:
    """A connection without temporary tables of before, which says so without looking."""

    def __init__(self, cur: Any) -> None:
        self._cur = cur

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cur, name)

    def sql(self, text: str, **options: Any) -> Any:
        return self._cur.sql("SELECT '' AS table_name LIMIT 0" if text == TEMPORARY_SQL else text, **options)


class SmallMessages:
    """The Storage API's rows, MESSAGE_ROWS a message: stands in the place of `database` where they are read."""

    def install(self) -> None:
        """Take that place."""
        read.database = self

    @contextmanager
    def cursor(self) -> Iterator[_Cursor]:
        """A cursor, as the emulator's own function gives it."""
        with database.cursor() as cursor:
            yield _Cursor(cursor)


class _Cursor:
    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor

    def sql(self, text: str) -> _Relation:
        return _Relation(self._cursor.sql(text))


class _Relation:
    def __init__(self, relation: duckdb.DuckDBPyRelation) -> None:
        self._relation = relation

    def to_arrow_reader(self) -> Any:
        return self._relation.to_arrow_reader(MESSAGE_ROWS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._relation, name)


@dataclass
class Housekeeper:
    """Keeps what the emulator remembers small. Ages are in seconds.

    Attributes:
        results_kept_s: how long the result of a job that has ended can be read.
        small_kept_s: the same for one of up to SMALL_ROWS rows.
        jobs_kept_s: how long a job that has ended is known.
        snapshots_kept_s: how long a table's earlier states, and the files that only they need, are kept; longer while
            a job that began before is at work, since a transaction reads from the states of its beginning.
        merge_from_files: a table is merged once it has so many more files than after the last merge.
    """

    results_kept_s: float = RESULTS_KEPT_S
    small_kept_s: float = SMALL_KEPT_S
    jobs_kept_s: float = JOBS_KEPT_S
    snapshots_kept_s: float = SNAPSHOTS_KEPT_S
    merge_from_files: int = MERGE_FROM_FILES
    _files: dict[tuple[str, int], int] = field(default_factory=dict)

    def tidy(self) -> None:
        """Once. Whatever fails is told and tried again the next time: the emulator itself does not need it."""
        for task in (self.drop_results, self.forget_jobs, self.merge_files, bound_memory, return_memory):
            try:
                task()
            except Exception as error:  # noqa: BLE001 - a conflict with a commit, a table just dropped, ...
                with suppress(OSError):  # the log's own disk may be what is full
                    print(f"housekeeping: {task.__name__}: {error}", file=sys.stderr, flush=True)

    def drop_results(self) -> int:
        """Results whose job ended long ago. Returns how many."""
        kept = [SMALL_ROWS, _ago_ms(self.small_kept_s), _ago_ms(self.results_kept_s)]
        names = [name for (name,) in database.fetch(RESULTS_SQL, kept)]
        for name in names:
            database.execute(f"DROP TABLE IF EXISTS {database.quote('emulator', '_results', name)}")
        return len(names)

    def forget_jobs(self) -> None:
        """Jobs that ended long ago; of scripts, their statements."""
        database.execute(JOBS_SQL, [_ago_ms(self.jobs_kept_s)])

    def merge_files(self) -> list[str]:
        """Small files of tables that grow, one table a transaction; then the states that nobody reads any more.

        A table whose rows are replaced (a fence, sums of a day) has few files that count: its old ones go with its old
        states. Returns the tables that were merged.
        """
        merged = []
        older = f"make_timestamptz({self._needed_since_ms()}000)"
        for project in database.projects():
            files_sql = FILES_SQL.format(metadata=_metadata(project))
            for schema, name, number, files in database.fetch(files_sql, [project]):
                if files - self._files.get((project, number), 0) >= self.merge_from_files:
                    database.execute("CALL ducklake_merge_adjacent_files(?, ?, schema => ?)", [project, name, schema])
                    merged.append(f"{schema}.{name}")
                    # as few as it takes: those of several table partitions stay apart
                    left = {each[2]: each[3] for each in database.fetch(files_sql, [project])}
                    self._files[project, number] = left.get(number, 0)
            database.execute(f"CALL ducklake_expire_snapshots(?, older_than => {older})", [project])
            database.execute(f"CALL ducklake_cleanup_old_files(?, older_than => {older})", [project])
        return merged

    def _needed_since_ms(self) -> int:
        """The moment from which on states of tables are kept, in milliseconds since 1970."""
        kept = _ago_ms(self.snapshots_kept_s)
        [(began,)] = database.fetch(AT_WORK_SQL, [_ago_ms(LONGEST_JOB_S)])
        return kept if began is None else min(kept, int(began))


class NoPandas:
    """Says at once that there is no pandas: DuckDB asks twice a query, and looking through all folders takes 0.1 ms."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """For Python's import."""
        if name == "pandas":
            raise ModuleNotFoundError(name, name=name)


def return_memory() -> None:
    """What the C library holds free of the threads' heaps goes back to the system: 300 MB after some minutes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc only
    if trim is not None:
        trim(0)


def bound_memory() -> None:
    """Parquet files are not kept in memory a second time beside the system's own cache, which was not quicker.

    Here, and not before the emulator serves: only then is its data folder known.
    """
    database.execute("SET GLOBAL enable_external_file_cache = false")
    database.execute("SET GLOBAL allocator_background_threads = true")


def follow_folder(data_dir: Path) -> None:
    """Have each project's catalog name the folder that it lies in, by which its files are found.

    It remembers the path at which it was made, and is refused under another: a checkout that was moved or copied.
    """
    for catalog in data_dir.glob("*.ducklake"):
        with duckdb.connect(str(catalog)) as con, suppress(duckdb.CatalogException):  # killed before it had any table
            known = con.execute("SELECT value FROM ducklake_metadata WHERE key = 'data_path'").fetchone()
            if known is not None and Path(known[0]) != (folder := catalog.with_suffix("")):
                con.execute("UPDATE ducklake_metadata SET value = ? WHERE key = 'data_path'", [f"{folder}/"])


def _metadata(project_id: str) -> str:
    return database.quote(f"__ducklake_metadata_{project_id}")


def _ago_ms(seconds: float) -> int:
    return int((time.time() - seconds) * 1000)


def _keep_house(housekeeper: Housekeeper, every_s: float) -> None:
    while True:
        time.sleep(every_s)
        housekeeper.tidy()


def main(argv: list[str]) -> None:
    """Serve until a signal. The arguments are the emulator's own, and those of the housekeeping."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--tidy-every-s", type=float, default=EVERY_S)
    parser.add_argument("--results-kept-s", type=float, default=RESULTS_KEPT_S)
    parser.add_argument("--small-kept-s", type=float, default=SMALL_KEPT_S)
    parser.add_argument("--jobs-kept-s", type=float, default=JOBS_KEPT_S)
    parser.add_argument("--snapshots-kept-s", type=float, default=SNAPSHOTS_KEPT_S)
    parser.add_argument("--merge-from-files", type=int, default=MERGE_FROM_FILES)
    parser.add_argument("--translations", choices=("known", "check", "own"), default="known")
    ours, rest = parser.parse_known_args(argv)
    parser.add_argument("--data-dir", type=Path)
    if (data_dir := parser.parse_known_args(argv)[0].data_dir) is not None:
        follow_folder(data_dir)
    housekeeper = Housekeeper(
        results_kept_s=ours.results_kept_s,
        small_kept_s=ours.small_kept_s,
        jobs_kept_s=ours.jobs_kept_s,
        snapshots_kept_s=ours.snapshots_kept_s,
        merge_from_files=ours.merge_from_files,
    )
    catalog = KnownCatalog()
    catalog.install()
    QuickJobs().install()
    if ours.translations != "own":
        KnownTranslations(Catalog(catalog.forms), check=ours.translations == "check").install()
    SmallMessages().install()
    threading.Thread(
        target=_keep_house, args=(housekeeper, ours.tidy_every_s), name="housekeeping", daemon=True
    ).start()
    if importlib.util.find_spec("pandas") is None:
        sys.meta_path.insert(0, NoPandas)
    gc.freeze()  # what is there for good; syntax trees point at their parents, so that its visits come often
    gc.set_threshold(100_000, 50, 100)
    cli.main(rest)


if __name__ == "__main__":
    main(sys.argv[1:])
