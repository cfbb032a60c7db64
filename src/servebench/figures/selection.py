"""Which logs are drawn, and the traits by which they are grouped into figures.

Logs are read here without their requests. They are read again, with them, when their figure is drawn (curves.py).
So no more than one figure's requests are in memory, and 700 logs can be drawn on a laptop.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from servebench.analysis import cost
from servebench.analysis.filters import add_filter, passes
from servebench.cli import commandline
from servebench.errors import InputError
from servebench.log import store
from servebench.log.config import RunConfig
from servebench.log.schema import Log, model_label, workload_label


class KindOfLoad(NamedTuple):
    """What a size of this kind of load is called."""

    unit: str
    axis: str
    short: str  # with its size


KINDS_OF_LOAD = {
    "clients": KindOfLoad("clients", "Clients", "{:g}"),
    "rate": KindOfLoad("requests/s", "Request rate (requests/s)", "{:g}/s"),
    "trace": KindOfLoad("times the trace's speed", "Speed of the trace", "x{:g}"),
}


def load_size(log: Log) -> float:
    """The load of a point: its number of clients, its request rate, or the speed of its trace."""
    return float(log.run.load.size)


def load_name(log: Log) -> str:
    return f"{load_size(log):g}"


def load_axis(log: Log) -> str:
    """What `load_size` counts. The logs of a figure are of one kind."""
    return KINDS_OF_LOAD[log.run.load.kind].axis


def load_text(run: RunConfig) -> str:
    """Clients as a number, a rate as `4/s`, a trace as `x2` of its speed."""
    return KINDS_OF_LOAD[run.load.kind].short.format(run.load.size)


class Trait(NamedTuple):
    """A value that the logs of one figure have in common, and how file name and title show it, unless it is ""."""

    of: Callable[[Log], Any]
    in_name: str
    in_title: str
    fields: tuple[str, ...] = ()  # the settings that it shows
    name: str = ""  # as --by takes it


LOAD_FIELDS = ("num_clients", "request_rate", "trace_speed")
MODEL = Trait(lambda log: model_label(log.server.model), "{}", "{}", ("model",))
TP_SIZE = Trait(lambda log: log.server.tp_size, "tp{}", "TP {}", ("tp_size",))
BATCH = Trait(lambda log: log.server.max_ragged_batch_size, "bs{}", "batch {}", ("max_ragged_batch_size",))
REPLICAS = Trait(lambda log: log.server.num_replicas, "replicas{}", "replicas {}", ("num_replicas",))
SIZES = (*TP_SIZE.fields, *REPLICAS.fields)
LAYOUT = Trait(lambda log: (log.server.tp_size, log.server.num_replicas), "", "TP {0[0]} x {0[1]}", SIZES)
GPUS = Trait(lambda log: log.server.workers, "", "{} GPUs", REPLICAS.fields)
# 0 for a dataset, whose prompts have lengths of their own
PROMPT = Trait(
    lambda log: log.run.requests.mean_prompt_length or 0, "prompt{}", "prompt {}", ("mean_prompt_length",)
)
GENERATION = Trait(
    lambda log: log.run.requests.mean_max_new_tokens, "gen{}", "generation {} tokens", ("mean_max_new_tokens",)
)
WORKLOAD = Trait(lambda log: workload_label(log.run), "{}", "{}", ("dataset", "scenario"))
# "" for clients, since the original suite's figures are named without it
LOAD_KIND = Trait(lambda log: log.run.load.kind.replace("clients", ""), "{}", "by {}")
LOAD = Trait(lambda log: (log.run.load.kind, load_size(log)), "{0[0]}{0[1]:g}", "{0[0]} {0[1]:g}", LOAD_FIELDS)
REPETITION = Trait(lambda log: log.run.repetition, "run{}", "run {}", ("repetition",))
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
    cost.add_price(parser)


def chosen(args: argparse.Namespace, with_failed: bool = False) -> dict[Path, list[Entry]]:
    """The logs of measured points (or also of failed ones) that the options choose, by folder. Exits with one line
    if there is no log."""
    model = args.model_name and model_label(args.model_name)
    found = {
        folder: [
            entry
            for entry in entries(folder)
            if (with_failed or entry.head.status == "ok")
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
    """The folders of these backends, or all folders with logs, or the root itself if no folder in it has logs."""
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
    for path, log in store.read(sorted(folder.glob("*.json")), partial(store.load, requests=False)):
        yield Entry(path, msgspec.structs.replace(log, results=[]))
