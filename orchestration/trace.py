"""`trace event TOPIC/PARTITION/OFFSET` and `trace mart TABLE KEY`: one number's way through every room, and back.

Belongs here: the command, which joins what the lake, the warehouse and the report each know. Not here: how a room finds
out (streaming.lake.find_event, dbt_like_sql.trace, powerbi.lineage). Nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from orchestration.errors import OrchestrationError, TraceError

_EVENT = re.compile(r"^(?P<topic>[A-Za-z0-9._-]+)/(?P<part>\d+)/(?P<offset>\d+)$")
_LAST_PARTITION = 2**31 - 1  # PostgreSQL refuses to compare with more
_SHOWN_RANGES = 20


@click.group()
def main() -> None:
    """Where an event went; which events a number is made of."""


@main.command()
@click.argument("event", metavar="TOPIC/PARTITION/OFFSET")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def event(event: str, *, as_json: bool) -> None:
    """Show an event's way: lake, load, core row, mart rows, and the measures that contain it."""
    _run(lambda: _tell_event(trace_event(event, os.environ), as_json=as_json))


@main.command()
@click.argument("table")
@click.argument("key", nargs=-1, metavar="COLUMN=VALUE...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def mart(table: str, key: tuple[str, ...], *, as_json: bool) -> None:
    """Show the offsets that one row of a mart is made of: trace mart mart.countries country=France.

    A column that may be missing is asked for with COLUMN=NULL.
    """
    _run(lambda: _tell_mart(trace_mart(table, key, os.environ), as_json=as_json))


@main.command()
def measures() -> None:
    """Print the report's measures with the warehouse columns each is made of, as JSON (for `dbt-like-sql docs`)."""
    click.echo(json.dumps([asdict(each) for each in _report_measures()], ensure_ascii=False, indent=1))


@main.command()
def readers() -> None:
    """Print which columns each measure and visual of the report reads, as JSON: `dbt_like_sql/models/readers.json`."""
    click.echo(json.dumps(report_readers(), ensure_ascii=False, indent=1))


def report_readers() -> list[dict[str, Any]]:
    """What a breaking change of a table would break in the report; `dbt-like-sql migrate` names it."""
    import powerbi
    from powerbi.lineage import visual_lineage

    folder = Path(powerbi.__path__[0])
    visuals = visual_lineage(folder / "Retail.SemanticModel", folder / "Retail.Report")
    found = [("measure", each.name, each.columns) for each in _report_measures()]
    found += [("visual", each.name, each.columns) for each in visuals]
    return [
        {"kind": kind, "name": name, "columns": [f"{table}.{column}" for table, column in columns]}
        for kind, name, columns in found
    ]


def _report_measures() -> list[Any]:
    import powerbi
    from powerbi.lineage import measure_lineage

    return measure_lineage(Path(powerbi.__path__[0]) / "Retail.SemanticModel")


def trace_event(name: str, env: Any) -> dict[str, Any]:
    """All that the rooms know of one event, as plain values."""
    from dbt_like_sql.catalog import load_catalog
    from dbt_like_sql.trace import trace_event as in_warehouse
    from orchestration.defs.topics import feeds

    topic, part, offset = _parse(name)
    found = _find_event(topic, part, offset, env)
    tables = []
    if found.event_day is not None:
        warehouse, catalog = _open_warehouse(env), load_catalog()
        identity = {"topic": topic, "topic_partition": part, "topic_offset": offset}
        for feed in feeds():
            if feed.topic == topic:
                traced = in_warehouse(warehouse, catalog, feed.table, identity, found.event_day)
                tables.append({"table": feed.table, **asdict(traced), "measures": _measures_of(traced)})
    return {"event": asdict(found), "warehouse": tables}


def _find_event(topic: str, part: int, offset: int, env: Any) -> Any:
    import psycopg2

    from orchestration.settings import OrchestrationSettings
    from streaming import lake

    settings = OrchestrationSettings.from_env(env)
    with contextlib.closing(lake.connect(settings.lake_dsn, application_name="orchestration.trace")) as conn:
        try:
            return lake.find_event(conn, topic, part, offset)
        except psycopg2.Error as error:
            raise TraceError(
                f"asking the lake for {topic}/{part}/{offset}: {str(error).strip()}. Nothing was changed. Is "
                "PostgreSQL up, and was `streaming migrate` run on it?"
            ) from error


def _open_warehouse(env: Any) -> Any:
    from dbt_like_sql.settings import WarehouseSettings
    from dbt_like_sql.warehouse import open_warehouse, reach_emulator

    settings = WarehouseSettings.from_env(env)
    reach_emulator(settings)
    return open_warehouse(settings)


def trace_mart(table: str, key: tuple[str, ...], env: Any) -> dict[str, Any]:
    """A mart row, the offsets it is made of, and the loads that brought them."""
    from dbt_like_sql.catalog import load_catalog
    from dbt_like_sql.trace import trace_mart as in_warehouse

    pairs = [text.partition("=") for text in key]
    wrong = [name for name, sign, _ in pairs if not sign]
    if wrong:
        raise TraceError(f"tracing {table}: {wrong[0]!r} is no COLUMN=VALUE. Nothing was read.")
    found = in_warehouse(_open_warehouse(env), load_catalog(), table, {name: value for name, _, value in pairs})
    return asdict(found)


def _parse(name: str) -> tuple[str, int, int]:
    matched = _EVENT.match(name)
    if matched is None:
        raise TraceError(f"tracing {name!r}: expected TOPIC/PARTITION/OFFSET such as retail.invoices/3/18411.")
    part, offset = int(matched["part"]), int(matched["offset"])
    if part > _LAST_PARTITION:
        raise TraceError(f"tracing {name!r}: Kafka has no topic partition above {_LAST_PARTITION}. Nothing was read.")
    return matched["topic"], part, offset


def _measures_of(traced: Any) -> list[str]:
    """Measures of the report that read a table which contains the event."""
    holding = {mart.table for mart in traced.marts if mart.rows and not mart.note}
    return [each.name for each in _report_measures() if any(table in holding for table, _column in each.columns)]


def _tell_event(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, default=str, indent=1))
        return
    each = found["event"]
    click.echo(f"{each['topic']}/{each['topic_partition']}/{each['topic_offset']}: {each['state']}")
    landed = f", landed {each['landed_at']}" if each["landed_at"] else ""
    click.echo(f"  lake     {each['detail']}{landed}")
    if each["payload"]:
        click.echo(f"  payload  {each['payload']}")
    for table in found["warehouse"]:
        for load in table["loads"]:
            kind = "rebuild" if load["is_rebuild"] else "load"
            click.echo(f"  {kind:8} version {load['version']} of the day, run {load['run_id']}, {load['loaded_at']}")
        if table["core"] is None:
            click.echo(f"  core     not in {table['table']} yet: the next run of its day loads it")
            continue
        click.echo(f"  core     {table['table']}: {_short(table['core']['rows'][0])}")
        for each_mart in table["marts"]:
            note = f"  [{each_mart['note']}]" if each_mart["note"] else ""
            shown = [_short(row) for row in each_mart["rows"]] or ["-"]
            for text in shown:
                click.echo(f"  mart     {each_mart['table']}: {text}{note}")
        if table["measures"]:
            click.echo(f"  measures {', '.join(table['measures'])}")


def _tell_mart(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, default=str, indent=1))
        return
    click.echo(f"{found['table']}: {_short(found['row']) if found['row'] else 'no such row is published'}")
    paths = "; ".join(" <- ".join(path) for path in found["paths"])
    click.echo(f"  made of  {found['events']} event(s), by {paths}")
    for topic, part, first, last, rows in found["ranges"][:_SHOWN_RANGES]:
        to = f" to {last}" if last != first else ""
        click.echo(f"  offsets  {topic or '?'}/{part}/{first}{to} ({rows})")
    if len(found["ranges"]) > _SHOWN_RANGES:
        click.echo(f"  offsets  and {len(found['ranges']) - _SHOWN_RANGES} more ranges; --json lists all")


def _short(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:f}" if hasattr(value, "as_tuple") else f"{name}={value}" for name, value in row.items()
    )


def _run(tell: Any) -> None:
    from dbt_like_sql.errors import WarehouseError
    from streaming.errors import StreamingError

    try:
        tell()
    except (OrchestrationError, StreamingError, WarehouseError) as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
