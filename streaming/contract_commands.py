"""Commands about contracts: propose one. Wiring only.

Not here: the proposal itself (propose.py).
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streaming import contract as contracts
from streaming.errors import ContractError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command("new-stream")
@click.argument("topic")
@click.option(
    "--from-sample", "sample_path", required=True, help="A file of events, one JSON object a line; - for stdin."
)
@click.option("--zone", help="Whose midnight ends its days, as Europe/London; default: that of the other contracts.")
@click.option("--stdout", "is_shown", is_flag=True, help="Print the contract instead of writing the file.")
@click.option("--force", "is_forced", is_flag=True, help="Replace the contract that there is.")
def new_stream(topic: str, sample_path: str, zone: str | None, *, is_shown: bool, is_forced: bool) -> None:
    """Propose a contract for TOPIC from a sample of its events, which it lands without an edit."""
    from streaming.propose import propose_contract  # noqa: PLC0415 a command imports what it needs
    from streaming.sample import read_sample  # noqa: PLC0415

    contracts.require_topic_name(topic)
    folder = Path(os.environ.get("STREAMING_CONTRACTS_DIR") or contracts.CONTRACTS_DIR)
    path = folder / f"{topic}.yaml"
    with _is_accessible(path):
        is_taken = path.exists()
    if is_taken and not (is_forced or is_shown):
        raise ContractError(
            f"proposing a contract for {topic}: {path} exists. Nothing was written. Replace it by --force."
        )
    try:
        with nullcontext(sys.stdin.buffer) if sample_path == "-" else Path(sample_path).open("rb") as lines:
            sample = read_sample(lines, name=sample_path)
    except OSError as error:
        raise SourceError(
            f"reading the sample {sample_path}: {error.strerror}. Nothing was written. Check --from-sample."
        ) from error
    zone, zone_note = _choose_zone(topic, zone, folder)
    text, contract = propose_contract(topic, sample, now=datetime.now(UTC), zone=zone, zone_note=zone_note)
    if is_shown:
        click.echo(text, nl=False)
        return
    _refuse_shared_stream(contract, folder)
    with _is_accessible(path):
        path.write_text(text, encoding="utf-8")
    cut = " (the first ones of the file)" if sample.is_cut else ""
    click.echo(f"wrote {path}: {len(contract.fields)} fields of {sample.events:,} events{cut}, event time "
               f"{contract.event_time_field}. Read its comments; then `streaming migrate`.")  # fmt: skip


def _choose_zone(topic: str, wanted: str | None, folder: Path) -> tuple[str, str]:
    """The zone of a proposal's days, and why it is that one; days of one deployment end at one midnight."""
    tried = f"proposing a contract for {topic}"
    if wanted is not None:
        if not contracts.is_zone(wanted):
            raise ContractError(
                f"{tried}: --zone {wanted!r} is not a zone of the IANA database. Nothing was written. Write it as "
                f"Europe/London."
            )
        return wanted, "as --zone says"
    zones: dict[str, list[str]] = {}
    for other in contracts.load_contracts(folder, without=topic).values():
        zones.setdefault(other.time_zone, []).append(other.topic)
    if not zones:
        return contracts.DEFAULT_ZONE, "no other contract is there to tell it; a zone of your own is given by --zone"
    if len(zones) > 1:
        listed = ", ".join(f"{zone} of {topics[0]}" for zone, topics in sorted(zones.items()))
        raise ContractError(
            f"{tried}: the other contracts in {folder} have several time zones ({listed}). Nothing was written. Say by "
            f"--zone whose midnight ends its days; of a stream that Dagster loads it is that of Dagster's partitions."
        )
    [(zone, topics)] = zones.items()
    return zone, f"as that of {topics[0]}, so that one day is the same span in all"


@contextmanager
def _is_accessible(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ContractError(
            f"writing the contract {path}: {error.strerror}. It is not there, or not whole. Give us room and the right "
            f"to write there, or name another folder in STREAMING_CONTRACTS_DIR; --force replaces what is there."
        ) from error


def _refuse_shared_stream(contract: contracts.Contract, folder: Path) -> None:
    if not folder.is_dir():
        raise ContractError(
            f"proposing a contract for {contract.topic}: STREAMING_CONTRACTS_DIR={folder} is no folder."
        )
    for other in contracts.load_contracts(folder, without=contract.topic).values():
        if other.stream == contract.stream:
            raise ContractError(
                f"proposing a contract for {contract.topic}: topic {other.topic} has the landing table "
                f"landing.{contract.stream} already. Nothing was written. Take --stdout, and change schema.name in it."
            )
        if contracts.is_month_of(other.stream, contract.stream):
            raise ContractError(
                f"proposing a contract for {contract.topic}: topic {other.topic} has the table landing.{other.stream}, "
                f"as a month of landing.{contract.stream} would be called. Nothing was written. Take --stdout, and "
                f"change schema.name in it."
            )
