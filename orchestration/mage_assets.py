"""Assets from a Mage project, whatever it is about: one asset a table that an exporter writes.

Belongs here: turning specs into asset definitions, and a run of blocks into events and metadata. Not here: which
pipelines this project has and what its assets depend on (defs/transform), or how blocks run (mage.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from orchestration import mage
from orchestration.errors import MageRunError
from orchestration.mage import PipelineRun, TestRun
from orchestration.mage_graph import picture
from orchestration.mage_spec import BlockSpec, MageProject, PipelineSpec, TestSpec

CONFIG_SCHEMA = {
    "variables": dg.Field(
        dg.Permissive(),
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


def build_mage_assets(
    project: MageProject,
    *,
    options: Callable[[PipelineSpec, BlockSpec], AssetOptions] | None = None,
    variables: Callable[[dg.AssetExecutionContext], Mapping[str, str]] | None = None,
    pool: str | None = None,
) -> list[dg.AssetsDefinition]:
    """One definition a pipeline; each output of it is an asset, each `@test` of its blocks a check.

    A pipeline whose outputs declare a `partition_variable` and whose options give partitions runs once for each
    partition of a run, in one process: a backfill of a range imports Mage once.

    Args:
        project: read by `mage_spec.load_project`.
        options: what to say about an output; by default nothing but what the files say.
        variables: more runtime variables, found out when a run starts.
        pool: limits how many of these run at once, where the deployment sets a limit for the pool.
    """
    choose = options or (lambda _pipeline, _block: AssetOptions())
    return [
        _definition(
            project, pipeline, {block.uuid: choose(pipeline, block) for block in pipeline.outputs}, variables, pool
        )
        for pipeline in project.pipelines
    ]


def asset_key_of(pipeline: PipelineSpec, block: BlockSpec) -> dg.AssetKey:
    """schema.table becomes schema/table; an output that names no table is pipeline/block."""
    return dg.AssetKey(block.table.split(".")) if block.table else dg.AssetKey([pipeline.uuid, block.uuid])


def _definition(
    project: MageProject,
    pipeline: PipelineSpec,
    options: Mapping[str, AssetOptions],
    more_variables: Callable[[dg.AssetExecutionContext], Mapping[str, str]] | None,
    pool: str | None,
) -> dg.AssetsDefinition:
    keys = {block.uuid: options[block.uuid].key or asset_key_of(pipeline, block) for block in pipeline.outputs}
    partitions = next((each.partitions_def for each in options.values() if each.partitions_def is not None), None)
    first_key = next(iter(keys.values()))

    @dg.multi_asset(
        name=pipeline.uuid,
        specs=[_spec(pipeline, block, keys[block.uuid], options[block.uuid]) for block in pipeline.outputs],
        check_specs=[_check_spec(first_key, block, test) for block in pipeline.blocks for test in block.tests],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions is not None else None,
        pool=pool,
        config_schema=CONFIG_SCHEMA,
    )
    def run_blocks(context: dg.AssetExecutionContext) -> Iterator[Any]:
        extra = {
            **(more_variables(context) if more_variables else {}),
            **context.op_execution_context.op_config["variables"],
        }
        partition_keys: Sequence[str | None] = (
            context.partition_keys if context.has_partition_key_range or (context.has_partition_key) else [None]
        )
        variables = {"run_id": context.run_id, "code_version": pipeline.code_version, **extra}
        runs: dict[str, PipelineRun] = {}
        failed: TestRun | None = None
        for partition in partition_keys:
            name = pipeline.partition_variable
            day = {name: partition} if name and partition is not None else {}
            run = mage.run_pipeline(project, pipeline, {**variables, **day})
            runs[partition or ""] = run
            failed = run.failed
            if failed is not None:
                break
            for block in pipeline.outputs:
                context.add_asset_metadata(
                    _metadata(pipeline, run, block), asset_key=keys[block.uuid], partition_key=partition
                )
        yield from _check_results(first_key, pipeline, runs)
        if failed is not None:
            raise _test_failure(pipeline, runs, failed)
        for block in pipeline.outputs:
            yield dg.MaterializeResult(asset_key=keys[block.uuid])

    return run_blocks


def _spec(pipeline: PipelineSpec, block: BlockSpec, key: dg.AssetKey, options: AssetOptions) -> dg.AssetSpec:
    text = options.description or pipeline.description or ""
    return dg.AssetSpec(
        key=key,
        deps=list(options.deps),
        description=f"{text}\n\nWritten by block `{block.uuid}` of Mage pipeline `{pipeline.uuid}`.\n\n{picture(pipeline)}",
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


def _check_spec(key: dg.AssetKey, block: BlockSpec, test: TestSpec) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        name=_check_name(block.uuid, test.name),
        asset=key,
        blocking=True,
        description=test.description or f"@test {test.name} of block {block.uuid}, line {test.line}.",
    )


def _check_name(block: str, test: str) -> str:
    return f"{block}__{test}".replace("/", "_").replace("-", "_")


def _check_results(
    key: dg.AssetKey, pipeline: PipelineSpec, runs: Mapping[str, PipelineRun]
) -> Iterator[dg.AssetCheckResult]:
    """A check over all partitions of the run: passed in each, or the partitions where it was not.

    A test that an edit in Mage's UI has added since the definitions were loaded has no check yet: it still stops the
    run, and gets its check at the next reload.
    """
    for block in pipeline.blocks:
        for test in block.tests:
            found = [
                (partition, result)
                for partition, run in runs.items()
                for result in run.tests
                if (result.block, result.name) == (block.uuid, test.name)
            ]
            failures = {partition or "run": result.message for partition, result in found if not result.passed}
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=_check_name(block.uuid, test.name),
                passed=bool(found) and not failures,
                metadata={
                    "partitions_checked": len(found),
                    **({"failures": dg.MetadataValue.json(failures)} if failures else {}),
                    **({} if found else {"reason": "not reached: the run stopped before this test"}),
                },
            )


def _test_failure(pipeline: PipelineSpec, runs: Mapping[str, PipelineRun], failed: TestRun) -> MageRunError:
    block = pipeline.block(failed.block)
    *done, last = runs
    exported = block.type == "data_exporter"
    state = (
        f"{last or 'The run'} was written before the test"
        if exported
        else f"Nothing of {last or 'the run'} was written"
    )
    earlier = f"; written before it: {done[0]} to {done[-1]}" if done else ""
    return MageRunError(
        f"testing Mage block {pipeline.uuid}/{block.uuid}: {failed.name} failed: {failed.message} [{state}{earlier}. "
        "Look at the block's input for that partition, mend, and run it again.]",
        pipeline=pipeline.uuid,
        block=block.uuid,
        path=block.path,
        line=None,
    )


def _metadata(pipeline: PipelineSpec, run: PipelineRun, output: BlockSpec) -> dict[str, Any]:
    """What the UI shows of one partition: rows, seconds a block, and what the exporter said it wrote."""
    report = run.outputs.get(output.uuid)
    reported = {key: _value(value) for key, value in report.items()} if isinstance(report, dict) else {}
    written = next((each for each in run.blocks if each.block == output.uuid), None)
    rows = reported.get("rows_inserted", written.rows_in if written else None)
    row_count = "dagster/partition_row_count" if pipeline.partition_variable else "dagster/row_count"
    return {
        **({row_count: rows} if rows is not None else {}),
        **{f"export/{key}": value for key, value in reported.items()},
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


def _value(value: Any) -> Any:
    return dg.MetadataValue.json(value) if isinstance(value, (dict, list)) else value
