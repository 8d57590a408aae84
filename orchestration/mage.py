"""Runs a Mage pipeline's blocks in this process, one after the other; the only module that imports Mage.

Belongs here: executing blocks through `execute_block`, their tests, and telling what each did. Not here: Dagster
(mage_assets.py), what a project looks like on disk (mage_spec.py), anything about what the blocks do.

`Pipeline.execute_sync` is never used: it keeps outputs in one folder per pipeline and can hand a block the frame of
the previous run without an error (docs/decisions/0007-blocks-run-in-process.md).
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import math
import numbers
import os
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from datetime import time as time_of_day
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from orchestration.errors import MageRunError
from orchestration.mage_imports import own_helpers
from orchestration.mage_retry import RetryConfig, retry_problem
from orchestration.mage_spec import is_edited
from orchestration.mage_surroundings import Surroundings, own_surroundings
from orchestration.mage_timeout import BlockTimeoutError, time_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestration.mage_spec import BlockSpec, MageProject, PipelineSpec

_NAMED = (str, numbers.Real, type(None))  # column names that Mage's storage takes
_FIXED = (
    str,
    bytes,
    numbers.Number,
    type(None),
    date,
    time_of_day,
    timedelta,
    tzinfo,
    PurePath,
)  # cannot change in place
# Of an error's text, in characters: a whole frame in it (10 MB) would be in each event, check and alert of the run.
_TOLD = 10_000
_EXACT_FLOAT = 2**53  # whole numbers up to it are floats as they are
# What Mage's tables in a store keep of numbers with a fraction, and of which it is not all.
_KEPT: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "postgres": ("floats", lambda each: isinstance(each, Decimal) and Decimal(repr(float(each))) != each),
    "duckdb": ("DECIMAL(18, 3)", lambda each: round(each, 3) != each),
}
_FIRST_ROWS = 1000  # that Mage reads of a table which raw SQL has written (`execute_raw_sql`)
_EXEC_FILE = "<string>"  # the name that Mage's exec gives to a block's code in tracebacks


@dataclass(frozen=True, kw_only=True)
class TestRun:
    """What came of one `@test` function."""

    __test__ = False  # pytest would take it for a test of its own

    block: str
    name: str
    passed: bool
    message: str
    only_warns: bool = False

    @property
    def stops(self) -> bool:
        """Whether its failure ends the run."""
        return not self.passed and not self.only_warns


@dataclass(frozen=True, kw_only=True)
class BlockRun:
    """What one block did. Rows are None for what has no rows.

    `peak_mib` is the most memory that the process held while the block ran; where the system does not tell peaks of a
    span (it does on Linux), the most it has ever held.
    """

    block: str
    rows_in: int | None
    rows_out: int | None
    columns: tuple[str, ...]
    seconds: float
    peak_mib: int
    tests: tuple[TestRun, ...]


@dataclass(frozen=True, kw_only=True)
class PipelineRun:
    """What one run did; `outputs` holds the first result of each block that ends the pipeline."""

    blocks: tuple[BlockRun, ...]
    outputs: Mapping[str, Any]

    @property
    def tests(self) -> tuple[TestRun, ...]:
        """Every test of every block."""
        return tuple(test for block in self.blocks for test in block.tests)

    @property
    def failed(self) -> TestRun | None:
        """The test that stopped the run, if one did."""
        return next((test for test in self.tests if test.stops), None)

    @property
    def warnings(self) -> tuple[TestRun, ...]:
        """The tests that failed and only warn."""
        return tuple(test for test in self.tests if not test.passed and test.only_warns)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which part of a caller's run a call is, for what its errors say.

    Attributes:
        name: None where it is all of it.
        before: the parts that are written already.
    """

    name: str | None = None
    before: Sequence[str] = ()


def run_pipeline(
    project: MageProject,
    spec: PipelineSpec,
    variables: Mapping[str, Any],
    *,
    keep: Callable[[str, Any], None] | None = None,
    part: Part | None = None,
    as_read: bool = False,
) -> PipelineRun:
    """Run the blocks in order, each on the results of those it reads, each followed by its tests.

    A failed test ends the run before the next block, so nothing after it is written, unless it only warns; it is in the
    result, not an error, because the caller reports it as a check.

    Args:
        project: where the pipeline is.
        spec: the pipeline.
        variables: runtime variables, on top of the pipeline's own.
        keep: told each block's result, for whoever wants to look at frames (tests do).
        part: what this is of the caller's run, if not all of it.
        as_read: refuse files that were edited since `spec` was read, before the first block and before the first
            exporter: what is written is said to be made by `spec.code_version`.

    Raises:
        MageRunError: a block raised, or is there no longer; then none has run.
    """
    part = part or Part()
    with own_helpers(project.root):
        pipeline = _open(project.root, spec, part) if spec.path.is_file() else None
        _refuse_removed(pipeline, spec, part)
        refuse_edited = partial(_refuse_edited, project.root, spec, part) if as_read else None
        if refuse_edited is not None:
            refuse_edited(spec.blocks[0])
        with own_surroundings():
            return _run_blocks(pipeline, spec, variables, keep=keep, part=part, before_writing=refuse_edited)


def _run_blocks(
    pipeline: Any,
    spec: PipelineSpec,
    variables: Mapping[str, Any],
    *,
    keep: Callable[[str, Any], None] | None,
    part: Part,
    before_writing: Callable[[BlockSpec], None] | None,
) -> PipelineRun:
    given = _given(spec, variables)
    retry = _retries_of_project(pipeline, spec, part)
    results: dict[str, list[Any]] = {}
    runs: list[BlockRun] = []
    for block in spec.blocks:
        if before_writing is not None and block.type == "data_exporter" and not _exporters_of(spec, runs):
            before_writing(block)
        inputs = _inputs(results, block, _read_after(spec, len(runs) + 1))
        _forget_peak()
        started = time.perf_counter()
        mage_block = pipeline.get_block(block.uuid)
        surroundings = Surroundings.now()
        place = _Place(spec, block, tuple(runs), part)
        results[block.uuid], tests = _within_its_time(mage_block, inputs, given, place, retry)
        _tell_changes(spec, block, surroundings.changes())
        output = _as_argument(results[block.uuid])
        if keep is not None:
            keep(block.uuid, output)
        runs.append(
            BlockRun(
                block=block.uuid,
                rows_in=rows_of(inputs),
                rows_out=rows_of(output),
                columns=columns_of(output),
                seconds=time.perf_counter() - started,
                peak_mib=_peak_mib(),
                tests=tests,
            )
        )
        if any(test.stops for test in runs[-1].tests):
            break
        del inputs, output
        for uuid in results.keys() - _read_after(spec, len(runs)):  # so that a chain holds two frames and not all
            del results[uuid]
    ends = [block.uuid for block in spec.outputs if block.uuid in results]
    return PipelineRun(blocks=tuple(runs), outputs={uuid: _as_argument(results[uuid]) for uuid in ends})


def _tell_changes(spec: PipelineSpec, block: BlockSpec, changes: Sequence[str]) -> None:
    if changes:
        logging.getLogger(f"mage.{spec.uuid}").warning(
            "Block %s changed %s; later blocks of this pass see it, and after it all is as before",
            block.uuid,
            ", ".join(changes),
        )


def _given(spec: PipelineSpec, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of a run: what Mage's scheduler gives to every block, the pipeline's own, the run's.

    `env` is the scheduler's: by it blocks choose where they write, and Mage the tables of SQL blocks without a name.
    `context` is one dictionary for the whole run, by which blocks hand on what is no frame.
    """
    at = _execution_date(spec, variables)
    given = {
        "context": {},
        "env": "prod",
        "event": {},
        "execution_date": at,
        "ds": f"{at:%Y-%m-%d}",
        "hr": f"{at:%H}",
        "logger": logging.getLogger(f"mage.{spec.uuid}"),
        **spec.variables,
        **variables,
    }
    return {**given, "context": _own_copy(given["context"])}


def _execution_date(spec: PipelineSpec, variables: Mapping[str, Any]) -> datetime:
    """Midnight of the day that is run, else now: what Mage's scheduler and its notebook give to every block."""
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(str(variables.get(spec.partition_variable or ""))).replace(tzinfo=UTC)
    return datetime.now(UTC)


def _read_after(spec: PipelineSpec, done: int) -> set[str]:
    """The blocks whose results are still read once so many blocks are done: by a later one, or as the run's own."""
    return {upstream for block in spec.blocks[done:] for upstream in block.upstream} | {
        block.uuid for block in spec.outputs
    }


def _inputs(results: Mapping[str, list[Any]], block: BlockSpec, read_later: set[str]) -> list[Any]:
    """What the block reads, a copy where another reads it later: Mage's storage, too, gives each its own."""
    given = [(upstream, _as_argument(results[upstream])) for upstream in block.upstream]
    return [_own_copy(value) if upstream in read_later else value for upstream, value in given]


def _own_copy(value: Any) -> Any:
    """What its reader may change in place. What cannot be copied is shared; an Arrow table cannot be changed."""
    if isinstance(value, _FIXED) or _module_of(value).startswith("pyarrow."):
        return value
    if isinstance(value, dict):
        own = copy.copy(value)
        own.update({name: _own_copy(each) for name, each in value.items()})
        return own
    if isinstance(value, list):
        return [_own_copy(each) for each in value]
    if type(value) is tuple:
        return tuple(_own_copy(each) for each in value)
    with contextlib.suppress(Exception):  # a connection, a lock, and whatever else its own class keeps from it
        return _with_own_objects(copy.deepcopy(value))  # of polars' frames a copy shares what cannot be changed
    return value


def _with_own_objects(own: Any) -> Any:
    """A pandas copy whose lists, dictionaries and the like are its own as well; pandas copies references to them."""
    if not _module_of(own).startswith("pandas.") or getattr(own, "ndim", 0) not in {1, 2} or not hasattr(own, "iloc"):
        return own
    from pandas.api.types import infer_dtype

    for place in range(own.shape[1] if own.ndim > 1 else 1):
        column = own.iloc[:, place] if own.ndim > 1 else own
        # Texts, decimals and dates have kinds of their own, which a million rows tell in 20 ms.
        if column.dtype == object and infer_dtype(column, skipna=True).startswith("mixed"):
            objects = column.to_numpy(copy=True)
            for row, each in enumerate(objects):
                objects[row] = _own_copy(each)
            if own.ndim > 1:
                own.isetitem(place, objects)
            else:
                own.iloc[:] = objects
    return own


def _module_of(value: Any) -> str:
    """Where its class is from; one that `type(...)` has made in a block's code does not say."""
    return str(getattr(type(value), "__module__", ""))


def rows_of(value: Any) -> int | None:
    """Rows of an Arrow table, a polars or pandas frame, of all frames in a list; None for anything else."""
    if isinstance(value, list):
        known = [rows for rows in map(rows_of, value) if rows is not None]
        return sum(known) if known else None
    rows = getattr(value, "num_rows", None)
    if isinstance(rows, int):
        return rows
    shape = getattr(value, "shape", None)
    return shape[0] if isinstance(shape, tuple) and shape and isinstance(shape[0], int) else None


def columns_of(value: Any) -> tuple[str, ...]:
    """Columns of a frame as 'name type'; empty for anything else.

    Also for a lazy frame whose query is wrong: the error is for the block that reads it, which is then named.
    """
    with contextlib.suppress(Exception):
        return _columns(value)
    return ()


def _columns(value: Any) -> tuple[str, ...]:
    schema = getattr(value, "schema", None)
    if schema is not None and hasattr(schema, "names") and hasattr(schema, "field"):
        return tuple(f"{field.name} {field.type}" for field in schema)
    dtypes = getattr(value, "dtypes", None)
    if isinstance(dtypes, list):
        return tuple(f"{name} {dtype}" for name, dtype in zip(value.columns, dtypes, strict=True))
    items = getattr(dtypes, "items", None)
    return tuple(f"{name} {dtype}" for name, dtype in items()) if items is not None else ()


def _open(root: Path, spec: PipelineSpec, part: Part) -> Any:
    """Mage's own pipeline object, read anew: an edit in Mage's UI is live in the next run."""
    for noisy in ("traitlets", "mage_ai"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from mage_ai.data_preparation.models.pipeline import Pipeline
    from mage_ai.settings import repo

    if os.environ.get(repo.REPO_PATH_ENV_VAR) != str(root):
        path = list(sys.path)
        repo.set_repo_path(str(root))
        sys.path[:] = [*path, *(entry for entry in sys.path[len(path) :] if entry not in path)]
    try:
        return Pipeline.get(spec.uuid, repo_path=str(root))
    except Exception as error:  # Mage has no class for a file that it cannot take
        problem = f"{spec.path} cannot be read any more: {error}"
        mend = "Mend that file, reload the code location, and run again."
        raise _not_begun(spec, part, spec.blocks[0], spec.path, problem=problem, mend=mend) from error


def _not_begun(
    spec: PipelineSpec, part: Part, block: BlockSpec, path: Path, *, problem: str, mend: str
) -> MageRunError:
    """The error of a run that has written nothing of this part."""
    return MageRunError(
        f"running Mage block {spec.uuid}/{block.uuid}: {problem} [{written_told(spec, (), part)}. {mend}]",
        pipeline=spec.uuid,
        block=block.uuid,
        path=path,
        line=None,
    )


def _refuse_removed(pipeline: Any, spec: PipelineSpec, part: Part) -> None:
    """Before any block runs: what was removed since the specs were read would stop the chain half-way.

    Args:
        pipeline: Mage's own, None if its file is gone.
        spec: as it was read.
        part: what this is of the caller's run.
    """
    listed = {} if pipeline is None else pipeline.blocks_by_uuid
    for block in spec.blocks:
        path = Path(listed[block.uuid].file_path) if block.uuid in listed else spec.path
        if pipeline is None:
            problem = f"the file of its pipeline, {path}, is gone"
        elif block.uuid not in listed:
            problem = f"{path} lists it no longer"
        elif not path.is_file():
            problem = f"its file {path} is gone"
        else:
            continue
        problem += "; it was there when the definitions were loaded"
        mend = (
            "Reload the code location, so that its assets are what the files say, or put back what was removed, and "
            "run again."
        )
        raise _not_begun(spec, part, block, path, problem=problem, mend=mend)


def _refuse_edited(root: Path, spec: PipelineSpec, part: Part, block: BlockSpec) -> None:
    """Some blocks would be the new ones, others and their helper modules the old; the rows of neither version."""
    if is_edited(root, spec):
        problem = (
            "files of its pipeline, or modules that it may import, were edited since this run has read them; what it "
            f"writes would be said to be made by the code as it was ({spec.code_version})"
        )
        raise _not_begun(spec, part, block, spec.path, problem=problem, mend="Run it again: that reads them anew.")


def _retries_of_project(pipeline: Any, spec: PipelineSpec, part: Part) -> Mapping[str, Any]:
    """The project's own `retry_config`, as Mage has filled it in; looked at before any block runs."""
    found = pipeline.repo_config.retry_config
    problem = retry_problem(found)
    if problem:
        path = spec.path.parents[2] / "metadata.yaml"
        raise _not_begun(
            spec, part, spec.blocks[0], path, problem=f"{path}: {problem}", mend="Mend that file, and run again."
        )
    return found or {}


@dataclass(frozen=True)
class _Place:
    """Where a run is: the block at work, and what was done before it."""

    spec: PipelineSpec
    block: BlockSpec
    done: tuple[BlockRun, ...]
    part: Part
    tries: int = 1


def _within_its_time(
    mage_block: Any, inputs: Sequence[Any], variables: Mapping[str, Any], place: _Place, of_project: Mapping[str, Any]
) -> tuple[list[Any], tuple[TestRun, ...]]:
    """The block, its tests and all tries of it, within its `timeout`, as Mage's scheduler has it."""
    try:
        with time_limit(place.block.timeout_s, place.block.uuid):
            return _try(mage_block, inputs, variables, place, of_project)
    except BlockTimeoutError as error:  # in a test or in a pause, or caught by the block's own code
        raise _block_error(place, error) from error


def _try(
    mage_block: Any, inputs: Sequence[Any], variables: Mapping[str, Any], place: _Place, of_project: Mapping[str, Any]
) -> tuple[list[Any], tuple[TestRun, ...]]:
    """The block and its tests, as often as `retry_config` says: that of the project, the block's own on top of it.

    As in Mage each try reads its inputs anew, a test that stops the run is a failed try, and a block that exits is not
    tried again. Other than in Mage: an exporter, which may have written, only if it says that it is repeatable; an
    error that says itself whether trying again helps is believed, and what reads an iterator has used it up.
    """
    pauses = _pauses(place.block, inputs, of_project)
    while True:
        pause = next(pauses, None)
        given = {**variables, "retry": {"attempts": place.tries}}
        try:
            outputs = _execute(mage_block, inputs if pause is None else _own_copy(list(inputs)), given, place)
        except MageRunError as error:
            if pause is None or not _may_help(error.__cause__, place.block):
                raise
            problem = f"{type(error.__cause__).__name__}: {_said(error.__cause__)}"
        else:
            tests = _run_tests(mage_block, place.block, outputs)
            failed = next((test for test in tests if test.stops), None)
            if failed is None or pause is None:
                return outputs, tests
            problem = f"{failed.name} failed: {failed.message}"
        logging.getLogger(f"mage.{place.spec.uuid}").warning(
            "Block %s failed, try %d; again in %g s, by its retry_config: %s",
            place.block.uuid,
            place.tries,
            pause,
            problem,
        )
        time.sleep(pause)
        place = replace(place, tries=place.tries + 1)


def _pauses(block: BlockSpec, inputs: Sequence[Any], of_project: Mapping[str, Any]) -> Iterator[float]:
    given = [each for value in inputs for each in (value if isinstance(value, list) else [value])]
    if not block.is_repeatable or any(isinstance(each, Iterator) for each in given):
        return iter(())
    return RetryConfig.merged(of_project, block.retry_config).pauses()


def _may_help(error: BaseException | None, block: BlockSpec) -> bool:
    """Whether the block's error lets a further try of it help; of what it was given, only the whole pass reads anew."""
    if not isinstance(error, Exception):
        return False
    told = getattr(error, "is_retryable", None)
    return told is None or (bool(told) and not block.upstream)


def _execute(mage_block: Any, inputs: Sequence[Any], variables: Mapping[str, Any], place: _Place) -> list[Any]:
    own = _own_copy(dict(variables))  # a list that a block adds to is its own; what it puts into the context is not
    global_vars = mage_block.enrich_global_vars({**own, "context": variables["context"]})
    if place.block.language == "sql":
        _hand_over(mage_block, inputs, place)
    is_read = place.block.language == "sql" and any(_reads_frame(each, place.block) for each in place.spec.blocks)
    try:
        with _reading_told(place, mage_block.content) if is_read else contextlib.nullcontext():
            output = mage_block.execute_block(input_args=list(inputs), global_vars=global_vars)["output"]
        if place.block.language == "sql":
            output = _rows_of_sql(output, mage_block.configuration)
        _refuse_used_up(output, mage_block, place)
    except BaseException as error:  # sys.exit, a panic of polars: no run may end without its block's name
        if _is_interruption(error):
            raise
        raise _block_error(place, error) from error
    return [_with_names(each) for each in output]


def _with_names(value: Any) -> Any:
    """A pandas frame with the column names that Mage's storage gives it: numbers, as of a pivot by year, are texts."""
    names = getattr(value, "columns", None) if _module_of(value).startswith("pandas.") else None
    if names is None or getattr(names, "nlevels", 1) > 1:
        return value
    if all(isinstance(name, str) for name in names) or not all(isinstance(name, _NAMED) for name in names):
        return value
    renamed = value.copy(deep=False)
    renamed.columns = [str(name) for name in names]
    return renamed


def _refuse_used_up(outputs: Sequence[Any], mage_block: Any, place: _Place) -> None:
    """An iterator that two read is empty for the second of them, which would go on with no rows."""
    readers = sum(each.upstream.count(place.block.uuid) for each in place.spec.blocks)
    once = next((each for each in outputs if isinstance(each, Iterator)), None)
    if once is not None and readers + len(mage_block.test_functions) > 1:
        raise TypeError(
            f"it gave a {type(once).__name__}, which can be read only once, and {readers} block(s) and "
            f"{len(mage_block.test_functions)} test(s) read it; let it return a frame or a dictionary"
        )


def _hand_over(mage_block: Any, inputs: Sequence[Any], place: _Place) -> None:
    """Give a SQL block the frames of this run.

    It does not take them as arguments: it would read what Mage's store holds of its upstream blocks, which is nothing,
    or the frame of an earlier run in Mage's own UI.
    """
    upstream = place.block.upstream
    frames = [_without_categories(_as_pandas(each)) for each in inputs]
    for frame, uuid in zip(frames, upstream, strict=True):
        if _reads_frame(place.block, place.spec.block(uuid)):
            _tell_kept(frame, uuid, place)
    mage_block.fetch_input_variables = lambda *_args, **_kwargs: (
        [_for_sql(frame, uuid) for frame, uuid in zip(frames, upstream, strict=True)],
        [{} for _ in frames],
        list(upstream),
    )


def _tell_kept(frame: Any, upstream: str, place: _Place) -> None:
    """Tell of which columns the table that Mage makes of a frame keeps less: it does so without a word."""
    store = str(place.block.configuration.get("data_provider"))
    if store not in _KEPT or not _module_of(frame).startswith("pandas.") or not hasattr(frame, "iloc"):
        return
    kept, loses = _KEPT[store]
    columns = ((str(name), frame.iloc[:, number]) for number, name in enumerate(frame.columns))
    rounded = [name for name, column in columns if any(loses(each) for each in _fractions(column))]
    if rounded:
        logging.getLogger(f"mage.{place.spec.uuid}").warning(
            "Block %s reads other numbers than block %s gives: Mage keeps %s in %s as %s; let %s give them as text "
            "where they must be exact",
            place.block.uuid,
            upstream,
            ", ".join(f"column {name}" for name in rounded),
            store,
            kept,
            upstream,
        )


def _fractions(column: Any) -> Iterator[Any]:
    """A column's decimals or floats, as far as they are numbers; nothing of another column."""
    from pandas.api.types import infer_dtype

    if getattr(column.dtype, "kind", "") == "f" or (
        column.dtype == object and infer_dtype(column, skipna=True) == "decimal"
    ):
        yield from (each for each in column.dropna() if math.isfinite(each))


def _as_pandas(value: Any) -> Any:
    """What Mage can write to a store; whole numbers stay whole, also beside nulls: `to_pandas` makes floats of them."""
    frame = value.to_pandas() if hasattr(value, "to_pandas") else value
    table = value.to_arrow() if hasattr(value, "to_arrow") else value
    if not hasattr(frame, "columns") or not _module_of(table).startswith("pyarrow."):
        return frame
    import pandas as pd
    import pyarrow as pa

    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_integer(field.type) and column.null_count and list(frame.columns).count(field.name) == 1:
            kind = pd.UInt64Dtype() if field.type == pa.uint64() else pd.Int64Dtype()
            frame[field.name] = kind.__from_arrow__(column)
    return frame


def _without_categories(frame: Any) -> Any:
    """Categories beside nulls as the texts that Mage makes of them, and nulls as nulls: it makes the text `nan`."""
    if not _module_of(frame).startswith("pandas.") or not hasattr(frame, "isetitem"):
        return frame
    own = frame.copy(deep=False)
    for place, dtype in enumerate(frame.dtypes):
        column = frame.iloc[:, place]
        if str(dtype) == "category" and column.hasnans:
            own.isetitem(place, column.astype(str).astype(object).where(column.notna(), None))
    return own


def _reads_frame(reader: BlockSpec, block: BlockSpec) -> bool:
    """Whether it is given what a SQL block's table gives as a frame; SQL of the same store reads the table itself."""
    return block.uuid in reader.upstream and (reader.language != "sql" or reader.store != block.store)


@contextlib.contextmanager
def _reading_told(place: _Place, query_of_block: str) -> Iterator[None]:
    """Tell where Mage's reading of a SQL block's result gives less than is there, as it does without a word.

    That is rows of a table that raw SQL has written, and digits of a column. The frame stays what Mage gives: it makes
    floats of decimals, and pandas of whole numbers beside nulls.
    """
    from mage_ai.io import sql

    read, log = sql.read_sql, logging.getLogger(f"mage.{place.spec.uuid}")

    def read_and_tell(query: str, conn: Any, **ways: Any) -> Any:
        frame = read(query, conn, **{**ways, "coerce_float": False})
        rounded = _rounded(frame) if ways.get("coerce_float", True) else []
        if rounded:
            log.warning(
                "Block %s gives other numbers than its query: Mage reads %s as floats, which keep about 16 digits; "
                "cast to text in the query where they must be exact",
                place.block.uuid,
                ", ".join(f"column {name}" for name in rounded),
            )
        if len(frame) == _FIRST_ROWS and query.endswith(f" LIMIT {_FIRST_ROWS}") and query not in query_of_block:
            log.warning(
                "Block %s gives the first %d rows of the table that its raw SQL has written, and no more, as Mage has "
                "it; where a later block needs all of them, let it read the table itself",
                place.block.uuid,
                _FIRST_ROWS,
            )
        return frame

    sql.read_sql = read_and_tell
    try:
        yield
    finally:
        sql.read_sql = read


def _rounded(frame: Any) -> list[str]:
    """Make floats of a result's decimals, as pandas does by default; the columns that are, or may be, rounded by it."""
    from pandas.api.types import infer_dtype

    rounded = []
    for place, name in enumerate(frame.columns):
        column = frame.iloc[:, place]
        if column.dtype == object and infer_dtype(column, skipna=True) == "decimal":
            floats = column.astype("float64")
            pairs = zip(column, floats, strict=True)
            if any(each is not None and each.is_finite() and Decimal(repr(its)) != each for each, its in pairs):
                rounded.append(str(name))
            frame.isetitem(place, floats)
        elif column.dtype == "float64" and column.hasnans:  # of whole numbers, as far as can be told
            known = column.dropna()
            if (known.abs() >= _EXACT_FLOAT).any() and (known % 1 == 0).all():
                rounded.append(str(name))
    return rounded


def _rows_of_sql(output: Any, configuration: Mapping[str, Any]) -> list[Any]:
    """What a SQL block gave: nothing where its text is sent as it is, of which drivers give None or an object."""
    if not configuration.get("data_provider"):
        raise ValueError("it names no data_provider, so that Mage runs no query, without a word; choose one in its UI")
    return output if isinstance(output, list) else []


def _for_sql(frame: Any, upstream: str) -> Any:
    """What Mage makes the upstream block's table of; of no rows it would make none, and leave an earlier one there."""
    if rows_of(frame) == 0 and columns_of(frame):
        return _without_rows(frame)
    if rows_of(frame) == 0 or (isinstance(frame, (list, dict, str, int, float, type(None))) and not frame):
        return _Nothing(upstream)
    return frame


def _without_rows(frame: Any) -> Any:
    """The frame in a form that Mage exports.

    It takes a DataFrame without rows, and whatever else is false, for no data; asked whether it is false, this says no
    and is a DataFrame from then on. Whole numbers become floats: Mage looks for the largest to choose a type for them.
    """
    pandas = type(frame)
    whole = {name: "float64" for name, dtype in frame.dtypes.items() if getattr(dtype, "kind", "") in "iu"}

    class WithoutRows(pandas):  # type: ignore[misc, valid-type]
        def __bool__(self) -> bool:
            self.__class__ = pandas
            return True

    return WithoutRows(frame.astype(whole))


@dataclass(frozen=True)
class _Nothing:
    """What has no columns to make a table of: an error once the query reads it."""

    upstream: str

    def __bool__(self) -> bool:
        raise ValueError(
            f"its upstream block {self.upstream} gave neither rows nor columns, and the table that the query reads "
            f"would be an earlier run's; let {self.upstream} return a frame that has its columns"
        )


def _as_argument(outputs: Sequence[Any]) -> Any:
    """What Mage hands to the next block: the one result, or all of them as a list, which of no result is empty."""
    return outputs[0] if len(outputs) == 1 else list(outputs)


def _run_tests(mage_block: Any, block: BlockSpec, outputs: Sequence[Any]) -> tuple[TestRun, ...]:
    """The block's tests, on a copy: Mage gives them what its storage holds, so none changes what is written."""
    functions: list[Callable[..., Any]] = mage_block.test_functions
    given = _own_copy(list(outputs)) if functions else []
    return tuple(_run_test(block, function, given, mage_block.global_vars) for function in functions)


def _run_test(
    block: BlockSpec, function: Callable[..., Any], outputs: Sequence[Any], variables: Mapping[str, Any]
) -> TestRun:
    takes_variables = any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in inspect.signature(function).parameters.values()
    )
    try:
        function(*outputs, **(variables if takes_variables else {}))
    except BaseException as error:  # a test may raise anything; whatever it is, the test did not pass
        if _is_interruption(error):
            raise
        line = _line_in_block(error)
        text = _said(error) or type(error).__name__
        message = text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}"
        return TestRun(
            block=block.uuid,
            name=function.__name__,
            passed=False,
            message=f"{_at(block, line)}: {message}",
            only_warns=any(test.only_warns for test in block.tests if test.name == function.__name__),
        )
    return TestRun(block=block.uuid, name=function.__name__, passed=True, message="passed")


def _block_error(place: _Place, error: BaseException) -> MageRunError:
    spec, block = place.spec, place.block
    line = error.lineno if isinstance(error, SyntaxError) else _line_in_block(error)
    written = _exporters_of(spec, place.done)
    state = written_told(spec, place.done, place.part, failed=block)
    is_told = getattr(error, "says_next_step", False)  # then the block is not what is to be mended
    mend = "" if is_told else " Mend the block, in Mage's UI or in its file, and run again."
    tries = f"Tried {place.tries} times by its retry_config. " if place.tries > 1 else ""
    if block.retry_config.get("retries") and not block.is_repeatable:
        tries = (
            "Not tried again by its retry_config: it may have written (`repeatable` in docs/rooms/mage_project.md). "
        )
    failure = MageRunError(
        f"running Mage block {spec.uuid}/{block.uuid} ({_at(block, line)}): {type(error).__name__}: {_said(error)} "
        f"[{tries}{state}.{mend}]",
        pipeline=spec.uuid,
        block=block.uuid,
        path=block.path,
        line=line,
    )
    has_read_again = place.tries > 1 and not block.upstream
    failure.is_retryable = bool(getattr(error, "is_retryable", False)) and not written and not has_read_again
    # A loader, or an exporter, may fail by what it asks a server for; which of its errors are of rows, they say.
    is_of_rows = getattr(error, "is_of_rows", bool(block.upstream) and block.type == "transformer")
    failure.is_of_partitions = bool(is_of_rows) and not written and not failure.is_retryable
    return failure


def _said(error: BaseException | None) -> str:
    """An error's own text, its middle left out where it is long: what was written and what to do stands after it.

    A class whose text fails must not hide where it was raised.
    """
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001 - whatever it is
        return f"(its text cannot be told: {type(failure).__name__})"
    if len(text) <= _TOLD:
        return text
    return f"{text[: _TOLD // 2]} [... {len(text) - _TOLD} characters left out ...] {text[-_TOLD // 2 :]}"


def _is_interruption(error: BaseException) -> bool:
    """Whether the run is being ended from outside of its blocks: by a termination, by Ctrl-C."""
    from dagster import DagsterExecutionInterruptedError

    return isinstance(error, (KeyboardInterrupt, GeneratorExit, DagsterExecutionInterruptedError))


def written_told(spec: PipelineSpec, done: Sequence[BlockRun], part: Part, *, failed: BlockSpec | None = None) -> str:
    """What a run that failed had written: by which of its exporters, and in which parts before this one.

    Args:
        spec: the pipeline.
        done: the blocks that had finished.
        part: which part of the run failed.
        failed: the block that raised, if one did.
    """
    written = _exporters_of(spec, done)
    is_exporter = failed is not None and failed.type == "data_exporter"
    of_part = f" of {part.name}" if part.name else ""
    if written:
        told = f"Already written{of_part} by: {', '.join(written)}"
    elif is_exporter:
        told = f"No exporter{of_part or ' of this run'} had finished"
    else:
        told = f"Nothing was written{of_part}"
    doubt = "; whether this one wrote is in its own message" if is_exporter else ""
    return f"{told}{doubt}" + (f"; already written before: {', '.join(part.before)}" if part.before else "")


def failed_test(spec: PipelineSpec, run: PipelineRun, part: Part) -> MageRunError:
    """The error of a run that a test has ended."""
    failed = run.failed
    if failed is None:
        message = f"no test has ended this run of {spec.uuid}"
        raise ValueError(message)
    block = spec.block(failed.block)
    state = written_told(spec, run.blocks, part)
    error = MageRunError(
        f"testing Mage block {spec.uuid}/{block.uuid}: {failed.name} failed: {failed.message} [{state}. "
        "Look at what the block was given, mend, and run it again.]",
        pipeline=spec.uuid,
        block=block.uuid,
        path=block.path,
        line=None,
    )
    error.is_of_partitions = not _exporters_of(spec, run.blocks)
    return error


def _exporters_of(spec: PipelineSpec, runs: Sequence[BlockRun]) -> list[str]:
    return [run.block for run in runs if spec.block(run.block).type == "data_exporter"]


def _at(block: BlockSpec, line: int | None) -> str:
    """Where in its file; only the file where no line of it was on the way: a query, arguments that do not fit."""
    return str(block.path) if line is None else f"{block.path}:{line}"


def _line_in_block(error: BaseException) -> int | None:
    """The last line of the block's own code on the way to the error."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _EXEC_FILE]
    return lines[-1] if lines else None


def _forget_peak() -> None:
    """Let the kernel count the process's peak anew; where it cannot, `_peak_mib` tells the peak since the start."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_mib() -> int:
    with contextlib.suppress(OSError, StopIteration, ValueError):
        status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) // 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)
