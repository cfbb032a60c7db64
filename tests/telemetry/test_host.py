"""Who uses the CPU: other programs are said, the server and we are not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from servebench.telemetry import host
from servebench.telemetry.host import HostReader

BURN = "while True: pass"
Burning = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def burning() -> Iterator[Burning]:
    """Start a program that takes a core."""
    running = []

    def start(own_session: bool = False) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", BURN]
        running.append(subprocess.Popen(command, start_new_session=own_session))
        time.sleep(0.3)
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def increases(reader: HostReader) -> dict[str, float]:
    before = reader()
    time.sleep(1.0)
    after = reader()
    return {name: after[name] - before[name] for name in after}


def test_a_server_is_all_of_its_session_and_not_the_client(burning: Burning) -> None:
    server = burning(own_session=True)
    took = increases(HostReader(os.getpid(), [server.pid]))
    assert took["server_s"] > 0.05 and took["busy_s"] > 0.8 * took["server_s"]
    assert took["client_s"] < 0.5 * took["server_s"]


def test_what_the_client_starts_is_the_client(burning: Burning) -> None:
    burning()
    took = increases(HostReader(os.getpid(), None))
    assert took["client_s"] > 0.05 and "server_s" not in took


def test_processes_that_come_and_go_are_counted_from_when_they_are_seen(burning: Burning) -> None:
    reader = HostReader(os.getpid(), None)
    before = reader()["client_s"]
    child = burning()
    reader._look()
    seen = reader()["client_s"]
    time.sleep(0.5)
    child.kill()
    child.wait()
    gone = reader()["client_s"]
    assert before <= seen <= gone  # its first tenths are not added at once, and none is taken back


def test_others_are_named_by_what_they_took(burning: Burning, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "NAMED_SHARE", 0.01)
    monkeypatch.setattr(host, "NAMED", 99)
    other = burning()
    reader = HostReader(other.pid, None)  # as if that program were the client, so that we are others
    reader()
    end_s = time.monotonic() + 0.5
    while time.monotonic() < end_s:
        pass
    assert psutil.Process().name() in reader.busiest()


def test_a_busy_machine_is_said_with_the_names_of_programs(
    burning: Burning, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MANY", 0.001), ("NAMED", 99), ("NAMED_SHARE", 0.001)):
        monkeypatch.setattr(host, name, value)
    burner = burning(own_session=True)
    monkeypatch.setattr(host.os, "getpid", lambda: 10**9)  # nothing on this host is ours
    (words,) = host.Watch().remarks()
    assert words.startswith("other programs use ") and psutil.Process(burner.pid).name() in words
    monkeypatch.setattr(host, "MANY", 1.1)
    assert host.Watch().remarks() == []
