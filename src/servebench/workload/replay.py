"""A dataset's entries -> requests: texts as they are, traces with made-up texts of their lengths.

The history of a conversation holds the dataset's own answers, not the server's: every engine is then asked the
same, and the hash in the log says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from tokenizers import Tokenizer

from servebench.records import InputError, RunConfig
from servebench.workload.datasets import Conversation, Row, read
from servebench.workload.lengths import HIGHEST, lengths_of
from servebench.workload.requests import Request
from servebench.workload.synthetic import of_lengths
from servebench.workload.tokens import count, plain_words

BLOCK = 512  # tokens that one hash of a Mooncake trace stands for
BLOCKS = 4  # stream of the seed's random numbers


def requests(
    run: RunConfig, tokenizer: Tokenizer, context: int | None, rng: np.random.Generator
) -> tuple[list[Request], np.ndarray | None]:
    """(requests, arrival times in s of a trace). A trace keeps its order; others are shuffled by the seed.

    With run.trace_speed the first run.warmup requests are those that come before the counted ones.
    """
    conversations, needed = checked(run)
    if conversations[0][0].at_s is None:
        return _said(_chosen(conversations, run, tokenizer, context, rng), run), None
    rows = sorted((c[0] for c in conversations), key=lambda row: row.at_s or 0.0)[:needed]
    lengths = np.array([[row.prompt_tokens, row.max_new_tokens] for row in rows])
    openings = [_words_of(row.blocks, tokenizer, run) for row in rows] if any(r.blocks for r in rows) else []
    return of_lengths(run, tokenizer, context, rng, lengths, openings), np.array([row.at_s for row in rows])


def checked(run: RunConfig) -> tuple[list[Conversation], int]:
    """(what is in the dataset, requests that are needed of it). Raises InputError when it cannot be as asked."""
    conversations = read(run.dataset, run.multi_turn)
    if run.trace_speed and conversations[0][0].at_s is None:
        raise InputError(f"--dataset {run.dataset} tells no arrival times; give --request_rate, not --trace_speed")
    if run.multi_turn and conversations[0][0].at_s is not None:
        raise InputError(f"--dataset {run.dataset} is a trace, which has no conversations; leave out --multi_turn")
    there, needed = sum(map(len, conversations)), run.num_requests + (run.warmup if run.trace_speed else 0)
    if there < needed:
        raise _too_few(run, there, needed)
    return conversations, needed


def _too_few(run: RunConfig, there: int, needed: int) -> InputError:
    return InputError(
        f"--dataset {run.dataset} has {there} requests that can be used, {needed} are needed; lower --num_requests"
    )


def _words_of(hashes: Sequence[int], tokenizer: Tokenizer, run: RunConfig) -> list[str]:
    """The words that these hashes stand for: the same for a hash wherever it comes in a run."""
    words = plain_words(tokenizer)
    streams = [np.random.default_rng([run.seed, run.repetition, BLOCKS, block]) for block in hashes]
    texts = [words.draw(BLOCK, rng, start=not i) for i, rng in enumerate(streams)]
    return [word for text in texts for word in text]


def _chosen(
    conversations: list[Conversation],
    run: RunConfig,
    tokenizer: Tokenizer,
    context: int | None,
    rng: np.random.Generator,
) -> list[Conversation]:
    """As many at random, none twice, as hold enough requests; those that exceed the context are left out."""
    order = iter(rng.permutation(len(conversations)).tolist())
    chosen: list[Conversation] = []
    while (missing := run.num_requests - sum(map(len, chosen))) > 0:
        batch = [conversations[i] for i in islice(order, missing)]
        if not batch:
            raise _too_few(run, run.num_requests - missing, run.num_requests)
        chosen += [c for c in _measured(batch, run, tokenizer, rng) if _fits(c, context)]
    return chosen


def _fits(conversation: Conversation, context: int | None) -> bool:
    return not context or all((r.prompt_tokens or 0) + (r.max_new_tokens or 0) <= context for r in conversation)


def _measured(
    batch: list[Conversation], run: RunConfig, tokenizer: Tokenizer, rng: np.random.Generator
) -> list[Conversation]:
    """With lengths in tokens; answers are as long as the dataset's, or drawn where it has none."""
    rows = [row for conversation in batch for row in conversation]
    prompts = count(tokenizer, [row.text for row in rows])
    answers = count(tokenizer, [row.answer for row in rows])
    _, of_answers = lengths_of(run)
    drawn = of_answers.draw(len(rows), HIGHEST * of_answers.mean, rng).tolist()
    measured = iter(
        row._replace(prompt_tokens=p, max_new_tokens=row.max_new_tokens or (a if row.answer else d))
        for row, p, a, d in zip(rows, prompts, answers, drawn, strict=True)
    )
    return [list(islice(measured, len(conversation))) for conversation in batch]


def _said(conversations: list[Conversation], run: RunConfig) -> list[Request]:
    requests = [
        _request(row, number, run.think_time if turn else 0.0, run)
        for number, conversation in enumerate(conversations)
        for turn, row in enumerate(conversation)
    ]
    return requests[: run.num_requests]


def _request(row: Row, conversation: int, think_s: float, run: RunConfig) -> Request:
    messages = row.messages if run.api == "chat" else ()
    return Request(row.text, row.prompt_tokens or 1, row.max_new_tokens or 1, messages, conversation, think_s)
