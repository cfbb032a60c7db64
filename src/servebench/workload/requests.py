"""What a run sends: requests of given lengths, with fresh texts of exactly so many tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from tokenizers import Tokenizer

from servebench.log.config import Dataset, RunConfig
from servebench.workload.arrivals import Schedule
from servebench.workload.questions import Question
from servebench.workload.texts import exact_texts, plain_words

PROBE_PROMPT, PROBE_ANSWER = 16, 8  # tokens
PROBE_TEXTS = 256  # different ones


@dataclass(frozen=True)
class Request:
    """One request to a server. Lengths in tokens."""

    prompt: str
    prompt_tokens: int
    max_new_tokens: int
    messages: tuple[dict[str, str], ...] = ()  # a dataset's chat; empty: the prompt is the user's only message
    conversation: int | None = None  # one client sends the requests of a conversation, one after the other
    think_s: float = 0.0  # pause after the conversation's last answer; for a filler request, after its own answer
    question: Question | None = None  # that it asks, greedily


@dataclass(frozen=True)
class Workload:
    """`measured` requests are sent once each; `filler` keeps the server under load before and after, in turn."""

    measured: list[Request]
    filler: list[Request]
    schedule: Schedule | None = None  # open loop
    probes: tuple[Request, ...] = ()  # short requests beside the load, in turn
    checks: tuple[Request, ...] = ()  # questions beside the load
    remark: str = ""  # what was left out of a dataset or cut, in words

    @property
    def sha256(self) -> str:
        """Hash of what is measured: equal for two servers that got the same requests at the same times."""
        digest = hashlib.sha256()
        for r in self.measured:
            chat = msgspec.json.encode(r.messages).decode() if r.messages else ""
            digest.update(f"{r.prompt}\1{r.max_new_tokens}\1{chat}\0".encode())
        if self.schedule:
            digest.update(np.rint(self.schedule.times_s * 1e9).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Recipe:
    """What the requests of a run are made from. Texts depend on the order in which `rng` is used."""

    run: RunConfig
    tokenizer: Tokenizer
    context: int | None  # tokens that the model takes at most, prompt and answer together; None: unknown
    rng: np.random.Generator


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
    requests = recipe.run.requests
    prose = not isinstance(requests, Dataset) and requests.prompt_text == "prose"
    texts = exact_texts(recipe.tokenizer, prompts.tolist(), recipe.rng, openings, prose)
    return [Request(t, int(p), int(a)) for t, p, a in zip(texts, prompts, answers, strict=True)]


def probes(tokenizer: Tokenizer, rng: np.random.Generator) -> tuple[Request, ...]:
    """Short requests, all of one length, so that only the load changes their latency."""
    n = max(PROBE_PROMPT, plain_words(tokenizer).special + 1)
    return tuple(Request(text, n, PROBE_ANSWER) for text in exact_texts(tokenizer, [n] * PROBE_TEXTS, rng))
