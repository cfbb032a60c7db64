"""A run's numbers, seed and dataset -> its requests and when they leave; nothing else decides about them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer

from servebench.log.schema import RunConfig
from servebench.workload import replay
from servebench.workload.arrivals import draw_schedule, trace_schedule
from servebench.workload.prompt_cache import kept
from servebench.workload.requests import Request, Workload
from servebench.workload.synthetic import made_up, of_lengths, probes, shared_prefixes

REQUESTS, PROBES = 2, 3  # streams of the seed's random numbers; arrivals have the first


def build_workload(run: RunConfig, tokenizer: Tokenizer, context: int | None) -> Workload:
    """The same for every engine, server and machine.

    `context` is the most tokens that the model takes, prompt and generation together. Raises InputError.
    """
    rng, times_s, remark = _stream(run, REQUESTS), None, ""
    if run.dataset:
        counted, times_s, remark = replay.requests(run, tokenizer, context, rng)
        spare = _like(counted, run, tokenizer, context, rng)
    else:
        counted, spare = kept(run, tokenizer, context, lambda: _made_up(run, tokenizer, context, rng))
    schedule = draw_schedule(run) if run.request_rate else None
    if times_s is not None and run.trace_speed:
        schedule = trace_schedule(times_s, run)
        counted, spare = counted[run.warmup :], [*counted[: run.warmup], *spare]
    beside = probes(tokenizer, _stream(run, PROBES)) if run.probe_rate else ()
    return Workload(counted, spare, schedule, beside, remark)


def _stream(run: RunConfig, which: int) -> np.random.Generator:
    """Every point of a sweep and every repetition has requests of its own, so that none is in a cache already."""
    load = run.request_rate or run.trace_speed or 0.0
    point = [run.mean_prompt_length, run.mean_max_new_tokens, run.num_clients, round(load * 1e6)]
    return np.random.default_rng([run.seed, run.repetition, which, *point])


def _made_up(
    run: RunConfig, tokenizer: Tokenizer, context: int | None, rng: np.random.Generator
) -> list[list[Request]]:
    """Counted and spare requests: what the former begin with has been asked for in the warm-up."""
    prefixes = shared_prefixes(run, tokenizer, rng)
    return [made_up(run, tokenizer, context, rng, n, prefixes) for n in (run.num_requests, _spares(run))]


def _spares(run: RunConfig) -> int:
    """How many requests there are to keep the server under load, in turn."""
    return run.warmup + max(64, run.num_requests // 4) if run.open_loop else run.num_clients * (run.warmup + 3)


def _like(
    counted: list[Request], run: RunConfig, tokenizer: Tokenizer, context: int | None, rng: np.random.Generator
) -> list[Request]:
    """Spare requests, made up with the lengths and pauses of the dataset: its texts are kept for counting."""
    like = rng.integers(len(counted), size=_spares(run))
    lengths = np.array([[r.prompt_tokens, r.max_new_tokens] for r in counted])
    made = of_lengths(run, tokenizer, context, rng, lengths[like])
    return [replace(spare, think_s=counted[i].think_s) for spare, i in zip(made, like.tolist(), strict=True)]
