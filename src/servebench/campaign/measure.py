"""One run measured: workload -> load -> log."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from tokenizers import Tokenizer

from servebench import __version__
from servebench.analysis import latency
from servebench.campaign.checks import ask_alone, judged
from servebench.errors import InputError, ServerFailed
from servebench.load.fleet import Watch, default_workers, run_load
from servebench.log.checks import Asked
from servebench.log.config import Clients, RunConfig
from servebench.log.result import Result
from servebench.log.schema import Log, Quality, ServerFacts
from servebench.log.telemetry import Telemetry
from servebench.plan.preflight import asks_hub, check_lengths
from servebench.plan.settings import Settings
from servebench.plan.sweep import Point
from servebench.servers.prefix_cache import hit_rate
from servebench.servers.server import Server
from servebench.telemetry import window
from servebench.telemetry.manifest import described, machine_of
from servebench.telemetry.recorder import Recorder, sampled
from servebench.workload import Workload, build_workload, load_tokenizer
from servebench.workload.model_files import model_context
from servebench.workload.token_counts import with_token_counts

load_tokenizer_once = cache(load_tokenizer)  # takes a second or two, which a plan that is done need not wait for
DRAINED_RATIO = 1.5  # of two requests' latencies: up to it the first did not wait behind others
MAX_DRAIN_TRIES = 10
DRAIN_REPETITION = 10_000  # the first one of a drain, which no point has


@dataclass(frozen=True)
class Bench:
    """What points of one server are measured with."""

    server: Server
    settings: Settings
    tokenizer: Tokenizer
    recorder: Recorder | None  # of what goes on beside the requests
    alone: dict[tuple[str, int], Asked] = field(default_factory=dict)  # what questions brought, by id and server

    @cached_property
    def facts(self) -> ServerFacts:
        """What the server is; it is asked once, after a load."""
        return described(self.server, self.settings.tokenizer)

    @property
    def context(self) -> int | None:
        """The most tokens of prompt and generation together, without a template; None if nobody says so."""
        limits = (self.server.context, model_context(self.settings.model, asks_hub(self.settings)))
        context = min((n for n in limits if n), default=None)
        return context and max(1, context - self.server.template_tokens)


def drain_backlog(bench: Bench, run: RunConfig, point: Point) -> None:
    """After an overload: requests one after the other, until the first takes no longer than the second.

    Not every server drops requests that nobody waits for any more; the next point would queue behind them.
    """
    for attempt in range(MAX_DRAIN_TRIES):
        repetition = DRAIN_REPETITION + attempt  # so that the next point finds none of these prompts in a cache
        alone = replace(run, load=Clients(), num_requests=2, warmup=0, probe_rate=0.0, repetition=repetition)
        workload = build_workload(alone, bench.tokenizer, bench.context)
        outcome = run_load(alone, workload, bench.server.target(alone), parts_of(point), 1)
        took = [latency.e2e_s(r) or 0.0 for r in outcome.results if r.phase == "measured" and r.succeeded]
        if len(took) < 2 or took[0] <= DRAINED_RATIO * took[1]:
            return


def measure_point(point: Point, bench: Bench, watch: Watch) -> Log:
    """Put one load on the server and write down what came of it, also when it failed midway."""
    run, started_at, server, execution = point.run, now(), bench.server, bench.settings.execution
    try:
        check_lengths(run, bench.context)
        workload = build_workload(run, bench.tokenizer, bench.context)
        alone = asked_alone(bench, workload, point, watch)
        server.empty_cache()
        workers = execution.num_workers or default_workers(run.load)
        before = server.cache_counters()
        with sampled(bench.recorder, point.path, watch) as (samples, watch):
            outcome = run_load(run, workload, server.target(run), parts_of(point), workers, watch)
    except InputError as error:  # it cannot be as asked, which others may
        return not_measured(point, str(error))
    except OSError as error:  # a full disk
        return not_measured(point, error.strerror or str(error))
    facts, results = bench.facts, with_token_counts(outcome.results, bench.tokenizer)
    failure = outcome.failure or why_failed(
        run, results, outcome.quality, execution.max_failed_share, server.check
    )
    seen, of = window.tracks(samples), outcome.window_ns if bench.recorder else None
    beside = window.telemetry(samples, seen, of) if of else None
    about = {
        "workload_sha256": workload.sha256,
        "workload_remark": workload.remark,
        "num_workers": outcome.workers,
    }
    return _log(
        point,
        failure,
        started_at,
        server_facts=replace(facts, log_tail=server.log_tail() if failure else ""),
        client=_this_client() | about,
        window_ns=outcome.window_ns,
        machine=machine_of(server),
        quality=with_host(outcome.quality, beside),
        telemetry=beside,
        series=window.series(seen),
        gpu_hour_price=execution.gpu_hour_price,
        cache_hit_rate=hit_rate(before, server.cache_counters()),
        check_floor=execution.check_floor,
        max_flawed_share=execution.max_flawed_share,
        checks=judged([(workload.checks[r.id], r) for r in outcome.checks], bench.tokenizer),
        checks_alone=alone,
        results=results,
        probes=with_token_counts(outcome.probes, bench.tokenizer),
    )


def asked_alone(bench: Bench, workload: Workload, point: Point, watch: Watch) -> list[Asked]:
    """What the questions of this run bring alone; each is asked once of a server."""
    servers = len(bench.server.urls)
    keys = [(q.question.id, (q.conversation or 0) % servers) for q in workload.checks if q.question]
    new = [q for q, key in zip(workload.checks, keys, strict=True) if key not in bench.alone]
    answered = ask_alone(point.run, new, bench.server.target(point.run), parts_of(point), watch)
    bench.alone.update({(each.question, each.server): each for each in judged(answered, bench.tokenizer)})
    return [bench.alone[key] for key in keys if key in bench.alone]


def with_host(quality: Quality, beside: Telemetry | None) -> Quality:
    """With what the host's cores were used for, if it was looked at."""
    if not beside or not (host := beside.host):
        return quality
    busy = 1 - host.idle_share - host.steal_share
    return replace(quality, host_cpu_share=busy, others_cpu_share=host.others_cpu_share)


def parts_of(point: Point) -> Path:
    """Where load processes write while they run: a folder that no other benchmark has."""
    return point.path.with_suffix(f".{os.getpid()}.parts")


def why_failed(
    run: RunConfig, results: list[Result], quality: Quality, max_failed_share: float, check: Callable[[], None]
) -> str | None:
    """Why a load that went through to its end is no measurement: too few answers came. None: it is one.

    Of an overloaded point the requests that we cut off ourselves are no fault of the server.
    """
    measured = [r for r in results if r.phase == "measured"]
    errors = [r.error for r in measured if r.error and not (quality.overloaded and r.cancelled)]
    if len(measured) < run.num_requests and not quality.overloaded:
        return f"only {len(measured)} of {run.num_requests} requests came back"
    if not errors:
        return None
    try:
        check()
    except ServerFailed as death:
        return str(death)
    if len(errors) == len(measured):
        return f"every request failed, the first with: {errors[0]}"
    failed = (
        f"{len(errors)} of {len(measured)} requests failed (more than --max_failed_share {max_failed_share:.3g})"
    )
    return f"{failed}, the first with: {errors[0]}" if len(errors) > max_failed_share * len(measured) else None


def not_measured(point: Point, why: str, log_tail: str = "") -> Log:
    """The log of a point whose load never began."""
    facts = ServerFacts(urls=list(point.server.urls), log_tail=log_tail)
    return _log(point, why, now(), server_facts=facts, client=_this_client(), window_ns=None)


def _log(point: Point, failure: str | None, started_at: str, **found: Any) -> Log:
    of_point = {name: getattr(point, name) for name in ("fingerprint", "identity", "options", "server", "run")}
    return Log(status="failed" if failure else "ok", failure=failure, started_at=started_at, **of_point, **found)


def now() -> str:
    """As logs have it: ISO 8601, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _this_client() -> dict[str, str | int | float]:
    return {
        "servebench": __version__,
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count() or 0,
    }
