"""Core tables: the pipelines of mage_project as assets, a partition a day.

Belongs here: what ours add to what Mage's files say. Not here: how blocks become assets (orchestration/mage_assets.py).
"""

from collections.abc import Mapping

import dagster as dg
from dagster._core.storage.tags import BACKFILL_ID_TAG

from dbt_like_sql.catalog import load_catalog
from orchestration.defs.partitions import DAYS
from orchestration.defs.tables import table_metadata
from orchestration.defs.topics import CORE, feeds, project
from orchestration.mage_assets import AssetOptions, build_mage_assets
from orchestration.mage_spec import BlockSpec, PipelineSpec


def _options(pipeline: PipelineSpec, block: BlockSpec) -> AssetOptions:
    table = load_catalog()[block.table or ""]
    return AssetOptions(
        deps=[feed.landing_key for feed in feeds() if (feed.pipeline, feed.table) == (pipeline.uuid, block.table)],
        partitions_def=DAYS,
        group_name=CORE,
        owners=[f"team:{table.owner}"],
        kinds=frozenset({"mage", "bigquery"}),
        description=table.description,
        metadata=table_metadata(table),
    )


def _variables(context: dg.AssetExecutionContext) -> Mapping[str, str]:
    """A backfill from the UI rebuilds its days whole; any other run loads what they lack."""
    return {"mode": "rebuild" if BACKFILL_ID_TAG in context.run.tags else "incremental"}


core_tables = build_mage_assets(project(), options=_options, variables=_variables)
