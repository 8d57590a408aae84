"""Commands about dead letters: list, show, export, replay. Wiring only.

Not here: how letters are kept (dead_letter.py), written to files (dead_letter_file.py), landed again (replay.py).
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from streaming import contract as contracts
from streaming.errors import ReplayError
from streaming.lake_commands import require_topic, wide_console
from streaming.settings import LakeSettings, ReplaySettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

FORMATS = ("ndjson", "csv")
TOPIC_OPTION = click.option("--topic", help="Needed if there are several contracts.")


def only_topic(settings: LakeSettings) -> str:
    """The topic, where there is but one contract."""
    known = sorted(path.stem for path in settings.contracts_dir.glob("*.yaml"))
    if len(known) != 1:
        raise click.UsageError(f"name the topic by --topic; there are {len(known)} contracts: {', '.join(known)}")
    return known[0]


@click.group("dead-letters")
def dead_letters() -> None:
    """Events kept aside because they break the contract."""


@dead_letters.command("list")
@TOPIC_OPTION
@click.option("--reason")
@click.option("--all", "is_all", is_flag=True, help="Replayed ones too.")
@click.option("--limit", type=click.IntRange(0, 1_000_000), default=50, show_default=True)
@click.option("--json", "is_json", is_flag=True)
def dead_letters_list(topic: str | None, reason: str | None, *, is_all: bool, limit: int, is_json: bool) -> None:
    """Counts by reason, then the letters."""
    from streaming import dead_letter  # noqa: PLC0415
    from streaming.database import connected  # noqa: PLC0415

    settings = LakeSettings.from_env(os.environ)
    topic = topic or only_topic(settings)
    with connected(settings.dsn, command="dead-letters") as conn:
        require_topic(conn, topic, settings)
        dead_letter.refuse_unknown_reason(conn, topic, reason)
        counts = dead_letter.count_dead_letters(conn, topic)
        letters = dead_letter.read_dead_letters(conn, topic, reason=reason, is_open=not is_all, limit=limit)
    if is_json:
        for letter in letters:
            click.echo(json.dumps({"topic_partition": letter.topic_partition, "topic_offset": letter.topic_offset,
                       "reason": letter.reason, "field": letter.field, "detail": letter.detail,
                       "replayed_at": letter.replayed_at and letter.replayed_at.isoformat()}))  # fmt: skip
        return
    console = wide_console()
    summary = Table("reason", "field", "open", "replayed", title=Text(f"dead letters of {topic}"))
    for found_reason, field, still_open, replayed in counts:
        summary.add_row(found_reason, Text(field or ""), f"{still_open:,}", f"{replayed:,}")
    console.print(summary)
    table = Table("part", "offset", "reason", "field", "detail", "landed at")
    for letter in letters:
        table.add_row(str(letter.topic_partition), str(letter.topic_offset), letter.reason, Text(letter.field or ""),
                      Text(letter.detail), f"{letter.landed_at:%Y-%m-%d %H:%M:%S}")  # fmt: skip
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
@TOPIC_OPTION
@click.option("--raw", "is_raw", is_flag=True, help="The value's bytes only, to a file or an editor.")
def dead_letters_show(at: str, topic: str | None, *, is_raw: bool) -> None:
    """One letter, whole."""
    from streaming import dead_letter  # noqa: PLC0415
    from streaming.database import connected  # noqa: PLC0415

    settings = LakeSettings.from_env(os.environ)
    topic = topic or only_topic(settings)
    with connected(settings.dsn, command="dead-letters") as conn:
        require_topic(conn, topic, settings)
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


@dead_letters.command("export")
@click.argument("path", metavar="FILE")
@TOPIC_OPTION
@click.option("--reason", help="Only letters of this reason.")
@click.option("--all", "is_all", is_flag=True, help="Replayed ones too.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: by the file's ending; ndjson for others.")
@click.option("--force", "is_forced", is_flag=True, help="Replace the file that there is.")
def dead_letters_export(path: str, topic: str | None, **options: Any) -> None:
    """Write letters to FILE (- for stdout), to be mended and given back by `replay --from FILE`."""
    from streaming import dead_letter  # noqa: PLC0415
    from streaming.database import connected  # noqa: PLC0415
    from streaming.dead_letter_file import write_letters  # noqa: PLC0415

    settings = LakeSettings.from_env(os.environ)
    topic = topic or only_topic(settings)
    with connected(settings.dsn, command="dead-letters") as conn:
        require_topic(conn, topic, settings)
        dead_letter.refuse_unknown_reason(conn, topic, options["reason"])
        letters = dead_letter.iter_dead_letters(conn, topic, reason=options["reason"], is_open=not options["is_all"])
        if path == "-":
            write_letters(letters, sys.stdout, options["form"] or "ndjson")
            return
        with _opened_out(Path(path), is_forced=options["is_forced"]) as out:
            count = write_letters(letters, out, options["form"] or _form_of(path))
    is_file = Path(path).is_file()  # else it may be /dev/stdout, and the letters are there
    click.echo(f"wrote {count:,} letters of {topic} to {path}", err=not is_file)


def _form_of(path: str) -> str:
    return "csv" if path.lower().endswith(".csv") else "ndjson"


@contextmanager
def _opened_out(path: Path, *, is_forced: bool) -> Iterator[TextIO]:
    """A file of its own, or the device or pipe that is there; a file with somebody's edits is replaced only if told."""
    if path.is_file() and not is_forced:
        raise ReplayError(
            f"writing {path}: it exists. Nothing was exported. Name another file, or replace it by --force."
        )
    is_device = path.exists() and not path.is_file()
    try:
        with path.open("w", encoding="utf-8", newline="") if is_device else _written_whole(path.resolve()) as out:
            yield out
    except OSError as error:
        raise ReplayError(f"writing {path}: {error.strerror}. No letter was changed; name another file.") from error


@contextmanager
def _written_whole(path: Path) -> Iterator[TextIO]:
    """A file that appears once it is complete; for its owner alone, since events may hold what is personal."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(
            os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline=""
        ) as out:
            yield out
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@dead_letters.command("replay")
@click.argument("at", metavar="[PARTITION:OFFSET]", required=False)
@TOPIC_OPTION
@click.option("--reason", help="With --all: only letters of this reason.")
@click.option(
    "--value", "value_path", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Land this file's bytes instead.",
)  # fmt: skip
@click.option("--all", "is_all", is_flag=True, help="Every open letter (of the reason).")
@click.option(
    "--from", "given_path", help="The letters of a file that `export` wrote, with the values as they are there."
)
@click.option("--format", "form", type=click.Choice(FORMATS), help="Of --from; default: by the file's ending.")
def dead_letters_replay(topic: str | None, **options: Any) -> None:
    """Land letters again: after the contract or code was mended, or with edited values. What has landed is left out."""
    from streaming import replay  # noqa: PLC0415
    from streaming.database import connected  # noqa: PLC0415
    from streaming.decode import Decoder  # noqa: PLC0415
    from streaming.formats.open_reader import open_reader  # noqa: PLC0415

    if sum([options["at"] is not None, options["is_all"], options["given_path"] is not None]) != 1:
        raise click.UsageError("name one letter as PARTITION:OFFSET, or --all, or --from FILE")
    if options["value_path"] and options["at"] is None:
        raise click.UsageError("--value is for one letter, named as PARTITION:OFFSET")
    if options["reason"] is not None and not options["is_all"]:
        raise click.UsageError("--reason is for --all")
    settings = ReplaySettings.from_env(os.environ)
    topic = topic or only_topic(settings.lake)
    contract = contracts.load_contract(topic, settings.lake.contracts_dir)
    decoder = Decoder(contract, reader=open_reader(contract, settings.registry))
    with connected(settings.lake.dsn, command="dead-letters replay") as conn:
        done = replay.replay_edited(conn, decoder, _chosen_letters(conn, topic, options))
    total = done.landed + done.refused + done.already
    click.echo(f"landed {done.landed}, still refused {done.refused}, landed before {done.already}, of {total}")
    for letter, problem in done.first_refused:
        click.echo(f"  {letter.topic_partition}:{letter.topic_offset} {problem}")
    if done.refused:
        raise SystemExit(2)


def _chosen_letters(conn: Any, topic: str, options: dict[str, Any]) -> Iterator[tuple[Any, bytes | None]]:
    """Letters, each with the value to land instead of its own."""
    from streaming import dead_letter  # noqa: PLC0415
    from streaming.dead_letter_file import read_given  # noqa: PLC0415

    if options["at"] is not None:
        edited = options["value_path"].read_bytes() if options["value_path"] else None
        yield _one_letter(conn, topic, options["at"]), edited
    elif options["is_all"]:
        dead_letter.refuse_unknown_reason(conn, topic, options["reason"])
        yield from ((letter, None) for letter in dead_letter.iter_dead_letters(conn, topic, reason=options["reason"]))
    else:
        path = options["given_path"]
        form = options["form"] or _form_of(path)
        try:
            with _stdin_as_it_is() if path == "-" else Path(path).open(encoding="utf-8", newline="") as lines:
                for given in read_given(lines, form, name=path):
                    letter = _given_letter(conn, topic, given)
                    yield letter, given.edited(letter)
        except (OSError, UnicodeDecodeError) as error:
            raise ReplayError(f"reading {path}: {error}. Lines before were replayed; check --from.") from error


def _stdin_as_it_is() -> TextIO:
    """Standard input as a file is read: Python's own alters line ends within values, and goes by the locale."""
    return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", newline="")


def _given_letter(conn: Any, topic: str, given: Any) -> Any:
    if given.topic != topic:
        raise ReplayError(
            f"reading {given.where}: it is a letter of {given.topic}, and {topic} is replayed. Lines before it were "
            f"replayed. Give --topic {given.topic}, or take the line out."
        )
    return _one_letter(conn, topic, f"{given.topic_partition}:{given.topic_offset}")
