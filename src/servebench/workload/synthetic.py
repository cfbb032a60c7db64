"""Synthetic requests: lengths drawn from a distribution, fresh texts of exactly so many tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from servebench.workload.lengths import HIGHEST, lengths_of
from servebench.workload.requests import Recipe, Request
from servebench.workload.texts import exact_texts, plain_words

PROBE_PROMPT, PROBE_ANSWER = 16, 8  # tokens
PROBES = 256  # different ones


def draw_lengths(recipe: Recipe, n: int) -> np.ndarray:
    """Tokens of n prompts and their answers. Shape (n, 2)."""
    of_prompts, of_answers = lengths_of(recipe.run)
    answers = of_answers.draw(n, HIGHEST * of_answers.mean, recipe.rng)
    return np.column_stack([of_prompts.draw(n, recipe.run.max_prompt_length, recipe.rng), answers])


def draw_prefixes(recipe: Recipe) -> list[list[str]]:
    """The words that the prompts of each group begin with; none without --shared_prefix."""
    if not recipe.run.shared_prefix:
        return []
    tokens, groups = recipe.run.shared_prefix
    words = plain_words(recipe.tokenizer)
    return [words.draw(tokens - words.special, recipe.rng) for _ in range(groups)]


def requests_of_lengths(
    recipe: Recipe, lengths: np.ndarray, openings: Sequence[Sequence[str]] = ()
) -> list[Request]:
    """Requests of these lengths (shape (n, 2): tokens of prompt and answer), cut to the context.

    `openings` has the words that each prompt begins with. A prompt has at least one token beyond those that the
    tokenizer adds to every text.
    """
    prompts, answers = lengths.T
    shortest = plain_words(recipe.tokenizer).special + 1
    if recipe.context:
        answers = np.minimum(answers, max(1, recipe.context - shortest))
        prompts = np.minimum(prompts, recipe.context - answers)
    prompts = np.maximum(prompts, shortest)
    prose = recipe.run.prompt_text == "prose"
    texts = exact_texts(recipe.tokenizer, prompts.tolist(), recipe.rng, openings, prose)
    return [Request(t, int(p), int(a)) for t, p, a in zip(texts, prompts, answers, strict=True)]


def probes(tokenizer: Tokenizer, rng: np.random.Generator) -> tuple[Request, ...]:
    """Short requests, all of one length, so that only the load changes their latency."""
    n = max(PROBE_PROMPT, plain_words(tokenizer).special + 1)
    return tuple(Request(text, n, PROBE_ANSWER) for text in exact_texts(tokenizer, [n] * PROBES, rng))
