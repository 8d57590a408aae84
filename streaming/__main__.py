"""Command line of the room: `streaming ...` or `python -m streaming ...`. Wiring only; each command is a few calls.

Not here: anything that another program may want to import.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from streaming import contract as contracts
from streaming.errors import StreamingError
from streaming.settings import KafkaSettings, LakeSettings, LandingSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streaming.produce import Outgoing, Produced

TELL_EVERY_S = 1.0


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
    renderer: Any = structlog.processors.JSONRenderer() if is_json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; the second signal ends the process."""
    stop = threading.Event()

    def on_signal(number: int, _frame: Any) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.group(cls=RoomGroup)
def main() -> None:
    """Kafka -> PostgreSQL: produce, land, look after."""
    _configure_logs()


@main.command()
def migrate() -> None:
    """Bring the lake's schema to this version, with a table and a view for each contract."""
    from streaming import lake  # noqa: PLC0415 a command imports what it needs
    from streaming import migrate as migrations  # noqa: PLC0415

    settings = LakeSettings.from_env(os.environ)
    with closing(lake.connect(settings.dsn, application_name="streaming migrate")) as conn:
        done = migrations.migrate(conn, contracts.load_contracts(settings.contracts_dir).values())
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
    from streaming.consumer import LandingConsumer  # noqa: PLC0415
    from streaming.metrics import MetricsServer  # noqa: PLC0415

    _configure_logs(is_json=is_json)
    settings = LandingSettings.from_env(os.environ)
    known = contracts.load_contracts(settings.lake.contracts_dir)
    wanted = {topic: contracts.load_contract(topic, settings.lake.contracts_dir) for topic in topics} or known
    consumer = LandingConsumer(settings, wanted)
    port = settings.metrics_port
    try:
        served = nullcontext() if port is None else MetricsServer(consumer.metrics, port, state=consumer.state)
    except OSError as error:
        raise StreamingError(
            f"serving metrics on port {port}: {error.strerror}. Nothing was landed. Set another METRICS_PORT (0: any)."
        ) from error
    with _stopping() as stop, served as server:
        structlog.get_logger().info("consumes", topics=sorted(wanted), metrics_port=getattr(server, "port", None))
        teller = threading.Thread(target=_tell_landing, args=(consumer, stop, is_json), daemon=True)
        teller.start()
        summary = consumer.run(stop, until_idle_s=until_idle)
    if is_json:
        click.echo(json.dumps({"event": "consumed", **dataclasses.asdict(summary)}))
        return
    click.echo(
        f"landed {summary.rows:,} events, {summary.dead_letters:,} dead letters, {summary.gap_offsets:,} gaps "
        f"in {summary.seconds:.1f} s"
    )


def _tell_landing(consumer: Any, stop: threading.Event, is_json: bool) -> None:  # noqa: FBT001 a thread's argument
    while is_json and not stop.wait(TELL_EVERY_S):
        line = {"event": "landing", **dataclasses.asdict(consumer.counts()), **consumer.state()}
        click.echo(json.dumps(line))


def _rate(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    if value == "max":
        return math.inf
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if rate <= 0:
        raise click.BadParameter("a number of events a second above 0, or max")
    return rate


class ProduceBar:
    """Progress of a producer on the terminal, or as lines of JSON."""

    def __init__(self, *, is_json: bool, total: int | None) -> None:
        self.is_json = is_json
        self.total = total
        self.told_at = 0.0
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("[cyan]{task.fields[sent]:,}[/] sent"),
            TextColumn("{task.fields[skipped]}"),
            TextColumn("{task.fields[rate]:,.0f}/s"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=is_json,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> Self:
        self.progress.start()
        self.task = self.progress.add_task("producing", total=1.0, sent=0, skipped="", rate=0.0)
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def tell(self, counts: Produced) -> None:
        """Show the counts, a few times a second."""
        now = time.monotonic()
        if now - self.told_at < (TELL_EVERY_S if self.is_json else 0.1) or self.task is None:
            return
        self.told_at = now
        found = counts.as_dict()
        if self.is_json:
            click.echo(json.dumps({"event": "producing", **found}))
            return
        done = counts.progress if counts.progress is not None else counts.queued / self.total if self.total else None
        self.progress.update(
            self.task,
            total=1.0 if done is not None else None,
            completed=done or 0.0,
            sent=counts.sent,
            skipped=f"{counts.skipped:,} skipped" if counts.skipped else "",
            rate=found["events_per_s"],
        )


@main.command()
@click.option("--topic", default="retail.invoices", show_default=True)
@click.option("--shop", "is_shop", is_flag=True, help="A simulated shop in real time (the default).")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Invoices in UCI Online Retail's columns.")
@click.option("--ndjson", "ndjson_path", help="A file of JSON lines, - for stdin; any topic.")
@click.option(
    "--rate", callback=_rate, help="Events a second, or max. Shop: its average; default 5. Files: default max."
)
@click.option("--resume", "is_resumed", is_flag=True, help="Skip events whose id the topic has already.")
@click.option("--events", type=click.IntRange(min=0), help="Stop after so many events.")
@click.option("--seconds", type=float, help="Stop after so many seconds.")
@click.option("--seed", type=int, default=1, show_default=True, help="Shop: the same seed and start, the same events.")
@click.option("--start", type=click.DateTime(), help="Shop: the instant (UTC) at which real time begins; default now.")
@click.option(
    "--history-days", type=click.IntRange(min=0), default=0, show_default=True, help="Shop: days before, first."
)
@click.option(
    "--lines-per-day", type=click.IntRange(min=1), default=1_500, show_default=True, help="Shop: of the history."
)
@click.option("--history-only", "is_history_only", is_flag=True, help="Shop: stop where real time begins.")
@click.option("--late", type=click.FloatRange(0, 1), default=0.0, help="Shop: share of late events.")
@click.option("--duplicate", type=click.FloatRange(0, 1), default=0.0, help="Shop: share delivered twice.")
@click.option("--broken", type=click.FloatRange(0, 1), default=0.0, help="Shop: share that breaks the contract.")
@click.option("--json", "is_json", is_flag=True, help="Lines of JSON on stdout instead of a progress bar.")
def produce(**options: Any) -> None:
    """Send events to Kafka: a simulated shop, CSV invoices or JSON lines."""
    from streaming import produce as producing  # noqa: PLC0415

    chosen = [name for name in ("is_shop", "csv_path", "ndjson_path") if options[name]]
    if len(chosen) > 1:
        raise click.UsageError("choose one of --shop, --csv, --ndjson")
    kafka_settings = KafkaSettings.from_env(os.environ)
    topic, rate = options["topic"], options["rate"]
    is_shop = not options["csv_path"] and not options["ndjson_path"]
    events = _limited(_source(options, topic), options["events"])
    producing.require_topic(kafka_settings, topic)
    with _stopping() as stop, ProduceBar(is_json=options["is_json"], total=options["events"]) as bar:
        already_sent = producing.read_event_ids(kafka_settings, topic) if options["is_resumed"] else None
        deadline = time.monotonic() + options["seconds"] if options["seconds"] else None
        counts = producing.produce(
            producing.EventProducer(kafka_settings, topic),
            events,
            already_sent=already_sent,
            rate=None if is_shop or rate == math.inf else rate,  # the shop paces itself
            is_stopped=lambda: stop.is_set() or (deadline is not None and time.monotonic() > deadline),
            tell=bar.tell,
        )
    found = counts.as_dict()
    click.echo(
        json.dumps({"event": "produced", "topic": topic, **found})
        if options["is_json"]
        else f"sent {counts.sent:,} events to {topic}, skipped {counts.skipped:,}, in {found['seconds']:.1f} s"
    )


def _limited(events: Iterator[Outgoing], limit: int | None) -> Iterator[Outgoing]:
    for number, event in enumerate(events):
        if limit is not None and number >= limit:
            return
        yield event


def _source(options: dict[str, Any], topic: str) -> Iterator[Outgoing]:
    from streaming.sources import csv_invoices, ndjson, shop  # noqa: PLC0415

    if options["csv_path"]:
        return csv_invoices.read_csv_events(csv_invoices.open_csv_source(options["csv_path"]))
    if options["ndjson_path"]:
        folder = os.environ.get("STREAMING_CONTRACTS_DIR") or contracts.CONTRACTS_DIR
        contract = contracts.load_contract(topic, folder) if (Path(folder) / f"{topic}.yaml").is_file() else None
        name = options["ndjson_path"]
        lines = sys.stdin.buffer if name == "-" else _open_lines(Path(name))
        return ndjson.read_ndjson_events(lines, contract, name=name)
    start = options["start"].replace(tzinfo=UTC) if options["start"] else datetime.now(UTC)
    return shop.run_shop(
        shop.ShopPlan(
            seed=options["seed"],
            start=start.replace(microsecond=0),
            history_days=options["history_days"],
            lines_per_day=options["lines_per_day"],
            rate=options["rate"] or shop.DEFAULT_RATE,
            late=options["late"],
            duplicate=options["duplicate"],
            broken=options["broken"],
            is_live=not options["is_history_only"],
        )
    )


def _open_lines(path: Path) -> Any:
    from streaming.errors import SourceError  # noqa: PLC0415

    try:
        return path.open("rb")
    except OSError as error:
        raise SourceError(f"reading events from {path}: {error.strerror}. Nothing was sent. Check --ndjson.") from error


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
    count = partitions or contracts.load_contract(name, folder).topic_partitions
    is_new = kafka.create_topic(
        KafkaSettings.from_env(os.environ), name, topic_partitions=count, replication=replication
    )
    click.echo(f"created {name} with {count} topic partitions" if is_new else f"{name} exists already")


@main.group("lake")
def lake_group() -> None:
    """The lake in Postgres."""


@lake_group.command("status")
@click.option("--topic", "topics", multiple=True)
@click.option("--json", "is_json", is_flag=True)
def lake_status(topics: tuple[str, ...], *, is_json: bool) -> None:
    """Where every offset is, for each topic partition."""
    from streaming import lake  # noqa: PLC0415

    settings = LakeSettings.from_env(os.environ)
    wanted = topics or tuple(contracts.load_contracts(settings.contracts_dir))
    found: dict[str, Any] = {}
    with closing(lake.connect(settings.dsn, application_name="streaming lake status")) as conn:
        for name in wanted:
            newest = lake.watermark(conn, name)
            found[name] = {
                "rows": 0, "dead_letters": 0, "gap_offsets": 0,
                "newest_produced_at": None if newest is None else newest.isoformat(),
                "topic_partitions": lake.topic_counts(conn, name),
            }  # fmt: skip
            for counts in found[name]["topic_partitions"]:
                found[name]["rows"] += counts.landed
                found[name]["dead_letters"] += counts.dead_letters
                found[name]["gap_offsets"] += counts.gap_offsets
    if is_json:
        click.echo(json.dumps(found, default=_jsonable))
    else:
        _show_status(found)


def _jsonable(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return {name: getattr(value, name) for name in value.__dataclass_fields__} | {"is_closed": value.is_closed}


def _show_status(found: dict[str, Any]) -> None:
    table = Table("topic", "part", "first", "next", "landed", "dead", "replayed", "gaps", "lost", "closed", "owner")
    for name, of_topic in found.items():
        for c in of_topic["topic_partitions"]:
            table.add_row(name, *(f"{n:,}" for n in (c.topic_partition, c.first_offset, c.next_offset, c.landed,
                          c.dead_letters, c.dead_letters_replayed, c.gap_offsets, c.lost_offsets)),
                          "yes" if c.is_closed else "[red]NO[/]", c.owner or "")  # fmt: skip
    Console().print(table)


@main.group("dead-letters")
def dead_letters() -> None:
    """Events kept aside because they break the contract."""


@dead_letters.command("list")
@click.option("--topic", default="retail.invoices", show_default=True)
@click.option("--reason")
@click.option("--all", "is_all", is_flag=True, help="Replayed ones too.")
@click.option("--limit", type=int, default=50, show_default=True)
@click.option("--json", "is_json", is_flag=True)
def dead_letters_list(topic: str, reason: str | None, *, is_all: bool, limit: int, is_json: bool) -> None:
    """Counts by reason, then the letters."""
    from streaming import dead_letter, lake  # noqa: PLC0415

    settings = LakeSettings.from_env(os.environ)
    with closing(lake.connect(settings.dsn, application_name="streaming dead-letters")) as conn:
        counts = dead_letter.count_dead_letters(conn, topic)
        letters = dead_letter.read_dead_letters(conn, topic, reason=reason, is_open=not is_all, limit=limit)
    if is_json:
        for letter in letters:
            click.echo(json.dumps({"topic_partition": letter.topic_partition, "topic_offset": letter.topic_offset,
                       "reason": letter.reason, "field": letter.field, "detail": letter.detail,
                       "replayed_at": letter.replayed_at and letter.replayed_at.isoformat()}))  # fmt: skip
        return
    console = Console()
    summary = Table("reason", "field", "open", "replayed", title=f"dead letters of {topic}")
    for found_reason, field, still_open, replayed in counts:
        summary.add_row(found_reason, field or "", f"{still_open:,}", f"{replayed:,}")
    console.print(summary)
    table = Table("part", "offset", "reason", "field", "detail", "landed at")
    for letter in letters:
        table.add_row(str(letter.topic_partition), str(letter.topic_offset), letter.reason, letter.field or "",
                      letter.detail, f"{letter.landed_at:%Y-%m-%d %H:%M:%S}")  # fmt: skip
    console.print(table)


def _one_letter(conn: Any, topic: str, at: str) -> Any:
    from streaming import dead_letter  # noqa: PLC0415
    from streaming.errors import ReplayError  # noqa: PLC0415

    try:
        number, _, offset = at.partition(":")
        place = (int(number), int(offset))
    except ValueError as error:
        raise click.BadParameter(f"{at!r} is not PARTITION:OFFSET, such as 3:18411") from error
    letters = dead_letter.read_dead_letters(conn, topic, at=place, is_open=False)
    if not letters:
        raise ReplayError(f"looking for {topic} {at}: there is no dead letter. See `streaming dead-letters list`.")
    return letters[0]


@dead_letters.command("show")
@click.argument("at", metavar="PARTITION:OFFSET")
@click.option("--topic", default="retail.invoices", show_default=True)
@click.option("--raw", "is_raw", is_flag=True, help="The value's bytes only, to a file or an editor.")
def dead_letters_show(at: str, topic: str, *, is_raw: bool) -> None:
    """One letter, whole."""
    from streaming import dead_letter, lake  # noqa: PLC0415

    settings = LakeSettings.from_env(os.environ)
    with closing(lake.connect(settings.dsn, application_name="streaming dead-letters")) as conn:
        letter = _one_letter(conn, topic, at)
    if is_raw:
        sys.stdout.buffer.write(letter.value or b"")
        return
    click.echo(f"{letter.topic}[{letter.topic_partition}] offset {letter.topic_offset}")
    click.echo(
        f"reason      {letter.reason}{f' in {letter.field}' if letter.field else ''}\ndetail      {letter.detail}"
    )
    click.echo(
        f"produced    {letter.produced_at}\nlanded      {letter.landed_at}\nreplayed    {letter.replayed_at or 'no'}"
    )
    click.echo(f"key         {(letter.key or b'').decode('utf-8', 'backslashreplace')}")
    for name, value in letter.headers:
        click.echo(f"header      {name}: {(value or b'').decode('utf-8', 'backslashreplace')}")
    click.echo(dead_letter.show_value(letter))


@dead_letters.command("replay")
@click.argument("at", metavar="[PARTITION:OFFSET]", required=False)
@click.option("--topic", default="retail.invoices", show_default=True)
@click.option("--reason", help="Only letters of this reason.")
@click.option(
    "--value", "value_path", type=click.Path(exists=True, path_type=Path), help="Land this file's bytes instead."
)
@click.option("--all", "is_all", is_flag=True, help="Every open letter (of the reason).")
def dead_letters_replay(
    at: str | None, topic: str, reason: str | None, value_path: Path | None, *, is_all: bool
) -> None:
    """Land letters again: after the contract or code was mended, or with an edited value."""
    from streaming import dead_letter, lake, replay  # noqa: PLC0415
    from streaming.decode import Decoder  # noqa: PLC0415

    if (at is None) == (not is_all):
        raise click.UsageError("name one letter as PARTITION:OFFSET, or --all")
    settings = LakeSettings.from_env(os.environ)
    contract = contracts.load_contract(topic, settings.contracts_dir)
    with closing(lake.connect(settings.dsn, application_name="streaming replay")) as conn:
        letters = (
            [_one_letter(conn, topic, at)]
            if at is not None
            else dead_letter.read_dead_letters(conn, topic, reason=reason, limit=None)
        )
        edited = value_path.read_bytes() if value_path else None
        done = replay.replay(conn, Decoder(contract), letters, edited=edited)
    click.echo(f"landed {done.landed}, still refused {len(done.refused)}, of {len(letters)}")
    for letter, problem in done.refused[:20]:
        click.echo(f"  {letter.topic_partition}:{letter.topic_offset} {problem}")
    if done.refused:
        raise SystemExit(2)


if __name__ == "__main__":
    main(prog_name="streaming")
