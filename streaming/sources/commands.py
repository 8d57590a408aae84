"""The command that sends events: a simulated shop, CSV invoices or JSON lines. Wiring only.

Not here: where events come from (the other modules of this folder), how they are sent (produce.py).
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, wrap_file

from streaming import contract as contracts
from streaming.settings import KafkaSettings
from streaming.stopping import stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from streaming.produce import Outgoing, Produced

TOPIC = "retail.invoices"
TELL_EVERY_S = 1.0
OTHERS_SHOWN = 10
LONG_FILE_BYTES = 8_000_000  # some seconds


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


@click.command()
@click.option("--topic", help=f"Default: {TOPIC}, the shop's and the invoices'; JSON lines need it.")
@click.option("--shop", "is_shop", is_flag=True, help="A simulated shop in real time (the default).")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Invoices in UCI Online Retail's columns.")
@click.option("--ndjson", "ndjson_path", help="A file of JSON lines, - for stdin; any topic.")
@click.option(
    "--rate", callback=_rate, help="Events a second, or max. Shop: its average; default 5. Files: default max."
)
@click.option("--resume", "is_resumed", is_flag=True, help="Skip events that the topic has already; tell changed ones.")
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
    from streaming.already_sent import read_already_sent  # noqa: PLC0415

    chosen = [name for name in ("is_shop", "csv_path", "ndjson_path") if options[name]]
    if len(chosen) > 1:
        raise click.UsageError("choose one of --shop, --csv, --ndjson")
    kafka_settings = KafkaSettings.from_env(os.environ)
    if options["ndjson_path"] and not options["topic"]:
        raise click.UsageError("--ndjson needs --topic")
    topic, rate = options["topic"] or TOPIC, options["rate"]
    is_shop = not options["csv_path"] and not options["ndjson_path"]
    stop = threading.Event()
    contract = contracts.find_contract(topic, os.environ.get("STREAMING_CONTRACTS_DIR") or None)
    source, about = _source(options, contract, stop.is_set)
    events = _limited(source, options["events"])
    producing.require_topic(kafka_settings, topic)
    with stopping(stop), ProduceBar(is_json=options["is_json"], total=options["events"]) as bar:
        already_sent = read_already_sent(kafka_settings, topic) if options["is_resumed"] else None
        deadline = time.monotonic() + options["seconds"] if options["seconds"] else None
        counts = producing.produce(
            producing.EventProducer(
                kafka_settings, topic, payload_bytes=contract.maximum_payload_bytes if contract else 0
            ),
            events,
            already_sent=already_sent,
            rate=None if is_shop or rate == math.inf else rate,  # the shop paces itself
            is_stopped=lambda: stop.is_set() or (deadline is not None and time.monotonic() > deadline),
            tell=bar.tell,
        )
    found = counts.as_dict()
    click.echo(
        json.dumps({"event": "produced", "topic": topic, **about, **found})
        if options["is_json"]
        else f"sent {counts.sent:,} events to {topic}, skipped {counts.skipped:,}, in {found['seconds']:.1f} s"
    )
    _require_unchanged(counts, topic)


def _require_unchanged(counts: Produced, topic: str) -> None:
    from streaming.errors import SourceError  # noqa: PLC0415

    if counts.changed:
        more = ", ..." if counts.changed > len(counts.changed_at) else ""
        raise SourceError(
            f"producing to {topic} with --resume: {counts.changed:,} events are not what was sent before under their "
            f"ids, or stand behind such a one in their invoice: {', '.join(counts.changed_at)}{more}. They were not "
            f"sent, all others are; what was sent before stands. Book a correction as a document of its own (a credit "
            f"note and a new invoice), mend what was refused by its dead letter (`streaming dead-letters export`), or "
            f"put back the row that was changed, put in or taken out."
        )


def _watch(raw: BinaryIO, path: Path, *, is_shown: bool) -> AbstractContextManager[BinaryIO]:
    """The same file, whose checks are shown on the terminal where they take more than a moment; nothing is sent yet."""
    size = path.stat().st_size
    return wrap_file(
        raw, size, description=f"checking {path.name}", console=Console(stderr=True), transient=True,
        disable=not is_shown or size < LONG_FILE_BYTES,
    )  # fmt: skip


def _limited(events: Iterator[Outgoing], limit: int | None) -> Iterator[Outgoing]:
    for number, event in enumerate(events):
        if limit is not None and number >= limit:
            return
        yield event


def _source(
    options: dict[str, Any], contract: contracts.Contract | None, is_stopped: Callable[[], bool]
) -> tuple[Iterator[Outgoing], dict[str, Any]]:
    """Events, and what is to be told of where they come from."""
    from streaming.sources import csv_invoices, ndjson, piped, shop  # noqa: PLC0415

    if options["csv_path"]:
        files = csv_invoices.open_csv_source(options["csv_path"], partial(_watch, is_shown=not options["is_json"]))
        others = csv_invoices.left_out(options["csv_path"])
        if others:
            click.echo(_left_out_warning(options["csv_path"], others), err=True)
        if copies := csv_invoices.copies(files):
            click.echo(_copies_warning(options["csv_path"], copies), err=True)
        copied = {name.partition(" = ")[0] for name in copies}
        if overlaps := csv_invoices.overlaps([file for file in files if file.path.name not in copied]):
            click.echo(_overlaps_warning(options["csv_path"], overlaps), err=True)
        told = {"files": len(files), "left_out": others, "copies": copies, "overlaps": overlaps}
        return csv_invoices.read_csv_events(files), told
    if options["ndjson_path"]:
        name = options["ndjson_path"]
        lines = piped.read_lines(sys.stdin.fileno(), is_stopped) if name == "-" else _open_lines(Path(name))
        return ndjson.read_ndjson_events(lines, contract, name=name), {}
    start = options["start"].replace(tzinfo=UTC) if options["start"] else datetime.now(UTC)
    plan = shop.ShopPlan(
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
    return shop.run_shop(plan), {}


def _left_out_warning(folder: Path, others: list[str]) -> str:
    return (
        f"warning: left out of {folder}, since only its .csv files are read: {_some(others)}. If they hold invoices, "
        f"put them beside the others as .csv."
    )


def _copies_warning(folder: Path, copies: list[str]) -> str:
    return (
        f"warning: files of {folder} hold the same bytes: {_some(copies)}. The rows of each are sent, as events of "
        f"their own. If one is a copy, stop, take it out and begin anew."
    )


def _overlaps_warning(folder: Path, overlaps: list[str]) -> str:
    return (
        f"warning: files of {folder} have whole invoices in common: {_some(overlaps)}. The rows of each are sent, as "
        f"events of their own. If these files overlap, stop, take the rows out of one of them and begin anew."
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - OTHERS_SHOWN} more" if names[OTHERS_SHOWN:] else ""
    return ", ".join(names[:OTHERS_SHOWN]) + more


def _open_lines(path: Path) -> Iterator[bytes]:
    from streaming.errors import SourceError  # noqa: PLC0415

    try:
        with path.open("rb") as lines:
            yield from lines
    except OSError as error:
        raise SourceError(f"reading events from {path}: {error.strerror}. Check --ndjson.") from error
