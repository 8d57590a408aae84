"""What the demo's processes are given of a user's environment, and what is advised when one of them ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deploy import processes
from deploy.demo.line import CONSUMER, Line, Ports
from deploy.demo.state import State
from deploy.errors import NotReadyError
from streaming.batch import prepare_batch
from streaming.decode import Decoder
from streaming.errors import DeadLetterLimitError
from streaming.refusal_window import RefusalWindow
from tests.unit.streaming.events import NOW, FakeMessage, order_bytes, orders_contract

if TYPE_CHECKING:
    from pathlib import Path


def line_in(folder: Path) -> Line:
    return Line(state=State(folder), ports=Ports(), note=lambda _: None)


def test_the_dead_letter_limit_of_the_shell_reaches_the_demo_and_a_deployment_s_settings_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"STREAMING_DEAD_LETTER_LIMIT": "1", "STREAMING_GROUP_ID": "theirs", "LAKE_DSN": "postgresql://theirs"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    given = line_in(tmp_path).process_environment()
    assert {name: given.get(name) for name in settings} == dict.fromkeys(settings) | {
        "STREAMING_DEAD_LETTER_LIMIT": "1"
    }


def test_a_consumer_that_stopped_at_bad_events_is_not_advised_to_start_again_as_it_was(tmp_path: Path) -> None:
    messages = [FakeMessage(number, order_bytes(items="x")) for number in range(10)]
    bad = prepare_batch(Decoder(orders_contract()), 0, messages, expected_offset=0, now=NOW)
    with pytest.raises(DeadLetterLimitError) as stopped:
        RefusalWindow("shop.orders", events=10, limit=0.5).add(bad)
    told = ended(tmp_path, CONSUMER, f"landed 5\nDeadLetterLimitError: {stopped.value}")
    assert "`STREAMING_DEAD_LETTER_LIMIT=1 make demo`" in told
    assert "`make demo-clean`" in told
    assert "goes on from where it was" not in told


@pytest.mark.parametrize("name", [CONSUMER, "Dagster daemon"])
def test_whatever_else_ends_goes_on_with_the_next_start(tmp_path: Path, name: str) -> None:
    told = ended(tmp_path, name, "MemoryError")
    assert "`make demo` starts it again and goes on from where it was" in told
    assert "DEAD_LETTER" not in told


def test_a_stream_of_the_user_s_own_gets_its_topic_and_lands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "contracts").mkdir()
    for topic in ("retail.invoices", "web.visits"):
        (tmp_path / "contracts" / f"{topic}.yaml").touch()
    steps: list[list[str]] = []
    monkeypatch.setattr("deploy.demo.line.CONTRACTS", tmp_path / "contracts")
    monkeypatch.setattr(Line, "step", lambda _line, _name, arguments: steps.append(list(arguments)))
    monkeypatch.setattr(Line, "spawn", lambda _line, _name, arguments: steps.append(list(arguments)))
    line_in(tmp_path)._landing(lambda: steps.append(["fed"]))
    created = [step[-1] for step in steps if step[1:4] == ["streaming", "topic", "create"]]
    assert created == ["retail.invoices", "web.visits"]
    assert steps[-2:] == [["-m", "streaming", "consume"], ["fed"]]


def ended(folder: Path, name: str, words: str) -> str:
    """What the line says of a process that wrote these words and ended."""
    line, log = line_in(folder), folder / "ended.log"
    process = processes.start(name, ["sh", "-c", f"cat <<'E'\n{words}\nE\nexit 1"], log=log, env={}, cwd=folder)
    line._register(process)
    process.guard.wait()
    with pytest.raises(NotReadyError) as caught:
        line.check()
    process.stop()
    return str(caught.value)
