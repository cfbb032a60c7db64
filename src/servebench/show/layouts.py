"""The studies in a folder of logs: what was asked, each layout that was asked it, and the best point of each.

A study is one model and one kind of requests under one kind of load. A layout is one server: engine, sizes, flags.
The terminal's result sentence, the report's first screen and compare's sides all speak of layouts by these names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from msgspec.structs import replace

from servebench.analysis import differences, metrics, samples, stationarity, throughput, trust
from servebench.log import identity
from servebench.log.config import ServerConfig
from servebench.log.schema import Log, engine_name, model_name
from servebench.log.urls import host
from servebench.show import tables

Runs = list[Log]  # of one point
Rate = Callable[[Runs], float | None]  # requests/s of a point, None where that decides nothing
THROUGHPUT = metrics.OF_POINT["request_throughput_per_s"]
COLD = 0.5  # share of a model's files in the host's memory, below which a start is cold
CHANGE_WITH_SIZE = {"urls", "gpus"}
LOADS = {"clients": "by clients", "rate": "by request rate", "trace": "by the trace's speed"}


@dataclass(frozen=True)
class Layout:
    """A server, and its measured points in the order of load, at least one."""

    name: str  # `vLLM TP 2 x 4`, and the settings in which it differs from the other layouts
    points: Sequence[Runs]
    rate: Rate

    @property
    def log(self) -> Log:
        """Any of its logs, for what they have in common."""
        return self.points[0][0]

    @property
    def gpus(self) -> int:
        return throughput.gpus(self.log)

    @property
    def started(self) -> str:
        """`started in 24 s (warm)`: how long its servers took to start; "" of those that others started."""
        words = start_words(log for runs in self.points for log in runs)
        return words and f"started in {words}"

    def best(self, keeps: Callable[[Runs], bool] = lambda runs: True) -> Runs | None:
        """The point with the most requests/s, of those that can be trusted and keep to what the caller asks."""
        known = {i: rate for i, runs in enumerate(self.points) if keeps(runs) and (rate := self.rate(runs))}
        return self.points[max(known, key=lambda i: known[i])] if known else None


@dataclass(frozen=True)
class Study:
    """Layouts that were asked the same, those of most requests/s first."""

    model: str
    asked: str  # `prompt 2600, generation 60 tokens, by clients`
    layouts: Sequence[Layout]

    @property
    def points(self) -> list[Runs]:
        """Those of all layouts."""
        return [runs for layout in self.layouts for runs in layout.points]


def why_untrusted(runs: Runs) -> str | None:
    """Why the requests/s of a point decide nothing, in a word or two; None if they may."""
    if doubt := trust.of_point(runs, THROUGHPUT.name):
        return doubt.kind
    if any(log.quality.overloaded for log in runs):
        return "overloaded"
    return "with failed requests" if samples.failed_share(*runs) > trust.FAILED_SHARE else None


def trusted_rate(runs: Runs) -> float | None:
    """Requests/s of a point, the mean over its runs; None where that decides nothing."""
    if why_untrusted(runs):
        return None
    interval = stationarity.interval(runs, THROUGHPUT.function)
    return interval.mean if interval else None


def studies(logs: Iterable[Log], rate: Rate = trusted_rate, with_failed: bool = False) -> list[Study]:
    """The studies of all logs that were measured (or also of those that failed), in the order of appearance.

    A caller that has dropped the requests of its logs gives the rates that it has worked out before.
    """
    found: dict[tuple[str, str], list[Log]] = {}
    for log in logs:
        if log.status == "ok" or with_failed:
            found.setdefault((model_name(log.server.model), asked(log)), []).append(log)
    return [Study(*key, _layouts(logs, rate)) for key, logs in found.items()]


def asked(log: Log) -> str:
    """What requests of a study have in common, in words."""
    requests = log.run.requests
    lengths = f"prompt {requests.mean_prompt_length}, generation {requests.mean_max_new_tokens} tokens"
    return f"{requests.name or lengths}, {LOADS[log.run.load.kind]}"


def server_name(server: ServerConfig, with_batch: bool = False) -> str:
    """`vLLM TP 2 x 4`: engine, TP size, replicas, variant; `vLLM at HOST` of a running one of unknown size."""
    size = f"at {hosts(server)}" if by_host(server) else server.layout
    batch = f"batch {server.max_ragged_batch_size}" if with_batch else ""
    return ", ".join(filter(None, [f"{engine_name(server.engine)} {size}", batch, server.variant]))


def by_host(server: ServerConfig) -> bool:
    """Is its address all that is known of it?"""
    return bool(server.urls) and server.tp_size == server.num_replicas == 1


def hosts(server: ServerConfig) -> str:
    return " ".join(host(url) or url for url in server.urls)


def start_words(logs: Iterable[Log]) -> str:
    """`24 s (warm)`, or of both kinds `24 s warm, 66 s cold`, the median of each; "" where it is not known."""
    of_kind: dict[str, list[float]] = {}
    for kind, start_s in dict.fromkeys((start_kind(log), log.server_facts.start_s) for log in logs):
        if kind is not None:
            of_kind.setdefault(kind, []).append(start_s)
    kinds = [kind for kind in ("warm", "cold", "") if kind in of_kind]
    form = " ({})" if len(kinds) == 1 else " {}"
    return ", ".join(tables.duration(median(of_kind[kind])) + (kind and form.format(kind)) for kind in kinds)


def start_kind(log: Log) -> str | None:
    """`cold`, `warm`, "" where the log does not tell; None of a server that we did not start."""
    facts = log.server_facts
    if log.server.urls or not facts.start_s:
        return None
    share = facts.weights_cached_share
    return "" if share is None else "cold" if share < COLD else "warm"


def _layouts(logs: list[Log], rate: Rate) -> list[Layout]:
    names = [
        name
        for name in differences.differing_within(logs)
        if name not in CHANGE_WITH_SIZE or _differs_within_a_size(logs, name)
    ]
    batches = {(log.server.engine, log.server.max_ragged_batch_size) for log in logs}
    with_batch = len(batches) > len({backend for backend, _ in batches})
    shown = differences.shown(logs)

    def name_of(log: Log) -> str:
        own = [name for name in names if not (name == "urls" and by_host(log.server))]
        sizes = server_name(replace(log.server, variant=""), with_batch)
        return ", ".join([sizes, *shown(log, own)])

    found: dict[tuple[str, ...], list[Log]] = {}
    for log in logs:
        settings = differences.settings(log)
        found.setdefault((name_of(log), *(settings[name] for name in names)), []).append(log)
    layouts = [Layout(key[0], _points(of_layout), rate) for key, of_layout in found.items()]
    return sorted(layouts, key=_most_requests, reverse=True)


def _differs_within_a_size(logs: list[Log], name: str) -> bool:
    """As the URLs of two servers that others started do: of one size, they are two layouts."""
    found = {(*_size(log), differences.settings(log)[name]) for log in logs}
    return len(found) > len(set(map(_size, logs)))


def _size(log: Log) -> tuple[str, int, int]:
    return log.server.engine, log.server.tp_size, log.server.num_replicas


def _points(logs: list[Log]) -> list[Runs]:
    return sorted(identity.by_point(logs), key=lambda runs: runs[0].run.load.size)


def _most_requests(layout: Layout) -> float:
    best = layout.best()
    return (best and layout.rate(best)) or 0.0
