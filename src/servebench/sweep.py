"""Settings -> the ordered plan: which servers, which points on each, what is measured already."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from servebench import __version__, defaults, gathering, keys, records
from servebench.arguments import Settings, attached_urls
from servebench.backends import BACKENDS
from servebench.records import InputError, Log, RunConfig, ServerConfig, fingerprint, log_name
from servebench.workload.lengths import parse_scenario


@dataclass(frozen=True)
class Point:
    """One load on one server, and the log it becomes. `state`: new, done, failed or superseded."""

    server: ServerConfig
    run: RunConfig
    path: Path
    fingerprint: str
    state: str

    @property
    def pending(self) -> bool:
        return self.state != "done"


class LogHead(msgspec.Struct):
    """What of a log tells whether it needs to be measured again."""

    status: str = "failed"
    fingerprint: str = ""
    run: RunConfig = RunConfig()


# Fields of a RunConfig that are not simply the option of that name.
SWEPT: tuple[str, ...]
SWEPT = ("mean_prompt_length", "mean_max_new_tokens", "scenario", "num_clients", "request_rate", "trace_speed")
SWEPT += ("num_requests", "warmup", "max_prompt_length", "repetition", "stop_when_overloaded")
Plan = list[tuple[ServerConfig, list[Point]]]


def make_plan(settings: Settings) -> Plan:
    """Servers in the order of tp_size, batch size and replicas; points in that of lengths and clients, run by run.

    Raises InputError when the engine is not installed, except for a plan that is only looked at.
    """
    settings = replace(settings, seed=_seed(settings))
    return [
        (server, [make_point(settings, server, run) for run in _runs(settings)]) for server in _servers(settings)
    ]


def _seed(settings: Settings) -> int:
    """The one that is asked for; without one 0, but for a server that runs already.

    That may have the prompts of an earlier benchmark in its prefix cache, so its seed is a fresh one; or that of
    the newest log of such requests, whatever their load and lengths, so that the same command finds its points.
    """
    if settings.seed is not None or not attached_urls(settings):
        return settings.seed or 0
    (run, *_) = _runs(replace(settings, seed=0))
    logs = [] if settings.overwrite_results else (settings.out_json_dir / settings.backend).glob("*.json")
    for path in sorted(logs, key=_age):
        with suppress(OSError, msgspec.MsgspecError):
            log = msgspec.json.decode(path.read_bytes(), type=LogHead)
            if log.status == "ok" and _kind(log.run) == _kind(run):
                return log.run.seed
    return secrets.randbelow(2**31)


def _kind(run: RunConfig) -> dict[str, Any]:
    """What is asked, but for what is swept."""
    fields = msgspec.structs.asdict(run)
    return {name: value for name, value in fields.items() if name not in (*SWEPT, "seed", "dataset")}


def _age(path: Path) -> float:
    return -path.stat().st_mtime


def num_pending(plan: Plan) -> int:
    return sum(point.pending for _, points in plan for point in points)


def _engine(settings: Settings) -> str:
    try:
        return "attached" if settings.client_only else BACKENDS[settings.backend].version()
    except InputError:
        if settings.dry_run:
            return "not installed"
        raise


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


def _runs(settings: Settings) -> list[RunConfig]:
    same = {name: getattr(settings, name) for name in RunConfig.__struct_fields__ if name not in SWEPT}
    same["extra_body"] = keys.hide_in_fields(settings.extra_body)
    runs = range(settings.max_runs if settings.target_ci else settings.runs)
    return [
        RunConfig(**lengths, **load, max_prompt_length=settings.max_prompt_length, repetition=repetition, **same)
        for repetition, lengths, load in product(runs, _lengths(settings), _loads(settings))
    ]


def _lengths(settings: Settings) -> list[dict[str, Any]]:
    """Scenarios, or every mean prompt length with every mean generation; a dataset has lengths of its own."""
    if not settings.scenario:
        names = ("mean_prompt_length", "mean_max_new_tokens")
        means = list(product(settings.mean_prompt_length, settings.mean_max_new_tokens))
        return [dict(zip(names, pair, strict=True)) for pair in (means[:1] if settings.dataset else means)]
    return [scenario_lengths(scenario) for scenario in settings.scenario]


def _loads(settings: Settings) -> list[dict[str, Any]]:
    """Clients, request rates, or speeds of a trace: one of them is swept. A search begins with the least."""
    if settings.find_max or settings.find_peak:
        return [_least_load(settings)]
    if settings.request_rate:
        return [rate_load(settings, rate) for rate in settings.request_rate]
    if settings.trace_speed:
        return [rate_load(settings, None) | {"trace_speed": speed} for speed in settings.trace_speed]
    return [clients_load(settings, clients) for clients in settings.num_clients]


def _least_load(settings: Settings) -> dict[str, Any]:
    if settings.request_rate:
        return rate_load(settings, min(settings.request_rate))
    return clients_load(settings, min(settings.num_clients))


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


def make_point(settings: Settings, server: ServerConfig, run: RunConfig) -> Point:
    path = settings.out_json_dir / server.backend / log_name(server, run)
    mark = fingerprint(server, run, _engine(settings), __version__)
    return Point(server, run, path, mark, "new" if settings.overwrite_results else _state(path, mark))


def _state(path: Path, mark: str) -> str:
    if not path.exists():
        return "new"
    try:
        head = msgspec.json.decode(path.read_bytes(), type=LogHead)
    except (OSError, msgspec.MsgspecError):
        return "superseded"
    if head.status != "ok":
        return "failed"
    return "done" if head.fingerprint == mark else "superseded"


def runs_before(point: Point, points: list[Point]) -> list[Log]:
    """The logs of earlier runs of the point's load, of those that succeeded under these settings."""
    load = gathering.point_key(point.server, point.run)
    earlier = [
        p
        for p in points
        if p.run.repetition < point.run.repetition
        and gathering.point_key(p.server, p.run) == load
        and _state(p.path, p.fingerprint) == "done"
    ]
    return [records.load(p.path) for p in earlier]


def save(point: Point, log: Log) -> None:
    """Write the point's log; one of other settings in its place is put aside, not lost."""
    if point.state == "superseded" and point.path.exists():
        aside = point.path.parent / "superseded"
        aside.mkdir(exist_ok=True)
        number = sum(1 for _ in aside.glob(f"{point.path.stem}.*"))
        point.path.replace(aside / f"{point.path.stem}.{number}.json")
    records.save(log, point.path)
