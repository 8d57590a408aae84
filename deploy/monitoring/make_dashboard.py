"""Write the Grafana dashboard (grafana/dashboards/line.json). Edit the rows here; the file is checked to be current.

    python -m deploy.monitoring.make_dashboard

Left to right an event's way, top to bottom from "is it well" to "why not". Not here: limits (alerts.yaml).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent / "grafana" / "dashboards" / "line.json"
WIDTH = 24  # Grafana's grid

STATS = (  # title, expression, unit, green below / red from
    ("Parts up", "sum(line_part_up)", "short", None),
    ("Waiting to land", "line_unlanded_events", "short", 10_000),
    ("Dead letters", "line_dead_letters_open", "short", 1),
    ("Days that differ", "line_differing_days", "short", 1),
    ("Marts behind", "line_mart_behind_seconds", "s", 900),
    ("Report behind", "line_report_behind_seconds", "s", 3_600),
)
GRAPHS = (  # title, unit, {legend: expression}
    ("Events landed a second", "short", {"{{topic}}": "sum by (topic) (rate(landing_rows_total[1m]))"}),
    ("Landing: produced to committed", "s", {
        "median": "histogram_quantile(0.5, sum by (le) (rate(landing_delay_seconds_bucket[5m])))",
        "p99": "histogram_quantile(0.99, sum by (le) (rate(landing_delay_seconds_bucket[5m])))",
    }),
    ("Not yet landed, by topic partition", "short", {"{{topic}}[{{topic_partition}}]": "landing_lag_events"}),
    ("Transaction of the landing", "s", {
        "median": "histogram_quantile(0.5, sum by (le) (rate(landing_batch_seconds_bucket[5m])))",
        "p99": "histogram_quantile(0.99, sum by (le) (rate(landing_batch_seconds_bucket[5m])))",
    }),
    ("Events in a transaction", "short", {
        "median": "histogram_quantile(0.5, sum by (le) (rate(landing_batch_rows_bucket[5m])))",
    }),
    ("Bytes landed a second", "Bps", {"{{topic}}": "sum by (topic) (rate(landing_payload_bytes_total[1m]))"}),
    ("Refused events, by reason", "short", {
        "{{reason}}": "sum by (reason) (increase(landing_dead_letters_total[5m]))",
    }),
    ("Offsets without an event", "short", {
        "{{kind}}": "sum by (kind) (increase(landing_gap_offsets_total[5m]))",
        "lost, ever": "line_lost_offsets",
    }),
    ("Behind what landed", "s", {"marts": "line_mart_behind_seconds", "report": "line_report_behind_seconds"}),
    ("Days to load, and since when", "short", {"days": "line_pending_days", "seconds": "line_oldest_pending_seconds"}),
    ("Runs", "short", {"at work": "line_runs_at_work", "failed within a day": "line_runs_failed"}),
    ("Rows", "short", {"lake": "line_landed_rows", "marts": "line_mart_rows"}),
    ("Rebalances, outages, fences", "short", {
        "{{kind}}": "sum by (kind) (increase(landing_rebalances_total[5m]))",
        "{{service}} lost": "sum by (service) (increase(landing_outages_total[5m]))",
        "fenced": "sum(increase(landing_fences_total[5m]))",
    }),
    ("Batches waiting for the writer", "short", {"batches": "landing_queued_batches"}),
    ("Landing stands still: how long so far", "s", {
        "transaction at work": "landing_writing_seconds",
        "{{topic}}[{{topic_partition}}] waits": "landing_lag_seconds",
    }),
    ("Connections to the lake given up as silent", "short", {"given up": "increase(landing_silences_total[5m])"}),
)  # fmt: skip
# Chosen in the dashboard's head, so that the file can be imported into a Grafana that has a Prometheus of another name.
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
VARIABLE = {
    "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "regex": "", "hide": 0,
    "refresh": 1, "multi": False, "includeAll": False, "skipUrlSync": False, "options": [],
    "current": {"selected": True, "text": "Prometheus", "value": "prometheus"},  # the one that compose provisions
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The whole dashboard as Grafana imports it."""
    width = WIDTH // len(STATS)
    panels = [_stat(index, *stat, x=index * width, width=width) for index, stat in enumerate(STATS)]
    for index, (title, unit, lines) in enumerate(GRAPHS):
        place = {"x": index % 2 * 12, "y": 4 + index // 2 * 7, "w": 12, "h": 7}
        panels.append(_graph(len(STATS) + index, title, unit, lines, place))
    return {
        "uid": "line", "title": "The line: Kafka to Power BI", "tags": ["line"], "schemaVersion": 39, "version": 1,
        "editable": False, "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "timezone": "utc",
        "templating": {"list": [VARIABLE]}, "annotations": {"list": []}, "links": [], "panels": panels,
    }  # fmt: skip


def _stat(
    index: int, title: str, expression: str, unit: str, limit: int | None, *, x: int, width: int
) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if limit is not None:
        steps.append({"color": "red", "value": limit})
    return {
        "id": index + 1, "type": "stat", "title": title, "datasource": SOURCE,
        "gridPos": {"x": x, "y": 0, "w": width, "h": 4}, "targets": [_target("A", expression, "")],
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}}, "overrides": [],
        },
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background"},
    }  # fmt: skip


def _graph(index: int, title: str, unit: str, lines: dict[str, str], place: dict[str, int]) -> dict[str, Any]:
    targets = [
        _target(chr(ord("A") + nth), expression, legend) for nth, (legend, expression) in enumerate(lines.items())
    ]
    return {
        "id": index + 1, "type": "timeseries", "title": title, "datasource": SOURCE, "gridPos": place,
        "targets": targets, "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}, "options": {},
    }  # fmt: skip


def _target(ref: str, expression: str, legend: str) -> dict[str, Any]:
    return {"refId": ref, "datasource": SOURCE, "expr": expression, "legendFormat": legend}


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=2) + "\n"


def main() -> int:
    """Write it."""
    TARGET.write_text(text(), encoding="utf-8")
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
