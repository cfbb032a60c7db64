"""Ending all that a server started, also when the server itself is killed. Used by mii_server.py."""

import os
import shutil
import signal
import time
from contextlib import suppress

import psutil

STOP_S = 8.0  # from SIGTERM to SIGKILL; less than the patience of a benchmark that ends us
ASKS_TO_END = (signal.SIGTERM, signal.SIGINT)


def start_guard(scratch: str) -> int:
    """A fork that cleans up when this process is gone, however it went. Gives its process id. Call it before there
    are threads."""
    alive, held = os.pipe()  # `held` closes with this process: those that it starts do not inherit it
    guard = os.fork()
    if guard:
        os.close(alive)
        return guard
    os.close(held)
    ignore_asks_to_end()
    os.read(alive, 1)
    clean_up(scratch, os.getpid())
    os._exit(0)


def ignore_asks_to_end() -> None:
    for number in ASKS_TO_END:
        signal.signal(number, signal.SIG_IGN)


def clean_up(scratch: str, *spared: int) -> None:
    """End all processes of our group but these, politely, then not, and remove a folder."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + STOP_S
        for process in others(spared):
            with suppress(psutil.Error):
                process.send_signal(number)
        while others(spared) and time.monotonic() < end:
            time.sleep(0.05)
    shutil.rmtree(scratch, ignore_errors=True)


def others(spared: tuple[int, ...]) -> list[psutil.Process]:
    """The living processes of our group but these."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            ours = os.getpgid(process.pid) == os.getpgrp() and process.pid not in spared
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
