"""Which topics feed which pipelines, as the pipelines' own metadata says.

Belongs here: names that several stages share. Not here: definitions.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import dagster as dg

import mage_project
from orchestration.errors import MageSpecError
from orchestration.mage_spec import MageProject, PipelineSpec, load_project

LANDING, CORE, MARTS, SERVING = "landing", "core", "marts", "serving"
"""Groups of the graph, left to right."""

MARTS_READER = "marts"
"""Reader of the lake's ledger: marked for a day when its marts are published, so a day that differs is one to load."""


@dataclass(frozen=True)
class Feed:
    """One topic and the table that its pipeline writes."""

    topic: str
    table: str
    pipeline: str

    @property
    def landing_key(self) -> dg.AssetKey:
        """retail.invoices lands in landing/retail_invoices."""
        return landing_key(self.topic)

    @property
    def table_key(self) -> dg.AssetKey:
        """core.invoice_lines is asset core/invoice_lines."""
        return dg.AssetKey(self.table.split("."))


def landing_key(topic: str) -> dg.AssetKey:
    """The asset of a topic's landed events."""
    return dg.AssetKey(["landing", topic.replace(".", "_")])


@cache
def project() -> MageProject:
    """Our Mage project, read from its files; a pipeline that cannot become assets is told, once a process."""
    found = load_project(Path(mage_project.__path__[0]))
    for pipeline, reason in found.left_out.items():
        text = "Mage pipeline %s is left out, no run loads what it writes: %s (docs/rooms/mage_project.md, Left out)"
        logging.getLogger(__name__).warning(text, pipeline, reason)
    return found


@cache
def feeds() -> tuple[Feed, ...]:
    """Every topic that a pipeline reads for a table."""
    return feeds_of(project())


def feeds_of(mage: MageProject) -> tuple[Feed, ...]:
    """Every topic that a pipeline of a project reads for a table.

    Raises MageSpecError for a pipeline that reads two topics for a table: the table's days are compared with one topic,
    its marts' with all of them, so that they would never agree.
    """
    return tuple(feed for pipeline in mage.pipelines for feed in _feeds(pipeline))


def _feeds(pipeline: PipelineSpec) -> list[Feed]:
    topics = [block.configuration["topic"] for block in pipeline.blocks if block.configuration.get("topic")]
    tables = [block.table for block in pipeline.outputs if block.table]
    if tables and len(set(topics)) > 1:
        raise MageSpecError(
            pipeline.path,
            None,
            f"{pipeline.uuid} reads topics {' and '.join(topics)} for {tables[0]}: a core table has one topic, since "
            f"its days are compared with that topic's landing. Give each its pipeline and table; join them in a mart",
        )
    return [Feed(topic=topic, table=table, pipeline=pipeline.uuid) for topic in topics for table in tables]
