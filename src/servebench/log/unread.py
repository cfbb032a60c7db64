"""Requests that stay in their file until somebody needs them, and that are forgotten soon after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from servebench.errors import LogError
from servebench.log import store
from servebench.log.result import Result
from servebench.log.schema import Log

IN_MEMORY = 8  # logs whose requests are there at a time: the runs of a point
Mark = tuple[int, int, int]  # of a file that stays the same: size, time and inode


class Unread(Sequence[Result]):
    """The `results` or `probes` of a log."""

    def __init__(self, path: Path, mark: Mark, field: str) -> None:
        self.path, self.mark, self.field = path, mark, field

    def __getitem__(self, index: Any) -> Any:
        return getattr(_read(self.path, self.mark), self.field)[index]

    def __iter__(self) -> Iterator[Result]:
        return iter(self[:])

    def __len__(self) -> int:
        return len(self[:])


def with_requests(log: Log) -> Log:
    """This log, or the one in its file: what holds requests stays with that one, so it is forgotten with them."""
    return _read(log.results.path, log.results.mark) if isinstance(log.results, Unread) else log


def mark_of(path: Path) -> Mark:
    """Raises OSError."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


@lru_cache(IN_MEMORY)
def _read(path: Path, mark: Mark) -> Log:
    """Raises LogError."""
    log = store.load(path)
    if mark_of(path) != mark:
        raise LogError(f"{path}: was replaced while it was being read; try again")
    return log
