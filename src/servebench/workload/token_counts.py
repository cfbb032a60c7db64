"""Tokens of every event of an answer, counted by the tokenizer where the server counts none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import msgspec
import numpy as np
from tokenizers import Tokenizer

from servebench.log.schema import Result

AT_ONCE = 256  # answers encoded in one call, on all cores


def with_token_counts(results: Sequence[Result], tokenizer: Tokenizer) -> list[Result]:
    """The results, with tokens where only texts were known."""
    counted = list(results)
    untold = [i for i, result in enumerate(counted) if result.texts]
    for start in range(0, len(untold), AT_ONCE):
        batch = untold[start : start + AT_ONCE]
        for i, tokens in zip(batch, tokens_of_events([counted[i].texts for i in batch], tokenizer), strict=True):
            fields = {"event_tokens": tokens, "generated_tokens": sum(tokens), "token_source": "tokenizer"}
            counted[i] = msgspec.structs.replace(counted[i], texts=[], **fields)
    return counted


def tokens_of_events(answers: Sequence[list[str]], tokenizer: Tokenizer) -> list[list[int]]:
    """Tokens of each event of each answer: a token counts where its last character came.

    An answer is encoded once, as a whole; a token knows where it ends in it. Half a surrogate pair stands for a
    character that was cut in two, and is counted as a character.
    """
    texts = ["".join(events).encode("utf-8", "replace").decode() for events in answers]
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [_per_event(events, [end for _, end in e.offsets]) for events, e in zip(answers, encoded, strict=True)]


def _per_event(events: list[str], token_ends: list[int]) -> list[int]:
    event_ends = np.fromiter(accumulate(map(len, events)), dtype=int)
    event = np.searchsorted(event_ends, np.minimum(token_ends, event_ends[-1]))
    return [int(n) for n in np.bincount(event.astype(int), minlength=len(events))]
