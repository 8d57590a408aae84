"""What each layer holds, and whether anything was lost or doubled since an earlier count.

    python -m deploy.docker.compare_layers > before.json          (in the service `monitor`)
    python -m deploy.docker.compare_layers --since - < before.json

The second waits until what was produced has come through, then compares; exit code 1 if something does not add up. Stop
the producer first, or it waits for a moment in which nothing is on its way. The GitHub workflow asks it around a kill.

It reads through the rooms' doors, which log in, know every topic, and tell offsets; which topic a table is loaded from
is what Dagster has read in Mage's pipelines. The demo's readers are in the image too (deploy/demo/layers.py), but of no
use here: they watch one topic, in parts without a login, once a second, and ask with SQL of their own on purpose, so
that the demo's proof does not rest on what it proves.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PATIENCE_S, EVERY_S = 600.0, 10.0


@dataclass(frozen=True, kw_only=True)
class Counts:
    """All layers at about one moment; `next_offsets` by topic/topic partition, as committed in the lake."""

    next_offsets: dict[str, int]
    waiting: dict[str, int | None]  # by topic; None: Kafka does not answer, or does not have it
    landed: dict[str, int]  # by topic
    dead_letters: int
    gaps: int
    is_closed: bool  # every offset up to the committed one is landed, a dead letter or a gap, once
    topics: dict[str, list[str]]  # by core table: those that its pipelines read, none for a table without a pipeline
    core: dict[str, int]
    repeats: dict[str, int]
    mart: dict[str, int]  # by core table, where a daily mart keeps single events


def problems(before: Counts, after: Counts) -> list[str]:
    """What does not add up; empty when nothing was lost or doubled and nothing is on its way.

    A topic without a pipeline has nothing in core yet, and one with two tables all of it in each.
    """
    found = [
        f"{place} went back from offset {offset:,} to {after.next_offsets.get(place, 0):,}"
        for place, offset in before.next_offsets.items()
        if after.next_offsets.get(place, 0) < offset
    ]
    found += [
        f"{'an unknown number of' if events is None else f'{events:,}'} events of {topic} in Kafka have not landed"
        for topic, events in after.waiting.items()
        if events != 0
    ]
    found += [
        f"landed of {topic} fell from {rows:,} to {after.landed.get(topic, 0):,}"
        for topic, rows in before.landed.items()
        if after.landed.get(topic, 0) < rows
    ]
    if not after.is_closed:
        found.append("the ledger has offsets that are neither landed nor dead letters nor gaps")
    if after.gaps != before.gaps:
        found.append(f"gaps grew from {before.gaps:,} to {after.gaps:,}")
    return found + [problem for table in after.core for problem in _table_problems(after, table)]


def _table_problems(after: Counts, table: str) -> Iterator[str]:
    core, topics = after.core[table], after.topics.get(table)
    landed = sum(after.landed.get(topic, 0) for topic in topics or ())
    if topics and core != landed:
        yield f"{table} has {core:,} rows of {landed:,} landed of {', '.join(topics)}"
    unrepeated = core - after.repeats[table]
    mart = after.mart.get(table, unrepeated)
    if mart != unrepeated:
        yield f"the mart of {table} has {mart:,} rows, core {unrepeated:,} without repeats"


def count(env: Mapping[str, str]) -> Counts:
    """Ask Kafka, the lake and the warehouse."""
    from dbt_like_sql.reconcile import totals  # noqa: PLC0415
    from dbt_like_sql.settings import WarehouseSettings  # noqa: PLC0415
    from dbt_like_sql.warehouse import open_warehouse  # noqa: PLC0415
    from orchestration.defs.topics import feeds  # noqa: PLC0415, TID251 deploy may: it stands outside of the rooms
    from streaming import lake  # noqa: PLC0415
    from streaming.contract import load_contracts  # noqa: PLC0415
    from streaming.lake_status import read_status  # noqa: PLC0415
    from streaming.settings import KafkaSettings, LakeSettings  # noqa: PLC0415

    settings, kafka = LakeSettings.from_env(env), KafkaSettings.from_env(env)
    with closing(lake.connect(settings.dsn, application_name="compare layers")) as conn:
        topics = [read_status(conn, name, kafka) for name in load_contracts(settings.contracts_dir)]
    tables = totals(open_warehouse(WarehouseSettings.from_env(env)), is_measured=False)
    return Counts(
        next_offsets={
            f"{each.topic}/{place['topic_partition']}": place["next_offset"]
            for each in topics
            for place in each.topic_partitions
        },
        waiting={each.topic: each.lag_events for each in topics},
        landed={each.topic: each.rows for each in topics},
        dead_letters=sum(each.dead_letters for each in topics),
        gaps=sum(each.gap_offsets for each in topics),
        is_closed=all(each.is_closed for each in topics),
        topics={table: sorted({feed.topic for feed in feeds() if feed.table == table}) for table in tables},
        core={table: of["core"]["rows"] for table, of in tables.items()},
        repeats={table: of["core"]["repeats"] for table, of in tables.items()},
        mart={table: of["mart"]["rows"] for table, of in tables.items() if of["mart"]},
    )


def await_agreement(
    before: Counts,
    ask: Callable[[], Counts],
    *,
    patience_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Counts, list[str]]:
    """Count again and again until nothing is wrong or patience ends; the last count and what is wrong with it."""
    deadline = clock() + patience_s
    while True:
        after = ask()
        found = problems(before, after)
        if not found or clock() >= deadline:
            return after, found
        sleep(EVERY_S)


def main() -> int:
    """Count, or compare."""
    parser = argparse.ArgumentParser(prog="compare_layers", description="Was anything lost or doubled?")
    parser.add_argument("--since", type=argparse.FileType("r"), help="an earlier count, - for stdin; compare with it")
    parser.add_argument("--patience-s", type=float, default=PATIENCE_S, help="wait so long until all agree")
    options = parser.parse_args()
    if options.since is None:
        print(json.dumps(asdict(count(os.environ))))
        return 0
    earlier: dict[str, Any] = json.load(options.since)
    after, found = await_agreement(Counts(**earlier), lambda: count(os.environ), patience_s=options.patience_s)
    print(json.dumps({"before": earlier, "after": asdict(after)}))
    print("\n".join(found) or "nothing is lost, nothing is there twice")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
