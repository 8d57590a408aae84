"""Command line of the room: `streaming ...` or `python -m streaming ...`. Wiring only; each command is a few calls.

Not here: anything that another program may want to import.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import threading
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any, TextIO, cast

import click
import structlog

from streaming import contract as contracts
from streaming.contract_commands import new_stream
from streaming.dead_letter_commands import dead_letters
from streaming.errors import ContractError, StreamingError
from streaming.lake_commands import lake_group
from streaming.log_file import LogFile
from streaming.settings import KafkaSettings, LakeSettings, LandingSettings
from streaming.sources.commands import produce
from streaming.stopping import stopping

if TYPE_CHECKING:
    from collections.abc import Iterable

TELL_EVERY_S = 1.0
LEAVES_WITHIN_S = 4.8  # after a signal; an orderly end takes 4.5 s at most, but a claim may wait for a frozen lake


class RoomGroup(click.Group):
    """Shows the room's own errors as a message and exit code 1, not as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except StreamingError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(1)


def _configure_logs(*, is_json: bool = False) -> None:
    """Logs go to stderr; LOG_FORMAT=json for containers, without the line a second that --json prints."""
    is_json = is_json or os.environ.get("LOG_FORMAT", "").lower() == "json"
    file = LogFile(sys.stderr)
    renderer: Any = structlog.processors.JSONRenderer() if is_json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            file.tell_held_up,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=cast("TextIO", file)),
    )


@click.group(cls=RoomGroup)
def main() -> None:
    """Kafka -> PostgreSQL: produce, land, look after."""
    _configure_logs()


for command in (new_stream, dead_letters, lake_group, produce):
    main.add_command(command)


@main.command()
@click.option("--grant", "is_granted", is_flag=True, help="Then give the two roles what they need, and no more.")
@click.option("--lander-role", default="lander", show_default=True, help="Who consumes.")
@click.option("--reader-role", default="reader", show_default=True, help="Who reads.")
def migrate(lander_role: str, reader_role: str, *, is_granted: bool) -> None:
    """Bring the lake's schema to this version, with a table and a view for each contract."""
    from streaming import grants, lake  # noqa: PLC0415 a command imports what it needs
    from streaming import migrate as migrations  # noqa: PLC0415

    settings = LakeSettings.from_env(os.environ)
    with closing(lake.connect(settings.dsn, application_name="streaming migrate")) as conn:
        done = migrations.migrate(conn, contracts.load_contracts(settings.contracts_dir).values())
        if is_granted:
            grants.grant(conn, lander=lander_role, reader=reader_role)
    for name in done.files:
        click.echo(f"applied {name}")
    for topic in done.created:
        click.echo(f"created the landing table and view of {topic}")
    for topic in done.changed:
        click.echo(f"changed the view of {topic}")
    if not (done.files or done.created or done.changed):
        click.echo("the lake is current")


@main.command()
@click.option("--topic", "topics", multiple=True, help="Topics to land; without it, every contract's.")
@click.option("--until-idle", type=float, help="Stop once nothing has come for so many seconds and all is landed.")
@click.option("--json", "is_json", is_flag=True, help="A line of JSON a second on stdout, logs as JSON.")
def consume(topics: tuple[str, ...], until_idle: float | None, *, is_json: bool) -> None:
    """Land events until stopped (SIGTERM, Ctrl-C)."""
    from streaming.allocator import keep_freed_memory, spare_garbage_collector  # noqa: PLC0415
    from streaming.consumer import LandingConsumer  # noqa: PLC0415
    from streaming.metrics import MetricsServer  # noqa: PLC0415
    from streaming.turns import give_way_soon  # noqa: PLC0415

    _configure_logs(is_json=is_json)
    settings = LandingSettings.from_env(os.environ)

    def read(topics: Iterable[str]) -> dict[str, contracts.Contract]:
        return {topic: contracts.load_contract(topic, settings.lake.contracts_dir) for topic in topics}

    known = contracts.load_contracts(settings.lake.contracts_dir)
    wanted = read(topics) or known
    if not wanted:
        raise ContractError(
            f"reading {settings.lake.contracts_dir}: there is no contract (*.yaml) in it, so there is nothing to land. "
            f"Propose one by `streaming new-stream`, or name another folder in STREAMING_CONTRACTS_DIR."
        )
    consumer = LandingConsumer(settings, wanted, reread=lambda: read(wanted))
    port = settings.metrics_port
    try:
        served = nullcontext() if port is None else MetricsServer(consumer.metrics, port, state=consumer.state)
    except OSError as error:
        raise StreamingError(
            f"serving metrics on port {port}: {error.strerror}. Nothing was landed. Set another METRICS_PORT (0: any)."
        ) from error
    with stopping(leaves_within_s=LEAVES_WITHIN_S) as stop, served as server:
        structlog.get_logger().info("consumes", topics=sorted(wanted), metrics_port=getattr(server, "port", None))
        teller = threading.Thread(target=_tell_landing, args=(consumer, stop, is_json), daemon=True)
        teller.start()
        spare_garbage_collector()
        keep_freed_memory()
        give_way_soon()
        summary = consumer.run(stop, until_idle_s=until_idle)
    told = (
        json.dumps({"event": "consumed", **dataclasses.asdict(summary)})
        if is_json
        else f"landed {summary.rows:,} events, {summary.dead_letters:,} dead letters, {summary.gap_offsets:,} gaps "
        f"in {summary.seconds:.1f} s"
    )
    try:
        click.echo(told)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StreamingError(
            f"printing what was landed ({summary.rows:,} events, {summary.dead_letters:,} dead letters): "
            f"{error.strerror}. All of it is in the lake; see `streaming lake status`."
        ) from error


def _tell_landing(consumer: Any, stop: threading.Event, is_json: bool) -> None:  # noqa: FBT001 a thread's argument
    while is_json and not stop.wait(TELL_EVERY_S):
        line = {"event": "landing", **dataclasses.asdict(consumer.counts()), **consumer.state()}
        try:
            click.echo(json.dumps(line))
        except BrokenPipeError:
            structlog.get_logger().warning("tells_no_more", note="who read the lines has left; the landing goes on")
            return
        except OSError:
            continue  # a full disk: the numbers are sums, so the next line that is taken has these too


@main.group()
def topic() -> None:
    """Topics."""


@topic.command("create")
@click.argument("name")
@click.option("--partitions", type=click.IntRange(min=1), help="Default: the contract's topicPartitions.")
@click.option("--replication", type=int, default=-1, help="Default: the broker's.")
def topic_create(name: str, partitions: int | None, replication: int) -> None:
    """Create a topic unless it exists."""
    from streaming import kafka  # noqa: PLC0415

    folder = os.environ.get("STREAMING_CONTRACTS_DIR") or None
    contract = contracts.find_contract(name, folder) if partitions else contracts.load_contract(name, folder)
    count = partitions or contract.topic_partitions  # type: ignore[union-attr] # the one or the other is there
    is_new = kafka.create_topic(
        KafkaSettings.from_env(os.environ), name, topic_partitions=count, replication=replication,
        payload_bytes=contract.maximum_payload_bytes if contract else 0,
    )  # fmt: skip
    click.echo(f"created {name} with {count} topic partitions" if is_new else f"{name} exists already")


if __name__ == "__main__":
    main(prog_name="streaming")
