"""Starts `streaming` processes in milliseconds: imports the room once, then forks a process for each line it reads.

A line of JSON {"argv": [...], "env": {...}, "log": path} -> the pid, as a line. Each process is the command as a user
runs it, with its own environment, signals and log; only the second in which Python imports is saved. Its exit code is
written to <log>.code by its parent. The end of this process is the end of them all.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main() -> None:
    import streaming.__main__
    import streaming.consumer  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for text in sys.stdin:
        order = json.loads(text)
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            watch(order, writer)
        os.close(writer)
        with os.fdopen(reader) as answer:
            sys.stdout.write(answer.read() + "\n")
            sys.stdout.flush()


def watch(order: dict, answer: int) -> None:
    """The parent of one process: tells its pid, waits for its end."""
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        run(order)
    os.write(answer, str(pid).encode())
    os.close(answer)
    _, status = os.waitpid(pid, 0)
    Path(order["log"] + ".code").write_text(str(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def run(order: dict) -> None:
    """The process itself."""
    die_with_parent()
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(log, 2)
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # kill -USR1 <pid> writes all stacks into its log
    os.environ.update(order["env"])
    sys.argv = ["streaming", *order["argv"]]
    code = 1
    try:
        from streaming.__main__ import main as command

        command()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 the end of the process
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
