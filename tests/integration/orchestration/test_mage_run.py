"""What blocks are given in a run, and what is told of a run that failed half-way."""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import json
import locale
import os
import re
import signal
import sys
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pandas as pd
import pytest

from orchestration.errors import MageRunError
from orchestration.mage import run_pipeline
from orchestration.mage_assets import AssetOptions, RunOptions, build_mage_assets
from orchestration.mage_retry import RetryConfig
from orchestration.mage_spec import load_project
from tests.integration.orchestration.mage_projects import LOAD, write_project

if TYPE_CHECKING:
    from orchestration.mage import PipelineRun
    from orchestration.mage_spec import MageProject
    from tests.integration.orchestration.mage_projects import Block

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mage_ai"),
    pytest.mark.filterwarnings("ignore:pandas only supports SQLAlchemy:UserWarning"),  # Mage reads DuckDB's that way
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Mage keeps for itself."""
    monkeypatch.setenv("MAGE_DATA_DIR", str(tmp_path / "mage"))


def run(root: Path, blocks: dict[str, Block]) -> PipelineRun:
    project = write_project(root, "p", blocks)
    return run_pipeline(project, project.pipeline("p"), {})


FIRST_OF_BOTH = (
    "def out(changed, kept, *a, **k):\n    first = lambda read: read[0] if isinstance(read, list) else read\n"
    "    return {'first': [int(first(each)['n'][0]) for each in (changed, kept)]}\n"
)
FRAME_AND_TABLE = (
    "def load(*a, **k):\n    import pandas as pd, pyarrow as pa\n"
    "    return pd.DataFrame({'n': [1]}), pa.table({'n': [1]})\n"
)


@pytest.mark.parametrize(
    "made",
    [
        "__import__('pandas').DataFrame({'n': [1, 2]})",
        "{'n': __import__('numpy').array([1, 2])}",
        "{'n': [1, 2]}",
        "__import__('polars').DataFrame({'n': [1, 2]})",
        "__import__('pandas').DataFrame({'n': [1, 2]}), {'note': 1}",
    ],
)
def test_a_branch_does_not_see_what_another_changes_in_place(tmp_path: Path, made: str) -> None:
    change = "frame = read[0] if isinstance(read, list) else read\n    frame['n'][0] = 100\n"
    if "polars" in made:
        change = "read[0, 'n'] = 100\n"
    elif "pandas" in made:
        change = change.replace("frame['n'][0]", "frame.loc[0, 'n']")
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], f"def load(*a, **k):\n    return {made}\n"),
        "changed": ("transformer", ["load"], f"def changed(read, *a, **k):\n    {change}    return read\n"),
        "kept": ("transformer", ["load"], "def kept(read, *a, **k):\n    return read\n"),
        "out": ("data_exporter", ["changed", "kept"], FIRST_OF_BOTH),
    }
    assert run(tmp_path / "project", blocks).outputs["out"] == {"first": [100, 1]}


@pytest.mark.parametrize(
    ("made", "change"),
    [
        ("pd.DataFrame({'n': [[1], None]})", "read['n'][0].append(100)"),
        ("pd.DataFrame([[{'a': 1}, {'a': 1}, 'x']], columns=['n', 'n', 't'])", "read.iloc[0, 1]['a'] = 100"),
        ("pd.Series([1, [1]])", "read[1].append(100)"),
        ("pd.DataFrame({'n': pd.Series([1, {1}, 'a'])})", "read['n'][1].add(100)"),
        ("{1, 2}", "read.add(100)"),
        ("bytearray(b'1')", "read.append(100)"),
        ("{'n': ([1], 2)}", "read['n'][0].append(100)"),
        ("__import__('types').SimpleNamespace(n=1)", "read.n = 100"),
        ("type('D', (pd.DataFrame,), {})({'n': [1]})", "read.loc[0, 'n'] = 100"),
    ],
)
def test_a_branch_does_not_see_what_another_changes_inside(tmp_path: Path, made: str, change: str) -> None:
    load = f"def load(*a, **k):\n    import pandas as pd\n    return {made}\n"
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], load),
        "changed": ("transformer", ["load"], f"def changed(read, *a, **k):\n    {change}\n    return repr(read)\n"),
        "kept": ("transformer", ["load"], "def kept(read, *a, **k):\n    return repr(read)\n"),
        "out": ("data_exporter", ["changed", "kept"], "def out(*read, **k):\n    return {'read': list(read)}\n"),
    }
    changed, kept = run(tmp_path / "project", blocks).outputs["out"]["read"]
    assert changed != kept
    namespace: dict[str, Any] = {"pd": pd}
    assert kept == repr(eval(made, namespace))  # noqa: S307 - the expressions above


@pytest.mark.parametrize("made", ["__import__('pandas').DataFrame({'n': [1, 2]})", "{'n': [1, 2]}"])
def test_what_a_test_changes_in_place_is_not_written(tmp_path: Path, made: str) -> None:
    test = "\n\n@test\ndef is_whole(read, *a) -> None:\n    read['n'] = [7, 8]\n    assert len(read)\n"
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], f"def load(*a, **k):\n    return {made}\n{test}"),
        "out": ("data_exporter", ["load"], "def out(read, *a, **k):\n    return {'n': list(read['n'])}\n"),
    }
    done = run(tmp_path / "project", blocks)
    assert [test.passed for test in done.tests] == [True]
    assert done.outputs["out"] == {"n": [1, 2]}


def test_only_what_is_read_again_is_copied_and_an_arrow_table_never_is(tmp_path: Path) -> None:
    told = "def {0}(read, *a, **k):\n    return {{'{0}': [id(each) for each in read]}}\n"
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], FRAME_AND_TABLE),
        "one": ("data_exporter", ["load"], told.format("one")),
        "two": ("data_exporter", ["load"], told.format("two")),
    }
    project = write_project(tmp_path / "project", "p", blocks)
    made: dict[str, Any] = {}
    outputs = run_pipeline(project, project.pipeline("p"), {}, keep=made.setdefault).outputs
    frame, table = map(id, made["load"])
    first, last = (outputs[block.uuid][block.uuid] for block in project.pipeline("p").outputs)
    assert first[0] != frame
    assert (first[1], last) == (table, [frame, table])


DUCKDB = {"data_provider": "duckdb", "data_provider_profile": "default", "export_write_policy": "replace"}
TYPED = (
    "def load(*a, **k):\n    import pandas as pd\n"
    "    frame = pd.DataFrame({'n': range(k['rows']), 'text': 'x', 'part': 0.5, 'at': pd.Timestamp('2020-01-01')})\n"
    "    return frame.astype({'n': 'int64', 'part': 'float64', 'at': 'datetime64[ns]'})\n"
)
COUNTED = "SELECT COUNT(*) AS c, COALESCE(SUM(n), 0) AS s FROM {{ df_1 }}"


def sql(query: str, *upstream: str, **configuration: Any) -> Block:
    return ("transformer", list(upstream), query, {"language": "sql", "configuration": {**DUCKDB, **configuration}})


def duckdb_project(root: Path, load: str, queries: dict[str, Block]) -> MageProject:
    """A loader, SQL blocks, and an exporter that tells what the last of them gave."""
    keep = "def keep(df, *a, **k):\n    return {'told': df.to_dict('records')}\n"
    last = list(queries)[-1]
    blocks: dict[str, Block] = {"load": ("data_loader", [], load), **queries, "keep": ("data_exporter", [last], keep)}
    project = write_project(root, "p", blocks)
    (root / "io_config.yaml").write_text(
        f"version: 0.1.1\ndefault:\n  DUCKDB_DATABASE: {root / 'p.duckdb'}\n  DUCKDB_SCHEMA: main\n"
    )
    return project


def told(project: MageProject, **variables: Any) -> Any:
    return run_pipeline(project, project.pipeline("p"), variables).outputs["keep"]["told"]


@pytest.mark.parametrize(
    "queries",
    [
        {"q": sql(COUNTED, "load")},
        {
            "double": sql("SELECT n * 2 AS n FROM {{ df_1 }}", "load"),
            "q": sql(COUNTED.replace("SUM(n)", "SUM(n) / 2"), "double"),
        },
        {"q": sql(f"CREATE OR REPLACE TABLE mine AS {COUNTED}; SELECT * FROM mine;", "load", use_raw_sql=True)},
    ],
)
def test_sql_block_sees_no_rows_when_its_upstream_frame_has_none(tmp_path: Path, queries: dict[str, Block]) -> None:
    project = duckdb_project(tmp_path / "project", TYPED, queries)
    assert [told(project, rows=rows) for rows in (5, 0, 3)] == [
        [{"c": 5, "s": 10}],
        [{"c": 0, "s": 0}],
        [{"c": 3, "s": 3}],
    ]


def test_sql_that_is_sent_as_it_is_gives_no_rows_and_the_run_goes_on(tmp_path: Path) -> None:
    as_it_is = {"use_raw_sql": True, "disable_query_preprocessing": True}
    queries = {"made": sql("CREATE OR REPLACE TABLE mine AS SELECT 7 AS n", "load", **as_it_is)}
    queries["q"] = sql("SELECT n FROM mine", "made")
    assert told(duckdb_project(tmp_path / "project", TYPED, queries), rows=1) == [{"n": 7}]


def test_sql_block_for_which_no_store_was_chosen_is_refused(tmp_path: Path) -> None:
    project = duckdb_project(tmp_path / "project", TYPED, {"q": sql("SELECT 7 AS n", "load", data_provider=None)})
    with pytest.raises(MageRunError, match=r"p/q \(.*it names no data_provider.*Nothing was written"):
        told(project, rows=1)


@pytest.mark.parametrize("made", ["None", "[]", "{}", "0", "__import__('pandas').DataFrame()"])
def test_sql_block_that_reads_nothing_is_refused_instead_of_given_an_earlier_runs_rows(
    tmp_path: Path, made: str
) -> None:
    load = (
        f"def load(*a, **k):\n    import pandas as pd\n    return pd.DataFrame({{'n': [1]}}) if k['rows'] else {made}\n"
    )
    project = duckdb_project(tmp_path / "project", load, {"q": sql(COUNTED, "load")})
    assert told(project, rows=1) == [{"c": 1, "s": 1}]
    with pytest.raises(MageRunError, match=r"p/q \(.*its upstream block load gave neither rows nor columns"):
        told(project, rows=0)


@pytest.mark.parametrize("made", ["polars.DataFrame({'n': ids})", "pyarrow.table({'n': ids})"])
def test_sql_block_reads_whole_numbers_beside_nulls_as_they_are(tmp_path: Path, made: str) -> None:
    load = f"def load(*a, **k):\n    import polars, pyarrow\n    ids = [2**53 + 1, None]\n    return {made}\n"
    query = "SELECT typeof(n) AS kind, CAST(n AS VARCHAR) AS n FROM {{ df_1 }} ORDER BY 2 NULLS LAST"
    project = duckdb_project(tmp_path / "project", load, {"q": sql(query, "load")})
    assert told(project) == [{"kind": "BIGINT", "n": "9007199254740993"}, {"kind": "BIGINT", "n": None}]


@pytest.mark.parametrize(
    "made",
    [
        "pandas.DataFrame({'kind': pandas.Categorical(['1', None])})",
        "pandas.DataFrame({'kind': pandas.Categorical([1, None])})",
        "polars.DataFrame({'kind': ['1', None]}, schema={'kind': polars.Categorical})",
    ],
)
def test_sql_block_reads_nulls_among_categories_as_nulls(tmp_path: Path, made: str) -> None:
    load = f"def load(*a, **k):\n    import pandas, polars\n    return {made}\n"
    query = sql("SELECT typeof(kind) AS t, kind FROM {{ df_1 }} ORDER BY 2 NULLS LAST", "load")
    rows = told(duckdb_project(tmp_path / "project", load, {"q": query}))
    assert rows == [{"t": "VARCHAR", "kind": "1"}, {"t": "VARCHAR", "kind": None}]


@pytest.mark.parametrize(
    ("values", "given", "warnings_told"),
    [
        ("(9007199254740993::BIGINT), (NULL)", [2.0**53, None], 1),
        ("(9007199254740991::BIGINT), (NULL)", [2.0**53 - 1, None], 0),
        ("(12345678901234567890.01::DECIMAL(38, 2)), (NULL)", [1.2345678901234567e19, None], 1),
        ("(1234567890.1::DECIMAL(38, 2)), (0.3), (NULL)", [1234567890.1, 0.3, None], 0),
        ("(0.1::DOUBLE), (NULL)", [0.1, None], 0),
        ("(9007199254740993::BIGINT), (7)", [2**53 + 1, 7], 0),
    ],
)
def test_a_column_of_a_sql_block_s_result_that_is_rounded_is_named(
    tmp_path: Path, values: str, given: list[float | None], caplog: pytest.LogCaptureFixture, warnings_told: int
) -> None:
    query = sql(f"SELECT * FROM (VALUES {values}) AS t (amount)", "load")
    rows = told(duckdb_project(tmp_path / "project", TYPED, {"q": query}), rows=1)
    assert [None if pd.isna(row["amount"]) else row["amount"] for row in rows] == given
    warned = [each.getMessage() for each in caplog.records if each.name == "mage.p"]
    assert len(warned) == warnings_told
    assert all(
        each.startswith("Block q gives other numbers than its query: Mage reads column amount") for each in warned
    )


@pytest.mark.parametrize(
    ("values", "warnings_told"),
    [
        ("[0.12345, float('nan')]", 1),
        ("[0.125, float('nan'), float('inf')]", 0),
        ("[__import__('decimal').Decimal('1.0005'), None]", 1),
        ("[__import__('decimal').Decimal('1.50'), None]", 0),
        ("['0.12345', None]", 0),
    ],
)
def test_a_column_of_which_a_sql_block_s_table_keeps_less_is_named(
    tmp_path: Path, values: str, caplog: pytest.LogCaptureFixture, warnings_told: int
) -> None:
    load = f"def load(*a, **k):\n    import pandas as pd\n    return pd.DataFrame({{'price': {values}}})\n"
    project = duckdb_project(tmp_path / "project", load, {"q": sql("SELECT COUNT(*) AS n FROM {{ df_1 }}", "load")})
    with contextlib.suppress(MageRunError):  # DuckDB refuses an infinite number itself
        told(project)
    warned = [each.getMessage() for each in caplog.records if each.name == "mage.p"]
    expected = "Block q reads other numbers than block load gives: Mage keeps column price in duckdb as DECIMAL(18, 3)"
    assert [each.partition(";")[0] for each in warned] == [expected] * warnings_told


@pytest.mark.parametrize(("rows", "given", "warnings_told"), [(999, 999, 0), (5000, 1000, 1)])
def test_that_mage_gives_a_thousand_rows_of_a_table_that_raw_sql_has_written_is_told(
    tmp_path: Path, rows: int, given: int, caplog: pytest.LogCaptureFixture, warnings_told: int
) -> None:
    queries = {
        "made": sql("CREATE OR REPLACE TABLE mine (n BIGINT)", "load", use_raw_sql=True),
        "q": sql("INSERT INTO mine SELECT n FROM {{ df_1 }}", "load", "made", use_raw_sql=True),
    }
    assert len(told(duckdb_project(tmp_path / "project", TYPED, queries), rows=rows)) == given
    warned = [each.getMessage() for each in caplog.records if each.name == "mage.p"]
    assert len(warned) == warnings_told
    assert all(each.startswith("Block q gives the first 1000 rows of the table") for each in warned)


def test_sql_block_may_follow_what_it_does_not_read(tmp_path: Path) -> None:
    project = duckdb_project(
        tmp_path / "project", "def load(*a, **k):\n    pass\n", {"q": sql("SELECT 7 AS n", "load")}
    )
    assert told(project) == [{"n": 7}]


def test_sql_block_without_a_table_s_name_writes_the_table_that_mages_scheduler_writes(tmp_path: Path) -> None:
    project = duckdb_project(tmp_path / "project", TYPED, {"q": sql(COUNTED, "load")})
    told(project, rows=1)
    with duckdb.connect(str(project.root / "p.duckdb")) as store:
        names = store.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
    assert names == [("p_load_v1",), ("p_q_v1",)]


def failure_of(project: MageProject, **ways: Any) -> str:
    """What a materialization of the project's one pipeline fails with."""
    with pytest.raises(MageRunError) as failure:
        dg.materialize(build_mage_assets(project, options=lambda *_: AssetOptions(**ways)), **RANGE if ways else {})
    return str(failure.value)


DAYS = dg.StaticPartitionsDefinition(["d1", "d2", "d3"])
RANGE = {"tags": {"dagster/asset_partition_range_start": "d1", "dagster/asset_partition_range_end": "d3"}}
FAILING_TEST = "\n\n@test\ndef is_good(*a) -> None:\n    assert False, 'bad'\n"


def writer(name: str, *upstream: str, log: Path, then: str = "", **configuration: Any) -> Block:
    """An exporter that notes its name and day, and then does as told."""
    note = f"        f.write('{name} ' + k.get('day', '') + ';')\n{then}"
    code = f"def {name}(*a, **k):\n    with open('{log}', 'a') as f:\n{note}"
    return ("data_exporter", list(upstream), code, {"configuration": configuration})


def test_no_pass_is_tried_again_once_an_exporter_has_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    out_of_date = "    error = RuntimeError('out of date')\n    error.is_retryable = True\n    raise error\n"
    once = {"load": LOAD, "second": writer("second", "load", log=log, then=out_of_date)}
    failure_of(write_project(tmp_path / "once", "p", once))
    assert log.read_text() == "second ;" * 3
    log.unlink()
    first = writer("first", "load", log=log)
    told = failure_of(write_project(tmp_path / "twice", "p", {"load": LOAD, "first": first, **once}))
    assert log.read_text() == "first ;second ;"
    assert "Already written by: first; whether this one wrote is in its own message" in told


def test_failed_test_tells_which_exporters_had_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    blocks: dict[str, Block] = {
        "load": LOAD,
        "raw": writer("raw", "load", log=log),
        "after": ("transformer", ["raw"], "def after(*a, **k):\n    return 1\n" + FAILING_TEST),
        "out": writer("out", "after", log=log),
    }
    told = failure_of(write_project(tmp_path / "project", "p", blocks))
    assert log.read_text() == "raw ;"
    assert "p/after: is_good failed" in told
    assert "[Already written by: raw. " in told


def test_failed_test_keeps_exporters_from_writing_that_do_not_depend_on_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    blocks: dict[str, Block] = {
        "load": LOAD,
        "raw": writer("raw", "load", log=log),
        "changed": ("transformer", ["load"], "def changed(df, *a, **k):\n    return df\n" + FAILING_TEST),
    }
    assert "[Nothing was written. " in failure_of(write_project(tmp_path / "project", "p", blocks))
    assert not log.exists()


def test_failed_test_that_only_warns_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    changed = "def changed(df, *a, **k):\n    return df\n" + FAILING_TEST
    blocks: dict[str, Block] = {
        "load": LOAD,
        "changed": ("transformer", ["load"], changed, {"configuration": {"warning_tests": ["is_good"]}}),
        "raw": writer("raw", "changed", log=log),
    }
    project = write_project(tmp_path / "project", "p", blocks)
    result = dg.materialize(build_mage_assets(project))
    assert result.success
    assert log.read_text() == "raw ;"
    [check] = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.severity) == ("changed__is_good", False, dg.AssetCheckSeverity.WARN)
    assert "changed.py:" in check.metadata["failures"].value["the run"]
    assert [each.name for each in run_pipeline(project, project.pipeline("p"), {}).warnings] == ["is_good"]


@pytest.mark.parametrize("fails", ["    assert k['day'] != 'd3', 'bad'\n", "    pass\n"])
def test_failed_pass_is_named_with_those_that_are_written(tmp_path: Path, fails: str) -> None:
    log = tmp_path / "log"
    test = "\n\n@test\ndef is_good(df, *a, **k) -> None:\n    assert k['day'] != 'd3', 'bad'\n"
    blocks: dict[str, Block] = {
        "load": LOAD,
        "changed": ("transformer", ["load"], f"def changed(df, *a, **k):\n{fails}    return df\n{test}"),
        "out": writer("out", "changed", log=log, partition_variable="day"),
    }
    told = failure_of(write_project(tmp_path / "project", "p", blocks), partitions_def=DAYS)
    assert log.read_text() == "out d1;out d2;"
    assert "[Nothing was written of d3; already written before: d1, d2. " in told


@pytest.mark.parametrize("how", ["block", "test", "exporter"])
def test_a_partition_that_is_to_blame_keeps_no_other_one_from_being_written(tmp_path: Path, how: str) -> None:
    """Its pass is cut until it stands alone; Dagster shows the others as materialized though the run fails."""
    log = tmp_path / "log"
    days = "[f'd{n}' for n in range(int(k['day'][1]), int(k['last_day'][1]) + 1)]"
    raises = "    if 'd2' in read['days']:\n        raise {error}\n"
    fails = raises.format(error="ValueError(read)") if how == "block" else ""
    test = "\n\n@test\ndef is_good(read, *a) -> None:\n    assert 'd2' not in read['days']\n"
    refused = "type('RowsError', (Exception,), {'__module__': 'rows', 'is_of_rows': True})(read)"
    refuses = raises.format(error=refused) if how == "exporter" else ""
    out = (
        f"def out(read, *a, **k):\n{refuses}    with open('{log}', 'a') as f:\n        f.write(str(read['days']))\n"
        "    return {'partitions': {day: {'rows_read': 7} for day in read['days']}}\n"
    )
    named = {"partition_variable": "day", "last_partition_variable": "last_day"}
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], f"def load(*a, **k):\n    return {{'days': {days}}}\n"),
        "changed": (
            "transformer",
            ["load"],
            f"def changed(read, *a, **k):\n{fails}    return read\n{test if how == 'test' else ''}",
        ),
        "out": ("data_exporter", ["changed"], out, {"configuration": named}),
    }
    project = write_project(tmp_path / "project", "p", blocks)
    whole = RunOptions(passes=lambda _, days: [days])
    options = AssetOptions(partitions_def=DAYS, deps=[dg.AssetKey("landed")])
    assets = build_mage_assets(project, options=lambda *_: options, runs=whole)
    result = dg.materialize(assets, raise_on_error=False, **RANGE)
    assert not result.success
    assert log.read_text() == "['d1']['d3']"
    found = [each.step_materialization_data.materialization for each in result.get_asset_materialization_events()]
    assert [each.partition for each in found] == ["d1", "d3"]
    assert {each.tags["dagster/code_version"] for each in found} == {project.pipelines[0].code_version}
    good = {"tags": {"dagster/asset_partition_range_start": "d1", "dagster/asset_partition_range_end": "d1"}}
    [whole_run] = dg.materialize(assets, **good).get_asset_materialization_events()
    assert found[0].tags == whole_run.step_materialization_data.materialization.tags
    assert {each.metadata["dagster/partition_row_count"].value for each in found} == {7}
    [failure] = [each for each in result.all_events if each.is_step_failure]
    told = str(failure.step_failure_data.error)
    assert "of d2" in told
    assert "written after it: d3" in told
    assert [each.passed for each in result.get_asset_check_evaluations()] == ([False] if how == "test" else [])


@pytest.mark.parametrize("edits", ["out", "load"])
def test_an_edit_while_a_run_is_at_work_ends_it_before_rows_of_two_versions_are_written(
    tmp_path: Path, edits: str
) -> None:
    log, root = tmp_path / "log", tmp_path / "project"
    edit = f"    if k['day'] == 'd2':\n        __import__('pathlib').Path('{root}/helpers.py').write_text('RATE = 2')\n"
    out = writer("out", "load", log=log, then=edit if edits == "out" else "", partition_variable="day")
    load = ("data_loader", [], LOAD[2].replace("    return", f"{edit if edits == 'load' else ''}    return"))
    failure = failure_of(write_project(root, "p", {"load": load, "out": out}), partitions_def=DAYS)
    block, written, left = ("load", "d1, d2", "d3") if edits == "out" else ("out", "d1", "d2")
    assert failure.startswith(
        f"running Mage block p/{block}: files of its pipeline, or modules that it may import, were"
    )
    assert f"Nothing was written of {left}; already written before: {written}. Run it again" in failure
    assert log.read_text() == "".join(f"out {day};" for day in written.split(", "))


def test_a_block_may_set_a_variable_for_the_next_run(tmp_path: Path) -> None:
    sets = (
        "def load(*a, **k):\n    from mage_ai.data_preparation.variable_manager import set_global_variable\n"
        "    set_global_variable('p', 'seen', 5)\n    return {'n': 1}\n"
    )
    out = writer("out", "load", log=tmp_path / "log")
    project = write_project(tmp_path / "p", "p", {"load": ("data_loader", [], sets), "out": out})
    assert dg.materialize(build_mage_assets(project)).success
    [pipeline] = load_project(project.root).pipelines
    assert pipeline.variables == {"seen": 5}


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        ("{'v': __import__('numpy').int64(3)}", {"pass/v": 3}),
        ("{'v': __import__('numpy').array([1, 2])}", {"pass/v": [1, 2]}),
        ("{'v': __import__('decimal').Decimal('1.50')}", {"pass/v": "1.50"}),
        ("{'v': __import__('datetime').datetime(2020, 1, 2)}", {"pass/v": "2020-01-02 00:00:00"}),
        ("{'v': (1, 'a')}", {"pass/v": [1, "a"]}),
        ("{'v': __import__('numpy').float64(1.5)}", {"pass/v": 1.5}),
        ("{'v': float('nan'), 'w': [float('-inf')]}", {"pass/v": "nan", "pass/w": ["-inf"]}),
        ("{'v': __import__('enum').Enum('Way', {'A': 'a'}, type=str).A}", {"pass/v": "a"}),
        ("{'v': __import__('http').HTTPStatus.OK}", {"pass/v": 200}),
        ("(lambda it: it.update(v=it) or it)({'n': 1})", {"pass/n": 1, "pass/v": "..."}),
        (
            "{'v': type('Odd', (), {'__str__': lambda _: 1 / 0})()}",
            {"pass/v": "(its text cannot be told: ZeroDivisionError)"},
        ),
        ("{'v': {7}}", {"pass/v": [7]}),
        ("{'v': 10**5000}", {"pass/v": "(its text cannot be told: ValueError)"}),
        ("{'v': {1: {'a': [__import__('decimal').Decimal(1)]}}}", {"pass/v": {"1": {"a": ["1"]}}}),
        ("{'v': object}", {"pass/v": "<class 'object'>"}),
        ("{5: None}", {"pass/5": None}),
        ("{'partitions': ['a']}", {"pass/partitions": ["a"]}),
        ("{'partitions': {None: 'a'}}", {}),
        ("{'rows_inserted': __import__('numpy').int64(4)}", {"pass/rows_inserted": 4, "dagster/row_count": 4}),
        ("{'rows_inserted': 'many'}", {"pass/rows_inserted": "many", "dagster/row_count": None}),
        ("__import__('numpy').int64(3)", {}),
    ],
)
def test_what_an_exporter_returns_is_shown_and_never_fails_the_run(
    tmp_path: Path, returned: str, shown: dict[str, Any]
) -> None:
    blocks: dict[str, Block] = {
        "load": LOAD,
        "out": ("data_exporter", ["load"], f"def out(*a, **k):\n    return {returned}\n"),
    }
    result = dg.materialize(build_mage_assets(write_project(tmp_path / "project", "p", blocks)))
    [event] = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    told = {name: each.value for name, each in metadata.items() if name.startswith(("pass/", "dagster/row_count"))}
    assert {"dagster/row_count": None, **told} == {"dagster/row_count": 3, **shown}


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        ("{'v': list(range(1_000_000))}", "... 995000 more, not shown"),
        ("{'v': __import__('pandas').Series(range(1_000_000))}", "... 995000 more, not shown"),
        ("{'v': 'x' * 1_000_000}", "... 950000 characters more, not shown"),
        ("{'v': {n: n for n in range(1_000_000)}}", "more, not shown"),
        ("{'partitions': {day: {'v': [[0] * 1000] * 1000} for day in ('d1', 'd2', 'd3')}}", "... 995 more, not shown"),
        ("{n: n for n in range(1_000_000)}", "999800 more, not shown"),
    ],
)
def test_of_very_much_that_an_exporter_returns_each_partition_is_told_the_beginning(
    tmp_path: Path, returned: str, shown: str
) -> None:
    named = {"configuration": {"partition_variable": "day", "last_partition_variable": "last_day"}}
    out: Block = ("data_exporter", ["load"], f"def out(*a, **k):\n    return {returned}\n", named)
    project = write_project(tmp_path / "project", "p", {"load": LOAD, "out": out})
    whole = RunOptions(passes=lambda _, days: [days])
    assets = build_mage_assets(project, options=lambda *_: AssetOptions(partitions_def=DAYS), runs=whole)
    events = dg.materialize(assets, **RANGE).get_asset_materialization_events()
    assert sorted(str(each.partition) for each in events) == ["d1", "d2", "d3"]
    for told in map(dg.serialize_value, events):
        assert shown in told
        assert len(told) < 200_000


@pytest.mark.parametrize(
    ("made", "rows"),
    [("[{'n': 1}, {'n': 2}]", None), ("__import__('pandas').DataFrame({'n': [1, 2]}), {'note': 1}", 2)],
)
def test_rows_that_are_not_known_are_not_told_as_zero(tmp_path: Path, made: str, rows: int | None) -> None:
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], f"def load(*a, **k):\n    return {made}\n"),
        "out": ("data_exporter", ["load"], "def out(*a, **k):\n    return {}\n"),
    }
    result = dg.materialize(build_mage_assets(write_project(tmp_path / "project", "p", blocks)))
    [event] = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    assert [each.value for name, each in metadata.items() if name == "dagster/row_count"] == ([rows] if rows else [])
    assert metadata["blocks"].value.records[-1].data["rows in"] == ("" if rows is None else rows)


def test_what_an_exporter_tells_of_a_partition_is_shown_at_that_partition(tmp_path: Path) -> None:
    told = "{'partitions': {k['day']: {'rows_read': __import__('numpy').int64(5), 'at': {1: 2}}}}"
    out = writer("out", "load", log=tmp_path / "log", then=f"    return {told}\n", partition_variable="day")
    project = write_project(tmp_path / "project", "p", {"load": LOAD, "out": out})
    assets = build_mage_assets(project, options=lambda *_: AssetOptions(partitions_def=DAYS))
    for event in dg.materialize(assets, **RANGE).get_asset_materialization_events():
        metadata = event.step_materialization_data.materialization.metadata
        assert metadata["dagster/partition_row_count"].value == 5
        assert metadata["at"].value == {"1": 2}


@pytest.mark.parametrize(
    ("made", "names"),
    [
        ("pd.DataFrame([[1, 2]])", ["0", "1"]),
        (
            "pd.DataFrame({'y': [2019, 2020], 'k': 1, 'v': 1}).pivot(index='k', columns='y', values='v')",
            ["2019", "2020"],
        ),
        ("pd.DataFrame([[1, 2]], columns=['a', None])", ["a", "None"]),
        ("pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([('a', 1)]))", [("a", 1)]),
        ("pd.Series([1]).groupby([0])", None),
    ],
)
def test_columns_whose_names_are_numbers_are_named_as_mages_storage_names_them(
    tmp_path: Path, made: str, names: list[Any] | None
) -> None:
    kept: dict[str, Any] = {}
    load = f"def load(*a, **k):\n    import pandas as pd\n    return {made}\n"
    project = write_project(tmp_path / "p", "p", {"load": ("data_loader", [], load)})
    run_pipeline(project, project.pipeline("p"), {}, keep=kept.__setitem__)
    found = getattr(kept["load"], "columns", None)
    assert (None if found is None else list(found)) == names


def test_sql_block_reads_a_frame_whose_columns_have_numbers_for_names(tmp_path: Path) -> None:
    load = "def load(*a, **k):\n    import pandas as pd\n    return pd.DataFrame([[1, 2]])\n"
    project = duckdb_project(tmp_path / "p", load, {"q": sql("SELECT * FROM {{ df_1 }}", "load")})
    assert told(project) == [{"letter_0": 1, "letter_1": 2}]


def test_a_pipeline_with_names_of_mages_alphabet_runs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = f"def salida(*a, **k):\n    open('{log}', 'w').close()\n\n\n@test\ndef is_told(*a) -> None:\n    pass\n"
    blocks: dict[str, Block] = {"load": LOAD, "sub/salida año": ("data_exporter", ["load"], code)}
    project = write_project(tmp_path / "project", "ventas-año", blocks)
    result = dg.materialize(build_mage_assets(project))
    assert log.exists()
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
    assert len(result.get_asset_materialization_events()) == 1


def test_tests_are_given_what_their_block_is_given(tmp_path: Path) -> None:
    test = (
        "\n\n@test\ndef sees(df, *a, **k) -> None:\n    assert len(df) == k['least'] + k['configuration']['more']\n"
        "    assert (k['block_uuid'], k['given']) == ('load', 1)\n"
    )
    blocks: dict[str, Block] = {"load": (*LOAD[:2], LOAD[2] + test, {"configuration": {"more": 1}})}
    project = write_project(tmp_path / "project", "p", blocks, variables={"least": 2})
    [done] = run_pipeline(project, project.pipeline("p"), {"given": 1}).tests
    assert done.message == "passed"


def test_variables_that_a_block_changes_in_place_are_as_before_for_the_next_block_and_run(tmp_path: Path) -> None:
    add = "def {0}(*a, **k):\n    k['columns'].append('{0}')\n    return {{'columns': k['columns']}}\n"
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], add.format("load")),
        "out": ("data_exporter", ["load"], add.format("out")),
    }
    project = write_project(tmp_path / "p", "p", blocks, variables={"columns": ["n"]})
    outputs = [run_pipeline(project, project.pipeline("p"), {}).outputs["out"] for _ in range(2)]
    assert outputs == [{"columns": ["n", "out"]}] * 2


ONCE = "def load(*a, **k):\n    return map(int, ['1', '2'])\n"
READS = "def {0}(read, *a, **k):\n    return {{'n': list(read)}}\n"


@pytest.mark.parametrize(
    ("load", "exporters"),
    [(ONCE, ["one", "two"]), (ONCE + "\n\n@test\ndef reads(n, *a) -> None:\n    list(n)\n", ["one"])],
)
def test_what_can_be_read_only_once_is_not_given_to_two(tmp_path: Path, load: str, exporters: list[str]) -> None:
    reading: dict[str, Block] = {name: ("data_exporter", ["load"], READS.format(name)) for name in exporters}
    with pytest.raises(
        MageRunError, match=r"p/load \(.*it gave a map, which can be read only once.*Nothing was written"
    ):
        run(tmp_path / "two", {"load": ("data_loader", [], load), **reading})
    one: dict[str, Block] = {"load": ("data_loader", [], ONCE), "one": reading["one"]}
    assert run(tmp_path / "one", one).outputs["one"] == {"n": [1, 2]}


def test_an_empty_list_reaches_the_next_block_as_one(tmp_path: Path) -> None:
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], "def load(*a, **k):\n    return []\n"),
        "out": ("data_exporter", ["load"], "def out(rows, *a, **k):\n    return {'rows': len(rows)}\n"),
    }
    assert run(tmp_path / "p", blocks).outputs["out"] == {"rows": 0}


def test_blocks_are_given_the_date_of_their_run_as_mages_scheduler_gives_it(tmp_path: Path) -> None:
    blocks: dict[str, Block] = {
        "out": (
            "data_exporter",
            [],
            "def out(*a, **k):\n    return {'date': k['execution_date']}\n",
            {"configuration": {"partition_variable": "day"}},
        )
    }
    project = write_project(tmp_path / "p", "p", blocks)

    def date(**variables: Any) -> Any:
        return run_pipeline(project, project.pipeline("p"), variables).outputs["out"]["date"]

    assert date(day="2010-12-01") == datetime(2010, 12, 1, tzinfo=UTC)
    assert date(execution_date="told") == "told"
    assert abs(date(day="no date") - datetime.now(UTC)) < timedelta(minutes=1)
    assert abs(date() - datetime.now(UTC)) < timedelta(minutes=1)


def test_blocks_are_given_the_environment_day_and_hour_that_mages_scheduler_gives(tmp_path: Path) -> None:
    names = ("env", "event", "ds", "hr")
    code = f"def out(*a, **k):\n    return {{name: k[name] for name in {names}}}\n"
    blocks: dict[str, Block] = {
        "out": ("data_exporter", [], code, {"configuration": {"partition_variable": "day"}}),
    }
    project = write_project(tmp_path / "p", "p", blocks)
    given = {"env": "prod", "event": {}, "ds": "2010-12-01", "hr": "00"}
    assert run_pipeline(project, project.pipeline("p"), {"day": "2010-12-01"}).outputs["out"] == given
    told = run_pipeline(project, project.pipeline("p"), {"day": "2010-12-01", "env": "staging"}).outputs["out"]
    assert told == {**given, "env": "staging"}


def test_what_a_block_puts_into_the_context_reaches_later_blocks_and_no_other_run(tmp_path: Path) -> None:
    """As in Mage's own runs in one process."""
    load = "def load(*a, **k):\n    k['context'].setdefault('seen', []).append(k['z'])\n"
    out = "def out(*a, **k):\n    return {'seen': k['context'].get('seen')}\n"
    blocks: dict[str, Block] = {"load": ("data_loader", [], load), "out": ("data_exporter", ["load"], out)}
    for variables in ({}, {"context": {"seen": ["theirs"]}}):
        project = write_project(tmp_path / str(len(variables)), "p", blocks, variables=variables)
        runs = [run_pipeline(project, project.pipeline("p"), {"z": z}).outputs["out"]["seen"] for z in "ab"]
        theirs = ["theirs"] if variables else []
        assert runs == [[*theirs, "a"], [*theirs, "b"]]


def test_failure_outside_of_a_block_s_code_names_its_file_alone(tmp_path: Path) -> None:
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], "def load():\n    return 1\n\n\n@test\ndef takes_two(one, two):\n    pass\n"),
        "out": ("data_exporter", ["load"], "def out():\n    pass\n"),
    }
    project = write_project(tmp_path / "p", "p", blocks)
    assert re.search(r"/load\.py: TypeError: takes_two\(\) missing 1", failure_of(project))
    (project.root / "data_loaders" / "load.py").write_text("@data_loader\ndef load():\n    return 1\n")
    assert re.search(
        r"block p/out \(\S+/out\.py\): Exception: Block out may have too many", failure_of(load_project(project.root))
    )


def test_blocks_log_through_the_logger_that_mage_gives_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = "def out(*a, **k):\n    k['logger'].warning('told by a block')\n    return {}\n"
    blocks: dict[str, Block] = {"out": ("data_exporter", [], out, {})}
    project = write_project(tmp_path / "p", "p", blocks)
    run_pipeline(project, project.pipeline("p"), {})
    assert [(each.name, each.message) for each in caplog.records if "told by" in each.message] == [
        ("mage.p", "told by a block")
    ]


@pytest.mark.parametrize("init", [["__init__.py"], []], ids=["package", "folder"])
def test_projects_in_folders_of_one_name_run_their_own_helpers(tmp_path: Path, init: list[str]) -> None:
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], "def load(*a, **k):\n    return 1\n"),
        "keep": (
            "data_exporter",
            ["load"],
            "def keep(*a, **k):\n    from shop.own.told import WHO\n    return {'who': WHO}\n",
        ),
    }
    projects = {}
    for who in ("first", "second"):
        helper = tmp_path / who / "shop" / "own" / "told.py"
        helper.parent.mkdir(parents=True)
        helper.write_text(f"WHO = {who!r}\n")
        for name in ["__init__.py"] if who == "first" else init:
            (helper.parents[1] / name).write_text("")
        projects[who] = write_project(tmp_path / who / "shop", "p", blocks)
    for who in ("first", "second", "first"):
        done = run_pipeline(projects[who], projects[who].pipeline("p"), {})
        assert done.outputs["keep"] == {"who": who}


@pytest.mark.parametrize("is_gone", ["the pipeline", "the block", "the block's file"])
def test_what_was_removed_since_the_definitions_were_loaded_is_told_with_what_to_do(
    tmp_path: Path, is_gone: str
) -> None:
    root = tmp_path / "project"
    blocks: dict[str, Block] = {
        "load": LOAD,
        "keep": ("data_exporter", ["load"], "def keep(*a, **k):\n    return {}\n"),
    }
    project = write_project(root, "p", blocks)
    pipeline, file = root / "pipelines" / "p" / "metadata.yaml", root / "data_exporters" / "keep.py"
    if is_gone == "the pipeline":
        pipeline.unlink()
    elif is_gone == "the block":
        left = json.loads(pipeline.read_text())
        pipeline.write_text(json.dumps({**left, "blocks": [{**left["blocks"][0], "downstream_blocks": []}]}))
        file.unlink()
    else:
        file.unlink()
    with pytest.raises(MageRunError) as told:
        run_pipeline(project, project.pipeline("p"), {})
    where = pipeline if is_gone != "the block's file" else file
    name = "p/load" if is_gone == "the pipeline" else "p/keep"
    assert re.search(
        rf"Mage block {name}: .*{re.escape(str(where))}.*Nothing was written.*Reload the code location",
        str(told.value),
    )
    assert not told.value.is_retryable


@pytest.mark.parametrize("text", ["", "blocks: [", "[1, 2]", "blocks: 3"])
def test_a_pipeline_s_file_that_was_broken_since_the_definitions_were_loaded_is_told(tmp_path: Path, text: str) -> None:
    blocks: dict[str, Block] = {
        "load": LOAD,
        "keep": ("data_exporter", ["load"], "def keep(*a, **k):\n    return {}\n"),
    }
    project = write_project(tmp_path / "project", "p", blocks)
    path = project.pipeline("p").path
    path.write_text(text)
    with pytest.raises(MageRunError) as told:
        run_pipeline(project, project.pipeline("p"), {})
    assert re.search(
        rf"Mage block p/load: .*{re.escape(str(path))}.*Nothing was written.*code location", str(told.value), re.DOTALL
    )


@pytest.mark.parametrize(("is_there", "is_passed"), [("True", False), ("False", True)])
def test_a_test_below_a_condition_is_checked_where_its_condition_holds(
    tmp_path: Path, is_there: str, is_passed: Any
) -> None:
    nested = f"\nif {is_there}:\n    @test\n    def is_two(read, *a) -> None:\n        assert len(read) == 2\n"
    blocks: dict[str, Block] = {
        "load": (*LOAD[:2], f"{LOAD[2]}{nested}"),  # three rows
        "out": ("data_exporter", ["load"], "def out(read, *a, **k):\n    return {}\n"),
    }
    assets = build_mage_assets(write_project(tmp_path / "project", "p", blocks))
    done = dg.materialize(assets, raise_on_error=False)
    assert done.success is is_passed
    [check] = done.get_asset_check_evaluations()
    assert check.passed is is_passed
    assert ("reason" in check.metadata) is is_passed


FLAKY = (
    "def {0}(*read, **k):\n    assert not read or list(read[0]['n']) == [1, 2, 3], 'changed by an earlier try'\n"
    "    if read:\n        read[0]['n'] = 0\n"
    "    with open('{1}', 'a') as f:\n        f.write('{0} ')\n"
    "    if k['retry']['attempts'] < 3:\n        raise {2}\n    return {{'tries': k['retry']['attempts']}}\n"
)
SOON = {"retries": 2, "delay": 0.001}


def flaky(kind: str, name: str, log: Path, *upstream: str, error: str = "OSError('away')", **more: Any) -> Block:
    """A block that succeeds at its third try, on inputs that no earlier try has changed."""
    return (kind, list(upstream), FLAKY.format(name, log, error), {"retry_config": SOON, **more})


def test_a_block_is_tried_again_as_its_retry_config_says_and_each_try_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log"
    blocks: dict[str, Block] = {
        "load": LOAD,
        "flaky": flaky("transformer", "flaky", log, "load"),
        "out": ("data_exporter", ["flaky"], "def out(read, **k):\n    return {**read, 'own': k['retry']}\n"),
    }
    assert run(tmp_path / "p", blocks).outputs["out"] == {"tries": 3, "own": {"attempts": 1}}
    assert log.read_text() == "flaky flaky flaky "
    told = [each.message for each in caplog.records if "again" in each.message]
    assert told == [
        f"Block flaky failed, try {n}; again in {s} s, by its retry_config: OSError: away"
        for n, s in ((1, 0.001), (2, 0.002))
    ]
    project = write_project(tmp_path / "fewer", "p", {"flaky": flaky("data_loader", "flaky", log)})
    (project.root / "metadata.yaml").write_text("retry_config: {retries: 1, delay: 0, max_delay: 0.1}\n")
    path = project.root / "pipelines" / "p" / "metadata.yaml"
    path.write_text(path.read_text().replace('"retries": 2, "delay": 0.001', '"retries": null'))
    with pytest.raises(MageRunError, match=r"OSError: away \[Tried 2 times by its retry_config\. Nothing was written"):
        run_pipeline(load_project(project.root), load_project(project.root).pipeline("p"), {})


def test_pauses_are_mages_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from mage_ai.data_preparation.shared.retry import RetryConfig as MagesConfig
    from mage_ai.shared import retry as mages

    def theirs(**said: Any) -> list[float]:
        slept: list[float] = []
        monkeypatch.setattr(mages.time, "sleep", slept.append)
        config = MagesConfig.load(config=said)

        @mages.retry(**{each.name: getattr(config, each.name) for each in dataclasses.fields(MagesConfig)})
        def fails() -> None:
            raise OSError

        with contextlib.suppress(OSError):
            fails()
        return slept

    for said in (
        {},
        {"retries": 9},
        {"retries": 9, "exponential_backoff": False},
        {"retries": 3, "delay": 30},
        {"retries": 3, "delay": 0},
        {"retries": 3, "delay": 60},
        {"retries": 9, "delay": 0.5, "max_delay": 7.5},
    ):
        assert list(RetryConfig.merged(said).pauses()) == theirs(**said), said


def test_a_failed_test_is_a_failed_try_and_one_that_warns_is_not(tmp_path: Path) -> None:
    test = "\n\n@test\ndef is_late(n, *a, **k) -> None:\n    assert n == 2, 'too early'\n"
    code = f"def load(*a, **k):\n    return k['retry']['attempts']\n{test}"
    for warns, tries in (([], 2), (["is_late"], 1)):
        more = {"retry_config": SOON, "configuration": {"warning_tests": warns}}
        done = run(tmp_path / str(tries), {"load": ("data_loader", [], code, more)})
        assert (done.outputs["load"], done.failed) == (tries, None)


@pytest.mark.parametrize(("is_repeatable", "tries"), [(False, 1), (True, 3)])
def test_an_exporter_is_tried_again_only_where_it_says_that_writing_again_is_no_harm(
    tmp_path: Path, is_repeatable: Any, tries: int
) -> None:
    log = tmp_path / "log"
    out = flaky("data_exporter", "out", log, "load", configuration={"repeatable": is_repeatable})
    project = write_project(tmp_path / "p", "p", {"load": LOAD, "out": out})
    if is_repeatable:
        assert run_pipeline(project, project.pipeline("p"), {}).outputs["out"] == {"tries": 3}
    else:
        with pytest.raises(MageRunError, match=r"Not tried again by its retry_config: it may have written \(`repeat"):
            run_pipeline(project, project.pipeline("p"), {})
    assert log.read_text() == "out " * tries


def test_no_block_is_tried_again_where_that_cannot_help(tmp_path: Path) -> None:
    """A block that exits, an error that says so, and what has read its iterator; that reads on would be nothing."""
    says = "type('Wrong', (Exception,), {{'is_retryable': {}}})('wrong')"
    for number, (error, upstream, tries) in enumerate(
        [
            ("SystemExit(3)", [], 1),
            (says.format("False"), [], 1),
            (says.format("True"), ["load"], 1),
            (says.format("True"), [], 3),
        ]
    ):
        log = tmp_path / f"log{number}"
        failing = flaky("transformer", "failing", log, *upstream, error=error)
        project = write_project(tmp_path / f"p{number}", "p", {"load": LOAD, "failing": failing})
        with contextlib.suppress(MageRunError):
            run_pipeline(project, project.pipeline("p"), {})
        assert log.read_text() == "failing " * tries
    reads = "def out(read, **k):\n    list(read)\n    raise OSError('away')\n"
    once: dict[str, Block] = {
        "load": ("data_loader", [], ONCE),
        "out": ("transformer", ["load"], reads, {"retry_config": SOON}),
    }
    with pytest.raises(MageRunError, match=r"OSError: away \[Nothing was written"):
        run(tmp_path / "once", once)


def test_a_run_that_is_terminated_ends_in_the_pause_before_a_try(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
    load = flaky("data_loader", "load", tmp_path / "log")[2]
    blocks: dict[str, Block] = {"load": ("data_loader", [], load, {"retry_config": {"retries": 1, "delay": 50}})}
    project = write_project(tmp_path / "p", "p", blocks)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(project, project.pipeline("p"), {})
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 10
    assert (tmp_path / "log").read_text() == "load "


UNTELLABLE = "class E(Exception):\n        def __str__(self):\n            raise RuntimeError\n    raise E"
ODD_ERRORS = [
    ("raise BaseException('a panic')", "BaseException: a panic"),
    ("import asyncio\n    raise asyncio.CancelledError", "CancelledError: "),
    (UNTELLABLE, "E: (its text cannot be told: RuntimeError)"),
]


@pytest.mark.parametrize(("raises", "said"), ODD_ERRORS)
def test_whatever_a_block_raises_is_told_with_its_name(tmp_path: Path, raises: str, said: str) -> None:
    load = ("data_loader", [], f"def load(*a, **k):\n    {raises}\n")
    told = failure_of(write_project(tmp_path / "p", "p", {"load": load}))
    assert re.search(rf"p/load \(.*load\.py:\d\): {re.escape(said)} ?\[Nothing was written", told)


@pytest.mark.parametrize(("raises", "said"), ODD_ERRORS)
def test_whatever_a_test_raises_it_has_not_passed(tmp_path: Path, raises: str, said: str) -> None:
    test = f"\n\n@test\ndef is_good(*a) -> None:\n    {raises}\n"
    done = run(tmp_path / "p", {"load": ("data_loader", [], "def load(*a, **k):\n    return 1\n" + test)})
    assert done.failed is not None
    assert said.strip().removeprefix("E: ").removesuffix(":") in done.failed.message


def test_of_a_long_error_the_ends_are_told_and_what_was_written(tmp_path: Path) -> None:
    raises = "raise ValueError('first' + 'x' * 10_000_000 + 'last')"
    load = ("data_loader", [], f"def load(*a, **k):\n    {raises}\n")
    told = failure_of(write_project(tmp_path / "p", "p", {"load": load}))
    assert len(told) < 11_000
    assert re.search(
        r"ValueError: firstx+ \[\.\.\. \d+ characters left out \.\.\.\] x+last \[Nothing was written", told
    )
    test = f"\n\n@test\ndef is_good(*a) -> None:\n    {raises}\n"
    done = run(tmp_path / "q", {"load": ("data_loader", [], "def load(*a, **k):\n    return 1\n" + test)})
    assert done.failed is not None
    assert len(done.failed.message) < 11_000


def test_a_lazy_frame_of_a_wrong_query_is_told_at_the_block_that_reads_it(tmp_path: Path) -> None:
    lazy = "def load(*a, **k):\n    import polars as pl\n    return pl.LazyFrame({'n': [1]}).select('lost')\n"
    out = ("data_exporter", ["load"], "def out(read, *a, **k):\n    return read.collect()\n")
    told = failure_of(write_project(tmp_path / "p", "p", {"load": ("data_loader", [], lazy), "out": out}))
    assert re.search(r"p/out \(.*out\.py:3\): ColumnNotFoundError: lost", told)


def test_a_block_is_interrupted_at_its_timeout_also_where_its_code_catches_that(tmp_path: Path) -> None:
    waits = (
        "def load(*a, **k):\n    import time\n    try:\n        time.sleep(5)\n    except Exception:\n        pass\n"
    )
    blocks: dict[str, Block] = {"load": ("data_loader", [], waits, {"timeout": 1, "retry_config": SOON})}
    told = r"p/load \(.*BlockTimeoutError: it ran longer than its timeout of 1 s .* \[Nothing was written"
    with pytest.raises(MageRunError, match=told) as caught:
        run(tmp_path / "p", blocks)
    assert not caught.value.is_retryable
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize("ends", ["    return {}\n", "    raise OSError('away')\n"], ids=["well", "with an error"])
def test_what_a_block_changes_for_the_process_lasts_as_long_as_its_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ends: str
) -> None:
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.setenv("TAKEN", "taken")
    monkeypatch.setenv("TZ", "UTC")
    change = (
        "def load(*a, **k):\n    import decimal, os, time\n    os.chdir('{0}')\n    os.environ['KEPT'] = 'a secret'\n"
        "    os.environ['ADDED'] = os.environ.pop('TAKEN')\n    os.environ['TZ'] = 'Asia/Tokyo'\n    time.tzset()\n"
        "    decimal.getcontext().prec = 3\n    import locale\n    locale.setlocale(locale.LC_ALL, 'C')\n"
        "    import signal, warnings\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    warnings.simplefilter('ignore')\n"
    )
    sees = "def out(*a, **k):\n    import os\n    assert os.getcwd() == '{0}' and os.environ['ADDED'] == 'taken'\n"
    blocks: dict[str, Block] = {
        "load": ("data_loader", [], change.format(tmp_path)),
        "out": ("data_exporter", ["load"], sees.format(tmp_path) + ends),
    }
    project = write_project(tmp_path / "p", "p", blocks)

    def around() -> Any:
        environment = {name: value for name, value in os.environ.items() if name != "MAGE_REPO_PATH"}
        spoken, handled = locale.setlocale(locale.LC_ALL), signal.getsignal(signal.SIGTERM)
        return Path.cwd(), environment, time.tzname, decimal.getcontext().prec, spoken, handled, list(warnings.filters)

    before = around()
    for _ in range(2):
        with contextlib.suppress(MageRunError):
            run_pipeline(project, project.pipeline("p"), {})
        assert around() == before
    told = [each.message for each in caplog.records if "changed" in each.message]
    changed = ", ".join(f"os.environ['{name}']" for name in ("ADDED", "KEPT", "TAKEN", "TZ"))
    assert [each.partition(";")[0] for each in told] == [
        f"Block load changed the working directory (now {tmp_path}), {changed}"
    ] * 2


def test_projects_whose_blocks_put_their_own_folder_on_the_path_run_their_own_helpers(tmp_path: Path) -> None:
    code = (
        "def keep(*a, **k):\n    import sys\n    from mage_ai.settings.repo import get_repo_path\n"
        "    sys.path.append(get_repo_path())\n    from utils_of_both.told import WHO\n    return {'who': WHO}\n"
    )
    projects = {}
    for who in ("first", "second"):
        helper = tmp_path / who / "utils_of_both" / "told.py"
        helper.parent.mkdir(parents=True)
        helper.write_text(f"WHO = {who!r}\n")
        projects[who] = write_project(tmp_path / who, "p", {"keep": ("data_exporter", [], code)})
    before = len(sys.path)
    for who in ("first", "second", "first", "first"):
        done = run_pipeline(projects[who], projects[who].pipeline("p"), {})
        assert done.outputs["keep"] == {"who": who}
    assert len(sys.path) <= before + 2  # the folder that both are in, by Mage
