"""The warm launcher with a real code server and a real pool: what it forks, ends, notices, survives, leaves alone."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus

from orchestration.launcher import WarmRunLauncher
from orchestration.warm import (
    PROCESS_TAG,
    Identity,
    ask,
    find_server,
    fingerprint,
    identity_of,
    process_of,
    process_tag,
)
from tests.integration.launcher.rig import JOBS, ROOT, Rig, has_ended, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="the pool needs Linux; elsewhere the default launcher is used"),
]
Status = dg.DagsterRunStatus
FORKED_RUNS = int(os.environ.get("FORKED_RUNS", "12"))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("warm"), {"max_children": 4})
    try:
        made.open()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def launcher(rig: Rig) -> WarmRunLauncher:
    found = rig.instance.run_launcher
    assert isinstance(found, WarmRunLauncher)
    return found


def test_without_a_pool_a_run_starts_as_ever_and_a_pool_is_started_for_the_next_one(rig: Rig) -> None:
    first = rig.launch("sleeping", seconds=0.0)
    assert rig.wait(first) is Status.SUCCESS
    assert "Started without the warm pool: it does not answer yet" in rig.messages(first)
    assert PROCESS_TAG not in rig.run(first).tags
    pool = rig.pool()
    second = rig.launch("sleeping", seconds=0.0)
    assert rig.wait(second) is Status.SUCCESS
    assert PROCESS_TAG in rig.run(second).tags
    assert "Started without" not in rig.messages(second)
    assert rig.pool() == pool
    mode = rig.socket.stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_forked_run_has_the_code_server_s_settings_and_shows_its_output(rig: Rig, tmp_path: Path) -> None:
    pool = rig.pool()
    run = rig.launch("telling", out=str(tmp_path / "said"))
    assert rig.wait(run) is Status.SUCCESS
    word, setting, parent, directory = (tmp_path / "said").read_text().splitlines()
    assert (word, setting, int(parent)) == ("first", "of the server", pool)
    assert directory == str(rig.folder)
    keys = [each.dagster_event.event_specific_data.file_key for each in rig.instance.all_logs(run)
            if each.dagster_event and each.dagster_event.event_type is dg.DagsterEventType.LOGS_CAPTURED]  # fmt: skip
    logs = rig.instance.compute_log_manager.get_log_data([run, "compute_logs", keys[0]])
    assert b"said on stdout" in (logs.stdout or b"")
    assert b"said on stderr" in (logs.stderr or b"")


def test_an_edit_is_live_in_the_next_run_without_a_new_pool(rig: Rig, tmp_path: Path) -> None:
    pool = rig.pool()
    for word in ("second", "third"):
        rig.write_jobs(JOBS.replace("first", word))
        assert rig.wait(rig.launch("telling", out=str(tmp_path / word))) is Status.SUCCESS
        assert (tmp_path / word).read_text().startswith(word)
    assert rig.pool() == pool


@pytest.mark.parametrize(
    ("how", "said"),
    [("exit", "ended with exit code 3"), ("kill", "was killed by signal 9"), ("raise", "raised on purpose")],
)
def test_a_run_whose_process_ends_badly_has_failed_within_seconds(rig: Rig, how: str, said: str) -> None:
    run = rig.launch("ending", how=how)
    assert rig.wait(run, patience_s=30.0) is Status.FAILURE
    assert said in rig.messages(run) + str(rig.instance.all_logs(run))


def test_a_run_is_terminated_and_its_process_gone(rig: Rig, launcher: WarmRunLauncher) -> None:
    run = rig.launch("sleeping", seconds=300.0)
    process = rig.process(run)
    rig.started(run)
    assert launcher.check_run_worker_health(rig.run(run)).status is WorkerStatus.RUNNING
    assert launcher.terminate(run)
    assert rig.wait(run, patience_s=30.0) is Status.CANCELED
    until(lambda: not process.is_alive(), "the process ends")


def test_a_pid_that_was_used_again_is_neither_signalled_nor_called_the_run(rig: Rig, launcher: WarmRunLauncher) -> None:
    run = rig.launch("sleeping", seconds=300.0)
    process = rig.process(run)
    rig.started(run)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        other = identity_of(bystander.pid)
        reused = Identity(other.pid, other.birth - 1, other.boot, other.namespace)
        tag = process_tag(run, reused)
        rig.instance.add_run_tags(run, tag)
        assert launcher.check_run_worker_health(rig.run(run)).status is WorkerStatus.FAILED
        assert launcher.terminate(run)
        assert rig.run(run).status is Status.CANCELED, "its process is gone, so nothing else would end it"
        time.sleep(0.3)
        assert bystander.poll() is None, "another program was signalled"
    finally:
        bystander.kill()
        bystander.wait()
        process.terminate(signal.SIGKILL)
        rig.wait(run)


def test_more_runs_than_places_wait_in_the_pool_and_may_be_dropped(rig: Rig, launcher: WarmRunLauncher) -> None:
    at_work = [rig.launch("sleeping", seconds=300.0) for _ in range(4)]
    for run in at_work:
        rig.process(run)
    waiting, unwanted = rig.launch("sleeping", seconds=0.0), rig.launch("sleeping", seconds=0.0)
    assert (ask(rig.socket, {"op": "state"}) or {})["held"] == 2
    assert launcher.check_run_worker_health(rig.run(waiting)).status is WorkerStatus.RUNNING
    assert launcher.terminate(unwanted)
    assert rig.run(unwanted).status is Status.CANCELED
    assert launcher.terminate(at_work[0])
    assert rig.wait(waiting) is Status.SUCCESS
    for run in at_work[1:]:
        launcher.terminate(run)
    assert {rig.wait(run) for run in at_work} == {Status.CANCELED}


def test_many_runs_side_by_side_all_end(rig: Rig) -> None:
    """FORKED_RUNS=200 is the long version."""
    if ask(rig.socket, {"op": "state"}) is None:
        rig.warm_up()
    runs = [rig.launch("sleeping", seconds=0.0) for _ in range(FORKED_RUNS)]
    assert {rig.wait(run, patience_s=60 + 4 * FORKED_RUNS) for run in runs} == {Status.SUCCESS}
    assert [rig.messages(run) for run in runs if PROCESS_TAG not in rig.run(run).tags] == [], "all were forked"
    until(lambda: (ask(rig.socket, {"op": "state"}) or {}).get("children") == 0, "every child is reaped")


def test_a_code_server_with_other_settings_gets_another_pool(rig: Rig, tmp_path: Path) -> None:
    pool = rig.pool()
    rig.stop_server()
    rig.start_server(SERVER_ONLY="changed")
    first = rig.launch("telling", out=str(tmp_path / "one"))
    assert rig.wait(first) is Status.SUCCESS
    assert "not the code server's any more" in rig.messages(first)
    assert "changed" in (tmp_path / "one").read_text(), "even the run before the new pool has the new settings"
    until(lambda: has_ended(pool), "the old pool goes")
    rig.instance.run_launcher._started_at = float("-inf")  # type: ignore[attr-defined]
    if ask(rig.socket, {"op": "state"}) is None:
        rig.wait(rig.launch("sleeping", seconds=0.0))
    assert rig.pool() != pool
    second = rig.launch("telling", out=str(tmp_path / "two"))
    assert rig.wait(second) is Status.SUCCESS
    assert PROCESS_TAG in rig.run(second).tags
    assert "changed" in (tmp_path / "two").read_text()


def test_a_pool_that_was_frozen_when_it_was_asked_does_not_start_the_run_a_second_time(
    rig: Rig, launcher: WarmRunLauncher, tmp_path: Path
) -> None:
    if ask(rig.socket, {"op": "state"}) is None:
        rig.warm_up()
    pool = rig.pool()
    os.kill(pool, signal.SIGSTOP)
    try:
        run = rig.launch("telling", out=str(tmp_path / "said"), seconds=6.0)
        assert "Started without the warm pool" in rig.messages(run)
        rig.started(run)
    finally:
        os.kill(pool, signal.SIGCONT)
    if ask(rig.socket, {"op": "state"}) is None:  # it was not just started, so the launcher has let it go
        until(lambda: has_ended(pool), "the pool that was let go retires")
    assert rig.wait(run) is Status.SUCCESS
    assert PROCESS_TAG not in rig.run(run).tags, "forked as well"
    assert len((tmp_path / "said.times").read_text().splitlines()) == 1
    launcher._started_at = float("-inf")
    if ask(rig.socket, {"op": "state"}) is None:
        rig.warm_up()


def test_a_killed_pool_ends_no_run_and_the_next_one_starts_without_it(rig: Rig, launcher: WarmRunLauncher) -> None:
    pool = rig.pool()
    run = rig.launch("sleeping", seconds=4.0)
    rig.process(run)
    rig.started(run)
    os.kill(pool, signal.SIGKILL)
    until(lambda: ask(rig.socket, {"op": "state"}) is None, "the pool is gone")
    assert launcher.check_run_worker_health(rig.run(run)).status is WorkerStatus.RUNNING
    launcher._started_at = float("-inf")
    second = rig.launch("sleeping", seconds=0.0)
    assert "Started without the warm pool" in rig.messages(second)
    assert rig.wait(second) is Status.SUCCESS
    assert rig.wait(run) is Status.SUCCESS, "a run outlives its pool"
    assert rig.pool() != pool, "the next pool took the place while a child of the old one was still at work"


def test_a_run_whose_pool_and_process_were_killed_is_called_dead_and_canceled_at_once(
    rig: Rig, launcher: WarmRunLauncher
) -> None:
    run = rig.launch("sleeping", seconds=300.0)
    process = rig.process(run)
    rig.started(run)
    os.kill(rig.pool(), signal.SIGKILL)
    assert process.terminate(signal.SIGKILL)
    until(lambda: not process.is_alive(), "the process is gone")
    health = launcher.check_run_worker_health(rig.run(run))
    assert health.status is WorkerStatus.FAILED
    assert "is gone" in str(health.msg)
    assert launcher.terminate(run)
    assert rig.run(run).status is Status.CANCELED
    assert not launcher.terminate(run), "it has ended"


def test_a_pool_goes_with_who_started_it_and_only_one_serves(tmp_path: Path) -> None:
    socket = tmp_path / "pool.sock"
    command = [sys.executable, "-m", "orchestration.pool", "--socket", str(socket), "--preload", "json", "--lifeline"]
    first = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
    try:
        until(lambda: ask(socket, {"op": "state"}), "the pool answers")
        second = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=60, check=False)
        assert second.returncode == 0
        assert (ask(socket, {"op": "state"}) or {})["pid"] == first.pid
        assert first.stdin is not None
        first.stdin.close()
        assert first.wait(30) == 0
    finally:
        first.kill()
        first.wait()


def test_the_pool_forgets_a_client_that_says_nothing(tmp_path: Path) -> None:
    import socket as sockets

    path = tmp_path / "pool.sock"
    pool = subprocess.Popen(
        [sys.executable, "-m", "orchestration.pool", "--socket", str(path), "--preload", "json", "--lifeline"],
        cwd=ROOT, stdin=subprocess.PIPE,
    )  # fmt: skip
    try:
        until(lambda: ask(path, {"op": "state"}), "the pool answers")
        with sockets.socket(sockets.AF_UNIX) as silent, sockets.socket(sockets.AF_UNIX) as rubbish:
            silent.connect(str(path))
            rubbish.connect(str(path))
            rubbish.sendall(b"\xff\n")
            assert (ask(path, {"op": "state"}, timeout_s=10.0) or {})["pid"] == pool.pid
    finally:
        if pool.stdin is not None:
            pool.stdin.close()
        pool.kill()
        pool.wait()


def test_the_fingerprint_changes_with_settings_and_not_with_a_shell_s_own_words() -> None:
    base = {"LAKE_DSN": "postgresql://a", "PATH": "/bin"}
    assert fingerprint(base) == fingerprint({**base, "PWD": "/x", "_": "y", "SHLVL": "3"})
    assert fingerprint(base) != fingerprint({**base, "LAKE_DSN": "postgresql://b"})


def test_a_server_elsewhere_is_not_found() -> None:
    assert find_server(port=1, path=None) is None
    assert find_server(port=None, path="/nowhere.sock") is None


def test_a_retry_is_not_judged_by_the_process_of_the_run_whose_tags_it_got() -> None:
    process = identity_of(os.getpid())
    tags = process_tag("first", process)
    assert process_of("first", tags) == process
    assert process_of("its retry", tags) is None
    assert process_of("first", {}) is None
    assert process_of("first", {PROCESS_TAG: "[]"}) is None
