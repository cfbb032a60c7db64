"""Builds the workload of a run: its requests and when they leave. Nothing else decides about them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer

from servebench.log.schema import RunConfig
from servebench.workload.arrivals import draw_schedule, trace_schedule
from servebench.workload.datasets import dataset_requests
from servebench.workload.lengths import HIGHEST, lengths_of
from servebench.workload.prompt_cache import cached
from servebench.workload.requests import Recipe, Request, Workload, probes, requests_of_lengths
from servebench.workload.texts import plain_words

REQUESTS, PROBES = 2, 3  # streams of the seed's random numbers; arrivals have 1, traces 4


def build_workload(run: RunConfig, tokenizer: Tokenizer, context: int | None) -> Workload:
    """The same for every engine, server and machine.

    `context` is the most tokens that the model takes, prompt and answer together. Raises InputError.
    """
    recipe = Recipe(run, tokenizer, context, _random_numbers(run, REQUESTS))
    times_s, remark = None, ""
    if run.dataset:
        measured, times_s, remark = dataset_requests(recipe)
        filler = _similar(recipe, measured)
    else:
        measured, filler = cached(recipe, lambda: _synthetic(recipe))
    schedule = draw_schedule(run) if run.request_rate else None
    if times_s is not None:
        schedule = trace_schedule(times_s, run)
        measured, filler = measured[run.warmup :], [*measured[: run.warmup], *filler]
    short = probes(tokenizer, _random_numbers(run, PROBES)) if run.probe_rate else ()
    return Workload(measured, filler, schedule, short, remark)


def _random_numbers(run: RunConfig, stream: int) -> np.random.Generator:
    """Other ones for every point of a sweep and every repetition, so that no cache holds the prompts already."""
    load = run.request_rate or run.trace_speed or 0.0
    point = [run.mean_prompt_length, run.mean_max_new_tokens, run.num_clients, round(load * 1e6)]
    return np.random.default_rng([run.seed, run.repetition, stream, *point])


def _synthetic(recipe: Recipe) -> list[list[Request]]:
    """[measured, filler]. Both have the same prefixes, so the warm-up brings them into the server's cache."""
    run, rng, prefixes = recipe.run, recipe.rng, _draw_prefixes(recipe)
    of_prompts, of_answers = lengths_of(run)
    made = []
    for n in (run.num_requests, _filler_count(run)):
        answers = of_answers.draw(n, HIGHEST * of_answers.mean, rng)
        prompts = of_prompts.draw(n, run.max_prompt_length, rng)
        openings = [prefixes[i] for i in rng.integers(len(prefixes), size=n)] if prefixes else []
        made.append(requests_of_lengths(recipe, np.column_stack([prompts, answers]), openings))
    return made


def _draw_prefixes(recipe: Recipe) -> list[list[str]]:
    """The words that the prompts of each group begin with; none without --shared_prefix."""
    tokens, groups = recipe.run.shared_prefix or (0, 0)
    words = plain_words(recipe.tokenizer)
    return [words.draw(tokens - words.special, recipe.rng) for _ in range(groups)]


def _similar(recipe: Recipe, measured: list[Request]) -> list[Request]:
    """Synthetic filler with the lengths and pauses of a dataset, whose own texts are only sent to be measured."""
    templates = [measured[i] for i in recipe.rng.integers(len(measured), size=_filler_count(recipe.run))]
    filler = requests_of_lengths(recipe, np.array([[r.prompt_tokens, r.max_new_tokens] for r in templates]))
    return [
        replace(request, think_s=template.think_s) for request, template in zip(filler, templates, strict=True)
    ]


def _filler_count(run: RunConfig) -> int:
    return run.warmup + max(64, run.num_requests // 4) if run.open_loop else run.num_clients * (run.warmup + 3)
