"""Who uses the CPU: other programs are said, the server and we are not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from servebench.load import host
from servebench.load.host import Host

BURN = "while True: pass"


@pytest.fixture
def burning() -> Iterator[subprocess.Popen[bytes]]:
    """A program that takes a core."""
    process = subprocess.Popen([sys.executable, "-c", BURN])
    time.sleep(0.3)
    yield process
    process.kill()
    process.wait()


def test_the_server_is_no_other_program(burning: subprocess.Popen[bytes]) -> None:
    watched = Host((burning.pid,))
    watched.begin([])
    before = host.cpu_s([burning.pid])
    time.sleep(1.0)
    used_s = host.cpu_s([burning.pid]) - before
    watched.finish()
    assert used_s > 0 and watched.cpu_share is not None and watched.others_cpu_share is not None
    assert watched.others_cpu_share < watched.cpu_share


def test_a_server_that_is_not_ours_leaves_it_open() -> None:
    watched = Host(None)
    watched.begin([])
    time.sleep(0.1)
    watched.finish()
    assert watched.cpu_share is not None and watched.others_cpu_share is None


def test_a_busy_machine_is_said_with_the_names_of_programs(
    burning: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MANY", 0.001), ("NAMED", 99), ("NAMED_SHARE", 0.001)):
        monkeypatch.setattr(host, name, value)
    (words,) = host.Watch().remarks()
    assert words.startswith("other programs use ") and " cores (" in words and "python" in words
    monkeypatch.setattr(host, "MANY", 1.1)
    assert host.Watch().remarks() == []
