"""Reads what the line wrote down about its own work: PostgreSQL's ledger, BigQuery's ledgers and jobs, Dagster's runs.

Belongs here: queries. Not here: what follows from them (hops.py).
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bench._line.hops import Event, Load, Publication, Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOPIC = "retail.invoices"
EVENTS = """
SELECT e.event_day::text, e.topic_partition, b.batch, extract(epoch FROM e.produced_at), extract(epoch FROM b.landed_at)
FROM landing.retail_invoices AS e
JOIN control.batch AS b ON b.topic = %(topic)s AND b.topic_partition = e.topic_partition
  AND e.topic_offset BETWEEN b.first_offset AND b.last_offset AND b.kind = 'landing'
WHERE e.produced_at >= to_timestamp(%(since)s) AND e.produced_at < to_timestamp(%(until)s)
"""


class Ledgers:
    """Every ledger of one line."""

    def __init__(self, env: Mapping[str, str]) -> None:
        import psycopg2  # noqa: PLC0415

        from dbt_like_sql.settings import WarehouseSettings  # noqa: PLC0415
        from dbt_like_sql.warehouse import open_warehouse  # noqa: PLC0415

        self.warehouse = open_warehouse(WarehouseSettings.from_env(env))
        self._lake = psycopg2.connect(env["LAKE_DSN"], application_name="bench-line")
        self._lake.autocommit = True
        self._env = env

    def close(self) -> None:
        """Let go of the lake."""
        self._lake.close()

    def events(self, since: float, until: float) -> list[Event]:
        """Events produced in a span, with the moment of their batch."""
        with self._lake.cursor() as cursor:
            cursor.execute(EVENTS, {"topic": TOPIC, "since": since, "until": until})
            return [Event(day, part, batch, float(made), float(at)) for day, part, batch, made, at in cursor]

    def landed(self) -> int:
        """Rows that have landed."""
        with self._lake.cursor() as cursor:
            cursor.execute("SELECT coalesce(sum(rows), 0) FROM control.landed_day WHERE topic = %s", (TOPIC,))
            return int(cursor.fetchone()[0])

    def mart(self) -> tuple[int, int]:
        """Rows of core less repeats, and rows of the mart."""
        from dbt_like_sql.reconcile import totals  # noqa: PLC0415

        found = totals(self.warehouse, is_measured=False)["core.invoice_lines"]
        return found["core"]["rows"] - found["core"]["repeats"], found["mart"]["rows"]

    def core(self) -> int:
        """Rows of core."""
        from dbt_like_sql.reconcile import totals  # noqa: PLC0415

        return int(totals(self.warehouse, is_measured=False)["core.invoice_lines"]["core"]["rows"])

    def loads(self) -> list[Load]:
        """Loads of core, at the end of their jobs."""
        rows = self._rows(
            "SELECT event_day, version, batches, run_id, UNIX_MICROS(loaded_at) / 1e6 AS at "
            f"FROM `{self.warehouse.table_id('control.load')}` WHERE table_name = 'core.invoice_lines' ORDER BY at"
        )
        ends = self._ends("core", rows)
        return [
            Load(
                day=str(row["event_day"]),
                version=row["version"],
                batches={each["topic_partition"]: each["batch"] for each in row["batches"]},
                run_id=row["run_id"],
                at=ends[number],
            )
            for number, row in enumerate(rows)
        ]

    def publications(self) -> list[Publication]:
        """Publications of the fact table, at the end of their jobs: before that no reader sees them."""
        rows = self._rows(
            "SELECT event_day, source_version, version, run_id, UNIX_MICROS(published_at) / 1e6 AS at "
            f"FROM `{self.warehouse.table_id('control.publication')}` "
            "WHERE table_name = 'mart.invoice_lines' ORDER BY version"
        )
        ends = self._ends("publish", rows)
        return [
            Publication(day=str(row["event_day"]), source_version=row["source_version"], at=ends[number])
            for number, row in enumerate(rows)
        ]

    def runs(self) -> dict[str, Run]:
        """Dagster's runs of the job that loads."""
        from dagster import DagsterInstance, RunsFilter  # noqa: PLC0415, TID251 - read by Dagster's own API

        with _environment(self._env), DagsterInstance.get() as instance:
            records = instance.get_run_records(RunsFilter(job_name="load_days"))
        return {
            record.dagster_run.run_id: Run(
                record.create_timestamp.timestamp(), record.start_time or record.create_timestamp.timestamp()
            )
            for record in records
        }

    def jobs(self) -> dict[str, dict[str, float]]:
        """BigQuery's jobs by kind: how many, and seconds of the median and the slowest."""
        spans: dict[str, list[float]] = defaultdict(list)
        for job in self.warehouse.client.list_jobs(all_users=True):
            if job.ended is not None and job.started is not None:
                kind = job.job_id.partition("-")[0].partition("_")[0]
                known = kind if kind.isalpha() and len(kind) < 12 else "other"  # noqa: PLR2004 - no word but an id
                spans[known].append((job.ended - job.started).total_seconds())
        return {
            kind: {"count": len(found), "p50": round(sorted(found)[len(found) // 2], 3), "max": round(max(found), 3)}
            for kind, found in sorted(spans.items())
        }

    def statuses(self) -> dict[str, int]:
        """How many runs of each job ended how."""
        from dagster import DagsterInstance  # noqa: PLC0415, TID251

        counts: dict[str, int] = defaultdict(int)
        with _environment(self._env), DagsterInstance.get() as instance:
            for record in instance.get_run_records():
                counts[f"{record.dagster_run.job_name} {record.dagster_run.status.value}"] += 1
        return dict(counts)

    def _ends(self, kind: str, rows: list[dict[str, Any]]) -> list[float]:
        """When each row's transaction had ended: the first job of its run and kind that ended at or after it."""
        ended: dict[str, list[float]] = defaultdict(list)
        for job in self.warehouse.client.list_jobs(all_users=True):
            if job.job_id.startswith(kind) and job.ended is not None and not job.error_result:
                ended[(job.labels or {}).get("run_id", "")].append(job.ended.timestamp())
        found = []
        for row in rows:
            label = row["run_id"].lower()
            after = [at for at in ended.get(label, ()) if at >= row["at"] - 0.001]
            found.append(min(after, default=row["at"]))
        return found

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        return [dict(row) for row in self.warehouse.run(sql).rows]


@contextlib.contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    kept = dict(os.environ)
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
