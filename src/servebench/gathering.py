"""The logs of a folder, and which of them are runs of one point."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from servebench import records
from servebench.records import Log, LogError, RunConfig, ServerConfig

# In the name of a point's log; that of the original suite's first release ends in _c8_p2600_g60.
POINT = re.compile(r"-(clients|rate|trace)\d|_c\d+_p\d+_g\d+").search

OF_NO_POINTS = ("superseded", "searches")  # folders beside the logs


def load_folder(folder: Path) -> Iterator[tuple[Path, Log]]:
    """Every log of a results folder, or of one backend's, the runs of a point in succession.

    Files that are no logs are named and left out.
    """
    found = [path for path in (*folder.glob("*.json"), *folder.glob("*/*.json")) if POINT(path.name)]
    return read(sorted((path for path in found if path.parent.name not in OF_NO_POINTS), key=_numbers_by_size))


def read(paths: Iterable[Path], requests: bool = True) -> Iterator[tuple[Path, Log]]:
    """Logs one by one; files that are no logs are named and left out."""
    for path in paths:
        try:
            yield path, records.load(path, requests)
        except LogError as error:
            print(f"left out: {error}", file=sys.stderr)


def _numbers_by_size(path: Path) -> list[str]:
    """So that clients8 stands before clients16."""
    return [part.zfill(12) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def point_key(server: ServerConfig, run: RunConfig) -> bytes:
    """What was asked for, whichever run."""
    return msgspec.json.encode([server, msgspec.structs.replace(run, repetition=0)], order="sorted")


def point_of(log: Log) -> tuple[bytes, str]:
    """The same for all runs of a point, and only for them; another version of the engine is another point."""
    if log.identity:
        return log.fingerprint.encode(), ""
    return point_key(log.server, log.run), log.server_facts.engine


def by_point(logs: Iterable[Log]) -> list[list[Log]]:
    """The runs of each point, in the order in which points appear."""
    points: dict[tuple[bytes, str], list[Log]] = {}
    for log in logs:
        points.setdefault(point_of(log), []).append(log)
    return [sorted(runs, key=lambda log: log.run.repetition) for runs in points.values()]
