"""How processes are stopped together: a server with all that it started, and a child with its parent (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress

import psutil

SIGTERM_S, SIGKILL_S = 15.0, 5.0  # how long to wait for a session's end after each signal
PR_SET_PDEATHSIG = 1


def session_processes(leader: int) -> list[psutil.Process]:
    """The living processes of the session with this leader's pid, orphans included."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_session(leader: int) -> None:
    """End every process of a session: ask with SIGTERM, then kill."""
    for number, wait_s in ((signal.SIGTERM, SIGTERM_S), (signal.SIGKILL, SIGKILL_S)):
        with suppress(ProcessLookupError):
            os.killpg(leader, number)
        end = time.monotonic() + wait_s
        while session_processes(leader) and time.monotonic() < end:
            time.sleep(0.05)
    for process in session_processes(leader):  # those that left the leader's process group
        with suppress(psutil.Error):
            process.kill()


def end_with_parent() -> None:
    """Call in the child: it gets SIGTERM when its parent ends, even by SIGKILL."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
