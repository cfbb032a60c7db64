"""Counts tokens with the model's tokenizer: of whole texts, and of every event of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import msgspec
import numpy as np
from tokenizers import Tokenizer

from servebench.cli import live
from servebench.errors import InputError
from servebench.log.result import Result

BATCH = 256  # texts encoded in one call, on all cores


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str], special: bool = True) -> list[int]:
    """Tokens of each text as a server counts them.

    A prompt has the special tokens that the tokenizer adds, an answer (special=False) has not.
    """
    tokens: list[int] = []
    for start in range(0, len(texts), BATCH):
        if start:
            live.show(f"tokenizing: {start} of {len(texts)} texts")
        batch = list(texts[start : start + BATCH])
        tokens += map(len, tokenizer.encode_batch_fast(batch, add_special_tokens=special))
    return tokens


def with_token_counts(results: Sequence[Result], tokenizer: Tokenizer) -> list[Result]:
    """The results, with tokens counted where only texts are known; their texts are dropped."""
    counted = list(results)
    uncounted = [i for i, result in enumerate(counted) if result.texts]
    for start in range(0, len(uncounted), BATCH):
        batch = uncounted[start : start + BATCH]
        try:
            found = tokens_of_events([counted[i].texts for i in batch], tokenizer)
        except InputError:  # the server that counts is gone
            return [msgspec.structs.replace(result, texts=[]) for result in counted]
        for i, tokens in zip(batch, found, strict=True):
            fields = {"event_tokens": tokens, "generated_tokens": sum(tokens), "token_source": "tokenizer"}
            counted[i] = msgspec.structs.replace(counted[i], texts=[], **fields)
    return counted


def tokens_of_events(answers: Sequence[list[str]], tokenizer: Tokenizer) -> list[list[int]]:
    """Tokens of each event of each answer: a token counts where its last character came.

    An answer is encoded once, as a whole; each token knows where it ends. Half a surrogate pair stands for a
    character that was cut in two, and counts as a character.
    """
    texts = ["".join(events).encode("utf-8", "replace").decode() for events in answers]
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [_per_event(events, [end for _, end in e.offsets]) for events, e in zip(answers, encoded, strict=True)]


def _per_event(events: list[str], token_ends: list[int]) -> list[int]:
    event_ends = np.fromiter(accumulate(map(len, events)), dtype=int)
    event = np.searchsorted(event_ends, np.minimum(token_ends, event_ends[-1]))
    return [int(n) for n in np.bincount(event.astype(int), minlength=len(events))]
