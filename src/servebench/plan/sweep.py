"""Settings -> the ordered plan: which servers, which points on each, what is measured already."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from servebench.cli import keys
from servebench.errors import InputError
from servebench.load.chunks import UNREADABLE
from servebench.log import store
from servebench.log.identity import environment_of, fingerprint, identity_of
from servebench.log.schema import Log, RunConfig, ServerConfig, log_name
from servebench.log.store import state_of
from servebench.log.urls import beside
from servebench.plan import defaults
from servebench.plan.arguments import Settings, attached_urls
from servebench.servers.access import Access, headers_of
from servebench.servers.backends import BACKENDS
from servebench.servers.http_call import call
from servebench.workload.lengths import lengths_of, parse_scenario


@dataclass(frozen=True)
class Point:
    """One load on one server, and the log it becomes. `state`: new, done or failed."""

    server: ServerConfig
    run: RunConfig
    path: Path
    identity: dict[str, Any]
    fingerprint: str  # of the identity: the same for all runs of a load
    state: str

    @property
    def pending(self) -> bool:
        return self.state != "done"


class Version(msgspec.Struct):
    """The page /version of a server."""

    version: str


NO_LIMIT, PROBES = 10**6, 4  # requests at once
TEMPLATE, OF_DATASETS = 256, 4096  # tokens of a chat's template, and of an answer in a dataset; generous
VERSION_S = 3.0  # that a running server has to say which version it is
# Fields of a RunConfig that are not simply the option of that name.
SWEPT = {"mean_prompt_length", "mean_max_new_tokens", "scenario", "num_clients", "request_rate", "trace_speed"}
SWEPT |= {"num_requests", "warmup", "max_prompt_length", "repetition", "stop_when_overloaded"}
SHAPE = ("prompt_length_var", "max_new_tokens_var", "length_distribution")  # of lengths around their means
OF_ACCESS = ("extra_headers", "extra_body", "engine_args", "api", "port", "server_timeout")
Plan = list[tuple[ServerConfig, list[Point]]]


def make_plan(settings: Settings) -> Plan:
    """Servers in the order of tp_size, batch size and replicas; points in that of lengths and clients, run by run.

    Raises InputError when the engine is not installed, except for a plan that is only looked at.
    """
    fresh = settings.seed is None and bool(attached_urls(settings))
    settings = replace(settings, seed=secrets.randbelow(2**31) if fresh else settings.seed or 0)
    servers = _servers(settings)
    engine, launched = _engine(settings, servers[0]), not servers[0].urls
    around = environment_of(engine, launched, settings.tokenizer, settings.extra_headers)
    if fresh:  # a server that runs already may have the prompts of the last benchmark in its prefix cache
        around["seed"] = "fresh"
    runs_on = ((server, _runs(settings, server)) for server in servers)
    return [(server, [make_point(settings, server, run, around) for run in runs]) for server, runs in runs_on]


def num_pending(plan: Plan) -> int:
    return sum(point.pending for _, points in plan for point in points)


def _engine(settings: Settings, server: ServerConfig) -> str:
    if server.urls:
        url, headers = attached_urls(settings)[0], headers_of(server, access_of(settings, server))
        return f"attached {_version_at(url, headers) if BACKENDS[server.backend].lists_models else ''}".strip()
    try:
        return BACKENDS[settings.backend].version()
    except InputError:
        if settings.dry_run:
            return "not installed"
        raise


def _version_at(url: str, headers: Mapping[str, str]) -> str:
    """What a running server says that it is, where it has such a page (vLLM, SGLang); else nothing."""
    with suppress(OSError, *UNREADABLE):
        return msgspec.json.decode(call(beside(url, "/version"), headers, VERSION_S), type=Version).version
    return ""


def _servers(settings: Settings) -> list[ServerConfig]:
    urls = tuple(keys.hide_in_url(url) for url in attached_urls(settings))
    sizes = product(settings.tp_size, settings.max_ragged_batch_size, settings.num_replicas)
    return [
        ServerConfig(
            backend=settings.backend,
            model=settings.model,
            tp_size=tp_size,
            max_ragged_batch_size=batch,
            num_replicas=replicas,
            fp6=settings.fp6,
            engine_args=tuple(keys.hide_in_words(settings.engine_args)),
            urls=urls,
            deployment_name=settings.deployment_name or "",
            gpus=settings.gpus,
            router=settings.router,
        )
        for tp_size, batch, replicas in sizes
    ]


def _runs(settings: Settings, server: ServerConfig) -> list[RunConfig]:
    same = {name: getattr(settings, name) for name in RunConfig.__struct_fields__ if name not in SWEPT}
    same["extra_body"] = keys.hide_in_fields(settings.extra_body)
    runs = range(settings.max_runs if settings.target_ci else settings.runs)
    return [
        RunConfig(**lengths, **load, max_prompt_length=settings.max_prompt_length, repetition=repetition, **same)
        for repetition, lengths, load in product(runs, _lengths(settings), _loads(settings, server))
    ]


def _lengths(settings: Settings) -> list[dict[str, Any]]:
    """Scenarios, or every mean prompt length with every mean generation; a dataset has lengths of its own."""
    if settings.dataset:  # answers that it does not have are as long as was asked for
        return [{"mean_max_new_tokens": settings.mean_max_new_tokens[0]}]
    if settings.scenario:
        return [scenario_lengths(scenario) for scenario in settings.scenario]
    means = product(settings.mean_prompt_length, settings.mean_max_new_tokens)
    return [{"mean_prompt_length": prompt, "mean_max_new_tokens": answer} for prompt, answer in means]


def _loads(settings: Settings, server: ServerConfig) -> list[dict[str, Any]]:
    """Clients, request rates, or speeds of a trace: one of them is swept. A search begins with the least."""
    rates: Sequence[float] = settings.request_rate
    clients: Sequence[int] = clients_of(settings, server.num_replicas)
    if settings.find_max or settings.find_peak:
        rates, clients = sorted(rates)[:1], sorted(clients)[:1]
    if rates:
        return [rate_load(settings, rate) for rate in rates]
    if settings.trace_speed:
        return [rate_load(settings, None) | {"trace_speed": speed} for speed in settings.trace_speed]
    return [clients_load(settings, number) for number in clients]


def clients_of(settings: Settings, num_replicas: int) -> tuple[int, ...]:
    """The numbers of clients that are swept on a server of so many replicas."""
    return tuple(each * num_replicas for each in settings.clients_per_replica) or settings.num_clients


def access_of(settings: Settings, server: ServerConfig) -> Access:
    """What starting or calling this server takes, keys included."""
    return Access(
        urls=attached_urls(settings),
        key=settings.aml_api_key if settings.backend == "aml" else settings.openai_api_key,
        requests_at_once=requests_at_once(settings, server),
        request_tokens=longest_request_tokens(settings),
        **{name: getattr(settings, name) for name in OF_ACCESS},
    )


def requests_at_once(settings: Settings, server: ServerConfig) -> int:
    """The most requests that the plan has in flight on a server, as far as it can be known beforehand."""
    search = settings.find_max or settings.find_peak
    if search or settings.request_rate or settings.trace_speed:
        return settings.max_concurrency or NO_LIMIT
    return max(clients_of(settings, server.num_replicas)) + (PROBES if settings.probe_rate else 0)


def longest_request_tokens(settings: Settings) -> int:
    """Tokens of the longest request that the plan may send: prompt, answer and chat template together."""
    template = TEMPLATE if settings.api == "chat" else 0
    if settings.dataset:
        return settings.max_prompt_length + OF_DATASETS + template
    shape = {name: getattr(settings, name) for name in SHAPE}
    pairs = [lengths_of(RunConfig(**lengths, **shape)) for lengths in _lengths(settings)]
    return template + max(min(p.most, settings.max_prompt_length) + a.most for p, a in pairs)


def scenario_lengths(scenario: str) -> dict[str, Any]:
    """A scenario, and its means for the name of the log."""
    prompt, generated = parse_scenario(scenario)
    return {"scenario": scenario, "mean_prompt_length": prompt.mean, "mean_max_new_tokens": generated.mean}


def clients_load(settings: Settings, clients: int) -> dict[str, Any]:
    requests = settings.num_requests or defaults.num_requests(clients)
    return {"num_clients": clients, "num_requests": requests, "warmup": _warmup(settings, defaults.WARMUP)}


def rate_load(settings: Settings, rate: float | None) -> dict[str, Any]:
    requests = settings.num_requests or defaults.num_arrivals(rate or 0.0)
    return {"request_rate": rate, "num_requests": requests, "warmup": _warmup(settings, -(-requests // 10))}


def _warmup(settings: Settings, default: int) -> int:
    return default if settings.warmup is None else settings.warmup


def make_point(settings: Settings, server: ServerConfig, run: RunConfig, environment: dict[str, Any]) -> Point:
    identity = identity_of(server, run, environment)
    mark = fingerprint(identity)
    path = settings.out_json_dir / server.backend / log_name(server, run, mark)
    return Point(server, run, path, identity, mark, "new" if settings.overwrite_results else state_of(path, mark))


def runs_before(point: Point, points: list[Point]) -> list[Log]:
    """The logs of earlier runs of the point's load, of those that succeeded under these settings."""
    same = (p for p in points if p.fingerprint == point.fingerprint and p.run.repetition < point.run.repetition)
    return [store.load(p.path) for p in same if state_of(p.path, p.fingerprint) == "done"]
