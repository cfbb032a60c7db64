"""Requests whose lengths are drawn from normal distributions, as in the original suite."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from servebench.records import RunConfig
from servebench.workload.tokens import exact_texts


@dataclass(frozen=True)
class Request:
    """One thing to ask for."""

    prompt: str
    prompt_tokens: int
    max_new_tokens: int


@dataclass(frozen=True)
class Workload:
    """`counted` are measured, each once; `spare` keep the server under load before and after, in turn."""

    counted: list[Request]
    spare: list[Request]

    @property
    def sha256(self) -> str:
        """Identity of what was counted: equal for two engines that were asked the same."""
        text = "\0".join(f"{r.prompt}\1{r.max_new_tokens}" for r in self.counted)
        return hashlib.sha256(text.encode()).hexdigest()


def build_workload(run: RunConfig, tokenizer: Tokenizer, context: int | None) -> Workload:
    """The same for every engine, server and machine: it depends on the run's numbers and seed alone.

    `context` is the most tokens that the model takes, prompt and generation together.
    """
    load = [run.mean_prompt_length, run.mean_max_new_tokens, run.num_clients]
    rng = np.random.default_rng([run.seed, run.repetition, *load])
    spare = run.num_clients * (run.warmup + 3)
    n = run.num_requests + spare
    generated = _lengths(rng, n, run.mean_max_new_tokens, run.max_new_tokens_var, 10 * run.mean_max_new_tokens)
    prompts = _lengths(rng, n, run.mean_prompt_length, run.prompt_length_var, run.max_prompt_length)
    if context:
        generated = np.minimum(generated, context - 1)
        prompts = np.minimum(prompts, context - generated)
    texts = exact_texts(tokenizer, prompts.tolist(), rng)
    requests = [Request(t, int(p), int(g)) for t, p, g in zip(texts, prompts, generated, strict=True)]
    return Workload(requests[: run.num_requests], requests[run.num_requests :])


def _lengths(rng: np.random.Generator, n: int, mean: int, share: float, most: int) -> np.ndarray:
    """n whole numbers, normal around mean with standard deviation share * mean, within 1..most."""
    return np.clip(np.rint(rng.normal(mean, share * mean, n)), 1, most).astype(int)
