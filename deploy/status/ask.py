"""Ask each part of the line how it is. One that does not answer costs its own facts and no other's.

Belongs here: questions to Kafka, PostgreSQL, Dagster, BigQuery and Power BI. Not here: what answers mean (facts.py).
Drivers are imported by the question that needs them.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from deploy.status.facts import PARTS, Facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date

READER = "marts"  # who marks a day as read when its marts are published (orchestration)
FIRST_WAITING_S = 3.0  # it is there; a broker that does not give it by then is busy
TIMEOUT_S = 25.0
DAGSTER_S = 15.0
DAEMON_SILENT_S = 120.0  # as deploy/docker/probe.py says: it beats every 30 s
DAY_S = 86_400.0
# Days loaded last, whose batches the lake is asked for: a lake that came back from a backup lacks those, if any.
LOADS_LOOKED_AT = 100
# A gap stays in the ledger for ever; told for ever, it would hide the next one.
NEWLY_LOST_SQL = """
SELECT coalesce(sum(last_offset - first_offset + 1), 0)::bigint FROM control.gap
WHERE kind = 'below_log_start' AND found_at > now() - interval '7 days'
"""
# A day waits since the first batch that was not read; its newest one is a moment old as long as events flow. One whose
# mark was taken back (batch 0) waits since then, for marts of what has landed long ago.
LAKE_SQL = """
SELECT count(DISTINCT behind.event_day), min(coalesce(behind.taken_back_at, waiting.landed_at, behind.landed_at))
FROM behind
LEFT JOIN LATERAL (
    SELECT batch.landed_at
    FROM control.batch_day
    JOIN control.batch USING (topic, topic_partition, batch)
    WHERE batch_day.topic = behind.topic AND batch_day.event_day = behind.event_day
      AND batch_day.topic_partition = behind.topic_partition AND batch_day.batch > behind.read_batch
    ORDER BY batch_day.batch
    LIMIT 1
) AS waiting ON true
"""
BEHIND = """
WITH behind AS (
    SELECT l.topic, l.event_day, l.topic_partition, l.landed_at, coalesce(r.batch, 0) AS read_batch,
           CASE WHEN r.batch = 0 THEN r.updated_at END AS taken_back_at
    FROM control.landed_day AS l
    LEFT JOIN control.reader_day AS r
      ON r.topic = l.topic AND r.event_day = l.event_day AND r.topic_partition = l.topic_partition AND r.reader = %s
    WHERE r.batch IS DISTINCT FROM l.last_batch
)
"""
# By the comparison's own word, not by counts: where they agree, an amount may differ, or a mart made of others. Of
# every topic, as the report's refresh asks: `mart.data_trust` has the shop's days alone.
TRUST_SQL = """
SELECT shown.days, shown.mart_rows, shown.mart_as_of, counted.uncompared, counted.uncompared_since, counted.differing
FROM (
  SELECT COUNT(*) AS days, SUM(mart_rows) AS mart_rows, MAX(newest_produced_at) AS mart_as_of FROM `{table}`
) AS shown
CROSS JOIN (
  SELECT COUNT(DISTINCT IF(is_reconciled IS NULL, event_day, NULL)) AS uncompared,
    MIN(IF(is_reconciled IS NULL, changed_at, NULL)) AS uncompared_since,
    STRING_AGG(
      IF(is_reconciled IS FALSE, CONCAT(CAST(event_day AS STRING), ' of ', topic), NULL), ', ' ORDER BY event_day, topic
    ) AS differing
  FROM `{compared}`
) AS counted
"""
DAGSTER_QUERY = """
query Status($since: Float!) {
  instance { daemonHealth { allDaemonStatuses { required healthy lastHeartbeatTime } } }
  workspaceOrError { ... on Workspace { locationEntries { loadStatus locationOrLoadError { __typename } } } }
  failed: runsOrError(filter: {statuses: [FAILURE], createdAfter: $since}, limit: 500) {
    ... on Runs { results { id } } }
  work: runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}, limit: 500) {
    ... on Runs { results { id } } }
}
"""


def ask(env: Mapping[str, str], *, timeout_s: float = TIMEOUT_S) -> Facts:
    """Ask all parts at once; those that have not answered in time are said to be silent."""
    answers: dict[str, dict[str, Any]] = {}
    troubles: dict[str, str] = {}

    def answer(part: str, question: Callable[[Mapping[str, str]], dict[str, Any]]) -> None:
        try:
            answers[part] = question(env)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this part's trouble and is told
            troubles[part] = _short(error)

    threads = {
        part: threading.Thread(target=answer, args=(part, question), name=f"ask-{part}", daemon=True)
        for part, question in QUESTIONS.items()
    }
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + timeout_s
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    for part, thread in threads.items():
        if thread.is_alive():
            troubles[part] = f"silent for {timeout_s:.0f} s"
    known = {
        name: value for part, found in list(answers.items()) if part not in troubles for name, value in found.items()
    }
    return Facts(
        asked_at=datetime.now(UTC), troubles={part: troubles[part] for part in PARTS if part in troubles}, **known
    )


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join([f"{type(error).__name__}:", *lines[:3]])[:300]


def ask_kafka(env: Mapping[str, str]) -> dict[str, Any]:
    """End offsets of every topic against what the lake has committed, and since when the first event waits."""
    from confluent_kafka import Consumer, TopicPartition  # noqa: PLC0415

    from streaming import lake  # noqa: PLC0415
    from streaming.settings import KafkaSettings  # noqa: PLC0415

    config: dict[str, Any] = {"group.id": "status", "enable.auto.commit": False, "log_level": 2}
    consumer = Consumer(config | KafkaSettings.from_env(env).client_config())
    try:
        marks = {}
        for topic in _topics(env):
            found = consumer.list_topics(topic, timeout=10).topics[topic]
            for number in found.partitions:
                marks[topic, number] = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
        try:
            with closing(_lake(env)) as conn:
                landed = {
                    (topic, counts.topic_partition): counts.next_offset
                    for topic in _topics(env)
                    for counts in lake.topic_counts(conn, topic)
                }
        except Exception:  # noqa: BLE001 - the lake's trouble is told by the lake's own question
            return {}
        due = {
            place: max(landed.get(place, low), low) for place, (low, _) in marks.items()
        }  # what is gone waits no more
        waiting = {place: end - due[place] for place, (_, end) in marks.items() if end > due[place]}
        since = [_produced_at(consumer, TopicPartition(*place, due[place])) for place in waiting]
    finally:
        consumer.close()
    return {"unlanded": sum(waiting.values()), "waiting_since": min(filter(None, since), default=None)}


def _produced_at(consumer: Any, place: Any) -> datetime | None:
    """When the message at a place, or the next one there is, was produced; None if it does not say, or none comes."""
    from confluent_kafka import TIMESTAMP_NOT_AVAILABLE  # noqa: PLC0415

    consumer.assign([place])
    message = consumer.poll(FIRST_WAITING_S)
    if message is None or message.error():
        return None
    kind, stamp_ms = message.timestamp()
    try:  # a producer may stamp a message with any 64 bits
        return None if kind == TIMESTAMP_NOT_AVAILABLE else datetime.fromtimestamp(stamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def ask_lake(env: Mapping[str, str]) -> dict[str, Any]:
    """What landed and what waits."""
    from streaming import lake  # noqa: PLC0415

    with closing(_lake(env)) as conn:
        topics = _topics(env)
        counts = [each for topic in topics for each in lake.topic_counts(conn, topic)]
        newest = [at for at in (lake.watermark(conn, topic) for topic in topics) if at]
        with conn.cursor() as cursor:
            cursor.execute(BEHIND + LAKE_SQL, (READER,))
            pending, oldest = cursor.fetchone()
            cursor.execute(NEWLY_LOST_SQL)
            (newly_lost,) = cursor.fetchone()
    accounted = sum(each.landed + each.dead_letters + each.gap_offsets for each in counts)
    return {
        "landed_rows": sum(each.landed for each in counts),
        "dead_letters": sum(each.dead_letters for each in counts),
        "lost_offsets": sum(each.lost_offsets for each in counts),
        "newly_lost_offsets": newly_lost,
        "unaccounted": sum(each.next_offset - each.first_offset for each in counts) - accounted,
        "newest_landed_at": max(newest, default=None),
        "pending_days": pending,
        "oldest_pending_at": oldest,
    }


def _lake(env: Mapping[str, str]) -> Any:
    from streaming import lake  # noqa: PLC0415
    from streaming.settings import LakeSettings  # noqa: PLC0415

    return lake.connect(LakeSettings.from_env(env).dsn, application_name="status")


def _topics(env: Mapping[str, str]) -> list[str]:
    from streaming.settings import LakeSettings  # noqa: PLC0415

    return sorted(path.stem for path in LakeSettings.from_env(env).contracts_dir.glob("*.yaml"))


def ask_dagster(env: Mapping[str, str]) -> dict[str, Any]:
    """Daemons, code and runs, as Dagster's webserver tells them."""
    url = env.get("DAGSTER_URL", "").rstrip("/")
    if not url:
        raise LookupError("DAGSTER_URL is not set, for example http://127.0.0.1:3000")
    body = json.dumps({"query": DAGSTER_QUERY, "variables": {"since": datetime.now(UTC).timestamp() - DAY_S}}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310 - a setting
    answer = _answer(request)
    if answer.get("errors"):
        raise LookupError(answer["errors"][0]["message"])
    data = answer["data"]
    daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
    entries = data["workspaceOrError"].get("locationEntries", [])
    return {
        "is_daemon_alive": _is_daemon_alive([each for each in daemons if each["required"]]),
        "is_code_loaded": bool(entries)
        and all((entry["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation" for entry in entries),
        "failed_runs": len(data["failed"].get("results", [])),
        "runs_at_work": len(data["work"].get("results", [])),
    }


def _answer(request: urllib.request.Request) -> dict[str, Any]:
    """The webserver's answer, asked for twice if need be.

    After PostgreSQL has been started anew the first question meets a connection of before, and is answered by 500.
    """
    try:
        response = urllib.request.urlopen(request, timeout=DAGSTER_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        response = urllib.request.urlopen(request, timeout=DAGSTER_S)  # noqa: S310
    with response:
        return dict(json.load(response))


def _is_daemon_alive(daemons: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one has beaten lately, and all are healthy by Dagster's own word, which allows half an hour's silence."""
    beats = [each["lastHeartbeatTime"] or 0.0 for each in daemons]
    is_beating = max(beats, default=0.0) > datetime.now(UTC).timestamp() - DAEMON_SILENT_S
    return is_beating and all(each["healthy"] for each in daemons)


def ask_warehouse(env: Mapping[str, str]) -> dict[str, Any]:
    """What was compared of every day across the layers, and whether the lake still has what was loaded last.

    All of it is read from ledgers, so asking costs next to nothing.
    """
    from dbt_like_sql.load import newest_loads  # noqa: PLC0415
    from dbt_like_sql.settings import WarehouseSettings  # noqa: PLC0415
    from dbt_like_sql.warehouse import open_warehouse  # noqa: PLC0415

    settings = WarehouseSettings.from_env(env)
    if settings.emulator_host:  # Google's client would try for ten minutes
        datasets = f"{settings.emulator_host}/bigquery/v2/projects/{settings.project}/datasets"
        urllib.request.urlopen(datasets, timeout=10).close()  # noqa: S310 - a setting
    warehouse = open_warehouse(settings, labels={"by": "status"})
    named = {"table": "mart.data_trust", "compared": "control.compared_day"}
    sql = TRUST_SQL.format(**{key: warehouse.table_id(name) for key, name in named.items()})
    row = warehouse.run(sql, kind="status").rows[0]
    return {
        "is_lake_restored": _is_lake_restored(env, newest_loads(warehouse, LOADS_LOOKED_AT)),
        "days": row["days"],
        "mart_rows": int(row["mart_rows"] or 0),
        "mart_as_of": row["mart_as_of"],
        "differing_days": tuple(filter(None, (row["differing"] or "").split(", "))),
        "uncompared_days": row["uncompared"],
        "uncompared_since": row["uncompared_since"],
    }


def _is_lake_restored(env: Mapping[str, str], loads: list[tuple[str, str, date, Any]]) -> bool | None:
    """Whether the lake came back from a backup and was not told of it; None where it does not answer."""
    from streaming import lake  # noqa: PLC0415
    from streaming.errors import RestoredError  # noqa: PLC0415

    read: dict[tuple[str, str], dict[date, Any]] = {}
    for table, topic, day, loaded in loads:
        read.setdefault((table, topic), {})[day] = loaded.read
    try:
        with closing(_lake(env)) as conn:
            for (_table, topic), days in read.items():
                lake.confirm_read(conn, topic, days)
    except RestoredError:
        return True
    except Exception:  # noqa: BLE001 - the lake's trouble is told by the lake's own question
        return None
    return False


def ask_report(env: Mapping[str, str]) -> dict[str, Any]:
    """The newest refresh, and as of when the report is."""
    from powerbi.refresh import history, query_row  # noqa: PLC0415
    from powerbi.rest import Client, credential_of  # noqa: PLC0415
    from powerbi.settings import PowerBiSettings  # noqa: PLC0415

    settings = PowerBiSettings.from_env(env)
    client = Client(settings, credential_of(settings))
    if settings.is_standin:
        urllib.request.urlopen(f"{settings.api_url}/healthz", timeout=10).close()  # noqa: S310 - a setting
    ended = [each for each in history(client, top=5) if each.get("endTime")]
    good = [each for each in ended if each["status"] == "Completed"]
    as_of = query_row(client, 'EVALUATE ROW("as_of", [Data As Of])').get("as_of") if good else None
    return {
        "is_refresh_failed": bool(ended) and ended[0]["status"] == "Failed",
        "refreshed_at": _instant(good[0]["endTime"]) if good else None,
        "report_as_of": _instant(as_of),
    }


def _instant(value: Any) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    at = datetime.fromisoformat(str(value))
    return at if at.tzinfo else at.replace(tzinfo=UTC)


QUESTIONS: dict[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
    "kafka": ask_kafka,
    "lake": ask_lake,
    "dagster": ask_dagster,
    "warehouse": ask_warehouse,
    "report": ask_report,
}
