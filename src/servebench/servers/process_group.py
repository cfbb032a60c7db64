"""The processes of a session: what a server and all that it started live in, and are ended as."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import psutil

STOP_S = 15.0  # from SIGTERM to SIGKILL


def session(leader: int) -> list[psutil.Process]:
    """Every living process of this process's session, also those whose parent is gone."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_session(leader: int) -> None:
    """End a whole session: politely, then not."""
    for number, wait_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.killpg(leader, number)
        end = time.monotonic() + wait_s
        while session(leader) and time.monotonic() < end:
            time.sleep(0.05)
    for left in session(leader):  # those who left the group
        with suppress(psutil.Error):
            left.kill()
