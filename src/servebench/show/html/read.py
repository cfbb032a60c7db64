"""What the report shows of a folder: its points, without their requests, and what its searches found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from servebench.analysis import capacity, cost, limits, metrics, trust
from servebench.analysis.cache import derived, load
from servebench.analysis.limits import Limit
from servebench.analysis.metrics import OfRequests
from servebench.figures import selection
from servebench.figures.selection import Entry
from servebench.log import store
from servebench.log.identity import point_of
from servebench.log.schema import Log, model_name
from servebench.show import advice, layouts, spreadsheet
from servebench.show.html import decision
from servebench.show.spreadsheet import Cell

ORDER = (*selection.CONFIGURATION, selection.LOAD, selection.REPETITION)


class Run(NamedTuple):
    """One log: its file, the log without its requests, its numbers as in the spreadsheet, its warnings."""

    name: str
    log: Log
    row: dict[str, Cell]
    warnings: list[str]


class Point(NamedTuple):
    """One load on one server: its runs, and what they say together."""

    number: int  # on the page
    runs: Sequence[Run]
    rate: float | None  # requests/s; None where they decide nothing
    numbers: dict[str, float]  # what may be held against a limit, by the names that limits use
    marks: list[str]  # what is wrong with it

    @property
    def measured(self) -> Sequence[Run]:
        """Its runs, without those that failed if others did not."""
        return [run for run in self.runs if run.log.status == "ok"] or self.runs

    @property
    def log(self) -> Log:
        return self.runs[0].log

    def mean(self, name: str) -> float | None:
        """Of a column of the spreadsheet, over the runs."""
        values = [float(value) for run in self.measured if (value := run.row[name]) is not None]
        return sum(values) / len(values) if values else None

    @property
    def samples(self) -> float:
        """Requests of a run, as many as their correlation leaves: of the run that has fewest."""
        return min(float(run.row["effective_samples"] or 0) for run in self.measured)


def entries(folder: Path) -> list[Entry]:
    """Every log of the folder, without its requests, in the order of the page."""
    found = [entry for place in selection.folders(folder) for entry in selection.entries(place)]
    return sorted(found, key=lambda entry: (entry.path.parent.name, *(trait.of(entry.head) for trait in ORDER)))


def read(
    folder: Path, found: Iterable[Entry], price: float | None = None, within: Sequence[Limit] = ()
) -> Iterator[Point]:
    """Every point, one by one: their requests may be millions, and only those of one point are in memory.

    Points of two folders are never the same, even of the same settings: they may be a before and an after.
    """
    files: dict[tuple[Any, ...], list[Path]] = {}
    for path, head in found:
        files.setdefault((path.parent, *point_of(head)), []).append(path)
    number = 0
    for (parent, *_), paths in files.items():
        read_ = store.read(paths, partial(load, derive=lambda log: _prepare(log, *within)))
        logs = {str(path.relative_to(folder)): cost.with_price(log, price) for path, log in read_}
        if logs:
            yield point(number, "" if parent == folder else parent.name, logs)
            number += 1


@derived
def _prepare(log: Log, *within: Limit) -> None:
    """What is asked of the runs of a point is asked of each, and what decides, here or in the page."""
    point(0, "", {"": log})
    capacity.asked_of(log, *within, *(limit for group in decision.TYPED for limit in group))


def point(number: int, place: str, logs: Mapping[str, Log]) -> Point:
    """Of its logs by the names of their files. The folder `place` stands for the backend, as in the figures."""
    runs = list(logs.values())
    good = [log for log in runs if log.status == "ok"]
    rate = layouts.trusted_rate(good) if good else None
    shown = [_run(name, place or log.server.engine, log) for name, log in logs.items()]
    return Point(number, shown, rate, _numbers(good) if rate else {}, advice.marks(runs))


def _run(name: str, place: str, log: Log) -> Run:
    warnings = advice.of_point(log) if log.status == "ok" else []
    row = spreadsheet.row([log]) | {"backend": place, "model": model_name(log.server.model)}
    return Run(name, log, row, warnings)


def _numbers(runs: list[Log]) -> dict[str, float]:
    """The mean over the runs of all that may decide; in an open loop latencies count from the schedule."""
    per_run = [metrics.values(log) for log in runs]
    found = {}
    for name, column in _columns(runs[0].run.open_loop).items():
        known = [value for values in per_run if (value := values[column]) is not None]
        if known and not trust.of_point(runs, column):
            found[name] = sum(known) / len(known)
    return found


def units() -> dict[str, str]:
    """The names that limits may use, and the unit of each: "s", "J", "W", "%" or none."""
    return {
        name: "%" if column in limits.SHARES else limits.UNITS.get(metrics.named(column).unit, "")
        for name, column in _columns(open_loop=False).items()
    }


@cache
def _columns(open_loop: bool) -> dict[str, str]:
    """The columns of all metrics, by the names that limits use."""
    found: dict[str, str] = {}
    for metric in metrics.METRICS:
        name = limits.short(metric)
        from_schedule = metrics.OF_REQUESTS.get(f"{metric.stem}_from_schedule_s")
        if isinstance(metric, OfRequests):
            asked = from_schedule if open_loop and from_schedule else metric
            found |= {f"{name}_{each}": asked.column(each) for each in metric.statistics}
        else:
            found[name] = metric.name
    return found
