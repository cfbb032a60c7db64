"""Which logs are drawn, and the traits by which they are grouped into figures.

Logs are read here without their requests. They are read again, with them, when their figure is drawn (curves.py).
So no more than one figure's requests are in memory, and 700 logs can be drawn on a laptop.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from servebench.analysis.filters import add_filter, passes
from servebench.cli import commandline
from servebench.errors import InputError
from servebench.log import store
from servebench.log.schema import Log, model_label, workload_label

LOAD_AXES = {"clients": "Clients", "rate": "Request rate (requests/s)", "trace": "Speed of the trace"}


def load_of(log: Log) -> float:
    """The load of a point: its number of clients, its request rate, or the speed of its trace."""
    return float(log.run.load.size)


def load_name(log: Log) -> str:
    return f"{load_of(log):g}"


def load_axis(log: Log) -> str:
    """What `load_of` counts. The logs of a figure are of one kind."""
    return LOAD_AXES[log.run.load.kind]


class Trait(NamedTuple):
    """A value that the logs of one figure have in common, and how file name and title show it, unless it is ""."""

    of: Callable[[Log], Any]
    in_name: str
    in_title: str


MODEL = Trait(lambda log: model_label(log.server.model), "{}", "{}")
TP_SIZE = Trait(lambda log: log.server.tp_size, "tp{}", "TP {}")
BATCH = Trait(lambda log: log.server.max_ragged_batch_size, "bs{}", "batch {}")
REPLICAS = Trait(lambda log: log.server.num_replicas, "replicas{}", "replicas {}")
# 0 for a dataset, whose prompts have lengths of their own
PROMPT = Trait(lambda log: log.run.requests.mean_prompt_length or 0, "prompt{}", "prompt {}")
GENERATION = Trait(lambda log: log.run.requests.mean_max_new_tokens, "gen{}", "generation {} tokens")
WORKLOAD = Trait(lambda log: workload_label(log.run), "{}", "{}")
# "" for clients, since the original suite's figures are named without it
LOAD_KIND = Trait(lambda log: log.run.load.kind.replace("clients", ""), "{}", "by {}")
LOAD = Trait(lambda log: (log.run.load.kind, load_of(log)), "{0[0]}{0[1]:g}", "{0[0]} {0[1]:g}")
REPETITION = Trait(lambda log: log.run.repetition, "run{}", "run {}")
LENGTHS = (PROMPT, GENERATION, WORKLOAD)
CONFIGURATION = (MODEL, TP_SIZE, BATCH, REPLICAS, *LENGTHS, LOAD_KIND)


class Entry(NamedTuple):
    """A log file, and the log in it without its requests."""

    path: Path
    head: Log


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--backend", nargs="+", metavar="NAME", help="folders under --log_dir to draw [all of them]")
    add("--log_dir", type=Path, default=Path("results"), metavar="DIR", help="root of the logs [results]")
    what = "folders of logs, a curve each; plot_config.yaml there: label, color, marker, linestyle, x_max, y_max"
    add("--data_dirs", nargs="+", type=commandline.folder, metavar="DIR", help=what)
    add("--model_name", "--model", metavar="NAME", help="only this model [all]")
    add_filter(parser, "--filter")


def chosen(args: argparse.Namespace) -> dict[Path, list[Entry]]:
    """The logs of measured points that the options choose, by folder. Exits with one line if there are none."""
    model = args.model_name and model_label(args.model_name)
    found = {
        folder: [
            entry
            for entry in entries(folder)
            if entry.head.status == "ok"
            and model in (None, model_label(entry.head.server.model))
            and passes(entry.head, args.filter)
        ]
        for folder in args.data_dirs or folders(args.log_dir, args.backend)
    }
    empty = [str(folder) for folder, logs in found.items() if not logs]
    if empty:
        advice = "correct --filter or --model_name" if args.filter or args.model_name else "correct --log_dir"
        print(f"no logs to draw in {', '.join(empty)}; measure first or {advice}", file=sys.stderr)
    if len(empty) == len(found):
        sys.exit(1)
    return {folder: logs for folder, logs in found.items() if logs}


def folders(log_dir: Path, backends: Iterable[str] | None = None) -> list[Path]:
    """The folders of these backends, or all folders with logs, or the root itself if it has none below it."""
    if not log_dir.is_dir():
        raise InputError(f"{log_dir} is not a folder; give one that run_benchmark.py wrote to: --log_dir DIR")
    if backends:
        return [log_dir / name for name in backends]
    below = [
        path for path in sorted(log_dir.glob("[!.]*")) if path.is_dir() and path.name not in store.OTHER_FOLDERS
    ]
    return [path for path in below if any(store.POINT(log.name) for log in path.glob("*.json"))] or [log_dir]


def entries(folder: Path) -> Iterator[Entry]:
    """Every log of a folder, failed points too."""
    for path, log in store.read(sorted(folder.glob("*.json")), requests=False):
        yield Entry(path, msgspec.structs.replace(log, results=[]))
