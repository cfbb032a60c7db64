"""How processes are stopped together: a server with all that it started, also when we are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from subprocess import DEVNULL, PIPE, Popen

import psutil

SIGTERM_S, SIGKILL_S = 15.0, 5.0  # how long to wait for a session's end after each signal
# Its stdin closes when we end.
END_AFTER_US = "read _; kill -TERM -$0; for i in $(seq 150); do kill -0 -$0 || exit; sleep 0.1; done; "
END_AFTER_US += "kill -KILL -$0"


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


@contextmanager
def ends_with_us(leader: int) -> Iterator[None]:
    """If we are killed inside, this session ends, too: a process beside us sees to it."""
    command = ["sh", "-c", END_AFTER_US, str(leader)]
    with Popen(command, stdin=PIPE, stderr=DEVNULL, start_new_session=True) as guard:
        try:
            yield
        finally:
            guard.kill()
