"""Made-up requests: lengths from a distribution, texts of exactly so many tokens, fresh from the first on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from servebench.log.schema import RunConfig
from servebench.workload.lengths import HIGHEST, lengths_of
from servebench.workload.requests import Request
from servebench.workload.tokens import exact_texts, plain_words

PROBE_PROMPT, PROBE_ANSWER, PROBES = 16, 8, 256  # tokens, tokens, different ones


def made_up(
    run: RunConfig,
    tokenizer: Tokenizer,
    context: int | None,
    rng: np.random.Generator,
    n: int,
    prefixes: Sequence[Sequence[str]] = (),
) -> list[Request]:
    """n requests whose lengths are drawn as the run says, each beginning with one of the prefixes if given."""
    of_prompts, of_answers = lengths_of(run)
    generated = of_answers.draw(n, HIGHEST * of_answers.mean, rng)
    prompts = of_prompts.draw(n, run.max_prompt_length, rng)
    openings = [prefixes[group] for group in rng.integers(len(prefixes), size=n)] if prefixes else []
    return of_lengths(run, tokenizer, context, rng, np.column_stack([prompts, generated]), openings)


def of_lengths(
    run: RunConfig,
    tokenizer: Tokenizer,
    context: int | None,
    rng: np.random.Generator,
    lengths: np.ndarray,
    openings: Sequence[Sequence[str]] = (),
) -> list[Request]:
    """Requests of these lengths (shape (n, 2): tokens of prompt and answer), within the context.

    No prompt is shorter than the tokenizer can write: one token more than it adds by itself.
    """
    prompts, generated = lengths.T
    shortest = plain_words(tokenizer).special + 1
    if context:
        generated = np.minimum(generated, max(1, context - shortest))
        prompts = np.minimum(prompts, context - generated)
    prompts = np.maximum(prompts, shortest)
    texts = exact_texts(tokenizer, prompts.tolist(), rng, openings, run.prompt_text == "prose")
    return [Request(t, int(p), int(g)) for t, p, g in zip(texts, prompts, generated, strict=True)]


def shared_prefixes(run: RunConfig, tokenizer: Tokenizer, rng: np.random.Generator) -> list[list[str]]:
    """What the prompts of each group begin with, if they are to begin alike."""
    if not run.shared_prefix:
        return []
    tokens, groups = run.shared_prefix
    words = plain_words(tokenizer)
    return [words.draw(tokens - words.special, rng) for _ in range(groups)]


def probes(tokenizer: Tokenizer, rng: np.random.Generator) -> tuple[Request, ...]:
    """Short requests of one length, so that what differs in their latency is the load."""
    n = max(PROBE_PROMPT, plain_words(tokenizer).special + 1)
    return tuple(Request(text, n, PROBE_ANSWER) for text in exact_texts(tokenizer, [n] * PROBES, rng))
