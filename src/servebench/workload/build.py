"""Builds the workload of a run: its requests and when they leave. Nothing else decides about them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer

from servebench.log.config import Clients, Dataset, Rate, RunConfig, Scenario, Synthetic
from servebench.log.lengths import MAX_TIMES_MEAN
from servebench.workload.arrivals import draw_schedule, trace_schedule
from servebench.workload.checks import requests_of
from servebench.workload.datasets import dataset_requests
from servebench.workload.prompt_cache import cached
from servebench.workload.requests import Recipe, Request, Workload, probes, requests_of_lengths
from servebench.workload.seed import Stream
from servebench.workload.texts import plain_words

MEAN_OF_DATASET = 2600  # in the seed, for the mean prompt that a dataset does not have


def build_workload(run: RunConfig, tokenizer: Tokenizer, context: int | None) -> Workload:
    """The same for every engine, server and machine.

    `context` is how many tokens the model takes at most, prompt and answer together. Raises InputError.
    """
    recipe = Recipe(run, tokenizer, context, _random_numbers(run, Stream.REQUESTS))
    times_s, remark = None, ""
    match run.requests:
        case Dataset() as dataset:
            measured, times_s, remark = dataset_requests(recipe, dataset)
            filler = _similar(recipe, measured)
        case synthetic:
            prompt_tokens = run.num_requests * synthetic.mean_prompt_length
            measured, filler = cached(recipe, prompt_tokens, lambda: _make(recipe, synthetic))
    schedule = draw_schedule(run) if isinstance(run.load, Rate) else None
    if times_s is not None:
        schedule = trace_schedule(times_s, run)
        measured, filler = measured[run.warmup :], [*measured[: run.warmup], *filler]
    short = probes(tokenizer, _random_numbers(run, Stream.PROBES)) if run.probe_rate else ()
    checks = requests_of(run, tokenizer, context, measured) if run.check else ()
    return Workload(measured, filler, schedule, short, checks, remark)


def _random_numbers(run: RunConfig, stream: Stream) -> np.random.Generator:
    """Other ones for every point of a sweep and every repetition, so that no cache holds the prompts already."""
    load, requests = run.load, run.requests
    clients, size = (load.num_clients, 0.0) if isinstance(load, Clients) else (1, load.size)
    prompt = MEAN_OF_DATASET if isinstance(requests, Dataset) else requests.mean_prompt_length
    point = [prompt, requests.mean_max_new_tokens, clients, round(size * 1e6)]
    return np.random.default_rng([run.seed, run.repetition, stream, *point])


def _make(recipe: Recipe, synthetic: Synthetic | Scenario) -> list[list[Request]]:
    """[measured, filler]. Both have the same prefixes, so the warm-up brings them into the server's cache."""
    run, rng, prefixes = recipe.run, recipe.rng, _draw_prefixes(recipe, synthetic)
    of_prompts, of_answers = synthetic.lengths
    made = []
    for n in (run.num_requests, _filler_count(run)):
        answers = of_answers.draw(n, MAX_TIMES_MEAN * of_answers.mean, rng)
        prompts = of_prompts.draw(n, synthetic.max_prompt_length, rng)
        openings = [prefixes[i] for i in rng.integers(len(prefixes), size=n)] if prefixes else []
        made.append(requests_of_lengths(recipe, np.column_stack([prompts, answers]), openings))
    return made


def _draw_prefixes(recipe: Recipe, synthetic: Synthetic | Scenario) -> list[list[str]]:
    """The words that the prompts of each group begin with; none without --shared_prefix."""
    tokens, groups = synthetic.shared_prefix or (0, 0)
    words = plain_words(recipe.tokenizer)
    return [words.draw(tokens - words.special, recipe.rng) for _ in range(groups)]


def _similar(recipe: Recipe, measured: list[Request]) -> list[Request]:
    """Synthetic filler with the lengths and pauses of a dataset, whose own texts are only sent to be measured."""
    templates = [measured[i] for i in recipe.rng.integers(len(measured), size=_filler_count(recipe.run))]
    filler = requests_of_lengths(recipe, np.array([[r.prompt_tokens, r.max_new_tokens] for r in templates]))
    return [replace(made, think_s=like.think_s) for made, like in zip(filler, templates, strict=True)]


def _filler_count(run: RunConfig) -> int:
    if isinstance(run.load, Clients):
        return run.load.num_clients * (run.warmup + 3)
    return run.warmup + max(64, run.num_requests // 4)
