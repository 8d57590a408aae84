"""The line's numbers as Prometheus reads them: one list of names, each with unit and meaning.

The landing consumer's own numbers are in streaming/metrics.py. Not here: asking (ask.py), serving (__main__.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from deploy.status.facts import PARTS

if TYPE_CHECKING:
    from deploy.status.facts import Facts

NAMES = {
    "unlanded_events": "Events in Kafka that have not landed.",
    "oldest_unlanded_seconds": "How long the event that waits longest has waited to be landed.",
    "landed_rows": "Events in the lake.",
    "dead_letters_open": "Events kept aside and not replayed.",
    "lost_offsets": "Events deleted from Kafka before they landed, ever: gaps stay in the ledger.",
    "newly_lost_offsets": "Those of them that were found missing within the last seven days.",
    "unaccounted_offsets": "Offsets that are neither landed nor dead letters nor gaps; anything but 0 is a defect.",
    "lake_restored": "1 if the lake lacks batches that are loaded: back from a backup, `lake restored` was left out.",
    "pending_days": "Days on which more has landed than the marts show.",
    "oldest_pending_seconds": "How long the day that waits longest has waited for its marts.",
    "daemon_up": "1 if every daemon of Dagster beats.",
    "code_up": "1 if Dagster's code location loads.",
    "runs_at_work": "Dagster runs queued or at work.",
    "runs_failed": "Dagster runs that failed within the last day.",
    "differing_days": "Days that were compared and do not add up.",
    "mart_rows": "Rows of mart.invoice_lines in the days compared.",
    "mart_behind_seconds": "Newest landed event minus newest event in the marts.",
    "report_behind_seconds": "Newest landed event minus newest event in the report.",
    "refresh_failed": "1 if the last refresh of the semantic model failed.",
    "asked_timestamp_seconds": "When the parts were asked last; old means that this exporter hangs.",
}


def expose(facts: Facts) -> bytes:
    """A page for Prometheus. What is not known is left out rather than told as 0."""
    registry = CollectorRegistry()
    up = Gauge("part_up", "1 if a part of the line answers.", ("part",), namespace="line", registry=registry)
    for part in PARTS:
        up.labels(part).set(part not in facts.troubles)
    for name, value in _values(facts).items():
        if value is not None:
            Gauge(name, NAMES[name], namespace="line", registry=registry).set(float(value))
    return generate_latest(registry)


def _values(facts: Facts) -> dict[str, float | None]:
    is_lake_known, is_warehouse_known = "lake" not in facts.troubles, "warehouse" not in facts.troubles
    return {
        "unlanded_events": facts.unlanded,
        "oldest_unlanded_seconds": facts.unlanded_s if facts.unlanded is not None else None,
        "landed_rows": facts.landed_rows,
        "dead_letters_open": facts.dead_letters,
        "lost_offsets": facts.lost_offsets,
        "newly_lost_offsets": facts.newly_lost_offsets,
        "unaccounted_offsets": facts.unaccounted,
        "lake_restored": facts.is_lake_restored,
        "pending_days": facts.pending_days,
        "oldest_pending_seconds": facts.pending_s if is_lake_known else None,
        "daemon_up": facts.is_daemon_alive,
        "code_up": facts.is_code_loaded,
        "runs_at_work": facts.runs_at_work,
        "runs_failed": facts.failed_runs,
        "differing_days": len(facts.differing_days) if is_warehouse_known else None,
        "mart_rows": facts.mart_rows,
        "mart_behind_seconds": facts.mart_behind_s,
        "report_behind_seconds": facts.report_behind_s,
        "refresh_failed": facts.is_refresh_failed,
        "asked_timestamp_seconds": facts.asked_at.timestamp(),
    }
