"""The points of one server, measured in turn: server -> workload -> load -> log."""

from __future__ import annotations

import os
import platform
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import datetime, timezone
from itertools import accumulate, pairwise
from typing import Any

import msgspec
from tokenizers import Tokenizer

from servebench import __version__, metrics
from servebench.arguments import Settings
from servebench.launch import ServerFailed
from servebench.learning import learnt
from servebench.load.fleet import default_workers, run_load
from servebench.prefix_cache import hit_rate
from servebench.preflight import model_context
from servebench.records import Log, Result, RunConfig, ServerConfig, ServerFacts
from servebench.search import points_to_measure
from servebench.server import Server, running_server
from servebench.stopping import why_stop
from servebench.sweep import Plan, Point, runs_before
from servebench.workload import build_workload

ONE_BY_ONE: dict[str, Any] = {"num_clients": 1, "num_requests": 2, "warmup": 0, "probe_rate": 0.0}
ONE_BY_ONE |= {"request_rate": None, "trace_speed": None, "max_concurrency": None, "multi_turn": False}
AT_REST = 1.5  # ratio of two requests' latencies up to which the first had nothing to wait for
RESTS, FRESH = 10, 10_000  # times that it is tried, and the first repetition, which no point has


def measure_plan(plan: Plan, settings: Settings, tokenizer: Tokenizer) -> Iterator[tuple[Point, Log]]:
    """Yield every pending point with its log as soon as it ended, server by server."""
    for config, points in plan:
        wanted = points_to_measure(settings, config, points)
        pending = (point for point in wanted if not enough(point, points, settings))  # asked when its turn comes
        with closing(measure(config, pending, settings, tokenizer)) as measured:
            for point, log in measured:
                yield point, msgspec.structs.replace(log, stopped=enough(point, points, settings, log))


def measure(
    config: ServerConfig, pending: Iterator[Point], settings: Settings, tokenizer: Tokenizer
) -> Generator[tuple[Point, Log], None, None]:
    """Yield each point with its log as soon as it ended. A server that died is started again for the rest."""
    point = next(pending, None)
    while point:
        try:
            with running_server(config, settings, settings.out_json_dir / config.backend) as running:
                server = learnt(running, point.run, tokenizer)
                while point and server.alive():
                    log = measure_point(point, server, settings, tokenizer)
                    yield point, log
                    point = next(pending, None)
                    if point and log.quality.overloaded:
                        let_it_rest(server, log.run, point, settings, tokenizer)
        except ServerFailed as failure:  # it does not start, so none of its points can be measured
            while point:
                yield point, not_measured(point, f"the server did not start: {failure}", failure.log_tail)
                point = next(pending, None)


def let_it_rest(server: Server, run: RunConfig, point: Point, settings: Settings, tokenizer: Tokenizer) -> None:
    """After an overload: requests one after the other, until the first takes no longer than the second.

    Not every server drops requests that nobody waits for any more; the next point would queue behind them.
    """
    for attempt in range(RESTS):
        repetition = FRESH + attempt  # so that the next point finds none of these prompts in a cache
        alone = msgspec.structs.replace(run, **ONE_BY_ONE, repetition=repetition)
        workload = build_workload(alone, tokenizer, context_of(server, settings))
        outcome = run_load(alone, workload, server.target(alone), point.path.with_suffix(".parts"), 1)
        took = [metrics.e2e_s(r) or 0.0 for r in outcome.results if r.phase == "measured" and not r.error]
        if len(took) < 2 or took[0] <= AT_REST * took[1]:
            return


def enough(point: Point, points: list[Point], settings: Settings, log: Log | None = None) -> str | None:
    """Why the runs of this point's load before it (and this log of it) are enough for --target_ci; else None."""
    if not settings.target_ci:
        return None
    runs = runs_before(point, points) + ([log] if log and log.status == "ok" else [])
    return why_stop(runs, settings.target_ci, settings.min_runs, settings.max_runs)


def measure_point(point: Point, server: Server, settings: Settings, tokenizer: Tokenizer) -> Log:
    """Put one load on the server and write down what came of it, also when it failed midway."""
    run, started_at = point.run, _now()
    context = context_of(server, settings)
    if context and not run.dataset and run.mean_prompt_length + run.mean_max_new_tokens > context:
        return not_measured(point, f"prompt and generation exceed the {context} tokens of context that it serves")
    server.empty_cache()
    workload = build_workload(run, tokenizer, context)
    workers = settings.num_workers or default_workers(run.num_clients, run.request_rate or 0.0)
    before = server.cache_counters()
    outcome = run_load(run, workload, server.target(run), point.path.with_suffix(".parts"), workers)
    results = [_count_tokens(r, tokenizer) for r in outcome.results]
    failure = outcome.failure or _nothing_succeeded(results)
    return Log(
        status="failed" if failure else "ok",
        failure=failure,
        started_at=started_at,
        fingerprint=point.fingerprint,
        server=point.server,
        run=run,
        server_facts=msgspec.structs.replace(server.facts, log_tail=server.log_tail() if failure else ""),
        client=_this_client() | {"workload_sha256": workload.sha256, "num_workers": workers},
        window_ns=outcome.window_ns,
        quality=outcome.quality,
        cache_hit_rate=hit_rate(before, server.cache_counters()),
        results=results,
        probes=[_count_tokens(r, tokenizer) for r in outcome.probes],
    )


def context_of(server: Server, settings: Settings) -> int | None:
    """The most tokens that server and model take of prompt and generation, beside a template, if any says so."""
    context = min((n for n in (server.context, model_context(settings.model)) if n), default=None)
    return context and max(1, context - server.template_tokens)


def not_measured(point: Point, why: str, log_tail: str = "") -> Log:
    """The log of a point whose load never began."""
    return Log(
        status="failed",
        failure=why,
        started_at=_now(),
        fingerprint=point.fingerprint,
        server=point.server,
        run=point.run,
        server_facts=ServerFacts(urls=list(point.server.urls), log_tail=log_tail),
        client=_this_client(),
        window_ns=None,
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _nothing_succeeded(results: list[Result]) -> str | None:
    counted = [r for r in results if r.phase == "measured"]
    errors = [r.error for r in counted if r.error]
    return f"every request failed, the first with: {errors[0]}" if errors and len(errors) == len(counted) else None


def _count_tokens(result: Result, tokenizer: Tokenizer) -> Result:
    """Where the server counted none, the tokenizer does: tokens up to each event, less those before."""
    if not result.texts:
        return result
    so_far = [0, *(len(tokenizer.encode(t, add_special_tokens=False).ids) for t in accumulate(result.texts))]
    tokens = [max(0, b - a) for a, b in pairwise(so_far)]
    counted = {"event_tokens": tokens, "generated_tokens": sum(tokens), "token_source": "tokenizer"}
    return msgspec.structs.replace(result, texts=[], **counted)


def _this_client() -> dict[str, str | int | float]:
    return {
        "servebench": __version__,
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count() or 0,
    }
