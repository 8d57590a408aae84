"""The demo's folder: one demo at a time, ports that stay, settings that can be sourced."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.demo.state import State
from deploy.errors import AlreadyRunningError, PortInUseError, StateError
from deploy.processes import free_port


def test_second_claim_names_the_process_that_holds_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from deploy.demo.state import State; "
        "state = State(pathlib.Path(sys.argv[1])); state.claim(); print('ok', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ok\n"
        with pytest.raises(AlreadyRunningError, match=f"process {holder.pid}"):
            State(tmp_path).claim()
        with pytest.raises(AlreadyRunningError):
            State(tmp_path).clean()
        holder.kill()
        holder.wait()
        State(tmp_path).claim()
    finally:
        holder.kill()
        holder.communicate()


def test_port_asked_for_and_taken_is_refused_and_a_usual_one_is_replaced_with_a_note(tmp_path: Path) -> None:
    state, notes = State(tmp_path), []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"port {port}"):
            state.port("Kafka", asked=port)
        chosen = state.port("Dagster", asked=None, preferred=port, note=notes.append)
    assert chosen != port
    assert notes == [f"Port {port} is in use by another program: Dagster gets {chosen}"]


def test_port_stays_the_same_at_the_next_start(tmp_path: Path) -> None:
    assert State(tmp_path).port("Kafka", asked=None) == State(tmp_path).port("Kafka", asked=None)
    asked = free_port()
    assert State(tmp_path).port("Kafka", asked=asked) == asked


def test_environment_can_be_sourced_whatever_it_holds(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.write_environment({"LAKE_DSN": 'it\'s $HOME "quoted" & more'})
    shell = subprocess.run(
        ["bash", "-c", 'source "$1"; printf %s "$LAKE_DSN"', "-", state.env_file],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == 'it\'s $HOME "quoted" & more'
    assert state.env_file.stat().st_mode & 0o777 == 0o600


def test_clean_removes_the_folder_and_does_not_mind_if_there_is_none(tmp_path: Path) -> None:
    state = State(tmp_path / "demo")
    state.clean()
    state.claim()
    state.release()
    state.clean()
    assert not state.root.exists()


def test_a_folder_that_is_no_demo_s_is_neither_used_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.odt").write_text("years of work")
    (tmp_path / ".demo").mkdir()
    for act in (State(tmp_path).claim, State(tmp_path).clean):
        with pytest.raises(StateError, match=r"is no demo's state: it holds \.demo, thesis\.odt and no ports\.json"):
            act()
    assert sorted(each.name for each in tmp_path.iterdir()) == [".demo", "thesis.odt"]


def test_what_a_demo_has_left_is_removed_also_if_it_was_killed_at_once(tmp_path: Path) -> None:
    for name in ("lock", "ports.json"):
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / name).write_text("")
        State(tmp_path / "state").clean()
        assert not (tmp_path / "state").exists()


def test_a_state_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StateError, match=r"for the demo's state: .*Nothing was started or removed"):
            State(path).claim()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")
def test_a_full_disk_is_told_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("/dev/full")
    with pytest.raises(StateError, match=r"for the demo's state: .*Nothing was started"):
        State(tmp_path).claim()


def test_a_file_that_cannot_be_written_ends_the_demo_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "ports.json").mkdir()
    demo = subprocess.run(
        [sys.executable, "-m", "deploy.demo", "--state", tmp_path, "run"], capture_output=True, text=True, check=False
    )
    assert demo.returncode == 1
    assert re.search(r"error: .*Errno.*ports\.json", demo.stdout)
    assert "Traceback" not in demo.stdout + demo.stderr
