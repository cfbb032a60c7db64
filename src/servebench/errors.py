"""Every exception of ours.

Exception
├── InputError     what the user gave cannot work: exit status 2, before anything starts
├── LogError       a file that is no log we can read; it is named and left out
├── HttpError      an answer that breaks HTTP or says that the call failed: one failed request
└── PointFailed    a point cannot be completed: what was measured of it is kept, the sweep goes on
    └── ServerFailed   its server did not start, or is gone
"""

from __future__ import annotations

from pathlib import Path


class InputError(Exception):
    """Something the user gave that cannot work: one line that says what, why, and what to type instead."""


def no_logs(folder: Path, filtered: bool = False) -> InputError:
    """`filtered`: there may be logs that --filter keeps out."""
    if filtered:
        return InputError(f"no logs in {folder} pass --filter; correct it")
    return InputError(f"no logs in {folder}; give a folder that run_benchmark.py wrote to")


class LogError(Exception):
    """A file that is not a log we can read. The message says which file, why, and what to do."""


class HttpError(Exception):
    """Bytes that are no HTTP answer, or an answer that says in HTTP's terms that the call failed."""


class PointFailed(Exception):
    """A point cannot be completed. What was measured of it is kept. The message says why."""


class ServerFailed(PointFailed):
    """The server did not start, or is gone. `log_tail` has the last lines of its log."""

    def __init__(self, why: str, log_tail: str = "") -> None:
        super().__init__(why)
        self.log_tail = log_tail
