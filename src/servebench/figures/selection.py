"""Which logs a figure is drawn from, what the logs of one figure have in common, and which of them are one point.

A log is read twice: without its requests to be chosen and grouped, whole when its figure is drawn. So no more
than one figure's requests are in memory, and 700 logs can be drawn on a laptop.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from servebench.analysis import metrics, stationarity, trust
from servebench.analysis.filters import add_filter, passes
from servebench.analysis.stats import Interval, most
from servebench.analysis.trust import Doubt
from servebench.cli.commandline import folder
from servebench.errors import InputError
from servebench.log import store
from servebench.log.identity import by_point
from servebench.log.schema import Log, model_label, workload_label
from servebench.log.store import read

OF_SIZES = ("urls", "gpus")  # change with tp_size and num_replicas
LOAD_AXES = {"clients": "Clients", "rate": "Request rate (requests/s)", "trace": "Speed of the trace"}


def load_of(log: Log) -> float:
    """The load of a point: its number of clients, its request rate, or the speed of its trace."""
    return float(log.run.load[1])


def load_name(log: Log) -> str:
    return f"{load_of(log):g}"


def load_axis(log: Log) -> str:
    """What `load_of` counts. The logs of a figure are of one kind."""
    return LOAD_AXES[log.run.load[0]]


def load_kind(log: Log) -> str:
    """What the load is counted in; "" for clients, as the original suite has them."""
    return log.run.load[0].replace("clients", "")


class Trait(NamedTuple):
    """What the logs of one figure may have in common, and how file name and title say it; "" is left out."""

    of: Callable[[Log], Any]
    in_name: str
    in_title: str


MODEL = Trait(lambda log: model_label(log.server.model), "{}", "{}")
TP_SIZE = Trait(lambda log: log.server.tp_size, "tp{}", "TP {}")
BATCH = Trait(lambda log: log.server.max_ragged_batch_size, "bs{}", "batch {}")
REPLICAS = Trait(lambda log: log.server.num_replicas, "replicas{}", "replicas {}")
# 0 of a dataset, whose prompts are as long as they are
PROMPT = Trait(lambda log: 0 if log.run.dataset else log.run.mean_prompt_length, "prompt{}", "prompt {}")
GENERATION = Trait(lambda log: log.run.mean_max_new_tokens, "gen{}", "generation {} tokens")
REQUESTS = Trait(lambda log: workload_label(log.run), "{}", "{}")
KIND = Trait(load_kind, "{}", "by {}")
LOAD = Trait(lambda log: (log.run.load[0], load_of(log)), "{0[0]}{0[1]:g}", "{0[0]} {0[1]:g}")
REPETITION = Trait(lambda log: log.run.repetition, "run{}", "run {}")
LENGTHS = (PROMPT, GENERATION, REQUESTS)
CONFIGURATION = (MODEL, TP_SIZE, BATCH, REPLICAS, *LENGTHS, KIND)


@dataclass(frozen=True)
class Point:
    """One point of a curve: the logs of its runs."""

    runs: tuple[Log, ...]

    @property
    def log(self) -> Log:
        """Any of them, for what they have in common."""
        return self.runs[0]

    def doubt(self, metric: str) -> Doubt | None:
        """Why this metric of the point decides nothing."""
        return trust.of_point(self.runs, metric)

    def gathered(self, metric: str) -> bool:
        """Is this metric one of tokens, and did those of most runs come all at once, whoever gathered them?"""
        return metric.startswith(trust.OF_TOKENS) and most(sum(map(trust.buffered, self.runs)), len(self.runs))

    @property
    def overloaded(self) -> bool:
        return most(sum(log.quality.overloaded for log in self.runs), len(self.runs))

    @property
    def failed_share(self) -> float:
        return metrics.failed_share(*self.runs)

    def interval(self, of_log: Callable[[Log], float | None]) -> Interval | None:
        """The mean over runs with its 95 % interval, if there is one; None where no run has a value."""
        return stationarity.interval(self.runs, of_log)


def points_of(logs: Iterable[Log]) -> tuple[Point, ...]:
    """Logs as points, in the order of load."""
    return tuple(Point(tuple(runs)) for runs in by_point(sorted(logs, key=load_of)))


class Entry(NamedTuple):
    """A log that was found: where, and what it is of (without its requests)."""

    path: Path
    head: Log


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--backend", nargs="+", metavar="NAME", help="folders under --log_dir to draw [all of them]")
    add("--log_dir", type=Path, default=Path("results"), metavar="DIR", help="root of the logs [results]")
    look = "folders of logs, a curve each; plot_config.yaml there: label, color, marker, linestyle, x_max, y_max"
    add("--data_dirs", nargs="+", type=folder, metavar="DIR", help=look)
    add("--model_name", "--model", metavar="NAME", help="only this model [all]")
    add_filter(parser, "--filter")


def chosen(args: argparse.Namespace) -> dict[Path, list[Entry]]:
    """Logs of measured points, by the folder they lie in. Ends with one line if there is none."""
    found = {
        place: [entry for entry in entries(place) if entry.head.status == "ok" and _wanted(entry.head, args)]
        for place in args.data_dirs or folders(args.log_dir, args.backend)
    }
    missing = [str(place) for place, logs in found.items() if not logs]
    if missing:
        advice = "correct --filter or --model_name" if args.filter or args.model_name else "correct --log_dir"
        print(f"no logs to draw in {', '.join(missing)}; measure first or {advice}", file=sys.stderr)
    if len(missing) == len(found):
        sys.exit(1)
    return {place: logs for place, logs in found.items() if logs}


def folders(log_dir: Path, backends: Iterable[str] | None = None) -> list[Path]:
    """The backends' folders under the root of the logs, those with logs; the root itself where none is."""
    if not log_dir.is_dir():
        raise InputError(f"{log_dir} is not a folder; give one that run_benchmark.py wrote to: --log_dir DIR")
    if backends:
        return [log_dir / name for name in backends]
    places = [
        path for path in sorted(log_dir.glob("[!.]*")) if path.is_dir() and path.name not in store.OF_NO_POINTS
    ]
    found = [place for place in places if any(store.POINT(log.name) for log in place.glob("*.json"))]
    return found or [log_dir]


def entries(place: Path) -> Iterator[Entry]:
    """Every log of a folder, failed points too."""
    for path, log in read(sorted(place.glob("*.json")), requests=False):
        yield Entry(path, msgspec.structs.replace(log, results=[]))


def _wanted(log: Log, args: argparse.Namespace) -> bool:
    of_model = args.model_name is None or model_label(args.model_name) == model_label(log.server.model)
    return of_model and passes(log, args.filter)
