"""Commands about the lake: its state, its retention. Wiring only.

Not here: what is asked (lake_status.py), what goes (retention.py), what a restore wants (restored.py).
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from streaming import contract as contracts
from streaming.errors import LandingError, StreamingError
from streaming.settings import KafkaSettings, LakeSettings

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812 a class with a lower-case name

    from streaming.lake_status import TopicStatus


def wide_console() -> Console:
    """As wide as the terminal; wide enough for every number where there is none (`docker compose exec -T`, a log)."""
    return Console(width=None if sys.stdout.isatty() else 160)


def require_topic(conn: Connection, topic: str, settings: LakeSettings) -> None:
    """Refuse a topic that has neither a contract nor a table: zeros for a misspelt name would read as `all is well`."""
    from streaming.database import transaction  # noqa: PLC0415 a command imports what it needs

    known = {path.stem for path in settings.contracts_dir.glob("*.yaml")}
    if topic in known:
        return
    with transaction(conn) as cursor:  # its contract may be gone by now; what landed is there
        cursor.execute("SELECT topic FROM control.stream")
        known |= {name for (name,) in cursor.fetchall()}
    if topic not in known:
        raise click.UsageError(
            f"there is no topic {topic!r}: it has neither a contract nor a table in the lake. "
            f"Name one of {', '.join(sorted(known)) or 'none'}."
        )


@click.group("lake")
def lake_group() -> None:
    """The lake in Postgres."""


@lake_group.command("status")
@click.option("--topic", "topics", multiple=True, help="Without it, every contract's.")
@click.option("--json", "is_json", is_flag=True, help="One object: topic -> its numbers.")
def lake_status(topics: tuple[str, ...], *, is_json: bool) -> None:
    """Sizes, rows, oldest and newest, lag, dead letters, gaps; and where every offset is.

    Lag needs Kafka: it is told where KAFKA_BOOTSTRAP_SERVERS is set.
    """
    from streaming.database import connected  # noqa: PLC0415 a command imports what it needs
    from streaming.lake_status import read_status  # noqa: PLC0415

    settings = LakeSettings.from_env(os.environ)
    has_kafka = bool(os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "").strip())
    kafka_settings = KafkaSettings.from_env(os.environ) if has_kafka else None
    wanted = topics or tuple(contracts.load_contracts(settings.contracts_dir))
    with connected(settings.dsn, command="lake status") as conn:
        for name in topics:
            require_topic(conn, name, settings)
        found = [read_status(conn, name, kafka_settings) for name in wanted]
    if is_json:
        click.echo(json.dumps({each.topic: asdict(each) for each in found}, default=lambda value: value.isoformat()))
        return
    _show_topics(found)
    _show_partitions(found)


def _show_topics(found: list[TopicStatus]) -> None:
    table = Table("topic", *(Column(Text(each.topic)) for each in found))
    rows: dict[str, Any] = {
        "rows": lambda s: f"{s.rows:,}" + (f" ({s.retired_rows:,} retired)" if s.retired_rows else ""),
        "event days": lambda s: f"{s.oldest_day} to {s.newest_day}" if s.oldest_day else "none",
        "newest message": lambda s: f"{s.newest_produced_at:%Y-%m-%d %H:%M:%S} UTC" if s.newest_produced_at else "none",
        "last landing": lambda s: f"{s.last_landed_at:%Y-%m-%d %H:%M:%S} UTC" if s.last_landed_at else "none",
        "lag": _show_lag,
        "dead letters": lambda s: f"{s.dead_letters:,} open, {s.dead_letters_replayed:,} replayed",
        "gaps": lambda s: f"{s.gap_offsets:,} offsets, of them lost {s.lost_offsets:,}",
        "landing": lambda s: f"{_size(s.table_bytes)} + {_size(s.index_bytes)} of indexes, {s.months} months",
        "dead tuples": lambda s: f"{s.dead_tuples:,}",
        "ledger (all topics)": lambda s: f"{_size(s.ledger_bytes)}; {s.batches:,} batches of this topic",
        "closed": lambda s: "[red]NO[/]" if not s.is_closed else "yes" if s.topic_partitions else "nothing has landed",
    }
    for name, show in rows.items():
        table.add_row(name, *(show(each) for each in found))
    wide_console().print(table)


def _show_lag(status: TopicStatus) -> str:
    if status.lag_events is None:
        return "Kafka not asked"
    since = "none has landed yet" if status.lag_s is None else f"{status.lag_s:.1f} s"
    return f"{status.lag_events:,} events, {since}"


def _show_partitions(found: list[TopicStatus]) -> None:
    table = Table("topic", "part", "first", "next", "landed", "dead", "replayed", "gaps", "lost", "closed", "owner")
    names = ("topic_partition", "first_offset", "next_offset", "landed", "dead_letters", "dead_letters_replayed",
             "gap_offsets", "lost_offsets")  # fmt: skip
    for each in found:
        for counts in each.topic_partitions:
            numbers = (f"{counts[name]:,}" for name in names)
            is_closed = "yes" if counts["is_closed"] else "[red]NO[/]"
            table.add_row(Text(each.topic), *numbers, is_closed, Text(counts["owner"] or ""))
    wide_console().print(table)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"  # noqa: PLR2004 a unit


@lake_group.command("restored")
def lake_restored() -> None:
    """After a restore: batches go on with numbers that were never given. As the owner.

    Best before the consumer starts. Afterwards it helps as well: what has landed since the backup is read again.
    """
    from streaming.database import connected  # noqa: PLC0415 a command imports what it needs
    from streaming.restored import number_anew  # noqa: PLC0415

    settings = LakeSettings.from_env(os.environ)
    with connected(settings.dsn, command="lake restored") as conn:
        done = number_anew(conn)
    if not done:
        click.echo("nothing has landed here yet: start the consumer, then run this again")
        return
    for topic, part, batch in done:
        click.echo(f"{topic}/{part}: the next batch is {batch:,}")
    click.echo("Next: start the consumer, and look at the days that land again (docs/runbooks/backup-and-restore.md)")


@lake_group.command("retire")
@click.option("--topic", "topics", multiple=True, help="Without it, every contract's.")
@click.option("--dry-run", "is_trial", is_flag=True, help="Only tell what would go.")
@click.option("--unread", "is_read_by_nobody", is_flag=True, help="Also of topics that no reader has ever read.")
@click.option("--every-hours", type=click.FloatRange(min=0.001), help="Go on and do it again so often, until stopped.")
def lake_retire(topics: tuple[str, ...], *, is_trial: bool, is_read_by_nobody: bool, every_hours: float | None) -> None:
    """Drop the landing months that the contracts keep no longer (retentionMonths); run it daily, as the owner.

    A month with a day that some reader has not read stays, and so do all months of a topic that nobody has read yet;
    --unread lets those go, for a lake that nothing is loaded from. The ledger stays whole.
    """
    settings = LakeSettings.from_env(os.environ)
    while True:
        _retire(settings, topics, is_trial=is_trial, is_read_by_nobody=is_read_by_nobody)
        if every_hours is None:
            return
        time.sleep(every_hours * 3600)


def _retire(settings: LakeSettings, topics: tuple[str, ...], *, is_trial: bool, is_read_by_nobody: bool) -> None:
    """Once; contracts are read anew, so that a changed one counts."""
    from streaming.database import connected  # noqa: PLC0415 a command imports what it needs
    from streaming.retention import Retired, retire  # noqa: PLC0415

    known = contracts.load_contracts(settings.contracts_dir)
    wanted = [contracts.load_contract(topic, settings.contracts_dir) for topic in topics] or list(known.values())
    done, failed = list[Retired](), list[StreamingError]()
    with connected(settings.dsn, command="lake retire") as conn:
        now, choices = datetime.now(UTC), {"is_trial": is_trial, "is_read_by_nobody": is_read_by_nobody}
        for one in wanted:
            try:
                done += retire(conn, one, now=now, **choices)
            except StreamingError as error:  # one topic's busy reader is no reason to keep all others' months
                failed.append(error)
                if conn.closed:
                    break
    for each in done:
        verb = "would retire" if is_trial else "retired"
        click.echo(
            f"kept {each.topic} {each.month:%Y-%m}: {each.kept_because}"
            if each.kept_because
            else f"{verb} {each.topic} {each.month:%Y-%m}: {each.rows:,} rows"
        )
    if failed:
        raise LandingError("\n".join(map(str, failed))) if len(failed) > 1 else failed[0]
    if not done:
        click.echo("nothing is older than its contract keeps")
