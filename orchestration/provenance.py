"""By which code and of which inputs a partition was made: the tags that Dagster gives to a step's results.

Events that a step logs by itself (days written by a run that fails, cycles of one that keeps a day up) are given none
by Dagster, and a day of which they are the last would never be shown as unsynced.

Belongs here: Dagster's private functions for it, at one place. Not here: who logs which events.
"""

from collections.abc import Mapping

import dagster as dg
from dagster._core.definitions.data_version import compute_logical_data_version
from dagster._core.execution.plan.execute_step import (
    _build_data_version_tags,
    _get_code_version,
    _get_input_provenance_data,
)


def provenance_tags(context: dg.AssetExecutionContext, key: dg.AssetKey) -> Mapping[str, str]:
    """The tags for a materialization of this asset that is logged now; none if the run's graph does not hold the asset.

    Its parents' versions are those of their newest events: call `forget_version` of an asset whose event was logged
    before its children are asked for.
    """
    step = context.op_execution_context.get_step_execution_context()
    if not step.job_def.asset_layer.has(key):
        return {}
    code, inputs = _get_code_version(key, step), _get_input_provenance_data(key, step)
    version = compute_logical_data_version(code, {each: its["data_version"] for each, its in inputs.items()})
    return _build_data_version_tags(version, code, inputs, data_version_is_user_provided=False)


def forget_version(context: dg.AssetExecutionContext, key: dg.AssetKey) -> None:
    """An event of this asset is about to be logged: its children are made of that, not of what a step has looked up."""
    context.op_execution_context.get_step_execution_context().wipe_input_asset_version_info(key)
