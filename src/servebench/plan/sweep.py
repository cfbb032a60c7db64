"""Settings -> the plan: servers in order, each with the strategy that says which run comes next on it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from servebench.analysis import cost
from servebench.analysis.sla import goals, requests_needed
from servebench.cli.keys import hide_in_words, pop_option
from servebench.errors import InputError
from servebench.load.chunks import UNREADABLE
from servebench.log import store
from servebench.log.config import Clients, Dataset, Load, Rate, RunConfig, ServerConfig
from servebench.log.identity import environment_of, fingerprint, identity_of
from servebench.log.schema import Log, engine_name, log_name
from servebench.log.urls import beside
from servebench.plan import defaults
from servebench.plan.options import ClientsPerReplica, Decide, FindMax, FindPeak, TargetCi
from servebench.plan.race import RaceSearch
from servebench.plan.settings import Settings
from servebench.plan.strategies import Grid, History, MaxSearch, PeakSearch, UntilCi, Verdict, run_key
from servebench.servers.access import Access, headers_of
from servebench.servers.backends import BACKENDS
from servebench.servers.http_call import call, notify
from servebench.telemetry import gpus
from servebench.workload.checks import SHARE, longest_question
from servebench.workload.model_files import snapshot

NO_LIMIT, PROBES = 10**6, 4  # requests at once
TEMPLATE, OF_DATASETS = 256, 4096  # tokens of a chat's template, and of an answer in a dataset; generous
VERSION_S = 3.0  # that a running server has to say which version it is
LOAD_FIELDS = {"num_clients", "request_rate", "num_requests", "warmup"}  # of a run's identity


@dataclass(frozen=True)
class Point:
    """One run on one server, and the log it becomes. `state`: new, done or failed."""

    server: ServerConfig
    run: RunConfig
    path: Path
    identity: dict[str, Any]
    fingerprint: str  # of the identity: the same for all runs of a load
    state: str
    options: dict[str, Any]  # of the command, for the log

    @property
    def pending(self) -> bool:
        return self.state != "done"


@dataclass(frozen=True)
class ServerPlan:
    """What is measured on one server. `points` are known beforehand; of a search they are where it begins."""

    server: ServerConfig
    strategy: Grid
    access: Access
    environment: dict[str, Any]
    settings: Settings
    history: History = field(default_factory=History)
    _points: dict[bytes, Point] = field(default_factory=dict)  # so that each log is looked at once

    def point(self, run: RunConfig) -> Point:
        key = run_key(run)
        if key not in self._points:
            self._points[key] = self._make_point(run)
        return self._points[key]

    def _make_point(self, run: RunConfig) -> Point:
        identity = identity_of(self.server, run, self.environment)
        mark = fingerprint(identity)
        path = store.place(self.settings.folder, log_name(self.server, run, mark), mark)
        state = "new" if self.settings.execution.overwrite_results else store.state_of(path, mark)
        return Point(self.server, run, path, identity, mark, state, self.settings.options)

    @property
    def points(self) -> list[Point]:
        return [self.point(run) for run in self.strategy.runs]

    def verdict_path(self, verdict: Verdict) -> Path:
        """Where the answer of a search is kept, beside the logs."""
        point = self.point(verdict.run)
        run = {name: value for name, value in point.identity["run"].items() if name not in LOAD_FIELDS}
        mark = fingerprint(point.identity | {"run": run, "searched": verdict.searched})
        stem = log_name(self.server, structs.replace(verdict.run, load=Clients())).partition("-clients1")[0]
        return self.settings.folder / "searches" / f"{stem}-{mark[:6]}.json"


def make_plan(settings: Settings) -> list[ServerPlan]:
    """Servers in the order of tp_size, batch size and replicas.

    Raises InputError when the engine is not installed, except for a plan that is only looked at.
    """
    fresh = settings.seed is None and not settings.starts
    settings = replace(settings, seed=secrets.randbelow(2**31) if fresh else settings.seed or 0)
    engine, there = _engine(settings), gpus.names() if settings.starts else ()

    def of_server(server: ServerConfig) -> ServerPlan:
        access, starts = access_of(settings, server), settings.starts
        revision = _revision(settings.model, access.engine_args) if starts else ""
        environment = environment_of(engine, starts, settings.tokenizer, access.extra_headers, there, revision)
        if hidden := _hidden(access):
            environment["hidden_flags"] = hidden
        if fresh:  # a server that runs already may have the prompts of the last benchmark in its prefix cache
            environment["seed"] = "fresh"
        return ServerPlan(server, _strategy(settings, server), access, environment, settings)

    return list(map(of_server, settings.servers))


def logs_of(points: Iterable[Point], price: float | None = None) -> list[Log]:
    """The logs of these points, failed ones too, with this --gpu_hour_price in place of an earlier one."""
    marks = {point.path: point.fingerprint for point in points if point.path.exists()}
    found = cost.priced(store.read(marks), price)
    return [log for path, log in found if log.fingerprint == marks[path]]


def _hidden(access: Access) -> str:
    """A trace of flags that logs do not show whole, so that other ones are another point; but for an --api-key."""
    words = [*pop_option((*access.serve, *access.engine_args), "--api-key")[0], *access.engine_env]
    return "" if hide_in_words(words) == words else sha256(msgspec.json.encode(words)).hexdigest()[:6]


def _engine(settings: Settings) -> str:
    backend, server = BACKENDS[settings.backend], settings.servers[0]
    if not settings.starts:
        headers = headers_of(server, access_of(settings, server))
        return f"attached {_version_at(settings.access.urls[0], headers) if backend.lists_models else ''}".strip()
    try:
        engine = backend.installed(server)
    except InputError:
        if settings.execution.dry_run and not server.engine_path:
            return "not installed"
        raise
    if engine.active:
        name = f"{engine_name(server.backend)} {engine.version.split()[-1]}"
        notify(f"note: {name} of the active environment, {engine.program}")
    return engine.version


@cache  # the engine may load a newer one, and the plan has to stay what it is
def _revision(model: str, engine_args: tuple[str, ...]) -> str:
    """The commit of a model of the hub whose configuration is in the hub's cache; "" where it is not known."""
    folder = snapshot(model, engine_args)
    return folder.name if folder else ""


class Version(msgspec.Struct):
    """The page /version of a server."""

    version: str


def _version_at(url: str, headers: Mapping[str, str]) -> str:
    """What a running server says that it is, where it has such a page (vLLM, SGLang); else nothing."""
    with suppress(OSError, *UNREADABLE):
        return msgspec.json.decode(call(beside(url, "/version"), headers, VERSION_S), type=Version).version
    return ""


# Runs.


def _strategy(settings: Settings, server: ServerConfig) -> Grid:
    asked, loads = settings.strategy, list(_loads(settings, server))
    if isinstance(asked, FindMax | FindPeak | Decide):
        return _search(settings, asked, loads)
    repetitions = range(asked.max_runs if isinstance(asked, TargetCi) else asked.runs)
    runs = [
        structs.replace(with_load(settings, _with(settings, requests), load), repetition=repetition)
        for repetition, requests, load in product(repetitions, settings.requests, loads)
    ]
    return UntilCi(runs, asked) if isinstance(asked, TargetCi) else Grid(runs)


def _search(settings: Settings, asked: FindMax | FindPeak | Decide, loads: list[Load]) -> Grid:
    """It begins with the lowest load, for every kind of requests."""
    limits = goals(asked.find_max) if isinstance(asked, FindMax) else ()
    at_least = requests_needed(limits) if limits else 0
    lowest, sizes = min(loads, key=lambda load: load.size), [load.size for load in loads]
    if isinstance(lowest, Rate):
        lowest = structs.replace(lowest, stop_when_overloaded=True)
    under = partial(with_load, settings, at_least=at_least)
    runs = [under(_with(settings, requests), lowest) for requests in settings.requests]
    if isinstance(asked, FindPeak):
        return PeakSearch(runs, sizes, under, asked.find_peak)
    if isinstance(asked, Decide):
        return RaceSearch(runs, sizes, under, goals(asked.decide, "--decide"))
    return MaxSearch(runs, sizes, under, limits)


def _with(settings: Settings, requests: Any) -> RunConfig:
    assert settings.seed is not None
    return structs.replace(settings.common, requests=requests, seed=settings.seed)


def _loads(settings: Settings, server: ServerConfig) -> Iterator[Load]:
    for load in settings.loads:
        if isinstance(load, ClientsPerReplica):
            load = Clients(num_clients=load.clients_per_replica * server.num_replicas)
        yield load


def with_load(settings: Settings, run: RunConfig, load: Load, at_least: int = 0) -> RunConfig:
    """The run under this load, with as many requests and as long a warm-up as it takes, if not asked otherwise."""
    if isinstance(load, Clients):
        requests = defaults.num_requests(load.num_clients)
    else:
        requests = defaults.num_arrivals(load.request_rate if isinstance(load, Rate) else 0.0)
    requests = settings.num_requests or max(requests, at_least)
    warmup = defaults.WARMUP if isinstance(load, Clients) else -(-requests // 10)
    warmup = warmup if settings.warmup is None else settings.warmup
    return structs.replace(run, load=load, num_requests=requests, warmup=warmup)


# What a server has to have room for.


def access_of(settings: Settings, server: ServerConfig) -> Access:
    """What starting or calling this server takes, keys included."""
    asked = server.variant, (server.engine_args, server.engine_env)
    variant = next(each for each in settings.variants if (each.name, each.flags) == asked)
    return replace(
        settings.access,
        engine_args=variant.args,
        engine_env=variant.env,
        requests_at_once=requests_at_once(settings, server),
        request_tokens=longest_request_tokens(settings),
    )


def requests_at_once(settings: Settings, server: ServerConfig) -> int:
    """The most requests that the plan has in flight on a server, as far as it can be known beforehand."""
    loads = list(_loads(settings, server))
    if isinstance(settings.strategy, FindMax | FindPeak | Decide) or not isinstance(loads[0], Clients):
        return getattr(loads[0], "max_concurrency", None) or NO_LIMIT
    clients = max(load.num_clients for load in loads if isinstance(load, Clients))
    probes = PROBES if settings.common.probe_rate else 0
    questions = 1 + int(SHARE * clients) if settings.common.check else 0
    return clients + probes + questions


def longest_request_tokens(settings: Settings) -> int:
    """Tokens of the longest request that the plan may send: prompt, answer and chat template together."""
    template = TEMPLATE if settings.common.api == "chat" else 0
    longest = settings.requests[0].max_prompt_length
    lengths = [requests.lengths for requests in settings.requests if not isinstance(requests, Dataset)]
    tokens = [min(prompts.longest, longest) + answers.longest for prompts, answers in lengths]
    questions = longest_question(settings.common.check) if settings.common.check else 0
    return template + max(questions, *(tokens or [longest + OF_DATASETS]))
