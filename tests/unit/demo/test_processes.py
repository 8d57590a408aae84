"""Ports for servers: nobody else may come to one between the choice and the server's start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy import processes
from deploy.processes import free_port

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
ASK = (
    "from deploy import processes; processes.PORTS = range(21000, 21040)\n"
    "print(processes.free_port(), flush=True); input()"
)


@pytest.mark.skipif(not EPHEMERAL.exists(), reason="the kernel does not say which ports outgoing connections get")
def test_no_outgoing_connection_can_take_the_port() -> None:
    lowest = int(EPHEMERAL.read_text().split()[0])
    if lowest <= processes.PORTS.start:
        pytest.skip(f"outgoing connections get every port from {lowest} on this machine")
    assert all(free_port() < lowest for _ in range(50))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that die with their process")
def test_two_processes_are_never_given_one_port() -> None:
    """Ten processes choose from 40 ports at once: by chance alone seven in ten such draws would hold a pair."""
    asking = [
        subprocess.Popen([sys.executable, "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(10)
    ]
    try:
        ports = [int(each.stdout.readline()) for each in asking if each.stdout]
    finally:
        for each in asking:
            each.communicate("\n")
    assert len(ports) == len(set(ports)) == 10
    assert all(21000 <= port < 21040 for port in ports)


def test_one_process_is_not_given_a_port_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PORTS", range(22000, 22100))
    ports = [free_port() for _ in range(30)]
    assert len(set(ports)) == 30
