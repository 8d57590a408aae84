"""Assets from a Mage project, whatever it is about: one asset a table that an exporter writes.

Belongs here: turning specs into asset definitions, and a run of blocks into events and metadata. Not here: which
pipelines this project has and what its assets depend on (defs/transform), or how blocks run (mage.py).
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from typing import Any

import dagster as dg
from dagster._core.definitions.utils import DISALLOWED_NAMES

from orchestration.errors import MageRunError, MageSpecError
from orchestration.mage import Part, PipelineRun
from orchestration.mage_graph import picture
from orchestration.mage_passes import Outcome, part_label, run_passes
from orchestration.mage_slices import run_slices
from orchestration.mage_spec import BlockSpec, MageProject, PipelineSpec, TestSpec
from orchestration.provenance import provenance_tags

# A block's error may say `is_retryable`: what it was given is out of date. Under a steady flow the second reading is
# nearly always in time; more tries than this hide that something else is wrong.
PASS_TRIES = 3

# Before a run begins Dagster writes an event for each asset and partition, 40 to 80 ms each on a busy machine, and
# fails a run that has not begun within start_timeout_seconds (120). Half a year of four assets takes up to a minute;
# all 6,500 days never began. Assets that are to be in one run must have the same.
BACKFILL = dg.BackfillPolicy.multi_run(max_partitions_per_run=184)

NOT_REACHED = "not reached: the run stopped before this test"
NOT_DEFINED = "not defined in this run: the condition in the block's file under which it stands did not hold"

DEEPEST = 50  # levels of what an exporter returns; Dagster itself fails on some hundreds
# Of what an exporter returns, in characters under one name: an event holds it whole, of each partition of a pass. A
# million ids were 7 MB in each of them, and Dagster's tables and pages read events whole.
MOST_SHOWN = 50_000
MOST_NAMES = 200
MORE = "..."
LONGEST_INT = 10_000  # bits; Python writes none of more than 4,300 digits

CONFIG_SCHEMA = {
    "variables": dg.Field(
        dict,
        is_required=False,
        default_value={},
        description="Runtime variables of this run, on top of the pipeline's own; the partition's still wins.",
    )
}


@dataclass(frozen=True, kw_only=True)
class AssetOptions:
    """What a project says about one output beyond what Mage's files say."""

    key: dg.AssetKey | None = None
    deps: Sequence[dg.AssetKey] = ()
    partitions_def: dg.PartitionsDefinition | None = None
    group_name: str | None = None
    owners: Sequence[str] = ()
    kinds: frozenset[str] = frozenset({"mage"})
    description: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a project says about its runs.

    Attributes:
        variables: more runtime variables, found out when a run starts. With one called `read_on` an exporter may ask
            for the pipeline to be run again, see mage_slices.py.
        passes: how to cut a run's partitions into passes; only for pipelines that take a range of partitions at once.
            Each pass is held in memory whole. By default each partition is a pass of its own.
        around: entered before the first pass and left after the last one, whether or not they went well; told of the
            run's variables, the launchpad's included.
        pool: limits how many of these run at once, where the deployment sets a limit for the pool.
    """

    variables: Callable[[dg.AssetExecutionContext], Mapping[str, Any]] | None = None
    around: Callable[[dg.AssetExecutionContext, Mapping[str, Any]], AbstractContextManager[None]] | None = None
    passes: Callable[[PipelineSpec, Sequence[str]], Sequence[Sequence[str]]] | None = None
    pool: str | None = None


def build_mage_assets(
    project: MageProject,
    *,
    options: Callable[[PipelineSpec, BlockSpec], AssetOptions] | None = None,
    runs: RunOptions | None = None,
) -> list[dg.AssetsDefinition]:
    """One definition a pipeline; each output of it is an asset, each `@test` of its blocks a check.

    A pipeline whose outputs declare a `partition_variable` and whose options give partitions runs for all partitions
    of a run in one process: a backfill of a range (half a year at a time) imports Mage once.

    Args:
        project: read by `mage_spec.load_project`.
        options: what to say about an output; by default nothing but what the files say.
        runs: what to say about runs.

    Raises:
        MageSpecError: an output is given partitions, and its pipeline names no variable for them.
    """
    choose = options or (lambda _pipeline, _block: AssetOptions())
    keys = _asset_keys(project)
    definitions = []
    for pipeline in project.pipelines:
        chosen = {block.uuid: choose(pipeline, block) for block in pipeline.outputs}
        named = {uuid: replace(each, key=each.key or keys[pipeline.uuid, uuid]) for uuid, each in chosen.items()}
        definitions.append(_definition(project, pipeline, named, runs or RunOptions()))
    return definitions


def _asset_keys(project: MageProject) -> Mapping[tuple[str, str], dg.AssetKey]:
    """schema.table becomes schema/table; an output that names no table is pipeline/block.

    So are those that name the same table of different stores.
    """
    outputs = [(pipeline, block) for pipeline in project.pipelines for block in pipeline.outputs]
    keys = {
        (pipeline.uuid, block.uuid): _key(block.table.split(".") if block.table else (pipeline.uuid, block.uuid))
        for pipeline, block in outputs
    }
    outputs_of = Counter(key.to_python_identifier() for key in keys.values())  # Dagster calls an asset's output so
    return {
        output: key if outputs_of[key.to_python_identifier()] == 1 else dg.AssetKey([_name(part) for part in output])
        for output, key in keys.items()
    }


def _key(parts: Sequence[str]) -> dg.AssetKey:
    """Of an asset; Dagster itself makes dots and dashes into underscores where it takes the key for a name."""
    return dg.AssetKey([part if re.fullmatch(r"[A-Za-z0-9_.-]+", part) else _name(part) for part in parts])


def _name(text: str) -> str:
    """In Dagster's alphabet; what had to be changed ends in a hash, so that it meets no other name."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", text)
    if plain == text and text not in DISALLOWED_NAMES:
        return text
    return f"{plain}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _definition(
    project: MageProject, pipeline: PipelineSpec, options: Mapping[str, AssetOptions], runs: RunOptions
) -> dg.AssetsDefinition:
    keys = {uuid: each.key for uuid, each in options.items() if each.key is not None}
    partitions = next((each.partitions_def for each in options.values() if each.partitions_def is not None), None)
    first_key = next(iter(keys.values()))
    _refuse_partitions_unknown_to_blocks(pipeline, options)

    @dg.multi_asset(
        name=_name(pipeline.uuid),
        specs=[_spec(pipeline, block, keys[block.uuid], options[block.uuid]) for block in pipeline.outputs],
        check_specs=[
            _check_spec(first_key, pipeline, block, test) for block in pipeline.blocks for test in block.tests
        ],
        partitions_def=partitions,
        backfill_policy=BACKFILL if partitions is not None else None,
        pool=runs.pool,
        config_schema=CONFIG_SCHEMA,
    )
    def run_blocks(context: dg.AssetExecutionContext) -> Iterator[Any]:
        variables = {
            "run_id": context.run.run_id,
            "code_version": pipeline.code_version,
            **(runs.variables(context) if runs.variables else {}),
            **context.op_execution_context.op_config["variables"],
        }

        def run_pass(part: Sequence[str], named: Part) -> PipelineRun:
            return _run_pass(project, pipeline, {**variables, **partition_variables(pipeline, part)}, named)

        with runs.around(context, variables) if runs.around else nullcontext():
            outcome = run_passes(pipeline, _passes(context, pipeline, runs), run_pass, context.log.warning)
        done = {part_label(part): run for part, run in outcome.written} | outcome.tested
        if done:
            yield from _check_results(first_key, pipeline, done)
        if outcome.failed:
            yield from _written(context, pipeline, keys, outcome)
            raise outcome.error()
        for block in pipeline.outputs:
            for part, run in outcome.written:
                for partition in part or (None,):
                    context.add_asset_metadata(
                        _metadata(run, block, partition), asset_key=keys[block.uuid], partition_key=partition
                    )
            yield dg.MaterializeResult(asset_key=keys[block.uuid])

    return run_blocks


def _refuse_partitions_unknown_to_blocks(pipeline: PipelineSpec, options: Mapping[str, AssetOptions]) -> None:
    """Without the variable each partition would be given the same rows, and be shown as if they were its own."""
    block = next((each for each in pipeline.outputs if options[each.uuid].partitions_def is not None), None)
    if block is not None and pipeline.partition_variable is None:
        problem = (
            f"block {block.uuid}: its asset has partitions, and no output of the pipeline says by which variable its "
            "blocks are told theirs; give its configuration a partition_variable, such as day"
        )
        raise MageSpecError(pipeline.path, block.line, problem)


def _run_pass(project: MageProject, pipeline: PipelineSpec, variables: Mapping[str, Any], part: Part) -> PipelineRun:
    """One pass, from its loader on; again if a block says that reading again may help and no exporter had finished."""
    tries = 1
    while True:
        try:
            return run_slices(project, pipeline, variables, part)
        except MageRunError as error:
            if not error.is_retryable or tries == PASS_TRIES:
                raise
            tries += 1


def _passes(context: dg.AssetExecutionContext, pipeline: PipelineSpec, runs: RunOptions) -> Sequence[Sequence[str]]:
    """The run's partitions, cut into passes; one pass without partitions for an asset that has none."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return [[]]
    if pipeline.last_partition_variable and runs.passes:
        return runs.passes(pipeline, context.partition_keys)
    return [[key] for key in context.partition_keys]


def partition_variables(pipeline: PipelineSpec, part: Sequence[str]) -> dict[str, str]:
    """The runtime variables that tell a pipeline its partitions: the first, and the last where it takes a range."""
    names = (pipeline.partition_variable, pipeline.last_partition_variable)
    ends = (part[0], part[-1]) if part else ()
    return {name: value for name, value in zip(names, ends, strict=False) if name}


def _written(
    context: dg.AssetExecutionContext, pipeline: PipelineSpec, keys: Mapping[str, dg.AssetKey], outcome: Outcome
) -> Iterator[dg.AssetMaterialization]:
    """The partitions that a run has written though it fails: Dagster shows them as such, and the others as failed.

    By which code and of which inputs they were made Dagster notes at results alone, which are of all of a run's
    partitions; without the note these days would never be shown as unsynced.
    """
    for block in pipeline.outputs:
        tags = provenance_tags(context, keys[block.uuid])
        for part, run in outcome.written:
            for partition in part:
                yield dg.AssetMaterialization(
                    keys[block.uuid],
                    partition=partition,
                    metadata=_metadata(run, block, partition),
                    tags=tags,
                )


def _spec(pipeline: PipelineSpec, block: BlockSpec, key: dg.AssetKey, options: AssetOptions) -> dg.AssetSpec:
    text = options.description or pipeline.description or ""
    return dg.AssetSpec(
        key=key,
        deps=list(options.deps),
        description=(
            f"{text}\n\nWritten by block `{block.uuid}` of Mage pipeline `{pipeline.uuid}`.\n\n{picture(pipeline)}"
        ),
        group_name=options.group_name,
        owners=list(options.owners),
        kinds=set(options.kinds),
        code_version=pipeline.code_version,
        metadata={
            "mage/pipeline": pipeline.uuid,
            "mage/block": block.uuid,
            "mage/file": str(block.path.name),
            **options.metadata,
        },
    )


def _check_spec(key: dg.AssetKey, pipeline: PipelineSpec, block: BlockSpec, test: TestSpec) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        name=_check_name(pipeline, block.uuid, test.name),
        asset=key,
        blocking=not test.only_warns,
        description=test.description or f"@test {test.name} of block {block.uuid}, line {test.line}.",
    )


def _check_name(pipeline: PipelineSpec, block: str, test: str) -> str:
    """Of a test; where block `a`'s `b__c` and block `a__b`'s `c` would have one name, with their blocks' in it."""
    names = [f"{each.uuid}__{its.name}" for each in pipeline.blocks for its in each.tests]
    name = f"{block}__{test}"
    return _name(name if names.count(name) == 1 else f"{name} of {block}")


def _check_results(
    key: dg.AssetKey, pipeline: PipelineSpec, runs: Mapping[str, PipelineRun]
) -> Iterator[dg.AssetCheckResult]:
    """A check over all passes of the run: passed in each, or the passes where it was not.

    A test that an edit in Mage's UI has added since the definitions were loaded has no check yet: it still stops the
    run, and gets its check at the next reload. One below a condition that did not hold is passed, as Mage has it.
    """
    for block in pipeline.blocks:
        is_reached = all(block.uuid in {each.block for each in run.blocks} for run in runs.values())
        for test in block.tests:
            is_absent = test.is_conditional and is_reached
            found = [
                (part, result)
                for part, run in runs.items()
                for result in run.tests
                if (result.block, result.name) == (block.uuid, test.name)
            ]
            failures = {part: result.message for part, result in found if not result.passed}
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=_check_name(pipeline, block.uuid, test.name),
                passed=not failures and (bool(found) or is_absent),
                severity=dg.AssetCheckSeverity.WARN if test.only_warns else dg.AssetCheckSeverity.ERROR,
                metadata={
                    "passes_checked": len(found),
                    **({"failures": dg.MetadataValue.json(failures)} if failures else {}),
                    **({} if found else {"reason": NOT_DEFINED if is_absent else NOT_REACHED}),
                },
            )


def _metadata(run: PipelineRun, output: BlockSpec, partition: str | None) -> dict[str, Any]:
    """What the UI shows of one partition: its rows, seconds a block, and what the exporter said it wrote.

    An exporter may return a mapping; its entry `partitions` says what there is to say of each partition alone.
    """
    report = run.outputs.get(output.uuid)
    report = report if isinstance(report, dict) else {}
    partitions = report.get("partitions")
    partitions = partitions if isinstance(partitions, Mapping) else {}
    own = next((each for name, each in partitions.items() if _text(name) == partition), None)
    own = _named(own, (id(report), id(partitions))) if isinstance(own, Mapping) else {}
    reported = _named({name: report[name] for name in report if report[name] is not partitions}, (id(report),))
    written = next((each for each in run.blocks if each.block == output.uuid), None)
    rows = own.get("rows_read", reported.get("rows_inserted", written.rows_in if written else None))
    return {
        **(
            {"dagster/partition_row_count" if partition else "dagster/row_count": rows} if isinstance(rows, int) else {}
        ),
        **{name: _value(value) for name, value in own.items()},
        **{f"pass/{name}": _value(value) for name, value in reported.items()},
        "blocks": dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "block": each.block,
                        "rows in": each.rows_in if each.rows_in is not None else "",
                        "rows out": each.rows_out if each.rows_out is not None else "",
                        "columns": len(each.columns),
                        "ms": round(each.seconds * 1000, 1),
                        "peak MiB": each.peak_mib,
                        "tests passed": f"{sum(test.passed for test in each.tests)}/{len(each.tests)}",
                    }
                )
                for each in run.blocks
            ],
            schema=dg.TableSchema(
                columns=[
                    dg.TableColumn(name, kind)
                    for name, kind in (
                        ("block", "string"),
                        ("rows in", "int"),
                        ("rows out", "int"),
                        ("columns", "int"),
                        ("ms", "float"),
                        ("peak MiB", "int"),
                        ("tests passed", "string"),
                    )
                ]
            ),
        ),
        "mage_seconds": round(sum(each.seconds for each in run.blocks), 3),
    }


def _named(values: Mapping[Any, Any], within: tuple[int, ...]) -> dict[str, Any]:
    """What an exporter returned, plain and by name; of very many names the first."""
    named = {_text(name): _plain(values[name], within, _Room()) for name in islice(values, MOST_NAMES)}
    return named if len(values) <= MOST_NAMES else {**named, MORE: f"{len(values) - MOST_NAMES} more, not shown"}


@dataclass
class _Room:
    """What is left of MOST_SHOWN."""

    left: int = MOST_SHOWN

    def cut(self, text: str) -> str:
        """As much of the text as there is room for."""
        shown = text[: max(self.left, 0)]
        self.left -= len(text) + 2
        return text if len(shown) == len(text) else f"{shown}{MORE} {len(text) - len(shown)} characters more, not shown"


def _plain(value: Any, within: tuple[int, ...], room: _Room) -> Any:
    """Whatever an exporter returned, as JSON has it: it has written by then, and what it says must not fail the run.

    Of plain types alone: Dagster stores no subclass of them, such as numpy's float64 or an Enum of texts. What is no
    number (`nan`, as a mean of no rows) is a text, with which JSON and Dagster's UI know what to do.

    Args:
        value: what it returned, or a part of it.
        within: what that is a part of, by identity: what holds itself would have no end.
        room: for how much more of it there is room.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return _plain_single(value, room)
    if id(value) in within or len(within) == DEEPEST:
        return MORE
    inside = (*within, id(value))
    if isinstance(value, Mapping):
        named = {room.cut(_text(name)): _plain(each, inside, room) for name, each in _while_room(value.items(), room)}
        return named if len(named) == len(value) else {**named, MORE: f"{len(value) - len(named)} more, not shown"}
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return _plain(value.tolist(), inside, room)
    if not isinstance(value, (list, tuple, set, frozenset)):
        return room.cut(_text(value))
    listed = [_plain(each, inside, room) for each in _while_room(value, room)]
    return listed if len(listed) == len(value) else [*listed, f"{MORE} {len(value) - len(listed)} more, not shown"]


def _while_room(values: Iterable[Any], room: _Room) -> Iterator[Any]:
    return takewhile(lambda _: room.left > 0, values)


def _plain_single(value: Any, room: _Room) -> Any:
    if isinstance(value, str):
        return room.cut(str.__str__(value))
    room.left -= 10  # as many characters as a number takes, about
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value) if value.bit_length() < LONGEST_INT else _text(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    return value


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as failure:  # noqa: BLE001 - whatever its class does
        return f"(its text cannot be told: {type(failure).__name__})"


def _value(value: Any) -> Any:
    return dg.MetadataValue.json(value) if isinstance(value, (dict, list)) else value
